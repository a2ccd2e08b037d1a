//! Calls to the Kubernetes API: each with a deadline, and sent again only where that cannot do a thing twice. And watches,
//! whose answers go on.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, Response, body::Bytes, header};
use kube::{Client, client::Body, core::Status};
use serde_json::Value;

use super::{
    cluster::ClusterError,
    error::{Failure, Refusal},
};

/// Largest answer that is read, in bytes: some 500 large Jobs.
const LARGEST_ANSWER: usize = 32 * 1024 * 1024;

/// How long to wait before a call is sent again: a connection that broke says that the API server restarts.
const PAUSE: Duration = Duration::from_millis(200);

/// What is to be done, in RBAC's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Delete,
}

/// To what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Namespaces,
    Jobs,
    Pods,
    Leases,
    /// Of one pod.
    Logs,
}

/// One call. Names were checked before: they are put into the path as they are.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) verb: Verb,
    pub(super) resource: Resource,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: Option<&'a str>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<&'a Value>,
}

impl<'a> Call<'a> {
    pub(super) fn new(verb: Verb, resource: Resource) -> Self {
        Self { verb, resource, namespace: None, name: None, query: Vec::new(), body: None }
    }

    pub(super) fn within(self, namespace: &'a str) -> Self {
        Self { namespace: Some(namespace), ..self }
    }

    pub(super) fn named(self, name: &'a str) -> Self {
        Self { name: Some(name), ..self }
    }

    pub(super) fn with(mut self, parameter: &'static str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (parameter, value.to_string())));
        self
    }

    pub(super) fn sending(self, body: &'a Value) -> Self {
        Self { body: Some(body), ..self }
    }

    fn path(&self) -> String {
        let group = match self.resource {
            Resource::Jobs => "/apis/batch/v1",
            Resource::Leases => "/apis/coordination.k8s.io/v1",
            Resource::Namespaces | Resource::Pods | Resource::Logs => "/api/v1",
        };
        let namespace = self.namespace.map_or(String::new(), |namespace| format!("/namespaces/{namespace}"));
        let name = self.name.map_or(String::new(), |name| format!("/{name}"));
        // Kubernetes names a part as RBAC does, but for the object in the middle: pods/a/log.
        let (resource, part) = self.resource.name().split_once('/').unwrap_or((self.resource.name(), ""));
        let part = if part.is_empty() { String::new() } else { format!("/{part}") };
        let path = format!("{group}{namespace}/{resource}{name}{part}");
        if self.query.is_empty() {
            return path;
        }
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.query).finish();
        format!("{path}?{query}")
    }

    fn request(&self) -> Result<Request<Body>, hyper::http::Error> {
        let request = Request::builder().method(self.verb.method()).uri(self.path());
        match self.body {
            Some(body) => {
                let request = request.header(header::CONTENT_TYPE, "application/json");
                request.body(Body::from(body.to_string().into_bytes()))
            }
            None => request.body(Body::empty()),
        }
    }

    /// Whether to send it again after `failure`. A delete whose answer was lost would find nothing and seem to have failed, an
    /// update would meet its own; a create finds what it made, by its name and its marks. Watches are begun again by whoever
    /// watches.
    fn may_repeat(&self, failure: &Failure) -> bool {
        match failure {
            Failure::Cluster(ClusterError::Broken(_)) | Failure::Transport(_) => {
                matches!(self.verb, Verb::Get | Verb::List | Verb::Create)
            }
            Failure::Cluster(ClusterError::Unreachable(_)) => matches!(self.verb, Verb::Get | Verb::List),
            _ => false,
        }
    }
}

impl Verb {
    /// RBAC's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Update => "update",
            Self::Create => "create",
            Self::Delete => "delete",
        }
    }

    fn method(self) -> Method {
        match self {
            Self::Get | Self::List | Self::Watch => Method::GET,
            Self::Update => Method::PUT,
            Self::Create => Method::POST,
            Self::Delete => Method::DELETE,
        }
    }
}

impl Resource {
    /// RBAC's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Jobs => "jobs",
            Self::Pods => "pods",
            Self::Leases => "leases",
            Self::Logs => "pods/log",
        }
    }
}

/// The answer to `call`, within `deadline` altogether.
pub(super) async fn send(client: &Client, call: &Call<'_>, deadline: Duration) -> Result<Value, Failure> {
    let answer = bytes(client, call, deadline).await?;
    serde_json::from_slice(&answer).map_err(|error| Failure::Garbled(error.to_string()))
}

/// The same as it came: logs are no JSON.
pub(super) async fn bytes(client: &Client, call: &Call<'_>, deadline: Duration) -> Result<Bytes, Failure> {
    let repeatedly = async {
        match attempt(client, call).await {
            Err(failure) if call.may_repeat(&failure) => {
                tracing::info!(
                    verb = call.verb.name(),
                    resource = call.resource.name(),
                    "Sent a call to the cluster again"
                );
                tokio::time::sleep(PAUSE).await;
                // That nothing was sent this time says nothing of the first.
                let tell = |again: Failure| if again.is_before_sending() { failure } else { again };
                attempt(client, call).await.map_err(tell)
            }
            outcome => outcome,
        }
    };
    tokio::time::timeout(deadline, repeatedly).await.unwrap_or(Err(Failure::TimedOut))
}

/// What a watch goes on to say; `deadline` is for its beginning.
pub(super) async fn open(client: &Client, call: &Call<'_>, deadline: Duration) -> Result<Body, Failure> {
    tokio::time::timeout(deadline, begin(client, call)).await.unwrap_or(Err(Failure::TimedOut))
}

async fn attempt(client: &Client, call: &Call<'_>) -> Result<Bytes, Failure> {
    whole(begin(client, call).await?).await
}

/// The body of an answer that is no refusal.
async fn begin(client: &Client, call: &Call<'_>) -> Result<Body, Failure> {
    let request = call.request().map_err(|error| Failure::Garbled(error.to_string()))?;
    let (head, body) = client.send(request).await.map_err(Failure::of)?.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    let body = whole(body).await?;
    Err(Failure::Refused(Box::new(refusal(&Response::from_parts(head, ()), &body))))
}

async fn whole(body: Body) -> Result<Bytes, Failure> {
    let body = Limited::new(body, LARGEST_ANSWER).collect().await;
    Ok(body.map_err(|error| Failure::Transport(error.to_string()))?.to_bytes())
}

/// Kubernetes says what is wrong in a Status; what stands before it (a balancer, a proxy) may not.
fn refusal(head: &Response<()>, body: &[u8]) -> Refusal {
    let status = serde_json::from_slice::<Status>(body).unwrap_or_default();
    let seconds = head.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let in_status = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds));
    let retry_after = seconds.or(in_status.filter(|seconds| *seconds > 0)).map(Duration::from_secs);
    Refusal { code: head.status(), status, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_kubernetes_paths() {
        for (call, path) in [
            (
                Call::new(Verb::List, Resource::Namespaces).with("limit", Some(5)),
                "/api/v1/namespaces?limit=5",
            ),
            (Call::new(Verb::Get, Resource::Namespaces).named("n"), "/api/v1/namespaces/n"),
            (Call::new(Verb::Create, Resource::Jobs).within("n"), "/apis/batch/v1/namespaces/n/jobs"),
            (
                Call::new(Verb::Delete, Resource::Jobs).within("n").named("j"),
                "/apis/batch/v1/namespaces/n/jobs/j",
            ),
            (
                Call::new(Verb::Get, Resource::Logs).within("n").named("p").with("previous", Some(true)),
                "/api/v1/namespaces/n/pods/p/log?previous=true",
            ),
            (
                Call::new(Verb::List, Resource::Pods)
                    .within("n")
                    .with("labelSelector", Some("a in (b, c)"))
                    .with("limit", None::<u8>),
                "/api/v1/namespaces/n/pods?labelSelector=a+in+%28b%2C+c%29",
            ),
            (
                Call::new(Verb::Watch, Resource::Jobs).with("watch", Some(true)),
                "/apis/batch/v1/jobs?watch=true",
            ),
            (
                Call::new(Verb::Update, Resource::Leases).within("n").named("l"),
                "/apis/coordination.k8s.io/v1/namespaces/n/leases/l",
            ),
        ] {
            assert_eq!(call.path(), path);
        }
    }
}
