//! Health, for machines (`/livez`, `/healthz`, `/readyz`) and for people (`/health`), and metrics.

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use utoipa::ToSchema;

use super::Routes;
use crate::{
    lifecycle::Lifecycle,
    problem::Problem,
    store::state::{State as SharedState, StoreHealth},
    targets::Target,
    telemetry::metrics::Metrics,
};

/// The state of the service in one word.
#[derive(Serialize, ToSchema)]
pub struct Status {
    /// `ok`, `ready`, …
    #[schema(example = "ok")]
    status: &'static str,
}

/// The state of the service for people and alarms.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// `healthy`, or `degraded`: something below is unavailable, and the routes that need it answer 503.
    #[schema(example = "healthy")]
    status: &'static str,
    /// The running version.
    version: &'static str,
    /// Which target answers.
    target: Target,
    /// Where the Fibonacci sequences are kept.
    store: StoreHealth,
    /// The EKS clusters that Jobs run in, the default one first; left out where none is configured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clusters: Vec<ClusterHealth>,
}

/// A cluster's part of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClusterHealth {
    /// Its name in EKS.
    #[schema(example = "math")]
    pub name: String,
    /// `ok`, or `unavailable`: it cannot be reached, or does not know this service; the log says which.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// How to ask a cluster.
pub type ClusterProbe = Arc<dyn Fn() -> BoxFuture<'static, ClusterHealth> + Send + Sync>;

/// The health routes.
#[must_use]
pub fn routes(
    target: Target,
    lifecycle: Lifecycle,
    state: SharedState,
    clusters: Vec<ClusterProbe>,
) -> Routes {
    vec![
        ("/livez", get(live)),
        ("/healthz", get(healthz)),
        ("/readyz", get(ready).with_state(lifecycle)),
        ("/health", get(health).with_state((target, state, clusters))),
    ]
}

/// The metrics route; only where there is a process that lives long enough to be scraped.
#[must_use]
pub fn metrics_routes(metrics: Metrics) -> Routes {
    vec![("/metrics", get(scrape).with_state(metrics))]
}

/// The process is alive. Never touches a dependency.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "health", responses((status = 200, description = "Alive", body = Status)))]
pub(crate) async fn live() -> Json<Status> {
    Json(Status { status: "ok" })
}

/// The same as `/livez`, under the name that load balancers' health checks use.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, description = "Alive", body = Status)))]
pub(crate) async fn healthz() -> Json<Status> {
    live().await
}

/// Whether to send requests here: not before the start is complete, and not once it is to stop.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "health", responses(
    (status = 200, description = "Send requests here", body = Status),
    (status = 503, description = "Starting or draining", body = crate::problem::Document, content_type = "application/problem+json"),
))]
pub(crate) async fn ready(State(lifecycle): State<Lifecycle>) -> Result<Json<Status>, Problem> {
    if lifecycle.is_ready() {
        return Ok(Json(Status { status: "ready" }));
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "starting or draining"))
}

/// The state of the service, for people and alarms, not for probes.
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, description = "Healthy", body = Health),
    (status = 503, description = "Degraded: what is unavailable is named", body = Health),
))]
pub(crate) async fn health(
    State((target, state, clusters)): State<(Target, SharedState, Vec<ClusterProbe>)>,
) -> (StatusCode, Json<Health>) {
    // All at once: one that does not answer delays nobody's but its own.
    let ask_clusters = join_all(clusters.iter().map(|ask| ask()));
    let (store, clusters) = tokio::join!(state.health(), ask_clusters);
    let misses_cluster = clusters.iter().any(|cluster| cluster.status != "ok");
    let (code, status) = match store.is_degraded() || misses_cluster {
        true => (StatusCode::SERVICE_UNAVAILABLE, "degraded"),
        false => (StatusCode::OK, "healthy"),
    };
    (code, Json(Health { status, version: crate::VERSION, target, store, clusters }))
}

/// What Prometheus scrapes. Container only: on Lambda the same numbers go out as EMF log lines.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "health", responses(
    (status = 200, description = "Prometheus text format", body = String, content_type = "text/plain"),
    (status = 404, description = "On Lambda", body = crate::problem::Document, content_type = "application/problem+json"),
))]
pub(crate) async fn scrape(State(metrics): State<Metrics>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(
                error = &error as &(dyn std::error::Error + 'static),
                "Could not render the metrics"
            );
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be rendered")
                .into_response()
        }
    }
}
