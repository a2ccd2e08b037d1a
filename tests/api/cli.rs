//! What the binaries do with arguments and settings.

use std::process::Output;

use tokio::process::Command;

use crate::support::{Server, lambda_binary, server_command};

async fn output(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test]
async fn help_lists_every_setting_and_version_is_one_line() {
    let (code, stdout, stderr) = output(server_command().arg("--help")).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for setting in math_service::config::SETTINGS {
        assert!(stdout.contains(setting.name), "{} is missing in:\n{stdout}", setting.name);
    }
    let (code, stdout, _) = output(server_command().arg("--version")).await;
    assert_eq!((code, stdout), (Some(0), format!("math-service {}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn a_bad_setting_is_one_line_that_names_it_and_exit_code_2() {
    let (code, stdout, stderr) = output(server_command().env("PORT", "http")).await;
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert_eq!(stderr, "math-service: PORT=\"http\": expected a whole number from 0 to 65535\n");
    let (code, _, stderr) = output(server_command().arg("--port=80")).await;
    assert_eq!((code, stderr.lines().count()), (Some(2), 1), "{stderr}");
    assert!(stderr.contains("\"--port=80\"") && stderr.contains("--help"), "{stderr}");
}

#[tokio::test]
async fn a_taken_port_is_one_line_that_names_it_and_exit_code_1() {
    let server = Server::start(&[]).await;
    let port = server.address.port().to_string();
    let (code, stdout, stderr) = output(server_command().env("HOST", "127.0.0.1").env("PORT", &port)).await;
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{stderr}");
    assert!(stderr.contains(&format!("PORT={port}")) && stderr.contains("in use"), "{stderr}");
}

#[tokio::test]
async fn the_lambda_binary_outside_of_lambda_says_what_to_run_instead() {
    let (code, stdout, stderr) = output(Command::new(lambda_binary()).env_clear()).await;
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{stderr}");
    assert!(stderr.contains("math-service"), "{stderr}");
}

#[tokio::test]
async fn a_bad_setting_stops_the_lambda_binary_too() {
    let mut command = Command::new(lambda_binary());
    command.env_clear().env("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9").env("ADD_DELAY", "soon");
    let (code, stdout, stderr) = output(&mut command).await;
    assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{stderr}");
    assert!(stderr.contains("ADD_DELAY=\"soon\""), "{stderr}");
}
