//! The container: a TCP listener, HTTP/1 and HTTP/2 on one port, and a drain that loses nothing.

use std::{
    convert::{Infallible, identity},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Version, header},
    response::Response,
};
use futures_util::FutureExt;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ipnet::IpNet;
use prometheus::IntGauge;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

use super::client_stream::{ClientStream, Exchanges, Patience, WatchedBody};
use crate::{
    app::App,
    config::Config,
    http::{
        client_ip,
        scheme::{OverTls, forwarded_https},
        stream,
    },
    lifecycle::{Lifecycle, Phase},
    telemetry::metrics::{Counted, Metrics},
};

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long answers that were cut short may take to reach their clients, and what goes on beside them to end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long handshakes that began before the end may take to complete: a round trip, amply.
const HANDSHAKES: Duration = Duration::from_millis(100);

/// How often an HTTP/2 client has to prove that it is still there.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// The largest head of an HTTP/1 request, in bytes, and so the most that a connection holds of one before it counts
/// towards `MAX_IN_FLIGHT`: hyper would take 400 KiB. Room for the longest token and as much again; HTTP/2's is 16 KiB.
/// It also bounds what is read of a body, and gathered of an answer, at once.
const LARGEST_HEAD: usize = 32 * 1024;

/// Of so many places for connections one is passed on quickly, however many others idle connections hold.
const PASSED_ON: usize = 10;

/// How long a client may take to send a request in such a place: a few round trips.
const HASTE: Duration = Duration::from_secs(1);

/// Tells an HTTP/1 client that the connection ends with this answer.
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Connections that may wait to be accepted: a burst beyond it would be reset. The system may allow
/// fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Listens on `host`, an address or a name, and `port`.
///
/// # Errors
/// When the name resolves to nothing that can be listened on: the last address's error.
pub async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((host, port)).await? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    // A restart must not wait for the connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves `app` on `listener` until `terminate` completes, then drains and returns.
pub async fn serve(listener: TcpListener, app: App, config: &Config, terminate: impl Future<Output = ()>) {
    let places = Places::new(config.max_connections, app.metrics());
    let server = Arc::new(Server {
        lifecycle: app.lifecycle().clone(),
        app,
        trusted_proxies: config.trusted_proxies.clone(),
        patience: Patience {
            head: config.header_read_timeout,
            idle: config.keep_alive_timeout,
            write: config.request_timeout,
        },
        connections: TaskTracker::new(),
        places,
    });
    server.lifecycle.advance(Phase::Ready);
    let beside = tokio::spawn({
        let app = server.app.clone();
        async move { app.run_beside().await }
    });
    server.accept_until(&listener, terminate).await;

    tracing::info!("Draining");
    server.lifecycle.advance(Phase::Draining);
    server.accept_until(&listener, sleep(config.drain_delay)).await;
    turn_away(&listener);
    server.accept_until(&listener, sleep(HANDSHAKES)).await;
    let drain_ends = Instant::now() + config.drain_timeout;
    // Without file descriptors it takes until some connections have ended.
    let _ = timeout_at(drain_ends, server.accept_what_is_queued(listener)).await;
    server.finish(drain_ends, beside).await;
}

struct Server {
    app: App,
    lifecycle: Lifecycle,
    trusted_proxies: Vec<IpNet>,
    patience: Patience,
    connections: TaskTracker,
    places: Places,
}

/// `MAX_CONNECTIONS`, given out to connections.
///
/// Where there is no place, nothing is accepted: clients wait in the kernel's queue, which costs no memory of ours. To tell
/// each of them 503, a place would be needed to read its request in. But nobody may wait long, least of all a probe of
/// Kubernetes, which would restart a pod for having many idle clients: so the last places are passed on quickly. A probe waits as many
/// seconds as tenths of the places wait before it.
struct Places {
    free: Arc<Semaphore>,
    /// As many as these are passed on quickly.
    last: usize,
    open: Option<IntGauge>,
}

impl Places {
    fn new(places: usize, metrics: &Metrics) -> Self {
        let places = places.min(Semaphore::MAX_PERMITS);
        // It could only fail for an app that is served twice, and an uncounted connection is better than none.
        let help = "Connections open now, idle ones and probes included.";
        let open = metrics.gauge("http_server_open_connections", help);
        let open = open.inspect_err(|error| tracing::warn!(%error, "Connections are not counted")).ok();
        Self { free: Arc::new(Semaphore::new(places)), last: places.div_ceil(PASSED_ON), open }
    }

    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        self.free.clone().acquire_owned().await.ok()
    }

    fn are_few(&self) -> bool {
        self.free.available_permits() < self.last
    }
}

/// A connection's place.
struct Place {
    patience: Patience,
    is_last: bool,
    /// Given back with the place.
    _taken: Option<OwnedSemaphorePermit>,
    /// Counted until then.
    _open: Option<Counted>,
}

impl Server {
    async fn accept_until(self: &Arc<Self>, listener: &TcpListener, end: impl Future<Output = ()>) {
        tokio::pin!(end);
        loop {
            tokio::select! {
                accepted = self.accept(listener) => match accepted {
                    Ok((stream, peer, place)) => self.spawn(stream, peer, place),
                    Err(error) => back_off(&error).await,
                },
                () = &mut end => return,
            }
        }
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr, Place)> {
        let taken = self.places.take().await;
        let (stream, peer) = listener.accept().await?;
        Ok((stream, peer, self.place(taken)))
    }

    fn place(&self, taken: Option<OwnedSemaphorePermit>) -> Place {
        let Patience { head, idle, write } = self.patience;
        let is_last = self.places.are_few();
        let patience = match is_last {
            true => Patience { head: head.min(HASTE), idle: idle.min(HASTE), write },
            false => self.patience,
        };
        Place { patience, is_last, _taken: taken, _open: self.places.open.as_ref().map(Counted::by) }
    }

    /// Connections that the kernel completed but nobody accepted yet would be reset by closing the
    /// listener. tokio's readiness may be stale, so the system itself is asked until it has no more.
    async fn accept_what_is_queued(self: &Arc<Self>, listener: TcpListener) {
        let Ok(listener) = listener.into_std() else { return };
        loop {
            let taken = self.places.take().await;
            match listener.accept() {
                Ok((stream, peer)) => {
                    let place = self.place(taken);
                    let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                    stream.map_or_else(
                        |error| tracing::warn!(%error, "Lost a connection"),
                        |s| self.spawn(s, peer, place),
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => back_off(&error).await,
            }
        }
    }

    /// Waits for the connections and for what goes on beside them, at the same time: one after the other they could take
    /// twice as long, and whoever stops the process allows 5 s beyond `DRAIN_DELAY` and `DRAIN_TIMEOUT` for all that is left.
    async fn finish(&self, drain_ends: Instant, beside: impl Future) {
        tokio::join!(self.finish_connections(drain_ends), timeout(LAST_WORDS, beside).map(drop));
    }

    async fn finish_connections(&self, drain_ends: Instant) {
        self.connections.close();
        if timeout_at(drain_ends, self.connections.wait()).await.is_err() {
            self.lifecycle.advance(Phase::Cut);
            if timeout(LAST_WORDS, self.connections.wait()).await.is_err() {
                tracing::warn!(
                    connections = self.connections.len(),
                    "Closed connections that did not finish"
                );
            }
        }
    }

    fn spawn(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place) {
        self.connections.spawn(self.clone().connection(stream, peer, place, Instant::now()));
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
        accepted: Instant,
    ) {
        // Answers are small and complete: waiting to fill a packet only adds latency.
        let _ = stream.set_nodelay(true);
        let is_http2 = tokio::select! {
            spoken = speaks_http2(&stream) => spoken.ok(),
            () = sleep_until(accepted + place.patience.head) => None,
            () = self.lifecycle.reached(Phase::Cut) => None,
        };
        match is_http2 {
            Some(true) => self.http2(stream, peer, &place).await,
            Some(false) => self.http1(stream, peer, &place, accepted).await,
            None => {}
        }
    }

    async fn http1(&self, stream: TcpStream, peer: SocketAddr, place: &Place, accepted: Instant) {
        let (exchanges, is_last) = (Exchanges::default(), place.is_last);
        let io = ClientStream::http1(stream, exchanges.clone(), place.patience, accepted);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let exchange = exchanges.begin();
            let request = request.map(|body| Body::new(WatchedBody::new(body, exchanges.clone())));
            self.answer(request, peer).map(|mut response| {
                // A stream ends with its connection: idle afterwards, it would hold up a drain.
                if is_last || !exchanges.has_read_body() || stream::is_stream(response.body()) {
                    response.headers_mut().insert(header::CONNECTION, CLOSE);
                }
                Ok::<_, Infallible>(stream::hold(response, exchange, identity))
            })
        });
        let connection = http1::Builder::new()
            // The stream keeps the time.
            .header_read_timeout(None)
            // Answers are small: copying one into a buffer is cheaper than a vectored write.
            .writev(false)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            _ = &mut connection => {}
            // An idle connection stays open during the drain, to answer one more request with
            // `Connection: close`; now is the end of that.
            () = self.lifecycle.reached(Phase::Cut) => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }

    async fn http2(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, place: &Place) {
        // HTTP/2 answers each request in a task of its own, which needs a share in the server.
        let exchanges = Exchanges::default();
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (server, exchange) = (self.clone(), exchanges.begin());
            async move {
                let response = server.answer(request.map(Body::new), peer).await;
                Ok::<_, Infallible>(stream::hold(response, exchange, identity))
            }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING)
            .serve_connection(TokioIo::new(ClientStream::http2(stream, place.patience)), service);
        tokio::pin!(connection);
        tokio::select! {
            biased;
            _ = &mut connection => return,
            () = self.lifecycle.reached(Phase::Draining) => {}
            () = exchanges.unused(place.patience) => {}
            () = sleep(HASTE), if place.is_last => {}
        }
        // GOAWAY: streams that are open, or on their way, are still answered.
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = &mut connection => {}
            // A client that keeps the connection open all the same has nothing more to get here.
            () = exchanges.unused(place.patience) => {}
        }
    }
}

/// From now on, new connections are not even begun: the kernel ignores their first packet, and the
/// client's next try, a second later, meets a closed port. Closing the listener at once would reset
/// the connections that complete between its last accept and its end, and requests sent on them.
///
/// Where the filter cannot be had, that moment is short, and what it costs is told.
fn turn_away(listener: &TcpListener) {
    #[cfg(target_os = "linux")]
    {
        use socket2::{SockFilter, SockRef};
        // Classic BPF over the TCP header (RFC 9293 §3.1): drop what has SYN and not ACK, keep the rest.
        const LOAD_BYTE: u16 = 0x30;
        const AND: u16 = 0x54;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        const FLAGS: u32 = 13;
        const SYN: u32 = 0x02;
        const ACK: u32 = 0x10;
        let filter = [
            SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
            SockFilter::new(AND, 0, 0, SYN | ACK),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ];
        if let Err(error) = SockRef::from(listener).attach_filter(&filter) {
            tracing::warn!(%error, "Could not turn new connections away before closing the listener");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = listener;
}

/// Out of file descriptors, most likely: connections that end will free some.
async fn back_off(error: &io::Error) {
    tracing::warn!(error = error as &(dyn std::error::Error + 'static), "Could not accept a connection");
    sleep(Duration::from_millis(100)).await;
}

/// Whether the client begins with HTTP/2's preface; everything else is HTTP/1.
async fn speaks_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; HTTP2_PREFACE.len()];
    loop {
        let length = stream.peek(&mut first).await?;
        if length == 0 || first[..length] != HTTP2_PREFACE[..length] {
            return Ok(false);
        }
        if length == HTTP2_PREFACE.len() {
            return Ok(true);
        }
        // A peek returns at once for as long as there is anything: wait for the rest of it.
        sleep(Duration::from_millis(10)).await;
    }
}

impl Server {
    /// The request is handed on before there is a future, which would only carry it along. And what is done with the
    /// answer is no async block, which would carry what it awaits twice: every one of these bytes is moved a few times.
    fn answer(&self, mut request: Request, peer: SocketAddr) -> impl Future<Output = Response> + Send + '_ {
        let client = client_ip::behind(peer.ip(), request.headers(), &self.trusted_proxies);
        if client_ip::is_trusted(peer.ip(), &self.trusted_proxies) && forwarded_https(request.headers()) {
            request.extensions_mut().insert(OverTls);
        }
        let version = request.version();
        self.app.serve(request, Some(client)).map(move |mut response| {
            // HTTP/2 has no such header: there, GOAWAY says the same.
            if version <= Version::HTTP_11 && self.lifecycle.has_reached(Phase::Draining) {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            response
        })
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::{auth::access::Guarded, telemetry::metrics::Metrics};

    fn server() -> Server {
        let config = Config::from_env(|_| None).unwrap();
        let lifecycle = Lifecycle::default();
        let metrics = Metrics::new(None, false).unwrap();
        let app = App::around(vec![], Guarded::default(), &config, lifecycle.clone(), metrics).unwrap();
        let patience = Patience { head: LAST_WORDS, idle: LAST_WORDS, write: LAST_WORDS };
        let (connections, places) = (TaskTracker::new(), Places::new(1, app.metrics()));
        Server { app, lifecycle, trusted_proxies: vec![], patience, connections, places }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_and_what_goes_on_beside_them_have_their_last_seconds_at_the_same_time() {
        const DRAIN: Duration = Duration::from_millis(500);
        for (has_connection, expected) in [(true, DRAIN + LAST_WORDS), (false, LAST_WORDS)] {
            let server = server();
            if has_connection {
                server.connections.spawn(pending::<()>());
            }
            let started = Instant::now();
            server.finish(started + DRAIN, pending::<()>()).await;
            assert_eq!(started.elapsed().as_millis(), expected.as_millis());
            assert_eq!(server.lifecycle.has_reached(Phase::Cut), has_connection);
        }
    }
}
