//! Sign-in by OpenID Connect: a bearer token in, a [`Subject`] out.
//!
//! Keys are fetched when the first token needs them, so the service starts without its issuer. They are fetched again
//! when they are older than the issuer allows ([`MIN_AGE`] to [`MAX_AGE`]) and when a token names a key that is not
//! among them, but not within [`PAUSE`] of the last attempt: forged key ids cannot hammer the issuer. While it cannot be
//! reached, the last keys are good for [`STALE`]; a request waits for a fetch only if it started it or cannot do without.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use axum::http::{HeaderMap, StatusCode};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};

use super::{Clock, Subject, access::Principal, bearer, issuer::Issuer, jwk::KeySet, jwt::Token};
use crate::{problem::Problem, telemetry::log};

/// Keys are used this long without asking again, even if the issuer allows less.
pub const MIN_AGE: Duration = Duration::from_secs(60);

/// Keys are used this long if the issuer does not say.
pub const USUAL_AGE: Duration = Duration::from_secs(10 * 60);

/// Keys are fetched again after this, even if the issuer allows more: a key that it withdrew is good for no longer.
pub const MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The least time between two attempts to fetch keys.
pub const PAUSE: Duration = Duration::from_secs(5);

/// How old keys may be when the issuer cannot be reached: about as old as the longest-lived tokens.
pub const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks bearer tokens of one issuer, for one audience. Clones share their keys.
#[derive(Clone)]
pub struct Oidc(Arc<Inner>);

struct Inner {
    issuer: Issuer,
    audience: String,
    clock: Clock,
    cache: Mutex<Cache>,
}

/// What is known of the issuer's keys.
#[derive(Default)]
struct Cache {
    known: Option<Known>,
    /// When the last attempt to fetch keys ended.
    attempted: Option<SystemTime>,
    fetching: Option<Fetching>,
}

#[derive(Clone)]
struct Known {
    keys: Arc<KeySet>,
    fetched: SystemTime,
    max_age: Duration,
}

/// A fetch under way: many may wait for it, and it goes on when none does.
type Fetching = Shared<BoxFuture<'static, ()>>;

impl Oidc {
    /// Tokens must come from `issuer`, name `audience` among their audiences, and be valid at `clock`'s time.
    #[must_use]
    pub fn new(issuer: Issuer, audience: String, clock: Clock) -> Self {
        Self(Arc::new(Inner { issuer, audience, clock, cache: Mutex::default() }))
    }

    /// Who calls; `None` for a request without an `Authorization` header.
    ///
    /// # Errors
    /// 401 for whatever is not a valid token, with the challenge of RFC 6750; 503 with `Retry-After` when no keys are
    /// known because the issuer cannot be reached.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Option<Subject>, Problem> {
        let Some(token) = bearer::token(headers)? else { return Ok(None) };
        Ok(Some(self.principal(token).await?.into_subject()))
    }

    /// Whose token it is, and what it lets them do.
    ///
    /// # Errors
    /// As [`Oidc::authenticate`].
    pub(super) async fn principal(&self, token: &str) -> Result<Principal, Problem> {
        let token = Token::parse(token).map_err(bearer::invalid)?;
        let keys = self.keys_for(&token).await.ok_or_else(unavailable)?;
        let candidates = keys.candidates(token.algorithm, token.key_id.as_deref());
        if candidates.is_empty() {
            return Err(bearer::invalid("the token's key is unknown"));
        }
        if !candidates.into_iter().any(|key| token.is_signed_by(key)) {
            return Err(bearer::invalid("the token's signature is wrong"));
        }
        let Inner { issuer, audience, clock, .. } = &*self.0;
        let (name, scopes) = token.subject(issuer.name(), audience, clock()).map_err(bearer::invalid)?;
        Ok(Principal::new(Subject::new(issuer.name(), name), scopes))
    }

    /// The keys to check `token` with, fetched again if that may help it; `None` if there are none.
    async fn keys_for(&self, token: &Token<'_>) -> Option<Arc<KeySet>> {
        let fetching = {
            let now = (self.0.clock)();
            let mut cache = self.0.cache();
            let usable = cache.usable(now);
            let has_key = usable.as_ref().is_some_and(|known| known.has_key_of(token));
            if has_key && (cache.is_fresh(now) || cache.is_fetching() || cache.pauses(now)) {
                return usable.map(|known| known.keys);
            }
            if cache.pauses(now) && !cache.is_fetching() {
                None
            } else {
                Some(self.join_or_start(&mut cache))
            }
        };
        if let Some(fetching) = fetching {
            fetching.await;
        }
        let now = (self.0.clock)();
        self.0.cache().usable(now).map(|known| known.keys)
    }

    /// The fetch that is under way, or a new one. It runs by itself: a client that goes away must not end it for others.
    fn join_or_start(&self, cache: &mut Cache) -> Fetching {
        if let Some(fetching) = cache.fetching.as_ref().filter(|_| cache.is_fetching()) {
            return fetching.clone();
        }
        let inner = self.0.clone();
        let task = tokio::spawn(async move { inner.fetch().await });
        let fetching = task.map(|_| ()).boxed().shared();
        cache.fetching.insert(fetching).clone()
    }
}

impl Inner {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self) {
        let fetched = self.issuer.keys().await;
        let now = (self.clock)();
        let mut cache = self.cache();
        cache.attempted = Some(now);
        cache.fetching = None;
        match fetched {
            Ok(fetched) => {
                let max_age = fetched.max_age.unwrap_or(USUAL_AGE).clamp(MIN_AGE, MAX_AGE);
                tracing::debug!(
                    keys = fetched.keys.len(),
                    seconds = max_age.as_secs(),
                    "Fetched the issuer's keys"
                );
                cache.known = Some(Known { keys: Arc::new(fetched.keys), fetched: now, max_age });
            }
            Err(error) => {
                let (issuer, error) = (self.issuer.name(), log::chain(&*error));
                tracing::warn!(issuer, error, "Could not fetch the issuer's keys");
            }
        }
    }
}

impl Cache {
    fn usable(&self, now: SystemTime) -> Option<Known> {
        self.known.clone().filter(|known| is_within(STALE, known.fetched, now))
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        self.known.as_ref().is_some_and(|known| is_within(known.max_age, known.fetched, now))
    }

    /// Whether an attempt ended so recently that another must wait.
    fn pauses(&self, now: SystemTime) -> bool {
        self.attempted.is_some_and(|attempted| is_within(PAUSE, attempted, now))
    }

    /// Whether a fetch is under way: one that panicked has an outcome, and stays here until the next.
    fn is_fetching(&self) -> bool {
        self.fetching.as_ref().is_some_and(|fetching| fetching.peek().is_none())
    }
}

impl Known {
    fn has_key_of(&self, token: &Token<'_>) -> bool {
        !self.keys.candidates(token.algorithm, token.key_id.as_deref()).is_empty()
    }
}

/// Whether less than `limit` went by. A clock that was set back tells nothing, so it counts as more.
fn is_within(limit: Duration, then: SystemTime, now: SystemTime) -> bool {
    now.duration_since(then).is_ok_and(|age| age < limit)
}

fn unavailable() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the keys to check sign-ins with cannot be fetched at present",
    )
    .retry_after(PAUSE)
}
