//! Simulations: a day of traffic on both targets, for whoever asks.
//!
//! The lab (`crate::lab`) does the arithmetic. What is asked for is bounded before it begins (`parameters`), runs on a
//! blocking thread in one of `LAB_SLOTS`, and ends with the run that is under way once its client is gone. So it needs no
//! token, although it is below `/api/`: it reads nothing, changes nothing, and costs no more than a slot.

mod page;
mod parameters;
mod schema;

use std::time::Duration;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tracing::info;
use utoipa::ToSchema;

use self::parameters::Parameters;
use crate::{
    http::{Routes, json, slots::Slots},
    lab::{
        cost::{Line, Prices},
        run::{Decision, Percentiles, Point, Requests},
        verdict::{Crossover, Side, Target, Verdict},
    },
    problem::{Document, Problem},
    targets,
    telemetry::metrics::Metrics,
};

/// The route that simulates.
pub const PATH: &str = "/api/v1/simulations";

/// How long a simulation waits for a slot.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most decisions of a run in an answer, which gateways limit to a megabyte; the others are counted.
const DECISIONS: usize = 500;

/// How simulations run.
#[derive(Debug, Clone, Copy)]
pub struct Simulations {
    /// At once, a thread each; none switches them off.
    pub slots: usize,
    /// Largest document, in bytes.
    pub max_body_bytes: usize,
    /// Who answers, for the page.
    pub target: targets::Target,
}

/// The route, the page, and their metrics.
///
/// # Errors
/// When the metrics collide with others: a programming mistake.
pub fn routes(simulations: Simulations, metrics: &Metrics) -> prometheus::Result<Routes> {
    let simulator = Simulator::new(simulations, metrics)?;
    Ok(vec![
        (PATH, post(simulate).with_state(simulator.clone())),
        ("/lab", get(page::show).with_state(simulator.clone())),
        ("/lab/{file}", get(page::file).with_state(simulator)),
    ])
}

/// What every request shares.
#[derive(Clone)]
pub(crate) struct Simulator {
    settings: Simulations,
    slots: Slots,
}

/// A finished simulation.
struct Simulated {
    parameters: Parameters,
    sides: [(Target, Side); 2],
    verdict: Verdict,
    prices: Prices,
}

/// The answer to a scenario.
#[derive(Serialize, ToSchema)]
pub(crate) struct Simulation<'a> {
    /// What was simulated, the defaults written out.
    #[schema(value_type = schema::Scenario)]
    scenario: Value,
    /// Which target to take, and why.
    verdict: Choice<'a>,
    /// Where prices are from.
    prices: PriceList<'a>,
    /// The Deployment on EKS.
    eks: Outcome<'a>,
    /// The function.
    lambda: Outcome<'a>,
}

/// Which target to take, and why.
#[derive(Serialize, ToSchema)]
struct Choice<'a> {
    /// The target to take.
    target: Target,
    /// Dollars a month that it saves; negative where it is taken although it costs more.
    #[schema(example = 288.3)]
    saves_usd: f64,
    /// The three reasons that weigh most.
    reasons: &'a [String],
    /// Where the cheaper target changes; `null` where it does not, or where that was not asked for.
    crossover: Option<Crossover>,
}

/// Whose prices, of which day.
#[derive(Serialize, ToSchema)]
struct PriceList<'a> {
    /// The region.
    #[schema(example = "eu-west-2")]
    region: &'a str,
    /// When they were read.
    #[schema(example = "2026-10-05")]
    date: &'a str,
}

/// A run of one target.
#[derive(Serialize, ToSchema)]
struct Outcome<'a> {
    /// What became of the requests.
    requests: Requests,
    /// How long the answers took.
    latency: Percentiles,
    /// The most pods or environments at once.
    most_servers: f64,
    /// The fewest.
    fewest_servers: f64,
    /// Changes of size, each with its reason, the first five hundred.
    decisions: &'a [Decision],
    /// How many more there were.
    more_decisions: u64,
    /// Means of up to 720 stretches of the run.
    timeline: &'a [Point],
    /// What a month of such runs costs.
    month: Month<'a>,
    /// What a person should know besides.
    notes: &'a [String],
}

/// A bill.
#[derive(Serialize, ToSchema)]
struct Month<'a> {
    /// Dollars.
    #[schema(example = 295.85)]
    usd: f64,
    /// What they are for.
    lines: &'a [Line],
}

impl Simulated {
    /// The answer's text.
    fn document(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&self.answer()).map_err(|error| error.to_string())
    }

    fn answer(&self) -> Simulation<'_> {
        let [(_, eks), (_, lambda)] = &self.sides;
        let Verdict { target, saves, reasons, crossover, .. } = &self.verdict;
        Simulation {
            scenario: self.parameters.json(),
            verdict: Choice {
                target: *target,
                saves_usd: cents(saves.cents()),
                reasons,
                crossover: *crossover,
            },
            prices: PriceList { region: &self.prices.region, date: &self.prices.date },
            eks: Outcome::of(eks),
            lambda: Outcome::of(lambda),
        }
    }
}

impl<'a> Outcome<'a> {
    fn of(Side { run, bill }: &'a Side) -> Self {
        let decisions = run.decisions.get(..DECISIONS).unwrap_or(&run.decisions);
        Self {
            requests: run.requests,
            latency: run.latency,
            most_servers: run.most_servers,
            fewest_servers: run.fewest_servers,
            decisions,
            more_decisions: run.more_decisions + (run.decisions.len() - decisions.len()) as u64,
            timeline: &run.timeline,
            month: Month { usd: cents(bill.total().cents()), lines: &bill.lines },
            notes: &run.notes,
        }
    }
}

fn cents(cents: i128) -> f64 {
    cents as f64 / 100.0
}

/// Simulates a scenario on both targets.
///
/// Open to everybody: it reads and changes nothing, and its work is bounded. Whatever the document leaves open has the
/// value that this project ships.
#[utoipa::path(post, path = PATH, operation_id = "simulate", tag = "lab", request_body = schema::Scenario, responses(
    (status = 200, description = "Both runs: series, explained decisions, bills, and which target to take", body = Simulation<'static>),
    (status = 400, description = "Not JSON", body = Document, content_type = "application/problem+json"),
    (status = 403, description = "Switched off", body = Document, content_type = "application/problem+json"),
    (status = 413, description = "The body is larger than MAX_BODY_BYTES", body = Document, content_type = "application/problem+json"),
    (status = 415, description = "Not declared as JSON", body = Document, content_type = "application/problem+json"),
    (status = 422, description = "A value out of its range, a member that is not known, or too much work", body = Document, content_type = "application/problem+json"),
    (status = 503, description = "Every slot is busy, too many requests at once, or shutting down", body = Document, content_type = "application/problem+json"),
    (status = 504, description = "Took too long", body = Document, content_type = "application/problem+json"),
))]
pub(crate) async fn simulate(
    State(simulator): State<Simulator>,
    request: Request,
) -> Result<Response, Problem> {
    // What is not needed any more is not kept while others have their turn.
    let parameters = {
        let body = json::accept(request, simulator.settings.max_body_bytes)?.read().await?;
        Parameters::of_json(&json::value(&body)?).map_err(Problem::invalid)?
    };
    let document = simulator.run(parameters, Simulated::document).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

impl Simulator {
    fn new(settings: Simulations, metrics: &Metrics) -> prometheus::Result<Self> {
        let slots = Slots::new(
            settings.slots,
            ("lab_slots", "Simulations that may run at once; 0 when switched off."),
            ("lab_slots_busy", "Simulations that run now."),
            metrics,
            "every slot for simulations is busy",
        )?;
        Ok(Self { settings, slots })
    }

    /// Runs a simulation and what `render` makes of it on a blocking thread, which holds its slot until it really is
    /// done. Once this future is dropped it ends with the run that is under way: nobody can receive the result any more.
    async fn run<T: Send + 'static>(
        &self,
        parameters: Parameters,
        render: impl FnOnce(&Simulated) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Problem> {
        if self.settings.slots == 0 {
            return Err(Problem::new(StatusCode::FORBIDDEN, "simulations are switched off here"));
        }
        let slot = self.slots.take_within(PATIENCE).await?;
        let title = parameters.title();
        let (done, result) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let rendered =
                simulated(parameters, || !done.is_closed()).and_then(|simulated| render(&simulated));
            // Before the answer: who reads it finds a free slot.
            drop(slot);
            let _ = done.send(rendered);
        });
        let failed = |reason: &str| {
            tracing::error!(reason, title, "A simulation failed");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the simulation ended without a result")
        };
        let rendered = result.await.map_err(|_| failed("its thread is gone"))?;
        let rendered = rendered.map_err(|reason| failed(&reason))?;
        info!(title, "Simulated");
        Ok(rendered)
    }
}

/// Both runs, and what they say together.
fn simulated(parameters: Parameters, is_wanted: impl Fn() -> bool) -> Result<Simulated, String> {
    let scenario = parameters.scenario()?;
    let both = scenario.compare()?;
    let mut verdict = scenario.choice(&both);
    if parameters.crossover {
        verdict.crossover = scenario.crossover_while(is_wanted)?;
        verdict.is_crossover_sought = true;
    }
    let sides = [(Target::Eks, both.eks), (Target::Lambda, both.lambda)];
    Ok(Simulated { parameters, sides, verdict, prices: scenario.prices })
}
