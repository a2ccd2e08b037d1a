//! The one error type that reaches clients: a problem document (RFC 9457).
//!
//! `type` is always `about:blank`, which RFC 9457 §4.2.1 defines as "the status code says it all";
//! what went wrong with this very request stands in `detail`, and in `errors` a line a field.
//! Nothing of the inside (paths, addresses, library errors) is ever put in here.

use std::{borrow::Cow, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::telemetry::context;

/// An error answer, built where the error is seen.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<Duration>,
    challenge: Option<HeaderValue>,
}

/// What is wrong with one field of the request's body, or with one parameter of its query.
#[derive(Debug, Serialize, ToSchema, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the field, or to the parameter as a field of the query; empty for the whole body.
    #[schema(example = "/a")]
    pub pointer: String,
    /// What is wrong with it.
    #[schema(example = "is missing")]
    pub detail: String,
}

/// The document as it is sent, `application/problem+json`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document<'a> {
    /// Always `about:blank`: the status says which kind of problem it is.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The status code's phrase.
    #[schema(example = "Unprocessable Entity")]
    title: &'a str,
    /// The status code.
    #[schema(example = 422)]
    status: u16,
    /// What went wrong with this request.
    detail: &'a str,
    /// The id to quote; also in the `x-request-id` header and in every log line.
    request_id: &'a str,
    /// One entry a field, for validation problems only.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// A problem with the status code and a sentence for the caller.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), errors: Vec::new(), retry_after: None, challenge: None }
    }

    /// 422: the document is well-formed, its content is not acceptable; each field is named.
    #[must_use]
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let list: Vec<_> = errors
            .iter()
            .map(|FieldError { pointer, detail }| {
                if pointer.is_empty() { format!("the body {detail}") } else { format!("{pointer} {detail}") }
            })
            .collect();
        Self { errors, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, list.join("; ")) }
    }

    /// Tells the caller when to try again (`Retry-After`, in whole seconds).
    #[must_use]
    pub fn retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// Tells the caller how to sign in (`WWW-Authenticate`).
    #[must_use]
    pub fn challenge(self, challenge: HeaderValue) -> Self {
        Self { challenge: Some(challenge), ..self }
    }

    /// What went wrong.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// When the caller is to try again, in whole seconds.
    #[must_use]
    pub fn seconds_to_wait(&self) -> Option<u64> {
        self.retry_after.map(|delay| delay.as_secs().max(1))
    }

    /// The same about a part of the request's body, which stands at `pointer`.
    #[must_use]
    pub fn below(mut self, pointer: &str) -> Self {
        if self.errors.is_empty() {
            return self;
        }
        let moved =
            |error: FieldError| FieldError { pointer: format!("{pointer}{}", error.pointer), ..error };
        let errors = std::mem::take(&mut self.errors).into_iter().map(moved).collect();
        let Self { detail, errors, .. } = Self::invalid(errors);
        Self { detail, errors, ..self }
    }

    /// The document, for an answer that holds several.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        serde_json::to_value(self.document(&context::request_id())).unwrap_or_default()
    }

    fn document<'a>(&'a self, request_id: &'a str) -> Document<'a> {
        Document {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id,
            errors: &self.errors,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(self.document(&context::request_id()))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.seconds_to_wait() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl FieldError {
    /// An error at a top-level field of the body, or at a parameter of the query.
    #[must_use]
    pub fn field(name: &str, detail: impl Into<String>) -> Self {
        Self { pointer: format!("/{name}"), detail: detail.into() }
    }

    /// An error of the body as a whole.
    #[must_use]
    pub fn body(detail: impl Into<String>) -> Self {
        Self { pointer: String::new(), detail: detail.into() }
    }
}
