//! Processes under test, and a client that sends what it is told to.

use std::{
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    process::{Child, Command},
};

/// Long enough for the slowest machine; a test that gets here has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A port of a test's own where nobody listens: connections are refused until the socket does. A port that is only known to
/// have been free may be another test's by then, which would get what was meant for nobody.
pub(crate) fn silent_port() -> TcpSocket {
    hold(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// The same for a port that nobody listens on any more.
pub(crate) fn hold(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    // Connections of whoever listened may not have ended.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// From now on somebody does.
pub(crate) fn listen(socket: TcpSocket) -> TcpListener {
    socket.listen(1024).unwrap()
}

/// The Lambda binary.
pub(crate) fn lambda_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_lambda"))
}

/// A command for the container binary with nothing in its environment.
pub(crate) fn server_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_math-service"));
    command.env_clear();
    command
}

/// The container binary, serving on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts it with these settings and waits until it listens.
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        Self::run(server_command(), settings).await
    }

    /// The same for a command of the caller's own, which becomes the binary.
    pub(crate) async fn run(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let mut child = command
            .envs([("HOST", "127.0.0.1"), ("PORT", "0")])
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let first =
            tokio::time::timeout(PATIENCE, stdout.next_line()).await.expect("it says that it listens");
        let first: Value = serde_json::from_str(&first.unwrap().unwrap()).expect("a JSON line");
        let address = first["address"].as_str().expect("an address").parse().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let reader = tokio::spawn(async move {
            while let Ok(Some(line)) = stdout.next_line().await {
                sink.lock().unwrap().push(line);
            }
        });
        Self { address, child, lines, reader }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it is still running")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid().cast_signed()).unwrap(), signal).unwrap();
    }

    /// Waits until this event was logged so many times.
    pub(crate) async fn logged(&self, event: &str, times: usize) {
        let marker = format!("\"event\":\"{event}\"");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.lines.lock().unwrap().iter().filter(|line| line.contains(&marker)).count() < times {
            assert!(tokio::time::Instant::now() < deadline, "{event:?} is logged {times} times");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the end of the process and of its output.
    pub(crate) async fn exit(mut self) -> (ExitStatus, Vec<Value>) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        self.reader.await.unwrap();
        (status, log_lines(&self.lines))
    }

    /// Asks it to stop and waits until it did.
    pub(crate) async fn stop(self) -> Vec<Value> {
        self.signal(Signal::TERM);
        let (status, lines) = self.exit().await;
        assert_eq!(status.code(), Some(0));
        lines
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Every line must be JSON: that is the promise of the log.
pub(crate) fn log_lines(lines: &Mutex<Vec<String>>) -> Vec<Value> {
    let lines = lines.lock().unwrap();
    lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A request in the making: `request("POST", "/").header("a", "b").body("…")`.
pub(crate) struct Outgoing(Request<Full<Bytes>>);

/// A request with a `Host` header and nothing else.
pub(crate) fn request(method: &str, path: &str) -> Outgoing {
    let request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path.parse::<Uri>().unwrap_or_else(|error| panic!("{path}: {error}")))
        .header(header::HOST, "localhost")
        .body(Full::default())
        .unwrap();
    Outgoing(request)
}

/// An addition.
pub(crate) fn addition(body: impl Into<Bytes>) -> Outgoing {
    request("POST", "/").header("content-type", "application/json").body(body)
}

impl Outgoing {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = header::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        if name == header::HOST {
            self.0.headers_mut().insert(name, value);
        } else {
            self.0.headers_mut().append(name, value);
        }
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        *self.0.body_mut() = Full::new(body.into());
        self
    }

    /// Sends it on a connection of its own, over HTTP/1.1.
    pub(crate) async fn send(self, to: SocketAddr) -> Reply {
        let stream = TcpStream::connect(to).await.expect("it accepts connections");
        self.send_on(stream, Version::HTTP_11).await.expect("it answers")
    }

    pub(crate) async fn send_on<S>(self, stream: S, version: Version) -> hyper::Result<Reply>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let Self(mut request) = self;
        let answer = if version == Version::HTTP_2 {
            let uri = format!("http://localhost{}", request.uri());
            *request.uri_mut() = uri.parse().unwrap();
            *request.version_mut() = Version::HTTP_2;
            if request.headers().get(header::HOST).is_some_and(|host| host == "localhost") {
                request.headers_mut().remove(header::HOST);
            }
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        };
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply { status: parts.status, headers: parts.headers, body })
    }
}

/// A metric without labels.
pub(crate) async fn metric(server: SocketAddr, name: &str) -> f64 {
    let metrics = request("GET", "/metrics").send(server).await;
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is missing in:\n{}", metrics.text())).parse().unwrap()
}

/// Waits until a gauge shows so many slots in use.
pub(crate) async fn until_busy(server: SocketAddr, gauge: &str, slots: usize) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while metric(server, gauge).await as usize != slots {
        assert!(std::time::Instant::now() < deadline, "{slots} slots are busy");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
