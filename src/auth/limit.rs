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

    /// Takes `units` more for a request that was let in, also those that the caller does not have: the debt is paid off
    /// before the next request. Who is in debt already gets none.
    pub fn owe(&self, caller: &Subject, units: u32, now: Instant) -> Quota {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_in = full_at.get(caller).map(|full| full.saturating_duration_since(now)).unwrap_or_default();
        if full_in > self.rate.interval() * self.rate.count {
            return Quota { is_exceeded: true, ..Quota::at(self.rate, full_in) };
        }
        let quota = Quota::at(self.rate, full_in + self.rate.interval() * units);
        full_at.insert(caller.clone(), now + quota.full_in);
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
        Self::at(rate, taken)
    }

    /// What a bucket holds that will be full after `taken`.
    fn at(rate: Rate, taken: Duration) -> Self {
        let interval = rate.interval();
        let most = interval * rate.count;
        if taken > most {
            let next_in = taken - most + interval;
            return Self { rate, full_in: taken, available: 0, next_in, is_exceeded: false };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str) -> Subject {
        Subject::new("test", name.to_owned())
    }

    fn limiter(rate: &str) -> Limiter {
        Limiter::new(Rate::parse(rate).unwrap())
    }

    /// What the headers say, and whether the request may pass.
    fn take(limiter: &Limiter, name: &str, now: Instant) -> (String, bool) {
        let quota = limiter.take(&caller(name), now);
        let mut headers = HeaderMap::new();
        quota.mark(&mut headers);
        (headers[RATE_LIMIT].to_str().unwrap().to_owned(), quota.check().is_ok())
    }

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        for value in ["10/s", "60/m", "500/h", "1/h", "1000000/s"] {
            assert_eq!(Rate::parse(value).unwrap().to_string(), value);
        }
        for value in ["", "60", "/m", "60/", "60/d", "60/min", "0/m", "-1/m", "1000001/s", "1.5/s", "60/m/s"]
        {
            assert!(Rate::parse(value).is_err(), "{value}");
        }
    }

    #[test]
    fn so_many_pass_at_once_and_then_one_by_one() {
        let (limiter, start) = (limiter("3/m"), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        for (left, now) in [(2, 0), (1, 0), (0, 0)] {
            assert_eq!(take(&limiter, "a", after(now)), (format!(r#""default";r={left};t=20"#), true));
        }
        // Refusals cost nothing: the wait does not grow.
        for (seconds, wait) in [(0, 20), (0, 20), (5, 15), (19, 1)] {
            assert_eq!(take(&limiter, "a", after(seconds)), (format!(r#""default";r=0;t={wait}"#), false));
        }
        assert_eq!(take(&limiter, "a", after(20)), (r#""default";r=0;t=20"#.to_owned(), true));
        assert!(!take(&limiter, "a", after(39)).1);
        assert_eq!(take(&limiter, "a", after(70)), (r#""default";r=1;t=10"#.to_owned(), true));
        // A long rest fills the bucket, and no more.
        assert_eq!(take(&limiter, "a", after(9999)), (r#""default";r=2;t=20"#.to_owned(), true));
    }

    #[test]
    fn within_t_a_caller_can_use_no_more_than_r_and_after_it_one_more() {
        for rate in ["7/s", "60/m", "500/h", "1/h"] {
            let (limiter, mut now) = (limiter(rate), Instant::now());
            for _ in 0..300 {
                now += Duration::from_millis(fastrand::u64(..5000));
                let quota = limiter.take(&caller("a"), now);
                let left = |now| Quota::after(quota.rate, quota.full_in.saturating_sub(now)).available + 1;
                let before = quota.next_in.saturating_sub(Duration::from_nanos(1));
                if quota.available > 0 {
                    assert_eq!(left(before), quota.available, "{rate}");
                }
                if !quota.is_exceeded {
                    assert_eq!(left(quota.next_in), quota.available + 1, "{rate}");
                }
            }
        }
    }

    #[test]
    fn who_takes_more_than_there_is_pays_it_off_first() {
        let (limiter, start) = (limiter("3/m"), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let owe = |units, now| {
            let quota = limiter.owe(&caller("a"), units, now);
            (quota.available, whole_seconds(quota.next_in), quota.check().is_ok())
        };
        assert!(take(&limiter, "a", start).1);
        assert_eq!(owe(1, start), (1, 20, true), "as two requests");
        assert!(take(&limiter, "a", start).1);
        assert_eq!(owe(4, start), (0, 100, true), "four that it does not have, and the next one");
        assert_eq!(owe(1, start), (0, 100, false), "a second batch that was let in at the same time");
        assert_eq!(take(&limiter, "a", after(99)), (r#""default";r=0;t=1"#.to_owned(), false));
        assert!(take(&limiter, "a", after(100)).1);
    }

    #[test]
    fn no_caller_takes_from_another() {
        let (limiter, now) = (limiter("1/h"), Instant::now());
        assert!(take(&limiter, "a", now).1 && !take(&limiter, "a", now).1);
        assert!(take(&limiter, "b", now).1);
        let other = Subject::new("other", "a".to_owned());
        assert!(limiter.take(&other, now).check().is_ok(), "the same name from somebody else");
    }

    #[test]
    fn memory_is_bounded_and_idle_callers_make_room() {
        let (limiter, now) = (limiter("60/m"), Instant::now());
        for number in 0..MOST_CALLERS {
            assert!(take(&limiter, &number.to_string(), now).1);
        }
        assert!(!take(&limiter, "newcomer", now).1);
        assert!(take(&limiter, "0", now).1, "who is known goes on");
        assert_eq!(limiter.full_at.lock().unwrap().len(), MOST_CALLERS);
        // One second later all buckets but that of caller 0 are full.
        assert!(take(&limiter, "newcomer", now + Duration::from_secs(1)).1);
        assert_eq!(limiter.full_at.lock().unwrap().len(), 2);
    }

    #[test]
    fn who_called_too_often_is_told_when_to_come_back() {
        use axum::response::IntoResponse;
        let (limiter, now) = (limiter("7/m"), Instant::now());
        (0..7).for_each(|_| assert!(take(&limiter, "a", now).1));
        let quota = limiter.take(&caller("a"), now);
        let response = quota.check().unwrap_err().into_response();
        assert_eq!(response.status(), 429);
        // 60 / 7 is 8.57: one who came after 8 s would be too early.
        assert_eq!(response.headers()["retry-after"], "9");
        let mut headers = HeaderMap::new();
        quota.mark(&mut headers);
        assert_eq!(headers[RATE_LIMIT_POLICY], r#""default";q=7;w=60"#);
        assert_eq!(headers[RATE_LIMIT], r#""default";r=0;t=9"#);
    }
}
