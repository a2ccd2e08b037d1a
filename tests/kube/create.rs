//! How long creating a Job takes through the service, beside a bare call of the `kube` crate's to the same API server.
//!
//! `latency.py` starts both and says where they are. Calls alternate, so that both meet the same moments of a machine that
//! does other things too; each side keeps its connection. Prints one JSON line.

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, Write},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, Uri, header, http::HeaderValue};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::batch::v1::Job;
use kube::{Api, api::PostParams, client::Body};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

/// Unmeasured pairs first: connections are made, and files and caches found.
const WARM_UP: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let told: BTreeMap<String, String> = serde_json::from_reader(io::stdin())?;
    let get = |name: &str| told.get(name).cloned().ok_or(format!("{name} is missing"));
    let pairs: usize = get("pairs")?.parse()?;
    let service = Service::new(&get("service")?, &get("caller")?, &get("namespace")?)?;
    let bare = bare(&get("server")?, &get("authority")?, &get("token")?, &get("namespace")?)?;

    let (mut ours, mut theirs, mut hops) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..WARM_UP + pairs {
        // Whoever goes second finds the server's caches warmer.
        let (a, b) = match number % 2 {
            0 => (service.create(number).await?, create(&bare, number).await?),
            _ => {
                let b = create(&bare, number).await?;
                (service.create(number).await?, b)
            }
        };
        let hop = service.add().await?;
        if number >= WARM_UP {
            ours.push(a);
            theirs.push(b);
            hops.push(hop);
        }
    }
    let mut ratios: Vec<f64> =
        ours.iter().zip(&theirs).map(|(a, b)| a.as_secs_f64() / b.as_secs_f64()).collect();
    let (ours, theirs) = (milliseconds(ours), milliseconds(theirs));
    let figures = json!({
        "pairs": pairs,
        // What it takes to reach the service at all: an addition.
        "hop_ms": milliseconds(hops),
        "service_ms": ours,
        "kube_ms": theirs,
        "ratio_of_medians": ours / theirs,
        "median_of_ratios": median(&mut ratios),
    });
    writeln!(io::stdout(), "{figures}")?;
    Ok(())
}

fn milliseconds(samples: Vec<Duration>) -> f64 {
    median(&mut samples.into_iter().map(|sample| sample.as_secs_f64() * 1e3).collect::<Vec<_>>())
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A Job that starts no pod, so that nothing but its creation is at work.
fn job(side: &str, number: usize) -> Value {
    let limits = json!({"cpu": "100m", "memory": "64Mi"});
    let security =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsUser": 65532});
    let container = json!({
        "name": "main", "image": "registry.example/team/tool:1", "resources": {"limits": limits}, "securityContext": security,
    });
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": format!("{side}-{number}")},
        "spec": {
            "parallelism": 0, "activeDeadlineSeconds": 3600, "ttlSecondsAfterFinished": 86400,
            "template": {"spec": {
                "automountServiceAccountToken": false, "restartPolicy": "Never", "containers": [container],
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            }},
        },
    })
}

struct Service {
    client: Client<HttpConnector, Full<Bytes>>,
    root: String,
    jobs: String,
    authorization: String,
}

impl Service {
    fn new(url: &str, caller: &str, namespace: &str) -> Result<Self, Failure> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(tcp),
            root: format!("{url}/"),
            jobs: format!("{url}/api/v1/namespaces/{namespace}/jobs"),
            authorization: format!("Bearer {caller}"),
        })
    }

    async fn create(&self, number: usize) -> Result<Duration, Failure> {
        let body = json!({"job_manifest": job("service", number)}).to_string();
        self.post(&self.jobs, body, StatusCode::CREATED).await
    }

    async fn add(&self) -> Result<Duration, Failure> {
        self.post(&self.root, json!({"a": 10, "b": 5}).to_string(), StatusCode::OK).await
    }

    async fn post(&self, url: &str, body: String, expected: StatusCode) -> Result<Duration, Failure> {
        let request = Request::post(url)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(body))?;
        let began = Instant::now();
        let answer = self.client.request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        let took = began.elapsed();
        if status != expected {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(took)
    }
}

/// The crate's client over the TLS that is here anyway, with the same token for every call.
fn bare(server: &str, authority: &str, token: &str, namespace: &str) -> Result<Api<Job>, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.map_err(|error| error.to_string())?)?;
    }
    let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
    let http = Client::builder(TokioExecutor::new()).build(connector);
    let authorization = HeaderValue::from_str(&format!("Bearer {token}"))?;
    let server: Uri = server.parse()?;
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let http = http.clone();
        let mut uri = request.uri().clone().into_parts();
        (uri.scheme, uri.authority) = (server.scheme().cloned(), server.authority().cloned());
        request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        async move {
            *request.uri_mut() = Uri::from_parts(uri)?;
            Ok::<_, Failure>(http.request(request).await?)
        }
    });
    Ok(Api::namespaced(kube::Client::new(service, namespace), namespace))
}

async fn create(jobs: &Api<Job>, number: usize) -> Result<Duration, Failure> {
    let job: Job = serde_json::from_value(job("kube", number))?;
    let began = Instant::now();
    jobs.create(&PostParams::default(), &job).await?;
    Ok(began.elapsed())
}
