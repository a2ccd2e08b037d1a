//! Why a call to the cluster came to nothing, and what the caller is told of it.
//!
//! What Kubernetes says of the caller's own object is passed on. What it says of itself, and what stands between it and
//! this service, is for the log.

use std::{borrow::Cow, fmt, time::Duration};

use axum::http::StatusCode;
use kube::core::Status;

use super::{
    api::{Call, Resource, Verb},
    cluster::ClusterError,
    manifest::Draft,
    pointer,
};
use crate::{
    problem::{FieldError, Problem},
    telemetry::log,
};

/// How soon to come back when Kubernetes is too busy and does not say how soon.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Longest text of Kubernetes' that is passed on, in bytes.
const LONGEST_TEXT: usize = 1024;

/// A call that came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Kubernetes refused it.
    Refused(Box<Refusal>),
    /// There was no way to Kubernetes.
    Cluster(ClusterError),
    /// The connection broke.
    Transport(String),
    /// What came back is no answer of Kubernetes'.
    Garbled(String),
    /// There was no answer in time.
    TimedOut,
}

/// What Kubernetes answered.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) status: Status,
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn of(error: kube::Error) -> Self {
        match ClusterError::of(&error) {
            Some(error) => Self::Cluster(error.clone()),
            None => Self::Transport(log::chain(&error)),
        }
    }

    /// Whether Kubernetes refused it with this code.
    pub(super) fn is(&self, code: StatusCode) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == code)
    }

    /// Whether there is such an object already.
    pub(super) fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.status.is_already_exists())
    }

    /// Whether an answer began and did not end well.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self, Self::Transport(_) | Self::Garbled(_) | Self::Cluster(ClusterError::Broken(_)))
    }

    /// Whether nothing was sent.
    pub(super) fn is_before_sending(&self) -> bool {
        matches!(self, Self::Cluster(error) if error.is_before_sending())
    }

    /// For the log.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Refused(refusal) => {
                format!("Kubernetes refused with {}: {}", refusal.code, refusal.status.message)
            }
            Self::Cluster(error) => log::chain(error),
            Self::Transport(error) | Self::Garbled(error) => error.clone(),
            Self::TimedOut => "the cluster did not answer in time".to_owned(),
        }
    }

    /// Why one object has nothing to say, if that is all there is to it.
    pub(super) fn of_the_object(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => refusal.of_the_object(),
            _ => None,
        }
    }

    /// Whether Kubernetes said so itself.
    pub(super) fn is_an_answer(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code != StatusCode::UNAUTHORIZED)
    }

    /// What the caller of this service is told. `draft` is what the caller wanted to create.
    pub(super) fn problem(self, call: &Call<'_>, draft: Option<&Draft>) -> Problem {
        match self {
            Self::Refused(refusal) => refusal.problem(call, draft),
            Self::Cluster(error) => unanswered(call, &error),
            Self::TimedOut => {
                tracing::warn!(
                    verb = call.verb.name(),
                    resource = call.resource.name(),
                    "The cluster did not answer in time"
                );
                timed_out(call)
            }
            Self::Transport(error) => {
                tracing::warn!(error, "The connection to the cluster broke");
                bad_gateway("the connection to the cluster broke", call)
            }
            Self::Garbled(error) => {
                tracing::warn!(error, "The cluster's answer makes no sense");
                bad_gateway("the cluster's answer makes no sense", call)
            }
        }
    }
}

/// There was no answer, and why.
fn unanswered(call: &Call<'_>, error: &ClusterError) -> Problem {
    let reason = log::chain(error);
    tracing::warn!(
        error = reason,
        verb = call.verb.name(),
        resource = call.resource.name(),
        "The cluster gave no answer"
    );
    let detail: Cow<'static, str> = match error {
        ClusterError::TimedOut { .. } => return timed_out(call),
        ClusterError::Broken(_) => return bad_gateway("the connection to the cluster broke", call),
        ClusterError::Credentials(_) => "this service has no AWS credentials to ask the cluster with".into(),
        ClusterError::Forbidden { permission, .. } => {
            format!("this service lacks the AWS permission {permission}").into()
        }
        ClusterError::NoCluster { name, region } => format!("AWS knows no cluster {name} in {region}").into(),
        ClusterError::Eks(_) => "AWS did not say where the cluster is".into(),
        ClusterError::Unreachable(_) => "the cluster cannot be reached".into(),
        ClusterError::Tls(_) => "the cluster could not prove who it is".into(),
    };
    // Nothing was sent, so nothing can have been made.
    Problem::new(StatusCode::BAD_GATEWAY, detail)
}

fn timed_out(call: &Call<'_>) -> Problem {
    Problem::new(StatusCode::GATEWAY_TIMEOUT, format!("the cluster did not answer in time{}", unknown(call)))
}

fn bad_gateway(detail: impl fmt::Display, call: &Call<'_>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, format!("{detail}{}", unknown(call)))
}

/// A change that was not answered may have been made.
fn unknown(call: &Call<'_>) -> &'static str {
    match call.verb {
        Verb::Get | Verb::List | Verb::Watch => "",
        Verb::Create => "; it may have been created: with an Idempotency-Key you can safely ask again",
        Verb::Update => "; it may have been changed",
        Verb::Delete => "; it may have been deleted: look before you ask again",
    }
}

impl Refusal {
    /// Why one object has nothing to say, in Kubernetes' words; `None` when the reason is who asks, or the whole cluster.
    pub(super) fn of_the_object(&self) -> Option<String> {
        match self.code {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Some(clipped(&self.status.message)),
            // Those words name the node's address.
            code if code.is_server_error() => {
                self.log();
                Some("its node does not answer".to_owned())
            }
            _ => None,
        }
    }

    fn problem(self, call: &Call<'_>, draft: Option<&Draft>) -> Problem {
        match self.code {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => self.invalid(call, draft),
            StatusCode::FORBIDDEN => self.forbidden(call),
            StatusCode::NOT_FOUND => Problem::new(StatusCode::NOT_FOUND, self.not_found(call)),
            StatusCode::CONFLICT => Problem::new(StatusCode::CONFLICT, conflict(&self, call)),
            StatusCode::GONE => {
                let detail = "continue has expired: begin the list again";
                Problem::new(StatusCode::GONE, detail)
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let detail = "the cluster is too busy";
                Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
                    .retry_after(self.retry_after.unwrap_or(RETRY_AFTER))
            }
            StatusCode::UNAUTHORIZED => {
                tracing::error!(
                    "The cluster does not accept this service's token: is there an access entry for its role?"
                );
                bad_gateway("the cluster does not know this service", call)
            }
            StatusCode::GATEWAY_TIMEOUT => {
                self.log();
                timed_out(call)
            }
            _ => {
                self.log();
                bad_gateway("the cluster has trouble of its own", call)
            }
        }
    }

    fn log(&self) {
        let (code, reason) = (self.code.as_u16(), self.status.reason.as_str());
        tracing::warn!(code, reason, message = clipped(&self.status.message), "The cluster refused a call");
    }

    /// What Kubernetes does not accept of the caller's own, each field by its pointer in the caller's own body.
    fn invalid(&self, call: &Call<'_>, draft: Option<&Draft>) -> Problem {
        let pointer = |pointer: &str| draft.map_or(pointer.to_owned(), |draft| draft.pointer(pointer));
        let causes = self.status.details.iter().flat_map(|details| &details.causes);
        let mut errors: Vec<_> = causes
            .map(|cause| {
                let pointer = pointer(&pointer::of_field_path(&cause.field));
                FieldError { pointer, detail: format!("is not accepted: {}", clipped(&cause.message)) }
            })
            .collect();
        errors.extend(self.unknown_fields().map(|field| FieldError {
            pointer: pointer(&pointer::of_field_path(field)),
            detail: "is not known to the cluster".to_owned(),
        }));
        if errors.is_empty() {
            errors.push(self.unreadable(call));
        }
        Problem::invalid(errors)
    }

    /// `strict decoding error: unknown field "spec.a", unknown field "spec.b"`
    fn unknown_fields(&self) -> impl Iterator<Item = &str> {
        self.status.message.split("unknown field \"").skip(1).filter_map(|rest| rest.split('"').next())
    }

    fn unreadable(&self, call: &Call<'_>) -> FieldError {
        let message = clipped(&self.status.message);
        match call.verb {
            Verb::List if message.contains("continue") => {
                FieldError::field("continue", "is none that the cluster gave")
            }
            Verb::List => FieldError::field("label_selector", format!("is not accepted: {message}")),
            _ => FieldError::body(format!("is not accepted: {message}")),
        }
    }

    fn forbidden(&self, call: &Call<'_>) -> Problem {
        let message = &self.status.message;
        let causes = self.status.details.iter().flat_map(|details| &details.causes);
        let is_ending = causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating");
        if is_ending || message.contains("because it is being terminated") {
            let namespace = call.namespace.unwrap_or_default();
            return Problem::new(StatusCode::CONFLICT, format!("the namespace {namespace} is being deleted"));
        }
        let is_ours = message.contains(&format!(" cannot {} resource ", call.verb.name()));
        if is_ours || message.is_empty() {
            self.log();
            return Problem::new(StatusCode::FORBIDDEN, missing_permission(call));
        }
        // A quota, or an admission webhook: it speaks of the caller's object.
        let said = message.split_once("is forbidden: ").map_or(message.as_str(), |(_, said)| said);
        Problem::new(StatusCode::FORBIDDEN, format!("the cluster does not allow this: {}", clipped(said)))
    }

    fn not_found(&self, call: &Call<'_>) -> String {
        let kind = self.status.details.as_ref().map_or("", |details| details.kind.as_str());
        match (call.namespace, call.name) {
            // What cannot be created is not what is missing.
            (Some(namespace), None) => format!("there is no namespace {namespace}"),
            (Some(namespace), Some(_)) if kind == "namespaces" => {
                format!("there is no namespace {namespace}")
            }
            (Some(namespace), Some(name)) => format!("there is no Job {name} in the namespace {namespace}"),
            (None, Some(name)) => format!("there is no namespace {name}"),
            (None, None) => "the cluster knows nothing there".to_owned(),
        }
    }
}

/// Which right of this service's role is missing in the cluster, as RBAC names it.
fn missing_permission(call: &Call<'_>) -> String {
    let (verb, resource) = (call.verb.name(), call.resource.name());
    let group = if call.resource == Resource::Jobs { " in the API group batch" } else { "" };
    let place = match call.namespace {
        Some(namespace) => format!(" in the namespace {namespace}"),
        None => " in the cluster".to_owned(),
    };
    format!(
        "this service may not {verb} {resource}{group}{place}: its role in the cluster lacks the permission"
    )
}

fn conflict(refusal: &Refusal, call: &Call<'_>) -> String {
    if call.verb == Verb::Delete {
        return "it was changed or replaced meanwhile: look before you ask again".to_owned();
    }
    let is_ending = refusal.status.message.contains("object is being deleted");
    if is_ending {
        "the one of this name is still being deleted"
    } else {
        "there is one of this name already"
    }
    .to_owned()
}

/// Bounded and of one line.
fn clipped(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST_TEXT);
    text[..end].replace(char::is_control, " ")
}
