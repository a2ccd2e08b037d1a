//! A Lambda event: any JSON is answered or fails to deserialize; the function never panics.
#![no_main]

use std::sync::LazyLock;

use lambda_http::request::LambdaRequest;
use lambda_runtime::{Context, LambdaEvent};
use libfuzzer_sys::fuzz_target;
use math_service::{
    app::App,
    config::Config,
    targets::{Target, event::Event, lambda},
};
use tokio::runtime::{Builder, Runtime};

static FUNCTION: LazyLock<(App, Runtime)> = LazyLock::new(|| {
    let config = Config::from_env(|_| None).expect("the defaults are valid");
    let app = App::new(&config, Target::Lambda, None).expect("metrics register once");
    (app, Builder::new_current_thread().enable_time().build().expect("a runtime"))
});

fuzz_target!(|event: &[u8]| {
    let expected = serde_json::from_slice::<LambdaRequest>(event);
    let read = serde_json::from_slice::<Event>(event);
    assert_eq!(read.is_ok(), expected.is_ok(), "an event that one of the two cannot read");
    let Ok(Event(payload)) = read else { return };
    let (app, runtime) = &*FUNCTION;
    let answer = runtime.block_on(lambda::answer(app.clone(), LambdaEvent::new(payload, Context::default())));
    let answer = serde_json::to_value(answer).expect("an answer is JSON");
    let status = answer["statusCode"].as_u64().expect("a status");
    assert!((200..500).contains(&status) || status == 503, "{answer}");
});
