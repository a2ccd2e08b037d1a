//! The bearer token that EKS takes: a signed question to STS, which the cluster asks in our name to learn who we are.
//!
//! <https://github.com/kubernetes-sigs/aws-iam-authenticator#api-authorization-from-outside-a-cluster>, and
//! `aws eks get-token`, whose tokens these are to the byte.

use std::time::{Duration, SystemTime};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::{
    self,
    credentials::Credentials,
    signature::{Signer, Unsigned},
};

/// How long a token is good: from the moment that it names, whatever `X-Amz-Expires` says.
pub const LASTS: Duration = Duration::from_secs(15 * 60);

/// How long before its end a token is renewed: requests take time, and clocks differ.
pub const AHEAD: Duration = Duration::from_secs(60);

/// What the authenticator expects to find in `X-Amz-Expires`.
const EXPIRES: Duration = Duration::from_secs(60);

const PREFIX: &str = "k8s-aws-v1.";

/// Signed, so that a token for one cluster is good for no other.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";

/// What RFC 3986 leaves as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A token for `cluster`, good for [`LASTS`] from `now`. Asks nobody.
///
/// # Errors
/// When the cluster's name or the region is no text for a URL: neither passes as a setting.
pub fn mint(
    cluster: &str,
    region: &str,
    credentials: &Credentials,
    now: SystemTime,
) -> Result<String, Unsigned> {
    let host = aws::host("sts", region);
    let url = format!("https://{host}/?Action=GetCallerIdentity&Version=2011-06-15");
    let signer = Signer { credentials, region, service: "sts", now };
    let parameters = signer.presign(&url, &[(CLUSTER_HEADER, cluster)], EXPIRES)?;
    let url = parameters
        .iter()
        .fold(url, |url, (name, value)| format!("{url}&{name}={}", utf8_percent_encode(value, RESERVED)));
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(url)))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// What `aws eks get-token` answered; `tests/tokens.py` made them.
    #[derive(Deserialize)]
    struct Vector {
        cluster: String,
        region: String,
        now: String,
        access_key_id: String,
        secret_access_key: String,
        session_token: Option<String>,
        token: String,
    }

    #[test]
    fn tokens_are_those_of_aws_eks_get_token_to_the_byte() {
        let vectors = include_str!("../../../tests/data/eks-tokens.json");
        let vectors: Vec<Vector> = serde_json::from_str(vectors).unwrap();
        let with_session = vectors.iter().filter(|vector| vector.session_token.is_some()).count();
        assert!(with_session > 3 && vectors.len() - with_session > 3);
        for Vector { cluster, region, now, access_key_id, secret_access_key, session_token, token } in vectors
        {
            let credentials = Credentials::new(access_key_id, secret_access_key, session_token, None, "test");
            let now = humantime::parse_rfc3339(&now).unwrap();
            assert_eq!(mint(&cluster, &region, &credentials, now).unwrap(), token, "{cluster} in {region}");
        }
    }
}
