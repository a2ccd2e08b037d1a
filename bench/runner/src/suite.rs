//! Builds contenders and says how each is started.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::{
    machine, next,
    rows::{Program, Row},
};

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    /// Load before each measurement.
    pub(crate) warm_up: Duration,
    /// Length of each measurement under load.
    pub(crate) window: Duration,
    /// Cold starts of a function in each round; their median is the round's figure.
    pub(crate) starts: usize,
    /// Invocations of a function in each round.
    pub(crate) invocations: u64,
}

impl Settings {
    /// Everything, in about 25 minutes.
    pub(crate) fn full() -> Self {
        Self {
            quick: false,
            rounds: 7,
            warm_up: Duration::from_millis(500),
            window: Duration::from_secs(2),
            starts: 10,
            invocations: 5_000,
        }
    }

    /// The figures that the goals are about, in less than three minutes.
    pub(crate) fn quick() -> Self {
        Self {
            quick: true,
            rounds: 5,
            warm_up: Duration::from_millis(300),
            window: Duration::from_secs(1),
            starts: 10,
            invocations: 4_000,
        }
    }
}

/// The profile that a program is compiled with, which names its folder too.
fn profile(program: Program) -> &'static str {
    if let Program::Service { features, .. } = program { profile_of(features) } else { "release" }
}

/// The function has its own.
fn profile_of(features: &str) -> &'static str {
    if features == "function" { "function" } else { "release" }
}

/// The folder of what is built as it ships.
const SHIPPED: &str = "shipped";

fn shipped(target: &Path, binary: &str) -> PathBuf {
    target.join(SHIPPED).join(binary)
}

/// Where everything is, and how it is built.
#[derive(Debug, Clone)]
pub(crate) struct Suite {
    /// The folder `bench`.
    pub(crate) bench: PathBuf,
    /// The repository.
    pub(crate) root: PathBuf,
    target: PathBuf,
    /// Builds for this target instead of the host's.
    triple: Option<String>,
    pub(crate) settings: Settings,
}

impl Suite {
    /// # Errors
    /// When the compiler is missing.
    pub(crate) fn new(settings: Settings, musl: bool) -> Result<Self> {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let root = bench.join("..").canonicalize()?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| bench.join("target"), PathBuf::from);
        let triple = if musl { Some(format!("{}-unknown-linux-musl", std::env::consts::ARCH)) } else { None };
        fs::create_dir_all(&target)?;
        Ok(Self { bench, root, target, triple, settings })
    }

    /// What the Rust contenders are compiled for.
    pub(crate) fn triple(&self) -> String {
        let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        self.triple.clone().unwrap_or(host)
    }

    /// Builds what a row needs.
    ///
    /// # Errors
    /// When it does not compile, or Python or a package is missing.
    pub(crate) fn build(&self, row: &Row) -> Result<()> {
        for program in std::iter::once(row.program).chain(row.backend) {
            match program {
                Program::Python(_) => self.install_python()?,
                _ => self.compile(program, &self.target)?,
            }
        }
        Ok(())
    }

    fn compile(&self, program: Program, target: &Path) -> Result<()> {
        if let (Program::Service { binary, features }, Some(triple)) = (program, &self.triple) {
            // As image and bundle have it.
            let mut build = Command::new(self.root.join("scripts/build.sh"));
            build.args([binary, features]).arg(shipped(target, binary)).arg(triple);
            return run(build.env("CARGO_TARGET_DIR", target.join(SHIPPED)));
        }
        let mut cargo = Command::new("cargo");
        cargo
            .args(["build", "--profile", profile(program), "--locked", "--quiet", "--target-dir"])
            .arg(target);
        // Each program is built alone: together, cargo would give each of them the features of all.
        match program {
            Program::Service { binary, features } => cargo.current_dir(&self.root).args([
                "--bin",
                binary,
                "--no-default-features",
                "--features",
                features,
            ]),
            Program::Contender(name) => cargo.current_dir(&self.bench).args(["-p", &format!("bench-{name}")]),
            Program::Python(_) | Program::Installed(_) | Program::Pgbench => return Ok(()),
        };
        if let Some(triple) = &self.triple {
            cargo.args(["--target", triple]);
        }
        run(&mut cargo)
    }

    /// Builds the program whose instructions are counted, of exactly the versions that the service ships, and
    /// says where it is. Another build of it goes to the same place.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn compile_counted(&self, features: &str) -> Result<PathBuf> {
        let folder = self.bench.join("instructions");
        fs::copy(self.root.join("Cargo.lock"), folder.join("Cargo.lock"))?;
        let mut cargo = Command::new("cargo");
        let profile = profile_of(features);
        cargo.args(["build", "--profile", profile, "--quiet", "--features", features, "--target-dir"]);
        run(cargo.arg(&self.target).current_dir(folder))?;
        Ok(self.target.join(profile).join("bench-instructions"))
    }

    /// A file of this program's own, below the folder of what is built.
    pub(crate) fn scratch(&self, name: &str) -> PathBuf {
        self.target.join(name)
    }

    /// Seconds to build a row's program from nothing but downloaded sources.
    ///
    /// # Errors
    /// When it does not compile.
    pub(crate) fn cold_build_s(&self, row: &Row) -> Result<f64> {
        let target = self.target.join("cold");
        let _ = fs::remove_dir_all(&target);
        let began = Instant::now();
        self.compile(row.program, &target)?;
        let seconds = began.elapsed().as_secs_f64();
        fs::remove_dir_all(&target)?;
        Ok(seconds)
    }

    pub(crate) fn python(&self) -> PathBuf {
        self.bench.join(".venv/bin/python")
    }

    /// A virtual environment with the pinned versions, made again when the list changes.
    fn install_python(&self) -> Result<()> {
        let wanted = fs::read_to_string(self.bench.join("requirements.txt"))?;
        let stamp = self.bench.join(".venv/installed.txt");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        eprintln!("installing Python packages into {}", self.bench.join(".venv").display());
        run(Command::new("python3").args(["-m", "venv", "--clear", ".venv"]).current_dir(&self.bench))?;
        run(self.pip().args(["-r", "requirements.txt"]))?;
        Ok(fs::write(stamp, wanted)?)
    }

    fn pip(&self) -> Command {
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).current_dir(&self.bench);
        pip
    }

    fn executable(&self, program: Program) -> PathBuf {
        let name = match program {
            Program::Service { binary, .. } if self.triple.is_some() => return shipped(&self.target, binary),
            Program::Service { binary, .. } => binary.to_owned(),
            Program::Contender(name) => format!("bench-{name}"),
            Program::Python(_) => return self.python(),
            Program::Installed(words) => return words.first().copied().unwrap_or_default().into(),
            Program::Pgbench => return next::postgres_tools().unwrap_or_default().join("pgbench"),
        };
        self.target.join(self.triple.as_deref().unwrap_or_default()).join(profile(program)).join(name)
    }

    /// How a row is started: with its own variables and the least that a process needs of ours, its log
    /// lines to `stdout`, and what it has to complain about in a file.
    ///
    /// # Errors
    /// When that file cannot be written.
    pub(crate) fn command(&self, row: &Row, stdout: Stdio) -> Result<Command> {
        let mut command = Command::new(self.executable(row.program));
        match row.program {
            Program::Python(arguments) => {
                command.args(arguments).current_dir(self.bench.join("contenders/fastapi"));
            }
            Program::Installed(words) => {
                command.args(words.get(1..).unwrap_or_default());
            }
            Program::Service { .. } | Program::Contender(_) | Program::Pgbench => {}
        }
        command
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"))
            .env("HOST", "127.0.0.1")
            .envs(row.variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(File::create(self.complaints(row))?);
        if let Some(backend) = row.backend {
            command.env("BACKEND", self.executable(backend));
        }
        Ok(command)
    }

    /// An empty folder on the disk that is built on.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn empty_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.scratch(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Where a row's stderr goes.
    pub(crate) fn complaints(&self, row: &Row) -> PathBuf {
        self.target.join(format!("stderr-{}.log", row.name))
    }

    /// Where a row's log lines go while its answers are checked; they go to `/dev/null` when it is measured.
    pub(crate) fn lines(&self, row: &Row) -> PathBuf {
        self.target.join(format!("stdout-{}.log", row.name))
    }

    /// Whether a row that claims to write the two log lines wrote them.
    ///
    /// # Errors
    /// When it did not, within a second.
    pub(crate) fn check_lines(&self, row: &Row) -> Result<()> {
        let began = Instant::now();
        let wrote_both = || {
            let lines = fs::read_to_string(self.lines(row)).unwrap_or_default();
            lines.contains("Received addition request") && lines.contains("Computed result")
        };
        while row.logs && !wrote_both() {
            ensure!(began.elapsed() < Duration::from_secs(1), "did not write its two log lines");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The size of the archive that would be uploaded to Lambda, in MB (10^6 bytes).
    ///
    /// # Errors
    /// When the archive cannot be made.
    pub(crate) fn bundle_mb(&self, row: &Row) -> Result<f64> {
        let files = match row.program {
            Program::Python(_) => {
                let folder = self.target.join("fastapi-bundle");
                let _ = fs::remove_dir_all(&folder);
                let list = "contenders/fastapi/bundle.txt";
                run(self.pip().args(["-r", list, "-c", "requirements.txt", "--target"]).arg(&folder))?;
                for file in ["app.py", "lambda_function.py"] {
                    fs::copy(self.bench.join("contenders/fastapi").join(file), folder.join(file))?;
                }
                files_below(&folder)?
            }
            program => std::iter::once(program).chain(row.backend).map(|it| self.executable(it)).collect(),
        };
        Ok(zipped(&files)? as f64 / 1e6)
    }
}

/// # Errors
/// When the command fails; what it printed is in the error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed:\n{said}");
    Ok(())
}

fn files_below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_below(&path)?) } else { files.push(path) }
    }
    Ok(files)
}

fn zipped(files: &[PathBuf]) -> Result<u64> {
    let mut archive = ZipWriter::new(io::Cursor::new(Vec::new()));
    for file in files {
        archive.start_file(file.to_string_lossy(), SimpleFileOptions::default())?;
        archive.write_all(&fs::read(file)?)?;
    }
    Ok(archive.finish()?.into_inner().len() as u64)
}

/// A port that nobody listens on.
///
/// # Errors
/// When there is none.
pub(crate) fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// The compiler's version and the like; Python's only when a row needs it.
///
/// # Errors
/// When a lock file cannot be read.
pub(crate) fn versions(suite: &Suite, rows: &[&Row]) -> Result<serde_json::Map<String, serde_json::Value>> {
    let needs_python = rows.iter().any(|row| matches!(row.program, Program::Python(_)));
    machine::versions(&suite.bench, needs_python.then(|| suite.python()).as_deref())
}
