//! How a Job is: from the Job and its pods, as Kubernetes describes them, to what people ask.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{manifest::MANAGED_BY, pointer::Pointer};

/// A Job in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// No pod runs yet.
    Pending,
    /// Pods run, or some have ended and others follow.
    Running,
    /// It is complete.
    Succeeded,
    /// It has failed, for good.
    Failed,
    /// It is suspended.
    Suspended,
}

/// A Job.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct JobStatus {
    /// Its name.
    #[schema(example = "hello")]
    pub name: String,
    /// Its namespace.
    #[schema(example = "jobs-team")]
    pub namespace: String,
    /// Which of all Jobs that ever had this name; also the `ETag` of the answer about one Job.
    #[schema(example = "7d5f6c0e-6d0a-4d3e-9a8b-0c9e5b7c1a2f")]
    pub uid: String,
    /// When it was created.
    #[schema(example = "2026-01-31T12:00:00Z")]
    pub creation_timestamp: Option<String>,
    /// Whether this service created it, and may delete it.
    pub managed: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How it is, in one word.
    pub status: Phase,
    /// Why it is so, where there is something to say, in Kubernetes' word (`ImagePullBackOff`, `OOMKilled`, `DeadlineExceeded`, …).
    #[schema(example = "ImagePullBackOff")]
    pub reason: Option<String>,
    /// The same in words.
    #[schema(example = "the image cannot be pulled: it does not exist, or the node may not read it")]
    pub explanation: Option<String>,
    /// Pods that have not ended.
    pub active: u64,
    /// Of those, the ones that are ready.
    pub ready: u64,
    /// Pods that succeeded.
    pub succeeded: u64,
    /// Pods that failed.
    pub failed: u64,
    /// Pods that must succeed.
    pub completions: Option<u64>,
    /// Pods at once, at most.
    pub parallelism: Option<u64>,
    /// When it was started.
    pub start_time: Option<String>,
    /// When it was complete.
    pub completion_time: Option<String>,
    /// What Kubernetes says of it.
    pub conditions: Vec<Condition>,
    /// Its pods, at most a hundred of them; left out where they were not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<Vec<Pod>>,
}

/// One of a Job's conditions.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Condition {
    /// Which (`Complete`, `Failed`, `Suspended`, …).
    #[serde(rename = "type")]
    #[schema(example = "Complete")]
    pub kind: String,
    /// Whether it holds: `True`, `False` or `Unknown`.
    #[schema(example = "True")]
    pub status: String,
    /// Why, in a word.
    pub reason: Option<String>,
    /// Why, in words.
    pub message: Option<String>,
    /// Since when.
    pub last_transition_time: Option<String>,
}

/// One of a Job's pods.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pod {
    /// Its name.
    #[schema(example = "hello-x7k2p")]
    pub name: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[schema(example = "Pending")]
    pub phase: String,
    /// What keeps it, or what ended it, in Kubernetes' word.
    #[schema(example = "ImagePullBackOff")]
    pub reason: Option<String>,
    /// The same in words.
    pub message: Option<String>,
}

/// What to say of `job`, whose `pods` were asked for or not.
#[must_use]
pub fn of(job: &Value, pods: Option<&[Value]>) -> JobStatus {
    let job = Pointer::root(job);
    let (metadata, spec, status) = (job.at("metadata"), job.at("spec"), job.at("status"));
    let conditions: Vec<_> =
        items(&status.at("conditions")).map(|condition| of_condition(&condition)).collect();
    let pods: Option<Vec<Pod>> =
        pods.map(|pods| pods.iter().map(|pod| of_pod(&Pointer::root(pod))).collect());
    let counts = ["active", "ready", "succeeded", "failed"].map(|name| number(&status, name).unwrap_or(0));
    let [active, ready, succeeded, failed] = counts;
    let is_suspended = spec.at("suspend").value() == Some(&Value::Bool(true));
    let some_pod_runs = pods.iter().flatten().any(|pod| pod.phase == "Running");
    let has_begun = ready > 0 || succeeded > 0 || failed > 0 || some_pod_runs;
    let phase = if holds(&conditions, "Complete") {
        Phase::Succeeded
    } else if holds(&conditions, "Failed") {
        Phase::Failed
    } else if is_suspended || holds(&conditions, "Suspended") {
        Phase::Suspended
    } else if has_begun {
        Phase::Running
    } else {
        Phase::Pending
    };
    let (reason, explanation) = why(phase, &conditions, pods.as_deref());
    JobStatus {
        name: text(&metadata, "name").unwrap_or_default(),
        namespace: text(&metadata, "namespace").unwrap_or_default(),
        uid: text(&metadata, "uid").unwrap_or_default(),
        creation_timestamp: text(&metadata, "creationTimestamp"),
        managed: is_managed(&job),
        labels: labels(&metadata),
        status: phase,
        reason,
        explanation,
        active,
        ready,
        succeeded,
        failed,
        completions: number(&spec, "completions"),
        parallelism: number(&spec, "parallelism"),
        start_time: text(&status, "startTime"),
        completion_time: text(&status, "completionTime"),
        conditions,
        pods,
    }
}

/// Whether an object is one of this service's.
#[must_use]
pub fn is_managed(object: &Pointer<'_>) -> bool {
    let (label, ours) = MANAGED_BY;
    text(&object.at("metadata").at("labels"), label).as_deref() == Some(ours)
}

/// An object's labels.
#[must_use]
pub fn labels(metadata: &Pointer<'_>) -> BTreeMap<String, String> {
    let labels = metadata.at("labels");
    labels
        .members()
        .filter_map(|(name, value)| Some((name.to_owned(), value.value()?.as_str()?.to_owned())))
        .collect()
}

/// A member that is text.
#[must_use]
pub fn text(object: &Pointer<'_>, name: &str) -> Option<String> {
    object.at(name).value().and_then(Value::as_str).map(str::to_owned)
}

fn number(object: &Pointer<'_>, name: &str) -> Option<u64> {
    object.at(name).value().and_then(Value::as_u64)
}

fn items<'a>(array: &Pointer<'a>) -> std::vec::IntoIter<Pointer<'a>> {
    let count = array.value().and_then(Value::as_array).map_or(0, Vec::len);
    (0..count).map(|index| array.item(index)).collect::<Vec<_>>().into_iter()
}

fn of_condition(condition: &Pointer<'_>) -> Condition {
    let non_empty = |name| text(condition, name).filter(|text| !text.is_empty());
    Condition {
        kind: text(condition, "type").unwrap_or_default(),
        status: text(condition, "status").unwrap_or_default(),
        reason: non_empty("reason"),
        message: non_empty("message"),
        last_transition_time: non_empty("lastTransitionTime"),
    }
}

fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|condition| condition.kind == kind && condition.status == "True")
}

/// The word and the words for a Job that is not simply on its way.
fn why(phase: Phase, conditions: &[Condition], pods: Option<&[Pod]>) -> (Option<String>, Option<String>) {
    let of_pod =
        || pods.into_iter().flatten().find_map(|pod| Some((pod.reason.clone()?, pod.message.clone())));
    match phase {
        Phase::Succeeded => (None, None),
        Phase::Suspended => (Some("Suspended".to_owned()), Some("it waits until it is resumed".to_owned())),
        Phase::Failed => {
            let failed = conditions.iter().find(|condition| condition.kind == "Failed");
            let reason = failed.and_then(|condition| condition.reason.clone());
            let message = failed.and_then(|condition| condition.message.clone());
            // That pods failed too often says nothing of what they died of.
            if let (Some("BackoffLimitExceeded"), Some((of_pod, message))) = (reason.as_deref(), of_pod()) {
                let explanation = message.map(|message| {
                    format!("pods failed more often than the backoff limit allows: {message}")
                });
                return (Some(of_pod), explanation);
            }
            let words = reason.as_deref().and_then(in_words).map(str::to_owned);
            (reason, words.or(message))
        }
        Phase::Pending | Phase::Running => match of_pod() {
            Some((reason, message)) => (Some(reason), message),
            None if phase == Phase::Pending && pods.is_some_and(<[_]>::is_empty) => {
                (None, Some("no pod has been created yet".to_owned()))
            }
            None => (None, None),
        },
    }
}

fn of_pod(pod: &Pointer<'_>) -> Pod {
    let status = pod.at("status");
    let phase = text(&status, "phase").unwrap_or_else(|| "Unknown".to_owned());
    let trouble = if phase == "Succeeded" { None } else { trouble(&status) };
    let (reason, message) = trouble.unzip();
    Pod { name: text(&pod.at("metadata"), "name").unwrap_or_default(), phase, reason, message }
}

/// What keeps a pod, or what ended it: the pod's own reason first, then its containers', then the scheduler's.
fn trouble(status: &Pointer<'_>) -> Option<(String, String)> {
    let own = text(status, "reason").filter(|reason| !reason.is_empty());
    if let Some(reason) = own {
        let message = explained(&reason, text(status, "message"));
        return Some((reason, message));
    }
    let lists = ["initContainerStatuses", "containerStatuses"];
    let containers = lists.iter().flat_map(|list| items(&status.at(list)));
    containers.into_iter().find_map(|container| of_container(&container)).or_else(|| unschedulable(status))
}

fn of_container(container: &Pointer<'_>) -> Option<(String, String)> {
    let name = text(container, "name").unwrap_or_default();
    let state = container.at("state");
    if let Some(reason) = text(&state.at("waiting"), "reason") {
        // What every container goes through.
        if matches!(reason.as_str(), "ContainerCreating" | "PodInitializing") {
            return None;
        }
        // A container that is started over and over says only that; what ends it stands beside.
        let last =
            (reason == "CrashLoopBackOff").then(|| terminated(&container.at("lastState"), &name)).flatten();
        let message = explained(&reason, text(&state.at("waiting"), "message"));
        return Some(last.unwrap_or((reason, format!("container {name}: {message}"))));
    }
    terminated(&state, &name)
}

fn terminated(state: &Pointer<'_>, name: &str) -> Option<(String, String)> {
    let terminated = state.at("terminated");
    let code = terminated.at("exitCode").value()?.as_i64()?;
    let reason = text(&terminated, "reason").unwrap_or_else(|| "Error".to_owned());
    if code == 0 && reason != "OOMKilled" {
        return None;
    }
    let words = in_words(&reason).map_or(String::new(), |words| format!("{words}; "));
    let message = format!("container {name}: {words}exit code {code}");
    Some((reason, message))
}

fn unschedulable(status: &Pointer<'_>) -> Option<(String, String)> {
    let conditions = items(&status.at("conditions")).map(|condition| of_condition(&condition));
    let mut scheduled =
        conditions.filter(|condition| condition.kind == "PodScheduled" && condition.status == "False");
    let condition = scheduled.next()?;
    let reason = condition.reason.unwrap_or_else(|| "Unschedulable".to_owned());
    let message = explained(&reason, condition.message);
    Some((reason, message))
}

/// Our words for Kubernetes', and behind them what it says of this very case.
fn explained(reason: &str, message: Option<String>) -> String {
    let message = message.filter(|message| !message.is_empty());
    match (in_words(reason), message) {
        (Some(words), Some(message)) => format!("{words} ({message})"),
        (Some(words), None) => words.to_owned(),
        (None, Some(message)) => message,
        (None, None) => reason.to_owned(),
    }
}

fn in_words(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "ImagePullBackOff" | "ErrImagePull" => {
            "the image cannot be pulled: it does not exist, or the node may not read it"
        }
        "InvalidImageName" => "the image's name is malformed",
        "CreateContainerConfigError" => {
            "the container cannot be configured: its image runs as root, or it names a Secret or a ConfigMap that is not there"
        }
        "CreateContainerError" | "RunContainerError" | "StartError" | "ContainerCannotRun" => {
            "the container cannot be started: its command may not exist"
        }
        "CrashLoopBackOff" => "the container ends right after each start",
        "OOMKilled" => "it used more memory than its limit",
        "DeadlineExceeded" => "it ran longer than its deadline",
        "BackoffLimitExceeded" => "pods failed more often than the backoff limit allows",
        "PodFailurePolicy" => "a pod failed in a way that the Job's failure policy does not forgive",
        "FailedIndexes" | "MaxFailedIndexesExceeded" => "too many of its indexes failed",
        "Unschedulable" => "no node has room for the pod, or may run it",
        "Evicted" => "the node took the pod's resources back",
        "Preempted" | "Preempting" => "the pod gave way to a more important one",
        "NodeLost" | "NodeShutdown" | "Terminated" | "Shutdown" => "the node went away",
        "Error" => "the program reported an error",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(spec: Value, status: Value) -> Value {
        json!({"metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": {"app.kubernetes.io/managed-by": "math-service"}},
               "spec": spec, "status": status})
    }

    fn condition(kind: &str, reason: &str) -> Value {
        json!({"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "m"}]})
    }

    fn phase(status: Value) -> Phase {
        of(&job(json!({}), status), None).status
    }

    fn waiting(reason: &str) -> Value {
        json!({"metadata": {"name": "a-1"}, "status": {"phase": "Pending", "containerStatuses": [
            {"name": "main", "state": {"waiting": {"reason": reason, "message": "says the kubelet"}}}]}})
    }

    fn killed(reason: &str, code: i64) -> Value {
        json!({"metadata": {"name": "a-1"}, "status": {"phase": "Failed", "containerStatuses": [
            {"name": "main", "state": {"terminated": {"reason": reason, "exitCode": code}}}]}})
    }

    #[test]
    fn one_word_says_how_a_job_is() {
        assert_eq!(phase(json!(null)), Phase::Pending);
        assert_eq!(phase(json!({"active": 1})), Phase::Pending);
        assert_eq!(phase(json!({"active": 1, "ready": 1})), Phase::Running);
        assert_eq!(phase(json!({"active": 1, "succeeded": 1})), Phase::Running, "others follow");
        assert_eq!(phase(json!({"active": 1, "failed": 1})), Phase::Running, "it is tried again");
        assert_eq!(phase(condition("Complete", "")), Phase::Succeeded);
        assert_eq!(phase(condition("Failed", "DeadlineExceeded")), Phase::Failed);
        assert_eq!(
            phase(condition("FailureTarget", "x")),
            Phase::Pending,
            "not failed before its pods have ended"
        );
        assert_eq!(phase(condition("Suspended", "")), Phase::Suspended);
        assert_eq!(of(&job(json!({"suspend": true}), json!({})), None).status, Phase::Suspended);
        let mut no_longer = condition("Suspended", "");
        no_longer["conditions"][0]["status"] = json!("False");
        assert_eq!(phase(no_longer), Phase::Pending);
        let running = json!({"status": {"phase": "Running"}});
        assert_eq!(of(&job(json!({}), json!({"active": 1})), Some(&[running])).status, Phase::Running);
    }

    #[test]
    fn the_reason_is_what_keeps_or_ended_a_pod() {
        let said = |status: Value, pods: &[Value]| {
            let found = of(&job(json!({}), status), Some(pods));
            (found.reason.unwrap_or_default(), found.explanation.unwrap_or_default())
        };
        let active = || json!({"active": 1});
        let (reason, words) = said(active(), &[waiting("ImagePullBackOff")]);
        assert_eq!(reason, "ImagePullBackOff");
        assert!(words.contains("cannot be pulled") && words.contains("says the kubelet"), "{words}");
        assert_eq!(said(active(), &[waiting("ContainerCreating")]), (String::new(), String::new()));
        let (reason, words) = said(condition("Failed", "BackoffLimitExceeded"), &[killed("OOMKilled", 137)]);
        assert_eq!(reason, "OOMKilled");
        assert!(
            words.contains("backoff limit") && words.contains("memory") && words.contains("137"),
            "{words}"
        );
        assert_eq!(said(condition("Failed", "BackoffLimitExceeded"), &[]).0, "BackoffLimitExceeded");
        let (reason, words) = said(condition("Failed", "DeadlineExceeded"), &[]);
        assert_eq!(
            (reason.as_str(), words.as_str()),
            ("DeadlineExceeded", "it ran longer than its deadline")
        );
        assert_eq!(
            said(condition("Failed", "SomethingNew"), &[]),
            ("SomethingNew".to_owned(), "m".to_owned())
        );
        assert_eq!(said(json!({}), &[]).1, "no pod has been created yet");
        assert_eq!(said(condition("Complete", ""), &[killed("Error", 1)]).0, "", "it succeeded in the end");
    }

    #[test]
    fn a_container_that_crashes_again_and_again_is_known_by_its_last_end() {
        let mut pod = waiting("CrashLoopBackOff");
        pod["status"]["containerStatuses"][0]["lastState"] =
            json!({"terminated": {"reason": "OOMKilled", "exitCode": 137}});
        assert_eq!(of_pod(&Pointer::root(&pod)).reason.unwrap(), "OOMKilled");
        assert_eq!(of_pod(&Pointer::root(&waiting("CrashLoopBackOff"))).reason.unwrap(), "CrashLoopBackOff");
    }

    #[test]
    fn pods_that_no_node_takes_or_that_were_evicted_say_so() {
        let pending = json!({"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}]}});
        let pod = of_pod(&Pointer::root(&pending));
        assert_eq!(pod.reason.unwrap(), "Unschedulable");
        assert!(pod.message.unwrap().contains("0/2 nodes"));
        let evicted = json!({"status": {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}});
        assert_eq!(of_pod(&Pointer::root(&evicted)).reason.unwrap(), "Evicted");
        assert_eq!(of_pod(&Pointer::root(&killed("Completed", 0))).reason, None);
        let init = json!({"status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "first", "state": {"terminated": {"exitCode": 3}}}]}});
        assert!(of_pod(&Pointer::root(&init)).message.unwrap().contains("container first"));
    }

    #[test]
    fn whatever_kubernetes_sends_is_no_reason_to_fail() {
        for odd in [
            json!(null),
            json!([]),
            json!("x"),
            json!({"metadata": 1, "spec": [], "status": {"conditions": {}, "active": -1}}),
        ] {
            assert_eq!(of(&odd, Some(std::slice::from_ref(&odd))).status, Phase::Pending);
        }
    }
}
