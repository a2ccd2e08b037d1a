//! The scaling lab's command: what an autoscaler does, for people at a terminal.
//!
//! One file a subcommand: it names its arguments, reads what they name and prints; the lab itself is
//! `math_service::lab`.

mod compare;
mod crossover;
mod hpa;
mod locust;
mod page;
mod profile;
mod scenario;
mod simulate;

use std::{io::Write, process::ExitCode};

use clap::{Parser, Subcommand};

/// Shows what an autoscaler does with your manifests before it does it to your pods.
#[derive(Parser)]
#[command(name = "math-lab", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The HorizontalPodAutoscaler of Kubernetes 1.32 and later, rule by rule
    #[command(subcommand)]
    Hpa(hpa::Command),
    Simulate(simulate::Simulate),
    Compare(compare::Compare),
    Crossover(crossover::Find),
    Profile(profile::Measure),
    Report(locust::Compare),
    Page(page::Page),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Hpa(command) => hpa::run(command),
        Command::Simulate(command) => simulate::run(&command),
        Command::Compare(command) => compare::run(&command),
        Command::Crossover(command) => crossover::run(&command),
        Command::Profile(command) => profile::run(&command),
        Command::Report(command) => locust::run(&command),
        Command::Page(command) => page::run(&command),
    };
    match outcome {
        Ok(code) => code,
        Err(reason) => {
            let _ = writeln!(std::io::stderr(), "math-lab: {reason}");
            ExitCode::FAILURE
        }
    }
}
