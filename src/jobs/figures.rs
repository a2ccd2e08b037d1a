//! What `/metrics` says of those who watch: whether this replica does, what it wrote, and when that last went well.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::telemetry::metrics::Metrics;

/// What tells clusters apart.
const CLUSTER: &[&str] = &["cluster"];

/// Those of one cluster.
#[derive(Debug, Clone)]
pub struct Figures {
    holds_lease: IntGauge,
    entries: IntCounter,
    last_success: IntGaugeVec,
    cluster: String,
}

impl Figures {
    /// One for each of `clusters`. Each shows from the beginning, as 0, but for the last success: an alarm waits for that, and
    /// must not where nobody is to watch.
    ///
    /// # Errors
    /// When another metric has one of the names: a mistake that any test shows.
    pub fn of<'a>(
        metrics: &Metrics,
        clusters: impl Iterator<Item = &'a str>,
    ) -> prometheus::Result<Vec<Self>> {
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGaugeVec> {
            metrics.register(IntGaugeVec::new(Opts::new(name, help), CLUSTER)?)
        };
        let holds_lease = gauge(
            "jobs_watch_lease_held",
            "1 in the replica that writes down what becomes of a cluster's Jobs, 0 in the others.",
        )?;
        let last_success = gauge(
            "jobs_watch_last_success_timestamp_seconds",
            "When this replica last watched a cluster's Jobs without a failure; 0 when it never has, though it should.",
        )?;
        let help = "Transitions of Jobs that this replica wrote down.";
        let entries = Opts::new("jobs_history_entries_total", help);
        let entries = metrics.register(IntCounterVec::new(entries, CLUSTER)?)?;
        let one = |cluster: &str| Self {
            holds_lease: holds_lease.with_label_values(&[cluster]),
            entries: entries.with_label_values(&[cluster]),
            last_success: last_success.clone(),
            cluster: cluster.to_owned(),
        };
        Ok(clusters.map(one).collect())
    }

    /// From now on this replica is to watch, or to stand by.
    pub(super) fn begin(&self) {
        let _shows = self.last_success();
    }

    fn last_success(&self) -> IntGauge {
        self.last_success.with_label_values(&[&self.cluster])
    }

    /// The Lease is held until the guard is dropped.
    pub(super) fn hold(&self) -> Held<'_> {
        self.holds_lease.set(1);
        Held(&self.holds_lease)
    }

    pub(super) fn entered(&self) {
        self.entries.inc();
    }

    /// What there was at `now`, in milliseconds since 1970, has been written down.
    pub(super) fn succeeded(&self, now: u64) {
        self.last_success().set(i64::try_from(now / 1000).unwrap_or(i64::MAX));
    }
}

/// The Lease is held.
#[must_use = "the Lease counts as held only while this lives"]
pub(super) struct Held<'a>(&'a IntGauge);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.set(0);
    }
}
