//! The contenders and the goals: to add one, add an entry here.
//!
//! The first row of a group is ours; every other row of the group is compared with it.

use crate::stats::Bound;

/// What kind of thing a contender is, which decides how it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// A server that answers `POST /` on `HOST` and `PORT`.
    Http,
    /// A Lambda function that answers the same request as an HTTP API event.
    Lambda,
    /// A command that prints one JSON line, `{"figure": 12.3}`. The text is the table's title and says
    /// what the figure is and in which unit; rows with the same text are compared.
    Micro(&'static str),
    /// `POST /fibonacci/next` on a database, or the statement behind it without the service.
    Next(Database),
}

/// Where sequences are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    Postgres,
    Sqlite,
}

impl Group {
    /// The head of its part of the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Lambda => "Lambda",
            Self::Micro(title) => title,
            Self::Next(Database::Postgres) => "POST /fibonacci/next on PostgreSQL",
            Self::Next(Database::Sqlite) => "POST /fibonacci/next on SQLite",
        }
    }

    /// Whether it is also measured in the few minutes of a quick run.
    pub(crate) fn is_quick(self) -> bool {
        matches!(self, Self::Http | Self::Lambda)
    }
}

/// Where a contender's program comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program {
    /// The service's own binary of that name, with the features that its target ships.
    Service { binary: &'static str, features: &'static str },
    /// The crate `bench-NAME` in `contenders/NAME`.
    Contender(&'static str),
    /// Arguments to the Python of `.venv`, started in `contenders/fastapi`.
    Python(&'static [&'static str]),
    /// A program that is already installed.
    #[cfg_attr(not(test), expect(dead_code, reason = "for micro rows"))]
    Installed(&'static [&'static str]),
    /// PostgreSQL's own load generator, from the installation that serves, with the file of statements
    /// in `contenders/pgbench`.
    Pgbench,
}

/// A contender.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) group: Group,
    /// What it stands for, in the report.
    pub(crate) about: &'static str,
    pub(crate) program: Program,
    /// A second program that the first one starts, found in its variable `BACKEND`.
    pub(crate) backend: Option<Program>,
    /// Variables of its own.
    pub(crate) variables: &'static [(&'static str, &'static str)],
    /// Whether it reads its input; the others reply with a constant.
    pub(crate) computes: bool,
    /// Whether it writes the original's two log lines.
    pub(crate) logs: bool,
    /// Whether a full run builds it from an empty target.
    pub(crate) cold_build: bool,
}

/// What most rows have in common.
const ROW: Row = Row {
    name: "",
    group: Group::Http,
    about: "",
    program: Program::Contender(""),
    backend: None,
    variables: &[],
    computes: true,
    logs: false,
    cold_build: false,
};

const CONTAINER: Program = Program::Service { binary: "math-service", features: "container" };
const FUNCTION: Program = Program::Service { binary: "lambda", features: "function" };

const F100000: Group = Group::Micro("F(100000) in decimal, µs of CPU");
const F1000000: Group = Group::Micro("F(1000000) in decimal, µs of CPU");
const HPA_DECISION: Group = Group::Micro("one decision of the lab's autoscaler, 10,000 pods, ms of CPU");
const HPA_YEAR: Group = Group::Micro("a year of the lab's autoscaler, 100 pods, s of CPU");
const LAB_DAY: Group = Group::Micro("a simulated day at steps of a second, ms of CPU");
const LAB_PODS: Group = Group::Micro("a simulated hour with 10,000 pods, ms of CPU");
const GMP: Program = Program::Python(&["../gmp/fibonacci.py"]);

/// Every contender.
pub(crate) const ROWS: &[Row] = &[
    Row {
        name: "math-service",
        about: "ours as shipped: both log lines, metrics, request ids, limits, timeouts",
        program: CONTAINER,
        logs: true,
        cold_build: true,
        ..ROW
    },
    Row {
        name: "floor",
        about: "bare epoll loop, constant reply",
        program: Program::Contender("floor"),
        computes: false,
        ..ROW
    },
    Row { name: "hyper", about: "hyper alone", program: Program::Contender("hyper"), ..ROW },
    Row {
        name: "actix",
        about: "actix-web, no logs",
        program: Program::Contender("actix"),
        cold_build: true,
        ..ROW
    },
    Row {
        name: "axum-bare",
        about: "axum, no logs",
        program: Program::Contender("axum-bare"),
        cold_build: true,
        ..ROW
    },
    Row {
        name: "axum-logs",
        about: "axum, the two log lines through tracing-subscriber's JSON",
        program: Program::Contender("axum-logs"),
        logs: true,
        ..ROW
    },
    Row {
        name: "fastapi",
        about: "the original's shape: FastAPI, uvicorn, uvloop, httptools, structlog; delay removed",
        program: Program::Python(&["app.py"]),
        logs: true,
        ..ROW
    },
    Row {
        name: "lambda",
        group: Group::Lambda,
        about: "ours as shipped",
        program: FUNCTION,
        logs: true,
        cold_build: true,
        ..ROW
    },
    Row {
        name: "lambda-hello",
        group: Group::Lambda,
        about: "bare lambda_http that adds, no logs, as cargo-lambda's template has it",
        program: Program::Contender("lambda-hello"),
        cold_build: true,
        ..ROW
    },
    Row {
        name: "lambda-hello-single",
        group: Group::Lambda,
        about: "the same on a single-threaded runtime",
        program: Program::Contender("lambda-hello-single"),
        ..ROW
    },
    Row {
        name: "lambda-proxy",
        group: Group::Lambda,
        about: "stand-in for aws-lambda-web-adapter: a proxy in front of our container binary",
        program: Program::Contender("lambda-proxy"),
        backend: Some(CONTAINER),
        logs: true,
        ..ROW
    },
    Row {
        name: "lambda-fastapi",
        group: Group::Lambda,
        about: "FastAPI with Mangum on awslambdaric",
        program: Program::Python(&["-m", "awslambdaric", "lambda_function.handler"]),
        logs: true,
        ..ROW
    },
    Row {
        name: "fibonacci-100000",
        group: F100000,
        about: "ours: dashu-int by fast doubling, with the container's allocator",
        program: Program::Contender("fibonacci"),
        variables: &[("INDEX", "100000")],
        ..ROW
    },
    Row {
        name: "gmp-100000",
        group: F100000,
        about: "GMP through gmpy2: `gmpy2.fib(n).digits()`",
        program: GMP,
        variables: &[("INDEX", "100000")],
        ..ROW
    },
    Row {
        name: "fibonacci-1000000",
        group: F1000000,
        about: "ours: dashu-int by fast doubling, with the container's allocator",
        program: Program::Contender("fibonacci"),
        variables: &[("INDEX", "1000000")],
        ..ROW
    },
    Row {
        name: "gmp-1000000",
        group: F1000000,
        about: "GMP through gmpy2: `gmpy2.fib(n).digits()`",
        program: GMP,
        variables: &[("INDEX", "1000000")],
        ..ROW
    },
    Row {
        name: "hpa-decision",
        group: HPA_DECISION,
        about: "from named pods and samples to the new status, all of them counted",
        program: Program::Contender("hpa"),
        variables: &[("WORK", "decision")],
        ..ROW
    },
    Row {
        name: "hpa-year",
        group: HPA_YEAR,
        about: "2,102,400 syncs, with a memory of windows and rates",
        program: Program::Contender("hpa"),
        variables: &[("WORK", "year")],
        ..ROW
    },
    Row {
        name: "lab-day-eks",
        group: LAB_DAY,
        about: "EKS: pods, the autoscaler, nodes, the queue",
        program: Program::Contender("lab"),
        variables: &[("WORK", "eks")],
        ..ROW
    },
    Row {
        name: "lab-day-million",
        group: LAB_DAY,
        about: "the same with a million times the requests",
        program: Program::Contender("lab"),
        variables: &[("WORK", "eks-million")],
        ..ROW
    },
    Row {
        name: "lab-day-lambda",
        group: LAB_DAY,
        about: "Lambda: environments, cold starts, throttling",
        program: Program::Contender("lab"),
        variables: &[("WORK", "lambda")],
        ..ROW
    },
    Row {
        name: "lab-pods",
        group: LAB_PODS,
        about: "240 syncs, each about 10,000 pods and two metrics",
        program: Program::Contender("lab"),
        variables: &[("WORK", "pods")],
        ..ROW
    },
    Row {
        name: "next-postgres",
        group: Group::Next(Database::Postgres),
        about: "ours as shipped, with both log lines; a connection to the database for each client",
        program: CONTAINER,
        ..ROW
    },
    Row {
        name: "next-postgres-10",
        group: Group::Next(Database::Postgres),
        about: "the same with the default of 10 connections to the database",
        program: CONTAINER,
        variables: &[("STATE_CONNECTIONS", "10")],
        ..ROW
    },
    Row {
        name: "pgbench",
        group: Group::Next(Database::Postgres),
        about: "pgbench with our adapter's statement, prepared",
        program: Program::Pgbench,
        ..ROW
    },
    Row {
        name: "next-sqlite",
        group: Group::Next(Database::Sqlite),
        about: "ours as shipped: 8 clients, whose steps are committed together",
        program: CONTAINER,
        ..ROW
    },
    Row {
        name: "sqlite-loop",
        group: Group::Next(Database::Sqlite),
        about: "our adapter's statement in a loop, by rusqlite: one thread, a commit for each step",
        program: Program::Contender("sqlite-loop"),
        ..ROW
    },
];

/// A number to reach.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) what: &'static str,
    pub(crate) row: &'static str,
    pub(crate) figure: &'static str,
    /// The bound is on the ratio to this row; without it, on the figure itself.
    pub(crate) against: Option<&'static str>,
    pub(crate) bound: Bound,
}

/// Every goal.
pub(crate) const GOALS: &[Goal] = &[
    Goal {
        what: "CPU per request at or below bare axum without logs",
        row: "math-service",
        figure: "cpu_us",
        against: Some("axum-bare"),
        bound: Bound::AtMost(1.0),
    },
    Goal {
        what: "CPU per request at least 20x under FastAPI",
        row: "math-service",
        figure: "cpu_us",
        against: Some("fastapi"),
        bound: Bound::AtMost(1.0 / 20.0),
    },
    Goal {
        what: "idle RSS under 8 MB",
        row: "math-service",
        figure: "rss_idle_mb",
        against: None,
        bound: Bound::Under(8.0),
    },
    Goal {
        what: "Lambda bundle under 4 MB zipped",
        row: "lambda",
        figure: "bundle_mb",
        against: None,
        bound: Bound::Under(4.0),
    },
    Goal {
        what: "cold init within 1.2x of a bare lambda_http hello world (wall)",
        row: "lambda",
        figure: "init_ms",
        against: Some("lambda-hello"),
        bound: Bound::AtMost(1.2),
    },
    Goal {
        what: "cold init within 1.2x of a bare lambda_http hello world (CPU)",
        row: "lambda",
        figure: "init_cpu_ms",
        against: Some("lambda-hello"),
        bound: Bound::AtMost(1.2),
    },
    Goal {
        what: "a decision of the lab's autoscaler for 10,000 pods under 1 ms",
        row: "hpa-decision",
        figure: "micro",
        against: None,
        bound: Bound::Under(1.0),
    },
    Goal {
        what: "a year of the lab's autoscaler with 100 pods under 1 s",
        row: "hpa-year",
        figure: "micro",
        against: None,
        bound: Bound::Under(1.0),
    },
    Goal {
        what: "a simulated day on EKS under 10 ms",
        row: "lab-day-eks",
        figure: "micro",
        against: None,
        bound: Bound::Under(10.0),
    },
    Goal {
        what: "a simulated day on EKS under 10 ms, with a million times the requests",
        row: "lab-day-million",
        figure: "micro",
        against: None,
        bound: Bound::Under(10.0),
    },
    Goal {
        what: "a simulated day on Lambda under 10 ms",
        row: "lab-day-lambda",
        figure: "micro",
        against: None,
        bound: Bound::Under(10.0),
    },
    Goal {
        what: "a simulated hour with 10,000 pods under 100 ms",
        row: "lab-pods",
        figure: "micro",
        against: None,
        bound: Bound::Under(100.0),
    },
    Goal {
        what: "steps on PostgreSQL at least 0.9 of pgbench's, 16 clients",
        row: "next-postgres",
        figure: "next_16",
        against: Some("pgbench"),
        bound: Bound::AtLeast(0.9),
    },
    Goal {
        what: "steps on PostgreSQL at least 0.9 of pgbench's, 64 clients",
        row: "next-postgres",
        figure: "next_64",
        against: Some("pgbench"),
        bound: Bound::AtLeast(0.9),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::figures;

    #[test]
    fn names_are_unique() {
        let names: HashSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
    }

    #[test]
    fn goals_name_rows_and_figures_that_exist() {
        let is_row = |name| ROWS.iter().any(|row| row.name == name);
        for goal in GOALS {
            assert!(is_row(goal.row) && goal.against.is_none_or(is_row), "{}", goal.what);
            assert!(figures::find(goal.figure).is_some(), "{}", goal.what);
        }
    }
}
