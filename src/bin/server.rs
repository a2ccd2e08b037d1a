//! The container entry point: settings, telemetry, listener, drain.

use std::{io::Write, process::ExitCode, time::Duration};

use math_service::{
    app::App,
    config,
    config::Config,
    targets::{Target, container},
    telemetry,
};
use tokio::signal::unix::{SignalKind, signal};

/// Why it is not the system's: see the dependency in Cargo.toml.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long the last log lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The exit code for a command line or a setting that cannot be used (BSD's and bash's "usage").
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => run(),
        ["-h" | "--help"] => show(&help()),
        ["-V" | "--version"] => show(&format!("math-service {}\n", math_service::VERSION)),
        [argument, ..] => {
            fail(USAGE, format_args!("unexpected argument {argument:?}; see math-service --help"))
        }
    }
}

fn run() -> ExitCode {
    let config = match Config::from_process_env() {
        Ok(config) => config,
        Err(error) => return fail(USAGE, error),
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, format_args!("cannot start the async runtime: {error}")),
    };
    let code = runtime.block_on(serve(&config));
    // Work that was cut short may still hold a blocking thread: the process does not wait for it.
    runtime.shutdown_background();
    code
}

async fn serve(config: &Config) -> ExitCode {
    let signals = survive_full_files().and_then(|()| terminate());
    let (listener, terminate) = match (container::listen(&config.host, config.port).await, signals) {
        (Ok(listener), Ok(terminate)) => (listener, terminate),
        (Err(error), _) => {
            return fail(
                1,
                format_args!("cannot listen on HOST={:?} PORT={}: {error}", config.host, config.port),
            );
        }
        (_, Err(error)) => return fail(1, format_args!("cannot wait for signals: {error}")),
    };
    let logs = match telemetry::start(config.log_filter.clone(), Target::Container) {
        Ok(logs) => logs,
        Err(error) => return fail(1, format_args!("cannot start the log writer: {error}")),
    };
    let app = match App::new(config, Target::Container, Some(logs.clone())) {
        Ok(app) => app,
        Err(error) => return fail(1, error),
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(address = %address, version = math_service::VERSION, "Listening");
    }
    container::serve(listener, app, config, terminate).await;
    tracing::info!("Stopped");
    logs.flush_within(LAST_LINES).await;
    ExitCode::SUCCESS
}

/// The signal for a file that grew beyond its limit, the same number on Linux and macOS.
const SIGXFSZ: i32 = 25;

/// Lets a write beyond the limit on file sizes fail like any other: unheard, the signal would end the process,
/// for want of space in one store.
fn survive_full_files() -> std::io::Result<()> {
    // Listened to once, a signal loses its default effect for good.
    signal(SignalKind::from_raw(SIGXFSZ)).map(drop)
}

/// Tools that stop a process and then its whole group send two signals in a burst: they mean one.
const BURST: Duration = Duration::from_millis(500);

/// Completes at the first SIGTERM or SIGINT. One after the burst ends the process at once.
fn terminate() -> std::io::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (begin, begun) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut next = async || tokio::select! { _ = term.recv() => 15, _ = int.recv() => 2 };
        next().await;
        let _ = begin.send(());
        let burst_ends = tokio::time::Instant::now() + BURST;
        let signal: i32 = loop {
            let signal = next().await;
            if tokio::time::Instant::now() >= burst_ends {
                break signal;
            }
        };
        // The shell's convention for "ended by a signal".
        std::process::exit(128 + signal);
    });
    Ok(async move {
        let _ = begun.await;
    })
}

fn help() -> String {
    format!(
        "math-service {}\n\nServes the math-service API over HTTP/1.1 and HTTP/2 (h2c) until SIGTERM, then drains.\n\n\
         Usage: math-service [--help | --version]\n\nSettings are environment variables:\n{}",
        math_service::VERSION,
        config::help()
    )
}

/// Nobody may be reading what these two print: that must not turn a clear end into a panic.
fn show(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(code: u8, reason: impl std::fmt::Display) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "math-service: {reason}");
    ExitCode::from(code)
}
