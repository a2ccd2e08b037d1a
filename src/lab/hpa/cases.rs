//! Cases as JSON: the inputs of the controller's own unit tests, and what it gives for them.
//!
//! A case is an object with a `group`, which says what is computed, and the `config` that the controller ran with;
//! a file of cases has both once, and the objects in `cases`. Every instant is an age in seconds before now.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::{
    Config,
    behavior::{self, History, Recommendation, ScaleEvent},
    calculator::{self, Basis, Proposal},
    controller::{Condition, MetricStatus, Outcome, Reading, Scale, Selection, State, Status, Sync},
    pods::{self, Aligned, Container, Group, Observation, Phase, Pod, Sample, Truth, align},
    selector::{LabelSelector, Selector},
    spec::{
        Behavior, Hpa, Metric, MetricSpec, Policy, PolicyKind, Rules, SelectPolicy, Source, Target, TargetRef,
    },
};

/// The present, in all cases.
const NOW_MS: i64 = 0;

/// A case that was computed.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What the unit tests look at.
    pub expect: Map<String, Value>,
    /// What else the controller did, for `reconcile`.
    pub observed: Option<Value>,
}

/// A case that cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name, where it has one.
    pub name: Option<String>,
    /// What is wrong with it.
    pub reason: String,
}

/// Computes one case, or all of a file, in their order.
///
/// # Errors
/// For each case by itself: what is wrong with it.
pub fn decide(document: Value) -> Vec<Result<Decided, Refused>> {
    let refused = |reason: &str| vec![Err(Refused { name: None, reason: reason.into() })];
    let Value::Object(mut file) = document else { return refused("a case is an object") };
    let Some(group) = file.get("group").and_then(Value::as_str).map(ToOwned::to_owned) else {
        return refused("a case says its `group`");
    };
    let config = file.remove("config");
    match file.remove("cases") {
        None => vec![one(&group, config.as_ref(), Value::Object(file))],
        Some(Value::Array(cases)) => {
            cases.into_iter().map(|case| one(&group, config.as_ref(), case)).collect()
        }
        Some(_) => refused("`cases` is a list"),
    }
}

fn one(group: &str, config: Option<&Value>, case: Value) -> Result<Decided, Refused> {
    let name = case.get("name").and_then(Value::as_str).map(ToOwned::to_owned);
    let own = case.get("config").cloned();
    let config = own.as_ref().or(config).cloned().unwrap_or_else(|| json!({}));
    let settings = read::<Settings>(config).map_err(|error| format!("config: {error}"));
    match settings.and_then(|settings| compute(group, settings, case)) {
        Ok((expect, observed)) => Ok(Decided { name, expect, observed }),
        Err(reason) => Err(Refused { name, reason }),
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

type Given = Result<(Map<String, Value>, Option<Value>), String>;

fn compute(group: &str, settings: Settings, case: Value) -> Given {
    let config = settings.config();
    let plain = |value: Value| match value {
        Value::Object(map) => Ok((map, None)),
        _ => Err("a result is an object".to_owned()),
    };
    match group {
        "replica_calc" => plain(read::<ReplicaCalc>(case)?.decide(&config)?),
        "group_pods" => plain(read::<GroupPods>(case)?.decide(&config)?),
        "pod_requests" => plain(read::<PodRequests>(case)?.decide(&config)),
        "convert_desired_replicas" => plain(read::<ConvertDesired>(case)?.decide(&config)),
        "scale_limits" => plain(read::<ScaleLimits>(case)?.decide()?),
        "scaling_with_rules" => plain(read::<ScalingWithRules>(case)?.decide()),
        "stabilize_legacy" => plain(read::<StabilizeLegacy>(case)?.decide(config)),
        "stabilize_behaviors" => plain(read::<StabilizeBehaviors>(case)?.decide()),
        "store_scale_events" => plain(read::<StoreScaleEvents>(case)?.decide()),
        "reconcile" => read::<Reconcile>(case)?.decide(&settings, &config),
        _ => Err(format!("there is no group {group:?}")),
    }
}

/// `config`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    kubernetes: Option<String>,
    tolerance: Option<f64>,
    cpu_initialization_period_seconds: Option<i64>,
    delay_of_initial_readiness_status_seconds: Option<i64>,
    downscale_stabilization_window_seconds: Option<i64>,
    scale_up_limit_factor: Option<f64>,
    scale_up_limit_minimum: Option<f64>,
    hpa: Option<String>,
}

impl Settings {
    fn config(&self) -> Config {
        let flags = Config::default();
        let ms = |seconds: Option<i64>, otherwise: i64| seconds.map_or(otherwise, |s| s.saturating_mul(1000));
        Config {
            minor: self.kubernetes.as_deref().and_then(super::minor_of).unwrap_or(flags.minor),
            tolerance: self.tolerance.unwrap_or(flags.tolerance),
            cpu_initialization_ms: ms(self.cpu_initialization_period_seconds, flags.cpu_initialization_ms),
            initial_readiness_ms: ms(
                self.delay_of_initial_readiness_status_seconds,
                flags.initial_readiness_ms,
            ),
            downscale_stabilization_ms: ms(
                self.downscale_stabilization_window_seconds,
                flags.downscale_stabilization_ms,
            ),
            scale_up_factor: self.scale_up_limit_factor.unwrap_or(flags.scale_up_factor),
            scale_up_minimum: self.scale_up_limit_minimum.unwrap_or(flags.scale_up_minimum),
        }
    }
}

/// An age in seconds, as an instant.
fn at_ms(age: i64) -> i64 {
    NOW_MS.saturating_sub(age.saturating_mul(1000))
}

/// An instant, as an age in seconds.
fn age(at_ms: i64) -> i64 {
    NOW_MS.saturating_sub(at_ms) / 1000
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenPod {
    name: String,
    #[serde(default)]
    phase: String,
    ready: Option<String>,
    ready_transition_age: Option<i64>,
    start_age: Option<i64>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    containers: Vec<GivenContainer>,
    #[serde(default)]
    init_containers: Vec<GivenContainer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenContainer {
    name: String,
    request_milli: Option<i64>,
    restart_policy: Option<String>,
}

impl GivenPod {
    fn pod(&self) -> Pod {
        let since_ms = at_ms(self.ready_transition_age.unwrap_or_default());
        Pod {
            phase: Phase::of(&self.phase),
            deleted: self.deleted,
            ready: self.ready.as_deref().map(|status| (Truth::of(status), since_ms)),
            start_ms: self.start_age.map(at_ms),
        }
    }

    fn request(&self, container: &str, resource: &str, minor: u32) -> Result<i64, String> {
        let is_sidecar = |each: &&GivenContainer| each.restart_policy.as_deref() == Some("Always");
        let sidecars = self.init_containers.iter().filter(is_sidecar);
        let containers: Vec<Container> = self
            .containers
            .iter()
            .chain(sidecars)
            .map(|each| Container { name: each.name.clone(), request_milli: each.request_milli })
            .collect();
        pods::request(&self.name, &containers, container, resource, minor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenSample {
    pod: String,
    timestamp_age: i64,
    window_seconds: Option<i64>,
    value_milli: Option<i64>,
    containers: Option<Vec<Usage>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    #[serde(default)]
    name: String,
    usage_milli: Option<i64>,
}

impl GivenSample {
    /// The pod's value, or that of one container; none where a part of it is not there.
    ///
    /// Source: `getPodMetrics`, `getContainerMetrics`. Before 1.33 a pod without the container failed them all.
    fn value_milli(&self, container: &str, namespace: &str, minor: u32) -> Result<Option<i64>, String> {
        let Some(containers) = &self.containers else { return Ok(self.value_milli) };
        if container.is_empty() {
            let mut values = containers.iter().map(|each| each.usage_milli);
            let sum = values.try_fold(0i64, |sum, value| Some(sum.wrapping_add(value?)));
            return Ok(sum.filter(|_| !containers.is_empty()));
        }
        match containers.iter().find(|each| each.name == container) {
            Some(found) => Ok(found.usage_milli),
            None if minor >= 33 => Ok(None),
            None => Err(format!(
                "failed to get container metrics: container {container} not present in metrics for pod {namespace}/{}",
                self.pod
            )),
        }
    }
}

/// Pods with what belongs to them, side by side.
struct Seen {
    pods: Vec<Pod>,
    aligned: Aligned,
    requests: Result<Vec<i64>, String>,
}

impl Seen {
    fn observation(&self) -> Observation<'_> {
        Observation {
            pods: &self.pods,
            samples: &self.aligned.samples,
            strays: &self.aligned.strays,
            requests: self.requests.as_deref().map_err(String::as_str),
        }
    }
}

/// Which API answers, by what it says when it has nothing.
#[derive(Clone, Copy)]
enum Api {
    Resource,
    Custom,
    External,
}

impl Api {
    fn nothing(self) -> String {
        let name = match self {
            Self::Resource => "resource",
            Self::Custom => "custom",
            Self::External => "external",
        };
        format!("no metrics returned from {name} metrics API")
    }
}

/// What one metric is about.
struct About<'a> {
    api: Api,
    resource: &'a str,
    container: &'a str,
    namespace: &'a str,
    minor: u32,
}

/// Puts pods and samples side by side, or says what the metrics API says instead.
fn look(given: &[GivenPod], samples: &[GivenSample], about: &About<'_>) -> Result<Seen, String> {
    let names: Vec<&str> = given.iter().map(|pod| pod.name.as_str()).collect();
    if samples.is_empty() {
        return Err(about.api.nothing());
    }
    let mut values = Vec::with_capacity(samples.len());
    for sample in samples {
        if let Some(value_milli) = sample.value_milli(about.container, about.namespace, about.minor)? {
            let window_ms = sample.window_seconds.unwrap_or(60).saturating_mul(1000);
            let at_ms = at_ms(sample.timestamp_age);
            values.push((sample.pod.as_str(), Sample { at_ms, window_ms, value_milli }));
        }
    }
    Ok(Seen {
        pods: given.iter().map(GivenPod::pod).collect(),
        aligned: align(&names, values),
        requests: given.iter().map(|pod| pod.request(about.container, about.resource, about.minor)).collect(),
    })
}

fn check_names(pods: &[GivenPod]) -> Result<(), String> {
    let mut seen = HashSet::new();
    match pods.iter().find(|pod| !seen.insert(pod.name.as_str())) {
        Some(pod) => Err(format!("two pods are named {:?}", pod.name)),
        None => Ok(()),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplicaCalc {
    function: String,
    #[serde(default)]
    current_replicas: i32,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    container: String,
    #[serde(default)]
    metric_name: Option<String>,
    target_utilization_percent: Option<i32>,
    target_average_value_milli: Option<i64>,
    target_value_milli: Option<i64>,
    metric_value_milli: Option<i64>,
    #[serde(default)]
    metric_values_milli: Vec<i64>,
    #[serde(default)]
    pods: Vec<GivenPod>,
    #[serde(default)]
    samples: Vec<GivenSample>,
}

fn wanted<T: Copy>(field: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("missing field `{field}`"))
}

impl ReplicaCalc {
    fn decide(&self, config: &Config) -> Result<Value, String> {
        check_names(&self.pods)?;
        let basis = Basis {
            current: self.current_replicas,
            status: self.current_replicas,
            now_ms: NOW_MS,
            tolerances: config.tolerances(None),
            config,
        };
        Ok(match self.proposal(&basis)? {
            Ok(proposal) => match proposal.percent {
                Some(percent) => json!({
                    "replicas": proposal.replicas,
                    "utilizationPercent": percent,
                    "averageValueMilli": proposal.usage_milli,
                }),
                None => json!({ "replicas": proposal.replicas, "usageMilli": proposal.usage_milli }),
            },
            Err(error) => json!({ "error": error, "errorContains": error }),
        })
    }

    /// The outer error is one in the case, the inner one the controller's.
    fn proposal(&self, basis: &Basis<'_>) -> Result<Result<Proposal, String>, String> {
        let is_cpu = self.resource == "cpu";
        let value = || wanted("metricValueMilli", self.metric_value_milli);
        let target = || wanted("targetValueMilli", self.target_value_milli);
        let share = || wanted("targetAverageValueMilli", self.target_average_value_milli);
        let some = |values: &[i64]| {
            if values.is_empty() { Err(self.unread(&Api::External.nothing())) } else { Ok(()) }
        };
        let pods = || self.pods.iter().map(GivenPod::pod).collect::<Vec<Pod>>();
        Ok(match self.function.as_str() {
            "resource_utilization" => {
                let percent = wanted("targetUtilizationPercent", self.target_utilization_percent)?;
                self.seen(Api::Resource, basis)
                    .and_then(|seen| calculator::utilization(&seen.observation(), percent, is_cpu, basis))
            }
            "resource_average_value" => {
                let target = share()?;
                self.seen(Api::Resource, basis)
                    .and_then(|seen| calculator::average(&seen.observation(), target, is_cpu, basis))
            }
            "pods_average_value" => {
                let target = share()?;
                self.seen(Api::Custom, basis)
                    .and_then(|seen| calculator::average(&seen.observation(), target, false, basis))
            }
            "object_value" => calculator::whole(value()?, target()?, &pods(), basis),
            "object_average_value" => Ok(calculator::shared(value()?, share()?, basis)),
            "external_value" => {
                let target = target()?;
                let values = &self.metric_values_milli;
                some(values).and_then(|()| calculator::external_whole(values, target, &pods(), basis))
            }
            "external_average_value" => {
                let target = share()?;
                let values = &self.metric_values_milli;
                some(values).map(|()| calculator::external_shared(values, target, basis))
            }
            function => return Err(format!("there is no function {function:?}")),
        })
    }

    fn seen(&self, api: Api, basis: &Basis<'_>) -> Result<Seen, String> {
        let about = About {
            api,
            resource: &self.resource,
            container: &self.container,
            namespace: "test-namespace",
            minor: basis.config.minor,
        };
        look(&self.pods, &self.samples, &about).map_err(|why| match api {
            Api::Resource => format!("unable to get metrics for resource {}: {why}", self.resource),
            _ => self.unread(&why),
        })
    }

    fn unread(&self, why: &str) -> String {
        format!("unable to get metric {}: {why}", self.metric_name.as_deref().unwrap_or("qps"))
    }
}

#[derive(Deserialize)]
struct GroupPods {
    resource: String,
    pods: Vec<GivenPod>,
    samples: Vec<GivenSample>,
}

impl GroupPods {
    fn decide(&self, config: &Config) -> Result<Value, String> {
        check_names(&self.pods)?;
        let about = About {
            api: Api::Resource,
            resource: &self.resource,
            container: "",
            namespace: "",
            minor: config.minor,
        };
        let samples = match look(&self.pods, &self.samples, &about) {
            Ok(seen) => seen.aligned.samples,
            Err(_) => vec![None; self.pods.len()],
        };
        let is_cpu = self.resource == "cpu";
        let mut groups: [Vec<&str>; 4] = Default::default();
        for (pod, sample) in self.pods.iter().zip(&samples) {
            let index = match pods::group(&pod.pod(), sample.as_ref(), is_cpu, NOW_MS, config) {
                Group::Ready => 0,
                Group::Unready => 1,
                Group::Missing => 2,
                Group::Ignored => 3,
            };
            groups[index].push(&pod.name);
        }
        for group in &mut groups {
            group.sort_unstable();
        }
        let [ready, unready, missing, ignored] = groups;
        Ok(
            json!({ "readyPodCount": ready.len(), "unready": unready, "missing": missing, "ignored": ignored }),
        )
    }
}

#[derive(Deserialize)]
struct PodRequests {
    #[serde(default)]
    container: String,
    resource: String,
    pods: Vec<GivenPod>,
}

impl PodRequests {
    fn decide(&self, config: &Config) -> Value {
        let of = |pod: &GivenPod| {
            pod.request(&self.container, &self.resource, config.minor).map(|sum| (pod.name.clone(), sum))
        };
        match self.pods.iter().map(of).collect::<Result<BTreeMap<String, i64>, String>>() {
            Ok(requests) => json!({ "requestsMilli": requests }),
            Err(error) => json!({ "error": error }),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConvertDesired {
    current_replicas: i32,
    desired_replicas: i32,
    min_replicas: i32,
    max_replicas: i32,
}

impl ConvertDesired {
    fn decide(&self, config: &Config) -> Value {
        let limited = behavior::within_rules(
            self.current_replicas,
            self.desired_replicas,
            self.min_replicas,
            self.max_replicas,
            config,
        );
        json!({ "replicas": limited.replicas, "reason": limited.reason })
    }
}

/// The rules of one direction, all fields optional as in the API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenRules {
    stabilization_window_seconds: Option<i32>,
    select_policy: Option<GivenSelect>,
    policies: Option<Vec<GivenPolicy>>,
    tolerance: Option<f64>,
}

#[derive(Deserialize, Clone, Copy)]
enum GivenSelect {
    Max,
    Min,
    Disabled,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenPolicy {
    #[serde(rename = "type")]
    kind: GivenKind,
    value: i32,
    period_seconds: i32,
}

#[derive(Deserialize, Clone, Copy)]
enum GivenKind {
    Pods,
    Percent,
}

impl GivenRules {
    /// What is given, over the defaults of its direction.
    ///
    /// Source: `copyHPAScalingRules`.
    fn over(self, mut rules: Rules) -> Rules {
        rules.stabilization_window_seconds =
            self.stabilization_window_seconds.or(rules.stabilization_window_seconds);
        if let Some(select) = self.select_policy {
            rules.select_policy = match select {
                GivenSelect::Max => SelectPolicy::Max,
                GivenSelect::Min => SelectPolicy::Min,
                GivenSelect::Disabled => SelectPolicy::Disabled,
            };
        }
        if let Some(policies) = self.policies {
            rules.policies = policies.into_iter().map(GivenPolicy::policy).collect();
        }
        rules.tolerance = self.tolerance;
        rules
    }
}

impl GivenPolicy {
    fn policy(self) -> Policy {
        let kind = match self.kind {
            GivenKind::Pods => PolicyKind::Pods,
            GivenKind::Percent => PolicyKind::Percent,
        };
        Policy { kind, value: self.value, period_seconds: self.period_seconds }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenBehavior {
    scale_up: Option<GivenRules>,
    scale_down: Option<GivenRules>,
}

impl GivenBehavior {
    fn behavior(self) -> Behavior {
        let over = |given: Option<GivenRules>, rules: Rules| match given {
            Some(given) => given.over(rules),
            None => rules,
        };
        Behavior { up: over(self.scale_up, Rules::up()), down: over(self.scale_down, Rules::down()) }
    }
}

#[derive(Deserialize, Clone, Copy)]
struct GivenEvent {
    change: i32,
    #[serde(default)]
    age: i64,
    #[serde(default)]
    outdated: bool,
}

fn events(given: &[GivenEvent]) -> Vec<ScaleEvent> {
    given
        .iter()
        .map(|event| ScaleEvent {
            change: event.change,
            at_ms: at_ms(event.age),
            is_outdated: event.outdated,
        })
        .collect()
}

#[derive(Deserialize)]
struct GivenRecommendation {
    replicas: i32,
    age: i64,
}

fn recommendations(given: &[GivenRecommendation]) -> Vec<Recommendation> {
    given.iter().map(|each| Recommendation { replicas: each.replicas, at_ms: at_ms(each.age) }).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScaleLimits {
    direction: String,
    current_replicas: i32,
    rules: GivenRules,
    #[serde(default)]
    scale_up_events: Vec<GivenEvent>,
    #[serde(default)]
    scale_down_events: Vec<GivenEvent>,
}

impl ScaleLimits {
    fn decide(self) -> Result<Value, String> {
        let history = History {
            recommendations: None,
            ups: events(&self.scale_up_events),
            downs: events(&self.scale_down_events),
        };
        let limit = match self.direction.as_str() {
            "up" => {
                behavior::up_limit(self.current_replicas, &history, &self.rules.over(Rules::up()), NOW_MS)
            }
            "down" => {
                behavior::down_limit(self.current_replicas, &history, &self.rules.over(Rules::down()), NOW_MS)
            }
            direction => return Err(format!("there is no direction {direction:?}")),
        };
        Ok(json!({ "limit": limit }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScalingWithRules {
    current_replicas: i32,
    desired_replicas: i32,
    min_replicas: i32,
    max_replicas: i32,
    behavior: Option<GivenBehavior>,
    behavior_effective: Option<GivenBehavior>,
    #[serde(default)]
    scale_up_events: Vec<GivenEvent>,
    #[serde(default)]
    scale_down_events: Vec<GivenEvent>,
}

impl ScalingWithRules {
    fn decide(self) -> Value {
        let given = self
            .behavior_effective
            .or(self.behavior)
            .unwrap_or(GivenBehavior { scale_up: None, scale_down: None });
        let history = History {
            recommendations: None,
            ups: events(&self.scale_up_events),
            downs: events(&self.scale_down_events),
        };
        let limited = behavior::within_rates(
            self.current_replicas,
            self.desired_replicas,
            (self.min_replicas, self.max_replicas),
            &given.behavior(),
            &history,
            NOW_MS,
        );
        json!({ "replicas": limited.replicas, "reason": limited.reason })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StabilizeLegacy {
    desired_replicas: i32,
    downscale_stabilization_window_seconds: Option<i64>,
    #[serde(default)]
    recommendations: Vec<GivenRecommendation>,
}

impl StabilizeLegacy {
    fn decide(&self, mut config: Config) -> Value {
        if let Some(seconds) = self.downscale_stabilization_window_seconds {
            config.downscale_stabilization_ms = seconds.saturating_mul(1000);
        }
        let mut log = recommendations(&self.recommendations);
        let replicas = behavior::stabilize(&mut log, self.desired_replicas, NOW_MS, &config);
        json!({ "replicas": replicas, "recommendationCount": log.len() })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StabilizeBehaviors {
    current_replicas: i32,
    desired_replicas: i32,
    scale_up_stabilization_window_seconds: i32,
    scale_down_stabilization_window_seconds: i32,
    #[serde(default)]
    recommendations: Vec<GivenRecommendation>,
}

impl StabilizeBehaviors {
    fn decide(&self) -> Value {
        let mut log = recommendations(&self.recommendations);
        let windows =
            (self.scale_up_stabilization_window_seconds, self.scale_down_stabilization_window_seconds);
        let replicas =
            behavior::stabilize_both(&mut log, self.current_replicas, self.desired_replicas, windows, NOW_MS);
        let stored: Vec<i32> = log.iter().map(|each| each.replicas).collect();
        json!({ "replicas": replicas, "recommendations": stored })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoreScaleEvents {
    previous_replicas: i32,
    replica_change: i32,
    rules: Option<GivenRules>,
    sum_period_seconds: i32,
    #[serde(default)]
    prev_scale_events: Vec<GivenEvent>,
}

impl StoreScaleEvents {
    /// Up and down are alike: the change is stored upwards, under the rules as they are given.
    fn decide(self) -> Value {
        let mut history =
            History { recommendations: None, ups: events(&self.prev_scale_events), downs: Vec::new() };
        let change = behavior::change_in(self.sum_period_seconds, &history.ups, NOW_MS);
        if let Some(rules) = self.rules {
            let behavior = Behavior { up: rules.over(Rules::up()), down: Rules::down() };
            let after = self.previous_replicas.wrapping_add(self.replica_change);
            behavior::store(&mut history, &behavior, self.previous_replicas, after, NOW_MS);
        }
        let stored: Vec<Value> = history
            .ups
            .iter()
            .map(|event| json!({ "change": event.change, "outdated": event.is_outdated }))
            .collect();
        json!({ "replicasChangeInPeriod": change, "scaleEvents": stored })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reconcile {
    min_replicas: Option<i32>,
    max_replicas: i32,
    #[serde(default)]
    scale_target_ref: GivenTargetRef,
    behavior: Option<GivenBehavior>,
    behavior_effective: Option<GivenBehavior>,
    scale: GivenScale,
    #[serde(default)]
    status: GivenStatus,
    recommendations: Option<Vec<GivenRecommendation>>,
    #[serde(default, rename = "otherHPAs")]
    other_hpas: Vec<OtherHpa>,
    #[serde(default)]
    metrics: Vec<GivenMetric>,
    #[serde(default)]
    pods: Vec<GivenPod>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GivenTargetRef {
    api_version: String,
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenScale {
    #[serde(default)]
    spec_replicas: i32,
    #[serde(default)]
    status_replicas: i32,
    #[serde(default)]
    selector: String,
    update_error: Option<String>,
    get_error: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GivenStatus {
    current_replicas: i32,
    desired_replicas: i32,
    last_scale_age: Option<i64>,
    conditions: Option<Vec<GivenCondition>>,
    current_metrics: Option<Vec<GivenMetricStatus>>,
}

#[derive(Deserialize)]
struct GivenCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct GivenMetricStatus {
    #[serde(default)]
    current: GivenCurrent,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GivenCurrent {
    average_utilization_percent: Option<i32>,
    average_value_milli: Option<i64>,
    value_milli: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OtherHpa {
    name: String,
    pod_selector: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenMetric {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    container: String,
    #[serde(default)]
    described_object: GivenTargetRef,
    metric_selector: Option<String>,
    #[serde(default)]
    target: GivenTarget,
    #[serde(default)]
    samples: Vec<GivenSample>,
    metric_value_milli: Option<i64>,
    #[serde(default)]
    metric_values_milli: Vec<i64>,
    source_error: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct GivenTarget {
    #[serde(rename = "type")]
    kind: String,
    average_utilization_percent: Option<i32>,
    average_value_milli: Option<i64>,
    value_milli: Option<i64>,
}

/// What a metrics API answers, held as long as it is looked at.
enum Answer {
    Pods(Seen),
    Object(i64),
    External(Vec<i64>),
    Failed(String),
}

impl Answer {
    fn reading(&self) -> Reading<'_> {
        match self {
            Self::Pods(seen) => Reading::Pods(seen.observation()),
            Self::Object(value) => Reading::Object(*value),
            Self::External(values) => Reading::External(values),
            Self::Failed(why) => Reading::Failed(why),
        }
    }
}

impl GivenMetric {
    fn spec(&self) -> Result<MetricSpec, String> {
        let metric = || -> Result<Metric, String> {
            Ok(Metric { name: self.name.clone(), selector: self.selector()? })
        };
        let source = match self.kind.as_str() {
            "Resource" => Source::Resource { name: self.name.clone() },
            "ContainerResource" => {
                Source::ContainerResource { name: self.name.clone(), container: self.container.clone() }
            }
            "Pods" => Source::Pods(metric()?),
            "Object" => Source::Object {
                metric: metric()?,
                kind: self.described_object.kind.clone(),
                name: self.described_object.name.clone(),
            },
            "External" => Source::External(metric()?),
            kind => Source::Unknown(kind.to_owned()),
        };
        let target = Target {
            kind: self.target.kind.clone(),
            average_utilization: self.target.average_utilization_percent,
            average_value_milli: self.target.average_value_milli,
            value_milli: self.target.value_milli,
        };
        Ok(MetricSpec { source, target })
    }

    /// Cases have selectors as `kubectl` shows them: `<none>` for an empty one, `<error>` for one that is wrong.
    fn selector(&self) -> Result<Option<LabelSelector>, String> {
        match self.metric_selector.as_deref() {
            None => Ok(None),
            Some("" | "<none>") => Ok(Some(LabelSelector::default())),
            Some("<error>") => {
                let unknown = (String::new(), String::new(), Vec::new());
                Ok(Some(LabelSelector { labels: BTreeMap::new(), expressions: vec![unknown] }))
            }
            Some(text) => LabelSelector::parse(text).map(Some),
        }
    }

    fn answer(&self, pods: &[GivenPod], namespace: &str, minor: u32) -> Answer {
        if let Some(error) = &self.source_error {
            return Answer::Failed(error.clone());
        }
        let api = match self.kind.as_str() {
            "Resource" | "ContainerResource" => Api::Resource,
            "External" => Api::External,
            _ => Api::Custom,
        };
        match (self.kind.as_str(), self.metric_value_milli) {
            ("Object", Some(value)) => Answer::Object(value),
            ("External", _) if !self.metric_values_milli.is_empty() => {
                Answer::External(self.metric_values_milli.clone())
            }
            ("Object" | "External", _) => Answer::Failed(api.nothing()),
            _ => {
                let about = About { api, resource: &self.name, container: &self.container, namespace, minor };
                match look(pods, &self.samples, &about) {
                    Ok(seen) => Answer::Pods(seen),
                    Err(why) => Answer::Failed(why),
                }
            }
        }
    }
}

impl Reconcile {
    fn decide(mut self, settings: &Settings, config: &Config) -> Given {
        check_names(&self.pods)?;
        let key = settings.hpa.as_deref().unwrap_or("test-namespace/test-hpa");
        let (namespace, name) = key.split_once('/').ok_or("config: `hpa` is namespace/name")?;
        let hpa = self.hpa(namespace, name)?;
        let answers: Vec<Answer> =
            self.metrics.iter().map(|metric| metric.answer(&self.pods, namespace, config.minor)).collect();
        let readings: Vec<Reading<'_>> = answers.iter().map(Answer::reading).collect();
        let pods: Vec<Pod> = self.pods.iter().map(GivenPod::pod).collect();
        let scale = Scale {
            spec: self.scale.spec_replicas,
            status: self.scale.status_replicas,
            selector: self.selection(key, namespace)?,
        };
        let sync = Sync {
            now_ms: NOW_MS,
            scale: self.scale.get_error.as_deref().map_or(Ok(&scale), Err),
            update_error: self.scale.update_error.as_deref(),
            pods: &pods,
            readings: &readings,
        };
        let mut state = self.state();
        let outcome = state.sync(&hpa, &sync, config);
        let expect = expected(&hpa, &state.status, &outcome);
        let observed = observed(&hpa, &state, &outcome);
        Ok((expect, Some(observed)))
    }

    fn hpa(&mut self, namespace: &str, name: &str) -> Result<Hpa, String> {
        let has_behavior = self.behavior.is_some() || self.behavior_effective.is_some();
        let behavior = self.behavior_effective.take().or(self.behavior.take()).map(GivenBehavior::behavior);
        Ok(Hpa {
            namespace: namespace.into(),
            name: name.into(),
            target: TargetRef {
                api_version: self.scale_target_ref.api_version.clone(),
                kind: self.scale_target_ref.kind.clone(),
                name: self.scale_target_ref.name.clone(),
            },
            min_replicas: self.min_replicas.unwrap_or(1),
            max_replicas: self.max_replicas,
            metrics: self.metrics.iter().map(GivenMetric::spec).collect::<Result<_, _>>()?,
            behavior: behavior.filter(|_| has_behavior),
        })
    }

    /// Source: `validateAndParseSelector`, `hpasControllingPodsUnderSelector`.
    fn selection(&self, key: &str, namespace: &str) -> Result<Selection, String> {
        if self.scale.selector.is_empty() {
            return Ok(Selection::Missing);
        }
        if let Err(why) = Selector::parse(&self.scale.selector) {
            return Ok(Selection::Invalid(why));
        }
        let mut autoscalers = vec![key.to_owned()];
        for other in &self.other_hpas {
            let selector = Selector::parse(&other.pod_selector)
                .map_err(|error| format!("podSelector {:?}: {error}", other.pod_selector))?;
            if self.pods.iter().any(|pod| selector.matches(&pod.labels)) {
                autoscalers.push(format!("{namespace}/{}", other.name));
            }
        }
        if autoscalers.len() == 1 {
            return Ok(Selection::Usable);
        }
        autoscalers.sort_unstable();
        Ok(Selection::Ambiguous { selector: self.scale.selector.clone(), autoscalers })
    }

    fn state(&self) -> State {
        let conditions = self.status.conditions.iter().flatten().map(|condition| Condition {
            kind: condition.kind.clone().into(),
            status: condition.status.clone().into(),
            reason: condition.reason.clone().into(),
            message: condition.message.clone().into(),
        });
        let metrics = self.status.current_metrics.iter().flatten().map(|metric| MetricStatus {
            average_utilization: metric.current.average_utilization_percent,
            average_value_milli: metric.current.average_value_milli,
            value_milli: metric.current.value_milli,
        });
        State {
            status: Status {
                current: self.status.current_replicas,
                desired: self.status.desired_replicas,
                last_scale_ms: self.status.last_scale_age.map(at_ms),
                conditions: conditions.collect(),
                metrics: metrics.collect(),
            },
            history: History {
                recommendations: self.recommendations.as_deref().map(recommendations),
                ..History::default()
            },
        }
    }
}

/// What the unit tests look at.
fn expected(hpa: &Hpa, status: &Status, outcome: &Outcome) -> Map<String, Value> {
    let conditions: Vec<Value> = status
        .conditions
        .iter()
        .map(|each| json!({ "type": each.kind, "status": each.status, "reason": each.reason }))
        .collect();
    let (mut actions, mut faults) = (Map::new(), Map::new());
    for (spec, computed) in hpa.metrics.iter().zip(&outcome.computed) {
        // Of several metrics of one type the tests look at the first.
        actions.entry(spec.source.kind()).or_insert_with(|| computed.action.label().into());
        faults.entry(spec.source.kind()).or_insert_with(|| computed.fault.label().into());
    }
    let mut expect = Map::from_iter([
        ("desiredReplicas".into(), status.desired.into()),
        ("scaleUpdated".into(), outcome.is_rescaled.into()),
        ("statusUpdated".into(), outcome.is_status_updated.into()),
        ("conditions".into(), conditions.into()),
        ("eventCreated".into(), (!outcome.events.is_empty()).into()),
        ("reconcileAction".into(), outcome.action.label().into()),
        ("reconcileError".into(), outcome.fault.label().into()),
        ("metricActions".into(), actions.into()),
        ("metricErrors".into(), faults.into()),
    ]);
    let percents = hpa.metrics.iter().zip(&status.metrics).filter_map(|(spec, shown)| match &spec.source {
        Source::Resource { name } if name == "cpu" => shown.average_utilization,
        _ => None,
    });
    if let Some(percent) = percents.into_iter().next() {
        expect.insert("cpuUtilizationPercent".into(), percent.into());
    }
    expect
}

/// All else that the controller did.
fn observed(hpa: &Hpa, state: &State, outcome: &Outcome) -> Value {
    let events: Vec<Value> = outcome
        .events
        .iter()
        .map(|event| {
            let kind = if event.is_warning { "Warning" } else { "Normal" };
            json!({ "type": kind, "reason": event.reason, "message": event.message })
        })
        .collect();
    let remembered: Vec<Value> = state
        .history
        .recommendations
        .iter()
        .flatten()
        .map(|each| json!({ "age": age(each.at_ms), "replicas": each.replicas }))
        .collect();
    let changes = |events: &[ScaleEvent]| -> Vec<Value> {
        events
            .iter()
            .map(|event| json!({ "age": age(event.at_ms), "change": event.change, "outdated": event.is_outdated }))
            .collect()
    };
    let scale_updates: Vec<i32> = outcome.is_rescaled.then_some(outcome.replicas).into_iter().collect();
    json!({
        "events": events,
        "scaleUpdates": scale_updates,
        "statusUpdates": i32::from(outcome.is_status_updated),
        "status": outcome.is_status_updated.then(|| written(hpa, &state.status)),
        "after": {
            "recommendations": remembered,
            "scaleUpEvents": changes(&state.history.ups),
            "scaleDownEvents": changes(&state.history.downs),
        },
    })
}

fn written(hpa: &Hpa, status: &Status) -> Value {
    let conditions: Vec<Value> = status
        .conditions
        .iter()
        .map(|each| {
            json!({ "type": each.kind, "status": each.status, "reason": each.reason, "message": each.message })
        })
        .collect();
    let metrics: Vec<Value> =
        hpa.metrics.iter().zip(&status.metrics).map(|(spec, shown)| written_metric(spec, shown)).collect();
    json!({
        "currentReplicas": status.current,
        "desiredReplicas": status.desired,
        "lastScaleAge": status.last_scale_ms.map(age),
        "conditions": conditions,
        "currentMetrics": metrics,
    })
}

fn written_metric(spec: &MetricSpec, shown: &MetricStatus) -> Value {
    if *shown == MetricStatus::default() {
        return json!({ "type": "" });
    }
    let current = [
        ("averageUtilizationPercent", shown.average_utilization.map(Value::from)),
        ("averageValueMilli", shown.average_value_milli.map(Value::from)),
        ("valueMilli", shown.value_milli.map(Value::from)),
    ];
    let current: Map<String, Value> =
        current.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    let name = match &spec.source {
        Source::Resource { name } | Source::ContainerResource { name, .. } | Source::Unknown(name) => name,
        Source::Pods(metric) | Source::Object { metric, .. } | Source::External(metric) => &metric.name,
    };
    let mut status = json!({ "type": spec.source.kind(), "name": name, "current": current });
    if let Source::ContainerResource { container, .. } = &spec.source {
        status["container"] = container.as_str().into();
    }
    status
}
