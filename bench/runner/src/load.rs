//! The load generator: pre-encoded requests on keep-alive connections, as little work a request as possible.
//!
//! Two ways to load. A closed loop sends on each connection as soon as its answer came: it finds out what
//! a server can do at most. An open loop sends at a constant rate, whatever the server does, and counts
//! each latency from the time at which the request was due: a server that stalls is charged for every
//! request that it made wait, also for those that could not be sent meanwhile (no coordinated omission).

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::SocketAddr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::{
    machine::{Plan, Ticks},
    process::{self, Clocks, pin_this_thread},
    response,
};

/// The request's body and the only right answer to it.
pub(crate) const BODY: &str = r#"{"a":10,"b":5}"#;
/// See [`BODY`].
pub(crate) const ANSWER: &str = r#"{"result":15.0}"#;

/// How long answers may be missing before the run is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// The share of a rate that counts as having kept it: the last answers come after the window.
const KEPT_UP: f64 = 0.99;

/// How long a thread sleeps in epoll at most, in a closed loop: it has to notice the end of the window.
const NAP: Duration = Duration::from_millis(10);

/// What each request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// The sum of [`BODY`].
    Addition,
    /// The next number of a sequence; each connection has its own, which begins with the run.
    Next,
}

/// What to send.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) work: Work,
    pub(crate) connections: usize,
    /// Requests a second; `None` is a closed loop.
    pub(crate) rate: Option<f64>,
    /// Load before the measurement begins.
    pub(crate) warm_up: Duration,
    /// The measurement.
    pub(crate) window: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Answers within the window.
    pub(crate) requests: u64,
    /// The window's length as measured.
    pub(crate) elapsed: Duration,
    /// CPU time that the server used within the window.
    pub(crate) server_cpu: Duration,
    /// Per cent of the cores, the server's and the generator's, that others used or the host took.
    pub(crate) others_percent: f64,
    /// Nanoseconds from due to answered; open loop only.
    pub(crate) latency: Histogram<u64>,
}

impl Outcome {
    pub(crate) fn rps(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn cpu_us(&self) -> f64 {
        self.server_cpu.as_secs_f64() * 1e6 / self.requests as f64
    }

    pub(crate) fn busy_percent(&self) -> f64 {
        100.0 * self.server_cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    /// Whether the latencies say something about the server. When answers came more slowly than requests
    /// were due and yet the server had time left, the generator did not get enough of its core.
    pub(crate) fn kept_up(&self, rate: f64, saturated_percent: f64) -> bool {
        self.rps() >= KEPT_UP * rate || self.busy_percent() >= saturated_percent
    }

    /// A quantile of the latency, in microseconds.
    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// Loads a server and measures it.
///
/// # Errors
/// When a connection or an answer fails: a server that errs cannot be compared.
pub(crate) fn run(load: &Load, plan: &Plan, clocks: &Clocks) -> Result<Outcome> {
    let threads = plan.generator_threads().min(load.connections);
    let barrier = Barrier::new(threads);
    let parts = thread::scope(|scope| {
        let barrier = &barrier;
        let threads: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    let connected = pin_this_thread(&plan.generator)
                        .map_err(Into::into)
                        .and_then(|()| Worker::connect(load, number, threads));
                    // Reached whatever happened: the other threads wait here, too.
                    barrier.wait();
                    let nothing = Clocks::default();
                    connected?.run(if number == 0 { clocks } else { &nothing }, &plan.all())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a load thread panicked"))?)
            .collect::<Result<Vec<Outcome>>>()
    })?;
    let mut parts = parts.into_iter();
    let mut total = parts.next().context("no load thread")?;
    for part in parts {
        total.requests += part.requests;
        total.latency += part.latency;
    }
    ensure!(total.requests > 0, "no answer within the window");
    Ok(total)
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// How the right answer begins, and its whole where it is the same each time.
    expected: Vec<u8>,
    /// Answers so far.
    answers: u64,
    work: Work,
    /// The beginning of an answer, in the rare case that it comes in pieces.
    pieces: Vec<u8>,
    due: Instant,
}

/// One thread's connections and its share of the rate.
struct Worker<'a> {
    load: &'a Load,
    interval: Option<Duration>,
    poll: Poll,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
}

impl<'a> Worker<'a> {
    fn connect(load: &'a Load, number: usize, threads: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let share = load.connections / threads + usize::from(number < load.connections % threads);
        let mut connections = Vec::with_capacity(share);
        for token in 0..share {
            let stream = std::net::TcpStream::connect(load.address).context("connecting")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(token), Interest::READABLE)?;
            connections.push(Connection::new(stream, load, &format!("{number:08}-{token:08}")));
        }
        Ok(Self {
            load,
            interval: load.rate.map(|rate| Duration::from_secs_f64(threads as f64 / rate)),
            poll,
            idle: (0..connections.len()).collect(),
            connections,
        })
    }

    fn run(mut self, clocks: &Clocks, cores: &[usize]) -> Result<Outcome> {
        let start = Instant::now();
        let (begin, end) = (start + self.load.warm_up, start + self.load.warm_up + self.load.window);
        let mut due = start;
        let mut last_answer = start;
        let mut events = Events::with_capacity(1024);
        let mut latency = Histogram::new(3)?;
        let (mut requests, mut began, mut ended) = (0, None, None);
        loop {
            let now = Instant::now();
            if began.is_none() && now >= begin {
                began = Some((now, clocks.read(), process::own_cpu(), Ticks::of(cores)?));
            }
            if ended.is_none() && now >= end {
                ended = Some((now, clocks.read(), process::own_cpu(), Ticks::of(cores)?));
            }
            // An open loop also sends what was due within the window, and waits for the answers.
            let is_settled = due >= end && self.idle.len() == self.connections.len();
            if ended.is_some() && (self.interval.is_none() || is_settled) {
                break;
            }
            ensure!(now - last_answer < PATIENCE, "no answer for {PATIENCE:?}");

            match self.interval {
                None => {
                    while let Some(connection) = self.idle.pop_front() {
                        self.send(connection, now)?;
                    }
                }
                Some(interval) => {
                    while due <= now
                        && due < end
                        && let Some(connection) = self.idle.pop_front()
                    {
                        self.send(connection, due)?;
                        due += interval;
                    }
                }
            }
            // In an open loop this thread never sleeps: waking up late would be counted as latency.
            let nap = if self.interval.is_some() { Duration::ZERO } else { NAP };
            match self.poll.poll(&mut events, Some(nap)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                let Token(number) = event.token();
                let connection = &mut self.connections[number];
                if !connection.receive()? {
                    continue;
                }
                self.idle.push_back(number);
                if self.interval.is_some() {
                    last_answer = Instant::now();
                    if (begin..end).contains(&connection.due) {
                        latency.record(u64::try_from((last_answer - connection.due).as_nanos())?)?;
                    }
                } else {
                    last_answer = now;
                }
                requests += u64::from(began.is_some() && ended.is_none());
            }
        }
        let (
            Some((began, cpu_before, own_before, ticks_before)),
            Some((ended, cpu_after, own_after, ticks_after)),
        ) = (began, ended)
        else {
            bail!("the window never ended");
        };
        let (elapsed, server_cpu) = (ended - began, cpu_after - cpu_before);
        let ours = (server_cpu + own_after - own_before).as_secs_f64() / elapsed.as_secs_f64();
        let ours_percent = 100.0 * ours / cores.len() as f64;
        // Ticks are coarser than clocks: without others the difference may come out below zero.
        let others_percent = (ticks_after.used_percent_since(ticks_before) - ours_percent).max(0.0);
        Ok(Outcome { requests, elapsed, server_cpu, others_percent, latency })
    }

    fn send(&mut self, number: usize, due: Instant) -> Result<()> {
        let connection = &mut self.connections[number];
        connection.due = due;
        let sent = connection.stream.write(&connection.request).context("sending")?;
        ensure!(sent == connection.request.len(), "the socket took a part of a request only");
        Ok(())
    }
}

impl Connection {
    fn new(stream: TcpStream, load: &Load, name: &str) -> Self {
        let Load { address, work, connections, .. } = *load;
        let request = match work {
            Work::Addition => response::request(address, BODY),
            // A key's shortest length, with the number of connections in it: runs differ in that.
            Work::Next => response::next_request(address, &format!("bench-{connections:08}-{name}")),
        };
        let (pieces, due) = (Vec::new(), Instant::now());
        let mut connection = Self { stream, request, expected: Vec::new(), answers: 0, work, pieces, due };
        connection.expect();
        connection
    }

    fn is_right(&self, body: &[u8]) -> bool {
        match self.work {
            Work::Addition => body == self.expected,
            Work::Next => body.starts_with(&self.expected),
        }
    }

    /// Knows what the next answer has to be. The number itself is not checked: its index is.
    fn expect(&mut self) {
        self.expected.clear();
        match self.work {
            Work::Addition => self.expected.extend_from_slice(ANSWER.as_bytes()),
            Work::Next => {
                self.expected.extend_from_slice(format!(r#"{{"index":{},"#, self.answers).as_bytes())
            }
        }
    }

    /// Whether the answer is complete now. Events are edge-triggered: a read that does not fill the buffer
    /// has emptied the socket, and the next answer raises the next event.
    fn receive(&mut self) -> Result<bool> {
        let mut buffer = [0; 4096];
        let length = match self.stream.read(&mut buffer) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("receiving"),
        };
        let received = &buffer[..length];
        let bytes = if self.pieces.is_empty() {
            received
        } else {
            self.pieces.extend_from_slice(received);
            &self.pieces
        };
        match response::parse(bytes)? {
            Some(answer) if answer.status == b"200" && self.is_right(answer.body) => {
                self.pieces.clear();
                self.answers += 1;
                if self.work == Work::Next {
                    self.expect();
                }
                Ok(true)
            }
            Some(_) => bail!("wrong answer: {}", String::from_utf8_lossy(bytes)),
            None => {
                ensure!(length < buffer.len(), "an answer of {length} bytes and more");
                if self.pieces.is_empty() {
                    self.pieces.extend_from_slice(received);
                }
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::machine;

    /// Answers one request at a time on each connection, the first one late.
    fn server(answer: &'static str, first: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                thread::spawn(move || {
                    let mut delay = first;
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).unwrap_or(0) > 0 {
                        thread::sleep(delay);
                        delay = Duration::ZERO;
                        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len());
                        // In two pieces, as a server may.
                        let _ = stream.write_all(head.as_bytes());
                        let _ = stream.write_all(answer.as_bytes());
                    }
                });
            }
        });
        address
    }

    fn load(address: SocketAddr, work: Work, rate: Option<f64>) -> Result<Outcome> {
        let load = Load {
            address,
            work,
            connections: 1,
            rate,
            warm_up: Duration::ZERO,
            window: Duration::from_millis(400),
        };
        run(&load, &machine::plan(1).unwrap(), &Clocks::default())
    }

    #[test]
    fn an_open_loop_charges_a_stall_to_every_request_that_it_delayed() {
        let outcome = load(server(ANSWER, Duration::from_millis(200)), Work::Addition, Some(1000.0)).unwrap();
        // The first 200 of 400 waited, 100 ms on average, though only one was under way.
        assert_eq!(outcome.latency.len(), 400);
        let quarter_waited_ms = outcome.latency_us(0.75) / 1e3;
        assert!(quarter_waited_ms > 90.0, "{quarter_waited_ms}");
    }

    #[test]
    fn a_closed_loop_counts_answers() {
        assert!(load(server(ANSWER, Duration::ZERO), Work::Addition, None).unwrap().requests > 100);
    }

    #[test]
    fn a_wrong_answer_ends_the_run() {
        let error = load(server(r#"{"result":16.0}"#, Duration::ZERO), Work::Addition, None).unwrap_err();
        assert!(error.to_string().contains("wrong answer"), "{error}");
    }

    #[test]
    fn a_sequence_that_does_not_move_on_ends_the_run() {
        let stuck = server(r#"{"index":0,"value":"0"}"#, Duration::ZERO);
        let error = load(stuck, Work::Next, None).unwrap_err();
        assert!(error.to_string().contains("wrong answer"), "{error}");
    }
}
