//! Contenders as processes: started on given cores, with a CPU clock and a memory reading, killed at the end.

use std::{
    fs, io,
    process::{Child, Command, ExitStatus},
    thread,
    time::Duration,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal::{Signal, kill},
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// Restricts the calling thread, and what it starts, to `cores`.
///
/// # Errors
/// When a core does not exist or is not ours to use.
pub(crate) fn pin_this_thread(cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// A process and its descendants. Dropping it kills them all.
///
/// They stay in the runner's process group, so that ctrl-C ends them, too.
#[derive(Debug)]
pub(crate) struct Contender {
    child: Child,
}

impl Contender {
    /// Starts `command` on `cores`.
    ///
    /// # Errors
    /// When the program or a core is missing.
    pub(crate) fn start(mut command: Command, cores: &[usize]) -> io::Result<Self> {
        // A child inherits the cores of the thread that starts it, so a thread exists just for that:
        // `taskset` in front of the program would be measured along with it.
        let start = move || {
            pin_this_thread(cores)?;
            command.spawn()
        };
        let started = thread::scope(|scope| scope.spawn(start).join());
        Ok(Self { child: started.map_err(|_| io::Error::other("the starting thread panicked"))?? })
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    fn members(&self) -> Vec<Pid> {
        let processes = fs::read_dir("/proc").into_iter().flatten();
        let parents: Vec<_> = processes
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, parent_of(pid)?)))
            .collect();
        let mut members = vec![self.child.id()];
        let mut next = 0;
        while let Some(&member) = members.get(next) {
            members.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(pid, _)| pid));
            next += 1;
        }
        members.into_iter().map(|pid| Pid::from_raw(pid.cast_signed())).collect()
    }

    /// The CPU clocks of all that run now.
    pub(crate) fn clocks(&self) -> Clocks {
        Clocks(self.members().into_iter().filter_map(|pid| clock_getcpuclockid(pid).ok()).collect())
    }

    /// Resident memory of all together, in MB (10^6 bytes).
    pub(crate) fn rss_mb(&self) -> f64 {
        self.memory_mb("VmRSS:")
    }

    /// The most that each has ever had resident, added up, in MB.
    pub(crate) fn peak_rss_mb(&self) -> f64 {
        self.memory_mb("VmHWM:")
    }

    fn memory_mb(&self, field: &str) -> f64 {
        let kib: u64 = self.members().into_iter().filter_map(|pid| memory_kib(pid, field)).sum();
        kib as f64 * 1024.0 / 1e6
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        for pid in self.members() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    parse_parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `/proc/PID/stat`: the program's name, which may hold anything, ends at the last parenthesis; state and
/// parent follow.
fn parse_parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn memory_kib(pid: Pid, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

/// CPU clocks of other processes: user and system time of all their threads, in nanoseconds, where
/// `/proc/PID/stat` counts ticks of 10 ms.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Vec<ClockId>);

impl Clocks {
    /// CPU time so far.
    pub(crate) fn read(&self) -> Duration {
        self.0.iter().filter_map(|clock| clock_gettime(*clock).ok()).map(Duration::from).sum()
    }
}

/// CPU time of this process so far.
pub(crate) fn own_cpu() -> Duration {
    Clocks(vec![ClockId::CLOCK_PROCESS_CPUTIME_ID]).read()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parse_parent("7 (a) b (c)) S 42 1 1 0"), Some(42));
        assert_eq!(parse_parent(""), None);
    }

    #[test]
    fn the_clock_counts_descendants_and_dropping_ends_them() {
        let mut command = Command::new("sh");
        command.args(["-c", "(while :; do :; done) & wait"]);
        let contender = Contender::start(command, &crate::machine::cores().unwrap()).unwrap();
        let began = Instant::now();
        while contender.clocks().read() < Duration::from_millis(20) {
            assert!(began.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        }
        let members = contender.members();
        assert!(members.len() >= 2 && contender.rss_mb() > 0.0 && contender.peak_rss_mb() > 0.0);
        drop(contender);
        // What init has not yet taken note of is a zombie, which has no memory.
        while members.iter().any(|pid| memory_kib(*pid, "VmRSS:").is_some()) {
            assert!(began.elapsed() < Duration::from_secs(20));
            thread::sleep(Duration::from_millis(5));
        }
    }
}
