//! The HorizontalPodAutoscaler of Kubernetes 1.32 and later, without a cluster: the same numbers, conditions,
//! reasons and events from the same inputs.
//!
//! The rules are those of kube-controller-manager, `pkg/controller/podautoscaler` in kubernetes/kubernetes; each
//! function here names the one there. From the outside in:
//!
//! - [`controller`]: one sync, from the scale to the status (`horizontal.go`).
//! - [`calculator`]: replicas from one metric (`replica_calculator.go`, `metrics/utilization.go`).
//! - [`behavior`]: rate limits, stabilization, and what is remembered for them (`horizontal.go`).
//! - [`pods`]: which pods count, and what they request (`replica_calculator.go`).
//! - [`spec`]: what a manifest says, after the API server's defaulting (`pkg/apis/autoscaling/v2/defaults.go`).
//! - [`quantity`], [`selector`], [`go`]: Kubernetes' quantities and label selectors, and Go's arithmetic.
//!
//! And the forms that inputs come in: [`cases`] (recorded unit tests), [`trace`] and [`closed`] (recorded runs),
//! [`objects`] and [`explain`] (what kubectl prints).
//!
//! Units: replicas are `i32` as in the API; values of metrics, requests and targets are thousandths in `i64`
//! (`…_milli`); instants and durations are milliseconds on any one clock (`…_ms`), except where the API has seconds
//! (`…_seconds`). Sums wrap and conversions clip as they do in Go on amd64: a controller that meets absurd values does
//! the same absurd thing, and nothing here panics.

pub mod behavior;
pub mod calculator;
pub mod cases;
pub mod closed;
pub mod controller;
pub mod explain;
pub mod go;
pub mod objects;
pub mod pods;
pub mod quantity;
pub mod selector;
pub mod spec;
pub mod trace;

#[cfg(test)]
mod tests;

/// What kube-controller-manager is told by its flags, and which release it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The minor version of Kubernetes 1.x, 32 or later. What it decides is said where it does.
    pub minor: u32,
    /// `--horizontal-pod-autoscaler-tolerance`: how far a ratio may be from 1 before anything is done.
    pub tolerance: f64,
    /// `--horizontal-pod-autoscaler-cpu-initialization-period`.
    pub cpu_initialization_ms: i64,
    /// `--horizontal-pod-autoscaler-initial-readiness-delay`.
    pub initial_readiness_ms: i64,
    /// `--horizontal-pod-autoscaler-downscale-stabilization`.
    pub downscale_stabilization_ms: i64,
    /// Without `behavior`, one sync may multiply the replicas by this …
    pub scale_up_factor: f64,
    /// … or reach this many, whichever is more. Constants in the controller; its unit tests set the factor to 8.
    pub scale_up_minimum: f64,
}

impl Config {
    /// The flags' defaults, in that release.
    #[must_use]
    pub fn of(minor: u32) -> Self {
        Self { minor, ..Self::default() }
    }

    /// What a metric's distance from its target is compared with: the flag, or what the rules of `behavior` say.
    ///
    /// Source: `GetResourceReplicas` and its kin in 1.32; from 1.33 on `Tolerances` in `replica_calculator.go`, filled
    /// from `behavior` (the field is there from 1.35 on without a feature gate; where the gate is closed, the API
    /// server drops it).
    #[must_use]
    pub fn tolerances(&self, behavior: Option<&spec::Behavior>) -> calculator::Tolerances {
        let of = |rules: fn(&spec::Behavior) -> &spec::Rules| {
            behavior.and_then(|behavior| rules(behavior).tolerance).unwrap_or(self.tolerance)
        };
        if self.minor < 33 {
            return calculator::Tolerances::Around(self.tolerance);
        }
        calculator::Tolerances::Between {
            down: of(|behavior| &behavior.down),
            up: of(|behavior| &behavior.up),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            minor: 32,
            tolerance: 0.1,
            cpu_initialization_ms: 300_000,
            initial_readiness_ms: 30_000,
            downscale_stabilization_ms: 300_000,
            scale_up_factor: 2.0,
            scale_up_minimum: 4.0,
        }
    }
}

/// The minor version in `1.35`, `v1.35.2` and the like.
#[must_use]
pub fn minor_of(version: &str) -> Option<u32> {
    let rest = version.strip_prefix('v').unwrap_or(version).strip_prefix("1.")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
