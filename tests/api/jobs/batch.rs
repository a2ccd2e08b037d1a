//! Many Jobs in one request.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use math_service::{
    config::Config,
    telemetry::{self, writer::Writer},
};
use serde_json::{Value, json};

use super::{Answer, Asked, IMAGE, Kubernetes, Service, Setup, status};
use crate::access::Memory;

const BATCH: &str = "/api/v1/namespaces/jobs-a/jobs:batch";

/// A Kubernetes that keeps what it is sent, but for the names in `refused`, which it is too busy for.
fn keeping(refused: &Arc<Mutex<BTreeSet<String>>>) -> impl FnMut(&Asked) -> Answer + Send + 'static {
    let (refused, mut kept) = (refused.clone(), Vec::<Value>::new());
    move |asked| {
        if asked.method == "POST" {
            let name = asked.body["metadata"]["name"].as_str().unwrap();
            if refused.lock().unwrap().contains(name) {
                return Answer::Later(429, 7, status(429, "TooManyRequests", "busy"));
            }
            if kept.iter().any(|job| job["metadata"]["name"] == name) {
                return Answer::Json(
                    409,
                    status(409, "AlreadyExists", &format!("jobs \"{name}\" already exists")),
                );
            }
            kept.push(asked.body.clone());
            return Answer::Json(201, asked.body.clone());
        }
        match asked.path.split_once("labelSelector=math-service%2Fidempotency-key%3D") {
            Some((_, key)) => {
                let marked = |job: &&Value| job["metadata"]["labels"]["math-service/idempotency-key"] == key;
                Answer::Json(200, json!({"items": kept.iter().filter(marked).collect::<Vec<_>>()}))
            }
            None => {
                let named = |job: &&Value| asked.path.ends_with(job["metadata"]["name"].as_str().unwrap());
                kept.iter()
                    .find(named)
                    .map_or(Answer::Json(404, json!({})), |job| Answer::Json(200, job.clone()))
            }
        }
    }
}

fn service(refused: &[&str]) -> (Service, Kubernetes, Arc<Mutex<BTreeSet<String>>>) {
    let refused = Arc::new(Mutex::new(refused.iter().map(|name| (*name).to_owned()).collect()));
    let (kubernetes, cluster) = Kubernetes::with(keeping(&refused));
    (Setup { cluster: Some(cluster), ..Setup::default() }.start(), kubernetes, refused)
}

fn short(name: &str) -> Value {
    json!({"image": IMAGE, "name": name})
}

fn statuses(answer: &Value) -> Vec<u64> {
    answer["items"].as_array().unwrap().iter().map(|item| item["status"].as_u64().unwrap()).collect()
}

fn posts(kubernetes: &Kubernetes) -> usize {
    kubernetes.asked().iter().filter(|asked| asked.method == "POST").count()
}

#[tokio::test]
async fn each_item_has_its_own_answer_in_its_place() {
    let (service, kubernetes, _) = service(&["busy"]);
    let pod = json!({"containers": [{"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": 1, "memory": "1Mi"}}}]});
    let manifest = json!({"metadata": {"name": "whole"}, "spec": {"template": {"spec": pod}}});
    let items = json!([
        short("first"),
        {"image": "evil/image"},
        {"job_manifest": manifest},
        "no object",
        short("busy"),
        {"image": IMAGE},
    ]);
    let reply = service.post(BATCH, &json!({"items": items})).await;
    assert_eq!((reply.status.as_u16(), reply.header("cache-control")), (200, "no-store"), "{}", reply.text());
    let answer = reply.json();
    assert_eq!(statuses(&answer), [201, 422, 201, 422, 429, 201]);
    assert_eq!((&answer["created"], &answer["failed"]), (&json!(3), &json!(3)));
    let item = |index: usize| &answer["items"][index];
    assert_eq!((&item(0)["index"], &item(0)["job"]["name"]), (&json!(0), &json!("first")));
    assert_eq!(item(1)["problem"]["errors"][0]["pointer"], "/items/1/image");
    assert!(item(1)["problem"]["detail"].as_str().unwrap().starts_with("/items/1/image "), "{}", item(1));
    assert_eq!(item(2)["job"]["name"], "whole");
    assert_eq!(item(3)["problem"]["errors"][0]["pointer"], "/items/3");
    assert_eq!((&item(4)["problem"]["status"], &item(4)["retry_after"]), (&json!(429), &json!(7)));
    assert!(item(5)["job"]["name"].as_str().unwrap().starts_with("job-"));
    assert_eq!(item(1)["problem"]["request_id"].as_str(), Some(reply.header("x-request-id")));
    assert_eq!(posts(&kubernetes), 4, "what the policy refuses reaches no cluster");
}

#[tokio::test]
async fn a_batch_that_is_sent_again_under_its_key_makes_what_is_missing() {
    let (service, kubernetes, refused) = service(&["b"]);
    let batch = json!({"items": [short("a"), short("b"), {"image": IMAGE}, {"image": IMAGE}]});
    let key = [("idempotency-key", "batch-1")];
    let first = service.send("POST", BATCH, &key, Some(&batch)).await.json();
    assert_eq!(statuses(&first), [201, 429, 201, 201]);
    refused.lock().unwrap().clear();
    let before = posts(&kubernetes);
    let second = service.send("POST", BATCH, &key, Some(&batch)).await.json();
    assert_eq!(statuses(&second), [201; 4]);
    assert_eq!(posts(&kubernetes) - before, 1, "the one that was missing");
    for index in [0, 2, 3] {
        assert_eq!(second["items"][index]["replayed"], true);
        assert_eq!(second["items"][index]["job"], first["items"][index]["job"]);
    }
    assert_eq!(second["items"][1].get("replayed"), None);
    assert_ne!(first["items"][2]["job"]["name"], first["items"][3]["job"]["name"], "two items, two Jobs");
    // Only the item that was changed is told that its key was used for something else.
    let mut other = batch.clone();
    other["items"][2]["args"] = json!(["x"]);
    assert_eq!(statuses(&service.send("POST", BATCH, &key, Some(&other)).await.json()), [201, 201, 422, 201]);
    // The same key for a single Job is another key.
    let single =
        service.send("POST", "/api/v1/namespaces/jobs-a/jobs", &key, Some(&json!({"image": IMAGE}))).await;
    assert_eq!((single.status.as_u16(), single.header("idempotency-replayed")), (201, ""));
}

#[tokio::test(start_paused = true)]
async fn eight_are_under_way_at_most_and_what_was_not_begun_in_time_says_so() {
    let (kubernetes, cluster) = Kubernetes::with(|_| Answer::Never);
    let request_timeout = Some(Duration::from_secs(5));
    let service = Setup { cluster: Some(cluster), request_timeout, ..Setup::default() }.start();
    let items: Vec<_> = (0..20).map(|number| short(&format!("job-{number}"))).collect();
    let reply = service.post(BATCH, &json!({"items": items})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer = reply.json();
    assert_eq!(statuses(&answer), [504; 20]);
    let says = |text: &str| {
        let items = answer["items"].as_array().unwrap().iter();
        let details = items.map(|item| item["problem"]["detail"].as_str().unwrap().contains(text));
        details.collect::<Vec<_>>()
    };
    assert_eq!(says("it may have been"), (0..20).map(|index| index < 8).collect::<Vec<_>>());
    assert_eq!(says("nothing was created"), (0..20).map(|index| index >= 8).collect::<Vec<_>>());
    assert_eq!(posts(&kubernetes), 8);
}

#[tokio::test]
async fn a_batch_may_have_a_mebibyte_and_a_hundred_items() {
    let (service, kubernetes, _) = service(&[]);
    let large = |bytes: usize| json!({"items": [{"image": IMAGE, "args": ["x".repeat(bytes)]}]});
    assert_eq!(statuses(&service.post(BATCH, &large(1_000_000)).await.json()), [201]);
    assert_eq!(service.post(BATCH, &large(1_050_000)).await.status, 413);
    assert_eq!(service.post("/api/v1/namespaces/jobs-a/jobs", &large(100_000)).await.status, 413);
    let before = kubernetes.calls().len();
    for items in [json!([]), json!(vec![short("a"); 101]), json!({})] {
        let reply = service.post(BATCH, &json!({"items": items})).await;
        assert_eq!((reply.status.as_u16(), &reply.json()["errors"][0]["pointer"]), (422, &json!("/items")));
    }
    let key = [("idempotency-key", "a b")];
    let reply = service.send("POST", BATCH, &key, Some(&json!({"items": [short("a")]}))).await;
    assert_eq!(reply.status, 422, "a key that is malformed is so for the whole batch");
    assert_eq!(kubernetes.calls().len(), before);
}

#[tokio::test]
async fn a_batch_costs_as_many_requests_as_it_has_items() {
    let (_, cluster) = Kubernetes::with(keeping(&Arc::default()));
    let service = Setup { cluster: Some(cluster), rate: Some("10/h"), ..Setup::default() }.start();
    let items: Vec<_> = (0..30).map(|_| json!({"image": IMAGE})).collect();
    let reply = service.post(BATCH, &json!({"items": items})).await;
    assert_eq!(statuses(&reply.json()), [201; 30], "one unit lets it in");
    // Twenty are owed, and the next request takes one more: 21 times six minutes.
    assert_eq!(reply.header("ratelimit"), "\"default\";r=0;t=7560");
    let reply = service.get("/api/v1/namespaces/jobs-a/jobs").await;
    assert_eq!((reply.status.as_u16(), reply.header("retry-after")), (429, "7560"));
}

#[tokio::test]
async fn every_item_leaves_an_audit_line() {
    let memory = Memory::default();
    let logs = Writer::start(memory.clone()).unwrap();
    let filter = Config::from_env(|_| None).unwrap().log_filter;
    let _subscriber = tracing::subscriber::set_default(telemetry::subscriber(filter, logs.clone()));
    let (_, cluster) = Kubernetes::with(keeping(&Arc::default()));
    let service = Setup { cluster: Some(cluster), logs: Some(logs.clone()), ..Setup::default() }.start();
    service.post(BATCH, &json!({"items": [short("a"), {"image": "evil/image"}]})).await;
    logs.flush();
    let mut lines: Vec<Value> =
        memory.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.retain(|line| line["event"] == "Audited");
    // An item that is refused may be done before one that is created.
    lines.sort_by_key(|line| line["item"].as_u64().unwrap_or(u64::MAX));
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (&line["item"], &line["name"], &line["status"], &line["outcome"], &line["who"]))
        .collect();
    let admin = json!("admin");
    assert_eq!(
        seen,
        [
            (&json!(0), &json!("a"), &json!(201), &json!("done"), &admin),
            (&json!(1), &Value::Null, &json!(422), &json!("refused"), &admin),
            (&Value::Null, &Value::Null, &json!(200), &json!("done"), &admin),
        ]
    );
    assert!(lines.iter().all(|line| line["namespace"] == "jobs-a" && line["cluster"] == "math"));
}
