//! What a HorizontalPodAutoscaler asks for, after the API server's defaulting.

use super::selector::LabelSelector;

/// Which of several policies decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelectPolicy {
    /// The one that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest change.
    Min,
    /// None: this direction is closed.
    Disabled,
}

/// What a policy counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    /// Pods.
    Pods,
    /// Percent of the replicas at the start of the period.
    Percent,
}

/// How much may change in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What `value` counts.
    pub kind: PolicyKind,
    /// Pods or percent.
    pub value: i32,
    /// How far back changes count against it.
    pub period_seconds: i32,
}

/// The rules of one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// How long a recommendation holds; none is the controller's flag, on the way down only.
    pub stabilization_window_seconds: Option<i32>,
    /// Which policy decides.
    pub select_policy: SelectPolicy,
    /// At least one, unless the direction is disabled.
    pub policies: Vec<Policy>,
    /// Instead of the controller's flag, from 1.33 on.
    pub tolerance: Option<f64>,
}

impl Rules {
    /// What the API server fills in for scaling up: at once, the larger of 4 pods and 100 percent in 15 seconds.
    ///
    /// Source: `GenerateHPAScaleUpRules`.
    #[must_use]
    pub fn up() -> Self {
        let policies = vec![
            Policy { kind: PolicyKind::Pods, value: 4, period_seconds: 15 },
            Policy { kind: PolicyKind::Percent, value: 100, period_seconds: 15 },
        ];
        Self {
            stabilization_window_seconds: Some(0),
            select_policy: SelectPolicy::Max,
            policies,
            tolerance: None,
        }
    }

    /// What it fills in for scaling down: all pods in 15 seconds, after the flag's window.
    ///
    /// Source: `GenerateHPAScaleDownRules`.
    #[must_use]
    pub fn down() -> Self {
        let policies = vec![Policy { kind: PolicyKind::Percent, value: 100, period_seconds: 15 }];
        Self {
            stabilization_window_seconds: None,
            select_policy: SelectPolicy::Max,
            policies,
            tolerance: None,
        }
    }
}

/// `spec.behavior`. Once it is there, both directions have rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Behavior {
    /// Scaling up.
    pub up: Rules,
    /// Scaling down.
    pub down: Rules,
}

/// A metric of the custom or external metrics API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// Which of its series.
    pub selector: Option<LabelSelector>,
}

/// Where a metric comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// What pods use of a resource.
    Resource {
        /// `cpu`, `memory`, …
        name: String,
    },
    /// What one container of each pod uses of a resource.
    ContainerResource {
        /// `cpu`, `memory`, …
        name: String,
        /// The container's name.
        container: String,
    },
    /// What pods report.
    Pods(Metric),
    /// What an object reports.
    Object {
        /// The metric.
        metric: Metric,
        /// `describedObject.kind`.
        kind: String,
        /// `describedObject.name`.
        name: String,
    },
    /// What something outside of the cluster reports.
    External(Metric),
    /// A type that the API server refuses.
    Unknown(String),
}

impl Source {
    /// `type`.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Resource { .. } => "Resource",
            Self::ContainerResource { .. } => "ContainerResource",
            Self::Pods(_) => "Pods",
            Self::Object { .. } => "Object",
            Self::External(_) => "External",
            Self::Unknown(kind) => kind,
        }
    }
}

/// What a metric shall be, at most one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// `type`.
    pub kind: String,
    /// Percent of what pods request.
    pub average_utilization: Option<i32>,
    /// A value for each pod.
    pub average_value_milli: Option<i64>,
    /// One value.
    pub value_milli: Option<i64>,
}

/// One of `spec.metrics`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// Where it comes from.
    pub source: Source,
    /// What it shall be.
    pub target: Target,
}

/// `spec.scaleTargetRef`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetRef {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `name`.
    pub name: String,
}

/// A HorizontalPodAutoscaler.
#[derive(Debug, Clone, PartialEq)]
pub struct Hpa {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// What it scales.
    pub target: TargetRef,
    /// 1 when not given.
    pub min_replicas: i32,
    /// Required.
    pub max_replicas: i32,
    /// 80 percent of CPU when not given.
    pub metrics: Vec<MetricSpec>,
    /// Without it the controller goes a way of its own.
    pub behavior: Option<Behavior>,
}

/// What the API server fills in where `spec.metrics` is empty.
///
/// Source: `SetDefaults_HorizontalPodAutoscaler`.
#[must_use]
pub fn default_metric() -> MetricSpec {
    MetricSpec {
        source: Source::Resource { name: "cpu".into() },
        target: Target { kind: "Utilization".into(), average_utilization: Some(80), ..Target::default() },
    }
}
