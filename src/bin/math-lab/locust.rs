//! `math-lab report`: two recorded runs of Locust side by side.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{ArgAction, Args};
use math_service::lab::{
    cluster::Cluster,
    container::{self, Workload},
    cost::{Bill, Prices, Usd, grouped},
    inputs,
    lambda::{self, Function},
    locust::{self, Estimate, Request, Row},
    measure::Report,
    service::Profile,
};
use serde_json::{Value, json};

use crate::scenario;

const NAMES: [&str; 2] = ["EKS", "Lambda"];

/// Two Locust runs side by side: percentiles, failures, cold starts and cost, and whether a difference is one
#[derive(Args)]
#[command(after_help = "\
Record the same load against both, then compare (a prefix PATH stands for PATH_requests.csv):
  locust -H http://… --headless --users 50 --run-time 5m --requests-csv eks_requests.csv
  locust -H https://… --headless --users 50 --run-time 5m --requests-csv lambda_requests.csv
  LOGS=$(aws cloudformation describe-stacks --stack-name math-service --output text \\
    --query \"Stacks[0].Outputs[?OutputKey=='LogGroup'].OutputValue\")
  aws logs tail $LOGS --since 15m > lambda.log
  math-lab report eks lambda --reports lambda.log

Lambda's log tells which requests met a cold start and what was billed. Without it cold starts stay among the others, and
Lambda's duration is billed as long as the client waited: at most that.")]
pub(crate) struct Compare {
    /// The run against EKS
    eks: PathBuf,
    /// The run against Lambda
    lambda: PathBuf,
    /// Lambda's log with the REPORT lines of that run; `-` for standard input
    #[arg(long, value_name = "FILE")]
    reports: Option<PathBuf>,
    /// Another number draws other runs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Manifests: files or directories of YAML
    #[arg(long, short = 'f', value_name = "PATH", default_value = "k8s/base")]
    manifests: Vec<PathBuf>,
    /// eksctl's cluster configuration
    #[arg(long, value_name = "FILE", default_value = "cluster-config.yaml")]
    cluster: PathBuf,
    /// Nodes that the cluster had, instead of its configuration's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    nodes: Option<u32>,
    /// The function's SAM template
    #[arg(long, value_name = "FILE", default_value = "template.yaml")]
    template: PathBuf,
    /// Bytes of requests, answers and logs, for the bill
    #[arg(long, default_value = "cpu=0.01ms")]
    profile: String,
    /// Prices of this region instead of the cluster's: eu-west-2, us-east-1
    #[arg(long)]
    region: Option<String>,
    /// Prices of your own, in the form of src/lab/prices/
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Print JSON
    #[arg(long, action = ArgAction::SetTrue)]
    json: bool,
}

pub(crate) fn run(command: &Compare) -> Result<ExitCode, String> {
    let (mut cluster, region) = scenario::named(&command.cluster, inputs::cluster)?;
    cluster.nodes = command.nodes.unwrap_or(cluster.nodes);
    let targets = Targets {
        cluster: &cluster,
        workload: &inputs::workload(&scenario::manifests(&command.manifests)?)?,
        function: &scenario::named(&command.template, inputs::function)?,
        profile: &scenario::profile(&command.profile)?,
        prices: &match &command.prices {
            Some(path) => scenario::named(path, Prices::read)?,
            None => Prices::of(command.region.as_ref().unwrap_or(&region))?,
        },
    };
    let runs = runs([&command.eks, &command.lambda])?;
    let comparison = compare(&runs, command.reports.as_deref(), command.seed, &targets)?;
    let text = if command.json { format!("{}\n", comparison.json()) } else { comparison.text() };
    scenario::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What the runs were on, for their bill.
pub(crate) struct Targets<'s> {
    pub(crate) cluster: &'s Cluster,
    pub(crate) workload: &'s Workload,
    pub(crate) function: &'s Function,
    pub(crate) profile: &'s Profile,
    pub(crate) prices: &'s Prices,
}

/// Reads both runs.
pub(crate) fn runs(paths: [&Path; 2]) -> Result<[Vec<Request>; 2], String> {
    let [eks, lambda] = paths.map(|path| scenario::named(&file(path), locust::read));
    Ok([eks?, lambda?])
}

/// Two runs side by side, with Lambda's log if there is one.
pub(crate) fn compare(
    runs: &[Vec<Request>; 2],
    log: Option<&Path>,
    seed: u64,
    targets: &Targets<'_>,
) -> Result<Comparison, String> {
    let log = log.map(|path| scenario::named(path, Report::read)).transpose()?;
    let reports: Option<HashMap<&str, &Report>> =
        log.as_ref().map(|log| log.iter().map(|report| (report.request_id.as_str(), report)).collect());
    let known = reports
        .as_ref()
        .map(|reports| runs[1].iter().filter(|request| reports.contains_key(request.id.as_str())).count());
    if known == Some(0) {
        return Err(
            "no REPORT line belongs to a request of the Lambda run: is it the log of that time, and the run \
                    recorded without an x-request-id of its own?"
                .into(),
        );
    }
    Ok(Comparison {
        groups: groups(runs, reports.as_ref(), seed),
        costs: costs(targets, runs, reports.as_ref())?,
        prices: format!("{}, {}", targets.prices.region, targets.prices.date),
        seconds: [locust::seconds(&runs[0]), locust::seconds(&runs[1])],
        unknown: known.map(|known| runs[1].len() - known),
    })
}

/// A prefix, or the file itself.
fn file(path: &Path) -> PathBuf {
    if path.extension().is_some_and(|extension| extension == "csv") {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push("_requests.csv");
    name.into()
}

/// Requests of one kind.
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) counts: [usize; 2],
    pub(crate) rows: Vec<Row>,
}

type Reports<'r> = HashMap<&'r str, &'r Report>;

/// All requests of each name, and apart those that met a cold start.
fn groups(runs: &[Vec<Request>; 2], reports: Option<&Reports<'_>>, seed: u64) -> Vec<Group> {
    let is_cold = |request: &&Request| {
        let report = reports.and_then(|reports| reports.get(request.id.as_str()));
        report.is_some_and(|report| report.init_ms.is_some())
    };
    let names: BTreeSet<&str> = runs.iter().flatten().map(|request| request.name.as_str()).collect();
    let mut groups = Vec::new();
    for name in names {
        let of = |run: &'_ [Request]| -> Vec<Request> {
            run.iter().filter(|request| request.name == name).cloned().collect()
        };
        let (eks, all) = (of(&runs[0]), of(&runs[1]));
        let eks: Vec<&Request> = eks.iter().collect();
        let (cold, warm): (Vec<&Request>, Vec<&Request>) = all.iter().partition(is_cold);
        let all: Vec<&Request> = all.iter().collect();
        let mut add = |title: String, lambda: &[&Request], eks: &[&Request]| {
            let mut rows = vec![locust::failures([eks, lambda])];
            rows.extend(locust::percentiles([eks, lambda], seed));
            groups.push(Group { title, counts: [eks.len(), lambda.len()], rows });
        };
        add(name.to_owned(), &all, &eks);
        if !cold.is_empty() {
            add(format!("{name}, cold starts apart"), &warm, &eks);
            // Often too few for a percentile.
            let longest = cold.iter().map(|request| request.ms).fold(0.0, f64::max);
            add(format!("{name}, cold starts alone, the longest {longest:.1} ms"), &cold, &[]);
        }
    }
    groups
}

/// What each run cost, its duration included.
fn costs(
    targets: &Targets<'_>,
    runs: &[Vec<Request>; 2],
    reports: Option<&Reports<'_>>,
) -> Result<[(Bill, usize); 2], String> {
    let Targets { cluster, workload, function, profile, prices } = *targets;
    let seconds = locust::seconds(&runs[0]).ceil().max(1.0) as u64;
    let eks = container::served(cluster, workload, profile, seconds, runs[0].len() as f64, prices.zones);
    // The report's memory is that of the run; the template may have changed since.
    let mb_ms = |request: &Request| match reports.and_then(|reports| reports.get(request.id.as_str())) {
        Some(report) => report.memory_mb * report.billed_ms,
        None => f64::from(function.memory_mb) * request.ms.ceil().max(1.0),
    };
    let billed = runs[1].iter().map(mb_ms).sum();
    let lambda = lambda::served(function, profile, runs[1].len() as u64, billed);
    let bill = |usage| prices.bill(usage, false);
    Ok([(bill(&eks)?, runs[0].len()), (bill(&lambda)?, runs[1].len())])
}

pub(crate) struct Comparison {
    pub(crate) groups: Vec<Group>,
    pub(crate) costs: [(Bill, usize); 2],
    /// Region and date.
    prices: String,
    pub(crate) seconds: [f64; 2],
    /// Requests of the Lambda run without a report; nothing when none were given.
    unknown: Option<usize>,
}

impl Comparison {
    fn text(&self) -> String {
        let mut text = format!("{:<20}{:>27}{:>27}   {}\n", "", NAMES[0], NAMES[1], "Lambda less EKS");
        for group in &self.groups {
            let [eks, lambda] = group.counts.map(|count| grouped(count.to_string()));
            let _ = writeln!(text, "{}\n{:<20}{eks:>27}{lambda:>27}", group.title, "  requests");
            for row in &group.rows {
                let cells =
                    row.sides.map(|side| side.map_or("-".into(), |side| cell(row.name, &side, false)));
                let difference = row.difference.map_or(String::new(), |difference| {
                    let verdict = if difference.is_significant() { "" } else { ", not significant" };
                    cell(row.name, &difference, true) + verdict
                });
                let line = format!("  {:<18}{:>27}{:>27}   {difference}", row.name, cells[0], cells[1]);
                let _ = writeln!(text, "{}", line.trim_end());
            }
        }
        let row =
            |name: &str, of: &dyn Fn(usize) -> String| format!("{name:<20}{:>27}{:>27}\n", of(0), of(1));
        text.push('\n');
        text += &row("seconds", &|side| format!("{:.1}", self.seconds[side]));
        text += &row("cost of the run", &|side| dollars(self.costs[side].0.total()));
        text += &row("a million requests", &|side| format!("${:.2}", self.million(side)));
        text += "\nIn parentheses 95 % confidence intervals; percentiles are of the answers that were right, and \"-\" where too few \
                 took longer.\n";
        text += &self.notes();
        text
    }

    /// What a person should know besides, a line each.
    pub(crate) fn notes(&self) -> String {
        let mut text = self.insignificant();
        text += match self.unknown {
            None => {
                "Cold starts are among the others and Lambda's duration is billed as the client waited, because no \
                     --reports were given.\n"
            }
            Some(0) => "Cold starts and billed durations are Lambda's own.\n",
            Some(_) => "",
        };
        if let Some(unknown) = self.unknown.filter(|unknown| *unknown > 0) {
            let _ = writeln!(
                text,
                "{unknown} requests have no REPORT line: they count as warm, billed as the client waited."
            );
        }
        text += "EKS is billed for its nodes, its control plane and what stands in front of it, as long as the run took, a \
                 begun hour of the balancer whole.\n";
        let mut lines = self.costs.iter().flat_map(|(bill, _)| &bill.lines);
        let unconfirmed =
            if lines.any(|line| !line.is_confirmed) { ", some of them not confirmed" } else { "" };
        let _ = writeln!(text, "Prices of {}{unconfirmed}.", self.prices);
        text
    }

    fn insignificant(&self) -> String {
        let rows = self.groups.iter().flat_map(|group| group.rows.iter().map(move |row| (group, row)));
        let names: Vec<String> = rows
            .filter(|(_, row)| row.difference.is_some_and(|difference| !difference.is_significant()))
            .map(|(group, row)| format!("{} of {}", row.name, group.title))
            .collect();
        if names.is_empty() {
            return String::new();
        }
        format!("These runs do not tell the targets apart in: {}.\n", names.join("; "))
    }

    pub(crate) fn million(&self, side: usize) -> f64 {
        let (bill, requests) = &self.costs[side];
        bill.total().dollars() / (*requests).max(1) as f64 * 1e6
    }

    fn json(&self) -> Value {
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|group| {
                let rows: Vec<Value> = group
                    .rows
                    .iter()
                    .map(|row| {
                        json!({
                            "name": row.name, "eks": row.sides[0], "lambda": row.sides[1], "difference": row.difference,
                            "is_significant": row.difference.map(|difference| difference.is_significant()),
                        })
                    })
                    .collect();
                json!({"name": group.title, "requests": {"eks": group.counts[0], "lambda": group.counts[1]}, "rows": rows})
            })
            .collect();
        let side = |side: usize| {
            json!({
                "seconds": self.seconds[side], "requests": self.costs[side].1,
                "usd": self.costs[side].0.total().dollars(), "usd_a_million": self.million(side),
            })
        };
        json!({"groups": groups, "eks": side(0), "lambda": side(1), "without_report": self.unknown})
    }
}

/// A run of minutes may cost less than a cent.
pub(crate) fn dollars(amount: Usd) -> String {
    if amount.dollars() >= 0.01 { amount.to_string() } else { format!("${:.6}", amount.dollars()) }
}

/// Times in milliseconds, shares in percent.
pub(crate) fn cell(name: &str, figure: &Estimate, is_difference: bool) -> String {
    let (scale, unit) = if name == "failed" { (100.0, "%") } else { (1.0, "ms") };
    let number = |value: f64| {
        let value = value * scale;
        let digits = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
        if is_difference { format!("{value:+.digits$}") } else { format!("{value:.digits$}") }
    };
    format!("{} {unit} ({} to {})", number(figure.value), number(figure.low), number(figure.high))
}
