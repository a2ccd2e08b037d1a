//! Who may call what, how often, and the line that each attempt to change something leaves.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    body::Body,
    extract::Request,
    routing::{delete, get, post},
};
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use math_service::{
    app::App,
    auth::{
        access::{Access, Guarded, Principal},
        audit::Audit,
        issuer::Issuer,
        limit::Rate,
        oidc::Oidc,
        scope::Scope,
        tokens::{PAUSE, Tokens},
    },
    config::Config,
    http::Routes,
    lifecycle::Lifecycle,
    problem::Problem,
    targets::Target,
    telemetry::{self, metrics::Metrics, writer::Writer},
};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::{
    auth::{AUDIENCE, Signer, TestIssuer},
    support::{PATIENCE, Reply, lambda_binary, server_command},
};

pub(crate) const NOW: u64 = 1_800_000_000;

// ---------------------------------------------------------------- the tokens file

fn sha256(token: &str) -> String {
    digest(&SHA256, token.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder of the test's own, removed at its end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("access-{:016x}", fastrand::u64(..)));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// As a kubelet changes a mounted Secret: the file is a link into `..data`, which becomes another folder at once.
    pub(crate) fn mount(&self, lines: &[String]) -> PathBuf {
        let version = format!("..{:016x}", fastrand::u64(..));
        fs::create_dir(self.0.join(&version)).unwrap();
        fs::write(self.0.join(&version).join("tokens"), lines.join("\n")).unwrap();
        std::os::unix::fs::symlink(&version, self.0.join("..data_tmp")).unwrap();
        fs::rename(self.0.join("..data_tmp"), self.0.join("..data")).unwrap();
        let path = self.0.join("tokens");
        if !path.is_symlink() {
            std::os::unix::fs::symlink("..data/tokens", &path).unwrap();
        }
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn line(token: &str, name: &str, scopes: &str) -> String {
    format!("{} {name} {scopes}", sha256(token))
}

/// Every kind of caller: who holds `reads` is called `reader`, and so on.
pub(crate) fn everybody() -> Vec<String> {
    vec![
        line("reads", "reader", "jobs:read"),
        line("writes", "writer", "jobs:write"),
        line("names", "namer", "namespaces:write"),
        line("all", "admin", "jobs:read,jobs:write,namespaces:write,audit:read"),
        line("audits", "auditor", "audit:read"),
        format!("{} 2027-01-15T08:00:00Z", line("expires", "guest", "jobs:read")),
    ]
}

// ---------------------------------------------------------------- the service

#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Guarded routes of the test's own, served as the service serves its own, and what it logs.
struct Service {
    app: App,
    seconds: Arc<AtomicU64>,
    logs: Writer,
    log: Memory,
    _subscriber: tracing::subscriber::DefaultGuard,
    _folder: Option<Folder>,
}

#[derive(Default)]
struct Setup<'a> {
    tokens: Option<&'a [String]>,
    issuer: Option<&'a TestIssuer>,
    rate: Option<&'a str>,
    settings: &'a [(&'a str, &'a str)],
    logs: Option<Writer>,
}

fn config(settings: &[(&str, &str)]) -> Config {
    Config::from_env(|name| {
        settings.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    })
    .unwrap()
}

impl Setup<'_> {
    fn start(self) -> Service {
        let config = config(self.settings);
        let log = Memory::default();
        let logs = self.logs.unwrap_or_else(|| Writer::start(log.clone()).unwrap());
        let subscriber = telemetry::subscriber(config.log_filter.clone(), logs.clone());
        let subscriber = tracing::subscriber::set_default(subscriber);
        let seconds = Arc::new(AtomicU64::new(NOW));
        let hands = seconds.clone();
        let clock: math_service::auth::Clock =
            Arc::new(move || UNIX_EPOCH + Duration::from_secs(hands.load(Ordering::Relaxed)));
        let folder = self.tokens.map(|_| Folder::new());
        let tokens = folder.as_ref().zip(self.tokens).map(|(folder, lines)| {
            Tokens::load(&folder.mount(lines), clock.clone()).unwrap_or_else(|error| panic!("{error}"))
        });
        let oidc = self
            .issuer
            .map(|issuer| Oidc::new(Issuer::parse(&issuer.url).unwrap(), AUDIENCE.to_owned(), clock.clone()));
        let rate = Rate::parse(self.rate.unwrap_or("1000000/s")).unwrap();
        let access = Access::new(tokens, oidc, rate, Some(logs.clone()), None);
        let app = App::around(
            vec![],
            routes(&access),
            &config,
            Lifecycle::default(),
            Metrics::new(None, false).unwrap(),
        )
        .unwrap();
        Service { app, seconds, logs, log, _subscriber: subscriber, _folder: folder }
    }
}

fn routes(access: &Access) -> Guarded {
    access.guard([
        ("/api/v1/jobs", Scope::JobsRead, get(async |who: Principal| who.name().to_owned())),
        ("/api/v1/jobs", Scope::JobsWrite, post(create)),
        ("/api/v1/namespaces/{name}", Scope::NamespacesWrite, delete(async || StatusCode::NO_CONTENT)),
        ("/api/v1/slow", Scope::JobsWrite, post(slow)),
        ("/api/v1/panic", Scope::JobsWrite, post(panics)),
        ("/api/v1/forgotten", Scope::JobsRead, post(async |_: Audit| "no scope to write")),
    ])
}

async fn create(who: Principal, audit: Audit, body: String) -> Result<(StatusCode, String), Problem> {
    audit.cluster("math");
    audit.namespace("batch");
    audit.name(&body);
    if body.is_empty() {
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "a job has a name"));
    }
    audit.uid("7c9e6679");
    Ok((StatusCode::CREATED, who.name().to_owned()))
}

async fn slow(audit: Audit) {
    audit.name("half-done");
    std::future::pending().await
}

async fn panics(audit: Audit) {
    audit.name("half-done");
    panic!("on purpose");
}

impl Service {
    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.app.serve(request, None).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// With a bearer token, if it is not empty.
    async fn with(&self, token: &str, method: &str, path: &str) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("x-request-id", "test-1")];
        self.call(method, path, &headers[usize::from(token.is_empty())..], "job-1").await
    }

    async fn list(&self, token: &str) -> Reply {
        self.with(token, "GET", "/api/v1/jobs").await
    }

    async fn create(&self, token: &str) -> Reply {
        self.with(token, "POST", "/api/v1/jobs").await
    }

    fn lines(&self) -> Vec<Value> {
        self.logs.flush();
        let bytes = self.log.0.lock().unwrap();
        String::from_utf8_lossy(&bytes).lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The audit lines alone, without their times.
    fn audited(&self) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| line["event"] == "Audited");
        for line in &mut lines {
            line.as_object_mut().unwrap().remove("timestamp");
        }
        lines
    }
}

fn challenge(reply: &Reply) -> &str {
    reply.header("www-authenticate")
}

// ---------------------------------------------------------------- who may

#[tokio::test]
async fn where_nobody_can_sign_in_every_guarded_route_is_closed_and_says_why() {
    let service = Setup::default().start();
    for token in ["", "all", "a.b.c"] {
        for (method, path) in [("GET", "/api/v1/jobs"), ("POST", "/api/v1/jobs")] {
            let reply = service.with(token, method, path).await;
            assert_eq!((reply.status.as_u16(), challenge(&reply)), (403, ""));
            let detail = "this API is closed: neither AUTH_TOKENS_FILE nor OIDC_ISSUER is set";
            assert_eq!(reply.json()["detail"], detail);
        }
    }
}

#[tokio::test]
async fn every_route_takes_the_tokens_with_its_scope_and_no_other() {
    let everybody = everybody();
    let service = Setup { tokens: Some(&everybody), ..Setup::default() }.start();
    for (method, path, scope, takers) in [
        ("GET", "/api/v1/jobs", "jobs:read", ["reads", "all"]),
        ("HEAD", "/api/v1/jobs", "jobs:read", ["reads", "all"]),
        ("POST", "/api/v1/jobs", "jobs:write", ["writes", "all"]),
        ("DELETE", "/api/v1/namespaces/batch", "namespaces:write", ["names", "all"]),
    ] {
        for token in ["reads", "writes", "names", "all"] {
            let reply = service.with(token, method, path).await;
            if takers.contains(&token) {
                assert!(reply.status.is_success(), "{token} {method} {path}: {}", reply.status);
                continue;
            }
            let expected =
                format!(r#"Bearer realm="math-service", error="insufficient_scope", scope="{scope}""#);
            assert_eq!((reply.status.as_u16(), challenge(&reply)), (403, expected.as_str()), "{token}");
        }
    }
    let reply = service.list("all").await;
    assert_eq!(reply.text(), "admin", "the handler knows who it is");
    assert_eq!(service.with("all", "PUT", "/api/v1/jobs").await.status, 405);
    assert_eq!(service.with("all", "GET", "/api/v1/nothing").await.status, 404);
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_told_why() {
    let everybody = everybody();
    let service = Setup { tokens: Some(&everybody), ..Setup::default() }.start();
    let invalid = |description| {
        format!(r#"Bearer realm="math-service", error="invalid_token", error_description="{description}""#)
    };
    let none = service.list("").await;
    assert_eq!((none.status.as_u16(), challenge(&none)), (401, r#"Bearer realm="math-service""#));
    // The hash is no token, and neither is a part of one.
    for token in ["unknown", "all.", "al", sha256("all").as_str()] {
        let reply = service.list(token).await;
        assert_eq!(
            (reply.status.as_u16(), challenge(&reply)),
            (401, invalid("the token is unknown").as_str())
        );
    }
    let basic = service.call("GET", "/api/v1/jobs", &[("authorization", "Basic YWxsOng=")], "").await;
    assert_eq!((basic.status.as_u16(), challenge(&basic)), (401, r#"Bearer realm="math-service""#));

    // 2027-01-15T08:00:00Z.
    service.seconds.store(NOW - 1, Ordering::Relaxed);
    assert_eq!(service.list("expires").await.status, 200);
    service.seconds.store(NOW, Ordering::Relaxed);
    let reply = service.list("expires").await;
    assert_eq!((reply.status.as_u16(), challenge(&reply)), (401, invalid("the token has expired").as_str()));
}

#[tokio::test]
async fn an_issuers_token_has_the_scopes_of_its_claims() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let everybody = everybody();
    let service = Setup { tokens: Some(&everybody), issuer: Some(&issuer), ..Setup::default() }.start();
    let token = |more: Value| {
        let mut claims = json!({ "iss": issuer.url, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 60 });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        signer.token(&claims)
    };
    for (claims, reads, writes) in [
        (json!({}), 403, 403),
        (json!({ "scope": "openid jobs:read" }), 200, 403),
        (json!({ "scope": "jobs:write  jobs:read" }), 200, 201),
        (json!({ "scp": "jobs:read jobs:write" }), 200, 201),
        (json!({ "scp": ["jobs:read", "email"] }), 200, 403),
        (json!({ "scp": ["jobs:read jobs:write"] }), 403, 403),
        (json!({ "scope": "jobs:read", "scp": ["jobs:write"] }), 200, 201),
        (json!({ "scope": "JOBS:READ,jobs:write" }), 403, 403),
        (json!({ "scope": 7, "scp": { "jobs:read": true } }), 403, 403),
        (json!({ "scope": null, "scp": ["jobs:read", 7] }), 403, 403),
        (json!({ "roles": ["jobs:read"], "permissions": ["jobs:read"] }), 403, 403),
    ] {
        let token = token(claims.clone());
        let statuses = (service.list(&token).await.status, service.create(&token).await.status);
        assert_eq!((statuses.0.as_u16(), statuses.1.as_u16()), (reads, writes), "{claims}");
    }
    let read = token(json!({ "scope": "jobs:read" }));
    assert_eq!(service.list(&read).await.text(), "alice");
    assert_eq!(service.list("all").await.text(), "admin", "the file's tokens hold beside");
    let forged = Signer::new("ES256", "1").token(
        &json!({ "iss": issuer.url, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 60, "scope": "jobs:read" }),
    );
    assert!(challenge(&service.list(&forged).await).contains("the token's signature is wrong"));
}

#[tokio::test]
async fn a_token_of_the_file_signs_nobody_in_for_fibonacci() {
    let folder = Folder::new();
    let path = folder.mount(&everybody());
    let file = ("AUTH_TOKENS_FILE", path.to_str().unwrap());
    let oidc = [("OIDC_ISSUER", "http://localhost:1"), ("OIDC_AUDIENCE", AUDIENCE)];
    for settings in [vec![file], [vec![file], oidc.to_vec()].concat()] {
        let app = App::new(&config(&settings), Target::Container, None).unwrap();
        let request = Request::post("/fibonacci/next").header("host", "localhost");
        let request = request.header("authorization", "Bearer all").body(Body::empty()).unwrap();
        assert_eq!(app.serve(request, None).await.status(), 401);
    }
}

#[tokio::test]
async fn browsers_may_ask_before_they_sign_in() {
    let everybody = everybody();
    let settings = [("CORS_ALLOWED_ORIGINS", "https://a.example")];
    let service = Setup { tokens: Some(&everybody), settings: &settings, ..Setup::default() }.start();
    let origin = ("origin", "https://a.example");
    let headers = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let preflight = service.call("OPTIONS", "/api/v1/jobs", &headers, "").await;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-headers"), "authorization");
    let refused = service.call("GET", "/api/v1/jobs", &[origin], "").await;
    assert_eq!((refused.status.as_u16(), refused.header("access-control-expose-headers")), (401, "*"));
    assert_eq!(service.audited(), Vec::<Value>::new(), "nothing was to be changed");
}

// ---------------------------------------------------------------- the file changes

#[tokio::test(start_paused = true)]
async fn a_rotated_secret_holds_within_seconds_and_a_bad_one_changes_nothing() {
    let (old, new) = (line("old", "ci", "jobs:read"), line("new", "ci", "jobs:read"));
    let service = Setup { tokens: Some(std::slice::from_ref(&old)), ..Setup::default() }.start();
    let folder = service._folder.as_ref().unwrap();
    let statuses =
        async || (service.list("old").await.status.as_u16(), service.list("new").await.status.as_u16());
    assert_eq!(statuses().await, (200, 401));
    folder.mount(&[old, new.clone()]);
    assert_eq!(statuses().await, (200, 401), "the file is not read for each request");
    tokio::time::advance(PAUSE).await;
    assert_eq!(statuses().await, (200, 200));
    folder.mount(std::slice::from_ref(&new));
    tokio::time::advance(PAUSE).await;
    assert_eq!(statuses().await, (401, 200), "the very first request finds it changed");

    for _ in 0..3 {
        folder.mount(&["# new file".to_owned(), "old".to_owned()]);
        tokio::time::advance(PAUSE).await;
        assert_eq!(statuses().await, (401, 200), "what held goes on to hold");
    }
    fs::remove_file(folder.0.join("..data")).unwrap();
    tokio::time::advance(PAUSE).await;
    assert_eq!(statuses().await, (401, 200));
    folder.mount(&[]);
    tokio::time::advance(PAUSE).await;
    assert_eq!(statuses().await, (401, 401), "an empty file is for nobody");

    let lines = service.lines();
    let kept: Vec<_> =
        lines.iter().filter(|line| line["event"] == "Went on with the tokens as they were").collect();
    assert_eq!(kept.len(), 2, "once each: {lines:?}");
    let error = kept[0]["error"].as_str().unwrap();
    assert!(error.starts_with("AUTH_TOKENS_FILE=") && error.contains(": line 2: "), "{error}");
    assert!(kept[1]["error"].as_str().unwrap().contains("cannot be read"), "{kept:?}");
    let read = lines.iter().filter(|line| line["event"] == "Read AUTH_TOKENS_FILE again");
    assert_eq!(read.map(|line| line["tokens"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 1, 0]);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_stops_the_start_with_one_line() {
    let folder = Folder::new();
    let bad = folder.mount(&["# tokens".to_owned(), "hunter2 ci jobs:read".to_owned()]);
    let missing = folder.0.join("missing");
    for (path, reason) in [
        (&bad, "line 2: it must begin with the token's SHA-256, 64 hexadecimal digits"),
        (&missing, "cannot be read: No such file or directory (os error 2)"),
        (&folder.0, "is no file"),
    ] {
        let mut server = server_command();
        server.env("PORT", "0").env("HOST", "127.0.0.1");
        let mut lambda = tokio::process::Command::new(lambda_binary());
        lambda.env_clear().env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1");
        for command in [&mut server, &mut lambda] {
            let output = command.env("AUTH_TOKENS_FILE", path).kill_on_drop(true).output();
            let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends").unwrap();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
            let expected = format!("math-service: AUTH_TOKENS_FILE={path:?}: {reason}\n");
            assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
        }
    }
}

#[tokio::test]
async fn the_line_that_the_readme_makes_is_one_of_the_file() {
    let line = include_str!("../../README.md").lines().find(|line| line.contains("sha256sum | cut"));
    let command = line.expect("it is there").trim_start_matches("$ ");
    let folder = Folder::new();
    let mut shell = tokio::process::Command::new("sh");
    let status = shell.args(["-c", command]).env("TOKEN", "all").current_dir(&folder.0).status();
    assert!(status.await.unwrap().success());
    let made = fs::read_to_string(folder.0.join("tokens")).unwrap();
    let service = Setup { tokens: Some(&[made]), ..Setup::default() }.start();
    assert_eq!(service.list("all").await.text(), "ci");
    assert_eq!(service.create("all").await.status, 201);
    assert_eq!(service.with("all", "DELETE", "/api/v1/namespaces/batch").await.status, 204);
}

// ---------------------------------------------------------------- how often

#[tokio::test(start_paused = true)]
async fn each_caller_has_a_limit_of_its_own_and_every_answer_tells_what_is_left() {
    let mut everybody = everybody();
    everybody.push(line("second", "reader", "jobs:read"));
    let service = Setup { tokens: Some(&everybody), rate: Some("3/m"), ..Setup::default() }.start();
    let limit = |reply: &Reply| {
        (
            reply.status.as_u16(),
            reply.header("ratelimit").to_owned(),
            reply.header("ratelimit-policy").to_owned(),
        )
    };
    let expect = |status, left, wait| {
        (status, format!(r#""default";r={left};t={wait}"#), r#""default";q=3;w=60"#.to_owned())
    };
    assert_eq!(limit(&service.list("reads").await), expect(200, 2, 20));
    assert_eq!(limit(&service.create("reads").await), expect(403, 1, 20), "a refusal counts");
    assert_eq!(limit(&service.list("second").await), expect(200, 0, 20), "two tokens, one caller");
    let refused = service.list("reads").await;
    assert_eq!(limit(&refused), expect(429, 0, 20));
    assert_eq!(refused.header("retry-after"), "20");
    assert!(refused.json()["detail"].as_str().unwrap().contains("3/m"));
    assert_eq!(limit(&service.list("all").await), expect(200, 2, 20), "another caller");
    assert_eq!(limit(&service.list("unknown").await), (401, String::new(), String::new()), "nobody");

    tokio::time::advance(Duration::from_secs(19)).await;
    assert_eq!(limit(&service.list("reads").await), expect(429, 0, 1));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(limit(&service.list("reads").await), expect(200, 0, 20));
    assert_eq!(limit(&service.list("reads").await), expect(429, 0, 20));
}

// ---------------------------------------------------------------- the audit line

#[tokio::test(start_paused = true)]
async fn every_attempt_to_change_something_leaves_one_line_at_every_log_level() {
    let everybody = everybody();
    for level in ["INFO", "ERROR", "OFF", "off,math_service::audit=off"] {
        let settings = [("LOGLEVEL", level)];
        let service =
            Setup { tokens: Some(&everybody), rate: Some("3/h"), settings: &settings, ..Setup::default() }
                .start();
        assert_eq!(service.create("all").await.status, 201);
        let bearer = [("authorization", "Bearer all"), ("x-request-id", "test-1")];
        assert_eq!(service.call("POST", "/api/v1/jobs", &bearer, "").await.status, 422);
        assert_eq!(service.create("reads").await.status, 403);
        assert_eq!(service.create("unknown").await.status, 401);
        assert_eq!(service.with("names", "DELETE", "/api/v1/namespaces/batch").await.status, 204);
        service.list("all").await;
        assert_eq!(service.create("all").await.status, 429);
        assert_eq!(service.list("reads").await.status, 200);

        let line = |more: Value| {
            let mut line = json!({
                "event": "Audited", "verb": "POST", "route": "/api/v1/jobs", "path": "/api/v1/jobs",
                "request_id": "test-1", "level": "info",
            });
            line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            line
        };
        let by = |who: &str, more: Value| {
            let mut more = more;
            more["who"] = json!(who);
            more["issuer"] = json!("AUTH_TOKENS_FILE");
            line(more)
        };
        assert_eq!(
            service.audited(),
            [
                by(
                    "admin",
                    json!({ "cluster": "math", "namespace": "batch", "name": "job-1", "uid": "7c9e6679", "status": 201, "outcome": "done" })
                ),
                by(
                    "admin",
                    json!({ "cluster": "math", "namespace": "batch", "name": "", "status": 422, "outcome": "refused" })
                ),
                by("reader", json!({ "status": 403, "outcome": "refused" })),
                line(json!({ "status": 401, "outcome": "refused" })),
                by(
                    "namer",
                    json!({ "verb": "DELETE", "route": "/api/v1/namespaces/{name}", "path": "/api/v1/namespaces/batch", "status": 204, "outcome": "done" })
                ),
                by("admin", json!({ "status": 429, "outcome": "refused" })),
            ],
            "LOGLEVEL={level}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_outcome_nobody_saw_is_audited_as_unknown() {
    let everybody = everybody();
    let settings = [("REQUEST_TIMEOUT", "10s"), ("LOGLEVEL", "OFF")];
    let service = Setup { tokens: Some(&everybody), settings: &settings, ..Setup::default() }.start();
    // It takes too long; it panics; its client leaves.
    assert_eq!(service.with("all", "POST", "/api/v1/slow").await.status, 504);
    assert_eq!(service.with("all", "POST", "/api/v1/panic").await.status, 500);
    let left =
        tokio::time::timeout(Duration::from_secs(1), service.with("all", "POST", "/api/v1/slow")).await;
    assert!(left.is_err());
    let lines = service.audited();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in lines {
        let seen = (&line["outcome"], &line["who"], &line["name"], &line["request_id"], &line["status"]);
        let expected =
            (&json!("unknown"), &json!("admin"), &json!("half-done"), &json!("test-1"), &Value::Null);
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn what_a_caller_sends_cannot_forge_a_line_nor_make_it_long() {
    let everybody = everybody();
    let service = Setup { tokens: Some(&everybody), ..Setup::default() }.start();
    let bearer = [("authorization", "Bearer all")];
    let name = format!("a\"}}\n{{\"event\":\"Audited\"}}\u{1b}[2J{}", "\"\\\u{fc}".repeat(30_000));
    assert_eq!(service.call("POST", "/api/v1/jobs", &bearer, &name).await.status, 201);
    let path = format!("/api/v1/namespaces/{}", "n".repeat(5000));
    assert_eq!(service.call("DELETE", &path, &bearer, "").await.status, 204);
    let lines = service.audited();
    assert_eq!(lines.len(), 2);
    assert!(lines[0]["name"].as_str().unwrap().len() < 300 && lines[1]["path"].as_str().unwrap().len() < 300);
    assert!(!lines[0]["name"].as_str().unwrap().contains(char::is_control));
}

/// Takes nothing until it is told to.
struct Stalled(mpsc::Receiver<()>);

impl io::Write for Stalled {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An error, here, is a test that ended.
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn nothing_is_changed_while_its_line_could_be_lost() {
    let everybody = everybody();
    let (permit, permits) = mpsc::channel();
    let logs = Writer::start(Stalled(permits)).unwrap();
    let service = Setup { tokens: Some(&everybody), logs: Some(logs.clone()), ..Setup::default() }.start();
    let mut done = 0;
    let refused = loop {
        assert!(done < 100_000, "the buffer has an end");
        let reply = service.create("all").await;
        match reply.status.as_u16() {
            201 => done += 1,
            _ => break reply,
        }
    };
    println!("{done} changes before stdout, which is not read, has no room left");
    assert!(done >= 500, "other requests log too, and must not take this room: {done}");
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("audit log"));
    assert_eq!(refused.header("ratelimit-policy"), r#""default";q=1000000;w=1"#);
    assert_eq!(service.list("all").await.status, 200, "reading goes on");
    assert!(logs.dropped_total() > 0, "the refusal's own line is counted");
    // Somebody reads again.
    drop(permit);
    logs.flush();
    assert_eq!(service.create("all").await.status, 201);
}

// ---------------------------------------------------------------- it is hard to forget

#[tokio::test]
async fn no_route_below_api_is_served_without_a_guard() {
    for path in [
        "/api/v1/jobs",
        "/api/",
        "/api/{*rest}",
        "/api/v1/simulations/{id}",
        "/api/v1/simulations/",
        "/api/simulations",
    ] {
        let open: Routes = vec![(path, get(async || "open"))];
        let metrics = Metrics::new(None, false).unwrap();
        let app = App::around(open, Guarded::default(), &config(&[]), Lifecycle::default(), metrics);
        assert_eq!(app.err().expect(path).to_string(), format!("{path} needs a guard"));
    }
}

#[tokio::test]
async fn a_handler_without_its_guard_answers_nobody() {
    let open: Routes = vec![
        ("/who", get(async |who: Principal| who.name().to_owned())),
        ("/what", post(async |_: Audit| "changed")),
    ];
    let metrics = Metrics::new(None, false).unwrap();
    let app = App::around(open, Guarded::default(), &config(&[]), Lifecycle::default(), metrics).unwrap();
    for (method, path) in [(Method::GET, "/who"), (Method::POST, "/what")] {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("authorization", "Bearer all").body(Body::empty()).unwrap();
        assert_eq!(app.serve(request, None).await.status(), 500, "{path}");
    }
    let everybody = everybody();
    let service = Setup { tokens: Some(&everybody), ..Setup::default() }.start();
    assert_eq!(
        service.with("all", "POST", "/api/v1/forgotten").await.status,
        500,
        "its scope is one to read"
    );
}
