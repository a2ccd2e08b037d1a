//! Function processes and the Runtime API that each of them talks to.
//!
//! Every process has a Runtime API of its own, as every Lambda environment has, and all of them take from
//! one queue. A task owns a process and everything that can happen to it, so the states that Lambda's
//! documentation describes read from top to bottom in [`Environment::live`].

use std::future::pending;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Options, events, serve};

/// The most bytes in an event: `Request must be smaller than 6291456 bytes for the InvokeFunction operation`.
const EVENT_LIMIT: usize = 6_291_456;

/// The most bytes in an answer: `Exceeded maximum allowed payload size (6291556 bytes)`.
const ANSWER_LIMIT: usize = 6_291_556;

/// Lambda's limit for everything that a process does before it asks for its first invocation.
const INIT_LIMIT: Duration = Duration::from_secs(10);

/// The memory size, in MB, at which Lambda gives a whole core; a process here has one, if the machine has.
const MEMORY_MB: u32 = 1769;

const FUNCTION: &str = "gateway-function";
const ARN: &str = "arn:aws:lambda:eu-west-2:123456789012:function:gateway-function";

/// Where a function's stdout and stderr go.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    /// To the streams of this process.
    Inherit,
    /// Nowhere.
    Null,
    /// Line by line into a channel, the two streams interleaved as in the function's log group.
    Lines(mpsc::UnboundedSender<String>),
}

/// Why an invocation has no answer.
#[derive(Debug)]
pub(crate) enum InvokeError {
    /// The event is over Lambda's limit and was not sent.
    TooLarge,
    /// The function reported this error instead of an answer.
    Reported(Value),
    /// The process ended before it answered.
    Exited(ExitStatus),
    /// The process took longer than the function's timeout and was killed.
    TimedOut,
    /// The gateway is shutting down.
    Stopped,
}

type Outcome = Result<Value, InvokeError>;

/// An event on its way to whichever process asks next.
struct Invocation {
    event: Bytes,
    trace: String,
    outcome: oneshot::Sender<Outcome>,
}

/// The processes of one function.
pub(crate) struct Functions {
    queue: mpsc::UnboundedSender<Invocation>,
    environments: Mutex<JoinSet<io::Result<ExitStatus>>>,
}

impl Functions {
    /// Starts the processes and waits until each has asked for its first invocation.
    pub(crate) async fn start(options: &Options, stop: CancellationToken) -> io::Result<Self> {
        let (queue, receiver) = mpsc::unbounded_channel();
        let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
        let mut environments = JoinSet::new();
        let mut asked = Vec::new();
        for _ in 0..options.processes {
            let (ready, asking) = oneshot::channel();
            asked.push(asking);
            let environment = Environment {
                options: options.clone(),
                sender: queue.clone(),
                receiver: Arc::clone(&receiver),
                stop: stop.clone(),
                ready: Some(ready),
            };
            environments.spawn(environment.run());
        }
        for asking in asked {
            match tokio::time::timeout(INIT_LIMIT, asking).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(failed_start(&mut environments).await),
                Err(_) => {
                    let late = format!("the function asked for no invocation within {INIT_LIMIT:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, late));
                }
            }
        }
        Ok(Self { queue, environments: Mutex::new(environments) })
    }

    /// Hands an event to the next free process and waits for what becomes of it.
    pub(crate) async fn invoke(&self, event: &Value) -> Outcome {
        let trace = invocation_trace(event);
        let event = Bytes::from(event.to_string());
        if event.len() > EVENT_LIMIT {
            return Err(InvokeError::TooLarge);
        }
        let (outcome, result) = oneshot::channel();
        self.queue.send(Invocation { event, trace, outcome }).map_err(|_| InvokeError::Stopped)?;
        result.await.unwrap_or(Err(InvokeError::Stopped))
    }

    /// Waits until every process has ended, which they do once their token is cancelled.
    pub(crate) async fn stopped(&self) -> Vec<ExitStatus> {
        let mut environments =
            std::mem::take(&mut *self.environments.lock().unwrap_or_else(PoisonError::into_inner));
        let mut statuses = Vec::new();
        while let Some(ended) = environments.join_next().await {
            statuses.extend(ended.into_iter().flatten());
        }
        statuses
    }
}

/// Explains a process that ended, or never ran, before it asked for an invocation.
async fn failed_start(environments: &mut JoinSet<io::Result<ExitStatus>>) -> io::Error {
    match environments.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Ok(Ok(status))) => {
            io::Error::other(format!("the function ended before it asked for an invocation: {status}"))
        }
        _ => io::Error::other("the function could not be started"),
    }
}

/// The trace header of an invocation. Lambda adds a segment of its own to the root that the gateway chose.
fn invocation_trace(event: &Value) -> String {
    let root = events::trace_id(event).map_or_else(events::new_trace_id, ToOwned::to_owned);
    if root.contains("Parent=") {
        return root;
    }
    format!("{root};Parent={:016x};Sampled=0", fastrand::u64(..))
}

/// One place for a process, refilled whenever the process dies.
struct Environment {
    options: Options,
    sender: mpsc::UnboundedSender<Invocation>,
    receiver: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Invocation>>>,
    stop: CancellationToken,
    /// Taken when the first process asks for its first invocation.
    ready: Option<oneshot::Sender<()>>,
}

/// Why the life of a process is over.
enum End {
    /// The gateway stops; the process still runs.
    Stopping,
    /// The process ended by itself or was killed for taking too long.
    Died { initialised: bool },
}

impl Environment {
    /// Keeps a process running until the gateway stops.
    async fn run(mut self) -> io::Result<ExitStatus> {
        loop {
            let mut process = Process::spawn(&self.options).await?;
            match self.live(&mut process).await {
                End::Stopping => return process.shut_down().await,
                End::Died { initialised: true } => {}
                // A first start that fails is the caller's to report: `ready` is dropped with `self`.
                End::Died { initialised: false } if self.ready.is_some() => {
                    return process.child.wait().await;
                }
                End::Died { initialised: false } => {
                    let status = process.child.wait().await?;
                    if !self.fail_one(status).await {
                        return Ok(status);
                    }
                }
            }
        }
    }

    /// Feeds invocations to a process until one of the two gives up.
    async fn live(&mut self, process: &mut Process) -> End {
        let mut initialised = false;
        let mut unreported_init = None;
        loop {
            let next = tokio::select! {
                next = process.next() => next,
                () = self.stop.cancelled() => return End::Stopping,
            };
            let Some(next) = next else { return End::Died { initialised } };
            if !initialised {
                unreported_init = Some(process.began.elapsed());
            }
            initialised = true;
            if let Some(ready) = self.ready.take() {
                let _ = ready.send(());
            }
            let invocation = tokio::select! {
                biased;
                () = self.stop.cancelled() => return End::Stopping,
                _ = process.child.wait() => return End::Died { initialised },
                Some(invocation) = self.take() => invocation,
            };
            let id = events::uuid();
            if next.send(self.delivery(&id, &invocation)).is_err() {
                // The process went away while the event was in our hands; the next one to ask gets it.
                let _ = self.sender.send(invocation);
                continue;
            }
            let delivered = Instant::now();
            let outcome = process.answer(&id, self.options.function_timeout).await;
            let took = delivered.elapsed();
            let survived = !matches!(outcome, Err(InvokeError::Exited(_) | InvokeError::TimedOut));
            let _ = invocation.outcome.send(outcome);
            if self.options.reports {
                self.options.stdout.write(report(
                    &id,
                    took,
                    process.most_memory_mb(),
                    unreported_init.take(),
                ));
            }
            if !survived {
                return End::Died { initialised };
            }
        }
    }

    async fn take(&self) -> Option<Invocation> {
        self.receiver.lock().await.recv().await
    }

    /// After a failed restart Lambda tries again for the next invocation, and fails that one if need be.
    ///
    /// Says whether there was such an invocation, as opposed to a gateway that stops.
    async fn fail_one(&self, status: ExitStatus) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            Some(invocation) = self.take() => {
                let _ = invocation.outcome.send(Err(InvokeError::Exited(status)));
                true
            }
        }
    }

    /// The answer to a process that asked for the next invocation.
    fn delivery(&self, id: &str, invocation: &Invocation) -> Response<Full<Bytes>> {
        let deadline = SystemTime::now() + self.options.function_timeout;
        let deadline = deadline.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Response::builder()
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", id)
            .header("lambda-runtime-deadline-ms", deadline.to_string())
            .header("lambda-runtime-invoked-function-arn", ARN)
            .header("lambda-runtime-trace-id", &invocation.trace)
            .body(Full::new(invocation.event.clone()))
            // The trace id comes from an event that a test may have made up.
            .unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

/// A running function and its side of the Runtime API.
struct Process {
    child: Child,
    calls: mpsc::UnboundedReceiver<Call>,
    /// When it was started.
    began: Instant,
    /// Serves the Runtime API for as long as the process is of interest.
    _api: JoinSet<()>,
}

/// What a process has to say.
enum Call {
    /// It is free; the answer to its request for an invocation goes here.
    Next(oneshot::Sender<Response<Full<Bytes>>>),
    /// It is done with the invocation of this id.
    Done(String, Outcome),
}

impl Process {
    /// Starts the binary with the variables that Lambda sets and no others but those of the options.
    async fn spawn(options: &Options) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let missing = |error| io::Error::other(format!("{}: {error}", options.binary.display()));
        let binary = options.binary.canonicalize().map_err(missing)?;
        let began = Instant::now();
        #[expect(
            clippy::disallowed_methods,
            reason = "the process's own environment, less what would be settings"
        )]
        let inherited = std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME");
        let mut child = Command::new(&binary)
            .env_clear()
            .envs(inherited)
            .envs(lambda_variables(address, &binary))
            .envs(options.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(options.stdout.stdio())
            .stderr(options.stdout.stdio())
            // A ctrl-C in the terminal is for the gateway, which then ends its functions in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        options.stdout.follow(&mut child);
        let (sender, calls) = mpsc::unbounded_channel();
        let mut api = JoinSet::new();
        api.spawn(serve(listener, move |request, _| runtime_api(sender.clone(), request), pending()));
        Ok(Self { child, calls, began, _api: api })
    }

    /// The next thing that the process says, or how it ended.
    async fn call(&mut self) -> io::Result<Result<Call, ExitStatus>> {
        tokio::select! {
            // What a process said before it died still counts.
            biased;
            Some(call) = self.calls.recv() => Ok(Ok(call)),
            status = self.child.wait() => status.map(Err),
        }
    }

    /// Waits until the process is free; `None` when it ended instead.
    async fn next(&mut self) -> Option<oneshot::Sender<Response<Full<Bytes>>>> {
        loop {
            if let Call::Next(next) = self.call().await.ok()?.ok()? {
                return Some(next);
            }
        }
    }

    /// Waits for the answer to one invocation, and kills a process that takes too long.
    async fn answer(&mut self, id: &str, limit: Duration) -> Outcome {
        let answered = tokio::time::timeout(limit, async {
            loop {
                match self.call().await {
                    Ok(Ok(Call::Done(of, outcome))) if of == id => return outcome,
                    Ok(Ok(_)) => {}
                    Ok(Err(status)) => return Err(InvokeError::Exited(status)),
                    Err(_) => return Err(InvokeError::Stopped),
                }
            }
        });
        match answered.await {
            Ok(outcome) => outcome,
            Err(_) => {
                let _ = self.child.kill().await;
                Err(InvokeError::TimedOut)
            }
        }
    }

    /// The most memory that it had, in MB; 0 on a machine without /proc.
    fn most_memory_mb(&self) -> u64 {
        let status =
            self.child.id().and_then(|id| std::fs::read_to_string(format!("/proc/{id}/status")).ok());
        let kilobytes = status.as_deref().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        kilobytes.unwrap_or_default().div_ceil(1024)
    }

    /// Ends the process as Lambda does one that registered no extension.
    async fn shut_down(mut self) -> io::Result<ExitStatus> {
        self.child.kill().await?;
        self.child.wait().await
    }
}

/// What Lambda writes to the function's log after each invocation: the first of a process has its INIT, also where that
/// was over before anybody asked.
fn report(id: &str, took: Duration, most_mb: u64, init: Option<Duration>) -> String {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let billed = ms(took + init.unwrap_or_default()).ceil().max(1.0);
    let init = init.map(|init| format!("Init Duration: {:.2} ms\t", ms(init))).unwrap_or_default();
    format!(
        "REPORT RequestId: {id}\tDuration: {:.2} ms\tBilled Duration: {billed} ms\tMemory Size: {MEMORY_MB} MB\t\
         Max Memory Used: {most_mb} MB\t{init}",
        ms(took)
    )
}

impl Output {
    /// Writes a line of the gateway's own among those of the function.
    fn write(&self, line: String) {
        match self {
            // In one piece, or it would be torn by the function's.
            Self::Inherit => {
                let _ = io::stdout().lock().write_all((line + "\n").as_bytes());
            }
            Self::Null => {}
            Self::Lines(lines) => {
                let _ = lines.send(line);
            }
        }
    }

    fn stdio(&self) -> Stdio {
        match self {
            Self::Inherit => Stdio::inherit(),
            Self::Null => Stdio::null(),
            Self::Lines(_) => Stdio::piped(),
        }
    }

    /// Forwards the streams of a child until it closes them.
    fn follow(&self, child: &mut Child) {
        let Self::Lines(lines) = self else { return };
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(forward_lines(stdout, lines.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward_lines(stderr, lines.clone()));
        }
    }
}

async fn forward_lines(stream: impl AsyncRead + Unpin, lines: mpsc::UnboundedSender<String>) {
    let mut stream = BufReader::new(stream).split(b'\n');
    while let Ok(Some(line)) = stream.next_segment().await {
        // Nobody listening is no reason to stop reading: the function would block on a full pipe.
        let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
    }
}

/// The variables that a custom runtime finds on Lambda and that matter to a function.
fn lambda_variables(api: SocketAddr, binary: &Path) -> Vec<(&'static str, String)> {
    let root = binary.parent().unwrap_or(Path::new("/"));
    vec![
        ("AWS_LAMBDA_RUNTIME_API", api.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", FUNCTION.into()),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".into()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", MEMORY_MB.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".into()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{FUNCTION}")),
        ("AWS_LAMBDA_LOG_STREAM_NAME", format!("gateway/{}", api.port())),
        ("AWS_REGION", "eu-west-2".into()),
        ("_HANDLER", "bootstrap".into()),
        ("LAMBDA_TASK_ROOT", root.display().to_string()),
    ]
}

/// The Runtime API.
async fn runtime_api(
    calls: mpsc::UnboundedSender<Call>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return status(StatusCode::BAD_REQUEST) };
    let body = body.to_bytes();
    let path: Vec<_> = parts.uri.path().trim_start_matches('/').split('/').collect();
    match (parts.method.as_str(), path.as_slice()) {
        ("GET", ["2018-06-01", "runtime", "invocation", "next"]) => next_invocation(&calls).await,
        ("POST", ["2018-06-01", "runtime", "invocation", id, "response"]) => answered(&calls, id, &body),
        ("POST", ["2018-06-01", "runtime", "invocation", id, "error"]) => {
            let _ = calls.send(Call::Done((*id).into(), Err(InvokeError::Reported(document(&body)))));
            status(StatusCode::ACCEPTED)
        }
        // The process exits after this, which is what counts.
        ("POST", ["2018-06-01", "runtime", "init", "error"]) => status(StatusCode::ACCEPTED),
        _ => status(StatusCode::NOT_FOUND),
    }
}

async fn next_invocation(calls: &mpsc::UnboundedSender<Call>) -> Response<Full<Bytes>> {
    let (sender, delivery) = oneshot::channel();
    let _ = calls.send(Call::Next(sender));
    match delivery.await {
        Ok(delivery) => delivery,
        // Lambda leaves a process that it shuts down without an answer; an error would make it panic.
        Err(_) => pending().await,
    }
}

fn answered(calls: &mpsc::UnboundedSender<Call>, id: &str, body: &[u8]) -> Response<Full<Bytes>> {
    let too_large = body.len() > ANSWER_LIMIT;
    let outcome = if too_large {
        Err(InvokeError::Reported(json!({
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": format!("Response payload size exceeded maximum allowed payload size ({ANSWER_LIMIT} bytes)."),
        })))
    } else {
        Ok(document(body))
    };
    let _ = calls.send(Call::Done(id.into(), outcome));
    status(if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::ACCEPTED })
}

/// What a function posted. Lambda passes on what is not JSON, and HTTP APIs show it as it is.
fn document(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let body = json!({ "status": status.as_str() }).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
