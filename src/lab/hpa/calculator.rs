//! Replicas from one metric: no bounds, no rates, no memory.
//!
//! The controller keeps maps from pods to values; all that it ever asks of them is how many there are and what they
//! sum up to, so one pass over the pods with a handful of sums (`Tally`) gives the same numbers.

use super::{
    Config,
    go::{divided, int32, int64, low32},
    pods::{Group, Observation, Pod, group},
};

/// How far a ratio may be from 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerances {
    /// `|1 - ratio| <= tolerance`, as in 1.32. In floating point a ratio of 1.1 is outside of 0.1.
    Around(f64),
    /// `1 - down <= ratio <= 1 + up`, from 1.33 on. A ratio of 1.1 is within 0.1.
    Between {
        /// Below the target.
        down: f64,
        /// Above it.
        up: f64,
    },
}

impl Tolerances {
    /// Source: the comparisons with `c.tolerance` in 1.32; `Tolerances.isWithin` since.
    #[must_use]
    pub fn allow(self, ratio: f64) -> bool {
        match self {
            Self::Around(tolerance) => (1.0 - ratio).abs() <= tolerance,
            Self::Between { down, up } => 1.0 - down <= ratio && ratio <= 1.0 + up,
        }
    }
}

/// What all calculations are given.
#[derive(Debug, Clone, Copy)]
pub struct Basis<'a> {
    /// The scale's `spec.replicas`.
    pub current: i32,
    /// The scale's `status.replicas`.
    pub status: i32,
    /// The instant of the decision.
    pub now_ms: i64,
    /// How far from its target the metric may be.
    pub tolerances: Tolerances,
    /// The controller's flags.
    pub config: &'a Config,
}

/// How a number of replicas came about, for people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Working {
    /// How many pods are in which group; zero where a metric does not ask.
    pub ready: i64,
    /// See [`Group::Unready`].
    pub unready: i64,
    /// See [`Group::Missing`].
    pub missing: i64,
    /// See [`Group::Ignored`].
    pub ignored: i64,
    /// The metric's value over its target.
    pub ratio: f64,
    /// The same with unready and missing pods filled in, where there are some.
    pub filled_ratio: Option<f64>,
    /// What the ratio was multiplied by.
    pub counted: i64,
    /// What decided.
    pub verdict: Verdict,
}

/// Which rule had the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The ratio is so near to 1 that nothing is done.
    Tolerated,
    /// With pods filled in, the ratio points the other way: nothing is done.
    Turned,
    /// With pods filled in, the count moves against the ratio: nothing is done.
    Opposed,
    /// The ratio times the pods that count, rounded up.
    Scaled,
}

/// Replicas from a metric, and what the status shows of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    /// How many replicas the metric asks for.
    pub replicas: i32,
    /// The value shown: the average of a pod, or the whole where the target is one.
    pub usage_milli: i64,
    /// The utilization shown, where the target is one.
    pub percent: Option<i32>,
    /// How it came about.
    pub working: Working,
}

/// One group of pods, counted and summed up.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    pods: i64,
    values: i64,
    requests: i64,
}

impl Sums {
    fn add(&mut self, value: i64, request: i64) {
        self.pods += 1;
        self.values = self.values.wrapping_add(value);
        self.requests = self.requests.wrapping_add(request);
    }

    fn and(self, other: Self) -> Self {
        Self {
            pods: self.pods + other.pods,
            values: self.values.wrapping_add(other.values),
            requests: self.requests.wrapping_add(other.requests),
        }
    }
}

/// The pods of one target, by group. `missing.values` is what they stand for on the way down.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    ready: Sums,
    unready: Sums,
    missing: Sums,
    ignored: i64,
}

impl Tally {
    fn of(seen: &Observation<'_>, is_cpu: bool, basis: &Basis<'_>, stand_in: impl Fn(i64) -> i64) -> Self {
        let mut tally = Self::default();
        for (pod, sample, request) in seen.each() {
            match group(pod, sample, is_cpu, basis.now_ms, basis.config) {
                Group::Ready => tally.ready.add(sample.map_or(0, |sample| sample.value_milli), request),
                Group::Unready => tally.unready.add(0, request),
                Group::Missing => tally.missing.add(stand_in(request), request),
                Group::Ignored => tally.ignored += 1,
            }
        }
        tally
    }

    /// What is left of the metrics, or why there is nothing to go by.
    fn samples(&self, seen: &Observation<'_>) -> Result<i64, String> {
        if seen.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        match self.ready.pods.wrapping_add_unsigned(seen.strays.len() as u64) {
            0 => Err("did not receive metrics for targeted pods (pods might be unready)".into()),
            left => Ok(left),
        }
    }

    /// The pods that a ratio is taken of when unready and missing ones count: those without a sample as nothing on the
    /// way up and as `missing.values` on the way down, those that are not ready as nothing and on the way up only.
    fn filled(&self, ratio: f64) -> Sums {
        let empty = |sums: Sums| Sums { values: 0, ..sums };
        let mut filled = self.ready;
        if ratio < 1.0 {
            filled = filled.and(self.missing);
        } else if ratio > 1.0 {
            filled = filled.and(empty(self.missing)).and(empty(self.unready));
        }
        filled
    }

    /// The half that both kinds of target share: `GetResourceReplicas` and `calcPlainMetricReplicas` from the first
    /// ratio on. `ratio_of` is asked again when pods are filled in; `samples` are the metrics that are left,
    /// including those of pods that are not in the list.
    fn decide(
        &self,
        basis: &Basis<'_>,
        ratio: f64,
        samples: i64,
        ratio_of: impl Fn(Sums) -> Result<f64, String>,
    ) -> Result<(i32, Working), String> {
        let working = |filled_ratio, counted, verdict| Working {
            ready: self.ready.pods,
            unready: self.unready.pods,
            missing: self.missing.pods,
            ignored: self.ignored,
            ratio,
            filled_ratio,
            counted,
            verdict,
        };
        let rises_with_unready = self.unready.pods > 0 && ratio > 1.0;
        if !rises_with_unready && self.missing.pods == 0 {
            let counted = self.ready.pods;
            return Ok(if basis.tolerances.allow(ratio) {
                (basis.current, working(None, counted, Verdict::Tolerated))
            } else {
                (int32((ratio * counted as f64).ceil()), working(None, counted, Verdict::Scaled))
            });
        }
        let filled = self.filled(ratio);
        let again = ratio_of(filled)?;
        let counted = filled.pods + (samples - self.ready.pods);
        let done = |replicas, verdict| Ok((replicas, working(Some(again), counted, verdict)));
        if basis.tolerances.allow(again) {
            return done(basis.current, Verdict::Tolerated);
        }
        if (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0) {
            return done(basis.current, Verdict::Turned);
        }
        let replicas = int32((again * counted as f64).ceil());
        if (again < 1.0 && replicas > basis.current) || (again > 1.0 && replicas < basis.current) {
            return done(basis.current, Verdict::Opposed);
        }
        done(replicas, Verdict::Scaled)
    }
}

/// A resource against a share of what its pods request.
///
/// Source: `GetResourceReplicas`, `GetResourceUtilizationRatio`. The share is a whole percent, cut off, before the
/// ratio is taken.
///
/// # Errors
/// Why there is no number, in the controller's words.
pub fn utilization(
    seen: &Observation<'_>,
    target_percent: i32,
    is_cpu: bool,
    basis: &Basis<'_>,
) -> Result<Proposal, String> {
    // On the way down a pod without a sample stands for all that it requests, or for the target where that is more.
    let stand_in = |request: i64| divided(request.wrapping_mul(i64::from(target_percent.max(100))), 100);
    let tally = Tally::of(seen, is_cpu, basis, stand_in);
    let samples = tally.samples(seen)?;
    seen.requests?;
    let percent = percent_of(tally.ready)?;
    let ratio = f64::from(percent) / f64::from(target_percent);
    let (replicas, working) = tally.decide(basis, ratio, samples, |filled| {
        Ok(f64::from(percent_of(filled)?) / f64::from(target_percent))
    })?;
    let usage_milli = divided(tally.ready.values, tally.ready.pods);
    Ok(Proposal { replicas, usage_milli, percent: Some(percent), working })
}

fn percent_of(sums: Sums) -> Result<i32, String> {
    if sums.requests == 0 {
        return Err("no metrics returned matched known pods".into());
    }
    Ok(low32(divided(sums.values.wrapping_mul(100), sums.requests)))
}

/// A value a pod against a target, of a resource or of a metric that pods report.
///
/// Source: `GetRawResourceReplicas`, `GetMetricReplicas`, `calcPlainMetricReplicas`, `GetMetricUsageRatio`. Values of
/// pods that are not in the list count here, because no request is looked up.
///
/// # Errors
/// Why there is no number, in the controller's words.
pub fn average(
    seen: &Observation<'_>,
    target_milli: i64,
    is_cpu: bool,
    basis: &Basis<'_>,
) -> Result<Proposal, String> {
    let tally = Tally::of(seen, is_cpu, basis, |_| target_milli);
    let samples = tally.samples(seen)?;
    let strays = seen.strays.iter().fold(0i64, |sum, value| sum.wrapping_add(*value));
    let average_of = |sums: Sums| {
        divided(sums.values.wrapping_add(strays), sums.pods.wrapping_add_unsigned(seen.strays.len() as u64))
    };
    let usage_milli = average_of(tally.ready);
    let ratio_of = |usage: i64| usage as f64 / target_milli as f64;
    let (replicas, working) =
        tally.decide(basis, ratio_of(usage_milli), samples, |filled| Ok(ratio_of(average_of(filled))))?;
    Ok(Proposal { replicas, usage_milli, percent: None, working })
}

/// A value of one object against a target: the ready pods times the ratio.
///
/// Source: `GetObjectMetricReplicas`, `getUsageRatioReplicaCount`.
///
/// # Errors
/// Why there is no number, in the controller's words.
pub fn whole(
    usage_milli: i64,
    target_milli: i64,
    pods: &[Pod],
    basis: &Basis<'_>,
) -> Result<Proposal, String> {
    let ratio = usage_milli as f64 / target_milli as f64;
    let (replicas, counted, verdict) = if basis.current == 0 {
        // From zero there are no pods to multiply, and no tolerance to keep it there.
        (int32(ratio.ceil()), 1, Verdict::Scaled)
    } else if basis.tolerances.allow(ratio) {
        (basis.current, 0, Verdict::Tolerated)
    } else {
        let ready = ready_pods(pods).map_err(|error| format!("unable to calculate ready pods: {error}"))?;
        (capped(ratio * ready as f64, basis.config.minor >= 35), ready, Verdict::Scaled)
    };
    Ok(Proposal { replicas, usage_milli, percent: None, working: alone(ratio, counted, verdict) })
}

/// A value of one object against a target for each pod.
///
/// Source: `GetObjectPerPodMetricReplicas`. It multiplies the scale's *status* replicas, and asks no pod.
#[must_use]
pub fn shared(total_milli: i64, target_milli: i64, basis: &Basis<'_>) -> Proposal {
    let (replicas, working) = share(total_milli, target_milli, basis, false);
    let usage_milli = int64((total_milli as f64 / f64::from(basis.status)).ceil());
    Proposal { replicas, usage_milli, percent: None, working }
}

/// The values of an external metric, summed up, against a target.
///
/// Source: `GetExternalMetricReplicas`. From 1.35 on the sum stops at the largest number, before it wrapped.
///
/// # Errors
/// Why there is no number, in the controller's words.
pub fn external_whole(
    values_milli: &[i64],
    target_milli: i64,
    pods: &[Pod],
    basis: &Basis<'_>,
) -> Result<Proposal, String> {
    let mut total = 0i64;
    for value in values_milli {
        if basis.config.minor >= 35 && *value > 0 && total > i64::MAX - value {
            total = i64::MAX;
            break;
        }
        total = total.wrapping_add(*value);
    }
    whole(total, target_milli, pods, basis)
}

/// The values of an external metric, summed up, against a target for each pod.
///
/// Source: `GetExternalPerPodMetricReplicas`. From 1.34 on neither sum nor count leaves its range.
#[must_use]
pub fn external_shared(values_milli: &[i64], target_milli: i64, basis: &Basis<'_>) -> Proposal {
    let caps = basis.config.minor >= 34;
    let mut total = 0i64;
    for value in values_milli {
        total = total.wrapping_add(*value);
        if caps && total < 0 {
            total = i64::MAX;
            break;
        }
    }
    let (replicas, working) = share(total, target_milli, basis, caps);
    let usage_milli = if caps && total as f64 >= i64::MAX as f64 {
        i64::MAX
    } else {
        int64((total as f64 / f64::from(basis.status)).ceil())
    };
    Proposal { replicas, usage_milli, percent: None, working }
}

fn share(total_milli: i64, target_milli: i64, basis: &Basis<'_>, caps: bool) -> (i32, Working) {
    let ratio = total_milli as f64 / (target_milli as f64 * f64::from(basis.status));
    if basis.tolerances.allow(ratio) {
        return (basis.status, alone(ratio, 0, Verdict::Tolerated));
    }
    let replicas = capped(total_milli as f64 / target_milli as f64, caps);
    (replicas, alone(ratio, i64::from(basis.status), Verdict::Scaled))
}

/// `int32(math.Ceil(x))`, and from some release on not beyond the largest.
fn capped(x: f64, caps: bool) -> i32 {
    if caps && x > f64::from(i32::MAX) { i32::MAX } else { int32(x.ceil()) }
}

/// Source: `getReadyPodsCount`.
fn ready_pods(pods: &[Pod]) -> Result<i64, &'static str> {
    if pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count");
    }
    Ok(pods.iter().filter(|pod| pod.is_running_and_ready()).count() as i64)
}

/// The working of a metric that belongs to no pod.
fn alone(ratio: f64, counted: i64, verdict: Verdict) -> Working {
    Working {
        ready: counted,
        unready: 0,
        missing: 0,
        ignored: 0,
        ratio,
        filled_ratio: None,
        counted,
        verdict,
    }
}
