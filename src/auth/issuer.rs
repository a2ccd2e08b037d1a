//! The issuer: which ones may be named, and the two documents that say which keys it signs with.

use std::{error::Error, fmt, net::IpAddr, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, Request, StatusCode, Uri, header, uri::Scheme},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use serde::{Deserialize, de::DeserializeOwned};

use super::jwk::KeySet;

/// The largest document that is read from an issuer, in bytes; those of real issuers have 1 to 20 KB.
pub const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

/// Longest time for both documents, connecting included.
pub const DEADLINE: Duration = Duration::from_secs(5);

const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// An issuer that may be asked for its keys: over HTTPS, or on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    name: String,
    discovery: Uri,
}

impl Issuer {
    /// Reads an issuer's URL; tokens and the discovery document must repeat it to the letter.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn parse(value: &str) -> Result<Self, String> {
        let discovery = format!("{}{WELL_KNOWN}", value.trim_end_matches('/')).parse::<Uri>().ok();
        discovery
            // OpenID Connect Discovery §3: neither a query nor a fragment.
            .filter(|uri| !value.contains(['?', '#']) && (is_https(uri) || is_http_on_this_machine(uri)))
            .map(|discovery| Self { name: value.to_owned(), discovery })
            .ok_or_else(|| {
                "an https URL without query, such as https://login.example.com/realms/math".to_owned()
            })
    }

    /// The issuer as it names itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for the keys: the discovery document first, which says where they are.
    pub(super) async fn keys(&self) -> Result<Fetched, FetchError> {
        match tokio::time::timeout(DEADLINE, self.fetch()).await {
            Ok(fetched) => fetched,
            Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs()).into()),
        }
    }

    async fn fetch(&self) -> Result<Fetched, FetchError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let client = self.client().await?;
        let (_, discovery) = get(&client, self.discovery.clone()).await?;
        let discovery: Discovery = json(&self.discovery, &discovery)?;
        if discovery.issuer != self.name {
            // OpenID Connect Discovery §4.3: or one issuer could speak for another.
            return Err(format!("{} is the document of another issuer", self.discovery).into());
        }
        let uri = self.keys_uri(&discovery.jwks_uri)?;
        let (headers, keys) = get(&client, uri.clone()).await?;
        let keys = KeySet::parse(&keys).map_err(|error| format!("{uri} is no key set: {error}"))?;
        Ok(Fetched { keys, max_age: max_age(&headers) })
    }

    /// Only an issuer on this machine may have keys on this machine, and only there without encryption.
    fn keys_uri(&self, value: &str) -> Result<Uri, FetchError> {
        let uri: Uri = value.parse().map_err(|_| format!("{} has a malformed jwks_uri", self.discovery))?;
        let is_local = !is_https(&self.discovery) && is_http_on_this_machine(&uri);
        if is_https(&uri) || is_local {
            return Ok(uri);
        }
        Err(format!("{} has a jwks_uri without https", self.discovery).into())
    }

    /// A client for one fetch. Keys are fetched every few minutes at most: no connection waits that long, and none is
    /// frozen with a Lambda function; the certificate authorities are those of now.
    async fn client(&self) -> Result<HttpClient, FetchError> {
        let roots = if is_https(&self.discovery) { roots().await? } else { RootCertStore::empty() };
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        // The URIs have been checked: HTTPS, or on this machine.
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Client::builder(TokioExecutor::new()).build(https))
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// The keys, and for how long they may be used without asking again, if the issuer said so.
pub(super) struct Fetched {
    pub(super) keys: KeySet,
    pub(super) max_age: Option<Duration>,
}

pub(crate) type FetchError = Box<dyn Error + Send + Sync>;

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS) && has_plain_authority(uri)
}

fn is_http_on_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    uri.scheme() == Some(&Scheme::HTTP) && is_loopback && has_plain_authority(uri)
}

/// A host, and nothing before it that could be taken for one.
fn has_plain_authority(uri: &Uri) -> bool {
    uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
}

/// The certificate authorities of this system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
pub(crate) async fn roots() -> Result<RootCertStore, FetchError> {
    let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let reasons: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(
            format!("no certificate authorities; SSL_CERT_FILE may name a file of them {reasons:?}").into()
        );
    }
    Ok(roots)
}

/// One document. A redirect is an answer like any other that is not 200: the issuer's word is its own URL.
async fn get(client: &HttpClient, uri: Uri) -> Result<(HeaderMap, Bytes), FetchError> {
    let request = Request::get(&uri)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("math-service/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())?;
    let (head, body) = client.request(request).await?.into_parts();
    if head.status != StatusCode::OK {
        return Err(format!("{uri} answered {}", head.status.as_u16()).into());
    }
    let body = Limited::new(body, MAX_DOCUMENT_BYTES).collect().await;
    let body = body.map_err(|error| format!("{uri} could not be read: {error}"))?;
    Ok((head.headers, body.to_bytes()))
}

fn json<T: DeserializeOwned>(uri: &Uri, document: &[u8]) -> Result<T, FetchError> {
    serde_json::from_slice(document)
        .map_err(|error| format!("{uri} is no discovery document: {error}").into())
}

/// `Cache-Control` (RFC 9111 §5.2.2). What must not be stored is as good as of no age.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives =
        values.flat_map(|value| value.split(',')).map(|text| text.trim().to_ascii_lowercase());
    directives.find_map(|directive| match directive.split_once('=') {
        Some(("max-age", seconds)) => seconds.trim_matches('"').parse().ok().map(Duration::from_secs),
        None if directive == "no-store" || directive == "no-cache" => Some(Duration::ZERO),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn an_issuer_has_https_or_is_on_this_machine() {
        for (value, discovery) in [
            ("https://a.example", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/x/", "https://a.example/x/.well-known/openid-configuration"),
            ("https://a.example:8443/x", "https://a.example:8443/x/.well-known/openid-configuration"),
            ("http://localhost:8080", "http://localhost:8080/.well-known/openid-configuration"),
            ("http://127.0.0.9", "http://127.0.0.9/.well-known/openid-configuration"),
            ("http://[::1]:80", "http://[::1]:80/.well-known/openid-configuration"),
        ] {
            let issuer = Issuer::parse(value).unwrap();
            assert_eq!((issuer.name(), issuer.discovery.to_string().as_str()), (value, discovery));
        }
        for value in [
            "a.example",
            "http://a.example",
            "http://localhost.a.example",
            "http://10.0.0.1",
            "http://127.0.0.1@a.example",
            "https://user@a.example",
            "https://",
            "https://a.example/?x",
            "https://a.example/#x",
            "https://a b",
            "ftp://localhost",
            "/",
        ] {
            assert!(Issuer::parse(value).is_err(), "{value}");
        }
    }

    #[test]
    fn keys_are_fetched_over_https_unless_issuer_and_keys_are_on_this_machine() {
        let remote = Issuer::parse("https://a.example").unwrap();
        let local = Issuer::parse("http://localhost:1").unwrap();
        assert!(remote.keys_uri("https://keys.example/jwks").is_ok());
        assert!(local.keys_uri("http://127.0.0.1:2/jwks").is_ok());
        assert!(local.keys_uri("https://keys.example/jwks").is_ok());
        for value in
            ["http://keys.example/jwks", "/jwks", "file:///etc/passwd", "https://a@b/jwks", "https://a b"]
        {
            assert!(remote.keys_uri(value).is_err() && local.keys_uri(value).is_err(), "{value}");
        }
        assert!(remote.keys_uri("http://127.0.0.1/jwks").is_err());
    }

    #[test]
    fn the_age_that_the_issuer_allows_is_read() {
        for (value, seconds) in [
            ("public, max-age=300, must-revalidate", Some(300)),
            ("Max-Age=\"60\"", Some(60)),
            ("no-store", Some(0)),
            ("private, no-cache", Some(0)),
            ("s-maxage=5", None),
            ("max-age=soon", None),
            ("max-age=-1", None),
            ("max-age=99999999999999999999999", None),
        ] {
            let headers = HeaderMap::from_iter([(header::CACHE_CONTROL, HeaderValue::from_static(value))]);
            assert_eq!(max_age(&headers), seconds.map(Duration::from_secs), "{value}");
        }
        assert_eq!(max_age(&HeaderMap::new()), None);
    }
}
