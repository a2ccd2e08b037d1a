//! A bound on work that holds a thread: slots, with their gauges.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{problem::Problem, telemetry::metrics::Metrics};

/// How soon whoever found none may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// So many at once.
#[derive(Clone)]
pub(crate) struct Slots {
    free: Arc<Semaphore>,
    busy: IntGauge,
    metrics: Metrics,
    /// What a client hears that found none.
    refusal: &'static str,
}

/// A name of a gauge, and what it shows.
pub(crate) type Gauge = (&'static str, &'static str);

impl Slots {
    /// As many as `count`, which the first gauge shows; the second shows how many are in use.
    ///
    /// # Errors
    /// When a gauge's name is taken: a programming mistake.
    pub(crate) fn new(
        count: usize,
        (all, all_help): Gauge,
        (busy, busy_help): Gauge,
        metrics: &Metrics,
        refusal: &'static str,
    ) -> prometheus::Result<Self> {
        metrics.gauge(all, all_help)?.set(i64::try_from(count).unwrap_or(i64::MAX));
        let busy = metrics.gauge(busy, busy_help)?;
        Ok(Self { free: Arc::new(Semaphore::new(count)), busy, metrics: metrics.clone(), refusal })
    }

    /// A free one, at once or not at all.
    ///
    /// # Errors
    /// 503 when there was none.
    pub(crate) fn take_now(&self) -> Result<Slot, Problem> {
        self.slot(self.free.clone().try_acquire_owned().ok())
    }

    /// A free one, within `patience` or not at all. Who waits takes their turn, and costs nothing meanwhile.
    ///
    /// # Errors
    /// 503 when there was none.
    pub(crate) async fn take_within(&self, patience: Duration) -> Result<Slot, Problem> {
        let permit = tokio::time::timeout(patience, self.free.clone().acquire_owned()).await;
        self.slot(permit.ok().and_then(Result::ok))
    }

    fn slot(&self, permit: Option<OwnedSemaphorePermit>) -> Result<Slot, Problem> {
        let Some(permit) = permit else {
            self.metrics.shed();
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, self.refusal).retry_after(RETRY_AFTER));
        };
        self.busy.inc();
        Ok(Slot { busy: self.busy.clone(), _permit: permit })
    }
}

/// One in use; dropping it frees it.
pub(crate) struct Slot {
    busy: IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.busy.dec();
    }
}
