//! A stand-in for aws-lambda-web-adapter: starts an ordinary HTTP server (`BACKEND`) beside itself, waits
//! until that accepts connections, and passes each event on to it as an HTTP request.
//!
//! It shows what running the container's binary on Lambda unchanged would cost. It is not the adapter
//! itself: that one is an extension with settings and checks of its own, which cost a little more.

use std::{process::Stdio, time::Duration};

use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use lambda_http::{Body, Error, Request, Response, run, service_fn};
use tokio::{net::TcpStream, process::Command, time::sleep};

/// The adapter's own interval between two looks at the server.
const READINESS_INTERVAL: Duration = Duration::from_millis(10);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (backend, port) = (std::env::var("BACKEND")?, std::env::var("PORT")?);
    let mut server = Command::new(backend).env("HOST", "127.0.0.1").stdin(Stdio::null()).spawn()?;
    let authority = format!("127.0.0.1:{port}");
    while TcpStream::connect(&authority).await.is_err() {
        if let Some(status) = server.try_wait()? {
            return Err(format!("the server ended: {status}").into());
        }
        sleep(READINESS_INTERVAL).await;
    }
    let client = &Client::builder(TokioExecutor::new()).build(HttpConnector::new());
    let authority = authority.as_str();
    run(service_fn(move |event| forward(client, authority, event))).await
}

async fn forward(
    client: &Client<HttpConnector, Body>,
    authority: &str,
    mut event: Request,
) -> Result<Response<Body>, Error> {
    let path = event.uri().path_and_query().map_or("/", |path| path.as_str());
    *event.uri_mut() = format!("http://{authority}{path}").parse()?;
    let (parts, body) = client.request(event).await?.into_parts();
    let body = String::from_utf8(body.collect().await?.to_bytes().into())?;
    Ok(Response::from_parts(parts, body.into()))
}
