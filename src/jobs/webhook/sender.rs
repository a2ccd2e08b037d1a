//! One attempt to deliver a message.
//!
//! A host's name is looked up once, by us; if any of its addresses is none of the public Internet, nothing is sent, else the
//! connection goes to one of the very addresses that were looked at. A name that resolves to another address a moment later
//! (DNS rebinding) changes nothing. No proxy is asked, whatever the environment says; no redirect is followed; what the
//! answer says beyond its head is not read.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::Full;
use hyper::{HeaderMap, Request, StatusCode, body::Bytes, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::sync::OnceCell;
use tower::Service;

use super::{address::is_public, message::Message, signature::Secrets, target::Target};
use crate::auth::issuer;

/// Longest time for an attempt, from the look-up to the answer's head: the standard asks for 15 to 30 s; a function has less.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait that a receiver may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Finds the addresses of a host.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it: 2xx.
    Delivered,
    /// It may have it another time, not before a while if it said so.
    Again(String, Option<Duration>),
    /// It does not want it any more, or must not have it.
    Never(String),
}

/// Sends messages. Clones share the certificate authorities.
#[derive(Clone)]
pub struct Sender {
    resolve: Resolve,
    may_reach: fn(IpAddr) -> bool,
    roots: Arc<OnceCell<RootCertStore>>,
}

impl Default for Sender {
    /// Asks the system's resolver, and reaches the public Internet alone.
    fn default() -> Self {
        Self { resolve: Arc::new(|host| system(host).boxed()), may_reach: is_public, roots: Arc::default() }
    }
}

async fn system(host: String) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

impl Sender {
    /// The same with somebody else's look-up, addresses and certificate authorities: for tests.
    #[must_use]
    pub fn with(resolve: Resolve, may_reach: fn(IpAddr) -> bool, roots: RootCertStore) -> Self {
        Self { resolve, may_reach, roots: Arc::new(OnceCell::new_with(Some(roots))) }
    }

    /// Sends it once, signed at `now` (seconds since 1970).
    pub async fn send(&self, message: &Message, target: &Target, secrets: &Secrets, now: u64) -> Outcome {
        let attempt = tokio::time::timeout(DEADLINE, self.attempt(message, target, secrets, now)).await;
        match attempt {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Again(in_words(&*error), None),
            Err(_) => Outcome::Again(format!("no answer within {} s", DEADLINE.as_secs()), None),
        }
    }

    async fn attempt(
        &self,
        message: &Message,
        target: &Target,
        secrets: &Secrets,
        now: u64,
    ) -> Result<Outcome, Box<dyn Error + Send + Sync>> {
        let request = Request::post(target.uri())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("math-service/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", secrets.sign(&message.id, now, &message.body))
            .body(Full::new(Bytes::from(message.body.clone())))?;
        let roots = self.roots.get_or_try_init(issuer::roots).await?;
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let mut tcp = HttpConnector::new_with_resolver(Checked(self.clone()));
        tcp.enforce_http(false);
        let https =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        // A connection for one message: the next one looks the name up again.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https);
        let answer = client.request(request).await?;
        Ok(outcome(answer.status(), answer.headers()))
    }
}

fn outcome(status: StatusCode, headers: &HeaderMap) -> Outcome {
    let answered = format!("the receiver answered {}", status.as_u16());
    match status {
        status if status.is_success() => Outcome::Delivered,
        // The standard: the receiver is no more.
        StatusCode::GONE => Outcome::Never(answered),
        _ => {
            let wait = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Outcome::Again(answered, wait.map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT)))
        }
    }
}

/// The look-up, and what may come out of it.
#[derive(Clone)]
struct Checked(Sender);

impl Service<Name> for Checked {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Sender { resolve, may_reach, .. } = self.0.clone();
        async move {
            let addresses = resolve(name.as_str().to_owned()).await?;
            // One that is refused among others is no accident.
            if !addresses.iter().all(|address| may_reach(*address)) {
                return Err(Box::from(Refused));
            }
            let addresses: Vec<_> =
                addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(addresses.into_iter())
        }
        .boxed()
    }
}

/// The host has an address that must not be reached. Which one is nobody's business.
#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host has an address outside of the public Internet")
    }
}

impl Error for Refused {}

/// For whoever asks for dead letters: what is wrong, and nothing of the inside.
fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<Refused>() {
            return error.to_string();
        }
        if error.is::<rustls::Error>() {
            return "the receiver could not prove who it is".to_owned();
        }
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // What an I/O error carries is not among its sources.
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    tracing::debug!(error, "Could not deliver a webhook");
    "the receiver cannot be reached".to_owned()
}
