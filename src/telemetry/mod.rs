//! What the process says about itself: log lines, metrics, trace context.

pub mod context;
pub mod emf;
pub mod log;
pub mod metrics;
mod timestamp;
pub mod trace;
pub mod writer;

use tracing::Subscriber;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
};

use self::{log::JsonLines, writer::Writer};
use crate::targets::Target;

/// Sends every log event and every panic of the process as JSON lines to stdout.
///
/// Returns the writer, to flush before the process ends. Calling it twice in one process leaves
/// the first subscriber in place.
///
/// # Errors
/// When the system refuses the writer's thread.
pub fn start(filter: Targets, target: Target) -> std::io::Result<Writer> {
    let writer = match target {
        Target::Container => Writer::start(std::io::stdout())?,
        Target::Lambda => Writer::direct(std::io::stdout()),
    };
    let subscriber = subscriber(filter, writer.clone());
    // Fails only when a subscriber is installed already, which then stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    log_panics(writer.clone());
    Ok(writer)
}

/// What turns events into lines: those that `filter` lets through, and audit lines whatever it says.
pub fn subscriber(filter: Targets, writer: Writer) -> impl Subscriber + Send + Sync {
    let filter = filter.with_target(log::AUDIT, LevelFilter::TRACE);
    tracing_subscriber::registry().with(filter).with(JsonLines::new(writer))
}

/// A panic becomes one log line at ERROR, with its place and the request that it happened in.
fn log_panics(writer: Writer) {
    std::panic::set_hook(Box::new(move |panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(reason = panic.payload_as_str().unwrap_or("unknown"), location, "Panicked");
        // It may be the process's last line.
        writer.flush_unless_busy();
    }));
}
