//! Jobs in a namespace: created under the policy, explained, deleted when they are this service's.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri},
    response::Response,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    JOB, JOBS, Jobs,
    api::{Call, Resource, Verb},
    create::{Created, Wanted, marks},
    docs::{Deletes, Reads, Writes},
    idempotency,
    manifest::{Draft, JobRequest, Name},
    namespaces::{Deleted, next, uncached},
    pointer::Pointer,
    request::{InPath, Query, etag},
    status::{self, JobStatus},
    webhook,
};
use crate::{
    auth::{access::Principal, audit::Audit},
    problem::Problem,
};

/// Pods of one Job that are looked at.
pub(super) const MOST_PODS: u32 = 100;

/// Some Jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobList {
    /// The Jobs, without their pods: what only a pod tells (`ImagePullBackOff`) is in the answer about one Job.
    pub items: Vec<JobStatus>,
    /// What to ask for the next ones with; absent at the end.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Creates a Job, from a short form or a whole manifest.
///
/// What is left out is filled in as the Pod Security Standard "restricted" asks, with a deadline and a TTL. What the policy
/// refuses is named, field by field.
#[utoipa::path(post, path = JOBS, operation_id = "create_job", tag = "jobs", request_body = JobRequest,
    params(
        ("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters but commas: as long as the Job exists, the same key and body get the same answer, and make no other"),
    ),
    responses((status = 201, description = "Created, or created before with this Idempotency-Key (`Idempotency-Replayed: true`)", body = JobStatus), Writes),
    security(("token" = ["jobs:write"])))]
pub(super) async fn create(
    State(jobs): State<Arc<Jobs>>,
    who: Principal,
    audit: Audit,
    InPath([namespace]): InPath<1>,
    request: Request,
) -> Result<Response, Problem> {
    audit.namespace(&namespace);
    let (head, body) = jobs.read(request).await?;
    let order = Order { headers: &head.headers, who: &who, audit: &audit, namespace: &namespace, item: None };
    let (created, job) = jobs.create_job(&order, &body).await?;
    Ok(created.answer(StatusCode::CREATED, &job.uid, &job))
}

/// The Jobs of a namespace, this service's and others.
#[utoipa::path(get, path = JOBS, operation_id = "list_jobs", tag = "jobs",
    params(
        ("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("label_selector" = Option<String>, Query, description = "As in `kubectl get jobs -l`"),
        ("limit" = Option<u32>, Query, description = "How many, 1 to 500; 100 when not given", minimum = 1, maximum = 500),
        ("continue" = Option<String>, Query, description = "What the answer before said"),
    ),
    responses((status = 200, description = "Some of them", body = JobList), Reads),
    security(("token" = ["jobs:read"])))]
pub(super) async fn list(
    State(jobs): State<Arc<Jobs>>,
    InPath([namespace]): InPath<1>,
    uri: Uri,
) -> Result<Response, Problem> {
    jobs.check_namespace(&namespace)?;
    let query = Query::of(&uri);
    let call = Call::new(Verb::List, Resource::Jobs)
        .within(&namespace)
        .with("limit", Some(query.limit()?))
        .with("labelSelector", query.passed_on("label_selector")?)
        .with("continue", query.passed_on("continue")?);
    let list = jobs.ask(&call).await?;
    let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
    let items = items.map(|job| status::of(job, None)).collect();
    Ok(uncached(StatusCode::OK, JobList { items, next: next(&list) }))
}

/// How a Job is, and why.
#[utoipa::path(get, path = JOB, operation_id = "get_job", tag = "jobs",
    params(
        ("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("name" = String, Path, description = "The Job", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ),
    responses((status = 200, description = "The Job and its pods", body = JobStatus, headers(("ETag" = String, description = "Its UID"))), Reads),
    security(("token" = ["jobs:read"])))]
pub(super) async fn show(
    State(jobs): State<Arc<Jobs>>,
    InPath([namespace, name]): InPath<2>,
) -> Result<Response, Problem> {
    let job = jobs.job_status(&namespace, &name).await?;
    let etag = etag(&job.uid);
    let mut response = uncached(StatusCode::OK, job);
    response.headers_mut().extend(etag);
    Ok(response)
}

/// Deletes a Job that this service created, and its pods.
#[utoipa::path(delete, path = JOB, operation_id = "delete_job", tag = "jobs",
    params(
        ("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("name" = String, Path, description = "A Job that this service created", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        ("propagation" = Option<String>, Query, description = "`background` (when not given): its pods go after it; `foreground`: before it", pattern = "^(background|foreground)$"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the one that is meant"),
    ),
    responses((status = 202, description = "Kubernetes is deleting it", body = Deleted), Deletes),
    security(("token" = ["jobs:write"])))]
pub(super) async fn remove(
    State(jobs): State<Arc<Jobs>>,
    audit: Audit,
    InPath([namespace, name]): InPath<2>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let deleted = jobs.delete_job(&headers, &audit, &namespace, &name, &Query::of(&uri)).await?;
    Ok(uncached(StatusCode::ACCEPTED, deleted))
}

/// Who wants a Job, and where.
pub(super) struct Order<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) who: &'a Principal,
    pub(super) audit: &'a Audit,
    pub(super) namespace: &'a str,
    /// Its place, where the request wants several.
    pub(super) item: Option<usize>,
}

impl Order<'_> {
    /// What an `Idempotency-Key` is about: another item under the same key is another Job.
    fn place(&self) -> String {
        match self.item {
            None => format!("jobs/{}", self.namespace),
            Some(item) => format!("jobs/{}/{item}", self.namespace),
        }
    }
}

impl Jobs {
    pub(super) async fn create_job(
        &self,
        order: &Order<'_>,
        body: &Value,
    ) -> Result<(Created, JobStatus), Problem> {
        let Order { audit, namespace, .. } = *order;
        audit.cluster(self.cluster()?.name());
        audit.namespace(namespace);
        self.check_namespace(namespace)?;
        let (job, webhook) = self.webhooks.taken(body).map_err(|error| Problem::invalid(vec![error]))?;
        let written = self.templates.written(&job).map_err(Problem::invalid)?;
        let draft = Draft::of(&written, namespace).map_err(Problem::invalid)?;
        draft.check(&self.images).map_err(Problem::invalid)?;
        let marks = marks(order.headers, order.who, &order.place(), body)?;
        let name = match draft.name() {
            Name::Given(name) => name,
            Name::Prefix(prefix) => format!("{prefix}{}", marks.suffix()),
        };
        audit.name(&name);
        let mut object = draft.clone().named(&name, &marks);
        if let Some(target) = webhook {
            idempotency::mark(&mut object, "annotations", webhook::ANNOTATION, &target.uri().to_string());
        }
        let wanted = Wanted {
            resource: Resource::Jobs,
            namespace: Some(namespace),
            name: &name,
            object: &object,
            marks: &marks,
            draft: Some(&draft),
        };
        let created = self.create(&wanted).await?;
        let job = status::of(&created.as_created(), None);
        audit.uid(&job.uid);
        Ok((created, job))
    }

    pub(super) async fn job_status(&self, namespace: &str, name: &str) -> Result<JobStatus, Problem> {
        self.check_job(namespace, name)?;
        let (job, pods) = self.job_and_pods(namespace, name).await?;
        Ok(status::of(&job, Some(&pods)))
    }

    /// A Job and its pods, [`MOST_PODS`] at most.
    pub(super) async fn job_and_pods(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<(Value, Vec<Value>), Problem> {
        let job = self.ask(&Call::new(Verb::Get, Resource::Jobs).within(namespace).named(name)).await?;
        let Some(selector) = pods_of(&job) else { return Ok((job, Vec::new())) };
        let call = Call::new(Verb::List, Resource::Pods)
            .within(namespace)
            .with("labelSelector", Some(selector))
            .with("limit", Some(MOST_PODS));
        let mut list = self.ask(&call).await?;
        match list.get_mut("items").map(Value::take) {
            Some(Value::Array(pods)) => Ok((job, pods)),
            _ => Ok((job, Vec::new())),
        }
    }

    pub(super) async fn delete_job(
        &self,
        headers: &HeaderMap,
        audit: &Audit,
        namespace: &str,
        name: &str,
        query: &Query<'_>,
    ) -> Result<Deleted, Problem> {
        audit.cluster(self.cluster()?.name());
        audit.namespace(namespace);
        audit.name(name);
        self.check_job(namespace, name)?;
        let propagation = query.propagation()?;
        let call = Call::new(Verb::Get, Resource::Jobs).within(namespace).named(name);
        self.delete(headers, audit, call, propagation).await
    }
}

/// The selector of a Job's own pods, as Kubernetes made it: others may carry its name.
pub(super) fn pods_of(job: &Value) -> Option<String> {
    let labels = Pointer::root(job).at("spec").at("selector").at("matchLabels");
    let terms: Vec<_> = labels
        .members()
        .filter_map(|(label, value)| Some(format!("{label}={}", value.value()?.as_str()?)))
        .collect();
    (!terms.is_empty()).then(|| terms.join(","))
}
