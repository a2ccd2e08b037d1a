//! The Jobs API in `/openapi.json`.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, Modify, OpenApi, ToSchema,
    openapi::{
        ContentBuilder, ObjectBuilder, Ref, RefOr, Required, ResponseBuilder,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem},
        response::Response,
        schema::Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    CLUSTER, alias, batch, clusters, events, in_cluster, job, logs, namespaces, past, templates, webhook,
};
use crate::problem::Document;

#[derive(OpenApi)]
#[openapi(
    paths(
        clusters::list,
        namespaces::create, namespaces::list, namespaces::show, namespaces::remove,
        job::create, job::list, job::show, job::remove, logs::show, events::follow, past::show,
        batch::create, templates::routes::list, templates::routes::show, webhook::routes::list,
        alias::create_job, alias::delete_job, alias::job_status, alias::create_namespace, alias::delete_namespace,
    ),
    tags((name = "jobs", description = "Kubernetes Jobs on EKS, where a cluster is configured")),
    modifiers(&Tokens, &BelowClusters),
)]
pub(crate) struct Api;

/// How to sign in.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of `AUTH_TOKENS_FILE` or of `OIDC_ISSUER` that has the scope"));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// The same routes below each cluster, documented by what is written about them once.
struct BelowClusters;

impl Modify for BelowClusters {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let paths = &mut document.paths.paths;
        let below: Vec<_> =
            paths.iter().filter_map(|(path, item)| Some((in_cluster(path)?, item.clone()))).collect();
        for (path, mut item) in below {
            for operation in methods(&mut item).into_iter().flatten() {
                name_cluster(operation);
            }
            paths.insert(path.to_owned(), item);
        }
    }
}

fn methods(item: &mut PathItem) -> [Option<&mut Operation>; 5] {
    [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete].map(Option::as_mut)
}

fn name_cluster(operation: &mut Operation) {
    // Ids are unique in a document.
    operation.operation_id = operation.operation_id.take().map(|id| format!("{id}_in_cluster"));
    operation.parameters.get_or_insert_default().insert(0, RefOr::T(cluster_parameter()));
}

fn cluster_parameter() -> Parameter {
    let name = ObjectBuilder::new().schema_type(Type::String).max_length(Some(100));
    ParameterBuilder::new()
        .name(CLUSTER)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("One of those that `GET /api/v1/clusters` lists"))
        .schema(Some(name.pattern(Some("^[0-9A-Za-z][A-Za-z0-9_-]*$"))))
        .build()
}

/// What every route may answer.
const ALWAYS: [(&str, &str); 9] = [
    ("400", "A malformed Host header"),
    ("401", "No token, or one that is not accepted"),
    (
        "403",
        "The token lacks the scope, JOBS_NAMESPACES does not open the namespace, nobody can sign in, no cluster is configured, or this service's role in the cluster lacks a permission",
    ),
    ("404", "There is no such thing"),
    ("422", "Something that is named is not acceptable; each field is named"),
    ("429", "The caller's rate limit, or the cluster is too busy; `Retry-After` says when to come back"),
    ("502", "The cluster cannot be reached, or not trusted, or does not know this service"),
    (
        "503",
        "Too many requests at once, the issuer's keys or the state store cannot be had, the audit line cannot be written, or shutting down",
    ),
    ("504", "The cluster did not answer in time"),
];

/// What a body adds.
const BODY: [(&str, &str); 3] = [
    ("400", "The body is not JSON, or a malformed Host header"),
    ("413", "The body is larger than MAX_BODY_BYTES"),
    ("415", "The body is not declared as JSON"),
];

/// Errors of routes that read.
pub(super) struct Reads;

/// Errors of routes that create.
pub(super) struct Writes;

/// And of those that create many.
pub(super) struct WritesMany;

/// Errors of routes that delete.
pub(super) struct Deletes;

/// And of those that may have a body.
pub(super) struct DeletesInBody;

impl IntoResponses for Reads {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems([&ALWAYS[..], &[("410", "`continue` has expired: begin the list again")]])
    }
}

impl IntoResponses for Writes {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let conflict = ("409", "There is one of this name already, or the namespace is being deleted");
        problems([&ALWAYS[..], &BODY, &[conflict]])
    }
}

impl IntoResponses for WritesMany {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems([&[("413", "The body is larger than 1 MiB")][..]])
    }
}

impl IntoResponses for Deletes {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let conflict = ("409", "It was changed or replaced meanwhile");
        let precondition = ("412", "The one of this name is another than If-Match names");
        problems([&ALWAYS[..], &[conflict, precondition]])
    }
}

impl IntoResponses for DeletesInBody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems([&BODY[..]])
    }
}

/// The later of two that have the same code counts.
fn problems<'a>(
    lists: impl IntoIterator<Item = &'a [(&'static str, &'static str)]>,
) -> BTreeMap<String, RefOr<Response>> {
    let document = || ContentBuilder::new().schema(Some(Ref::from_schema_name(Document::name()))).build();
    let response = |description: &str| {
        let response = ResponseBuilder::new().description(description);
        RefOr::T(response.content("application/problem+json", document()).build())
    };
    let all = lists.into_iter().flatten();
    all.map(|(code, description)| ((*code).to_owned(), response(description))).collect()
}
