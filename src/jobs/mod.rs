//! Long work, handed to Kubernetes as Jobs.
//!
//! It is the workload that is bound by another system's capacity: this service only checks, passes on and explains.
//!
//! The pure part knows neither HTTP nor Kubernetes' client:
//!
//! - [`names`]: which namespaces, Jobs and images may be named.
//! - [`manifest`]: a request's body to the Job that is sent, defaults included.
//! - [`templates`]: Jobs that wait for parameters (but for its routes).
//! - [`policy`]: what a Job may ask for.
//! - [`idempotency`]: a create that is asked for twice.
//! - [`status`]: a Job and its pods, explained; [`history`]: what became of a Job.
//! - [`mod@pointer`]: where in a document something stands.
//!
//! Around it:
//!
//! - [`namespaces`], [`job`], [`batch`]: the routes; [`alias`]: the same under the original's names; `create`: creating once.
//! - [`clusters`]: which clusters there are, and the same routes below each.
//! - [`logs`], [`events`]: what a Job's pods write, and how it changes.
//! - `request`: what a request says, read; `api`: calls to Kubernetes; `error`: its answers as problems.
//! - [`cluster`]: the way to the EKS cluster, by IAM alone.
//! - [`watch`]: writes down what becomes of Jobs, in one replica at a time ([`lease`]); [`figures`]: its metrics; [`past`]:
//!   the route that tells it.
//! - [`webhook`]: tells who asked for it that a Job has ended.
//! - [`docs`]: all of it for `/openapi.json`.

pub mod alias;
mod api;
pub mod batch;
pub mod cluster;
pub mod clusters;
mod create;
pub mod docs;
mod error;
pub mod events;
pub mod figures;
pub mod history;
pub mod idempotency;
pub mod job;
pub mod lease;
pub mod logs;
pub mod manifest;
pub mod names;
pub mod namespaces;
pub mod past;
pub mod pointer;
pub mod policy;
mod request;
pub mod status;
pub mod templates;
pub mod watch;
pub mod webhook;

use std::{sync::Arc, time::Duration};

use axum::{
    http::{Method, StatusCode},
    routing::{MethodRouter, delete, get, post},
};
use kube::Client;
use serde_json::Value;

pub use self::events::Followed;
use self::{
    api::Call,
    cluster::Cluster,
    clusters::Everywhere,
    error::Failure,
    events::Delivery,
    names::{Images, Namespaces},
    templates::Templates,
    webhook::Webhooks,
};
use crate::{
    auth::{
        access::{Access, Guarded},
        scope::Scope,
    },
    lifecycle::Lifecycle,
    problem::{FieldError, Problem},
    store::ledger::Ledger,
};

/// What names the cluster in a path.
const CLUSTER: &str = "cluster";

/// Paths, each as it is, for the default cluster, and below one of the clusters.
macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = concat!("/api/v1", $path);)*

        /// The same path below one of the clusters, where it has one.
        #[must_use]
        pub fn in_cluster(path: &str) -> Option<&'static str> {
            match path {
                $($name => Some(concat!("/api/v1/clusters/{cluster}", $path)),)*
                _ => None,
            }
        }
    };
}

paths! {
    /// All namespaces.
    NAMESPACES = "/namespaces";
    /// One of them.
    NAMESPACE = "/namespaces/{namespace}";
    /// The Jobs in it.
    JOBS = "/namespaces/{namespace}/jobs";
    /// Many of them at once.
    BATCH = "/namespaces/{namespace}/jobs:batch";
    /// One of those.
    JOB = "/namespaces/{namespace}/jobs/{name}";
    /// What its pods write.
    LOGS = "/namespaces/{namespace}/jobs/{name}/logs";
    /// How it changes.
    EVENTS = "/namespaces/{namespace}/jobs/{name}/events";
    /// What became of it.
    JOB_HISTORY = "/namespaces/{namespace}/jobs/{name}/history";
    /// Who could not be told.
    DEAD_LETTERS = "/webhooks/dead-letters";
}

/// All clusters.
pub const CLUSTERS: &str = "/api/v1/clusters";
/// All templates.
pub const TEMPLATES: &str = "/api/v1/templates";
/// One of them.
pub const TEMPLATE: &str = "/api/v1/templates/{name}";

/// The original's names.
pub const CREATE_JOB: &str = "/api/eks-create-job";
/// See above.
pub const DELETE_JOB: &str = "/api/eks-delete-job";
/// See above.
pub const JOB_STATUS: &str = "/api/eks-job-status";
/// See above.
pub const CREATE_NAMESPACE: &str = "/api/eks-create-namespace";
/// See above.
pub const DELETE_NAMESPACE: &str = "/api/eks-delete-namespace";

/// Longest time for one call to Kubernetes, its repetition included.
const LONGEST_CALL: Duration = Duration::from_secs(10);

/// What the routes share.
#[derive(Debug, Clone)]
pub struct Jobs {
    /// Where Jobs run, unless a path names another; without one, every route says that there are none.
    pub cluster: Option<Cluster>,
    /// Those that paths may name, the one above among them.
    pub clusters: Vec<Cluster>,
    /// Which namespaces may be touched.
    pub namespaces: Namespaces,
    /// Which images may run.
    pub images: Images,
    /// What creates may name in place of a Job.
    pub templates: Templates,
    /// Who may be told when a Job has ended.
    pub webhooks: Webhooks,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Longest time for one request.
    pub request_timeout: Duration,
    /// Longest time for one call to Kubernetes.
    pub call_deadline: Duration,
    /// What became of Jobs.
    pub ledger: Ledger,
    /// How events are delivered.
    pub delivery: Delivery,
    /// Whether the process is to stop: events then end.
    pub lifecycle: Lifecycle,
    /// The Jobs that somebody follows.
    pub followed: Followed,
}

/// What one call may take of a request's time: half, so that a second one still has some, and at most ten seconds.
#[must_use]
pub fn call_deadline(request_timeout: Duration) -> Duration {
    (request_timeout / 2).min(LONGEST_CALL)
}

/// A route, with what it takes to be let in.
#[derive(Debug)]
pub struct Operation {
    /// The method.
    pub method: Method,
    /// The path, in axum's syntax.
    pub path: &'static str,
    /// What the caller must have been given.
    pub scope: Scope,
    answer: MethodRouter<Arc<Jobs>>,
    /// Whether the path names the cluster.
    is_in_cluster: bool,
}

/// Every route there is: the router is made from it, and so are the tests of who may call what.
#[must_use]
pub fn operations() -> Vec<Operation> {
    let mut operations = table();
    operations.extend(table().into_iter().filter_map(|operation| {
        Some(Operation { path: in_cluster(operation.path)?, is_in_cluster: true, ..operation })
    }));
    operations
}

/// The routes of the default cluster, and those of none.
fn table() -> Vec<Operation> {
    use Scope::{JobsRead, JobsWrite, NamespacesWrite};
    let operation =
        |method, path, scope, answer| Operation { method, path, scope, answer, is_in_cluster: false };
    vec![
        operation(Method::GET, CLUSTERS, JobsRead, get(clusters::list)),
        operation(Method::GET, TEMPLATES, JobsRead, get(templates::routes::list)),
        operation(Method::GET, TEMPLATE, JobsRead, get(templates::routes::show)),
        operation(Method::POST, NAMESPACES, NamespacesWrite, post(namespaces::create)),
        operation(Method::GET, NAMESPACES, JobsRead, get(namespaces::list)),
        operation(Method::GET, NAMESPACE, JobsRead, get(namespaces::show)),
        operation(Method::DELETE, NAMESPACE, NamespacesWrite, delete(namespaces::remove)),
        operation(Method::POST, JOBS, JobsWrite, post(job::create)),
        operation(Method::GET, JOBS, JobsRead, get(job::list)),
        operation(Method::POST, BATCH, JobsWrite, post(batch::create)),
        operation(Method::GET, JOB, JobsRead, get(job::show)),
        operation(Method::DELETE, JOB, JobsWrite, delete(job::remove)),
        operation(Method::GET, JOB_HISTORY, JobsRead, get(past::show)),
        operation(Method::GET, LOGS, JobsRead, get(logs::show)),
        operation(Method::GET, EVENTS, JobsRead, get(events::follow)),
        operation(Method::GET, DEAD_LETTERS, JobsRead, get(webhook::routes::list)),
        operation(Method::POST, CREATE_JOB, JobsWrite, post(alias::create_job)),
        operation(Method::DELETE, DELETE_JOB, JobsWrite, delete(alias::delete_job)),
        operation(Method::GET, JOB_STATUS, JobsRead, get(alias::job_status)),
        operation(Method::POST, CREATE_NAMESPACE, NamespacesWrite, post(alias::create_namespace)),
        operation(Method::DELETE, DELETE_NAMESPACE, NamespacesWrite, delete(alias::delete_namespace)),
    ]
}

/// The routes, behind their guard.
#[must_use]
pub fn routes(jobs: Jobs, access: &Access) -> Guarded {
    let everywhere = Everywhere::new(jobs);
    let answered = |operation: Operation| {
        let answer = match operation.is_in_cluster {
            true => everywhere.by_path(operation.answer, &operation.method),
            false => operation.answer.with_state(everywhere.default.clone()),
        };
        (operation.path, operation.scope, answer)
    };
    access.guard(operations().into_iter().map(answered))
}

impl Jobs {
    /// The cluster.
    ///
    /// # Errors
    /// 403 where there is none.
    fn cluster(&self) -> Result<&Cluster, Problem> {
        self.cluster.as_ref().ok_or_else(|| {
            let detail = "Jobs are not enabled here: neither EKS_CLUSTER_NAME nor EKS_CLUSTERS is set";
            Problem::new(StatusCode::FORBIDDEN, detail)
        })
    }

    async fn send(&self, call: &Call<'_>) -> Result<Value, Failure> {
        let answer = api::send(self.client()?, call, self.call_deadline).await;
        self.noted(answer)
    }

    fn client(&self) -> Result<&Client, Failure> {
        let cluster = self.cluster.as_ref().map(Cluster::client);
        cluster.ok_or_else(|| Failure::Garbled("there is no cluster".to_owned()))
    }

    /// Remembers whether the cluster answered.
    fn noted<T>(&self, answer: Result<T, Failure>) -> Result<T, Failure> {
        if let Some(cluster) = &self.cluster {
            cluster.saw(answer.as_ref().map_or_else(Failure::is_an_answer, |_| true));
        }
        answer
    }

    /// The answer to a call whose failure needs no further thought.
    async fn ask(&self, call: &Call<'_>) -> Result<Value, Problem> {
        self.cluster()?;
        self.send(call).await.map_err(|failure| failure.problem(call, None))
    }

    /// Whether a namespace may be touched.
    ///
    /// # Errors
    /// 403 where there is no cluster or the namespace is not listed, 422 where it can be none.
    fn check_namespace(&self, name: &str) -> Result<(), Problem> {
        self.cluster()?;
        if !names::is_label(name) {
            return Err(Problem::invalid(vec![FieldError::field("namespace", names::LABEL_RULE)]));
        }
        if self.namespaces.is_empty() {
            let detail = "no namespace is open to this service: JOBS_NAMESPACES is not set";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        if !self.namespaces.permit(name) {
            let detail = format!("JOBS_NAMESPACES does not open the namespace {name} to this service");
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        Ok(())
    }

    /// The same for a Job in it.
    ///
    /// # Errors
    /// As above.
    fn check_job(&self, namespace: &str, name: &str) -> Result<(), Problem> {
        self.check_namespace(namespace)?;
        if names::is_job_name(name) {
            return Ok(());
        }
        Err(Problem::invalid(vec![FieldError::field("name", names::JOB_NAME_RULE)]))
    }
}
