//! From SIGTERM to exit. A request is lost when it was sent and got no complete answer.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{Version, body::Bytes, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::support::{PATIENCE, Server, addition, request};

/// The issue's number: so many drains, and not one request lost.
const DRAINS: usize = 20;

/// So many requests, on average, have been answered when a drain begins.
const LEAST: u64 = 21;

#[derive(Default)]
struct Count {
    answered: AtomicU64,
    lost: AtomicU64,
}

impl Count {
    fn add(&self, answered: bool) {
        let counter = if answered { &self.answered } else { &self.lost };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn sum(host: bool) -> hyper::Request<Full<Bytes>> {
    let uri = if host { "/" } else { "http://localhost/" };
    let builder = hyper::Request::post(uri).header("content-type", "application/json");
    let builder = if host { builder.header("host", "localhost") } else { builder };
    builder.body(Full::new(Bytes::from_static(br#"{"a":10,"b":5}"#))).unwrap()
}

async fn is_complete(answer: hyper::Result<hyper::Response<hyper::body::Incoming>>) -> bool {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            println!("lost: {error:?}");
            return false;
        }
    };
    answer.status() == 200
        && answer.into_body().collect().await.is_ok_and(|body| &body.to_bytes()[..] == br#"{"result":15.0}"#)
}

/// Keeps its connection alive, pauses between requests as told, connects again when told to close,
/// and stops when nobody listens any more.
async fn http1_client(to: SocketAddr, pause: Duration, count: Arc<Count>) {
    while let Ok(stream) = TcpStream::connect(to).await {
        let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        while sender.ready().await.is_ok() {
            count.add(is_complete(sender.send_request(sum(true)).await).await);
            sleep(pause).await;
        }
    }
}

/// The same over HTTP/2, where GOAWAY says when to stop.
async fn http2_client(to: SocketAddr, pause: Duration, count: Arc<Count>) {
    while let Ok(stream) = TcpStream::connect(to).await {
        let (mut sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        while sender.ready().await.is_ok() {
            match sender.try_send_request(sum(false)).await {
                Ok(answer) => count.add(is_complete(Ok(answer)).await),
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    if !unsent && !is_refused(error.error()) {
                        count.add(false);
                    }
                }
            }
            sleep(pause).await;
        }
    }
}

/// GOAWAY tells which streams were not and will not be processed (RFC 9113 §6.8): such a request is
/// not lost, the client sends it elsewhere. An answer that breaks off looks different.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_drains_under_load_lose_no_request() {
    let count = Arc::new(Count::default());
    for drain in 0..DRAINS {
        let delay = if drain % 2 == 0 { "0ms" } else { "20ms" };
        let server = Server::start(&[("ADD_DELAY", delay), ("DRAIN_DELAY", "20ms")]).await;
        let clients: Vec<_> = (0..24_u64)
            .map(|client| {
                let pause = Duration::from_millis([0, 0, 1, 7, 30, 110][client as usize % 6]);
                let (to, count) = (server.address, count.clone());
                if client % 4 == 3 {
                    tokio::spawn(http2_client(to, pause, count))
                } else {
                    tokio::spawn(http1_client(to, pause, count))
                }
            })
            .collect();
        // Some are pausing, some asking; and on a slow machine, too, there has been load.
        sleep(Duration::from_millis(150)).await;
        let deadline = Instant::now() + PATIENCE;
        while count.answered.load(Ordering::Relaxed) < LEAST * (drain as u64 + 1) {
            assert!(Instant::now() < deadline, "there is load");
            sleep(Duration::from_millis(5)).await;
        }
        server.signal(Signal::TERM);
        let (status, _) = server.exit().await;
        assert_eq!(status.code(), Some(0));
        for client in clients {
            timeout(PATIENCE, client).await.expect("the client notices").unwrap();
        }
    }
    let (answered, lost) = (count.answered.load(Ordering::Relaxed), count.lost.load(Ordering::Relaxed));
    println!("{DRAINS} drains: {answered} requests answered, {lost} lost");
    assert_eq!(lost, 0, "of {}", answered + lost);
}

#[tokio::test]
async fn readiness_fails_at_once_and_answers_say_that_the_connection_closes() {
    // The delay lasts longer than this test.
    let server = Server::start(&[("DRAIN_DELAY", "600s")]).await;
    let reply = request("GET", "/livez").send(server.address).await;
    assert_eq!(reply.header("connection"), "");
    server.signal(Signal::TERM);
    // New connections are still accepted during the delay.
    let deadline = Instant::now() + PATIENCE;
    while request("GET", "/readyz").send(server.address).await.status != 503 {
        assert!(Instant::now() < deadline);
    }
    let reply = request("GET", "/livez").send(server.address).await;
    assert_eq!((reply.status.as_u16(), reply.header("connection")), (200, "close"), "alive, and closing");
    assert_eq!(addition(r#"{"a":1,"b":2}"#).send(server.address).await.text(), r#"{"result":3.0}"#);
}

#[tokio::test]
async fn the_process_ends_after_the_drains_delay_when_no_connection_is_left() {
    Server::start(&[("DRAIN_DELAY", "100ms"), ("DRAIN_TIMEOUT", "600s")]).await.stop().await;
}

#[tokio::test]
async fn an_idle_connection_may_send_one_more_request_before_the_drain_ends() {
    let server = Server::start(&[("DRAIN_TIMEOUT", "600s")]).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let get = b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n";
    let mut answer = vec![0; 4096];
    idle.write_all(get).await.unwrap();
    let length = idle.read(&mut answer).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer[..length]).contains("connection: close"));

    server.signal(Signal::TERM);
    while TcpStream::connect(server.address).await.is_ok() {
        sleep(Duration::from_millis(5)).await;
    }
    idle.write_all(get).await.unwrap();
    let mut last = String::new();
    timeout(PATIENCE, idle.read_to_string(&mut last)).await.expect("closed after the answer").unwrap();
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "{last}");
    // It exits once no connection is left, long before the drain's limit.
    assert_eq!(server.exit().await.0.code(), Some(0));
}

#[tokio::test]
async fn what_outlives_the_drain_is_answered_503_and_idle_connections_are_closed() {
    let server =
        Server::start(&[("ADD_DELAY", "600s"), ("REQUEST_TIMEOUT", "700s"), ("DRAIN_TIMEOUT", "300ms")])
            .await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    let address = server.address;
    let waiting = [Version::HTTP_11, Version::HTTP_2].map(|version| {
        tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            addition(r#"{"a":1,"b":2}"#).send_on(stream, version).await
        })
    });
    while !request("GET", "/metrics").send(address).await.text().contains("http_server_active_requests 2") {
        sleep(Duration::from_millis(5)).await;
    }
    server.signal(Signal::TERM);
    for waiting in waiting {
        let reply = waiting.await.unwrap().expect("a complete answer");
        assert_eq!(reply.status, 503);
        assert!(!reply.header("retry-after").is_empty());
    }
    assert_eq!(server.exit().await.0.code(), Some(0));
    drop(idle);
}
