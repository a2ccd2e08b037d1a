//! `math-lab profile`: what a request costs, measured on what runs.

use std::{
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{ACCEPT, CONTENT_TYPE},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use math_service::lab::{
    measure::{Measured, Report, Scrape, Stretch, of_metrics, of_reports},
    service::Profile,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::scenario;

/// What an answer may hold; `/metrics` has some kilobytes.
const MOST_BYTES: usize = 4 << 20;
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(500);
/// The part of the requests, and of the time, that goes to requests one after the other.
const ALONE: u64 = 10;
/// More would say nothing new of the waiting.
const MOST_ALONE: u64 = 200;

/// CPU time and waiting of a request to a running endpoint, as `--profile` of the other commands takes them
#[derive(Args)]
#[command(after_help = "\
The container, one process of it, that nobody else uses meanwhile:
  kubectl port-forward deployment/math-service-deployment 8000
  math-lab profile http://localhost:8000 > profile.json
  math-lab compare --profile profile.json
The function, which has no /metrics, from its log:
  LOGS=$(aws cloudformation describe-stacks --stack-name math-service --output text \\
    --query \"Stacks[0].Outputs[?OutputKey=='LogGroup'].OutputValue\")
  aws logs tail $LOGS --since 1h | math-lab profile --reports - --cpu 9us
With --container instead of --cpu, that and the bytes of requests and answers are those of the container's profile.

What is not measured (cold starts on the container, logs, memory of a request) has the defaults of the simulation.")]
pub(crate) struct Measure {
    /// The service's address, http or https
    #[arg(conflicts_with_all = ["reports", "cpu", "container"])]
    url: Option<String>,
    /// How many requests at most
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    requests: u64,
    /// How many at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1000))]
    concurrency: u64,
    /// What they post
    #[arg(long, value_name = "JSON", default_value = r#"{"a": 10, "b": 5}"#)]
    body: String,
    /// Where to, below the address
    #[arg(long, default_value = "/")]
    path: String,
    /// How long to look at the idle process first
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    idle: u64,
    /// No request is sent after this; those under way may finish
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    time: u64,
    /// How long an answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=900))]
    timeout: u64,
    /// Lambda's log with its REPORT lines instead; `-` for standard input
    #[arg(long, value_name = "FILE")]
    reports: Option<PathBuf>,
    /// CPU time of a request, such as 9us, which REPORT lines of one memory size do not show
    #[arg(long, value_name = "TIME", requires = "reports")]
    cpu: Option<String>,
    /// The container's profile, which has what REPORT lines do not show: CPU time and bytes
    #[arg(long, value_name = "FILE", requires = "reports", conflicts_with = "cpu")]
    container: Option<PathBuf>,
}

pub(crate) fn run(command: &Measure) -> Result<ExitCode, String> {
    let measured = match (&command.reports, &command.url) {
        (Some(path), _) => {
            let cpu = command.cpu.as_ref().map(|cpu| Profile::parse(&format!("cpu={cpu},wait=1")));
            let container = command.container.as_deref().map(scenario::profile_file).transpose()?;
            let cpu = container.or(cpu.transpose()?).map(|profile| profile.cpu_ms);
            let reports = scenario::named(path, Report::read)?;
            say(&format!("{} invocations", reports.len()));
            let mut measured = of_reports(&reports, cpu)?;
            if let Some(container) = container {
                measured.profile.request_bytes = container.request_bytes;
                measured.profile.response_bytes = container.response_bytes;
            }
            measured
        }
        (None, Some(url)) => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| format!("no runtime: {error}"))?;
            runtime.block_on(measure(command, url))?
        }
        (None, None) => return Err("give an address, or --reports".into()),
    };
    measured.notes.iter().for_each(|note| say(&format!("note: {note}")));
    let json = serde_json::to_string_pretty(&measured.profile).map_err(|error| error.to_string())?;
    scenario::print(&format!("{json}\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// For people: the profile alone goes to standard output.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

async fn measure(command: &Measure, url: &str) -> Result<Measured, String> {
    let endpoint = Arc::new(Endpoint::new(command, url)?);
    let mut from = endpoint.scrape().await?;
    let mut began = Instant::now();
    say(&format!("idle: {} s", command.idle));
    sleep(Duration::from_secs(command.idle)).await;
    let mut stretch = async |answered: u64| -> Result<Stretch, String> {
        let to = endpoint.scrape().await?;
        let stretch = Stretch { from, to, seconds: began.elapsed().as_secs_f64(), answered };
        (from, began) = (to, Instant::now());
        Ok(stretch)
    };
    let idle = stretch(0).await?;
    let time = Duration::from_secs(command.time);
    let few = (command.requests / ALONE).clamp(1, MOST_ALONE);
    let answered = send(&endpoint, "one at a time", few, 1, time / ALONE as u32).await?;
    let alone = stretch(answered).await?;
    let name = format!("{} at a time", command.concurrency);
    let answered = send(&endpoint, &name, command.requests - few, command.concurrency, time).await?;
    let together = stretch(answered).await?;
    let mut measured = of_metrics(&idle, &alone, &together)?;
    measured.profile.request_bytes = endpoint.request_bytes as f64;
    measured.profile.response_bytes = endpoint.response_bytes.load(Ordering::Relaxed) as f64;
    Ok(measured)
}

/// Sends so many requests in so long, so many at once: how many answers came, all of them good.
async fn send(
    endpoint: &Arc<Endpoint>,
    name: &str,
    requests: u64,
    concurrency: u64,
    time: Duration,
) -> Result<u64, String> {
    let (begun, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let end = Instant::now() + time;
    let mut workers = JoinSet::new();
    for _ in 0..concurrency {
        let (endpoint, begun, done) = (endpoint.clone(), begun.clone(), done.clone());
        workers.spawn(async move {
            // The first goes out in any case: a request may take longer than the time for all.
            while begun.fetch_add(1, Ordering::Relaxed) < requests {
                endpoint.post().await?;
                done.fetch_add(1, Ordering::Relaxed);
                if Instant::now() >= end {
                    break;
                }
            }
            Ok::<(), String>(())
        });
    }
    let progress = |done: u64| say(&format!("{name}: {done} of {requests}"));
    let mut next = Instant::now() + PROGRESS;
    loop {
        tokio::select! {
            worker = workers.join_next() => match worker {
                Some(Ok(outcome)) => outcome?,
                Some(Err(error)) => return Err(format!("a worker ended: {error}")),
                None => break,
            },
            () = sleep_until(next) => {
                progress(done.load(Ordering::Relaxed));
                next += PROGRESS;
            }
        }
    }
    let done = done.load(Ordering::Relaxed);
    progress(done);
    Ok(done)
}

/// Where requests go, and how they look.
struct Endpoint {
    client: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    target: Uri,
    metrics: Uri,
    body: Bytes,
    timeout: Duration,
    request_bytes: usize,
    /// Of the latest answer.
    response_bytes: AtomicU64,
}

impl Endpoint {
    fn new(command: &Measure, url: &str) -> Result<Self, String> {
        let base = url.trim_end_matches('/');
        let at = |path: &str| {
            let address = format!("{base}/{}", path.trim_start_matches('/'));
            let wrong = || format!("{url:?} with {path:?} is no address such as http://localhost:8000");
            let uri: Uri = address.parse().map_err(|_| wrong())?;
            match (uri.scheme_str(), uri.host()) {
                (Some("http" | "https"), Some(_)) => Ok(uri),
                _ => Err(wrong()),
            }
        };
        let body = Bytes::from(command.body.clone());
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_secs(command.timeout)));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| format!("no TLS: {error}"))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let mut endpoint = Self {
            client: legacy::Client::builder(TokioExecutor::new()).build(connector),
            target: at(&command.path)?,
            metrics: at("/metrics")?,
            body,
            timeout: Duration::from_secs(command.timeout),
            request_bytes: 0,
            response_bytes: AtomicU64::new(0),
        };
        let path = endpoint.target.path_and_query().map_or(1, |path| path.as_str().len());
        // The client adds the Host and the length: three lines with their ends, and the empty one.
        let head = "POST  HTTP/1.1\r\nhost: \r\ncontent-length: \r\ncontent-type: application/json\r\n\
                    accept: application/json\r\n\r\n";
        let host = endpoint.target.authority().map_or(0, |host| host.as_str().len());
        let length = endpoint.body.len();
        endpoint.request_bytes = head.len() + path + host + length.to_string().len() + length;
        Ok(endpoint)
    }

    async fn scrape(&self) -> Result<Scrape, String> {
        let request = Request::get(self.metrics.clone());
        let (status, _, body) = self.send(request.body(Full::default())).await?;
        let address = &self.metrics;
        if status == StatusCode::NOT_FOUND {
            return Err(format!(
                "{address}: 404: a function has no metrics; profile it from its log, with --reports"
            ));
        }
        if status != StatusCode::OK {
            return Err(format!("{address}: status {status}"));
        }
        Scrape::read(&String::from_utf8_lossy(&body)).map_err(|error| format!("{address}: {error}"))
    }

    /// One request, whose answer must be a good one: what a failure costs is another question.
    async fn post(&self) -> Result<(), String> {
        let request = Request::post(self.target.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json");
        let (status, head, body) = self.send(request.body(Full::new(self.body.clone()))).await?;
        if !status.is_success() {
            let text: String = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(format!("{}: status {status}: {text}", self.target));
        }
        self.response_bytes.store((head + body.len()) as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The answer's status, the length of its head, and its body.
    async fn send(
        &self,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Result<(StatusCode, usize, Bytes), String> {
        let request = request.map_err(|error| error.to_string())?;
        let address = request.uri().clone();
        let exchange = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| math_service::telemetry::log::chain(&error))?;
            let (parts, body) = response.into_parts();
            let lines = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
            let head = "HTTP/1.1 200 OK\r\n\r\n".len() + lines.sum::<usize>();
            let body = Limited::new(body, MOST_BYTES).collect().await.map_err(|error| error.to_string())?;
            Ok::<_, String>((parts.status, head, body.to_bytes()))
        };
        match timeout(self.timeout, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{address}: {error}")),
            Err(_) => Err(format!("{address}: no answer within {} s", self.timeout.as_secs())),
        }
    }
}
