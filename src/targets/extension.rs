//! The function's registration as an internal extension, because Lambda sends SIGTERM to no other.
//!
//! Two requests of the Extensions API on one connection
//! (<https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html>). The client of
//! `lambda-extension` would do as well, but is a second connection pool to build in every cold start.

use std::time::Duration;

use axum::{
    body::Bytes,
    http::{HeaderName, Request, StatusCode, header::HOST},
};
use http_body_util::Full;
use hyper::{Response, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What Lambda calls this extension.
const NAME: (HeaderName, &str) = (HeaderName::from_static("lambda-extension-name"), "math-service");

/// What Lambda gives an extension to name itself with.
const IDENTIFIER: HeaderName = HeaderName::from_static("lambda-extension-identifier");

/// How long the Extensions API, on the same machine, may take to be reached, and then to answer.
const DEADLINE: Duration = Duration::from_secs(1);

/// A registration on its way.
pub(super) struct Registration {
    api: String,
    answer: Result<JoinHandle<Result<Answer, hyper::Error>>, Failure>,
}

/// What the Extensions API answered, and the connection to it.
type Answer = (Response<Incoming>, http1::SendRequest<Full<Bytes>>);

impl Registration {
    /// Asks the Extensions API at this address to register the function for no event.
    pub(super) async fn begin(api: &str) -> Self {
        let asked = timeout(DEADLINE, ask(api)).await;
        Self { api: api.to_owned(), answer: asked.unwrap_or_else(|late| Err(late.into())) }
    }

    /// Waits until it is registered.
    ///
    /// # Errors
    /// When there is no Extensions API at this address, or it refuses.
    pub(super) async fn end(self) -> Result<(), Failure> {
        let (response, mut sender) = timeout(DEADLINE, self.answer?).await???;
        if response.status() != StatusCode::OK {
            return Err(format!("the Extensions API answered {}", response.status()).into());
        }
        let identifier = response.headers().get(IDENTIFIER).ok_or("the Extensions API gave no identifier")?;
        let next = Request::get("/2020-01-01/extension/event/next")
            .header(HOST, self.api)
            .header(IDENTIFIER, identifier)
            .body(Full::default())?;
        // The call for the next event never returns; making it is what ends the extension's start.
        tokio::spawn(async move { sender.send_request(next).await });
        Ok(())
    }
}

async fn ask(api: &str) -> Result<JoinHandle<Result<Answer, hyper::Error>>, Failure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(TcpStream::connect(api).await?)).await?;
    let register = Request::post("/2020-01-01/extension/register")
        .header(HOST, api)
        .header(NAME.0, NAME.1)
        .body(Full::from(r#"{"events":[]}"#))?;
    let answer = tokio::spawn(async move { Ok((sender.send_request(register).await?, sender)) });
    tokio::spawn(connection);
    // Both get a turn before the caller goes on: what is asked is sent then.
    tokio::task::yield_now().await;
    Ok(answer)
}
