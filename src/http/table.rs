//! The routes by path: which one a request is for, and axum's router, which calls it.
//!
//! Entering some 40 routes twice, here for their metrics and in axum's router, is over half of what a process does before it
//! can serve. A function does it when a request first needs the table, which an addition does not
//! ([`super::shortcut`]): its start took 0.76 instead of 0.95 ms.

use std::sync::LazyLock;

use axum::{Router, extract::Request, http::StatusCode, response::IntoResponse};
use futures_util::FutureExt;
use matchit::InsertError;
use tower::Service;

use super::{Routes, shortcut::Answering};
use crate::{problem::Problem, telemetry::metrics::RouteMetrics};

/// Made when it is first looked into.
pub struct Table(LazyLock<Made, Box<dyn FnOnce() -> Made + Send>>);

type Made = Result<Entries, InsertError>;

struct Entries {
    router: Router,
    /// The same paths as the router's.
    metrics: matchit::Router<RouteMetrics>,
}

impl Table {
    /// Of these routes. A path may come twice, with other methods.
    #[must_use]
    pub fn new(routes: impl FnOnce() -> Routes + Send + 'static) -> Self {
        Self(LazyLock::new(Box::new(|| Entries::of(routes()))))
    }

    /// Makes it now.
    ///
    /// # Errors
    /// When two routes collide: a programming mistake.
    pub fn make(&self) -> Result<(), InsertError> {
        self.0.as_ref().map(drop).map_err(Clone::clone)
    }

    /// What a request for this path is counted under; `None` where there is no route.
    pub fn metrics(&self, path: &str) -> Option<&RouteMetrics> {
        let entries = self.0.as_ref().ok()?;
        entries.metrics.at(path).ok().map(|found| found.value)
    }

    /// What the route makes of `request`, or that there is none.
    pub fn call(&self, request: Request) -> Answering {
        match &*self.0 {
            Ok(entries) => Box::pin(entries.router.clone().call(request).map(|Ok(response)| response)),
            Err(error) => {
                let reason = error.to_string();
                // Within the request's context.
                Box::pin(async move {
                    tracing::error!(reason, "Routes collide");
                    let detail = "the routes of this service collide";
                    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
                })
            }
        }
    }
}

impl Entries {
    fn of(routes: Routes) -> Made {
        let (mut router, mut metrics) = (Router::new(), matchit::Router::new());
        for (path, methods) in routes {
            match metrics.insert(path, RouteMetrics::new(path)) {
                Err(InsertError::Conflict { with }) if with == path => {}
                inserted => inserted?,
            }
            router = router.route(path, methods);
        }
        let router = router.fallback(not_found).method_not_allowed_fallback(method_not_allowed);
        Ok(Self { router, metrics })
    }
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")
}

async fn method_not_allowed() -> Problem {
    let detail = "this path does not take this method; the Allow header lists those it takes";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use axum::{body::Body, routing::get};

    use super::*;

    #[tokio::test]
    async fn routes_are_made_once_and_when_they_are_first_needed() {
        let made = Arc::new(AtomicU32::new(0));
        let counted = made.clone();
        let table = Table::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            vec![("/here", get(async || "here"))]
        });
        assert_eq!(made.load(Ordering::Relaxed), 0);
        assert_eq!(table.metrics("/here").map(RouteMetrics::name), Some("/here"));
        assert!(table.metrics("/there").is_none());
        let ask = |path: &str| table.call(Request::get(path).body(Body::empty()).unwrap());
        assert_eq!(ask("/here").await.status(), StatusCode::OK);
        assert_eq!(ask("/there").await.status(), StatusCode::NOT_FOUND);
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn routes_that_collide_are_an_error_and_answer_500() {
        let routes = || vec![("/{one}", get(async || "one")), ("/{other}", get(async || "other"))];
        let table = Table::new(routes);
        assert!(table.make().is_err());
        assert!(table.metrics("/here").is_none());
        let answer = table.call(Request::get("/here").body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
