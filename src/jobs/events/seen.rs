//! A Job and its pods, as far as their status depends on them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::told::Change;
use crate::jobs::{
    job::{MOST_PODS, pods_of},
    pointer::Pointer,
    status::{self, JobStatus, Phase, text},
};

/// A Job and its pods, as far as their status depends on them.
pub(super) struct Seen {
    pub(super) namespace: String,
    pub(super) name: String,
    job: Value,
    pub(super) selector: Option<String>,
    pods: BTreeMap<String, Value>,
    pub(super) job_version: String,
    pub(super) pods_version: String,
    /// The newest of anything seen.
    revision: u64,
}

impl Seen {
    pub(super) fn new(namespace: &str, name: &str, job: Value, version: String) -> Self {
        let mut seen = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            selector: pods_of(&job),
            job: Value::Null,
            pods: BTreeMap::new(),
            job_version: version.clone(),
            pods_version: version.clone(),
            revision: 0,
        };
        seen.see(&version);
        seen.job = slim_job(job);
        seen
    }

    fn see(&mut self, version: &str) {
        self.revision = self.revision.max(version.parse().unwrap_or(0));
    }

    pub(super) fn add_pods(&mut self, list: &Value, version: String) {
        self.see(&version);
        self.pods_version = version;
        for pod in list.get("items").and_then(Value::as_array).into_iter().flatten() {
            self.pods.insert(name_of(pod), slim_pod(pod));
        }
    }

    pub(super) fn is_the_job(&self, object: &Value) -> bool {
        object.get("kind").and_then(Value::as_str) == Some("Job") && name_of(object) == self.name
    }

    pub(super) fn apply(&mut self, kind: &str, object: Value, version: &str) {
        self.see(version);
        if self.is_the_job(&object) {
            version.clone_into(&mut self.job_version);
            self.job = slim_job(object);
            return;
        }
        version.clone_into(&mut self.pods_version);
        match kind {
            "DELETED" => drop(self.pods.remove(&name_of(&object))),
            _ => drop(self.pods.insert(name_of(&object), slim_pod(&object))),
        }
    }

    /// What was seen later; ids never go back, even if the cluster's revisions did.
    pub(super) fn replace(&mut self, later: Self) {
        let revision = self.revision.max(later.revision);
        *self = Self { revision, ..later };
    }

    fn status(&self) -> JobStatus {
        let pods: Vec<_> = self.pods.values().take(MOST_PODS as usize).cloned().collect();
        status::of(&self.job, Some(&pods))
    }

    pub(super) fn is_finished(&self) -> bool {
        is_over(&self.status())
    }

    pub(super) fn uid(&self) -> String {
        text(&Pointer::root(&self.job).at("metadata"), "uid").unwrap_or_default()
    }

    pub(super) fn change(&self) -> Change {
        let status = self.status();
        // Text, numbers and lists of them: it always serializes.
        let data = serde_json::to_string(&status).unwrap_or_default();
        Change::new(self.revision, data, is_over(&status))
    }
}

fn is_over(job: &JobStatus) -> bool {
    matches!(job.status, Phase::Succeeded | Phase::Failed)
}

fn name_of(object: &Value) -> String {
    text(&Pointer::root(object).at("metadata"), "name").unwrap_or_default()
}

pub(super) fn version(object: &Value) -> String {
    text(&Pointer::root(object).at("metadata"), "resourceVersion").unwrap_or_default()
}

/// Without what its status does not depend on, which may be large.
fn slim_job(mut job: Value) -> Value {
    if let Some(spec) = job.get_mut("spec").and_then(Value::as_object_mut) {
        spec.remove("template");
    }
    if let Some(metadata) = job.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
        metadata.remove("annotations");
    }
    job
}

fn slim_pod(pod: &Value) -> Value {
    json!({"metadata": {"name": name_of(pod)}, "status": pod.get("status")})
}
