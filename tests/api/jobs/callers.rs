//! Every route, and every kind of caller.

use math_service::{
    auth::scope::Scope,
    jobs::{
        self, BATCH, CLUSTERS, CREATE_JOB, CREATE_NAMESPACE, DEAD_LETTERS, DELETE_JOB, DELETE_NAMESPACE,
        EVENTS, JOB, JOB_HISTORY, JOB_STATUS, JOBS, LOGS, NAMESPACE, NAMESPACES, TEMPLATE, TEMPLATES,
    },
};
use serde_json::{Value, json};

use super::{Answer, Asked, IMAGE, Kubernetes, Service, Setup};
use crate::{
    access::NOW,
    auth::{AUDIENCE, Signer, TestIssuer},
};

/// A request that a route takes. A route that is not here fails the tests below.
fn sample(method: &str, route: &str, namespace: &str) -> (String, Option<Value>) {
    let path = route.replace("{namespace}", namespace).replace("{name}", "a").replace("{cluster}", "math");
    // What a route takes does not depend on the cluster.
    let alone = route.replacen("/clusters/{cluster}", "", 1);
    let job = json!({"image": IMAGE, "name": "a"});
    let pod = json!({"containers": [{"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": 1, "memory": "1Mi"}}}]});
    let manifest = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": pod}}});
    match (method, alone.as_str()) {
        ("POST", NAMESPACES) => (path, Some(json!({"name": namespace}))),
        ("POST", JOBS) => (path, Some(job)),
        ("POST", BATCH) => (path, Some(json!({"items": [job]}))),
        (
            "GET",
            CLUSTERS | DEAD_LETTERS | TEMPLATES | TEMPLATE | NAMESPACES | NAMESPACE | JOBS | JOB | LOGS
            | EVENTS | JOB_HISTORY,
        )
        | ("DELETE", NAMESPACE | JOB) => (path, None),
        ("POST", CREATE_JOB) => (path, Some(json!({"namespace": namespace, "job_manifest": manifest}))),
        ("POST", CREATE_NAMESPACE) => (path, Some(json!({"namespace": namespace}))),
        ("GET", JOB_STATUS) | ("DELETE", DELETE_JOB) => {
            (format!("{path}?namespace={namespace}&job_name=a"), None)
        }
        ("DELETE", DELETE_NAMESPACE) => (path, Some(json!({"namespace": namespace}))),
        (method, route) => panic!("say here what {method} {route} takes"),
    }
}

/// A Kubernetes that has everything, and lets everything happen.
fn agreeable(asked: &Asked) -> Answer {
    let object = json!({"metadata": {"name": "a", "uid": "u-1", "labels": {"app.kubernetes.io/managed-by": "math-service"}}});
    // One that has ended: whoever follows it gets an answer that ends.
    let mut ended = object.clone();
    ended["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
    match asked.method.as_str() {
        _ if asked.path.contains("metadata.name") => {
            Answer::Json(200, json!({"metadata": {"resourceVersion": "1"}, "items": [ended]}))
        }
        "POST" => Answer::Json(201, asked.body.clone()),
        _ if asked.path.contains('?') || asked.path.ends_with('s') => Answer::Json(200, json!({"items": []})),
        _ => Answer::Json(200, object),
    }
}

fn agreeing() -> (Service, Kubernetes) {
    let (kubernetes, cluster) = Kubernetes::with(agreeable);
    (Setup { cluster: Some(cluster), ..Setup::default() }.start(), kubernetes)
}

async fn status(
    service: &Service,
    (path, body): &(String, Option<Value>),
    method: &str,
    authorization: &str,
) -> u16 {
    let headers = [("authorization", authorization)];
    let headers = &headers[usize::from(authorization.is_empty())..];
    service.call(method, path, headers, body.as_ref()).await.status.as_u16()
}

#[tokio::test]
async fn every_route_takes_whoever_has_its_scope_and_nobody_else() {
    let signer = Signer::new("ES256", "1");
    let issuer = TestIssuer::start(&[&signer]).await;
    let all = "jobs:read jobs:write namespaces:write";
    let signed = |expires: u64, scope: &str| {
        let claims =
            json!({"iss": issuer.url, "sub": "alice", "aud": AUDIENCE, "exp": expires, "scope": scope});
        format!("Bearer {}", signer.token(&claims))
    };
    let (kubernetes, cluster) = Kubernetes::with(agreeable);
    let service = Setup { cluster: Some(cluster), issuer: Some(&issuer), ..Setup::default() }.start();
    let forged = Signer::new("ES256", "1")
        .token(&json!({"iss": issuer.url, "sub": "alice", "aud": AUDIENCE, "exp": NOW + 60, "scope": all}));
    let strangers = [
        String::new(),
        "Bearer".to_owned(),
        "Basic YWxsOng=".to_owned(),
        "Bearer a b".to_owned(),
        "Bearer unknown".to_owned(),
        "Bearer expires".to_owned(),
        "Bearer a.b.c".to_owned(),
        format!("Bearer {forged}"),
        signed(NOW - 3600, all),
    ];
    for operation in jobs::operations() {
        let (method, route) = (operation.method.as_str(), operation.path);
        let sample = sample(method, route, "jobs-a");
        for stranger in &strangers {
            assert_eq!(
                status(&service, &sample, method, stranger).await,
                401,
                "{method} {route} {stranger:?}"
            );
        }
        let holders = [
            ("Bearer reads".to_owned(), vec![Scope::JobsRead]),
            ("Bearer writes".to_owned(), vec![Scope::JobsWrite]),
            ("Bearer names".to_owned(), vec![Scope::NamespacesWrite]),
            (signed(NOW + 60, "jobs:read"), vec![Scope::JobsRead]),
            (signed(NOW + 60, "jobs:write openid"), vec![Scope::JobsWrite]),
            (signed(NOW + 60, "namespaces:write"), vec![Scope::NamespacesWrite]),
            (signed(NOW + 60, "jobs jobs:* admin"), vec![]),
            (signed(NOW + 60, all), Scope::ALL.to_vec()),
            ("Bearer all".to_owned(), Scope::ALL.to_vec()),
        ];
        for (holder, scopes) in holders {
            let before = kubernetes.asked().len();
            let status = status(&service, &sample, method, &holder).await;
            let was_asked = kubernetes.asked().len() > before;
            let may = scopes.contains(&operation.scope);
            assert_eq!((200..300).contains(&status), may, "{method} {route} {scopes:?}: {status}");
            assert!(may || status == 403, "{method} {route} {scopes:?}: {status}");
            // Lists of clusters and templates ask none, and history is the service's own.
            let asks = may
                && ![CLUSTERS, TEMPLATES, TEMPLATE].contains(&route)
                && !route.ends_with("/history")
                && !route.ends_with(DEAD_LETTERS.trim_start_matches("/api/v1"));
            assert_eq!(was_asked, asks, "{method} {route} {scopes:?}: what is refused reaches no cluster");
        }
    }
}

#[tokio::test]
async fn no_route_reaches_a_namespace_that_is_not_open() {
    let (service, kubernetes) = agreeing();
    for operation in jobs::operations() {
        let (method, route) = (operation.method.as_str(), operation.path);
        if method == "GET" && !route.contains("{namespace}") && route != JOB_STATUS {
            continue;
        }
        for (namespace, expected) in [
            ("elsewhere", 403),
            ("kube-system", 403),
            ("default", 403),
            ("otherr", 403),
            ("Jobs-a", 422),
            ("jobs_a", 422),
            ("jobs-", 422),
        ] {
            let sample = sample(method, route, namespace);
            let status = status(&service, &sample, method, "Bearer all").await;
            assert_eq!(status, expected, "{method} {route} {namespace}");
        }
    }
    assert_eq!(kubernetes.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn without_a_cluster_every_route_says_which_setting_is_missing() {
    let service = Setup::default().start();
    for operation in jobs::operations() {
        let (path, body) = sample(operation.method.as_str(), operation.path, "jobs-a");
        let reply = service.send(operation.method.as_str(), &path, &[], body.as_ref()).await;
        assert_eq!(reply.status, 403, "{path}");
        assert!(reply.text().contains("neither EKS_CLUSTER_NAME nor EKS_CLUSTERS"), "{}", reply.text());
    }
}

#[tokio::test]
async fn where_no_namespace_is_open_the_answer_says_which_setting_is_missing() {
    let (_, cluster) = Kubernetes::with(agreeable);
    let service = Setup { cluster: Some(cluster), namespaces: Some(""), ..Setup::default() }.start();
    let reply = service.get("/api/v1/namespaces/jobs-a/jobs").await;
    assert_eq!(reply.status, 403);
    assert!(reply.text().contains("JOBS_NAMESPACES is not set"), "{}", reply.text());
}

#[tokio::test]
async fn the_openapi_document_names_the_scope_and_the_refusals_of_every_route() {
    let server = crate::support::Server::start(&[]).await;
    let document = crate::support::request("GET", "/openapi.json").send(server.address).await.json();
    for operation in jobs::operations() {
        let documented = &document["paths"][operation.path][operation.method.as_str().to_lowercase()];
        assert_eq!(
            documented["security"],
            json!([{"token": [operation.scope.name()]}]),
            "{}",
            operation.path
        );
        for code in ["400", "401", "403", "404", "422", "429", "502", "503", "504"] {
            assert!(documented["responses"][code].is_object(), "{} {code}", operation.path);
        }
        let takes_body = operation.method == "POST";
        assert_eq!(documented["requestBody"].is_object(), takes_body, "{}", operation.path);
        assert!(
            !takes_body || ["409", "413", "415"].iter().all(|code| documented["responses"][code].is_object())
        );
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
}
