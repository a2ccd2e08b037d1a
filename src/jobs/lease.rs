//! One of several replicas at a time: a Lease in the cluster, as Kubernetes' own controllers use it.
//!
//! Who holds it renews it every [`RETRY`]. Who does not waits until it has not changed for as long as it says
//! ([`LASTS`]), by its own clock: clocks of two machines are never compared. Who cannot renew it for [`DEADLINE`] gives up
//! before another may take it. (The rules, and the durations, are those of client-go's `leaderelection`.)

use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    api::{self, Call, Resource, Verb},
    cluster::Cluster,
    error::Failure,
};

/// How long a Lease is its holder's after it was last renewed.
pub const LASTS: Duration = Duration::from_secs(15);

/// How long a holder tries to renew it.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How often it is renewed, or tried.
pub const RETRY: Duration = Duration::from_secs(2);

/// Longest time for one call about it.
const CALL: Duration = Duration::from_secs(5);

/// The Lease's name.
pub const NAME: &str = "math-service-jobs";

/// One replica's view of the Lease.
#[derive(Debug)]
pub(super) struct Lease {
    cluster: Cluster,
    namespace: String,
    holder: String,
    /// In which version it was last seen, and when that was first.
    seen: Option<(String, Instant)>,
}

impl Lease {
    pub(super) fn new(cluster: Cluster, namespace: String, holder: String) -> Self {
        Self { cluster, namespace, holder, seen: None }
    }

    /// Waits until it is this replica's.
    pub(super) async fn acquire(&mut self) {
        let mut was_told = false;
        loop {
            match self.take().await {
                Ok(true) => return,
                Ok(false) => was_told = false,
                Err(failure) if !was_told => {
                    was_told = true;
                    tracing::warn!(
                        cluster = self.cluster.name(),
                        reason = failure.in_words(),
                        "Could not look at the Lease"
                    );
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews it until it is lost.
    pub(super) async fn keep(&mut self) {
        let mut held_since = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let began = Instant::now();
            match tokio::time::timeout_at(held_since + DEADLINE, self.take()).await {
                Ok(Ok(true)) => held_since = began,
                Ok(Ok(false)) => return,
                Ok(Err(_)) | Err(_) if held_since.elapsed() >= DEADLINE => return,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }

    /// Lets the next one have it at once.
    pub(super) async fn release(&mut self) {
        let released = async {
            let Some(mut lease) = self.get().await? else { return Ok(()) };
            if holder(&lease) == Some(&self.holder) {
                lease["spec"]["holderIdentity"] = json!("");
                lease["spec"]["leaseDurationSeconds"] = json!(1);
                self.send(&self.call(Verb::Update).named(NAME).sending(&lease)).await?;
            }
            Ok::<_, Failure>(())
        };
        if let Err(failure) = released.await {
            tracing::warn!(
                cluster = self.cluster.name(),
                reason = failure.in_words(),
                "Could not release the Lease"
            );
        }
    }

    /// Takes or renews it: whether it is this replica's now.
    async fn take(&mut self) -> Result<bool, Failure> {
        let Some(mut lease) = self.get().await? else {
            let lease = self.written(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}), 0);
            return made(self.send(&self.call(Verb::Create).sending(&lease)).await);
        };
        let holder = holder(&lease).unwrap_or_default();
        let is_mine = holder == self.holder;
        if !is_mine && !holder.is_empty() && !self.has_run_out(&lease) {
            return Ok(false);
        }
        let before = lease["spec"]["leaseTransitions"].as_u64().unwrap_or_default();
        if is_mine {
            lease["spec"]["renewTime"] = json!(now());
        } else {
            lease = self.written(lease, before + 1);
        }
        // With the version that was read: of two who take it at once, one does.
        made(self.send(&self.call(Verb::Update).named(NAME).sending(&lease)).await)
    }

    /// Whether it has not changed for as long as it lasts.
    fn has_run_out(&mut self, lease: &Value) -> bool {
        let version = lease["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let lasts = lease["spec"]["leaseDurationSeconds"].as_u64().map_or(LASTS, Duration::from_secs);
        match &self.seen {
            Some((seen, since)) if seen == version => since.elapsed() >= lasts,
            _ => {
                self.seen = Some((version.to_owned(), Instant::now()));
                false
            }
        }
    }

    fn written(&self, mut lease: Value, transitions: u64) -> Value {
        lease["metadata"]["name"] = json!(NAME);
        lease["metadata"]["namespace"] = json!(self.namespace);
        let now = now();
        lease["spec"] = json!({
            "holderIdentity": self.holder,
            "leaseDurationSeconds": LASTS.as_secs(),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        });
        lease
    }

    async fn get(&self) -> Result<Option<Value>, Failure> {
        match self.send(&self.call(Verb::Get).named(NAME)).await {
            Ok(lease) => Ok(Some(lease)),
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn call(&self, verb: Verb) -> Call<'_> {
        Call::new(verb, Resource::Leases).within(&self.namespace)
    }

    async fn send(&self, call: &Call<'_>) -> Result<Value, Failure> {
        api::send(self.cluster.client(), call, CALL).await
    }
}

fn holder(lease: &Value) -> Option<&str> {
    lease["spec"]["holderIdentity"].as_str()
}

/// Somebody else was faster, or it was.
fn made(outcome: Result<Value, Failure>) -> Result<bool, Failure> {
    match outcome {
        Ok(_) => Ok(true),
        Err(failure) if failure.is(StatusCode::CONFLICT) => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// Kubernetes' `MicroTime`.
fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}
