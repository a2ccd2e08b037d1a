//! What every request passes, in one place because it always travels together.
//!
//! [`Edge::answer`] gives every answer its request id, counts and times it by route, refuses what is
//! over the limit, answers for handlers that take too long or panic, and cuts short what is left at
//! the end of a drain.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::IpAddr,
    panic::AssertUnwindSafe,
    task::Poll,
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, future::Either};
use tower::{Layer, Service};
use tower_http::cors::CorsLayer;

use super::{host, shortcut::Answering, stream};
use crate::{
    lifecycle::{Lifecycle, Phase},
    problem::Problem,
    telemetry::{
        context::{self, RequestContext},
        metrics::{ActiveRequest, Metrics, RouteMetrics},
    },
};

/// Routes that are answered even when everything else is refused, and not counted as load.
pub const ALWAYS_ADMITTED: [&str; 5] = ["/healthz", "/livez", "/readyz", "/health", "/metrics"];

/// How soon a refused caller may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const INTERNAL_ERROR: &str = "an internal error; quote the request_id to have it found";

/// What stands between a target and the router.
pub struct Edge {
    /// Requests served at once, [`ALWAYS_ADMITTED`] excepted.
    pub max_in_flight: usize,
    /// Longest time from a request's head to its answer.
    pub request_timeout: Duration,
    /// Which browsers may call, if any.
    pub cors: Option<CorsLayer>,
    /// Whether the process is to stop, and how soon.
    pub lifecycle: Lifecycle,
    /// Where requests are counted.
    pub metrics: Metrics,
}

impl Edge {
    /// Answers `request`, which matched `route` and came from `client`, with what `handle` makes of it.
    pub fn answer<'a>(
        &'a self,
        route: &'a RouteMetrics,
        request: Request,
        client: Option<IpAddr>,
        handle: impl FnOnce(Request) -> Answering + Send + 'a,
    ) -> impl Future<Output = Response> + Send + 'a {
        let exchange = Exchange::begin(route, &request, client, &self.metrics);
        let context = RequestContext::of(request.headers(), client, exchange.started);
        let request_id = context.request_id.clone();
        let admitted = self.admit(&request, exchange.active_now);
        let handle = move |request| self.guard(AssertUnwindSafe(handle(request)).catch_unwind());
        let answer = match (admitted, &self.cors) {
            (admitted, Some(cors)) if is_for_cors(&request) => {
                let answer = async move |request| match admitted {
                    Ok(()) => handle(request).await,
                    Err(refusal) => refusal.into_response(),
                };
                Either::Right(across_origins(cors, request, answer).boxed())
            }
            (Ok(()), _) => Either::Left(handle(request)),
            (Err(refusal), _) => Either::Right(async { refusal.into_response() }.boxed()),
        };
        // Not an async block, which would carry what it awaits twice.
        let answer = answer.map(move |mut response| {
            response.headers_mut().insert(context::REQUEST_ID, request_id);
            let active = exchange.end(route, &response, &self.metrics);
            stream::hold(response, active, |active| active.map(ActiveRequest::kept))
        });
        context::scope(context, answer)
    }

    fn admit(&self, request: &Request, active_now: usize) -> Result<(), Problem> {
        host::check(request.version(), request.uri(), request.headers())
            .map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, detail))?;
        if active_now > self.max_in_flight {
            self.metrics.shed();
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being served")
                .retry_after(RETRY_AFTER));
        }
        Ok(())
    }

    /// The handler's answer, or ours if it panics, takes too long, or outlives the drain.
    async fn guard(&self, mut handler: impl Future<Output = Outcome> + Unpin) -> Response {
        // Most handlers answer at once: those touch neither the timer nor the drain.
        if let Poll::Ready(outcome) = poll_fn(|cx| Poll::Ready(handler.poll_unpin(cx))).await {
            return completed(outcome);
        }
        // Boxed, so that those do not carry it along.
        Box::pin(async {
            tokio::select! {
                outcome = handler => completed(outcome),
                () = tokio::time::sleep(self.request_timeout) => {
                    tracing::warn!("Gave up a request that took too long");
                    Problem::new(StatusCode::GATEWAY_TIMEOUT, "the request took too long").into_response()
                }
                () = self.lifecycle.reached(Phase::Cut) => {
                    tracing::warn!("Cut a request short at the end of the drain");
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
                        .retry_after(RETRY_AFTER)
                        .into_response()
                }
            }
        })
        .await
    }
}

/// What a handler made of a request; the error is a panic.
type Outcome = std::thread::Result<Response>;

/// An OPTIONS request that no browser sent is not the layer's to answer.
fn is_for_cors(request: &Request) -> bool {
    request.method() != Method::OPTIONS
        || request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Around refusals too: a browser cannot read an answer, nor its `Retry-After`, without these headers.
async fn across_origins(
    cors: &CorsLayer,
    request: Request,
    answer: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let mut answer = Some(answer);
    let service = tower::service_fn(|request| {
        let answer = answer.take();
        async move {
            Ok::<_, Infallible>(match answer {
                Some(answer) => answer(request).await,
                // A layer calls its service once a request.
                None => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR).into_response(),
            })
        }
    });
    match cors.layer(service).call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn completed(outcome: Outcome) -> Response {
    match outcome {
        Ok(response) => response,
        // The panic itself was logged where it happened, with this request's id.
        Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR).into_response(),
    }
}

/// One request and its answer, for metrics and the log.
struct Exchange<'a> {
    started: Instant,
    method: Method,
    client: Option<IpAddr>,
    /// With this one; 0 where it is not counted.
    active_now: usize,
    active: Option<ActiveRequest<'a>>,
}

impl<'a> Exchange<'a> {
    fn begin(route: &RouteMetrics, request: &Request, client: Option<IpAddr>, metrics: &'a Metrics) -> Self {
        // Probes and scrapes neither take a slot nor look like load.
        let active = (!ALWAYS_ADMITTED.contains(&route.name())).then(|| metrics.enter());
        let (active, active_now) = active.unzip();
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            client,
            active_now: active_now.unwrap_or_default(),
            active,
        }
    }

    /// What remains counts the request as active.
    fn end(self, route: &RouteMetrics, response: &Response, metrics: &Metrics) -> Option<ActiveRequest<'a>> {
        let elapsed = self.started.elapsed();
        metrics.observe(route, &self.method, response.status(), elapsed);
        tracing::debug!(
            method = self.method.as_str(),
            route = route.name(),
            status = response.status().as_u16(),
            seconds = elapsed.as_secs_f64(),
            client = self.client.map(tracing::field::display),
            "Answered request"
        );
        self.active
    }
}
