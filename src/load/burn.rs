//! The burning, free of HTTP.
//!
//! What is burnt is measured in the burning thread's own CPU time, not by the clock on the wall: a
//! thread that waits for a processor burns nothing. Only so does the load of a pod depend on what was
//! asked of it, and not on what else runs on its node. From 0.05 s on, the process burns within 1 % of
//! what was asked (median of 20), from 0.5 s on within 0.1 %: docs/performance.md says how that was measured.

use std::{hint::black_box, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// The CPU time of a request that asks for none, in seconds, where the limit allows it.
pub(super) const DEFAULT_SECONDS: f64 = 5.0;

/// Steps of arithmetic between two looks at the clock: microseconds, so that a burn is exact and ends soon
/// after nobody wants it; and many times what the look itself costs, a system call.
const STEPS: u32 = 8192;

/// The CPU seconds that a query string asks for: more than 0 and at most `max_seconds`.
///
/// Without the parameter it is [`DEFAULT_SECONDS`], or `max_seconds` if that is less. Other parameters
/// are ignored.
///
/// # Errors
/// What the parameter must be, with its bounds.
pub(super) fn seconds(query: &str, max_seconds: f64) -> Result<f64, String> {
    let mut given = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "seconds");
    let asked = match (given.next(), given.next()) {
        (None, _) => Some(DEFAULT_SECONDS.min(max_seconds)),
        (Some((_, value)), None) => value.parse().ok(),
        // Which one was meant cannot be known.
        (Some(_), Some(_)) => None,
    };
    asked
        .filter(|seconds| *seconds > 0.0 && *seconds <= max_seconds)
        .ok_or_else(|| format!("must be given once at most, as a number above 0 and up to {max_seconds}"))
}

/// Burns until `clock`, which tells the CPU time of this thread, has advanced by `cpu`. How many rounds
/// of arithmetic that took; `None` if it was no longer wanted before.
pub(super) fn burn(
    cpu: Duration,
    mut clock: impl FnMut() -> Duration,
    mut is_wanted: impl FnMut() -> bool,
) -> Option<u64> {
    let started = clock();
    let mut state = 1;
    for rounds in 1.. {
        state = black_box(round(state));
        if clock().saturating_sub(started) >= cpu {
            return Some(rounds);
        }
        if !is_wanted() {
            return None;
        }
    }
    None
}

/// Each step needs the one before (a 64-bit xorshift), so the processor cannot do several at once.
fn round(mut state: u64) -> u64 {
    for _ in 0..STEPS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    state
}

/// The CPU time that the calling thread has used, user and system.
pub(super) fn thread_cpu_time() -> Duration {
    // It never goes below zero; if it did, a burn would end rather than never end.
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_five_seconds_or_the_limit() {
        assert_eq!(seconds("", 20.0), Ok(5.0));
        assert_eq!(seconds("", 2.0), Ok(2.0));
        assert_eq!(seconds("minutes=1&x", 20.0), Ok(5.0));
    }

    #[test]
    fn a_number_within_the_bounds_is_taken_in_every_spelling() {
        for (query, expected) in [
            ("seconds=5", 5.0),
            ("seconds=20", 20.0),
            ("seconds=0.05", 0.05),
            ("seconds=5e-2", 0.05),
            ("a=b&seconds=%35.5", 5.5),
        ] {
            assert_eq!(seconds(query, 20.0), Ok(expected), "{query}");
        }
    }

    #[test]
    fn anything_else_is_told_the_bounds() {
        for query in [
            "seconds",
            "seconds=",
            "seconds=five",
            "seconds=5s",
            "seconds=0",
            "seconds=-0",
            "seconds=-1",
            "seconds=20.000001",
            "seconds=1e400",
            "seconds=1e-400",
            "seconds=NaN",
            "seconds=inf",
            "seconds=-inf",
            "seconds=infinity",
            "seconds=+5",
            "seconds=%FF",
            "seconds=0x5",
            "seconds=1&seconds=1",
        ] {
            let detail = seconds(query, 20.0).expect_err(query);
            assert!(detail.contains("above 0 and up to 20"), "{detail}");
        }
    }

    /// A clock that advances by `step` whenever it is looked at.
    fn ticking(step: Duration) -> impl FnMut() -> Duration {
        let mut now = Duration::from_secs(1000);
        move || {
            now += step;
            now
        }
    }

    #[test]
    fn it_burns_until_the_clock_has_advanced_as_asked() {
        let millisecond = Duration::from_millis(1);
        assert_eq!(burn(Duration::from_millis(7), ticking(millisecond), || true), Some(7));
        assert_eq!(burn(Duration::from_micros(6500), ticking(millisecond), || true), Some(7));
        assert_eq!(burn(Duration::ZERO, ticking(millisecond), || true), Some(1), "some work at least");
    }

    #[test]
    fn it_stops_with_the_round_in_which_it_is_no_longer_wanted() {
        let mut rounds = 0;
        let wanted_for_three = || {
            rounds += 1;
            rounds < 3
        };
        assert_eq!(burn(Duration::MAX, ticking(Duration::from_millis(1)), wanted_for_three), None);
        assert_eq!(rounds, 3);
    }

    #[test]
    fn every_round_works_on_what_the_last_one_left() {
        assert_ne!(round(1), 1);
        assert_ne!(round(round(1)), round(1));
    }

    #[test]
    fn waiting_is_not_burning() {
        let asleep = Duration::from_millis(300);
        let before = thread_cpu_time();
        std::thread::sleep(asleep);
        assert!(thread_cpu_time() - before < asleep, "the clock on the wall would have advanced by it");
        let before = thread_cpu_time();
        assert!(burn(Duration::from_millis(20), thread_cpu_time, || true).is_some());
        assert!(thread_cpu_time() - before >= Duration::from_millis(20));
    }
}
