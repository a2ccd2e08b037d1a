//! CPU burnt on request, and when it stops: with the answer, with the client, at `REQUEST_TIMEOUT`, at the
//! end of a drain. The corpus has the refusals, on both targets.

use std::{net::SocketAddr, time::Duration};

use hyper::Version;
use rustix::process::Signal;
use serde_json::Value;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    gateway::{Front, Gateway, Options},
    support::{Reply, Server, lambda_binary, metric, request, until_busy},
};

/// Longer than any test waits for it: who asks for this much relies on its being cut short.
const ENDLESS: (&str, &str) = ("LOAD_MAX_SECONDS", "600");
const TIMEOUT: (&str, &str) = ("REQUEST_TIMEOUT", "700s");
const ENABLED: (&str, &str) = ("LOAD_ENABLED", "true");
const BURN: &str = "/load?seconds=600";

/// A process that burns uses a second of CPU a second, or what a busy machine leaves it.
async fn burns_nothing(server: SocketAddr) {
    if cfg!(target_os = "linux") {
        let before = metric(server, "process_cpu_seconds_total").await;
        sleep(Duration::from_secs(1)).await;
        let used = metric(server, "process_cpu_seconds_total").await - before;
        assert!(used < 0.2, "{used} s of CPU in an idle second");
    }
}

/// A request under way, its connection held here.
fn asking(server: SocketAddr, path: &'static str, version: Version) -> JoinHandle<hyper::Result<Reply>> {
    tokio::spawn(async move {
        let stream = TcpStream::connect(server).await.unwrap();
        request("GET", path).send_on(stream, version).await
    })
}

#[tokio::test]
async fn a_burn_takes_as_much_cpu_as_was_asked_for() {
    let server = Server::start(&[ENABLED]).await;
    let cpu = async || metric(server.address, "process_cpu_seconds_total").await;
    let before = cpu().await;
    let reply = request("GET", "/load?seconds=0.5").send(server.address).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["seconds"], 0.5);
    assert!(reply.json()["iterations"].as_u64().unwrap() > 0, "{reply:?}");
    if cfg!(target_os = "linux") {
        let used = cpu().await - before;
        println!("load: 0.5 s of CPU asked for, {used:.2} s used by the whole process");
        // The kernel reports hundredths; the rest of the process needs far less than a burn.
        assert!((0.48..0.75).contains(&used), "{used}");
    }
    let lines = server.stop().await;
    let events: Vec<&Value> = lines.iter().map(|line| &line["event"]).collect();
    assert_eq!(events, ["Burning CPU", "Burnt CPU", "Draining", "Stopped"]);
    assert_eq!(lines[1]["iterations"], reply.json()["iterations"]);
}

#[tokio::test]
async fn the_function_burns_too() {
    let mut options = Options::new(Front::HttpV2 { stage: None }, lambda_binary());
    options.env = vec![(ENABLED.0.to_owned(), ENABLED.1.to_owned())];
    let gateway = Gateway::start(options).await.unwrap();
    let reply = request("GET", "/load?seconds=0.05").send(gateway.addr()).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["seconds"]), (200, &0.05.into()), "{reply:?}");
}

#[tokio::test]
async fn a_request_that_says_nothing_burns_no_more_than_the_limit() {
    let server = Server::start(&[ENABLED, ("LOAD_MAX_SECONDS", "0.02")]).await;
    let reply = request("GET", "/load").send(server.address).await;
    assert_eq!(reply.json()["seconds"], 0.02, "{reply:?}");
    let refused = request("GET", "/load?seconds=0.03").send(server.address).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("above 0 and up to 0.02"), "{refused:?}");
}

#[tokio::test]
async fn past_the_slots_a_burn_is_refused_and_health_routes_still_answer() {
    let slots = 4 * std::thread::available_parallelism().unwrap().get();
    let server = Server::start(&[ENABLED, ENDLESS, TIMEOUT, ("LOAD_SLOTS", &slots.to_string())]).await;
    let burns: Vec<_> = (0..slots).map(|_| asking(server.address, BURN, Version::HTTP_11)).collect();
    until_busy(server.address, "load_slots_busy", slots).await;
    assert_eq!(metric(server.address, "load_slots").await as usize, slots);

    let refused = request("GET", BURN).send(server.address).await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"), "{refused:?}");
    assert_eq!(metric(server.address, "http_server_requests_shed_total").await, 1.0);

    let began = Instant::now();
    for path in ["/livez", "/healthz", "/readyz", "/health"].repeat(25) {
        assert_eq!(request("GET", path).send(server.address).await.status, 200, "{path}");
    }
    println!("load: {slots} burns, and 100 probes answered within {:?}", began.elapsed());
    assert_eq!(metric(server.address, "load_slots_busy").await as usize, slots, "none made room");
    assert!(burns.iter().all(|burn| !burn.is_finished()));
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_burn_and_frees_the_slot() {
    let server = Server::start(&[ENABLED, ENDLESS, TIMEOUT, ("LOAD_SLOTS", "1")]).await;
    let mut http1 = TcpStream::connect(server.address).await.unwrap();
    http1.write_all(format!("GET {BURN} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes()).await.unwrap();
    until_busy(server.address, "load_slots_busy", 1).await;
    drop(http1);
    until_busy(server.address, "load_slots_busy", 0).await;
    burns_nothing(server.address).await;

    let http2 = asking(server.address, BURN, Version::HTTP_2);
    until_busy(server.address, "load_slots_busy", 1).await;
    http2.abort();
    until_busy(server.address, "load_slots_busy", 0).await;
    burns_nothing(server.address).await;

    let reply = request("GET", "/load?seconds=0.01").send(server.address).await;
    assert_eq!(reply.status, 200, "the slot is free again: {reply:?}");
}

#[tokio::test]
async fn a_burn_that_takes_too_long_by_the_clock_is_answered_504_and_stops() {
    // Far more burns than processors: they cannot all get the CPU time that they ask for before the timeout.
    let burns = 8 * std::thread::available_parallelism().unwrap().get().min(32);
    let slots = burns.to_string();
    let settings = [ENABLED, ("LOAD_MAX_SECONDS", "1.9"), ("REQUEST_TIMEOUT", "2s"), ("LOAD_SLOTS", &slots)];
    let server = Server::start(&settings).await;
    let burns: Vec<_> =
        (0..burns).map(|_| asking(server.address, "/load?seconds=1.9", Version::HTTP_11)).collect();
    let mut answered = Vec::new();
    for burn in burns {
        answered.push(burn.await.unwrap().unwrap().status.as_u16());
    }
    assert!(answered.contains(&504), "{answered:?}");
    assert!(answered.iter().all(|status| matches!(status, 200 | 504)), "{answered:?}");
    until_busy(server.address, "load_slots_busy", 0).await;
    burns_nothing(server.address).await;
}

#[tokio::test]
async fn a_burn_that_can_finishes_during_the_drain() {
    let server = Server::start(&[ENABLED, TIMEOUT, ("DRAIN_TIMEOUT", "600s")]).await;
    let burn = asking(server.address, "/load?seconds=3", Version::HTTP_11);
    // Three seconds of CPU time: a machine that stands still here stands still there.
    server.logged("Burning CPU", 1).await;
    server.signal(Signal::TERM);
    let reply = burn.await.unwrap().expect("a complete answer");
    assert_eq!((reply.status.as_u16(), reply.header("connection")), (200, "close"), "{reply:?}");
    assert_eq!(server.exit().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_burn_that_outlives_the_drain_is_answered_503() {
    let server =
        Server::start(&[ENABLED, ENDLESS, TIMEOUT, ("LOAD_SLOTS", "2"), ("DRAIN_TIMEOUT", "300ms")]).await;
    let burns = [Version::HTTP_11, Version::HTTP_2].map(|version| asking(server.address, BURN, version));
    until_busy(server.address, "load_slots_busy", 2).await;
    server.signal(Signal::TERM);
    for burn in burns {
        let reply = burn.await.unwrap().expect("a complete answer");
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (503, "1"), "{reply:?}");
    }
    assert_eq!(server.exit().await.0.code(), Some(0), "it does not wait for what burns");
}

#[tokio::test]
async fn a_burn_that_could_only_time_out_stops_the_start() {
    let output =
        crate::support::server_command().envs([ENABLED, ("LOAD_MAX_SECONDS", "30")]).output().await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("LOAD_MAX_SECONDS") && stderr.contains("REQUEST_TIMEOUT (30s)"), "{stderr}");
}
