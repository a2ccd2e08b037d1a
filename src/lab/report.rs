//! Runs for people and for programs: text, JSON, a page; [`chart`] draws.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{
    chart,
    cost::{Bill, Prices, grouped},
    run::{Run, clock},
    verdict::{Crossover, Side, Target, Verdict},
};

/// Most decisions that a table lists.
const LINES: usize = 40;

/// A run of one target.
#[must_use]
pub fn text(title: &str, target: Target, side: &Side, prices: &Prices) -> String {
    let mut text = format!("{}: {title}\n\n", target.name());
    let run = &side.run;
    summary(&mut text, target, run);
    decisions(&mut text, run);
    let _ = writeln!(text, "\nA month of this (730 h) in {}, prices of {}:", prices.region, prices.date);
    bill(&mut text, &side.bill);
    for note in &run.notes {
        let _ = writeln!(text, "\nNote: {note}.");
    }
    text
}

fn summary(text: &mut String, target: Target, run: &Run) {
    let requests = run.requests;
    let _ = writeln!(
        text,
        "requests  {} in, {} served, {} refused, {} failed, {} under way",
        count(requests.arrived),
        count(requests.served),
        count(requests.shed),
        count(requests.failed),
        count(requests.waiting)
    );
    let latency = run.latency;
    let _ = writeln!(
        text,
        "latency   p50 {}, p95 {}, p99 {}",
        duration(latency.p50_ms),
        duration(latency.p95_ms),
        duration(latency.p99_ms)
    );
    let _ = match target {
        Target::Eks => writeln!(text, "pods      {:.0} to {:.0}", run.fewest_servers, run.most_servers),
        Target::Lambda => writeln!(
            text,
            "servers   up to {:.0} environments, {} cold starts",
            run.most_servers.ceil(),
            count(requests.cold)
        ),
    };
}

fn decisions(text: &mut String, run: &Run) {
    if run.decisions.is_empty() {
        return;
    }
    text.push('\n');
    for decision in run.decisions.iter().take(LINES) {
        let _ = writeln!(
            text,
            "{}  {} {} -> {}: {}",
            clock(decision.at),
            decision.what,
            decision.from,
            decision.to,
            decision.why
        );
    }
    let more = run.decisions.len().saturating_sub(LINES) as u64 + run.more_decisions;
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
}

fn bill(text: &mut String, bill: &Bill) {
    let mut is_unconfirmed = false;
    for line in &bill.lines {
        let mark = if line.is_confirmed { "" } else { " *" };
        is_unconfirmed |= !line.is_confirmed;
        let _ = writeln!(text, "  {:<26}{:>24}  {:>14}{mark}", line.item, line.quantity, line.usd);
    }
    let _ = writeln!(text, "  {:<26}{:>24}  {:>14}", "total", "", bill.total());
    if is_unconfirmed {
        text.push_str("  * this price is not confirmed\n");
    }
}

/// Both targets side by side, and which to take.
#[must_use]
pub fn comparison(title: &str, sides: &[(Target, Side)], verdict: &Verdict, prices: &Prices) -> String {
    let mut text = format!("{title}\n\n{:<24}", "");
    for (target, _) in sides {
        let _ = write!(text, "{:>18}", target.name());
    }
    text.push('\n');
    let mut row = |name: &str, cell: &dyn Fn(&Side) -> String| {
        let _ = write!(text, "{name:<24}");
        for (_, side) in sides {
            let _ = write!(text, "{:>18}", cell(side));
        }
        text.push('\n');
    };
    for (name, cell) in figures() {
        row(name, &cell);
    }
    let _ = writeln!(text, "\n{} What weighs most:", sentence(verdict));
    for reason in &verdict.reasons {
        let _ = writeln!(text, "- {reason}");
    }
    text.push('\n');
    if verdict.is_crossover_sought {
        let _ = writeln!(text, "{}", crossing(verdict.crossover.as_ref()));
    }
    let _ =
        writeln!(text, "Prices of {} ({}), {}, 730 hours a month.", prices.region, prices.name, prices.date);
    for (target, side) in sides {
        for note in &side.run.notes {
            let _ = writeln!(text, "{}: {note}.", target.name());
        }
    }
    text
}

/// How a figure reads.
pub type Cell = fn(&Side) -> String;

/// What is compared of two runs: each figure's name, and how it reads.
#[must_use]
pub fn figures() -> [(&'static str, Cell); 10] {
    [
        ("requests", |side| count(side.run.requests.arrived)),
        ("served", |side| format!("{:.2} %", 100.0 * (1.0 - side.run.requests.lost_share()))),
        ("refused or failed", |side| count(side.run.requests.shed + side.run.requests.failed)),
        ("cold starts", |side| count(side.run.requests.cold)),
        ("p50", |side| duration(side.run.latency.p50_ms)),
        ("p95", |side| duration(side.run.latency.p95_ms)),
        ("p99", |side| duration(side.run.latency.p99_ms)),
        ("most pods, environments", |side| format!("{:.0}", side.run.most_servers.ceil())),
        ("changes of size", |side| (side.run.decisions.len() as u64 + side.run.more_decisions).to_string()),
        ("a month", |side| side.bill.total().to_string()),
    ]
}

/// Which target, in a sentence.
#[must_use]
pub fn sentence(verdict: &Verdict) -> String {
    let name = verdict.target.name();
    if verdict.saves.dollars() < 0.0 {
        return format!("Take {name}, although it costs more: the other does not serve this traffic.");
    }
    format!("Take {name}: it saves {} a month.", verdict.saves)
}

/// Where the answer changes, in a sentence.
#[must_use]
pub fn crossing(crossover: Option<&Crossover>) -> String {
    let Some(crossover) = crossover else {
        return "The same target is cheaper at any traffic of this shape.".into();
    };
    let above = if crossover.below == Target::Lambda { Target::Eks } else { Target::Lambda };
    format!(
        "Below {} requests a second on average ({} a month) {} is cheaper, above {}; there both cost {} a month.",
        significant(crossover.mean_rate),
        grouped(format!("{:.0}", crossover.monthly)),
        crossover.below.name(),
        above.name(),
        crossover.usd
    )
}

/// Requests, in whole ones.
#[must_use]
pub fn count(requests: f64) -> String {
    // What is left of a fluid is no request.
    grouped(format!("{:.0}", requests.max(0.0)))
}

fn significant(value: f64) -> String {
    if value >= 100.0 { grouped(format!("{value:.0}")) } else { format!("{value:.2}") }
}

/// A time, in the unit that suits it.
#[must_use]
pub fn duration(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 1.0 => format!("{:.0} us", ms * 1000.0),
        Some(ms) if ms < 10_000.0 => format!("{ms} ms"),
        Some(ms) => format!("{} s", ms / 1000.0),
    }
}

/// A run as a document.
#[must_use]
pub fn json(target: Target, side: &Side) -> Value {
    let run = &side.run;
    json!({
        "target": target,
        "seconds": run.seconds,
        "requests": run.requests,
        "latency": run.latency,
        "most_servers": run.most_servers,
        "fewest_servers": run.fewest_servers,
        "decisions": run.decisions,
        "more_decisions": run.more_decisions,
        "timeline": run.timeline,
        "month": { "usd": side.bill.total(), "lines": side.bill.lines },
        "notes": run.notes,
    })
}

/// One page: the text and the charts, nothing from elsewhere.
#[must_use]
pub fn html(title: &str, text: &str, panels: &[chart::Panel]) -> String {
    let (title, text) = (escaped(title), escaped(text));
    let charts: String = panels.iter().map(|panel| format!("<figure>{}</figure>\n", panel.svg())).collect();
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>{PAGE}{}</style>\n<h1>{title}</h1>\n<pre>{text}</pre>\n{charts}</html>\n",
        chart::STYLE
    )
}

/// What such a page looks like.
const PAGE: &str = ":root{color-scheme:light dark}\
    body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}\
    h1{font-size:1.5rem}figure{margin:2rem 0}pre{overflow-x:auto;font-size:.85rem;padding:1rem;border:1px solid #8884}";

/// As text of a page, or in the quotes of an attribute.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
