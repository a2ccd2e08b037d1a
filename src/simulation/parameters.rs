//! What a simulation is asked for: one table of fields, from which JSON, query, form and OpenAPI document are made.
//!
//! The defaults are what ships: `k8s/base`, `cluster-config.yaml` and `template.yaml`, compared by a test.

use form_urlencoded::Serializer;
use serde_json::{Map, Value, json};

use crate::{
    lab::{
        cluster::{Cluster, Instance},
        container::{Pipeline, Workload},
        cost::{Architecture, Balancer, Gateway, Prices},
        hpa::spec::{
            Behavior, Hpa, MetricSpec, Policy, PolicyKind, Rules, SelectPolicy, Source, Target, TargetRef,
            default_metric,
        },
        lambda::Function,
        run::Span,
        service::Profile,
        traffic::{Shape, Traffic},
        verdict::Scenario,
    },
    problem::FieldError,
};

/// The most that one simulation may be, in units: its steps, each of a second, times what one costs, which is a hundred
/// for a target and one for each pod. A thousand million units are about a second of CPU time, so these are some three.
const MOST_WORK: f64 = 3e9;
const STEP: f64 = 100.0;
/// Runs of both targets until the crossover is found, at most, and the pods that those may have.
const CROSSOVER_RUNS: f64 = 24.0;
const CROSSOVER_PODS: f64 = 1000.0;

/// The shortest request.
const LEAST_MS: f64 = 0.001;
/// Most errors in an answer: it must not be many times its question.
const MOST_ERRORS: usize = 100;

/// All values of a simulation. Units are in the names; nothing is what is left open.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameters {
    hours: f64,
    region: &'static str,
    free_tier: bool,
    pub(crate) crossover: bool,
    shape: &'static str,
    from: f64,
    to: f64,
    at_hours: f64,
    for_hours: f64,
    noise: f64,
    seed: f64,
    profile: Profile,
    eks: Eks,
    lambda: Lambda,
}

#[derive(Debug, Clone, PartialEq)]
struct Eks {
    min_replicas: f64,
    max_replicas: f64,
    cpu_percent: Option<f64>,
    memory_percent: Option<f64>,
    up_pods: f64,
    up_seconds: f64,
    down_pods: f64,
    down_seconds: f64,
    down_window_seconds: f64,
    cpu_request_milli: f64,
    cpu_limit_milli: Option<f64>,
    memory_request_mib: f64,
    memory_limit_mib: Option<f64>,
    max_in_flight: f64,
    timeout_seconds: f64,
    pod_start_seconds: f64,
    instance: &'static str,
    min_nodes: f64,
    max_nodes: f64,
    node_start_seconds: f64,
    balancer: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
struct Lambda {
    memory_mb: f64,
    architecture: &'static str,
    timeout_seconds: f64,
    account_concurrency: f64,
    reserved_concurrency: Option<f64>,
    provisioned_concurrency: f64,
    idle_seconds: f64,
    gateway: &'static str,
    throttle_rate: Option<f64>,
    throttle_burst: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            hours: 24.0,
            region: "eu-west-2",
            free_tier: false,
            crossover: false,
            shape: "diurnal",
            from: 1.0,
            to: 60.0,
            at_hours: 1.0,
            for_hours: 1.0,
            noise: 0.0,
            seed: 1.0,
            // A request that works and waits a little: one that does neither scales nothing.
            profile: Profile { cpu_ms: 5.0, wait_ms: 50.0, ..Profile::default() },
            eks: Eks {
                min_replicas: 2.0,
                max_replicas: 5.0,
                cpu_percent: Some(50.0),
                memory_percent: Some(60.0),
                up_pods: 2.0,
                up_seconds: 15.0,
                down_pods: 1.0,
                down_seconds: 60.0,
                down_window_seconds: 300.0,
                cpu_request_milli: 100.0,
                cpu_limit_milli: None,
                memory_request_mib: 64.0,
                memory_limit_mib: Some(256.0),
                max_in_flight: 2000.0,
                timeout_seconds: 30.0,
                pod_start_seconds: 2.0,
                instance: "t3.large",
                min_nodes: 2.0,
                max_nodes: 3.0,
                node_start_seconds: 90.0,
                balancer: "classic",
            },
            lambda: Lambda {
                memory_mb: 128.0,
                architecture: "arm64",
                timeout_seconds: 29.0,
                account_concurrency: 1000.0,
                reserved_concurrency: None,
                provisioned_concurrency: 0.0,
                idle_seconds: 300.0,
                gateway: "http",
                throttle_rate: Some(100.0),
                throttle_burst: 200.0,
            },
        }
    }
}

/// One value that may be asked for.
pub(crate) struct Field {
    /// `eks.max_replicas`: in JSON a member of an object, in a query and in the form the name itself.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) label: &'static str,
    /// What it counts in.
    pub(crate) unit: &'static str,
    pub(crate) kind: Kind,
}

/// What a value may be, and where it is.
pub(crate) enum Kind {
    Number {
        least: f64,
        most: f64,
        at: fn(&mut Parameters) -> &mut f64,
    },
    Whole {
        least: f64,
        most: f64,
        at: fn(&mut Parameters) -> &mut f64,
    },
    /// A whole number, or `null`; in a query the empty text.
    Optional {
        least: f64,
        most: f64,
        at: fn(&mut Parameters) -> &mut Option<f64>,
    },
    Choice {
        of: &'static [(&'static str, &'static str)],
        at: fn(&mut Parameters) -> &mut &'static str,
    },
    Switch {
        at: fn(&mut Parameters) -> &mut bool,
    },
}

const SHAPES: &[(&str, &str)] = &[
    ("diurnal", "A day: least at 4:00, most at 16:00"),
    ("constant", "Constant"),
    ("step", "A step"),
    ("ramp", "A ramp"),
    ("spike", "A spike"),
];
const REGIONS: &[(&str, &str)] =
    &[("eu-west-2", "London, eu-west-2"), ("us-east-1", "N. Virginia, us-east-1")];
const INSTANCES: &[(&str, &str)] = &[
    ("t3.medium", "t3.medium: 2 CPU, 4 GiB"),
    ("t3.large", "t3.large: 2 CPU, 8 GiB"),
    ("t3.xlarge", "t3.xlarge: 4 CPU, 16 GiB"),
    ("m5.large", "m5.large: 2 CPU, 8 GiB"),
    ("m5.xlarge", "m5.xlarge: 4 CPU, 16 GiB"),
    ("c5.large", "c5.large: 2 CPU, 4 GiB"),
    ("c5.xlarge", "c5.xlarge: 4 CPU, 8 GiB"),
];
const BALANCERS: &[(&str, &str)] =
    &[("classic", "Classic Load Balancer"), ("application", "Application Load Balancer"), ("none", "None")];
const ARCHITECTURES: &[(&str, &str)] = &[("arm64", "arm64, Graviton"), ("x86_64", "x86_64")];
const GATEWAYS: &[(&str, &str)] = &[("http", "HTTP API"), ("rest", "REST API"), ("url", "Function URL")];

const fn field(name: &'static str, label: &'static str, unit: &'static str, kind: Kind) -> Field {
    Field { name, label, unit, kind }
}

const fn number(least: f64, most: f64, at: fn(&mut Parameters) -> &mut f64) -> Kind {
    Kind::Number { least, most, at }
}

const fn whole(least: f64, most: f64, at: fn(&mut Parameters) -> &mut f64) -> Kind {
    Kind::Whole { least, most, at }
}

const fn optional(least: f64, most: f64, at: fn(&mut Parameters) -> &mut Option<f64>) -> Kind {
    Kind::Optional { least, most, at }
}

/// Every field, in the order of the form.
#[rustfmt::skip]
pub(crate) const FIELDS: [Field; 51] = [
    field("traffic.shape", "Shape", "", Kind::Choice { of: SHAPES, at: |p| &mut p.shape }),
    field("traffic.from", "Requests: least, base, before", "a second", number(0.0, 1e6, |p| &mut p.from)),
    field("traffic.to", "Requests: most, peak, after", "a second", number(0.0, 1e6, |p| &mut p.to)),
    field("traffic.at_hours", "Begins after", "hours", number(0.0, 168.0, |p| &mut p.at_hours)),
    field("traffic.for_hours", "Lasts", "hours", number(0.0, 168.0, |p| &mut p.for_hours)),
    field("traffic.noise", "Noise, as a share", "0 to 1", number(0.0, 1.0, |p| &mut p.noise)),
    field("traffic.seed", "Seed of the noise", "", whole(0.0, 4_294_967_295.0, |p| &mut p.seed)),
    field("hours", "Simulated time", "hours", number(0.1, 168.0, |p| &mut p.hours)),
    field("profile.cpu_ms", "CPU time", "ms a request", number(0.0, 1e6, |p| &mut p.profile.cpu_ms)),
    field("profile.wait_ms", "Waiting", "ms a request", number(0.0, 1e6, |p| &mut p.profile.wait_ms)),
    field("profile.memory_mib", "Memory when idle", "MiB", number(0.0, 1e5, |p| &mut p.profile.memory_mib)),
    field("profile.request_memory_kib", "Memory of a request", "KiB", number(0.0, 1e6, |p| &mut p.profile.request_memory_kib)),
    field("profile.request_bytes", "Request", "bytes", number(0.0, 1e7, |p| &mut p.profile.request_bytes)),
    field("profile.response_bytes", "Answer", "bytes", number(0.0, 1e7, |p| &mut p.profile.response_bytes)),
    field("profile.log_bytes", "Logs of a call of the function", "bytes", number(0.0, 1e7, |p| &mut p.profile.log_bytes)),
    field("profile.start_ms", "Start of a pod's process", "ms", number(0.0, 6e5, |p| &mut p.profile.start_ms)),
    field("profile.init_ms", "Cold start: INIT", "ms", number(0.0, 6e5, |p| &mut p.profile.init_ms)),
    field("profile.sandbox_ms", "Cold start: before INIT", "ms", number(0.0, 6e4, |p| &mut p.profile.sandbox_ms)),
    field("eks.min_replicas", "Fewest pods", "pods", whole(1.0, 1000.0, |p| &mut p.eks.min_replicas)),
    field("eks.max_replicas", "Most pods", "pods", whole(1.0, 1000.0, |p| &mut p.eks.max_replicas)),
    field("eks.cpu_percent", "Target of CPU", "% of the request", optional(1.0, 1000.0, |p| &mut p.eks.cpu_percent)),
    field("eks.memory_percent", "Target of memory", "% of the request", optional(1.0, 1000.0, |p| &mut p.eks.memory_percent)),
    field("eks.cpu_request_milli", "CPU request", "millicores", whole(1.0, 16_000.0, |p| &mut p.eks.cpu_request_milli)),
    field("eks.cpu_limit_milli", "CPU limit", "millicores", optional(1.0, 16_000.0, |p| &mut p.eks.cpu_limit_milli)),
    field("eks.memory_request_mib", "Memory request", "MiB", whole(1.0, 65_536.0, |p| &mut p.eks.memory_request_mib)),
    field("eks.memory_limit_mib", "Memory limit", "MiB", optional(1.0, 65_536.0, |p| &mut p.eks.memory_limit_mib)),
    field("eks.up_pods", "Scale up by", "pods at most", whole(1.0, 1000.0, |p| &mut p.eks.up_pods)),
    field("eks.up_seconds", "Scale up every", "seconds", whole(1.0, 1800.0, |p| &mut p.eks.up_seconds)),
    field("eks.down_pods", "Scale down by", "pods at most", whole(1.0, 1000.0, |p| &mut p.eks.down_pods)),
    field("eks.down_seconds", "Scale down every", "seconds", whole(1.0, 1800.0, |p| &mut p.eks.down_seconds)),
    field("eks.down_window_seconds", "Scale down after", "seconds of calm", whole(0.0, 3600.0, |p| &mut p.eks.down_window_seconds)),
    field("eks.max_in_flight", "Requests in a pod", "at once", whole(1.0, 1e6, |p| &mut p.eks.max_in_flight)),
    field("eks.timeout_seconds", "Timeout of a request", "seconds", number(0.1, 3600.0, |p| &mut p.eks.timeout_seconds)),
    field("eks.pod_start_seconds", "Start of a pod", "seconds", whole(0.0, 3600.0, |p| &mut p.eks.pod_start_seconds)),
    field("eks.instance", "Nodes", "", Kind::Choice { of: INSTANCES, at: |p| &mut p.eks.instance }),
    field("eks.min_nodes", "Fewest nodes", "nodes", whole(1.0, 1000.0, |p| &mut p.eks.min_nodes)),
    field("eks.max_nodes", "Most nodes", "nodes", whole(1.0, 1000.0, |p| &mut p.eks.max_nodes)),
    field("eks.node_start_seconds", "Start of a node", "seconds", whole(0.0, 3600.0, |p| &mut p.eks.node_start_seconds)),
    field("eks.balancer", "Load balancer", "", Kind::Choice { of: BALANCERS, at: |p| &mut p.eks.balancer }),
    field("lambda.memory_mb", "Memory", "MB", whole(128.0, 10_240.0, |p| &mut p.lambda.memory_mb)),
    field("lambda.architecture", "Processor", "", Kind::Choice { of: ARCHITECTURES, at: |p| &mut p.lambda.architecture }),
    field("lambda.timeout_seconds", "Timeout", "seconds", number(1.0, 900.0, |p| &mut p.lambda.timeout_seconds)),
    field("lambda.account_concurrency", "Account's concurrency", "at once", whole(1.0, 100_000.0, |p| &mut p.lambda.account_concurrency)),
    field("lambda.reserved_concurrency", "Reserved", "at once", optional(1.0, 100_000.0, |p| &mut p.lambda.reserved_concurrency)),
    field("lambda.provisioned_concurrency", "Provisioned", "environments", whole(0.0, 100_000.0, |p| &mut p.lambda.provisioned_concurrency)),
    field("lambda.idle_seconds", "Idle environments live", "seconds", whole(1.0, 86_400.0, |p| &mut p.lambda.idle_seconds)),
    field("lambda.gateway", "Gateway", "", Kind::Choice { of: GATEWAYS, at: |p| &mut p.lambda.gateway }),
    field("lambda.throttle_rate", "Gateway's ceiling", "a second", optional(1.0, 1e6, |p| &mut p.lambda.throttle_rate)),
    field("lambda.throttle_burst", "Gateway's burst", "at once above it", whole(0.0, 1e6, |p| &mut p.lambda.throttle_burst)),
    field("region", "Prices of", "", Kind::Choice { of: REGIONS, at: |p| &mut p.region }),
    field("free_tier", "Free tiers of Lambda and API Gateway", "", Kind::Switch { at: |p| &mut p.free_tier }),
];

/// Beside the fields, because it is no value of the scenario: whether to look for the traffic at which the answer changes.
pub(crate) const CROSSOVER: Field = field(
    "crossover",
    "Find the traffic at which the answer changes (20 times the work)",
    "",
    Kind::Switch { at: |p| &mut p.crossover },
);

/// All of them.
pub(crate) fn fields() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().chain([&CROSSOVER])
}

impl Field {
    /// `/eks/max_replicas`.
    pub(crate) fn pointer(&self) -> String {
        format!("/{}", self.name.replace('.', "/"))
    }

    /// The value, as text of a form.
    pub(crate) fn text(&self, parameters: &Parameters) -> String {
        match self.value(parameters) {
            Value::Null => String::new(),
            Value::String(text) => text,
            value => value.to_string(),
        }
    }

    fn value(&self, parameters: &Parameters) -> Value {
        let mut parameters = parameters.clone();
        let shown = |number: f64| if number.fract() == 0.0 { json!(number as i64) } else { json!(number) };
        match self.kind {
            Kind::Number { at, .. } | Kind::Whole { at, .. } => shown(*at(&mut parameters)),
            Kind::Optional { at, .. } => at(&mut parameters).map_or(Value::Null, shown),
            Kind::Choice { at, .. } => json!(*at(&mut parameters)),
            Kind::Switch { at } => json!(*at(&mut parameters)),
        }
    }

    /// Takes a value of JSON.
    fn take(&self, parameters: &mut Parameters, value: &Value) -> Result<(), String> {
        match (&self.kind, value) {
            (Kind::Optional { at, .. }, Value::Null) => *at(parameters) = None,
            (Kind::Number { at, .. } | Kind::Whole { at, .. }, Value::Number(number)) => {
                *at(parameters) = self.within(number.as_f64())?;
            }
            (Kind::Optional { at, .. }, Value::Number(number)) => {
                *at(parameters) = Some(self.within(number.as_f64())?);
            }
            (Kind::Choice { of, at }, Value::String(text)) => {
                let chosen = of.iter().find(|(value, _)| value == text);
                *at(parameters) = chosen.ok_or_else(|| self.expected())?.0;
            }
            (Kind::Switch { at }, Value::Bool(is_on)) => *at(parameters) = *is_on,
            _ => return Err(self.expected()),
        }
        Ok(())
    }

    /// Takes a value of a query.
    fn take_text(&self, parameters: &mut Parameters, text: &str) -> Result<(), String> {
        let value = match self.kind {
            Kind::Choice { .. } => json!(text),
            Kind::Switch { .. } => match text {
                "true" => json!(true),
                "false" => json!(false),
                _ => return Err(self.expected()),
            },
            _ if text.trim().is_empty() => Value::Null,
            // JSON has no infinity: it would become `null`, and that is an answer of its own.
            _ => match text.trim().parse::<f64>() {
                Ok(number) if number.is_finite() => json!(number),
                _ => json!(text),
            },
        };
        self.take(parameters, &value)
    }

    fn within(&self, number: Option<f64>) -> Result<f64, String> {
        let is_whole = !matches!(self.kind, Kind::Number { .. });
        let range = match self.kind {
            Kind::Number { least, most, .. }
            | Kind::Whole { least, most, .. }
            | Kind::Optional { least, most, .. } => least..=most,
            Kind::Choice { .. } | Kind::Switch { .. } => return Err(self.expected()),
        };
        number
            .filter(|number| range.contains(number) && !(is_whole && number.fract() != 0.0))
            .ok_or_else(|| self.expected())
    }

    /// What the value must be.
    fn expected(&self) -> String {
        match self.kind {
            Kind::Number { least, most, .. } => format!("must be a number from {least} to {most}"),
            Kind::Whole { least, most, .. } => format!("must be a whole number from {least} to {most}"),
            Kind::Optional { least, most, .. } => {
                format!("must be a whole number from {least} to {most}, or nothing")
            }
            Kind::Choice { of, .. } => {
                let values: Vec<&str> = of.iter().map(|(value, _)| *value).collect();
                format!("must be one of {}", values.join(", "))
            }
            Kind::Switch { .. } => "must be true or false".to_owned(),
        }
    }
}

impl Parameters {
    /// Of a JSON document; what it leaves open has its default.
    ///
    /// # Errors
    /// All that is wrong with it, each with its pointer.
    pub(crate) fn of_json(document: &Value) -> Result<Self, Vec<FieldError>> {
        let Value::Object(document) = document else {
            return Err(vec![FieldError::body("must be a JSON object")]);
        };
        let mut parameters = Self::default();
        let mut errors = Vec::new();
        let mut read = |parent: &str, members: &Map<String, Value>| {
            for (member, value) in members {
                let path = (parent, member.as_str());
                match fields().find(|field| field.name.split_once('.').unwrap_or(("", field.name)) == path) {
                    Some(field) => {
                        if let Err(detail) = field.take(&mut parameters, value) {
                            errors.push(FieldError { pointer: field.pointer(), detail });
                        }
                    }
                    // A typing error in a simulation would be believed.
                    None => errors
                        .push(FieldError { pointer: pointer(parent, member), detail: "is not known".into() }),
                }
            }
        };
        let (groups, own): (Map<_, _>, Map<_, _>) =
            document.clone().into_iter().partition(|(name, _)| GROUPS.contains(&name.as_str()));
        read("", &own);
        let mut wrong = Vec::new();
        for (group, value) in &groups {
            match value {
                Value::Object(members) => read(group, members),
                _ => wrong.push(FieldError::field(group, "must be an object")),
            }
        }
        errors.extend(wrong);
        parameters.checked(errors)
    }

    /// Of a query or a form; what it leaves open has its default, and parameters that nobody knows are ignored.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn of_query(query: &str) -> Result<Self, Vec<FieldError>> {
        let mut parameters = Self::default();
        let mut errors = Vec::new();
        let mut given = Vec::new();
        for (name, text) in form_urlencoded::parse(query.as_bytes()) {
            let Some(field) = fields().find(|field| field.name == name) else { continue };
            let taken = if given.contains(&field.name) {
                Err("must be given once at most".to_owned())
            } else {
                field.take_text(&mut parameters, &text)
            };
            given.push(field.name);
            let pointer = field.pointer();
            if let Err(detail) = taken
                && !errors.iter().any(|error: &FieldError| error.pointer == pointer)
            {
                errors.push(FieldError { pointer, detail });
            }
        }
        parameters.checked(errors)
    }

    /// What of a query can be taken, for a form that shows the rest as wrong.
    pub(crate) fn of_what_is_right(query: &str) -> Self {
        let mut parameters = Self::default();
        for (name, text) in form_urlencoded::parse(query.as_bytes()) {
            if let Some(field) = fields().find(|field| field.name == name) {
                let _ = field.take_text(&mut parameters, &text);
            }
        }
        parameters
    }

    /// As a query: what differs from the defaults.
    pub(crate) fn query(&self) -> String {
        let standard = Self::default();
        let mut query = Serializer::new(String::new());
        for field in fields() {
            let text = field.text(self);
            if text != field.text(&standard) {
                query.append_pair(field.name, &text);
            }
        }
        query.finish()
    }

    /// As JSON, the defaults too.
    pub(crate) fn json(&self) -> Value {
        let mut document = Map::new();
        for field in fields() {
            let value = field.value(self);
            match field.name.split_once('.') {
                Some((group, member)) => {
                    let group = document.entry(group).or_insert_with(|| json!({}));
                    group[member] = value;
                }
                None => drop(document.insert(field.name.into(), value)),
            }
        }
        Value::Object(document)
    }

    /// What no field can say by itself.
    fn checked(self, mut errors: Vec<FieldError>) -> Result<Self, Vec<FieldError>> {
        if !errors.is_empty() {
            errors.truncate(MOST_ERRORS);
            return Err(errors);
        }
        let (eks, lambda) = (&self.eks, &self.lambda);
        let mut refuse = |name: &str, is_wrong: bool, detail: &str| {
            if is_wrong {
                let pointer = format!("/{}", name.replace('.', "/"));
                errors.push(FieldError { pointer, detail: detail.to_owned() });
            }
        };
        refuse(
            "eks.max_replicas",
            eks.max_replicas < eks.min_replicas,
            "must not be below the fewest (min_replicas)",
        );
        refuse("eks.max_nodes", eks.max_nodes < eks.min_nodes, "must not be below the fewest (min_nodes)");
        let is_idle = self.profile.cpu_ms + self.profile.wait_ms < LEAST_MS;
        let detail = format!(
            "and waiting (wait_ms) must be {LEAST_MS} ms together at least: a request takes some time"
        );
        refuse("profile.cpu_ms", is_idle, &detail);
        let limit = lambda.reserved_concurrency.unwrap_or(lambda.account_concurrency);
        let is_too_much = lambda.provisioned_concurrency > limit;
        refuse("lambda.provisioned_concurrency", is_too_much, "must not be above the function's concurrency");
        let work = self.work();
        let (name, way_out) = if self.crossover {
            ("crossover", "; without crossover it may be longer")
        } else {
            ("hours", "")
        };
        let detail = format!(
            "is too much work: {:.0} million units of at most {:.0} million (for each run a unit for each pod and \
             second, and {STEP} for each second; with crossover {CROSSOVER_RUNS} runs of both targets and at least \
             {CROSSOVER_PODS} pods); ask for fewer hours{way_out}",
            work / 1e6,
            MOST_WORK / 1e6
        );
        refuse(name, work > MOST_WORK, &detail);
        if errors.is_empty() { Ok(self) } else { Err(errors) }
    }

    /// An upper bound of the work.
    fn work(&self) -> f64 {
        let steps = self.seconds() as f64;
        let both = |pods: f64| steps * (2.0 * STEP + pods);
        let crossover = if self.crossover {
            CROSSOVER_RUNS * both(self.eks.max_replicas.max(CROSSOVER_PODS))
        } else {
            0.0
        };
        both(self.eks.max_replicas) + crossover
    }

    fn seconds(&self) -> u64 {
        (self.hours * 3600.0).round() as u64
    }

    /// In a few words.
    pub(crate) fn title(&self) -> String {
        let (from, to) = (self.from, self.to);
        let traffic = match self.shape {
            "constant" => format!("{from} requests a second"),
            "diurnal" => format!("{from} to {to} requests a second over a day"),
            "spike" => format!("{from} requests a second with a spike of {to}"),
            shape => format!("a {shape} from {from} to {to} requests a second"),
        };
        let Profile { cpu_ms, wait_ms, .. } = self.profile;
        format!("{} h of {traffic}, each {cpu_ms} ms of CPU and {wait_ms} ms of waiting", self.hours)
    }

    /// The lab's form of it.
    ///
    /// # Errors
    /// What the lab does not know, which the table rules out.
    pub(crate) fn scenario(&self) -> Result<Scenario, String> {
        Ok(Scenario {
            cluster: self.eks.cluster()?,
            workload: self.eks.workload(),
            pipeline: Pipeline::default(),
            function: self.lambda.function(),
            profile: self.profile,
            lambda_profile: None,
            traffic: self.traffic(),
            span: Span::of(self.seconds())?,
            prices: Prices::of(self.region)?,
            has_free_tier: self.free_tier,
        })
    }

    fn traffic(&self) -> Traffic {
        let (from, to) = (self.from, self.to);
        let (at, lasts) = ((self.at_hours * 3600.0) as u64, (self.for_hours * 3600.0) as u64);
        let shape = match self.shape {
            "constant" => Shape::Constant { rate: from },
            "step" => Shape::Step { from, to, at },
            "ramp" => Shape::Ramp { from, to, at, over: lasts },
            "spike" => Shape::Spike { base: from, peak: to, at, lasts },
            _ => Shape::Diurnal { low: from, high: to },
        };
        Traffic { shape, noise: self.noise, seed: self.seed as u64 }
    }
}

/// Objects of the document.
const GROUPS: [&str; 4] = ["traffic", "profile", "eks", "lambda"];

fn pointer(parent: &str, member: &str) -> String {
    let escaped = member.replace('~', "~0").replace('/', "~1");
    if parent.is_empty() { format!("/{escaped}") } else { format!("/{parent}/{escaped}") }
}

impl Eks {
    fn cluster(&self) -> Result<Cluster, String> {
        Ok(Cluster {
            instance: Instance::of(self.instance)?,
            nodes: self.min_nodes as u32,
            min_nodes: self.min_nodes as u32,
            max_nodes: self.max_nodes as u32,
            is_autoscaled: true,
            node_start_seconds: self.node_start_seconds as u64,
            volume_gb: 20,
            nat_gateways: 1,
            has_public_nodes: true,
            minor: 35,
            is_extended: false,
        })
    }

    fn workload(&self) -> Workload {
        Workload {
            replicas: 1,
            hpa: Some(self.hpa()),
            container: "math-service-container".into(),
            cpu_request_milli: Some(self.cpu_request_milli as i64),
            memory_request_mib: Some(self.memory_request_mib as i64),
            cpu_limit: self.cpu_limit_milli.map(|milli| milli / 1000.0),
            memory_limit_mib: self.memory_limit_mib,
            max_in_flight: self.max_in_flight,
            timeout_seconds: self.timeout_seconds,
            pod_start_seconds: self.pod_start_seconds as u64,
            balancer: match self.balancer {
                "application" => Balancer::Application,
                "none" => Balancer::None,
                _ => Balancer::Classic,
            },
        }
    }

    fn hpa(&self) -> Hpa {
        let metric = |name: &str, percent: f64| MetricSpec {
            source: Source::Resource { name: name.into() },
            target: Target {
                kind: "Utilization".into(),
                average_utilization: Some(percent as i32),
                ..Target::default()
            },
        };
        let targets = [("cpu", self.cpu_percent), ("memory", self.memory_percent)];
        let mut metrics: Vec<MetricSpec> =
            targets.iter().filter_map(|(name, percent)| Some(metric(name, (*percent)?))).collect();
        if metrics.is_empty() {
            metrics.push(default_metric());
        }
        let rules = |window: f64, pods: f64, seconds: f64| Rules {
            stabilization_window_seconds: Some(window as i32),
            select_policy: SelectPolicy::Max,
            policies: vec![Policy {
                kind: PolicyKind::Pods,
                value: pods as i32,
                period_seconds: seconds as i32,
            }],
            tolerance: None,
        };
        Hpa {
            namespace: String::new(),
            name: "math-service-hpa".into(),
            target: TargetRef {
                api_version: "apps/v1".into(),
                kind: "Deployment".into(),
                name: "math-service-deployment".into(),
            },
            min_replicas: self.min_replicas as i32,
            max_replicas: self.max_replicas as i32,
            metrics,
            behavior: Some(Behavior {
                up: rules(0.0, self.up_pods, self.up_seconds),
                down: rules(self.down_window_seconds, self.down_pods, self.down_seconds),
            }),
        }
    }
}

impl Lambda {
    fn function(&self) -> Function {
        Function {
            memory_mb: self.memory_mb as u32,
            architecture: if self.architecture == "x86_64" { Architecture::X86 } else { Architecture::Arm },
            timeout_seconds: self.timeout_seconds,
            reserved: self.reserved_concurrency.map(|count| count as u32),
            provisioned: self.provisioned_concurrency as u32,
            account: self.account_concurrency as u32,
            idle_seconds: self.idle_seconds as u64,
            gateway: match self.gateway {
                "rest" => Gateway::Rest,
                "url" => Gateway::Url,
                _ => Gateway::Http,
            },
            throttle: self.throttle_rate.map(|rate| (rate, self.throttle_burst)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::inputs;

    fn pointers(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|error| error.pointer.as_str()).collect()
    }

    #[test]
    fn the_defaults_are_what_ships() {
        let scenario = Parameters::default().scenario().unwrap();
        let manifests = [
            include_str!("../../k8s/base/deployment.yaml"),
            include_str!("../../k8s/base/hpa.yaml"),
            include_str!("../../k8s/base/service.yaml"),
        ];
        let (cluster, region) = inputs::cluster(include_str!("../../cluster-config.yaml")).unwrap();
        assert_eq!(scenario.workload, inputs::workload(&manifests.join("\n---\n")).unwrap());
        assert_eq!((scenario.cluster, scenario.prices.region), (cluster, region));
        assert_eq!(scenario.function, inputs::function(include_str!("../../template.yaml")).unwrap());
    }

    #[test]
    fn every_field_is_read_from_json_and_query_as_it_is_written() {
        let standard = Parameters::default();
        assert_eq!(Parameters::of_json(&json!({})), Ok(standard.clone()));
        assert_eq!(Parameters::of_query(""), Ok(standard.clone()));
        assert_eq!(standard.query(), "");
        for field in fields() {
            let mut other = standard.clone();
            match field.kind {
                Kind::Number { least, at, .. } | Kind::Whole { least, at, .. } => {
                    *at(&mut other) = if *at(&mut other) == least { least + 1.0 } else { least };
                }
                Kind::Optional { at, .. } => {
                    let given = at(&mut other);
                    *given = if given.is_some() { None } else { Some(500.0) };
                }
                Kind::Choice { of, at } => *at(&mut other) = of.last().unwrap().0,
                Kind::Switch { at } => *at(&mut other) = true,
            }
            // Together they are refused, each by itself they are not.
            if ["eks.min_nodes", "eks.min_replicas", "eks.max_replicas", "eks.max_nodes"]
                .contains(&field.name)
            {
                continue;
            }
            assert_ne!(other, standard, "{}", field.name);
            assert_eq!(Parameters::of_query(&other.query()), Ok(other.clone()), "{}", field.name);
            assert_eq!(Parameters::of_json(&other.json()), Ok(other.clone()), "{}", field.name);
            let names = other.query();
            assert_eq!(names.split('=').next(), Some(field.name), "{names}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let errors = Parameters::of_json(&json!({
            "hours": 0, "region": "mars", "speed": 1, "traffic.to": 5, "traffic": {"from": "1", "a/b": 1}, "profile": 5,
            "eks": {"max_replicas": 2.5, "cpu_percent": null, "cpu_limit_milli": 0},
        }))
        .unwrap_err();
        let mut found = pointers(&errors);
        found.sort_unstable();
        let expected = [
            "/eks/cpu_limit_milli",
            "/eks/max_replicas",
            "/hours",
            "/profile",
            "/region",
            "/speed",
            "/traffic.to",
            "/traffic/a~1b",
            "/traffic/from",
        ];
        assert_eq!(found, expected);
        for (query, expected) in [
            ("hours=x", "/hours"),
            ("hours=", "/hours"),
            ("hours=NaN", "/hours"),
            ("hours=inf", "/hours"),
            ("hours=1&hours=2", "/hours"),
            ("hours&hours&hours=x", "/hours"),
            ("eks.cpu_percent=1e999", "/eks/cpu_percent"),
            ("eks.cpu_percent=NaN", "/eks/cpu_percent"),
            ("free_tier=yes", "/free_tier"),
            ("eks.balancer=nginx", "/eks/balancer"),
            ("eks.max_replicas=1", "/eks/max_replicas"),
            ("eks.max_nodes=1", "/eks/max_nodes"),
            ("profile.cpu_ms=0&profile.wait_ms=0", "/profile/cpu_ms"),
            ("profile.cpu_ms=1e-310&profile.wait_ms=0", "/profile/cpu_ms"),
            (
                "lambda.reserved_concurrency=5&lambda.provisioned_concurrency=6",
                "/lambda/provisioned_concurrency",
            ),
        ] {
            assert_eq!(pointers(&Parameters::of_query(query).unwrap_err()), [expected], "{query}");
        }
        assert!(Parameters::of_query("utm_source=x").is_ok());
        let strange: Map<String, Value> = (0..1000).map(|number| (number.to_string(), json!(1))).collect();
        assert_eq!(Parameters::of_json(&json!(strange)).unwrap_err().len(), MOST_ERRORS);
    }

    #[test]
    fn the_work_is_bounded_in_steps_times_pods() {
        for (query, is_fine) in [
            ("hours=168&eks.max_replicas=1000", true),
            ("hours=24&crossover=true", true),
            ("hours=24&crossover=true&eks.max_replicas=1000", true),
            ("hours=48&crossover=true", false),
            ("hours=168&crossover=true", false),
        ] {
            let read = Parameters::of_query(query);
            assert_eq!(read.is_ok(), is_fine, "{query}: {read:?}");
            if let Err(errors) = read {
                assert_eq!(pointers(&errors), ["/crossover"]);
                assert!(errors[0].detail.contains("million units"), "{}", errors[0].detail);
            }
        }
    }
}
