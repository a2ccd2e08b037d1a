//! What could not be delivered.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, Uri},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    message::{Message, dead},
    target::Target,
};
use crate::{
    http::query::Query as Parameters,
    jobs::{DEAD_LETTERS, Jobs, docs::Reads, namespaces::uncached},
    problem::Problem,
    store::{
        ledger::{cursor, opaque, timestamp},
        records::Query,
    },
};

/// A message that was given up.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetter {
    /// Its `webhook-id`.
    #[schema(example = "msg_2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")]
    pub id: String,
    /// The Job's namespace.
    pub namespace: String,
    /// The Job.
    pub name: String,
    /// The receiver's host; the rest of the URL may be a secret.
    #[schema(example = "hooks.example.com")]
    pub host: String,
    /// When it was written.
    #[schema(example = "2026-01-31T12:00:00Z")]
    pub since: String,
    /// When it was given up.
    #[schema(example = "2026-02-01T12:00:00Z")]
    pub given_up: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What became of the last attempt.
    #[schema(example = "the receiver answered 500")]
    pub reason: String,
}

/// Some of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeadLetters {
    /// The last ones first.
    pub items: Vec<DeadLetter>,
    /// What to ask for the next ones with; absent at the end.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Webhooks that were given up in the last seven days, of namespaces that are open.
#[utoipa::path(get, path = DEAD_LETTERS, operation_id = "list_dead_letters", tag = "jobs",
    params(
        ("limit" = Option<u32>, Query, description = "How many, 1 to 500; 100 when not given", minimum = 1, maximum = 500),
        ("continue" = Option<String>, Query, description = "What the answer before said"),
    ),
    responses((status = 200, description = "Some of them", body = DeadLetters), Reads),
    security(("token" = ["jobs:read"])))]
pub(in crate::jobs) async fn list(State(jobs): State<Arc<Jobs>>, uri: Uri) -> Result<Response, Problem> {
    let cluster = jobs.cluster()?.name();
    let parameters = Parameters::of(&uri);
    let after = parameters.one("continue")?.filter(|text| !text.is_empty()).map(cursor).transpose()?;
    let log = dead(cluster);
    let now = jobs.ledger.now() / 1000;
    let query = Query { newest_first: true, after, ..Query::all(log, parameters.limit()?, now) };
    let page = jobs.ledger.read(query).await?;
    let letters = page.records.iter().filter_map(|record| {
        let message: Message = serde_json::from_str(&record.body).ok()?;
        jobs.namespaces.permit(&message.namespace).then(|| letter(message, record.place))
    });
    let items = letters.collect();
    Ok(uncached(StatusCode::OK, DeadLetters { items, next: page.next.as_ref().map(opaque) }))
}

fn letter(message: Message, given_up: u64) -> DeadLetter {
    let target = Target::parse(&message.url);
    DeadLetter {
        id: message.id,
        namespace: message.namespace,
        name: message.name,
        host: target.map(|target| target.host().to_owned()).unwrap_or_default(),
        since: timestamp(message.since),
        given_up: timestamp(given_up),
        attempts: message.attempts,
        reason: message.reason.unwrap_or_default(),
    }
}
