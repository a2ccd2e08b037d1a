//! A gateway on this machine: HTTP in front, the Lambda binary behind, AWS's events in between.
//!
//! ```text
//! client --HTTP--> serve --event--> one queue --Runtime API--> N processes of the Lambda binary
//!        <--------        <-answer-            <-------------
//! ```
//!
//! * [`events`] turns a request into the event of the chosen [`Front`] and an answer back into HTTP.
//! * [`runtime_api`] runs the processes as Lambda runs its environments, one invocation at a time each.
//! * This file joins the two; `main.rs` makes a program of it.

#![allow(dead_code, reason = "the tests and the program each use a part")]

mod events;
mod runtime_api;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use events::Front;
use events::{Failure, Reply};
use runtime_api::Functions;
pub(crate) use runtime_api::{InvokeError, Output};

/// How long answers in flight may take to reach their clients once the functions have stopped.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Pause after a failed accept, which mostly means that the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What to run and how to present it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The AWS service to imitate.
    pub(crate) front: Front,
    /// The Lambda binary.
    pub(crate) binary: PathBuf,
    /// How many processes of it to run; more requests than that wait in a queue.
    pub(crate) processes: usize,
    /// Variables for the function; of this process's own it inherits `PATH` and `HOME` alone.
    pub(crate) env: Vec<(String, String)>,
    /// Where to listen; port 0 picks a free one.
    pub(crate) listen: SocketAddr,
    /// After this long an invocation fails, its process is killed, and another takes its place.
    pub(crate) function_timeout: Duration,
    /// Where the function's stdout and stderr go.
    pub(crate) stdout: Output,
    /// Whether a REPORT line follows each invocation there, as in the function's log on Lambda.
    pub(crate) reports: bool,
}

impl Options {
    /// One silent process on a free port of the loopback interface, with the 30 s of an HTTP API.
    pub(crate) fn new(front: Front, binary: impl Into<PathBuf>) -> Self {
        Self {
            front,
            binary: binary.into(),
            processes: 1,
            env: Vec::new(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            function_timeout: Duration::from_secs(30),
            stdout: Output::Null,
            reports: false,
        }
    }
}

/// A running gateway. Dropping it kills the function's processes.
pub(crate) struct Gateway {
    address: SocketAddr,
    functions: Arc<Functions>,
    stop: CancellationToken,
    server: Mutex<JoinSet<()>>,
}

impl Gateway {
    /// Starts the processes and, once each has asked for its first invocation, the HTTP server.
    ///
    /// # Errors
    ///
    /// When the address is taken, the binary cannot be run, or a process ends or hangs before it asks.
    pub(crate) async fn start(options: Options) -> io::Result<Self> {
        let listener = TcpListener::bind(options.listen).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let front = options.front.clone();
        let functions = Arc::new(Functions::start(&options, stop.clone()).await?);
        let handler = {
            let functions = Arc::clone(&functions);
            move |request, peer| forward(front.clone(), Arc::clone(&functions), request, peer)
        };
        let mut server = JoinSet::new();
        server.spawn(serve(listener, handler, stop.clone().cancelled_owned()));
        Ok(Self { address, functions, stop, server: Mutex::new(server) })
    }

    /// The address that the HTTP server listens on.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, without a trailing slash.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a raw event to a function, past the HTTP server.
    ///
    /// # Errors
    ///
    /// When the function reports an error, dies, takes too long, or the event is too large.
    pub(crate) async fn invoke(&self, event: Value) -> Result<Value, InvokeError> {
        self.functions.invoke(&event).await
    }

    /// Shuts down as Lambda does and says how each process ended, in no particular order.
    ///
    /// Invocations in flight finish first. Then the processes are killed, as those are which registered no extension.
    pub(crate) async fn terminate(&self) -> Vec<ExitStatus> {
        self.stop.cancel();
        let statuses = self.functions.stopped().await;
        let server = std::mem::take(&mut *self.server.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::time::timeout(LAST_ANSWERS, server.join_all()).await;
        statuses
    }
}

/// Takes one request through a function.
async fn forward(front: Front, functions: Arc<Functions>, request: Request<Incoming>, peer: IpAddr) -> Reply {
    let head = request.method() == Method::HEAD;
    let reply = match answer(&front, &functions, request, peer).await {
        Ok(answer) => events::response(&front, &answer),
        Err(failure) => events::failure(&front, failure),
    };
    if head { without_body(reply) } else { reply }
}

/// The function's answer to a request, or the reason why there is none.
async fn answer(
    front: &Front,
    functions: &Functions,
    request: Request<Incoming>,
    peer: IpAddr,
) -> Result<Value, Failure> {
    let (parts, body) = request.into_parts();
    // A body is read to its end even when it is too large: a client that is still sending would meet a
    // reset instead of the 413.
    let body = body.collect().await.map_err(|_| Failure::BadRequest)?.to_bytes();
    let event = events::event(front, &parts, &body, peer)?;
    functions.invoke(&event).await.map_err(Failure::from)
}

/// What HEAD gets: the length of the body, but not the body.
fn without_body(reply: Reply) -> Reply {
    let (mut parts, body) = reply.into_parts();
    let length = hyper::body::Body::size_hint(&body).exact().unwrap_or_default();
    parts.headers.insert(header::CONTENT_LENGTH, length.into());
    Response::from_parts(parts, Full::default())
}

/// Serves HTTP/1.1 and cleartext HTTP/2 until `stop`, then lets the requests in flight finish.
///
/// hyper is used without a framework so that odd paths and headers arrive as they were sent.
async fn serve<H, F>(listener: TcpListener, handler: H, stop: impl Future<Output = ()>)
where
    H: Fn(Request<Incoming>, IpAddr) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    server.http2().timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // Without this, small answers wait for the acknowledgement of the ones before.
        let _ = stream.set_nodelay(true);
        let handler = handler.clone();
        let service = service_fn(move |request| {
            let reply = handler(request, peer.ip());
            async { Ok::<_, Infallible>(reply.await) }
        });
        let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
        connections.spawn(graceful.watch(connection));
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    graceful.shutdown().await;
}
