//! The Jobs API before a Kubernetes that does what it is told to.
//!
//! - `routes`: every route, and every way in which the cluster may answer or not.
//! - `batch`: many Jobs in one request.
//! - `callers`: every route, and every kind of caller.
//! - `clusters`: several clusters, one of which is away.
//! - `events`, `logs`: how a Job changes, and what its pods write.
//! - `policy`: what a Job may ask for.
//! - `history`: what becomes of Jobs, written down; `lease`: by one replica at a time.
//! - `templates`: Jobs that a template describes.
//! - `webhooks`: who is told when a Job has ended.

mod batch;
mod callers;
mod clusters;
mod events;
mod history;
mod lease;
mod logs;
mod policy;
mod routes;
mod templates;
mod webhooks;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
};
use futures_util::stream::unfold;
use http_body_util::BodyExt;
use hyper::Response;
use kube::client::Body as KubeBody;
use math_service::{
    app::App,
    auth::{access::Access, issuer::Issuer, limit::Rate, oidc::Oidc, tokens::Tokens, trail::Trail},
    config::Config,
    jobs::{
        self, Followed, Jobs,
        cluster::{Cluster, ClusterError},
        events::Delivery,
        figures::Figures,
        templates::Templates,
        webhook::Webhooks,
    },
    lifecycle::Lifecycle,
    store::{ledger::Ledger, state::State},
    targets::Target,
    telemetry::{metrics::Metrics, writer::Writer},
};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    access::{Folder, NOW, everybody},
    auth::{AUDIENCE, TestIssuer},
    support::{PATIENCE, Reply},
};

pub(crate) const IMAGE: &str = "registry.example.com/team/tool:1";

/// What the service asked of Kubernetes.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// What Kubernetes does then.
pub(crate) enum Answer {
    Json(u16, Value),
    Later(u16, u64, Value),
    Text(u16, &'static str),
    Lines(Vec<String>),
    /// Goes on as long as somebody has the other end.
    Stream(UnboundedReceiver<String>),
    Fails(ClusterError),
    Never,
}

/// A Kubernetes that answers as it is told, and remembers what it was asked.
#[derive(Clone, Default)]
pub(crate) struct Kubernetes(Arc<Mutex<Vec<Asked>>>);

impl Kubernetes {
    /// Answers with `respond`.
    pub(crate) fn with(respond: impl FnMut(&Asked) -> Answer + Send + 'static) -> (Self, Cluster) {
        Self::named("math", respond)
    }

    /// The same under another name than the other tests' cluster has.
    pub(crate) fn named(
        name: &str,
        respond: impl FnMut(&Asked) -> Answer + Send + 'static,
    ) -> (Self, Cluster) {
        let (mock, mut handle) = tower_test::mock::pair::<Request<KubeBody>, Response<Body>>();
        let (kubernetes, mut respond) = (Self::default(), respond);
        let asked = kubernetes.0.clone();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let request = Asked { method: head.method.to_string(), path: head.uri.to_string(), body };
                let answer = respond(&request);
                asked.lock().unwrap().push(request);
                let response = |code: u16| Response::builder().status(code);
                match answer {
                    Answer::Json(code, body) => {
                        send.send_response(
                            response(code).body(body.to_string().into_bytes().into()).unwrap(),
                        );
                    }
                    Answer::Later(code, seconds, body) => {
                        let response = response(code).header("retry-after", seconds);
                        send.send_response(response.body(body.to_string().into_bytes().into()).unwrap());
                    }
                    Answer::Text(code, text) => {
                        send.send_response(response(code).body(text.as_bytes().to_vec().into()).unwrap());
                    }
                    Answer::Lines(lines) => {
                        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
                        send.send_response(response(200).body(text.into_bytes().into()).unwrap());
                    }
                    Answer::Stream(parts) => {
                        let parts = unfold(parts, |mut parts| async move {
                            let part = Bytes::from(parts.recv().await?);
                            Some((Ok::<_, std::io::Error>(part), parts))
                        });
                        send.send_response(response(200).body(Body::from_stream(parts)).unwrap());
                    }
                    Answer::Fails(error) => send.send_error(error),
                    Answer::Never => unanswered.push(send),
                }
            }
        });
        (kubernetes, Cluster::around(name, kube::Client::new(mock, "default")))
    }

    /// Answers these requests, in this order; any other is a surprise that it answers with 500.
    pub(crate) fn expecting(script: Vec<(&'static str, Answer)>) -> (Self, Cluster) {
        let mut script: VecDeque<_> = script.into();
        Self::with(move |asked| match script.pop_front() {
            Some((expected, answer)) if format!("{} {}", asked.method, asked.path).starts_with(expected) => {
                answer
            }
            other => {
                let expected = other.map(|(expected, _)| expected);
                Answer::Json(500, status(500, "", &format!("expected {expected:?}, got {asked:?}")))
            }
        })
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().clone()
    }

    /// Methods and paths.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.asked().iter().map(|asked| format!("{} {}", asked.method, asked.path)).collect()
    }
}

/// A `Status`, which is how Kubernetes refuses.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

/// The service before that Kubernetes.
pub(crate) struct Service {
    pub(crate) app: App,
    _folder: Folder,
}

#[derive(Default)]
pub(crate) struct Setup<'a> {
    pub(crate) cluster: Option<Cluster>,
    pub(crate) others: Vec<Cluster>,
    pub(crate) issuer: Option<&'a TestIssuer>,
    pub(crate) namespaces: Option<&'a str>,
    pub(crate) images: Option<&'a str>,
    pub(crate) webhooks: Option<Webhooks>,
    pub(crate) call_deadline: Option<Duration>,
    pub(crate) request_timeout: Option<Duration>,
    pub(crate) rate: Option<&'a str>,
    pub(crate) logs: Option<Writer>,
    pub(crate) ledger: Option<Ledger>,
    pub(crate) trail: Option<Trail>,
    pub(crate) delivery: Option<Delivery>,
    pub(crate) max_in_flight: Option<&'a str>,
}

impl Setup<'_> {
    pub(crate) fn start(self) -> Service {
        let folder = Folder::new();
        std::fs::write(folder.path().join("a.yaml"), templates::A).unwrap();
        let clock: math_service::auth::Clock = Arc::new(|| std::time::UNIX_EPOCH + Duration::from_secs(NOW));
        let tokens = Tokens::load(&folder.mount(&everybody()), clock.clone()).unwrap();
        let oidc = self
            .issuer
            .map(|issuer| Oidc::new(Issuer::parse(&issuer.url).unwrap(), AUDIENCE.to_owned(), clock));
        let rate = Rate::parse(self.rate.unwrap_or("1000000/s")).unwrap();
        let access = Access::new(Some(tokens), oidc, rate, self.logs, self.trail.clone());
        let lifecycle = Lifecycle::default();
        let jobs = Jobs {
            clusters: self.cluster.iter().chain(&self.others).cloned().collect(),
            cluster: self.cluster,
            namespaces: self.namespaces.unwrap_or("jobs-*,other").parse().unwrap(),
            images: self.images.unwrap_or("registry.example.com/team/*").parse().unwrap(),
            templates: Templates::load(folder.path()).unwrap(),
            webhooks: self.webhooks.unwrap_or_default(),
            max_body_bytes: 65_536,
            request_timeout: self.request_timeout.unwrap_or(Duration::from_secs(30)),
            call_deadline: self.call_deadline.unwrap_or(Duration::from_secs(10)),
            delivery: self.delivery.unwrap_or(Delivery::live()),
            lifecycle: lifecycle.clone(),
            followed: Followed::default(),
            ledger: self.ledger.unwrap_or_else(|| folder_ledger(&folder)),
        };
        let mut guarded = jobs::routes(jobs, &access);
        if let Some(trail) = self.trail {
            guarded = guarded.and(trail.routes(&access));
        }
        let max = self.max_in_flight.map(str::to_owned);
        let config = Config::from_env(|name| max.clone().filter(|_| name == "MAX_IN_FLIGHT")).unwrap();
        let metrics = Metrics::new(None, false).unwrap();
        let app = App::around(vec![], guarded, &config, lifecycle, metrics).unwrap();
        Service { app, _folder: folder }
    }
}

/// What `/metrics` says of watching a cluster, and the figures that are behind it.
pub(crate) fn figures(cluster: &Cluster) -> (Metrics, Figures) {
    let metrics = Metrics::new(None, false).unwrap();
    let figures = Figures::of(&metrics, std::iter::once(cluster.name())).unwrap().remove(0);
    (metrics, figures)
}

/// What comes of it in the end, however busy the disk: a store that took longer than the service waits for it says to try
/// again, and whatever writes there may be done again.
pub(crate) async fn patiently<T, E: std::fmt::Display>(act: impl AsyncFn() -> Result<T, E>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match act().await {
            Ok(done) => return done,
            Err(error) => {
                let is_late = error.to_string().contains("the state store cannot be reached");
                assert!(is_late && std::time::Instant::now() < deadline, "{error}");
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Records in a file of the test's own.
fn folder_ledger(folder: &Folder) -> Ledger {
    ledger(&format!("sqlite://{}", folder.path().join("state.db").display()), Arc::new(SystemTime::now))
}

/// Records wherever `url` says, kept for an hour.
pub(crate) fn ledger(url: &str, clock: math_service::auth::Clock) -> Ledger {
    let get = |name: &str| (name == "STATE_URL").then(|| url.to_owned());
    let state = State::of(&Config::from_env(get).unwrap(), Target::Container);
    Ledger::new(state, Duration::from_secs(3600), clock)
}

/// A service before a Kubernetes that expects these requests.
pub(crate) fn expecting(script: Vec<(&'static str, Answer)>) -> (Service, Kubernetes) {
    let (kubernetes, cluster) = Kubernetes::expecting(script);
    (Setup { cluster: Some(cluster), ..Setup::default() }.start(), kubernetes)
}

impl Service {
    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let (parts, body) = self.app.serve(request.body(body).unwrap(), None).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// As somebody who may do everything.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        more: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Reply {
        let headers = [&[("authorization", "Bearer all")], more].concat();
        self.call(method, path, &headers, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, &[], None).await
    }
}
