//! Which of the two targets, from which traffic on the other, and why.

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    cluster::Cluster,
    container::{self, Pipeline, Workload},
    cost::{Bill, Prices, Usd, grouped},
    lambda::{self, Function},
    run::{Run, Span},
    service::Profile,
    traffic::Traffic,
};

/// The share of requests that may be lost before a target counts as one that does not serve.
const TOLERATED: f64 = 0.01;
/// Factors of the traffic between which a crossover is looked for.
const RANGE: (f64, f64) = (1e-4, 1e5);

/// Everything that both targets are made of.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The container's side.
    pub cluster: Cluster,
    /// See above.
    pub workload: Workload,
    /// See above.
    pub pipeline: Pipeline,
    /// Lambda's side.
    pub function: Function,
    /// What a request costs.
    pub profile: Profile,
    /// What it costs on Lambda, where that was measured apart.
    pub lambda_profile: Option<Profile>,
    /// What arrives.
    pub traffic: Traffic,
    /// How long.
    pub span: Span,
    /// What it costs where.
    pub prices: Prices,
    /// Whether Lambda's and the gateway's free tiers apply.
    pub has_free_tier: bool,
}

/// A target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = RunTarget)]
pub enum Target {
    /// The Deployment on EKS.
    Eks,
    /// The function.
    Lambda,
}

impl Target {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Eks => "EKS",
            Self::Lambda => "Lambda",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Eks => Self::Lambda,
            Self::Lambda => Self::Eks,
        }
    }
}

/// A run and what a month of such runs costs.
#[derive(Debug, Clone)]
pub struct Side {
    /// What happened.
    pub run: Run,
    /// What is due a month.
    pub bill: Bill,
}

impl Side {
    fn is_serving(&self) -> bool {
        self.run.requests.lost_share() <= TOLERATED
    }
}

/// Both targets under the same traffic.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The container.
    pub eks: Side,
    /// The function.
    pub lambda: Side,
}

/// Where the cheaper target changes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Crossover {
    /// The given traffic times this.
    pub factor: f64,
    /// The mean requests a second there.
    pub mean_rate: f64,
    /// Requests a month there.
    pub monthly: f64,
    /// What either costs there.
    #[schema(value_type = f64)]
    pub usd: Usd,
    /// The cheaper one below.
    pub below: Target,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The target to take.
    pub target: Target,
    /// What it saves a month; negative where it is taken although it costs more.
    pub saves: Usd,
    /// The three reasons that weigh most.
    pub reasons: Vec<String>,
    /// Where the cheaper target changes, if it does.
    pub crossover: Option<Crossover>,
    /// Whether that was looked for.
    #[serde(skip)]
    pub is_crossover_sought: bool,
}

/// Something that speaks against a target.
struct Reason {
    of: Target,
    /// Dollars a month, or more for what no money makes up for.
    weight: f64,
    text: String,
}

impl Scenario {
    /// One target.
    ///
    /// # Errors
    /// A setting that is refused, or a node without a price.
    pub fn simulate(&self, target: Target) -> Result<Side, String> {
        let run = match target {
            Target::Eks => container::run(
                &self.cluster,
                &self.workload,
                &self.pipeline,
                &self.profile,
                &self.traffic,
                self.span,
                self.prices.zones,
            ),
            Target::Lambda => lambda::run(&self.function, self.on_lambda(), &self.traffic, self.span),
        }?;
        let bill = self.prices.bill(&run.monthly(), self.has_free_tier)?;
        Ok(Side { run, bill })
    }

    /// Both.
    ///
    /// # Errors
    /// See above.
    pub fn compare(&self) -> Result<Comparison, String> {
        Ok(Comparison { eks: self.simulate(Target::Eks)?, lambda: self.simulate(Target::Lambda)? })
    }

    fn on_lambda(&self) -> &Profile {
        self.lambda_profile.as_ref().unwrap_or(&self.profile)
    }

    fn times(&self, factor: f64) -> Self {
        let mut scaled = Self { traffic: self.traffic.times(factor), ..self.clone() };
        // The question is what it costs to serve this much: a ceiling set for another traffic answers another.
        scaled.function.throttle = None;
        scaled.function.account = u32::MAX;
        if let Some(hpa) = &mut scaled.workload.hpa {
            hpa.max_replicas = hpa.max_replicas.max(1000);
        }
        scaled.cluster.max_nodes = 1000;
        scaled
    }

    /// At which multiple of the traffic both cost the same, limits on size lifted: pods, nodes and concurrency follow.
    /// The smallest such multiple between a ten-thousandth and a hundred thousand, to a thousandth of itself.
    ///
    /// # Errors
    /// See above.
    pub fn crossover(&self) -> Result<Option<Crossover>, String> {
        self.crossover_while(|| true)
    }

    /// The same, for as long as somebody wants to know: that is asked before each run.
    ///
    /// # Errors
    /// See above; that nobody does any more.
    pub fn crossover_while(&self, is_wanted: impl Fn() -> bool) -> Result<Option<Crossover>, String> {
        let difference = |factor: f64| -> Result<(f64, Comparison), String> {
            if !is_wanted() {
                return Err("nobody wants to know the crossover any more".into());
            }
            let both = self.times(factor).compare()?;
            Ok((both.lambda.bill.total().dollars() - both.eks.bill.total().dollars(), both))
        };
        let (mut low, mut high) = (None, None);
        let mut factor = RANGE.0;
        let mut last = difference(factor)?.0;
        while factor < RANGE.1 {
            let next = factor * 10.0;
            let now = match difference(next) {
                Ok((now, _)) => now,
                // Beyond what can be simulated: nothing was found up to here.
                Err(_) => break,
            };
            if (now > 0.0) != (last > 0.0) {
                (low, high) = (Some(factor), Some(next));
                break;
            }
            (factor, last) = (next, now);
        }
        let (Some(mut low), Some(mut high)) = (low, high) else { return Ok(None) };
        let is_dear_above = last <= 0.0;
        while high / low > 1.001 {
            let middle = (low * high).sqrt();
            if (difference(middle)?.0 > 0.0) == is_dear_above {
                high = middle;
            } else {
                low = middle;
            }
        }
        let (_, both) = difference(high)?;
        let mean_rate = both.lambda.run.requests.arrived / both.lambda.run.seconds as f64;
        Ok(Some(Crossover {
            factor: high,
            mean_rate,
            monthly: mean_rate * super::cost::MONTH_SECONDS as f64,
            usd: both.eks.bill.total(),
            below: if is_dear_above { Target::Lambda } else { Target::Eks },
        }))
    }

    /// Which target, and why, and where the answer changes.
    ///
    /// # Errors
    /// See above.
    pub fn verdict(&self, both: &Comparison) -> Result<Verdict, String> {
        Ok(Verdict { crossover: self.crossover()?, is_crossover_sought: true, ..self.choice(both) })
    }

    /// Which target, and why: without looking for the crossover, which is most of the work.
    #[must_use]
    pub fn choice(&self, both: &Comparison) -> Verdict {
        let (eks, lambda) = (&both.eks, &both.lambda);
        let cheaper = if lambda.bill.total() <= eks.bill.total() { Target::Lambda } else { Target::Eks };
        let target = match (eks.is_serving(), lambda.is_serving()) {
            (true, false) => Target::Eks,
            (false, true) => Target::Lambda,
            _ => cheaper,
        };
        let side = |target: Target| if target == Target::Eks { eks } else { lambda };
        let saves = side(target.other()).bill.total() - side(target).bill.total();
        let mut reasons = self.reasons(both);
        // What speaks against the other target comes first, and of that the largest amount; losses weigh more than money.
        reasons.sort_by(|a, b| (a.of == target).cmp(&(b.of == target)).then(b.weight.total_cmp(&a.weight)));
        let told = |reason: Reason| {
            if reason.of == target { format!("Still, {}", reason.text) } else { reason.text }
        };
        let reasons = reasons.into_iter().take(3).map(told).collect();
        Verdict { target, saves, reasons, crossover: None, is_crossover_sought: false }
    }

    fn reasons(&self, both: &Comparison) -> Vec<Reason> {
        let (eks, lambda) = (&both.eks, &both.lambda);
        let mut reasons = Vec::new();
        let mut add = |of: Target, weight: f64, text: String| reasons.push(Reason { of, weight, text });
        for (of, side) in [(Target::Eks, eks), (Target::Lambda, lambda)] {
            let (name, lost) = (of.name(), side.run.requests.lost_share());
            if lost > TOLERATED {
                let why = side.run.notes.first().map(|note| format!(": {note}")).unwrap_or_default();
                add(of, 1e12 * lost, format!("{name} loses {:.1} % of the requests{why}.", lost * 100.0));
            }
        }
        let usd = |amount: Usd| amount.dollars();
        let standing: Usd =
            eks.bill.lines.iter().filter(|line| is_standing(&line.item)).map(|line| line.usd).sum();
        let nodes: Usd = eks.bill.lines.iter().filter(|line| is_node(&line.item)).map(|line| line.usd).sum();
        add(
            Target::Eks,
            usd(standing),
            format!(
                "EKS costs {standing} a month before anybody asks: control plane, NAT gateway, balancer and addresses."
            ),
        );
        add(
            Target::Eks,
            usd(nodes),
            format!(
                "EKS has nodes for {nodes}; requests use {:.2} % of their CPU time.",
                self.node_load(&eks.run) * 100.0
            ),
        );
        let duration = lambda.bill.item("Lambda duration")
            + lambda.bill.item("provisioned concurrency")
            + lambda.bill.item("provisioned duration");
        let profile = self.on_lambda();
        let share = profile.wait_ms / self.function.duration_ms(profile).max(f64::MIN_POSITIVE);
        let of_that = if share >= 0.01 {
            format!(
                ", {:.0} % of it waiting, which a pod does beside other requests for nothing",
                share * 100.0
            )
        } else {
            String::new()
        };
        add(
            Target::Lambda,
            usd(duration),
            format!("Lambda bills {duration} for the duration of requests{of_that}."),
        );
        let by_request: Usd = ["Lambda requests", "Lambda logs", "HTTP API", "REST API"]
            .iter()
            .map(|item| lambda.bill.item(item))
            .sum();
        let monthly =
            lambda.run.requests.arrived / lambda.run.seconds as f64 * super::cost::MONTH_SECONDS as f64;
        add(
            Target::Lambda,
            usd(by_request),
            format!(
                "Lambda, its gateway and its logs bill {by_request} for {} requests a month, however short they are.",
                grouped(format!("{monthly:.0}"))
            ),
        );
        reasons
    }

    fn node_load(&self, run: &Run) -> f64 {
        let node_ms: u128 = run.usage().node_ms.values().sum();
        let available = node_ms as f64 * self.cluster.instance.cores();
        if available > 0.0 { run.requests.served * self.profile.cpu_ms / available } else { 0.0 }
    }
}

fn is_standing(item: &str) -> bool {
    matches!(item, "EKS control plane" | "NAT gateway" | "load balancer" | "public addresses")
}

fn is_node(item: &str) -> bool {
    item.starts_with("nodes (") || item == "node disks"
}
