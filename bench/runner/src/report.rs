//! The results as tables for people and as JSON for programs.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::{
    figures::{self, BUSY, FIGURES, Figure, Kind, OTHERS, SATURATED_PERCENT},
    machine::Machine,
    rows::{GOALS, Goal, Group, Row},
    stats::{Ratio, Spread, Verdict, significant},
    suite::Settings,
};

/// Above this, other processes spoil the figures.
const DISTURBED_PERCENT: f64 = 5.0;

/// Everything that a run found out.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) rows: &'a [&'static Row],
    /// Those of them that this machine could not run, and why.
    pub(crate) skipped: BTreeMap<&'static str, &'static str>,
    /// Samples by row and figure, in the order of the rounds.
    pub(crate) samples: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    pub(crate) settings: &'a Settings,
    pub(crate) machine: Machine,
    /// Per cent of the CPU time that the host gave to others meanwhile.
    pub(crate) stolen_percent: f64,
    pub(crate) versions: Map<String, Value>,
    pub(crate) commit: String,
    /// ISO 8601.
    pub(crate) date: String,
    pub(crate) triple: String,
    /// Two server cores leave none for the load generator.
    pub(crate) two_cores_shared: bool,
}

impl Report<'_> {
    fn of(&self, row: &str, figure: &str) -> &[f64] {
        // Keys are 'static in the map, and any &str finds them there only by comparison.
        self.samples
            .iter()
            .find(|((of, key), _)| *of == row && *key == figure)
            .map_or(&[], |(_, samples)| samples.as_slice())
    }

    fn ratio(&self, row: &str, against: &str, figure: &Figure) -> Option<Ratio> {
        Ratio::of(self.of(row, figure.key), self.of(against, figure.key), figure.kind == Kind::Exact)
    }

    /// The groups that were measured, each with its rows, ours first.
    fn groups(&self) -> Vec<(Group, Vec<&'static Row>)> {
        let mut groups: Vec<(Group, Vec<&'static Row>)> = Vec::new();
        for &row in self.rows {
            match groups.iter_mut().find(|(group, _)| *group == row.group) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((row.group, vec![row])),
            }
        }
        groups
    }

    /// The tables.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).map(|()| text).unwrap_or_default()
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Machine { cpu, cores, memory_gb, kernel, virtualised, load_before } = &self.machine;
        let machine = if *virtualised { "virtual machine" } else { "machine" };
        writeln!(out, "# Benchmark of {} at {}\n", self.commit, self.date)?;
        writeln!(out, "{cpu}, {cores} cores, {memory_gb} GB, {machine}, Linux {kernel}, {}.", self.triple)?;
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|(name, version)| match version.as_str().unwrap_or("missing") {
                version if version.starts_with(name) || version.to_lowercase().starts_with(name) => {
                    version.to_owned()
                }
                version => format!("{name} {version}"),
            })
            .collect();
        writeln!(out, "{}.\n", versions.join(", "))?;
        writeln!(
            out,
            "Rounds: {}, each contender once a round. Figures are medians with the smallest and largest round; \
             ratios are ours ÷ theirs within a round. Load average before the run {load_before}, CPU time \
             taken by the host {:.1} %.",
            self.settings.rounds, self.stolen_percent
        )?;
        let others = self.rows.iter().filter_map(|row| Spread::of(self.of(row.name, OTHERS)));
        let most = others.map(|spread| spread.median).fold(0.0, f64::max);
        if most > DISTURBED_PERCENT {
            writeln!(
                out,
                "\n**This machine was busy with other things**, which took up to {most:.0} % of the cores \
                 while a contender was measured. Repeat the run when it is idle."
            )?;
        }
        for (group, rows) in self.groups() {
            writeln!(out, "\n## {}\n\n| contender | what it is |\n| --- | --- |", group.title())?;
            for row in &rows {
                match self.skipped.get(row.name) {
                    None => writeln!(out, "| {} | {} |", row.name, row.about)?,
                    Some(why) => writeln!(out, "| {} | skipped: {why} |", row.name)?,
                }
            }
            for panel in FIGURES.chunk_by(|one, next| one.panel == next.panel) {
                self.write_panel(out, &rows, panel)?;
            }
        }
        self.write_goals(out)
    }

    fn write_panel(&self, out: &mut String, rows: &[&Row], panel: &[Figure]) -> std::fmt::Result {
        let measured: Vec<_> = panel
            .iter()
            .filter(|figure| rows.iter().any(|row| !self.of(row.name, figure.key).is_empty()))
            .collect();
        let [first, ..] = measured.as_slice() else { return Ok(()) };
        let shared = self.two_cores_shared && first.panel == figures::TWO;
        let note = if shared { "; the load generator runs on the same two cores" } else { "" };
        writeln!(out, "\n### {}{note}\n", first.panel)?;

        head(out, "contender", &measured)?;
        for row in rows {
            let cells = measured.iter().map(|figure| cell(Spread::of(self.of(row.name, figure.key))));
            writeln!(out, "| {} | {} |", row.name, cells.collect::<Vec<_>>().join(" | "))?;
        }
        let idle: Vec<_> = rows
            .iter()
            .filter(|row| measured.iter().any(|figure| figure.key == BUSY) && self.is_unsaturated(row.name))
            .map(|row| row.name)
            .collect();
        if !idle.is_empty() {
            writeln!(
                out,
                "\nNot saturated, since the load generator or something else on the machine was the limit: {}. \
                 Their requests/s are a lower bound.",
                idle.join(", ")
            )?;
        }
        let missing: Vec<_> = rows
            .iter()
            .filter_map(|row| {
                let missing = measured.iter().map(|figure| self.missing(row.name, figure.key)).max()?;
                (missing > 0).then(|| format!("{} ({missing} of {})", row.name, self.settings.rounds))
            })
            .collect();
        if !missing.is_empty() {
            writeln!(
                out,
                "\nLeft out are the latencies of rounds in which the load generator could not keep the rate \
                 while the server had time left: {}.",
                missing.join(", ")
            )?;
        }

        let compared: Vec<_> =
            measured.iter().copied().filter(|figure| figure.kind != Kind::Context).collect();
        let [ours, theirs @ ..] = rows else { return Ok(()) };
        let ratios: Vec<_> = theirs
            .iter()
            .map(|row| {
                let ratios = compared.iter().map(|figure| self.ratio(ours.name, row.name, figure));
                (row.name, ratios.collect::<Vec<_>>())
            })
            .filter(|(_, ratios)| ratios.iter().any(Option::is_some))
            .collect();
        if ratios.is_empty() {
            return Ok(());
        }
        writeln!(out)?;
        head(out, &format!("{} against", ours.name), &compared)?;
        for (name, ratios) in ratios {
            let cells = ratios.into_iter().map(|ratio| match ratio {
                Some(ratio) if ratio.verdict == Verdict::TooFewRounds => ratio.reading(),
                Some(ratio) => format!("{}, {}", interval(&ratio.spread), ratio.reading()),
                None => "-".to_owned(),
            });
            writeln!(out, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
        }
        Ok(())
    }

    fn missing(&self, row: &str, figure: &str) -> usize {
        self.of(row, figure).iter().filter(|sample| sample.is_nan()).count()
    }

    fn is_unsaturated(&self, row: &str) -> bool {
        Spread::of(self.of(row, BUSY)).is_some_and(|busy| busy.median < SATURATED_PERCENT)
    }

    fn write_goals(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## Goals\n\n| goal | measured | verdict |\n| --- | --- | --- |")?;
        for goal in GOALS {
            let (spread, verdict) = self.judge(goal);
            writeln!(out, "| {} | {} | {verdict} |", goal.what, cell(spread))?;
        }
        Ok(())
    }

    fn judge(&self, goal: &Goal) -> (Option<Spread>, &'static str) {
        let spread = match (goal.against, figures::find(goal.figure)) {
            (Some(against), Some(figure)) => self.ratio(goal.row, against, figure).map(|ratio| ratio.spread),
            _ => Spread::of(self.of(goal.row, goal.figure)),
        };
        let verdict = match spread.as_ref().map(|spread| goal.bound.holds(spread)) {
            None => "not measured",
            Some(Some(true)) => "met",
            Some(Some(false)) => "missed",
            Some(None) => "undecided: rounds disagree",
        };
        (spread, verdict)
    }

    /// The same for programs, with every sample.
    pub(crate) fn json(&self) -> Value {
        let mut rows = Map::new();
        let mut ratios = Vec::new();
        for (_, group) in self.groups() {
            for row in &group {
                let mut figures = Map::new();
                for figure in FIGURES {
                    let samples = self.of(row.name, figure.key);
                    if let Some(Spread { median, min, max }) = Spread::of(samples) {
                        let value = json!({ "median": median, "min": min, "max": max, "samples": samples });
                        figures.insert(figure.key.to_owned(), value);
                    }
                    if let Some(ours) = group.first().filter(|ours| ours.name != row.name)
                        && figure.kind != Kind::Context
                        && let Some(ratio) = self.ratio(ours.name, row.name, figure)
                    {
                        ratios.push(json!({
                            "figure": figure.key, "of": ours.name, "against": row.name, "ratio": ratio,
                        }));
                    }
                }
                rows.insert(
                    row.name.to_owned(),
                    json!({ "about": row.about, "figures": figures, "skipped": self.skipped.get(row.name) }),
                );
            }
        }
        let goals: Vec<_> = GOALS
            .iter()
            .map(|goal| {
                let (spread, verdict) = self.judge(goal);
                json!({ "goal": goal.what, "measured": spread, "verdict": verdict })
            })
            .collect();
        json!({
            "date": self.date,
            "commit": self.commit,
            "target": self.triple,
            "machine": self.machine,
            "stolen_percent": self.stolen_percent,
            "two_server_cores_shared_with_the_load_generator": self.two_cores_shared,
            "versions": self.versions,
            "rounds": self.settings.rounds,
            "window_s": self.settings.window.as_secs_f64(),
            "rows": rows,
            "ratios": ratios,
            "goals": goals,
        })
    }

    /// Writes both into `folder`: JSON under the date and commit, tables as the latest of their `kind`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn save(&self, folder: &Path, kind: &str) -> Result<()> {
        let day = self.date.split('T').next().unwrap_or_default();
        fs::create_dir_all(folder)?;
        let json = folder.join(format!("{day}-{}{kind}.json", self.commit));
        fs::write(&json, format!("{:#}\n", self.json()))?;
        fs::write(folder.join(format!("latest{kind}.md")), self.markdown())?;
        eprintln!("written: {}", json.display());
        Ok(())
    }
}

fn head(out: &mut String, first: &str, figures: &[&Figure]) -> std::fmt::Result {
    let labels: Vec<_> = figures.iter().map(|figure| figure.label).collect();
    writeln!(out, "| {first} | {} |", labels.join(" | "))?;
    writeln!(out, "| --- |{}", " ---: |".repeat(labels.len()))
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "-".to_owned(), |spread| interval(&spread))
}

fn interval(Spread { median, min, max }: &Spread) -> String {
    if min == max {
        return significant(*median);
    }
    format!("{} ({}-{})", significant(*median), significant(*min), significant(*max))
}
