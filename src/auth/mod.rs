//! Who is calling: bearer tokens checked against the keys that an OpenID Connect issuer publishes.
//!
//! From the header inwards:
//!
//! - [`bearer`]: the `Authorization` header and its refusals (RFC 6750).
//! - [`oidc`]: a token in, a [`Subject`] out; which keys are good for how long.
//! - `jwt`: what a token is, and whether its claims hold (RFC 7515, RFC 7519, with the advice of RFC 8725).
//! - `jwk`: the keys and the algorithms (RFC 7517, RFC 7518, RFC 8037).
//! - [`issuer`]: which issuers may be named, and the two documents that are fetched from one.

pub mod bearer;
pub mod issuer;
mod jwk;
mod jwt;
pub mod oidc;

use std::{fmt::Write, sync::Arc, time::SystemTime};

use ring::digest;

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

    /// A key to store this caller's things under: 69 characters, `oidc:` and the SHA-256 of issuer and name in hex.
    ///
    /// It changes with the issuer, because another issuer may give the same name to somebody else. Its colon keeps it
    /// apart from every key that a caller may choose out of letters, digits, `-` and `_`.
    #[must_use]
    pub fn key(&self) -> String {
        // An issuer is a URL, so it holds no line break: no two pairs read alike.
        let hash = digest::digest(&digest::SHA256, format!("{}\n{}", self.issuer, self.name).as_bytes());
        hash.as_ref().iter().fold(String::from("oidc:"), |mut key, byte| {
            // Writing to a string cannot fail.
            let _ = write!(key, "{byte:02x}");
            key
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subjects_key_differs_by_issuer_and_by_name_and_can_be_no_session_key() {
        let key = |issuer: &str, name: &str| Subject::new(issuer, name.to_owned()).key();
        let alice = key("https://a.example", "alice");
        // printf 'https://a.example\nalice' | sha256sum
        assert_eq!(alice, "oidc:00e68f976d41fc8c6abf3bd56ba2914440059e4b13a858e8ef9b973882f5e794");
        assert_ne!(alice, key("https://b.example", "alice"));
        assert_ne!(alice, key("https://a.example", "bob"));
        assert!(alice.contains(':'));
    }
}
