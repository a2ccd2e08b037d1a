//! How fast, and how soon: bounds, rates, stabilization windows, and what is remembered for them.
//!
//! All of it is in `horizontal.go`.

use super::{
    Config,
    go::int32,
    spec::{Behavior, Policy, PolicyKind, Rules, SelectPolicy},
};

/// What a sync once asked for, before bounds and rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recommendation {
    /// How many replicas.
    pub replicas: i32,
    /// When.
    pub at_ms: i64,
}

/// A change of the scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleEvent {
    /// By how many replicas, in its direction.
    pub change: i32,
    /// When.
    pub at_ms: i64,
    /// Whether the next change may take its place.
    pub is_outdated: bool,
}

/// What the controller remembers of one autoscaler, as long as it runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// Nothing at all before the first sync.
    pub recommendations: Option<Vec<Recommendation>>,
    /// Changes up.
    pub ups: Vec<ScaleEvent>,
    /// Changes down.
    pub downs: Vec<ScaleEvent>,
}

/// A number of replicas, and the condition that says what kept it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// How many.
    pub replicas: i32,
    /// The reason of `ScalingLimited`.
    pub reason: &'static str,
    /// Its message.
    pub message: &'static str,
}

const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

const fn limited(replicas: i32, (reason, message): (&'static str, &'static str)) -> Limited {
    Limited { replicas, reason, message }
}

fn ms(seconds: i32) -> i64 {
    i64::from(seconds) * 1000
}

/// Bounds, and the limit on scaling up that holds without `behavior`.
///
/// Source: `convertDesiredReplicasWithRules`, `calculateScaleUpLimit`.
#[must_use]
pub fn within_rules(current: i32, desired: i32, min: i32, max: i32, config: &Config) -> Limited {
    let limit = int32((config.scale_up_factor * f64::from(current)).max(config.scale_up_minimum));
    let (most, why) = if max > limit { (limit, UP_LIMIT) } else { (max, TOO_MANY) };
    if desired < min {
        limited(min, TOO_FEW)
    } else if desired > most {
        limited(most, why)
    } else {
        limited(desired, WITHIN)
    }
}

/// The highest recommendation of the window that the flag sets, the present one included. It may be more than there
/// are: this way scales up, too.
///
/// The present one takes the place of the last that has left the window. One exactly at its end has not.
///
/// Source: `stabilizeRecommendation`.
pub fn stabilize(log: &mut Vec<Recommendation>, desired: i32, now_ms: i64, config: &Config) -> i32 {
    let cutoff = now_ms.saturating_sub(config.downscale_stabilization_ms);
    let recent = log.iter().filter(|each| each.at_ms >= cutoff).map(|each| each.replicas);
    let highest = recent.fold(desired, i32::max);
    record(log, desired, now_ms, |each| each.at_ms < cutoff);
    highest
}

/// The same under `behavior`: what the two windows leave of the way from the current count. Here a recommendation
/// exactly at the end of a window has left it, and one is replaced that has left both.
///
/// Source: `stabilizeRecommendationWithBehaviors`.
pub fn stabilize_both(
    log: &mut Vec<Recommendation>,
    current: i32,
    desired: i32,
    (up_seconds, down_seconds): (i32, i32),
    now_ms: i64,
) -> i32 {
    let (up_cutoff, down_cutoff) =
        (now_ms.saturating_sub(ms(up_seconds)), now_ms.saturating_sub(ms(down_seconds)));
    let (mut up, mut down) = (desired, desired);
    for each in log.iter() {
        if each.at_ms > up_cutoff {
            up = up.min(each.replicas);
        }
        if each.at_ms > down_cutoff {
            down = down.max(each.replicas);
        }
    }
    record(log, desired, now_ms, |each| each.at_ms < up_cutoff && each.at_ms < down_cutoff);
    current.max(up).min(down)
}

fn record(
    log: &mut Vec<Recommendation>,
    replicas: i32,
    at_ms: i64,
    is_old: impl Fn(&Recommendation) -> bool,
) {
    let present = Recommendation { replicas, at_ms };
    match log.iter().rposition(is_old) {
        Some(index) => log[index] = present,
        None => log.push(present),
    }
}

/// How much the scale changed in a period. A change exactly at its start does not count.
///
/// Source: `getReplicasChangePerPeriod`.
#[must_use]
pub fn change_in(period_seconds: i32, events: &[ScaleEvent], now_ms: i64) -> i32 {
    let cutoff = now_ms.saturating_sub(ms(period_seconds));
    events.iter().filter(|event| event.at_ms > cutoff).fold(0, |sum, event| sum.wrapping_add(event.change))
}

/// The most replicas that the policies allow.
///
/// Source: `calculateScaleUpLimitWithScalingRules`. A percentage is rounded up, or one replica could never become two.
#[must_use]
pub fn up_limit(current: i32, history: &History, rules: &Rules, now_ms: i64) -> i32 {
    let (start, choose): (i32, fn(i32, i32) -> i32) = match rules.select_policy {
        SelectPolicy::Disabled => return current,
        SelectPolicy::Min => (i32::MAX, i32::min),
        SelectPolicy::Max => (i32::MIN, i32::max),
    };
    rules.policies.iter().fold(start, |limit, policy| {
        let before = period_start(current, history, policy, now_ms);
        let proposed = match policy.kind {
            PolicyKind::Pods => before.wrapping_add(policy.value),
            PolicyKind::Percent => {
                int32((f64::from(before) * (1.0 + f64::from(policy.value) / 100.0)).ceil())
            }
        };
        choose(limit, proposed)
    })
}

/// The fewest replicas that the policies allow.
///
/// Source: `calculateScaleDownLimitWithBehaviors`. What a percentage leaves is cut off to a whole.
#[must_use]
pub fn down_limit(current: i32, history: &History, rules: &Rules, now_ms: i64) -> i32 {
    let (start, choose): (i32, fn(i32, i32) -> i32) = match rules.select_policy {
        SelectPolicy::Disabled => return current,
        SelectPolicy::Min => (i32::MIN, i32::max),
        SelectPolicy::Max => (i32::MAX, i32::min),
    };
    rules.policies.iter().fold(start, |limit, policy| {
        let before = period_start(current, history, policy, now_ms);
        let proposed = match policy.kind {
            PolicyKind::Pods => before.wrapping_sub(policy.value),
            PolicyKind::Percent => int32(f64::from(before) * (1.0 - f64::from(policy.value) / 100.0)),
        };
        choose(limit, proposed)
    })
}

fn period_start(current: i32, history: &History, policy: &Policy, now_ms: i64) -> i32 {
    let added = change_in(policy.period_seconds, &history.ups, now_ms);
    let removed = change_in(policy.period_seconds, &history.downs, now_ms);
    current.wrapping_sub(added).wrapping_add(removed)
}

/// Bounds and rates under `behavior`.
///
/// Source: `convertDesiredReplicasWithBehaviorRate`.
#[must_use]
pub fn within_rates(
    current: i32,
    desired: i32,
    (min, max): (i32, i32),
    behavior: &Behavior,
    history: &History,
    now_ms: i64,
) -> Limited {
    if desired > current {
        let limit = up_limit(current, history, &behavior.up, now_ms).max(current);
        let (most, why) = if max > limit { (limit, UP_LIMIT) } else { (max, TOO_MANY) };
        if desired > most {
            return limited(most, why);
        }
    } else if desired < current {
        let limit = down_limit(current, history, &behavior.down, now_ms).min(current);
        let (fewest, why) = if min < limit { (limit, DOWN_LIMIT) } else { (min, TOO_FEW) };
        if desired < fewest {
            return limited(fewest, why);
        }
    }
    limited(desired, WITHIN)
}

/// Remembers a change, as long as the longest policy of its direction asks for it: it takes the place of the last
/// that is older than that. One exactly as old is kept.
///
/// Source: `storeScaleEvent`, `markScaleEventsOutdated`, `getLongestPolicyPeriod`.
pub fn store(history: &mut History, behavior: &Behavior, before: i32, after: i32, now_ms: i64) {
    let (events, rules, change) = if after > before {
        (&mut history.ups, &behavior.up, after.wrapping_sub(before))
    } else {
        (&mut history.downs, &behavior.down, before.wrapping_sub(after))
    };
    let longest = rules.policies.iter().map(|policy| policy.period_seconds).fold(0, i32::max);
    let cutoff = now_ms.saturating_sub(ms(longest));
    for event in events.iter_mut().filter(|event| event.at_ms < cutoff) {
        event.is_outdated = true;
    }
    let present = ScaleEvent { change, at_ms: now_ms, is_outdated: false };
    match events.iter().rposition(|event| event.is_outdated) {
        Some(index) => events[index] = present,
        None => events.push(present),
    }
}
