//! The gateway as a program: `gateway --front http-v2 target/debug/lambda`.

#[path = "mod.rs"]
mod gateway;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;

use gateway::{Front, Gateway, Options, Output};
use tokio::signal::unix::{Signal, SignalKind, signal};

const HELP: &str = "\
Serves a Lambda binary over HTTP the way AWS would.

Usage: gateway [OPTIONS] BINARY

Options:
  --front FRONT     rest-v1, http-v2, http-v2:STAGE, function-url, alb-single or alb-multi [http-v2]
  --port PORT       port on the loopback interface; 0 picks a free one [9000]
  --processes N     processes of the binary, each busy with one request at a time [2]
  --env NAME=VALUE  variable for the function, which inherits none but PATH and HOME; repeatable
  --reports         a REPORT line after each invocation, as in the function's log on Lambda
  --timeout TIME    time that an invocation may take, such as 300ms or 29s [30s]
  --help            this text
";

/// What the command line asks for.
enum Task {
    Help,
    Serve(Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let done = match parse(std::env::args().skip(1)) {
        Ok(Task::Help) => io::stdout().write_all(HELP.as_bytes()),
        Ok(Task::Serve(options)) => run(options).await,
        Err(mistake) => {
            eprintln!("gateway: {mistake} (see --help)");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Task, String> {
    let mut options = Options::new(Front::HttpV2 { stage: None }, "");
    options.listen.set_port(9000);
    options.processes = 2;
    options.stdout = Output::Inherit;
    let mut binary = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(Task::Help),
            "--front" => options.front = value()?.parse()?,
            "--port" => options.listen = (Ipv4Addr::LOCALHOST, number(&argument, &value()?)?).into(),
            "--processes" => options.processes = usize::from(number(&argument, &value()?)?).max(1),
            "--env" => options.env.push(variable(&value()?)?),
            "--reports" => options.reports = true,
            "--timeout" => {
                let value = value()?;
                let timeout = humantime::parse_duration(&value);
                options.function_timeout = timeout.map_err(|error| format!("--timeout {value}: {error}"))?;
            }
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            path if binary.is_none() => binary = Some(path.into()),
            surplus => return Err(format!("unexpected argument {surplus}")),
        }
    }
    options.binary = binary.ok_or("the path of the Lambda binary is missing")?;
    Ok(Task::Serve(options))
}

fn number(option: &str, value: &str) -> Result<u16, String> {
    value.parse().map_err(|_| format!("{option} {value}: not a number up to 65535"))
}

fn variable(pair: &str) -> Result<(String, String), String> {
    match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("--env {pair}: not NAME=VALUE")),
    }
}

/// Serves until ctrl-C or SIGTERM; a second one cuts the functions' own shutdown short.
async fn run(options: Options) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let what = format!("({}, {} processes)", options.front, options.processes);
    let gateway = tokio::select! {
        started = Gateway::start(options) => started?,
        () = asked_to_stop(&mut interrupt, &mut terminate) => return Ok(()),
    };
    writeln!(io::stdout(), "gateway: {} {what}", gateway.url())?;
    asked_to_stop(&mut interrupt, &mut terminate).await;
    tokio::select! {
        _ = gateway.terminate() => {}
        () = asked_to_stop(&mut interrupt, &mut terminate) => {}
    }
    Ok(())
}

async fn asked_to_stop(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
