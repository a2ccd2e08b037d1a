//! What the service sees of [`Records`](super::records::Records): in time or a 503, and kept for `HISTORY_TTL`.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{
    Seconds,
    records::{Change, Cursor, Page, Query, Record},
    state::State,
};
use crate::problem::{FieldError, Problem};

/// A handle on the records, and the time that they go by.
#[derive(Clone)]
pub struct Ledger {
    state: State,
    ttl: Duration,
    clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Ledger {
    /// Records in `state`, of which entries are kept for `ttl`.
    #[must_use]
    pub fn new(state: State, ttl: Duration, clock: Arc<dyn Fn() -> SystemTime + Send + Sync>) -> Self {
        Self { state, ttl, clock }
    }

    /// Why nothing can be kept here, if so.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.state.refusal()
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        millis((self.clock)())
    }

    /// When what is entered now is forgotten.
    #[must_use]
    pub fn keep_until(&self) -> Option<Seconds> {
        Some(kept_until(self.now(), self.ttl))
    }

    /// Makes an entry and changes with it, unless there is one of its name: whether it was new.
    ///
    /// # Errors
    /// 503 when the store does not answer in time.
    pub async fn enter(&self, entry: Record, changes: Vec<Change>) -> Result<bool, Problem> {
        self.state.enter(entry, changes, self.now() / 1000).await
    }

    /// Makes changes, all or nothing.
    ///
    /// # Errors
    /// 503 when the store does not answer in time.
    pub async fn change(&self, changes: Vec<Change>) -> Result<(), Problem> {
        self.state.change(changes).await
    }

    /// Reads a part of a log.
    ///
    /// # Errors
    /// 503 when the store does not answer in time.
    pub async fn read(&self, query: Query) -> Result<Page, Problem> {
        self.state.read(query).await
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The first whole second by which `lasts` has passed since `begin`, in milliseconds since 1970. Stores count in seconds:
/// rounded down, what is kept would be gone up to a second too early.
#[must_use]
pub fn kept_until(begin: u64, lasts: Duration) -> Seconds {
    let lasts = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    begin.saturating_add(lasts).div_ceil(1000)
}

/// A moment in milliseconds since 1970 as people read it (RFC 3339).
#[must_use]
pub fn timestamp(millis: u64) -> String {
    // The last year that RFC 3339 can write is 9999, and the library panics beyond.
    const LAST: u64 = 253_402_300_799_999;
    humantime::format_rfc3339(UNIX_EPOCH + Duration::from_millis(millis.min(LAST))).to_string()
}

/// A cursor as callers get it: nothing to read, nothing to escape.
#[must_use]
pub fn opaque(cursor: &Cursor) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(cursor.text())
}

/// The cursor that a caller has sent back.
///
/// # Errors
/// 422 when it is none of ours.
pub fn cursor(text: &str) -> Result<Cursor, Problem> {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.as_deref().and_then(Cursor::parse).ok_or_else(|| {
        Problem::invalid(vec![FieldError::field("continue", "must be what an answer said, unchanged")])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, targets::Target};

    #[test]
    fn nothing_is_forgotten_before_its_time_nor_a_second_after() {
        let config = Config::from_env(|_| None).unwrap();
        for (now, ttl) in [(0, 1000), (999, 1000), (1001, 1500), (1_500_000, 1), (1_500_001, 86_400_000)] {
            let clock = Arc::new(move || UNIX_EPOCH + Duration::from_millis(now));
            let state = State::of(&config, Target::Container);
            let until = Ledger::new(state, Duration::from_millis(ttl), clock).keep_until().unwrap() * 1000;
            assert!((now + ttl..now + ttl + 1000).contains(&until), "{now} + {ttl}: {until}");
        }
    }
}
