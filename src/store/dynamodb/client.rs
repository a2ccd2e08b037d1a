//! Requests to DynamoDB: JSON in, JSON out, signed, each sent once.

use std::{fmt, sync::Arc, time::SystemTime};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes};
use serde_json::Value;

use crate::{
    aws::{
        self,
        credentials::Chain,
        http::{self, Http},
        signature::Signer,
    },
    store::{StoreError, location::Table},
};

/// Largest answer, in bytes: DynamoDB's own limit is a megabyte of items, which JSON makes larger.
const LARGEST: usize = 4 << 20;

const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

pub(super) struct Client {
    http: Http,
    endpoint: Uri,
    region: String,
    credentials: Chain,
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
    /// With AWS's standard chain of credentials, unless there are others.
    pub(super) fn new(
        table: &Table,
        region: Option<&str>,
        credentials: Option<Chain>,
    ) -> Result<Self, StoreError> {
        let region = table.region.as_deref().or(region).map(str::to_owned);
        let region =
            region.ok_or_else(|| StoreError::new("neither AWS_REGION nor ?region= names a region"))?;
        let own = || format!("https://{}", aws::host("dynamodb", &region));
        let endpoint: Uri = table.endpoint.clone().unwrap_or_else(own).parse().map_err(StoreError::new)?;
        if endpoint.scheme().is_none() || endpoint.authority().is_none() {
            return Err(StoreError::new("the endpoint is no http or https URL"));
        }
        let standard = || Chain::new(region.clone(), Arc::new(SystemTime::now));
        let credentials = credentials.unwrap_or_else(standard);
        Ok(Self { http: http::client(None).map_err(StoreError::new)?, endpoint, region, credentials })
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
        let credentials = self.credentials.get().await.map_err(StoreError::new)?;
        let request = Request::post(&self.endpoint)
            .header("content-type", CONTENT_TYPE)
            .header("x-amz-target", format!("DynamoDB_20120810.{action}"))
            .body(Bytes::from(body))
            .map_err(StoreError::new)?;
        let signer = Signer {
            credentials: &credentials,
            region: &self.region,
            service: "dynamodb",
            now: SystemTime::now(),
        };
        Ok(signer.sign(request).map_err(StoreError::new)?.map(Full::new))
    }
}
