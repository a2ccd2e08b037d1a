//! One sync of one autoscaler: from the scale, the pods and their metrics to a new scale, status and events.
//!
//! Source: `horizontal.go`, `reconcileAutoscaler`; the functions below name theirs.

use std::{borrow::Cow, fmt};

use super::{
    Config,
    behavior::{self, History, Limited, Recommendation},
    calculator::{self, Basis, Proposal},
    pods::{Observation, Pod},
    selector::LabelSelector,
    spec::{Hpa, Metric, MetricSpec, Source},
};

/// The scale of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// `spec.replicas`.
    pub spec: i32,
    /// `status.replicas`.
    pub status: i32,
    /// Whether its selector can be used.
    pub selector: Selection,
}

/// What becomes of a scale's `status.selector`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// It selects pods, and no other autoscaler's does.
    Usable,
    /// There is none.
    Missing,
    /// It cannot be parsed, and why.
    Invalid(String),
    /// Its pods belong to several autoscalers.
    Ambiguous {
        /// The selector.
        selector: String,
        /// The autoscalers, `namespace/name`. The controller's order is that of a Go map: any.
        autoscalers: Vec<String>,
    },
}

/// What the metrics API answers for one metric.
#[derive(Debug, Clone, Copy)]
pub enum Reading<'a> {
    /// Values of pods.
    Pods(Observation<'a>),
    /// The value of an object.
    Object(i64),
    /// The values of an external metric.
    External(&'a [i64]),
    /// Nothing, and why.
    Failed(&'a str),
}

/// All that a sync is given.
#[derive(Debug, Clone, Copy)]
pub struct Sync<'a> {
    /// When it is.
    pub now_ms: i64,
    /// The scale, or why there is none.
    pub scale: Result<&'a Scale, &'a str>,
    /// Why the scale cannot be written.
    pub update_error: Option<&'a str>,
    /// The pods that the target's selector finds.
    pub pods: &'a [Pod],
    /// For each of the autoscaler's metrics.
    pub readings: &'a [Reading<'a>],
}

/// One of `status.conditions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `AbleToScale`, `ScalingActive` or `ScalingLimited`.
    pub kind: Cow<'static, str>,
    /// `True` or `False`.
    pub status: Cow<'static, str>,
    /// In one word.
    pub reason: Cow<'static, str>,
    /// In a sentence.
    pub message: Cow<'static, str>,
}

/// What the status shows of one metric; nothing for one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricStatus {
    /// The average of a pod.
    pub average_value_milli: Option<i64>,
    /// Percent of what pods request.
    pub average_utilization: Option<i32>,
    /// One value.
    pub value_milli: Option<i64>,
}

/// The status of an autoscaler.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// `currentReplicas`.
    pub current: i32,
    /// `desiredReplicas`.
    pub desired: i32,
    /// `lastScaleTime`.
    pub last_scale_ms: Option<i64>,
    /// `conditions`, in the order in which they first appeared.
    pub conditions: Vec<Condition>,
    /// `currentMetrics`, in the order of the spec.
    pub metrics: Vec<MetricStatus>,
}

impl Status {
    /// The reason of a condition, where it is there.
    #[must_use]
    pub fn reason(&self, kind: &str) -> Option<&str> {
        self.conditions.iter().find(|condition| condition.kind == kind).map(|condition| &*condition.reason)
    }

    /// The same with a message of many words, which is written only when it is a new one: most syncs repeat the last.
    fn set_written(
        &mut self,
        kind: &'static str,
        is_true: bool,
        reason: &'static str,
        message: fmt::Arguments<'_>,
    ) {
        let status = if is_true { "True" } else { "False" };
        let is_same = self.conditions.iter().any(|condition| {
            condition.kind == kind
                && condition.status == status
                && condition.reason == reason
                && is_written(&condition.message, message)
        });
        if !is_same {
            self.set(kind, is_true, reason, message.to_string());
        }
    }

    /// Source: `setConditionInList`.
    fn set(
        &mut self,
        kind: &'static str,
        is_true: bool,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) {
        let status = if is_true { "True" } else { "False" };
        let condition = Condition {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
        };
        match self.conditions.iter_mut().find(|condition| condition.kind == kind) {
            Some(present) => *present = condition,
            None => self.conditions.push(condition),
        }
    }
}

/// Whether a text is what the arguments would write.
fn is_written(text: &str, arguments: fmt::Arguments<'_>) -> bool {
    struct Rest<'a>(&'a str);
    impl fmt::Write for Rest<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let mut rest = Rest(text);
    fmt::Write::write_fmt(&mut rest, arguments).is_ok() && rest.0.is_empty()
}

/// An event of the autoscaler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether it is of type `Warning`.
    pub is_warning: bool,
    /// In one word.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// The label `action` of the controller's own metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `scale_up`.
    ScaleUp,
    /// `scale_down`.
    ScaleDown,
    /// `none`.
    None,
}

impl Action {
    fn towards(from: i32, to: i32) -> Self {
        match to.cmp(&from) {
            std::cmp::Ordering::Greater => Self::ScaleUp,
            std::cmp::Ordering::Less => Self::ScaleDown,
            std::cmp::Ordering::Equal => Self::None,
        }
    }

    /// As the controller writes it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ScaleUp => "scale_up",
            Self::ScaleDown => "scale_down",
            Self::None => "none",
        }
    }
}

/// The label `error` of the controller's own metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `none`.
    None,
    /// `internal`.
    Internal,
    /// `spec`: the autoscaler itself is wrong.
    Spec,
}

impl Fault {
    /// As the controller writes it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Internal => "internal",
            Self::Spec => "spec",
        }
    }
}

/// What became of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Computed {
    /// What it asks for, or why it asks for nothing.
    pub outcome: Result<Proposal, String>,
    /// The action that it would have.
    pub action: Action,
    /// Whose fault it is.
    pub fault: Fault,
}

/// What a sync did.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What the metrics asked for, when they were asked and one answered.
    pub proposed: Option<i32>,
    /// What the windows made of it.
    pub stabilized: Option<i32>,
    /// What bounds and rates made of that.
    pub limited: Option<Limited>,
    /// The replicas after the sync.
    pub replicas: i32,
    /// Whether the scale was written.
    pub is_rescaled: bool,
    /// Why it was to be written; empty when only the windows asked for it.
    pub rescale_reason: String,
    /// Whether the status changed and was written.
    pub is_status_updated: bool,
    /// In the order in which they were sent.
    pub events: Vec<Event>,
    /// In the order of the spec; empty when the metrics were not asked.
    pub computed: Vec<Computed>,
    /// The action of the whole.
    pub action: Action,
    /// Whose fault it is that it failed, where it did.
    pub fault: Fault,
}

impl Outcome {
    fn at(replicas: i32) -> Self {
        Self {
            proposed: None,
            stabilized: None,
            limited: None,
            replicas,
            is_rescaled: false,
            rescale_reason: String::new(),
            is_status_updated: false,
            events: Vec::new(),
            computed: Vec::new(),
            action: Action::None,
            fault: Fault::None,
        }
    }

    fn warn(&mut self, reason: &'static str, message: impl Into<String>) {
        self.events.push(Event { is_warning: true, reason, message: message.into() });
    }
}

/// What the controller holds of one autoscaler from one sync to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// In the API.
    pub status: Status,
    /// In the controller's memory.
    pub history: History,
}

/// What the metrics together ask for.
struct Wanted<'a> {
    replicas: i32,
    metric: Option<Description<'a>>,
    /// Whether a metric failed that could be done without.
    is_partial: bool,
}

impl State {
    /// One sync.
    ///
    /// Source: `reconcileAutoscaler`.
    pub fn sync(&mut self, hpa: &Hpa, sync: &Sync<'_>, config: &Config) -> Outcome {
        let before = self.status.clone();
        let mut outcome = self.reconcile(hpa, sync, config);
        outcome.is_status_updated = self.status != before;
        outcome
    }

    fn reconcile(&mut self, hpa: &Hpa, sync: &Sync<'_>, config: &Config) -> Outcome {
        let scale = match group_of(&hpa.target.api_version)
            .and(sync.scale.map_err(|error| (error.into(), Fault::Internal)))
        {
            Ok(scale) => scale,
            Err((error, fault)) => return self.without_scale(&error, fault),
        };
        self.status.set(
            "AbleToScale",
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        );
        let current = scale.spec;
        self.history
            .recommendations
            .get_or_insert_with(|| vec![Recommendation { replicas: current, at_ms: sync.now_ms }]);
        let mut outcome = Outcome::at(current);
        let mut metrics = Vec::new();
        let desired = if current == 0 && hpa.min_replicas != 0 {
            self.status.set(
                "ScalingActive",
                false,
                "ScalingDisabled",
                "scaling is disabled since the replica count of the target is zero",
            );
            current
        } else if current > hpa.max_replicas {
            outcome.rescale_reason = "Current number of replicas above Spec.MaxReplicas".into();
            hpa.max_replicas
        } else if current < hpa.min_replicas {
            outcome.rescale_reason = "Current number of replicas below Spec.MinReplicas".into();
            hpa.min_replicas
        } else {
            match self.desired(hpa, scale, sync, config, &mut metrics, &mut outcome) {
                Some(desired) => desired,
                None => {
                    self.show(current, self.status.desired, metrics, None);
                    return outcome;
                }
            }
        };
        if desired != current && !self.rescale(hpa, current, desired, sync, &mut outcome) {
            self.show(current, self.status.desired, metrics, None);
            return outcome;
        }
        self.show(current, desired, metrics, outcome.is_rescaled.then_some(sync.now_ms));
        outcome
    }

    fn without_scale(&mut self, error: &str, fault: Fault) -> Outcome {
        let mut outcome = Outcome::at(self.status.desired);
        outcome.fault = fault;
        outcome.warn("FailedGetScale", error);
        let message = format!("the HPA controller was unable to get the target's current scale: {error}");
        self.status.set("AbleToScale", false, "FailedGetScale", message);
        outcome
    }

    /// What the metrics ask for, stabilized and limited; none when they cannot be gone by.
    fn desired(
        &mut self,
        hpa: &Hpa,
        scale: &Scale,
        sync: &Sync<'_>,
        config: &Config,
        metrics: &mut Vec<MetricStatus>,
        outcome: &mut Outcome,
    ) -> Option<i32> {
        let current = scale.spec;
        let wanted = match self.wanted(hpa, scale, sync, config, metrics, outcome) {
            Ok(wanted) => wanted,
            Err(error) => {
                outcome.fault = Fault::Internal;
                outcome.warn("FailedComputeMetricsReplicas", error);
                return None;
            }
        };
        if wanted.is_partial {
            outcome.fault = Fault::Internal;
        }
        outcome.proposed = Some(wanted.replicas);
        let desired = wanted.replicas.max(0);
        if desired > current {
            let metric = wanted.metric.map(|metric| metric.to_string()).unwrap_or_default();
            outcome.rescale_reason = format!("{metric} above target");
        } else if desired < current {
            outcome.rescale_reason = "All metrics below target".into();
        }
        Some(self.normalize(hpa, current, desired, sync.now_ms, config, outcome))
    }

    /// Stabilization, then bounds and rates, and the conditions that tell of them.
    ///
    /// Source: `normalizeDesiredReplicas`, `normalizeDesiredReplicasWithBehaviors`,
    /// `maybeInitScaleDownStabilizationWindow`.
    fn normalize(
        &mut self,
        hpa: &Hpa,
        current: i32,
        desired: i32,
        now_ms: i64,
        config: &Config,
        outcome: &mut Outcome,
    ) -> i32 {
        let log = self.history.recommendations.get_or_insert_default();
        let (stabilized, limited) = match &hpa.behavior {
            None => {
                let stabilized = behavior::stabilize(log, desired, now_ms, config);
                let (min, max) = (hpa.min_replicas, hpa.max_replicas);
                (stabilized, behavior::within_rules(current, stabilized, min, max, config))
            }
            Some(rules) => {
                let stabilized =
                    behavior::stabilize_both(log, current, desired, windows(rules, config), now_ms);
                let bounds = (hpa.min_replicas, hpa.max_replicas);
                (
                    stabilized,
                    behavior::within_rates(current, stabilized, bounds, rules, &self.history, now_ms),
                )
            }
        };
        let (reason, message) = if stabilized == desired {
            ("ReadyForNewScale", "recommended size matches current size")
        } else if hpa.behavior.is_some() && desired >= current {
            (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        } else {
            (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        };
        self.status.set("AbleToScale", true, reason, message);
        self.status.set("ScalingLimited", limited.replicas != stabilized, limited.reason, limited.message);
        outcome.stabilized = Some(stabilized);
        outcome.limited = Some(limited);
        limited.replicas
    }

    /// Writes the scale; false when that fails.
    fn rescale(
        &mut self,
        hpa: &Hpa,
        current: i32,
        desired: i32,
        sync: &Sync<'_>,
        outcome: &mut Outcome,
    ) -> bool {
        let reason = &outcome.rescale_reason;
        if let Some(error) = sync.update_error {
            let message = format!("New size: {desired}; reason: {reason}; error: {error}");
            outcome.fault = Fault::Internal;
            outcome.warn("FailedRescale", message);
            let message = format!("the HPA controller was unable to update the target scale: {error}");
            self.status.set("AbleToScale", false, "FailedUpdateScale", message);
            return false;
        }
        let message = format!("the HPA controller was able to update the target scale to {desired}");
        self.status.set("AbleToScale", true, "SucceededRescale", message);
        let message = format!("New size: {desired}; reason: {reason}");
        outcome.events.push(Event { is_warning: false, reason: "SuccessfulRescale", message });
        if let Some(rules) = &hpa.behavior {
            behavior::store(&mut self.history, rules, current, desired, sync.now_ms);
        }
        outcome.replicas = desired;
        outcome.is_rescaled = true;
        outcome.action = Action::towards(current, desired);
        true
    }

    /// Source: `setStatus`.
    fn show(&mut self, current: i32, desired: i32, metrics: Vec<MetricStatus>, scaled_ms: Option<i64>) {
        self.status.current = current;
        self.status.desired = desired;
        self.status.metrics = metrics;
        self.status.last_scale_ms = scaled_ms.or(self.status.last_scale_ms);
    }

    /// The most that any metric asks for. Metrics that fail do not count, unless all do, or the others would scale
    /// down: then nothing is done.
    ///
    /// Source: `computeReplicasForMetrics`.
    fn wanted<'a>(
        &mut self,
        hpa: &'a Hpa,
        scale: &Scale,
        sync: &Sync<'_>,
        config: &Config,
        metrics: &mut Vec<MetricStatus>,
        outcome: &mut Outcome,
    ) -> Result<Wanted<'a>, String> {
        self.check(&scale.selector, outcome)?;
        let basis = Basis {
            current: scale.spec,
            status: scale.status,
            now_ms: sync.now_ms,
            tolerances: config.tolerances(hpa.behavior.as_ref()),
            config,
        };
        let (mut replicas, mut chosen) = (0, None);
        let mut first: Option<Failure> = None;
        let mut failed = 0;
        for (index, spec) in hpa.metrics.iter().enumerate() {
            let reading =
                sync.readings.get(index).copied().unwrap_or(Reading::Failed("the metric was not read"));
            match compute(spec, &hpa.namespace, reading, sync.pods, &basis) {
                Ok(proposal) => {
                    metrics.push(shown(spec, &proposal));
                    outcome.computed.push(Computed {
                        outcome: Ok(proposal),
                        action: Action::towards(self.status.current, proposal.replicas),
                        fault: Fault::None,
                    });
                    if replicas == 0 || proposal.replicas > replicas {
                        (replicas, chosen) = (proposal.replicas, Some(spec));
                    }
                }
                Err(failure) => {
                    metrics.push(MetricStatus::default());
                    outcome.warn(failure.reason, failure.cause.clone());
                    outcome.computed.push(Computed {
                        outcome: Err(failure.error.clone()),
                        action: Action::None,
                        fault: failure.fault,
                    });
                    failed += 1;
                    first.get_or_insert(failure);
                }
            }
        }
        if let Some(failure) = first.as_ref().filter(|_| failed == hpa.metrics.len() || replicas < scale.spec)
        {
            let message = format!("the HPA was unable to compute the replica count: {}", failure.cause);
            self.status.set("ScalingActive", false, failure.reason, message);
            return Err(format!(
                "invalid metrics ({failed} invalid out of {}), first error is: {}",
                hpa.metrics.len(),
                failure.error
            ));
        }
        let metric = chosen.map(Description);
        let name: &dyn fmt::Display = metric.as_ref().map_or(&"", |metric| metric);
        let message = format_args!("the HPA was able to successfully calculate a replica count from {name}");
        self.status.set_written("ScalingActive", true, "ValidMetricFound", message);
        Ok(Wanted { replicas, metric, is_partial: first.is_some() })
    }

    /// Source: `validateAndParseSelector`.
    fn check(&mut self, selector: &Selection, outcome: &mut Outcome) -> Result<(), String> {
        let (event, reason, message, error) = match selector {
            Selection::Usable => return Ok(()),
            Selection::Missing => (
                "SelectorRequired",
                "InvalidSelector",
                "the HPA target's scale is missing a selector".to_owned(),
                "selector is required".to_owned(),
            ),
            Selection::Invalid(why) => {
                let error =
                    format!("couldn't convert selector into a corresponding internal selector object: {why}");
                ("InvalidSelector", "InvalidSelector", error.clone(), error)
            }
            Selection::Ambiguous { selector, autoscalers } => {
                let error = format!(
                    "pods by selector {selector} are controlled by multiple HPAs: [{}]",
                    autoscalers.join(" ")
                );
                ("AmbiguousSelector", "AmbiguousSelector", error.clone(), error)
            }
        };
        outcome.warn(event, error.clone());
        self.status.set("ScalingActive", false, reason, message);
        Err(error)
    }
}

/// Both windows in seconds, the flag where the one for scaling down is not set.
fn windows(rules: &super::spec::Behavior, config: &Config) -> (i32, i32) {
    let flag = i32::try_from(config.downscale_stabilization_ms / 1000).unwrap_or(i32::MAX);
    let up = rules.up.stabilization_window_seconds.unwrap_or(0);
    (up, rules.down.stabilization_window_seconds.unwrap_or(flag))
}

/// Source: `schema.ParseGroupVersion`, whose failure is the only one that is the spec's fault here.
fn group_of(api_version: &str) -> Result<(), (String, Fault)> {
    if api_version.matches('/').count() > 1 {
        return Err((format!("unexpected GroupVersion string: {api_version}"), Fault::Spec));
    }
    Ok(())
}

/// Why a metric gives no number.
struct Failure {
    /// The reason of the condition and of the event.
    reason: &'static str,
    /// What they say.
    cause: String,
    /// What goes up to the sync.
    error: String,
    fault: Fault,
}

impl Failure {
    fn of(reason: &'static str, cause: String, error: String) -> Self {
        Self { reason, cause, error, fault: Fault::Internal }
    }
}

/// Source: `computeReplicasForMetric` and the `computeStatusFor…Metric` of each kind, which differ in how they wrap
/// an error, and for which target they look first.
fn compute(
    spec: &MetricSpec,
    namespace: &str,
    reading: Reading<'_>,
    pods: &[Pod],
    basis: &Basis<'_>,
) -> Result<Proposal, Failure> {
    match &spec.source {
        Source::Resource { name } => resource(spec, name, reading, basis).map_err(|cause| {
            let error = format!("failed to get {name} resource metric value: {cause}");
            Failure::of("FailedGetResourceMetric", cause, error)
        }),
        Source::ContainerResource { name, container } => {
            resource(spec, name, reading, basis).map_err(|cause| {
                let error = format!("failed to get {container} container metric value: {cause}");
                Failure::of("FailedGetContainerResourceMetric", cause, error)
            })
        }
        Source::Pods(metric) => reported(spec, metric, reading, basis).map_err(|cause| {
            let error = format!("failed to get pods metric value: {cause}");
            Failure::of("FailedGetPodsMetric", cause, error)
        }),
        Source::Object { metric, kind, name } => {
            object(spec, metric, (kind, namespace, name), reading, pods, basis).map_err(|(cause, wrapped)| {
                let error = format!("failed to get object metric value: {wrapped}");
                Failure::of("FailedGetObjectMetric", cause, error)
            })
        }
        Source::External(metric) => {
            external(spec, metric, namespace, reading, pods, basis).map_err(|(cause, wrapped)| {
                let error = format!("failed to get {} external metric value: {wrapped}", metric.name);
                Failure::of("FailedGetExternalMetric", cause, error)
            })
        }
        Source::Unknown(kind) => {
            let cause = format!("unknown metric source type {kind:?}");
            Err(Failure {
                reason: "InvalidMetricSourceType",
                error: cause.clone(),
                cause,
                fault: Fault::Spec,
            })
        }
    }
}

/// Source: `computeStatusForResourceMetricGeneric`.
fn resource(
    spec: &MetricSpec,
    name: &str,
    reading: Reading<'_>,
    basis: &Basis<'_>,
) -> Result<Proposal, String> {
    let seen = match reading {
        Reading::Pods(seen) => Ok(seen),
        Reading::Failed(why) => Err(why),
        _ => Err("the metrics API gave values of something else than pods"),
    }
    .map_err(|why| format!("unable to get metrics for resource {name}: {why}"));
    let is_cpu = name == "cpu";
    if let Some(target_milli) = spec.target.average_value_milli {
        return seen
            .and_then(|seen| calculator::average(&seen, target_milli, is_cpu, basis))
            .map_err(|error| format!("failed to get {name} usage: {error}"));
    }
    let Some(percent) = spec.target.average_utilization else {
        return Err(
            "invalid resource metric source: neither an average utilization target nor an average value (usage) target was set"
                .into(),
        );
    };
    seen.and_then(|seen| calculator::utilization(&seen, percent, is_cpu, basis))
        .map_err(|error| format!("failed to get {name} utilization: {error}"))
}

/// Source: `computeStatusForPodsMetric`.
fn reported(
    spec: &MetricSpec,
    metric: &Metric,
    reading: Reading<'_>,
    basis: &Basis<'_>,
) -> Result<Proposal, String> {
    let Some(target_milli) = spec.target.average_value_milli else {
        // The API server refuses this; the controller would end here.
        return Err("invalid pods metric source: no average value target was set".into());
    };
    parsed(metric)?;
    match reading {
        Reading::Pods(seen) => calculator::average(&seen, target_milli, false, basis),
        Reading::Failed(why) => Err(format!("unable to get metric {}: {why}", metric.name)),
        _ => Err(format!("unable to get metric {}: it has values of something else than pods", metric.name)),
    }
}

/// An error as the condition says it, and as it goes up.
type Wrapped = (String, String);

/// Source: `computeStatusForObjectMetric`.
fn object(
    spec: &MetricSpec,
    metric: &Metric,
    (kind, namespace, name): (&str, &str, &str),
    reading: Reading<'_>,
    pods: &[Pod],
    basis: &Basis<'_>,
) -> Result<Proposal, Wrapped> {
    let plain = |error: String| (error.clone(), error);
    parsed(metric).map_err(plain)?;
    let value = match reading {
        Reading::Object(value) => Ok(value),
        Reading::Failed(why) => Err(why),
        _ => Err("the metrics API gave no value of an object"),
    };
    // The arguments of the controller's own message are in this order.
    let value = value
        .map_err(|why| format!("unable to get metric {}: {kind} on {namespace} {name}/{why}", metric.name));
    match (spec.target.kind.as_str(), spec.target.value_milli, spec.target.average_value_milli) {
        ("Value", Some(target_milli), _) => {
            value.and_then(|value| calculator::whole(value, target_milli, pods, basis)).map_err(plain)
        }
        ("AverageValue", _, Some(target_milli)) => {
            value.map(|value| calculator::shared(value, target_milli, basis)).map_err(|error| {
                (error.clone(), format!("failed to get {} object metric: {error}", metric.name))
            })
        }
        _ => Err(plain(
            "invalid object metric source: neither a value target nor an average value target was set".into(),
        )),
    }
}

/// Source: `computeStatusForExternalMetric`.
fn external(
    spec: &MetricSpec,
    metric: &Metric,
    namespace: &str,
    reading: Reading<'_>,
    pods: &[Pod],
    basis: &Basis<'_>,
) -> Result<Proposal, Wrapped> {
    let read = || {
        parsed(metric)?;
        let why = match reading {
            Reading::External(values) => return Ok(values),
            Reading::Failed(why) => why,
            _ => "the metrics API gave values of something else",
        };
        let selector = printed(metric);
        Err(format!("unable to get external metric {namespace}/{}/{selector}: {why}", metric.name))
    };
    if let Some(target_milli) = spec.target.average_value_milli {
        return read().map(|values| calculator::external_shared(values, target_milli, basis)).map_err(
            |error| (error.clone(), format!("failed to get {} external metric: {error}", metric.name)),
        );
    }
    if let Some(target_milli) = spec.target.value_milli {
        return read()
            .and_then(|values| calculator::external_whole(values, target_milli, pods, basis))
            .map_err(|error| {
                (error.clone(), format!("failed to get external metric {}: {error}", metric.name))
            });
    }
    let error = "invalid external metric source: neither a value target nor an average value target was set";
    Err((error.into(), error.into()))
}

/// Refuses a selector that cannot be used.
fn parsed(metric: &Metric) -> Result<(), String> {
    metric.selector.as_ref().map_or(Ok(()), LabelSelector::check)
}

/// A metric's selector as `%+v` prints it.
fn printed(metric: &Metric) -> String {
    metric.selector.as_ref().map_or_else(|| "nil".into(), ToString::to_string)
}

/// What a metric is called in conditions and events.
struct Description<'a>(&'a MetricSpec);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = &self.0.target;
        match &self.0.source {
            Source::Resource { name } | Source::ContainerResource { name, .. }
                if target.average_value_milli.is_some() =>
            {
                write!(f, "{name} resource")
            }
            Source::Resource { name } => write!(f, "{name} resource utilization (percentage of request)"),
            Source::ContainerResource { name, .. } => {
                write!(f, "{name} container resource utilization (percentage of request)")
            }
            Source::Pods(metric) => write!(f, "pods metric {}", metric.name),
            Source::Object { metric, kind, .. } if target.kind == "Value" => {
                write!(f, "{kind} metric {}", metric.name)
            }
            // An object's average is called so, too.
            Source::Object { metric, .. } | Source::External(metric) => {
                write!(f, "external metric {}({})", metric.name, printed(metric))
            }
            Source::Unknown(kind) => f.write_str(kind),
        }
    }
}

/// What the status shows of a metric.
fn shown(spec: &MetricSpec, proposal: &Proposal) -> MetricStatus {
    let is_whole = match &spec.source {
        Source::Object { .. } => spec.target.kind == "Value",
        Source::External(_) => spec.target.average_value_milli.is_none(),
        _ => false,
    };
    let usage = Some(proposal.usage_milli);
    if is_whole {
        return MetricStatus { value_milli: usage, ..MetricStatus::default() };
    }
    MetricStatus { average_value_milli: usage, average_utilization: proposal.percent, value_milli: None }
}
