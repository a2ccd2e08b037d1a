//! The way to the cluster: by IAM alone, without a kubeconfig.
//!
//! [`Cluster::client`] is an ordinary Kubernetes client. Beneath it, the first request finds credentials, asks EKS where
//! the API server is and which authority to trust for it, and mints a token; later ones find all of that at hand.
//!
//! - A token is renewed a minute before its end, and once after a 401; the request is then sent a second time, because
//!   nothing has happened.
//! - When no connection can be made, EKS is asked again, at most every 5 s ([`PAUSE`]). If the API server has moved or has
//!   a new authority, the request, which never left, goes there.
//! - Nothing else is repeated: what became of such a request is unknown.
//! - An answer is read in full, within a deadline; but a watch's (`watch=true`) is passed on as it comes, and whoever reads
//!   it keeps the time.

mod eks;
mod error;
mod health;
mod server;
pub mod token;

use std::{
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};
use hyper::{Request, Response, StatusCode, http::HeaderValue};
use kube::client::Body;
use tower::Service;

use self::{
    eks::Eks,
    health::{Known, LastProbe},
    server::{AnswerBody, Server},
};
pub use self::{
    eks::{DEADLINE as DESCRIBE_DEADLINE, PERMISSION as DESCRIBE_PERMISSION},
    error::{Cause, ClusterError},
    server::{ANSWER_DEADLINE, CONNECT_DEADLINE},
};
use crate::{
    auth::Clock,
    aws::{
        credentials::{Chain, Credentials, are_same},
        lookup::Lookup,
    },
};

pub use crate::aws::lookup::PAUSE;

/// Longest time for a request, whatever it takes: below every gateway's own limit.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A cluster, and a client that reaches it when it is first used. Clones share everything.
#[derive(Clone)]
pub struct Cluster {
    name: Arc<str>,
    region: Arc<str>,
    client: Arc<LazyClient>,
    identity: Identity,
    last_probe: LastProbe,
    known: Known,
}

/// Finds out which cluster it is.
type Identity = Arc<dyn Fn() -> BoxFuture<'static, Result<String, ClusterError>> + Send + Sync>;

/// Built by the first request: there is a runtime then, for its task.
type LazyClient = LazyLock<kube::Client, Box<dyn FnOnce() -> kube::Client + Send + Sync>>;

/// Which cluster, and what else it takes to find it.
pub struct Location {
    /// The cluster's name in EKS.
    pub name: String,
    /// The AWS region that it is in.
    pub region: String,
    /// Another address of EKS than AWS's own, for stand-ins and VPC endpoints.
    pub eks_endpoint: Option<String>,
}

impl Cluster {
    /// The cluster at `location`, by the process's own credentials. Reads nothing and asks nobody yet.
    #[must_use]
    pub fn new(location: Location) -> Self {
        let clock: Clock = Arc::new(SystemTime::now);
        let credentials = Chain::new(location.region.clone(), clock.clone());
        Self::with(location, credentials, clock)
    }

    /// The same with somebody else's credentials, at another time: for tests.
    #[must_use]
    pub fn with(location: Location, credentials: Chain, clock: Clock) -> Self {
        let Location { name, region, eks_endpoint } = location;
        let eks =
            Eks { name: name.clone(), region: region.clone(), endpoint: eks_endpoint, clock: clock.clone() };
        let way = Way { eks, credentials, server: Lookup::new(clock), token: Mutex::default() };
        let way = Arc::new(way);
        let transport = Transport(way.clone());
        let cluster = Self::lazy(name, region, Box::new(move || kube::Client::new(transport, "default")));
        let identity: Identity = Arc::new(move || {
            let way = way.clone();
            async move { way.identity().await }.boxed()
        });
        Self { identity, ..cluster }
    }

    /// Any client, as that of a cluster with this name and in no region: tests bring scripted ones.
    #[must_use]
    pub fn around(name: impl Into<String>, client: kube::Client) -> Self {
        Self::lazy(name.into(), String::new(), Box::new(move || client))
    }

    /// The same, which is at any time the one that `identity` says: for tests.
    #[must_use]
    pub fn identified(self, identity: impl Fn() -> String + Send + Sync + 'static) -> Self {
        let identity: Identity = Arc::new(move || std::future::ready(Ok(identity())).boxed());
        Self { identity, ..self }
    }

    fn lazy(name: String, region: String, client: Box<dyn FnOnce() -> kube::Client + Send + Sync>) -> Self {
        let client = Arc::new(LazyLock::new(client));
        let identity: Identity = Arc::new(|| std::future::ready(Ok(String::new())).boxed());
        let (last_probe, known) = (LastProbe::default(), Known::default());
        Self { name: name.into(), region: region.into(), client, identity, last_probe, known }
    }

    /// The cluster's name in EKS.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The AWS region that it is in.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The client. Its errors tell why the cluster gave no answer: [`ClusterError::of`].
    #[must_use]
    pub fn client(&self) -> &kube::Client {
        LazyLock::force(&self.client)
    }

    /// Which of all clusters that ever had this name it is, as far as this process knows: by its certificate authority, which
    /// no other has. Asks EKS where nothing is known yet, and Kubernetes, which would have to allow it, not at all.
    ///
    /// # Errors
    /// When EKS has to be asked and does not tell.
    pub async fn identity(&self) -> Result<String, ClusterError> {
        (self.identity)().await
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What lies beneath the Kubernetes client.
#[derive(Clone)]
struct Transport(Arc<Way>);

struct Way {
    eks: Eks,
    credentials: Chain,
    server: Lookup<Arc<Server>, ClusterError>,
    token: Mutex<Option<Minted>>,
}

/// A token and what it was made of.
#[derive(Clone)]
struct Minted {
    header: HeaderValue,
    at: SystemTime,
    credentials: Credentials,
}

impl Service<Request<Body>> for Transport {
    type Response = Response<AnswerBody>;
    type Error = ClusterError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let way = self.0.clone();
        async move {
            let sent = tokio::time::timeout(DEADLINE, way.send(request)).await;
            sent.map_err(|_| ClusterError::TimedOut { what: "the request to the cluster" })?
        }
        .boxed()
    }
}

impl Way {
    async fn send(&self, request: Request<Body>) -> Result<Response<AnswerBody>, ClusterError> {
        let (head, body) = request.into_parts();
        // In full, because it may have to be sent again.
        let body = body.collect_bytes().await.map_err(|error| ClusterError::Broken(Arc::new(error)))?;
        let mut server = self.server(|_| true).await?;
        let mut token = self.token(None).await?;
        let (mut has_moved, mut was_renewed) = (false, false);
        loop {
            match server.send(&head, &body, &token.header).await {
                Err(error) if error.is_before_sending() && !has_moved => {
                    has_moved = true;
                    server = self.moved(&server).await.ok_or(error)?;
                }
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED && !was_renewed => {
                    was_renewed = true;
                    token = self.token(Some(&token)).await?;
                }
                outcome => return outcome,
            }
        }
    }

    async fn identity(&self) -> Result<String, ClusterError> {
        let server = tokio::time::timeout(DEADLINE, self.server(|_| true)).await;
        let server = server.map_err(|_| ClusterError::TimedOut { what: "finding the cluster" })??;
        Ok(String::from_utf8_lossy(&server.description.authority).into_owned())
    }

    /// The API server, where EKS says it is.
    async fn server(&self, is_good: impl Fn(&Arc<Server>) -> bool) -> Result<Arc<Server>, ClusterError> {
        let (eks, credentials, known) = (self.eks.clone(), self.credentials.clone(), self.server.known());
        let describe = || async move {
            let description = eks.describe(&credentials.get().await?).await?;
            match known.filter(|known| known.description == description) {
                // With its connections, some of which may be good.
                Some(same) => Ok(same),
                None => Server::new(description).map(Arc::new),
            }
        };
        self.server.get(is_good, describe).await
    }

    /// Where the API server is now, if that is elsewhere or with another authority.
    async fn moved(&self, from: &Arc<Server>) -> Option<Arc<Server>> {
        let is_other = |known: &Arc<Server>| !Arc::ptr_eq(known, from);
        let now = self.server(is_other).await.inspect_err(|error| {
            let (name, error) = (&self.eks.name, crate::telemetry::log::chain(error));
            tracing::warn!(cluster = name, error, "Could not find out where the cluster is now");
        });
        now.ok().filter(is_other)
    }

    /// A token that is good for a while and is not the one which was refused.
    async fn token(&self, refused: Option<&Minted>) -> Result<Minted, ClusterError> {
        let is_refused = |minted: &Minted| refused.is_some_and(|refused| refused.header == minted.header);
        // Another request may have renewed it.
        let is_news = self.minted().as_ref().is_some_and(|minted| !is_refused(minted));
        let credentials = match refused {
            Some(refused) if !is_news => self.credentials.other_than(&refused.credentials).await?,
            _ => self.credentials.get().await?,
        };
        let now = (self.eks.clock)();
        let mut minted = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        let good = minted.as_ref().filter(|minted| minted.is_good(&credentials, now) && !is_refused(minted));
        if let Some(good) = good {
            return Ok(good.clone());
        }
        let new = self.mint(credentials, now)?;
        Ok(minted.insert(new).clone())
    }

    fn minted(&self) -> Option<Minted> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn mint(&self, credentials: Credentials, now: SystemTime) -> Result<Minted, ClusterError> {
        let Eks { name, region, .. } = &self.eks;
        let token = token::mint(name, region, &credentials, now).map_err(ClusterError::eks)?;
        let mut header = HeaderValue::from_str(&format!("Bearer {token}")).map_err(ClusterError::eks)?;
        header.set_sensitive(true);
        Ok(Minted { header, at: now, credentials })
    }
}

impl Minted {
    fn is_good(&self, credentials: &Credentials, now: SystemTime) -> bool {
        // A clock that was set back tells nothing, so the token counts as old.
        let is_young = now.duration_since(self.at).is_ok_and(|age| age < token::LASTS - token::AHEAD);
        is_young && are_same(&self.credentials, credentials)
    }
}
