//! The API server: connections to the described endpoint that trust the described authority and no other.

use std::{error::Error, io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::{Bytes, Incoming},
    header::AUTHORIZATION,
    http::{HeaderValue, request::Parts, uri::Scheme},
};
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tower::{BoxError, Service, util::BoxCloneSyncService};

use super::{eks::Description, error::ClusterError};
use crate::aws::http::IDLE;

/// Longest time until a connection stands, TLS included.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Longest time for an answer, connecting and the body included.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Largest answer, in bytes: a page of 500 Jobs has some 5 MB.
const LARGEST: usize = 16 << 20;

/// What an answer says: all of it, or, of a watch, what comes when it comes.
pub(super) type AnswerBody = Either<Full<Bytes>, Incoming>;

/// An API server and the connections to it.
pub(super) struct Server {
    pub(super) description: Description,
    http: Client<Connector, Full<Bytes>>,
}

type Connector = BoxCloneSyncService<Uri, MaybeHttpsStream<TokioIo<TcpStream>>, BoxError>;

impl Server {
    /// Reads the authority; connects to nobody yet.
    pub(super) fn new(description: Description) -> Result<Self, ClusterError> {
        let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(ClusterError::eks)?
            .with_root_certificates(roots(&description.authority)?)
            .with_no_client_auth();
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector(tls));
        Ok(Self { description, http })
    }

    /// One request, sent once, and its whole answer; of a watch, its beginning.
    pub(super) async fn send(
        &self,
        head: &Parts,
        body: &Bytes,
        token: &HeaderValue,
    ) -> Result<Response<AnswerBody>, ClusterError> {
        let is_watch = is_watch(&head.uri);
        let request = self.request(head, body, token)?;
        let answer = async {
            let (head, body) = self.http.request(request).await.map_err(failure)?.into_parts();
            if is_watch && head.status.is_success() {
                return Ok(Response::from_parts(head, Either::Right(body)));
            }
            let body = Limited::new(body, LARGEST).collect().await;
            let body = body.map_err(|error| ClusterError::Broken(error.into()))?;
            Ok(Response::from_parts(head, Either::Left(Full::new(body.to_bytes()))))
        };
        tokio::time::timeout(ANSWER_DEADLINE, answer)
            .await
            .map_err(|_| ClusterError::TimedOut { what: "the answer of the cluster's API server" })?
    }

    fn request(
        &self,
        head: &Parts,
        body: &Bytes,
        token: &HeaderValue,
    ) -> Result<Request<Full<Bytes>>, ClusterError> {
        let mut uri = head.uri.clone().into_parts();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = self.description.endpoint.authority().cloned();
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).map_err(ClusterError::eks)?;
        *request.headers_mut() = HeaderMap::clone(&head.headers);
        request.headers_mut().insert(AUTHORIZATION, token.clone());
        Ok(request)
    }
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|parameter| parameter == "watch=true"))
}

fn roots(authority: &[u8]) -> Result<RootCertStore, ClusterError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate.map_err(ClusterError::eks)?).map_err(ClusterError::eks)?;
    }
    match roots.is_empty() {
        true => Err(ClusterError::eks("the cluster's certificate authority holds no certificate")),
        false => Ok(roots),
    }
}

/// TCP and TLS within their deadline: hyper's own ends with TCP.
fn connector(tls: ClientConfig) -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let https =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
    BoxCloneSyncService::new(tower::service_fn(move |uri: Uri| {
        let mut https = https.clone();
        async move {
            std::future::poll_fn(|context| https.poll_ready(context)).await?;
            tokio::time::timeout(CONNECT_DEADLINE, https.call(uri)).await?
        }
    }))
}

/// hyper tells whether there was a connection; rustls stands among the sources when TLS was the reason.
fn failure(error: hyper_util::client::legacy::Error) -> ClusterError {
    let (is_connect, is_tls) = (error.is_connect(), is_tls(&error));
    let cause = Arc::new(error);
    match (is_connect, is_tls) {
        (true, true) => ClusterError::Tls(cause),
        (true, false) => ClusterError::Unreachable(cause),
        (false, _) => ClusterError::Broken(cause),
    }
}

fn is_tls(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        // What an I/O error carries is not among its sources.
        Some(error) => error.get_ref().map(|carried| carried as &(dyn Error + 'static)),
        None => error.source(),
    })
    .any(|error| error.is::<rustls::Error>())
}
