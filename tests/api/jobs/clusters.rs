//! Several clusters, one of which is away.

use std::{sync::Arc, time::Duration};

use math_service::jobs::{self, cluster::Cluster, in_cluster};
use serde_json::{Value, json};

use super::{Answer, Asked, IMAGE, Kubernetes, Setup};
use crate::support::{PATIENCE, Server, request};

const JOBS: &str = "namespaces/jobs-a/jobs";

/// Lists one Job, which is named like the cluster.
fn has_a_job(name: &'static str) -> impl FnMut(&Asked) -> Answer {
    move |_| Answer::Json(200, json!({"items": [{"metadata": {"name": name}}]}))
}

fn east_and_west() -> (Cluster, Cluster) {
    (Kubernetes::named("east", has_a_job("in-east")).1, Kubernetes::named("west", has_a_job("in-west")).1)
}

#[tokio::test]
async fn a_path_names_the_cluster_and_without_one_it_is_the_default() {
    let (east, west) = east_and_west();
    let service = Setup { cluster: Some(east), others: vec![west], ..Setup::default() }.start();
    for (path, expected) in [
        (format!("/api/v1/{JOBS}"), "in-east"),
        (format!("/api/v1/clusters/east/{JOBS}"), "in-east"),
        (format!("/api/v1/clusters/west/{JOBS}"), "in-west"),
    ] {
        assert_eq!(service.get(&path).await.json()["items"][0]["name"], expected, "{path}");
    }
}

#[tokio::test]
async fn a_cluster_that_is_not_configured_is_not_found_whatever_is_asked_of_it() {
    let (east, west) = east_and_west();
    let service = Setup { cluster: Some(east), others: vec![west], ..Setup::default() }.start();
    for name in ["north", "East", "EAST", "%65ast2", "..%2Feast", "east%00"] {
        let path = format!("/api/v1/clusters/{name}/{JOBS}");
        assert_eq!(service.get(&path).await.status, 404, "{path}");
        let created = service.post(&path, &json!({"image": IMAGE})).await;
        assert_eq!((created.status.as_u16(), created.json()["status"].as_u64()), (404, Some(404)), "{path}");
        let stranger = service.call("GET", &path, &[], None).await;
        assert_eq!(stranger.status, 401, "who calls is asked first");
    }
}

/// For ever: the test would not end if anything waited for it.
#[tokio::test]
async fn a_cluster_that_never_answers_slows_no_other() {
    let (hung, north) = Kubernetes::named("north", |_| Answer::Never);
    let (east, _) = east_and_west();
    let deadline = Some(Duration::from_secs(3600));
    let setup =
        Setup { cluster: Some(north), others: vec![east], call_deadline: deadline, ..Setup::default() };
    let service = Arc::new(setup.start());
    let waiting = {
        let service = service.clone();
        tokio::spawn(async move { service.get(&format!("/api/v1/{JOBS}")).await.status })
    };
    let asked = async {
        while hung.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("it is asked");
    for _ in 0..100 {
        let path = format!("/api/v1/clusters/east/{JOBS}");
        let reply = tokio::time::timeout(PATIENCE, service.get(&path)).await.expect("the other answers");
        assert_eq!(reply.status, 200);
    }
    let list = tokio::time::timeout(PATIENCE, service.get("/api/v1/clusters"))
        .await
        .expect("the list waits for none");
    assert_eq!(list.json()["items"][1]["status"], "ok");
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn the_list_says_what_is_known_of_each_without_asking() {
    let (east, west) = east_and_west();
    let (_, north) = Kubernetes::named("north", |_| Answer::Never);
    let deadline = Some(Duration::from_millis(1));
    let (all, first) = (vec![west, north], Some(east));
    let service = Setup { cluster: first, others: all, call_deadline: deadline, ..Setup::default() }.start();
    let known = async || -> Vec<(String, String)> {
        let list = service.get("/api/v1/clusters").await.json();
        assert_eq!(
            (&list["items"][0]["default"], &list["items"][1]["default"]),
            (&json!(true), &json!(false))
        );
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (text(&one["name"]), text(&one["status"])))
            .collect()
    };
    let expect = |pairs: [(&str, &str); 3]| pairs.map(|(name, status)| (name.to_owned(), status.to_owned()));
    assert_eq!(known().await, expect([("east", "unknown"), ("west", "unknown"), ("north", "unknown")]));
    assert_eq!(service.get(&format!("/api/v1/clusters/north/{JOBS}")).await.status, 504);
    assert_eq!(known().await, expect([("east", "unknown"), ("west", "unknown"), ("north", "unavailable")]));
}

#[tokio::test]
async fn health_and_the_list_name_every_cluster_in_its_region() {
    let eks = "http://127.0.0.1:1";
    let server = Server::start(&[
        ("EKS_CLUSTERS", "east@eu-west-2,west@us-west-1"),
        ("EKS_CLUSTER_NAME", "west"),
        ("AWS_ENDPOINT_URL_EKS", eks),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
    ])
    .await;
    let health = request("GET", "/health").send(server.address).await;
    let expected =
        json!([{"name": "west", "status": "unavailable"}, {"name": "east", "status": "unavailable"}]);
    assert_eq!((health.status.as_u16(), &health.json()["clusters"]), (503, &expected));
    server.stop().await;
}

#[tokio::test]
async fn every_route_of_the_default_cluster_is_below_each_cluster_and_documented_there() {
    let server = Server::start(&[]).await;
    let document = request("GET", "/openapi.json").send(server.address).await.json();
    let below: Vec<_> =
        jobs::operations().iter().filter_map(|operation| in_cluster(operation.path)).collect();
    assert!(below.len() >= 8, "{below:?}");
    for path in below {
        for (method, documented) in document["paths"][path].as_object().unwrap() {
            assert_eq!(documented["parameters"][0]["name"], "cluster", "{method} {path}");
            let id = documented["operationId"].as_str().unwrap();
            assert!(id.ends_with("_in_cluster"), "{id}");
        }
    }
    server.stop().await;
}
