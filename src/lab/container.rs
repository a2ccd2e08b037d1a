//! A Deployment on EKS: pods, the real autoscaler's decisions about them, and what they serve meanwhile.
//!
//! Steps of a second; the autoscaler syncs every 15 s (`--horizontal-pod-autoscaler-sync-period`) and sees what
//! metrics-server last scraped: the mean of a window that ended some seconds before
//! (<https://github.com/kubernetes-sigs/metrics-server/blob/master/FAQ.md>, `kubelet`'s own housekeeping in
//! <https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/>). Pods share the load evenly, as behind a
//! balancer that spreads requests.

use super::{
    cluster::{Change, Cluster, Nodes, Room, SCAN_SECONDS},
    cost::{Balancer, HOUR_MS, Usage, capacity_units},
    hpa::{
        Config,
        controller::{Outcome, Reading, Scale, Selection, State, Sync},
        pods::{Observation, Phase, Pod as Known, Sample, Truth},
        spec::{Hpa, MetricSpec, Source},
    },
    run::{Decision, Point, Recorder, Run, Span, bytes},
    service::{Chance, Latencies, Profile, Randomness, Servers, Station},
    traffic::Traffic,
};

/// Most pods of a run.
pub const MAX_PODS: i32 = 100_000;
/// The gauge of requests that are being served, by the name that this service exports it under.
const IN_FLIGHT: &str = "http_server_active_requests";
/// Requests for each new connection, where a balancer counts those: clients keep theirs for a while.
const REQUESTS_PER_CONNECTION: f64 = 10.0;
/// Seconds that the CPU clock is remembered for.
const MEMORY: usize = 128;

/// A Deployment, what scales it and what stands in front of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Pods at the start.
    pub replicas: u32,
    /// What changes that, if anything.
    pub hpa: Option<Hpa>,
    /// The container's name.
    pub container: String,
    /// What a pod requests; nothing where it does not say.
    pub cpu_request_milli: Option<i64>,
    /// MiB.
    pub memory_request_mib: Option<i64>,
    /// Cores that a pod may use.
    pub cpu_limit: Option<f64>,
    /// MiB beyond which a pod is killed.
    pub memory_limit_mib: Option<f64>,
    /// Requests that a pod serves at once.
    pub max_in_flight: f64,
    /// When a request has failed.
    pub timeout_seconds: f64,
    /// From a place on a node to a container that runs: image and sandbox.
    pub pod_start_seconds: u64,
    /// In front of it.
    pub balancer: Balancer,
}

impl Workload {
    /// # Errors
    /// What is absurd.
    pub fn check(&self) -> Result<(), String> {
        let most = self.hpa.as_ref().map_or(0, |hpa| hpa.max_replicas);
        if most > MAX_PODS || self.replicas > MAX_PODS as u32 {
            return Err(format!("the lab holds {MAX_PODS} pods"));
        }
        let is_positive = |value: f64| value > 0.0 && value.is_finite();
        if !self.cpu_limit.is_none_or(is_positive) || !is_positive(self.max_in_flight) {
            return Err("a limit on CPU or on requests in flight is above 0".into());
        }
        if !(is_positive(self.timeout_seconds) && self.timeout_seconds <= 86_400.0) {
            return Err("a request's timeout is between 0 and a day".into());
        }
        Ok(())
    }

    /// How much of a core one request gets, and the cores that it may find idle: its limit's, or all of the node's.
    fn speed(&self, cluster: &Cluster) -> (f64, f64) {
        match self.cpu_limit {
            Some(limit) => (limit.min(1.0), limit),
            None => (1.0, cluster.instance.cores()),
        }
    }

    fn room(&self) -> Room {
        Room {
            cpu_milli: self.cpu_request_milli.unwrap_or(0),
            memory_mib: self.memory_request_mib.unwrap_or(0),
            pods: 1,
        }
    }
}

/// How measurements reach the autoscaler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Seconds between two scrapes.
    pub scrape_seconds: u64,
    /// The window that a value says it is of.
    pub window_seconds: u64,
    /// Seconds that it is the mean of: the same with metrics-server, one where somebody made values up.
    pub mean_seconds: u64,
    /// Seconds between the end of those and the scrape.
    pub lag_seconds: u64,
    /// The first sync, in milliseconds, and the time from one to the next; or every single one.
    pub syncs: Syncs,
}

/// When the autoscaler looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Syncs {
    /// Milliseconds to the first, and from one to the next.
    Every(u64, u64),
    /// Milliseconds of each.
    At(Vec<u64>),
}

impl Default for Pipeline {
    /// The defaults of metrics-server, of the kubelet (it looks every 10 s, and a value is half a period old) and of
    /// the controller.
    fn default() -> Self {
        Self {
            scrape_seconds: 15,
            window_seconds: 15,
            mean_seconds: 15,
            lag_seconds: 5,
            syncs: Syncs::Every(7_000, 15_000),
        }
    }
}

impl Syncs {
    fn at(&self, index: usize) -> Option<u64> {
        match self {
            Self::Every(first, period) => Some(first + period * index as u64),
            Self::At(instants) => instants.get(index).copied(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Pod {
    node: Option<usize>,
    ready_at: u64,
    /// The CPU clock when it became ready.
    clock: f64,
}

const NEVER: u64 = u64::MAX;

/// The pods, and what the autoscaler knows of each, side by side.
#[derive(Debug)]
struct Pods {
    pods: Vec<Pod>,
    known: Vec<Known>,
    start_seconds: u64,
    ready: usize,
    pending: usize,
    next_ready: u64,
}

impl Pods {
    fn new(start_seconds: u64) -> Self {
        Self { pods: Vec::new(), known: Vec::new(), start_seconds, ready: 0, pending: 0, next_ready: NEVER }
    }

    fn scale(&mut self, to: usize, nodes: &mut Nodes) {
        while self.pods.len() < to {
            self.pods.push(Pod { node: None, ready_at: NEVER, clock: 0.0 });
            self.known.push(Known { phase: Phase::Pending, deleted: false, ready: None, start_ms: None });
            self.pending += 1;
        }
        while self.pods.len() > to {
            self.remove_one(nodes);
        }
    }

    /// Those without a place first, then the newest, which is not ready if any is.
    fn remove_one(&mut self, nodes: &mut Nodes) {
        let without =
            if self.pending > 0 { self.pods.iter().rposition(|pod| pod.node.is_none()) } else { None };
        let index = without.unwrap_or(self.pods.len() - 1);
        let pod = self.pods.remove(index);
        let known = self.known.remove(index);
        match pod.node {
            Some(node) => nodes.leave(node),
            None => self.pending -= 1,
        }
        if known.is_running_and_ready() {
            self.ready -= 1;
        }
    }

    fn place(&mut self, now: u64, nodes: &mut Nodes) {
        if self.pending == 0 {
            return;
        }
        for (pod, known) in self.pods.iter_mut().zip(&mut self.known).filter(|(pod, _)| pod.node.is_none()) {
            let Some(node) = nodes.place(now) else { return };
            pod.node = Some(node);
            pod.ready_at = now + self.start_seconds;
            known.start_ms = Some(ms(now));
            self.next_ready = self.next_ready.min(pod.ready_at);
            self.pending -= 1;
        }
    }

    fn become_ready(&mut self, now: u64, clock: f64) {
        if now < self.next_ready {
            return;
        }
        self.next_ready = NEVER;
        for (pod, known) in self.pods.iter_mut().zip(&mut self.known) {
            if pod.ready_at <= now && known.phase == Phase::Pending {
                pod.clock = clock;
                known.phase = Phase::Running;
                known.ready = Some((Truth::True, ms(now)));
                self.ready += 1;
            } else if pod.ready_at > now && pod.ready_at != NEVER {
                self.next_ready = self.next_ready.min(pod.ready_at);
            }
        }
    }

    /// A node is gone: its pods begin again elsewhere.
    fn evict(&mut self, node: usize) {
        for (pod, known) in
            self.pods.iter_mut().zip(&mut self.known).filter(|(pod, _)| pod.node == Some(node))
        {
            if known.is_running_and_ready() {
                self.ready -= 1;
            }
            *pod = Pod { node: None, ready_at: NEVER, clock: 0.0 };
            *known = Known { phase: Phase::Pending, deleted: false, ready: None, start_ms: None };
            self.pending += 1;
        }
    }
}

fn ms(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// What metrics-server and the adapter answer: for each of the autoscaler's metrics a value a pod.
#[derive(Debug)]
struct Metrics {
    pipeline: Pipeline,
    /// Core-seconds that each pod would have used had it been there from the start, for the last seconds.
    clock: [f64; MEMORY],
    first: f64,
    samples: Vec<Vec<Option<Sample>>>,
    requests: Vec<Vec<i64>>,
}

/// What a metric measures, as far as a simulation can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measured {
    Cpu,
    Memory,
    InFlight,
    Nothing,
}

fn measured(spec: &MetricSpec, container: &str) -> Measured {
    let resource = |name: &str| match name {
        "cpu" => Measured::Cpu,
        "memory" => Measured::Memory,
        _ => Measured::Nothing,
    };
    match &spec.source {
        Source::Resource { name } => resource(name),
        Source::ContainerResource { name, container: of } if of == container => resource(name),
        Source::Pods(metric) if metric.name == IN_FLIGHT => Measured::InFlight,
        _ => Measured::Nothing,
    }
}

impl Metrics {
    fn new(pipeline: &Pipeline, metrics: usize) -> Self {
        Self {
            pipeline: pipeline.clone(),
            clock: [0.0; MEMORY],
            first: 0.0,
            samples: vec![Vec::new(); metrics],
            requests: vec![Vec::new(); metrics],
        }
    }

    /// The clock some seconds ago. Before the run it was as in the run's first second.
    fn at(&self, now: u64, ago: u64) -> f64 {
        if ago > now {
            return self.first * (1.0 - (ago - now) as f64);
        }
        self.clock[(now - ago) as usize % MEMORY]
    }

    fn tick(&mut self, now: u64, clock: f64) {
        self.clock[now as usize % MEMORY] = clock;
        if now == 0 {
            self.first = clock;
        }
    }

    fn scrape(&mut self, now: u64, pods: &Pods, hpa: &Hpa, workload: &Workload, per_pod: &PerPod) {
        let Pipeline { window_seconds, mean_seconds, lag_seconds, .. } = self.pipeline;
        let end = self.at(now, lag_seconds);
        let start = self.at(now, lag_seconds + mean_seconds);
        let seen_until = now.saturating_sub(lag_seconds);
        let sample = |value_milli: i64| {
            Some(Sample { at_ms: ms(seen_until), window_ms: ms(window_seconds), value_milli })
        };
        for (index, spec) in hpa.metrics.iter().enumerate() {
            let what = measured(spec, &workload.container);
            let of_cpu = |since: f64| milli((end - since).max(0.0) / mean_seconds as f64);
            let old = sample(match what {
                Measured::Cpu => of_cpu(start),
                Measured::Memory => milli(per_pod.memory_mib * 1_048_576.0),
                Measured::InFlight => milli(per_pod.in_flight),
                Measured::Nothing => 0,
            });
            let samples = &mut self.samples[index];
            samples.clear();
            samples.extend(pods.pods.iter().map(|pod| {
                if pod.ready_at >= seen_until {
                    None
                } else if what == Measured::Cpu && pod.clock > start {
                    sample(of_cpu(pod.clock))
                } else {
                    old
                }
            }));
        }
    }

    fn reading<'s>(
        &'s self,
        index: usize,
        spec: &MetricSpec,
        pods: &'s Pods,
        workload: &Workload,
    ) -> Reading<'s> {
        // Nobody has answered before the first scrape.
        if self.samples[index].iter().all(Option::is_none) {
            return Reading::Failed("no metrics returned from resource metrics API");
        }
        if measured(spec, &workload.container) == Measured::Nothing {
            return Reading::Failed("the lab has no values of it");
        }
        let requests = match request(workload, spec) {
            Some(_) => Ok(self.requests[index].as_slice()),
            None => Err("missing request for the resource"),
        };
        Reading::Pods(Observation { pods: &pods.known, samples: &self.samples[index], strays: &[], requests })
    }
}

/// Thousandths, rounded up as the API's quantities are.
fn milli(value: f64) -> i64 {
    // What is a hair above a whole is that whole: floats add up to it.
    (value * 1000.0 - 1e-6).ceil() as i64
}

/// What each pod that serves has of the whole.
#[derive(Debug, Default, Clone, Copy)]
struct PerPod {
    in_flight: f64,
    memory_mib: f64,
}

/// The autoscaler with all that it looks at.
struct Autoscaler<'a> {
    hpa: &'a Hpa,
    workload: &'a Workload,
    config: Config,
    state: State,
    metrics: Metrics,
    next: usize,
    /// The highest value of each metric that it saw, as a sentence has it.
    highest: Vec<(i64, String)>,
    is_moved: bool,
    wanted_more_seconds: u64,
    last_sync: u64,
}

impl<'a> Autoscaler<'a> {
    fn new(hpa: &'a Hpa, workload: &'a Workload, pipeline: &Pipeline, minor: u32) -> Self {
        Self {
            hpa,
            workload,
            config: Config::of(minor),
            state: State::default(),
            metrics: Metrics::new(pipeline, hpa.metrics.len()),
            next: 0,
            highest: vec![(i64::MIN, String::new()); hpa.metrics.len()],
            is_moved: false,
            wanted_more_seconds: 0,
            last_sync: 0,
        }
    }

    fn is_due(&self, now: u64) -> bool {
        self.metrics.pipeline.syncs.at(self.next).is_some_and(|at| at < (now + 1) * 1000)
    }

    /// One sync; the new number of pods where it changed.
    fn sync(&mut self, now: u64, pods: &Pods) -> Option<Decision> {
        let at = self.metrics.pipeline.syncs.at(self.next)?;
        self.next += 1;
        let from = i32::try_from(pods.pods.len()).unwrap_or(i32::MAX);
        for (requests, spec) in self.metrics.requests.iter_mut().zip(&self.hpa.metrics) {
            let request = request(self.workload, spec);
            requests.clear();
            requests.resize(pods.pods.len(), request.unwrap_or(0));
        }
        let readings: Vec<Reading<'_>> = self
            .hpa
            .metrics
            .iter()
            .enumerate()
            .map(|(index, spec)| self.metrics.reading(index, spec, pods, self.workload))
            .collect();
        let scale = Scale { spec: from, status: from, selector: Selection::Usable };
        let sync = Sync {
            now_ms: i64::try_from(at).unwrap_or(i64::MAX),
            scale: Ok(&scale),
            update_error: None,
            pods: &pods.known,
            readings: &readings,
        };
        let outcome = self.state.sync(self.hpa, &sync, &self.config);
        self.remember(now, &outcome);
        if !outcome.is_rescaled {
            return None;
        }
        self.is_moved = true;
        Some(Decision {
            at: now,
            what: "pods",
            from: from.unsigned_abs(),
            to: outcome.replicas.unsigned_abs(),
            why: why(self.hpa, &outcome),
        })
    }

    fn remember(&mut self, now: u64, outcome: &Outcome) {
        let since = now - self.last_sync;
        self.last_sync = now;
        if outcome.limited.is_some_and(|limited| limited.reason == "TooManyReplicas") {
            self.wanted_more_seconds += since;
        }
        for (index, computed) in outcome.computed.iter().enumerate() {
            let Ok(proposal) = &computed.outcome else { continue };
            if proposal.usage_milli > self.highest[index].0 {
                self.highest[index] = (proposal.usage_milli, against(&self.hpa.metrics[index], proposal));
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.is_moved {
            let seen: Vec<&str> =
                self.highest.iter().map(|(_, text)| text.as_str()).filter(|text| !text.is_empty()).collect();
            let seen = if seen.is_empty() {
                "it saw no metric".into()
            } else {
                format!("the most that it saw is {}", seen.join(" and "))
            };
            notes.push(format!("the autoscaler never moved: {seen}"));
        }
        if self.wanted_more_seconds > 0 {
            notes.push(format!(
                "for {} the autoscaler wanted more than its maximum of {} pods",
                super::run::clock(self.wanted_more_seconds),
                self.hpa.max_replicas
            ));
        }
        for spec in self
            .hpa
            .metrics
            .iter()
            .filter(|spec| measured(spec, &self.workload.container) == Measured::Nothing)
        {
            notes.push(format!("a {} metric of the autoscaler has no values here", spec.source.kind()));
        }
        notes
    }
}

fn request(workload: &Workload, spec: &MetricSpec) -> Option<i64> {
    match measured(spec, &workload.container) {
        Measured::Cpu => workload.cpu_request_milli,
        Measured::Memory => workload.memory_request_mib.map(|mib| mib * 1_048_576 * 1000),
        Measured::InFlight | Measured::Nothing => Some(0),
    }
}

/// `cpu 83 % against 50 %`.
fn against(spec: &MetricSpec, proposal: &super::hpa::calculator::Proposal) -> String {
    let name = match &spec.source {
        Source::Resource { name } | Source::ContainerResource { name, .. } | Source::Unknown(name) => name,
        Source::Pods(metric) | Source::Object { metric, .. } | Source::External(metric) => &metric.name,
    };
    match (proposal.percent, spec.target.average_utilization) {
        (Some(percent), Some(target)) => format!("{name} {percent} % against {target} %"),
        _ => {
            let target = spec.target.average_value_milli.or(spec.target.value_milli).unwrap_or(0);
            let number = |milli: i64| milli as f64 / 1000.0;
            format!("{name} {} against {}", number(proposal.usage_milli), number(target))
        }
    }
}

/// `cpu 83 % against 50 % wants 7, policy allows 4`.
fn why(hpa: &Hpa, outcome: &Outcome) -> String {
    let chosen = outcome.proposed.and_then(|proposed| {
        outcome.computed.iter().zip(&hpa.metrics).find_map(|(computed, spec)| {
            let proposal = computed.outcome.as_ref().ok().filter(|proposal| proposal.replicas == proposed)?;
            Some(format!("{} wants {proposed}", against(spec, proposal)))
        })
    });
    let Some(mut text) = chosen else { return outcome.rescale_reason.clone() };
    if let Some(stabilized) = outcome.stabilized.filter(|stabilized| Some(*stabilized) != outcome.proposed) {
        text.push_str(&format!(", the window holds {stabilized}"));
    }
    if let Some(limited) = outcome.limited.filter(|limited| Some(limited.replicas) != outcome.stabilized) {
        let limit = match limited.reason {
            "TooManyReplicas" => "the maximum is",
            "TooFewReplicas" => "the minimum is",
            _ => "policy allows",
        };
        text.push_str(&format!(", {limit} {}", limited.replicas));
    }
    text
}

/// What an hour of the cluster adds up to.
#[derive(Debug, Default)]
struct Hour {
    seconds: u64,
    node_seconds: u64,
    arrived: f64,
    answered: f64,
    open: f64,
}

impl Hour {
    fn usage(&self, cluster: &Cluster, workload: &Workload, profile: &Profile, zones: u32) -> Usage {
        let in_ms = |seconds: u64| u128::from(seconds) * 1000;
        let (all, out) = bytes(profile, self.arrived, self.answered);
        let length = self.seconds.max(1) as f64;
        let has_balancer = workload.balancer != Balancer::None;
        let rate = self.arrived / length;
        let per_hour = all as f64 / length * 3600.0;
        let open = self.open / length + rate / REQUESTS_PER_CONNECTION;
        let units = capacity_units(rate / REQUESTS_PER_CONNECTION, open, per_hour, 0.0);
        // The NAT gateways have an address each, the balancer one in each zone.
        let addresses = cluster.nat_gateways + if has_balancer { zones } else { 0 };
        let on_nodes = if cluster.has_public_nodes { in_ms(self.node_seconds) } else { 0 };
        Usage {
            cluster_ms: in_ms(self.seconds),
            is_extended: cluster.is_extended,
            node_ms: [(cluster.instance.name.to_owned(), in_ms(self.node_seconds))].into(),
            volume_gb_ms: in_ms(self.node_seconds) * u128::from(cluster.volume_gb),
            nat_ms: in_ms(self.seconds) * u128::from(cluster.nat_gateways),
            address_ms: in_ms(self.seconds) * u128::from(addresses) + on_nodes,
            balancer: workload.balancer,
            balancer_ms: in_ms(self.seconds) * u128::from(has_balancer),
            capacity_micro_hours: units * u128::from(self.seconds) / 3600,
            balancer_bytes: all,
            out_bytes: out,
            ..Usage::default()
        }
    }
}

/// What a cluster used that served so many requests in so many seconds with as many nodes as it has.
#[must_use]
pub fn served(
    cluster: &Cluster,
    workload: &Workload,
    profile: &Profile,
    seconds: u64,
    requests: f64,
    zones: u32,
) -> Usage {
    let node_seconds = seconds * u64::from(cluster.nodes);
    let hour = Hour { seconds, node_seconds, arrived: requests, answered: requests, open: 0.0 };
    let usage = hour.usage(cluster, workload, profile, zones);
    // That is all there was of it, so its last hour is billed whole.
    Usage { balancer_ms: usage.balancer_ms.next_multiple_of(HOUR_MS), ..usage }
}

/// A run on EKS. `zones` is how many availability zones the cluster spreads over.
///
/// # Errors
/// A setting that is refused.
pub fn run(
    cluster: &Cluster,
    workload: &Workload,
    pipeline: &Pipeline,
    profile: &Profile,
    traffic: &Traffic,
    span: Span,
    zones: u32,
) -> Result<Run, String> {
    cluster.check()?;
    workload.check()?;
    profile.check()?;
    traffic.check()?;
    if pipeline.scrape_seconds == 0
        || pipeline.mean_seconds == 0
        || pipeline.lag_seconds + pipeline.mean_seconds >= MEMORY as u64
    {
        return Err(format!("a window and its lag are less than {MEMORY} s, and no scrape is free"));
    }
    let mut nodes = Nodes::new(cluster, workload.room());
    let start_seconds = workload.pod_start_seconds + (profile.start_ms / 1000.0).ceil() as u64;
    let mut pods = Pods::new(start_seconds);
    let bounds = workload.hpa.as_ref().map(|hpa| (hpa.min_replicas, hpa.max_replicas));
    let replicas = bounds.map_or(workload.replicas, |(min, max)| {
        workload.replicas.clamp(min.unsigned_abs(), max.unsigned_abs())
    });
    // As if it had been so for ever: those that fit are ready and old.
    pods.scale(replicas as usize, &mut nodes);
    pods.place(0, &mut nodes);
    for (pod, known) in pods.pods.iter_mut().zip(&mut pods.known).filter(|(pod, _)| pod.node.is_some()) {
        (pod.ready_at, pod.clock) = (0, f64::NEG_INFINITY);
        known.start_ms = Some(-3_600_000);
    }
    pods.next_ready = 0;
    pods.become_ready(0, f64::NEG_INFINITY);
    for known in pods.known.iter_mut().filter(|known| known.phase == Phase::Running) {
        known.ready = Some((Truth::True, -3_600_000));
    }
    let mut autoscaler =
        workload.hpa.as_ref().map(|hpa| Autoscaler::new(hpa, workload, pipeline, cluster.minor));
    let (speed, idle_cores) = workload.speed(cluster);
    let mut station = Station::new(profile, speed, workload.timeout_seconds);
    let mut recorder = Recorder::new(span);
    let (mut latencies, mut randomness) = (Latencies::default(), Randomness::default());
    let (mut hour, mut clock, mut over_memory, mut pending_seconds) = (Hour::default(), 0.0, 0u64, 0u64);
    let wait = profile.wait_ms / 1000.0;
    let service = profile.cpu_ms / 1000.0 / speed;
    let chance = Chance::of(service, idle_cores);
    let mut cores = 0.0;
    let mut is_crowd_changed = true;
    for (now, arrivals) in (0..span.seconds).zip(traffic.seconds()) {
        if nodes.has_new(now) {
            pods.place(now, &mut nodes);
            is_crowd_changed = true;
        }
        pods.become_ready(now, clock);
        if is_crowd_changed {
            is_crowd_changed = false;
            let share = nodes.cores_per_pod();
            cores = workload.cpu_limit.map_or(share, |limit| limit.min(share));
        }
        let servers = Servers { count: pods.ready as f64, cores, slots: workload.max_in_flight };
        let second = station.step(arrivals, &servers);
        let ready = servers.count.max(1.0);
        clock += second.cpu / ready;
        let queued = if second.queue_seconds > 0.0 {
            latencies.add(wait + service + second.queue_seconds, second.served);
            second.queue_seconds
        } else {
            randomness.add(second.load, second.served);
            chance.at(second.load)
        };
        let per_pod = PerPod {
            in_flight: station.in_flight() / ready,
            memory_mib: profile.memory_mib
                + station.in_flight() / ready * profile.request_memory_kib / 1024.0,
        };
        over_memory += u64::from(workload.memory_limit_mib.is_some_and(|limit| per_pod.memory_mib > limit));
        pending_seconds += u64::from(pods.pending > 0);
        let point = Point {
            at: now,
            arrived: arrivals,
            served: second.served,
            servers: servers.count,
            desired: pods.pods.len() as f64,
            nodes: f64::from(nodes.count()),
            in_flight: station.in_flight(),
            latency_ms: Some((wait + service + queued) * 1000.0),
            ..Point::default()
        };
        recorder.second(&point, second.shed, second.failed);
        hour.seconds += 1;
        hour.node_seconds += u64::from(nodes.count());
        hour.arrived += arrivals;
        hour.answered += second.served;
        hour.open += station.in_flight();
        if let Some(autoscaler) = &mut autoscaler {
            autoscaler.metrics.tick(now, clock);
            if now.is_multiple_of(pipeline.scrape_seconds) {
                autoscaler.metrics.scrape(now, &pods, autoscaler.hpa, workload, &per_pod);
            }
            while autoscaler.is_due(now) {
                if let Some(decision) = autoscaler.sync(now, &pods) {
                    pods.scale(decision.to as usize, &mut nodes);
                    pods.place(now, &mut nodes);
                    for samples in &mut autoscaler.metrics.samples {
                        samples.resize(pods.pods.len(), None);
                    }
                    recorder.decision(decision);
                    is_crowd_changed = true;
                }
            }
        }
        if now % SCAN_SECONDS == SCAN_SECONDS / 2 {
            let before = nodes.count();
            if let Some(change) = nodes.scan(now, pods.pending as i64) {
                let why = explain(&change);
                if let Change::Removed { node, .. } = change {
                    pods.evict(node);
                    pods.place(now, &mut nodes);
                    is_crowd_changed = true;
                }
                recorder.decision(Decision { at: now, what: "nodes", from: before, to: nodes.count(), why });
            }
        }
        if (now + 1).is_multiple_of(3600) || now + 1 == span.seconds {
            recorder.hour(std::mem::take(&mut hour).usage(cluster, workload, profile, zones));
        }
    }
    randomness.settle(&mut latencies, service, wait, idle_cores);
    let mut notes = autoscaler.map(|autoscaler| autoscaler.notes()).unwrap_or_default();
    if pending_seconds > 0 {
        notes.push(format!("for {} pods waited for a node", super::run::clock(pending_seconds)));
    }
    if over_memory > 0 {
        notes.push(format!(
            "for {} pods held more memory than their limit and would have been killed",
            super::run::clock(over_memory)
        ));
    }
    Ok(recorder.finish(&latencies, station.in_flight(), notes))
}

fn explain(change: &Change) -> String {
    match change {
        Change::Added { pending, .. } => format!("{pending} pods fit on no node"),
        Change::Removed { seconds, .. } => {
            format!("for {} s the pods of one requested less than half of it and fit elsewhere", seconds)
        }
    }
}
