//! What became of a Job: one transition after the other, out of the Job as Kubernetes describes it.
//!
//! A transition is known by the Job's UID, what the Job became, and the *spell* in which it did: a Job that is suspended
//! and resumed begins another. All three are the Job's own, so whoever looks at it, and when, finds the same transitions.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    pointer::Pointer,
    status::{self, Condition, JobStatus, Phase},
};
use crate::store::ledger::{millis, timestamp};

/// What a Job became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It was created, or resumed, and no pod runs yet.
    Pending,
    /// It was suspended.
    Suspended,
    /// Its pods run.
    Running,
    /// It is complete.
    Succeeded,
    /// It has failed, for good.
    Failed,
    /// It was deleted.
    Gone,
}

impl Stage {
    /// Whether nothing but `gone` follows.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Gone)
    }

    /// The word for it, as in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Suspended => "suspended",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }

    fn of(phase: Phase) -> Self {
        match phase {
            Phase::Pending => Self::Pending,
            Phase::Suspended => Self::Suspended,
            Phase::Running => Self::Running,
            Phase::Succeeded => Self::Succeeded,
            Phase::Failed => Self::Failed,
        }
    }
}

/// One transition of a Job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transition {
    /// Which of all Jobs that ever had this name.
    #[schema(example = "7d5f6c0e-6d0a-4d3e-9a8b-0c9e5b7c1a2f")]
    pub uid: String,
    /// What it became.
    #[schema(example = "succeeded")]
    pub status: Stage,
    /// When: as the Job itself says where it does, else when it was seen.
    #[schema(example = "2026-01-31T12:00:00Z")]
    pub time: String,
    /// Why, in Kubernetes' word (`DeadlineExceeded`, `BackoffLimitExceeded`, …).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "DeadlineExceeded")]
    pub reason: Option<String>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// A Job as far as its history goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Which.
    pub uid: String,
    /// Where.
    pub namespace: String,
    /// Under which name.
    pub name: String,
    /// What it became last,
    pub stage: Stage,
    /// in which spell: when it was last suspended or resumed, empty before.
    pub spell: String,
    /// Where that stands in its log.
    pub place: u64,
}

/// A transition, and how the Job is known after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What happened.
    pub transition: Transition,
    /// The Job then.
    pub after: Known,
}

/// What has happened to a Job that was `known` like this, or not at all, and is now like `job`.
#[must_use]
pub fn steps(known: Option<&Known>, job: &Value, now: u64) -> Vec<Step> {
    let seen = status::of(job, None);
    let stage = Stage::of(seen.status);
    let spell = spell(&seen);
    let mut steps = Vec::new();
    let mut last = known.cloned();
    if last.is_none() {
        let created = seen.creation_timestamp.as_deref().and_then(moment).unwrap_or(now);
        // It began without a spell, whatever it is in now.
        let step = step(None, &seen, Stage::Pending, String::new(), created);
        last = Some(step.after.clone());
        steps.push(step);
    }
    // Pods that fail let a Job seem to wait again: within a spell it only goes on.
    let is_news = last.as_ref().is_none_or(|last| match last.spell == spell {
        true => last.stage < stage,
        false => true,
    });
    if is_news {
        let time = when(job, &seen, stage).unwrap_or(now);
        steps.push(step(last.as_ref(), &seen, stage, spell, time));
    }
    steps
}

/// The last one: it is no more. `was_seen` tells whether somebody watched it go.
#[must_use]
pub fn gone(known: &Known, now: u64, was_seen: bool) -> Step {
    let explanation = match (was_seen, known.stage.is_end()) {
        (false, false) => Some("it was deleted while nobody watched; how it ended is not known"),
        (true, false) => Some("it was deleted before its end"),
        (_, true) => None,
    };
    let place = now.max(known.place + 1);
    let transition = Transition {
        uid: known.uid.clone(),
        status: Stage::Gone,
        time: timestamp(now),
        reason: None,
        explanation: explanation.map(str::to_owned),
    };
    Step { transition, after: Known { stage: Stage::Gone, place, ..known.clone() } }
}

fn step(last: Option<&Known>, seen: &JobStatus, stage: Stage, spell: String, time: u64) -> Step {
    let is_now = stage == Stage::of(seen.status);
    let transition = Transition {
        uid: seen.uid.clone(),
        status: stage,
        time: timestamp(time),
        reason: seen.reason.clone().filter(|_| is_now),
        explanation: seen.explanation.clone().filter(|_| is_now),
    };
    let after = Known {
        uid: seen.uid.clone(),
        namespace: seen.namespace.clone(),
        name: seen.name.clone(),
        stage,
        spell,
        // Clocks differ: what came later stands later all the same.
        place: last.map_or(placed(time), |last| placed(time).max(last.place + 1)),
    };
    Step { transition, after }
}

/// Kubernetes tells whole seconds, this service milliseconds: a Job that was created in the second in which another of its
/// name was deleted stands behind it.
fn placed(time: u64) -> u64 {
    if time.is_multiple_of(1000) { time + 999 } else { time }
}

/// When it was last suspended or resumed.
fn spell(seen: &JobStatus) -> String {
    condition(seen, "Suspended")
        .and_then(|condition| condition.last_transition_time.clone())
        .unwrap_or_default()
}

fn condition<'a>(seen: &'a JobStatus, kind: &str) -> Option<&'a Condition> {
    seen.conditions.iter().find(|condition| condition.kind == kind)
}

/// When it became so, if it says so.
fn when(job: &Value, seen: &JobStatus, stage: Stage) -> Option<u64> {
    let since = |kind| condition(seen, kind)?.last_transition_time.as_deref().and_then(moment);
    match stage {
        Stage::Succeeded => seen.completion_time.as_deref().and_then(moment).or_else(|| since("Complete")),
        Stage::Failed => since("Failed"),
        Stage::Suspended => since("Suspended"),
        // It says nothing of that itself, but when its status was last written stands beside.
        Stage::Running => status_written(job),
        Stage::Pending => since("Suspended").or_else(|| seen.creation_timestamp.as_deref().and_then(moment)),
        Stage::Gone => None,
    }
}

fn status_written(job: &Value) -> Option<u64> {
    let managed = Pointer::root(job).at("metadata").at("managedFields");
    let entries = managed.value()?.as_array()?.iter();
    let of_status =
        entries.filter(|entry| entry.get("subresource").and_then(Value::as_str) == Some("status"));
    of_status.filter_map(|entry| moment(entry.get("time")?.as_str()?)).max()
}

fn moment(text: &str) -> Option<u64> {
    let time: SystemTime = humantime::parse_rfc3339(text).ok()?;
    Some(millis(time))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CREATED: &str = "2027-01-15T08:00:00Z";
    /// That moment.
    const NOW: u64 = 1_800_000_000_000;

    fn job(status: Value) -> Value {
        json!({"metadata": {"name": "a", "namespace": "n", "uid": "u-1", "creationTimestamp": CREATED}, "status": status})
    }

    fn all(known: Option<&Known>, status: Value) -> Vec<(Stage, String)> {
        steps(known, &job(status), NOW + 60_000)
            .into_iter()
            .map(|step| (step.transition.status, step.transition.time))
            .collect()
    }

    fn after(statuses: &[Value]) -> (Vec<Stage>, Known) {
        let (mut known, mut stages) = (None, Vec::new());
        for status in statuses {
            for step in steps(known.as_ref(), &job(status.clone()), NOW + 60_000) {
                stages.push(step.transition.status);
                assert!(
                    known.as_ref().is_none_or(|known: &Known| known.place < step.after.place),
                    "in order"
                );
                known = Some(step.after);
            }
        }
        (stages, known.unwrap())
    }

    fn suspended(holds: &str, time: &str) -> Value {
        json!({"conditions": [{"type": "Suspended", "status": holds, "lastTransitionTime": time}]})
    }

    #[test]
    fn a_job_that_is_seen_late_has_its_own_times() {
        let done = json!({"completionTime": "2027-01-15T08:00:07Z", "conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1});
        let created = (Stage::Pending, CREATED.to_owned());
        assert_eq!(all(None, done), [created.clone(), (Stage::Succeeded, "2027-01-15T08:00:07Z".to_owned())]);
        let failed = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": "2027-01-15T08:00:09Z"}]});
        assert_eq!(
            all(None, failed.clone()),
            [created.clone(), (Stage::Failed, "2027-01-15T08:00:09Z".to_owned())]
        );
        assert_eq!(all(None, json!({})), std::slice::from_ref(&created));
        let steps = steps(None, &job(failed), NOW);
        assert_eq!(steps[0].transition.reason, None, "why it failed is not why it waited");
        assert_eq!(steps[1].transition.reason.as_deref(), Some("DeadlineExceeded"));
        let mut running = job(json!({"active": 1, "ready": 1}));
        running["metadata"]["managedFields"] = json!([
            {"time": "2027-01-15T08:00:00Z"}, {"time": "2027-01-15T08:00:03Z", "subresource": "status"}]);
        assert_eq!(super::steps(None, &running, NOW)[1].transition.time, "2027-01-15T08:00:03Z");
    }

    #[test]
    fn within_a_spell_a_job_only_goes_on() {
        use Stage::{Failed, Pending, Running};
        let (waits, runs) = (json!({"active": 1}), json!({"active": 1, "ready": 1}));
        let failed = json!({"conditions": [{"type": "Failed", "status": "True"}]});
        let (stages, _) =
            after(&[waits.clone(), runs.clone(), waits.clone(), runs, failed.clone(), waits, failed]);
        assert_eq!(stages, [Pending, Running, Failed]);
    }

    #[test]
    fn a_job_that_is_resumed_begins_another_spell() {
        use Stage::{Pending, Running, Suspended};
        let first = suspended("True", "2027-01-15T08:00:01Z");
        let resumed = suspended("False", "2027-01-15T08:00:02Z");
        let mut runs = resumed.clone();
        runs["ready"] = json!(1);
        let second = suspended("True", "2027-01-15T08:00:05Z");
        let (stages, known) = after(&[json!({}), first.clone(), first, resumed, runs.clone(), runs, second]);
        assert_eq!(stages, [Pending, Suspended, Pending, Running, Suspended]);
        assert_eq!(known.spell, "2027-01-15T08:00:05Z");
    }

    #[test]
    fn a_job_stands_behind_the_one_whose_name_it_took_within_a_second() {
        let (_, first) = after(&[json!({})]);
        let gone = gone(&Known { place: NOW - 5000, ..first.clone() }, NOW + 700, true);
        assert!(gone.after.place < first.place, "the second was created in the same second, after that");
    }

    #[test]
    fn a_deleted_job_ends_with_what_is_known_of_its_end() {
        let (_, known) = after(&[json!({})]);
        let explained = |known: &Known, was_seen| gone(known, NOW + 90_000, was_seen).transition.explanation;
        assert!(explained(&known, true).unwrap().contains("before its end"));
        assert!(explained(&known, false).unwrap().contains("not known"));
        let (_, known) = after(&[json!({"conditions": [{"type": "Complete", "status": "True"}]})]);
        assert_eq!(explained(&known, false), None);
        assert!(gone(&known, 0, true).after.place > known.place, "whatever the clock says");
    }
}
