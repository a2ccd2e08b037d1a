//! `bench`: builds every contender, proves that each gives the right answer, measures them in turn on the
//! same machine, and tells differences from noise. `rows.rs` is the table of contenders and goals.

mod figures;
mod instructions;
mod load;
mod machine;
mod measure;
mod next;
mod process;
mod report;
mod response;
mod rows;
mod runtime_api;
mod stats;
mod suite;

use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::{
    figures::{FIGURES, Samples},
    load::{Load, Work},
    machine::{Machine, Ticks},
    process::Clocks,
    report::Report,
    rows::{ROWS, Row},
    stats::significant,
    suite::{Settings, Suite},
};

/// Measures math-service against its peers, side by side on this machine.
#[derive(Parser)]
#[command(name = "bench", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build, check and measure; print tables and write them to bench/results/
    Run(Run),
    /// Count the instructions of a request and its parts, against bench/budget.toml
    Instructions {
        /// Make the counts the new budget
        #[arg(long)]
        update: bool,
    },
    /// List the contenders
    List,
    /// Load a server that already runs with `POST /`, to check this generator against another
    Load(LoadArguments),
}

#[derive(Args)]
struct Run {
    /// Fewer figures and shorter measurements: under three minutes once everything is built
    #[arg(long)]
    quick: bool,
    /// Only these contenders (comma-separated); the first of a group is what the others are compared with
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    only: Vec<String>,
    /// Rounds; with fewer than 5 no difference is quoted
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Compile all Rust contenders for musl, the service as image and bundle have it (needs cargo-auditable)
    #[arg(long)]
    musl: bool,
}

#[derive(Args)]
struct LoadArguments {
    /// Where it listens, for example 127.0.0.1:8000
    address: SocketAddr,
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests a second at a constant rate; as many as possible when not given
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

fn main() -> Result<()> {
    match Cli::parse().task {
        Task::Run(arguments) => run(&arguments),
        Task::List => {
            let list: String = ROWS
                .iter()
                .map(|row| format!("{:<20} {:<8} {}\n", row.name, row.group.title(), row.about))
                .collect();
            print(&list)
        }
        Task::Instructions { update } => instructions::check(&Suite::new(Settings::quick(), false)?, update),
        Task::Load(arguments) => load(&arguments),
    }
}

fn run(arguments: &Run) -> Result<()> {
    let mut settings = if arguments.quick { Settings::quick() } else { Settings::full() };
    settings.rounds = arguments.rounds.unwrap_or(settings.rounds);
    ensure!(settings.rounds > 0, "--rounds must be at least 1");
    for name in &arguments.only {
        ensure!(ROWS.iter().any(|row| row.name == name), "no contender {name:?}; see `bench list`");
    }
    let is_chosen = |row: &&Row| match arguments.only.as_slice() {
        [] => !arguments.quick || row.group.is_quick(),
        only => only.iter().any(|name| name == row.name),
    };
    let chosen: Vec<&'static Row> = ROWS.iter().filter(is_chosen).collect();
    let skipped = next::skipped(&chosen, next::postgres_tools().is_some());
    for (row, why) in &skipped {
        eprintln!("skipped: {row}: {why}");
    }
    let rows: Vec<_> = chosen.iter().copied().filter(|row| !skipped.contains_key(row.name)).collect();
    ensure!(!rows.is_empty(), "nothing left to measure");
    let suite = Suite::new(settings, arguments.musl)?;
    machine::raise_file_limit()?;

    for row in &rows {
        eprintln!("building {}", row.name);
        suite.build(row).with_context(|| format!("building {}", row.name))?;
    }
    for row in &rows {
        eprintln!("checking {}", row.name);
        measure::check(&suite, row).with_context(|| format!("checking {}", row.name))?;
    }

    let began = Instant::now();
    let machine = Machine::read()?;
    let cores = machine::cores()?;
    let ticks = Ticks::of(&cores)?;
    let mut samples = BTreeMap::new();
    let mut add = |row: &'static Row, new: Samples| {
        for (key, value) in new {
            samples.entry((row.name, key)).or_insert_with(Vec::new).push(value);
        }
    };
    let rounds = suite.settings.rounds;
    for round in 0..rounds {
        for row in turns(&rows, round) {
            let new = measure::measure(&suite, row).with_context(|| format!("measuring {}", row.name))?;
            let shown: Vec<_> = FIGURES
                .iter()
                .filter_map(|figure| Some(format!("{} {}", figure.key, significant(*new.get(figure.key)?))))
                .collect();
            eprintln!(
                "[{:>4.0} s] round {}/{rounds} {:<20} {}",
                began.elapsed().as_secs_f64(),
                round + 1,
                row.name,
                shown.join("  ")
            );
            add(row, new);
        }
    }
    for &row in &rows {
        add(row, measure::measure_once(&suite, row).with_context(|| format!("measuring {}", row.name))?);
    }

    let date = machine::first_line("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"], Path::new("/"));
    let report = Report {
        rows: &chosen,
        skipped,
        samples,
        settings: &suite.settings,
        machine,
        stolen_percent: Ticks::of(&cores)?.stolen_percent_since(ticks),
        versions: suite::versions(&suite, &rows)?,
        commit: machine::commit(&suite.root),
        date: date.context("date")?,
        triple: suite.triple(),
        two_cores_shared: machine::plan(2).is_ok_and(|plan| plan.shared),
    };
    print(&report.markdown())?;
    // What is not the whole truth must not replace it.
    let kind = match (arguments.quick, arguments.only.is_empty() && rounds >= stats::FEWEST_ROUNDS) {
        (_, false) => "-partial",
        (true, true) => "-quick",
        (false, true) => "",
    };
    report.save(&suite.bench.join("results"), kind)
}

/// The order of a round. It differs from round to round, and every other one runs backwards, so that no
/// contender always comes after the same one, or always while the machine is warm.
fn turns(rows: &[&'static Row], round: usize) -> Vec<&'static Row> {
    let mut turns = rows.to_vec();
    turns.rotate_left(round % rows.len());
    if round % 2 == 1 {
        turns.reverse();
    }
    turns
}

fn load(arguments: &LoadArguments) -> Result<()> {
    let load = Load {
        address: arguments.address,
        work: Work::Addition,
        connections: arguments.connections,
        rate: arguments.rate,
        warm_up: Duration::from_millis(500),
        window: Duration::from_secs_f64(arguments.seconds),
    };
    machine::raise_file_limit()?;
    let outcome = load::run(&load, &machine::plan(1)?, &Clocks::default())?;
    let mut text = format!("{:.0} requests/s\n", outcome.rps());
    if arguments.rate.is_some() {
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            text += &format!("{name} {} µs\n", significant(outcome.latency_us(quantile)));
        }
    }
    print(&text)
}

fn print(text: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_has_one_turn_a_round() {
        let rows: Vec<&'static Row> = ROWS.iter().collect();
        for round in 0..20 {
            let mut names: Vec<_> = turns(&rows, round).iter().map(|row| row.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), ROWS.len());
        }
        assert_ne!(turns(&rows, 0)[0].name, turns(&rows, 2)[0].name);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn contenders_are_compiled_like_the_service() {
        let profile = |name: &str, path: &str| {
            let manifest: toml::Table =
                std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
                    .unwrap()
                    .parse()
                    .unwrap();
            let mut profile = manifest["profile"][name].as_table().unwrap().clone();
            // What the service makes small, no contender has.
            profile.remove("package");
            profile
        };
        assert_eq!(profile("release", "../Cargo.toml"), profile("release", "../../Cargo.toml"));
        for name in ["release", "function"] {
            assert_eq!(profile(name, "../instructions/Cargo.toml"), profile(name, "../../Cargo.toml"));
        }
    }
}
