//! Many Jobs in one request, each with its own answer.
//!
//! What is wrong with one says nothing about the others: the answer is 200 as soon as the batch itself can be read, and
//! what became of each Job stands beside its number. (207 is WebDAV's, RFC 4918 §13, and promises another document.)

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant as Clock},
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use futures_util::{StreamExt, future::join_all, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    BATCH, Jobs,
    docs::{Writes, WritesMany},
    job::Order,
    manifest::JobRequest,
    namespaces::uncached,
    request::InPath,
    status::JobStatus,
};
use crate::{
    auth::{
        access::{Meter, Principal},
        audit::Audit,
        trail::Keeping,
    },
    http::idempotency,
    problem::{Document, FieldError, Problem},
    telemetry::context,
};

/// Most Jobs in a batch.
pub const MOST: usize = 100;

/// Largest body of a batch, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Jobs of one batch that are created at the same time.
const AT_ONCE: usize = 8;

/// The part of a request's time that is kept for the answer: a twentieth, and at most a second.
const FOR_THE_ANSWER: (u32, Duration) = (20, Duration::from_secs(1));

/// What creates many Jobs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewJobs {
    /// The Jobs, each as `POST …/jobs` takes it. What is wrong with one is told in its own answer, so anything is taken here.
    #[schema(min_items = 1, max_items = 100, value_type = Vec<Value>)]
    pub items: Vec<JobRequest>,
}

/// What became of many Jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchResult {
    /// How many there are now that an item asked for, whether this request made them or an earlier one.
    pub created: usize,
    /// How many there are not, or may not be.
    pub failed: usize,
    /// One entry an item, in their order.
    pub items: Vec<ItemResult>,
}

/// What became of one of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct ItemResult {
    /// Its place in the batch, counted from 0.
    pub index: usize,
    /// The status that a request of its own would have got.
    #[schema(example = 201)]
    pub status: u16,
    /// The Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
    /// Whether an earlier request with the same `Idempotency-Key` made it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// What is wrong; its pointers lead into the whole body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Document>)]
    pub problem: Option<Value>,
    /// Seconds after which to try again, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// Creates up to 100 Jobs, each with its own answer.
///
/// The answer is 200 whatever became of them; see `status` of each item. Under one `Idempotency-Key` the batch can be sent
/// again, and makes what is missing. It costs as many requests of the rate limit as it has items: one lets it in, and what
/// the caller does not have is paid off before the next request.
#[utoipa::path(post, path = BATCH, operation_id = "create_jobs", tag = "jobs", request_body = NewJobs,
    params(
        ("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters but commas: for each item, together with its place, what it is for a single Job"),
    ),
    responses((status = 200, description = "What became of each", body = BatchResult), Writes, WritesMany),
    security(("token" = ["jobs:write"])))]
pub(super) async fn create(
    State(jobs): State<Arc<Jobs>>,
    who: Principal,
    meter: Meter,
    audit: Audit,
    InPath([namespace]): InPath<1>,
    request: Request,
) -> Result<Response, Problem> {
    audit.namespace(&namespace);
    audit.cluster(jobs.cluster()?.name());
    jobs.check_namespace(&namespace)?;
    let (head, body) = jobs.read_up_to(MAX_BODY_BYTES, request).await?;
    let items = items(body).map_err(|error| Problem::invalid(vec![error]))?;
    idempotency::key(&head.headers)?;
    meter.take(u32::try_from(items.len() - 1).unwrap_or(u32::MAX))?;
    let (until, answered) = jobs.batch_ends();
    let batch = Batch {
        jobs: &jobs,
        who: &who,
        audit: &audit,
        headers: &head.headers,
        namespace: &namespace,
        until,
        kept: Mutex::default(),
    };
    let results = stream::iter(items.into_iter().enumerate().map(|(index, item)| batch.item(index, item)));
    let results = results.buffered(AT_ONCE).collect().await;
    let _ = tokio::time::timeout_at(answered, batch.wait_for_copies()).await;
    Ok(uncached(StatusCode::OK, BatchResult::of(results)))
}

/// The batch's items: 1 to [`MOST`].
fn items(body: Value) -> Result<Vec<Value>, FieldError> {
    let Value::Object(mut members) = body else { return Err(FieldError::body("must be a JSON object")) };
    let items = match members.remove("items") {
        Some(Value::Array(items)) if (1..=MOST).contains(&items.len()) => items,
        Some(Value::Array(_)) => {
            return Err(FieldError::field("items", format!("must have 1 to {MOST} elements")));
        }
        None | Some(Value::Null) => return Err(FieldError::field("items", "is missing")),
        Some(_) => return Err(FieldError::field("items", "must be an array")),
    };
    match members.keys().next() {
        Some(other) => Err(FieldError::field(&super::pointer::escaped(other), "is not known")),
        None => Ok(items),
    }
}

impl Jobs {
    /// When the last item ends, and when the answer begins; later, the request would get 504 as a whole, and nobody knew
    /// what became of its items.
    fn batch_ends(&self) -> (Instant, Instant) {
        let spent = context::with(|request| Clock::now() - request.started).unwrap_or_default();
        let (part, most) = FOR_THE_ANSWER;
        let kept = (self.request_timeout / part).min(most);
        let until = Instant::now() + self.request_timeout.saturating_sub(kept + spent);
        (until, until + kept / 2)
    }
}

/// What all items share.
struct Batch<'a> {
    jobs: &'a Jobs,
    who: &'a Principal,
    audit: &'a Audit,
    headers: &'a HeaderMap,
    namespace: &'a str,
    until: Instant,
    /// Copies of audit lines on their way, waited for together: one by one, a store that is away would take all the time.
    kept: Mutex<Vec<Keeping>>,
}

impl Batch<'_> {
    async fn wait_for_copies(&self) {
        let kept = std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner));
        join_all(kept.into_iter().map(Keeping::wait)).await;
    }

    async fn item(&self, index: usize, body: Value) -> ItemResult {
        let created = self.create(index, &body).await;
        created.unwrap_or_else(|problem| ItemResult {
            index,
            status: problem.status().as_u16(),
            job: None,
            replayed: false,
            retry_after: problem.seconds_to_wait(),
            problem: Some(problem.below(&format!("/items/{index}")).value()),
        })
    }

    async fn create(&self, index: usize, body: &Value) -> Result<ItemResult, Problem> {
        if Instant::now() >= self.until {
            let detail = "the request's time was up before this item was begun: nothing was created for it";
            return Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail));
        }
        let attempt = self.audit.item(index)?;
        let audit = attempt.audit();
        let order = Order {
            headers: self.headers,
            who: self.who,
            audit: &audit,
            namespace: self.namespace,
            item: Some(index),
        };
        let created = tokio::time::timeout_at(self.until, self.jobs.create_job(&order, body)).await;
        let created = created.unwrap_or_else(|_| Err(cut_short()));
        let status = created.as_ref().map_or_else(Problem::status, |_| StatusCode::CREATED);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend(attempt.written(status));
        let (created, job) = created?;
        Ok(ItemResult {
            index,
            status: status.as_u16(),
            job: Some(job),
            replayed: created.is_replayed(),
            problem: None,
            retry_after: None,
        })
    }
}

fn cut_short() -> Problem {
    let detail = "the request's time was up while this item was being created; it may have been: with an Idempotency-Key you can safely ask again";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, detail)
}

impl BatchResult {
    fn of(items: Vec<ItemResult>) -> Self {
        let created = items.iter().filter(|item| item.job.is_some()).count();
        Self { created, failed: items.len() - created, items }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_has_one_to_a_hundred_items_and_nothing_else() {
        assert_eq!(items(json!({"items": [1, 2]})), Ok(vec![json!(1), json!(2)]));
        assert!(items(json!({"items": vec![0; MOST]})).is_ok());
        for (body, pointer) in [
            (json!([]), ""),
            (json!({}), "/items"),
            (json!({"items": null}), "/items"),
            (json!({"items": {}}), "/items"),
            (json!({"items": []}), "/items"),
            (json!({"items": vec![0; MOST + 1]}), "/items"),
            (json!({"items": [1], "a/b": 1}), "/a~1b"),
        ] {
            assert_eq!(items(body.clone()).map_err(|error| error.pointer), Err(pointer.to_owned()), "{body}");
        }
    }
}
