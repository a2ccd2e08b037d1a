//! What a request costs, out of what a running endpoint says of itself: `/metrics` of the container, REPORT lines of
//! the function.

use serde_json::Value;

use super::{lambda::Function, service::Profile};

/// CPU time below this is a handful of the kernel's ticks of 10 ms: it says little.
const LEAST_CPU_SECONDS: f64 = 0.1;

/// What one look at `/metrics` shows.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Scrape {
    /// CPU time of the process since its start.
    pub cpu_seconds: f64,
    /// Its resident memory.
    pub resident_bytes: f64,
    /// Answered `POST` requests.
    pub requests: f64,
    /// The seconds that those took, summed up.
    pub request_seconds: f64,
}

impl Scrape {
    /// Reads Prometheus' text format.
    ///
    /// # Errors
    /// Which metric is missing.
    pub fn read(text: &str) -> Result<Self, String> {
        let sum = |name: &str, label: &str| -> Option<f64> {
            let values = text.lines().filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let labels = series.strip_prefix(name)?;
                let is_it = labels.is_empty() || labels.starts_with('{');
                (is_it && labels.contains(label)).then(|| value.parse::<f64>().ok())?
            });
            values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
        };
        let one = |name: &str| sum(name, "").ok_or_else(|| format!("there is no {name}"));
        // Of all routes: a path may be matched by any, and scrapes are GET. No request yet, no series yet.
        let posts = |part: &str| {
            sum(&format!("http_server_request_duration_seconds_{part}"), "http_request_method=\"POST\"")
                .unwrap_or(0.0)
        };
        Ok(Self {
            cpu_seconds: one("process_cpu_seconds_total")?,
            resident_bytes: one("process_resident_memory_bytes")?,
            requests: posts("count"),
            request_seconds: posts("sum"),
        })
    }
}

/// A stretch of time between two scrapes, and how many requests this command had answered in it.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// At its start.
    pub from: Scrape,
    /// At its end.
    pub to: Scrape,
    /// How long.
    pub seconds: f64,
    /// Answers that came.
    pub answered: u64,
}

impl Stretch {
    fn cpu_seconds(&self) -> f64 {
        self.to.cpu_seconds - self.from.cpu_seconds
    }

    /// That the process answered all of the requests and no others.
    ///
    /// # Errors
    /// What is to do about it otherwise.
    fn check(&self) -> Result<(), String> {
        let counted = self.to.requests - self.from.requests;
        if self.cpu_seconds() < 0.0 || counted < self.answered as f64 {
            return Err(format!(
                "/metrics counts {counted} of {} requests: several processes answer here, or it was started anew. Ask one, \
                 for instance through `kubectl port-forward`",
                self.answered
            ));
        }
        if counted > self.answered as f64 {
            return Err(format!(
                "/metrics counts {counted} requests where {} were sent: others use this endpoint, and their CPU time \
                 cannot be told apart",
                self.answered
            ));
        }
        Ok(())
    }
}

/// A measured profile, and what a person should know of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What was measured; the rest are defaults.
    pub profile: Profile,
    /// In sentences without a full stop.
    pub notes: Vec<String>,
}

/// From three stretches: nothing was sent; requests one after the other, which wait for no other request and show the
/// waiting; many at once, which use enough CPU time to measure it.
///
/// # Errors
/// Why these show nothing.
pub fn of_metrics(idle: &Stretch, alone: &Stretch, together: &Stretch) -> Result<Measured, String> {
    for stretch in [idle, alone, together] {
        stretch.check()?;
    }
    if alone.answered == 0 || together.answered == 0 {
        return Err("not one request was answered in time".into());
    }
    let idle_rate = if idle.seconds > 0.0 { idle.cpu_seconds() / idle.seconds } else { 0.0 };
    let busy = together.cpu_seconds() - idle_rate * together.seconds;
    if busy <= 0.0 {
        return Err(format!(
            "{} requests took no more CPU time than doing nothing: send more with --requests",
            together.answered
        ));
    }
    let cpu_ms = busy / together.answered as f64 * 1000.0;
    let took_ms = (alone.to.request_seconds - alone.from.request_seconds) / alone.answered as f64 * 1000.0;
    let mut notes = Vec::new();
    if busy < LEAST_CPU_SECONDS {
        notes.push(format!(
            "the CPU time of all requests was {:.0} ms, counted in steps of 10 ms: send more with --requests",
            busy * 1000.0
        ));
    }
    let profile = Profile {
        cpu_ms: rounded(cpu_ms),
        wait_ms: rounded((took_ms - cpu_ms).max(0.0)),
        memory_mib: rounded(idle.from.resident_bytes / 1_048_576.0),
        ..Profile::default()
    };
    profile.check()?;
    Ok(Measured { profile, notes })
}

/// Four digits: nothing that is measured here has more.
fn rounded(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.log10().floor() as i32);
    (value * scale).round() / scale
}

/// What Lambda reports of one invocation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// The invocation's id, which the service answers as `x-request-id` to callers without one of their own.
    pub request_id: String,
    /// Milliseconds that it took.
    pub duration_ms: f64,
    /// Milliseconds that are billed.
    pub billed_ms: f64,
    /// The function's memory.
    pub memory_mb: f64,
    /// The most of it that was used.
    pub used_mb: f64,
    /// Milliseconds of INIT, for the first invocation of an environment.
    pub init_ms: Option<f64>,
}

impl Report {
    /// Reads the REPORT lines among others, in either of Lambda's formats, with whatever a tool puts in front of them.
    ///
    /// # Errors
    /// That there are none, or which cannot be read.
    pub fn read(text: &str) -> Result<Vec<Self>, String> {
        let mut reports = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let report = if line.contains("\"platform.report\"") {
                Self::of_json(line)
            } else if let Some((_, fields)) = line.split_once("REPORT RequestId:") {
                Self::of_text(fields)
            } else {
                continue;
            };
            reports.push(report.ok_or_else(|| format!("line {}: not a whole REPORT line", index + 1))?);
        }
        if reports.is_empty() {
            return Err("there are no REPORT lines: read the function's log group, \
                        which the stack's output LogGroup names, `aws logs tail GROUP --since 1h`"
                .into());
        }
        Ok(reports)
    }

    /// `REPORT RequestId: … Duration: 3.2 ms  Billed Duration: 4 ms  Memory Size: 128 MB  …`, with tabs between.
    fn of_text(fields: &str) -> Option<Self> {
        let number = |name: &str, unit: &str| {
            let field = fields.split('\t').find_map(|field| field.trim().strip_prefix(name))?;
            field.trim().strip_suffix(unit)?.trim().parse::<f64>().ok()
        };
        Some(Self {
            request_id: fields.split_whitespace().next()?.to_owned(),
            duration_ms: number("Duration:", "ms")?,
            billed_ms: number("Billed Duration:", "ms")?,
            memory_mb: number("Memory Size:", "MB")?,
            used_mb: number("Max Memory Used:", "MB")?,
            init_ms: number("Init Duration:", "ms"),
        })
    }

    /// What `LogFormat: JSON` writes, <https://docs.aws.amazon.com/lambda/latest/dg/telemetry-schema-reference.html>.
    fn of_json(line: &str) -> Option<Self> {
        let event: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
        let record = event.get("record")?;
        let number = |name: &str| record.get("metrics")?.get(name)?.as_f64();
        Some(Self {
            request_id: record.get("requestId")?.as_str()?.to_owned(),
            duration_ms: number("durationMs")?,
            billed_ms: number("billedDurationMs")?,
            memory_mb: number("memorySizeMB")?,
            used_mb: number("maxMemoryUsedMB")?,
            init_ms: number("initDurationMs"),
        })
    }
}

/// From Lambda's reports, which tell how long, not what with. CPU time takes longer the smaller the memory, waiting does
/// not: reports at two sizes of memory tell them apart, or `cpu_ms`, measured elsewhere, does.
///
/// # Errors
/// That neither is there, or that they contradict each other.
pub fn of_reports(reports: &[Report], cpu_ms: Option<f64>) -> Result<Measured, String> {
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
        (count > 0.0).then_some(sum / count)
    };
    let mut notes = Vec::new();
    // A first invocation warms caches and connections besides: it is no example, unless there is no other.
    let mut warm: Vec<&Report> = reports.iter().filter(|report| report.init_ms.is_none()).collect();
    if warm.is_empty() {
        notes.push("all invocations are cold starts, whose duration is no example of others".to_owned());
        warm = reports.iter().collect();
    }
    // How much longer than on a whole core a millisecond of CPU time takes.
    let slowness = |report: &Report| {
        let function = Function { memory_mb: report.memory_mb as u32, ..Function::default() };
        1.0 / function.cores().clamp(f64::MIN_POSITIVE, 1.0)
    };
    let factor = mean(&mut warm.iter().map(|report| slowness(report))).unwrap_or(1.0);
    let took = mean(&mut warm.iter().map(|report| report.duration_ms)).unwrap_or_default();
    let spread: f64 = warm.iter().map(|report| (slowness(report) - factor).powi(2)).sum();
    let cpu_ms = match cpu_ms {
        Some(cpu_ms) => cpu_ms,
        None if spread > 1e-6 => {
            let both: f64 =
                warm.iter().map(|report| (slowness(report) - factor) * (report.duration_ms - took)).sum();
            (both / spread).max(0.0)
        }
        None => {
            return Err(
                "REPORT lines of one memory size do not tell CPU time from waiting: give --cpu TIME as \
                        `math-lab profile URL` measures it on the container, or lines of two sizes"
                    .into(),
            );
        }
    };
    let wait_ms = took - cpu_ms * factor;
    if wait_ms < 0.0 {
        notes.push(format!(
            "{:.3} ms of CPU time would take {:.3} ms there, and requests took {took:.3} ms: no waiting is left",
            cpu_ms,
            cpu_ms * factor
        ));
    }
    let mut profile = Profile {
        cpu_ms: rounded(cpu_ms),
        wait_ms: rounded(wait_ms.max(0.0)),
        memory_mib: reports.iter().map(|report| report.used_mb).fold(0.0, f64::max),
        ..Profile::default()
    };
    match mean(&mut reports.iter().filter_map(|report| report.init_ms)) {
        Some(init_ms) => profile.init_ms = rounded(init_ms),
        None => notes.push("there is no cold start among them: init_ms is a default".to_owned()),
    }
    profile.check()?;
    Ok(Measured { profile, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# TYPE process_cpu_seconds_total counter\n\
        process_cpu_seconds_total 1.5\n\
        process_resident_memory_bytes 3145728\n\
        http_server_request_duration_seconds_sum{http_request_method=\"POST\",http_route=\"/\"} 0.25\n\
        http_server_request_duration_seconds_count{http_request_method=\"POST\",http_route=\"/\"} 50\n\
        http_server_request_duration_seconds_count{http_request_method=\"GET\",http_route=\"/\"} 7\n";

    fn stretch(cpu: f64, sum: f64, counted: f64, seconds: f64, answered: u64) -> Stretch {
        let from = Scrape { cpu_seconds: 1.0, resident_bytes: 3_145_728.0, ..Scrape::default() };
        let to = Scrape { cpu_seconds: 1.0 + cpu, requests: counted, request_seconds: sum, ..from };
        Stretch { from, to, seconds, answered }
    }

    #[test]
    fn metrics_are_read_and_a_missing_one_is_named() {
        let scrape = Scrape::read(METRICS).unwrap();
        assert_eq!(
            scrape,
            Scrape { cpu_seconds: 1.5, resident_bytes: 3_145_728.0, requests: 50.0, request_seconds: 0.25 }
        );
        assert!(Scrape::read("up 1\n").unwrap_err().contains("process_cpu_seconds_total"));
    }

    #[test]
    fn what_an_idle_process_uses_is_taken_off_and_the_rest_of_the_time_is_waiting() {
        // 0.1 s a second idle; 1.2 s in 2 s are 1 s for 1,000 requests: 1 ms each. Alone each took 6 ms.
        let idle = stretch(0.2, 0.0, 0.0, 2.0, 0);
        let measured =
            of_metrics(&idle, &stretch(0.01, 0.06, 10.0, 0.1, 10), &stretch(1.2, 9.0, 1000.0, 2.0, 1000))
                .unwrap();
        let profile = measured.profile;
        assert_eq!((profile.cpu_ms, profile.wait_ms, profile.memory_mib), (1.0, 5.0, 3.0));
        assert!(measured.notes.is_empty(), "{:?}", measured.notes);
        let few = of_metrics(&idle, &stretch(0.0, 0.06, 10.0, 0.1, 10), &stretch(0.05, 0.1, 50.0, 0.1, 50))
            .unwrap();
        assert!(few.notes[0].contains("steps of 10 ms"), "{:?}", few.notes);
    }

    #[test]
    fn other_processes_and_other_callers_are_no_profile() {
        let idle = stretch(0.0, 0.0, 0.0, 2.0, 0);
        let good = stretch(1.0, 1.0, 100.0, 1.0, 100);
        let error = |alone, together| of_metrics(&idle, &alone, &together).unwrap_err();
        assert!(error(good, stretch(1.0, 1.0, 60.0, 1.0, 100)).contains("several processes"));
        assert!(error(good, stretch(1.0, 1.0, 160.0, 1.0, 100)).contains("others use this endpoint"));
        assert!(error(good, stretch(-1.0, 1.0, 100.0, 1.0, 100)).contains("started anew"));
        assert!(error(good, stretch(0.0, 1.0, 100.0, 1.0, 100)).contains("no more CPU time"));
        assert!(error(good, stretch(0.0, 0.0, 0.0, 1.0, 0)).contains("not one request"));
    }

    fn text(id: &str, duration: f64, memory: u32, init: &str) -> String {
        format!(
            "2026-10-05T10:00:00 REPORT RequestId: {id}\tDuration: {duration} ms\tBilled Duration: {} ms\t\
             Memory Size: {memory} MB\tMax Memory Used: 30 MB\t{init}\n",
            duration.ceil()
        )
    }

    #[test]
    fn both_formats_of_reports_are_read_and_other_lines_are_passed_over() {
        let json = r#"2026 {"time":"t","type":"platform.report","record":{"requestId":"b","metrics":{"durationMs":2.5,"billedDurationMs":3,"memorySizeMB":256,"maxMemoryUsedMB":31,"initDurationMs":20.5}}}"#;
        let log = format!("START RequestId: a\n{}{json}\n", text("a", 3.2, 128, "Init Duration: 25.1 ms\t"));
        let reports = Report::read(&log).unwrap();
        assert_eq!(reports.len(), 2);
        assert_eq!(
            (reports[0].request_id.as_str(), reports[0].billed_ms, reports[0].init_ms),
            ("a", 4.0, Some(25.1))
        );
        assert_eq!(
            (reports[1].request_id.as_str(), reports[1].memory_mb, reports[1].init_ms),
            ("b", 256.0, Some(20.5))
        );
        assert!(Report::read("START\n").unwrap_err().contains("no REPORT lines"));
        assert!(Report::read("\nREPORT RequestId: a\tDuration: x ms").unwrap_err().contains("line 2"));
    }

    #[test]
    fn two_sizes_of_memory_tell_cpu_time_from_waiting() {
        // 2 ms of CPU time, 10 ms of waiting: at half a core 14 ms, at a whole one 12 ms.
        let log = text("a", 14.0, 1769 / 2, "")
            + &text("b", 12.0, 1769, "")
            + &text("c", 99.0, 1769, "Init Duration: 20 ms\t");
        let profile = of_reports(&Report::read(&log).unwrap(), None).unwrap().profile;
        assert!((profile.cpu_ms - 2.0).abs() < 0.01 && (profile.wait_ms - 10.0).abs() < 0.02, "{profile:?}");
        assert_eq!((profile.init_ms, profile.memory_mib), (20.0, 30.0));
    }

    #[test]
    fn one_size_needs_the_cpu_time_from_elsewhere() {
        let reports = Report::read(&text("a", 14.0, 1769 / 2, "")).unwrap();
        assert!(of_reports(&reports, None).unwrap_err().contains("--cpu TIME"));
        let measured = of_reports(&reports, Some(2.0)).unwrap();
        assert!((measured.profile.wait_ms - 10.0).abs() < 0.01);
        assert!(measured.notes[0].contains("no cold start"));
        let all = of_reports(&reports, Some(20.0)).unwrap();
        assert_eq!(all.profile.wait_ms, 0.0);
        assert!(all.notes[0].contains("no waiting is left"));
    }
}
