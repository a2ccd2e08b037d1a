//! The HTTP client for AWS's services: TLS with ring, connections kept for the next request.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

/// An HTTP client that keeps connections for the next request.
pub type Http = legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Before the other side closes an idle connection, this one does: a request on its way to a closed one would be lost,
/// and not all may be sent twice.
pub const IDLE: Duration = Duration::from_secs(10);

/// A client that trusts the public certificate authorities. Without encryption it speaks to whoever the settings name
/// so: AWS's own addresses are all HTTPS.
///
/// # Errors
/// When ring offers no TLS that rustls knows: a programming mistake.
pub fn client() -> Result<Http, rustls::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    Ok(legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build(connector))
}
