//! Who the process is to AWS: from its environment on Lambda, from the node's agent with EKS Pod
//! Identity and on ECS.

use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Uri, body::Bytes};
use serde::Deserialize;
use tokio::sync::RwLock;

use super::client::Http;
use crate::{config::AwsEnvironment, store::StoreError};

/// How long before they expire credentials are replaced: long enough for a clock that is wrong.
const AHEAD: Duration = Duration::from_secs(300);

/// Largest answer of the agent, in bytes; tokens have some 2 KB.
const LARGEST: usize = 65_536;

/// Hosts that credentials are taken from in clear text: this machine's own, and the agents of ECS and
/// of EKS Pod Identity.
const TRUSTED_HOSTS: [&str; 6] =
    ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]", "127.0.0.1", "[::1]", "localhost"];

/// An access key.
#[derive(Clone)]
pub(super) struct Credentials {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
    pub(super) session_token: Option<String>,
    /// When to ask for the next; `None` for never.
    pub(super) refresh_at: Option<SystemTime>,
}

/// Where credentials come from.
pub(super) struct Provider {
    source: Source,
    known: RwLock<Option<Credentials>>,
}

enum Source {
    Environment(Credentials),
    Agent { uri: Uri, token: Option<String>, token_file: Option<String> },
    Nowhere,
}

impl Provider {
    /// Reads what the environment says, and asks nobody yet.
    pub(super) fn new(aws: &AwsEnvironment) -> Result<Self, StoreError> {
        let source = match (&aws.access_key_id, &aws.secret_access_key, &aws.container_credentials_uri) {
            (Some(id), Some(secret), _) => Source::Environment(Credentials {
                access_key_id: id.clone(),
                secret_access_key: secret.clone(),
                session_token: aws.session_token.clone(),
                refresh_at: None,
            }),
            (_, _, Some(uri)) => Source::Agent {
                uri: trusted(uri)?,
                token: aws.container_token.clone(),
                token_file: aws.container_token_file.clone(),
            },
            _ => Source::Nowhere,
        };
        Ok(Self { source, known: RwLock::new(None) })
    }

    /// Credentials that are good for some minutes.
    pub(super) async fn get(&self, http: &Http) -> Result<Credentials, StoreError> {
        let (uri, token, token_file) = match &self.source {
            Source::Environment(credentials) => return Ok(credentials.clone()),
            Source::Agent { uri, token, token_file } => (uri, token, token_file),
            Source::Nowhere => {
                return Err(StoreError::new(
                    "no AWS credentials: neither AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY nor an agent",
                ));
            }
        };
        if let Some(known) = fresh(&*self.known.read().await) {
            return Ok(known);
        }
        let mut known = self.known.write().await;
        // Another call may have asked while this one waited.
        if let Some(known) = fresh(&known) {
            return Ok(known);
        }
        let token = match token_file {
            // Read each time: the kubelet replaces it.
            Some(path) => Some(tokio::fs::read_to_string(path).await.map_err(StoreError::new)?),
            None => token.clone(),
        };
        let new = ask(http, uri, token.as_deref().map(str::trim)).await?;
        *known = Some(new.clone());
        Ok(new)
    }
}

fn fresh(known: &Option<Credentials>) -> Option<Credentials> {
    known.clone().filter(|known| known.refresh_at.is_none_or(|at| SystemTime::now() < at))
}

/// The agent's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Issued {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

async fn ask(http: &Http, uri: &Uri, token: Option<&str>) -> Result<Credentials, StoreError> {
    let mut request = Request::get(uri);
    if let Some(token) = token {
        request = request.header("authorization", token);
    }
    let request = request.body(Full::<Bytes>::default()).map_err(StoreError::new)?;
    let answer = http.request(request).await.map_err(StoreError::new)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(StoreError::new)?;
    if !status.is_success() {
        return Err(StoreError::new(format!("the credentials' agent answered {status}")));
    }
    // The parser's error could quote a secret.
    let issued: Issued = serde_json::from_slice(&body.to_bytes())
        .map_err(|_| StoreError::new("the credentials' agent answered no credentials"))?;
    let expires = issued.expiration.and_then(|at| humantime::parse_rfc3339(&at).ok());
    Ok(Credentials {
        access_key_id: issued.access_key_id,
        secret_access_key: issued.secret_access_key,
        session_token: issued.token,
        refresh_at: expires.and_then(|at| at.checked_sub(AHEAD)),
    })
}

fn trusted(uri: &str) -> Result<Uri, StoreError> {
    let parsed: Uri = uri.parse().map_err(StoreError::new)?;
    let is_trusted = parsed.scheme_str() == Some("https")
        || parsed.host().is_some_and(|host| TRUSTED_HOSTS.contains(&host));
    if is_trusted {
        return Ok(parsed);
    }
    Err(StoreError::new("AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor an agent's address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_only_from_agents_or_over_tls() {
        for uri in [
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://169.254.170.2/v2/credentials/abc",
            "https://example.com/credentials",
            "http://localhost:8080/",
        ] {
            assert!(trusted(uri).is_ok(), "{uri}");
        }
        for uri in ["http://example.com/credentials", "http://169.254.170.23.example.com/", "/relative"] {
            assert!(trusted(uri).is_err(), "{uri}");
        }
    }
}
