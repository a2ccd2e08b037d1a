//! Who is calling.

pub mod session;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};

use self::session::{Session, SessionKey};
use crate::{http::scheme::OverTls, problem::Problem};

/// Whose sequence a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Whoever has this key.
    Session(SessionKey),
    /// A signed-in caller: a subject is unique within its issuer.
    Subject {
        /// Who vouches for the subject.
        issuer: String,
        /// The subject.
        subject: String,
    },
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

/// The caller of a request: the subject of its credentials if it has any, else its session, else a
/// new session. Credentials that cannot be checked are refused, never ignored.
///
/// # Errors
/// 401 for credentials that are not accepted, 422 for a malformed session key, 503 when the system has
/// no randomness for a new one.
pub fn identify(request: &Parts, session_ttl: std::time::Duration) -> Result<Identified, Problem> {
    if request.headers.contains_key(header::AUTHORIZATION) {
        let detail = "this service accepts no credentials: leave the Authorization header out";
        return Err(
            Problem::new(StatusCode::UNAUTHORIZED, detail).challenge(HeaderValue::from_static("Bearer"))
        );
    }
    let is_secure = request.extensions.get::<OverTls>().is_some();
    let session = Session::of(&request.headers, is_secure, session_ttl)?;
    Ok(Identified { caller: Caller::Session(session.key.clone()), session: Some(session) })
}
