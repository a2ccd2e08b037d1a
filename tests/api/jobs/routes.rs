//! Every route, and every way in which the cluster may answer or not.

use std::{sync::Arc, time::Duration};

use math_service::jobs::cluster::ClusterError;
use serde_json::{Value, json};

use super::{Answer, IMAGE, Kubernetes, Service, Setup, expecting, status};

const JOBS: &str = "/api/v1/namespaces/jobs-a/jobs";
const POST_JOB: &str =
    "POST /apis/batch/v1/namespaces/jobs-a/jobs?fieldManager=math-service&fieldValidation=Strict";
const GET_JOB: &str = "GET /apis/batch/v1/namespaces/jobs-a/jobs/a";
const DELETE_JOB: &str = "DELETE /apis/batch/v1/namespaces/jobs-a/jobs/a";
const LIST_MARKED: &str =
    "GET /apis/batch/v1/namespaces/jobs-a/jobs?labelSelector=math-service%2Fidempotency-key%3D";

fn job(managed: bool) -> Value {
    let labels = if managed { json!({"app.kubernetes.io/managed-by": "math-service"}) } else { json!({}) };
    json!({
        "metadata": {"name": "a", "namespace": "jobs-a", "uid": "u-1", "creationTimestamp": "2026-01-31T12:00:00Z", "labels": labels},
        "spec": {"selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}},
        "status": {"active": 1},
    })
}

fn short() -> Value {
    json!({"image": IMAGE, "name": "a"})
}

fn broken() -> ClusterError {
    ClusterError::Broken(Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
}

fn unreachable() -> ClusterError {
    ClusterError::Unreachable(Arc::new(std::io::Error::other("10.0.0.1 refused")))
}

fn details(status: Value, details: Value) -> Value {
    let mut status = status;
    status["details"] = details;
    status
}

// ---------------------------------------------------------------- Jobs

#[tokio::test]
async fn a_job_is_created_and_the_answer_says_which_it_is() {
    let (service, kubernetes) = expecting(vec![(POST_JOB, Answer::Json(201, job(true)))]);
    let reply = service.post(JOBS, &short()).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!((reply.header("etag"), reply.header("cache-control")), ("\"u-1\"", "no-store"));
    assert_eq!(reply.header("idempotency-replayed"), "");
    let answer = reply.json();
    assert_eq!(
        (&answer["name"], &answer["uid"], &answer["status"]),
        (&json!("a"), &json!("u-1"), &json!("pending"))
    );
    let sent = &kubernetes.asked()[0].body;
    assert_eq!(sent["metadata"]["namespace"], "jobs-a");
    assert_eq!(sent["metadata"]["labels"]["app.kubernetes.io/managed-by"], "math-service");
    assert_eq!(sent["spec"]["template"]["spec"]["containers"][0]["image"], IMAGE);
}

#[tokio::test]
async fn what_the_policy_refuses_reaches_no_cluster() {
    let (service, kubernetes) = expecting(vec![]);
    let reply = service.post(JOBS, &json!({"image": "evil/image", "cpu": "0"})).await;
    assert_eq!(reply.status, 422);
    let reply = service.post(JOBS, &json!({"image": "evil/image"})).await;
    assert_eq!(reply.json()["errors"][0]["pointer"], "/image");
    let mut manifest = json!({"job_manifest": {"spec": {"template": {"spec": {"hostNetwork": true}}}}});
    let reply = service.post(JOBS, &manifest).await;
    let pointers: Vec<_> =
        reply.json()["errors"].as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
    assert!(pointers.contains(&json!("/job_manifest/spec/template/spec/hostNetwork")), "{pointers:?}");
    manifest["job_manifest"]["kind"] = json!("Pod");
    assert_eq!(service.post(JOBS, &manifest).await.json()["errors"][0]["pointer"], "/job_manifest/kind");
    assert_eq!(kubernetes.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_large_is_refused() {
    let (service, kubernetes) = expecting(vec![]);
    let headers = [("content-type", "text/plain")];
    assert_eq!(service.send("POST", JOBS, &headers, None).await.status, 415);
    let headers = [("content-type", "application/json")];
    assert_eq!(service.send("POST", JOBS, &headers, None).await.status, 400);
    let large = json!({"image": "x".repeat(70_000)});
    assert_eq!(service.post(JOBS, &large).await.status, 413);
    assert_eq!(service.post(JOBS, &json!([])).await.status, 422);
    assert_eq!(kubernetes.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_job_is_shown_with_the_pods_that_are_its_own() {
    let pods = json!({"items": [{"metadata": {"name": "a-1"}, "status": {"phase": "Pending", "containerStatuses": [
        {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}}]});
    let (service, _) = expecting(vec![
        (GET_JOB, Answer::Json(200, job(true))),
        (
            "GET /api/v1/namespaces/jobs-a/pods?labelSelector=batch.kubernetes.io%2Fcontroller-uid%3Du-1&limit=100",
            Answer::Json(200, pods),
        ),
    ]);
    let reply = service.get(&format!("{JOBS}/a")).await;
    assert_eq!((reply.status.as_u16(), reply.header("etag")), (200, "\"u-1\""));
    let answer = reply.json();
    assert_eq!((&answer["status"], &answer["reason"]), (&json!("pending"), &json!("ImagePullBackOff")));
    assert_eq!(answer["pods"][0]["name"], "a-1");
}

#[tokio::test]
async fn jobs_are_listed_page_by_page() {
    let list = json!({"metadata": {"continue": "next/page"}, "items": [job(true), job(false)]});
    let (service, _) = expecting(vec![
        (
            "GET /apis/batch/v1/namespaces/jobs-a/jobs?limit=2&labelSelector=team+in+%28a%29",
            Answer::Json(200, list),
        ),
        (
            "GET /apis/batch/v1/namespaces/jobs-a/jobs?limit=100&continue=next%2Fpage",
            Answer::Json(200, json!({"items": null})),
        ),
    ]);
    let reply = service.get(&format!("{JOBS}?limit=2&label_selector=team%20in%20(a)")).await.json();
    assert_eq!((reply["items"].as_array().unwrap().len(), &reply["continue"]), (2, &json!("next/page")));
    assert_eq!((&reply["items"][0]["managed"], &reply["items"][1]["managed"]), (&json!(true), &json!(false)));
    assert_eq!(reply["items"][0].get("pods"), None);
    let reply = service.get(&format!("{JOBS}?continue=next%2Fpage")).await.json();
    assert_eq!(reply, json!({"items": []}));
}

#[tokio::test]
async fn a_query_that_cannot_be_meant_is_refused() {
    let (service, kubernetes) = expecting(vec![]);
    for (query, pointer) in [
        ("limit=0", "/limit"),
        ("limit=501", "/limit"),
        ("limit=%2B5", "/limit"),
        ("limit=", "/limit"),
        ("limit=1&limit=2", "/limit"),
        ("continue=a&continue=b", "/continue"),
    ] {
        let reply = service.get(&format!("{JOBS}?{query}")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["errors"][0]["pointer"].as_str()),
            (422, Some(pointer)),
            "{query}"
        );
    }
    let long = "a".repeat(5000);
    assert_eq!(service.get(&format!("{JOBS}?label_selector={long}")).await.status, 422);
    let reply = service.delete(&format!("{JOBS}/a?propagation=orphan")).await;
    assert_eq!(reply.json()["errors"][0]["pointer"], "/propagation");
    assert_eq!(kubernetes.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn a_job_is_deleted_and_only_the_one_that_was_looked_at() {
    let (service, kubernetes) = expecting(vec![
        (GET_JOB, Answer::Json(200, job(true))),
        (DELETE_JOB, Answer::Json(200, json!({"kind": "Status", "status": "Success"}))),
        (GET_JOB, Answer::Json(200, job(true))),
        (DELETE_JOB, Answer::Json(200, json!({}))),
    ]);
    let reply = service.delete(&format!("{JOBS}/a")).await;
    assert_eq!(reply.status, 202);
    assert_eq!(reply.json(), json!({"name": "a", "namespace": "jobs-a", "uid": "u-1", "status": "deleting"}));
    let options = &kubernetes.asked()[1].body;
    assert_eq!(
        (&options["propagationPolicy"], &options["preconditions"]["uid"]),
        (&json!("Background"), &json!("u-1"))
    );
    let headers = [("if-match", "\"u-1\"")];
    let reply = service.send("DELETE", &format!("{JOBS}/a?propagation=foreground"), &headers, None).await;
    assert_eq!(reply.status, 202);
    assert_eq!(kubernetes.asked()[3].body["propagationPolicy"], "Foreground");
}

#[tokio::test]
async fn what_is_not_ours_or_not_the_one_that_was_meant_is_not_deleted() {
    let (service, kubernetes) = expecting(vec![
        (GET_JOB, Answer::Json(200, job(false))),
        (GET_JOB, Answer::Json(200, job(true))),
        (
            "GET /api/v1/namespaces/jobs-a",
            Answer::Json(200, json!({"metadata": {"name": "jobs-a", "uid": "u-2"}})),
        ),
        (GET_JOB, Answer::Json(404, status(404, "NotFound", "jobs.batch \"a\" not found"))),
    ]);
    let reply = service.delete(&format!("{JOBS}/a")).await;
    assert_eq!(reply.status, 403);
    assert!(reply.text().contains("app.kubernetes.io/managed-by"), "{}", reply.text());
    let reply = service.send("DELETE", &format!("{JOBS}/a"), &[("if-match", "\"u-0\"")], None).await;
    assert_eq!(reply.status, 412);
    assert_eq!(service.delete("/api/v1/namespaces/jobs-a").await.status, 403);
    let reply = service.delete(&format!("{JOBS}/a")).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["detail"].as_str()),
        (404, Some("there is no Job a in the namespace jobs-a"))
    );
    assert!(kubernetes.calls().iter().all(|call| call.starts_with("GET")), "{:?}", kubernetes.calls());
}

// ---------------------------------------------------------------- namespaces

#[tokio::test]
async fn a_namespace_is_created_restricted_and_ours() {
    let created = json!({"metadata": {"name": "jobs-b", "uid": "u-2", "labels": {"app.kubernetes.io/managed-by": "math-service"}}, "status": {"phase": "Active"}});
    let (service, kubernetes) =
        expecting(vec![("POST /api/v1/namespaces?fieldManager", Answer::Json(201, created))]);
    let reply = service.post("/api/v1/namespaces", &json!({"name": "jobs-b", "labels": {"team": "b"}})).await;
    assert_eq!((reply.status.as_u16(), reply.header("etag")), (201, "\"u-2\""));
    assert_eq!((&reply.json()["status"], &reply.json()["managed"]), (&json!("active"), &json!(true)));
    let labels = &kubernetes.asked()[0].body["metadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(
        (&labels["app.kubernetes.io/managed-by"], &labels["team"]),
        (&json!("math-service"), &json!("b"))
    );
    for (body, pointer) in [
        (json!({}), "/name"),
        (json!({"name": "A"}), "/name"),
        (json!({"name": "jobs-b", "label": {}}), "/label"),
        (json!({"name": "jobs-b", "labels": {"a": 1}}), "/labels"),
        (
            json!({"name": "jobs-b", "labels": {"pod-security.kubernetes.io/enforce": "privileged"}}),
            "/labels/pod-security.kubernetes.io~1enforce",
        ),
        (
            json!({"name": "jobs-b", "labels": {"app.kubernetes.io/managed-by": "me"}}),
            "/labels/app.kubernetes.io~1managed-by",
        ),
    ] {
        let reply = service.post("/api/v1/namespaces", &body).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["errors"][0]["pointer"].as_str()),
            (422, Some(pointer)),
            "{body}"
        );
    }
}

#[tokio::test]
async fn namespaces_that_are_not_open_are_not_listed() {
    let named =
        |name: &str| json!({"metadata": {"name": name, "uid": name}, "status": {"phase": "Terminating"}});
    let list = json!({"metadata": {"continue": "more"}, "items": [named("kube-system"), named("jobs-a"), named("secret"), named("other")]});
    let (service, _) = expecting(vec![
        ("GET /api/v1/namespaces?limit=4", Answer::Json(200, list)),
        ("GET /api/v1/namespaces/other", Answer::Json(200, named("other"))),
    ]);
    let reply = service.get("/api/v1/namespaces?limit=4").await.json();
    let names: Vec<_> =
        reply["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!((names, &reply["continue"]), (vec!["jobs-a", "other"], &json!("more")));
    let one = service.get("/api/v1/namespaces/other").await;
    assert_eq!((one.header("etag"), &one.json()["status"]), ("\"other\"", &json!("terminating")));
}

#[tokio::test]
async fn a_namespace_of_ours_is_deleted() {
    let ours = json!({"metadata": {"name": "jobs-a", "uid": "u-2", "labels": {"app.kubernetes.io/managed-by": "math-service"}}});
    let (service, kubernetes) = expecting(vec![
        ("GET /api/v1/namespaces/jobs-a", Answer::Json(200, ours)),
        ("DELETE /api/v1/namespaces/jobs-a", Answer::Json(200, json!({}))),
    ]);
    let reply = service.delete("/api/v1/namespaces/jobs-a").await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()),
        (202, json!({"name": "jobs-a", "uid": "u-2", "status": "deleting"}))
    );
    assert_eq!(kubernetes.asked()[1].body["preconditions"]["uid"], "u-2");
}

// ---------------------------------------------------------------- the original's names

#[tokio::test]
async fn the_originals_names_reach_the_same_and_answer_as_it_did() {
    let ours = || json!({"metadata": {"name": "jobs-a", "uid": "u-2", "labels": {"app.kubernetes.io/managed-by": "math-service"}}});
    let (service, kubernetes) = expecting(vec![
        (POST_JOB, Answer::Json(201, job(true))),
        (GET_JOB, Answer::Json(200, job(true))),
        ("GET /api/v1/namespaces/jobs-a/pods", Answer::Json(200, json!({"items": []}))),
        (GET_JOB, Answer::Json(200, job(true))),
        (DELETE_JOB, Answer::Json(200, json!({}))),
        ("POST /api/v1/namespaces?", Answer::Json(201, ours())),
        ("GET /api/v1/namespaces/jobs-a", Answer::Json(200, ours())),
        ("DELETE /api/v1/namespaces/jobs-a", Answer::Json(200, json!({}))),
    ]);
    let container =
        json!({"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": 1, "memory": "1Mi"}}});
    let manifest =
        json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [container]}}}});
    let created =
        service.post("/api/eks-create-job", &json!({"namespace": "jobs-a", "job_manifest": manifest})).await;
    assert_eq!(created.status, 200, "{}", created.text());
    let expected = json!({"job_name": "a", "namespace": "jobs-a", "creation_timestamp": "2026-01-31T12:00:00Z", "status": "pending"});
    assert_eq!(created.json(), expected);
    let shown = service.get("/api/eks-job-status?namespace=jobs-a&job_name=a").await;
    assert_eq!(
        (shown.status.as_u16(), &shown.json()["job_name"], &shown.json()["active"]),
        (200, &json!("a"), &json!(1))
    );
    let names = json!({"namespace": "jobs-a", "job_name": "a"});
    let deleted = service.send("DELETE", "/api/eks-delete-job?namespace=jobs-a", &[], Some(&names)).await;
    assert_eq!((deleted.status.as_u16(), &deleted.json()["status"]), (200, &json!("deleting")));
    assert_eq!(service.post("/api/eks-create-namespace", &json!({"namespace": "jobs-a"})).await.status, 200);
    assert_eq!(service.delete("/api/eks-delete-namespace?namespace=jobs-a").await.status, 200);
    assert_eq!(kubernetes.calls().len(), 8);
    for (method, path, body, pointer) in [
        ("GET", "/api/eks-job-status?namespace=jobs-a", None, "/job_name"),
        ("DELETE", "/api/eks-delete-job", None, "/namespace"),
        (
            "DELETE",
            "/api/eks-delete-namespace?namespace=jobs-b",
            Some(json!({"namespace": "jobs-a"})),
            "/namespace",
        ),
        ("DELETE", "/api/eks-delete-namespace", Some(json!({"namespace": 1})), "/namespace"),
        ("POST", "/api/eks-create-job", Some(json!({"job_manifest": {}})), "/namespace"),
        ("POST", "/api/eks-create-namespace", Some(json!({})), "/namespace"),
    ] {
        let reply = service.send(method, path, &[], body.as_ref()).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["errors"][0]["pointer"].as_str()),
            (422, Some(pointer)),
            "{path}"
        );
    }
}

// ---------------------------------------------------------------- Idempotency-Key

/// A Kubernetes that keeps Jobs, as far as creates can tell.
fn keeper() -> (Service, Kubernetes) {
    let mut jobs: Vec<Value> = Vec::new();
    let (kubernetes, cluster) = Kubernetes::with(move |asked| {
        let last = asked.path.rsplit('/').next().unwrap_or_default();
        match asked.method.as_str() {
            "POST" => {
                if jobs.iter().any(|job| job["metadata"]["name"] == asked.body["metadata"]["name"]) {
                    return Answer::Json(409, status(409, "AlreadyExists", "jobs.batch already exists"));
                }
                let mut job = asked.body.clone();
                job["metadata"]["uid"] = json!(format!("u-{}", jobs.len()));
                jobs.push(job.clone());
                Answer::Json(201, job)
            }
            _ => match asked.path.split_once("idempotency-key%3D") {
                Some((_, key)) => {
                    let marked = jobs
                        .iter()
                        .filter(|job| job["metadata"]["labels"]["math-service/idempotency-key"] == key);
                    Answer::Json(
                        200,
                        json!({"items": marked.map(|job| {
                        let mut job = job.clone();
                        job["status"] = json!({"active": 1, "ready": 1});
                        job
                    }).collect::<Vec<_>>()}),
                    )
                }
                None => match jobs.iter().find(|job| job["metadata"]["name"] == last) {
                    Some(job) => Answer::Json(200, job.clone()),
                    None => Answer::Json(404, status(404, "NotFound", "")),
                },
            },
        }
    });
    (Setup { cluster: Some(cluster), ..Setup::default() }.start(), kubernetes)
}

#[tokio::test]
async fn the_same_key_gets_the_same_answer_and_makes_no_other_job() {
    let (service, _) = keeper();
    let with_key = async |key: &str, body: Value| {
        service.send("POST", JOBS, &[("idempotency-key", key)], Some(&body)).await
    };
    for body in [json!({"image": IMAGE}), json!({"image": IMAGE, "name": "named"})] {
        let key = if body.get("name").is_some() { "k-named" } else { "k" };
        let first = with_key(key, body.clone()).await;
        assert_eq!(
            (first.status.as_u16(), first.header("idempotency-replayed")),
            (201, ""),
            "{}",
            first.text()
        );
        let second = with_key(key, body.clone()).await;
        assert_eq!((second.status.as_u16(), second.header("idempotency-replayed")), (201, "true"));
        assert_eq!(first.body, second.body, "byte by byte, though it runs meanwhile");
        let mut other = body.clone();
        other["args"] = json!(["other"]);
        assert_eq!(with_key(key, other.clone()).await.status, 422, "the key came with another body");
        other["name"] = json!("elsewhere");
        assert_eq!(with_key(key, other).await.status, 422, "whatever its name");
    }
    assert_eq!(
        with_key("l", json!({"image": IMAGE, "name": "named"})).await.status,
        409,
        "another key, the same name"
    );
    assert_eq!(
        service.post(JOBS, &json!({"image": IMAGE, "name": "named"})).await.status,
        409,
        "no key, the same name"
    );
    let another = with_key("l", json!({"image": IMAGE})).await.json()["name"].clone();
    assert_ne!(another, with_key("k", json!({"image": IMAGE})).await.json()["name"]);
    assert_eq!(with_key("a b", json!({"image": IMAGE})).await.status, 422);
}

#[tokio::test]
async fn two_creates_at_the_same_time_meet_at_the_same_name() {
    // Neither finds the other's Job, and the second is refused its name: as between two replicas.
    let (service, kubernetes) = expecting(vec![
        (LIST_MARKED, Answer::Json(200, json!({"items": []}))),
        (POST_JOB, Answer::Json(201, job(true))),
    ]);
    let body = json!({"image": IMAGE});
    let headers = [("idempotency-key", "k")];
    assert_eq!(service.send("POST", JOBS, &headers, Some(&body)).await.status, 201);
    let mut sent = kubernetes.asked()[1].body.clone();
    sent["metadata"]["uid"] = json!("u-9");
    let (service, other) = expecting(vec![
        (LIST_MARKED, Answer::Json(200, json!({"items": []}))),
        (POST_JOB, Answer::Json(409, status(409, "AlreadyExists", "exists"))),
        ("GET /apis/batch/v1/namespaces/jobs-a/jobs/job-", Answer::Json(200, sent.clone())),
    ]);
    let reply = service.send("POST", JOBS, &headers, Some(&body)).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("idempotency-replayed")),
        (201, "true"),
        "{}",
        reply.text()
    );
    assert_eq!(reply.json()["uid"], "u-9");
    assert_eq!(other.asked()[1].body["metadata"]["name"], sent["metadata"]["name"]);
}

// ---------------------------------------------------------------- what the cluster says, and does not

#[tokio::test]
async fn what_kubernetes_does_not_accept_is_named_where_the_caller_wrote_it() {
    let causes = details(
        status(422, "Invalid", "Job.batch \"a\" is invalid"),
        json!({"causes": [
            {"reason": "FieldValueInvalid", "field": "spec.template.spec.containers[0].image", "message": "Invalid value: must not have leading whitespace"},
            {"reason": "FieldValueInvalid", "field": "spec.template.spec.restartPolicy", "message": "Required value"}]}),
    );
    let strict = status(
        400,
        "BadRequest",
        "Job in version \"v1\" cannot be handled as a Job: strict decoding error: unknown field \"spec.comletions\", unknown field \"spec.template.spec.contaners\"",
    );
    let container =
        json!({"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": 1, "memory": "1Mi"}}});
    let manifest = json!({"job_manifest": {"spec": {"template": {"spec": {"containers": [container]}}}}});
    let (service, _) = expecting(vec![
        (POST_JOB, Answer::Json(422, causes.clone())),
        (POST_JOB, Answer::Json(422, causes)),
        (POST_JOB, Answer::Json(400, strict)),
    ]);
    let pointers = async |body: &Value| {
        let reply = service.post(JOBS, body).await;
        assert_eq!(reply.status, 422);
        let errors = reply.json()["errors"].as_array().unwrap().clone();
        errors.iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(pointers(&short()).await, ["/image", ""]);
    let in_manifest = [
        "/job_manifest/spec/template/spec/containers/0/image",
        "/job_manifest/spec/template/spec/restartPolicy",
    ];
    assert_eq!(pointers(&manifest).await, in_manifest);
    assert_eq!(
        pointers(&manifest).await,
        ["/job_manifest/spec/comletions", "/job_manifest/spec/template/spec/contaners"]
    );
}

#[tokio::test]
async fn each_refusal_of_kubernetes_has_its_own_answer() {
    let rbac = "jobs.batch is forbidden: User \"arn:aws:sts::1:assumed-role/x\" cannot create resource \"jobs\" in API group \"batch\" in the namespace \"jobs-a\"";
    let terminating = details(
        status(
            403,
            "Forbidden",
            "jobs.batch \"a\" is forbidden: unable to create new content in namespace jobs-a because it is being terminated",
        ),
        json!({"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}),
    );
    let webhook =
        "Internal error occurred: failed calling webhook \"x\": Post \"https://10.0.0.7:443/\": refused";
    for (code, answer, expected, said) in [
        (
            403,
            status(403, "Forbidden", rbac),
            403,
            "may not create jobs in the API group batch in the namespace jobs-a",
        ),
        (
            403,
            status(403, "Forbidden", "jobs.batch \"a\" is forbidden: exceeded quota: small"),
            403,
            "exceeded quota: small",
        ),
        (403, terminating, 409, "is being deleted"),
        (
            404,
            details(
                status(404, "NotFound", "namespaces \"jobs-a\" not found"),
                json!({"kind": "namespaces"}),
            ),
            404,
            "there is no namespace jobs-a",
        ),
        (409, status(409, "Conflict", "try again"), 409, "there is one of this name already"),
        (401, status(401, "Unauthorized", "Unauthorized"), 502, "does not know this service"),
        (500, status(500, "InternalError", webhook), 502, "trouble of its own"),
        (503, status(503, "ServiceUnavailable", ""), 502, "trouble of its own"),
        (504, status(504, "Timeout", ""), 504, "in time"),
        (418, json!("teapot"), 502, "trouble of its own"),
    ] {
        let (service, _) = expecting(vec![(POST_JOB, Answer::Json(code, answer))]);
        let reply = service.post(JOBS, &short()).await;
        assert_eq!(reply.status, expected, "{code}: {}", reply.text());
        assert!(reply.text().contains(said), "{}", reply.text());
        assert!(!reply.text().contains("arn:") && !reply.text().contains("10.0.0.7"), "{}", reply.text());
        assert_eq!(reply.header("content-type"), "application/problem+json");
    }
}

#[tokio::test]
async fn a_busy_cluster_says_when_to_come_back() {
    let in_status = details(status(429, "TooManyRequests", ""), json!({"retryAfterSeconds": 7}));
    let (service, _) = expecting(vec![
        (GET_JOB, Answer::Later(429, 3, status(429, "TooManyRequests", ""))),
        (GET_JOB, Answer::Json(429, in_status)),
        (GET_JOB, Answer::Json(429, json!({}))),
    ]);
    for seconds in ["3", "7", "1"] {
        let reply = service.get(&format!("{JOBS}/a")).await;
        assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, seconds));
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_list_is_named() {
    let list = "GET /apis/batch/v1/namespaces/jobs-a/jobs?";
    let (service, _) = expecting(vec![
        (list, Answer::Json(400, status(400, "BadRequest", "unable to parse requirement: values[0]"))),
        (list, Answer::Json(400, status(400, "BadRequest", "continue key is not valid: illegal base64"))),
        (list, Answer::Json(410, status(410, "Expired", "The provided continue parameter is too old"))),
    ]);
    let first = service.get(&format!("{JOBS}?label_selector=%3D%3D")).await;
    assert_eq!(
        (first.status.as_u16(), &first.json()["errors"][0]["pointer"]),
        (422, &json!("/label_selector"))
    );
    let second = service.get(&format!("{JOBS}?continue=x")).await;
    assert_eq!((second.status.as_u16(), &second.json()["errors"][0]["pointer"]), (422, &json!("/continue")));
    assert_eq!(service.get(&format!("{JOBS}?continue=x")).await.status, 410);
}

#[tokio::test]
async fn no_way_to_the_cluster_is_told_in_words_and_without_addresses() {
    let tls = ClusterError::Tls(Arc::new(std::io::Error::other("10.0.0.1: UnknownIssuer")));
    let denied = ClusterError::Forbidden {
        permission: "eks:DescribeCluster",
        cause: Arc::new(std::io::Error::other("arn:aws:x")),
    };
    let late = ClusterError::TimedOut { what: "the request to the cluster" };
    let nowhere = ClusterError::NoCluster { name: "math".to_owned(), region: "eu-west-2".to_owned() };
    let eks = ClusterError::Eks(Arc::new(std::io::Error::other("10.0.0.1")));
    for (error, code, said) in [
        (tls, 502, "could not prove who it is"),
        (denied, 502, "eks:DescribeCluster"),
        (nowhere, 502, "no cluster math in eu-west-2"),
        (eks, 502, "where the cluster is"),
        (late, 504, "in time"),
    ] {
        let (service, kubernetes) = expecting(vec![(GET_JOB, Answer::Fails(error))]);
        let reply = service.get(&format!("{JOBS}/a")).await;
        assert_eq!(reply.status, code, "{}", reply.text());
        assert!(reply.text().contains(said), "{}", reply.text());
        assert!(!reply.text().contains("10.0.0.1") && !reply.text().contains("arn:"), "{}", reply.text());
        assert_eq!(kubernetes.calls().len(), 1, "it is not asked again");
    }
    let (service, _) = expecting(vec![(GET_JOB, Answer::Text(200, "<html>a balancer</html>"))]);
    let reply = service.get(&format!("{JOBS}/a")).await;
    assert!(reply.status == 502 && reply.text().contains("makes no sense"), "{}", reply.text());
}

#[tokio::test]
async fn what_can_be_asked_again_is_asked_once_more() {
    let (service, kubernetes) = expecting(vec![
        (GET_JOB, Answer::Fails(unreachable())),
        (GET_JOB, Answer::Json(404, status(404, "NotFound", ""))),
    ]);
    assert_eq!(service.get(&format!("{JOBS}/a")).await.status, 404);
    assert_eq!(kubernetes.calls().len(), 2);
    let (service, kubernetes) =
        expecting(vec![(GET_JOB, Answer::Fails(broken())), (GET_JOB, Answer::Fails(broken()))]);
    let reply = service.get(&format!("{JOBS}/a")).await;
    assert!(reply.status == 502 && reply.text().contains("broke"), "{}", reply.text());
    assert_eq!(kubernetes.calls().len(), 2, "once more, and no further");
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_finds_what_it_made() {
    let mut made = None;
    let (kubernetes, cluster) = Kubernetes::with(move |asked| match (asked.method.as_str(), &made) {
        ("POST", None) => {
            made = Some(asked.body.clone());
            Answer::Fails(broken())
        }
        ("POST", Some(_)) => Answer::Json(409, status(409, "AlreadyExists", "")),
        (_, made) => Answer::Json(200, made.clone().unwrap()),
    });
    let service = Setup { cluster: Some(cluster), ..Setup::default() }.start();
    let reply = service.post(JOBS, &json!({"image": IMAGE})).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("idempotency-replayed")),
        (201, ""),
        "it is the first answer"
    );
    let names: Vec<_> = kubernetes
        .asked()
        .iter()
        .filter(|asked| asked.method == "POST")
        .map(|asked| asked.body["metadata"]["name"].clone())
        .collect();
    assert_eq!(names[0], names[1]);

    let foreign = json!({"metadata": {"name": "a", "annotations": {"math-service/request": "other"}}});
    let (service, _) = expecting(vec![
        (POST_JOB, Answer::Fails(broken())),
        (POST_JOB, Answer::Json(409, status(409, "AlreadyExists", ""))),
        (GET_JOB, Answer::Json(200, foreign)),
    ]);
    assert_eq!(service.post(JOBS, &short()).await.status, 409, "somebody else's stays somebody else's");
}

#[tokio::test]
async fn only_a_create_that_may_have_been_sent_may_have_been_made() {
    for (answers, may_be_made) in [
        (vec![unreachable()], false),
        (vec![ClusterError::Eks(Arc::new(std::io::Error::other("refused")))], false),
        (vec![broken(), broken()], true),
        (vec![broken(), unreachable()], true),
    ] {
        let answers = answers.into_iter().map(|error| (POST_JOB, Answer::Fails(error))).collect();
        let (service, _) = expecting(answers);
        let reply = service.post(JOBS, &short()).await;
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert_eq!(reply.text().contains("may have been created"), may_be_made, "{}", reply.text());
    }
}

#[tokio::test]
async fn a_delete_is_never_sent_again() {
    let (service, kubernetes) =
        expecting(vec![(GET_JOB, Answer::Json(200, job(true))), (DELETE_JOB, Answer::Fails(broken()))]);
    let reply = service.delete(&format!("{JOBS}/a")).await;
    assert!(reply.status == 502 && reply.text().contains("may have been deleted"), "{}", reply.text());
    assert_eq!(kubernetes.calls().len(), 2);
    let (service, _) = expecting(vec![
        (GET_JOB, Answer::Json(200, job(true))),
        (DELETE_JOB, Answer::Json(409, status(409, "Conflict", "Precondition failed: UID in precondition"))),
    ]);
    assert_eq!(service.delete(&format!("{JOBS}/a")).await.status, 409, "another took its name meanwhile");
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_not_waited_for() {
    for (method, body) in [("GET", None), ("POST", Some(short()))] {
        let (_, cluster) = Kubernetes::with(|_| Answer::Never);
        let deadline = Some(Duration::from_millis(50));
        let service = Setup { cluster: Some(cluster), call_deadline: deadline, ..Setup::default() }.start();
        let reply = service.send(method, JOBS, &[], body.as_ref()).await;
        assert_eq!(reply.status, 504, "{}", reply.text());
        assert_eq!(reply.text().contains("Idempotency-Key"), method == "POST", "{}", reply.text());
    }
}
