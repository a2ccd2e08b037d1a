//! The Lambda binary under AWS's own Runtime Interface Emulator.
//!
//! It takes one request at a time and crashes on more: concurrency is the local gateway's business.

use std::{net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{net::TcpStream, process::Command, time::Instant};

use crate::support::{PATIENCE, lambda_binary, request};

#[tokio::test]
#[ignore = "needs the emulator: make test brings it and sets RIE"]
async fn the_emulator_gets_the_sum_for_every_kind_of_event() {
    #[expect(clippy::disallowed_methods, reason = "an argument of this test, not a setting")]
    let emulator = PathBuf::from(std::env::var_os("RIE").expect("RIE names the emulator's binary"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let runtime_api = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _emulator = Command::new(emulator)
        .arg("--runtime-interface-emulator-address")
        .arg(format!("127.0.0.1:{port}"))
        .arg("--runtime-api-address")
        .arg(runtime_api.to_string())
        .arg(lambda_binary())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the emulator starts");
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        assert!(Instant::now() < deadline, "the emulator listens");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for front in ["rest-v1", "http-v2", "http-v2-stage", "function-url", "alb-single", "alb-multi"] {
        let event = format!("{}/tests/data/events/{front}.json", env!("CARGO_MANIFEST_DIR"));
        let invocation = request("POST", "/2015-03-31/functions/function/invocations")
            .body(std::fs::read(event).unwrap())
            .send(address)
            .await;
        let answer: Value = invocation.json();
        assert_eq!(
            (&answer["statusCode"], &answer["body"]),
            (&json!(200), &json!(r#"{"result":15.0}"#)),
            "{front}"
        );
    }
}
