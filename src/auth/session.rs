//! Sessions of callers who have not signed in: a key that nobody can guess is all there is to them.

use std::{fmt, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::rand::{SecureRandom, SystemRandom};

use crate::problem::Problem;

/// The header that carries a session's key, in both directions.
pub const SESSION_KEY: HeaderName = HeaderName::from_static("x-session-key");

/// The cookie that carries it for browsers.
const COOKIE: &str = "math_session";

/// Lengths that a key may have. Shorter ones can be guessed.
const LENGTHS: std::ops::RangeInclusive<usize> = 32..=128;

/// Random bytes in a key of ours: 256 bits.
const RANDOM_BYTES: usize = 32;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A well-formed key. Whoever has it has the session, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionKey(String);

impl SessionKey {
    /// The key as the caller knows it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn parse(value: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(value).unwrap_or_default();
        if LENGTHS.contains(&text.len()) && text.bytes().all(|byte| ALPHABET.contains(&byte)) {
            return Ok(Self(text.to_owned()));
        }
        let detail = "a session key has 32 to 128 characters of A-Z a-z 0-9 - _";
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
    }

    fn random() -> Result<Self, Problem> {
        let mut bytes = [0; RANDOM_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| {
            tracing::error!("The system gave no randomness for a session key");
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no new session can be begun")
        })?;
        Ok(Self(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

/// A session, and how its key reaches the caller.
#[derive(Debug)]
pub struct Session {
    /// The key.
    pub key: SessionKey,
    /// Whether a browser is to keep it; a caller that sends the header keeps it itself.
    cookie: Option<Cookie>,
}

#[derive(Debug)]
struct Cookie {
    is_secure: bool,
    lasts: Duration,
}

impl Session {
    /// The session that a request's headers name, the header before the cookie; else a new one.
    ///
    /// # Errors
    /// 422 for a malformed or repeated key, 503 when the system has no randomness.
    pub fn of(headers: &HeaderMap, is_secure: bool, lasts: Duration) -> Result<Self, Problem> {
        let mut given = headers.get_all(&SESSION_KEY).iter();
        match (given.next(), given.next()) {
            (Some(key), None) => return Ok(Self { key: SessionKey::parse(key.as_bytes())?, cookie: None }),
            (Some(_), Some(_)) => {
                let detail = "a request has one session key";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
            }
            (None, _) => {}
        }
        let key = match cookie(headers) {
            Some(key) => SessionKey::parse(key)?,
            None => SessionKey::random()?,
        };
        Ok(Self { key, cookie: Some(Cookie { is_secure, lasts }) })
    }

    /// Names the key in an answer.
    pub fn mark(&self, headers: &mut HeaderMap) {
        let key = self.key.reveal();
        // A key is made of characters that every header may hold.
        if let Ok(value) = HeaderValue::from_str(key) {
            headers.insert(SESSION_KEY, value);
        }
        let Some(Cookie { is_secure, lasts }) = self.cookie else { return };
        let secure = if is_secure { "; Secure" } else { "" };
        let age = lasts.as_secs();
        let cookie = format!("{COOKIE}={key}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}");
        if let Ok(value) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, value);
        }
    }
}

/// The first cookie of our name.
fn cookie(headers: &HeaderMap) -> Option<&[u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .find_map(|pair| pair.trim_ascii().strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const LASTS: Duration = Duration::from_secs(60);
    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn session(pairs: &[(&'static str, &str)]) -> Result<(String, HeaderMap), u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let session = Session::of(&headers, false, LASTS).map_err(|problem| problem.status().as_u16())?;
        let mut answer = HeaderMap::new();
        session.mark(&mut answer);
        Ok((session.key.reveal().to_owned(), answer))
    }

    #[test]
    fn a_caller_without_a_key_gets_one_that_nobody_can_guess() {
        let keys: HashSet<_> = (0..100).map(|_| session(&[]).unwrap().0).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.iter().all(|key| key.len() == 43 && SessionKey::parse(key.as_bytes()).is_ok()));
        // What is random in one place is random in all: no character is the same in a hundred keys.
        for at in 0..42 {
            let seen: HashSet<_> = keys.iter().map(|key| key.as_bytes()[at]).collect();
            assert!(seen.len() > 20, "character {at} has {} values in 100 keys", seen.len());
        }
    }

    #[test]
    fn the_header_goes_before_the_cookie_and_needs_none() {
        let other = KEY.replace('0', "x");
        let (key, answer) =
            session(&[("x-session-key", KEY), ("cookie", &format!("math_session={other}"))]).unwrap();
        assert_eq!((key.as_str(), answer[SESSION_KEY].to_str().unwrap()), (KEY, KEY));
        assert!(!answer.contains_key(header::SET_COOKIE));
    }

    #[test]
    fn the_cookie_is_found_among_others_and_renewed() {
        for cookies in [
            vec![format!("math_session={KEY}")],
            vec![format!("a=b; xmath_session=no; math_session={KEY}; c=d")],
            vec!["a=b".to_owned(), format!("math_session={KEY}")],
        ] {
            let pairs: Vec<_> = cookies.iter().map(|value| ("cookie", value.as_str())).collect();
            let (key, answer) = session(&pairs).unwrap();
            assert_eq!(key, KEY);
            assert_eq!(
                answer[header::SET_COOKIE],
                format!("math_session={KEY}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax")
            );
        }
    }

    #[test]
    fn behind_tls_the_cookie_never_leaves_tls() {
        let session = Session::of(&HeaderMap::new(), true, LASTS).unwrap();
        let mut answer = HeaderMap::new();
        session.mark(&mut answer);
        assert!(answer[header::SET_COOKIE].to_str().unwrap().ends_with("; SameSite=Lax; Secure"));
    }

    #[test]
    fn a_malformed_key_is_refused_wherever_it_is() {
        let (short, long) = ("a".repeat(31), "a".repeat(129));
        for key in ["", short.as_str(), long.as_str(), &KEY.replace('0', "+"), &format!("{KEY} {KEY}")] {
            assert_eq!(session(&[("x-session-key", key)]).unwrap_err(), 422, "{key}");
            assert_eq!(session(&[("cookie", &format!("math_session={key}"))]).unwrap_err(), 422, "{key}");
        }
        assert_eq!(session(&[("x-session-key", KEY), ("x-session-key", KEY)]).unwrap_err(), 422);
        assert!(session(&[("x-session-key", &"a".repeat(128))]).is_ok());
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", SessionKey(KEY.to_owned())), "SessionKey");
    }
}
