//! The only wiring: a checked [`Config`] becomes the service that both targets call.

use std::{net::IpAddr, num::NonZero, sync::Arc, time::SystemTime};

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

#[cfg(feature = "lab")]
use crate::simulation::{self, Simulations};
use crate::{
    addition::{self, Addition},
    auth::{
        Callers,
        access::{Access, Guarded, PREFIX, is_open},
        oidc::Oidc,
        tokens::Tokens,
        trail::Trail,
    },
    config::{Config, MOST_LOAD_SLOTS},
    fibonacci::{self, Fibonacci},
    http::{Routes, docs, edge::Edge, health, home, pages, path, shortcut::Shortcut, table::Table},
    lifecycle::Lifecycle,
    load::{self, Load},
    problem::Problem,
    store::{ledger::Ledger, state::State},
    targets::Target,
    telemetry::{
        metrics::{Metrics, RouteMetrics},
        writer::Writer,
    },
};
#[cfg(feature = "jobs")]
use crate::{
    config::EksCluster,
    jobs::{
        self, Followed, Jobs,
        cluster::{Cluster, Location},
        events::Delivery,
        figures::Figures,
        templates::Templates,
        watch::Watch,
        webhook::{Webhooks, outbox::Outbox, sender::Sender, signature::SecretFile},
    },
    lifecycle::Phase,
};

/// The service: every route, and what every request passes on its way to one.
#[derive(Clone)]
pub struct App(Arc<Shared>);

struct Shared {
    shortcuts: Vec<Shortcut>,
    table: Table,
    unmatched: RouteMetrics,
    base_path: String,
    edge: Edge,
    beside: Beside,
}

/// A mistake in the service's own routes or metrics, which any test shows.
pub type WiringError = Box<dyn std::error::Error + Send + Sync>;

impl App {
    /// Every route that `target` serves. `logs` is where log lines go, for the metrics about them.
    ///
    /// # Errors
    /// When two routes or two metrics collide, or a route that needs a guard has none: a programming mistake. When
    /// `AUTH_TOKENS_FILE`, `JOBS_TEMPLATES_DIR` or `JOBS_WEBHOOK_SECRET_FILE` cannot be used.
    pub fn new(config: &Config, target: Target, logs: Option<Writer>) -> Result<Self, WiringError> {
        let processors = match target {
            // Asking takes twenty system calls.
            Target::Container => std::thread::available_parallelism().map_or(1, NonZero::get),
            // One event at a time.
            Target::Lambda => 1,
        };
        let lifecycle = Lifecycle::default();
        let sign_in = sign_in(config);
        let state = State::of(config, target);
        let ledger = Ledger::new(state.clone(), config.history_ttl, Arc::new(SystemTime::now));
        let trail = Trail::new(ledger.clone());
        let access = access(config, sign_in.clone(), logs.clone(), trail.clone())?;
        let metrics = Metrics::new(logs, config.emf_metrics && target == Target::Lambda)?;
        let addition = Addition { delay: config.add_delay, max_body_bytes: config.max_body_bytes };
        let mut routes = addition::routes(addition);
        let load = Load {
            is_enabled: config.load_enabled,
            max_seconds: config.load_max_seconds,
            slots: config.load_slots.unwrap_or(processors.min(MOST_LOAD_SLOTS)),
        };
        routes.extend(load::routes(load, &metrics)?);
        let has_lab = cfg!(feature = "lab") && config.lab_slots > 0;
        routes.extend(home::routes(home::Here { target, has_load: config.load_enabled, has_lab }));
        routes.extend(fibonacci::routes(Fibonacci {
            max_index: config.fibonacci_max_index,
            callers: Callers { oidc: sign_in, session_ttl: config.session_ttl },
            state: state.clone(),
            slots: Arc::new(Semaphore::new(processors)),
        }));
        let jobs = JobsApi::of(config, target, &lifecycle, ledger)?;
        let beside = jobs.beside(config, &metrics)?;
        routes.extend(health::routes(target, lifecycle.clone(), state, jobs.probes()));
        routes.extend(docs::routes());
        routes.extend(pages::routes());
        #[cfg(feature = "lab")]
        routes.extend(simulation::routes(
            Simulations { slots: config.lab_slots, max_body_bytes: config.max_body_bytes, target },
            &metrics,
        )?);
        if target == Target::Container {
            routes.extend(health::metrics_routes(metrics.clone()));
        }
        let guarded = move || jobs.routes(&access).and(trail.routes(&access));
        let shortcuts = vec![addition::shortcut(addition)];
        let app = Self::assemble(routes, guarded, shortcuts, beside, config, lifecycle, metrics)?;
        if target == Target::Container {
            app.make_table()?;
        }
        Ok(app)
    }

    /// Any routes, served as this service serves its own: tests bring handlers that misbehave.
    ///
    /// # Errors
    /// As [`App::new`].
    pub fn around(
        open: Routes,
        guarded: Guarded,
        config: &Config,
        lifecycle: Lifecycle,
        metrics: Metrics,
    ) -> Result<Self, WiringError> {
        let app =
            Self::assemble(open, || guarded, Vec::new(), Beside::default(), config, lifecycle, metrics)?;
        app.make_table()?;
        Ok(app)
    }

    /// Makes the table of routes, which a request would else make that needs it.
    ///
    /// # Errors
    /// When two routes collide, or a shortcut is for none: a programming mistake.
    pub fn make_table(&self) -> Result<(), WiringError> {
        let Shared { shortcuts, table, .. } = &*self.0;
        table.make()?;
        let lost = shortcuts
            .iter()
            .map(|shortcut| shortcut.metrics.name())
            .find(|path| table.metrics(path).is_none());
        lost.map_or(Ok(()), |path| Err(format!("there is no route {path}").into()))
    }

    fn assemble(
        mut open: Routes,
        guarded: impl FnOnce() -> Guarded + Send + 'static,
        shortcuts: Vec<Shortcut>,
        beside: Beside,
        config: &Config,
        lifecycle: Lifecycle,
        metrics: Metrics,
    ) -> Result<Self, WiringError> {
        if let Some((path, _)) = open.iter().find(|(path, _)| path.starts_with(PREFIX) && !is_open(path)) {
            return Err(format!("{path} needs a guard").into());
        }
        let table = Table::new(|| {
            open.extend(guarded().into_routes());
            open
        });
        let edge = Edge {
            max_in_flight: config.max_in_flight,
            request_timeout: config.request_timeout,
            cors: (!config.cors_allowed_origins.is_empty()).then(|| cors(config)),
            lifecycle,
            metrics,
        };
        let unmatched = RouteMetrics::new("unmatched");
        let base_path = config.base_path.clone();
        Ok(Self(Arc::new(Shared { shortcuts, table, unmatched, base_path, edge, beside })))
    }

    /// What goes on beside the requests, in a process that lives as long as it likes; ends with the beginning of the drain.
    pub async fn run_beside(&self) {
        let Shared { beside, edge, .. } = &*self.0;
        beside.run(&edge.lifecycle).await;
    }

    /// The same in one go, for a process that runs only when it is called: does what has become due, in its own time.
    pub async fn catch_up(&self) {
        self.0.beside.catch_up().await;
    }

    /// The phase that this app's readiness follows.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.0.edge.lifecycle
    }

    /// What is counted, for what only its target can count.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.edge.metrics
    }

    /// Answers one request. Where it came from is the target's to know.
    pub fn serve(
        &self,
        mut request: Request,
        client: Option<IpAddr>,
    ) -> impl Future<Output = Response> + Send + '_ {
        let Shared { shortcuts, table, unmatched, base_path, edge, .. } = &*self.0;
        path::normalise(&mut request, base_path);
        let shortcut = shortcuts.iter().find(|shortcut| shortcut.takes(&request));
        let route = match shortcut {
            Some(shortcut) => &shortcut.metrics,
            None => table.metrics(request.uri().path()).unwrap_or(unmatched),
        };
        edge.answer(route, request, client, move |request| match shortcut {
            Some(shortcut) => shortcut.call(request),
            None => table.call(request),
        })
    }

    /// Answers a request that its target could not read to its end, counted and marked like any other.
    pub async fn refuse(&self, request: Request, client: Option<IpAddr>, problem: Problem) -> Response {
        let Shared { unmatched, edge, .. } = &*self.0;
        edge.answer(unmatched, request, client, |_| Box::pin(async { problem.into_response() })).await
    }
}

/// The Jobs API as configured: its routes, and the clusters' part of `/health`.
#[cfg(feature = "jobs")]
struct JobsApi(Jobs);

#[cfg(feature = "jobs")]
impl JobsApi {
    /// # Errors
    /// When a template, or the secret of webhooks, cannot be used.
    fn of(
        config: &Config,
        target: Target,
        lifecycle: &Lifecycle,
        ledger: Ledger,
    ) -> Result<Self, WiringError> {
        let templates =
            config.jobs_templates_dir.as_deref().map(Templates::load).transpose()?.unwrap_or_default();
        let secret = config.jobs_webhook_secret_file.as_deref().map(SecretFile::open).transpose()?;
        let webhooks = Webhooks { hosts: config.jobs_webhook_hosts.clone(), secret };
        let at = |cluster: &EksCluster| {
            let EksCluster { name, region } = cluster.clone();
            Cluster::new(Location { name, region, eks_endpoint: config.aws.eks_endpoint.clone() })
        };
        let clusters: Vec<_> = config.eks_clusters.iter().map(at).collect();
        Ok(Self(Jobs {
            cluster: clusters.first().cloned(),
            clusters,
            namespaces: config.jobs_namespaces.clone(),
            images: config.jobs_images.clone(),
            templates,
            webhooks,
            max_body_bytes: config.max_body_bytes,
            request_timeout: config.request_timeout,
            call_deadline: jobs::call_deadline(config.request_timeout),
            delivery: if target.streams() {
                Delivery::live()
            } else {
                Delivery::whole(config.request_timeout)
            },
            lifecycle: lifecycle.clone(),
            followed: Followed::default(),
            ledger,
        }))
    }

    fn beside(&self, config: &Config, metrics: &Metrics) -> Result<Beside, WiringError> {
        let host = config.host_name.as_deref().unwrap_or("math-service");
        let outbox = |cluster: &Cluster| {
            self.0.webhooks.secret.is_some().then(|| Outbox {
                cluster: cluster.name().to_owned(),
                ledger: self.0.ledger.clone(),
                webhooks: self.0.webhooks.clone(),
                sender: Sender::default(),
            })
        };
        let clusters = &self.0.clusters;
        let figures = Figures::of(metrics, clusters.iter().map(Cluster::name))?;
        let watch = |(cluster, figures): (&Cluster, Figures)| {
            let outbox = outbox(cluster);
            Watch {
                cluster: cluster.clone(),
                ledger: self.0.ledger.clone(),
                lease_namespace: config.jobs_lease_namespace.clone(),
                // Another process on the same machine is another replica.
                holder: format!("{host}_{:016x}", fastrand::u64(..)),
                follow: outbox.as_ref().map(Outbox::follow),
                outbox,
                figures,
            }
        };
        Ok(Beside(clusters.iter().zip(figures).map(watch).collect()))
    }

    fn probes(&self) -> Vec<health::ClusterProbe> {
        self.0.clusters.iter().cloned().map(Cluster::probe).collect()
    }

    fn routes(self, access: &Access) -> Guarded {
        jobs::routes(self.0, access)
    }
}

/// What goes on beside the requests: each cluster's Jobs are watched.
#[cfg(feature = "jobs")]
#[derive(Default)]
struct Beside(Vec<Watch>);

#[cfg(feature = "jobs")]
impl Beside {
    async fn run(&self, lifecycle: &Lifecycle) {
        let runs = self.0.iter().map(|watch| watch.run(lifecycle.reached(Phase::Draining)));
        futures_util::future::join_all(runs).await;
    }

    async fn catch_up(&self) {
        let all = self.0.iter().map(async |watch| {
            let outcome = tokio::time::timeout(CATCH_UP, watch.catch_up()).await;
            let reason = match outcome {
                Ok(Ok(())) => return,
                Ok(Err(trouble)) => trouble.to_string(),
                Err(_) => "it takes too long".to_owned(),
            };
            tracing::warn!(
                cluster = watch.cluster.name(),
                reason,
                "Could not catch up with the history of Jobs"
            );
        });
        futures_util::future::join_all(all).await;
    }
}

/// Longest time to catch up: below the function's own, and what was done by then is done.
#[cfg(feature = "jobs")]
const CATCH_UP: std::time::Duration = std::time::Duration::from_secs(25);

/// Nothing does.
#[cfg(not(feature = "jobs"))]
#[derive(Default)]
struct Beside;

#[cfg(not(feature = "jobs"))]
impl Beside {
    async fn run(&self, _: &Lifecycle) {}

    async fn catch_up(&self) {}
}

/// This build has none.
#[cfg(not(feature = "jobs"))]
struct JobsApi;

#[cfg(not(feature = "jobs"))]
impl JobsApi {
    fn of(_: &Config, _: Target, _: &Lifecycle, _: Ledger) -> Result<Self, WiringError> {
        Ok(Self)
    }

    #[expect(clippy::unnecessary_wraps, reason = "as where there is something")]
    fn beside(&self, _: &Config, _: &Metrics) -> Result<Beside, WiringError> {
        Ok(Beside)
    }

    fn probes(&self) -> Vec<health::ClusterProbe> {
        Vec::new()
    }

    fn routes(self, access: &Access) -> Guarded {
        access.guard([])
    }
}

fn sign_in(config: &Config) -> Option<Oidc> {
    let sign_in = config.oidc_issuer.clone().zip(config.oidc_audience.clone());
    sign_in.map(|(issuer, audience)| Oidc::new(issuer, audience, Arc::new(SystemTime::now)))
}

/// Who may call the guarded routes.
fn access(
    config: &Config,
    oidc: Option<Oidc>,
    logs: Option<Writer>,
    trail: Trail,
) -> Result<Access, WiringError> {
    let tokens = config.auth_tokens_file.as_ref();
    let tokens = tokens.map(|path| Tokens::load(path, Arc::new(SystemTime::now))).transpose()?;
    Ok(Access::new(tokens, oidc, config.jobs_rate_limit, logs, Some(trail)))
}

/// What browsers on the configured origins may do: everything that curl may.
fn cors(config: &Config) -> CorsLayer {
    let origins = &config.cors_allowed_origins;
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    // What was asked for is named: a `*` would leave out `Authorization` (Fetch Standard, "CORS-preflight fetch").
    let headers = AllowHeaders::mirror_request();
    CorsLayer::new().allow_origin(allowed).allow_methods(Any).allow_headers(headers).expose_headers(Any)
}
