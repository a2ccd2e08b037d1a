//! What a simulated run leaves behind, for either target.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    cost::Usage,
    service::{Latencies, Profile},
};

/// Most points of a timeline.
const POINTS: u64 = 720;
/// Most decisions that are kept; the others are counted.
const DECISIONS: usize = 10_000;

/// How long, and where from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Seconds.
    pub seconds: u64,
}

impl Span {
    /// # Errors
    /// That it is empty or longer than a year.
    pub fn of(seconds: u64) -> Result<Self, String> {
        if seconds == 0 || seconds > super::traffic::MAX_SECONDS {
            return Err(format!("a run of {seconds} s is not between a second and a year"));
        }
        Ok(Self { seconds })
    }

    /// Seconds that a point of the timeline stands for.
    #[must_use]
    pub fn step(self) -> u64 {
        self.seconds.div_ceil(POINTS)
    }
}

/// What a point of a timeline shows: means of its seconds, but for `at`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
#[schema(as = RunPoint)]
pub struct Point {
    /// Its first second.
    pub at: u64,
    /// Requests a second.
    pub arrived: f64,
    /// Answers a second.
    pub served: f64,
    /// Refusals and failures a second.
    pub lost: f64,
    /// Pods that serve, or environments.
    pub servers: f64,
    /// Pods that the Deployment asks for; none on Lambda.
    pub desired: f64,
    /// Nodes; none on Lambda.
    pub nodes: f64,
    /// Requests inside.
    pub in_flight: f64,
    /// Cold starts a second; none of pods.
    pub cold: f64,
    /// How long answers took on average, in milliseconds; nothing where there were none.
    pub latency_ms: Option<f64>,
}

/// A change that somebody decided on, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RunDecision)]
pub struct Decision {
    /// The second.
    pub at: u64,
    /// Of what: `pods` or `nodes`.
    pub what: &'static str,
    /// Before.
    pub from: u32,
    /// After.
    pub to: u32,
    /// In a sentence.
    pub why: String,
}

/// How the requests of a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
#[schema(as = RunRequests)]
pub struct Requests {
    /// In.
    pub arrived: f64,
    /// Answered in time.
    pub served: f64,
    /// Turned away: 503 of a pod, 429 of Lambda or its gateway.
    pub shed: f64,
    /// Not answered in time.
    pub failed: f64,
    /// Inside when the run ended.
    pub waiting: f64,
    /// Of those served, the ones that met a cold start.
    pub cold: f64,
}

impl Requests {
    /// The share that was not served, of those that ended.
    #[must_use]
    pub fn lost_share(&self) -> f64 {
        let ended = self.served + self.shed + self.failed;
        if ended > 0.0 { (self.shed + self.failed) / ended } else { 0.0 }
    }
}

/// How long answers took, in milliseconds; nothing where there were none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, ToSchema)]
#[schema(as = RunPercentiles)]
pub struct Percentiles {
    /// The median.
    pub p50_ms: Option<f64>,
    /// 95 of 100 were faster.
    pub p95_ms: Option<f64>,
    /// 99 of 100 were faster.
    pub p99_ms: Option<f64>,
}

impl Percentiles {
    /// Of what was measured.
    #[must_use]
    pub fn of(latencies: &Latencies) -> Self {
        // Buckets are 1.6 % apart: three digits say all that there is.
        let ms = |share| {
            latencies.quantile(share).map(|seconds| {
                let ms = seconds * 1000.0;
                format!("{ms:.2e}").parse().unwrap_or(ms)
            })
        };
        Self { p50_ms: ms(0.5), p95_ms: ms(0.95), p99_ms: ms(0.99) }
    }
}

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// How long it was.
    pub seconds: u64,
    /// What became of the requests.
    pub requests: Requests,
    /// How long the answers took.
    pub latency: Percentiles,
    /// What was used in each hour.
    pub hours: Vec<Usage>,
    /// In order of time.
    pub decisions: Vec<Decision>,
    /// Decisions beyond those that are kept.
    pub more_decisions: u64,
    /// Up to some hundred points.
    pub timeline: Vec<Point>,
    /// The most servers at once.
    pub most_servers: f64,
    /// The fewest.
    pub fewest_servers: f64,
    /// The most nodes.
    pub most_nodes: u32,
    /// What a person should know besides.
    pub notes: Vec<String>,
}

impl Run {
    /// What was used in all.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        self.hours.iter().for_each(|hour| sum += hour);
        sum
    }

    /// As much as a month of such runs uses.
    #[must_use]
    pub fn monthly(&self) -> Usage {
        self.usage().scaled(super::cost::MONTH_SECONDS, self.seconds)
    }
}

/// Collects a run while it goes on.
#[derive(Debug)]
pub(super) struct Recorder {
    step: u64,
    sums: Point,
    /// Milliseconds that all answers of the point took.
    latency_ms: f64,
    run: Run,
}

impl Recorder {
    pub(super) fn new(span: Span) -> Self {
        let run = Run {
            seconds: span.seconds,
            requests: Requests::default(),
            latency: Percentiles::default(),
            hours: Vec::new(),
            decisions: Vec::new(),
            more_decisions: 0,
            timeline: Vec::new(),
            most_servers: 0.0,
            fewest_servers: f64::INFINITY,
            most_nodes: 0,
            notes: Vec::new(),
        };
        Self { step: span.step(), sums: Point::default(), latency_ms: 0.0, run }
    }

    /// One second: its point holds what happened in it.
    pub(super) fn second(&mut self, point: &Point, shed: f64, failed: f64) {
        let requests = &mut self.run.requests;
        requests.arrived += point.arrived;
        requests.served += point.served;
        requests.shed += shed;
        requests.failed += failed;
        requests.cold += point.cold;
        self.run.most_servers = self.run.most_servers.max(point.servers);
        self.run.fewest_servers = self.run.fewest_servers.min(point.servers);
        let sums = &mut self.sums;
        sums.arrived += point.arrived;
        sums.served += point.served;
        sums.lost += shed + failed;
        sums.servers += point.servers;
        sums.desired += point.desired;
        sums.nodes += point.nodes;
        sums.in_flight += point.in_flight;
        sums.cold += point.cold;
        self.latency_ms += point.latency_ms.unwrap_or(0.0) * point.served;
        if (point.at + 1).is_multiple_of(self.step) || point.at + 1 == self.run.seconds {
            self.flush(point.at);
        }
    }

    fn flush(&mut self, last: u64) {
        let first = last - last % self.step;
        let seconds = (last - first + 1) as f64;
        let mut point = std::mem::take(&mut self.sums);
        point.at = first;
        let latency_ms = std::mem::take(&mut self.latency_ms);
        point.latency_ms = (point.served > 0.0).then(|| latency_ms / point.served);
        for value in [
            &mut point.arrived,
            &mut point.served,
            &mut point.lost,
            &mut point.servers,
            &mut point.desired,
            &mut point.nodes,
            &mut point.in_flight,
            &mut point.cold,
        ] {
            *value /= seconds;
        }
        self.run.timeline.push(point);
    }

    pub(super) fn decision(&mut self, decision: Decision) {
        if decision.what == "nodes" {
            self.run.most_nodes = self.run.most_nodes.max(decision.to);
        }
        if self.run.decisions.len() < DECISIONS {
            self.run.decisions.push(decision);
        } else {
            self.run.more_decisions += 1;
        }
    }

    pub(super) fn hour(&mut self, usage: Usage) {
        self.run.hours.push(usage);
    }

    pub(super) fn finish(mut self, latencies: &Latencies, waiting: f64, notes: Vec<String>) -> Run {
        self.run.latency = Percentiles::of(latencies);
        self.run.requests.waiting = waiting;
        self.run.notes = notes;
        self.run
    }
}

/// Bytes of so many requests, in and out.
pub(super) fn bytes(profile: &Profile, arrived: f64, answered: f64) -> (u128, u128) {
    let out = (answered * profile.response_bytes).round() as u128;
    ((arrived * profile.request_bytes).round() as u128 + out, out)
}

/// `02:15:00`, with days in front where there are some.
#[must_use]
pub fn clock(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let time = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}d {time}") } else { time }
}
