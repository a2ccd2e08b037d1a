//! F(`INDEX`) in decimal by the service's own arithmetic: prints microseconds of CPU a number.

use std::{error::Error, hint::black_box, io::Write, time::Duration};

use math_service::fibonacci::sequence;
use nix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// CPU time to spend; the last number may exceed it.
const ENOUGH: Duration = Duration::from_secs(1);

fn main() -> Result<(), Box<dyn Error>> {
    let index = std::env::var("INDEX")?.parse()?;
    let cpu = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from);
    // Once beforehand: memory is there afterwards.
    black_box(sequence::decimal(black_box(index)));
    let began = cpu()?;
    let mut numbers = 0;
    while cpu()? - began < ENOUGH {
        black_box(sequence::decimal(black_box(index)));
        numbers += 1;
    }
    let each_us = (cpu()? - began).as_secs_f64() * 1e6 / f64::from(numbers);
    Ok(writeln!(std::io::stdout(), r#"{{"figure": {each_us}}}"#)?)
}
