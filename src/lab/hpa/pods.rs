//! Which pods count for a metric, and what they request.
//!
//! Pods and samples are slices side by side: the sample at an index is the one of the pod at that index, so that a
//! decision needs no names. Samples of pods that are not in the list are [`Observation::strays`].

use std::collections::{BTreeMap, HashMap};

use super::Config;

/// `status.phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers run yet.
    Pending,
    /// At least one container runs.
    Running,
    /// All ended well.
    Succeeded,
    /// All ended, one of them badly.
    Failed,
    /// `Unknown`, empty, or one of a later release.
    Other,
}

impl Phase {
    /// What the API calls it, read.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "Pending" => Self::Pending,
            "Running" => Self::Running,
            "Succeeded" => Self::Succeeded,
            "Failed" => Self::Failed,
            _ => Self::Other,
        }
    }
}

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// `True`.
    True,
    /// `False`.
    False,
    /// `Unknown`, or anything else.
    Unknown,
}

impl Truth {
    /// What the API calls it, read.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

/// What matters of a pod.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pod {
    /// `status.phase`.
    pub phase: Phase,
    /// Whether it has a deletion timestamp.
    pub deleted: bool,
    /// The condition `Ready`: its status, and since when.
    pub ready: Option<(Truth, i64)>,
    /// `status.startTime`.
    pub start_ms: Option<i64>,
}

impl Pod {
    /// Source: `IsPodReady`, and the phase that `getReadyPodsCount` asks for besides.
    #[must_use]
    pub fn is_running_and_ready(&self) -> bool {
        self.phase == Phase::Running && matches!(self.ready, Some((Truth::True, _)))
    }
}

/// What the metrics API says of one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The end of the window that it was measured over.
    pub at_ms: i64,
    /// How long that is.
    pub window_ms: i64,
    /// The value, in thousandths.
    pub value_milli: i64,
}

/// What a pod is to a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// It counts with its sample.
    Ready,
    /// Its sample does not count; on the way up it stands for nothing used.
    Unready,
    /// It has no sample; what it stands for depends on the direction.
    Missing,
    /// On its way out: neither it nor its sample counts.
    Ignored,
}

/// Source: `groupPods`. Only CPU looks at readiness, because only CPU is spent on starting.
#[must_use]
pub fn group(pod: &Pod, sample: Option<&Sample>, is_cpu: bool, now_ms: i64, config: &Config) -> Group {
    if pod.deleted || pod.phase == Phase::Failed {
        return Group::Ignored;
    }
    if pod.phase == Phase::Pending {
        return Group::Unready;
    }
    match sample {
        None => Group::Missing,
        Some(sample) if is_cpu && !cpu_counts(pod, sample, now_ms, config) => Group::Unready,
        Some(_) => Group::Ready,
    }
}

fn cpu_counts(pod: &Pod, sample: &Sample, now_ms: i64, config: &Config) -> bool {
    let (Some((ready, since_ms)), Some(start_ms)) = (pod.ready, pod.start_ms) else { return false };
    if start_ms.saturating_add(config.cpu_initialization_ms) > now_ms {
        // It may still be starting: only a window that began after the last change of readiness counts.
        ready != Truth::False && sample.at_ms >= since_ms.saturating_add(sample.window_ms)
    } else {
        // A pod that is not ready, and became so right after its start, has never been ready.
        ready != Truth::False || start_ms.saturating_add(config.initial_readiness_ms) <= since_ms
    }
}

/// A container, as far as requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it requests of the resource in question, in thousandths.
    pub request_milli: Option<i64>,
}

/// What a pod requests: the sum over its containers, or the one with that name unless it is empty. `containers` are the
/// regular ones and the sidecars (init containers that restart always).
///
/// Source: `calculatePodRequests` in 1.32; `calculatePodRequestsFromContainers` since.
///
/// # Errors
/// A container that requests nothing of the resource, in the controller's words. From 1.34 on also a container
/// that is not there; before, it counted as zero.
pub fn request(
    pod: &str,
    containers: &[Container],
    container: &str,
    resource: &str,
    minor: u32,
) -> Result<i64, String> {
    let mut sum = 0i64;
    let mut is_found = container.is_empty();
    for each in containers.iter().filter(|each| container.is_empty() || each.name == container) {
        let Some(request) = each.request_milli else {
            return Err(format!("missing request for {resource} in container {} of Pod {pod}", each.name));
        };
        sum = sum.wrapping_add(request);
        is_found = true;
    }
    if !is_found && minor >= 34 {
        return Err(format!("container {container} not found in Pod {pod}"));
    }
    Ok(sum)
}

/// Samples, put beside the pods that they are of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Aligned {
    /// For each pod.
    pub samples: Vec<Option<Sample>>,
    /// The values of pods that are not among them.
    pub strays: Vec<i64>,
}

/// Puts samples beside the pods of the same name; of two with one name the later counts, as in the controller's map.
/// Quickest when both are in the same order, as lists from the API are.
pub fn align<'a>(pods: &[&'a str], samples: impl IntoIterator<Item = (&'a str, Sample)>) -> Aligned {
    let mut aligned = vec![None; pods.len()];
    let mut strays = BTreeMap::new();
    let mut indices: Option<HashMap<&str, usize>> = None;
    let mut next = 0;
    for (name, sample) in samples {
        let index = if pods.get(next) == Some(&name) {
            Some(next)
        } else {
            let indices =
                indices.get_or_insert_with(|| pods.iter().enumerate().map(|(i, pod)| (*pod, i)).collect());
            indices.get(name).copied()
        };
        match index {
            Some(index) => {
                aligned[index] = Some(sample);
                next = index + 1;
            }
            None => drop(strays.insert(name, sample.value_milli)),
        }
    }
    Aligned { samples: aligned, strays: strays.into_values().collect() }
}

/// What the controller knows of the pods of one target, for one metric.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The pods that the target's selector finds.
    pub pods: &'a [Pod],
    /// Their samples, where there are some.
    pub samples: &'a [Option<Sample>],
    /// Values of pods that are not among them: gone by now, or not seen yet.
    pub strays: &'a [i64],
    /// What each pod requests in thousandths, or why that cannot be said.
    pub requests: Result<&'a [i64], &'a str>,
}

impl Observation<'_> {
    /// Each pod with its sample and its request (zero where there is none).
    pub(super) fn each(&self) -> impl Iterator<Item = (&Pod, Option<&Sample>, i64)> {
        let requests = self.requests.unwrap_or_default();
        self.pods.iter().enumerate().map(move |(index, pod)| {
            let sample = self.samples.get(index).and_then(Option::as_ref);
            (pod, sample, requests.get(index).copied().unwrap_or_default())
        })
    }
}
