//! A Lambda Runtime API for one process: it hands out the same event as often as it is told to and checks every answer.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::load::ANSWER;

const NEXT: &str = "/2018-06-01/runtime/invocation/next";
const RESPONSE_OR_ERROR: &str = "/2018-06-01/runtime/invocation/";

/// The Runtime API of one process.
#[derive(Debug)]
pub(crate) struct RuntimeApi {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    event: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Events that may still be handed out.
    allowed: u64,
    handed_out: u64,
    /// Since when the function waits for an event that it may not have yet.
    waiting: Option<Instant>,
    failure: Option<String>,
    closed: bool,
}

impl RuntimeApi {
    /// Starts to listen, on a free port.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn start(event: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { event, state: Mutex::default(), changed: Condvar::new() });
        let served = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if served.state().closed {
                    break;
                }
                let shared = served.clone();
                thread::spawn(move || {
                    if let Err(error) = shared.serve(stream) {
                        shared.change(|state| state.failure = Some(format!("{error:#}")));
                    }
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// Hands out `count` more events.
    pub(crate) fn allow(&self, count: u64) {
        self.shared.change(|state| {
            state.allowed += count;
            state.waiting = None;
        });
    }

    /// Waits until the function has answered all that it may have and asks for more, and says since when.
    ///
    /// # Errors
    /// When an answer is wrong or nothing happens for `patience`.
    pub(crate) fn wait_until_it_waits(&self, patience: Duration) -> Result<Instant> {
        let mut state = self.shared.state();
        loop {
            if let Some(failure) = &state.failure {
                bail!("{failure}");
            }
            if let Some(since) = state.waiting {
                return Ok(since);
            }
            let before = state.handed_out;
            let (changed, timeout) =
                self.shared.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = changed;
            let stuck = timeout.timed_out() && state.handed_out == before && state.waiting.is_none();
            ensure!(!stuck, "the function asked for nothing within {patience:?}");
        }
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.shared.change(|state| state.closed = true);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        while let Some((method, path, body)) = read_request(&mut reader)? {
            let came = Instant::now();
            let reply = match (method.as_str(), path.as_str()) {
                ("GET", NEXT) => match self.next(came) {
                    Some(number) => self.delivery(number),
                    None => return Ok(()),
                },
                ("POST", path) if path.starts_with(RESPONSE_OR_ERROR) => {
                    ensure!(
                        path.ends_with("/response"),
                        "the function failed: {}",
                        String::from_utf8_lossy(&body)
                    );
                    check(&body)?;
                    reply("202 Accepted", "", r#"{"status":"OK"}"#)
                }
                _ => bail!("unexpected {method} {path}: {}", String::from_utf8_lossy(&body)),
            };
            writer.write_all(&reply)?;
        }
        Ok(())
    }

    /// The number of the event to hand out, as soon as one may be; `None` when it is over.
    fn next(&self, came: Instant) -> Option<u64> {
        let mut state = self.state();
        if state.allowed == 0 {
            state.waiting = Some(came);
            self.changed.notify_all();
        }
        state = self
            .changed
            .wait_while(state, |state| state.allowed == 0 && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        state.allowed = state.allowed.checked_sub(1)?;
        state.handed_out += 1;
        Some(state.handed_out)
    }

    fn delivery(&self, number: u64) -> Vec<u8> {
        let deadline = SystemTime::now() + Duration::from_secs(60);
        let deadline = deadline.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let headers = format!(
            "lambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-{number:012x}\r\n\
             lambda-runtime-deadline-ms: {deadline}\r\n\
             lambda-runtime-invoked-function-arn: arn:aws:lambda:eu-west-2:123456789012:function:bench\r\n\
             lambda-runtime-trace-id: Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0\r\n"
        );
        reply("200 OK", &headers, &self.event)
    }
}

fn reply(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Method, path and body of the next request; `None` when the connection ends.
fn read_request(reader: &mut impl BufRead) -> Result<Option<(String, String, Vec<u8>)>> {
    let mut line = String::new();
    // A process that is killed resets its connections: that is an end like any other.
    if !reader.read_line(&mut line).is_ok_and(|length| length > 0) {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(ToOwned::to_owned);
    let (method, path) = words.next().zip(words.next()).context("no request line")?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse()?;
        }
        ensure!(!name.eq_ignore_ascii_case("transfer-encoding"), "chunked bodies are not supported");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((method, path, body)))
}

/// An answer in the form that HTTP APIs understand.
fn check(answer: &[u8]) -> Result<()> {
    let answer: Value = serde_json::from_slice(answer).context("the function's answer is not JSON")?;
    let right = answer["statusCode"] == json!(200)
        && answer["body"] == json!(ANSWER)
        && answer["isBase64Encoded"] != json!(true);
    ensure!(right, "wrong answer: {answer}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A function that asks for an event and answers it, `count` times.
    fn function(address: SocketAddr, answer: &'static str, count: usize) {
        thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            for _ in 0..count {
                stream.write_all(format!("GET {NEXT} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
                let (status, _, event) = read_request(&mut reader).unwrap().unwrap();
                assert_eq!((status.as_str(), event.as_slice()), ("HTTP/1.1", &b"{}"[..]));
                let length = answer.len();
                let head = format!(
                    "POST {RESPONSE_OR_ERROR}1/response HTTP/1.1\r\ncontent-length: {length}\r\n\r\n"
                );
                stream.write_all((head + answer).as_bytes()).unwrap();
                read_request(&mut reader).unwrap();
            }
            let _ = stream.write_all(format!("GET {NEXT} HTTP/1.1\r\n\r\n").as_bytes());
            thread::sleep(PATIENCE);
        });
    }

    #[test]
    fn events_are_handed_out_as_often_as_allowed() {
        let api = RuntimeApi::start("{}".into()).unwrap();
        function(api.address, r#"{"statusCode":200,"body":"{\"result\":15.0}"}"#, 3);
        let first = api.wait_until_it_waits(PATIENCE).unwrap();
        api.allow(3);
        assert!(api.wait_until_it_waits(PATIENCE).unwrap() > first);
        assert_eq!(api.shared.state().handed_out, 3);
    }

    #[test]
    fn a_wrong_answer_is_an_error() {
        let api = RuntimeApi::start("{}".into()).unwrap();
        function(api.address, r#"{"statusCode":500,"body":""}"#, 1);
        api.wait_until_it_waits(PATIENCE).unwrap();
        api.allow(1);
        let error = api.wait_until_it_waits(PATIENCE).unwrap_err();
        assert!(error.to_string().contains("wrong answer"), "{error}");
    }
}
