//! Several clusters: which there are, and the routes below each.
//!
//! Each has a client, connections, credentials and a token of its own, so one that is away slows no other.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use axum::{
    extract::{Path, Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use serde::Serialize;
use tower::Service;
use utoipa::ToSchema;

use super::{CLUSTER, CLUSTERS, Jobs, docs::Reads, namespaces::uncached};
use crate::problem::Problem;

/// A cluster that Jobs may run in.
#[derive(Debug, Serialize, ToSchema)]
pub struct KnownCluster {
    /// Its name, as paths name it.
    #[schema(example = "math")]
    pub name: String,
    /// The AWS region that it is in.
    #[schema(example = "eu-west-2")]
    pub region: String,
    /// Whether it is the one that paths without a cluster are about.
    pub default: bool,
    /// What this process knows of it without asking: `ok`, `unavailable`, or `unknown` until something was asked of it.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// All of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClusterList {
    /// The default one first.
    pub items: Vec<KnownCluster>,
}

/// The clusters that Jobs may run in. Nothing is asked of them, so the answer waits for none.
#[utoipa::path(get, path = CLUSTERS, operation_id = "list_clusters", tag = "jobs",
    responses((status = 200, description = "All of them", body = ClusterList), Reads),
    security(("token" = ["jobs:read"])))]
pub(super) async fn list(State(jobs): State<Arc<Jobs>>) -> Result<Response, Problem> {
    let default = jobs.cluster()?.name();
    let items = jobs.clusters.iter().map(|cluster| KnownCluster {
        name: cluster.name().to_owned(),
        region: cluster.region().to_owned(),
        default: cluster.name() == default,
        status: cluster.known(),
    });
    Ok(uncached(StatusCode::OK, ClusterList { items: items.collect() }))
}

/// The Jobs of each cluster.
pub(super) struct Everywhere {
    pub(super) default: Arc<Jobs>,
    by_name: BTreeMap<String, Arc<Jobs>>,
}

impl Everywhere {
    pub(super) fn new(jobs: Jobs) -> Self {
        let on_each = jobs.clusters.iter().map(|cluster| {
            let there = Jobs { cluster: Some(cluster.clone()), ..jobs.clone() };
            (cluster.name().to_owned(), Arc::new(there))
        });
        Self { by_name: on_each.collect(), default: Arc::new(jobs) }
    }

    /// `answer` for the cluster that the path names.
    pub(super) fn by_path(&self, answer: MethodRouter<Arc<Jobs>>, method: &Method) -> MethodRouter {
        let on_each =
            self.by_name.iter().map(|(name, jobs)| (name.clone(), answer.clone().with_state(jobs.clone())));
        let answers: Arc<BTreeMap<String, MethodRouter>> = Arc::new(on_each.collect());
        let default = self.default.clone();
        // The table has methods of HTTP's own only.
        let method = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        on(method, async move |Path(path): Path<BTreeMap<String, String>>, request: Request| {
            let name = path.get(CLUSTER).map_or("", String::as_str);
            match answers.get(name) {
                Some(answer) => answered(answer.clone(), request).await,
                None => unknown(&default, name).into_response(),
            }
        })
    }
}

async fn answered(mut answer: MethodRouter, request: Request) -> Response {
    let answer: Result<Response, Infallible> = answer.call(request).await;
    match answer {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

fn unknown(jobs: &Jobs, name: &str) -> Problem {
    match jobs.cluster() {
        Ok(_) => Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no cluster {name} here: GET {CLUSTERS} lists them"),
        ),
        Err(none) => none,
    }
}
