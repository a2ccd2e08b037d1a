//! The way to the cluster, against an EKS and an API server on this machine that do what each test tells them to.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, future},
};
use axum::body::Bytes;
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, api::PostParams};
use math_service::{
    aws::credentials::{AHEAD, Chain},
    jobs::cluster::{Cluster, ClusterError, DESCRIBE_PERMISSION, Location, PAUSE, token},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use crate::support::{PATIENCE, Reply, Server, addition, request, silent_port};

const NAME: &str = "math";
const REGION: &str = "eu-west-2";
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";

// ---------------------------------------------------------------- servers that do as they are told

/// What a server does with a request.
#[derive(Clone)]
enum Act {
    Answer(u16, Value),
    /// Answers as the one before says once a permit of the semaphore allows it.
    Wait(Arc<Semaphore>, u16, Value),
    NeverAnswer,
    HangUp,
}

impl Act {
    fn ok(answer: Value) -> Self {
        Self::Answer(200, answer)
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    authorization: String,
    body: String,
}

#[derive(Clone)]
struct Scripted {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _serving: Arc<Serving>,
}

struct Serving(tokio::task::JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Script {
    /// For the next requests, one each; then `always`.
    next: Vec<Act>,
    always: Act,
    seen: Vec<Seen>,
}

impl Scripted {
    async fn start(tls: Option<TlsAcceptor>, always: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script { next: Vec::new(), always, seen: Vec::new() }));
        let serving = tokio::spawn(Self::serve(listener, tls, script.clone()));
        Self { address, script, _serving: Arc::new(Serving(serving)) }
    }

    async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, script: Arc<Mutex<Script>>) {
        // Dropped with this task: connections end when the server does.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, script) = (tls.clone(), script.clone());
            connections.spawn(async move {
                match tls {
                    None => Self::answer_on(stream, script).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            Self::answer_on(stream, script).await;
                        }
                    }
                }
            });
        }
    }

    async fn answer_on(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        script: Arc<Mutex<Script>>,
    ) {
        let service = service_fn(|request: Request<Incoming>| Self::answer(script.clone(), request));
        // A client that goes away is what some tests are about.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(
        script: Arc<Mutex<Script>>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let header =
            |name| request.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let (line, authorization) =
            (format!("{} {}", request.method(), request.uri()), header("authorization"));
        let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
        let act = {
            let mut script = script.lock().unwrap();
            let body = String::from_utf8_lossy(&body).into_owned();
            script.seen.push(Seen { line, authorization, body });
            if script.next.is_empty() { script.always.clone() } else { script.next.remove(0) }
        };
        let (status, answer) = match act {
            Act::Answer(status, answer) => (status, answer),
            Act::Wait(until, status, answer) => {
                until.acquire().await.unwrap().forget();
                (status, answer)
            }
            Act::NeverAnswer => std::future::pending().await,
            Act::HangUp => return Err(std::io::Error::other("as told")),
        };
        let text = answer.as_str().map_or_else(|| answer.to_string(), str::to_owned);
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/json")
            // For IMDS.
            .header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
        Ok(response.body(Full::from(text)).unwrap())
    }

    fn does(&self, always: Act) {
        self.script.lock().unwrap().always = always;
    }

    fn next(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.lock().unwrap().next.extend(acts);
    }

    fn seen(&self) -> Vec<Seen> {
        self.script.lock().unwrap().seen.clone()
    }

    fn count(&self) -> usize {
        self.seen().len()
    }

    async fn was_asked(&self, times: usize) {
        let asked = async {
            while self.count() < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("it is asked");
    }
}

/// An API server with a certificate authority of its own.
#[derive(Clone)]
struct ApiServer {
    server: Scripted,
    authority: String,
}

impl ApiServer {
    async fn start() -> Self {
        let authority_key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        Self { server: Scripted::start(Some(tls), Act::ok(version())).await, authority: pem }
    }

    /// What EKS says of it.
    fn described(&self) -> Act {
        self.described_with(&self.authority)
    }

    fn described_with(&self, authority: &str) -> Act {
        described(&format!("https://{}", self.server.address), authority)
    }
}

fn described(endpoint: &str, authority: &str) -> Act {
    let authority = json!({ "data": BASE64_STANDARD.encode(authority) });
    Act::ok(json!({ "cluster": { "name": NAME, "endpoint": endpoint, "certificateAuthority": authority } }))
}

fn version() -> Value {
    let text = ["buildDate", "compiler", "gitCommit", "gitTreeState", "gitVersion", "goVersion", "platform"];
    let mut version = json!({ "major": "1", "minor": "34" });
    for name in text {
        version[name] = json!("x");
    }
    version
}

/// What the API server answers to whom it does not know.
fn unauthorized() -> Act {
    Act::Answer(401, json!({ "kind": "Status", "status": "Failure", "reason": "Unauthorized", "code": 401 }))
}

// ---------------------------------------------------------------- the service's side

/// Credentials that are new whenever they are asked for, and end.
#[derive(Debug, Default)]
struct Issuing {
    asked: AtomicUsize,
    ends: Option<SystemTime>,
}

#[derive(Debug)]
struct Counted(Arc<Issuing>);

impl ProvideCredentials for Counted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let number = self.0.asked.fetch_add(1, Ordering::Relaxed);
        let new = Credentials::new(format!("AKIA{number}"), "secret", None, self.0.ends, "test");
        future::ProvideCredentials::ready(Ok(new))
    }
}

#[derive(Debug)]
struct Without;

impl ProvideCredentials for Without {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(provider::error::CredentialsError::not_loaded_no_source()))
    }
}

/// A cluster under test, with a clock whose hands the test turns.
struct Scene {
    api: ApiServer,
    eks: Scripted,
    cluster: Cluster,
    seconds: Arc<AtomicU64>,
}

impl Scene {
    async fn new() -> Self {
        Self::with(Credentials::new(KEY, "secret", None, None, "test")).await
    }

    async fn with(credentials: impl ProvideCredentials + 'static) -> Self {
        let api = ApiServer::start().await;
        let eks = Scripted::start(None, api.described()).await;
        let seconds = Arc::new(AtomicU64::new(1_800_000_000));
        let hands = seconds.clone();
        let clock =
            Arc::new(move || UNIX_EPOCH + Duration::from_secs(hands.load(Ordering::Relaxed))) as Arc<_>;
        let location = Location {
            name: NAME.to_owned(),
            region: REGION.to_owned(),
            eks_endpoint: Some(format!("http://{}", eks.address)),
        };
        let cluster = Cluster::with(location, Chain::of(credentials, Arc::clone(&clock)), clock);
        Self { api, eks, cluster, seconds }
    }

    fn pass(&self, time: Duration) {
        self.seconds.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    fn client(&self) -> &Client {
        self.cluster.client()
    }

    async fn ask(&self) -> Result<(), kube::Error> {
        ask(self.client().clone()).await
    }

    async fn answers(&self) {
        self.ask().await.unwrap();
    }

    /// Why there is no answer.
    async fn fails(&self) -> ClusterError {
        let error = self.ask().await.expect_err("no answer");
        ClusterError::of(&error).unwrap_or_else(|| panic!("{error:?}")).clone()
    }

    /// A call that changes something.
    async fn create(&self) -> Result<Namespace, kube::Error> {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some("made".to_owned());
        let namespaces = Api::all(self.client().clone());
        tokio::time::timeout(PATIENCE, namespaces.create(&PostParams::default(), &namespace))
            .await
            .expect("it has a deadline")
    }

    /// The tokens that the API server saw, decoded to their URLs.
    fn tokens(&self) -> Vec<String> {
        self.api.server.seen().iter().map(|seen| token_url(&seen.authorization)).collect()
    }
}

async fn ask(client: Client) -> Result<(), kube::Error> {
    tokio::time::timeout(PATIENCE, client.apiserver_version()).await.expect("it has a deadline").map(drop)
}

fn token_url(authorization: &str) -> String {
    let token = authorization.strip_prefix("Bearer k8s-aws-v1.").expect(authorization);
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(token).unwrap()).unwrap()
}

// ---------------------------------------------------------------- finding the cluster

#[tokio::test]
async fn first_requests_at_once_ask_eks_once_and_one_that_leaves_ends_it_for_no_other() {
    let scene = Scene::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let Act::Answer(status, answer) = scene.api.described() else { unreachable!() };
    scene.eks.does(Act::Wait(gate.clone(), status, answer));
    let first = tokio::spawn(ask(scene.client().clone()));
    scene.eks.was_asked(1).await;
    let others: Vec<_> = (0..20).map(|_| tokio::spawn(ask(scene.client().clone()))).collect();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.add_permits(100);
    for other in others {
        other.await.unwrap().unwrap();
    }
    assert_eq!((scene.eks.count(), scene.api.server.count()), (1, 20));
    let asked = &scene.eks.seen()[0];
    assert_eq!(asked.line, format!("GET /clusters/{NAME}"));
    let signed = format!("AWS4-HMAC-SHA256 Credential={KEY}/20270115/{REGION}/eks/aws4_request, ");
    assert!(asked.authorization.starts_with(&signed), "{}", asked.authorization);
}

#[tokio::test]
async fn an_api_server_that_moved_is_found_again_and_the_request_arrives_once() {
    let scene = Scene::new().await;
    scene.answers().await;
    let before = scene.cluster.identity().await.unwrap();
    let elsewhere = ApiServer::start().await;
    elsewhere.server.does(Act::ok(json!({ "metadata": { "name": "made" } })));
    scene.eks.does(elsewhere.described());
    let Scene { api, .. } = &scene;
    // Gone with its connections.
    api.server._serving.0.abort();
    scene.pass(PAUSE);
    assert_eq!(scene.create().await.unwrap().metadata.name.as_deref(), Some("made"));
    let seen = elsewhere.server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line, "POST /api/v1/namespaces?");
    assert!(seen[0].body.contains(r#""name":"made""#), "{seen:?}");
    assert_ne!(
        scene.cluster.identity().await.unwrap(),
        before,
        "it has another authority: it is another cluster"
    );
    assert_eq!(scene.eks.count(), 2, "which is known without asking");
}

#[tokio::test]
async fn a_new_certificate_authority_is_learnt() {
    let scene = Scene::new().await;
    let old = ApiServer::start().await;
    scene.eks.next([scene.api.described_with(&old.authority)]);
    assert!(matches!(scene.fails().await, ClusterError::Tls(_)));
    scene.pass(PAUSE);
    scene.answers().await;
    assert_eq!(scene.eks.count(), 2);
}

#[tokio::test]
async fn an_api_server_with_another_clusters_authority_is_sent_nothing() {
    let scene = Scene::new().await;
    let other = ApiServer::start().await;
    scene.eks.does(scene.api.described_with(&other.authority));
    for _ in 0..3 {
        assert!(matches!(scene.fails().await, ClusterError::Tls(_)));
        scene.pass(PAUSE);
    }
    assert_eq!(scene.api.server.count(), 0);
}

#[tokio::test]
async fn a_dead_endpoint_does_not_hammer_eks() {
    let scene = Scene::new().await;
    scene.answers().await;
    scene.api.server._serving.0.abort();
    for _ in 0..5 {
        assert!(matches!(scene.fails().await, ClusterError::Unreachable(_) | ClusterError::Broken(_)));
    }
    assert_eq!(scene.eks.count(), 1, "it was asked a moment ago");
    scene.pass(PAUSE);
    let calls: Vec<_> = (0..10).map(|_| tokio::spawn(ask(scene.client().clone()))).collect();
    for call in calls {
        call.await.unwrap().unwrap_err();
    }
    assert_eq!(scene.eks.count(), 2);
}

#[tokio::test]
async fn each_way_in_which_eks_can_fail_has_a_name() {
    let scene = Scene::new().await;
    let refused = json!({ "__type": "AccessDeniedException", "message": "User is not authorized" });
    scene.eks.does(Act::Answer(403, refused));
    let error = scene.fails().await;
    assert!(matches!(error, ClusterError::Forbidden { permission: DESCRIBE_PERMISSION, .. }), "{error:?}");
    assert!(matches!(scene.fails().await, ClusterError::Forbidden { .. }));
    assert_eq!(scene.eks.count(), 1, "a refusal is remembered for a moment");

    let missing = json!({ "__type": "com.amazonaws.eks#ResourceNotFoundException", "message": "No cluster" });
    let api = scene.api.server.address;
    let creating = json!({ "cluster": { "name": NAME, "status": "CREATING" } });
    for (act, is_expected) in [
        (
            Act::Answer(404, missing),
            (|error| matches!(error, ClusterError::NoCluster { name, region } if name == NAME && region == REGION))
                as fn(&ClusterError) -> bool,
        ),
        (Act::Answer(403, json!({ "__type": "ExpiredTokenException" })), |error| {
            matches!(error, ClusterError::Eks(_))
        }),
        (Act::Answer(500, json!("<html>")), |error| matches!(error, ClusterError::Eks(_))),
        (Act::ok(json!("{")), |error| matches!(error, ClusterError::Eks(_))),
        (Act::ok(creating), |error| matches!(error, ClusterError::Eks(_))),
        (Act::HangUp, |error| matches!(error, ClusterError::Eks(_))),
        (described(&format!("http://{api}"), &scene.api.authority), |error| {
            matches!(error, ClusterError::Eks(_))
        }),
        (described(&format!("https://{api}"), "no certificate"), |error| {
            matches!(error, ClusterError::Eks(_))
        }),
        (described("not a url", &scene.api.authority), |error| matches!(error, ClusterError::Eks(_))),
        (Act::NeverAnswer, |error| matches!(error, ClusterError::TimedOut { .. })),
    ] {
        scene.pass(PAUSE);
        scene.eks.does(act);
        let error = scene.fails().await;
        assert!(is_expected(&error), "{error:?}");
    }
    assert_eq!(scene.api.server.count(), 0);
    scene.pass(PAUSE);
    scene.eks.does(scene.api.described());
    scene.answers().await;
}

#[tokio::test]
async fn without_credentials_nobody_is_asked() {
    let scene = Scene::with(Without).await;
    assert!(matches!(scene.fails().await, ClusterError::Credentials(_)));
    assert_eq!((scene.eks.count(), scene.api.server.count()), (0, 0));
}

// ---------------------------------------------------------------- tokens

#[tokio::test]
async fn a_process_that_lives_for_hours_never_shows_a_token_that_has_ended() {
    let scene = Scene::new().await;
    for _ in 0..(3 * 60) {
        scene.answers().await;
        let now = UNIX_EPOCH + Duration::from_secs(scene.seconds.load(Ordering::Relaxed));
        let url = scene.tokens().pop().unwrap();
        let date = url.split("X-Amz-Date=").nth(1).unwrap();
        let date = format!(
            "{}-{}-{}T{}:{}:{}Z",
            &date[..4],
            &date[4..6],
            &date[6..8],
            &date[9..11],
            &date[11..13],
            &date[13..15]
        );
        let age = now.duration_since(humantime::parse_rfc3339(&date).unwrap()).unwrap();
        assert!(age < token::LASTS - token::AHEAD, "{age:?}");
        scene.pass(Duration::from_secs(60));
    }
    let mut tokens = scene.tokens();
    tokens.dedup();
    let hours = Duration::from_secs(3 * 60 * 60).as_secs();
    let most = hours.div_ceil((token::LASTS - token::AHEAD).as_secs());
    assert_eq!(tokens.len() as u64, most, "and no more tokens than it takes");
    assert_eq!(scene.eks.count(), 1, "where the cluster is does not age");
}

#[tokio::test]
async fn tokens_are_made_of_credentials_that_have_not_ended() {
    let ends = UNIX_EPOCH + Duration::from_secs(1_800_000_000) + AHEAD + Duration::from_secs(60);
    let issuing = Arc::new(Issuing { asked: AtomicUsize::new(0), ends: Some(ends) });
    let scene = Scene::with(Counted(issuing.clone())).await;
    scene.answers().await;
    scene.pass(Duration::from_secs(59));
    scene.answers().await;
    assert_eq!(issuing.asked.load(Ordering::Relaxed), 1);
    scene.pass(Duration::from_secs(1));
    scene.answers().await;
    assert_eq!(issuing.asked.load(Ordering::Relaxed), 2, "ahead of their end");
    let tokens = scene.tokens();
    assert!(tokens[1].contains("Credential=AKIA0%2F") && tokens[2].contains("Credential=AKIA1%2F"));
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_request_sent_once_more() {
    let issuing = Arc::new(Issuing::default());
    let scene = Scene::with(Counted(issuing.clone())).await;
    scene.answers().await;
    scene.pass(PAUSE);
    scene.api.server.next([unauthorized()]);
    scene.answers().await;
    let tokens = scene.tokens();
    assert_eq!((tokens.len(), issuing.asked.load(Ordering::Relaxed)), (3, 2));
    assert_eq!(tokens[0], tokens[1]);
    assert!(tokens[2].contains("Credential=AKIA1%2F"), "of new credentials: {}", tokens[2]);

    scene.api.server.does(unauthorized());
    for _ in 0..5 {
        let error = scene.ask().await.unwrap_err();
        assert!(matches!(&error, kube::Error::Api(status) if status.code == 401), "{error:?}");
    }
    assert_eq!(scene.api.server.count(), 3 + 5 * 2, "one retry each, not more");
    assert_eq!(issuing.asked.load(Ordering::Relaxed), 2, "whoever gives credentials is not hammered");
}

// ---------------------------------------------------------------- requests

#[tokio::test]
async fn a_request_whose_outcome_is_unknown_is_not_repeated() {
    let scene = Scene::new().await;
    scene.answers().await;
    scene.api.server.does(Act::HangUp);
    let error = scene.create().await.unwrap_err();
    assert!(matches!(ClusterError::of(&error), Some(ClusterError::Broken(_))), "{error:?}");
    assert_eq!(scene.api.server.count(), 2);

    scene.api.server.does(Act::NeverAnswer);
    let error = scene.create().await.unwrap_err();
    assert!(matches!(ClusterError::of(&error), Some(ClusterError::TimedOut { .. })), "{error:?}");
    assert_eq!((scene.api.server.count(), scene.eks.count()), (3, 1));
}

#[tokio::test]
async fn health_asks_the_cluster_at_most_once_a_second() {
    let scene = Scene::new().await;
    let began = std::time::Instant::now();
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let cluster = scene.cluster.clone();
            tokio::spawn(async move { cluster.health().await.status })
        })
        .collect();
    for status in asked {
        assert_eq!(status.await.unwrap(), "ok");
    }
    // Once, unless this machine took seconds for the twenty.
    assert!(scene.api.server.count() as u64 <= 1 + began.elapsed().as_secs());
    scene.api.server.does(unauthorized());
    let became = async {
        while scene.cluster.health().await.status == "ok" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, became).await.expect("it notices");
    assert_eq!(scene.cluster.health().await.status, "unavailable", "it is not known there");
}

// ---------------------------------------------------------------- the binary

async fn get(server: &Server, path: &str) -> Reply {
    request("GET", path).send(server.address).await
}

/// Nothing of this machine's own AWS settings.
const NOTHING: [(&str, &str); 3] = [
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

#[tokio::test]
async fn a_cluster_that_cannot_be_reached_is_nothing_to_the_other_routes() {
    let nobody = silent_port();
    let eks = format!("http://{}", nobody.local_addr().unwrap());
    let settings = [
        ("EKS_CLUSTER_NAME", NAME),
        ("AWS_ENDPOINT_URL_EKS", &eks),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", "x"),
    ];
    for settings in [[&settings[..], &NOTHING].concat(), [&settings[..2], &NOTHING].concat()] {
        let server = Server::start(&settings).await;
        let health = get(&server, "/health").await;
        assert_eq!((health.status.as_u16(), &health.json()["status"]), (503, &json!("degraded")));
        assert_eq!(health.json()["clusters"], json!([{ "name": NAME, "status": "unavailable" }]));
        assert_eq!(get(&server, "/readyz").await.status, 200);
        let sum = addition(r#"{"a":10,"b":5}"#).send(server.address).await;
        assert_eq!((sum.status.as_u16(), &sum.json()["result"]), (200, &json!(15.0)));
        server.stop().await;
    }
}

/// Each link of the standard chain, in the binary itself: its TLS and its signatures find their crypto too.
#[tokio::test]
async fn credentials_come_from_wherever_aws_puts_them() {
    let api = ApiServer::start().await;
    let eks = Scripted::start(None, api.described()).await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let keys = |id: &str| format!("aws_access_key_id={id}\naws_secret_access_key=secret\n");
    let profile = file("profile", &format!("[other]\n{}", keys("AKIAPROFILE")));
    let jwt = file("identity-token", "a.b.c");

    let expiration =
        humantime::format_rfc3339_seconds(SystemTime::now() + Duration::from_secs(3600)).to_string();
    let issued = |id: &str| json!({ "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": id, "SecretAccessKey": "secret", "Token": "token", "Expiration": expiration });
    let sts = Scripted::start(None, Act::ok(json!(format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>\
         <Credentials><AccessKeyId>ASIAWEB</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
         <Expiration>{expiration}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )))).await;
    let agent = Scripted::start(None, Act::ok(issued("ASIAPOD"))).await;
    let imds = Scripted::start(None, Act::ok(issued("ASIANODE"))).await;
    imds.next([Act::ok(json!("imds-token")), Act::ok(json!("a-role"))]);
    let [sts_url, agent_url, imds_url, eks_url] =
        [&sts, &agent, &imds, &eks].map(|server| format!("http://{}/", server.address));

    for (id, settings) in [
        ("AKIAENV", vec![("AWS_ACCESS_KEY_ID", "AKIAENV"), ("AWS_SECRET_ACCESS_KEY", "x")]),
        ("AKIAPROFILE", vec![("AWS_SHARED_CREDENTIALS_FILE", &profile), ("AWS_PROFILE", "other")]),
        (
            "ASIAWEB",
            vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", &jwt),
                ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/math"),
                ("AWS_ENDPOINT_URL_STS", &sts_url),
            ],
        ),
        (
            "ASIAPOD",
            vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent_url),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &jwt),
            ],
        ),
        (
            "ASIANODE",
            vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", &imds_url), ("AWS_EC2_METADATA_DISABLED", "false")],
        ),
    ] {
        let cluster =
            [("EKS_CLUSTER_NAME", NAME), ("EKS_REGION", REGION), ("AWS_ENDPOINT_URL_EKS", eks_url.as_str())];
        let server = Server::start(&[&NOTHING[..], &cluster, &settings].concat()).await;
        let health = get(&server, "/health").await;
        assert_eq!(health.json()["clusters"], json!([{ "name": NAME, "status": "ok" }]), "{id}");
        let url = token_url(&api.server.seen().last().unwrap().authorization);
        let expected = format!("https://sts.{REGION}.amazonaws.com/?");
        assert!(url.starts_with(&expected) && url.contains(&format!("Credential={id}%2F")), "{id}: {url}");
        server.stop().await;
    }
    assert_eq!(agent.seen()[0].authorization, "a.b.c");
    assert_eq!(imds.seen()[0].line, "PUT /latest/api/token", "IMDSv2");
}
