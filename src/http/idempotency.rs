//! The `Idempotency-Key` header: a request that may be sent again, and is to take effect once.

use axum::http::{HeaderMap, StatusCode};

use crate::problem::Problem;

/// Longest `Idempotency-Key`, in characters.
const LONGEST_KEY: usize = 255;

/// The key of a request, if it has one.
///
/// # Errors
/// 422 for a malformed key, and for several.
pub fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let key = match (given.next(), given.next()) {
        (None, _) => return Ok(None),
        (Some(key), None) => key.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    // A comma may be all that some gateways leave of two headers.
    let is_visible = |key: &str| key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    let key = key.filter(|key| (1..=LONGEST_KEY).contains(&key.len()) && is_visible(key));
    key.map(Some).ok_or_else(|| {
        let detail = "a request has one Idempotency-Key, of 1 to 255 visible ASCII characters but commas";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn an_idempotency_key_is_visible_ascii_of_bounded_length() {
        let key = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", HeaderValue::from_str(value).unwrap());
            }
            key(&headers).map(|key| key.map(str::to_owned)).map_err(|problem| problem.status().as_u16())
        };
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&["\"a-1\""]), Ok(Some("\"a-1\"".to_owned())));
        let (longest, longer) = ("x".repeat(255), "x".repeat(256));
        assert_eq!(key(&[&longest]), Ok(Some(longest.clone())));
        for bad in [&[""][..], &["a b"], &[longer.as_str()], &["gr\u{fc}n"], &["a", "a"]] {
            assert_eq!(key(bad), Err(422), "{bad:?}");
        }
    }
}
