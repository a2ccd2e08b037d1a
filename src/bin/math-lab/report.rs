//! Runs for people and for programs: text, JSON, charts, a page.

use std::fmt::Write;

use math_service::lab::{
    cost::{Bill, Prices, grouped},
    run::{Point, Run, clock},
    verdict::{Crossover, Side, Target, Verdict},
};
use plotters::prelude::*;
use serde_json::{Value, json};

/// Most decisions that a table lists.
const LINES: usize = 40;

pub(crate) fn text(title: &str, target: Target, side: &Side, prices: &Prices) -> String {
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

pub(crate) fn comparison(
    title: &str,
    sides: &[(Target, Side)],
    verdict: &Verdict,
    prices: &Prices,
) -> String {
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
    row("requests", &|side| count(side.run.requests.arrived));
    row("served", &|side| format!("{:.2} %", 100.0 * (1.0 - side.run.requests.lost_share())));
    row("refused or failed", &|side| count(side.run.requests.shed + side.run.requests.failed));
    row("cold starts", &|side| count(side.run.requests.cold));
    row("p50", &|side| duration(side.run.latency.p50_ms));
    row("p95", &|side| duration(side.run.latency.p95_ms));
    row("p99", &|side| duration(side.run.latency.p99_ms));
    row("most pods, environments", &|side| format!("{:.0}", side.run.most_servers.ceil()));
    row("changes of size", &|side| (side.run.decisions.len() as u64 + side.run.more_decisions).to_string());
    row("a month", &|side| side.bill.total().to_string());
    let _ = writeln!(text, "\n{}", sentence(verdict));
    for reason in &verdict.reasons {
        let _ = writeln!(text, "- {reason}");
    }
    let _ = writeln!(text, "\n{}", crossing(verdict.crossover.as_ref()));
    let _ =
        writeln!(text, "Prices of {} ({}), {}, 730 hours a month.", prices.region, prices.name, prices.date);
    for (target, side) in sides {
        for note in &side.run.notes {
            let _ = writeln!(text, "{}: {note}.", target.name());
        }
    }
    text
}

fn sentence(verdict: &Verdict) -> String {
    let name = verdict.target.name();
    if verdict.saves.dollars() < 0.0 {
        return format!(
            "Take {name}, although it costs more: the other does not serve this traffic. What weighs most:"
        );
    }
    format!("Take {name}: it saves {} a month. What weighs most:", verdict.saves)
}

pub(crate) fn crossing(crossover: Option<&Crossover>) -> String {
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

fn count(requests: f64) -> String {
    // What is left of a fluid is no request.
    grouped(format!("{:.0}", requests.max(0.0)))
}

fn significant(value: f64) -> String {
    if value >= 100.0 { grouped(format!("{value:.0}")) } else { format!("{value:.2}") }
}

fn duration(ms: Option<f64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 1.0 => format!("{:.0} us", ms * 1000.0),
        Some(ms) if ms < 10_000.0 => format!("{ms} ms"),
        Some(ms) => format!("{} s", ms / 1000.0),
    }
}

pub(crate) fn json(target: Target, side: &Side) -> Value {
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

const INK: RGBColor = RGBColor(40, 40, 40);
const BLUE_INK: RGBColor = RGBColor(31, 102, 173);
const RED_INK: RGBColor = RGBColor(190, 50, 40);
const GREEN_INK: RGBColor = RGBColor(45, 130, 70);

/// What a panel shows: a name, a colour and how to read it off a point.
type Curve = (&'static str, RGBColor, fn(&Point) -> f64);

/// Charts of one run or of two.
pub(crate) fn svg(sides: &[(Target, Side)]) -> Result<String, String> {
    let mut panels: Vec<(String, &Run, Vec<Curve>)> = Vec::new();
    for (target, side) in sides {
        let name = target.name();
        let requests: Vec<Curve> =
            vec![("arrived", BLUE_INK, |p| p.arrived), ("refused or failed", RED_INK, |p| p.lost)];
        panels.push((format!("{name}: requests a second"), &side.run, requests));
        let servers: Vec<Curve> = match target {
            Target::Eks => vec![("pods", GREEN_INK, |p| p.servers), ("nodes", INK, |p| p.nodes)],
            Target::Lambda => {
                vec![("environments", GREEN_INK, |p| p.servers), ("in flight", INK, |p| p.in_flight)]
            }
        };
        panels.push((format!("{name}: size"), &side.run, servers));
    }
    let mut output = String::new();
    let height = 240 * panels.len() as u32;
    draw(&mut output, height, &panels).map_err(|error| format!("the chart cannot be drawn: {error}"))?;
    Ok(output)
}

fn draw(
    output: &mut String,
    height: u32,
    panels: &[(String, &Run, Vec<Curve>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(output, (960, height)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (title, run, curves)) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
        let values = run.timeline.iter().flat_map(|point| curves.iter().map(move |(_, _, read)| read(point)));
        let top = values.fold(1.0, f64::max) * 1.08;
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18).into_font().color(&INK))
            .margin(12)
            .x_label_area_size(38)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..run.seconds as f64 / 3600.0, 0.0..top)?;
        chart.configure_mesh().light_line_style(WHITE).x_desc("hours").y_labels(5).draw()?;
        for (name, colour, read) in curves {
            let steps = run.timeline.iter().map(|point| (point.at as f64 / 3600.0, read(point)));
            let line = LineSeries::new(steps, colour.stroke_width(2));
            let (colour, name) = (*colour, *name);
            chart
                .draw_series(line)?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().border_style(INK.mix(0.2)).background_style(WHITE.mix(0.8)).draw()?;
    }
    root.present()?;
    Ok(())
}

/// One page: the text and the charts, nothing from elsewhere.
pub(crate) fn html(title: &str, text: &str, svg: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>body{{font:16px/1.5 sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#282828}}\
         pre{{overflow-x:auto;background:#f6f6f4;padding:1rem}}svg{{max-width:100%;height:auto}}</style>\n\
         <h1>{title}</h1>\n<pre>{text}</pre>\n{svg}\n</html>\n",
        title = escaped(title),
        text = escaped(text),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
