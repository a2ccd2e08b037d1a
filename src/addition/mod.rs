//! The addition: two numbers in, their sum out, and as much waiting in between as is configured.
//!
//! It is the workload that is bound by waiting. With a delay it shows that CPU-based autoscaling
//! does not see requests that wait, and that Lambda bills every second of them.

mod sum;

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::Method,
    routing::post,
};
use serde::Serialize;
use tracing::info;
use utoipa::ToSchema;

use crate::{
    http::{
        Routes,
        json::{self, Answer},
        shortcut::Shortcut,
    },
    problem::{Document, FieldError, Problem},
};

/// How additions are served.
#[derive(Debug, Clone, Copy)]
pub struct Addition {
    /// Simulated work of each.
    pub delay: Duration,
    /// Largest body, in bytes.
    pub max_body_bytes: usize,
}

/// Two finite 64-bit floats. Other members are ignored.
#[derive(ToSchema)]
#[expect(dead_code, reason = "documents the body, which is read so that every bad field can be named")]
struct Operands {
    /// First operand.
    #[schema(example = 10)]
    a: f64,
    /// Second operand.
    #[schema(example = 5)]
    b: f64,
}

/// The answer to an addition.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sum {
    /// `a + b`, in the shortest form that reads back to the same 64-bit float.
    #[schema(example = 15.0)]
    result: f64,
}

/// The addition's route.
#[must_use]
pub fn routes(addition: Addition) -> Routes {
    vec![("/", post(add).with_state(addition))]
}

/// The same without axum's router in between.
#[must_use]
pub fn shortcut(addition: Addition) -> Shortcut {
    Shortcut::new(Method::POST, "/", move |request| add(State(addition), request))
}

/// Adds two numbers.
#[utoipa::path(post, path = "/", tag = "addition", request_body = Operands, responses(
    (status = 200, description = "The sum", body = Sum),
    (status = 400, description = "Not JSON, or a malformed Host header", body = Document, content_type = "application/problem+json"),
    (status = 413, description = "Body too large", body = Document, content_type = "application/problem+json"),
    (status = 415, description = "Not declared as JSON", body = Document, content_type = "application/problem+json"),
    (status = 422, description = "A field is missing or no number, or the sum is not finite", body = Document, content_type = "application/problem+json"),
    (status = 503, description = "Too many requests at once, or shutting down", body = Document, content_type = "application/problem+json"),
    (status = 504, description = "Took too long", body = Document, content_type = "application/problem+json"),
))]
pub(crate) fn add(
    State(addition): State<Addition>,
    request: Request,
) -> impl Future<Output = Result<Answer<Sum>, Problem>> + Send {
    // Out here, so that the future does not carry the request.
    let body = json::accept(request, addition.max_body_bytes);
    async move {
        let [a, b] = json::numbers(&body?.read().await?, ["a", "b"])?;
        info!(a, b, "Received addition request");

        if !addition.delay.is_zero() {
            // Boxed, so that an addition without a delay does not carry the timer along.
            Box::pin(tokio::time::sleep(addition.delay)).await;
        }
        let result = sum::finite(a, b).ok_or_else(|| Problem::invalid(vec![FieldError::body(OVERFLOW)]))?;

        info!(a, b, result, "Computed result");
        Ok(Answer(Sum { result }))
    }
}

const OVERFLOW: &str = "has a sum that is out of the range of a 64-bit float";
