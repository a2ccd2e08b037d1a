//! `math-lab hpa`: cases, recorded runs and live manifests through the autoscaler's own rules.

use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Subcommand};
use math_service::lab::hpa::{
    cases, explain, minor_of,
    objects::{self, Objects},
    trace::{self, Line, Said},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// What one input may hold. A recorded run of half an hour is half a megabyte.
const MOST_BYTES: u64 = 256 << 20;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Decide cases given as JSON, one result a line
    #[command(after_help = DECIDE_HELP)]
    Decide(Decide),
    /// Replay a recorded run of the real controller, and compare
    #[command(after_help = REPLAY_HELP)]
    Replay(Replay),
    /// Explain step by step what would happen now, from what kubectl prints
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Explain),
}

const DECIDE_HELP: &str = "\
A case is an object with a `group` (what is computed) and the `config` that the controller runs with:
  {\"group\": \"convert_desired_replicas\", \"currentReplicas\": 3, \"desiredReplicas\": 50, \"minReplicas\": 1, \"maxReplicas\": 90}
A file of cases has `group` and `config` once, and the objects in `cases`. Several documents may follow each other.
Groups: replica_calc, group_pods, pod_requests, convert_desired_replicas, scale_limits, scaling_with_rules,
stabilize_legacy, stabilize_behaviors, store_scale_events, reconcile.

Each line of the output is the result of one case, with its `name`, in their order. A case that cannot be computed gets
{\"name\": …, \"invalid\": \"why\"}, and the exit code is 1.";

#[derive(Args)]
pub(crate) struct Decide {
    /// The cases; standard input when it is `-` or not given
    file: Option<PathBuf>,
    /// Also print what else the controller did (`reconcile`): status, events, memory
    #[arg(long)]
    observed: bool,
}

const REPLAY_HELP: &str = "\
Each line is one sync: {\"t\", \"proposed\", \"final\", \"able\", \"limited\", \"active\"} as these rules have it. `t` is in seconds,
`proposed` is what the metrics ask for before windows, bounds and rates, the last three are the reasons of the conditions
AbleToScale, ScalingLimited and ScalingActive. The last line is {\"agree\", \"of\"}: how many syncs are equal in all of these
to what was recorded.

By default each sync is shown the recorded pods, metrics and replicas, and remembers what it did itself. With --closed it
is shown the load only: pods follow from its own decisions.";

#[derive(Args)]
pub(crate) struct Replay {
    /// The recorded run, JSON, or JSON compressed by gzip
    trace: PathBuf,
    /// Model pods and metrics from the load instead of showing the recorded ones
    #[arg(long)]
    closed: bool,
    /// A table for people, in place of JSON lines
    #[arg(long)]
    table: bool,
}

const EXPLAIN_HELP: &str = "\
To see what the autoscaler `web` would do:
  kubectl get hpa,deployments,pods -o yaml > now.yaml
  kubectl get --raw /apis/metrics.k8s.io/v1beta1/namespaces/default/pods > metrics.json
  math-lab hpa explain now.yaml --metrics metrics.json

Files are YAML or JSON, with one object, a List, or several documents; every autoscaler in them is explained. Metrics may
also be those of custom.metrics.k8s.io and external.metrics.k8s.io. Without a Deployment (or what else is scaled) the
replicas are those of the autoscaler's status, and the pods those that the target made.";

#[derive(Args)]
pub(crate) struct Explain {
    /// Autoscalers and pods, as `kubectl get hpa,pods -o yaml` prints them; `-` is standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Metrics, as `kubectl get --raw` prints them
    #[arg(long)]
    metrics: Vec<PathBuf>,
    /// The present, such as 2026-11-20T12:04:37Z; the newest time in the files when not given
    #[arg(long)]
    now: Option<String>,
    /// The version of Kubernetes, 1.32 or later
    #[arg(long, default_value = "1.35", value_parser = release)]
    kubernetes: u32,
}

fn release(text: &str) -> Result<u32, String> {
    minor_of(text).filter(|minor| *minor >= 32).ok_or_else(|| "a version is 1.32 or later".into())
}

fn explain(arguments: &Explain, out: &mut impl Write) -> Result<ExitCode, String> {
    let mut objects = Objects::default();
    for path in arguments.files.iter().chain(&arguments.metrics) {
        let text = String::from_utf8(unzipped(read(Some(path))?)?)
            .map_err(|_| format!("{} is not text", path.display()))?;
        objects.merge(objects::read(&text).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let text = explain::explain(&objects, arguments.now.as_deref(), arguments.kubernetes)?;
    out.write_all(text.as_bytes()).map_err(unwritten)?;
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn run(command: Command) -> Result<ExitCode, String> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let code = match command {
        Command::Decide(arguments) => decide(&arguments, &mut out),
        Command::Replay(arguments) => replay(&arguments, &mut out),
        Command::Explain(arguments) => explain(&arguments, &mut out),
    }?;
    out.flush().map_err(unwritten)?;
    Ok(code)
}

fn unwritten(error: std::io::Error) -> String {
    format!("cannot write the result: {error}")
}

fn decide(arguments: &Decide, out: &mut impl Write) -> Result<ExitCode, String> {
    let text = read(arguments.file.as_deref())?;
    let mut code = ExitCode::SUCCESS;
    for document in serde_json::Deserializer::from_slice(&text).into_iter::<Value>() {
        let document = document.map_err(|error| format!("the cases are not JSON: {error}"))?;
        for decided in cases::decide(document) {
            let line = match decided {
                Ok(decided) => {
                    let mut line = decided.expect;
                    line.extend(
                        decided.observed.filter(|_| arguments.observed).map(|o| ("observed".into(), o)),
                    );
                    line.extend(decided.name.map(|name| ("name".into(), name.into())));
                    line
                }
                Err(refused) => {
                    code = ExitCode::FAILURE;
                    Map::from_iter([
                        ("name".into(), refused.name.into()),
                        ("invalid".into(), refused.reason.into()),
                    ])
                }
            };
            writeln!(out, "{}", Value::Object(line)).map_err(unwritten)?;
        }
    }
    Ok(code)
}

/// One line of a replay.
#[derive(Serialize)]
struct Printed<'a> {
    t: f64,
    #[serde(flatten)]
    said: &'a Said,
}

#[derive(Serialize)]
struct Agreement {
    agree: usize,
    of: usize,
}

fn replay(arguments: &Replay, out: &mut impl Write) -> Result<ExitCode, String> {
    let trace = trace::read(&unzipped(read(Some(&arguments.trace))?)?)
        .map_err(|error| format!("{}: {error}", arguments.trace.display()))?;
    let lines = if arguments.closed { trace.replay_closed() } else { trace.replay() }?;
    let agreement = Agreement { agree: lines.iter().filter(|line| line.agrees()).count(), of: lines.len() };
    if arguments.table {
        table(&lines, &agreement, out).map_err(unwritten)?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in &lines {
        print(&Printed { t: line.t, said: &line.said }, out)?;
    }
    print(&agreement, out)?;
    Ok(ExitCode::SUCCESS)
}

fn print(line: &impl Serialize, out: &mut impl Write) -> Result<(), String> {
    serde_json::to_writer(&mut *out, line).map_err(|error| unwritten(error.into()))?;
    writeln!(out).map_err(unwritten)
}

/// A sync a row; what was recorded follows where it differs.
fn table(lines: &[Line], agreement: &Agreement, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "       t  from  proposed  to    able                 limited             active")?;
    for line in lines {
        writeln!(out, "{:>8.1}  {:<4}  {}", line.t, line.current, row(&line.said))?;
        if !line.agrees() {
            writeln!(out, "{:>14}  {}", "recorded:", row(&line.recorded))?;
        }
    }
    writeln!(out, "{} of {} syncs agree", agreement.agree, agreement.of)
}

fn row(said: &Said) -> String {
    let text = |reason: &Option<String>| reason.clone().unwrap_or_else(|| "-".into());
    let proposed = said.proposed.map_or_else(|| "-".into(), |replicas| replicas.to_string());
    let (able, limited, active) = (text(&said.able), text(&said.limited), text(&said.active));
    format!("{proposed:<8}  {:<4}  {able:<19}  {limited:<18}  {active}", said.replicas)
}

/// What is inside, where it is compressed.
fn unzipped(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut inside = Vec::new();
    let mut opened = flate2::read::MultiGzDecoder::new(bytes.as_slice()).take(MOST_BYTES + 1);
    opened.read_to_end(&mut inside).map_err(|error| format!("cannot decompress it: {error}"))?;
    if inside.len() as u64 > MOST_BYTES {
        return Err(format!("it has more than {} MiB inside", MOST_BYTES >> 20));
    }
    Ok(inside)
}

/// A file, or standard input.
fn read(path: Option<&Path>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let outcome = match path {
        Some(path) if path != Path::new("-") => {
            File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        }
        _ => std::io::stdin().lock().take(MOST_BYTES + 1).read_to_end(&mut bytes),
    };
    let name = path.map_or_else(|| "standard input".into(), |path| path.display().to_string());
    outcome.map_err(|error| format!("cannot read {name}: {error}"))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("{name} has more than {} MiB", MOST_BYTES >> 20));
    }
    Ok(bytes)
}
