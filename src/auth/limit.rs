//! How often a caller may call this process, and how the answer says so.
//!
//! A token bucket for each caller, kept as one instant: when it will be full again (the generic cell rate algorithm).
//! A caller whose bucket is full is like one who never called, so idle callers cost no memory. The governor crate does
//! the same arithmetic, but its map of callers has no bound, and it does not tell when the next unit comes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::Subject;
use crate::problem::Problem;

/// Callers whose buckets are not full, at most: some 2 MB. Beyond it, newcomers wait.
pub const MOST_CALLERS: usize = 10_000;

/// draft-ietf-httpapi-ratelimit-headers-11 §4.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The same, §3.
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Requests in a window of time: so many at once, and so many more in each window after, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    window: Duration,
}

impl Rate {
    /// Reads `60/m`: a whole number, and `s`, `m` or `h`.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn parse(value: &str) -> Result<Self, String> {
        let (count, unit) = value.split_once('/').unwrap_or_default();
        let seconds = match unit {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(60 * 60),
            _ => None,
        };
        let count = count.parse().ok().filter(|count| (1..=1_000_000).contains(count));
        count
            .zip(seconds)
            .map(|(count, seconds)| Self { count, window: Duration::from_secs(seconds) })
            .ok_or_else(|| "requests in a second, minute or hour, such as 10/s, 60/m or 500/h".to_owned())
    }

    /// The time in which one unit comes back.
    fn interval(self) -> Duration {
        self.window / self.count
    }
}

/// As the setting is written.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.window.as_secs() {
            1 => 's',
            60 => 'm',
            _ => 'h',
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// The buckets of all callers.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    /// When each caller's bucket is full again.
    full_at: Mutex<HashMap<Subject, Instant>>,
}

impl Limiter {
    /// Everybody may call as often as `rate` says.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_at: Mutex::default() }
    }

    /// Takes one unit from the caller's bucket at `now`, if there is one.
    pub fn take(&self, caller: &Subject, now: Instant) -> Quota {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let known = full_at.get(caller).map(|full| full.saturating_duration_since(now));
        let quota = Quota::after(self.rate, known.unwrap_or_default());
        if quota.is_exceeded {
            return quota;
        }
        if known.is_none() && full_at.len() >= MOST_CALLERS {
            full_at.retain(|_, full| *full > now);
            if full_at.len() >= MOST_CALLERS {
                return Quota { is_exceeded: true, available: 0, ..quota };
            }
        }
        match full_at.get_mut(caller) {
            Some(full) => *full = now + quota.full_in,
            None => {
                full_at.insert(caller.clone(), now + quota.full_in);
            }
        }
        quota
    }
}

/// What is left to a caller after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    rate: Rate,
    full_in: Duration,
    available: u128,
    /// Until there is one unit more.
    next_in: Duration,
    is_exceeded: bool,
}

impl Quota {
    /// One unit taken from a bucket that would have been full after `full_in`.
    fn after(rate: Rate, full_in: Duration) -> Self {
        let interval = rate.interval();
        let most = interval * rate.count;
        let taken = full_in + interval;
        if taken > most {
            return Self { rate, full_in, available: 0, next_in: taken - most, is_exceeded: true };
        }
        let available = (most - taken).as_nanos() / interval.as_nanos().max(1);
        let missing = taken.as_nanos() - taken.as_nanos() / interval.as_nanos().max(1) * interval.as_nanos();
        let next_in = if missing == 0 { interval } else { nanoseconds(missing) };
        Self { rate, full_in: taken, available, next_in, is_exceeded: false }
    }

    /// Lets the request through, or not.
    ///
    /// # Errors
    /// 429 with `Retry-After`.
    pub fn check(&self) -> Result<(), Problem> {
        if !self.is_exceeded {
            return Ok(());
        }
        let detail = format!("you called more often than {} (here: there may be other replicas)", self.rate);
        Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
            .retry_after(Duration::from_secs(whole_seconds(self.next_in))))
    }

    /// Names policy and quota in an answer. `t` is the time until one unit more: within it, the caller can use no more
    /// than `r`.
    pub fn mark(&self, headers: &mut HeaderMap) {
        let policy = format!(r#""default";q={};w={}"#, self.rate.count, self.rate.window.as_secs());
        let limit = format!(r#""default";r={};t={}"#, self.available, whole_seconds(self.next_in));
        for (name, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, limit)] {
            // Digits and a few marks: every header may hold them.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Who comes back after rounded-down seconds would be too early.
fn whole_seconds(time: Duration) -> u64 {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1)
}

fn nanoseconds(count: u128) -> Duration {
    Duration::from_nanos(u64::try_from(count).unwrap_or(u64::MAX))
}
