//! `math-lab hpa`: cases, recorded runs and live manifests through the autoscaler's own rules.

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Decide cases given as JSON, one result a line
    Decide {
        /// The cases; standard input when it is not given
        file: Option<PathBuf>,
    },
}

pub(crate) fn run(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Decide { file } => Err(format!("no cases in {file:?}")),
    }
}
