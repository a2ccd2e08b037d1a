//! `math-lab simulate`: a run of one target.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use math_service::lab::{report, verdict};

use crate::scenario;

/// A day of your traffic on one target: requests, latency, every decision with its reason, and the bill
#[derive(Args)]
#[command(after_help = scenario::HELP)]
pub(crate) struct Simulate {
    /// Where
    #[arg(value_enum, default_value_t = Target::Eks)]
    target: Target,
    #[command(flatten)]
    options: scenario::Options,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    Eks,
    Lambda,
}

pub(crate) fn run(command: &Simulate) -> Result<ExitCode, String> {
    let target = match command.target {
        Target::Eks => verdict::Target::Eks,
        Target::Lambda => verdict::Target::Lambda,
    };
    let options = &command.options;
    let scenario = options.scenario()?;
    let sides = [(target, scenario.simulate(target)?)];
    let title = options.title();
    let text = report::text(&title, target, &sides[0].1, &scenario.prices);
    if options.json {
        scenario::print(&format!("{}\n", report::json(target, &sides[0].1)))?;
    } else {
        scenario::print(&text)?;
    }
    options.write_charts(&title, &text, &sides, &scenario.prices)?;
    Ok(ExitCode::SUCCESS)
}
