//! How a contender of each group is checked and measured.

use std::{
    fs::{self, File},
    net::SocketAddr,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    figures::{BUSY, MISSING, OTHERS, SATURATED_PERCENT, Samples},
    load::{self, ANSWER, BODY, Load, Work},
    machine::{self, Plan},
    next,
    process::Contender,
    response,
    rows::{Group, Row},
    runtime_api::RuntimeApi,
    stats::Spread,
    suite::{Suite, free_port},
};

/// How long a contender may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The usual number of connections.
const SOME: usize = 64;
/// The number that shows what a connection costs.
const MANY: usize = 2_000;

/// Invocations before the measured ones.
const WARM_UP_INVOCATIONS: u64 = 200;

/// Proves that a contender does what it is measured for.
///
/// # Errors
/// When it does not.
pub(crate) fn check(suite: &Suite, row: &Row) -> Result<()> {
    let lines = File::create(suite.lines(row))?;
    match row.group {
        Group::Http => {
            let server = Server::start(suite, row, &machine::plan(1)?, lines.into())?;
            if row.computes {
                let answer = response::post(server.address, r#"{"b":2.25,"a":1.5}"#)?;
                ensure!(answer == r#"{"result":3.75}"#, "wrong answer: {answer}");
            }
            suite.check_lines(row)
        }
        Group::Lambda => {
            let function = Function::start(suite, row, &machine::plan(1)?, lines.into())?;
            function.invoke(1)?;
            suite.check_lines(row)
        }
        Group::Micro(_) => micro(suite, row).map(drop),
        Group::Next(database) => next::check(suite, row, database),
    }
}

/// One turn of a contender.
///
/// # Errors
/// When it cannot be measured.
pub(crate) fn measure(suite: &Suite, row: &Row) -> Result<Samples> {
    match row.group {
        Group::Http => http(suite, row),
        Group::Lambda => lambda(suite, row),
        Group::Micro(_) => micro(suite, row),
        Group::Next(database) => next::measure(suite, row, database),
    }
}

/// What is measured once, since it cannot vary or takes too long to repeat.
///
/// # Errors
/// When it cannot be measured.
pub(crate) fn measure_once(suite: &Suite, row: &Row) -> Result<Samples> {
    let mut samples = Samples::new();
    if row.group == Group::Lambda {
        samples.insert("bundle_mb", suite.bundle_mb(row)?);
    }
    if row.cold_build && !suite.settings.quick {
        eprintln!("building {} from an empty target", row.name);
        samples.insert("cold_build_s", suite.cold_build_s(row)?);
    }
    Ok(samples)
}

pub(crate) struct Server {
    pub(crate) process: Contender,
    address: SocketAddr,
    plan: Plan,
}

impl Server {
    /// Starts a server and waits for its first right answer.
    fn start(suite: &Suite, row: &Row, plan: &Plan, stdout: Stdio) -> Result<Self> {
        Self::start_with(suite, row, plan, stdout, &[])
    }

    /// The same, with variables.
    pub(crate) fn start_with(
        suite: &Suite,
        row: &Row,
        plan: &Plan,
        stdout: Stdio,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let address = free_port()?;
        let mut command = suite.command(row, stdout)?;
        command.env("PORT", address.port().to_string()).envs(variables.iter().copied());
        let mut process = Contender::start(command, &plan.server).context("starting")?;
        let began = Instant::now();
        loop {
            match response::post(address, BODY) {
                Ok(answer) => {
                    ensure!(answer == ANSWER, "wrong answer: {answer}");
                    return Ok(Self { process, address, plan: plan.clone() });
                }
                Err(error) => {
                    if let Some(status) = process.ended()? {
                        bail!("the server ended with {status}; see {}", suite.complaints(row).display());
                    }
                    ensure!(began.elapsed() < START_LIMIT, "no answer after {START_LIMIT:?}: {error:#}");
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }

    fn load(&self, suite: &Suite, connections: usize, rate: Option<f64>) -> Result<load::Outcome> {
        self.load_with(suite, Work::Addition, connections, rate)
    }

    pub(crate) fn load_with(
        &self,
        suite: &Suite,
        work: Work,
        connections: usize,
        rate: Option<f64>,
    ) -> Result<load::Outcome> {
        let (warm_up, window) = (suite.settings.warm_up, suite.settings.window);
        let load = Load { address: self.address, work, connections, rate, warm_up, window };
        load::run(&load, &self.plan, &self.process.clocks())
            .with_context(|| format!("{connections} connections, rate {rate:?}"))
    }
}

fn http(suite: &Suite, row: &Row) -> Result<Samples> {
    let mut samples = Samples::new();
    let server = Server::start(suite, row, &machine::plan(1)?, Stdio::null())?;
    samples.insert("rss_idle_mb", server.process.rss_mb());

    let saturated = server.load(suite, SOME, None)?;
    samples.insert("cpu_us", saturated.cpu_us());
    samples.insert("rps", saturated.rps());
    samples.insert(BUSY, saturated.busy_percent());
    samples.insert(OTHERS, saturated.others_percent);
    samples.insert("rss_64_mb", server.process.peak_rss_mb());

    let rate = saturated.rps() / 2.0;
    let half = server.load(suite, SOME, Some(rate))?;
    let kept_up = half.kept_up(rate, SATURATED_PERCENT);
    samples.insert("cpu_us_half", half.cpu_us());
    for (key, quantile) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
        samples.insert(key, if kept_up { half.latency_us(quantile) } else { MISSING });
    }
    if suite.settings.quick {
        return Ok(samples);
    }

    let many = server.load(suite, MANY, None)?;
    samples.insert("cpu_us_2000", many.cpu_us());
    samples.insert("rps_2000", many.rps());
    samples.insert("rss_2000_mb", server.process.peak_rss_mb());
    drop(server);

    if let Ok(plan) = machine::plan(2) {
        let server = Server::start(suite, row, &plan, Stdio::null())?;
        let two_cores = server.load(suite, SOME, None)?;
        samples.insert("cpu_us_2cores", two_cores.cpu_us());
        samples.insert("rps_2cores", two_cores.rps());
    }
    Ok(samples)
}

struct Function {
    process: Contender,
    api: RuntimeApi,
    init: Duration,
    init_cpu: Duration,
}

impl Function {
    /// Starts a function and waits until it asks for its first invocation, which it does not get yet.
    fn start(suite: &Suite, row: &Row, plan: &Plan, stdout: Stdio) -> Result<Self> {
        let event = fs::read_to_string(suite.root.join("tests/data/events/http-v2.json"))?;
        // As Lambda hands them out: the recorded one's indentation would be read at everybody's cost.
        let event: Value = serde_json::from_str(&event)?;
        let api = RuntimeApi::start(event.to_string())?;
        let mut command = suite.command(row, stdout)?;
        command.env("PORT", free_port()?.port().to_string());
        command.env("AWS_LAMBDA_RUNTIME_API", api.address.to_string()).envs([
            ("AWS_LAMBDA_FUNCTION_NAME", "bench"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769"),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/bench"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "bench"),
            ("AWS_REGION", "eu-west-2"),
            ("_HANDLER", "lambda_function.handler"),
        ]);
        command.env("LAMBDA_TASK_ROOT", suite.bench.join("contenders/fastapi"));
        let began = Instant::now();
        let process = Contender::start(command, &plan.server).context("starting")?;
        let asked = api
            .wait_until_it_waits(START_LIMIT)
            .with_context(|| format!("see {}", suite.complaints(row).display()))?;
        let init_cpu = process.clocks().read();
        Ok(Self { process, api, init: asked - began, init_cpu })
    }

    fn invoke(&self, count: u64) -> Result<()> {
        self.api.allow(count);
        self.api.wait_until_it_waits(START_LIMIT).map(drop)
    }
}

fn lambda(suite: &Suite, row: &Row) -> Result<Samples> {
    let plan = machine::plan(1)?;
    let (mut init, mut init_cpu) = (Vec::new(), Vec::new());
    let mut started = None;
    for _ in 0..suite.settings.starts {
        // The one before ends first: two at once would disturb each other.
        drop(started.take());
        let function = Function::start(suite, row, &plan, Stdio::null())?;
        init.push(function.init.as_secs_f64() * 1e3);
        init_cpu.push(function.init_cpu.as_secs_f64() * 1e3);
        started = Some(function);
    }
    let function = started.context("no start")?;
    function.invoke(WARM_UP_INVOCATIONS)?;
    let clocks = function.process.clocks();
    let before = clocks.read();
    function.invoke(suite.settings.invocations)?;
    let cpu = clocks.read() - before;

    let median = |samples: &[f64]| Spread::of(samples).map_or(f64::NAN, |spread| spread.median);
    Ok(Samples::from([
        ("init_ms", median(&init)),
        ("init_cpu_ms", median(&init_cpu)),
        ("invocation_cpu_us", cpu.as_secs_f64() * 1e6 / suite.settings.invocations as f64),
        ("invocation_rss_mb", function.process.peak_rss_mb()),
    ]))
}

/// What a micro row prints.
#[derive(Deserialize)]
struct Line {
    figure: f64,
}

fn micro(suite: &Suite, row: &Row) -> Result<Samples> {
    Ok(Samples::from([("micro", figure(suite, row, &machine::plan(1)?.server, &[])?)]))
}

/// Runs a program that prints a figure.
///
/// # Errors
/// When it fails or prints something else.
pub(crate) fn figure(suite: &Suite, row: &Row, cores: &[usize], variables: &[(&str, &str)]) -> Result<f64> {
    let output = suite.lines(row);
    let mut command = suite.command(row, File::create(&output)?.into())?;
    command.envs(variables.iter().copied());
    let status = Contender::start(command, cores)?.wait()?;
    ensure!(status.success(), "ended with {status}; see {}", suite.complaints(row).display());
    let printed = fs::read_to_string(&output)?;
    let line: Line = serde_json::from_str(&printed).with_context(|| format!("printed {printed:?}"))?;
    ensure!(line.figure.is_finite() && line.figure > 0.0, "printed {printed:?}");
    Ok(line.figure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{rows::Program, suite::Settings};

    #[test]
    fn a_micro_row_is_a_command_that_prints_a_figure() {
        let suite = Suite::new(Settings::quick(), false).unwrap();
        let row = |name, script: &'static [&'static str]| Row {
            name,
            group: Group::Micro("F(100000), µs"),
            about: "",
            program: Program::Installed(script),
            backend: None,
            variables: &[],
            computes: true,
            logs: false,
            cold_build: false,
        };
        let good = row("micro-good", &["echo", r#"{"figure": 12.5}"#]);
        assert_eq!(measure(&suite, &good).unwrap(), Samples::from([("micro", 12.5)]));
        assert!(measure(&suite, &row("micro-silent", &["true"])).is_err());
        assert!(measure(&suite, &row("micro-failed", &["false"])).is_err());
    }
}
