//! What an autoscaler would do now, and why, for a person.
//!
//! The numbers are those of [`super::controller`]; this only finds its inputs among what kubectl printed, and puts
//! what it did into words. The controller's memory is in no manifest: where it matters, the text says so.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write,
    time::{Duration, SystemTime},
};

use super::{
    Config,
    behavior::{History, Limited},
    calculator::{Proposal, Tolerances, Verdict, Working},
    controller::{Computed, Outcome, Reading, Scale, Selection, State, Status, Sync},
    objects::{HpaStatus, Objects, PodObject, instant},
    pods::{Aligned, Group, Observation, Phase, Pod, Sample, Truth, align, group},
    selector::LabelSelector,
    spec::{Hpa, MetricSpec, PolicyKind, Rules, SelectPolicy, Source},
};

/// How many pods are listed one by one.
const MOST_LISTED: usize = 20;

/// Explains every autoscaler among the objects. Without `now` it is the newest instant that they tell of, because
/// they were printed then. `minor` is the version of Kubernetes 1.x.
///
/// # Errors
/// What is not there that would be needed.
pub fn explain(objects: &Objects, now: Option<&str>, minor: u32) -> Result<String, String> {
    if objects.hpas.is_empty() {
        return Err("there is no HorizontalPodAutoscaler in what was given".into());
    }
    let now_ms = now.map(instant).transpose()?.or_else(|| objects.newest_ms());
    let now_ms = now_ms.ok_or("nothing of what was given has a time; say when it is")?;
    let mut texts = Vec::new();
    for (index, (hpa, status)) in objects.hpas.iter().enumerate() {
        let case = Case::of(objects, index, hpa, status, now_ms, &Config::of(minor));
        texts.push(case.text(objects, now.is_none()));
    }
    Ok(texts.join("\n"))
}

/// What the controller would be given for one autoscaler.
struct Case<'a> {
    hpa: &'a Hpa,
    shown: &'a HpaStatus,
    now_ms: i64,
    config: Config,
    scale: Scale,
    scale_from: String,
    pods: Vec<&'a PodObject>,
    pods_from: &'static str,
    answers: Vec<Answer>,
}

/// What the metrics APIs hold for one metric.
enum Answer {
    Pods { aligned: Aligned, requests: Result<Vec<i64>, String> },
    Object(i64),
    External(Vec<i64>),
    Failed(String),
}

fn same(one: &str, other: &str) -> bool {
    one.is_empty() || other.is_empty() || one == other
}

impl<'a> Case<'a> {
    fn of(
        objects: &'a Objects,
        index: usize,
        hpa: &'a Hpa,
        shown: &'a HpaStatus,
        now_ms: i64,
        config: &Config,
    ) -> Self {
        let (pods, pods_from) = pods_of(objects, hpa);
        let live = pods.iter().filter(|pod| !pod.pod.deleted).count();
        let live = i32::try_from(live).unwrap_or(i32::MAX);
        let (spec, status, scale_from) = match (scale_of(objects, hpa), shown.current) {
            (Some(scale), _) => (scale.spec, scale.status, format!("{} {}", scale.kind, scale.name)),
            (None, Some(current)) => (current, live, "the autoscaler's status, and the pods".to_owned()),
            (None, None) => (live, live, "the pods".to_owned()),
        };
        let scale = Scale { spec, status, selector: selection(objects, index, hpa) };
        let answers = hpa.metrics.iter().map(|metric| answer(objects, hpa, metric, &pods, config)).collect();
        let config = config.clone();
        Self { hpa, shown, now_ms, config, scale, scale_from, pods, pods_from, answers }
    }

    /// One sync of a controller that has not heard of this autoscaler in any window, but knows it.
    fn run(&self) -> (State, Outcome) {
        let pods: Vec<Pod> = self.pods.iter().map(|pod| pod.pod).collect();
        let readings: Vec<Reading<'_>> = self.answers.iter().map(|answer| answer.reading(&pods)).collect();
        let sync = Sync {
            now_ms: self.now_ms,
            scale: Ok(&self.scale),
            update_error: None,
            pods: &pods,
            readings: &readings,
        };
        let status = Status {
            current: self.shown.current.unwrap_or_default(),
            desired: self.shown.desired,
            last_scale_ms: self.shown.last_scale_ms,
            ..Status::default()
        };
        let history = History { recommendations: Some(Vec::new()), ..History::default() };
        let mut state = State { status, history };
        let outcome = state.sync(self.hpa, &sync, &self.config);
        (state, outcome)
    }

    fn text(&self, objects: &Objects, is_newest: bool) -> String {
        let (state, outcome) = self.run();
        let mut out = Text::default();
        self.head(&mut out, is_newest);
        out.step(format!(
            "The scale: {} wanted, {} there (from {}).",
            replicas(self.scale.spec),
            self.scale.status,
            self.scale_from
        ));
        self.metrics(&mut out, &outcome);
        self.decision(&mut out, &outcome);
        self.result(&mut out, &state, &outcome);
        if !objects.others.is_empty() {
            let kinds: HashSet<&str> = objects.others.iter().map(String::as_str).collect();
            let mut kinds: Vec<&str> = kinds.into_iter().collect();
            kinds.sort_unstable();
            out.line(format!("Not looked at: {}.", kinds.join(", ")));
        }
        out.text
    }

    fn head(&self, out: &mut Text, is_newest: bool) {
        let Hpa { namespace, name, target, min_replicas, max_replicas, .. } = self.hpa;
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        out.line(format!(
            "HorizontalPodAutoscaler {namespace}/{name} keeps {} {} between {min_replicas} and {}.",
            target.kind,
            target.name,
            replicas(*max_replicas)
        ));
        let since = Duration::from_millis(self.now_ms.try_into().unwrap_or_default());
        let when = SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH);
        let newest = if is_newest { " (the newest time in what was given)" } else { "" };
        out.line(format!(
            "As Kubernetes 1.{} decides it at {}{newest}.",
            self.config.minor,
            humantime::format_rfc3339_seconds(when)
        ));
        out.line(String::new());
    }

    fn metrics(&self, out: &mut Text, outcome: &Outcome) {
        let (current, min, max) = (self.scale.spec, self.hpa.min_replicas, self.hpa.max_replicas);
        match &self.scale.selector {
            _ if current == 0 && min != 0 => {
                out.step("The scale is zero: autoscaling is off until somebody sets another number.".into());
            }
            _ if current > max => out.step(format!("{current} is above maxReplicas: metrics are not asked.")),
            _ if current < min => out.step(format!("{current} is below minReplicas: metrics are not asked.")),
            Selection::Ambiguous { autoscalers, .. } => out.step(format!(
                "Several autoscalers want the same pods ({}): none of them acts.",
                autoscalers.join(", ")
            )),
            _ => {
                for (index, computed) in outcome.computed.iter().enumerate() {
                    self.metric(out, index, computed);
                }
            }
        }
    }

    fn metric(&self, out: &mut Text, index: usize, computed: &Computed) {
        let (Some(spec), Some(answer)) = (self.hpa.metrics.get(index), self.answers.get(index)) else {
            return;
        };
        let number = if self.hpa.metrics.len() > 1 {
            format!("Metric {} of {}", index + 1, self.hpa.metrics.len())
        } else {
            "The metric".to_owned()
        };
        out.step(format!("{number}: {}.", about(spec)));
        if let Answer::Pods { aligned, requests } = answer {
            self.list(out, spec, aligned, requests.as_deref().ok());
        }
        match &computed.outcome {
            Ok(proposal) => self.proposal(out, spec, proposal),
            Err(error) => out.detail(format!("It gives no number: {error}")),
        }
    }

    /// The pods and what each is to the metric.
    fn list(&self, out: &mut Text, spec: &MetricSpec, aligned: &Aligned, requests: Option<&[i64]>) {
        out.detail(format!("{} ({}):", pods(self.pods.len() as i64), self.pods_from));
        let is_cpu = resource_of(spec) == Some("cpu");
        let unit = resource_of(spec).unwrap_or_default();
        for (index, pod) in self.pods.iter().enumerate().take(MOST_LISTED) {
            let sample = aligned.samples.get(index).and_then(Option::as_ref);
            let request =
                requests.and_then(|requests| requests.get(index)).map(|request| amount(*request, unit));
            let what = match (group(&pod.pod, sample, is_cpu, self.now_ms, &self.config), sample, request) {
                (Group::Ready, Some(sample), Some(request)) if spec.target.average_utilization.is_some() => {
                    format!("uses {} of {request}", amount(sample.value_milli, unit))
                }
                (Group::Ready, Some(sample), _) => amount(sample.value_milli, unit),
                (group, sample, _) => self.why(&pod.pod, group, sample),
            };
            out.detail(format!("  {}: {what}", pod.name));
        }
        if self.pods.len() > MOST_LISTED {
            out.detail(format!("  … and {} more", self.pods.len() - MOST_LISTED));
        }
    }

    /// Why a pod does not count with its sample.
    fn why(&self, pod: &Pod, group: Group, sample: Option<&Sample>) -> String {
        match group {
            Group::Ignored if pod.deleted => "left out, because it is being deleted".into(),
            Group::Ignored => "left out, because it failed".into(),
            Group::Missing => "has no sample".into(),
            _ if pod.phase == Phase::Pending => "does not count yet, because it is pending".into(),
            _ => match (pod.ready, pod.start_ms, sample) {
                (Some((ready, since_ms)), Some(start_ms), Some(sample)) => {
                    let age = (self.now_ms - start_ms) / 1000;
                    if ready != Truth::False && sample.at_ms < since_ms.saturating_add(sample.window_ms) {
                        format!(
                            "does not count yet: it is {age} s old, and its sample began before it was ready"
                        )
                    } else if start_ms.saturating_add(self.config.cpu_initialization_ms) > self.now_ms {
                        format!("does not count yet: it is {age} s old and not ready")
                    } else {
                        "does not count: it has never been ready".into()
                    }
                }
                _ => "does not count yet, because it has not started".into(),
            },
        }
    }

    fn proposal(&self, out: &mut Text, spec: &MetricSpec, proposal: &Proposal) {
        let Working { ready, unready, missing, ratio, filled_ratio, counted, verdict, .. } = proposal.working;
        let unit = resource_of(spec).unwrap_or_default();
        let usage = amount(proposal.usage_milli, unit);
        match (proposal.percent, spec.target.average_utilization) {
            (Some(percent), Some(target)) => out.detail(format!(
                "The {} that count use {percent} % of what they request (a whole percent, cut off), {usage} each: {percent} / {target} = {}.",
                pods(ready),
                number(ratio)
            )),
            _ => out.detail(format!("The value is {usage}; over the target that is {}.", number(ratio))),
        }
        if let Some(filled) = filled_ratio {
            out.detail(filling(ratio, unready, missing, filled, spec.target.average_utilization));
        }
        let last = filled_ratio.unwrap_or(ratio);
        let tolerances = self.config.tolerances(self.hpa.behavior.as_ref());
        let asked = replicas(proposal.replicas);
        out.detail(match verdict {
            Verdict::Tolerated => {
                format!("{} is within {}: it stays at {asked}.", number(last), tolerance(tolerances))
            }
            Verdict::Turned => format!("With them it points the other way: it stays at {asked}."),
            Verdict::Opposed => {
                format!("{} x {counted} would move against the ratio: it stays at {asked}.", number(last))
            }
            Verdict::Scaled if self.scale.spec == 0 || is_shared(spec) => {
                format!("The value over the target, rounded up: {asked}.")
            }
            Verdict::Scaled => format!(
                "That is outside of {}: {} x {}, rounded up, is {asked}.",
                tolerance(tolerances),
                number(last),
                pods(counted)
            ),
        });
    }

    fn decision(&self, out: &mut Text, outcome: &Outcome) {
        let (Some(proposed), Some(limited)) = (outcome.proposed, outcome.limited) else { return };
        let failed = outcome.computed.iter().filter(|computed| computed.outcome.is_err()).count();
        if outcome.computed.len() > 1 {
            let rest = if failed > 0 { format!(" ({failed} gave no number)") } else { String::new() };
            out.step(format!("The metric that asks for the most decides{rest}: {}.", replicas(proposed)));
        }
        self.windows(out, proposed.max(0));
        self.limits(out, proposed.max(0), limited);
    }

    /// The windows, whose content nobody can see from outside of the controller.
    fn windows(&self, out: &mut Text, desired: i32) {
        let flag = self.config.downscale_stabilization_ms / 1000;
        let current = self.scale.spec;
        let behavior = self.hpa.behavior.as_ref();
        let (rules, words) = if desired < current {
            (behavior.map(|behavior| &behavior.down), ("highest", "more"))
        } else {
            (behavior.map(|behavior| &behavior.up), ("lowest", "less"))
        };
        let seconds = match rules {
            Some(rules) => rules.stabilization_window_seconds.map_or(flag, i64::from),
            None if desired < current => flag,
            None => 0,
        };
        if desired == current {
            out.step("Nothing to stabilize.".into());
        } else if seconds == 0 {
            out.step("No stabilization window holds it back.".into());
        } else {
            out.step(format!(
                "The {} recommendation of the last {seconds} s counts. What was recommended is only in the controller's memory; below it is assumed that nothing in that time asked for {} than {desired}.",
                words.0, words.1
            ));
        }
    }

    fn limits(&self, out: &mut Text, desired: i32, limited: Limited) {
        let current = self.scale.spec;
        if let Some(behavior) = &self.hpa.behavior
            && desired != current
        {
            let rules = if desired > current { &behavior.up } else { &behavior.down };
            out.step(format!("Policies: {}. Earlier changes in their periods count, too, and are only in the controller's memory.", policies(rules)));
        }
        out.step(match limited.reason {
            "DesiredWithinRange" => {
                format!("That is within bounds and rates: {}.", replicas(limited.replicas))
            }
            "TooFewReplicas" => format!("minReplicas lifts it to {}.", limited.replicas),
            "TooManyReplicas" => format!("maxReplicas cuts it to {}.", limited.replicas),
            "ScaleUpLimit" if self.hpa.behavior.is_none() => format!(
                "One sync goes to twice the replicas or to 4, whichever is more: {}.",
                limited.replicas
            ),
            _ => format!("The policies allow {}.", replicas(limited.replicas)),
        });
    }

    fn result(&self, out: &mut Text, state: &State, outcome: &Outcome) {
        out.line(String::new());
        let current = self.scale.spec;
        out.line(if outcome.is_rescaled {
            format!("Result: from {current} to {}.", replicas(outcome.replicas))
        } else {
            format!("Result: it stays at {}.", replicas(current))
        });
        for condition in &state.status.conditions {
            out.line(format!(
                "  {} is {}, {}: {}",
                condition.kind, condition.status, condition.reason, condition.message
            ));
        }
        for event in &outcome.events {
            let kind = if event.is_warning { "Warning" } else { "Normal" };
            out.line(format!("  Event ({kind}) {}: {}", event.reason, event.message));
        }
    }
}

impl Answer {
    fn reading<'a>(&'a self, pods: &'a [Pod]) -> Reading<'a> {
        match self {
            Self::Pods { aligned, requests } => Reading::Pods(Observation {
                pods,
                samples: &aligned.samples,
                strays: &aligned.strays,
                requests: requests.as_deref().map_err(String::as_str),
            }),
            Self::Object(value) => Reading::Object(*value),
            Self::External(values) => Reading::External(values),
            Self::Failed(why) => Reading::Failed(why),
        }
    }
}

/// Lines, some of them numbered.
#[derive(Default)]
struct Text {
    text: String,
    steps: usize,
}

impl Text {
    fn line(&mut self, line: String) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    fn step(&mut self, line: String) {
        self.steps += 1;
        self.line(format!("{}. {line}", self.steps));
    }

    fn detail(&mut self, line: String) {
        self.line(format!("   {line}"));
    }
}

fn replicas(count: i32) -> String {
    if count == 1 { "1 replica".into() } else { format!("{count} replicas") }
}

fn pods(count: i64) -> String {
    if count == 1 { "1 pod".into() } else { format!("{count} pods") }
}

/// A ratio, with no more digits than tell something.
fn number(ratio: f64) -> String {
    if !ratio.is_finite() {
        return "no number (the target or the replicas are zero)".into();
    }
    let text = format!("{ratio:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A value in the unit that people know it in.
fn amount(milli: i64, resource: &str) -> String {
    match resource {
        "cpu" if milli % 1000 == 0 => format!("{} CPU", milli / 1000),
        "cpu" => format!("{milli}m CPU"),
        "memory" => format!("{} MiB", number(milli as f64 / 1000.0 / 1_048_576.0)),
        _ => number(milli as f64 / 1000.0),
    }
}

fn resource_of(spec: &MetricSpec) -> Option<&str> {
    match &spec.source {
        Source::Resource { name } | Source::ContainerResource { name, .. } => Some(name),
        _ => None,
    }
}

/// Whether the target is a share of one value.
fn is_shared(spec: &MetricSpec) -> bool {
    matches!(spec.source, Source::Object { .. } | Source::External(_))
        && spec.target.average_value_milli.is_some()
}

fn about(spec: &MetricSpec) -> String {
    let source = match &spec.source {
        Source::Resource { name } => format!("{name} of the pods"),
        Source::ContainerResource { name, container } => {
            format!("{name} of the container {container} in each pod")
        }
        Source::Pods(metric) => format!("{} of the pods", metric.name),
        Source::Object { metric, kind, name } => format!("{} of {kind} {name}", metric.name),
        Source::External(metric) => format!("{} from outside of the cluster", metric.name),
        Source::Unknown(kind) => kind.clone(),
    };
    let unit = resource_of(spec).unwrap_or_default();
    let target = &spec.target;
    let aim = match (target.average_value_milli, target.average_utilization, target.value_milli) {
        (Some(value), ..) => format!("{} for each pod", amount(value, unit)),
        (None, Some(percent), _) => format!("{percent} % of what they request"),
        (None, None, Some(value)) => amount(value, unit),
        (None, None, None) => "nothing".into(),
    };
    format!("{source}, which shall be {aim}")
}

fn tolerance(tolerances: Tolerances) -> String {
    match tolerances {
        Tolerances::Around(tolerance) => format!("{tolerance} of 1"),
        Tolerances::Between { down, up } if down == up => format!("{down} of 1"),
        Tolerances::Between { down, up } => format!("{down} below and {up} above 1"),
    }
}

fn filling(ratio: f64, unready: i64, missing: i64, filled: f64, percent: Option<i32>) -> String {
    let mut who = Vec::new();
    if missing > 0 {
        let stand_in = match (ratio < 1.0, percent) {
            (true, Some(target)) => format!("as using {} % of its request", target.max(100)),
            (true, None) => "as using just the target".into(),
            (false, _) => "as using nothing".into(),
        };
        who.push(format!("those without a sample ({missing}) count, each {stand_in}"));
    }
    if unready > 0 && ratio > 1.0 {
        who.push(format!("those that are not ready ({unready}) count as using nothing"));
    }
    let way = if ratio < 1.0 { "down" } else { "up" };
    format!("On the way {way}, {}: {}.", who.join(", and "), number(filled))
}

fn policies(rules: &Rules) -> String {
    let each: Vec<String> = rules
        .policies
        .iter()
        .map(|policy| match policy.kind {
            PolicyKind::Pods => format!("{} in {} s", pods(policy.value.into()), policy.period_seconds),
            PolicyKind::Percent => format!("{} % in {} s", policy.value, policy.period_seconds),
        })
        .collect();
    match rules.select_policy {
        SelectPolicy::Disabled => "this direction is disabled".into(),
        _ if each.len() == 1 => format!("at most {}", each.join("")),
        SelectPolicy::Max => format!("at most {}, whichever is more", each.join(" or ")),
        SelectPolicy::Min => format!("at most {}, whichever is less", each.join(" or ")),
    }
}

fn scale_of<'a>(objects: &'a Objects, hpa: &Hpa) -> Option<&'a super::objects::ScaleObject> {
    let is_target = |scale: &&super::objects::ScaleObject| {
        scale.name == hpa.target.name && same(&scale.namespace, &hpa.namespace)
    };
    let of_kind = |kind: &str| objects.scales.iter().filter(is_target).find(|scale| scale.kind == kind);
    of_kind("Scale").or_else(|| of_kind(&hpa.target.kind))
}

/// The target's pods: those that its selector finds, where it is known; else those that it, or a ReplicaSet of its
/// name, made; else all.
fn pods_of<'a>(objects: &'a Objects, hpa: &Hpa) -> (Vec<&'a PodObject>, &'static str) {
    let near: Vec<&PodObject> =
        objects.pods.iter().filter(|pod| same(&pod.namespace, &hpa.namespace)).collect();
    if let Some(selector) = scale_of(objects, hpa).and_then(|scale| scale.selector.as_ref()) {
        let found = near.into_iter().filter(|pod| selector.matches(&pod.labels)).collect();
        return (found, "found by the target's selector");
    }
    let target = &hpa.target;
    let is_own = |pod: &&PodObject| {
        pod.owner.as_ref().is_some_and(|(kind, name)| {
            (*kind == target.kind && *name == target.name)
                || (kind == "ReplicaSet"
                    && target.kind == "Deployment"
                    && name.rsplit_once('-').is_some_and(|(deployment, _)| deployment == target.name))
        })
    };
    let own: Vec<&PodObject> = near.iter().copied().filter(|pod| is_own(pod)).collect();
    if own.is_empty() && near.iter().all(|pod| pod.owner.is_none()) {
        return (near, "all that were given");
    }
    (own, "those that the target made")
}

/// Two autoscalers of one target stand in each other's way; others are told apart by selectors, which are not here.
fn selection(objects: &Objects, index: usize, hpa: &Hpa) -> Selection {
    let key = |hpa: &Hpa| format!("{}/{}", hpa.namespace, hpa.name);
    let mut autoscalers: Vec<String> = objects
        .hpas
        .iter()
        .enumerate()
        .filter(|(other, (each, _))| {
            *other == index
                || (same(&each.namespace, &hpa.namespace)
                    && each.target == hpa.target
                    && key(each) != key(hpa))
        })
        .map(|(_, (each, _))| key(each))
        .collect();
    if autoscalers.len() == 1 || objects.pods.is_empty() {
        return Selection::Usable;
    }
    autoscalers.sort_unstable();
    Selection::Ambiguous { selector: format!("of {} {}", hpa.target.kind, hpa.target.name), autoscalers }
}

fn answer(objects: &Objects, hpa: &Hpa, metric: &MetricSpec, pods: &[&PodObject], config: &Config) -> Answer {
    match &metric.source {
        Source::Resource { name } => usage(objects, hpa, name, "", pods, config),
        Source::ContainerResource { name, container } => usage(objects, hpa, name, container, pods, config),
        Source::Pods(wanted) => {
            let is_it = |value: &&super::objects::CustomValue| {
                value.metric == wanted.name
                    && value.object.0 == "Pod"
                    && same(&value.object.1, &hpa.namespace)
            };
            let values = objects.customs.iter().filter(is_it).map(|value| {
                let (at_ms, window_ms) = (value.at_ms, value.window_ms);
                (value.object.2.as_str(), Sample { at_ms, window_ms, value_milli: value.value_milli })
            });
            let requests = Ok(vec![0; pods.len()]);
            beside(pods, values.collect(), requests, "no metrics returned from custom metrics API")
        }
        Source::Object { metric, kind, name } => {
            let found = objects.customs.iter().find(|value| {
                value.metric == metric.name && value.object.0 == *kind && value.object.2 == *name
            });
            match found {
                Some(value) => Answer::Object(value.value_milli),
                None => Answer::Failed("no metrics returned from custom metrics API".into()),
            }
        }
        Source::External(metric) => {
            let is_it = |labels: &BTreeMap<String, String>| {
                metric.selector.as_ref().is_none_or(|selector: &LabelSelector| selector.matches(labels))
            };
            let values: Vec<i64> = objects
                .externals
                .iter()
                .filter(|value| value.metric == metric.name && is_it(&value.labels))
                .map(|value| value.value_milli)
                .collect();
            if values.is_empty() {
                return Answer::Failed("no metrics returned from external metrics API".into());
            }
            Answer::External(values)
        }
        Source::Unknown(_) => Answer::Failed("there is no such metric".into()),
    }
}

/// Source: `getPodMetrics`, `getContainerMetrics`.
fn usage(
    objects: &Objects,
    hpa: &Hpa,
    resource: &str,
    container: &str,
    pods: &[&PodObject],
    config: &Config,
) -> Answer {
    let mut values = Vec::new();
    for usage in objects.usages.iter().filter(|usage| same(&usage.namespace, &hpa.namespace)) {
        let value = if container.is_empty() {
            let mut used = usage.containers.iter().map(|(_, used)| used.get(resource).copied());
            let sum = used.try_fold(0i64, |sum, value| Some(sum.wrapping_add(value?)));
            sum.filter(|_| !usage.containers.is_empty())
        } else {
            let found = usage.containers.iter().find(|(name, _)| name == container);
            if found.is_none() && config.minor < 33 && pods.iter().any(|pod| pod.name == usage.name) {
                return Answer::Failed(format!(
                    "failed to get container metrics: container {container} not present in metrics for pod {}/{}",
                    hpa.namespace, usage.name
                ));
            }
            found.and_then(|(_, used)| used.get(resource).copied())
        };
        if let Some(value_milli) = value {
            let sample = Sample { at_ms: usage.at_ms, window_ms: usage.window_ms, value_milli };
            values.push((usage.name.as_str(), sample));
        }
    }
    let requests = pods.iter().map(|pod| pod.request(container, resource, config.minor)).collect();
    let nothing = "no metrics returned from resource metrics API";
    if objects.usages.is_empty() {
        return Answer::Failed(nothing.into());
    }
    beside(pods, values, requests, nothing)
}

/// Values beside the pods that they are of. Others are of other targets: the API is asked with a selector.
fn beside(
    pods: &[&PodObject],
    mut values: Vec<(&str, Sample)>,
    requests: Result<Vec<i64>, String>,
    nothing: &str,
) -> Answer {
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    let known: HashSet<&str> = names.iter().copied().collect();
    values.retain(|(name, _)| known.contains(name));
    if values.is_empty() {
        return Answer::Failed(nothing.to_owned());
    }
    Answer::Pods { aligned: align(&names, values), requests }
}
