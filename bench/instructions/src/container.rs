//! The rows of the container, from its parts to a whole request.

use std::{net::IpAddr, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, Method, StatusCode},
    response::Response,
};
use http_body_util::BodyExt;
use math_service::{
    addition::{self, Addition},
    app::App,
    config::Config,
    lifecycle::Phase,
    targets::Target,
    telemetry::{
        self,
        context::{self, RequestContext},
        metrics::{Metrics, RouteMetrics},
    },
};
use tower::ServiceExt;

use crate::{Outcome, Row, check, on_one_thread, repeat};

pub(crate) const ROWS: &[Row] = &[
    ("addition", |times| on_one_thread(addition(times))),
    ("log line", |times| on_one_thread(log_line(times))),
    ("metrics", |times| on_one_thread(metrics(times))),
    ("POST /", |times| on_one_thread(requests(times, add, r#"{"result":15.0}"#))),
    ("GET /healthz", |times| on_one_thread(requests(times, probe, r#"{"status":"ok"}"#))),
];

/// A body in, the answer out: the route alone, without logs.
async fn addition(times: usize) -> Outcome {
    let config = Config::from_env(|_| None)?;
    let addition = Addition { delay: config.add_delay, max_body_bytes: config.max_body_bytes };
    let (_, route) = addition::routes(addition).pop().ok_or("no route")?;
    repeat(times, None, add, async |request| {
        let response = route.clone().oneshot(request).await?;
        check(&body(response).await?, r#"{"result":15.0}"#)
    })
    .await
}

/// One line, formatted and handed to the writer.
async fn log_line(times: usize) -> Outcome {
    let logs = telemetry::start(Config::from_env(|_| None)?.log_filter, Target::Container)?;
    let lines = repeat(
        times,
        Some(&logs),
        || Ok(()),
        async |()| {
            tracing::info!(target: "math_service::addition", a = 10.0, b = 5.0, result = 15.0, "Computed result");
            Ok(())
        },
    );
    context::scope(RequestContext::of(&HeaderMap::new(), None, std::time::Instant::now()), lines).await
}

/// A request as the metrics see it: it begins, is timed, and ends.
async fn metrics(times: usize) -> Outcome {
    let metrics = Metrics::new(None, false)?;
    let route = RouteMetrics::new("/");
    repeat(
        times,
        None,
        || Ok(()),
        async |()| {
            let (_active, _) = metrics.enter();
            metrics.observe(&route, &Method::POST, StatusCode::OK, Duration::from_micros(40));
            Ok(())
        },
    )
    .await
}

/// Whole requests, with all that stands around the router, and both log lines where there are any.
async fn requests(times: usize, request: fn() -> Outcome<Request>, answer: &str) -> Outcome {
    let config = Config::from_env(|_| None)?;
    let logs = telemetry::start(config.log_filter.clone(), Target::Container)?;
    let app = App::new(&config, Target::Container, Some(logs.clone()))?;
    app.lifecycle().advance(Phase::Ready);
    let client = IpAddr::from([203, 0, 113, 7]);
    repeat(times, Some(&logs), request, async |request| {
        let response = app.serve(request, Some(client)).await;
        check(&body(response).await?, answer)
    })
    .await
}

async fn body(response: Response) -> Outcome<bytes::Bytes> {
    Ok(response.into_body().collect().await?.to_bytes())
}

/// What curl sends.
fn add() -> Outcome<Request> {
    let body = r#"{"a":10,"b":5}"#;
    Ok(Request::post("/")
        .header("host", "math-service.example:8000")
        .header("user-agent", "curl/8.5.0")
        .header("accept", "*/*")
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(Body::from(body))?)
}

/// What the kubelet sends.
fn probe() -> Outcome<Request> {
    Ok(Request::get("/healthz")
        .header("host", "10.0.0.7:8000")
        .header("user-agent", "kube-probe/1.34")
        .header("accept", "*/*")
        .header("connection", "close")
        .body(Body::empty())?)
}
