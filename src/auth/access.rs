//! Who may call what: routes that nobody reaches without a token that has the scope.
//!
//! [`Access::guard`] is the only way to make [`Guarded`] routes, and each of them names its scope; `App` refuses any other
//! route below [`PREFIX`], but for the one that [`is_open`] names. A workload lists them as it lists open ones, with the scope in the middle:
//!
//! ```
//! # use axum::routing::{get, post};
//! # use math_service::{auth::{access::{Access, Guarded, Principal}, audit::Audit, scope::Scope}, problem::Problem};
//! # async fn list() {}
//! fn routes(access: &Access) -> Guarded {
//!     access.guard([
//!         ("/api/v1/things", Scope::JobsRead, get(list)),
//!         ("/api/v1/things", Scope::JobsWrite, post(create)),
//!     ])
//! }
//!
//! async fn create(who: Principal, audit: Audit) -> Result<String, Problem> {
//!     audit.cluster("math");
//!     audit.name("thing-1");
//!     Ok(format!("made for {}", who.name()))
//! }
//! ```
//!
//! The guard, in this order: finds the caller (401, or 403 where nobody can sign in), takes one unit of the caller's rate
//! limit (429), compares scopes (403), and, for a scope to write, makes sure that the audit line can be written (503).
//! Only then the handler runs. [`Principal`] and [`Audit`](super::audit::Audit) are extractors; without a guard they
//! answer 500. What the guard or the handler answers to a caller who is known carries `RateLimit` and
//! `RateLimit-Policy`.
//!
//! Attempts to sign in are not limited: one costs a hash and at most a signature check, and leaves nothing in memory.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use tokio::time::Instant;

use super::{
    Subject,
    audit::Attempt,
    bearer,
    limit::{Limiter, Quota, Rate},
    oidc::Oidc,
    scope::{Scope, Scopes},
    tokens::{self, Known, Tokens, Unsure},
    trail::Trail,
};
use crate::{http::Routes, problem::Problem, telemetry::writer::Writer};

/// Every route below this has a guard, but for those that [`is_open`] names.
pub const PREFIX: &str = "/api/";

/// Whether anybody may call a route below [`PREFIX`]. A route belongs here that reads nothing of anybody's, changes
/// nothing, and whose work is bounded: then a token would protect nothing.
#[must_use]
pub fn is_open(path: &str) -> bool {
    // Arithmetic on the request's own numbers, on threads of its own (src/simulation).
    path == "/api/v1/simulations"
}

/// Who vouches for the names in the tokens file. No OpenID Connect issuer has this name: theirs are URLs.
const FILE: &str = "AUTH_TOKENS_FILE";

/// Somebody whose token was accepted, and what it lets them do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    subject: Subject,
    scopes: Scopes,
}

impl Principal {
    pub(super) fn new(subject: Subject, scopes: Scopes) -> Self {
        Self { subject, scopes }
    }

    /// The name: in the tokens file, or the `sub` claim. Unique within one issuer only.
    #[must_use]
    pub fn name(&self) -> &str {
        self.subject.name()
    }

    pub(super) fn into_subject(self) -> Subject {
        self.subject
    }

    /// Who this is, among all issuers.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Compares scopes.
    ///
    /// # Errors
    /// 403 that names the missing one (RFC 6750 §3.1).
    pub fn check(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.has(scope) {
            return Ok(());
        }
        Err(bearer::insufficient_scope(scope))
    }
}

impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| {
            tracing::error!("A handler that asks who is calling has a route without a guard");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this route has no guard")
        })
    }
}

/// Takes what a request costs beyond the one unit that let it in; an extractor.
#[derive(Clone)]
pub struct Meter {
    access: Access,
    caller: Subject,
    quota: Arc<OnceLock<Quota>>,
}

impl Meter {
    /// Takes `units` more, into debt if need be.
    ///
    /// # Errors
    /// 429 for who is in debt already: by another request that was let in at the same time.
    pub fn take(&self, units: u32) -> Result<(), Problem> {
        let quota = self.access.0.limiter.owe(&self.caller, units, Instant::now());
        quota.check()?;
        // A second time would be a handler's mistake; the first answer stands.
        let _ = self.quota.set(quota);
        Ok(())
    }
}

impl<S: Sync> FromRequestParts<S> for Meter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| {
            tracing::error!("A handler that takes from the rate limit has a route without a guard");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this route has no guard")
        })
    }
}

/// Routes that have a guard, made by [`Access::guard`] alone.
#[derive(Debug, Clone, Default)]
pub struct Guarded(Routes);

impl Guarded {
    /// Those of both.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// For the one router.
    #[must_use]
    pub fn into_routes(self) -> Routes {
        self.0
    }
}

/// Decides who may call what. Clones share their limits.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    tokens: Option<Tokens>,
    oidc: Option<Oidc>,
    limiter: Limiter,
    logs: Option<Writer>,
    trail: Option<Trail>,
}

impl Access {
    /// Believes `tokens` and, of tokens that are not among them, `oidc`; with neither, guarded routes are closed. Audit lines
    /// find their room in `logs`, without which (in tests) nobody asks for room, and leave a copy in `trail`.
    #[must_use]
    pub fn new(
        tokens: Option<Tokens>,
        oidc: Option<Oidc>,
        rate: Rate,
        logs: Option<Writer>,
        trail: Option<Trail>,
    ) -> Self {
        Self(Arc::new(Inner { tokens, oidc, limiter: Limiter::new(rate), logs, trail }))
    }

    /// Puts a guard before each route: its path, the scope that its methods need, and what answers there.
    ///
    /// A path may come twice, with other methods and another scope.
    #[must_use]
    pub fn guard(&self, routes: impl IntoIterator<Item = (&'static str, Scope, MethodRouter)>) -> Guarded {
        let guarded = routes.into_iter().map(|(route, scope, methods)| {
            let gate = Gate { access: self.clone(), scope, route };
            (route, methods.route_layer(middleware::from_fn_with_state(gate, pass)))
        });
        Guarded(guarded.collect())
    }

    /// Who is calling.
    ///
    /// # Errors
    /// 401 without a token that is accepted, 403 where nobody can sign in, 503 while the issuer's keys cannot be had or the
    /// tokens file takes too long to read.
    async fn identify(&self, headers: &HeaderMap) -> Result<Principal, Problem> {
        let Inner { tokens, oidc, .. } = &*self.0;
        if tokens.is_none() && oidc.is_none() {
            let detail = "this API is closed: neither AUTH_TOKENS_FILE nor OIDC_ISSUER is set";
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        let token = bearer::token(headers)?.ok_or_else(bearer::required)?;
        if let Some(tokens) = tokens {
            match tokens.find(token).await? {
                Known::Good(name, scopes) => return Ok(Principal::new(Subject::new(FILE, name), scopes)),
                Known::Expired => return Err(bearer::invalid("the token has expired")),
                Known::Not => {}
            }
        }
        match oidc {
            Some(oidc) => oidc.principal(token).await,
            None => Err(bearer::invalid("the token is unknown")),
        }
    }
}

impl From<Unsure> for Problem {
    fn from(Unsure: Unsure) -> Self {
        let detail = "the tokens cannot be checked at the moment";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(tokens::PAUSE)
    }
}

/// What stands before one route.
#[derive(Clone)]
struct Gate {
    access: Access,
    scope: Scope,
    route: &'static str,
}

async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if !gate.scope.is_write() {
        return gate.answer(request, next, None).await;
    }
    let logs = gate.access.0.logs.clone();
    let mut attempt = Attempt::begin(request.method().clone(), gate.route, request.uri().path(), logs);
    let response = gate.answer(request, next, Some(&mut attempt)).await;
    attempt.end(response.status()).await;
    response
}

impl Gate {
    async fn answer(&self, mut request: Request, next: Next, mut attempt: Option<&mut Attempt>) -> Response {
        let principal = match self.access.identify(request.headers()).await {
            Ok(principal) => principal,
            Err(problem) => return problem.into_response(),
        };
        if let Some(attempt) = &attempt {
            attempt.is_by(&principal.subject);
        }
        let quota = self.access.0.limiter.take(&principal.subject, Instant::now());
        let meter =
            Meter { access: self.access.clone(), caller: principal.subject.clone(), quota: Arc::default() };
        let charged = meter.quota.clone();
        request.extensions_mut().insert(meter);
        let is_within = quota.check();
        if let (Ok(()), Some(attempt)) = (&is_within, &mut attempt) {
            attempt.leaves(self.access.0.trail.clone());
        }
        let admitted = is_within.and_then(|()| principal.check(self.scope));
        let mut response = match admitted {
            Ok(()) => run(request, next, principal, attempt).await,
            Err(problem) => problem.into_response(),
        };
        charged.get().unwrap_or(&quota).mark(response.headers_mut());
        response
    }
}

/// The handler, once nothing stands against it.
async fn run(
    mut request: Request,
    next: Next,
    principal: Principal,
    attempt: Option<&mut Attempt>,
) -> Response {
    if let Some(attempt) = attempt {
        if let Err(problem) = attempt.take_room() {
            return problem.into_response();
        }
        request.extensions_mut().insert(attempt.audit());
    }
    request.extensions_mut().insert(principal);
    next.run(request).await
}
