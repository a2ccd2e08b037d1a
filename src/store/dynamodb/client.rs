//! Requests to DynamoDB: JSON in, JSON out, signed, each sent once.

use std::{fmt, time::SystemTime};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value;

use super::{credentials::Provider, signature::Signing};
use crate::{
    config::AwsEnvironment,
    store::{StoreError, location::Table},
};

/// An HTTP client that keeps connections for the next request.
pub(super) type Http = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Before the other side closes an idle connection, this one does: a request on its way to a closed
/// one would be lost, and must not be sent twice.
const IDLE: std::time::Duration = std::time::Duration::from_secs(10);

/// Largest answer, in bytes: two items are far below it.
const LARGEST: usize = 1 << 20;

const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

pub(super) struct Client {
    http: Http,
    endpoint: Uri,
    authority: String,
    region: String,
    credentials: Provider,
}

/// Why a request has no good answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// DynamoDB refused it, and nothing has happened.
    Refused { kind: String, body: Value },
    /// What became of it is unknown.
    Unknown(StoreError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The message may name the table and the role: that is for the log.
            Self::Refused { kind, body } => {
                let message = body["message"].as_str().or(body["Message"].as_str()).unwrap_or_default();
                write!(f, "DynamoDB refused: {kind}: {message}")
            }
            Self::Unknown(_) => f.write_str("the request to DynamoDB failed"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused { .. } => None,
            Self::Unknown(error) => error.source(),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Unknown(error)
    }
}

impl Client {
    pub(super) fn new(table: &Table, aws: &AwsEnvironment) -> Result<Self, StoreError> {
        let region = table.region.clone().or_else(|| aws.region.clone());
        let region =
            region.ok_or_else(|| StoreError::new("neither AWS_REGION nor ?region= names a region"))?;
        let endpoint = match &table.endpoint {
            Some(endpoint) => endpoint.clone(),
            None if region.starts_with("cn-") => format!("https://dynamodb.{region}.amazonaws.com.cn"),
            None => format!("https://dynamodb.{region}.amazonaws.com"),
        };
        let endpoint: Uri = endpoint.parse().map_err(StoreError::new)?;
        let authority = endpoint.authority().map(ToString::to_string);
        let authority = authority.ok_or_else(|| StoreError::new("the endpoint is no http or https URL"))?;
        Ok(Self { http: http()?, endpoint, authority, region, credentials: Provider::new(aws)? })
    }

    /// Sends one request.
    pub(super) async fn call(&self, action: &str, body: &Value) -> Result<Value, Failure> {
        let body = serde_json::to_vec(body).map_err(StoreError::new)?;
        let request = self.signed(action, body).await?;
        let answer = self.http.request(request).await.map_err(StoreError::new)?;
        let status = answer.status();
        let answer = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(StoreError::new)?;
        let body: Value = serde_json::from_slice(&answer.to_bytes()).map_err(StoreError::new)?;
        match status {
            StatusCode::OK => Ok(body),
            status if status.is_client_error() => {
                // `com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException`
                let kind =
                    body["__type"].as_str().and_then(|kind| kind.rsplit('#').next()).unwrap_or_default();
                Err(Failure::Refused { kind: kind.to_owned(), body })
            }
            status => Err(StoreError::new(format!("DynamoDB answered {status}")).into()),
        }
    }

    async fn signed(&self, action: &str, body: Vec<u8>) -> Result<Request<Full<Bytes>>, StoreError> {
        let credentials = self.credentials.get(&self.http).await?;
        let moment = basic_format(SystemTime::now());
        let target = format!("DynamoDB_20120810.{action}");
        let mut headers = vec![
            ("content-type", CONTENT_TYPE),
            ("host", self.authority.as_str()),
            ("x-amz-date", moment.as_str()),
        ];
        headers.extend(credentials.session_token.as_deref().map(|token| ("x-amz-security-token", token)));
        headers.push(("x-amz-target", target.as_str()));
        let signing = Signing {
            credentials: &credentials,
            region: &self.region,
            service: "dynamodb",
            moment: &moment,
            headers: &headers,
            body: &body,
        };
        let request = Request::post(&self.endpoint).header("authorization", signing.authorization());
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        request.body(Full::from(body)).map_err(StoreError::new)
    }
}

/// `20261121T101112Z`
fn basic_format(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment).to_string().replace(['-', ':'], "")
}

fn http() -> Result<Http, StoreError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .map_err(StoreError::new)?
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector))
}
