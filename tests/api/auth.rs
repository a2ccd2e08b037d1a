//! Sign-in against an issuer on this machine that does what each test tells it to.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use math_service::{
    auth::{
        Subject,
        issuer::{DEADLINE, Issuer, MAX_DOCUMENT_BYTES},
        oidc::{MAX_AGE, MIN_AGE, Oidc, PAUSE, STALE, USUAL_AGE},
    },
    problem::Problem,
};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::{KeyPairComponents, PublicKeyComponents},
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    process::Command,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

use tracing::field::Field;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::{
    databases::{Database, Kind},
    support::{PATIENCE, Reply, Server, hold, listen, request, silent_port},
};

pub(crate) const AUDIENCE: &str = "math";

// ---------------------------------------------------------------- keys and tokens

/// A key pair of the issuer's, or of somebody who would like to be it.
pub(crate) struct Signer {
    algorithm: &'static str,
    id: Option<&'static str>,
    pair: Pair,
}

enum Pair {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The one RSA key here: ring makes none.
fn rsa_key() -> BTreeMap<String, String> {
    serde_json::from_str(include_str!("../data/rfc7515-rsa-key.json")).unwrap()
}

impl Signer {
    /// With a new key, except for RSA.
    pub(crate) fn new(algorithm: &'static str, id: &'static str) -> Self {
        let pair = match algorithm {
            "ES256" => Pair::ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => Pair::ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            "EdDSA" | "Ed25519" => {
                let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
                Pair::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
            }
            "RS256" => Pair::rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => Pair::rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => Pair::rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => Pair::rsa(&signature::RSA_PSS_SHA256),
            "PS384" => Pair::rsa(&signature::RSA_PSS_SHA384),
            "PS512" => Pair::rsa(&signature::RSA_PSS_SHA512),
            _ => panic!("{algorithm}"),
        };
        Self { algorithm, id: Some(id), pair }
    }

    /// The public half, as it is published.
    fn jwk(&self) -> Value {
        let mut jwk = match &self.pair {
            Pair::Rsa(..) => json!({ "kty": "RSA", "n": rsa_key()["n"], "e": rsa_key()["e"] }),
            Pair::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "x": base64url(x), "y": base64url(y) })
            }
            Pair::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key()) })
            }
        };
        jwk["use"] = json!("sig");
        if let Some(id) = self.id {
            jwk["kid"] = json!(id);
        }
        jwk
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        let mut header = json!({ "alg": self.algorithm, "typ": "JWT" });
        if let Some(id) = self.id {
            header["kid"] = json!(id);
        }
        self.token_with(&header, claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()));
        let random = SystemRandom::new();
        let signature = match &self.pair {
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, signed.as_bytes(), &mut signature).unwrap();
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", base64url(signature))
    }
}

impl Pair {
    fn ec(algorithm: &'static signature::EcdsaSigningAlgorithm) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap())
    }

    fn rsa(encoding: &'static dyn RsaEncoding) -> Self {
        let key = rsa_key();
        let number = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(&key[name]).unwrap();
        let pair = RsaKeyPair::from_components(&KeyPairComponents {
            public_key: PublicKeyComponents { n: number("n"), e: number("e") },
            d: number("d"),
            p: number("p"),
            q: number("q"),
            dP: number("dp"),
            dQ: number("dq"),
            qInv: number("qi"),
        });
        Self::Rsa(pair.unwrap(), encoding)
    }
}

// ---------------------------------------------------------------- the issuer

/// What the issuer does when it is asked.
#[derive(Clone)]
enum Act {
    Serve,
    Answer(u16, Vec<(&'static str, String)>, Bytes),
    BeAnother,
    NeverAnswer,
}

struct Script {
    act: Act,
    keys: Vec<Value>,
    cache_control: Option<&'static str>,
    /// Requests for the keys, which end a successful fetch, and for the discovery document, which begin one.
    fetches: usize,
    attempts: usize,
    elsewhere: usize,
}

pub(crate) struct TestIssuer {
    address: SocketAddr,
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl TestIssuer {
    pub(crate) async fn start(keys: &[&Signer]) -> Self {
        Self::at(silent_port(), keys, None)
    }

    fn at(port: TcpSocket, keys: &[&Signer], tls: Option<TlsAcceptor>) -> Self {
        let listener = listen(port);
        let address = listener.local_addr().unwrap();
        let url = match &tls {
            Some(_) => format!("https://localhost:{}/realm", address.port()),
            None => format!("http://{address}/realm"),
        };
        let script = Script {
            act: Act::Serve,
            keys: keys.iter().map(|key| key.jwk()).collect(),
            cache_control: None,
            fetches: 0,
            attempts: 0,
            elsewhere: 0,
        };
        let script = Arc::new(Mutex::new(script));
        let serving = tokio::spawn(Self::serve(listener, tls, script.clone(), url.clone()));
        Self { address, url, script, serving }
    }

    /// Goes down, and leaves its port.
    async fn stop(mut self) -> TcpSocket {
        self.serving.abort();
        let _ = (&mut self.serving).await;
        hold(self.address)
    }

    async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, script: Arc<Mutex<Script>>, url: String) {
        while let Ok((stream, _)) = listener.accept().await {
            let (script, url, tls) = (script.clone(), url.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            Self::answer_on(stream, script, url).await;
                        }
                    }
                    None => Self::answer_on(stream, script, url).await,
                }
            });
        }
    }

    async fn answer_on<S>(stream: S, script: Arc<Mutex<Script>>, url: String)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let (script, url) = (script.clone(), url.clone());
            async move { Self::answer(&script, &url, request.uri().path()).await }
        });
        // A client that goes away is what some tests are about.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(
        script: &Mutex<Script>,
        url: &str,
        path: &str,
    ) -> Result<hyper::Response<Full<Bytes>>, hyper::http::Error> {
        let act = {
            let mut script = script.lock().unwrap();
            match path {
                "/realm/.well-known/openid-configuration" => script.attempts += 1,
                "/realm/keys" => script.fetches += 1,
                _ => script.elsewhere += 1,
            }
            script.act.clone()
        };
        let discovery = path != "/realm/keys";
        let (status, headers, body) = match act {
            Act::Serve | Act::BeAnother if discovery => {
                let issuer = if matches!(act, Act::Serve) { url } else { "http://localhost/another" };
                let document = json!({ "issuer": issuer, "jwks_uri": format!("{url}/keys") });
                (200, vec![], document.to_string().into())
            }
            Act::Serve | Act::BeAnother => {
                let script = script.lock().unwrap();
                let headers = script.cache_control.map(|value| ("cache-control", value.to_owned()));
                (200, headers.into_iter().collect(), json!({ "keys": script.keys }).to_string().into())
            }
            Act::Answer(..) if discovery && path.ends_with("configuration") => {
                let document = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
                (200, vec![], document.to_string().into())
            }
            Act::Answer(status, headers, body) => (status, headers, body),
            Act::NeverAnswer => std::future::pending().await,
        };
        let mut answer = hyper::Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(name, value);
        }
        answer.body(Full::new(body))
    }

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }

    fn fetches(&self) -> usize {
        self.script(|script| script.fetches)
    }

    fn attempts(&self) -> usize {
        self.script(|script| script.attempts)
    }

    fn publish(&self, keys: &[&Signer]) {
        self.script(|script| script.keys = keys.iter().map(|key| key.jwk()).collect());
    }

    fn act(&self, act: Act) {
        self.script(|script| script.act = act);
    }
}

// ---------------------------------------------------------------- the service's side

/// Sign-in under test, with a clock whose hands the test turns.
#[derive(Clone)]
struct SignIn {
    oidc: Oidc,
    seconds: Arc<AtomicU64>,
    issuer: String,
}

impl SignIn {
    fn with(issuer: &TestIssuer) -> Self {
        Self::at(&issuer.url)
    }

    fn at(url: &str) -> Self {
        let seconds = Arc::new(AtomicU64::new(1_800_000_000));
        let hands = seconds.clone();
        let clock =
            Arc::new(move || UNIX_EPOCH + Duration::from_secs(hands.load(Ordering::Relaxed))) as Arc<_>;
        let oidc = Oidc::new(Issuer::parse(url).unwrap(), AUDIENCE.to_owned(), clock);
        Self { oidc, seconds, issuer: url.to_owned() }
    }

    fn now(&self) -> u64 {
        self.seconds.load(Ordering::Relaxed)
    }

    fn pass(&self, time: Duration) {
        self.seconds.fetch_add(time.as_secs(), Ordering::Relaxed);
    }

    /// What a good token says, good for longer than any test turns the clock.
    fn claims(&self) -> Value {
        json!({ "iss": self.issuer, "sub": "alice", "aud": AUDIENCE, "exp": self.now() + 1_000_000, "iat": self.now() })
    }

    async fn authorization(&self, value: &str) -> Result<Option<Subject>, Problem> {
        let headers = HeaderMap::from_iter([(
            header::AUTHORIZATION,
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        )]);
        tokio::time::timeout(PATIENCE, self.oidc.authenticate(&headers)).await.expect("it has a deadline")
    }

    async fn token(&self, token: &str) -> Result<Option<Subject>, Problem> {
        self.authorization(&format!("Bearer {token}")).await
    }

    async fn accepts(&self, token: &str) {
        let subject = self.token(token).await.unwrap_or_else(|problem| panic!("{problem:?}"));
        assert_eq!(subject.expect("somebody").name(), "alice");
    }

    /// It answers 401 and says why in the challenge.
    async fn refuses(&self, token: &str, description: &str) {
        let response = self.token(token).await.expect_err(description).into_response();
        assert_eq!(response.status(), 401, "{description}");
        let challenge = response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap();
        assert_eq!(
            challenge,
            format!(
                r#"Bearer realm="math-service", error="invalid_token", error_description="{description}""#
            )
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["detail"], description);
    }

    async fn is_unavailable(&self, token: &str) {
        let response: Response = self.token(token).await.expect_err("no keys").into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], PAUSE.as_secs().to_string());
        assert!(!response.headers().contains_key(header::WWW_AUTHENTICATE), "the token may be good");
    }
}

// ---------------------------------------------------------------- tokens

#[tokio::test]
async fn every_accepted_algorithm_signs_in() {
    for algorithm in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"]
    {
        let signer = Signer::new(algorithm, "1");
        let issuer = TestIssuer::start(&[&signer]).await;
        let sign_in = SignIn::with(&issuer);
        sign_in.accepts(&signer.token(&sign_in.claims())).await;
    }
}

#[tokio::test]
async fn a_subject_is_named_by_its_issuer_and_stays_the_same() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let mut claims = sign_in.claims();
    let first = sign_in.token(&signer.token(&claims)).await.unwrap().unwrap();
    claims["exp"] = json!(sign_in.now() + 60);
    claims["aud"] = json!(["other", AUDIENCE]);
    assert_eq!(sign_in.token(&signer.token(&claims)).await.unwrap().unwrap(), first);
    claims["sub"] = json!("bob");
    assert_ne!(sign_in.token(&signer.token(&claims)).await.unwrap().unwrap(), first);
    assert_eq!(sign_in.oidc.authenticate(&HeaderMap::new()).await.unwrap(), None);
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_token_whose_claims_do_not_hold_is_refused() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let now = sign_in.now();
    let missing = "a claim is missing or malformed";
    for (claim, value, description) in [
        ("exp", json!(now - 30), "the token has expired"),
        ("exp", json!(now as f64 - 30.5), "the token has expired"),
        ("exp", json!(-1), "the token has expired"),
        ("exp", json!("9999999999"), missing),
        ("exp", json!(true), missing),
        ("exp", Value::Null, missing),
        ("nbf", json!(now + 31), "the token is not valid yet"),
        ("nbf", json!("0"), missing),
        ("aud", json!("other"), "the token is for another audience"),
        ("aud", json!(["other", "math-service"]), "the token is for another audience"),
        ("aud", json!([]), "the token is for another audience"),
        ("aud", json!(["math", 1]), missing),
        ("aud", Value::Null, missing),
        ("iss", json!(format!("{}/", issuer.url)), "the token is from another issuer"),
        ("iss", json!([issuer.url]), missing),
        ("iss", Value::Null, missing),
        ("sub", json!(""), "the token's subject is not acceptable"),
        ("sub", json!("a".repeat(256)), "the token's subject is not acceptable"),
        ("sub", json!("a\nb"), "the token's subject is not acceptable"),
        ("sub", json!(7), missing),
        ("sub", Value::Null, missing),
    ] {
        let mut claims = sign_in.claims();
        claims[claim] = value;
        sign_in.refuses(&signer.token(&claims), description).await;
    }
    for claim in ["exp", "aud", "iss", "sub"] {
        let mut claims = sign_in.claims();
        claims.as_object_mut().unwrap().remove(claim);
        sign_in.refuses(&signer.token(&claims), missing).await;
    }
    // Clocks differ a little.
    for (claim, value) in [("exp", now - 29), ("nbf", now + 30)] {
        let mut claims = sign_in.claims();
        claims[claim] = json!(value);
        sign_in.accepts(&signer.token(&claims)).await;
    }
    // An array in place of the object, member by member.
    let positional = json!([issuer.url, "alice", AUDIENCE, now + 60, null]);
    sign_in.refuses(&signer.token(&positional), missing).await;
}

#[tokio::test]
async fn a_token_that_the_issuer_did_not_sign_is_refused() {
    let (signer, rsa) = (Signer::new("ES256", "1"), Signer::new("RS256", "rsa"));
    let issuer = TestIssuer::start(&[&signer, &rsa]).await;
    let sign_in = SignIn::with(&issuer);
    let claims = sign_in.claims();
    let good = signer.token(&claims);
    sign_in.accepts(&good).await;

    let impostor = Signer::new("ES256", "1");
    sign_in.refuses(&impostor.token(&claims), "the token's signature is wrong").await;
    // The impostor's own key, in the header: nobody reads it.
    let url = format!("{}/keys-of-the-impostor", issuer.url);
    let header = json!({ "alg": "ES256", "kid": "1", "jwk": impostor.jwk(), "jku": url, "x5u": url });
    sign_in.refuses(&impostor.token_with(&header, &claims), "the token's signature is wrong").await;
    assert_eq!(issuer.script(|script| script.elsewhere), 0, "and nobody asks for it");

    // Other claims under a good signature, and a good token without one.
    let (head, rest) = good.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let mut bobs = claims.clone();
    bobs["sub"] = json!("bob");
    let bobs = format!("{head}.{}.{signature}", base64url(bobs.to_string()));
    sign_in.refuses(&bobs, "the token's signature is wrong").await;
    sign_in.refuses(good.trim_end_matches(signature), "the token's signature is wrong").await;

    for name in ["none", "NONE", "nOnE"] {
        let head = base64url(json!({ "alg": name, "kid": "1" }).to_string());
        let unsigned = format!("{head}.{}.", base64url(claims.to_string()));
        sign_in.refuses(&unsigned, "the token's algorithm is not accepted").await;
    }
    // A published key as an HMAC secret, in every form that it has.
    let public = rsa_key();
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(&public["n"]).unwrap();
    for secret in [modulus.as_slice(), public["n"].as_bytes(), rsa.jwk().to_string().as_bytes()] {
        let head = base64url(json!({ "alg": "HS256", "kid": "rsa" }).to_string());
        let signed = format!("{head}.{}", base64url(claims.to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
        sign_in
            .refuses(&format!("{signed}.{}", base64url(tag)), "the token's algorithm is not accepted")
            .await;
    }
    // A key of another kind than the algorithm's.
    let header = json!({ "alg": "ES256", "kid": "rsa" });
    sign_in.refuses(&signer.token_with(&header, &claims), "the token's key is unknown").await;
}

#[tokio::test]
async fn a_key_is_good_for_no_other_algorithm_than_the_issuer_says() {
    let (signer, other) = (Signer::new("RS256", "1"), Signer::new("PS256", "1"));
    let issuer = TestIssuer::start(&[&signer]).await;
    issuer.script(|script| script.keys[0]["alg"] = json!("RS256"));
    let sign_in = SignIn::with(&issuer);
    sign_in.accepts(&signer.token(&sign_in.claims())).await;
    sign_in.refuses(&other.token(&sign_in.claims()), "the token's key is unknown").await;
}

#[tokio::test]
async fn a_token_without_a_key_id_is_accepted_if_one_key_alone_fits() {
    let nameless = Signer { id: None, ..Signer::new("ES256", "") };
    let (same, different) = (Signer::new("ES256", "2"), Signer::new("EdDSA", "3"));
    let issuer = TestIssuer::start(&[&nameless, &different]).await;
    let sign_in = SignIn::with(&issuer);
    let token = nameless.token(&sign_in.claims());
    sign_in.accepts(&token).await;
    issuer.publish(&[&nameless, &same]);
    sign_in.pass(USUAL_AGE);
    sign_in.refuses(&token, "the token's key is unknown").await;
}

/// Tokens with a byte changed, cut, repeated or swapped: refused one by one, and nothing panics.
#[tokio::test]
async fn no_token_that_was_tampered_with_signs_in_or_panics() {
    const TOKENS: usize = 20_000;
    let signer = Signer::new("EdDSA", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let good = signer.token(&sign_in.claims());
    sign_in.accepts(&good).await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let bytes = b"abcXYZ019-_.~+/= ,{}\"\\\t\x80\xff";
    for _ in 0..TOKENS {
        let mut token = good.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            let (at, to) = (random.usize(..token.len()), random.usize(..token.len()));
            match random.u8(..6) {
                0 => token[at] = bytes[random.usize(..bytes.len())],
                1 => token.truncate(at.max(1)),
                2 => token.insert(at, b'.'),
                3 => token.swap(at, to),
                4 => token = token.repeat(2),
                _ => drop(token.remove(at)),
            }
            token.resize(token.len().max(1), b'.');
        }
        // Any bytes in the parts, well encoded.
        if random.u8(..4) == 0 {
            let part = |random: &mut fastrand::Rng| {
                let length = random.usize(..40);
                base64url((0..length).map(|_| random.u8(..)).collect::<Vec<_>>())
            };
            token = [part(&mut random), part(&mut random), part(&mut random)].join(".").into_bytes();
        }
        let value = [b"Bearer ", token.as_slice()].concat();
        let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
        if value.as_bytes()[7..].trim_ascii() == good.as_bytes() {
            continue;
        }
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
        let outcome = sign_in.oidc.authenticate(&headers).await;
        let status = outcome.expect_err(&String::from_utf8_lossy(&token)).status();
        assert_eq!(status, 401, "{}", String::from_utf8_lossy(&token));
    }
    assert!(issuer.fetches() <= 2, "time stood still");
}

// ---------------------------------------------------------------- keys

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_in_a_while_and_not_for_every_token() {
    let (signer, forged) = (Signer::new("ES256", "1"), Signer::new("ES256", "forged"));
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    sign_in.accepts(&signer.token(&sign_in.claims())).await;
    sign_in.pass(PAUSE);
    for _ in 0..100 {
        sign_in.refuses(&forged.token(&sign_in.claims()), "the token's key is unknown").await;
    }
    assert_eq!(issuer.fetches(), 2);
    sign_in.pass(PAUSE - Duration::from_secs(1));
    sign_in.refuses(&forged.token(&sign_in.claims()), "the token's key is unknown").await;
    assert_eq!(issuer.fetches(), 2);
    sign_in.pass(Duration::from_secs(1));
    sign_in.refuses(&forged.token(&sign_in.claims()), "the token's key is unknown").await;
    sign_in.accepts(&signer.token(&sign_in.claims())).await;
    assert_eq!(issuer.fetches(), 3);
}

#[tokio::test]
async fn malformed_tokens_never_reach_the_issuer() {
    let issuer = TestIssuer::start(&[]).await;
    let sign_in = SignIn::with(&issuer);
    for token in ["a.b.c", "e30.e30.e30", "x"] {
        sign_in.refuses(token, "the token is malformed").await;
    }
    assert_eq!(issuer.attempts(), 0);
}

#[tokio::test]
async fn a_new_key_is_found_and_a_withdrawn_one_is_not_good_for_long() {
    let (old, new) = (Signer::new("ES256", "1"), Signer::new("RS256", "2"));
    let issuer = TestIssuer::start(&[&old]).await;
    let sign_in = SignIn::with(&issuer);
    let claims = sign_in.claims();
    sign_in.accepts(&old.token(&claims)).await;
    issuer.publish(&[&new]);
    sign_in.pass(PAUSE);
    sign_in.accepts(&old.token(&claims)).await;
    sign_in.accepts(&new.token(&claims)).await;
    sign_in.pass(PAUSE);
    sign_in.refuses(&old.token(&claims), "the token's key is unknown").await;
    // An issuer that withdraws everything is believed, too.
    issuer.publish(&[]);
    sign_in.pass(USUAL_AGE);
    sign_in.refuses(&new.token(&claims), "the token's key is unknown").await;
}

#[tokio::test]
async fn keys_are_kept_as_long_as_the_issuer_allows_within_limits() {
    for (cache_control, age) in [
        (None, USUAL_AGE),
        (Some("max-age=300"), Duration::from_secs(300)),
        (Some("max-age=5"), MIN_AGE),
        (Some("no-store"), MIN_AGE),
        (Some("max-age=31536000"), MAX_AGE),
    ] {
        let signer = Signer::new("ES256", "1");
        let issuer = TestIssuer::start(&[&signer]).await;
        issuer.script(|script| script.cache_control = cache_control);
        let sign_in = SignIn::with(&issuer);
        let token = signer.token(&sign_in.claims());
        sign_in.accepts(&token).await;
        sign_in.pass(age - Duration::from_secs(1));
        sign_in.accepts(&token).await;
        assert_eq!(issuer.fetches(), 1, "{cache_control:?}");
        sign_in.pass(Duration::from_secs(1));
        sign_in.accepts(&token).await;
        assert_eq!(issuer.fetches(), 2, "{cache_control:?}");
    }
}

#[tokio::test]
async fn many_callers_at_once_cause_one_fetch() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let token = signer.token(&sign_in.claims());
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (sign_in, token) = (sign_in.clone(), token.clone());
            tokio::spawn(async move { sign_in.accepts(&token).await })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!((issuer.attempts(), issuer.fetches()), (1, 1));
}

// ---------------------------------------------------------------- an issuer in trouble

#[tokio::test]
async fn an_issuer_that_is_down_at_first_is_found_when_it_is_up() {
    let signer = Signer::new("ES256", "1");
    let port = silent_port();
    let sign_in = SignIn::at(&format!("http://{}/realm", port.local_addr().unwrap()));
    let token = signer.token(&sign_in.claims());
    sign_in.is_unavailable(&token).await;
    let issuer = TestIssuer::at(port, &[&signer], None);
    sign_in.is_unavailable(&token).await;
    assert_eq!(issuer.attempts(), 0, "it is not asked again at once");
    sign_in.pass(PAUSE);
    sign_in.accepts(&token).await;
}

#[tokio::test]
async fn known_keys_are_good_for_a_day_when_the_issuer_goes_down() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let token = signer.token(&sign_in.claims());
    sign_in.accepts(&token).await;
    let port = issuer.stop().await;
    sign_in.pass(STALE - Duration::from_secs(1));
    sign_in.accepts(&token).await;
    // Its fetch failed just now; a token with another key cannot do with the old ones.
    let other = Signer::new("ES256", "2");
    sign_in.refuses(&other.token(&sign_in.claims()), "the token's key is unknown").await;
    sign_in.pass(Duration::from_secs(1));
    sign_in.is_unavailable(&token).await;
    let _issuer = TestIssuer::at(port, &[&signer], None);
    sign_in.pass(PAUSE);
    sign_in.accepts(&token).await;
}

#[tokio::test]
async fn an_issuer_that_never_answers_is_given_up_at_the_deadline() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    issuer.act(Act::NeverAnswer);
    let sign_in = SignIn::with(&issuer);
    let token = signer.token(&sign_in.claims());
    let started = std::time::Instant::now();
    sign_in.is_unavailable(&token).await;
    println!("given up after {:?}; the deadline is {DEADLINE:?}", started.elapsed());
    assert_eq!(issuer.attempts(), 1);
}

#[tokio::test]
async fn known_keys_serve_the_others_while_one_waits_for_a_slow_issuer() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let token = signer.token(&sign_in.claims());
    sign_in.accepts(&token).await;
    issuer.act(Act::NeverAnswer);
    sign_in.pass(USUAL_AGE);
    let waiting = tokio::spawn({
        let (sign_in, token) = (sign_in.clone(), token.clone());
        async move { sign_in.accepts(&token).await }
    });
    while issuer.attempts() < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        sign_in.accepts(&token).await;
    }
    assert!(!waiting.is_finished(), "the one that asks waits");
    waiting.await.unwrap();
    assert_eq!(issuer.attempts(), 2);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_end_the_fetch_for_others() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let token = signer.token(&sign_in.claims());
    let caller = tokio::spawn({
        let (sign_in, token) = (sign_in.clone(), token.clone());
        async move { sign_in.token(&token).await }
    });
    while issuer.attempts() == 0 {
        tokio::task::yield_now().await;
    }
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    // Nobody waits, and yet it goes on.
    let finished = async {
        while issuer.fetches() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, finished).await.expect("the fetch goes on");
    sign_in.accepts(&token).await;
    assert_eq!(issuer.attempts(), 1);
}

#[tokio::test]
async fn no_other_answer_than_the_issuers_own_documents_counts() {
    let signer = Signer::new("ES256", "1");
    let good = Bytes::from(json!({ "keys": [signer.jwk()] }).to_string());
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let token = signer.token(&sign_in.claims());
    let mut huge = good.to_vec();
    huge.resize(MAX_DOCUMENT_BYTES + 1, b' ');
    let elsewhere = format!("{}/elsewhere", issuer.url);
    for act in [
        Act::BeAnother,
        Act::Answer(200, vec![], huge.clone().into()),
        Act::Answer(200, vec![], "{\"keys\":[".into()),
        Act::Answer(200, vec![], "[]".into()),
        Act::Answer(200, vec![], "{\"keys\":{}}".into()),
        Act::Answer(200, vec![], "".into()),
        Act::Answer(302, vec![("location", elsewhere.clone())], good.clone()),
        Act::Answer(307, vec![("location", elsewhere)], good.clone()),
        Act::Answer(500, vec![], good.clone()),
        Act::Answer(404, vec![], good.clone()),
        Act::Answer(206, vec![], good.clone()),
    ] {
        issuer.act(act);
        sign_in.is_unavailable(&token).await;
        sign_in.pass(PAUSE);
    }
    assert_eq!(issuer.script(|script| script.elsewhere), 0, "redirects are not followed");
    huge.truncate(MAX_DOCUMENT_BYTES);
    issuer.act(Act::Answer(200, vec![], huge.into()));
    sign_in.accepts(&token).await;
}

/// Keeps every event's text, whatever its level and target.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<String>>);

impl<S: tracing::Subscriber> Layer<S> for Everything {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut text = self.0.lock().unwrap();
        let mut write = |field: &Field, value: &dyn Debug| text.push_str(&format!("{field}={value:?} "));
        event.record(&mut write);
        text.push('\n');
    }
}

#[tokio::test]
async fn no_part_of_a_token_is_ever_logged() {
    let log = Everything::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(log.clone()));
    let (signer, impostor) = (Signer::new("ES256", "1"), Signer::new("ES256", "2"));
    let issuer = TestIssuer::start(&[&signer]).await;
    let sign_in = SignIn::with(&issuer);
    let tokens =
        [signer.token(&sign_in.claims()), impostor.token(&sign_in.claims()), "not.a.token".to_owned()];
    issuer.act(Act::BeAnother);
    sign_in.is_unavailable(&tokens[0]).await;
    sign_in.pass(PAUSE);
    issuer.act(Act::Serve);
    sign_in.accepts(&tokens[0]).await;
    sign_in.refuses(&tokens[1], "the token's key is unknown").await;
    sign_in.refuses(&tokens[2], "the token is malformed").await;
    let log = log.0.lock().unwrap();
    assert!(
        log.contains("Could not fetch the issuer's keys")
            && log.contains("is the document of another issuer")
    );
    assert!(log.contains("Fetched the issuer's keys"));
    for part in tokens.iter().flat_map(|token| token.split('.')).filter(|part| part.len() > 5) {
        assert!(!log.contains(part), "{part} in {log}");
    }
}

// ---------------------------------------------------------------- TLS

const INNER: &str = "auth::a_private_authority_is_trusted_if_ssl_cert_file_names_it_inner";

/// The certificate store is the process's: the sign-in runs in a process of its own.
#[tokio::test]
async fn a_private_authority_is_trusted_if_ssl_cert_file_names_it() {
    let signer = Signer::new("RS256", "1");
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let config =
        ServerConfig::builder_with_provider(Arc::new(tokio_rustls::rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(cert.der().to_vec())],
                PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
    let tls = TlsAcceptor::from(Arc::new(config));
    let issuer = TestIssuer::at(silent_port(), &[&signer], Some(tls));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (trusted, other) = (folder.join("issuer.pem"), folder.join("other.pem"));
    std::fs::write(&trusted, cert.pem()).unwrap();
    let another = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&other, another.cert.pem()).unwrap();

    for (authorities, outcome) in
        [(&trusted, "signed in"), (&other, "503"), (&folder.join("missing.pem"), "503")]
    {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", INNER, "--ignored", "--nocapture"])
            .env("SSL_CERT_FILE", authorities)
            .env("TEST_ISSUER", &issuer.url)
            .stderr(Stdio::inherit())
            .output()
            .await
            .unwrap();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.contains(&format!("outcome: {outcome}")), "{}: {output}", authorities.display());
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
#[ignore = "run by the test above, in a process of its own"]
async fn a_private_authority_is_trusted_if_ssl_cert_file_names_it_inner() {
    #[expect(clippy::disallowed_methods, reason = "an argument of this test, not a setting")]
    let url = std::env::var("TEST_ISSUER").expect("run by the test above");
    let sign_in = SignIn::at(&url);
    let token = Signer::new("RS256", "1").token(&sign_in.claims());
    match sign_in.token(&token).await {
        Ok(_) => println!("outcome: signed in"),
        Err(problem) => println!("outcome: {}", problem.status().as_u16()),
    }
}

/// The step that a caller with these headers takes next on a server.
async fn next(server: &Server, headers: &[(&str, &str)]) -> Reply {
    let call = request("POST", "/fibonacci/next");
    headers.iter().fold(call, |call, (name, value)| call.header(name, value)).send(server.address).await
}

#[tokio::test]
async fn whoever_signs_in_has_one_sequence_that_no_session_key_reaches() {
    let (signer, forger) = (Signer::new("ES256", "1"), Signer::new("ES256", "1"));
    let issuer = TestIssuer::start(&[&signer]).await;
    let database = Database::new(Kind::Sqlite).await.unwrap();
    let sign_in = [("OIDC_ISSUER", issuer.url.as_str()), ("OIDC_AUDIENCE", AUDIENCE)];
    let server = Server::start(&database.settings().into_iter().chain(sign_in).collect::<Vec<_>>()).await;
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = |sub: &str| json!({ "iss": issuer.url, "sub": sub, "aud": AUDIENCE, "exp": now + 3600 });
    let bearer = |signer: &Signer, sub: &str| format!("Bearer {}", signer.token(&claims(sub)));
    let (alice, bob) = (bearer(&signer, "alice"), bearer(&signer, "bob"));

    let first = next(&server, &[("authorization", &alice)]).await;
    assert_eq!(first.json()["index"], 0);
    assert!(first.headers.get("x-session-key").is_none() && first.headers.get("set-cookie").is_none());
    // A session that comes along changes nothing, and gets nothing.
    let session = ("x-session-key", "0123456789-0123456789-0123456789");
    assert_eq!(next(&server, &[("authorization", &alice), session]).await.json()["index"], 1);
    assert_eq!(next(&server, &[session]).await.json()["index"], 0);
    assert_eq!(next(&server, &[("authorization", &bob)]).await.json()["index"], 0);
    // The name of a subject, as a session's key, is another sequence.
    let named = ("x-session-key", "alice-alice-alice-alice-alice-alice");
    assert_eq!(next(&server, &[named]).await.json()["index"], 0);

    let forged = next(&server, &[("authorization", &bearer(&forger, "alice"))]).await;
    assert_eq!(forged.status, 401);
    assert!(forged.header("www-authenticate").contains(r#"error="invalid_token""#));
    let basic = next(&server, &[("authorization", "Basic YWxpY2U6eA==")]).await;
    assert_eq!(
        (basic.status.as_u16(), basic.header("www-authenticate")),
        (401, r#"Bearer realm="math-service""#)
    );
    assert_eq!(next(&server, &[("authorization", &alice)]).await.json()["index"], 2, "nobody else moved it");
}
