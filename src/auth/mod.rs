//! Who is calling: a session whose key nobody can guess, or somebody who signed in with a token checked
//! against the keys that an OpenID Connect issuer publishes.
//!
//! - [`session`]: sessions, by header or cookie.
//!
//! Tokens, from the header inwards:
//!
//! - [`bearer`]: the `Authorization` header and its refusals (RFC 6750).
//! - [`oidc`]: a token in, a [`Subject`] out; which keys are good for how long.
//! - `jwt`: what a token is, and whether its claims hold (RFC 7515, RFC 7519, with the advice of RFC 8725).
//! - `jwk`: the keys and the algorithms (RFC 7517, RFC 7518, RFC 8037).
//! - [`issuer`]: which issuers may be named, and the two documents that are fetched from one.
//!
//! Routes that change what costs money are closed to whoever has no scope for them:
//!
//! - [`access`]: the guard before such routes. Begin here.
//! - [`scope`]: what there is to be allowed.
//! - [`tokens`]: tokens given out by hand, in a file.
//! - [`limit`]: how often each caller may call.
//! - [`audit`]: a line for every attempt to change something; [`trail`]: where those lines can be asked for.

pub mod access;
pub mod audit;
pub mod bearer;
pub mod issuer;
mod jwk;
mod jwt;
pub mod limit;
pub mod oidc;
pub mod scope;
pub mod session;
pub mod tokens;
pub mod trail;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::http::{HeaderMap, request::Parts};

use self::{
    oidc::Oidc,
    session::{Session, SessionKey},
};
use crate::{http::scheme::OverTls, problem::Problem};

/// What tells the time: tests turn its hands.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Somebody who signed in: a name that their issuer never gives to anybody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    issuer: String,
    name: String,
}

impl Subject {
    fn new(issuer: &str, name: String) -> Self {
        Self { issuer: issuer.to_owned(), name }
    }

    /// The `sub` claim: 1 to 255 bytes without control characters, unique within one issuer only.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who vouches for the name: another issuer may give the same one to somebody else.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Whoever has this key.
    Session(SessionKey),
    /// Somebody who signed in.
    Subject(Subject),
}

/// A caller, and what the answer has to tell them about who they are.
#[derive(Debug)]
pub struct Identified {
    /// The caller.
    pub caller: Caller,
    session: Option<Session>,
}

impl Identified {
    /// Names the session's key in the answer.
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some(session) = &self.session {
            session.mark(headers);
        }
    }
}

/// Tells callers apart.
#[derive(Clone)]
pub struct Callers {
    /// Whose tokens are believed, if anybody's.
    pub oidc: Option<Oidc>,
    /// How long a browser keeps its session's key.
    pub session_ttl: Duration,
}

impl Callers {
    /// The caller of a request: the subject of its token if it has one, else its session, else a new
    /// session. Credentials that cannot be checked are refused, never ignored.
    ///
    /// # Errors
    /// 401 for credentials that are not accepted, 422 for a malformed session key, 503 when the issuer's
    /// keys cannot be had or the system has no randomness for a new session.
    pub async fn identify(&self, request: &Parts) -> Result<Identified, Problem> {
        let subject = match &self.oidc {
            Some(oidc) => oidc.authenticate(&request.headers).await?,
            None => match bearer::token(&request.headers)? {
                Some(_) => return Err(bearer::invalid("nobody can sign in here: OIDC_ISSUER is not set")),
                None => None,
            },
        };
        if let Some(subject) = subject {
            return Ok(Identified { caller: Caller::Subject(subject), session: None });
        }
        let is_secure = request.extensions.get::<OverTls>().is_some();
        let session = Session::of(&request.headers, is_secure, self.session_ttl)?;
        Ok(Identified { caller: Caller::Session(session.key.clone()), session: Some(session) })
    }
}
