//! JSON bodies in, with an error that names what is wrong.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::problem::{FieldError, Problem};

/// A value as the answer's JSON body.
///
/// [`axum::Json`] does the same, by way of a larger buffer and of a content type that it then replaces:
/// 0.4 thousand instructions a request more.
pub struct Answer<T>(pub T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => {
                let mut response = Response::new(Body::from(text));
                response.headers_mut().insert(header::CONTENT_TYPE, JSON);
                response
            }
            Err(error) => {
                tracing::error!(error = &error as &(dyn std::error::Error + 'static), "Could not write JSON");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A request's body that is declared as JSON and not too large by its own account.
pub struct Accepted {
    body: Body,
    limit: usize,
}

/// The request's body, if it is declared as JSON and is at most `limit` bytes long. The rest of the request
/// would only make the future larger that reads it.
///
/// # Errors
/// 415 when it is not declared as JSON, 413 when it says itself that it is too large.
pub fn accept(request: Request, limit: usize) -> Result<Accepted, Problem> {
    if !is_json(request.headers()) {
        let detail = "the body must be JSON, declared as Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    if request.body().size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    Ok(Accepted { body: request.into_body(), limit })
}

impl Accepted {
    /// Reads it.
    ///
    /// # Errors
    /// 413 when it turns out to be too large, 400 when it breaks off.
    pub async fn read(self) -> Result<Bytes, Problem> {
        let limit = self.limit;
        let mut body = Limited::new(self.body, limit);
        // Nearly every body comes in one piece: that piece is the answer, without a copy.
        let first = next(&mut body, limit).await?;
        let Some(second) = next(&mut body, limit).await? else { return Ok(first.unwrap_or_default()) };
        let mut whole = Vec::from(first.unwrap_or_default());
        whole.extend_from_slice(&second);
        while let Some(piece) = next(&mut body, limit).await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }
}

async fn next(body: &mut Limited<Body>, limit: usize) -> Result<Option<Bytes>, Problem> {
    if body.is_end_stream() {
        return Ok(None);
    }
    match body.frame().await {
        None => Ok(None),
        // Trailers have no data.
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Some(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body could not be read to its end")),
    }
}

fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {limit} bytes"))
}

/// Declared once, as `application/json` or a type with the `+json` suffix; parameters are ignored.
fn is_json(headers: &HeaderMap) -> bool {
    let mut declared = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (declared.next(), declared.next()) else { return false };
    if value == "application/json" {
        return true;
    }
    let Ok(value) = value.to_str() else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let has_suffix = subtype.strip_suffix("+json").is_some_and(|stem| !stem.is_empty());
    is_token(kind) && is_token(subtype) && (essence == "application/json" || has_suffix)
}

/// The numbers under `names` in a JSON object; other members are ignored, the last of a repeated
/// name counts.
///
/// # Errors
/// 400 when the text is not JSON, 422 when it is no object or when fields are missing or are no
/// finite 64-bit floats: every one of them is named.
pub fn numbers<const N: usize>(body: &[u8], names: [&str; N]) -> Result<[f64; N], Problem> {
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed(format_args!("invalid UTF-8 after byte {}", error.valid_up_to())))?;
    let fields = match Fields::<N>::of(text, &names) {
        Ok(fields) => fields,
        // The text is JSON, and no object.
        Err(error) if error.is_data() => return Err(not_an_object(text)),
        Err(error) => return Err(malformed(error)),
    };

    let mut values = [0.0; N];
    let mut errors = Vec::new();
    for ((value, name), raw) in values.iter_mut().zip(names).zip(fields.0) {
        match number(raw) {
            Ok(number) => *value = number,
            Err(detail) => errors.push(FieldError::field(name, detail)),
        }
    }
    if errors.is_empty() { Ok(values) } else { Err(Problem::invalid(errors)) }
}

/// Any JSON.
///
/// # Errors
/// 400 when the text is none.
pub fn value(body: &[u8]) -> Result<serde_json::Value, Problem> {
    serde_json::from_slice(body).map_err(malformed)
}

fn malformed(error: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}"))
}

/// The reader stopped at the first character: the rest may still be malformed.
fn not_an_object(text: &str) -> Problem {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Problem::invalid(vec![FieldError::body("must be a JSON object")]),
        Err(error) => malformed(error),
    }
}

/// The text of a JSON number is a Rust float literal, and Rust reads those exactly.
fn number(raw: Option<&RawValue>) -> Result<f64, &'static str> {
    let Some(raw) = raw else { return Err("is missing") };
    match raw.get().as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => match raw.get().parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err("is out of the range of a 64-bit float"),
        },
        Some(b'"') => Err("must be a number, not a string"),
        Some(b't' | b'f') => Err("must be a number, not a boolean"),
        Some(b'n') => Err("must be a number, not null"),
        Some(b'[') => Err("must be a number, not an array"),
        _ => Err("must be a number, not an object"),
    }
}

/// The raw values of the wanted members of an object, in the order of their names.
struct Fields<'a, const N: usize>([Option<&'a RawValue>; N]);

impl<'a, const N: usize> Fields<'a, N> {
    fn of(text: &'a str, names: &[&str; N]) -> serde_json::Result<Self> {
        struct Members<'n, const N: usize>(&'n [&'n str; N]);

        impl<'de, const N: usize> Visitor<'de> for Members<'_, N> {
            type Value = [Option<&'de RawValue>; N];

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut values = [None; N];
                while let Some(Key(key)) = map.next_key()? {
                    match self.0.iter().position(|name| *name == key) {
                        Some(index) => values[index] = Some(map.next_value()?),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(values)
            }
        }

        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields = deserializer.deserialize_map(Members(names)).map(Self)?;
        deserializer.end()?;
        Ok(fields)
    }
}

/// A member's name: borrowed unless it is escaped.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] std::borrow::Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(body: &str) -> Result<[f64; 2], (u16, String)> {
        numbers(body.as_bytes(), ["a", "b"])
            .map_err(|problem| (problem.status().as_u16(), format!("{problem:?}")))
    }

    #[test]
    fn numbers_are_read_exactly() {
        assert_eq!(sum(r#"{"a":10,"b":5}"#), Ok([10.0, 5.0]));
        assert_eq!(sum(r#" { "b" : 2e0 , "a" : -1.5 , "c" : [{}] } "#), Ok([-1.5, 2.0]));
        assert_eq!(sum(r#"{"a":9007199254740993,"b":5e-324}"#), Ok([9_007_199_254_740_992.0, 5e-324]));
        // Needs exact rounding: a reader that is fast and nearly right is off by a bit here.
        let [subnormal, _] = sum(r#"{"a":2.2250738585072011e-308,"b":0}"#).unwrap();
        assert_eq!(subnormal.to_bits(), 0x000F_FFFF_FFFF_FFFF);
        assert!(sum(r#"{"a":-0.0,"b":-0}"#).unwrap().iter().all(|zero| zero.is_sign_negative()));
        assert_eq!(sum(r#"{"a":1,"a":2,"b":3}"#), Ok([2.0, 3.0]), "the last of a repeated name counts");
        assert_eq!(sum(r#"{"\u0061":1,"b":3}"#), Ok([1.0, 3.0]), "an escaped name is the same name");
    }

    #[test]
    fn every_bad_field_is_named() {
        for (body, expected) in [
            ("{}", vec!["/a", "is missing", "/b"]),
            (r#"{"a":"1","b":null}"#, vec!["/a", "not a string", "/b", "not null"]),
            (r#"{"a":true,"b":[]}"#, vec!["not a boolean", "not an array"]),
            (r#"{"a":{},"b":1e400}"#, vec!["not an object", "out of the range"]),
            ("[1,2]", vec!["must be a JSON object"]),
            ("null", vec!["must be a JSON object"]),
        ] {
            let (status, problem) = sum(body).expect_err(body);
            assert_eq!(status, 422, "{body}");
            expected.iter().for_each(|part| assert!(problem.contains(part), "{body}: {problem}"));
        }
    }

    #[test]
    fn text_that_is_not_json_is_told_apart() {
        for body in
            ["", "{", r#"{"a":1,"b":2}x"#, r#"{"a":01,"b":2}"#, r#"{"a":NaN,"b":2}"#, "{'a':1}", "\u{feff}{}"]
        {
            assert_eq!(sum(body).expect_err(body).0, 400, "{body}");
        }
        assert_eq!(numbers(b"{\"a\":\"\xff\"}", ["a"]).unwrap_err().status(), 400);
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let body = format!(r#"{{"a":1,"b":2,"c":{}1{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
        let _ = sum(&body);
        let body = format!(r#"{{"a":{}1{},"b":2}}"#, "[".repeat(30_000), "]".repeat(30_000));
        assert!(sum(&body).is_err());
    }

    #[test]
    fn media_types_with_the_json_suffix_are_json() {
        let is = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            is_json(&headers)
        };
        assert!(
            ["application/json", "Application/JSON; charset=utf-8", "application/hal+json", "a/b+json"]
                .iter()
                .all(|v| is(v))
        );
        assert!(
            ![
                "text/plain",
                "application/jsonp",
                "+json",
                "",
                "application/xml",
                "application/+json",
                "x+json",
                "text/plain, a/b+json"
            ]
            .iter()
            .any(|v| is(v))
        );
        assert!(!is_json(&HeaderMap::new()));
    }
}
