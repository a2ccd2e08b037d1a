//! Every route's contract, over TCP.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, addition, request};

#[tokio::test]
async fn an_addition_answers_the_sum_and_writes_two_lines() {
    let server = Server::start(&[]).await;
    let reply = addition(r#"{"a":10,"b":5}"#).header("x-request-id", "test-1").send(server.address).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, r#"{"result":15.0}"#));
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("x-request-id"), "test-1");

    let lines = server.stop().await;
    let lines: Vec<_> = lines.iter().filter(|line| line["request_id"] == "test-1").collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for (line, event, result) in
        [(lines[0], "Received addition request", Value::Null), (lines[1], "Computed result", json!(15.0))]
    {
        assert_eq!(line["event"], event);
        assert_eq!((&line["a"], &line["b"], &line["result"]), (&json!(10.0), &json!(5.0), &result));
        assert_eq!(line["level"], "info");
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(timestamp).is_ok() && timestamp.ends_with('Z'), "{timestamp}");
    }
}

#[tokio::test]
async fn log_lines_carry_the_callers_trace() {
    let server = Server::start(&[]).await;
    for (name, value) in [
        ("traceparent", "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"),
        ("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"),
    ] {
        addition(r#"{"a":1,"b":2}"#).header(name, value).send(server.address).await;
    }
    let lines = server.stop().await;
    let traced = lines.iter().filter(|line| line["trace_id"] == "5759e988bd862e3fe1be46a994272793").count();
    assert_eq!(traced, 4, "{lines:?}");
}

#[tokio::test]
async fn health_routes_log_nothing_at_info() {
    let server = Server::start(&[]).await;
    for path in ["/livez", "/healthz", "/readyz", "/health", "/metrics"] {
        let reply = request("GET", path).send(server.address).await;
        assert_eq!(reply.status, 200, "{path}");
    }
    let events: Vec<_> = server.stop().await.into_iter().map(|line| line["event"].clone()).collect();
    assert_eq!(events, ["Draining", "Stopped"]);
}

#[tokio::test]
async fn the_level_decides_what_is_written() {
    let quiet = Server::start(&[("LOGLEVEL", "INFO")]).await;
    addition(r#"{"a":1,"b":2}"#).send(quiet.address).await;
    assert_eq!(quiet.stop().await.len(), 4);
    let chatty = Server::start(&[("LOGLEVEL", "DEBUG"), ("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    addition(r#"{"a":1,"b":2}"#).header("x-forwarded-for", "203.0.113.7").send(chatty.address).await;
    let lines = chatty.stop().await;
    let access = lines.iter().find(|line| line["event"] == "Answered request").expect("an access line");
    assert_eq!(
        (&access["route"], &access["status"], &access["client"]),
        (&json!("/"), &json!(200), &json!("203.0.113.7"))
    );
}

#[tokio::test]
async fn the_documented_health_answers() {
    let server = Server::start(&[]).await;
    let get = async |path: &'static str| request("GET", path).send(server.address).await;
    assert_eq!(get("/livez").await.text(), r#"{"status":"ok"}"#);
    assert_eq!(get("/healthz").await.text(), r#"{"status":"ok"}"#);
    assert_eq!(get("/readyz").await.text(), r#"{"status":"ready"}"#);
    let health = get("/health").await.json();
    assert_eq!((&health["status"], &health["target"]), (&json!("healthy"), &json!("container")));
    let metrics = get("/metrics").await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let probes = r#"http_server_request_duration_seconds_count{http_request_method="GET",http_response_status_class="2xx",http_route="/livez"} 1"#;
    assert!(metrics.text().contains(probes), "{}", metrics.text());
}

#[tokio::test]
async fn every_metric_to_scale_on_is_there_with_its_type() {
    let server = Server::start(&[]).await;
    request("GET", "/livez").send(server.address).await;
    let metrics = request("GET", "/metrics").send(server.address).await;
    for (name, kind) in [
        ("http_server_active_requests", "gauge"),
        ("http_server_request_duration_seconds", "histogram"),
        ("http_server_requests_shed_total", "counter"),
        ("load_slots", "gauge"),
        ("load_slots_busy", "gauge"),
        ("math_service_build_info", "gauge"),
        ("process_cpu_seconds_total", "counter"),
        ("process_resident_memory_bytes", "gauge"),
    ] {
        let line = format!("# TYPE {name} {kind}");
        assert!(metrics.text().lines().any(|l| l == line), "{line:?} is missing in:\n{}", metrics.text());
    }
    assert!(metrics.text().lines().any(|line| line == "load_slots 0"), "not enabled, so there is none");
}

#[tokio::test]
async fn a_caller_cannot_make_metrics_grow() {
    let server = Server::start(&[]).await;
    for path in ["/a", "/b", "/c?d=e"] {
        request("GET", path).send(server.address).await;
        request("BREW", path).send(server.address).await;
    }
    let metrics = request("GET", "/metrics").send(server.address).await;
    let series =
        metrics.text().lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
    let series: Vec<_> = series.collect();
    assert_eq!(series.len(), 2, "{series:?}");
    assert!(series.iter().all(|line| line.contains(r#"http_route="unmatched""#)), "{series:?}");
}

#[tokio::test]
async fn a_base_path_is_removed_and_probes_need_none() {
    let server = Server::start(&[("BASE_PATH", "/math")]).await;
    for path in ["/math", "/math/", "/"] {
        let sum = request("POST", path).header("content-type", "application/json").body(r#"{"a":1,"b":2}"#);
        assert_eq!(sum.send(server.address).await.text(), r#"{"result":3.0}"#, "{path}");
    }
    assert_eq!(request("GET", "/math/healthz").send(server.address).await.status, 200);
    assert_eq!(request("GET", "/healthz").send(server.address).await.status, 200);
    assert_eq!(request("GET", "/mathematics").send(server.address).await.status, 404);
}

#[tokio::test]
async fn browsers_on_allowed_origins_only_may_call() {
    let server = Server::start(&[("CORS_ALLOWED_ORIGINS", "https://a.example, https://b.example")]).await;
    let preflight = async |origin: &'static str| {
        request("OPTIONS", "/")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type,x-session-key")
            .send(server.address)
            .await
    };
    let allowed = preflight("https://b.example").await;
    assert_eq!(
        (allowed.status.as_u16(), allowed.header("access-control-allow-origin")),
        (200, "https://b.example")
    );
    // By name: a `*` would leave out Authorization.
    assert_eq!(allowed.header("access-control-allow-headers"), "authorization,content-type,x-session-key");
    assert_eq!(preflight("https://c.example").await.header("access-control-allow-origin"), "");

    let closed = Server::start(&[]).await;
    let reply = addition(r#"{"a":1,"b":2}"#).header("origin", "https://a.example").send(closed.address).await;
    assert_eq!(reply.header("access-control-allow-origin"), "", "closed unless configured");
}

#[tokio::test]
async fn the_simulated_work_delays_the_answer() {
    let server = Server::start(&[("ADD_DELAY", "300ms")]).await;
    let started = Instant::now();
    let reply = addition(r#"{"a":1,"b":2}"#).send(server.address).await;
    assert_eq!(reply.text(), r#"{"result":3.0}"#);
    assert!(started.elapsed().as_millis() >= 300);
}

/// Whether a new connection gets an answer.
async fn answers(to: std::net::SocketAddr) -> bool {
    match tokio::net::TcpStream::connect(to).await {
        Ok(stream) => request("GET", "/livez").send_on(stream, hyper::Version::HTTP_11).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once_and_one_right_after_the_first_is_no_second() {
    let endless = [("ADD_DELAY", "600s"), ("REQUEST_TIMEOUT", "700s"), ("DRAIN_DELAY", "600s")];
    let deadline = Instant::now() + PATIENCE;
    let (mut server, waiting) = loop {
        let server = Server::start(&endless).await;
        let address = server.address;
        let waiting = tokio::spawn(async move {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            addition(r#"{"a":1,"b":2}"#).send_on(stream, hyper::Version::HTTP_11).await
        });
        server.logged("Received addition request", 1).await;
        server.signal(Signal::INT);
        server.logged("Draining", 1).await;
        // Two signals within half a second mean one, as `timeout` and its like send them.
        server.signal(Signal::INT);
        if answers(address).await && answers(address).await && answers(address).await {
            break (server, waiting);
        }
        // A machine that took longer than half a second from the one to the other gets another try.
        assert!(Instant::now() < deadline, "the second signal of a burst ends the process");
    };
    while server.is_alive() {
        assert!(Instant::now() < deadline + PATIENCE, "no signal ends the process");
        server.signal(Signal::INT);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(server.exit().await.0.code(), Some(130));
    assert!(waiting.await.unwrap().is_err());
}
