//! A Lambda function: as many environments as requests are under way, and what each second of them is billed.
//!
//! Sources, all under <https://docs.aws.amazon.com/lambda/latest/dg/>: `lambda-concurrency.html` (one request at a time in
//! an environment; concurrency is rate times duration; ten requests a second for each unit of it), `scaling-behavior.html`
//! (1,000 new environments of a function in 10 s), `configuration-memory.html` (1,769 MB are one vCPU),
//! `gettingstarted-limits.html` (1,000 at once in an account, unless raised), `lambda-runtime-environment.html` (INIT of up to
//! 10 s). INIT is billed: <https://aws.amazon.com/blogs/compute/aws-lambda-standardizes-billing-for-init-phase>. How long an
//! idle environment lives is documented nowhere; here it is a setting.

use super::{
    cost::{Architecture, Gateway, Usage, grouped},
    run::{Point, Recorder, Run, Span, bytes},
    service::{Latencies, Profile, Stay},
    traffic::Traffic,
};

/// New environments in any ten seconds.
const NEW_IN_WINDOW: f64 = 1000.0;
const WINDOW: usize = 10;
/// Requests a second for each unit of concurrency.
const RATE_PER_UNIT: f64 = 10.0;
/// MB that come with a whole vCPU.
const VCPU_MB: f64 = 1769.0;
/// Seconds of a block of the memory of how many environments were busy.
const BLOCK: u64 = 10;

/// A function and what stands in front of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// 128 to 10,240.
    pub memory_mb: u32,
    /// Its processor.
    pub architecture: Architecture,
    /// When an invocation is ended.
    pub timeout_seconds: f64,
    /// Environments that nobody else may take, and that it cannot exceed.
    pub reserved: Option<u32>,
    /// Environments that are always there.
    pub provisioned: u32,
    /// The account's concurrency.
    pub account: u32,
    /// How long an idle environment lives.
    pub idle_seconds: u64,
    /// In front of it.
    pub gateway: Gateway,
    /// The gateway's own limit: requests a second, and how many at once above it.
    pub throttle: Option<(f64, f64)>,
}

impl Default for Function {
    fn default() -> Self {
        Self {
            memory_mb: 128,
            architecture: Architecture::X86,
            timeout_seconds: 3.0,
            reserved: None,
            provisioned: 0,
            account: 1000,
            idle_seconds: 300,
            gateway: Gateway::Http,
            throttle: None,
        }
    }
}

impl Function {
    /// # Errors
    /// A setting that Lambda refuses.
    pub fn check(&self) -> Result<(), String> {
        if !(128..=10_240).contains(&self.memory_mb) {
            return Err(format!("a function has from 128 to 10240 MB, not {}", self.memory_mb));
        }
        if !(1.0..=900.0).contains(&self.timeout_seconds) {
            return Err(format!("a function's timeout is from 1 to 900 s, not {}", self.timeout_seconds));
        }
        if self.idle_seconds == 0 || self.idle_seconds > 86_400 {
            return Err("an idle environment lives for a second to a day".into());
        }
        if self.provisioned > self.limit() {
            return Err(format!(
                "{} provisioned are more than the limit of {}",
                self.provisioned,
                self.limit()
            ));
        }
        Ok(())
    }

    fn limit(&self) -> u32 {
        self.reserved.unwrap_or(self.account)
    }

    /// Cores that an environment has.
    #[must_use]
    pub fn cores(&self) -> f64 {
        f64::from(self.memory_mb) / VCPU_MB
    }

    /// Milliseconds of a warm invocation: CPU time at the environment's share of a core, then waiting.
    #[must_use]
    pub fn duration_ms(&self, profile: &Profile) -> f64 {
        profile.cpu_ms / self.cores().min(1.0) + profile.wait_ms
    }

    /// Seconds after which the gateway gives up.
    fn gateway_seconds(&self) -> f64 {
        match self.gateway {
            Gateway::Http => 30.0,
            Gateway::Rest => 29.0,
            Gateway::Url => f64::INFINITY,
        }
    }
}

/// The environments.
#[derive(Debug)]
struct Fleet {
    limit: f64,
    provisioned: f64,
    stay: Stay,
    init: Stay,
    environments: f64,
    busy: f64,
    starting: f64,
    new: [f64; WINDOW],
    /// Requests of the last idle time, fading.
    recent: f64,
    idle_seconds: f64,
    /// The most that were wanted in each block of seconds of the idle time.
    wanted: Vec<f64>,
    most_wanted: f64,
}

#[derive(Debug, Default)]
struct Step {
    taken: f64,
    done: f64,
    cold: f64,
}

impl Fleet {
    fn new(function: &Function, profile: &Profile) -> Self {
        let timeout = function.timeout_seconds;
        let duration = (function.duration_ms(profile) / 1000.0).min(timeout).max(1e-6);
        let start = (profile.init_ms + profile.sandbox_ms) / 1000.0;
        let provisioned = f64::from(function.provisioned);
        Self {
            limit: f64::from(function.limit()),
            provisioned,
            stay: Stay::of(duration),
            init: Stay::of(start),
            environments: provisioned,
            busy: 0.0,
            starting: 0.0,
            new: [0.0; WINDOW],
            recent: 0.0,
            idle_seconds: function.idle_seconds as f64,
            wanted: vec![0.0; (function.idle_seconds.div_ceil(BLOCK)) as usize],
            most_wanted: 0.0,
        }
    }

    fn step(&mut self, second: u64, arrivals: f64) -> Step {
        let slot = second as usize % WINDOW;
        self.new[slot] = 0.0;
        let may_start =
            (NEW_IN_WINDOW - self.new.iter().sum::<f64>()).min(self.limit - self.environments).max(0.0);
        let (stay, init) = (self.stay, self.init);
        let starting = self.starting * init.of_old;
        let started = self.starting - starting;
        let held = starting + started * stay.of_new + self.busy * stay.of_old;
        // Occupied at the end of the second, for each that starts: itself, and its request for as long as that runs.
        let each = init.of_new * (1.0 - stay.of_new);
        let fits = (self.environments + may_start - held - may_start * each) / stay.of_new;
        let taken = arrivals.min(fits).min(self.limit * RATE_PER_UNIT).max(0.0);
        let occupied = held + taken * stay.of_new;
        // Requests come at random: of many that are under way on average there are three deviations more at times.
        let wanted = occupied + 3.0 * occupied.sqrt();
        let new = ((wanted - self.environments) / (1.0 - each).max(0.01)).clamp(0.0, may_start).min(taken);
        // Where requests are rarer than environments live, it is chance that one is left: Poisson.
        let alone = if self.provisioned > 0.0 { 0.0 } else { taken * (-(self.recent + taken / 2.0)).exp() };
        let cold = new.max(alone);
        self.new[slot] = new;
        self.recent += taken - self.recent / self.idle_seconds;
        let before = self.busy + self.starting;
        self.starting = starting + cold * init.of_new;
        self.busy = (taken - cold * init.of_new + started) * stay.of_new + self.busy * stay.of_old;
        let done = before + taken - self.busy - self.starting;
        self.environments += new;
        self.expire(second, wanted);
        Step { taken, done, cold }
    }

    /// Environments that were not wanted for the idle time are gone.
    fn expire(&mut self, second: u64, wanted: f64) {
        let block = (second / BLOCK) as usize % self.wanted.len();
        if second.is_multiple_of(BLOCK) {
            self.wanted[block] = 0.0;
            self.most_wanted = self.wanted.iter().copied().fold(0.0, f64::max);
        }
        self.wanted[block] = self.wanted[block].max(wanted);
        self.most_wanted = self.most_wanted.max(wanted);
        let left = self.most_wanted.max(self.provisioned).max(self.busy + self.starting);
        self.environments = self.environments.min(left);
    }
}

/// The gateway's token bucket.
#[derive(Debug)]
struct Throttle {
    rate: f64,
    burst: f64,
    tokens: f64,
}

impl Throttle {
    fn pass(&mut self, arrivals: f64) -> f64 {
        self.tokens = (self.tokens + self.rate).min(self.rate + self.burst);
        let passed = arrivals.min(self.tokens);
        self.tokens -= passed;
        passed
    }
}

/// What an hour's invocations add up to, and what of the hours before was less than one.
#[derive(Debug, Default)]
struct Hour {
    arrived: f64,
    invoked: f64,
    cold: f64,
    in_provisioned: f64,
    answered: f64,
    seconds: u64,
}

impl Hour {
    /// Whole requests; the rest stays for the next hour, or a quiet function's bill would be off by half.
    fn take(&mut self, function: &Function, profile: &Profile) -> Usage {
        let timeout_ms = function.timeout_seconds * 1000.0;
        let billed_ms = function.duration_ms(profile).min(timeout_ms).ceil().max(1.0) as u128;
        let init_ms = profile.init_ms.min(10_000.0).ceil() as u128;
        let memory = u128::from(function.memory_mb);
        let count = |requests: &mut f64| {
            let whole = requests.round().max(0.0);
            *requests -= whole;
            whole as u128
        };
        let (invoked, provisioned) = (count(&mut self.invoked), count(&mut self.in_provisioned));
        let (arrived, cold) = (count(&mut self.arrived), count(&mut self.cold));
        let (_, out) = bytes(profile, 0.0, std::mem::take(&mut self.answered));
        let seconds = std::mem::take(&mut self.seconds);
        Usage {
            architecture: function.architecture,
            gateway: function.gateway,
            lambda_requests: invoked,
            lambda_mb_ms: memory * (billed_ms * invoked.saturating_sub(provisioned) + init_ms * cold),
            provisioned_mb_ms: memory * u128::from(function.provisioned) * u128::from(seconds) * 1000,
            provisioned_run_mb_ms: memory * billed_ms * provisioned,
            // The gateway counts what Lambda refuses, and not what it refuses itself.
            log_bytes: (arrived as f64 * profile.log_bytes).round() as u128,
            api_requests: arrived,
            out_bytes: out,
            ..Usage::default()
        }
    }
}

/// What a function used that took so many requests, whose invocations were billed for so many milliseconds of a MB in all.
#[must_use]
pub fn served(function: &Function, profile: &Profile, requests: u64, mb_ms: f64) -> Usage {
    let count = requests as f64;
    Usage {
        architecture: function.architecture,
        gateway: function.gateway,
        lambda_requests: u128::from(requests),
        lambda_mb_ms: mb_ms.round() as u128,
        log_bytes: (count * profile.log_bytes).round() as u128,
        api_requests: u128::from(requests),
        out_bytes: bytes(profile, 0.0, count).1,
        ..Usage::default()
    }
}

/// A run on Lambda.
///
/// # Errors
/// A setting that is refused.
pub fn run(function: &Function, profile: &Profile, traffic: &Traffic, span: Span) -> Result<Run, String> {
    function.check()?;
    profile.check()?;
    traffic.check()?;
    let mut fleet = Fleet::new(function, profile);
    let mut throttle = function.throttle.map(|(rate, burst)| Throttle { rate, burst, tokens: rate + burst });
    let mut recorder = Recorder::new(span);
    let mut hour = Hour::default();
    let duration = function.duration_ms(profile) / 1000.0;
    let is_late = duration > function.timeout_seconds || duration > function.gateway_seconds();
    let (mut refused_by_gateway, mut refused, mut served, mut all_cold) = (0.0, 0.0, 0.0, 0.0);
    for (second, arrivals) in (0..span.seconds).zip(traffic.seconds()) {
        let passed = throttle.as_mut().map_or(arrivals, |throttle| throttle.pass(arrivals));
        let step = fleet.step(second, passed);
        let shed = arrivals - step.taken;
        refused_by_gateway += arrivals - passed;
        refused += passed - step.taken;
        let (answered, failed) = if is_late { (0.0, step.done) } else { (step.done, 0.0) };
        served += answered;
        all_cold += step.cold;
        hour.arrived += passed;
        hour.invoked += step.taken;
        hour.cold += step.cold;
        hour.answered += answered;
        hour.seconds += 1;
        if fleet.provisioned > 0.0 {
            hour.in_provisioned += step.taken * (fleet.provisioned / fleet.busy.max(fleet.provisioned));
        }
        let is_cold = if step.taken > 0.0 { step.cold / step.taken } else { 0.0 };
        let point = Point {
            at: second,
            arrived: arrivals,
            served: answered,
            servers: fleet.environments,
            in_flight: fleet.busy + fleet.starting,
            cold: step.cold,
            latency_ms: Some(duration * 1000.0 + is_cold * (profile.init_ms + profile.sandbox_ms)),
            ..Point::default()
        };
        recorder.second(&point, shed, failed);
        if (second + 1).is_multiple_of(3600) || second + 1 == span.seconds {
            recorder.hour(hour.take(function, profile));
        }
    }
    let mut latencies = Latencies::default();
    let cold = all_cold.min(served);
    if !is_late {
        latencies.add(duration, served - cold);
        latencies.add(duration + (profile.init_ms + profile.sandbox_ms) / 1000.0, cold);
    }
    let notes = notes(function, duration, is_late, refused_by_gateway, refused);
    Ok(recorder.finish(&latencies, fleet.busy + fleet.starting, notes))
}

fn notes(function: &Function, duration: f64, is_late: bool, by_gateway: f64, by_lambda: f64) -> Vec<String> {
    let mut notes = Vec::new();
    if is_late {
        notes.push(format!(
            "no request ends in time: it takes {duration:.1} s, the function's timeout is {} s and the gateway's {} s",
            function.timeout_seconds,
            function.gateway_seconds()
        ));
    }
    if let Some((rate, burst)) = function.throttle.filter(|_| by_gateway >= 1.0) {
        notes.push(format!(
            "the gateway refused {} requests: it is set to {rate} a second and {burst} at once above it",
            grouped(format!("{by_gateway:.0}"))
        ));
    }
    if by_lambda >= 1.0 {
        notes.push(format!(
            "Lambda throttled {} requests: at most {} environments at once, 1,000 new ones in 10 s and ten \
             requests a second for each",
            grouped(format!("{by_lambda:.0}")),
            function.limit()
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(function: &Function, profile: &str, traffic: &str, seconds: u64) -> Run {
        let profile = Profile::parse(profile).unwrap();
        run(function, &profile, &Traffic::parse(traffic).unwrap(), Span::of(seconds).unwrap()).unwrap()
    }

    fn large() -> Function {
        Function { memory_mb: 1769, account: 100_000, timeout_seconds: 29.0, ..Function::default() }
    }

    #[test]
    fn concurrency_is_rate_times_duration() {
        let run = go(&large(), "cpu=1ms,wait=499ms,init=0,sandbox=0", "constant:200", 600);
        assert!((run.requests.waiting - 100.0).abs() < 0.01, "{}", run.requests.waiting);
        // A hundred, and what chance asks for besides.
        assert!((run.most_servers - 130.0).abs() < 1.0, "{}", run.most_servers);
    }

    #[test]
    fn a_function_gets_a_thousand_new_environments_in_any_ten_seconds() {
        let run = go(&large(), "cpu=1ms,wait=20s", "constant:100000", 60);
        let counts: Vec<f64> = run.timeline.iter().map(|point| point.servers).collect();
        assert_eq!(run.timeline.len(), 60);
        for (second, pair) in counts.windows(11).enumerate() {
            assert!(pair[10] - pair[0] <= 1000.0 + 1e-6, "{second}: {pair:?}");
        }
        // And it gets all of them: six thousand in a minute.
        assert!((counts[59] - 6000.0).abs() < 1.0, "{}", counts[59]);
    }

    #[test]
    fn the_account_and_the_reservation_are_limits() {
        for (function, most) in
            [(Function { account: 50, ..large() }, 50.0), (Function { reserved: Some(20), ..large() }, 20.0)]
        {
            let run = go(&function, "cpu=1ms,wait=999ms", "constant:1000", 300);
            assert!((run.most_servers - most).abs() < 1e-6, "{}", run.most_servers);
            assert!((run.requests.served / 300.0 - most).abs() < most * 0.02, "{}", run.requests.served);
            assert!(run.notes[0].contains("throttled"), "{:?}", run.notes);
        }
    }

    #[test]
    fn memory_is_processor_time() {
        let profile = Profile::parse("cpu=100ms,wait=1s").unwrap();
        let ms = |memory_mb| Function { memory_mb, ..Function::default() }.duration_ms(&profile).round();
        assert_eq!((ms(1769), ms(128), ms(10_240)), (1100.0, 2382.0, 1100.0));
    }

    #[test]
    fn rare_requests_are_cold_and_init_is_billed() {
        // One request in ten minutes: an environment that lives for five is mostly gone.
        let run = go(&large(), "cpu=10ms,init=90ms", "constant:0.00166667", 864_000);
        let share = run.requests.cold / run.requests.served;
        assert!((share - (-0.5f64).exp()).abs() < 0.02, "{share}");
        let usage = run.usage();
        let per_request = usage.lambda_mb_ms as f64 / 1769.0 / usage.lambda_requests as f64;
        assert!((per_request - (10.0 + 90.0 * share)).abs() < 1.0, "{per_request}");
        // Under steady load next to none is cold.
        let run = go(&large(), "cpu=10ms,init=90ms", "constant:100", 86_400);
        assert!(run.requests.cold < 20.0, "{}", run.requests.cold);
    }

    #[test]
    fn environments_that_were_idle_long_enough_are_gone() {
        let run = go(&large(), "cpu=1ms,wait=99ms", "spike:1..1000@60+60", 1200);
        let at = |second: u64| run.timeline.iter().find(|point| point.at + 2 > second).unwrap().servers;
        assert!(at(100) > 100.0 && at(400) > 100.0, "{} {}", at(100), at(400));
        assert!(at(460) < 2.0, "{}", at(460));
    }

    #[test]
    fn provisioned_environments_are_never_cold_and_always_billed() {
        let function = Function { provisioned: 10, ..large() };
        let run = go(&function, "cpu=10ms,init=1s", "constant:10", 3600);
        assert_eq!(run.requests.cold, 0.0);
        let usage = run.usage();
        assert_eq!(usage.provisioned_mb_ms, 1769 * 10 * 3_600_000);
        assert_eq!(usage.provisioned_run_mb_ms, 1769 * 10 * usage.lambda_requests);
        assert_eq!(usage.lambda_mb_ms, 0);
    }

    #[test]
    fn the_gateway_refuses_what_is_beyond_its_rate() {
        let function = Function { throttle: Some((100.0, 200.0)), ..large() };
        let run = go(&function, "cpu=1ms", "constant:150", 600);
        assert!((run.requests.shed - (50.0 * 600.0 - 200.0)).abs() < 1.0, "{}", run.requests.shed);
        assert_eq!(run.usage().api_requests, 600 * 100 + 200);
    }
}
