//! Charts as SVG that is as wide as its place.
//!
//! A plot is stretched to the width that there is; its lines keep their thickness and its text its size, so the same
//! chart is read on a phone, on a wide page and on a slide. Colours are classes: [`STYLE`] gives them for light and for
//! dark, in the page's style sheet or in the file of a chart that stands alone.

use std::fmt::Write;

use super::{
    cost::{Prices, grouped},
    run::{Point, Run},
    verdict::{Side, Target},
};

/// What the charts look like, in light and in dark.
pub const STYLE: &str = include_str!("chart.css");

/// Pixels of a panel, and of its plot's top and bottom within it.
const HEIGHT: f64 = 218.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 194.0;
/// Units of a plot in both directions: finer than any screen.
const UNITS: f64 = 2000.0;
/// Width of a chart that stands alone, and the space around its panels.
const WIDTH: u32 = 960;
const MARGIN: u32 = 24;

/// A line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// For the legend.
    pub name: &'static str,
    /// Its classes in [`STYLE`].
    pub class: &'static str,
    /// Seconds of the run and values; nothing is a gap.
    pub points: Vec<(f64, Option<f64>)>,
    /// Whether a value holds until the next.
    pub is_stepped: bool,
}

/// A plot with its title, axes and legend.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// What its values are in.
    pub unit: &'static str,
    /// Its lines.
    pub curves: Vec<Curve>,
    /// The length of the run.
    pub seconds: u64,
}

/// Everything that there is to see of one run or of two under the same traffic.
///
/// # Errors
/// A node without a price.
pub fn panels(sides: &[(Target, Side)], prices: &Prices) -> Result<Vec<Panel>, String> {
    let Some((_, first)) = sides.first() else { return Ok(Vec::new()) };
    let seconds = first.run.seconds;
    let panel = |title: &str, unit, curves| Panel { title: title.into(), unit, curves, seconds };
    let mut traffic = vec![curve("arrived", "traffic", &first.run, |point| Some(point.arrived))];
    let mut latencies = Vec::new();
    let mut costs = Vec::new();
    let mut sizes = Vec::new();
    for (target, side) in sides {
        let (name, class, lost) = match target {
            Target::Eks => ("EKS", "eks", "refused or failed on EKS"),
            Target::Lambda => ("Lambda", "lambda", "refused or failed on Lambda"),
        };
        if side.run.requests.lost_share() > 0.0 {
            let class = if *target == Target::Eks { "eks dashed" } else { "lambda dashed" };
            traffic.push(curve(lost, class, &side.run, |point| Some(point.lost)));
        }
        latencies.push(curve(name, class, &side.run, |point| point.latency_ms));
        costs.push(cost(name, class, &side.run, prices)?);
        sizes.push(size(*target, &side.run));
    }
    let mut panels = vec![panel("Traffic", "requests a second", traffic)];
    panels.extend(sizes.into_iter().map(|(title, unit, curves)| panel(title, unit, curves)));
    panels.push(panel("Latency", "milliseconds, mean of the answers", latencies));
    panels.push(panel("Cost so far", "dollars at list prices", costs));
    Ok(panels)
}

fn size(target: Target, run: &Run) -> (&'static str, &'static str, Vec<Curve>) {
    let stepped = |name, class, read| Curve { is_stepped: true, ..curve(name, class, run, read) };
    match target {
        Target::Eks => {
            let curves = vec![
                stepped("pods wanted", "eks dashed", |point| Some(point.desired)),
                stepped("pods ready", "eks", |point| Some(point.servers)),
                stepped("nodes", "quiet", |point| Some(point.nodes)),
            ];
            ("EKS", "pods and nodes", curves)
        }
        Target::Lambda => {
            let curves = vec![
                curve("environments", "lambda", run, |point| Some(point.servers)),
                curve("of them busy", "lambda dashed", run, |point| Some(point.in_flight)),
            ];
            ("Lambda", "environments", curves)
        }
    }
}

fn curve(name: &'static str, class: &'static str, run: &Run, read: fn(&Point) -> Option<f64>) -> Curve {
    let points = run.timeline.iter().map(|point| (point.at as f64, read(point))).collect();
    Curve { name, class, points, is_stepped: false }
}

/// What the hours up to each came to, without monthly allowances, which no hour has for itself.
fn cost(name: &'static str, class: &'static str, run: &Run, prices: &Prices) -> Result<Curve, String> {
    let mut points = vec![(0.0, Some(0.0))];
    let mut sum = 0.0;
    for (hour, usage) in run.hours.iter().enumerate() {
        sum += prices.bill(usage, false)?.total().dollars();
        let end = ((hour as u64 + 1) * 3600).min(run.seconds);
        points.push((end as f64, Some(sum)));
    }
    Ok(Curve { name, class, points, is_stepped: false })
}

impl Panel {
    /// As wide as its place, with nothing but classes: the page has [`STYLE`].
    #[must_use]
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<svg class=\"chart\" role=\"img\" width=\"100%\" height=\"{HEIGHT}\" xmlns=\"http://www.w3.org/2000/svg\">"
        );
        self.draw(&mut svg);
        svg.push_str("</svg>");
        svg
    }

    /// For who does not see it: what each line does.
    #[must_use]
    pub fn description(&self) -> String {
        let mut text = format!("{}, {}.", self.title, self.unit);
        for curve in &self.curves {
            let values = || curve.points.iter().filter_map(|(_, value)| *value);
            let (low, high) = values().fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), value| {
                (low.min(value), high.max(value))
            });
            let last = values().next_back().unwrap_or(0.0);
            let _ = match low.is_finite() {
                true => write!(
                    text,
                    " {}: {} to {}, {} at the end.",
                    curve.name,
                    number(low),
                    number(high),
                    number(last)
                ),
                false => write!(text, " {}: nothing.", curve.name),
            };
        }
        text
    }

    fn draw(&self, svg: &mut String) {
        let (title, unit) = (&self.title, self.unit);
        let _ = write!(svg, "<title>{title}</title><desc>{}</desc>", self.description());
        let _ = write!(
            svg,
            "<text y=\"16\"><tspan class=\"name\">{title}</tspan><tspan class=\"unit\" dx=\"8\">{unit}</tspan></text>"
        );
        svg.push_str("<text y=\"36\">");
        for (index, curve) in self.curves.iter().enumerate() {
            let (class, name) = (curve.class, curve.name);
            let mark = if class.ends_with("dashed") { "╍╍" } else { "━━" };
            let gap = if index > 0 { " dx=\"14\"" } else { "" };
            let _ = write!(
                svg,
                "<tspan class=\"key {class}\"{gap}>{mark}</tspan><tspan class=\"unit\" dx=\"5\">{name}</tspan>"
            );
        }
        svg.push_str("</text>");
        let most = self.curves.iter().flat_map(|curve| &curve.points).filter_map(|(_, value)| *value);
        let (step, top) = scale(most.fold(0.0, f64::max));
        let count = (top / step).round() as u32;
        let height = |share: f64| BOTTOM - (BOTTOM - TOP) * share;
        for index in 0..=count {
            let y = height(f64::from(index) / f64::from(count));
            let class = if index == 0 { "axis" } else { "grid" };
            let _ = write!(svg, "<line class=\"{class}\" x2=\"100%\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        }
        let _ = write!(
            svg,
            "<svg aria-hidden=\"true\" y=\"{TOP}\" width=\"100%\" height=\"{}\" viewBox=\"0 0 {UNITS} {UNITS}\" preserveAspectRatio=\"none\">",
            BOTTOM - TOP
        );
        for curve in &self.curves {
            let path = path(curve, self.seconds as f64, top);
            let _ = write!(svg, "<path class=\"{}\" d=\"{path}\"/>", curve.class);
        }
        svg.push_str("</svg>");
        // Above their lines and over the curves: so the plot has all of the width.
        for index in 1..=count {
            let y = height(f64::from(index) / f64::from(count)) - 4.0;
            let _ =
                write!(svg, "<text class=\"tick\" y=\"{y:.1}\">{}</text>", number(step * f64::from(index)));
        }
        for (index, (at, label)) in times(self.seconds).into_iter().enumerate() {
            // Where the place is narrow, every other one is left out.
            let class = if index % 2 == 1 { "tick odd" } else { "tick" };
            let share = at as f64 / self.seconds as f64;
            let anchor = match share {
                0.0 => "start",
                share if share > 0.95 => "end",
                _ => "middle",
            };
            let x = share * 100.0;
            let _ = write!(
                svg,
                "<text class=\"{class}\" x=\"{x:.2}%\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>",
                BOTTOM + 17.0
            );
        }
    }
}

/// One file with all panels, for slides: it brings its style.
#[must_use]
pub fn document(panels: &[Panel]) -> String {
    let each = HEIGHT as u32 + MARGIN;
    let height = each * panels.len() as u32 + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" width=\"{WIDTH}\" height=\"{height}\">\
         <style>{STYLE}</style><rect class=\"paper\" width=\"100%\" height=\"100%\"/>"
    );
    for (index, panel) in panels.iter().enumerate() {
        let y = MARGIN + each * index as u32;
        let width = WIDTH - 2 * MARGIN;
        let _ = write!(svg, "<svg x=\"{MARGIN}\" y=\"{y}\" width=\"{width}\" height=\"{HEIGHT}\">");
        panel.draw(&mut svg);
        svg.push_str("</svg>");
    }
    svg.push_str("</svg>\n");
    svg
}

/// Distance of the lines across a plot, and where the last of them is: 1, 2 or 5 times a power of ten.
fn scale(most: f64) -> (f64, f64) {
    let most = if most > 0.0 && most.is_finite() { most } else { 1.0 };
    let raw = most / 4.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= raw);
    let step = step.unwrap_or(raw);
    // A hair above the line is still the line.
    (step, step * (most / step - 1e-9).ceil().max(1.0))
}

/// Seconds to mark, at most seven, and what to call them.
fn times(seconds: u64) -> Vec<(u64, String)> {
    const STEPS: [u64; 15] =
        [10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10_800, 14_400, 21_600, 43_200, 86_400, 7 * 86_400];
    let step = STEPS.into_iter().find(|step| seconds / step <= 6).unwrap_or(30 * 86_400);
    let step = step.max(seconds.div_ceil(7));
    let (length, name) = match seconds {
        0..120 => (1, "s"),
        120..7200 => (60, "min"),
        7200..172_800 => (3600, "h"),
        _ => (86_400, "d"),
    };
    let label = |at: u64| format!("{} {name}", number(at as f64 / length as f64));
    (0..=seconds / step).map(|index| (index * step, label(index * step))).collect()
}

/// Three digits, or all in front of the point.
fn number(value: f64) -> String {
    if value.abs() >= 1e6 {
        let power = value.abs().log10().floor() as i32 / 3 * 3;
        return format!("{}e{power}", number(value / 10f64.powi(power)));
    }
    if value.abs() >= 100.0 || value == value.round() {
        return grouped(format!("{value:.0}"));
    }
    let decimals = (2 - value.abs().log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The line in whole units; points on a straight line between their neighbours are left out.
fn path(curve: &Curve, seconds: f64, top: f64) -> String {
    let mut path = String::new();
    let mut corners: Vec<(i64, i64)> = Vec::new();
    let place = |at: f64, value: f64| {
        let y = UNITS * (1.0 - (value / top).clamp(0.0, 1.0));
        ((UNITS * at / seconds).round() as i64, y.round() as i64)
    };
    let last_step = curve.points.windows(2).last().map_or(0.0, |pair| pair[1].0 - pair[0].0);
    for (index, (at, value)) in curve.points.iter().enumerate() {
        let Some(value) = value else {
            flush(&mut path, &mut corners);
            continue;
        };
        let (x, y) = place(*at, *value);
        if let (true, Some((_, before))) = (curve.is_stepped, corners.last().copied()) {
            push(&mut corners, (x, before));
        }
        push(&mut corners, (x, y));
        // The last point stands for as long as the others do.
        if index + 1 == curve.points.len() && *at < seconds {
            push(&mut corners, place((at + last_step).min(seconds), *value));
        }
    }
    flush(&mut path, &mut corners);
    path
}

fn push(corners: &mut Vec<(i64, i64)>, next: (i64, i64)) {
    if let [.., a, b] = corners.as_slice() {
        let is_straight = (b.0 - a.0) * (next.1 - a.1) == (b.1 - a.1) * (next.0 - a.0);
        if is_straight {
            corners.pop();
        }
    }
    if corners.last() != Some(&next) {
        corners.push(next);
    }
}

fn flush(path: &mut String, corners: &mut Vec<(i64, i64)>) {
    for (index, (x, y)) in corners.drain(..).enumerate() {
        let command = if index == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{command}{x} {y}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_at_round_numbers_at_or_above_the_most() {
        for (most, step, top) in [
            (0.0, 0.5, 1.0),
            (1.0, 0.5, 1.0),
            (20.0, 5.0, 20.0),
            (21.0, 10.0, 30.0),
            (0.03, 0.01, 0.03),
            (970.0, 500.0, 1000.0),
        ] {
            let (found, end) = scale(most);
            assert!((found - step).abs() < 1e-9 && (end - top).abs() < 1e-9, "{most}: {found} {end}");
        }
    }

    #[test]
    fn times_are_few_and_within_the_run() {
        for seconds in [1, 59, 360, 3600, 10_800, 86_400, 3 * 86_400, 7 * 86_400, 366 * 86_400] {
            let times = times(seconds);
            assert!((2..=8).contains(&times.len()) || seconds < 10, "{seconds}: {times:?}");
            assert!(times.iter().all(|(at, _)| *at <= seconds));
        }
        let labels: Vec<String> = times(86_400).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0 h", "4 h", "8 h", "12 h", "16 h", "20 h", "24 h"]);
    }

    #[test]
    fn numbers_have_as_many_digits_as_say_something() {
        for (value, expected) in [
            (0.0, "0"),
            (1234.4, "1,234"),
            (0.25, "0.25"),
            (12.345, "12.3"),
            (0.001_234, "0.00123"),
            (2.5e8, "250e6"),
        ] {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn straight_lines_are_two_points_and_gaps_are_left_open() {
        let curve =
            |points: Vec<(f64, Option<f64>)>, is_stepped| Curve { name: "", class: "", points, is_stepped };
        let flat = curve((0..100).map(|at| (f64::from(at), Some(1.0))).collect(), false);
        assert_eq!(path(&flat, 100.0, 2.0), "M0 1000L2000 1000");
        let gap = curve(vec![(0.0, Some(0.0)), (25.0, Some(2.0)), (50.0, None), (75.0, Some(0.0))], false);
        assert_eq!(path(&gap, 100.0, 2.0), "M0 2000L500 0M1500 2000L2000 2000");
        let steps = curve(vec![(0.0, Some(1.0)), (50.0, Some(2.0))], true);
        assert_eq!(path(&steps, 100.0, 2.0), "M0 1000L1000 1000L1000 0L2000 0");
    }
}
