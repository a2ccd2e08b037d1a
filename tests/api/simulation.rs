//! The lab's route and page: what they answer to whom, how much work they do at most, and when they stop. The corpus has
//! the refusals, on both targets.

use std::net::SocketAddr;

use hyper::Version;
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinHandle, time::Instant};

use crate::{
    gateway::{Front, Gateway, Options},
    support::{Reply, Server, lambda_binary, metric, request, until_busy},
};

const PATH: &str = "/api/v1/simulations";
/// As much as is allowed, some hundred times what the page asks for.
const LONG: &str = r#"{"hours":24,"crossover":true,"eks":{"min_replicas":1000,"max_replicas":1000}}"#;
const TIMEOUT: (&str, &str) = ("REQUEST_TIMEOUT", "700s");

async fn simulated(server: SocketAddr, scenario: &Value) -> Reply {
    asking(scenario.to_string()).send(server).await
}

fn asking(body: String) -> crate::support::Outgoing {
    request("POST", PATH).header("content-type", "application/json").body(body)
}

fn long(server: SocketAddr) -> JoinHandle<hyper::Result<Reply>> {
    tokio::spawn(async move {
        let stream = TcpStream::connect(server).await.unwrap();
        asking(LONG.to_owned()).send_on(stream, Version::HTTP_11).await
    })
}

#[tokio::test]
async fn a_scenario_is_answered_with_runs_decisions_bills_and_a_verdict() {
    let server = Server::start(&[TIMEOUT]).await;
    let spike = json!({
        "hours": 3, "crossover": true,
        "traffic": { "shape": "spike", "from": 5, "to": 60, "at_hours": 0.5, "for_hours": 0.5 },
        "profile": { "cpu_ms": 5, "wait_ms": 0 },
    });
    let reply = simulated(server.address, &spike).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = reply.json();
    // The figures of docs/lab.md, which the command prints.
    assert_eq!(answer["eks"]["requests"]["arrived"], 153_000.0);
    assert_eq!(answer["eks"]["month"]["usd"], 295.85);
    let first = &answer["eks"]["decisions"][0];
    assert_eq!((&first["what"], &first["from"], &first["to"]), (&json!("pods"), &json!(2), &json!(4)));
    assert_eq!(first["why"], "cpu 114 % against 50 % wants 5, policy allows 4");
    for target in ["eks", "lambda"] {
        let of = |name: &str| answer[target]["requests"][name].as_f64().unwrap();
        assert!((of("arrived") - of("served") - of("shed") - of("failed") - of("waiting")).abs() < 1e-3);
        let timeline = answer[target]["timeline"].as_array().unwrap();
        assert!((700..=720).contains(&timeline.len()), "{}", timeline.len());
    }
    let ready = |point: &Value| point["servers"].as_f64().unwrap() - point["desired"].as_f64().unwrap();
    let timeline = answer["eks"]["timeline"].as_array().unwrap();
    assert!(timeline.iter().any(|point| ready(point) < 0.0), "pods are wanted before they are ready");
    assert_eq!(answer["verdict"]["target"], "lambda");
    assert_eq!(answer["verdict"]["reasons"].as_array().unwrap().len(), 3);
    assert_eq!(answer["verdict"]["crossover"]["below"], "lambda");
    assert_eq!(answer["scenario"]["traffic"]["to"], 60);
    // What was simulated can be asked for again.
    assert_eq!(simulated(server.address, &answer["scenario"]).await.json(), answer);
    let other = json!({ "hours": 1 });
    assert_eq!(simulated(server.address, &other).await.json()["verdict"]["crossover"], Value::Null);
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_place_and_reason() {
    let server = Server::start(&[]).await;
    let wrong = json!({ "hours": 168, "crossover": true });
    let reply = simulated(server.address, &wrong).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["errors"][0]["pointer"]), (422, &json!("/crossover")));
    assert!(reply.text().contains("million units of at most 3000 million"), "{}", reply.text());
    let wrong = json!({ "eks": { "max_replicas": 1001, "pods": 1 }, "traffic": { "shape": "wave" } });
    let reply = simulated(server.address, &wrong).await.json();
    let mut pointers: Vec<&str> =
        reply["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    pointers.sort_unstable();
    assert_eq!(pointers, ["/eks/max_replicas", "/eks/pods", "/traffic/shape"]);
}

#[tokio::test]
async fn it_is_open_where_all_else_below_api_is_closed() {
    let server = Server::start(&[]).await;
    let document = request("GET", "/openapi.json").send(server.address).await.json();
    let routes: Vec<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(path, _)| path.starts_with("/api/"))
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        .collect();
    assert!(routes.len() > 20, "{routes:?}");
    let mut open = Vec::new();
    for (method, path) in &routes {
        let reply = request(method, path).header("content-type", "application/json").body("{}");
        if reply.send(server.address).await.status != 403 {
            open.push(path.as_str());
        }
    }
    assert_eq!(open, [PATH]);
}

#[tokio::test]
async fn a_simulation_that_nobody_waits_for_ends_and_others_get_its_slot() {
    let server = Server::start(&[TIMEOUT]).await;
    assert_eq!(metric(server.address, "lab_slots").await, 1.0);
    let first = long(server.address);
    until_busy(server.address, "lab_slots_busy", 1).await;
    for path in ["/livez", "/readyz", "/health"].repeat(10) {
        assert_eq!(request("GET", path).send(server.address).await.status, 200, "{path}");
    }
    let began = Instant::now();
    first.abort();
    // Well before the end of all runs: after the one that is under way.
    until_busy(server.address, "lab_slots_busy", 0).await;
    println!("simulation: stopped {:?} after its client had gone", began.elapsed());
    assert_eq!(simulated(server.address, &json!({ "hours": 0.1 })).await.status, 200);
    let lines = server.stop().await;
    assert_eq!(lines.iter().filter(|line| line["event"] == "Simulated").count(), 1, "{lines:?}");
}

#[tokio::test]
async fn who_waits_in_vain_for_a_slot_is_told_to_come_back() {
    let server = Server::start(&[TIMEOUT]).await;
    // Those that wait take their turns, so the slot stays busy for several runs, however fast a machine is.
    let all: Vec<_> = (0..8).map(|_| long(server.address)).collect();
    until_busy(server.address, "lab_slots_busy", 1).await;
    let body = json!({ "hours": 0.1 });
    let (refused, page) =
        tokio::join!(simulated(server.address, &body), request("GET", "/lab").send(server.address));
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"), "{refused:?}");
    assert!(metric(server.address, "http_server_requests_shed_total").await >= 2.0);
    assert_eq!((page.status.as_u16(), page.header("retry-after")), (503, "1"));
    assert!(page.text().contains("every slot for simulations is busy"), "{}", page.text());
    all.iter().for_each(JoinHandle::abort);
}

/// The links of a page that lead to its result, with the page's own `&amp;` taken back.
fn links(page: &str) -> Vec<String> {
    let hrefs = page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    hrefs.filter(|href| href.contains('?')).map(|href| href.replace("&amp;", "&")).collect()
}

#[tokio::test]
async fn the_page_needs_no_script_and_links_to_its_own_result() {
    let mut options = Options::new(Front::HttpV2 { stage: Some("dev".into()) }, lambda_binary());
    options.env = vec![("STATE_URL".into(), "sqlite://data/state.db".into())];
    let gateway = Gateway::start(options).await.unwrap();
    let server = Server::start(&[("BASE_PATH", "/math")]).await;
    for (address, base) in [(server.address, "/math"), (gateway.addr(), "")] {
        let query =
            "hours=3&traffic.shape=spike&traffic.from=5&traffic.to=60&traffic.at_hours=0.5&eks.cpu_percent=";
        let page = request("GET", &format!("{base}/lab?{query}")).send(address).await;
        assert_eq!(page.status, 200, "{page:?}");
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        for inline in ["<script", "style=\"", "<style", " onclick", "http:", "javascript:"] {
            let found = page.text().replace("http://www.w3.org/2000/svg", "").contains(inline);
            assert!(!found, "{inline}");
        }
        let links = links(page.text());
        let permalink = links.iter().find(|link| link.starts_with('?')).unwrap();
        let same = request("GET", &format!("{base}/lab{permalink}")).send(address).await;
        assert_eq!(same.text(), page.text(), "the link leads to the same page");
        for (file, kind) in [("json", "application/json"), ("svg", "image/svg+xml"), ("html", "text/html")] {
            let link = links.iter().find(|link| link.contains(&format!("simulation.{file}?"))).unwrap();
            let download = request("GET", &format!("{base}/{link}")).send(address).await;
            assert!(download.status == 200 && download.header("content-type").starts_with(kind), "{link}");
            assert!(download.header("content-disposition").starts_with("attachment"), "{link}");
            assert!(!download.text().contains("at any traffic"), "nobody looked for the crossover");
        }
        let wrong = request("GET", &format!("{base}/lab?hours=1000&eks.max_replicas=7")).send(address).await;
        assert_eq!(wrong.status, 422);
        assert!(
            wrong.text().contains("Simulated time</a> must be a number from 0.1 to 168"),
            "{}",
            wrong.text()
        );
        assert!(wrong.text().contains("value=\"7\""), "what was right is still there");
    }
}

#[tokio::test]
async fn both_pages_load_only_what_is_there_wherever_they_are_mounted() {
    let server = Server::start(&[("BASE_PATH", "/math")]).await;
    let pages = ["/", "/lab", "/lab/", "/math/lab", "/math/lab/", "/math", "/math/"];
    for page in pages {
        let reply = request("GET", &format!("{page}?hours=0.1"))
            .header("accept", "text/html")
            .send(server.address)
            .await;
        assert_eq!(reply.status, 200, "{page}");
        let assets: Vec<&str> = reply
            .text()
            .split('"')
            .filter(|part| {
                part.split('?').next().is_some_and(|path| path.ends_with(".css") || path.ends_with(".js"))
            })
            .collect();
        assert_eq!(assets.len(), 2, "{page}: {assets:?}");
        for asset in assets {
            let path = crate::docs::resolve(&format!("http://x{page}"), asset);
            assert_eq!(request("GET", &path).send(server.address).await.status, 200, "{page}: {path}");
        }
    }
}
