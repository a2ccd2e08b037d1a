//! What Prometheus scrapes, named after OpenTelemetry's HTTP semantic conventions in Prometheus form
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>).

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use axum::http::{Method, StatusCode};
use prometheus::{
    Counter, Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, Opts, Registry,
    TextEncoder, core::Collector,
};

use super::{emf, writer::Writer};

/// Upper bounds in seconds: OpenTelemetry's advice for HTTP, with finer steps below 5 ms.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    30.0,
];

/// The process's metrics; clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    active: IntGauge,
    duration: HistogramVec,
    shed: IntCounter,
    log_lines_dropped: IntCounter,
    cpu_seconds: Counter,
    resident_bytes: IntGauge,
    writer: Option<Writer>,
    emf: bool,
}

/// What a request is counted under. Every value comes from a fixed set: a caller cannot add series.
#[derive(Debug, Clone, Copy)]
pub struct Labels {
    /// The matched route, such as `/fibonacci/{n}`, or `unmatched`.
    pub route: &'static str,
    /// The method, or `_OTHER` for one that HTTP does not define.
    pub method: &'static str,
    /// `2xx`, `4xx`, …
    pub status_class: &'static str,
}

/// A route's own histograms, looked up once and kept: one a method and status class.
pub struct RouteMetrics {
    name: &'static str,
    /// Most routes of most processes are never called.
    durations: OnceLock<Box<Durations>>,
}

type Durations = [[OnceLock<Histogram>; CLASSES.len()]; METHODS.len()];

impl RouteMetrics {
    /// The metrics of the route with this path.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, durations: OnceLock::new() }
    }

    /// The route's path.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl Metrics {
    /// Registers every metric. `writer` is where log lines go, and EMF lines too when `emf` is set.
    ///
    /// # Errors
    /// When two metrics share a name: a mistake in this file that any test shows.
    pub fn new(writer: Option<Writer>, emf: bool) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "http_server_request_duration_seconds",
                "Time from a request's head to its answer.",
            )
            .buckets(BUCKETS.to_vec()),
            &["http_route", "http_request_method", "http_response_status_class"],
        )?;
        registry.register(Box::new(duration.clone()))?;
        let build_info = IntGauge::with_opts(
            Opts::new("math_service_build_info", "Always 1; the version is a label.")
                .const_label("version", crate::VERSION),
        )?;
        build_info.set(1);
        registry.register(Box::new(build_info))?;

        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let active =
            gauge("http_server_active_requests", "Requests being served now, probes and scrapes excepted.")?;
        let resident_bytes = gauge("process_resident_memory_bytes", "Resident memory of the process.")?;
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounter> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let shed =
            counter("http_server_requests_shed_total", "Requests refused with 503: too many at once.")?;
        let log_lines_dropped =
            counter("log_lines_dropped_total", "Log lines dropped because stdout was not read.")?;
        let cpu_seconds =
            Counter::new("process_cpu_seconds_total", "User and system CPU time of the process.")?;
        registry.register(Box::new(cpu_seconds.clone()))?;

        Ok(Self {
            registry,
            active,
            duration,
            shed,
            log_lines_dropped,
            cpu_seconds,
            resident_bytes,
            writer,
            emf,
        })
    }

    /// A gauge of a workload's own.
    ///
    /// # Errors
    /// When another metric has this name: a mistake that any test shows.
    pub fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    /// Any metric of a workload's own, whose labels callers cannot choose.
    ///
    /// # Errors
    /// As above.
    pub fn register<C: Collector + Clone + 'static>(&self, metric: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    /// Counts a request as active until the guard is dropped; the number includes this one.
    pub fn enter(&self) -> (ActiveRequest<'_>, usize) {
        self.active.inc();
        // Never negative: each guard counts down once.
        (ActiveRequest(&self.active), self.active.get().try_into().unwrap_or_default())
    }

    /// Counts a request that was refused because too many were being served.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// Counts an answered request.
    pub fn observe(&self, route: &RouteMetrics, method: &Method, status: StatusCode, elapsed: Duration) {
        let (method, class) = (method_index(method), class_index(status));
        let labels = Labels { route: route.name, method: METHODS[method], status_class: CLASSES[class] };
        let durations = route.durations.get_or_init(Default::default);
        durations[method][class]
            .get_or_init(|| {
                self.duration.with_label_values(&[labels.route, labels.method, labels.status_class])
            })
            .observe(elapsed.as_secs_f64());
        if let Some(writer) = self.writer.as_ref().filter(|_| self.emf) {
            writer.push(emf::request_line(&labels, elapsed, SystemTime::now()).as_bytes());
        }
    }

    /// The text that Prometheus scrapes; its content type is [`Metrics::CONTENT_TYPE`].
    ///
    /// # Errors
    /// When a metric is inconsistent, which registration rules out.
    pub fn render(&self) -> prometheus::Result<Vec<u8>> {
        self.collect();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Brings the figures up to date that others keep.
    fn collect(&self) {
        let dropped = self.writer.as_ref().map_or(0, Writer::dropped_total);
        self.log_lines_dropped.inc_by(dropped.saturating_sub(self.log_lines_dropped.get()));
        if let Some(process) = ProcessUsage::read() {
            self.cpu_seconds.inc_by((process.cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.resident_bytes.set(process.resident_bytes);
        }
    }

    /// The Prometheus text format.
    pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
}

/// One active request; dropping it, by an answer or by a client that went away, ends it.
#[must_use = "the request counts as active only while this lives"]
pub struct ActiveRequest<'a>(&'a IntGauge);

impl ActiveRequest<'_> {
    /// The same for an answer that goes on where the metrics cannot be borrowed.
    pub fn kept(self) -> Counted {
        Counted::by(self.0)
    }
}

/// Something that a gauge counts; dropping this ends it.
#[must_use = "it counts only while this lives"]
pub struct Counted(IntGauge);

impl Counted {
    /// One more, until this is dropped.
    pub fn by(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The methods that HTTP defines, in the order of [`method_index`]; any other is the last.
const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "_OTHER"];

fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// Status classes, in the order of [`class_index`].
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

fn class_index(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, CLASSES.len()) - 1
}

struct ProcessUsage {
    cpu_seconds: f64,
    resident_bytes: i64,
}

impl ProcessUsage {
    /// From Linux' `/proc/self` (proc(5)). `None` elsewhere; the metrics then stay 0.
    fn read() -> Option<Self> {
        /// `USER_HZ`, the unit of times in `/proc`, is 100 on every platform that we build for.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // Field 2 is the program's name in parentheses and may contain anything; 14 and 15 are
        // user and system time.
        let ticks: f64 = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .skip(14 - 3)
            .take(2)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum();
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: i64 = resident.split_whitespace().next()?.parse().ok()?;
        Some(Self { cpu_seconds: ticks / TICKS_PER_SECOND, resident_bytes: kibibytes * 1024 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_metric_and_only_known_label_values() {
        let metrics = Metrics::new(None, false).unwrap();
        let (active, now) = metrics.enter();
        assert_eq!(now, 1);
        let odd = Method::from_bytes(b"BREW").unwrap();
        let unmatched = RouteMetrics::new("unmatched");
        metrics.observe(&unmatched, &odd, StatusCode::NOT_FOUND, Duration::from_millis(3));
        metrics.shed();
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for line in [
            "http_server_active_requests 1",
            "http_server_requests_shed_total 1",
            "log_lines_dropped_total 0",
            concat!("math_service_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            r#"http_server_request_duration_seconds_bucket{http_request_method="_OTHER",http_response_status_class="4xx",http_route="unmatched",le="0.005"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in:\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        drop(active);
        assert!(
            String::from_utf8(metrics.render().unwrap()).unwrap().contains("http_server_active_requests 0")
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_figures_are_those_of_this_process() {
        let usage = ProcessUsage::read().unwrap();
        assert!(usage.resident_bytes > 1024 * 1024 && usage.cpu_seconds >= 0.0);
    }
}
