//! `eks:DescribeCluster`: where the cluster's API server is, and which certificate authority to trust for it.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::error::ClusterError;
use crate::{
    auth::Clock,
    aws::{
        self,
        credentials::Credentials,
        http::{self, Http},
        signature::Signer,
    },
};

/// Longest time for the whole call.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Largest answer, in bytes; real ones have some 5 KB.
const LARGEST: usize = 256 * 1024;

/// The permission that the call needs.
pub const PERMISSION: &str = "eks:DescribeCluster";

/// One cluster as EKS knows it.
#[derive(Clone)]
pub(super) struct Eks {
    /// The cluster's name.
    pub(super) name: String,
    /// The region that it is in.
    pub(super) region: String,
    /// Another address than AWS's own, for stand-ins and VPC endpoints.
    pub(super) endpoint: Option<String>,
    /// The present, which signatures name.
    pub(super) clock: Clock,
}

/// How to reach the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// Its address; always HTTPS.
    pub(super) endpoint: Uri,
    /// The cluster's own certificate authority, PEM.
    pub(super) authority: Vec<u8>,
}

#[derive(Deserialize)]
struct Answer {
    cluster: Option<Described>,
}

/// Both are missing while a cluster is being created.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    endpoint: Option<String>,
    certificate_authority: Option<Authority>,
}

#[derive(Deserialize)]
struct Authority {
    data: Option<String>,
}

impl Eks {
    /// Asks EKS.
    ///
    /// # Errors
    /// Each as its own [`ClusterError`].
    pub(super) async fn describe(&self, credentials: &Credentials) -> Result<Description, ClusterError> {
        tokio::time::timeout(DEADLINE, self.ask(credentials))
            .await
            .map_err(|_| ClusterError::TimedOut { what: "asking EKS where the cluster is" })?
    }

    async fn ask(&self, credentials: &Credentials) -> Result<Description, ClusterError> {
        // For this one call: the next is rare, and a connection that waits for it would be dead.
        let client = http::client(None).map_err(ClusterError::eks)?;
        let (status, headers, body) = get(&client, self.request(credentials)?).await?;
        if status != StatusCode::OK {
            return Err(self.refusal(status, kind(&headers, &body), &body));
        }
        // The answer holds no secret, so the parser may quote it.
        let answer: Answer = serde_json::from_slice(&body).map_err(ClusterError::eks)?;
        let described = answer.cluster.ok_or_else(|| ClusterError::eks("EKS described no cluster"))?;
        let endpoint = described.endpoint.as_deref().map(str::parse::<Uri>);
        let authority = described.certificate_authority.and_then(|authority| authority.data);
        match (endpoint, authority) {
            (Some(Ok(endpoint)), Some(authority)) if is_https(&endpoint) => {
                let authority = BASE64_STANDARD.decode(authority.trim()).map_err(ClusterError::eks)?;
                Ok(Description { endpoint, authority })
            }
            (Some(_), Some(_)) => Err(ClusterError::eks("the cluster's endpoint is no HTTPS URL")),
            _ => Err(ClusterError::eks("the cluster has no endpoint yet")),
        }
    }

    fn request(&self, credentials: &Credentials) -> Result<Request<Full<Bytes>>, ClusterError> {
        let Self { name, region, endpoint, clock } = self;
        let endpoint = match endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://{}", aws::host("eks", region)),
        };
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC_BUT_DASHES);
        let request = Request::get(format!("{endpoint}/clusters/{name}"))
            .header(header::ACCEPT, "application/json")
            .body(Bytes::new())
            .map_err(ClusterError::eks)?;
        let signer = Signer { credentials, region, service: "eks", now: clock() };
        Ok(signer.sign(request).map_err(ClusterError::eks)?.map(Full::new))
    }

    fn refusal(&self, status: StatusCode, kind: String, body: &[u8]) -> ClusterError {
        // AWS's words may name the account and the role: that is for the log.
        let words = String::from_utf8_lossy(body.get(..500).unwrap_or(body)).into_owned();
        let cause = format!("EKS answered {status} {kind}: {words}");
        match (status, kind.as_str()) {
            (StatusCode::FORBIDDEN, "AccessDeniedException") => {
                let cause = Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(cause));
                ClusterError::Forbidden { permission: PERMISSION, cause }
            }
            (StatusCode::NOT_FOUND, "ResourceNotFoundException") => {
                ClusterError::NoCluster { name: self.name.clone(), region: self.region.clone() }
            }
            _ => ClusterError::eks(cause),
        }
    }
}

/// Names of clusters have letters, digits, dashes and underscores.
const NON_ALPHANUMERIC_BUT_DASHES: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

fn is_https(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https") && uri.authority().is_some()
}

async fn get(
    client: &Http,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, header::HeaderMap, Bytes), ClusterError> {
    let (head, body) = client.request(request).await.map_err(ClusterError::eks)?.into_parts();
    let body = Limited::new(body, LARGEST).collect().await.map_err(ClusterError::eks)?;
    Ok((head.status, head.headers, body.to_bytes()))
}

/// The error's kind: in a header, which gateways add to, or in the body.
fn kind(headers: &header::HeaderMap, body: &[u8]) -> String {
    let header = headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok().map(str::to_owned));
    let document = || serde_json::from_slice::<serde_json::Value>(body).ok();
    let kind = header.or_else(|| document()?["__type"].as_str().map(str::to_owned)).unwrap_or_default();
    // `ResourceNotFoundException:http://…`, `com.amazonaws.eks#ResourceNotFoundException`
    let kind = kind.split(':').next().unwrap_or_default();
    kind.rsplit('#').next().unwrap_or_default().to_owned()
}
