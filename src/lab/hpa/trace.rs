//! Recorded runs of the real controller, and what these rules do with the same inputs.
//!
//! All times of a run are seconds after its start.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Config, closed,
    controller::{Outcome, Reading, Scale, Selection, State, Sync},
    go::divided,
    minor_of, objects,
    pods::{Observation, Phase, Pod, Sample, Truth},
    spec::{Hpa, Source},
};

/// A recorded run, as far as a replay asks for it.
#[derive(Debug, Clone, Deserialize)]
pub struct Trace {
    /// The controller's version.
    #[serde(default)]
    pub kubernetes: String,
    #[serde(default)]
    controller: Flags,
    /// What is scaled.
    pub deployment: Deployment,
    /// The autoscaler, in YAML.
    pub hpa_manifest: String,
    /// How long a process starts before it answers.
    #[serde(default)]
    pub pod_start_delay_s: f64,
    /// How much CPU all pods together would use.
    #[serde(default)]
    pub load: Curve,
    /// How memory went, where it was not constant.
    #[serde(default)]
    pub memory: Option<Value>,
    /// What a sample was measured over.
    pub metric_window_s: Option<f64>,
    /// How long a new container has no metrics.
    #[serde(default)]
    pub fresh_metric_delay_s: f64,
    /// When metrics were left out, and whose.
    #[serde(default)]
    pub missing_metrics: Vec<Value>,
    /// When each sync began.
    #[serde(default)]
    pub sync_instants: Vec<f64>,
    /// What was seen at each.
    pub syncs: Vec<Seen>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Flags {
    tolerance: Option<f64>,
    initial_readiness_delay_s: Option<f64>,
    cpu_initialization_period_s: Option<f64>,
    downscale_stabilization_s: Option<f64>,
}

/// What is scaled.
#[derive(Debug, Clone, Deserialize)]
pub struct Deployment {
    /// Before the autoscaler was there.
    #[serde(default)]
    pub initial_replicas: i32,
    /// What each pod requests, in millicores.
    pub cpu_request_m: Option<i64>,
    /// What it gets at most.
    pub cpu_limit_m: Option<i64>,
    /// What it requests of memory.
    pub mem_request_bytes: Option<i64>,
}

/// A quantity over time.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Curve {
    /// `step` or `linear`.
    pub interpolation: String,
    /// Instants and values, in order.
    pub breakpoints: Vec<(f64, f64)>,
}

impl Curve {
    /// The value at an instant.
    #[must_use]
    pub fn at(&self, t: f64) -> f64 {
        let next = self.breakpoints.partition_point(|(at, _)| *at <= t);
        let Some((from, before)) = next.checked_sub(1).and_then(|index| self.breakpoints.get(index)) else {
            return self.breakpoints.first().map_or(0.0, |(_, value)| *value);
        };
        match self.breakpoints.get(next) {
            Some((to, after)) if self.interpolation == "linear" => {
                before + (after - before) * (t - from) / (to - from)
            }
            _ => *before,
        }
    }
}

/// What was seen at one sync.
#[derive(Debug, Clone, Deserialize)]
pub struct Seen {
    /// When it began.
    pub t: f64,
    t_decide: Option<f64>,
    t_metrics: Option<f64>,
    /// `spec.replicas` before.
    pub current: i32,
    metric_timestamp: Option<f64>,
    #[serde(default)]
    pods: Vec<SeenPod>,
    #[serde(flatten)]
    said: Said,
}

impl Seen {
    /// What the real controller came to.
    pub(super) fn said(&self) -> Said {
        self.said.clone()
    }
}

#[derive(Debug, Clone, Deserialize)]
struct SeenPod {
    #[serde(default)]
    phase: Option<String>,
    ready: Option<bool>,
    start: Option<f64>,
    ready_changed: Option<f64>,
    #[serde(default)]
    deleting: bool,
    cpu_n: Option<i64>,
    mem_b: Option<i64>,
}

/// What a sync came to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Said {
    /// What the metrics asked for.
    pub proposed: Option<i32>,
    /// The replicas afterwards.
    #[serde(rename = "final")]
    pub replicas: i32,
    /// The reason of `AbleToScale`.
    pub able: Option<String>,
    /// The reason of `ScalingLimited`.
    pub limited: Option<String>,
    /// The reason of `ScalingActive`.
    pub active: Option<String>,
}

/// One sync of a replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// When it began.
    pub t: f64,
    /// The replicas before.
    pub current: i32,
    /// What these rules came to.
    pub said: Said,
    /// What the real controller came to.
    pub recorded: Said,
}

impl Line {
    /// Whether both came to the same.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.said == self.recorded
    }
}

/// Reads a recorded run.
///
/// # Errors
/// Why it is none.
pub fn read(text: &[u8]) -> Result<Trace, String> {
    let trace: Trace =
        serde_json::from_slice(text).map_err(|error| format!("not a recorded run: {error}"))?;
    let times = trace.syncs.iter().map(|seen| seen.t).chain(trace.sync_instants.iter().copied());
    // Whoever reads `1e300` seconds as milliseconds has no instant left.
    if times.into_iter().any(|t| !t.is_finite() || t.abs() > 1e12) {
        return Err("not a recorded run: a time is out of range".into());
    }
    Ok(trace)
}

/// A time in milliseconds.
pub(super) fn ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

impl Trace {
    /// The autoscaler of the run.
    ///
    /// # Errors
    /// What is wrong with its manifest.
    pub fn hpa(&self) -> Result<Hpa, String> {
        let objects = objects::read(&self.hpa_manifest).map_err(|error| format!("hpa_manifest: {error}"))?;
        match objects.hpas.into_iter().next() {
            Some((hpa, _)) => Ok(hpa),
            None => Err("hpa_manifest: there is no HorizontalPodAutoscaler in it".into()),
        }
    }

    /// The controller's flags, and its version.
    #[must_use]
    pub fn config(&self) -> Config {
        let otherwise = Config::default();
        let of = |seconds: Option<f64>, otherwise: i64| seconds.map_or(otherwise, ms);
        Config {
            minor: minor_of(&self.kubernetes).unwrap_or(otherwise.minor),
            tolerance: self.controller.tolerance.unwrap_or(otherwise.tolerance),
            cpu_initialization_ms: of(
                self.controller.cpu_initialization_period_s,
                otherwise.cpu_initialization_ms,
            ),
            initial_readiness_ms: of(
                self.controller.initial_readiness_delay_s,
                otherwise.initial_readiness_ms,
            ),
            downscale_stabilization_ms: of(
                self.controller.downscale_stabilization_s,
                otherwise.downscale_stabilization_ms,
            ),
            ..otherwise
        }
    }

    /// Runs these rules over the recorded pods and metrics, with a memory of their own.
    ///
    /// # Errors
    /// What is wrong with the run.
    pub fn replay(&self) -> Result<Vec<Line>, String> {
        let (hpa, config) = (self.hpa()?, self.config());
        let mut state = State::default();
        Ok(self
            .syncs
            .iter()
            .map(|seen| {
                let pods: Vec<Pod> = seen.pods.iter().map(SeenPod::pod).collect();
                let now_ms = ms(seen.t_decide.unwrap_or(seen.t));
                let metrics = self.metrics(&hpa, seen);
                let said = step(&mut state, &hpa, &config, now_ms, seen.current, &pods, &metrics);
                Line { t: seen.t, current: seen.current, said, recorded: seen.said() }
            })
            .collect())
    }

    /// The same with pods and metrics that follow from the load: does it hold without being shown the way?
    ///
    /// # Errors
    /// What is wrong with the run.
    pub fn replay_closed(&self) -> Result<Vec<Line>, String> {
        closed::replay(self)
    }

    /// What the metrics API answered, for each of the autoscaler's metrics.
    fn metrics(&self, hpa: &Hpa, seen: &Seen) -> Vec<Served> {
        let at = seen.metric_timestamp.or(seen.t_metrics.map(f64::floor)).unwrap_or(seen.t);
        let of = |name: &str| self.served(name, seen.pods.iter().map(|pod| pod.value_milli(name)), at);
        hpa.metrics
            .iter()
            .map(|spec| match &spec.source {
                Source::Resource { name } | Source::ContainerResource { name, .. } => of(name),
                _ => Served::Failed("recorded runs have metrics of resources only"),
            })
            .collect()
    }

    /// One sample a pod, where it has a value.
    pub(super) fn served(&self, name: &str, values: impl Iterator<Item = Option<i64>>, at: f64) -> Served {
        let window_ms = ms(self.metric_window_s.unwrap_or(15.0));
        let sample = |value_milli| Sample { at_ms: ms(at), window_ms, value_milli };
        let samples: Vec<Option<Sample>> = values.map(|value| value.map(sample)).collect();
        if samples.iter().all(Option::is_none) {
            return Served::Failed("no metrics returned from resource metrics API");
        }
        let request = match name {
            "memory" => self.deployment.mem_request_bytes.map(|bytes| bytes.saturating_mul(1000)),
            "cpu" => self.deployment.cpu_request_m,
            _ => None,
        };
        Served::Pods { requests: request.map(|request| vec![request; samples.len()]), samples }
    }
}

impl SeenPod {
    fn pod(&self) -> Pod {
        let since_ms = ms(self.ready_changed.unwrap_or_default());
        let truth = |ready| if ready { Truth::True } else { Truth::False };
        Pod {
            phase: Phase::of(self.phase.as_deref().unwrap_or_default()),
            deleted: self.deleting,
            ready: self.ready.filter(|_| self.ready_changed.is_some()).map(|ready| (truth(ready), since_ms)),
            start_ms: self.start.map(ms),
        }
    }

    fn value_milli(&self, name: &str) -> Option<i64> {
        match name {
            "cpu" => self.cpu_n.map(millicores),
            "memory" => self.mem_b.map(|bytes| bytes.saturating_mul(1000)),
            _ => None,
        }
    }
}

/// Billionths of a core as thousandths, rounded up: the controller reads each pod so.
pub(super) fn millicores(nanocores: i64) -> i64 {
    divided(nanocores, 1_000_000) + i64::from(nanocores % 1_000_000 > 0)
}

/// What the metrics API answered for one metric.
pub(super) enum Served {
    Pods { samples: Vec<Option<Sample>>, requests: Option<Vec<i64>> },
    Failed(&'static str),
}

/// One sync of a run.
pub(super) fn step(
    state: &mut State,
    hpa: &Hpa,
    config: &Config,
    now_ms: i64,
    current: i32,
    pods: &[Pod],
    metrics: &[Served],
) -> Said {
    let readings: Vec<Reading<'_>> = metrics
        .iter()
        .map(|served| match served {
            Served::Pods { samples, requests } => Reading::Pods(Observation {
                pods,
                samples,
                strays: &[],
                requests: requests.as_deref().ok_or("the run does not say what pods request"),
            }),
            Served::Failed(why) => Reading::Failed(why),
        })
        .collect();
    let live = pods.iter().filter(|pod| !pod.deleted).count();
    let scale =
        Scale { spec: current, status: i32::try_from(live).unwrap_or(i32::MAX), selector: Selection::Usable };
    let sync = Sync { now_ms, scale: Ok(&scale), update_error: None, pods, readings: &readings };
    let outcome = state.sync(hpa, &sync, config);
    said(state, &outcome)
}

fn said(state: &State, outcome: &Outcome) -> Said {
    let reason = |kind: &str| state.status.reason(kind).map(ToOwned::to_owned);
    Said {
        proposed: outcome.proposed,
        replicas: outcome.replicas,
        able: reason("AbleToScale"),
        limited: reason("ScalingLimited"),
        active: reason("ScalingActive"),
    }
}
