//! What is measured: each figure's name, unit and place in the report.

use std::collections::BTreeMap;

/// One kind of measurement.
#[derive(Debug)]
pub(crate) struct Figure {
    /// Its name in the JSON results.
    pub(crate) key: &'static str,
    /// The table that it stands in.
    pub(crate) panel: &'static str,
    /// The head of its column, with the unit.
    pub(crate) label: &'static str,
    pub(crate) kind: Kind,
}

/// How a figure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Varies from round to round.
    Measured,
    /// Cannot vary: measured once.
    Exact,
    /// Helps to read the others, and is not compared.
    Context,
}

/// A sample that could not be taken. It keeps its place, so that the others stay with their rounds.
pub(crate) const MISSING: f64 = f64::NAN;

/// Below this, a server was not saturated.
pub(crate) const SATURATED_PERCENT: f64 = 95.0;

/// What one turn of one contender yields.
pub(crate) type Samples = BTreeMap<&'static str, f64>;

const SATURATED: &str = "1 server core, 64 connections, saturated";
const HALF: &str = "1 server core, 64 connections, half of its own saturation (open loop)";
const MANY: &str = "1 server core, 2,000 connections, saturated";
/// See [`crate::machine::Plan::shared`].
pub(crate) const TWO: &str = "2 server cores, 64 connections, saturated";
const MEMORY: &str = "Memory";
const INIT: &str = "Cold start: from exec to the first request for an invocation";
const INVOCATION: &str = "Invocations";
const BUILD: &str = "Build";
const MICRO: &str = "Figure";
const NEXT: &str = "Steps/s, each flushed to the disk; client, service and database share all cores";

/// How much of its core a server that should be saturated used.
pub(crate) const BUSY: &str = "busy_percent";

/// How much of the cores that take part other processes used, or the host took.
pub(crate) const OTHERS: &str = "others_percent";

const fn figure(key: &'static str, panel: &'static str, label: &'static str) -> Figure {
    Figure { key, panel, label, kind: Kind::Measured }
}

/// Every figure, in the order of the report. A contender has those that its group measures.
pub(crate) const FIGURES: &[Figure] = &[
    figure("cpu_us", SATURATED, "CPU µs/request"),
    figure("rps", SATURATED, "requests/s"),
    Figure { key: BUSY, panel: SATURATED, label: "server core busy %", kind: Kind::Context },
    Figure { key: OTHERS, panel: SATURATED, label: "cores used by others %", kind: Kind::Context },
    figure("p50_us", HALF, "p50 µs"),
    figure("p99_us", HALF, "p99 µs"),
    figure("p999_us", HALF, "p99.9 µs"),
    figure("cpu_us_half", HALF, "CPU µs/request"),
    figure("cpu_us_2000", MANY, "CPU µs/request"),
    figure("rps_2000", MANY, "requests/s"),
    figure("cpu_us_2cores", TWO, "CPU µs/request"),
    figure("rps_2cores", TWO, "requests/s"),
    figure("rss_idle_mb", MEMORY, "RSS idle MB"),
    figure("rss_64_mb", MEMORY, "peak RSS MB, 64 connections"),
    figure("rss_2000_mb", MEMORY, "peak RSS MB, 2,000 connections"),
    figure("init_ms", INIT, "wall ms"),
    figure("init_cpu_ms", INIT, "CPU ms"),
    figure("invocation_cpu_us", INVOCATION, "CPU µs/invocation"),
    figure("invocation_rss_mb", INVOCATION, "peak RSS MB"),
    Figure { key: "bundle_mb", panel: BUILD, label: "bundle MB zipped", kind: Kind::Exact },
    figure("cold_build_s", BUILD, "cold build s"),
    figure("micro", MICRO, "figure"),
    figure("next_8", NEXT, "8 clients"),
    figure("next_16", NEXT, "16 clients"),
    figure("next_64", NEXT, "64 clients"),
    Figure {
        key: "next_cpu_us",
        panel: NEXT,
        label: "service's CPU µs/step, most clients",
        kind: Kind::Context,
    },
];

/// The figure of a name.
pub(crate) fn find(key: &str) -> Option<&'static Figure> {
    FIGURES.iter().find(|figure| figure.key == key)
}
