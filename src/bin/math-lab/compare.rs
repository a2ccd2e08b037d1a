//! `math-lab compare`: both targets under the same traffic, and which to take.

use std::process::ExitCode;

use clap::Args;
use math_service::lab::{report, verdict::Target};
use serde_json::json;

use crate::scenario;

/// Both targets under the same traffic: which to take, what weighs most, and from which traffic on the other is cheaper
#[derive(Args)]
#[command(after_help = scenario::HELP)]
pub(crate) struct Compare {
    #[command(flatten)]
    options: scenario::Options,
}

pub(crate) fn run(command: &Compare) -> Result<ExitCode, String> {
    let options = &command.options;
    let scenario = options.scenario()?;
    let both = scenario.compare()?;
    let verdict = scenario.verdict(&both)?;
    let sides = [(Target::Eks, both.eks), (Target::Lambda, both.lambda)];
    let title = options.title();
    let text = report::comparison(&title, &sides, &verdict, &scenario.prices);
    if options.json {
        let [eks, lambda] = sides.each_ref().map(|(target, side)| report::json(*target, side));
        scenario::print(&format!("{}\n", json!({ "eks": eks, "lambda": lambda, "verdict": verdict })))?;
    } else {
        scenario::print(&text)?;
    }
    options.write_charts(&title, &text, &sides, &scenario.prices)?;
    Ok(ExitCode::SUCCESS)
}
