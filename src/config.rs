//! Every setting: its variable, its default, its meaning.
//!
//! [`SETTINGS`] is the single list. `--help`, the README's table (a test keeps them equal) and the
//! defaults used below all come from it. Only this module reads the environment, and it does so
//! through a closure, so that tests never touch the process environment.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fmt,
    net::IpAddr,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use axum::http::HeaderValue;
use ipnet::IpNet;
use tracing_subscriber::filter::{LevelFilter, Targets};

#[cfg(feature = "jobs")]
use crate::jobs::{
    names::{Images, Namespaces},
    webhook::target::Hosts,
};
use crate::{
    auth::{issuer::Issuer, limit::Rate},
    http::host,
    store::location::Location,
};

/// One setting as a user sees it.
#[derive(Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// Other names, asked in this order when the first is unset.
    pub aliases: &'static [&'static str],
    /// The value used when nothing is set; empty for "none".
    pub default: &'static str,
    /// One sentence for people.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { name, aliases: &[], default, meaning }
}

/// Every setting that the service knows, in the order in which the README lists them.
pub const SETTINGS: &[Setting] = &[
    setting("HOST", "0.0.0.0", "address that the container listens on (`::` for IPv6 and IPv4)"),
    setting("PORT", "8000", "port that the container listens on"),
    Setting {
        name: "LOGLEVEL",
        aliases: &["LOG_LEVEL", "RUST_LOG"],
        default: "INFO",
        meaning: "a level (Python's names too) for the service's own log lines, or a filter such as `warn,math_service=debug,h2=info`",
    },
    setting("ADD_DELAY", "0s", "simulated work of `POST /`"),
    setting("MAX_BODY_BYTES", "65536", "larger request bodies get 413"),
    setting("REQUEST_TIMEOUT", "30s", "504 after it; must exceed `ADD_DELAY`"),
    setting("HEADER_READ_TIMEOUT", "10s", "a client that takes longer to send a request's head is cut off"),
    setting(
        "KEEP_ALIVE_TIMEOUT",
        "75s",
        "an idle connection is closed after it, or up to a quarter later; longer than the 60 s of AWS load balancers, so that they close first",
    ),
    setting("MAX_IN_FLIGHT", "10000", "requests served at once; more get 503, health routes excepted"),
    setting(
        "MAX_CONNECTIONS",
        HALF_AS_MANY_AGAIN,
        "connections at once, half as many again as `MAX_IN_FLIGHT` unless a number is given; the last tenth of them end with their first answer (HTTP/2: after a second), and more wait for their places (container)",
    ),
    setting(
        "DRAIN_DELAY",
        "0s",
        "on SIGTERM: how long to go on accepting connections while readiness already fails",
    ),
    setting(
        "DRAIN_TIMEOUT",
        "20s",
        "after `DRAIN_DELAY`: how long requests and idle connections may take to finish",
    ),
    setting("LOAD_ENABLED", "false", "whether `GET /load` may burn CPU, and somebody's money"),
    setting(
        "LOAD_MAX_SECONDS",
        "20",
        "most CPU seconds that one `GET /load` may ask for; when enabled, below `REQUEST_TIMEOUT`",
    ),
    setting(
        "LOAD_SLOTS",
        "CPUs",
        "requests to `/load` that burn at once, `CPUs` for one a processor; more get 503",
    ),
    setting(
        "LAB_SLOTS",
        "1",
        "simulations at once, a thread each; others wait up to 5 s for their turn, then get 503; 0 switches the lab off",
    ),
    setting("FIBONACCI_MAX_INDEX", "100000", "the last Fibonacci number that is served; at most 10000000"),
    setting(
        "STATE_URL",
        "sqlite://data/state.db",
        "where sequences are kept: a SQLite file, `postgres://user:password@host/database` (TLS verified; `?sslrootcert=` file, `?sslmode=disable`) or `dynamodb://table` (`?region=`, `?endpoint=`); opened on first use",
    ),
    setting("STATE_CONNECTIONS", "10", "most connections of this process to PostgreSQL, up to 1000"),
    setting(
        "ALLOW_EMBEDDED_STORE",
        "false",
        "use a SQLite file even inside Kubernetes, where several pods would each have their own (container)",
    ),
    setting("SESSION_TTL", "30d", "a session's sequence is removed so long after its last step"),
    setting("HISTORY_TTL", "30d", "how long the history of Jobs and the audit are kept"),
    setting(
        "TRUSTED_PROXIES",
        "",
        "CIDRs, comma-separated, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed (container)",
    ),
    setting(
        "CORS_ALLOWED_ORIGINS",
        "",
        "browsers on these origins, comma-separated, may call the API (`*` for any)",
    ),
    setting("BASE_PATH", "", "prefix removed before routing, for custom domains"),
    setting(
        "OIDC_ISSUER",
        "",
        "callers may sign in with this OpenID Connect issuer's tokens (its URL, exactly)",
    ),
    setting(
        "OIDC_AUDIENCE",
        "",
        "what those tokens must name as their audience; required with `OIDC_ISSUER`",
    ),
    setting("EKS_CLUSTER_NAME", "", "the EKS cluster that Jobs run in; switches the Jobs API on"),
    setting(
        "EKS_CLUSTERS",
        "",
        "more of them, comma-separated, each as `name@region`; the default is `EKS_CLUSTER_NAME`, else the first of these",
    ),
    Setting {
        name: "EKS_REGION",
        aliases: &["AWS_REGION", "AWS_DEFAULT_REGION"],
        default: "us-east-1",
        meaning: "the AWS region of `EKS_CLUSTER_NAME`, unless `EKS_CLUSTERS` says another",
    },
    setting(
        "JOBS_NAMESPACES",
        "",
        "namespaces that the Jobs API may touch, comma-separated, each with an optional `*` at its end; never `kube-*`, `default` only when named",
    ),
    setting(
        "JOBS_IMAGES",
        "",
        "images that Jobs may run, comma-separated: repositories without tag (`busybox`), all below a path (`public.ecr.aws/team/*`), or `*`",
    ),
    setting(
        "JOBS_TEMPLATES_DIR",
        "",
        "a folder of YAML files, each a template that creates may name; read at the start",
    ),
    setting(
        "JOBS_WEBHOOK_HOSTS",
        "",
        "hosts that may be told when a Job has ended, comma-separated: names, or all below a domain (`*.example.com`), each with an optional port",
    ),
    setting(
        "JOBS_WEBHOOK_SECRET_FILE",
        "",
        "a file with what those messages are signed with (`whsec_` and Base64), one a line; required with `JOBS_WEBHOOK_HOSTS`",
    ),
    setting(
        "JOBS_LEASE_NAMESPACE",
        "",
        "the namespace of the Lease, in each cluster, by which one replica at a time writes the history of Jobs, such as the service's own; without it none of them does",
    ),
    setting(
        "AUTH_TOKENS_FILE",
        "",
        "a file with the SHA-256 of each token that lets its holder call the API below `/api/`, read again when it changes",
    ),
    setting(
        "JOBS_RATE_LIMIT",
        "60/m",
        "requests below `/api/` that each caller may send to each replica: so many at once, and so many more in each `s`, `m` or `h`",
    ),
    setting(
        "EMF_METRICS",
        "false",
        "Lambda only: one CloudWatch EMF line a request (CloudWatch bills each metric)",
    ),
];

/// The settings of a process, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address to listen on: an IP address or a name that resolves to one.
    pub host: String,
    /// Port to listen on; 0 lets the system choose.
    pub port: u16,
    /// Which log events are written.
    pub log_filter: Targets,
    /// Simulated work of an addition.
    pub add_delay: Duration,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Longest time from a request's head to its answer.
    pub request_timeout: Duration,
    /// Longest time that a client may take to send a request's head.
    pub header_read_timeout: Duration,
    /// Longest time that a connection may be idle between two requests.
    pub keep_alive_timeout: Duration,
    /// Requests served at once, health routes excepted.
    pub max_in_flight: usize,
    /// Connections open at once.
    pub max_connections: usize,
    /// How long a drain goes on accepting connections.
    pub drain_delay: Duration,
    /// How long a drain waits for what is left, counted from the end of `drain_delay`.
    pub drain_timeout: Duration,
    /// Whether CPU may be burnt on request.
    pub load_enabled: bool,
    /// Most CPU seconds that one request may burn.
    pub load_max_seconds: f64,
    /// Requests that burn CPU at once; one a processor where none is given.
    pub load_slots: Option<usize>,
    /// Simulations at once; none where they are switched off.
    pub lab_slots: usize,
    /// The last index of the Fibonacci sequence that is served.
    pub fibonacci_max_index: u64,
    /// Where sequences are kept.
    pub state_url: Location,
    /// Most connections to PostgreSQL.
    pub state_connections: usize,
    /// Whether an embedded store is used where it is likely to be wrong.
    pub allow_embedded_store: bool,
    /// How long after its last step a session's sequence is removed.
    pub session_ttl: Duration,
    /// How long the history of Jobs and the audit are kept.
    pub history_ttl: Duration,
    /// Whether this process runs in a pod: what Kubernetes itself says, not a setting.
    pub in_kubernetes: bool,
    /// The machine's name as the system tells it, in a pod the pod's: not a setting.
    pub host_name: Option<String>,
    /// What AWS's own variables say: not settings, set by Lambda, EKS or `aws configure`.
    pub aws: AwsEnvironment,
    /// Peers whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins that browsers may call from.
    pub cors_allowed_origins: Vec<HeaderValue>,
    /// Path prefix removed before routing: empty, or `/` and at least one segment.
    pub base_path: String,
    /// Whose tokens callers may sign in with; with it, `oidc_audience` is set too.
    pub oidc_issuer: Option<Issuer>,
    /// The audience that those tokens must name.
    pub oidc_audience: Option<String>,
    /// The EKS clusters that Jobs run in, the default one first; without one there are no Jobs.
    pub eks_clusters: Vec<EksCluster>,
    /// Namespaces that the Jobs API may touch.
    #[cfg(feature = "jobs")]
    pub jobs_namespaces: Namespaces,
    /// Images that Jobs may run.
    #[cfg(feature = "jobs")]
    pub jobs_images: Images,
    /// Where templates of Jobs are.
    #[cfg(feature = "jobs")]
    pub jobs_templates_dir: Option<PathBuf>,
    /// Hosts that may be told when a Job has ended.
    #[cfg(feature = "jobs")]
    pub jobs_webhook_hosts: Hosts,
    /// What those messages are signed with; set where hosts are.
    #[cfg(feature = "jobs")]
    pub jobs_webhook_secret_file: Option<PathBuf>,
    /// Where the Lease is by which one replica at a time watches Jobs.
    #[cfg(feature = "jobs")]
    pub jobs_lease_namespace: Option<String>,
    /// The tokens that were given out by hand.
    pub auth_tokens_file: Option<PathBuf>,
    /// How often one caller may call the API below `/api/`.
    pub jobs_rate_limit: Rate,
    /// Whether the Lambda target writes CloudWatch EMF lines.
    pub emf_metrics: bool,
}

impl Config {
    /// Reads every setting through `get`, which maps a variable's name to its value.
    ///
    /// # Errors
    /// The first bad value, named, with what was expected instead.
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let env = Source { get: &get };
        let max_in_flight = env.read("MAX_IN_FLIGHT", positive_number)?;
        let config = Self {
            host: env.read("HOST", host_name)?,
            port: env.read("PORT", number)?,
            log_filter: env.read("LOGLEVEL", log_filter)?,
            add_delay: env.read("ADD_DELAY", duration)?,
            max_body_bytes: env.read("MAX_BODY_BYTES", number)?,
            request_timeout: env.read("REQUEST_TIMEOUT", positive_duration)?,
            header_read_timeout: env.read("HEADER_READ_TIMEOUT", positive_duration)?,
            keep_alive_timeout: env.read("KEEP_ALIVE_TIMEOUT", positive_duration)?,
            max_in_flight,
            max_connections: env.read("MAX_CONNECTIONS", connections(max_in_flight))?,
            drain_delay: env.read("DRAIN_DELAY", duration)?,
            drain_timeout: env.read("DRAIN_TIMEOUT", duration)?,
            load_enabled: env.read("LOAD_ENABLED", boolean)?,
            load_max_seconds: env.read("LOAD_MAX_SECONDS", positive_seconds)?,
            load_slots: env.read("LOAD_SLOTS", load_slots)?,
            lab_slots: env.read("LAB_SLOTS", lab_slots)?,
            fibonacci_max_index: env.read("FIBONACCI_MAX_INDEX", fibonacci_index)?,
            state_url: env.read("STATE_URL", Location::parse).map_err(ConfigError::without_value)?,
            state_connections: env.read("STATE_CONNECTIONS", state_connections)?,
            allow_embedded_store: env.read("ALLOW_EMBEDDED_STORE", boolean)?,
            session_ttl: env.read("SESSION_TTL", lifetime)?,
            history_ttl: env.read("HISTORY_TTL", lifetime)?,
            in_kubernetes: env.given("KUBERNETES_SERVICE_HOST").is_some(),
            host_name: env.given("HOSTNAME"),
            aws: AwsEnvironment::of(&env),
            trusted_proxies: env.read("TRUSTED_PROXIES", list(network))?,
            cors_allowed_origins: env.read("CORS_ALLOWED_ORIGINS", list(origin))?,
            base_path: env.read("BASE_PATH", base_path)?,
            oidc_issuer: env.read("OIDC_ISSUER", optional(Issuer::parse))?,
            oidc_audience: env.read("OIDC_AUDIENCE", optional(text))?,
            eks_clusters: eks_clusters(&env)?,
            #[cfg(feature = "jobs")]
            jobs_namespaces: env.read("JOBS_NAMESPACES", str::parse)?,
            #[cfg(feature = "jobs")]
            jobs_images: env.read("JOBS_IMAGES", str::parse)?,
            #[cfg(feature = "jobs")]
            jobs_templates_dir: env.read("JOBS_TEMPLATES_DIR", optional(text))?.map(PathBuf::from),
            #[cfg(feature = "jobs")]
            jobs_webhook_hosts: env.read("JOBS_WEBHOOK_HOSTS", str::parse)?,
            #[cfg(feature = "jobs")]
            jobs_webhook_secret_file: env
                .read("JOBS_WEBHOOK_SECRET_FILE", optional(text))?
                .map(PathBuf::from),
            #[cfg(feature = "jobs")]
            jobs_lease_namespace: env.read("JOBS_LEASE_NAMESPACE", optional(namespace))?,
            auth_tokens_file: env.read("AUTH_TOKENS_FILE", optional(text))?.map(PathBuf::from),
            jobs_rate_limit: env.read("JOBS_RATE_LIMIT", Rate::parse)?,
            emf_metrics: env.read("EMF_METRICS", boolean)?,
        };
        config.check()
    }

    /// The settings of the process's own environment.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn from_process_env() -> Result<Self, ConfigError> {
        // Read once: asking for each setting goes through all variables each time.
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let variables: HashMap<OsString, OsString> = std::env::vars_os().collect();
        Self::from_env(|name| {
            variables.get(OsStr::new(name)).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// What no single value shows.
    fn check(self) -> Result<Self, ConfigError> {
        if self.request_timeout <= self.add_delay {
            return Err(ConfigError {
                variable: "ADD_DELAY",
                value: humantime::format_duration(self.add_delay).to_string(),
                expected: format!(
                    "less than REQUEST_TIMEOUT ({}), or every addition would time out",
                    humantime::format_duration(self.request_timeout)
                ),
            });
        }
        // A burn takes at least its CPU seconds by the clock.
        if self.load_enabled && self.load_max_seconds >= self.request_timeout.as_secs_f64() {
            return Err(ConfigError {
                variable: "LOAD_MAX_SECONDS",
                value: self.load_max_seconds.to_string(),
                expected: format!(
                    "less than REQUEST_TIMEOUT ({}), or the longest burns would time out",
                    humantime::format_duration(self.request_timeout)
                ),
            });
        }
        if let Location::Dynamodb(table) = &self.state_url
            && table.region.is_none()
            && self.aws.region.is_none()
        {
            return Err(ConfigError {
                variable: "STATE_URL",
                value: format!("dynamodb://{}", table.name),
                expected: "a region: ?region=… behind the table's name, or AWS_REGION".to_owned(),
            });
        }
        #[cfg(feature = "jobs")]
        if self.jobs_webhook_hosts.is_empty() != self.jobs_webhook_secret_file.is_none() {
            return Err(ConfigError {
                variable: "JOBS_WEBHOOK_SECRET_FILE",
                value: self.jobs_webhook_secret_file.unwrap_or_default().display().to_string(),
                expected: "a file where JOBS_WEBHOOK_HOSTS is set, and none where it is not".to_owned(),
            });
        }
        match (&self.oidc_issuer, &self.oidc_audience) {
            (Some(_), None) => Err(ConfigError {
                variable: "OIDC_AUDIENCE",
                value: String::new(),
                expected: "the audience that tokens must name, because OIDC_ISSUER is set: without it, a token for any \
                           other service would do"
                    .to_owned(),
            }),
            (None, Some(audience)) => Err(ConfigError {
                variable: "OIDC_AUDIENCE",
                value: audience.clone(),
                expected: "OIDC_ISSUER to be set too: nobody could sign in".to_owned(),
            }),
            _ => Ok(self),
        }
    }
}

/// One of the EKS clusters that Jobs run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EksCluster {
    /// Its name, unique among them: paths have it.
    pub name: String,
    /// The AWS region that it is in.
    pub region: String,
}

/// What the AWS SDKs too read from the environment; credentials are read by AWS's own library.
#[derive(Debug, Clone, Default)]
pub struct AwsEnvironment {
    /// The region.
    pub region: Option<String>,
    /// Another address of EKS than its own.
    pub eks_endpoint: Option<String>,
}

impl AwsEnvironment {
    fn of(env: &Source<'_>) -> Self {
        Self {
            region: env.given("AWS_REGION").or_else(|| env.given("AWS_DEFAULT_REGION")),
            eks_endpoint: env.given("AWS_ENDPOINT_URL_EKS").or_else(|| env.given("AWS_ENDPOINT_URL")),
        }
    }
}

/// A variable of the process's own environment, where Lambda puts what is no setting.
#[cfg(all(feature = "aws", not(feature = "aws-chain")))]
pub(crate) fn process_env(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// A setting that cannot be used: one line that names the variable.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable whose value was bad.
    pub variable: &'static str,
    /// The value as given.
    pub value: String,
    /// What would have been right.
    pub expected: String,
}

impl ConfigError {
    /// For values that may hold a password.
    fn without_value(self) -> Self {
        Self { value: "…".to_owned(), ..self }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}: expected {}", self.variable, self.value, self.expected)
    }
}

impl std::error::Error for ConfigError {}

/// The settings as text for `--help`: name, default and meaning, a line each.
#[must_use]
pub fn help() -> String {
    SETTINGS.iter().fold(String::new(), |mut text, setting| {
        let default = if setting.default.is_empty() { "none" } else { setting.default };
        text.push_str(&format!("  {:<22} {} [default: {default}]", setting.name, setting.meaning));
        if !setting.aliases.is_empty() {
            text.push_str(&format!(" [aliases: {}]", setting.aliases.join(", ")));
        }
        text.push('\n');
        text
    })
}

struct Source<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    /// Parses the first of a setting's names that is set to something, else its default.
    fn read<T>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let names = setting.into_iter().flat_map(|s| std::iter::once(&s.name).chain(s.aliases));
        let (variable, value) = names
            .filter_map(|variable| Some((*variable, (self.get)(variable)?)))
            .find(|(_, value)| !value.trim().is_empty())
            .unwrap_or_else(|| (name, setting.map_or("", |s| s.default).to_owned()));
        parse(value.trim()).map_err(|expected| ConfigError { variable, value, expected })
    }

    /// A variable that is no setting of ours; empty counts as unset.
    fn given(&self, name: &str) -> Option<String> {
        (self.get)(name).filter(|value| !value.trim().is_empty())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "one signature for every parser")]
fn host_name(value: &str) -> Result<String, String> {
    // URLs put IPv6 addresses in brackets, sockets do not.
    Ok(value.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn number<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| {
        let limit = match size_of::<T>() {
            2 => " from 0 to 65535",
            _ => "",
        };
        format!("a whole number{limit}")
    })
}

fn positive_number(value: &str) -> Result<usize, String> {
    number(value).ok().filter(|number| *number > 0).ok_or_else(|| "a whole number above 0".to_owned())
}

/// Each has its place in memory from the start; PostgreSQL takes 100 from everybody unless it is told otherwise.
fn state_connections(value: &str) -> Result<usize, String> {
    let expected = || "a whole number from 1 to 1000".to_owned();
    number(value).ok().filter(|number| (1..=1000).contains(number)).ok_or_else(expected)
}

/// What `MAX_CONNECTIONS` is when nobody says a number.
const HALF_AS_MANY_AGAIN: &str = "1.5*MAX_IN_FLIGHT";

/// As many as requests would let others in only when one of them ends, and fewer could never carry `max_in_flight` over
/// HTTP/1: so the default follows it.
fn connections(max_in_flight: usize) -> impl FnOnce(&str) -> Result<usize, String> {
    move |value| match value {
        HALF_AS_MANY_AGAIN => Ok(max_in_flight.saturating_add(max_in_flight.div_ceil(2))),
        value => positive_number(value).map_err(|expected| format!("{expected}, or {HALF_AS_MANY_AGAIN}")),
    }
}

/// F(10,000,000) has two million digits and takes about a second.
fn fibonacci_index(value: &str) -> Result<u64, String> {
    let expected = || "a whole number from 0 to 10000000".to_owned();
    number(value).ok().filter(|index| *index <= 10_000_000).ok_or_else(expected)
}

fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// Longer than any use here, and short enough that adding it to a clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn duration(value: &str) -> Result<Duration, String> {
    humantime::parse_duration(value)
        .ok()
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "a duration up to a day, such as 300ms, 5s or 2m".to_owned())
}

fn positive_duration(value: &str) -> Result<Duration, String> {
    duration(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a duration above 0 and up to a day, such as 300ms, 5s or 2m".to_owned())
}

fn positive_seconds(value: &str) -> Result<f64, String> {
    value
        .parse()
        .ok()
        .filter(|seconds| *seconds > 0.0 && *seconds <= LONGEST.as_secs_f64())
        .ok_or_else(|| "a number of seconds above 0 and up to 86400, such as 20 or 0.5".to_owned())
}

/// Half of the threads that tokio keeps for blocking work: burning never takes those of others.
pub const MOST_LOAD_SLOTS: usize = 256;

/// An eighth of them: with burns, simulations leave three eighths to files, stores and long numbers.
const MOST_LAB_SLOTS: usize = 64;

/// A number of slots, or `CPUs`: as many as there are processors, a container's CPU limit considered.
fn load_slots(value: &str) -> Result<Option<usize>, String> {
    if value.eq_ignore_ascii_case("CPUs") {
        return Ok(None);
    }
    number(value)
        .ok()
        .filter(|slots| (1..=MOST_LOAD_SLOTS).contains(slots))
        .map(Some)
        .ok_or_else(|| format!("a whole number from 1 to {MOST_LOAD_SLOTS}, or CPUs"))
}

/// A number of threads; none is an answer too.
fn lab_slots(value: &str) -> Result<usize, String> {
    number(value)
        .ok()
        .filter(|slots| *slots <= MOST_LAB_SLOTS)
        .ok_or_else(|| format!("a whole number from 0 to {MOST_LAB_SLOTS}"))
}

/// Of things that outlive requests.
fn lifetime(value: &str) -> Result<Duration, String> {
    const SHORTEST: Duration = Duration::from_secs(1);
    humantime::parse_duration(value)
        .ok()
        .filter(|lifetime| (SHORTEST..=365 * LONGEST).contains(lifetime))
        .ok_or_else(|| "a duration from a second to a year, such as 12h or 30d".to_owned())
}

#[cfg(feature = "jobs")]
fn namespace(value: &str) -> Result<String, String> {
    match crate::jobs::names::is_label(value) {
        true => Ok(value.to_owned()),
        false => Err("the name of a namespace".to_owned()),
    }
}

fn optional<T>(
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> impl FnOnce(&str) -> Result<Option<T>, String> {
    move |value| if value.is_empty() { Ok(None) } else { parse(value).map(Some) }
}

fn text(value: &str) -> Result<String, String> {
    Ok(value.to_owned())
}

fn list<T>(item: impl Fn(&str) -> Result<T, String>) -> impl FnOnce(&str) -> Result<Vec<T>, String> {
    move |value| value.split(',').map(str::trim).filter(|text| !text.is_empty()).map(item).collect()
}

/// A CIDR, or one address as the CIDR of itself.
fn network(value: &str) -> Result<IpNet, String> {
    value
        .parse::<IpNet>()
        .or_else(|_| value.parse::<IpAddr>().map(IpNet::from))
        .ok()
        // Peers are compared as IPv4 wherever they are: a mapped range would match none.
        .filter(|network| network.addr() == network.addr().to_canonical())
        .ok_or_else(|| "CIDRs separated by commas, such as 10.0.0.0/8,192.168.1.7".to_owned())
}

/// An origin as a browser sends it: a scheme and an authority, nothing after.
fn origin(value: &str) -> Result<HeaderValue, String> {
    let (scheme, authority) = value.split_once("://").unwrap_or_default();
    // Browsers send lower case, and no default port: anything else would never match.
    let default_port = if scheme == "https" { ":443" } else { ":80" };
    let is_origin = matches!(scheme, "http" | "https")
        && !authority.is_empty()
        && !authority.ends_with(default_port)
        && !authority.bytes().any(|byte| byte.is_ascii_uppercase())
        && host::is_host(authority);
    HeaderValue::from_str(value).ok().filter(|_| is_origin || value == "*").ok_or_else(|| {
        "origins as browsers send them, separated by commas, such as https://example.com (no path), or *"
            .to_owned()
    })
}

fn base_path(value: &str) -> Result<String, String> {
    let path = value.trim_matches('/');
    if path.is_empty() {
        return Ok(String::new());
    }
    // What needs encoding, or is resolved by clients, would never match a request's path.
    let is_plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    if path.split('/').all(is_plain) {
        return Ok(format!("/{path}"));
    }
    Err("a path of letters, digits and -._~ such as /math".to_owned())
}

/// EKS's own rule for names.
fn cluster_name(value: &str) -> Result<String, String> {
    let is_name = value.len() <= 100
        && value.starts_with(|first: char| first.is_ascii_alphanumeric())
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    is_name.then(|| value.to_owned()).ok_or_else(|| "the name of an EKS cluster, such as math".to_owned())
}

/// All clusters, the default one first. Where it is listed too, the list says its region.
fn eks_clusters(env: &Source<'_>) -> Result<Vec<EksCluster>, ConfigError> {
    let default = env.read("EKS_CLUSTER_NAME", optional(cluster_name))?;
    let region = env.read("EKS_REGION", region)?;
    let mut clusters = env.read("EKS_CLUSTERS", |text| unique(list(eks_cluster)(text)?))?;
    if let Some(name) = default {
        let listed = clusters.iter().position(|cluster| cluster.name == name);
        let cluster = listed.map(|at| clusters.remove(at)).unwrap_or(EksCluster { name, region });
        clusters.insert(0, cluster);
    }
    Ok(clusters)
}

fn eks_cluster(value: &str) -> Result<EksCluster, String> {
    let expected = || "EKS clusters as name@region, separated by commas, such as math@eu-west-2".to_owned();
    let (name, at) = value.split_once('@').ok_or_else(expected)?;
    let (name, region) =
        cluster_name(name).and_then(|name| Ok((name, region(at)?))).map_err(|_| expected())?;
    Ok(EksCluster { name, region })
}

/// Paths name clusters by their names alone.
fn unique(clusters: Vec<EksCluster>) -> Result<Vec<EksCluster>, String> {
    let is_again =
        |(at, cluster): (usize, &EksCluster)| clusters[..at].iter().any(|other| other.name == cluster.name);
    match clusters.iter().enumerate().any(is_again) {
        true => Err("no two clusters of the same name: paths name them".to_owned()),
        false => Ok(clusters),
    }
}

/// It becomes part of hosts' names, so it has what those may have.
fn region(value: &str) -> Result<String, String> {
    let is_region = value.contains('-')
        && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    is_region.then(|| value.to_owned()).ok_or_else(|| "an AWS region, such as us-east-1".to_owned())
}

/// The crate whose events a bare level applies to.
const OWN_TARGET: &str = "math_service";

/// A bare level is for our own lines: libraries stay at WARN, or DEBUG would drown them.
fn log_filter(value: &str) -> Result<Targets, String> {
    if let Some(level) = level(value) {
        let libraries = level.min(LevelFilter::WARN);
        return Ok(Targets::new().with_default(libraries).with_target(OWN_TARGET, level));
    }
    let directives = value.split(',').map(|directive| match directive.rsplit_once('=') {
        // Spans and fields, in brackets, are not used here: a filter on them would silence everything.
        Some((target, _)) if target.contains(['[', '{']) => None,
        Some((target, name)) => level(name).map(|level| format!("{target}={level}")),
        None => level(directive).map(|level| level.to_string()),
    });
    directives
        .collect::<Option<Vec<_>>>()
        .and_then(|directives| directives.join(",").parse().ok())
        .ok_or_else(|| {
            "TRACE, DEBUG, INFO, WARNING, ERROR, CRITICAL or OFF, or a filter such as warn,math_service=debug"
                .to_owned()
        })
}

fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.trim().to_ascii_uppercase().as_str() {
        "NOTSET" | "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "INFO" => LevelFilter::INFO,
        "WARN" | "WARNING" => LevelFilter::WARN,
        "ERROR" | "CRITICAL" | "FATAL" => LevelFilter::ERROR,
        "OFF" => LevelFilter::OFF,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::from_env(|name| {
            vars.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_defaults_are_usable() {
        let config = config(&[]).unwrap();
        assert_eq!((config.host.as_str(), config.port), ("0.0.0.0", 8000));
        assert_eq!(config.max_body_bytes, 65536);
        assert_eq!(config.request_timeout, Duration::from_secs(30));
        assert_eq!(config.add_delay, Duration::ZERO);
        assert!(config.trusted_proxies.is_empty() && config.cors_allowed_origins.is_empty());
        assert!(!config.emf_metrics);
        assert!(!config.load_enabled, "burning CPU is off unless asked for");
        assert_eq!(config.load_max_seconds, 20.0);
        assert_eq!(config.load_slots, None);
        assert_eq!(config.lab_slots, 1);
        assert_eq!(config.state_url, Location::Sqlite("data/state.db".into()));
        assert!(!config.allow_embedded_store && !config.in_kubernetes);
    }

    #[test]
    fn a_bad_value_names_its_variable_and_what_was_expected() {
        for (variable, value, expected) in [
            ("PORT", "http", "whole number from 0 to 65535"),
            ("PORT", "70000", "whole number from 0 to 65535"),
            ("PORT", "-1", "whole number"),
            ("ADD_DELAY", "5", "duration"),
            ("ADD_DELAY", "-5s", "duration"),
            ("ADD_DELAY", "9999999999999d", "up to a day"),
            ("REQUEST_TIMEOUT", "0s", "above 0"),
            ("MAX_IN_FLIGHT", "0", "above 0"),
            ("MAX_CONNECTIONS", "0", "above 0"),
            ("MAX_BODY_BYTES", "64k", "whole number"),
            ("TRUSTED_PROXIES", "10.0.0.0/33", "CIDRs"),
            ("CORS_ALLOWED_ORIGINS", "https://example.com/path", "origins"),
            ("CORS_ALLOWED_ORIGINS", "example.com", "origins"),
            ("CORS_ALLOWED_ORIGINS", "https://*.example.com", "origins"),
            ("CORS_ALLOWED_ORIGINS", "https://u:p@example.com", "origins"),
            ("CORS_ALLOWED_ORIGINS", "https://Example.com", "origins"),
            ("CORS_ALLOWED_ORIGINS", "http://example.com:80", "origins"),
            ("TRUSTED_PROXIES", "::ffff:10.0.0.0/104", "CIDRs"),
            ("BASE_PATH", "/a?b", "path"),
            ("BASE_PATH", "/../a", "path"),
            ("BASE_PATH", "/gr\u{fc}n", "path"),
            ("BASE_PATH", "/%zz", "path"),
            ("LOGLEVEL", "math_service[span]=info", "filter"),
            ("EMF_METRICS", "maybe", "true or false"),
            ("LOAD_ENABLED", "5", "true or false"),
            ("LOAD_MAX_SECONDS", "0", "above 0"),
            ("LOAD_MAX_SECONDS", "-1", "above 0"),
            ("LOAD_MAX_SECONDS", "NaN", "above 0"),
            ("LOAD_MAX_SECONDS", "inf", "up to 86400"),
            ("LOAD_MAX_SECONDS", "5s", "number of seconds"),
            ("LOAD_SLOTS", "0", "from 1 to 256"),
            ("LOAD_SLOTS", "257", "from 1 to 256"),
            ("LOAD_SLOTS", "all", "or CPUs"),
            ("LAB_SLOTS", "65", "from 0 to 64"),
            ("LAB_SLOTS", "-1", "from 0 to 64"),
            ("FIBONACCI_MAX_INDEX", "10000001", "from 0 to 10000000"),
            ("STATE_CONNECTIONS", "0", "from 1 to 1000"),
            ("STATE_CONNECTIONS", "18446744073709551615", "from 1 to 1000"),
            ("MAX_CONNECTIONS", "2*MAX_IN_FLIGHT", "above 0, or 1.5*MAX_IN_FLIGHT"),
            ("SESSION_TTL", "0s", "from a second"),
            ("SESSION_TTL", "2y", "to a year"),
            ("OIDC_ISSUER", "http://login.example.com", "an https URL"),
            ("OIDC_ISSUER", "login.example.com", "an https URL"),
            ("EKS_CLUSTER_NAME", "my cluster", "name of an EKS cluster"),
            ("EKS_CLUSTER_NAME", "-math", "name of an EKS cluster"),
            ("EKS_CLUSTERS", "math", "as name@region"),
            ("EKS_CLUSTERS", "math@Frankfurt", "as name@region"),
            ("EKS_CLUSTERS", "@eu-west-2", "as name@region"),
            ("EKS_CLUSTERS", "a@eu-west-2,a@us-east-1", "no two clusters of the same name"),
            ("EKS_REGION", "us-east-1.example.com", "an AWS region"),
            ("AWS_REGION", "Frankfurt", "an AWS region"),
            ("JOBS_LEASE_NAMESPACE", "my namespace", "the name of a namespace"),
            ("JOBS_NAMESPACES", "kube-system", "no kube-* namespaces"),
            ("JOBS_NAMESPACES", "a*b", "optional * at its end"),
            ("JOBS_IMAGES", "busybox:1.37", "repositories without tag"),
            ("JOBS_RATE_LIMIT", "60", "such as 10/s"),
            ("JOBS_RATE_LIMIT", "0/m", "such as 10/s"),
            ("JOBS_RATE_LIMIT", "60/d", "such as 10/s"),
            ("JOBS_RATE_LIMIT", "1000001/s", "such as 10/s"),
            ("LOGLEVEL", "LOUD", "CRITICAL"),
            ("LOGLEVEL", "math_service=LOUD", "CRITICAL"),
        ] {
            let error = config(&[(variable, value)]).expect_err(value);
            assert_eq!((error.variable, error.value.as_str()), (variable, value));
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn there_are_half_as_many_connections_again_as_requests_unless_a_number_is_given() {
        let connections = |vars: &[(&str, &str)]| config(vars).unwrap().max_connections;
        assert_eq!(connections(&[]), 15000);
        for (requests, expected) in [("20000", 30000), ("2000", 3000), ("1", 2)] {
            assert_eq!(connections(&[("MAX_IN_FLIGHT", requests)]), expected);
        }
        assert_eq!(connections(&[("MAX_IN_FLIGHT", &usize::MAX.to_string())]), usize::MAX);
        assert_eq!(connections(&[("MAX_IN_FLIGHT", "20000"), ("MAX_CONNECTIONS", "100")]), 100);
        assert_eq!(connections(&[("MAX_IN_FLIGHT", "20000"), ("MAX_CONNECTIONS", " ")]), 30000);
    }

    #[test]
    fn a_table_is_in_some_region() {
        assert_eq!(config(&[("STATE_URL", "dynamodb://table")]).unwrap_err().variable, "STATE_URL");
        assert!(config(&[("STATE_URL", "dynamodb://table?region=eu-west-2")]).is_ok());
        assert!(config(&[("STATE_URL", "dynamodb://table"), ("AWS_REGION", "eu-west-2")]).is_ok());
    }

    #[test]
    fn no_secret_is_told_or_shown() {
        let error = config(&[("STATE_URL", "mysql://user:hunter2@host/db")]).unwrap_err();
        assert_eq!(error.variable, "STATE_URL");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let secrets = [("STATE_URL", "postgres://user:hunter2@host/db")];
        assert!(!format!("{:?}", config(&secrets).unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_timeout_below_the_delay_is_refused() {
        let error = config(&[("ADD_DELAY", "5s"), ("REQUEST_TIMEOUT", "5s")]).unwrap_err();
        assert_eq!(error.variable, "ADD_DELAY");
        assert!(error.to_string().contains("REQUEST_TIMEOUT (5s)"), "{error}");
    }

    #[test]
    fn a_burn_that_could_only_time_out_is_refused_where_burning_is_enabled() {
        let tight = [("LOAD_MAX_SECONDS", "10"), ("REQUEST_TIMEOUT", "10s")];
        assert!(config(&tight).is_ok(), "nothing burns");
        let error = config(&[tight[0], tight[1], ("LOAD_ENABLED", "true")]).unwrap_err();
        assert_eq!((error.variable, error.value.as_str()), ("LOAD_MAX_SECONDS", "10"));
        assert!(error.to_string().contains("REQUEST_TIMEOUT (10s)"), "{error}");
        let slots = |value| config(&[("LOAD_SLOTS", value)]).unwrap().load_slots;
        assert_eq!(slots("3"), Some(3));
        assert_eq!((slots("cpus"), slots("CPUs")), (None, None));
    }

    #[test]
    fn burns_and_simulations_leave_threads_to_others() {
        /// Of a tokio runtime, unless it is told otherwise.
        const THREADS: usize = 512;
        let most = |name, slots: usize| config(&[(name, &slots.to_string())]).is_ok();
        let largest = |name| (1..=THREADS).rev().find(|slots| most(name, *slots)).unwrap();
        let (burns, simulations) = (largest("LOAD_SLOTS"), largest("LAB_SLOTS"));
        assert_eq!((burns, simulations), (256, 64));
        assert!(THREADS - burns - simulations >= THREADS / 3);
    }

    #[test]
    fn an_issuer_needs_an_audience_and_an_audience_an_issuer() {
        let (issuer, audience) = (("OIDC_ISSUER", "https://login.example.com"), ("OIDC_AUDIENCE", "math"));
        let both = config(&[issuer, audience]).unwrap();
        assert_eq!(both.oidc_issuer.unwrap().name(), "https://login.example.com");
        assert_eq!(both.oidc_audience.unwrap(), "math");
        let error = config(&[issuer]).unwrap_err();
        assert_eq!(error.variable, "OIDC_AUDIENCE");
        assert!(error.to_string().contains("because OIDC_ISSUER is set"), "{error}");
        let error = config(&[audience]).unwrap_err();
        assert!(error.to_string().contains("OIDC_ISSUER to be set too"), "{error}");
    }

    #[test]
    fn the_cluster_is_in_the_process_region_unless_another_is_named() {
        let region = |vars: &[(&str, &str)]| {
            let vars = [&[("EKS_CLUSTER_NAME", "math")], vars].concat();
            config(&vars).unwrap().eks_clusters[0].region.clone()
        };
        assert_eq!(region(&[]), "us-east-1");
        assert_eq!(region(&[("AWS_REGION", "eu-west-2")]), "eu-west-2");
        assert_eq!(region(&[("AWS_REGION", "eu-west-2"), ("EKS_REGION", "cn-north-1")]), "cn-north-1");
        assert_eq!(config(&[]).unwrap().eks_clusters, [], "no Jobs unless asked for");
        let stand_in = [("AWS_ENDPOINT_URL", "http://a"), ("AWS_ENDPOINT_URL_EKS", "http://b")];
        assert_eq!(config(&stand_in).unwrap().aws.eks_endpoint.unwrap(), "http://b");
        assert_eq!(config(&stand_in[..1]).unwrap().aws.eks_endpoint.unwrap(), "http://a");
    }

    #[test]
    fn the_default_cluster_is_the_one_that_is_named_else_the_first_of_the_list() {
        let clusters = |vars: &[(&str, &str)]| {
            let clusters = config(vars).unwrap().eks_clusters;
            clusters.iter().map(|EksCluster { name, region }| format!("{name}@{region}")).collect::<Vec<_>>()
        };
        let (listed, at) = (("EKS_CLUSTERS", "a@eu-west-2, b@us-west-1"), ("EKS_REGION", "cn-north-1"));
        assert_eq!(clusters(&[listed, at]), ["a@eu-west-2", "b@us-west-1"]);
        let named = |name| ("EKS_CLUSTER_NAME", name);
        assert_eq!(clusters(&[listed, at, named("c")]), ["c@cn-north-1", "a@eu-west-2", "b@us-west-1"]);
        assert_eq!(
            clusters(&[listed, at, named("b")]),
            ["b@us-west-1", "a@eu-west-2"],
            "the list knows better"
        );
    }

    #[test]
    fn an_empty_value_counts_as_unset() {
        assert_eq!(config(&[("PORT", " "), ("BASE_PATH", "")]).unwrap().port, 8000);
    }

    #[test]
    fn an_alias_is_read_when_the_first_name_is_unset_and_is_named_when_bad() {
        let filter = config(&[("LOG_LEVEL", "ERROR")]).unwrap().log_filter;
        assert!(!filter.would_enable("math_service", &tracing::Level::WARN));
        assert_eq!(config(&[("LOG_LEVEL", "LOUD")]).unwrap_err().variable, "LOG_LEVEL");
        let filter = config(&[("LOGLEVEL", "DEBUG"), ("LOG_LEVEL", "ERROR")]).unwrap().log_filter;
        assert!(filter.would_enable("math_service", &tracing::Level::DEBUG));
    }

    #[test]
    fn a_bare_level_is_for_our_own_lines_and_pythons_names_work() {
        let filter = config(&[("LOGLEVEL", "debug")]).unwrap().log_filter;
        assert!(filter.would_enable("math_service::addition", &tracing::Level::DEBUG));
        assert!(!filter.would_enable("h2", &tracing::Level::DEBUG));
        assert!(filter.would_enable("h2", &tracing::Level::WARN));
        let filter = config(&[("LOGLEVEL", "CRITICAL")]).unwrap().log_filter;
        assert!(filter.would_enable("math_service", &tracing::Level::ERROR));
        assert!(!filter.would_enable("math_service", &tracing::Level::WARN));
        let filter = config(&[("LOGLEVEL", "WARNING,h2=trace")]).unwrap().log_filter;
        assert!(filter.would_enable("h2", &tracing::Level::TRACE));
        assert!(!filter.would_enable("math_service", &tracing::Level::INFO));
    }

    #[test]
    fn a_base_path_needs_no_exact_slashes() {
        for value in ["math", "/math", "/math/", "math/"] {
            assert_eq!(config(&[("BASE_PATH", value)]).unwrap().base_path, "/math");
        }
        assert_eq!(config(&[("BASE_PATH", "/")]).unwrap().base_path, "");
    }
}
