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
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let request_id = context::request_id();
        let document = Document {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id: &request_id,
            errors: &self.errors,
        };
        let mut response = (self.status, axum::Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(delay) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.as_secs().max(1)));
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
