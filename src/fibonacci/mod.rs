//! Fibonacci numbers: any one of them, or each caller's own sequence, one after the other.
//!
//! It is the workload that is bound by shared state: replicas that do not share it give wrong answers.
//! The state is where each sequence stands, an index; the number is computed from it.

pub mod sequence;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use tokio::sync::Semaphore;
use tracing::info;
use utoipa::ToSchema;

use crate::{
    auth::{Caller, Callers},
    http::{Routes, idempotency},
    problem::{Document, Problem},
    store::{
        SequenceId,
        state::{Lifetime, State as SharedState},
    },
};

/// How the numbers are served.
#[derive(Clone)]
pub struct Fibonacci {
    /// The last index that is served.
    pub max_index: u64,
    /// Who asks.
    pub callers: Callers,
    /// Where sequences stand.
    pub state: SharedState,
    /// One permit for each number that may be computed at once away from the async threads.
    pub slots: Arc<Semaphore>,
}

/// Up to here a number takes less time than a change of threads would be worth: some 50 µs.
const COMPUTED_AT_ONCE: u64 = 20_000;

/// A number of the sequence 0, 1, 1, 2, 3, 5, …
#[derive(Serialize, ToSchema)]
pub(crate) struct Number {
    /// Its place: F(0) = 0, F(1) = 1.
    #[schema(example = 10)]
    index: u64,
    /// The number itself, exact, in decimal: too large for JSON's numbers from F(79) on.
    #[schema(example = "55")]
    value: String,
}

/// The routes.
#[must_use]
pub fn routes(fibonacci: Fibonacci) -> Routes {
    vec![
        ("/fibonacci", get(current).delete(reset).with_state(fibonacci.clone())),
        ("/fibonacci/next", post(next).with_state(fibonacci.clone())),
        ("/fibonacci/{n}", get(nth).with_state(fibonacci)),
    ]
}

/// The number at an index.
#[utoipa::path(get, path = "/fibonacci/{n}", tag = "fibonacci",
    params(("n" = u64, Path, description = "The index, from 0 to FIBONACCI_MAX_INDEX", example = 100)),
    responses(
        (status = 200, description = "The number", body = Number),
        (status = 422, description = "The index is no whole number, negative, or above FIBONACCI_MAX_INDEX", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "Too many requests at once, or shutting down", body = Document, content_type = "application/problem+json"),
        (status = 504, description = "Took too long", body = Document, content_type = "application/problem+json"),
    ))]
pub(crate) async fn nth(
    State(fibonacci): State<Fibonacci>,
    n: Result<Path<String>, PathRejection>,
) -> Result<Json<Number>, Problem> {
    let index = n.ok().and_then(|Path(text)| index(&text)).filter(|index| *index <= fibonacci.max_index);
    let index = index.ok_or_else(|| {
        let detail = format!("the index must be a whole number from 0 to {}", fibonacci.max_index);
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    })?;
    fibonacci.number(index).await.map(Json)
}

/// Digits alone: Rust's own parser would take a sign too.
fn index(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The next number of the caller's own sequence, the first of which is F(0).
///
/// Without credentials the caller is known by a session key: the one in `X-Session-Key` or in the
/// cookie `math_session`, else a new one; the answer names it in `X-Session-Key`. A key that is not
/// known begins a new sequence.
#[utoipa::path(post, path = "/fibonacci/next", operation_id = "fibonacci_next", tag = "fibonacci",
    params(
        ("X-Session-Key" = Option<String>, Header, description = "32 to 128 characters of A-Z a-z 0-9 - _"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters but commas: within 24 hours the same key in the same sequence gets the same number, and takes no further one"),
    ),
    responses(
        (status = 200, description = "The next number; no other call gets it", body = Number),
        (status = 401, description = "Credentials that are not accepted", body = Document, content_type = "application/problem+json"),
        (status = 409, description = "The sequence has reached FIBONACCI_MAX_INDEX; DELETE /fibonacci lets it start over", body = Document, content_type = "application/problem+json"),
        (status = 422, description = "A malformed session key or Idempotency-Key", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "The state store cannot be reached, or is not configured; too many requests at once; shutting down", body = Document, content_type = "application/problem+json"),
    ))]
pub(crate) async fn next(State(fibonacci): State<Fibonacci>, request: Request) -> Response {
    fibonacci
        .for_caller(request, async |sequence, lifetime, headers| {
            let key = idempotency::key(headers)?;
            let index = fibonacci.state.next(sequence, lifetime, key, fibonacci.max_index).await?;
            let number = fibonacci.number_within_limit(index.unwrap_or(u64::MAX)).await?;
            info!(index = number.index, "Gave the next number");
            Ok(Json(number).into_response())
        })
        .await
}

/// Where the caller's own sequence stands, without a step.
#[utoipa::path(get, path = "/fibonacci", operation_id = "fibonacci_current", tag = "fibonacci",
    params(("X-Session-Key" = Option<String>, Header, description = "As in POST /fibonacci/next")),
    responses(
        (status = 200, description = "The number that was given last", body = Number),
        (status = 401, description = "Credentials that are not accepted", body = Document, content_type = "application/problem+json"),
        (status = 404, description = "The sequence has not begun", body = Document, content_type = "application/problem+json"),
        (status = 409, description = "The sequence stands beyond FIBONACCI_MAX_INDEX, which was higher once", body = Document, content_type = "application/problem+json"),
        (status = 422, description = "A malformed session key", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "As in POST /fibonacci/next", body = Document, content_type = "application/problem+json"),
    ))]
pub(crate) async fn current(State(fibonacci): State<Fibonacci>, request: Request) -> Response {
    fibonacci
        .for_caller(request, async |sequence, _, _| {
            let index = fibonacci.state.current(sequence).await?.ok_or_else(|| {
                let detail = "this sequence has not begun: POST /fibonacci/next begins it";
                Problem::new(StatusCode::NOT_FOUND, detail)
            })?;
            Ok(Json(fibonacci.number_within_limit(index).await?).into_response())
        })
        .await
}

/// Lets the caller's own sequence start over. The answer to an `Idempotency-Key` stays what it was.
#[utoipa::path(delete, path = "/fibonacci", operation_id = "fibonacci_reset", tag = "fibonacci",
    params(("X-Session-Key" = Option<String>, Header, description = "As in POST /fibonacci/next")),
    responses(
        (status = 204, description = "The sequence has not begun"),
        (status = 401, description = "Credentials that are not accepted", body = Document, content_type = "application/problem+json"),
        (status = 422, description = "A malformed session key", body = Document, content_type = "application/problem+json"),
        (status = 503, description = "As in POST /fibonacci/next", body = Document, content_type = "application/problem+json"),
    ))]
pub(crate) async fn reset(State(fibonacci): State<Fibonacci>, request: Request) -> Response {
    fibonacci
        .for_caller(request, async |sequence, _, _| {
            fibonacci.state.reset(sequence).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        })
        .await
}

impl Fibonacci {
    /// What `answer` makes of the caller's sequence, marked with the caller's session whatever it is.
    async fn for_caller(
        &self,
        request: Request,
        answer: impl AsyncFnOnce(SequenceId, Lifetime, &HeaderMap) -> Result<Response, Problem>,
    ) -> Response {
        let (parts, _) = request.into_parts();
        let identified = match self.callers.identify(&parts).await {
            Ok(identified) => identified,
            Err(problem) => return problem.into_response(),
        };
        let (sequence, lifetime) = sequence_of(&identified.caller);
        let mut response = answer(sequence, lifetime, &parts.headers).await.into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        identified.mark(response.headers_mut());
        response
    }

    async fn number_within_limit(&self, index: u64) -> Result<Number, Problem> {
        if index > self.max_index {
            let max = self.max_index;
            let detail =
                format!("this sequence has reached its end, F({max}): DELETE /fibonacci lets it start over");
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        self.number(index).await
    }

    /// Computed here when that is quick, else on a blocking thread, as many at once as there are permits.
    async fn number(&self, index: u64) -> Result<Number, Problem> {
        if index <= COMPUTED_AT_ONCE {
            return Ok(Number { index, value: sequence::decimal(index) });
        }
        let failed = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the number could not be computed");
        let permit = self.slots.clone().acquire_owned().await.map_err(|_| failed())?;
        let computed = tokio::task::spawn_blocking(move || {
            // Held until the work is done, even when its caller has gone.
            let _permit = permit;
            sequence::decimal(index)
        });
        let value = computed.await.map_err(|_| failed())?;
        Ok(Number { index, value })
    }
}

/// Sessions end; what belongs to a signed-in caller stays.
fn sequence_of(caller: &Caller) -> (SequenceId, Lifetime) {
    match caller {
        Caller::Session(key) => (SequenceId::of_session(key.reveal()), Lifetime::Session),
        Caller::Subject(subject) => {
            (SequenceId::of_subject(subject.issuer(), subject.name()), Lifetime::Endless)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_digits_and_nothing_else() {
        assert_eq!((index("0"), index("100"), index("007")), (Some(0), Some(100), Some(7)));
        for text in ["", "-1", "+1", "1.0", "1e3", "ten", "١", "18446744073709551616", " 1"] {
            assert_eq!(index(text), None, "{text}");
        }
    }
}
