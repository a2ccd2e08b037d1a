//! What `simulate`, `compare` and `crossover` have in common: their options, and the files that those name.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args};
use math_service::lab::{
    chart,
    container::Pipeline,
    cost::Prices,
    inputs, report,
    run::Span,
    service::Profile,
    traffic::{Traffic, seconds},
    verdict::{Scenario, Side, Target},
};

/// What one file may hold.
const MOST_BYTES: u64 = 64 << 20;

pub(crate) const HELP: &str = "\
Run from a checkout, every file has a default:
  math-lab compare --traffic diurnal:5..200 --profile cpu=2ms,wait=50ms
For another overlay, or for what runs in a cluster:
  kubectl kustomize k8s/overlays/cpu-load | math-lab simulate eks --manifests -
  kubectl get deployments,hpa,services,ingresses -o yaml | math-lab compare --manifests -

TRAFFIC is constant:RATE, step:FROM..TO@START, ramp:FROM..TO@START+DURATION, spike:BASE..PEAK@START+DURATION or
diurnal:LOW..HIGH, in requests a second; or a file: the history of a Locust run (--csv, *_stats_history.csv), or YAML
such as {shape: points, points: [[0, 10], [60, 200]], linear: true, noise: 0.1, seed: 1}.
PROFILE is NAME=VALUE,…: cpu and wait of a request, start of a pod, init and sandbox of a cold start (times such as
0.5ms), memory (MiB, idle), request_memory (KiB), request_bytes, response_bytes, log_bytes; or a file with those as JSON or YAML.

Prices are list prices of the region and day that the output names; docs/lab.md says what is exact here, what is
approximate and what is left out.";

#[derive(Args)]
pub(crate) struct Options {
    /// Manifests: files or directories of YAML, `-` for standard input
    #[arg(long, short = 'f', value_name = "PATH", default_value = "k8s/base")]
    manifests: Vec<PathBuf>,
    /// eksctl's cluster configuration
    #[arg(long, value_name = "FILE", default_value = "cluster-config.yaml")]
    cluster: PathBuf,
    /// The function's SAM template
    #[arg(long, value_name = "FILE", default_value = "template.yaml")]
    template: PathBuf,
    /// Requests over time
    #[arg(long, default_value = "diurnal:1..20")]
    pub(crate) traffic: String,
    /// What a request costs
    #[arg(long, default_value = "cpu=0.01ms")]
    profile: String,
    /// What a request costs on Lambda, where that was measured apart
    #[arg(long, value_name = "PROFILE")]
    lambda_profile: Option<String>,
    /// How long: 90, 15m, 6h, 1d; up to a year
    #[arg(long, value_name = "TIME", default_value = "1d")]
    pub(crate) duration: String,
    /// How far single seconds are off the course, 0 to 1
    #[arg(long)]
    noise: Option<f64>,
    /// Another number is other noise
    #[arg(long)]
    seed: Option<u64>,
    /// Prices of this region instead of the cluster's: eu-west-2, us-east-1
    #[arg(long)]
    region: Option<String>,
    /// Prices of your own, in the form of src/lab/prices/
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Take Lambda's and API Gateway's monthly free tiers off
    #[arg(long)]
    free_tier: bool,
    /// The cluster's version is in extended support, which costs six times as much
    #[arg(long)]
    extended_support: bool,
    /// Memory of the function in MB, instead of the template's
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// The account's concurrency
    #[arg(long, value_name = "N", default_value_t = 1000)]
    account_concurrency: u32,
    /// Environments reserved for the function
    #[arg(long, value_name = "N")]
    reserved: Option<u32>,
    /// Environments kept initialized
    #[arg(long, value_name = "N")]
    provisioned: Option<u32>,
    /// How long an idle environment lives, which AWS does not document
    #[arg(long, value_name = "TIME", default_value = "5m")]
    idle: String,
    /// The gateway's own ceiling, which the template sets, does not hold
    #[arg(long)]
    no_throttle: bool,
    /// From the decision for a node to one that takes pods
    #[arg(long, value_name = "TIME", default_value = "90s")]
    node_start: String,
    /// From a pod's place on a node to a running container
    #[arg(long, value_name = "TIME", default_value = "2s")]
    pod_start: String,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) json: bool,
    /// Write charts
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write one page with everything
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

impl Options {
    pub(crate) fn scenario(&self) -> Result<Scenario, String> {
        let (mut cluster, region) = named(&self.cluster, inputs::cluster)?;
        cluster.node_start_seconds = time(&self.node_start)?;
        cluster.is_extended = self.extended_support;
        let mut workload = inputs::workload(&manifests(&self.manifests)?).map_err(|error| {
            let paths: Vec<String> = self.manifests.iter().map(|path| path.display().to_string()).collect();
            format!("{}: {error}", paths.join(", "))
        })?;
        workload.pod_start_seconds = time(&self.pod_start)?;
        let mut function = named(&self.template, inputs::function)?;
        function.memory_mb = self.memory.unwrap_or(function.memory_mb);
        function.account = self.account_concurrency;
        function.reserved = self.reserved.or(function.reserved);
        function.provisioned = self.provisioned.unwrap_or(function.provisioned);
        function.idle_seconds = time(&self.idle)?;
        if self.no_throttle {
            function.throttle = None;
        }
        let mut traffic = traffic(&self.traffic)?;
        traffic.noise = self.noise.unwrap_or(traffic.noise);
        traffic.seed = self.seed.unwrap_or(traffic.seed);
        traffic.check()?;
        let prices = match &self.prices {
            Some(path) => named(path, Prices::read)?,
            None => Prices::of(self.region.as_ref().unwrap_or(&region))?,
        };
        Ok(Scenario {
            cluster,
            workload,
            pipeline: Pipeline::default(),
            function,
            profile: profile(&self.profile)?,
            lambda_profile: self.lambda_profile.as_deref().map(profile).transpose()?,
            traffic,
            span: Span::of(time(&self.duration)?)?,
            prices,
            has_free_tier: self.free_tier,
        })
    }

    /// The files that were asked for.
    pub(crate) fn write_charts(
        &self,
        title: &str,
        text: &str,
        sides: &[(Target, Side)],
        prices: &Prices,
    ) -> Result<(), String> {
        if self.svg.is_none() && self.html.is_none() {
            return Ok(());
        }
        let panels = chart::panels(sides, prices)?;
        if let Some(path) = &self.svg {
            write(path, &chart::document(&panels))?;
        }
        if let Some(path) = &self.html {
            write(path, &report::html(title, text, &panels))?;
        }
        Ok(())
    }

    /// What the run is, in a few words.
    pub(crate) fn title(&self) -> String {
        format!("{} of {}, {}", self.duration, self.traffic, self.profile)
    }
}

fn time(text: &str) -> Result<u64, String> {
    seconds(text).ok_or_else(|| format!("{text:?} is no time of up to a year, such as 90s, 15m or 1d"))
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut text = String::new();
    let length = if path == Path::new("-") {
        std::io::stdin().lock().take(MOST_BYTES + 1).read_to_string(&mut text)
    } else {
        fs::File::open(path).map_err(failed)?.take(MOST_BYTES + 1).read_to_string(&mut text)
    }
    .map_err(failed)?;
    if length as u64 > MOST_BYTES {
        return Err(format!("{}: more than {} MB", path.display(), MOST_BYTES >> 20));
    }
    Ok(text)
}

pub(crate) fn named<T>(path: &Path, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    parse(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))
}

/// All documents of all files; of a directory those that are YAML, in order of their names.
pub(crate) fn manifests(paths: &[PathBuf]) -> Result<String, String> {
    let mut text = String::new();
    for path in paths {
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
            files = entries
                .filter_map(Result::ok)
                .map(|entry| entry.path())
                .filter(|path| is_yaml(path))
                .collect();
            files.sort();
        }
        for file in files {
            text.push_str("\n---\n");
            text.push_str(&read(&file)?);
        }
    }
    Ok(text)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

fn traffic(text: &str) -> Result<Traffic, String> {
    let path = Path::new(text);
    if text.contains(':') || !path.exists() {
        return Traffic::parse(text);
    }
    if path.extension().is_some_and(|extension| extension == "csv") {
        return named(path, Traffic::history);
    }
    let traffic: Traffic = named(path, inputs::typed)?;
    traffic.check().map_err(|error| format!("{text}: {error}"))?;
    Ok(traffic)
}

pub(crate) fn profile(text: &str) -> Result<Profile, String> {
    if text.contains('=') {
        return Profile::parse(text);
    }
    profile_file(Path::new(text))
}

pub(crate) fn profile_file(path: &Path) -> Result<Profile, String> {
    let profile: Profile = named(path, inputs::typed)?;
    profile.check().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(profile)
}

/// Prints; whoever closed the pipe has read enough.
pub(crate) fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(format!("standard output: {error}"))
        }
        _ => Ok(()),
    }
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
