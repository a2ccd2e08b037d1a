//! AWS Signature Version 4, as far as DynamoDB needs it: a POST to `/` without a query.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use ring::{
    digest,
    hmac::{self, HMAC_SHA256},
};

use super::credentials::Credentials;
use crate::store::hex;

/// What is signed of a request: its body and some of its headers.
pub(super) struct Signing<'a> {
    pub(super) credentials: &'a Credentials,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// `20261121T101112Z`.
    pub(super) moment: &'a str,
    /// Lower-case names and their values, sorted by name.
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

impl Signing<'_> {
    /// The value of the `authorization` header.
    pub(super) fn authorization(&self) -> String {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let day = self.moment.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);

        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let canonical = format!("POST\n/\n\n{headers}\n{names}\n{}", sha256(self.body));
        let to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.moment, sha256(canonical.as_bytes()));

        let secret = format!("AWS4{}", self.credentials.secret_access_key);
        let parts = [day, self.region, self.service, "aws4_request", &to_sign];
        let signature = parts.iter().fold(secret.into_bytes(), |key, part| {
            hmac::sign(&hmac::Key::new(HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec()
        });
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
            self.credentials.access_key_id,
            hex(&signature)
        )
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `post-vanilla` of the test suite that AWS publishes for the algorithm.
    #[test]
    fn it_signs_as_awss_own_test_suite_expects() {
        let credentials = Credentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
            refresh_at: None,
        };
        let signing = Signing {
            credentials: &credentials,
            region: "us-east-1",
            service: "service",
            moment: "20150830T123600Z",
            headers: &[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")],
            body: b"",
        };
        assert_eq!(
            signing.authorization(),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
             SignedHeaders=host;x-amz-date, \
             Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
    }
}
