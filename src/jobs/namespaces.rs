//! Namespaces: those that `JOBS_NAMESPACES` opens, and of them only this service's own to delete.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Jobs, NAMESPACE, NAMESPACES,
    api::{Call, Resource, Verb},
    create::{Created, Wanted, marks},
    docs::{Deletes, Reads, Writes},
    manifest::{Fields, MANAGED_BY},
    names,
    pointer::{Pointer, escaped},
    policy::OWN_PREFIX,
    request::{InPath, Query, check_match, etag},
    status::{is_managed, labels, text},
};
use crate::{
    auth::{access::Principal, audit::Audit},
    http::json::Answer,
    problem::{FieldError, Problem},
};

/// What the Pod Security labels begin with.
const POD_SECURITY: &str = "pod-security.kubernetes.io/";

/// What creates a namespace.
#[derive(Debug, Deserialize, ToSchema)]
pub struct NewNamespace {
    /// Its name, one that `JOBS_NAMESPACES` opens.
    #[schema(example = "jobs-team", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
    pub name: String,
    /// Labels of its own.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// A namespace.
#[derive(Debug, Serialize, ToSchema)]
pub struct Namespace {
    /// Its name.
    #[schema(example = "jobs-team")]
    pub name: String,
    /// Which of all namespaces that ever had this name; also the `ETag` of the answer about one namespace.
    pub uid: String,
    /// `active`, or `terminating` while it is being deleted.
    #[schema(example = "active")]
    pub status: String,
    /// When it was created.
    #[schema(example = "2026-01-31T12:00:00Z")]
    pub creation_timestamp: Option<String>,
    /// Whether this service created it, and may delete it.
    pub managed: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Some namespaces.
#[derive(Debug, Serialize, ToSchema)]
pub struct NamespaceList {
    /// Those that `JOBS_NAMESPACES` opens, among the next `limit` of the cluster's.
    pub items: Vec<Namespace>,
    /// What to ask for the next ones with; absent at the end.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What is on its way out.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// Its name.
    pub name: String,
    /// Where it was, if it was in a namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Which of that name it was.
    pub uid: String,
    /// `deleting`: Kubernetes goes on by itself.
    #[schema(example = "deleting")]
    pub status: &'static str,
}

/// Creates a namespace whose pods must meet the Pod Security Standard "restricted".
#[utoipa::path(post, path = NAMESPACES, operation_id = "create_namespace", tag = "jobs", request_body = NewNamespace,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters but commas: as long as the namespace exists, the same key and body get the same answer, and make no other")),
    responses((status = 201, description = "Created, or created before with this Idempotency-Key (`Idempotency-Replayed: true`)", body = Namespace), Writes),
    security(("token" = ["namespaces:write"])))]
pub(super) async fn create(
    State(jobs): State<Arc<Jobs>>,
    who: Principal,
    audit: Audit,
    request: Request,
) -> Result<Response, Problem> {
    jobs.new_namespace(StatusCode::CREATED, &who, &audit, request, Ok).await
}

/// The namespaces that this service may touch.
#[utoipa::path(get, path = NAMESPACES, operation_id = "list_namespaces", tag = "jobs",
    params(
        ("limit" = Option<u32>, Query, description = "How many of the cluster's namespaces to look at, 1 to 500; 100 when not given", minimum = 1, maximum = 500),
        ("continue" = Option<String>, Query, description = "What the answer before said"),
    ),
    responses((status = 200, description = "Some of them", body = NamespaceList), Reads),
    security(("token" = ["jobs:read"])))]
pub(super) async fn list(State(jobs): State<Arc<Jobs>>, uri: Uri) -> Result<Response, Problem> {
    jobs.cluster()?;
    let query = Query::of(&uri);
    let call = Call::new(Verb::List, Resource::Namespaces)
        .with("limit", Some(query.limit()?))
        .with("continue", query.passed_on("continue")?);
    let list = jobs.ask(&call).await?;
    let items = list.get("items").and_then(Value::as_array).into_iter().flatten().map(of);
    let items = items.filter(|namespace| jobs.namespaces.permit(&namespace.name)).collect();
    Ok(uncached(StatusCode::OK, NamespaceList { items, next: next(&list) }))
}

/// One namespace.
#[utoipa::path(get, path = NAMESPACE, operation_id = "get_namespace", tag = "jobs",
    params(("namespace" = String, Path, description = "One that `JOBS_NAMESPACES` opens", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")),
    responses((status = 200, description = "The namespace", body = Namespace, headers(("ETag" = String, description = "Its UID"))), Reads),
    security(("token" = ["jobs:read"])))]
pub(super) async fn show(
    State(jobs): State<Arc<Jobs>>,
    InPath([name]): InPath<1>,
) -> Result<Response, Problem> {
    jobs.check_namespace(&name)?;
    let namespace = of(&jobs.ask(&Call::new(Verb::Get, Resource::Namespaces).named(&name)).await?);
    let etag = etag(&namespace.uid);
    let mut response = uncached(StatusCode::OK, namespace);
    response.headers_mut().extend(etag);
    Ok(response)
}

/// Deletes a namespace that this service created, with all that is in it.
#[utoipa::path(delete, path = NAMESPACE, operation_id = "delete_namespace", tag = "jobs",
    params(
        ("namespace" = String, Path, description = "One that this service created", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the one that is meant"),
    ),
    responses((status = 202, description = "Kubernetes is deleting it", body = Deleted), Deletes),
    security(("token" = ["namespaces:write"])))]
pub(super) async fn remove(
    State(jobs): State<Arc<Jobs>>,
    audit: Audit,
    InPath([name]): InPath<1>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let deleted = jobs.delete_namespace(&headers, &audit, &name).await?;
    Ok(uncached(StatusCode::ACCEPTED, deleted))
}

impl Jobs {
    /// Creates the namespace that a request asks for, whose body `as_here` brings into the form that it has on this route.
    pub(super) async fn new_namespace(
        &self,
        code: StatusCode,
        who: &Principal,
        audit: &Audit,
        request: Request,
        as_here: impl FnOnce(Value) -> Result<Value, Problem>,
    ) -> Result<Response, Problem> {
        let (head, body) = self.read(request).await?;
        let (created, namespace) = self.create_namespace(&head.headers, who, audit, &as_here(body)?).await?;
        Ok(created.answer(code, &namespace.uid, &namespace))
    }

    async fn create_namespace(
        &self,
        headers: &HeaderMap,
        who: &Principal,
        audit: &Audit,
        body: &Value,
    ) -> Result<(Created, Namespace), Problem> {
        audit.cluster(self.cluster()?.name());
        let wanted = read(body).map_err(Problem::invalid)?;
        audit.name(&wanted.name);
        self.check_namespace(&wanted.name)?;
        let marks = marks(headers, who, "namespaces", body)?;
        let mut object = manifest(&wanted);
        marks.put(&mut object);
        let wanted = Wanted {
            resource: Resource::Namespaces,
            namespace: None,
            name: &wanted.name,
            object: &object,
            marks: &marks,
            draft: None,
        };
        let created = self.create(&wanted).await?;
        let namespace = of(&created.as_created());
        audit.uid(&namespace.uid);
        Ok((created, namespace))
    }

    pub(super) async fn delete_namespace(
        &self,
        headers: &HeaderMap,
        audit: &Audit,
        name: &str,
    ) -> Result<Deleted, Problem> {
        audit.cluster(self.cluster()?.name());
        audit.name(name);
        self.check_namespace(name)?;
        let call = Call::new(Verb::Get, Resource::Namespaces).named(name);
        self.delete(headers, audit, call, "Background").await
    }

    /// Deletes what `found` finds, and nothing that took its name meanwhile, if it is this service's.
    pub(super) async fn delete(
        &self,
        headers: &HeaderMap,
        audit: &Audit,
        found: Call<'_>,
        propagation: &str,
    ) -> Result<Deleted, Problem> {
        let object = self.ask(&found).await?;
        let metadata = Pointer::root(&object).at("metadata");
        let uid = text(&metadata, "uid").unwrap_or_default();
        audit.uid(&uid);
        check_match(headers, &uid)?;
        if !is_managed(&Pointer::root(&object)) {
            let (label, ours) = MANAGED_BY;
            let detail = format!("it is not this service's to delete: it has no label {label}={ours}");
            return Err(Problem::new(StatusCode::FORBIDDEN, detail));
        }
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation, "preconditions": {"uid": uid},
        });
        self.ask(&Call { verb: Verb::Delete, ..found.clone() }.sending(&options)).await?;
        let name = found.name.unwrap_or_default().to_owned();
        Ok(Deleted { name, namespace: found.namespace.map(str::to_owned), uid, status: "deleting" })
    }
}

/// An answer that is old when it arrives.
pub(super) fn uncached(code: StatusCode, answer: impl Serialize) -> Response {
    (code, [(header::CACHE_CONTROL, "no-store")], Answer(answer)).into_response()
}

/// What continues a list.
pub(super) fn next(list: &Value) -> Option<String> {
    text(&Pointer::root(list).at("metadata"), "continue").filter(|token| !token.is_empty())
}

fn of(namespace: &Value) -> Namespace {
    let namespace = Pointer::root(namespace);
    let metadata = namespace.at("metadata");
    let phase = text(&namespace.at("status"), "phase").unwrap_or_else(|| "Active".to_owned());
    Namespace {
        name: text(&metadata, "name").unwrap_or_default(),
        uid: text(&metadata, "uid").unwrap_or_default(),
        status: phase.to_ascii_lowercase(),
        creation_timestamp: text(&metadata, "creationTimestamp"),
        managed: is_managed(&namespace),
        labels: labels(&metadata),
    }
}

fn read(body: &Value) -> Result<NewNamespace, Vec<FieldError>> {
    let Some(members) = body.as_object() else {
        return Err(vec![FieldError::body("must be a JSON object")]);
    };
    let mut fields = Fields { members, known: Vec::new(), errors: Vec::new() };
    let name: Option<String> = fields.read("name", "must be a string");
    let labels: Option<BTreeMap<String, String>> =
        fields.read("labels", "must be an object whose values are strings");
    match &name {
        None if fields.errors.is_empty() => fields.errors.push(FieldError::field("name", "is missing")),
        Some(name) if !names::is_label(name) => {
            fields.errors.push(FieldError::field("name", names::LABEL_RULE));
        }
        _ => {}
    }
    for label in labels.iter().flat_map(BTreeMap::keys) {
        if label == MANAGED_BY.0 || label.starts_with(POD_SECURITY) || label.starts_with(OWN_PREFIX) {
            let pointer = format!("labels/{}", escaped(label));
            fields.errors.push(FieldError::field(&pointer, "is for this service to set"));
        }
    }
    fields.finish(NewNamespace { name: name.unwrap_or_default(), labels })
}

fn manifest(wanted: &NewNamespace) -> Value {
    let mut labels = wanted.labels.clone().unwrap_or_default();
    let level =
        ["enforce", "warn", "audit"].map(|mode| (format!("{POD_SECURITY}{mode}"), "restricted".to_owned()));
    labels.extend(level);
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": wanted.name, "labels": labels}})
}
