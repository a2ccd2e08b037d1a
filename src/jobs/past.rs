//! What became of a Job, also when the cluster has forgotten it.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    JOB_HISTORY, Jobs,
    docs::Reads,
    history::Transition,
    namespaces::uncached,
    request::{InPath, Query},
    watch,
};
use crate::{
    problem::Problem,
    store::{ledger, records},
};

/// A part of the history of a Job's name.
#[derive(Debug, Serialize, ToSchema)]
pub struct History {
    /// Oldest first. Jobs of the same name, one after the other, are told apart by their UIDs.
    pub items: Vec<Transition>,
    /// What to ask for the next ones with; absent at the end.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What became of a Job that this service created: each transition, also after the cluster has forgotten it.
///
/// Kept for `HISTORY_TTL`. A transition is here some seconds after it happened.
#[utoipa::path(get, path = JOB_HISTORY, operation_id = "get_job_history", tag = "jobs",
    params(
        ("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("name" = String, Path, description = "The Job", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 500; 100 when not given", minimum = 1, maximum = 500),
        ("continue" = Option<String>, Query, description = "What the answer before said"),
    ),
    responses((status = 200, description = "Some of it, or none where nothing is known", body = History), Reads),
    security(("token" = ["jobs:read"])))]
pub(super) async fn show(
    State(jobs): State<Arc<Jobs>>,
    InPath([namespace, name]): InPath<2>,
    uri: Uri,
) -> Result<Response, Problem> {
    jobs.check_job(&namespace, &name)?;
    let query = Query::of(&uri);
    let log = watch::log(jobs.cluster()?.name(), &namespace, &name);
    let after = query.passed_on("continue")?.map(ledger::cursor).transpose()?;
    let limit = query.limit()?;
    let now = jobs.ledger.now() / 1000;
    let page = jobs.ledger.read(records::Query { after, ..records::Query::all(log, limit, now) }).await?;
    let items = page.records.iter().filter_map(|record| serde_json::from_str(&record.body).ok()).collect();
    Ok(uncached(StatusCode::OK, History { items, next: page.next.as_ref().map(ledger::opaque) }))
}
