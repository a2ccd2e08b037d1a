//! The audit, kept where it can be asked for: a copy of each line about a caller who is known, for `HISTORY_TTL`.
//!
//! The line in the log is the record. A store that is away does not keep a change from being made: the log has it, and
//! the store lacks it, which the log says too. Attempts without a token that is accepted, and those beyond a caller's rate
//! limit, are in the log alone: anybody could fill a store with them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    access::{Access, Guarded},
    scope::Scope,
};
use crate::{
    http::{json::Answer, query::Query},
    problem::{Document, FieldError, Problem},
    store::{
        ledger::{self, Ledger, millis},
        records::{self, Log, Name, Record},
    },
};

/// Where it is asked for.
pub const AUDIT: &str = "/api/v1/audit";

/// How long an answer waits for its copy in the store.
const PATIENCE: Duration = Duration::from_millis(500);

/// Longest filter, in bytes: what an entry says is not longer.
const LONGEST_FILTER: usize = 256;

/// One attempt to change something.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// When it ended.
    #[schema(example = "2026-01-31T12:00:00.123Z")]
    pub time: String,
    /// Who made it.
    #[schema(example = "ci")]
    pub who: String,
    /// Who vouches for that name: an OpenID Connect issuer, or `AUTH_TOKENS_FILE`.
    #[schema(example = "AUTH_TOKENS_FILE")]
    pub issuer: String,
    /// From where.
    pub client: Option<String>,
    /// The method.
    #[schema(example = "POST")]
    pub verb: String,
    /// The route.
    #[schema(example = "/api/v1/namespaces/{namespace}/jobs")]
    pub route: String,
    /// The path.
    pub path: String,
    /// Which part of a batch, counted from 0; none for the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<usize>,
    /// The cluster.
    pub cluster: Option<String>,
    /// The namespace.
    pub namespace: Option<String>,
    /// The object.
    pub name: Option<String>,
    /// Which of all objects that ever had this name.
    pub uid: Option<String>,
    /// The status code of the answer; none where there was no answer.
    #[schema(example = 201)]
    pub status: Option<u16>,
    /// `done`, `refused`, `failed` or `unknown`.
    #[schema(example = "done")]
    pub outcome: String,
    /// The request's id.
    pub request_id: String,
}

/// Some entries.
#[derive(Debug, Serialize, ToSchema)]
pub struct Entries {
    /// The last ones first. There may be fewer than asked for, or none, and more with `continue`.
    pub items: Vec<Entry>,
    /// What to ask for the next ones with; absent at the end.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Keeps copies of audit lines.
#[derive(Debug, Clone)]
pub struct Trail(Ledger);

impl Trail {
    /// In this ledger.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }

    /// The route that shows them, behind its guard.
    #[must_use]
    pub fn routes(&self, access: &Access) -> Guarded {
        access.guard([(AUDIT, Scope::AuditRead, get(list).with_state(Arc::new(self.clone())))])
    }

    /// The present, as entries write it.
    pub(super) fn now(&self) -> String {
        ledger::timestamp(self.0.now())
    }

    /// Keeps an entry, by a task of its own: a caller who leaves does not take it along.
    pub(super) fn keep(&self, entry: Entry) -> Option<Keeping> {
        let ledger = self.0.clone();
        // Where there is no store, that is no news.
        if ledger.refusal().is_some() {
            return None;
        }
        // Outside of a runtime there is nobody who could wait for a store.
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        Some(Keeping(runtime.spawn(async move {
            let Ok(body) = serde_json::to_string(&entry) else { return };
            let record = Record {
                name: Name::of("audit", &[&entry.request_id, &fastrand::u128(..).to_string()]),
                log: Log::the("audit"),
                place: ledger.now(),
                namespace: entry.namespace,
                caller: Some(entry.who),
                body,
                keep_until: ledger.keep_until(),
            };
            if let Err(problem) = ledger.enter(record, Vec::new()).await {
                let (reason, request_id) = (problem.detail(), entry.request_id);
                tracing::warn!(reason, of = request_id, "An audit line is in the log alone");
            }
        })))
    }
}

/// A copy on its way.
pub struct Keeping(tokio::task::JoinHandle<()>);

impl Keeping {
    /// Waits for it, for a while: on Lambda the process may freeze after the answer.
    pub async fn wait(self) {
        let _ = tokio::time::timeout(PATIENCE, self.0).await;
    }
}

/// Who changed what: every attempt of a known caller, the last ones first.
///
/// Kept for `HISTORY_TTL`; what the store could not take is in the log alone.
#[utoipa::path(get, path = AUDIT, operation_id = "list_audit", tag = "audit",
    params(
        ("namespace" = Option<String>, Query, description = "In this namespace alone"),
        ("caller" = Option<String>, Query, description = "By this caller alone, by name"),
        ("since" = Option<String>, Query, description = "From this moment on (RFC 3339, in UTC)", example = "2026-01-31T12:00:00Z"),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 500; 100 when not given", minimum = 1, maximum = 500),
        ("continue" = Option<String>, Query, description = "What the answer before said"),
    ),
    responses(
        (status = 200, description = "Some of them", body = Entries),
        (status = 400, description = "A malformed Host header", body = Document<'static>, content_type = "application/problem+json"),
        (status = 401, description = "No token, or one that is not accepted", body = Document<'static>, content_type = "application/problem+json"),
        (status = 403, description = "The token lacks the scope, or nobody can sign in", body = Document<'static>, content_type = "application/problem+json"),
        (status = 422, description = "A parameter is not acceptable", body = Document<'static>, content_type = "application/problem+json"),
        (status = 429, description = "The caller's rate limit", body = Document<'static>, content_type = "application/problem+json"),
        (status = 503, description = "The store cannot be reached, or would be wrong here; or too many requests at once", body = Document<'static>, content_type = "application/problem+json"),
        (status = 504, description = "Longer than REQUEST_TIMEOUT", body = Document<'static>, content_type = "application/problem+json"),
    ),
    security(("token" = ["audit:read"])))]
pub(crate) async fn list(State(trail): State<Arc<Trail>>, uri: Uri) -> Result<Response, Problem> {
    let Trail(ledger) = &*trail;
    let query = Query::of(&uri);
    let asked = records::Query {
        from: since(&query)?,
        namespace: filter(&query, "namespace")?,
        caller: filter(&query, "caller")?,
        newest_first: true,
        after: query.one("continue")?.filter(|text| !text.is_empty()).map(ledger::cursor).transpose()?,
        ..records::Query::all(Log::the("audit"), query.limit()?, ledger.now() / 1000)
    };
    let page = ledger.read(asked).await?;
    let items = page.records.iter().filter_map(|record| serde_json::from_str(&record.body).ok()).collect();
    let entries = Entries { items, next: page.next.as_ref().map(ledger::opaque) };
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], (StatusCode::OK, Answer(entries)))
        .into_response())
}

/// No entry has a control character in these, and PostgreSQL takes no text with a NUL.
fn filter(query: &Query<'_>, name: &str) -> Result<Option<String>, Problem> {
    let Some(value) = query.one(name)?.filter(|value| !value.is_empty()) else { return Ok(None) };
    let detail = match value {
        _ if value.len() > LONGEST_FILTER => format!("must have at most {LONGEST_FILTER} bytes"),
        _ if value.contains(char::is_control) => "must have no control characters".to_owned(),
        _ => return Ok(Some(value.to_owned())),
    };
    Err(Problem::invalid(vec![FieldError::field(name, detail)]))
}

fn since(query: &Query<'_>) -> Result<u64, Problem> {
    let Some(text) = query.one("since")?.filter(|text| !text.is_empty()) else { return Ok(0) };
    let moment: Option<SystemTime> = humantime::parse_rfc3339(text).ok();
    moment.map(millis).ok_or_else(|| {
        let detail = "must be a moment in UTC, such as 2026-01-31T12:00:00Z";
        Problem::invalid(vec![FieldError::field("since", detail)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_no_entry_can_meet_is_refused_before_a_store_is_asked() {
        let filter = |value: &str| {
            let uri: Uri = format!("{AUDIT}?caller={value}").parse().unwrap();
            filter(&Query::of(&uri), "caller")
        };
        assert_eq!(filter("").unwrap(), None);
        assert_eq!(filter("ci@example.com").unwrap().unwrap(), "ci@example.com");
        assert_eq!(filter("Zo%C3%AB%20W").unwrap().unwrap(), "Zo\u{eb} W");
        let longest = "a".repeat(LONGEST_FILTER);
        assert_eq!(filter(&longest).unwrap().unwrap(), longest);
        for (value, detail) in [
            // PostgreSQL would refuse it, and the answer would be that the store is away.
            ("%00", "must have no control characters"),
            ("a%0Ab", "must have no control characters"),
            ("a%C2%85", "must have no control characters"),
            (&format!("a{longest}"), "must have at most 256 bytes"),
        ] {
            let problem = filter(value).unwrap_err();
            assert_eq!(problem.status(), StatusCode::UNPROCESSABLE_ENTITY);
            let error = &problem.value()["errors"][0];
            assert_eq!((&error["pointer"], &error["detail"]), (&"/caller".into(), &detail.into()));
        }
    }
}
