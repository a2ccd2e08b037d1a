//! A recorded run without its recorded pods: pods come and go as the scale says, and use what the load gives them.
//!
//! The delays are the medians of the machine that recorded the runs.

use serde_json::Value;

use super::{
    controller::State,
    pods::{Phase, Pod, Truth},
    spec::{Hpa, Source},
    trace::{Curve, Line, Served, Trace, millicores, ms, step},
};

/// From the scale to a container that runs, in seconds.
const STARTS_IN: f64 = 1.0;
/// From the scale to a ready pod, whose process starts at once.
const READY_IN: f64 = 1.6;
/// From a start delay's end to the probe that sees it: half a period of the probe.
const PROBED_IN: f64 = 1.0;
/// From the scale to a pod that is gone.
const GONE_IN: f64 = 1.2;
/// From the start of a sync to its metrics, and to its decision.
const METRICS_IN: f64 = 0.006;
const DECIDED_IN: f64 = 0.05;
/// The memory of a pod where the run says nothing.
const MEMORY_BYTES: f64 = 20.0 * MEBIBYTE;
const MEBIBYTE: f64 = 1_048_576.0;

/// The times of one pod, in seconds.
struct Life {
    created: f64,
    runs: f64,
    ready: f64,
    ends: Option<f64>,
}

impl Life {
    fn begun(t: f64, start_delay: f64) -> Self {
        let ready = if start_delay > 0.0 { STARTS_IN + start_delay + PROBED_IN } else { READY_IN };
        Self { created: t.floor(), runs: t + STARTS_IN, ready: t + ready, ends: None }
    }

    fn is_ready(&self, t: f64) -> bool {
        self.ready <= t
    }

    /// What the API shows, in whole seconds.
    fn pod(&self, t: f64) -> Pod {
        let (truth, since) =
            if self.is_ready(t) { (Truth::True, self.ready) } else { (Truth::False, self.created) };
        Pod {
            phase: if self.runs <= t { Phase::Running } else { Phase::Pending },
            deleted: self.ends.is_some_and(|ends| ends <= t),
            ready: Some((truth, ms(since.floor()))),
            start_ms: Some(ms(self.created)),
        }
    }

    /// Whom the ReplicaSet's controller gives up first: those that are not ready, then the young; ages count by the
    /// power of two.
    fn rank(&self, t: f64) -> (bool, i32) {
        (self.is_ready(t), (t - self.created).max(1.0).log2().floor() as i32)
    }
}

/// A time in which some pods have no metrics.
struct Gap {
    from: f64,
    to: f64,
    is_all: bool,
}

impl Gap {
    /// Runs write the two instants as numbers, and `oldest` or `all` as a text, in a list or in an object.
    fn read(value: &Value) -> Option<Self> {
        let parts: Vec<&Value> = match value {
            Value::Array(parts) => parts.iter().collect(),
            Value::Object(parts) => parts.values().collect(),
            _ => return None,
        };
        let mut instants: Vec<f64> = parts.iter().filter_map(|part| part.as_f64()).collect();
        instants.sort_by(f64::total_cmp);
        let is_all = parts.iter().any(|part| part.as_str() == Some("all"));
        match instants.as_slice() {
            [from, .., to] => Some(Self { from: *from, to: *to, is_all }),
            _ => None,
        }
    }
}

/// What a run says of memory: a base, and a load in MiB that ready pods share.
struct Memory {
    base: f64,
    load: Curve,
}

impl Memory {
    fn read(value: Option<&Value>) -> Self {
        let field = |names: &[&str]| names.iter().find_map(|name| value?.get(*name));
        let base = match (field(&["base_mi", "base_mib"]), field(&["base_bytes", "base"])) {
            (Some(mebibytes), _) => mebibytes.as_f64().map(|base| base * MEBIBYTE),
            (None, Some(base)) => base.as_f64().map(|base| if base < 1e5 { base * MEBIBYTE } else { base }),
            (None, None) => None,
        };
        let points = field(&["load_mi", "breakpoints"]).cloned().unwrap_or_default();
        let points = points.get("breakpoints").cloned().unwrap_or(points);
        let interpolation = field(&["interpolation"]).and_then(Value::as_str).unwrap_or("step").to_owned();
        let breakpoints = serde_json::from_value(points).unwrap_or_default();
        Self { base: base.unwrap_or(MEMORY_BYTES), load: Curve { interpolation, breakpoints } }
    }
}

/// All pods of the run.
struct Model<'a> {
    trace: &'a Trace,
    lives: Vec<Life>,
    gaps: Vec<Gap>,
    memory: Memory,
}

/// The most pods that are modelled, so that no number in a file keeps the machine busy for long.
const MOST_PODS: usize = 10_000;

pub(super) fn replay(trace: &Trace) -> Result<Vec<Line>, String> {
    let (hpa, config) = (trace.hpa()?, trace.config());
    let mut model = Model::new(trace)?;
    let mut state = State::default();
    let mut current = trace.deployment.initial_replicas;
    let mut lines = Vec::with_capacity(trace.syncs.len());
    for (index, recorded) in trace.syncs.iter().enumerate() {
        let t = trace.sync_instants.get(index).copied().unwrap_or(recorded.t);
        let (asked, decided) = (t + METRICS_IN, t + DECIDED_IN);
        model.lives.retain(|life| life.ends.is_none_or(|ends| ends + GONE_IN > asked));
        let pods: Vec<Pod> = model.lives.iter().map(|life| life.pod(asked)).collect();
        let metrics = model.metrics(&hpa, asked);
        let said = step(&mut state, &hpa, &config, ms(decided), current, &pods, &metrics);
        let line = Line { t: recorded.t, current, said, recorded: recorded.said() };
        current = line.said.replicas;
        model.scale(current, decided)?;
        lines.push(line);
    }
    Ok(lines)
}

impl<'a> Model<'a> {
    fn new(trace: &'a Trace) -> Result<Self, String> {
        let mut model = Self {
            trace,
            lives: Vec::new(),
            gaps: trace.missing_metrics.iter().filter_map(Gap::read).collect(),
            memory: Memory::read(trace.memory.as_ref()),
        };
        // They were there well before the run began.
        model.scale(trace.deployment.initial_replicas, -100.0)?;
        Ok(model)
    }

    fn scale(&mut self, replicas: i32, t: f64) -> Result<(), String> {
        let wanted = usize::try_from(replicas).unwrap_or_default();
        if wanted > MOST_PODS {
            return Err(format!("{wanted} pods are more than {MOST_PODS}"));
        }
        let mut live: Vec<usize> =
            (0..self.lives.len()).filter(|index| self.lives[*index].ends.is_none()).collect();
        for _ in live.len()..wanted {
            self.lives.push(Life::begun(t, self.trace.pod_start_delay_s));
        }
        live.sort_by_key(|index| self.lives[*index].rank(t));
        for index in live.iter().take(live.len().saturating_sub(wanted)) {
            self.lives[*index].ends = Some(t);
        }
        Ok(())
    }

    fn metrics(&self, hpa: &Hpa, t: f64) -> Vec<Served> {
        hpa.metrics
            .iter()
            .map(|spec| match &spec.source {
                Source::Resource { name } | Source::ContainerResource { name, .. } => self.served(name, t),
                _ => Served::Failed("recorded runs have metrics of resources only"),
            })
            .collect()
    }

    fn served(&self, name: &str, t: f64) -> Served {
        let serves = |life: &Life| life.ends.is_none() && life.is_ready(t);
        let servers = self.lives.iter().filter(|life| serves(life)).count().max(1) as f64;
        let cpu = self.share(t, servers);
        let base = self.memory.base;
        let memory = base + self.memory.load.at(t) * MEBIBYTE / servers;
        let oldest = self.lives.iter().position(|life| life.ends.is_none());
        let gap = self.gaps.iter().find(|gap| gap.from <= t && t < gap.to);
        let values = self.lives.iter().enumerate().map(|(index, life)| {
            let is_listed = life.ends.is_none() && life.runs + self.trace.fresh_metric_delay_s <= t;
            let is_left_out = gap.is_some_and(|gap| gap.is_all || Some(index) == oldest);
            (is_listed && !is_left_out).then(|| match (name, serves(life)) {
                ("cpu", true) => millicores(cpu),
                ("cpu", false) => 0,
                (_, is_ready) => ((if is_ready { memory } else { base }) * 1000.0) as i64,
            })
        });
        self.trace.served(name, values, t.floor())
    }

    /// What each of some pods uses of the CPU, in billionths.
    fn share(&self, t: f64, servers: f64) -> i64 {
        let limit = self.trace.deployment.cpu_limit_m.map_or(f64::INFINITY, |limit| limit as f64);
        ((self.trace.load.at(t) / servers).min(limit) * 1e6).round() as i64
    }
}
