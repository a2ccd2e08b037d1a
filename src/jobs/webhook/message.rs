//! What a message says: which Job has ended, how and why. A receiver that wants more asks the API.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ANNOTATION;
use crate::{
    jobs::{history::Stage, pointer::Pointer, watch::Event},
    store::records::{Log, Name, Record},
};

/// A message that waits, or was given up: what its record in the store holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `webhook-id`: the same for each attempt.
    pub id: String,
    /// Where it goes.
    pub url: String,
    /// What is sent, to the letter.
    pub body: String,
    /// The Job's namespace.
    pub namespace: String,
    /// The Job.
    pub name: String,
    /// When it was written, in milliseconds since 1970.
    pub since: u64,
    /// Attempts so far.
    pub attempts: u32,
    /// What became of the last of them.
    pub reason: Option<String>,
}

/// The log of messages that wait for their time, which is their place in it.
#[must_use]
pub fn waiting(cluster: &str) -> Log {
    Log::of("webhooks", &[cluster])
}

/// The log of messages that were given up.
#[must_use]
pub fn dead(cluster: &str) -> Log {
    Log::of("webhooks-dead", &[cluster])
}

/// The message of a Job's end, if that is what happened and somebody asked for it.
///
/// A Job that is deleted before its end has none, and one that came, ended and went while nobody watched: its webhook went
/// with it.
#[must_use]
pub fn of(event: &Event<'_>) -> Option<Message> {
    let stage = event.transition.status;
    if !matches!(stage, Stage::Succeeded | Stage::Failed) {
        return None;
    }
    let url = Pointer::root(event.object?).at("metadata").at("annotations").at(ANNOTATION);
    let url = url.value().and_then(Value::as_str)?;
    let job = event.job;
    let body = json!({
        "type": format!("job.{}", stage.name()),
        "timestamp": event.transition.time,
        "data": {
            "cluster": event.cluster,
            "namespace": job.namespace,
            "name": job.name,
            "uid": job.uid,
            "status": stage.name(),
            "reason": event.transition.reason,
            "explanation": event.transition.explanation,
        },
    });
    let digest = Name::of("message", &[event.cluster, &job.uid, stage.name(), &job.spell]);
    let digest = digest.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    Some(Message {
        id: format!("msg_{digest}"),
        url: url.to_owned(),
        body: body.to_string(),
        namespace: job.namespace.clone(),
        name: job.name.clone(),
        since: event.now,
        attempts: 0,
        reason: None,
    })
}

impl Message {
    /// Its record in `log`; one of its name in another log moves there.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no string prevents.
    pub fn record(&self, log: Log, place: u64, keep_until: Option<u64>) -> Result<Record, serde_json::Error> {
        Ok(Record {
            name: Name::of("webhook", &[&self.id]),
            log,
            place,
            namespace: Some(self.namespace.clone()),
            caller: None,
            body: serde_json::to_string(self)?,
            keep_until,
        })
    }
}
