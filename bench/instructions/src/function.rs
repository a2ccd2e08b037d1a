//! The rows of the function.

use std::hint::black_box;

use lambda_http::request::LambdaRequest;
use lambda_runtime::{Context, LambdaEvent};
use math_service::{
    app::App,
    config::Config,
    lifecycle::Phase,
    targets::{Target, event::Event, lambda},
    telemetry,
};

use crate::{Outcome, Row, check, on_one_thread, repeat};

pub(crate) const ROWS: &[Row] = &[
    ("event text", |times| on_one_thread(texts(times))),
    ("Lambda event", |times| on_one_thread(events(times))),
    ("Lambda app", |times| on_one_thread(apps(times))),
];

/// An HTTP API's event, as recorded, without the spaces that gateways do not send either.
fn event_text() -> Outcome<String> {
    let event: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/events/http-v2.json"))?;
    Ok(event.to_string())
}

/// What a cold start makes before it can serve.
async fn apps(times: usize) -> Outcome {
    let config = Config::from_env(|_| None)?;
    repeat(
        times,
        None,
        || Ok(()),
        async |()| {
            black_box(App::new(&config, Target::Lambda, None)?);
            Ok(())
        },
    )
    .await
}

/// From an event's text to its type.
async fn texts(times: usize) -> Outcome {
    let text = event_text()?;
    repeat(
        times,
        None,
        || Ok(()),
        async |()| {
            black_box(serde_json::from_str::<Event>(&text)?);
            Ok(())
        },
    )
    .await
}

/// From an event to the text of its answer, with both log lines, which are written before it is sent.
async fn events(times: usize) -> Outcome {
    let config = Config::from_env(|_| None)?;
    let logs = telemetry::start(config.log_filter.clone(), Target::Lambda)?;
    let app = App::new(&config, Target::Lambda, Some(logs))?;
    app.lifecycle().advance(Phase::Ready);
    repeat(times, None, event, async |event| {
        let answer = lambda::answer(app.clone(), event).await;
        check(&serde_json::to_vec(&answer)?, ANSWER)
    })
    .await
}

const ANSWER: &str = concat!(
    r#"{"statusCode":200,"headers":{"content-type":"application/json","#,
    r#""x-request-id":"8476a536-e9f4-11e8-9739-2dfe598c3fcd","content-length":"15"},"multiValueHeaders":{},"#,
    r#""body":"{\"result\":15.0}","isBase64Encoded":false,"cookies":[]}"#,
);

fn event() -> Outcome<LambdaEvent<LambdaRequest>> {
    let mut context = Context::default();
    context.request_id = "8476a536-e9f4-11e8-9739-2dfe598c3fcd".to_owned();
    Ok(LambdaEvent::new(serde_json::from_str(&event_text()?)?, context))
}
