//! What a Job's pods write. A real API server has no logs without a kubelet: their contents are scripted here alone.

use serde_json::{Value, json};

use super::{Answer, Asked, Kubernetes, Service, Setup, status};

const LOGS: &str = "/api/v1/namespaces/jobs-a/jobs/a/logs";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main"}, {"name": "side"}], "initContainers": [{"name": "init"}]}})
}

/// A Job with these pods, whose logs are what `log` says.
fn with_pods(
    names: &'static [&'static str],
    mut log: impl FnMut(&str, &Asked) -> Answer + Send + 'static,
) -> (Service, Kubernetes) {
    let (kubernetes, cluster) = Kubernetes::with(move |asked| {
        let path = asked.path.split('?').next().unwrap();
        if let Some(pod) = path.strip_suffix("/log").and_then(|path| path.rsplit('/').next()) {
            return log(pod, asked);
        }
        match path.ends_with("/pods") {
            true => {
                Answer::Json(200, json!({"items": names.iter().map(|name| pod(name)).collect::<Vec<_>>()}))
            }
            false => Answer::Json(
                200,
                json!({"metadata": {"name": "a"}, "spec": {"selector": {"matchLabels": {"c": "u"}}}}),
            ),
        }
    });
    (Setup { cluster: Some(cluster), ..Setup::default() }.start(), kubernetes)
}

#[tokio::test]
async fn the_log_of_one_pod_is_plain_text_as_it_was_written() {
    let (service, kubernetes) = with_pods(&["a-1"], |_, _| Answer::Text(200, "one\n\ntwo"));
    let reply =
        service.get(&format!("{LOGS}?tail_lines=5&since_seconds=60&container=side&previous=true")).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "one\n\ntwo\n"));
    assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!((reply.header("cache-control"), reply.header("log-truncated")), ("no-store", ""));
    let asked = kubernetes.calls().pop().unwrap();
    assert_eq!(
        asked,
        "GET /api/v1/namespaces/jobs-a/pods/a-1/log?container=side&tailLines=5&sinceSeconds=60&limitBytes=1000001&previous=true"
    );
}

#[tokio::test]
async fn what_is_not_said_is_the_first_containers_last_thousand_lines() {
    let (service, kubernetes) = with_pods(&["a-1"], |_, _| Answer::Text(200, ""));
    assert_eq!(service.get(LOGS).await.text(), "");
    let asked = kubernetes.calls().pop().unwrap();
    assert!(asked.ends_with("/log?container=main&tailLines=1000&limitBytes=1000001"), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn lines_of_several_pods_begin_with_their_pods_and_one_without_a_log_hides_no_other() {
    let message = "container \"main\" in pod \"a-2\" is waiting to start: ContainerCreating";
    let (service, _) = with_pods(&["a-1", "a-2", "a-3", "a-4"], move |pod, _| match pod {
        "a-1" => Answer::Text(200, "one\ntwo\n"),
        "a-2" => Answer::Json(400, status(400, "BadRequest", message)),
        "a-3" => {
            Answer::Json(500, status(500, "", "Get \"https://10.0.0.7:10250/containerLogs\": i/o timeout"))
        }
        _ => Answer::Never,
    });
    let reply = service.get(LOGS).await;
    assert_eq!(reply.status, 200);
    let expected = [
        "a-1: one",
        "a-1: two",
        &format!("a-2: [math-service: no log: {message}]"),
        "a-3: [math-service: no log: its node does not answer]",
        "a-4: [math-service: no answer in time]",
    ];
    assert_eq!(reply.text().lines().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_log_that_is_too_long_is_cut_and_says_so() {
    let long: &'static str = "x".repeat(99).leak();
    let long: &'static str = format!("{long}\n").repeat(20_000).leak();
    let (service, _) = with_pods(&["a-1", "a-2"], move |pod, _| match pod {
        "a-1" => Answer::Text(200, long),
        _ => Answer::Text(200, "short\n"),
    });
    let reply = service.get(LOGS).await;
    assert_eq!(reply.header("log-truncated"), "true");
    assert!(reply.body.len() < 600_000, "{}", reply.body.len());
    let lines: Vec<_> = reply.text().lines().collect();
    assert_eq!(
        lines[lines.len() - 2..],
        ["a-1: [math-service: cut off here: ask for fewer tail_lines]", "a-2: short"]
    );
}

#[tokio::test]
async fn a_container_that_no_pod_has_is_named_and_so_are_those_there_are() {
    let (service, _) = with_pods(&["a-1"], |_, _| Answer::Text(200, ""));
    let reply = service.get(&format!("{LOGS}?container=mian")).await;
    assert_eq!(reply.status, 422);
    assert!(
        reply.text().contains("/container is none of this Job's containers: main, side, init"),
        "{}",
        reply.text()
    );
}

#[tokio::test]
async fn a_query_that_cannot_be_meant_is_refused() {
    let (service, kubernetes) = with_pods(&[], |_, _| Answer::Never);
    for (query, pointer) in [
        ("tail_lines=0", "/tail_lines"),
        ("tail_lines=-1", "/tail_lines"),
        ("tail_lines=100001", "/tail_lines"),
        ("since_seconds=x", "/since_seconds"),
        ("previous=yes", "/previous"),
        ("container=a&container=b", "/container"),
    ] {
        let reply = service.get(&format!("{LOGS}?{query}")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.json()["errors"][0]["pointer"].as_str()),
            (422, Some(pointer)),
            "{query}"
        );
    }
    assert_eq!(kubernetes.calls(), Vec::<String>::new());
    assert_eq!(service.get(LOGS).await.text(), "", "a Job without pods has no log");
}

#[tokio::test]
async fn a_missing_right_is_told_and_no_log_seems_empty_for_it() {
    let message = "pods \"a-1\" is forbidden: User \"x\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"jobs-a\"";
    let (service, _) = with_pods(&["a-1"], move |_, _| Answer::Json(403, status(403, "Forbidden", message)));
    let reply = service.get(LOGS).await;
    assert_eq!(reply.status, 403);
    assert!(reply.text().contains("may not get pods/log in the namespace jobs-a"), "{}", reply.text());
}
