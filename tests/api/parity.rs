//! One corpus through every front door: the answers must be the same.
//!
//! `tests/data/corpus.json` says what is sent and what is expected. It goes over TCP as HTTP/1.1
//! and HTTP/2 to the container binary, and through the local gateway to the Lambda binary behind
//! six kinds of gateway. What may differ is listed below, each with its reason, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{Uri, Version, body::Bytes};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    databases::{Database, Kind},
    gateway::{Front, Gateway, Options},
    support::{Reply, Server, lambda_binary, request},
};

/// Headers that describe the connection or the moment, not the answer.
const HEADERS_THAT_MAY_DIFFER: [(&str, &str); 6] = [
    ("ratelimit", "what is left of the caller's share at that moment"),
    ("date", "the moment of the answer; gateways set their own"),
    ("connection", "hop by hop"),
    ("keep-alive", "hop by hop"),
    ("transfer-encoding", "hop by hop"),
    ("content-length", "follows from the body, which is compared; gateways compute it"),
];

/// Paths whose answers differ by design.
const PATHS_THAT_MAY_DIFFER: [(&str, Difference, &str); 7] = [
    ("/metrics", Difference::Everything, "404 on Lambda, where the numbers go out as EMF lines"),
    ("/", Difference::Member("target"), "names the target"),
    ("/", Difference::Text(["container target", "lambda target"]), "names the target"),
    ("/lab?hours=0.5", Difference::Text(["container target", "lambda target"]), "names the target"),
    (
        "/lab/?hours=0.5&traffic.shape=spike&traffic.at_hours=0.1",
        Difference::Text(["container target", "lambda target"]),
        "names the target",
    ),
    ("/health", Difference::Body, "describes the process that answers"),
    ("/load?seconds=0.01", Difference::Member("iterations"), "counts what this processor did just now"),
];

/// Cases that a front cannot carry, because its events cannot.
const CASES_THAT_A_FRONT_CANNOT_CARRY: [(&str, &str, &str); 8] = [
    ("http-v2", "a path that is no UTF-8", "HTTP APIs refuse it themselves"),
    ("http-v2:dev", "a path that is no UTF-8", "HTTP APIs refuse it themselves"),
    ("alb-single", "another type beside JSON", "the event holds only the last value of a repeated header"),
    ("http-v2", "an encoded slash is no slash", "HTTP APIs decode the path before the function sees it"),
    ("http-v2:dev", "an encoded slash is no slash", "HTTP APIs decode the path before the function sees it"),
    ("alb-single", "two content types", "the event holds only the last value of a repeated header"),
    ("alb-single", "a repeated Accept", "the event holds only the last value of a repeated header"),
    ("alb-single", "a burn asked for twice", "the event holds only the last value of a repeated parameter"),
];

#[derive(Clone, Copy)]
enum Difference {
    Everything,
    Body,
    Member(&'static str),
    Text([&'static str; 2]),
}

/// One request and what it must be answered.
#[derive(Deserialize)]
struct Case {
    name: String,
    method: String,
    path: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body: Option<String>,
    body_base64: Option<String>,
    /// Spaces behind the body bring it to this length, in bytes.
    pad: Option<usize>,
    /// Settings that the case is about, beside those that every case runs with.
    #[serde(default)]
    settings: BTreeMap<String, String>,
    /// Why the case is not for an endpoint on the internet.
    local: Option<String>,
    expect: Expectation,
}

#[derive(Deserialize)]
struct Expectation {
    status: u16,
    body: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

fn corpus() -> Vec<Case> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/corpus.json");
    serde_json::from_slice(&std::fs::read(path).expect(path)).expect("the corpus is well-formed")
}

impl Case {
    fn body(&self) -> Bytes {
        let mut body = match (&self.body, &self.body_base64) {
            (_, Some(encoded)) => BASE64_STANDARD.decode(encoded).expect("base64"),
            (Some(text), None) => text.clone().into_bytes(),
            (None, None) => Vec::new(),
        };
        body.resize(self.pad.unwrap_or(body.len()), b' ');
        body.into()
    }

    /// The id is fixed, so that whole problem documents can be compared.
    fn request(&self, base: &str) -> crate::support::Outgoing {
        let request =
            request(&self.method, &format!("{base}{}", self.path)).header("x-request-id", "parity-1");
        self.headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value))
            .body(self.body())
    }

    fn may_differ(&self) -> impl Iterator<Item = Difference> {
        PATHS_THAT_MAY_DIFFER
            .iter()
            .filter(|(path, ..)| *path == self.path)
            .map(|(_, difference, _)| *difference)
    }

    /// Whether this is the answer of a service whose lab is switched off (`LAB_SLOTS=0`) to what only the lab could do.
    fn is_switched_off(&self, reply: &Reply) -> bool {
        let is_of_the_lab = self.path.starts_with("/api/v1/simulations") || self.path.starts_with("/lab");
        is_of_the_lab
            && (self.expect.status, reply.status.as_u16()) == (200, 403)
            && String::from_utf8_lossy(&reply.body).contains("simulations are switched off here")
    }

    fn can_pass(&self, door: &str) -> bool {
        !CASES_THAT_A_FRONT_CANNOT_CARRY.iter().any(|(front, case, _)| *front == door && *case == self.name)
    }

    /// What the answer must be whatever the door; empty when it is.
    fn against_expectation(&self, reply: &Reply) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.may_differ().any(|difference| matches!(difference, Difference::Everything)) {
            return wrong;
        }
        if reply.status.as_u16() != self.expect.status {
            wrong.push(format!(
                "status {} instead of {}: {reply:?}",
                reply.status.as_u16(),
                self.expect.status
            ));
        }
        if let Some(body) = &self.expect.body
            && reply.body != body.as_bytes()
        {
            wrong.push(format!("body {:?} instead of {body:?}", reply.body));
        }
        for (name, value) in &self.expect.headers {
            let answered = headers(reply).remove(name).unwrap_or_default();
            if answered != *value {
                wrong.push(format!("{name}: {answered:?} instead of {value:?}"));
            }
        }
        if reply.header("x-request-id") != "parity-1" {
            wrong.push(format!("x-request-id: {:?}", reply.header("x-request-id")));
        }
        if reply.status.is_client_error() && self.method != "HEAD" {
            let problem = serde_json::from_slice::<Value>(&reply.body).unwrap_or_default();
            let is_problem = reply.header("content-type") == "application/problem+json"
                && problem["status"] == reply.status.as_u16()
                && problem["request_id"] == "parity-1";
            if !is_problem {
                wrong.push(format!("no problem document: {reply:?}"));
            }
        }
        wrong
    }

    /// What differs between two doors beyond what may.
    fn between(&self, one: &Comparable, other: &Comparable) -> Vec<String> {
        let mut differences = Vec::new();
        if one.status != other.status {
            differences.push(format!("status {} and {}", one.status, other.status));
        }
        if one.body != other.body {
            differences.push(format!("body {:?} and {:?}", one.body, other.body));
        }
        let names: BTreeSet<_> = one.headers.keys().chain(other.headers.keys()).collect();
        for name in names {
            let (one, other) = (one.headers.get(name), other.headers.get(name));
            if one != other {
                differences.push(format!("{name}: {one:?} and {other:?}"));
            }
        }
        differences
    }
}

/// The part of an answer that a client can rely on.
struct Comparable {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Bytes,
}

impl Comparable {
    fn of(case: &Case, reply: &Reply) -> Option<Self> {
        let mut headers = headers(reply);
        if reply.body.is_empty() && case.method != "HEAD" {
            // Gateways declare a content type of their own choice for answers that have no content.
            headers.remove("content-type");
        }
        let mut comparable = Self { status: reply.status.as_u16(), headers, body: reply.body.clone() };
        for difference in case.may_differ() {
            match difference {
                Difference::Everything => return None,
                Difference::Body => comparable.body = Bytes::new(),
                Difference::Member(name) => {
                    if let Ok(Value::Object(mut object)) = serde_json::from_slice(&comparable.body) {
                        object.remove(name);
                        comparable.body = serde_json::to_vec(&object).unwrap().into();
                    }
                }
                Difference::Text(variants) => {
                    let text = String::from_utf8_lossy(&comparable.body).into_owned();
                    comparable.body =
                        variants.iter().fold(text, |text, variant| text.replace(variant, "")).into();
                }
            }
        }
        Some(comparable)
    }
}

/// Repeated headers mean the same as one with commas (RFC 9110 §5.3).
fn headers(reply: &Reply) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &reply.headers {
        if HEADERS_THAT_MAY_DIFFER.iter().any(|(differs, _)| name == differs) {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(name.to_string())
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert(value.into());
    }
    headers
}

/// HTTP/1.1 and HTTP/2 to the container, six gateways to the function.
const FRONT_DOORS: usize = 8;

/// A way in.
struct Door {
    name: String,
    address: SocketAddr,
    version: Version,
    _gateway: Option<Gateway>,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

async fn doors(server: &Server, settings: &[(&str, &str)]) -> Vec<Door> {
    let mut doors: Vec<_> = [("tcp-http1", Version::HTTP_11), ("tcp-http2", Version::HTTP_2)]
        .map(|(name, version)| Door {
            name: name.to_owned(),
            address: server.address,
            version,
            _gateway: None,
        })
        .into();
    for name in ["rest-v1", "http-v2", "http-v2:dev", "function-url", "alb-single", "alb-multi"] {
        let front: Front = name.parse().unwrap();
        let mut options = Options::new(front, lambda_binary());
        options.env =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let gateway = Gateway::start(options).await.expect("the gateway starts");
        let (name, address) = (name.to_owned(), gateway.addr());
        doors.push(Door { name, address, version: Version::HTTP_11, _gateway: Some(gateway) });
    }
    doors
}

#[tokio::test]
async fn every_front_door_gives_the_same_answer() {
    let corpus = corpus();
    assert!(corpus.len() >= 60, "the corpus has {} requests", corpus.len());
    let mut by_settings = BTreeMap::<_, Vec<&Case>>::new();
    for case in &corpus {
        by_settings.entry(&case.settings).or_default().push(case);
    }
    let (mut comparisons, mut divergences) = (0, Vec::new());
    for (settings, cases) in by_settings {
        let (compared, diverged) = compare(settings, &cases).await;
        comparisons += compared;
        divergences.extend(diverged);
    }
    println!(
        "parity: {} requests, {FRONT_DOORS} front doors, {comparisons} comparisons, {} divergences",
        corpus.len(),
        divergences.len()
    );
    assert!(divergences.is_empty(), "{}", divergences.join("\n"));
}

/// Every case through every front door of a service with these settings: how many answers were
/// compared, and what was wrong with them.
async fn compare(settings: &BTreeMap<String, String>, cases: &[&Case]) -> (usize, Vec<String>) {
    // One store behind all doors, as replicas share it; cases with the same key meet each other's state.
    let database = Database::new(Kind::Sqlite).await.expect("SQLite is in the binaries");
    let mut all = database.settings();
    all.push(("CORS_ALLOWED_ORIGINS", "https://app.example"));
    all.extend(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let server = Server::start(&all).await;
    let doors = doors(&server, &all).await;
    assert_eq!(doors.len(), FRONT_DOORS);
    let (mut comparisons, mut divergences) = (0, Vec::new());
    for case in cases {
        let mut reference = None;
        for door in doors.iter().filter(|door| case.can_pass(&door.name)) {
            let stream = tokio::net::TcpStream::connect(door.address).await.unwrap();
            let reply = case.request("").send_on(stream, door.version).await;
            let reply = reply.unwrap_or_else(|error| panic!("{door}, {}: {error}", case.name));
            let mut wrong = case.against_expectation(&reply);
            if let Some(comparable) = Comparable::of(case, &reply) {
                match &reference {
                    None => reference = Some(comparable),
                    Some(reference) => wrong.extend(case.between(reference, &comparable)),
                }
            }
            comparisons += 1;
            divergences.extend(wrong.into_iter().map(|what| format!("{door}, {}: {what}", case.name)));
        }
    }
    (comparisons, divergences)
}

/// `make parity URL=https://…`: the corpus against any endpoint.
#[tokio::test]
#[ignore = "needs an endpoint: make parity URL=https://…"]
async fn a_live_endpoint_answers_as_expected() {
    #[expect(clippy::disallowed_methods, reason = "an argument of this test, not a setting")]
    let url = std::env::var("PARITY_URL").expect("make parity URL=https://…");
    all_as_expected(&url).await;
}

#[tokio::test]
async fn a_service_without_the_lab_passes_as_a_live_endpoint_and_what_is_left_out_is_told() {
    let server = Server::start(&[("LAB_SLOTS", "0")]).await;
    let left_out = all_as_expected(&format!("http://{}/", server.address)).await;
    // What needs no slot is still sent: refusals, and the lab's style.
    let of_the_lab = |case: &Case| case.path.contains("simulation") || case.path.starts_with("/lab");
    let sent = corpus().into_iter().filter(|case| case.local.is_none() && of_the_lab(case)).count();
    assert!((1..sent).contains(&left_out), "{left_out} of {sent}");
}

#[tokio::test]
async fn a_service_with_default_settings_passes_as_a_live_endpoint() {
    let server = Server::start(&[]).await;
    assert_eq!(all_as_expected(&format!("http://{}/", server.address)).await, 0, "the lab is there");
}

/// How many cases count for nothing, because this endpoint's lab is switched off.
async fn all_as_expected(url: &str) -> usize {
    let endpoint = Endpoint::new(url);
    let (mut sent, mut switched_off, mut wrong) = (0, 0, Vec::new());
    for case in corpus() {
        if let Some(reason) = &case.local {
            println!("left out: {}: {reason}", case.name);
            continue;
        }
        let request = case.request(&endpoint.base).header("host", &endpoint.authority);
        let reply = endpoint.send(request).await.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        if case.is_switched_off(&reply) {
            println!("left out: {}: the lab is switched off there", case.name);
            switched_off += 1;
            continue;
        }
        sent += 1;
        wrong.extend(
            case.against_expectation(&reply).into_iter().map(|what| format!("{}: {what}", case.name)),
        );
    }
    println!("parity: {sent} requests to {url}, {} unexpected answers", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    switched_off
}

struct Endpoint {
    host: String,
    port: u16,
    authority: String,
    base: String,
    is_tls: bool,
}

impl Endpoint {
    fn new(url: &str) -> Self {
        let uri: Uri = url.parse().expect("a URL such as https://example.com/stage");
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => panic!("{url} is no http or https URL"),
        };
        let authority = uri.authority().expect("a host").to_string();
        let host = uri.host().expect("a host").trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Self { host, port, authority, base: uri.path().trim_end_matches('/').to_owned(), is_tls }
    }

    async fn send(&self, request: crate::support::Outgoing) -> Result<Reply, Box<dyn std::error::Error>> {
        let stream = tokio::net::TcpStream::connect((self.host.as_str(), self.port)).await?;
        if !self.is_tls {
            return Ok(request.send_on(stream, Version::HTTP_11).await?);
        }
        let roots = tokio_rustls::rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = tokio_rustls::rustls::crypto::ring::default_provider();
        let config = tokio_rustls::rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = connector.connect(self.host.clone().try_into()?, stream).await?;
        Ok(request.send_on(stream, Version::HTTP_11).await?)
    }
}
