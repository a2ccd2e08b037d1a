//! The function's registration as an internal extension, because Lambda sends SIGTERM to no other.
//!
//! Two requests of the Extensions API on one connection
//! (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>). The client of
//! `lambda-extension` would do as well, but is a second connection pool to build in every cold start.

use axum::http::{HeaderName, Request, StatusCode, header::HOST};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What Lambda calls this extension.
const NAME: (HeaderName, &str) = (HeaderName::from_static("lambda-extension-name"), "math-service");

/// What Lambda gives an extension to name itself with.
const IDENTIFIER: HeaderName = HeaderName::from_static("lambda-extension-identifier");

/// Registers for no event, at the Runtime API of this address.
///
/// # Errors
/// When there is no Extensions API at this address, or it refuses.
pub(super) async fn register(api: &str) -> Result<(), Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(api).await?)).await?;
    tokio::spawn(connection);

    let register = Request::post("/2020-01-01/extension/register")
        .header(HOST, api)
        .header(NAME.0, NAME.1)
        .body(r#"{"events":[]}"#.to_owned())?;
    let response = sender.send_request(register).await?;
    if response.status() != StatusCode::OK {
        return Err(format!("the Extensions API answered {}", response.status()).into());
    }
    let identifier = response.headers().get(IDENTIFIER).ok_or("the Extensions API gave no identifier")?;
    let next = Request::get("/2020-01-01/extension/event/next")
        .header(HOST, api)
        .header(IDENTIFIER, identifier)
        .body(String::new())?;
    // The call for the next event never returns; making it is what ends the extension's start.
    tokio::spawn(async move { sender.send_request(next).await });
    Ok(())
}
