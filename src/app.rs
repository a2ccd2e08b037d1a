//! The only wiring: a checked [`Config`] becomes the service that both targets call.

use std::sync::Arc;

use axum::{Router, extract::Request, http::StatusCode, response::Response};
use tower::Service;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::{
    addition::{self, Addition},
    config::Config,
    http::{
        docs,
        edge::{EdgeLayer, Limits},
        health, home, path,
    },
    lifecycle::Lifecycle,
    problem::Problem,
    targets::Target,
    telemetry::{metrics::Metrics, writer::Writer},
};

/// The service: every route, with the layer that every request passes.
#[derive(Clone)]
pub struct App {
    router: Router,
    base_path: Arc<str>,
    lifecycle: Lifecycle,
}

impl App {
    /// Every route that `target` serves. `writer` is where log lines go, for the metrics about them.
    ///
    /// # Errors
    /// When the metrics cannot be registered: a programming mistake.
    pub fn new(config: &Config, target: Target, writer: Option<Writer>) -> prometheus::Result<Self> {
        let lifecycle = Lifecycle::default();
        let emf = config.emf_metrics && target == Target::Lambda;
        let metrics = Arc::new(Metrics::new(writer, emf)?);

        let mut routes = Router::new()
            .merge(addition::router(Addition {
                delay: config.add_delay,
                max_body_bytes: config.max_body_bytes,
            }))
            .merge(home::router(target))
            .merge(health::router(target, lifecycle.clone()))
            .merge(docs::router());
        if target == Target::Container {
            routes = routes.merge(health::metrics_router(metrics.clone()));
        }
        Ok(Self::around(routes, config, lifecycle, metrics))
    }

    /// Any routes, served as this service serves its own: tests bring handlers that misbehave.
    #[must_use]
    pub fn around(routes: Router, config: &Config, lifecycle: Lifecycle, metrics: Arc<Metrics>) -> Self {
        let limits = Limits { max_in_flight: config.max_in_flight, request_timeout: config.request_timeout };
        let mut router = routes
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path"))
            .method_not_allowed_fallback(async || {
                let detail = "this path does not take this method; the Allow header lists those it takes";
                Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
            });
        if !config.cors_allowed_origins.is_empty() {
            router = router.layer(cors(config));
        }
        let router = router.layer(EdgeLayer::new(limits, lifecycle.clone(), metrics));
        Self { router, base_path: config.base_path.as_str().into(), lifecycle }
    }

    /// The phase that this app's readiness follows.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Answers one request.
    pub async fn serve(mut self, mut request: Request) -> Response {
        path::normalise(&mut request, &self.base_path);
        match Service::<Request>::call(&mut self.router, request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// What browsers on the configured origins may do: everything that curl may.
fn cors(config: &Config) -> CorsLayer {
    let origins = &config.cors_allowed_origins;
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    CorsLayer::new().allow_origin(allowed).allow_methods(Any).allow_headers(Any).expose_headers(Any)
}
