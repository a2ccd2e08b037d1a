//! The one layer around every handler: what always travels together is one service, not seven.
//!
//! It runs after routing (`Router::layer`), so the matched route is known, and gives every answer
//! its request id, counts and times it, refuses what is over the limit, answers for handlers that
//! take too long or panic, and cuts short what is left at the end of a drain.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tower::{Layer, Service};

use super::{client_ip::ClientIp, host};
use crate::{
    lifecycle::{Lifecycle, Phase},
    problem::Problem,
    telemetry::{
        context::{self, RequestContext},
        metrics::{ActiveRequest, Labels, Metrics},
    },
};

/// Routes that are answered even when everything else is refused.
pub const ALWAYS_ADMITTED: [&str; 5] = ["/healthz", "/livez", "/readyz", "/health", "/metrics"];

/// How soon a refused caller may come back.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the layer needs to know.
pub struct Limits {
    /// Requests served at once, [`ALWAYS_ADMITTED`] excepted.
    pub max_in_flight: usize,
    /// Longest time from a request's head to its answer.
    pub request_timeout: Duration,
}

/// Makes an [`Edge`] around each route.
#[derive(Clone)]
pub struct EdgeLayer(Arc<Shared>);

struct Shared {
    limits: Limits,
    lifecycle: Lifecycle,
    metrics: Arc<Metrics>,
}

impl EdgeLayer {
    /// The layer for one app.
    #[must_use]
    pub fn new(limits: Limits, lifecycle: Lifecycle, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { limits, lifecycle, metrics }))
    }
}

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { inner, shared: self.0.clone() }
    }
}

/// A route with the layer around it.
#[derive(Clone)]
pub struct Edge<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Error = Infallible>,
    S::Response: IntoResponse,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let exchange = Exchange::begin(&request, &self.shared.metrics);
        let context = Arc::new(RequestContext::of(request.headers()));
        let admitted = self.shared.admit(&request, exchange.active_now);
        // Handlers are lazy: nothing runs before the future is polled inside the scope.
        let answer = admitted.map(|()| self.inner.call(request));
        let shared = self.shared.clone();
        Box::pin(async move {
            let answered = async {
                let mut response = match answer {
                    Ok(handler) => shared.guard(handler).await,
                    Err(refusal) => refusal.into_response(),
                };
                exchange.end(&mut response, &shared.metrics);
                response
            };
            let mut response = context::scope(context.clone(), answered).await;
            response.headers_mut().insert(context::REQUEST_ID, context.header_value());
            Ok(response)
        })
    }
}

impl Shared {
    fn admit(&self, request: &Request, active_now: i64) -> Result<(), Problem> {
        host::check(request.version(), request.uri(), request.headers())
            .map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, detail))?;
        let over = usize::try_from(active_now).is_ok_and(|active| active > self.limits.max_in_flight);
        if over && !route(request).is_some_and(|route| ALWAYS_ADMITTED.contains(&route.as_str())) {
            self.metrics.shed();
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are being served")
                .retry_after(RETRY_AFTER));
        }
        Ok(())
    }

    /// The handler's answer, or ours if it panics, takes too long, or outlives the drain.
    async fn guard<R: IntoResponse>(&self, handler: impl Future<Output = Result<R, Infallible>>) -> Response {
        tokio::select! {
            // The handler first: the timer and the drain cost nothing when it answers at once.
            biased;
            outcome = AssertUnwindSafe(handler).catch_unwind() => match outcome {
                Ok(Ok(response)) => response.into_response(),
                // The panic itself was logged where it happened, with this request's id.
                Err(_) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL_ERROR).into_response(),
            },
            () = tokio::time::sleep(self.limits.request_timeout) => {
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
    }
}

const INTERNAL_ERROR: &str = "an internal error; quote the request_id to have it found";

fn route(request: &Request) -> Option<&MatchedPath> {
    request.extensions().get::<MatchedPath>()
}

/// One request and its answer, for metrics and the log.
struct Exchange {
    started: Instant,
    method: axum::http::Method,
    route: Option<MatchedPath>,
    client: Option<ClientIp>,
    active_now: i64,
    _active: ActiveRequest,
}

impl Exchange {
    fn begin(request: &Request, metrics: &Metrics) -> Self {
        let (active, active_now) = metrics.enter();
        Self {
            started: Instant::now(),
            method: request.method().clone(),
            route: route(request).cloned(),
            client: request.extensions().get().copied(),
            active_now,
            _active: active,
        }
    }

    fn end(self, response: &mut Response, metrics: &Metrics) {
        let elapsed = self.started.elapsed();
        let labels =
            Labels::of(self.route.as_ref().map(MatchedPath::as_str), &self.method, response.status());
        metrics.observe(&labels, elapsed);
        tracing::debug!(
            method = self.method.as_str(),
            route = labels.route,
            status = response.status().as_u16(),
            seconds = elapsed.as_secs_f64(),
            client = self.client.map(|ClientIp(ip)| tracing::field::display(ip)),
            "Answered request"
        );
        // What we send is what we declared: no browser shall guess otherwise.
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
}
