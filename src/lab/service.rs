//! What one pod or one environment can do: from what a request costs to how long it takes.
//!
//! Requests are a fluid. In each second some arrive; they pass a queue for CPU time and then wait for as long as their
//! own waiting lasts. Waiting overlaps, CPU time does not: that is all of the difference between the two, and why an
//! autoscaler on CPU sees only one of them.

use serde::{Deserialize, Serialize};

/// What a request costs, and the process that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// CPU time of a request, in milliseconds of one core.
    pub cpu_ms: f64,
    /// Time of a request that is spent waiting, in milliseconds.
    pub wait_ms: f64,
    /// Memory of an idle process, in MiB.
    pub memory_mib: f64,
    /// Memory that a request holds while it is served, in KiB.
    pub request_memory_kib: f64,
    /// Bytes of a request with its head.
    pub request_bytes: f64,
    /// Bytes of an answer with its head.
    pub response_bytes: f64,
    /// Bytes that a call of the function logs, its gateway's line included: CloudWatch bills them, a pod's stay on its
    /// node.
    pub log_bytes: f64,
    /// From a container's start to its first answer, in milliseconds.
    pub start_ms: f64,
    /// Lambda's INIT phase, in milliseconds: it is billed.
    pub init_ms: f64,
    /// What a cold start takes besides INIT, in milliseconds: it is not billed.
    pub sandbox_ms: f64,
}

impl Default for Profile {
    /// An addition of this service without a delay, as docs/performance.md measures it; bytes and cold starts are round
    /// figures.
    fn default() -> Self {
        Self {
            cpu_ms: 0.01,
            wait_ms: 0.0,
            memory_mib: 3.0,
            request_memory_kib: 26.0,
            request_bytes: 300.0,
            response_bytes: 400.0,
            log_bytes: 1500.0,
            start_ms: 50.0,
            init_ms: 20.0,
            sandbox_ms: 100.0,
        }
    }
}

impl Profile {
    /// Reads `cpu=0.5ms,wait=5s`: names are those of the fields, with or without their unit.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut profile = Self::default();
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (name, value) =
                pair.trim().split_once('=').ok_or_else(|| format!("{pair:?}: write NAME=VALUE"))?;
            let time = || {
                milliseconds(value).ok_or_else(|| format!("{value:?} is no time such as 9us, 0.5ms or 5s"))
            };
            let number = || value.parse::<f64>().map_err(|_| format!("{value:?} is not a number"));
            match name {
                "cpu" | "cpu_ms" => profile.cpu_ms = time()?,
                "wait" | "wait_ms" => profile.wait_ms = time()?,
                "start" | "start_ms" => profile.start_ms = time()?,
                "init" | "init_ms" => profile.init_ms = time()?,
                "sandbox" | "sandbox_ms" => profile.sandbox_ms = time()?,
                "memory" | "memory_mib" => profile.memory_mib = number()?,
                "request_memory" | "request_memory_kib" => profile.request_memory_kib = number()?,
                "request_bytes" => profile.request_bytes = number()?,
                "response_bytes" => profile.response_bytes = number()?,
                "log_bytes" => profile.log_bytes = number()?,
                _ => {
                    return Err(format!(
                        "a profile has no {name:?}: it has cpu, wait, start, init, sandbox, memory, request_memory, \
                         request_bytes, response_bytes and log_bytes"
                    ));
                }
            }
        }
        profile.check()?;
        Ok(profile)
    }

    /// # Errors
    /// A figure that is negative, no number or absurd.
    pub fn check(&self) -> Result<(), String> {
        for (name, value, most) in [
            ("cpu_ms", self.cpu_ms, 1e7),
            ("wait_ms", self.wait_ms, 1e7),
            ("memory_mib", self.memory_mib, 1e6),
            ("request_memory_kib", self.request_memory_kib, 1e6),
            ("request_bytes", self.request_bytes, 1e10),
            ("response_bytes", self.response_bytes, 1e10),
            ("log_bytes", self.log_bytes, 1e10),
            ("start_ms", self.start_ms, 3.6e6),
            ("init_ms", self.init_ms, 6e5),
            ("sandbox_ms", self.sandbox_ms, 6e4),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(format!("a profile's {name} of {value} is not between 0 and {most:e}"));
            }
        }
        if self.cpu_ms + self.wait_ms <= 0.0 {
            return Err("a request takes some time: cpu_ms or wait_ms is above 0".into());
        }
        Ok(())
    }
}

fn milliseconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic() || c == 'µ').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    Some(match unit {
        // Divided rather than multiplied by 0.001: 9us is 0.009 and not a bit more.
        "us" | "µs" => number / 1000.0,
        "" | "ms" => number,
        "s" => number * 1000.0,
        "m" => number * 60_000.0,
        _ => return None,
    })
}

/// How much of a flow that comes in evenly over a second is still inside at its end, and how much of what was inside
/// before: of a stay of `mean` seconds, memoryless. Both conserve what flows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stay {
    /// Of what comes in during the second.
    pub of_new: f64,
    /// Of what was there at its start.
    pub of_old: f64,
}

impl Stay {
    /// For a stay of so many seconds.
    #[must_use]
    pub fn of(mean: f64) -> Self {
        if mean <= 0.0 {
            return Self { of_new: 0.0, of_old: 0.0 };
        }
        let of_old = (-1.0 / mean).exp();
        Self { of_new: mean * (1.0 - of_old), of_old }
    }
}

/// Servers that share a load evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Servers {
    /// How many serve.
    pub count: f64,
    /// Cores that each may use at most.
    pub cores: f64,
    /// Requests that each holds at once; more are shed.
    pub slots: f64,
}

/// What becomes of a second's requests.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Second {
    /// Answered in time.
    pub served: f64,
    /// Turned away at once: 503.
    pub shed: f64,
    /// Not answered in time: 504.
    pub failed: f64,
    /// CPU time, in core-seconds.
    pub cpu: f64,
    /// The share of the cores that arrivals would need.
    pub load: f64,
    /// Seconds that the last request in the queue will wait for CPU.
    pub queue_seconds: f64,
}

/// The requests inside of all servers of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Station {
    cpu_seconds: f64,
    patience: f64,
    stay: Stay,
    /// Whether a request that gets all it asks for still takes too long.
    is_hopeless: bool,
    /// Requests that want CPU time.
    pub queued: f64,
    /// Requests that wait for something else.
    pub waiting: f64,
}

impl Station {
    /// For requests of a profile that get so much of a core at most, where nobody waits longer than the timeout.
    #[must_use]
    pub fn new(profile: &Profile, speed: f64, timeout_seconds: f64) -> Self {
        let (cpu, wait) = (profile.cpu_ms / 1000.0, profile.wait_ms / 1000.0);
        let alone = wait + cpu / speed;
        Self {
            cpu_seconds: cpu,
            patience: (timeout_seconds - alone).max(0.0),
            stay: Stay::of(wait.min(timeout_seconds)),
            is_hopeless: alone > timeout_seconds,
            queued: 0.0,
            waiting: 0.0,
        }
    }

    /// Requests inside.
    #[must_use]
    pub fn in_flight(&self) -> f64 {
        self.queued + self.waiting
    }

    /// One second.
    pub fn step(&mut self, arrivals: f64, servers: &Servers) -> Second {
        let mut second = Second::default();
        let room = servers.count * servers.slots;
        let cores = servers.count * servers.cores;
        let rate = if self.cpu_seconds > 0.0 { cores / self.cpu_seconds } else { f64::INFINITY };
        let wanted = self.queued + arrivals;
        // No more than the cores can do, and no more than leaves a slot for each that waits. Where nobody serves nothing
        // passes, whatever it costs.
        let held = self.waiting * self.stay.of_old;
        let free =
            if self.stay.of_new > 0.0 { (room - held).max(0.0) / self.stay.of_new } else { f64::INFINITY };
        let passed = if servers.count > 0.0 { wanted.min(rate).min(free) } else { 0.0 };
        let waiting = passed * self.stay.of_new + held;
        let done = passed + self.waiting - waiting;
        let mut queued = wanted - passed;
        // The queue holds what has a slot and is still served in time.
        let slots = (room - waiting).max(0.0);
        if queued > slots {
            second.shed = queued - slots;
            queued = slots;
        }
        let in_time = if rate.is_finite() { rate * self.patience } else { f64::INFINITY };
        if queued > in_time {
            second.failed = queued - in_time;
            queued = in_time;
        }
        (self.queued, self.waiting) = (queued, waiting);
        if self.is_hopeless {
            second.failed += done
        } else {
            second.served = done
        }
        second.cpu = passed * self.cpu_seconds;
        second.load = if cores > 0.0 { arrivals * self.cpu_seconds / cores } else { 0.0 };
        second.queue_seconds =
            if queued > 0.0 && rate > 0.0 && rate.is_finite() { queued / rate } else { 0.0 };
        second
    }
}

/// Mantissa bits of a bucket: steps of 1.6 %.
const BITS: u32 = 6;
const BUCKETS: usize = 64 << BITS;
/// The exponent of the first bucket: 2^-20 s, a microsecond.
const FIRST: i64 = -20;

/// How long requests took, in buckets 1.6 % apart from a microsecond up, each with its mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies {
    /// Requests, and the sum of their seconds.
    buckets: Vec<(f64, f64)>,
    total: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![(0.0, 0.0); BUCKETS], total: 0.0 }
    }
}

impl Latencies {
    /// So many requests took so many seconds.
    pub fn add(&mut self, seconds: f64, requests: f64) {
        let place = (seconds.max(0.0).to_bits() >> (52 - BITS)) as i64 - ((1023 + FIRST) << BITS);
        let place = usize::try_from(place).unwrap_or(0).min(BUCKETS - 1);
        self.buckets[place].0 += requests;
        self.buckets[place].1 += requests * seconds;
        self.total += requests;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.total
    }

    /// What a share of the requests stayed within, in seconds; nothing when there were none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        if self.total <= 0.0 {
            return None;
        }
        let wanted = self.total * share;
        let mut sum = 0.0;
        for (count, seconds) in &self.buckets {
            sum += count;
            if sum >= wanted && *count > 0.0 {
                return Some(seconds / count);
            }
        }
        None
    }
}

/// How finely the load is told apart.
const LOADS: usize = 256;
/// Points that stand for the tail of a waiting time.
const TAIL: usize = 16;

/// Waiting for a core although there are enough on average, because requests come at random: kept by load while a run
/// goes on, and turned into latencies at its end, because a day has too many seconds for the formula in each.
///
/// Each server has a queue of its own: M/M/m with Sakasegawa's approximation, whose waiting time is exponential.
///
/// Source: H. Sakasegawa, An approximation formula L_q ≈ α·ρ^β/(1-ρ), Annals of the Institute of Statistical
/// Mathematics 29 (1977).
#[derive(Debug, Clone)]
pub struct Randomness {
    served: [f64; LOADS],
}

impl Default for Randomness {
    fn default() -> Self {
        Self { served: [0.0; LOADS] }
    }
}

/// Where a load is kept.
fn place(load: f64) -> usize {
    ((load * LOADS as f64) as usize).min(LOADS - 1)
}

/// The share of requests that wait at the load of a place, and how long those do on average.
fn wait(place: usize, service: f64, servers: f64) -> (f64, f64) {
    let load = (place as f64 + 0.5) / LOADS as f64;
    let waits = load.powf((2.0 * (servers + 1.0)).sqrt() - 1.0);
    (waits, service / (servers * (1.0 - load)))
}

/// The mean of that wait over all requests, worked out once for each load.
#[derive(Debug, Clone)]
pub struct Chance([f64; LOADS]);

impl Chance {
    /// For requests that take so long on one of the cores that there are for them.
    #[must_use]
    pub fn of(service: f64, cores: f64) -> Self {
        let servers = cores.floor().max(1.0);
        Self(std::array::from_fn(|place| {
            let (waits, mean) = wait(place, service, servers);
            waits * mean
        }))
    }

    /// Seconds at a load.
    #[must_use]
    pub fn at(&self, load: f64) -> f64 {
        self.0[place(load)]
    }
}

impl Randomness {
    /// So many requests were served at a load.
    pub fn add(&mut self, load: f64, requests: f64) {
        self.served[place(load)] += requests;
    }

    /// Turns what was added into latencies: requests take so long on one of the cores that there are for them, and
    /// `base` besides.
    pub fn settle(&mut self, latencies: &mut Latencies, service: f64, base: f64, cores: f64) {
        let servers = cores.floor().max(1.0);
        for (place, served) in self.served.iter_mut().enumerate().filter(|(_, served)| **served > 0.0) {
            let (waits, mean) = wait(place, service, servers);
            latencies.add(base + service, *served * (1.0 - waits));
            for point in 0..TAIL {
                let share = (point as f64 + 0.5) / TAIL as f64;
                latencies.add(base + service - mean * (1.0 - share).ln(), *served * waits / TAIL as f64);
            }
            *served = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(text: &str) -> Profile {
        Profile::parse(text).unwrap()
    }

    fn servers(count: f64, cores: f64, slots: f64) -> Servers {
        Servers { count, cores, slots }
    }

    #[test]
    fn a_profile_is_read_in_any_unit_and_kept_as_json() {
        let read = profile("cpu=9us, wait=5s,memory=40");
        assert_eq!((read.cpu_ms, read.wait_ms, read.memory_mib), (0.009, 5000.0, 40.0));
        let json = serde_json::to_string(&read).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), read);
        for wrong in ["cpu", "cpu=x", "cpu=-1", "cpu=nan", "cpu=1e9", "cpu=0,wait=0", "gpu=1", "cpu=1h"] {
            assert!(Profile::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn waiting_overlaps_and_cpu_does_not() {
        // 100 requests a second that wait 5 s are 500 at once and next to no CPU time.
        let mut waits = Station::new(&profile("cpu=1us,wait=5s"), 1.0, 30.0);
        let last = (0..60).map(|_| waits.step(100.0, &servers(1.0, 1.0, 1e4))).last().unwrap();
        assert!((499.0..501.0).contains(&waits.in_flight()), "{}", waits.in_flight());
        assert!((99.9..100.1).contains(&last.served));
        assert!(last.cpu < 0.001);
        // 100 requests a second that need 50 ms of CPU need five cores: one serves 20 of them.
        let mut works = Station::new(&profile("cpu=50ms"), 1.0, 30.0);
        let last = (0..120).map(|_| works.step(100.0, &servers(1.0, 1.0, 1e4))).last().unwrap();
        assert!((19.9..20.1).contains(&last.served), "{}", last.served);
        assert!((last.load - 5.0).abs() < 1e-9);
        assert!((79.9..80.1).contains(&last.failed), "{}", last.failed);
    }

    #[test]
    fn beyond_the_slots_requests_are_shed() {
        let mut station = Station::new(&profile("cpu=1us,wait=10s"), 1.0, 30.0);
        let last = (0..100).map(|_| station.step(100.0, &servers(2.0, 1.0, 100.0))).last().unwrap();
        assert!((station.in_flight() - 200.0).abs() < 1e-6);
        assert!((last.shed - 80.0).abs() < 1.5, "{}", last.shed);
    }

    #[test]
    fn waiting_longer_than_the_timeout_fails() {
        let mut station = Station::new(&profile("cpu=1us,wait=40s"), 1.0, 30.0);
        let last = (0..300).map(|_| station.step(10.0, &servers(1.0, 1.0, 1e4))).last().unwrap();
        assert!(last.served == 0.0 && (last.failed - 10.0).abs() < 0.01);
    }

    #[test]
    fn nobody_is_served_after_the_timeout() {
        // Half a core: a request of 5 s takes 10 s, and 35 s are left to queue.
        let profile = profile("cpu=5s");
        let mut station = Station::new(&profile, 0.5, 45.0);
        let last = (0..600).map(|_| station.step(1.0, &servers(2.0, 0.5, 1e4))).last().unwrap();
        assert!((last.queue_seconds - 35.0).abs() < 0.01, "{}", last.queue_seconds);
        assert!((last.served - 0.2).abs() < 1e-9 && (last.failed - 0.8).abs() < 1e-9, "{last:?}");
    }

    #[test]
    fn nobody_to_serve_is_nobody_served() {
        let mut station = Station::new(&profile("cpu=1us,wait=1s"), 1.0, 30.0);
        let second = station.step(10.0, &servers(0.0, 1.0, 1e4));
        assert_eq!((second.served, second.shed), (0.0, 10.0));
    }

    #[test]
    fn quantiles_are_right_to_a_bucket() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        (1..=1000).for_each(|ms| latencies.add(f64::from(ms) / 1000.0, 1.0));
        for (share, seconds) in [(0.5, 0.5), (0.95, 0.95), (0.99, 0.99)] {
            let quantile = latencies.quantile(share).unwrap();
            assert!((quantile / seconds - 1.0).abs() < 0.02, "{share}: {quantile}");
        }
    }

    #[test]
    fn one_server_at_half_load_waits_as_the_textbook_says() {
        // M/M/1 at 0.5: half of the requests wait, and those wait as long as two services on average.
        let (mut randomness, mut latencies) = (Randomness::default(), Latencies::default());
        randomness.add(0.5, 1e6);
        randomness.settle(&mut latencies, 0.1, 0.0, 1.0);
        // So a service more on average.
        let mean = Chance::of(0.1, 1.0).at(0.5);
        assert!((mean / 0.1 - 1.0).abs() < 0.02, "{mean}");
        let p50 = latencies.quantile(0.49).unwrap();
        assert!((p50 / 0.1 - 1.0).abs() < 0.02, "{p50}");
        // Of those that wait half wait longer than 0.2 s * ln 2.
        let p75 = latencies.quantile(0.75).unwrap();
        assert!((p75 / (0.1 + 0.2 * 2f64.ln()) - 1.0).abs() < 0.1, "{p75}");
    }
}
