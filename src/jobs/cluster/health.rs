//! The cluster's part of `GET /health`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{sync::Mutex, time::Instant};

use super::{Cluster, ClusterError};
use crate::{
    http::health::{ClusterHealth, ClusterProbe},
    telemetry::log,
};

/// How long what a probe found out counts: anybody may ask.
const LASTS: Duration = Duration::from_secs(1);

/// Longest time for a probe. The first may have to find credentials and the cluster.
const DEADLINE: Duration = Duration::from_secs(5);

/// When the cluster was last asked, and whether it answered.
pub(super) type LastProbe = Arc<Mutex<Option<(Instant, bool)>>>;

/// What the last call of any kind found out: nothing yet, that it answers, or that it does not.
pub(super) type Known = Arc<AtomicU8>;

const ANSWERS: u8 = 1;
const IS_AWAY: u8 = 2;

impl Cluster {
    /// Notes whether the API server answered a call.
    pub(in crate::jobs) fn saw(&self, is_ok: bool) {
        self.known.store(if is_ok { ANSWERS } else { IS_AWAY }, Ordering::Relaxed);
    }

    /// What is known without asking: `ok`, `unavailable`, or `unknown` as long as nothing was asked of it.
    #[must_use]
    pub fn known(&self) -> &'static str {
        match self.known.load(Ordering::Relaxed) {
            ANSWERS => "ok",
            IS_AWAY => "unavailable",
            _ => "unknown",
        }
    }

    /// What `GET /health` asks.
    #[must_use]
    pub fn probe(self) -> ClusterProbe {
        Arc::new(move || {
            let cluster = self.clone();
            async move { cluster.health().await }.boxed()
        })
    }

    /// Whether the API server answers us, whom it knows. At most one probe a second.
    pub async fn health(&self) -> ClusterHealth {
        let mut last = self.last_probe.lock().await;
        let is_ok = match *last {
            Some((at, is_ok)) if at.elapsed() < LASTS => is_ok,
            _ => {
                let is_ok = self.answers().await;
                self.saw(is_ok);
                *last = Some((Instant::now(), is_ok));
                is_ok
            }
        };
        ClusterHealth { name: self.name().to_owned(), status: if is_ok { "ok" } else { "unavailable" } }
    }

    /// `/version` is open to everybody whom the API server knows; a token that it does not is refused there too.
    async fn answers(&self) -> bool {
        let asked = tokio::time::timeout(DEADLINE, self.client().apiserver_version()).await;
        let late =
            || kube::Error::Service(Box::new(ClusterError::TimedOut { what: "the cluster's version" }));
        let Err(error) = asked.unwrap_or_else(|_| Err(late())) else { return true };
        let (name, error) = (self.name(), log::chain(&error));
        tracing::warn!(cluster = name, error, "The cluster cannot be used");
        false
    }
}
