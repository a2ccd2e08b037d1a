//! Each difference between a gateway's event and an HTTP request (design: "absorb in targets/lambda.rs").
//!
//! Most tests hand an event to the function's own code; the last ones run the binary behind the
//! local gateway. The events in `tests/data/events` have the shape that AWS documents.

use axum::{
    body::Bytes,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Uri, header},
    response::{AppendHeaders, IntoResponse},
    routing::{MethodRouter, any, get},
};
use lambda_http::request::LambdaRequest;
use lambda_runtime::{Context, LambdaEvent};
use math_service::{
    app::App,
    auth::access::Guarded,
    config::Config,
    http::Routes,
    lifecycle::Lifecycle,
    targets::{Target, event::Event, lambda},
    telemetry::{context, metrics::Metrics},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{
    gateway::{Front, Gateway, Options, Output},
    support::{PATIENCE, addition, lambda_binary, request},
};

const FRONTS: [&str; 6] = ["rest-v1", "http-v2", "http-v2-stage", "function-url", "alb-single", "alb-multi"];

fn event(name: &str) -> Value {
    let path = format!("{}/tests/data/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).expect(&path)).unwrap()
}

fn config(settings: &[(&str, &str)]) -> Config {
    let get = |name: &str| {
        settings.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
    };
    Config::from_env(get).unwrap()
}

async fn answer_of(app: App, event: Value) -> Value {
    let Event(payload) = serde_json::from_value(event).expect("a gateway's event");
    let mut context = Context::default();
    context.request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef".to_owned();
    serde_json::to_value(lambda::answer(app, LambdaEvent::new(payload, context)).await).unwrap()
}

/// A container makes its table before it listens, a function when a request needs it: nobody shall find out then.
#[test]
fn the_functions_routes_do_not_collide() {
    App::new(&config(&[]), Target::Lambda, None).unwrap().make_table().unwrap();
}

#[test]
fn every_event_is_read_as_lambda_http_reads_it_spaces_or_not() {
    for name in [&FRONTS[..], &["alb-health-check"]].concat() {
        let event = event(name);
        let texts = [event.to_string(), serde_json::to_string_pretty(&event).unwrap()];
        // An event of another kind that holds the members by which the other kinds are told.
        let misleading = texts[0].replacen('{', r#"{"stageVariables":{"version":"2.0"},"elb":{},"#, 1);
        for text in texts.into_iter().chain([misleading]) {
            let expected: Result<LambdaRequest, _> = serde_json::from_str(&text);
            let read: Result<Event, _> = serde_json::from_str(&text);
            match (read, expected) {
                (Ok(Event(read)), Ok(expected)) => {
                    assert_eq!(format!("{read:?}"), format!("{expected:?}"), "{text}")
                }
                (Err(_), Err(_)) => {}
                (read, expected) => panic!("{read:?} is not {expected:?}: {text}"),
            }
        }
    }
}

/// What the service answers to an event.
async fn answer(event: Value) -> Value {
    answer_of(App::new(&config(&[]), Target::Lambda, None).unwrap(), event).await
}

/// What a handler of the test's own answers.
async fn answer_from(routes: Routes, event: Value) -> Value {
    let metrics = Metrics::new(None, false).unwrap();
    answer_of(
        App::around(routes, Guarded::default(), &config(&[]), Lifecycle::default(), metrics).unwrap(),
        event,
    )
    .await
}

/// The cookie of a new session, in answer to an event for `GET /fibonacci`.
async fn session_cookie(mut event: Value) -> String {
    for path in ["rawPath", "path"] {
        if event.get(path).is_some() {
            event[path] = json!("/fibonacci");
        }
    }
    let context = &mut event["requestContext"];
    if context.get("http").is_some() {
        context["http"]["method"] = json!("GET");
        context["stage"] = json!("$default");
    }
    if event.get("httpMethod").is_some() {
        event["httpMethod"] = json!("GET");
    }
    let answer = answer(event).await;
    let cookie = [&answer["cookies"][0], &answer["multiValueHeaders"]["set-cookie"][0]];
    cookie.into_iter().find_map(Value::as_str).expect("a cookie").to_owned()
}

#[tokio::test]
async fn the_session_cookie_is_secure_wherever_the_gateway_speaks_tls() {
    for front in ["rest-v1", "http-v2", "function-url"] {
        let cookie = session_cookie(event(front)).await;
        assert!(cookie.starts_with("math_session=") && cookie.ends_with("; Secure"), "{front}: {cookie}");
    }
    // A load balancer says which of its listeners it was.
    for (scheme, is_secure) in [("http", false), ("https", true)] {
        let mut event = event("alb-multi");
        event["multiValueHeaders"]["x-forwarded-proto"] = json!([scheme]);
        assert_eq!(session_cookie(event).await.ends_with("; Secure"), is_secure, "{scheme}");
    }
}

/// One handler at every path.
fn everywhere(handler: MethodRouter) -> Routes {
    vec![("/", handler.clone()), ("/{*path}", handler)]
}

/// The request as a handler sees it, as JSON.
async fn seen(event: Value) -> Value {
    async fn show(uri: Uri, headers: HeaderMap, body: Bytes) -> axum::Json<Value> {
        let all = |name: &HeaderName| -> Vec<String> {
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect()
        };
        axum::Json(json!({
            "uri": uri.to_string(),
            "headers": headers.keys().map(|name| (name.to_string(), all(name))).collect::<std::collections::BTreeMap<_, _>>(),
            "client": context::with(|request| request.client).flatten(),
            "body": String::from_utf8_lossy(&body),
        }))
    }
    let answer = answer_from(everywhere(any(show)), event).await;
    serde_json::from_str(answer["body"].as_str().unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

fn header<'a>(answer: &'a Value, name: &str) -> &'a str {
    let value = &answer["headers"][name];
    let value = if value.is_null() { &answer["multiValueHeaders"][name][0] } else { value };
    value.as_str().unwrap_or_default()
}

/// Where the event of a front keeps its path.
fn set_path(event: &mut Value, path: &str) {
    if event["version"] == "2.0" {
        let stage = event["requestContext"]["stage"].as_str().unwrap_or_default();
        let path = if stage == "$default" { path.to_owned() } else { format!("/{stage}{path}") };
        event["requestContext"]["http"]["path"] = path.clone().into();
        event["rawPath"] = path.into();
    } else {
        event["path"] = path.into();
    }
}

/// A header in whichever map the front has.
fn set_header(event: &mut Value, name: &str, value: &str) {
    for (map, value) in [("headers", json!(value)), ("multiValueHeaders", json!([value]))] {
        if let Some(map) = event[map].as_object_mut() {
            map.retain(|key, _| !key.eq_ignore_ascii_case(name));
            map.insert(name.to_owned(), value);
        }
    }
}

#[tokio::test]
async fn the_sum_is_the_same_behind_every_front() {
    for front in FRONTS {
        let answer = answer(event(front)).await;
        assert_eq!(
            (&answer["statusCode"], &answer["body"]),
            (&json!(200), &json!(r#"{"result":15.0}"#)),
            "{front}"
        );
        assert_eq!(answer["isBase64Encoded"], false, "{front}");
        assert_eq!(header(&answer, "content-type"), "application/json", "{front}");
    }
}

#[tokio::test]
async fn the_stage_is_no_part_of_the_path() {
    for front in FRONTS {
        for path in ["/", "/dev", "/healthz", "/prod/dev"] {
            let mut event = event(front);
            set_path(&mut event, path);
            assert_eq!(seen(event).await["uri"], path, "{front}");
        }
    }
    // A named stage without a slash behind it, as HTTP APIs send it for the root.
    let mut root = event("http-v2-stage");
    root["rawPath"] = "/dev".into();
    assert_eq!(seen(root).await["uri"], "/");
    // Only a whole segment is the stage.
    let mut event = event("http-v2-stage");
    event["rawPath"] = "/development/x".into();
    assert_eq!(seen(event).await["uri"], "/development/x");
}

#[tokio::test]
async fn a_custom_domain_mapping_named_like_the_stage_is_no_part_of_the_path_either() {
    let mut event = event("rest-v1");
    event["path"] = "/prod/healthz".into();
    event["requestContext"]["path"] = "/prod/healthz".into();
    assert_eq!(seen(event).await["uri"], "/healthz");
}

#[tokio::test]
async fn any_other_custom_domain_mapping_is_removed_by_base_path() {
    for front in FRONTS {
        let mut event = event(front);
        set_path(&mut event, "/math/healthz");
        event["httpMethod"] = "GET".into();
        if event["version"] == "2.0" {
            event["requestContext"]["http"]["method"] = "GET".into();
        }
        let app = App::new(&config(&[("BASE_PATH", "/math")]), Target::Lambda, None).unwrap();
        assert_eq!(answer_of(app, event.clone()).await["body"], r#"{"status":"ok"}"#, "{front}");
        assert_eq!(answer(event).await["statusCode"], 404, "{front}");
    }
}

#[tokio::test]
async fn paths_are_neither_resolved_nor_a_reason_to_fail() {
    for front in FRONTS {
        for (sent, expected) in [
            ("/a/../b", "/a/../b"),
            ("/a b", "/a%20b"),
            ("/a%20b", "/a%20b"),
            ("/gr\u{fc}n\u{2603}", "/gr%C3%BCn%E2%98%83"),
            ("/<\"?#>", "/%3C%22%3F%23%3E"),
            ("/\u{1}\n", "/%01%0A"),
            ("", "/"),
        ] {
            let mut event = event(front);
            set_path(&mut event, sent);
            assert_eq!(seen(event).await["uri"], expected, "{front} {sent:?}");
        }
    }
}

#[tokio::test]
async fn a_path_too_long_for_a_uri_is_answered_414() {
    for front in FRONTS {
        let mut event = event(front);
        set_path(&mut event, &format!("/{}", "x".repeat(70_000)));
        set_header(&mut event, "x-request-id", "long-1");
        let answer = answer(event).await;
        assert_eq!(answer["statusCode"], 414, "{front}");
        assert_eq!(header(&answer, "x-request-id"), "long-1", "{front}");
    }
}

#[tokio::test]
async fn queries_arrive_as_they_were_sent() {
    let mut http = event("http-v2");
    http["rawQueryString"] = "a=1&a=2&b=x%20y&c=\"<".into();
    assert_eq!(seen(http).await["uri"], "/?a=1&a=2&b=x%20y&c=%22%3C");
    // A REST API hands over decoded values; a load balancer does not decode.
    let mut rest = event("rest-v1");
    rest["queryStringParameters"] = json!({"b": "x y&z"});
    rest["multiValueQueryStringParameters"] = json!({"b": ["1", "x y&z"]});
    assert_eq!(seen(rest).await["uri"], "/?b=1&b=x%20y%26z");
    let mut alb = event("alb-single");
    alb["queryStringParameters"] = json!({"b": "x%20y"});
    assert_eq!(seen(alb).await["uri"], "/?b=x%20y");
}

#[tokio::test]
async fn every_value_of_a_repeated_request_header_arrives() {
    for front in ["rest-v1", "alb-multi"] {
        let mut event = event(front);
        event["multiValueHeaders"]["x-many"] = json!(["one", "two"]);
        if front == "rest-v1" {
            event["headers"]["x-many"] = "two".into();
        }
        assert_eq!(seen(event).await["headers"]["x-many"], json!(["one", "two"]), "{front}");
    }
}

#[tokio::test]
async fn cookies_of_an_http_api_are_one_header_again() {
    let mut event = event("http-v2");
    event["cookies"] = json!(["a=1", "b=2"]);
    assert_eq!(seen(event).await["headers"]["cookie"], json!(["a=1; b=2"]));
}

#[tokio::test]
async fn repeated_response_headers_are_joined_and_cookies_are_not() {
    async fn repeats() -> impl IntoResponse {
        AppendHeaders([
            (HeaderName::from_static("x-many"), HeaderValue::from_static("one")),
            (HeaderName::from_static("x-many"), HeaderValue::from_static("two")),
            (header::SET_COOKIE, HeaderValue::from_static("a=1")),
            (header::SET_COOKIE, HeaderValue::from_static("b=2")),
        ])
    }
    for front in FRONTS {
        let answer = answer_from(vec![("/", any(repeats))], event(front)).await;
        assert_eq!(header(&answer, "x-many"), "one, two", "{front}");
        let cookies = if answer["cookies"].is_null() {
            &answer["multiValueHeaders"]["set-cookie"]
        } else {
            &answer["cookies"]
        };
        assert_eq!(cookies, &json!(["a=1", "b=2"]), "{front}");
    }
}

#[tokio::test]
async fn text_of_any_type_stays_text_and_only_the_rest_becomes_base64() {
    let typed = |content_type: &'static str, body: &'static [u8]| {
        everywhere(any(move || async move { ([(header::CONTENT_TYPE, content_type)], body) }))
    };
    for front in FRONTS {
        for content_type in [
            "application/problem+json",
            "application/openmetrics-text",
            "application/x-yaml",
            "image/svg+xml",
        ] {
            let answer = answer_from(typed(content_type, "gr\u{fc}n".as_bytes()), event(front)).await;
            assert_eq!(
                (&answer["isBase64Encoded"], &answer["body"]),
                (&json!(false), &json!("gr\u{fc}n")),
                "{front}"
            );
        }
        let untyped = everywhere(any(|| async {
            axum::response::Response::new(axum::body::Body::from(&b"\xff\x00"[..]))
        }));
        let answer = answer_from(untyped, event(front)).await;
        assert_eq!(
            (&answer["isBase64Encoded"], &answer["body"]),
            (&json!(true), &json!("/wA=")),
            "{front}: not decoded as UTF-8"
        );
        let compressed = everywhere(any(|| async { ([(header::CONTENT_ENCODING, "gzip")], "abc") }));
        assert_eq!(answer_from(compressed, event(front)).await["isBase64Encoded"], true, "{front}");
    }
}

#[tokio::test]
async fn a_base64_request_body_is_decoded_and_a_broken_one_is_answered_400() {
    for front in FRONTS {
        let mut event = event(front);
        event["isBase64Encoded"] = true.into();
        event["body"] = "eyJhIjoxMCwiYiI6NX0=".into();
        assert_eq!(answer(event.clone()).await["body"], r#"{"result":15.0}"#, "{front}");
        event["body"] = "not base64!".into();
        set_header(&mut event, "x-request-id", "b64-1");
        let answer = answer(event).await;
        assert_eq!(
            (&answer["statusCode"], header(&answer, "x-request-id")),
            (&json!(400), "b64-1"),
            "{front}"
        );
    }
}

#[tokio::test]
async fn the_client_ip_comes_from_the_events_context() {
    for front in FRONTS {
        let mut event = event(front);
        // What the caller claims stands on the left; the gateway's own word is in the context, or last.
        set_header(&mut event, "x-forwarded-for", "6.6.6.6, 203.0.113.7");
        assert_eq!(seen(event).await["client"], "203.0.113.7", "{front}");
    }
    assert_eq!(seen(event("alb-health-check")).await["client"], Value::Null);
}

#[tokio::test]
async fn metrics_are_labelled_with_the_matched_route_not_with_the_uri() {
    let metrics = Metrics::new(None, false).unwrap();
    let routes = vec![("/things/{id}", any(async || "thing"))];
    for front in FRONTS {
        let app = App::around(
            routes.clone(),
            Guarded::default(),
            &config(&[]),
            Lifecycle::default(),
            metrics.clone(),
        )
        .unwrap();
        let mut event = event(front);
        set_path(&mut event, &format!("/things/{front}"));
        answer_of(app, event).await;
    }
    let text = String::from_utf8(metrics.render().unwrap()).unwrap();
    let expected = r#"http_server_request_duration_seconds_count{http_request_method="POST",http_response_status_class="2xx",http_route="/things/{id}"} 6"#;
    assert!(text.contains(expected), "{text}");
}

#[tokio::test]
async fn a_malformed_host_is_answered_400() {
    for front in FRONTS {
        for host in ["a b", "h:99999", "[::1", "<h>", "a,b"] {
            let mut event = event(front);
            set_header(&mut event, "Host", host);
            let answer = answer(event).await;
            assert_eq!(answer["statusCode"], 400, "{front} {host}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_load_balancers_health_check_is_answered() {
    let answer = answer(event("alb-health-check")).await;
    assert_eq!((&answer["statusCode"], &answer["body"]), (&json!(200), &json!(r#"{"status":"ok"}"#)));
    assert_eq!(answer["statusDescription"], "200 OK");
}

#[tokio::test]
async fn the_invocations_id_names_a_request_that_brought_none() {
    let given = answer(event("http-v2")).await;
    assert_eq!(header(&given, "x-request-id"), "c6af9ac6-7b61-11e6-9a41-93e8deadbeef");
    let mut event = event("http-v2");
    event["headers"]["x-request-id"] = "mine".into();
    assert_eq!(header(&answer(event).await, "x-request-id"), "mine");
}

#[tokio::test]
async fn metrics_are_not_served_and_the_target_is_told() {
    let mut home = event("alb-health-check");
    home["path"] = "/".into();
    assert!(answer(home).await["body"].as_str().unwrap().contains(r#""target":"lambda""#));
    let mut metrics = event("alb-health-check");
    metrics["path"] = "/metrics".into();
    assert_eq!(answer(metrics).await["statusCode"], 404);
}

#[tokio::test]
async fn a_panic_answers_500_and_the_function_lives() {
    async fn panics(_: Request) {
        panic!("on purpose");
    }
    for front in FRONTS {
        let answer = answer_from(vec![("/", get(panics).post(panics))], event(front)).await;
        assert_eq!(answer["statusCode"], 500, "{front}");
    }
}

async fn gateway(env: &[(&str, &str)]) -> (Gateway, mpsc::UnboundedReceiver<String>) {
    let (lines, written) = mpsc::unbounded_channel();
    let mut options = Options::new(Front::HttpV2 { stage: None }, lambda_binary());
    options.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    options.stdout = Output::Lines(lines);
    (Gateway::start(options).await.expect("the function starts"), written)
}

async fn next_line(written: &mut mpsc::UnboundedReceiver<String>) -> Value {
    let line = tokio::time::timeout(PATIENCE, written.recv()).await.expect("a line").expect("an open pipe");
    serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}"))
}

#[tokio::test]
async fn lines_are_written_as_they_come_so_that_none_is_lost_when_the_function_is_frozen_or_killed() {
    let (gateway, mut written) = gateway(&[("ADD_DELAY", "1h"), ("REQUEST_TIMEOUT", "2h")]).await;
    let sent = tokio::spawn(addition(r#"{"a":10,"b":5}"#).send(gateway.addr()));
    assert_eq!(next_line(&mut written).await["event"], "Received addition request");
    assert!(!sent.is_finished(), "its answer takes an hour");
    sent.abort();
}

#[tokio::test]
async fn emf_lines_are_written_when_asked_for_only() {
    let (silent, mut written) = gateway(&[]).await;
    assert_eq!(request("GET", "/healthz").send(silent.addr()).await.status, 200);
    silent.terminate().await;
    assert_eq!(written.recv().await, None, "no line at all");

    let (gateway, mut written) = gateway(&[("EMF_METRICS", "true")]).await;
    assert_eq!(request("GET", "/healthz").send(gateway.addr()).await.status, 200);
    let line = next_line(&mut written).await;
    assert_eq!((&line["http_route"], &line["http_request_method"]), (&json!("/healthz"), &json!("GET")));
    assert!(line["http_server_request_duration_seconds"].as_f64().unwrap() > 0.0, "{line}");
}

#[tokio::test]
async fn the_gateway_reports_each_invocation_as_lambdas_log_does() {
    let (lines, mut written) = mpsc::unbounded_channel();
    let mut options = Options::new(Front::HttpV2 { stage: None }, lambda_binary());
    (options.stdout, options.reports) = (Output::Lines(lines), true);
    let gateway = Gateway::start(options).await.expect("the function starts");
    for is_first in [true, false] {
        let reply = request("GET", "/healthz").send(gateway.addr()).await;
        let id = reply.header("x-request-id").to_owned();
        let line =
            tokio::time::timeout(PATIENCE, written.recv()).await.expect("a line").expect("an open pipe");
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields[0], format!("REPORT RequestId: {id}"));
        let number = |field: usize, name: &str, unit: &str| -> f64 {
            let number = fields[field].strip_prefix(name).and_then(|rest| rest.strip_suffix(unit));
            number.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{line}"))
        };
        let (took, billed) = (number(1, "Duration:", "ms"), number(2, "Billed Duration:", "ms"));
        assert!(took > 0.0 && billed >= took && number(3, "Memory Size:", "MB") == 1769.0, "{line}");
        assert!(!cfg!(target_os = "linux") || number(4, "Max Memory Used:", "MB") > 0.0, "{line}");
        // INIT is billed with the first.
        assert!(
            if is_first { billed >= number(5, "Init Duration:", "ms") } else { fields[5].is_empty() },
            "{line}"
        );
    }
    gateway.terminate().await;
}

#[tokio::test]
async fn an_event_of_another_kind_fails_the_invocation_and_not_the_function() {
    let (gateway, _written) = gateway(&[]).await;
    for event in [json!({"source": "aws.events"}), json!([1]), json!("text"), Value::Null] {
        assert!(gateway.invoke(event).await.is_err());
    }
    assert_eq!(request("GET", "/healthz").send(gateway.addr()).await.status, 200);
}

#[tokio::test]
async fn the_schedule_is_answered_and_says_what_could_not_be_caught_up_with() {
    let event = json!({"version": "0", "id": "1", "detail-type": "Scheduled Event", "source": "aws.events", "detail": {}});
    let (idle, _written) = gateway(&[]).await;
    assert_eq!(idle.invoke(event.clone()).await.unwrap(), Value::Null);
    // A cluster that cannot be asked for, because the store would be wrong here.
    let (gateway, mut written) = gateway(&[("EKS_CLUSTER_NAME", "math")]).await;
    assert_eq!(gateway.invoke(event).await.unwrap(), Value::Null);
    let line = next_line(&mut written).await;
    assert_eq!(line["event"], "Could not catch up with the history of Jobs");
    assert!(line["reason"].as_str().unwrap().contains("STATE_URL"), "{line}");
}
