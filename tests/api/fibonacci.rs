//! The Fibonacci numbers, the callers' sequences, and their sessions, over TCP.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    databases::{Database, Folder, Kind},
    support::{Outgoing, PATIENCE, Reply, Server, request},
};

const KEY: &str = "0123456789-0123456789-0123456789";

fn call(method: &str, path: &str) -> Outgoing {
    request(method, path).header("x-session-key", KEY)
}

async fn index(to: SocketAddr, request: Outgoing) -> Value {
    let reply = request.send(to).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["index"].clone()
}

fn cookie(reply: &Reply) -> String {
    reply.header("set-cookie").split(';').next().unwrap().to_owned()
}

/// A server with a store of its own.
async fn server(settings: &[(&str, &str)]) -> (Server, Database) {
    let database = Database::new(Kind::Sqlite).await.expect("SQLite is in the binary");
    let all: Vec<_> = database.settings().into_iter().chain(settings.iter().copied()).collect();
    (Server::start(&all).await, database)
}

#[tokio::test]
async fn any_number_up_to_the_limit_is_served_exactly() {
    let server = Server::start(&[("FIBONACCI_MAX_INDEX", "30000")]).await;
    for (index, value) in
        [("0", "0"), ("1", "1"), ("2", "1"), ("100", "354224848179261915075"), ("007", "13")]
    {
        let reply = request("GET", &format!("/fibonacci/{index}")).send(server.address).await;
        let index: u64 = index.parse().unwrap();
        assert_eq!(reply.text(), json!({"index": index, "value": value}).to_string());
    }
    // Above 20,000 they are computed on another thread.
    let large = request("GET", "/fibonacci/30000").send(server.address).await.json();
    let (before, after) = (
        request("GET", "/fibonacci/29998").send(server.address).await.json(),
        request("GET", "/fibonacci/29999").send(server.address).await.json(),
    );
    let number = |reply: &Value| reply["value"].as_str().unwrap().parse::<dashu_int::UBig>().unwrap();
    assert_eq!(number(&large), number(&before) + number(&after));
    for path in ["30001", "-1", "+1", "1.5", "ten", "1e3", "18446744073709551616", "%FF", "%31x"] {
        let reply = request("GET", &format!("/fibonacci/{path}")).send(server.address).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type")),
            (422, "application/problem+json"),
            "{path}"
        );
    }
    let refused = request("GET", "/fibonacci/next").send(server.address).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn a_sequence_counts_from_zero_stands_and_starts_over() {
    let (server, _database) = server(&[]).await;
    let at = server.address;
    let not_begun = call("GET", "/fibonacci").send(at).await;
    assert_eq!((not_begun.status.as_u16(), not_begun.header("x-session-key")), (404, KEY));
    for (expected, value) in ["0", "1", "1", "2", "3", "5"].into_iter().enumerate() {
        let reply = call("POST", "/fibonacci/next").send(at).await;
        assert_eq!(reply.text(), json!({"index": expected, "value": value}).to_string());
        assert_eq!(call("GET", "/fibonacci").send(at).await.body, reply.body, "looking changes nothing");
    }
    let reset = call("DELETE", "/fibonacci").send(at).await;
    assert_eq!((reset.status.as_u16(), reset.text()), (204, ""));
    assert_eq!(call("DELETE", "/fibonacci").send(at).await.status, 204, "again");
    assert_eq!(call("GET", "/fibonacci").send(at).await.status, 404);
    assert_eq!(index(at, call("POST", "/fibonacci/next")).await, 0);
}

#[tokio::test]
async fn a_retry_gets_its_first_answer() {
    let (server, _database) = server(&[]).await;
    let at = server.address;
    let retry = |key: &str| call("POST", "/fibonacci/next").header("idempotency-key", key);
    assert_eq!(index(at, retry("a")).await, 0);
    assert_eq!(index(at, call("POST", "/fibonacci/next")).await, 1);
    assert_eq!(index(at, retry("a")).await, 0);
    assert_eq!(index(at, retry("b")).await, 2);
    let other = request("POST", "/fibonacci/next").header("x-session-key", &KEY.replace('0', "x"));
    assert_eq!(index(at, other.header("idempotency-key", "b")).await, 0, "another sequence's key is another");
    for bad in ["", "two words", &"x".repeat(256)] {
        assert_eq!(retry(bad).send(at).await.status, 422, "{bad:?}");
    }
    assert_eq!(retry("a").header("idempotency-key", "a").send(at).await.status, 422);
    assert_eq!(index(at, call("GET", "/fibonacci")).await, 2, "what was refused took no step");
}

#[tokio::test]
async fn a_sequence_ends_at_the_limit() {
    let (server, _database) = server(&[("FIBONACCI_MAX_INDEX", "1")]).await;
    for expected in [200, 200, 409, 409] {
        assert_eq!(call("POST", "/fibonacci/next").send(server.address).await.status, expected);
    }
    assert_eq!(index(server.address, call("GET", "/fibonacci")).await, 1);
    call("DELETE", "/fibonacci").send(server.address).await;
    assert_eq!(index(server.address, call("POST", "/fibonacci/next")).await, 0);
}

#[tokio::test]
async fn a_limit_that_was_higher_once_is_no_way_around_it() {
    let database = Database::new(Kind::Sqlite).await.unwrap();
    let mut settings = database.settings();
    let generous = Server::start(&settings).await;
    for _ in 0..3 {
        call("POST", "/fibonacci/next").send(generous.address).await;
    }
    settings.push(("FIBONACCI_MAX_INDEX", "1"));
    let strict = Server::start(&settings).await;
    assert_eq!(call("GET", "/fibonacci").send(strict.address).await.status, 409);
    assert_eq!(call("POST", "/fibonacci/next").send(strict.address).await.status, 409);
}

#[tokio::test]
async fn a_browser_keeps_its_session_in_a_cookie() {
    let (server, _database) = server(&[]).await;
    let at = server.address;
    let first = request("POST", "/fibonacci/next").send(at).await;
    let key = first.header("x-session-key");
    assert_eq!(key.len(), 43);
    assert_eq!(
        first.header("set-cookie"),
        format!("math_session={key}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax")
    );
    assert_eq!(first.header("cache-control"), "no-store");
    let second = request("POST", "/fibonacci/next").header("cookie", &cookie(&first)).send(at).await;
    assert_eq!((&second.json()["index"], second.header("x-session-key")), (&json!(1), key));
    let by_header = request("POST", "/fibonacci/next").header("x-session-key", key).send(at).await;
    assert_eq!((&by_header.json()["index"], by_header.header("set-cookie")), (&json!(2), ""));
    let stranger = request("POST", "/fibonacci/next").send(at).await;
    assert_eq!(stranger.json()["index"], 0);
    assert_ne!(stranger.header("x-session-key"), key);
}

#[tokio::test]
async fn behind_a_trusted_proxy_with_tls_the_cookie_is_secure() {
    let (trusting, _one) = server(&[("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let (wary, _other) = server(&[]).await;
    let secure = async |to: SocketAddr, scheme: &'static str| {
        let reply = request("GET", "/fibonacci").header("x-forwarded-proto", scheme).send(to).await;
        reply.header("set-cookie").contains("; Secure")
    };
    assert!(secure(trusting.address, "https").await);
    assert!(!secure(trusting.address, "http").await);
    assert!(!secure(wary.address, "https").await, "anybody could say so");
}

#[tokio::test]
async fn a_malformed_key_is_refused_and_no_key_is_logged_or_stored() {
    let (server, database) = server(&[("LOGLEVEL", "DEBUG")]).await;
    for bad in ["", "short", &"a".repeat(129), &KEY.replace('-', "+")] {
        let reply =
            request("POST", "/fibonacci/next").header("x-session-key", bad).send(server.address).await;
        assert_eq!(reply.status, 422, "{bad:?}");
        let reply = request("POST", "/fibonacci/next").header("cookie", &format!("math_session={bad}"));
        assert_eq!(reply.send(server.address).await.status, 422, "{bad:?}");
    }
    assert_eq!(index(server.address, call("POST", "/fibonacci/next")).await, 0);
    let lines = server.stop().await;
    assert!(lines.iter().any(|line| line["event"] == "Gave the next number" && line["index"] == 0));
    assert!(lines.iter().all(|line| !line.to_string().contains(KEY)));
    let path = database.url.trim_start_matches("sqlite://");
    for suffix in ["", "-wal"] {
        let bytes = std::fs::read(format!("{path}{suffix}")).unwrap_or_default();
        assert!(!bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes()), "the key is in {path}{suffix}");
    }
}

#[tokio::test]
async fn credentials_that_cannot_be_checked_are_refused() {
    let (server, _database) = server(&[]).await;
    for (method, path) in [("POST", "/fibonacci/next"), ("GET", "/fibonacci"), ("DELETE", "/fibonacci")] {
        let reply = call(method, path).header("authorization", "Bearer x.y.z").send(server.address).await;
        assert_eq!(reply.status, 401, "{method}");
        assert!(reply.header("www-authenticate").contains(r#"error="invalid_token""#), "{method}");
    }
}

#[tokio::test]
async fn a_session_lives_at_least_its_time_and_begins_again_when_it_has_expired() {
    const TTL: Duration = Duration::from_secs(2);
    let (server, _database) = server(&[("SESSION_TTL", "2s")]).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        call("DELETE", "/fibonacci").send(server.address).await;
        let began = Instant::now();
        assert_eq!(index(server.address, call("POST", "/fibonacci/next")).await, 0);
        // Past the end of a second, wherever in it the step was taken.
        tokio::time::sleep(TTL * 2 / 3).await;
        let second = index(server.address, call("POST", "/fibonacci/next")).await;
        // A machine that took longer than the session lives gets another try.
        if began.elapsed() < TTL {
            assert_eq!(second, 1);
            break;
        }
        assert!(Instant::now() < deadline, "no two steps within {TTL:?}");
    }
    while call("GET", "/fibonacci").send(server.address).await.status != 404 {
        assert!(Instant::now() < deadline, "it never expires");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(index(server.address, call("POST", "/fibonacci/next")).await, 0);
}

#[tokio::test]
async fn an_embedded_store_is_refused_where_it_would_be_wrong() {
    let folder = Folder::new();
    let url = format!("sqlite://{}", folder.0.join("state.db").display());
    let inside = [("STATE_URL", url.as_str()), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    let server = Server::start(&inside).await;
    let refused = call("POST", "/fibonacci/next").send(server.address).await;
    assert_eq!(refused.status, 503);
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("STATE_URL") && detail.contains("ALLOW_EMBEDDED_STORE"), "{detail}");
    assert_eq!(request("GET", "/fibonacci/10").send(server.address).await.status, 200);
    let health = request("GET", "/health").send(server.address).await;
    assert_eq!((health.status.as_u16(), &health.json()["store"]["status"]), (200, &json!("not configured")));
    assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none(), "no file was created");

    let allowed = [inside[0], inside[1], ("ALLOW_EMBEDDED_STORE", "true")];
    let server = Server::start(&allowed).await;
    assert_eq!(index(server.address, call("POST", "/fibonacci/next")).await, 0);
}

#[tokio::test]
async fn no_file_is_created_before_it_is_needed() {
    let folder = Folder::new();
    let url = format!("sqlite://{}", folder.0.join("state.db").display());
    let server = Server::start(&[("STATE_URL", &url)]).await;
    request("GET", "/fibonacci/10").send(server.address).await;
    let health = request("GET", "/health").send(server.address).await;
    assert_eq!((health.status.as_u16(), &health.json()["store"]["status"]), (200, &json!("unused")));
    assert!(std::fs::read_dir(&folder.0).unwrap().next().is_none());
    call("GET", "/fibonacci").send(server.address).await;
    assert!(folder.0.join("state.db").exists());
    let health = request("GET", "/health").send(server.address).await;
    assert_eq!(health.json()["store"], json!({"kind": "sqlite", "status": "ok"}));
}

/// A step that is taken once, however busy the disk: a store that takes too long is a 503, which says to try again.
async fn patient_step(key: String, at: SocketAddr) -> Reply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let reply = call("POST", "/fibonacci/next").header("idempotency-key", &key).send(at).await;
        if reply.status != 503 || Instant::now() > deadline {
            return reply;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn replicas_that_start_together_change_the_schema_once() {
    for kind in [Kind::Postgres, Kind::Sqlite] {
        let Some(database) = Database::new(kind).await else { continue };
        let mut servers = Vec::new();
        for _ in 0..4 {
            servers.push(Server::start(&database.settings()).await);
        }
        let calls: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(number, server)| tokio::spawn(patient_step(number.to_string(), server.address)))
            .collect();
        let mut given = Vec::new();
        for call in calls {
            let reply = call.await.unwrap();
            assert_eq!(reply.status, 200, "{kind:?}: {}", reply.text());
            given.push(reply.json()["index"].as_u64().unwrap());
        }
        given.sort_unstable();
        assert_eq!(given, [0, 1, 2, 3], "{kind:?}");
    }
}
