//! The Lambda entry point: settings, telemetry, event loop. Packaged as `bootstrap`.

use std::{fmt::Display, io::Write, process::ExitCode};

use math_service::{
    app::App,
    config::Config,
    targets::{Target, lambda},
    telemetry,
};

/// Of those that were tried it touches the fewest pages in a cold start, and asks the kernel least often.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// The exit code for a setting that cannot be used.
const USAGE: u8 = 2;

/// Lambda handles one event at a time: one thread starts faster than several and serves as well.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "tells whether this is Lambda: no setting of the service")]
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        return fail(1, "this is the Lambda function; to serve HTTP here, run the binary `math-service`");
    }
    let config = match Config::from_process_env() {
        Ok(config) => config,
        Err(error) => return fail(USAGE, error),
    };
    match run(&config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, telemetry::log::chain(&*error)),
    }
}

async fn run(config: &Config) -> Result<(), lambda_runtime::Error> {
    let logs = telemetry::start(config.log_filter.clone(), Target::Lambda)?;
    let app = App::new(config, Target::Lambda, Some(logs))?;
    lambda::run(app).await
}

fn fail(code: u8, reason: impl Display) -> ExitCode {
    // Nobody may be reading: that must not turn a clear end into a panic.
    let _ = writeln!(std::io::stderr(), "math-service: {reason}");
    ExitCode::from(code)
}
