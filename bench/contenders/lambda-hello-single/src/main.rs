//! The smallest `lambda_http` function that adds, on one thread: a function has one event at a time, and
//! handing it from thread to thread costs more than the rest. Otherwise equal to `lambda-hello`.

use lambda_http::{Body, Error, Request, RequestPayloadExt, Response, run, service_fn, tracing};
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Operands {
    a: f64,
    b: f64,
}

#[derive(Serialize)]
struct Sum {
    result: f64,
}

async fn add(event: Request) -> Result<Response<Body>, Error> {
    let Some(Operands { a, b }) = event.payload()? else {
        return Ok(Response::builder().status(422).body(Body::Empty)?);
    };
    let sum = serde_json::to_string(&Sum { result: a + b })?;
    Ok(Response::builder().header("content-type", "application/json").body(sum.into())?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    run(service_fn(add)).await
}
