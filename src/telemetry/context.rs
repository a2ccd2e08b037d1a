//! Which request a piece of code is working for.
//!
//! The HTTP layer opens the scope; log lines and problem documents read it. Code in between does
//! not pass ids along, and code that runs outside of a request has none.

use std::{net::IpAddr, time::Instant};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

use super::trace::{self, TraceContext};

/// The header that names a request, in both directions.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest `x-request-id` that is taken over from a caller, in bytes.
const LONGEST_ID: usize = 128;

tokio::task_local! {
    static CURRENT: RequestContext;
}

/// What identifies a request in logs and answers.
#[derive(Debug)]
pub struct RequestContext {
    /// The caller's `x-request-id` if it is well-formed, else a new one. ASCII either way.
    pub request_id: HeaderValue,
    /// The caller's trace, if the request carried one.
    pub trace: Option<TraceContext>,
    /// The client's address, where the target knows it.
    pub client: Option<IpAddr>,
    /// When it began: its time is counted from here.
    pub started: Instant,
}

impl RequestContext {
    /// Takes the ids that a request's headers carry.
    #[must_use]
    pub fn of(headers: &HeaderMap, client: Option<IpAddr>, started: Instant) -> Self {
        // Most requests carry neither of these: one pass tells that sooner than three lookups, each of which
        // hashes its name.
        let names_any = |name: &HeaderName| *name == REQUEST_ID || trace::HEADERS.contains(name);
        let is_carried = headers.keys().any(names_any);
        let given = if is_carried { given_id(headers) } else { None };
        let trace = if is_carried { TraceContext::of(headers) } else { None };
        Self { request_id: given.cloned().unwrap_or_else(new_id), trace, client, started }
    }

    /// The id as text.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

/// Runs `future` for the request that `context` names.
pub fn scope<F: Future>(context: RequestContext, future: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(context, future)
}

/// Hands the current request's context to `read`; does nothing outside of a request.
pub fn with<T>(read: impl FnOnce(&RequestContext) -> T) -> Option<T> {
    CURRENT.try_with(read).ok()
}

/// The current request's id; empty outside of a request.
#[must_use]
pub fn request_id() -> String {
    with(|context| context.request_id().to_owned()).unwrap_or_default()
}

/// The caller's `x-request-id`, if there is one, once, and well-formed.
#[must_use]
pub fn given_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut given = headers.get_all(&REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if is_well_formed(id.as_bytes()) => Some(id),
        _ => None,
    }
}

/// Letters, digits and the marks of UUIDs, ULIDs, base64 and X-Ray ids: safe in headers and logs.
fn is_well_formed(id: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:=+/;".contains(byte))
}

/// Every byte's two digits.
const HEXADECIMAL: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < pairs.len() {
        pairs[byte] = [digits[byte / 16], digits[byte % 16]];
        byte += 1;
    }
    pairs
};

/// A new id's digits, two by two.
struct Id([[u8; 2]; 16]);

impl AsRef<[u8]> for Id {
    fn as_ref(&self) -> &[u8] {
        self.0.as_flattened()
    }
}

/// 128 random bits in hexadecimal: unique without coordination, and no secret.
fn new_id() -> HeaderValue {
    let id = fastrand::u128(..).to_ne_bytes().map(|byte| HEXADECIMAL[usize::from(byte)]);
    // With its count of references from the start: the answer has a second one.
    HeaderValue::from_maybe_shared(Bytes::from_owner(Id(id)))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id_for(given: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(given).unwrap());
        RequestContext::of(&headers, None, Instant::now()).request_id().to_owned()
    }

    #[test]
    fn a_well_formed_id_is_kept_and_any_other_is_replaced() {
        for id in [
            "a",
            "7c9e6679-7425-40de-944b-e07fc1f90ae7",
            "Root=1-5759e988-bd862e3fe1be46a994272793",
            "a/b+c=",
        ] {
            assert_eq!(id_for(id.as_bytes()), id);
        }
        let long = "x".repeat(LONGEST_ID + 1);
        for id in ["", "two words", "quote\"", "new\tline", "\u{fc}", long.as_str()] {
            let new = id_for(id.as_bytes());
            assert!(new.len() == 32 && new.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id} -> {new}");
        }
    }

    #[test]
    fn outside_of_a_request_there_is_no_id() {
        assert_eq!(request_id(), "");
    }
}
