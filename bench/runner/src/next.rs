//! `POST /fibonacci/next` on a database: through the service, and its statement without the service.
//!
//! Each turn has an empty database on the disk, whose every commit is flushed. Clients, service and
//! database share all cores, as pgbench and PostgreSQL do.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    figures::Samples,
    load::Work,
    machine,
    measure::{self, Server},
    rows::{Database, Group, Program, Row},
    suite::Suite,
};

/// No sequence of pgbench's expires meanwhile; the last index is out of reach.
const VARIABLES: [&str; 3] = ["now=1000000", "keep_until=2000000", "max_index=9000000000000000000"];

/// What happens before pgbench's measurement, which has no warm-up of its own.
const WARM_UP: Duration = Duration::from_secs(1);

/// SQLite's log first grows, which makes each flush several times slower, and is then written over.
const SQLITE_WARM_UP: Duration = Duration::from_secs(5);

/// Concurrent clients, fewest first, and the figure of each.
fn concurrencies(database: Database) -> &'static [(usize, &'static str)] {
    match database {
        Database::Postgres => &[(16, "next_16"), (64, "next_64")],
        Database::Sqlite => &[(8, "next_8")],
    }
}

/// The rows that cannot run on a machine with or without PostgreSQL, and why.
pub(crate) fn skipped(rows: &[&'static Row], has_postgres: bool) -> BTreeMap<&'static str, &'static str> {
    let why = "there is no PostgreSQL with pgbench here; make postgres installs Debian's";
    let needs_postgres = |row: &&&Row| row.group == Group::Next(Database::Postgres);
    if has_postgres {
        return BTreeMap::new();
    }
    rows.iter().filter(needs_postgres).map(|row| (row.name, why)).collect()
}

/// The folder of the installation that `tests/stores/postgres.sh` finds: Debian's newest, or else what is
/// on the PATH.
pub(crate) fn postgres_tools() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    let mut debian: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    // The names of its folders are major versions of two digits.
    debian.sort();
    debian.reverse();
    debian.append(&mut folders);
    debian
        .into_iter()
        .find(|folder| ["initdb", "pgbench", "psql"].iter().all(|tool| folder.join(tool).is_file()))
}

/// Proves that steps are taken, each once: the load generator compares every index.
///
/// # Errors
/// When they are not.
pub(crate) fn check(suite: &Suite, row: &Row, database: Database) -> Result<()> {
    let mut suite = suite.clone();
    suite.settings.window = Duration::from_secs(1);
    measure(&suite, row, database).map(drop)
}

/// One turn.
///
/// # Errors
/// When something does not start, fails, or miscounts.
pub(crate) fn measure(suite: &Suite, row: &Row, database: Database) -> Result<Samples> {
    match (database, row.program) {
        (Database::Postgres, Program::Pgbench) => pgbench(suite, row),
        (Database::Postgres, _) => {
            let postgres = Postgres::start(suite)?;
            service(suite, row, database, &postgres.url)
        }
        (Database::Sqlite, Program::Service { .. }) => {
            let folder = suite.empty_folder("next-sqlite")?;
            service(suite, row, database, &format!("sqlite://{}", folder.join("state.db").display()))
        }
        (Database::Sqlite, _) => sqlite_loop(suite, row),
    }
}

fn service(suite: &Suite, row: &Row, database: Database, url: &str) -> Result<Samples> {
    let mut samples = Samples::new();
    let mut suite = suite.clone();
    if database == Database::Sqlite {
        suite.settings.warm_up = SQLITE_WARM_UP;
    }
    for &(clients, figure) in concurrencies(database) {
        let connections = clients.to_string();
        let mut variables = vec![("STATE_URL", url)];
        if !row.variables.iter().any(|(name, _)| *name == "STATE_CONNECTIONS") {
            variables.push(("STATE_CONNECTIONS", &connections));
        }
        let plan = machine::plan(machine::cores()?.len())?;
        let server = Server::start_with(&suite, row, &plan, Stdio::null(), &variables)?;
        let outcome = server.load_with(&suite, Work::Next, clients, None)?;
        samples.insert(figure, outcome.rps());
        samples.insert("next_cpu_us", outcome.cpu_us());
    }
    Ok(samples)
}

fn pgbench(suite: &Suite, row: &Row) -> Result<Samples> {
    let mut samples = Samples::new();
    let postgres = Postgres::start(suite)?;
    postgres.create_table(suite)?;
    let window = suite.settings.window;
    let mut steps = 0;
    for &(clients, figure) in concurrencies(Database::Postgres) {
        steps += postgres.pgbench(suite, row, clients, WARM_UP)?.steps;
        let measured = postgres.pgbench(suite, row, clients, window)?;
        steps += measured.steps;
        samples.insert(figure, measured.rate);
    }
    let taken = postgres.psql(&["--command", "SELECT sum(last_index + 1) FROM fibonacci_sequences"])?;
    ensure!(taken.trim() == steps.to_string(), "pgbench says {steps} steps, the table {taken}");
    Ok(samples)
}

fn sqlite_loop(suite: &Suite, row: &Row) -> Result<Samples> {
    let file = suite.empty_folder("next-sqlite")?.join("state.db");
    let seconds = suite.settings.window.as_secs_f64().to_string();
    let warm_up = SQLITE_WARM_UP.as_secs_f64().to_string();
    let mut samples = Samples::new();
    for &(clients, figure) in concurrencies(Database::Sqlite) {
        let clients = clients.to_string();
        let file = file.to_string_lossy();
        let variables =
            [("FILE", &*file), ("WARM_UP", &warm_up), ("SECONDS", &seconds), ("CLIENTS", &clients)];
        samples.insert(figure, measure::figure(suite, row, &machine::cores()?, &variables)?);
    }
    Ok(samples)
}

/// A PostgreSQL server with an empty database, flushing to the disk. Dropping it ends it.
struct Postgres {
    process: Child,
    tools: PathBuf,
    url: String,
}

impl Postgres {
    fn start(suite: &Suite) -> Result<Self> {
        let tools = postgres_tools().context("no PostgreSQL")?;
        // Not in the target folder: the user that PostgreSQL runs as need not see it.
        let folder = std::env::temp_dir().join(format!("bench-postgres-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let mut command = Command::new(suite.root.join("tests/stores/postgres.sh"));
        command.arg(folder).args(["fsync=on", "synchronous_commit=on"]);
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut line)?;
        let url = format!("{}/postgres?sslmode=disable", line.trim());
        let postgres = Self { process, tools, url };
        ensure!(!line.is_empty(), "tests/stores/postgres.sh did not start a server");
        ensure!(postgres.psql(&["--command", "SHOW fsync"])?.trim() == "on", "fsync is off");
        Ok(postgres)
    }

    fn create_table(&self, suite: &Suite) -> Result<()> {
        let migration = suite.root.join("migrations/postgres/0001_sequences.sql");
        self.psql(&["--file", &migration.to_string_lossy()]).map(drop)
    }

    fn psql(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.tools.join("psql"));
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"]);
        output(command.arg("--dbname").arg(&self.url).args(arguments))
    }

    fn pgbench(&self, suite: &Suite, row: &Row, clients: usize, window: Duration) -> Result<Counted> {
        // As many threads as it can use: one alone was slower.
        let jobs = machine::cores()?.len().min(clients);
        let script = suite.bench.join("contenders/pgbench/next.sql");
        let mut command = suite.command(row, Stdio::piped())?;
        command.args(["--no-vacuum", "--protocol=prepared"]);
        command.args([
            format!("--client={clients}"),
            format!("--jobs={jobs}"),
            format!("--time={}", window.as_secs().max(1)),
        ]);
        command.args(VARIABLES.map(|variable| format!("--define={variable}")));
        let printed = output(command.arg("--file").arg(script).arg(&self.url))?;
        Counted::parse(&printed).with_context(|| format!("pgbench printed {printed:?}"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The script stops the server and removes its folder when its input ends.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// # Errors
/// When the command fails; what it complained about is in the error.
fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::piped()).output()?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed:\n{complaints}");
    Ok(String::from_utf8(output.stdout)?)
}

/// What pgbench counted.
#[derive(Debug, PartialEq)]
struct Counted {
    steps: u64,
    /// Steps a second, once the connections were there.
    rate: f64,
}

impl Counted {
    /// `None` also when a step failed: it would not count as one.
    fn parse(printed: &str) -> Option<Self> {
        let after = |name| {
            let value = printed.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_whitespace().next()
        };
        if after("number of failed transactions:").is_some_and(|failed| failed != "0") {
            return None;
        }
        let steps = after("number of transactions actually processed:")?.parse().ok()?;
        Some(Self { steps, rate: after("tps =")?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn words(path: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
        std::fs::read_to_string(path).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn statement(source: &str) -> &str {
        let start = source.find("INSERT INTO fibonacci_sequences AS known").unwrap();
        let end = start + source[start..].find("RETURNING last_index").unwrap();
        &source[start..end]
    }

    #[test]
    fn the_bare_statements_are_those_of_the_adapters() {
        let ours = words("src/store/postgres.rs");
        let pgbench = [("client_id", 1), ("max_index", 2), ("now", 3), ("keep_until", 4)]
            .iter()
            .fold(words("bench/contenders/pgbench/next.sql"), |script, (name, number)| {
                script.replace(&format!(":{name}"), &format!("${number}"))
            });
        assert_eq!(statement(&pgbench), statement(&ours));
        let bare = words("bench/contenders/sqlite-loop/src/main.rs");
        assert_eq!(statement(&bare), statement(&words("src/store/sqlite.rs")));
        // What makes a commit cost what it costs.
        for pragma in [r#""journal_mode", "WAL""#, r#""synchronous", "FULL""#] {
            assert!(bare.contains(pragma) && words("src/store/sqlite.rs").contains(pragma), "{pragma}");
        }
    }

    #[test]
    fn pgbench_is_read_and_its_failures_are_not_counted() {
        let printed = "number of clients: 16\nnumber of transactions actually processed: 4521\n\
            number of failed transactions: 0 (0.000%)\nlatency average = 3.5 ms\n\
            initial connection time = 20.1 ms\ntps = 1507.25 (without initial connection time)\n";
        assert_eq!(Counted::parse(printed), Some(Counted { steps: 4521, rate: 1507.25 }));
        assert_eq!(Counted::parse(&printed.replace("transactions: 0", "transactions: 1")), None);
        assert_eq!(Counted::parse(""), None);
    }

    #[test]
    fn without_postgres_only_its_rows_are_skipped() {
        let rows: Vec<&'static Row> = crate::rows::ROWS.iter().collect();
        assert!(skipped(&rows, true).is_empty());
        let names: Vec<_> = skipped(&rows, false).into_keys().collect();
        assert_eq!(names, ["next-postgres", "next-postgres-10", "pgbench"]);
    }
}
