//! The load: as much CPU time burnt as is asked for.
//!
//! It is the workload that is bound by CPU: the case that a CPU-based autoscaler is made for. Off
//! unless enabled, because it is a way to burn somebody's money.

mod burn;

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, Uri},
    routing::get,
};
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::info;
use utoipa::ToSchema;

use crate::{
    http::{
        Routes,
        slots::{Slot, Slots},
    },
    problem::{Document, FieldError, Problem},
    telemetry::metrics::Metrics,
};

/// How CPU may be burnt.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Whether at all.
    pub is_enabled: bool,
    /// Most CPU seconds that one request may ask for.
    pub max_seconds: f64,
    /// Burns at once, a thread each.
    pub slots: usize,
}

/// The answer to a burn.
#[derive(Serialize, ToSchema)]
pub(crate) struct Burnt {
    /// The CPU time that was asked for and burnt, in seconds.
    #[schema(example = 5.0)]
    seconds: f64,
    /// Rounds of the same arithmetic that fitted into it: compares processors.
    #[schema(example = 425_000)]
    iterations: u64,
}

/// The load's route, and its metrics.
///
/// # Errors
/// When its metrics collide with others: a programming mistake.
pub fn routes(load: Load, metrics: &Metrics) -> prometheus::Result<Routes> {
    Ok(vec![("/load", get(serve).with_state(Burner::new(load, metrics)?))])
}

/// Burns CPU on a thread of its own.
///
/// It stops early, and frees its slot, when the client goes away, at `REQUEST_TIMEOUT` and at the end of a drain.
#[utoipa::path(get, path = "/load", operation_id = "load", tag = "load", params(
    ("seconds" = Option<f64>, Query, description = "CPU seconds to burn: above 0 and up to `LOAD_MAX_SECONDS`. \
        5 when not given, or the maximum where that is less.", example = 5),
), responses(
    (status = 200, description = "That much CPU time was burnt", body = Burnt),
    (status = 400, description = "A malformed Host header", body = Document, content_type = "application/problem+json"),
    (status = 403, description = "Not enabled", body = Document, content_type = "application/problem+json"),
    (status = 422, description = "Not a number within the bounds", body = Document, content_type = "application/problem+json"),
    (status = 503, description = "Every slot is busy, too many requests at once, or shutting down", body = Document, content_type = "application/problem+json"),
    (status = 504, description = "Took too long", body = Document, content_type = "application/problem+json"),
))]
pub(crate) async fn serve(State(burner): State<Burner>, uri: Uri) -> Result<Json<Burnt>, Problem> {
    if !burner.is_enabled {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "burning CPU is not enabled here: LOAD_ENABLED=true allows it",
        ));
    }
    let seconds = burn::seconds(uri.query().unwrap_or_default(), burner.max_seconds)
        .map_err(|detail| Problem::invalid(vec![FieldError::field("seconds", detail)]))?;
    // At once or not at all: a queue would only hide that the pod is full.
    let slot = burner.slots.take_now()?;
    info!(seconds, "Burning CPU");

    let iterations = burn_for(Duration::from_secs_f64(seconds), slot).await?;

    info!(seconds, iterations, "Burnt CPU");
    Ok(Json(Burnt { seconds, iterations }))
}

/// On a blocking thread, which holds the slot until it really is done. It stops within a round once
/// this future is dropped, because nobody can receive the result any more.
async fn burn_for(cpu: Duration, slot: Slot) -> Result<u64, Problem> {
    let (done, result) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let iterations = burn::burn(cpu, burn::thread_cpu_time, || !done.is_closed());
        // Before the answer: who reads it finds a free slot.
        drop(slot);
        let _ = done.send(iterations);
    });
    let iterations = result.await.ok().flatten();
    iterations
        .ok_or_else(|| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the burn ended without a result"))
}

/// What every request shares.
#[derive(Clone)]
pub(crate) struct Burner {
    is_enabled: bool,
    max_seconds: f64,
    slots: Slots,
}

impl Burner {
    fn new(load: Load, metrics: &Metrics) -> prometheus::Result<Self> {
        let Load { is_enabled, max_seconds, slots } = load;
        let slots = if is_enabled { slots } else { 0 };
        let slots = Slots::new(
            slots,
            ("load_slots", "Requests to /load that may burn CPU at once; 0 when not enabled."),
            ("load_slots_busy", "Requests to /load that burn CPU now."),
            metrics,
            "every slot for burning CPU is busy",
        )?;
        Ok(Self { is_enabled, max_seconds, slots })
    }
}
