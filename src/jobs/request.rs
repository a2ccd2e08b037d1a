//! What a request says, read.

use axum::{
    extract::{FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
};
use serde_json::Value;

use super::{CLUSTER, Jobs};
pub(super) use crate::http::query::{MOST, Query};
use crate::{
    http::json,
    problem::{FieldError, Problem},
};

/// Longest selector or continuation, in bytes.
const LONGEST_PARAMETER: usize = 4096;

impl Jobs {
    /// A request's head, and its JSON.
    ///
    /// # Errors
    /// 403 where there is no cluster: before the body is read. 400, 413 and 415 for the body.
    pub(super) async fn read(&self, request: Request) -> Result<(Parts, Value), Problem> {
        self.read_up_to(self.max_body_bytes, request).await
    }

    /// The same, with a limit of its own for the body.
    ///
    /// # Errors
    /// As above.
    pub(super) async fn read_up_to(
        &self,
        max_body_bytes: usize,
        request: Request,
    ) -> Result<(Parts, Value), Problem> {
        self.cluster()?;
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head.clone(), body);
        let body = json::accept(request, max_body_bytes)?.read().await?;
        Ok((head, json::value(&body)?))
    }
}

/// What a path names, in its order, but for the cluster: a handler answers with and without one.
pub(super) struct InPath<const N: usize>(pub(super) [String; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for InPath<N> {
    type Rejection = Problem;

    /// # Errors
    /// 422 when it is no UTF-8.
    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Problem> {
        let no_utf8 = |_| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "the path is no UTF-8");
        let named = RawPathParams::from_request_parts(head, state).await.map_err(no_utf8)?;
        let named = named.iter().filter(|(name, _)| *name != CLUSTER).map(|(_, value)| value.to_owned());
        <[String; N]>::try_from(named.collect::<Vec<_>>()).map(Self).map_err(|named| {
            tracing::error!(
                expected = N,
                found = named.len(),
                "A handler has a route that names something else"
            );
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this route is not what its handler expects")
        })
    }
}

impl Query<'_> {
    /// `true` or `false`; `false` when it is not given.
    ///
    /// # Errors
    /// 422 when it is neither.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.one(name)? {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::invalid(vec![FieldError::field(name, "must be true or false")])),
        }
    }

    /// A parameter that Kubernetes understands, passed on as it is.
    ///
    /// # Errors
    /// 422 when it is too long.
    pub(super) fn passed_on(&self, name: &str) -> Result<Option<&str>, Problem> {
        let value = self.one(name)?.filter(|value| !value.is_empty());
        if value.is_some_and(|value| value.len() > LONGEST_PARAMETER) {
            let detail = format!("must have at most {LONGEST_PARAMETER} bytes");
            return Err(Problem::invalid(vec![FieldError::field(name, detail)]));
        }
        Ok(value)
    }

    /// How to delete what belongs to a Job, in Kubernetes' words.
    ///
    /// # Errors
    /// 422 when it is neither way. Kubernetes' third, `orphan`, would leave pods that nobody ends.
    pub(super) fn propagation(&self) -> Result<&'static str, Problem> {
        match self.one("propagation")? {
            None | Some("background") => Ok("Background"),
            Some("foreground") => Ok("Foreground"),
            Some(_) => {
                let error = FieldError::field("propagation", "must be background or foreground");
                Err(Problem::invalid(vec![error]))
            }
        }
    }
}

/// `If-Match`: which of all objects that ever had this name is meant (RFC 9110 §13.1.1).
///
/// # Errors
/// 412 when `uid` is not among those named.
pub(super) fn check_match(headers: &HeaderMap, uid: &str) -> Result<(), Problem> {
    let mut given = headers.get_all(header::IF_MATCH).iter().peekable();
    if given.peek().is_none() {
        return Ok(());
    }
    let mut tags =
        given.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    if tags.any(|tag| tag == "*" || tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(uid))
    {
        return Ok(());
    }
    let detail = "the one of this name is another than If-Match names";
    Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail))
}

/// An object's UID as its `ETag`; what is no UID makes none.
pub(super) fn etag(uid: &str) -> Option<(header::HeaderName, HeaderValue)> {
    let is_plain = !uid.is_empty() && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let tag = HeaderValue::from_str(&format!("\"{uid}\"")).ok().filter(|_| is_plain)?;
    Some((header::ETAG, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_the_object() {
        let check = |values: &[&str]| {
            let headers =
                values.iter().map(|value| (header::IF_MATCH, HeaderValue::from_str(value).unwrap()));
            check_match(&headers.collect(), "u-1").map_err(|problem| problem.status().as_u16())
        };
        for good in [&[][..], &["*"], &["\"u-1\""], &["\"a\", \"u-1\""], &["\"a\"", "\"u-1\""]] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in [&[""][..], &["\"a\""], &["u-1"], &["W/\"u-1\""], &["\"u-12\""]] {
            assert_eq!(check(bad), Err(412), "{bad:?}");
        }
    }
}
