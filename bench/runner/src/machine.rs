//! The machine: its cores and who gets which, and what identifies it in the results.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity},
    sys::resource::{Resource, getrlimit, setrlimit},
    unistd::Pid,
};
use serde::Serialize;
use serde_json::{Map, Value};

/// More threads than these are not needed to saturate two server cores.
const MOST_GENERATOR_THREADS: usize = 4;

/// Which cores the server runs on, and which the load generator.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) server: Vec<usize>,
    pub(crate) generator: Vec<usize>,
    /// Too few cores: the generator runs on the server's.
    pub(crate) shared: bool,
}

impl Plan {
    /// Every core that takes part.
    pub(crate) fn all(&self) -> Vec<usize> {
        let mut all = [self.server.as_slice(), &self.generator].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(crate) fn generator_threads(&self) -> usize {
        if self.shared { 1 } else { self.generator.len().min(MOST_GENERATOR_THREADS) }
    }
}

/// The cores that this process may use.
///
/// # Errors
/// When the system does not say.
pub(crate) fn cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Gives the server the last cores, as the system's own work prefers the first, and the generator the rest.
///
/// # Errors
/// When there are fewer cores than the server needs.
pub(crate) fn plan(server_cores: usize) -> Result<Plan> {
    plan_of(&cores()?, server_cores)
}

fn plan_of(cores: &[usize], server_cores: usize) -> Result<Plan> {
    ensure!(cores.len() >= server_cores, "{server_cores} cores are needed, there are {}", cores.len());
    let (rest, server) = cores.split_at(cores.len() - server_cores);
    let shared = rest.is_empty();
    let generator = if shared { cores } else { rest };
    Ok(Plan { server: server.to_vec(), generator: generator.to_vec(), shared })
}

/// Lets this process, and the servers that it starts, open as many sockets as the system allows.
///
/// # Errors
/// When the limit cannot be changed.
pub(crate) fn raise_file_limit() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// What the figures depend on.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: f64,
    pub(crate) kernel: String,
    pub(crate) virtualised: bool,
    /// Processes that wanted to run in the minute before the start: anything but 0 disturbs.
    pub(crate) load_before: f64,
}

impl Machine {
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn read() -> Result<Self> {
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let load = fs::read_to_string("/proc/loadavg")?;
        let memory_kib: f64 = value_of(&memory, "MemTotal").split(' ').next().unwrap_or("").parse()?;
        Ok(Self {
            cpu: value_of(&cpu, "model name").to_owned(),
            cores: cores()?.len(),
            memory_gb: (memory_kib * 1024.0 / 1e9).round(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            virtualised: value_of(&cpu, "flags").split(' ').any(|flag| flag == "hypervisor"),
            load_before: load.split(' ').next().unwrap_or("").parse()?,
        })
    }
}

/// What became of the CPU time since boot, in ticks of 10 ms.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ticks {
    idle: u64,
    /// Given to others by the host.
    stolen: u64,
    all: u64,
}

impl Ticks {
    /// Of some cores together.
    ///
    /// # Errors
    /// When `/proc/stat` cannot be read.
    pub(crate) fn of(cores: &[usize]) -> Result<Self> {
        Ok(ticks_of(&fs::read_to_string("/proc/stat")?, cores))
    }

    /// Per cent of the time since `earlier` in which the cores did something, or were taken away.
    pub(crate) fn used_percent_since(self, earlier: Self) -> f64 {
        let all = (self.all - earlier.all).max(1) as f64;
        100.0 * (all - (self.idle - earlier.idle) as f64) / all
    }

    /// Per cent of the time since `earlier` in which the host gave the cores to others.
    pub(crate) fn stolen_percent_since(self, earlier: Self) -> f64 {
        100.0 * (self.stolen - earlier.stolen) as f64 / (self.all - earlier.all).max(1) as f64
    }
}

/// `/proc/stat`: `cpuN user nice system idle iowait irq softirq steal guest guest_nice`, where the guests'
/// time is contained in the user's.
fn ticks_of(stat: &str, cores: &[usize]) -> Ticks {
    let mut total = Ticks::default();
    for line in stat.lines() {
        let mut words = line.split_whitespace();
        let core = words.next().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        if core.is_some_and(|core| cores.contains(&core)) {
            let ticks: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
            let tick = |index: usize| ticks.get(index).copied().unwrap_or(0);
            total.idle += tick(3) + tick(4);
            total.stolen += tick(7);
            total.all += ticks.iter().sum::<u64>();
        }
    }
    total
}

/// `name : value`, as `/proc` writes it.
fn value_of<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or("");
    line.split_once(':').map_or("unknown", |(_, value)| value.trim())
}

/// The first line that a command prints, if it runs.
pub(crate) fn first_line(program: &str, arguments: &[&str], directory: &Path) -> Option<String> {
    let output = Command::new(program).args(arguments).current_dir(directory).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().unwrap_or("").to_owned())
}

/// The commit that is measured; `-dirty` when files differ from it.
pub(crate) fn commit(root: &Path) -> String {
    let Some(commit) = first_line("git", &["rev-parse", "--short", "HEAD"], root) else {
        return "unknown".to_owned();
    };
    let changes = first_line("git", &["status", "--porcelain", "--", ".", ":!bench/results"], root);
    if changes.is_some_and(|changes| !changes.is_empty()) { format!("{commit}-dirty") } else { commit }
}

/// The versions of what the contenders are made of.
///
/// # Errors
/// When a lock file cannot be read.
pub(crate) fn versions(bench: &Path, python: Option<&Path>) -> Result<Map<String, Value>> {
    const PEERS: [&str; 6] = ["actix-web", "axum", "hyper", "lambda_http", "tokio", "tracing-subscriber"];
    const OURS: [&str; 4] = ["axum", "hyper", "lambda_http", "tokio"];
    const PYTHON: [&str; 6] = ["awslambdaric", "fastapi", "mangum", "structlog", "uvicorn", "uvloop"];
    let mut versions = Map::new();
    versions.insert("rustc".into(), first_line("rustc", &["-V"], bench).into());
    let locks =
        [("peers", bench.join("Cargo.lock"), &PEERS[..]), ("ours", bench.join("../Cargo.lock"), &OURS)];
    for (whose, path, names) in locks {
        let lock: toml::Table = fs::read_to_string(path)?.parse()?;
        for package in lock.get("package").and_then(|list| list.as_array()).into_iter().flatten() {
            let text = |key| package.get(key).and_then(|value| value.as_str()).unwrap_or("");
            if names.contains(&text("name")) {
                versions.insert(format!("{} ({whose})", text("name")), text("version").into());
            }
        }
    }
    if let Some(python) = python {
        versions.insert("python".into(), first_line(&python.to_string_lossy(), &["-V"], bench).into());
        let requirements = fs::read_to_string(bench.join("requirements.txt"))?;
        let pinned = requirements.lines().filter_map(|line| line.split_once("=="));
        versions.extend(
            pinned
                .filter(|(name, _)| PYTHON.contains(name))
                .map(|(name, version)| (name.to_owned(), version.into())),
        );
    }
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_generator_share_no_core_unless_there_are_too_few() {
        let plan = plan_of(&[0, 1, 2, 3], 2).unwrap();
        assert_eq!((plan.server, plan.generator, plan.shared), (vec![2, 3], vec![0, 1], false));
        let plan = plan_of(&[4, 6], 2).unwrap();
        assert_eq!((plan.server, plan.generator, plan.shared), (vec![4, 6], vec![4, 6], true));
        assert!(plan_of(&[0], 2).is_err());
    }

    #[test]
    fn ticks_are_counted_on_the_given_cores_only() {
        let before =
            ticks_of("cpu 9 9 9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu1 0 0 0 0 0 0 0 0 0 0", &[1]);
        let after = ticks_of("cpu1 20 0 10 40 10 5 5 10 0 0\nintr 7", &[1]);
        assert!((after.used_percent_since(before) - 50.0).abs() < 1e-9);
        assert!((after.stolen_percent_since(before) - 10.0).abs() < 1e-9);
    }

    #[test]
    fn every_version_of_the_report_is_found() {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let versions = versions(&bench, Some(Path::new("python3"))).unwrap();
        assert_eq!(versions.len(), 1 + 6 + 4 + 1 + 6, "{versions:?}");
    }
}
