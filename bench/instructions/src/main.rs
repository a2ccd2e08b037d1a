//! `bench-instructions ROW N`: does what a row stands for N times, so that valgrind can count its instructions;
//! without arguments it lists its rows. `bench instructions` takes the difference of two runs, so the start of
//! the process and what is prepared here count for nothing.
//!
//! Everything is public API of the service, called as its targets call it, on one thread.

use std::{error::Error, io::Write, mem};

use math_service::telemetry::writer::Writer;

#[cfg(feature = "container")]
#[path = "container.rs"]
mod target;
#[cfg(feature = "function")]
#[path = "function.rs"]
mod target;

#[cfg(all(target_os = "linux", feature = "container"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
#[cfg(all(target_os = "linux", feature = "function"))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A name, and what does it a number of times.
type Row = (&'static str, fn(usize) -> Outcome);

fn main() -> Outcome {
    // Request ids are random: the same ones in every run.
    fastrand::seed(1);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            let names: Vec<_> = target::ROWS.iter().map(|(name, _)| *name).collect();
            Ok(writeln!(std::io::stdout(), "{}", names.join("\n"))?)
        }
        [name, times] => {
            let row = target::ROWS.iter().find(|(row, _)| row == name);
            let (_, run) = row.ok_or_else(|| format!("no row {name:?}"))?;
            run(times.parse()?)
        }
        _ => Err("usage: bench-instructions [ROW N]".into()),
    }
}

/// How often a row can be run at most.
const PREPARED: usize = 1_000;

/// After how many times the log lines are written. Left to the writer's own thread, some batches would be longer
/// than all before and make its buffer grow, whenever that thread comes late.
const BATCH: usize = 50;

/// Does `work` on as many inputs as asked. The same number is prepared whatever is asked, and what is left
/// over is not taken apart: neither is in the difference of two runs.
async fn repeat<T>(
    times: usize,
    logs: Option<&Writer>,
    prepare: impl Fn() -> Outcome<T>,
    mut work: impl AsyncFnMut(T) -> Outcome,
) -> Outcome {
    let mut inputs = (0..PREPARED).map(|_| prepare()).collect::<Outcome<Vec<T>>>()?.into_iter();
    if times > inputs.len() {
        return Err(format!("at most {PREPARED} times").into());
    }
    for (done, input) in inputs.by_ref().take(times).enumerate() {
        work(input).await?;
        if let Some(logs) = logs.filter(|_| done % BATCH == 0) {
            logs.flush();
        }
    }
    mem::forget(inputs);
    Ok(())
}

fn on_one_thread(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(work)
}

/// A wrong answer must not count as a cheap one.
fn check(answer: &[u8], expected: &str) -> Outcome {
    if answer == expected.as_bytes() {
        return Ok(());
    }
    Err(format!("answered {:?}, not {expected:?}", String::from_utf8_lossy(answer)).into())
}
