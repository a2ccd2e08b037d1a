//! What only a listener meets: slow clients, floods, broken requests, handlers that misbehave.

use std::{net::SocketAddr, time::Duration};

use axum::{
    body::{Body, Bytes},
    routing::get,
};
use futures_util::{StreamExt, stream};
use http_body_util::Full;
use hyper::Version;
use hyper_util::rt::{TokioExecutor, TokioIo};
use math_service::{
    app::App, auth::access::Guarded, config::Config, http::Routes, lifecycle::Lifecycle, targets::container,
    telemetry::metrics::Metrics,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::support::{PATIENCE, Server, addition, request};

/// An addition that outlives every test.
const ENDLESS: [(&str, &str); 2] = [("ADD_DELAY", "600s"), ("REQUEST_TIMEOUT", "700s")];

async fn connect(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).await.unwrap()
}

/// Reads to the end of the connection, or panics when it stays open.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too: the caller looks at what came before.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection is closed");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Routes that misbehave, served as the service serves its own.
async fn serve(routes: Routes, settings: &[(&str, &str)]) -> SocketAddr {
    let config = Config::from_env(|name| {
        settings.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap();
    let app = App::around(
        routes,
        Guarded::default(),
        &config,
        Lifecycle::default(),
        Metrics::new(None, false).unwrap(),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { container::serve(listener, app, &config, std::future::pending()).await });
    address
}

#[tokio::test]
async fn a_panic_answers_500_and_the_process_lives() {
    async fn panics() {
        panic!("on purpose");
    }
    let address = serve(vec![("/panic", get(panics))], &[]).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let reply = request("GET", "/panic").send_on(connect(address).await, version).await.unwrap();
        assert_eq!(reply.status, 500);
        assert_eq!(reply.json()["request_id"], reply.header("x-request-id"));
        assert!(!reply.text().contains("on purpose"), "nothing of the inside is told");
    }
    assert_eq!(request("GET", "/other").send(address).await.status, 404);
}

#[tokio::test]
async fn a_handler_that_takes_too_long_answers_504() {
    let address = serve(vec![("/", get(std::future::pending::<()>))], &[("REQUEST_TIMEOUT", "100ms")]).await;
    let reply = request("GET", "/").send(address).await;
    assert_eq!((reply.status.as_u16(), reply.json()["status"].as_u64()), (504, Some(504)));
}

#[tokio::test]
async fn too_many_requests_are_refused_but_health_is_answered() {
    // They wait for longer than this test does: only their clients' going away ends them.
    let mut server = Server::start(&[ENDLESS[0], ENDLESS[1], ("MAX_IN_FLIGHT", "2")]).await;
    let address = server.address;
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            tokio::spawn(async move {
                addition(r#"{"a":1,"b":2}"#).send_on(connect(address).await, Version::HTTP_11).await
            })
        })
        .collect();
    server.logged("Received addition request", 2).await;
    let refused = request("GET", "/").send(address).await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.header("content-type"), "application/problem+json");
    for path in ["/livez", "/healthz", "/readyz", "/health", "/metrics"] {
        assert_eq!(request("GET", path).send(address).await.status, 200, "{path}");
    }
    let metrics = request("GET", "/metrics").send(address).await;
    assert!(!metrics.text().contains("http_server_requests_shed_total 0"), "{}", metrics.text());
    // Clients that go away make room.
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    drop(waiting);
    let deadline = Instant::now() + PATIENCE;
    while request("GET", "/").send(address).await.status != 200 {
        assert!(Instant::now() < deadline, "the slots are free again");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(server.is_alive());
}

#[tokio::test]
async fn slow_heads_are_cut_at_the_timeout_and_idle_connections_are_not() {
    let server = Server::start(&[("HEADER_READ_TIMEOUT", "1s")]).await;
    // Silent from the start, dribbling from the start, dribbling an HTTP/2 preface.
    for (first, more) in [("", ""), ("GET / HTTP/1.1\r\n", "a: b\r\n"), ("PRI * HT", "")] {
        // The server counts from when it accepts, which is never before this.
        let started = Instant::now();
        let mut stream = connect(server.address).await;
        let (mut reading, mut writing) = stream.split();
        let dribble = async {
            let _ = writing.write_all(first.as_bytes()).await;
            loop {
                sleep(Duration::from_millis(100)).await;
                if writing.write_all(more.as_bytes()).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let end = async {
            let mut bytes = Vec::new();
            let _ = reading.read_to_end(&mut bytes).await;
        };
        tokio::select! {
            () = dribble => unreachable!(),
            cut = timeout(PATIENCE, end) => cut.expect("a slow client is cut"),
        }
        assert!(started.elapsed() >= Duration::from_millis(990), "{first:?} was cut early");
    }
    // After a whole request the connection may idle longer than a head may take.
    let mut idle = connect(server.address).await;
    for _ in 0..2 {
        idle.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        sleep(Duration::from_millis(1500)).await;
        let mut left = vec![0; 4096];
        idle.try_read(&mut left).unwrap();
    }
}

#[tokio::test]
async fn a_client_that_ends_its_half_still_gets_its_answer() {
    let server = Server::start(&[("ADD_DELAY", "50ms")]).await;
    let addition = "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"a\":1,\"b\":2}";
    for (sent, expected) in [("GET /livez HTTP/1.0\r\n\r\n", 1), (addition, 1), (&addition.repeat(2), 2)] {
        let answers = async || {
            let mut stream = connect(server.address).await;
            stream.write_all(sent.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            rest(&mut stream).await.matches(" 200 OK").count()
        };
        // They have a second for it: a machine that needs longer for the delays of 50 ms gets another try.
        let deadline = Instant::now() + PATIENCE;
        while answers().await != expected {
            assert!(Instant::now() < deadline, "{expected} answers to {sent}");
        }
    }
}

type Http2Client = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// A connection over HTTP/2 whose own end tells that the server has closed it.
async fn http2(to: SocketAddr) -> (Http2Client, tokio::task::JoinHandle<hyper::Result<()>>) {
    let stream = TokioIo::new(connect(to).await);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

#[tokio::test]
async fn http2_connections_without_requests_are_closed_too() {
    let timeouts = [("HEADER_READ_TIMEOUT", "500ms"), ("KEEP_ALIVE_TIMEOUT", "500ms")];
    let server = Server::start(&[ENDLESS[0], ENDLESS[1], timeouts[0], timeouts[1]]).await;
    let closed = async |connection, which: &str| {
        let _ = timeout(PATIENCE, connection).await.unwrap_or_else(|_| panic!("{which} is closed"));
    };
    let (_silent, connection) = http2(server.address).await;
    closed(connection, "a silent connection").await;

    // A connection that is closed before its first request comes is another try: the machine has stalled.
    let deadline = Instant::now() + PATIENCE;
    let (_idle, connection) = loop {
        let (mut sender, connection) = http2(server.address).await;
        let get = hyper::Request::get("http://h/livez").body(Full::default()).unwrap();
        match sender.send_request(get).await {
            Ok(reply) => {
                assert_eq!(reply.status(), 200);
                break (sender, connection);
            }
            Err(error) => assert!(Instant::now() < deadline, "no request arrives: {error}"),
        }
    };
    closed(connection, "an idle connection").await;

    let (_sender, connection) = loop {
        let (mut sender, connection) = http2(server.address).await;
        let waits = hyper::Request::post("http://h/").header("content-type", "application/json");
        let waits = waits.body(Full::new(Bytes::from_static(br#"{"a":1,"b":2}"#))).unwrap();
        let answer = sender.send_request(waits);
        tokio::select! {
            () = server.logged("Received addition request", 1) => {}
            closed = answer => {
                assert!(closed.is_err() && Instant::now() < deadline, "no request arrives: {closed:?}");
                continue;
            }
        }
        // The request is under way, and given up here; the connection is not.
        break (sender, connection);
    };
    closed(connection, "a connection whose only request was given up").await;
}

#[tokio::test]
async fn idle_connections_are_closed_at_the_keep_alive_timeout() {
    let server = Server::start(&[("KEEP_ALIVE_TIMEOUT", "300ms")]).await;
    let mut idle = connect(server.address).await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn an_answer_that_does_not_wait_for_the_body_says_that_the_connection_ends() {
    let server = Server::start(&[]).await;
    let body = r#"{"a":10,"b":"five"}"#;
    for (head, status) in [
        ("POST /nope HTTP/1.1\r\ncontent-type: application/json", 404),
        ("POST /livez HTTP/1.1", 405),
        ("POST / HTTP/1.1\r\ncontent-type: text/plain", 415),
        ("GET /livez HTTP/1.1", 200),
    ] {
        let mut stream = connect(server.address).await;
        let head = format!("{head}\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1024];
        let length = timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer").unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        let _ = stream.write_all(body.as_bytes()).await;
        rest(&mut stream).await;
    }
    // A body that is read, however bad it is, ends nothing; nor does a request without one.
    let mut stream = connect(server.address).await;
    let bad = format!(
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let last = "GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let requests = format!("{bad}GET /nope HTTP/1.1\r\nhost: h\r\n\r\n{bad}{last}");
    stream.write_all(requests.as_bytes()).await.unwrap();
    let answers = rest(&mut stream).await;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 4, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1, "{answers}");
}

#[tokio::test]
async fn an_oversized_body_is_refused_before_it_is_read_and_the_answer_arrives() {
    let server = Server::start(&[]).await;
    // Announced: refused at once, although nothing of the body was sent.
    let mut stream = connect(server.address).await;
    let head =
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("refused before the body").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // Expect: 100-continue gets the refusal instead of the go-ahead.
    let mut stream = connect(server.address).await;
    stream.write_all(head.replace("host: h", "host: h\r\nexpect: 100-continue").as_bytes()).await.unwrap();
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.expect("refused before the body").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    // Not announced, and sent to the end: the client still gets the answer, no reset.
    let mut stream = connect(server.address).await;
    let head =
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..16 {
        // Our kernel may refuse the last of them once the server has had enough.
        let _ = stream.write_all(chunk.as_bytes()).await;
    }
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn requests_that_are_not_http_are_answered_400_and_do_no_harm() {
    let mut server = Server::start(&[]).await;
    for garbage in [
        "\r\n\r\nGET",
        "GET\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
    ] {
        let mut stream = connect(server.address).await;
        stream.write_all(garbage.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{garbage:?}: {answer}");
    }
    for (host, status) in [
        ("", 400),
        ("host: a b\r\n", 400),
        ("host: h:99999\r\n", 400),
        ("host: h\r\nhost: i\r\n", 400),
        ("host: h\r\n", 200),
    ] {
        let mut stream = connect(server.address).await;
        stream
            .write_all(format!("GET /livez HTTP/1.1\r\n{host}connection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        assert!(rest(&mut stream).await.starts_with(&format!("HTTP/1.1 {status}")), "{host}");
    }
    let mut stream = connect(server.address).await;
    stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.0 200"), "HTTP/1.0 needs no Host");
    assert!(server.is_alive());
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(&[]).await;
    let mut stream = connect(server.address).await;
    let requests =
        "GET /livez HTTP/1.1\r\nhost: h\r\n\r\nGET /readyz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    let answers = rest(&mut stream).await;
    let (first, second) = (answers.find(r#"{"status":"ok"}"#), answers.find(r#"{"status":"ready"}"#));
    assert!(first.is_some() && first < second, "{answers}");
}

#[tokio::test]
async fn a_reader_of_stdout_that_stops_reading_does_not_stop_the_service() {
    let mut child = crate::support::server_command()
        .envs([("HOST", "127.0.0.1"), ("PORT", "0")])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = vec![0; 4096];
    let length = stdout.read(&mut first).await.unwrap();
    let first: serde_json::Value = serde_json::from_slice(&first[..length]).unwrap();
    let address: SocketAddr = first["address"].as_str().unwrap().parse().unwrap();
    // A pipe holds 64 KiB; these lines are several times that, and nobody reads them.
    let mut stream = connect(address).await;
    let addition = "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"a\":1,\"b\":2}";
    let mut answer = vec![0; 4096];
    for _ in 0..2000 {
        stream.write_all(addition.as_bytes()).await.unwrap();
        let length = timeout(PATIENCE, stream.read(&mut answer)).await.expect("it still answers").unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
    }
}

/// A request that leaves its connection open, and what the server says to it.
async fn asks(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = String::new();
    let mut part = [0; 16 * 1024];
    let is_whole = |answer: &str| {
        answer.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            body.len() == length.parse::<usize>().unwrap()
        })
    };
    while !is_whole(&answer) {
        let read = timeout(PATIENCE, stream.read(&mut part)).await.expect("an answer").unwrap();
        assert!(read > 0, "it ends too early: {answer}");
        answer.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    answer
}

const ADDITION: &[u8] =
    b"POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"a\":1,\"b\":2}";

fn is_last(answer: &str) -> bool {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    answer.contains("\r\nconnection: close\r\n")
}

#[tokio::test]
async fn beyond_the_most_connections_a_client_waits_for_the_end_of_another() {
    let server = Server::start(&[ENDLESS[0], ENDLESS[1], ("MAX_CONNECTIONS", "2")]).await;
    let mut first = connect(server.address).await;
    assert!(!is_last(&asks(&mut first, "/livez").await));
    let mut second = connect(server.address).await;
    second.write_all(ADDITION).await.unwrap();
    server.logged("Received addition request", 1).await;
    let mut third = connect(server.address).await;
    third.write_all(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    // Whoever is in goes on; a hundred answers are time enough for the third to get its own.
    for _ in 0..100 {
        let metrics = asks(&mut first, "/metrics").await;
        assert!(!is_last(&metrics) && metrics.contains("\nhttp_server_open_connections 2\n"), "{metrics}");
    }
    let unanswered = third.try_read(&mut [0; 1]).expect_err("nobody has accepted it");
    assert_eq!(unanswered.kind(), std::io::ErrorKind::WouldBlock);
    drop(second);
    assert!(is_last(&answer(&mut third).await), "it is served, and leaves the place to others");
    assert!(!is_last(&asks(&mut first, "/livez").await));
}

#[tokio::test]
async fn probes_are_answered_beside_as_many_idle_and_silent_clients_as_there_may_be() {
    // Neither limit makes a place free while this test runs.
    let limits = [("KEEP_ALIVE_TIMEOUT", "600s"), ("HEADER_READ_TIMEOUT", "600s")];
    let server = Server::start(&[limits[0], limits[1], ("MAX_CONNECTIONS", "20")]).await;
    let mut idle = Vec::new();
    for _ in 0..18 {
        let mut stream = connect(server.address).await;
        assert!(!is_last(&asks(&mut stream, "/livez").await));
        idle.push(stream);
    }
    for _ in 0..50 {
        assert!(is_last(&asks(&mut connect(server.address).await, "/livez").await));
    }
    // Who takes the last places and says nothing, or half of it, is sent away soon.
    let mut silent =
        [connect(server.address).await, connect(server.address).await, connect(server.address).await];
    silent[1].write_all(b"GET / HTTP/1.1\r\nhost: h\r\n").await.unwrap();
    silent[2].write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    assert!(is_last(&asks(&mut connect(server.address).await, "/readyz").await));
    for mut silent in silent {
        rest(&mut silent).await;
    }
    // Over HTTP/2 it is GOAWAY that says so, in time, and however much is asked.
    let (mut sender, connection) = http2(server.address).await;
    let busy = async {
        while sender.ready().await.is_ok() {
            let get = hyper::Request::get("http://h/livez").body(Full::default()).unwrap();
            let _ = sender.send_request(get).await;
        }
    };
    timeout(PATIENCE, busy).await.expect("it is told to leave");
    let _ = timeout(PATIENCE, connection).await.expect("it is closed");
    for mut idle in idle {
        assert!(!is_last(&asks(&mut idle, "/livez").await), "who was there first stays");
    }
}

#[tokio::test]
async fn who_waits_for_a_place_when_the_drain_begins_is_answered() {
    let settings = [("MAX_CONNECTIONS", "2"), ("ADD_DELAY", "1s"), ("DRAIN_TIMEOUT", "50s")];
    let server = Server::start(&settings).await;
    let mut idle = connect(server.address).await;
    assert!(!is_last(&asks(&mut idle, "/livez").await));
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = connect(server.address).await;
        client.write_all(ADDITION).await.unwrap();
        clients.push(client);
    }
    server.logged("Received addition request", 1).await;
    server.signal(rustix::process::Signal::TERM);
    for mut client in clients {
        assert!(is_last(&answer(&mut client).await));
    }
    drop(idle);
    assert_eq!(server.exit().await.0.code(), Some(0));
}

/// The issue's number of slow clients.
const SLOW: usize = 2000;

/// So many clients whose heads never end; each one's task ends when the server has cut it: writing to it fails.
async fn flood(address: SocketAddr) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for _ in 0..SLOW {
        let mut stream = connect(address).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n").await.unwrap();
        clients.spawn(async move {
            while stream.write_all(b"a: b\r\n").await.is_ok() {
                sleep(Duration::from_millis(250)).await;
            }
        });
    }
    clients
}

#[tokio::test]
async fn two_thousand_slow_clients_are_all_cut_and_do_not_hold_up_health() {
    allow_open_files(2 * SLOW as u64);
    // None of these is cut: health is answered beside all of them.
    let server = Server::start(&[("HEADER_READ_TIMEOUT", "600s")]).await;
    let mut clients = flood(server.address).await;
    let mut latencies = Vec::new();
    for _ in 0..300 {
        let started = Instant::now();
        let reply = timeout(PATIENCE, request("GET", "/healthz").send(server.address)).await;
        assert_eq!(reply.expect("health is answered").status, 200);
        latencies.push(started.elapsed());
        sleep(Duration::from_millis(5)).await;
    }
    assert!(clients.try_join_next().is_none(), "slow clients were there all the while");
    latencies.sort();
    println!(
        "{SLOW} slow clients; beside them 300 times /healthz: p50 {:?}, p99 {:?}",
        latencies[150], latencies[297]
    );
    drop((clients, server));

    let server = Server::start(&[("HEADER_READ_TIMEOUT", "2s")]).await;
    let mut clients = flood(server.address).await;
    let all_cut = async { while clients.join_next().await.is_some() {} };
    timeout(PATIENCE, all_cut).await.expect("every slow client is cut");
    assert_eq!(request("GET", "/healthz").send(server.address).await.status, 200);
}

/// Raises this process's limit, which the server inherits.
fn allow_open_files(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted + 100) {
        let raised = Rlimit { current: Some(wanted + 100), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).expect("the hard limit allows enough open files");
    }
}

/// A part each 50 ms, for ten times as long as anything else may take.
async fn slow() -> Body {
    let parts = stream::iter(0..40).then(|part| async move {
        sleep(Duration::from_millis(50)).await;
        Ok::<_, std::io::Error>(format!("{part}\n"))
    });
    Body::from_stream(parts)
}

#[tokio::test]
async fn a_stream_outlives_every_limit_on_requests_and_idle_connections() {
    let limits =
        [("REQUEST_TIMEOUT", "200ms"), ("KEEP_ALIVE_TIMEOUT", "200ms"), ("HEADER_READ_TIMEOUT", "200ms")];
    let address = serve(vec![("/slow", get(slow))], &limits).await;
    let expected: String = (0..40).map(|part| format!("{part}\n")).collect();
    for version in [Version::HTTP_11, Version::HTTP_2] {
        // A machine that stalls for longer than the limits, before the request has come, gets another try.
        let deadline = Instant::now() + PATIENCE;
        let reply = loop {
            match request("GET", "/slow").send_on(connect(address).await, version).await {
                Ok(reply) => break reply,
                Err(error) => assert!(Instant::now() < deadline, "{version:?}: {error}"),
            }
        };
        assert_eq!((reply.status.as_u16(), reply.text()), (200, expected.as_str()), "{version:?}");
        let closes = if version == Version::HTTP_11 { "close" } else { "" };
        assert_eq!(
            reply.header("connection"),
            closes,
            "{version:?}: idle afterwards, it would hold up a drain"
        );
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_client_goes_away() {
    let (parts, goes_on) = tokio::sync::mpsc::unbounded_channel::<String>();
    let goes_on = std::sync::Arc::new(std::sync::Mutex::new(Some(goes_on)));
    let endless = move || {
        let parts = goes_on.lock().unwrap().take();
        async move {
            Body::from_stream(stream::unfold(parts, |parts| async move {
                let mut parts = parts?;
                let part = parts.recv().await?;
                Some((Ok::<_, std::io::Error>(part), Some(parts)))
            }))
        }
    };
    let address = serve(vec![("/endless", get(endless))], &[]).await;
    let mut client = connect(address).await;
    client.write_all(b"GET /endless HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    parts.send("first".to_owned()).unwrap();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("first") {
        timeout(PATIENCE, client.read_buf(&mut seen)).await.unwrap().unwrap();
    }
    drop(client);
    // Nothing is written to it: its end alone is noticed.
    timeout(PATIENCE, parts.closed()).await.expect("nobody wants more");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_before_it_ends() {
    let server = Server::start(&[]).await;
    // What the head has besides its one long value.
    let (begin, end) = ("GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\na: ", "\r\n\r\n");
    let largest = "x".repeat(32 * 1024 - begin.len() - end.len());
    let mut stream = connect(server.address).await;
    stream.write_all(format!("{begin}{largest}{end}").as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));

    // One byte more, and nothing says that the head ends here: who waits for that holds all of it meanwhile.
    let mut stream = connect(server.address).await;
    stream.write_all(format!("{begin}{largest}xxxxx").as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer:?}");

    for (headers, status) in [(98, 200), (99, 431)] {
        let mut stream = connect(server.address).await;
        let many = format!(
            "GET /livez HTTP/1.1\r\nhost: h\r\n{}connection: close\r\n\r\n",
            "a: b\r\n".repeat(headers)
        );
        stream.write_all(many.as_bytes()).await.unwrap();
        assert!(
            rest(&mut stream).await.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers} and two more"
        );
    }

    for (length, status) in [(15 * 1024, 200), (17 * 1024, 431)] {
        let long = "x".repeat(length);
        let request = request("GET", "/livez").header("a", &long);
        let reply = request.send_on(connect(server.address).await, Version::HTTP_2).await.unwrap();
        assert_eq!(reply.status, status, "{length} bytes over HTTP/2");
    }
}
