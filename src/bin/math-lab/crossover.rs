//! `math-lab crossover`: the traffic at which the cheaper target changes.

use std::process::ExitCode;

use clap::Args;
use math_service::lab::report;

use crate::scenario;

/// The traffic at which both targets cost the same, the limits on their size lifted
#[derive(Args)]
#[command(after_help = scenario::HELP)]
pub(crate) struct Find {
    #[command(flatten)]
    options: scenario::Options,
}

pub(crate) fn run(command: &Find) -> Result<ExitCode, String> {
    let options = &command.options;
    if options.svg.is_some() || options.html.is_some() {
        return Err("a crossover is one number: `math-lab compare` draws charts".into());
    }
    let crossover = options.scenario()?.crossover()?;
    let text = if options.json {
        serde_json::to_string(&crossover).map_err(|error| error.to_string())?
    } else {
        report::crossing(crossover.as_ref())
    };
    scenario::print(&format!("{text}\n"))?;
    Ok(ExitCode::SUCCESS)
}
