//! The guard: how many instructions a request and its parts take, against what `budget.toml` allows them.
//!
//! Instructions, unlike seconds, hardly depend on the machine or on what else it does. Each row is run a few
//! and many times, and what counts is the difference, so that the start of the process does not.
//!
//! gungraun, the library for this, is not used: its runner must be installed in exactly the crate's version,
//! and its limits, which stand in the code, bound a cost from above only.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, Table, value};

use crate::{
    machine::first_line,
    suite::{Suite, run},
};

/// The features of each build that has rows: the container's, and the function's.
const BUILDS: [&str; 2] = ["container", "function"];

/// How often a row is run. By the fewer times, everything that happens once has happened.
const FEW: u64 = 100;
/// See [`FEW`]. The program prepares no more.
const MANY: u64 = 1_000;

/// How far from its budget a row may be, either way. Repeated counts differ by up to 0.4 %; one `format!` too many
/// is 2.6 % of a whole request.
const MARGIN: f64 = 0.015;

/// The same where the compilers are not those of the budget: they may differ by more than any change should.
const FOREIGN_MARGIN: f64 = 0.20;

/// Instructions that a row may always be off: for small rows a different inlining is some per cent.
const SLACK: f64 = 20.0;

/// glibc chooses its string functions by the processor: the ones that all have.
const ANY_PROCESSOR: &str = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

/// What compiles the counted code, and the library that it is linked with.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
struct Toolchain {
    rustc: String,
    cc: String,
    libc: String,
}

impl Toolchain {
    /// # Errors
    /// When one of them is missing.
    fn here(folder: &Path) -> Result<Self> {
        let says = |program: &str, arguments: &[&str]| {
            first_line(program, arguments, folder).with_context(|| format!("{program} {arguments:?} fails"))
        };
        let rustc = says("rustc", &["--version"])?;
        Ok(Self {
            rustc: rustc.split(' ').nth(1).unwrap_or_default().to_owned(),
            cc: says("cc", &["-dumpfullversion", "-dumpversion"])?,
            libc: says("getconf", &["GNU_LIBC_VERSION"])?,
        })
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, cc, libc } = self;
        write!(f, "rustc {rustc}, cc {cc}, {libc}")
    }
}

/// The part of `budget.toml` that is about instructions.
#[derive(Debug, Deserialize)]
struct Budget {
    #[serde(default)]
    toolchain: Toolchain,
    instructions: BTreeMap<String, u64>,
}

/// A row, its count, and its budget: one of the two may be missing.
#[derive(Debug, PartialEq)]
struct Case<'a> {
    row: &'a str,
    count: Option<u64>,
    budget: Option<u64>,
}

impl Case<'_> {
    /// What is wrong with it.
    fn complaint(&self, margin: f64) -> Option<String> {
        let (count, budget) = match (self.count, self.budget) {
            (Some(count), Some(budget)) => (count, budget),
            (count, _) => {
                let what = if count.is_some() { "a row without a budget" } else { "a budget without a row" };
                return Some(format!("{}: {what}; `make instructions UPDATE=yes` sets that right", self.row));
            }
        };
        let allowed = (budget as f64 * margin).max(SLACK);
        let advice = if count as f64 > budget as f64 + allowed {
            "make it cheaper again, or, if it is worth that, `make instructions UPDATE=yes` and say in the commit why"
        } else if (count as f64) < budget as f64 - allowed {
            "tighten the budget, so that the gain stays: `make instructions UPDATE=yes`"
        } else {
            return None;
        };
        let percent = percent_off(count, budget);
        Some(format!(
            "{}: {count} instructions, {percent:+.1} % from its budget of {budget} (allowed: {:.0}): {advice}",
            self.row, allowed
        ))
    }
}

fn percent_off(count: u64, budget: u64) -> f64 {
    100.0 * (count as f64 - budget as f64) / budget as f64
}

/// Every row, and every budget that has none.
fn cases<'a>(counts: &'a [(String, u64)], budgets: &'a BTreeMap<String, u64>) -> Vec<Case<'a>> {
    let counted = counts.iter().map(|(row, count)| Case {
        row,
        count: Some(*count),
        budget: budgets.get(row).copied(),
    });
    let gone = budgets
        .iter()
        .filter(|(row, _)| !counts.iter().any(|(counted, _)| counted == *row))
        .map(|(row, budget)| Case { row, count: None, budget: Some(*budget) });
    counted.chain(gone).collect()
}

/// Counts every row and prints the table; then holds them against the budget, or, to `update` it, makes the
/// counts the new one.
///
/// # Errors
/// When a row is off its budget, named, or when something cannot be built or run.
pub(crate) fn check(suite: &Suite, update: bool) -> Result<()> {
    let began = Instant::now();
    let path = suite.bench.join("budget.toml");
    let text = fs::read_to_string(&path)?;
    let budget: Budget = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let toolchain = Toolchain::here(&suite.bench)?;
    let counts = count_all(suite)?;
    let cases = cases(&counts, &budget.instructions);
    crate::print(&table(&cases))?;
    if update {
        return Ok(fs::write(&path, updated(&text, &toolchain, &counts)?)?);
    }

    let margin = if toolchain == budget.toolchain { MARGIN } else { FOREIGN_MARGIN };
    if toolchain != budget.toolchain {
        eprintln!(
            "The budget is for {}, this is {toolchain}: {:.0} % are allowed in place of {:.1} %.",
            budget.toolchain,
            100.0 * FOREIGN_MARGIN,
            100.0 * MARGIN
        );
    }
    let complaints: Vec<_> = cases.iter().filter_map(|case| case.complaint(margin)).collect();
    // In the form of pytest's last line: `.ci/run` adds them up.
    let passed = cases.len() - complaints.len();
    let seconds = began.elapsed().as_secs_f64();
    crate::print(&match complaints.len() {
        0 => format!("{passed} passed in {seconds:.1}s\n"),
        failed => format!("{failed} failed, {passed} passed in {seconds:.1}s\n"),
    })?;
    ensure!(complaints.is_empty(), "off their budgets in bench/budget.toml:\n{}", complaints.join("\n"));
    Ok(())
}

fn count_all(suite: &Suite) -> Result<Vec<(String, u64)>> {
    let mut counts = Vec::new();
    for features in BUILDS {
        let program = suite.compile_counted(features)?;
        let output = Command::new(&program).output()?;
        let rows = String::from_utf8(output.stdout)?;
        ensure!(output.status.success() && !rows.is_empty(), "{} names no rows", program.display());
        for row in rows.lines() {
            let few = count(suite, &program, row, FEW)?;
            let many = count(suite, &program, row, MANY)?;
            ensure!(many > few, "{row}: more work is not more instructions ({few}, {many})");
            counts.push((row.to_owned(), (many - few).div_ceil(MANY - FEW)));
        }
    }
    Ok(counts)
}

/// The instructions of the first thread. The writer of log lines has one of its own, and how often it wakes is
/// a matter of time.
fn count(suite: &Suite, program: &Path, row: &str, times: u64) -> Result<u64> {
    let file = suite.scratch("callgrind.out");
    let of_first_thread = suite.scratch("callgrind.out-01");
    // A count of another run must not be taken for this one's.
    if of_first_thread.exists() {
        fs::remove_file(&of_first_thread)?;
    }
    let mut valgrind = Command::new(suite.bench.join("valgrind.sh"));
    valgrind
        .args(["--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args([row, &times.to_string()])
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
        .env("GLIBC_TUNABLES", ANY_PROCESSOR)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    run(&mut valgrind).with_context(|| format!("counting {row}"))?;
    total(&fs::read_to_string(of_first_thread)?)
}

/// `totals: 1234`, the last line of callgrind's file.
fn total(profile: &str) -> Result<u64> {
    let Some(total) = profile.lines().rev().find_map(|line| line.strip_prefix("totals: ")) else {
        bail!("callgrind wrote no totals");
    };
    Ok(total.trim().parse()?)
}

fn table(cases: &[Case<'_>]) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut text = format!("{:<14}{:>14}{:>10}{:>12}\n", "row", "instructions", "budget", "difference");
    for Case { row, count, budget } in cases {
        let difference = match (count, budget) {
            (Some(count), Some(budget)) => format!("{:+.1} %", percent_off(*count, *budget)),
            _ => "-".to_owned(),
        };
        let (count, budget) = (number(*count), number(*budget));
        let _ = writeln!(text, "{row:<14}{count:>14}{budget:>10}{difference:>12}");
    }
    text
}

/// The file with other counts and the toolchain that they are of; comments and other tables stay.
fn updated(text: &str, toolchain: &Toolchain, counts: &[(String, u64)]) -> Result<String> {
    let mut document: DocumentMut = text.parse()?;
    let Toolchain { rustc, cc, libc } = toolchain;
    let tools = [("rustc", rustc), ("cc", cc), ("libc", libc)];
    refill(&mut document, "toolchain", tools.map(|(name, version)| (name, value(version))))?;
    let mut rows = Vec::new();
    for (row, count) in counts {
        rows.push((row.as_str(), value(i64::try_from(*count)?)));
    }
    refill(&mut document, "instructions", rows)?;
    Ok(document.to_string())
}

fn refill<'a>(
    document: &mut DocumentMut,
    name: &str,
    entries: impl IntoIterator<Item = (&'a str, toml_edit::Item)>,
) -> Result<()> {
    let table = document.entry(name).or_insert_with(|| Table::new().into());
    let table = table.as_table_mut().with_context(|| format!("[{name}] is no table"))?;
    table.clear();
    table.extend(entries);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(count: Option<u64>, budget: Option<u64>, margin: f64) -> Option<String> {
        Case { row: "log line", count, budget }.complaint(margin)
    }

    #[test]
    fn a_row_within_the_margin_is_right_and_one_beyond_is_named() {
        for count in [9_850, 10_000, 10_150] {
            assert_eq!(complaint(Some(count), Some(10_000), MARGIN), None);
        }
        let dearer = complaint(Some(10_301), Some(10_000), MARGIN).unwrap();
        assert!(
            dearer.starts_with("log line: 10301 instructions, +3.0 % ") && dearer.contains("cheaper again")
        );
        let cheaper = complaint(Some(9_840), Some(10_000), MARGIN).unwrap();
        assert!(cheaper.starts_with("log line: 9840 instructions, -1.6 % "), "{cheaper}");
        assert!(cheaper.contains("tighten the budget"), "{cheaper}");
    }

    #[test]
    fn small_rows_have_slack_and_foreign_compilers_a_wide_margin() {
        assert_eq!(complaint(Some(170), Some(150), MARGIN), None);
        assert!(complaint(Some(171), Some(150), MARGIN).is_some());
        assert_eq!(complaint(Some(11_500), Some(10_000), FOREIGN_MARGIN), None);
        assert!(complaint(Some(12_001), Some(10_000), FOREIGN_MARGIN).is_some());
    }

    #[test]
    fn rows_without_a_budget_and_budgets_without_a_row_are_wrong() {
        let counts = [("new".to_owned(), 7), ("kept".to_owned(), 8)];
        let budgets = BTreeMap::from([("kept".to_owned(), 8), ("old".to_owned(), 9)]);
        let complaints: Vec<_> =
            cases(&counts, &budgets).iter().filter_map(|case| case.complaint(MARGIN)).collect();
        let [new, old] = complaints.as_slice() else { panic!("{complaints:?}") };
        assert!(new.starts_with("new: a row without a budget"));
        assert!(old.starts_with("old: a budget without a row"));
    }

    #[test]
    fn an_update_replaces_the_rows_and_the_toolchain_and_nothing_else() {
        let before = "# What.\n[instructions]\nold = 1\n\n# About CPU.\n[cpu]\nrequest_us = 8.9\n";
        let toolchain = Toolchain { rustc: "1.95.0".into(), cc: "12.2.0".into(), libc: "glibc 2.36".into() };
        let after = updated(before, &toolchain, &[("POST /".to_owned(), 14_882)]).unwrap();
        assert!(after.starts_with("# What.\n[instructions]\n\"POST /\" = 14882\n"), "{after}");
        assert!(
            after.contains("\n# About CPU.\n[cpu]\nrequest_us = 8.9\n") && !after.contains("old"),
            "{after}"
        );
        let budget: Budget = toml::from_str(&after).unwrap();
        assert_eq!((budget.toolchain, budget.instructions["POST /"]), (toolchain, 14_882));
    }

    #[test]
    fn the_total_is_read_and_its_absence_is_an_error() {
        assert_eq!(total("events: Ir\nfn=(1) main\n+1 2\n\ntotals: 1234\n").unwrap(), 1234);
        assert!(total("events: Ir\n").is_err());
    }
}
