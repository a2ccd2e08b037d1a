//! The original's names for the same things.
//!
//! Where it named things in the query or the body, both do: `?namespace=…&job_name=…`, or a JSON object with these members.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, Uri},
    response::Response,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    CREATE_JOB, CREATE_NAMESPACE, DELETE_JOB, DELETE_NAMESPACE, JOB_STATUS, Jobs,
    docs::{Deletes, DeletesInBody, Reads, Writes},
    job::Order,
    manifest::Manifest,
    namespaces::{Deleted, Namespace, uncached},
    request::Query,
    status::{JobStatus, Phase},
};
use crate::{
    auth::{access::Principal, audit::Audit},
    http::json,
    problem::{FieldError, Problem},
};

/// What creates a Job here.
#[derive(Debug, Deserialize, ToSchema)]
pub struct CreateJob {
    /// The namespace, one that `JOBS_NAMESPACES` opens.
    #[schema(example = "jobs-team", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    pub namespace: String,
    /// The Job.
    #[serde(flatten)]
    pub manifest: Manifest,
    /// Who is told when it has ended, as there.
    #[serde(default)]
    #[schema(example = "https://hooks.example.com/jobs", max_length = 2048, pattern = "^https://")]
    pub webhook: Option<String>,
}

/// A Job that was created.
#[derive(Debug, Serialize, ToSchema)]
pub struct CreatedJob {
    /// Its name.
    #[schema(example = "hello")]
    pub job_name: String,
    /// Its namespace.
    #[schema(example = "jobs-team")]
    pub namespace: String,
    /// When it was created.
    #[schema(example = "2026-01-31T12:00:00Z")]
    pub creation_timestamp: Option<String>,
    /// How it is, in one word.
    pub status: Phase,
}

/// How a Job is.
#[derive(Debug, Serialize, ToSchema)]
pub struct NamedJob {
    /// Its name.
    #[schema(example = "hello")]
    pub job_name: String,
    /// All the rest.
    #[serde(flatten)]
    pub job: JobStatus,
}

/// What names a namespace here.
#[derive(Debug, Deserialize, ToSchema)]
pub struct InNamespace {
    /// The namespace.
    #[schema(example = "jobs-team", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    pub namespace: String,
}

/// As `POST /api/v1/namespaces/{namespace}/jobs`, under the original's name and with its answer.
#[utoipa::path(post, path = CREATE_JOB, operation_id = "eks_create_job", tag = "jobs", request_body = CreateJob,
    params(("Idempotency-Key" = Option<String>, Header, description = "As there")),
    responses((status = 200, description = "Created", body = CreatedJob), Writes),
    security(("token" = ["jobs:write"])))]
pub(super) async fn create_job(
    State(jobs): State<Arc<Jobs>>,
    who: Principal,
    audit: Audit,
    request: Request,
) -> Result<Response, Problem> {
    let (head, body) = jobs.read(request).await?;
    let mut members = object(body)?;
    let namespace = taken(&mut members, "namespace")?;
    let body = Value::Object(members);
    let order = Order { headers: &head.headers, who: &who, audit: &audit, namespace: &namespace, item: None };
    let (created, job) = jobs.create_job(&order, &body).await?;
    let JobStatus { name, namespace, creation_timestamp, status, uid, .. } = job;
    let answer = CreatedJob { job_name: name, namespace, creation_timestamp, status };
    Ok(created.answer(StatusCode::OK, &uid, answer))
}

/// As `DELETE /api/v1/namespaces/{namespace}/jobs/{name}`, under the original's name.
#[utoipa::path(delete, path = DELETE_JOB, operation_id = "eks_delete_job", tag = "jobs",
    params(
        ("namespace" = Option<String>, Query, description = "The namespace, here or in the body", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("job_name" = Option<String>, Query, description = "The Job, here or in the body", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        ("propagation" = Option<String>, Query, description = "As there", pattern = "^(background|foreground)$"),
        ("If-Match" = Option<String>, Header, description = "As there"),
    ),
    responses((status = 200, description = "Kubernetes is deleting it", body = Deleted), Deletes, DeletesInBody),
    security(("token" = ["jobs:write"])))]
pub(super) async fn delete_job(
    State(jobs): State<Arc<Jobs>>,
    audit: Audit,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let uri = request.uri().clone();
    let query = Query::of(&uri);
    let [namespace, name] = jobs.named(&query, request, ["namespace", "job_name"]).await?;
    let deleted = jobs.delete_job(&headers, &audit, &namespace, &name, &query).await?;
    Ok(uncached(StatusCode::OK, deleted))
}

/// As `GET /api/v1/namespaces/{namespace}/jobs/{name}`, under the original's name.
#[utoipa::path(get, path = JOB_STATUS, operation_id = "eks_job_status", tag = "jobs",
    params(
        ("namespace" = String, Query, description = "The namespace", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("job_name" = String, Query, description = "The Job", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
    ),
    responses((status = 200, description = "The Job and its pods", body = NamedJob), Reads),
    security(("token" = ["jobs:read"])))]
pub(super) async fn job_status(State(jobs): State<Arc<Jobs>>, uri: Uri) -> Result<Response, Problem> {
    jobs.cluster()?;
    let query = Query::of(&uri);
    let [namespace, name] = in_query(&query, ["namespace", "job_name"], &Map::new())?;
    let job = jobs.job_status(&namespace, &name).await?;
    Ok(uncached(StatusCode::OK, NamedJob { job_name: job.name.clone(), job }))
}

/// As `POST /api/v1/namespaces`, under the original's name.
#[utoipa::path(post, path = CREATE_NAMESPACE, operation_id = "eks_create_namespace", tag = "jobs", request_body = InNamespace,
    params(("Idempotency-Key" = Option<String>, Header, description = "As there")),
    responses((status = 200, description = "Created", body = Namespace), Writes),
    security(("token" = ["namespaces:write"])))]
pub(super) async fn create_namespace(
    State(jobs): State<Arc<Jobs>>,
    who: Principal,
    audit: Audit,
    request: Request,
) -> Result<Response, Problem> {
    let renamed = |body| {
        let mut members = object(body)?;
        let name = taken(&mut members, "namespace")?;
        members.insert("name".to_owned(), name.into());
        Ok(Value::Object(members))
    };
    jobs.new_namespace(StatusCode::OK, &who, &audit, request, renamed).await
}

/// As `DELETE /api/v1/namespaces/{namespace}`, under the original's name.
#[utoipa::path(delete, path = DELETE_NAMESPACE, operation_id = "eks_delete_namespace", tag = "jobs",
    params(
        ("namespace" = Option<String>, Query, description = "The namespace, here or in the body", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("If-Match" = Option<String>, Header, description = "As there"),
    ),
    responses((status = 200, description = "Kubernetes is deleting it", body = Deleted), Deletes, DeletesInBody),
    security(("token" = ["namespaces:write"])))]
pub(super) async fn delete_namespace(
    State(jobs): State<Arc<Jobs>>,
    audit: Audit,
    request: Request,
) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let uri = request.uri().clone();
    let [namespace] = jobs.named(&Query::of(&uri), request, ["namespace"]).await?;
    let deleted = jobs.delete_namespace(&headers, &audit, &namespace).await?;
    Ok(uncached(StatusCode::OK, deleted))
}

impl Jobs {
    /// What the query names, and, where the request has a body, what that names.
    async fn named<const N: usize>(
        &self,
        query: &Query<'_>,
        request: Request,
        names: [&str; N],
    ) -> Result<[String; N], Problem> {
        self.cluster()?;
        let members = match axum_body(request, self.max_body_bytes).await? {
            Some(body) => object(body)?,
            None => Map::new(),
        };
        in_query(query, names, &members)
    }
}

/// The JSON of a request that need not have any.
async fn axum_body(request: Request, limit: usize) -> Result<Option<Value>, Problem> {
    use hyper::body::Body as _;
    if request.body().is_end_stream() {
        return Ok(None);
    }
    json::value(&json::accept(request, limit)?.read().await?).map(Some)
}

fn in_query<const N: usize>(
    query: &Query<'_>,
    names: [&str; N],
    members: &Map<String, Value>,
) -> Result<[String; N], Problem> {
    let mut errors = Vec::new();
    let mut values = [const { String::new() }; N];
    for (value, name) in values.iter_mut().zip(names) {
        match (query.one(name)?, members.get(name)) {
            (Some(given), None) => given.clone_into(value),
            (None, Some(Value::String(given))) => given.clone_into(value),
            (None, Some(_)) => errors.push(FieldError::field(name, "must be a string")),
            (Some(given), Some(other)) if other.as_str() == Some(given) => given.clone_into(value),
            (Some(_), Some(_)) => errors.push(FieldError::field(name, "differs between query and body")),
            (None, None) => errors.push(FieldError::field(name, "is missing")),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(Problem::invalid(errors)) }
}

fn object(body: Value) -> Result<Map<String, Value>, Problem> {
    match body {
        Value::Object(members) => Ok(members),
        _ => Err(Problem::invalid(vec![FieldError::body("must be a JSON object")])),
    }
}

fn taken(members: &mut Map<String, Value>, name: &str) -> Result<String, Problem> {
    match members.remove(name) {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(Problem::invalid(vec![FieldError::field(name, "is missing")])),
        Some(_) => Err(Problem::invalid(vec![FieldError::field(name, "must be a string")])),
    }
}
