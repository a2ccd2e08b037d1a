//! The `Authorization` header and what is said when it does not do (RFC 6750).

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::scope::Scope;
use crate::problem::Problem;

/// The longest token that is looked at, in bytes; those of real issuers have 1 to 5 KB.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// RFC 6750 §3: a challenge carries at least one parameter.
const REALM: &str = r#"Bearer realm="math-service""#;

/// The bearer token of a request; `None` when it has no `Authorization` header at all.
///
/// # Errors
/// 401 for another scheme, for several headers, and for what cannot be a token. Some gateways join repeated headers with
/// commas, which no token holds: they are refused behind those too, if in other words.
pub fn token(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("there are several Authorization headers"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(required());
    }
    let token = token.trim_matches(' ');
    if token.len() > MAX_TOKEN_BYTES {
        return Err(invalid("the token is too long"));
    }
    if token.is_empty() || !token.bytes().all(is_token_byte) {
        return Err(invalid("the token is malformed"));
    }
    Ok(Some(token))
}

/// 401 for a request without a token where one is needed. RFC 6750 §3.1: it carries no error code.
#[must_use]
pub fn required() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "sign in: send `Authorization: Bearer` and a token")
        .challenge(HeaderValue::from_static(REALM))
}

/// 401 for a token that is malformed, expired, forged or meant for somebody else.
#[must_use]
pub fn invalid(description: &'static str) -> Problem {
    let challenge = format!(r#"{REALM}, error="invalid_token", error_description="{description}""#);
    // Descriptions are ours and plain; one that were not would cost the details, not the refusal.
    let challenge = HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static(REALM));
    Problem::new(StatusCode::UNAUTHORIZED, description).challenge(challenge)
}

/// 403 for a token that is good, but not for this: RFC 6750 §3.1 names the scope.
#[must_use]
pub fn insufficient_scope(scope: Scope) -> Problem {
    let name = scope.name();
    let challenge = format!(r#"{REALM}, error="insufficient_scope", scope="{name}""#);
    let challenge = HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static(REALM));
    Problem::new(StatusCode::FORBIDDEN, format!("this token lacks the scope {name}")).challenge(challenge)
}

/// RFC 6750 §2.1, `b64token`.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    fn headers(values: &[&[u8]]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())).collect()
    }

    fn challenge(problem: Problem) -> String {
        assert_eq!(problem.status(), StatusCode::UNAUTHORIZED);
        let response = problem.into_response();
        response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_token_is_found_whatever_the_case_of_its_scheme() {
        for value in [&b"Bearer a.b-c_d~e+f/g="[..], b"bearer a.b-c_d~e+f/g=", b"BEARER   a.b-c_d~e+f/g= "] {
            assert_eq!(token(&headers(&[value])).unwrap(), Some("a.b-c_d~e+f/g="));
        }
        assert_eq!(token(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn another_scheme_is_challenged_without_an_error_code() {
        for value in
            [&b"Basic dTpw"[..], b"Bearer", b"", b"Bearertoken", b"\xff\xfe", b"AWS4-HMAC-SHA256 a=b"]
        {
            assert_eq!(challenge(token(&headers(&[value])).unwrap_err()), r#"Bearer realm="math-service""#);
        }
    }

    #[test]
    fn what_can_be_no_token_is_refused() {
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1));
        for (values, description) in [
            (&[&b"Bearer a.b.c"[..], b"Bearer a.b.c"][..], "there are several Authorization headers"),
            (&[b"Bearer a.b.c", b"Basic dTpw"], "there are several Authorization headers"),
            (&[b"Bearer a.b.c,Bearer a.b.c"], "the token is malformed"),
            (&[b"Bearer a b"], "the token is malformed"),
            (&[b"Bearer "], "the token is malformed"),
            (&[b"Bearer a\"b"], "the token is malformed"),
            (&[long.as_bytes()], "the token is too long"),
        ] {
            let expected = format!(
                r#"Bearer realm="math-service", error="invalid_token", error_description="{description}""#
            );
            assert_eq!(challenge(token(&headers(values)).unwrap_err()), expected);
        }
        assert!(token(&headers(&[&long.as_bytes()[..long.len() - 1]])).is_ok());
    }
}
