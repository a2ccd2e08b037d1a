//! Kubernetes' objects as kubectl prints them: YAML or JSON, one or many, alone or in a `List`.
//!
//! Read leniently, as the API server's answers are: fields that no rule asks for are passed over.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{
    pods::{Container, Phase, Pod, Truth},
    quantity,
    selector::LabelSelector,
    spec::{
        Behavior, Hpa, Metric, MetricSpec, Policy, PolicyKind, Rules, SelectPolicy, Source, Target,
        TargetRef, default_metric,
    },
};

/// Everything that was found in some documents.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Autoscalers, with the status that they show.
    pub hpas: Vec<(Hpa, HpaStatus)>,
    /// Pods.
    pub pods: Vec<PodObject>,
    /// What may be scaled: Deployments and their like, and `Scale`s.
    pub scales: Vec<ScaleObject>,
    /// Answers of `metrics.k8s.io`.
    pub usages: Vec<PodUsage>,
    /// Answers of `custom.metrics.k8s.io`.
    pub customs: Vec<CustomValue>,
    /// Answers of `external.metrics.k8s.io`.
    pub externals: Vec<ExternalValue>,
    /// The kinds of what else there was.
    pub others: Vec<String>,
}

/// What an autoscaler's status says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HpaStatus {
    /// `currentReplicas`.
    pub current: Option<i32>,
    /// `desiredReplicas`.
    pub desired: i32,
    /// `lastScaleTime`.
    pub last_scale_ms: Option<i64>,
}

/// A pod.
#[derive(Debug, Clone)]
pub struct PodObject {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The kind and the name of who made it.
    pub owner: Option<(String, String)>,
    /// What the rules ask of it.
    pub pod: Pod,
    /// Regular containers and sidecars, with all that they request.
    containers: Vec<(String, BTreeMap<String, i64>)>,
    /// What the pod as a whole requests.
    whole: BTreeMap<String, i64>,
}

impl PodObject {
    /// What it requests of a resource; see [`super::pods::request`]. From 1.34 on requests of the pod as a whole
    /// come first, unless one container is meant.
    ///
    /// Source: `calculateRequests`.
    ///
    /// # Errors
    /// That it requests nothing, in the controller's words.
    pub fn request(&self, container: &str, resource: &str, minor: u32) -> Result<i64, String> {
        if minor >= 34 && container.is_empty() && !self.whole.is_empty() {
            let parts = || {
                let requests: Vec<i64> = self
                    .containers
                    .iter()
                    .filter_map(|(_, requests)| requests.get(resource).copied())
                    .collect();
                (!requests.is_empty()).then(|| requests.iter().fold(0i64, |sum, r| sum.wrapping_add(*r)))
            };
            return self
                .whole
                .get(resource)
                .copied()
                .or_else(parts)
                .ok_or_else(|| format!("missing pod-level request for {resource} in Pod {}", self.name));
        }
        let containers: Vec<Container> = self
            .containers
            .iter()
            .map(|(name, requests)| Container {
                name: name.clone(),
                request_milli: requests.get(resource).copied(),
            })
            .collect();
        super::pods::request(&self.name, &containers, container, resource, minor)
    }
}

/// What may be scaled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleObject {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `kind`; `Scale` for one of any.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// `spec.replicas`.
    pub spec: i32,
    /// `status.replicas`.
    pub status: i32,
    /// Which pods are its own.
    pub selector: Option<LabelSelector>,
}

/// What a pod uses.
#[derive(Debug, Clone, PartialEq)]
pub struct PodUsage {
    /// `metadata.namespace`.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// `timestamp`.
    pub at_ms: i64,
    /// `window`.
    pub window_ms: i64,
    /// Containers and what each uses.
    pub containers: Vec<(String, BTreeMap<String, i64>)>,
}

/// A value that an object reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomValue {
    /// The metric's name.
    pub metric: String,
    /// The object's kind, namespace and name.
    pub object: (String, String, String),
    /// `timestamp`.
    pub at_ms: i64,
    /// A minute when it is not said.
    pub window_ms: i64,
    /// The value.
    pub value_milli: i64,
}

/// A value from outside of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalValue {
    /// The metric's name.
    pub metric: String,
    /// The labels of its series.
    pub labels: BTreeMap<String, String>,
    /// `timestamp`.
    pub at_ms: i64,
    /// The value.
    pub value_milli: i64,
}

/// Reads documents: JSON values one after the other, or YAML with `---` between.
///
/// # Errors
/// What cannot be read, and why.
pub fn read(text: &str) -> Result<Objects, String> {
    let mut objects = Objects::default();
    for document in documents(text)? {
        objects.add(document, None)?;
    }
    Ok(objects)
}

fn documents(text: &str) -> Result<Vec<Value>, String> {
    let text = text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with(['{', '[']) {
        let json: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        // YAML may begin with a brace, too: only what neither can read is wrong.
        return json.or_else(|error| yaml(text).map_err(|_| format!("not JSON: {error}")));
    }
    yaml(text)
}

/// The limits are those of the parser, except that a thousand pods are a hundred thousand lines.
fn yaml(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 20_000_000,
            max_nodes: 20_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| format!("not YAML: {error}"))
}

impl Objects {
    /// Adds what was found elsewhere.
    pub fn merge(&mut self, other: Self) {
        self.hpas.extend(other.hpas);
        self.pods.extend(other.pods);
        self.scales.extend(other.scales);
        self.usages.extend(other.usages);
        self.customs.extend(other.customs);
        self.externals.extend(other.externals);
        self.others.extend(other.others);
    }

    /// The latest instant that any of it tells of: when it was looked at, as near as can be said.
    #[must_use]
    pub fn newest_ms(&self) -> Option<i64> {
        let usages = self.usages.iter().map(|usage| usage.at_ms);
        let values = self.customs.iter().map(|value| value.at_ms);
        let others = self.externals.iter().map(|value| value.at_ms);
        let pods = self.pods.iter().flat_map(|pod| [pod.pod.start_ms, pod.pod.ready.map(|(_, since)| since)]);
        let scaled = self.hpas.iter().filter_map(|(_, status)| status.last_scale_ms);
        usages.chain(values).chain(others).chain(pods.flatten()).chain(scaled).max()
    }

    fn add(&mut self, document: Value, item_kind: Option<&str>) -> Result<(), String> {
        if document.is_null() {
            return Ok(());
        }
        if let Value::Array(items) = document {
            return items.into_iter().try_for_each(|item| self.add(item, item_kind));
        }
        let own = document.get("kind").and_then(Value::as_str).map(ToOwned::to_owned);
        let kind = own.as_deref().or(item_kind).unwrap_or_default().to_owned();
        if let Some(of) = kind.strip_suffix("List") {
            let of = (!of.is_empty()).then_some(of);
            let items = match document {
                Value::Object(mut list) => list.remove("items").unwrap_or_default(),
                _ => Value::Null,
            };
            return self.add(items, of);
        }
        let name = document.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("?").to_owned();
        self.add_one(&kind, document).map_err(|error| format!("{kind} {name}: {error}"))
    }

    fn add_one(&mut self, kind: &str, document: Value) -> Result<(), String> {
        match kind {
            "HorizontalPodAutoscaler" => self.hpas.push(typed::<RawHpa>(document)?.hpa()?),
            "Pod" => self.pods.push(typed::<RawPod>(document)?.pod()?),
            "PodMetrics" => self.usages.push(typed::<RawUsage>(document)?.usage()?),
            "MetricValue" => self.customs.push(typed::<RawCustom>(document)?.value()?),
            "ExternalMetricValue" => self.externals.push(typed::<RawExternal>(document)?.value()?),
            "Scale" | "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController" => {
                self.scales.push(typed::<RawScale>(document)?.scale(kind)?);
            }
            "" => return Err("it has no `kind`".into()),
            other => self.others.push(other.to_owned()),
        }
        Ok(())
    }
}

fn typed<T: for<'de> Deserialize<'de>>(document: Value) -> Result<T, String> {
    serde_json::from_value(document).map_err(|error| error.to_string())
}

/// An instant as the API writes it.
pub(super) fn instant(text: &str) -> Result<i64, String> {
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| format!("{text:?} is not a time"))?;
    Ok(match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    })
}

/// A duration as Go writes it: `15s`, `1m0s`, `15.4s`, `500ms`.
fn duration(text: &str) -> Result<i64, String> {
    let refused = || format!("{text:?} is not a duration such as 15s or 1m0s");
    let mut rest = text;
    let mut ms = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refused)?;
        let unit =
            rest[number..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| number + length);
        let scale = match &rest[number..unit] {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1000.0,
            "ms" => 1.0,
            "us" | "µs" => 1e-3,
            "ns" => 1e-6,
            _ => return Err(refused()),
        };
        ms += rest[..number].parse::<f64>().map_err(|_| refused())? * scale;
        rest = &rest[unit..];
    }
    Ok(ms.round() as i64)
}

/// A quantity in thousandths: text, or a number that nobody quoted.
#[derive(Clone, Copy)]
struct Milli(i64);

impl<'de> Deserialize<'de> for Milli {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        quantity_text(from)
            .and_then(|text| quantity::milli(&text).map(Self).map_err(serde::de::Error::custom))
    }
}

/// A quantity as a number.
#[derive(Clone, Copy)]
struct Ratio(f64);

impl<'de> Deserialize<'de> for Ratio {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        quantity_text(from)
            .and_then(|text| quantity::float(&text).map(Self).map_err(serde::de::Error::custom))
    }
}

fn quantity_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(serde::de::Error::custom("a quantity is a text such as 500m")),
    }
}

type Quantities = BTreeMap<String, Milli>;

fn plain(quantities: Quantities) -> BTreeMap<String, i64> {
    quantities.into_iter().map(|(name, Milli(value))| (name, value)).collect()
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    deletion_timestamp: Option<String>,
    owner_references: Vec<RawRef>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawRef {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct RawHpa {
    #[serde(default)]
    metadata: Meta,
    spec: RawHpaSpec,
    #[serde(default)]
    status: RawHpaStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawHpaSpec {
    scale_target_ref: RawRef,
    min_replicas: Option<i32>,
    max_replicas: i32,
    #[serde(default)]
    metrics: Vec<RawMetric>,
    /// Of `autoscaling/v1`.
    #[serde(rename = "targetCPUUtilizationPercentage")]
    target_cpu: Option<i32>,
    behavior: Option<RawBehavior>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawHpaStatus {
    current_replicas: Option<i32>,
    desired_replicas: i32,
    last_scale_time: Option<String>,
}

impl RawHpa {
    /// The autoscaler after the API server's defaulting and checks, as far as rules ask for them.
    ///
    /// Source: `SetDefaults_HorizontalPodAutoscaler`, `SetDefaults_HorizontalPodAutoscalerBehavior`; the checks are
    /// those of `pkg/apis/autoscaling/validation`.
    fn hpa(self) -> Result<(Hpa, HpaStatus), String> {
        let spec = self.spec;
        let mut metrics: Vec<MetricSpec> =
            spec.metrics.into_iter().map(RawMetric::spec).collect::<Result<_, _>>()?;
        if metrics.is_empty() {
            let mut metric = default_metric();
            metric.target.average_utilization = spec.target_cpu.or(metric.target.average_utilization);
            metrics.push(metric);
        }
        let min_replicas = spec.min_replicas.unwrap_or(1);
        if min_replicas < 0 || spec.max_replicas < 1 || spec.max_replicas < min_replicas {
            return Err(format!(
                "minReplicas {min_replicas} and maxReplicas {} are no range: 0 <= minReplicas <= maxReplicas, 1 <= maxReplicas",
                spec.max_replicas
            ));
        }
        let hpa = Hpa {
            namespace: self.metadata.namespace,
            name: self.metadata.name,
            target: TargetRef {
                api_version: spec.scale_target_ref.api_version,
                kind: spec.scale_target_ref.kind,
                name: spec.scale_target_ref.name,
            },
            min_replicas,
            max_replicas: spec.max_replicas,
            metrics,
            behavior: spec.behavior.map(RawBehavior::behavior).transpose()?,
        };
        let status = HpaStatus {
            current: self.status.current_replicas,
            desired: self.status.desired_replicas,
            last_scale_ms: self.status.last_scale_time.as_deref().map(instant).transpose()?,
        };
        Ok((hpa, status))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBehavior {
    scale_up: Option<RawRules>,
    scale_down: Option<RawRules>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRules {
    stabilization_window_seconds: Option<i32>,
    select_policy: Option<String>,
    policies: Option<Vec<RawPolicy>>,
    tolerance: Option<Ratio>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPolicy {
    #[serde(rename = "type")]
    kind: String,
    value: i32,
    period_seconds: i32,
}

impl RawBehavior {
    fn behavior(self) -> Result<Behavior, String> {
        let over = |given: Option<RawRules>, rules: Rules| match given {
            Some(given) => given.over(rules),
            None => Ok(rules),
        };
        Ok(Behavior { up: over(self.scale_up, Rules::up())?, down: over(self.scale_down, Rules::down())? })
    }
}

impl RawRules {
    fn over(self, mut rules: Rules) -> Result<Rules, String> {
        if let Some(seconds) = self.stabilization_window_seconds {
            if !(0..=3600).contains(&seconds) {
                return Err(format!("stabilizationWindowSeconds is 0 to 3600, not {seconds}"));
            }
            rules.stabilization_window_seconds = Some(seconds);
        }
        match self.select_policy.as_deref() {
            None | Some("Max") => {}
            Some("Min") => rules.select_policy = SelectPolicy::Min,
            Some("Disabled") => rules.select_policy = SelectPolicy::Disabled,
            Some(other) => return Err(format!("selectPolicy is Max, Min or Disabled, not {other:?}")),
        }
        if let Some(policies) = self.policies {
            if policies.is_empty() {
                return Err("policies must not be empty".into());
            }
            rules.policies = policies.into_iter().map(RawPolicy::policy).collect::<Result<_, _>>()?;
        }
        if let Some(Ratio(tolerance)) = self.tolerance {
            if tolerance < 0.0 {
                return Err("a tolerance is not negative".into());
            }
            rules.tolerance = Some(tolerance);
        }
        Ok(rules)
    }
}

impl RawPolicy {
    fn policy(self) -> Result<Policy, String> {
        let kind = match self.kind.as_str() {
            "Pods" => PolicyKind::Pods,
            "Percent" => PolicyKind::Percent,
            other => return Err(format!("a policy's type is Pods or Percent, not {other:?}")),
        };
        if self.value < 1 || !(1..=1800).contains(&self.period_seconds) {
            return Err(format!(
                "a policy has a value of 1 or more and periodSeconds of 1 to 1800, not {} and {}",
                self.value, self.period_seconds
            ));
        }
        Ok(Policy { kind, value: self.value, period_seconds: self.period_seconds })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMetric {
    #[serde(rename = "type")]
    kind: String,
    resource: Option<RawSource>,
    container_resource: Option<RawSource>,
    pods: Option<RawSource>,
    object: Option<RawSource>,
    external: Option<RawSource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSource {
    #[serde(default)]
    name: String,
    #[serde(default)]
    container: String,
    metric: Option<RawIdentifier>,
    #[serde(default)]
    described_object: RawRef,
    target: RawTarget,
}

#[derive(Deserialize)]
struct RawIdentifier {
    name: String,
    selector: Option<RawSelector>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawSelector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<RawExpression>,
}

#[derive(Deserialize)]
struct RawExpression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTarget {
    #[serde(rename = "type", default)]
    kind: String,
    average_utilization: Option<i32>,
    average_value: Option<Milli>,
    value: Option<Milli>,
}

impl RawSelector {
    fn selector(self) -> LabelSelector {
        let expressions =
            self.match_expressions.into_iter().map(|each| (each.key, each.operator, each.values));
        LabelSelector { labels: self.match_labels, expressions: expressions.collect() }
    }
}

impl RawMetric {
    fn spec(self) -> Result<MetricSpec, String> {
        let kind = self.kind;
        let missing = |field: &str| format!("a metric of type {kind} has a field `{field}`");
        let (source, target) = match kind.as_str() {
            "Resource" => {
                let raw = self.resource.ok_or_else(|| missing("resource"))?;
                (Source::Resource { name: raw.name }, raw.target)
            }
            "ContainerResource" => {
                let raw = self.container_resource.ok_or_else(|| missing("containerResource"))?;
                (Source::ContainerResource { name: raw.name, container: raw.container }, raw.target)
            }
            "Pods" => {
                let raw = self.pods.ok_or_else(|| missing("pods"))?;
                (Source::Pods(identified(raw.metric)?), raw.target)
            }
            "Object" => {
                let raw = self.object.ok_or_else(|| missing("object"))?;
                let RawRef { kind, name, .. } = raw.described_object;
                (Source::Object { metric: identified(raw.metric)?, kind, name }, raw.target)
            }
            "External" => {
                let raw = self.external.ok_or_else(|| missing("external"))?;
                (Source::External(identified(raw.metric)?), raw.target)
            }
            other => return Err(format!("there is no metric of type {other:?}")),
        };
        Ok(MetricSpec { source, target: target.target()? })
    }
}

fn identified(metric: Option<RawIdentifier>) -> Result<Metric, String> {
    let metric = metric.ok_or("the metric has no name")?;
    Ok(Metric { name: metric.name, selector: metric.selector.map(RawSelector::selector) })
}

impl RawTarget {
    fn target(self) -> Result<Target, String> {
        let milli = |value: Option<Milli>| value.map(|Milli(value)| value);
        let target = Target {
            kind: self.kind,
            average_utilization: self.average_utilization,
            average_value_milli: milli(self.average_value),
            value_milli: milli(self.value),
        };
        let percent = target.average_utilization.map(i64::from);
        if [percent, target.average_value_milli, target.value_milli]
            .into_iter()
            .flatten()
            .any(|value| value <= 0)
        {
            return Err("a target is positive".into());
        }
        Ok(target)
    }
}

#[derive(Deserialize)]
struct RawPod {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: RawPodSpec,
    #[serde(default)]
    status: RawPodStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawPodSpec {
    containers: Vec<RawContainer>,
    init_containers: Vec<RawContainer>,
    resources: RawResources,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawContainer {
    name: String,
    resources: RawResources,
    restart_policy: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawResources {
    requests: Quantities,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawPodStatus {
    phase: String,
    start_time: Option<String>,
    conditions: Vec<RawCondition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<String>,
}

impl RawPod {
    fn pod(self) -> Result<PodObject, String> {
        let ready = match self.status.conditions.iter().find(|condition| condition.kind == "Ready") {
            None => None,
            Some(condition) => {
                // A time that is not there is the zero time: very long ago.
                let since = condition.last_transition_time.as_deref().map(instant).transpose()?;
                Some((Truth::of(&condition.status), since.unwrap_or(i64::MIN / 4)))
            }
        };
        let pod = Pod {
            phase: Phase::of(&self.status.phase),
            deleted: self.metadata.deletion_timestamp.is_some(),
            ready,
            start_ms: self.status.start_time.as_deref().map(instant).transpose()?,
        };
        let sidecars = self.spec.init_containers.into_iter().filter(|each| each.restart_policy == "Always");
        let containers = self.spec.containers.into_iter().chain(sidecars);
        let owner = self.metadata.owner_references.into_iter().next();
        Ok(PodObject {
            namespace: self.metadata.namespace,
            name: self.metadata.name,
            labels: self.metadata.labels,
            owner: owner.map(|owner| (owner.kind, owner.name)),
            pod,
            containers: containers.map(|each| (each.name, plain(each.resources.requests))).collect(),
            whole: plain(self.spec.resources.requests),
        })
    }
}

#[derive(Deserialize)]
struct RawScale {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: RawScaleSpec,
    #[serde(default)]
    status: RawScaleStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawScaleSpec {
    replicas: Option<i32>,
    selector: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawScaleStatus {
    replicas: i32,
    selector: Value,
}

impl RawScale {
    fn scale(self, kind: &str) -> Result<ScaleObject, String> {
        let selector = if kind == "Scale" { self.status.selector } else { self.spec.selector };
        let selector = match selector {
            Value::Null => None,
            Value::String(text) => Some(LabelSelector::parse(&text)?),
            map if kind == "ReplicationController" => {
                Some(LabelSelector { labels: typed(map)?, expressions: Vec::new() })
            }
            structured => Some(typed::<RawSelector>(structured)?.selector()),
        };
        Ok(ScaleObject {
            namespace: self.metadata.namespace,
            kind: kind.to_owned(),
            name: self.metadata.name,
            // A Scale leaves a zero out; of a workload, the API server has filled it in.
            spec: self.spec.replicas.unwrap_or(i32::from(kind != "Scale")),
            status: self.status.replicas,
            selector,
        })
    }
}

#[derive(Deserialize)]
struct RawUsage {
    #[serde(default)]
    metadata: Meta,
    timestamp: String,
    window: String,
    #[serde(default)]
    containers: Vec<RawContainerUsage>,
}

#[derive(Deserialize)]
struct RawContainerUsage {
    #[serde(default)]
    name: String,
    #[serde(default)]
    usage: Quantities,
}

impl RawUsage {
    fn usage(self) -> Result<PodUsage, String> {
        Ok(PodUsage {
            namespace: self.metadata.namespace,
            name: self.metadata.name,
            at_ms: instant(&self.timestamp)?,
            window_ms: duration(&self.window)?,
            containers: self.containers.into_iter().map(|each| (each.name, plain(each.usage))).collect(),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCustom {
    #[serde(default)]
    described_object: RawRef,
    metric_name: Option<String>,
    metric: Option<RawIdentifier>,
    timestamp: String,
    #[serde(alias = "window")]
    window_seconds: Option<i64>,
    value: Milli,
}

impl RawCustom {
    fn value(self) -> Result<CustomValue, String> {
        let metric =
            self.metric_name.or(self.metric.map(|metric| metric.name)).ok_or("the metric has no name")?;
        let RawRef { kind, namespace, name, .. } = self.described_object;
        Ok(CustomValue {
            metric,
            object: (kind, namespace, name),
            at_ms: instant(&self.timestamp)?,
            window_ms: self.window_seconds.unwrap_or(60).saturating_mul(1000),
            value_milli: self.value.0,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawExternal {
    metric_name: String,
    #[serde(default)]
    metric_labels: Option<BTreeMap<String, String>>,
    timestamp: String,
    value: Milli,
}

impl RawExternal {
    fn value(self) -> Result<ExternalValue, String> {
        Ok(ExternalValue {
            metric: self.metric_name,
            labels: self.metric_labels.unwrap_or_default(),
            at_ms: instant(&self.timestamp)?,
            value_milli: self.value.0,
        })
    }
}
