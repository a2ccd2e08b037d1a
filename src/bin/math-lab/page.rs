//! `math-lab page`: what was measured and what follows from it, as one page for people who were not there.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use math_service::lab::{
    chart::{self, Curve, Panel},
    cost::{Usd, grouped},
    locust::{Estimate, Request, Row},
    report::{self, escaped},
    run::clock,
    service::Profile,
    verdict::{Scenario, Side, Target, Verdict},
};

use crate::{locust, scenario};

const STYLE: &str = include_str!("page.css");
/// Decisions of an autoscaler that are listed.
const DECISIONS: usize = 40;
/// Stretches of a run whose medians are drawn.
const STRETCHES: usize = 60;

/// One page of two recorded runs, both measured profiles, the simulated day and the verdict
#[derive(Args)]
#[command(after_help = scenario::HELP)]
pub(crate) struct Page {
    /// The file to write
    #[arg(value_name = "FILE")]
    page: PathBuf,
    /// The recorded run against the container, as for `math-lab report`
    #[arg(long, value_name = "RUN")]
    eks: PathBuf,
    /// The recorded run against the function
    #[arg(long, value_name = "RUN")]
    lambda: PathBuf,
    /// The function's log with the REPORT lines of that run
    #[arg(long, value_name = "FILE")]
    reports: Option<PathBuf>,
    /// What a reader should know of the measurement; repeatable
    #[arg(long = "fact", value_name = "NAME=TEXT", value_parser = fact)]
    facts: Vec<(String, String)>,
    #[command(flatten)]
    options: scenario::Options,
}

fn fact(text: &str) -> Result<(String, String), String> {
    let (name, what) = text.split_once('=').ok_or("write NAME=TEXT")?;
    Ok((name.to_owned(), what.to_owned()))
}

pub(crate) fn run(command: &Page) -> Result<ExitCode, String> {
    let options = &command.options;
    let scenario = options.scenario()?;
    let both = scenario.compare()?;
    let verdict = scenario.verdict(&both)?;
    let sides = [(Target::Eks, both.eks), (Target::Lambda, both.lambda)];
    let targets = locust::Targets {
        cluster: &scenario.cluster,
        workload: &scenario.workload,
        function: &scenario.function,
        profile: &scenario.profile,
        prices: &scenario.prices,
    };
    let runs = locust::runs([&command.eks, &command.lambda])?;
    let compared = locust::compare(&runs, command.reports.as_deref(), 1, &targets)?;
    let length = if options.duration == "1d" { "a day" } else { &options.duration };
    let day = format!("{length} of {}", options.traffic);
    scenario::print(&report::comparison(&day, &sides, &verdict, &scenario.prices))?;
    let page = [
        opening(&day),
        decided(&sides, &verdict),
        measured(&command.facts),
        recorded(&runs, &compared),
        profiles(&scenario),
        simulated(&day, &scenario, &sides)?,
        bills(&sides, &scenario),
        closing(&command.page),
    ];
    scenario::write(&command.page, &page.concat())?;
    Ok(ExitCode::SUCCESS)
}

fn class(target: Target) -> &'static str {
    match target {
        Target::Eks => "eks",
        Target::Lambda => "lambda",
    }
}

/// A target's name in its colour.
fn named(target: Target) -> String {
    format!("<span class=\"side {}\">{}</span>", class(target), target.name())
}

fn heads(more: &str) -> String {
    let [eks, lambda] = [Target::Eks, Target::Lambda].map(named);
    format!(
        "<thead><tr><td></td><th scope=\"col\">{eks}</th><th scope=\"col\">{lambda}</th>{more}</tr></thead>"
    )
}

/// A table that scrolls on its own where the page is too narrow for it.
fn table(name: &str, head: &str, rows: &str) -> String {
    format!(
        "<div class=\"wide\" role=\"region\" aria-label=\"{name}\" tabindex=\"0\"><table>{head}<tbody>{rows}</tbody></table></div>\n"
    )
}

fn row(name: &str, cells: &[String]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr><th scope=\"row\">{name}</th>{cells}</tr>\n")
}

fn opening(day: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>EKS or Lambda, measured</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n<main>\n\
         <p class=\"over\">math-service, the scaling lab</p>\n<h1>EKS or Lambda, measured</h1>\n\
         <p class=\"lead\">The container and the function ran on one machine, met the same load and were profiled. With what \
         a request cost there, the lab went through {} on either target.</p>\n",
        chart::STYLE,
        escaped(day),
    )
}

fn measured(facts: &[(String, String)]) -> String {
    if facts.is_empty() {
        return String::new();
    }
    let facts: String = facts
        .iter()
        .map(|(name, what)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(what)))
        .collect();
    format!("<section>\n<h2>What was measured</h2>\n<dl>\n{facts}</dl>\n</section>\n")
}

/// The answer, before what it is made of.
fn decided(sides: &[(Target, Side); 2], verdict: &Verdict) -> String {
    let totals = sides.each_ref().map(|(target, side)| (*target, side.bill.total()));
    let most = totals.iter().map(|(_, total)| total.dollars()).fold(f64::MIN_POSITIVE, f64::max);
    let bars: String = totals
        .iter()
        .map(|(target, total)| {
            let width = 100.0 * total.dollars() / most;
            format!(
                "{}<i class=\"{}\" style=\"width:{width:.1}%\"></i><b>{total}</b>\n",
                named(*target),
                class(*target)
            )
        })
        .collect();
    let sentence = report::sentence(verdict);
    let reasons: String =
        verdict.reasons.iter().map(|reason| format!("<li>{}</li>\n", escaped(reason))).collect();
    format!(
        "<section class=\"verdict {}\" aria-label=\"Verdict\">\n<h2>{sentence}</h2>\n\
         <div class=\"bars\" role=\"group\" aria-label=\"A month of it\">\n{bars}</div>\n<ul>\n{reasons}</ul>\n<p class=\"soft\">{}</p>\n</section>\n",
        class(verdict.target),
        escaped(&report::crossing(verdict.crossover.as_ref())),
    )
}

/// The two runs of Locust.
fn recorded(runs: &[Vec<Request>; 2], compared: &locust::Comparison) -> String {
    let mut rows = String::new();
    for group in &compared.groups {
        let counts = group.counts.map(|count| grouped(count.to_string()));
        let _ = write!(
            rows,
            "<tr class=\"kind\"><th scope=\"rowgroup\" colspan=\"4\">{}</th></tr>\n{}",
            escaped(&group.title),
            row("requests", &[counts[0].clone(), counts[1].clone(), String::new()])
        );
        let is_known = |line: &&Row| line.sides.iter().any(Option::is_some);
        for line in group.rows.iter().filter(is_known) {
            let side = |side: usize| {
                line.sides[side].map_or("–".into(), |figure| estimate(line.name, &figure, false))
            };
            let difference = line.difference.map_or(String::new(), |figure| {
                let doubt = if figure.is_significant() { "" } else { "<small>may be chance</small>" };
                estimate(line.name, &figure, true) + doubt
            });
            rows += &row(line.name, &[side(0), side(1), difference]);
        }
    }
    rows += "<tr class=\"kind\"><th scope=\"rowgroup\" colspan=\"4\">The whole run</th></tr>\n";
    let each = |of: &dyn Fn(usize) -> String| [of(0), of(1), String::new()];
    rows += &row("seconds", &each(&|side| format!("{:.1}", compared.seconds[side])));
    rows += &row("cost", &each(&|side| locust::dollars(compared.costs[side].0.total())));
    rows += &row("a million such requests", &each(&|side| format!("${:.2}", compared.million(side))));
    let notes: String =
        compared.notes().lines().map(|note| format!("<p class=\"soft\">{}</p>\n", escaped(note))).collect();
    let seconds = compared.seconds.iter().fold(1.0, |most: f64, seconds| most.max(seconds.ceil())) as u64;
    let curves = [(0, Target::Eks), (1, Target::Lambda)].map(|(side, target)| Curve {
        name: target.name(),
        class: class(target),
        points: medians(&runs[side], seconds as f64),
        is_stepped: false,
    });
    let panel = Panel {
        title: "Median through the run".into(),
        unit: "milliseconds",
        curves: curves.into(),
        seconds,
    };
    format!(
        "<section>\n<h2>Two runs of the same load</h2>\n\
         <p>Each request that Locust sent, and how long its answer took. Bands and second lines are 95 % confidence \
         intervals.</p>\n<div class=\"charts\">\n<figure>{}</figure>\n<figure>{}</figure>\n</div>\n{}{notes}</section>\n",
        panel.svg(),
        spans(compared),
        table("Two runs of the same load", &heads("<th scope=\"col\">Lambda less EKS</th>"), &rows),
    )
}

/// A figure with its interval in a second line.
fn estimate(name: &str, figure: &Estimate, is_difference: bool) -> String {
    let text = locust::cell(name, figure, is_difference);
    let (value, interval) = text.split_once(" (").unwrap_or((&text, ""));
    format!("{value}<small>{}</small>", interval.trim_end_matches(')'))
}

/// The median answer of each stretch of the run; a gap where there was none.
fn medians(run: &[Request], seconds: f64) -> Vec<(f64, Option<f64>)> {
    let first = run.iter().map(|request| request.started).fold(f64::INFINITY, f64::min);
    let width = seconds / STRETCHES as f64;
    let mut stretches = vec![Vec::new(); STRETCHES];
    for request in run.iter().filter(|request| !request.is_failed) {
        let stretch = ((request.started - first) / width) as usize;
        stretches[stretch.min(STRETCHES - 1)].push(request.ms);
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied()
    };
    stretches.into_iter().enumerate().map(|(index, times)| (index as f64 * width, median(times))).collect()
}

/// Percentiles of all requests as dots in their intervals, on one scale.
fn spans(compared: &locust::Comparison) -> String {
    let Some(group) = compared.groups.first() else { return String::new() };
    let rows = || group.rows.iter().filter(|row| row.name != "failed");
    let most = rows().flat_map(|row| row.sides).flatten().map(|figure| figure.high).fold(1.0, f64::max);
    let mut html = format!(
        "<svg class=\"chart\" role=\"img\" width=\"100%\" height=\"24\" xmlns=\"http://www.w3.org/2000/svg\"><title>Percentiles of {0}</title>\
         <text y=\"16\"><tspan class=\"name\">Percentiles of {0}</tspan><tspan class=\"unit\" dx=\"8\">milliseconds</tspan></text></svg>\
         <div class=\"spans\">",
        escaped(&group.title)
    );
    for row in rows() {
        let _ = write!(html, "<span>{}</span><svg role=\"img\" aria-label=\"{}\">", row.name, row.name);
        for (side, (y, class)) in row.sides.iter().zip([(9, "eks"), (25, "lambda")]) {
            let _ = write!(html, "<line class=\"rail\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>");
            let Some(figure) = side else { continue };
            let x = |value: f64| 100.0 * value / most;
            let _ = write!(
                html,
                "<g class=\"{class}\"><line x1=\"{:.2}%\" x2=\"{:.2}%\" y1=\"{y}\" y2=\"{y}\"/>\
                 <circle cx=\"{:.2}%\" cy=\"{y}\" r=\"5\"><title>{}</title></circle></g>",
                x(figure.low),
                x(figure.high),
                x(figure.value),
                locust::cell(row.name, figure, false)
            );
        }
        html.push_str("</svg>");
    }
    let _ = write!(
        html,
        "<span></span><svg aria-hidden=\"true\" style=\"height:16px\"><text y=\"11\">0</text>\
         <text x=\"100%\" y=\"11\" text-anchor=\"end\">{most:.1} ms</text></svg></div>"
    );
    html
}

/// How a figure is read off a profile.
type Figure = fn(&Profile) -> f64;

/// What a request costs on either, as it was measured.
fn profiles(scenario: &Scenario) -> String {
    let sides = [&scenario.profile, scenario.lambda_profile.as_ref().unwrap_or(&scenario.profile)];
    // What one of them alone has is a default in the other's.
    const BOTH: [bool; 2] = [true, true];
    let figures: [(&str, &str, [bool; 2], Figure); 8] = [
        ("CPU time of a request", "ms", BOTH, |profile| profile.cpu_ms),
        ("waiting of a request", "ms", BOTH, |profile| profile.wait_ms),
        ("memory of the process", "MiB", BOTH, |profile| profile.memory_mib),
        ("request", "bytes", BOTH, |profile| profile.request_bytes),
        ("answer", "bytes", BOTH, |profile| profile.response_bytes),
        ("start of a pod", "ms", [true, false], |profile| profile.start_ms),
        ("INIT of an environment", "ms", [false, true], |profile| profile.init_ms),
        ("log lines of a call", "bytes", [false, true], |profile| profile.log_bytes),
    ];
    let rows: String = figures
        .iter()
        .map(|(name, unit, has, read)| {
            let cell = |side: usize| match has[side] {
                true => format!("{} {unit}", read(sides[side])),
                false => "–".to_owned(),
            };
            row(name, &[cell(0), cell(1)])
        })
        .collect();
    format!(
        "<section>\n<h2>Two profiles</h2>\n\
         <p>The container's from its own metrics: CPU time less what it uses idle, waiting as the time of requests that came \
         one after the other. The function's from the REPORT lines of its log: what they do not show is taken from the \
         container. What neither shows has the defaults of the simulation.</p>\n{}</section>\n",
        table("Two profiles", &heads(""), &rows)
    )
}

fn simulated(day: &str, scenario: &Scenario, sides: &[(Target, Side); 2]) -> Result<String, String> {
    let charts: String = chart::panels(sides, &scenario.prices)?
        .iter()
        .map(|panel| format!("<figure>{}</figure>\n", panel.svg()))
        .collect();
    let each = |of: &dyn Fn(&Side) -> String| sides.each_ref().map(|(_, side)| of(side));
    let rows = report::figures().map(|(name, of)| row(name, &each(&of))).concat();
    let mut html = format!(
        "<section>\n<h2>Simulated: {} on either</h2>\n\
         <p>The autoscaler's rules, Lambda's limits and list prices, with <code>k8s/</code>, <code>cluster-config.yaml</code> \
         and <code>template.yaml</code> as they are.</p>\n<div class=\"charts\">\n{charts}</div>\n{}",
        escaped(day),
        table("The simulated day", &heads(""), &rows)
    );
    for (target, side) in sides {
        for note in &side.run.notes {
            let _ = writeln!(html, "<p class=\"soft\">{}: {}.</p>", target.name(), escaped(note));
        }
    }
    let (_, eks) = &sides[0];
    if !eks.run.decisions.is_empty() {
        let decisions = eks.run.decisions.iter().take(DECISIONS);
        let rows: String = decisions
            .map(|decision| {
                let change = format!("{} {} → {}", decision.what, decision.from, decision.to);
                row(&clock(decision.at), &[change, escaped(&decision.why)])
            })
            .collect();
        let count = eks.run.decisions.len() as u64 + eks.run.more_decisions;
        let head = "<thead><tr><th scope=\"col\">Time</th><th scope=\"col\">Change</th><th scope=\"col\">Why</th></tr></thead>";
        let _ = write!(
            html,
            "<details><summary>Decisions on EKS ({count})</summary>\n{}</details>\n",
            table("Decisions on EKS", head, &rows)
        );
    }
    html.push_str("</section>\n");
    Ok(html)
}

/// The bills, line by line.
fn bills(sides: &[(Target, Side); 2], scenario: &Scenario) -> String {
    let mut html = String::from("<section>\n<h2>A month of such days</h2>\n");
    for (target, side) in sides {
        let mut rows = String::new();
        for line in &side.bill.lines {
            let mark = if line.is_confirmed { "" } else { " *" };
            rows += &row(&escaped(&line.item), &[escaped(&line.quantity), format!("{}{mark}", line.usd)]);
        }
        let total: Usd = side.bill.total();
        let _ =
            writeln!(rows, "<tr class=\"sum\"><th scope=\"row\">total</th><td></td><td>{total}</td></tr>");
        let head = format!(
            "<thead><tr><th scope=\"col\">{}</th><th scope=\"col\">quantity</th><th scope=\"col\">dollars</th></tr></thead>",
            named(*target)
        );
        html += &table(&format!("The bill of {}", target.name()), &head, &rows);
    }
    let prices = &scenario.prices;
    let _ = write!(
        html,
        "<p class=\"soft\">List prices of {} ({}), {}, 730 hours a month; nobody has confirmed those marked *.</p>\n</section>\n",
        escaped(&prices.region),
        escaped(&prices.name),
        prices.date
    );
    html
}

fn closing(page: &Path) -> String {
    let folder = page.parent().unwrap_or(Path::new(".")).display().to_string();
    format!(
        "<footer><p>Made by <code>math-lab page</code> of math-service {}; runs, profiles and logs are in <code>{}</code>. \
         docs/lab.md says what is exact here, what is approximate and what is left out.</p></footer>\n</main>\n</body>\n</html>\n",
        math_service::VERSION,
        escaped(&folder)
    )
}
