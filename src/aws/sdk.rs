//! AWS's chain of credentials, with the HTTP client that is here anyway: the SDK's own brings HTTP/2, proxies and a second
//! set of authorities, which are half a megabyte of a binary.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes};

use super::http::{self, Http};

/// Credentials are some kilobytes.
const LONGEST_ANSWER: usize = 1024 * 1024;

/// The chain; STS is asked in `region`.
pub(super) async fn chain(region: String) -> Option<SharedCredentialsProvider> {
    let config = aws_config::defaults(BehaviorVersion::latest());
    config.region(Region::new(region)).http_client(client()).load().await.credentials_provider()
}

/// The client. The chain asks little, so each call has a connection of its own, with the timeouts that the chain wants for it.
fn client() -> SharedHttpClient {
    http_client_fn(|timeouts, _| {
        let http = http::client(timeouts.connect_timeout());
        SharedHttpConnector::new(Connector { http, read_timeout: timeouts.read_timeout() })
    })
}

#[derive(Debug)]
struct Connector {
    http: Result<Http, rustls::Error>,
    read_timeout: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let Self { http, read_timeout } = self;
        let (http, read_timeout) = (http.clone(), *read_timeout);
        HttpConnectorFuture::new(async move {
            let answer = send(http.map_err(|error| ConnectorError::user(error.into()))?, request);
            match read_timeout {
                Some(limit) => tokio::time::timeout(limit, answer)
                    .await
                    .map_err(|error| ConnectorError::timeout(error.into()))?,
                None => answer.await,
            }
        })
    }
}

async fn send(http: Http, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (head, body) = request.into_parts();
    let body = body.bytes().ok_or_else(|| ConnectorError::user("the chain streams no body".into()))?;
    let request = Request::from_parts(head, Full::from(Bytes::copy_from_slice(body)));
    let answer = http.request(request).await.map_err(|error| ConnectorError::io(error.into()))?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(ConnectorError::io)?.to_bytes();
    let answer = hyper::Response::from_parts(head, SdkBody::from(body));
    HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
}
