//! What the service sees of its store: every call in time or a 503, sessions that expire, health.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::{
    Database, Seconds, SequenceId, Step, StoreError,
    records::{Change, Page, Query, Record},
};
use crate::{config::Config, problem::Problem, targets::Target};

/// Longest time for a call: with what surrounds it, callers have their 503 within two seconds.
const DEADLINE: Duration = Duration::from_millis(1500);

/// How soon a caller may try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long the answer to an `Idempotency-Key` is remembered.
const RETRIES_LAST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long what a health check found out counts: anybody may ask, and each probe writes.
const HEALTH_LASTS: Duration = Duration::from_secs(1);

/// One step in so many removes what has expired. By chance rather than by count, because a Lambda
/// process may never see as many; during the call, because it runs only then.
const STEPS_BETWEEN_REMOVALS: u32 = 256;

/// The same for records: more often, because each entry is a row of its own that will expire.
const ENTRIES_BETWEEN_REMOVALS: u32 = 64;

/// Most rows that one removal takes away: a few milliseconds.
const REMOVED_AT_ONCE: u32 = 1000;

/// A handle on the store.
#[derive(Clone)]
pub struct State(Arc<Inner>);

struct Inner {
    kind: &'static str,
    is_embedded: bool,
    store: Result<Arc<dyn Database>, String>,
    session_ttl: Duration,
    was_used: AtomicBool,
    last_probe: Mutex<Option<(Instant, bool)>>,
}

/// The store's part of `GET /health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct StoreHealth {
    /// `sqlite`, `postgres` or `dynamodb`.
    #[schema(example = "postgres")]
    kind: &'static str,
    /// `ok`; `unused`: an embedded store that nothing was asked of yet; `not configured`: see `detail`;
    /// `unavailable`: its routes answer 503.
    #[schema(example = "ok")]
    status: &'static str,
    /// What to configure.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl StoreHealth {
    /// Whether the service misses it.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.status == "unavailable"
    }
}

impl State {
    /// The store that the settings name, unless it would give wrong answers where this process runs.
    #[must_use]
    pub fn of(config: &Config, target: Target) -> Self {
        let store = match refusal(config, target) {
            Some(reason) => Err(reason),
            None => super::open(config).map_err(|error| {
                tracing::error!(
                    error = &error as &(dyn std::error::Error + 'static),
                    "Could not open the store"
                );
                "the state store that STATE_URL names cannot be opened; the log says why".to_owned()
            }),
        };
        Self::with(config, store)
    }

    /// A store that is open already, with what else the settings say: for tests.
    #[must_use]
    pub fn around(config: &Config, store: Arc<dyn Database>) -> Self {
        Self::with(config, Ok(store))
    }

    fn with(config: &Config, store: Result<Arc<dyn Database>, String>) -> Self {
        Self(Arc::new(Inner {
            kind: config.state_url.kind(),
            is_embedded: config.state_url.is_embedded(),
            store,
            session_ttl: config.session_ttl,
            was_used: AtomicBool::new(false),
            last_probe: Mutex::new(None),
        }))
    }

    /// The next index of a sequence, as `Store::next` gives it.
    ///
    /// # Errors
    /// 503 when the store does not answer in time.
    pub async fn next(
        &self,
        sequence: SequenceId,
        lifetime: Lifetime,
        idempotency_key: Option<&str>,
        max_index: u64,
    ) -> Result<Option<u64>, Problem> {
        let now = now();
        let step = Step {
            retry: idempotency_key.map(|key| sequence.retry(key)),
            sequence,
            max_index,
            now,
            keep_until: match lifetime {
                Lifetime::Endless => None,
                Lifetime::Session => Some(kept_until(now, self.0.session_ttl)),
            },
            retry_until: after(now, RETRIES_LAST),
        };
        let store = self.store()?;
        let began = Instant::now();
        let index = self.ask(store.next(step)).await?;
        if fastrand::u32(..STEPS_BETWEEN_REMOVALS) == 0 {
            // The step is done: what goes wrong here is nothing to the caller.
            let left = DEADLINE.saturating_sub(began.elapsed());
            let _ = in_time(left, store.remove_expired(now, REMOVED_AT_ONCE)).await;
        }
        Ok(index)
    }

    /// Where a sequence stands.
    ///
    /// # Errors
    /// 503 when the store does not answer in time.
    pub async fn current(&self, sequence: SequenceId) -> Result<Option<u64>, Problem> {
        Ok(self.ask(self.store()?.current(sequence, now())).await?)
    }

    /// Lets a sequence start over.
    ///
    /// # Errors
    /// 503 when the store does not answer in time.
    pub async fn reset(&self, sequence: SequenceId) -> Result<(), Problem> {
        Ok(self.ask(self.store()?.reset(sequence)).await?)
    }

    /// Why there is no store to be used here, if so.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.0.store.as_ref().err().map(String::as_str)
    }

    /// As [`Records::enter`](super::records::Records::enter).
    pub(super) async fn enter(
        &self,
        entry: Record,
        changes: Vec<Change>,
        now: Seconds,
    ) -> Result<bool, Problem> {
        let store = self.store()?;
        let began = Instant::now();
        let is_new = self.ask(store.enter(entry, changes, now)).await?;
        if fastrand::u32(..ENTRIES_BETWEEN_REMOVALS) == 0 {
            // The entry is made: what goes wrong here is nothing to the caller.
            let left = DEADLINE.saturating_sub(began.elapsed());
            let _ = in_time(left, store.forget(now, REMOVED_AT_ONCE)).await;
        }
        Ok(is_new)
    }

    /// As [`Records::change`](super::records::Records::change).
    pub(super) async fn change(&self, changes: Vec<Change>) -> Result<(), Problem> {
        Ok(self.ask(self.store()?.change(changes)).await?)
    }

    /// As [`Records::read`](super::records::Records::read).
    pub(super) async fn read(&self, query: Query) -> Result<Page, Problem> {
        Ok(self.ask(self.store()?.read(query)).await?)
    }

    /// Whether the store takes a step. A write, because a store may be readable and full.
    pub async fn health(&self) -> StoreHealth {
        let Inner { kind, is_embedded, store, was_used, last_probe, .. } = &*self.0;
        let health = |status, detail| StoreHealth { kind, status, detail };
        let store = match store {
            Ok(store) => store,
            Err(reason) => return health("not configured", Some(reason.clone())),
        };
        if *is_embedded && !was_used.load(Ordering::Relaxed) {
            // Asking would create the file, in a process that may never need it.
            return health("unused", None);
        }
        let mut last = last_probe.lock().await;
        let is_ok = match *last {
            Some((at, is_ok)) if at.elapsed() < HEALTH_LASTS => is_ok,
            _ => {
                let is_ok = in_time(DEADLINE, store.next(probe())).await.is_ok();
                *last = Some((Instant::now(), is_ok));
                is_ok
            }
        };
        health(if is_ok { "ok" } else { "unavailable" }, None)
    }

    /// An answer in time; else, what the last health check found counts no longer.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, Unavailable> {
        let answer = in_time(DEADLINE, call).await;
        if answer.is_err()
            && let Ok(mut last) = self.0.last_probe.try_lock()
        {
            *last = None;
        }
        answer
    }

    fn store(&self) -> Result<&Arc<dyn Database>, Problem> {
        self.0.was_used.store(true, Ordering::Relaxed);
        let missing = |reason: &String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, reason.clone());
        self.0.store.as_ref().map_err(missing)
    }
}

/// How long a sequence is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until `SESSION_TTL` after its last step.
    Session,
    /// For good.
    Endless,
}

/// Why the configured store must not be used here, if so.
fn refusal(config: &Config, target: Target) -> Option<String> {
    if !config.state_url.is_embedded() || config.allow_embedded_store {
        return None;
    }
    let place = match target {
        Target::Lambda => "on Lambda",
        Target::Container if config.in_kubernetes => "inside Kubernetes",
        Target::Container => return None,
    };
    // The function's bundle has none to allow.
    let allow = match cfg!(feature = "sqlite") {
        true => ", or ALLOW_EMBEDDED_STORE=true where there is one process and no more",
        false => "",
    };
    Some(format!(
        "a store of this process alone would give wrong answers {place}: set STATE_URL to postgres://… or dynamodb://…{allow}"
    ))
}

/// Rounded up, so that most steps leave it as it is: a database then has no index to update.
fn kept_until(now: Seconds, ttl: Duration) -> Seconds {
    let grain = (ttl.as_secs() / 64).max(1);
    after(now, ttl).div_ceil(grain) * grain
}

/// The first whole second by which so much time has passed for sure: the present moment may be all but a second later
/// than `now` says.
fn after(now: Seconds, time: Duration) -> Seconds {
    now + 1 + time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

fn now() -> Seconds {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn probe() -> Step {
    let now = now();
    Step {
        sequence: SequenceId::of_probe(),
        retry: None,
        max_index: u64::MAX,
        now,
        keep_until: Some(kept_until(now, RETRIES_LAST)),
        retry_until: now,
    }
}

/// The store did not answer, and the log says why.
struct Unavailable;

impl From<Unavailable> for Problem {
    fn from(Unavailable: Unavailable) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the state store cannot be reached or does not take writes",
        )
        .retry_after(RETRY_AFTER)
    }
}

async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, Unavailable> {
    let error = match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => error,
        Err(late) => StoreError::new(late),
    };
    tracing::warn!(error = &error as &(dyn std::error::Error + 'static), "The state store failed");
    Err(Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Answer, Store, records::Records};

    fn refused(vars: &[(&str, &str)], target: Target) -> bool {
        let get = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        refusal(&Config::from_env(get).unwrap(), target).is_some()
    }

    #[test]
    fn an_embedded_store_is_for_one_process_on_one_machine() {
        let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let allowed = ("ALLOW_EMBEDDED_STORE", "true");
        let shared = ("STATE_URL", "postgres://u:p@h/d");
        assert!(!refused(&[], Target::Container));
        assert!(refused(&[kubernetes], Target::Container));
        assert!(refused(&[], Target::Lambda));
        assert!(!refused(&[kubernetes, allowed], Target::Container));
        assert!(!refused(&[allowed], Target::Lambda));
        assert!(!refused(&[kubernetes, shared], Target::Container));
        assert!(!refused(&[shared], Target::Lambda));
    }

    #[test]
    fn a_session_is_kept_for_its_time_and_hardly_longer() {
        let day = Duration::from_secs(86_400);
        for (ttl, most) in
            [(day, 86_400 + 1350), (Duration::from_secs(1), 2), (Duration::from_millis(1500), 3)]
        {
            for (second, millis) in [(1_800_000_000, 0), (1_800_000_001, 500), (1_800_001_349, 999)] {
                let kept = kept_until(second, ttl);
                // A store takes it for expired from the moment whose whole seconds are `kept`.
                let ends = Duration::from_secs(second) + Duration::from_millis(millis) + ttl;
                assert!(Duration::from_secs(kept) >= ends, "{ttl:?} from {second}.{millis:03}: {kept}");
                assert!(kept - second <= most, "{ttl:?} from {second}: {kept}");
            }
        }
        assert_eq!(
            kept_until(1_800_000_001, day),
            kept_until(1_800_000_002, day),
            "most steps change nothing"
        );
    }

    /// Takes every call and answers none.
    struct Silent;

    impl Store for Silent {
        fn next(&self, _: Step) -> Answer<'_, Option<u64>> {
            Box::pin(std::future::pending())
        }

        fn current(&self, _: SequenceId, _: Seconds) -> Answer<'_, Option<u64>> {
            Box::pin(std::future::pending())
        }

        fn reset(&self, _: SequenceId) -> Answer<'_, ()> {
            Box::pin(std::future::pending())
        }

        fn remove_expired(&self, _: Seconds, _: u32) -> Answer<'_, u64> {
            Box::pin(std::future::pending())
        }
    }

    impl Records for Silent {
        fn enter(&self, _: Record, _: Vec<Change>, _: Seconds) -> Answer<'_, bool> {
            Box::pin(std::future::pending())
        }

        fn change(&self, _: Vec<Change>) -> Answer<'_, ()> {
            Box::pin(std::future::pending())
        }

        fn read(&self, _: Query) -> Answer<'_, Page> {
            Box::pin(std::future::pending())
        }

        fn forget(&self, _: Seconds, _: u32) -> Answer<'_, u64> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_answers_costs_a_503_within_two_seconds() {
        let config = Config::from_env(|_| None).unwrap();
        let state = State::around(&config, Arc::new(Silent));
        let sequence = || SequenceId::of_session("0123456789-0123456789-0123456789");
        let began = tokio::time::Instant::now();
        let refused = state.next(sequence(), Lifetime::Session, None, 9).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert!(state.current(sequence()).await.is_err() && state.reset(sequence()).await.is_err());
        assert!(state.change(vec![]).await.is_err() && state.health().await.is_degraded());
        assert!(began.elapsed() < Duration::from_secs(5 * 2), "{:?}", began.elapsed());
    }
}
