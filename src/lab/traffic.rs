//! How many requests arrive in each second.
//!
//! A course is a list of points, and a rule for what is between them; everything else is a way to write one. Noise is a
//! function of the seed and the second, so that any second can be asked for by itself.

use serde::{Deserialize, Serialize};

/// The longest run: a year.
pub const MAX_SECONDS: u64 = 366 * 86_400;
/// The most requests a second that the arithmetic is meant for.
pub const MAX_RATE: f64 = 1e12;
/// Of points, and of lines of a history.
const MAX_POINTS: usize = 1_000_000;

/// The shape of the course, in requests a second.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(tag = "shape", rename_all = "lowercase", deny_unknown_fields)]
pub enum Shape {
    /// Always the same.
    Constant {
        /// Requests a second.
        rate: f64,
    },
    /// One rate, and from a moment on another.
    Step {
        /// Before.
        from: f64,
        /// After.
        to: f64,
        /// When, in seconds.
        at: u64,
    },
    /// From one rate to another, evenly.
    Ramp {
        /// Before.
        from: f64,
        /// After.
        to: f64,
        /// When it begins.
        #[serde(default)]
        at: u64,
        /// How long it takes.
        over: u64,
    },
    /// A base, and more for a while.
    Spike {
        /// Before and after.
        base: f64,
        /// Meanwhile.
        peak: f64,
        /// When it begins.
        at: u64,
        /// How long it lasts.
        #[serde(rename = "for")]
        lasts: u64,
    },
    /// A day: least at four in the morning, most twelve hours later, along a cosine. The run begins at midnight.
    Diurnal {
        /// The least.
        low: f64,
        /// The most.
        high: f64,
    },
    /// Any course: seconds and rates.
    Points {
        /// Each holds until the next, or leads to it.
        points: Vec<(u64, f64)>,
        /// Whether the rate goes evenly from one to the next.
        #[serde(default)]
        linear: bool,
    },
}

/// What arrives.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Traffic {
    /// Its course.
    #[serde(flatten)]
    pub shape: Shape,
    /// How far single seconds are off it, at most, as a share of it: 0 to 1. Evenly spread.
    #[serde(default)]
    pub noise: f64,
    /// What noise there is.
    #[serde(default)]
    pub seed: u64,
}

impl Traffic {
    /// Without noise.
    #[must_use]
    pub fn of(shape: Shape) -> Self {
        Self { shape, noise: 0.0, seed: 0 }
    }

    /// Reads `constant:100`, `step:10..100@1h`, `ramp:10..100@1h+30m`, `spike:10..500@1h+5m` or `diurnal:5..200`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let usage = || {
            format!(
                "{text:?} is no traffic: write constant:RATE, step:FROM..TO@START, ramp:FROM..TO@START+DURATION, \
                 spike:BASE..PEAK@START+DURATION or diurnal:LOW..HIGH, such as spike:10..500@1h+5m"
            )
        };
        let (kind, rest) = text.split_once(':').ok_or_else(usage)?;
        let (rates, times) = rest.split_once('@').unwrap_or((rest, ""));
        let (first, second) = rates.split_once("..").unwrap_or((rates, ""));
        let rate = |text: &str| text.parse::<f64>().map_err(|_| usage());
        let (at, lasts) = times.split_once('+').unwrap_or((times, ""));
        let time = |text: &str| seconds(text).ok_or_else(usage);
        let shape = match kind {
            "constant" if second.is_empty() && times.is_empty() => Shape::Constant { rate: rate(first)? },
            "step" if lasts.is_empty() => {
                Shape::Step { from: rate(first)?, to: rate(second)?, at: time(at)? }
            }
            "ramp" => {
                Shape::Ramp { from: rate(first)?, to: rate(second)?, at: time(at)?, over: time(lasts)? }
            }
            "spike" => {
                Shape::Spike { base: rate(first)?, peak: rate(second)?, at: time(at)?, lasts: time(lasts)? }
            }
            "diurnal" if times.is_empty() => Shape::Diurnal { low: rate(first)?, high: rate(second)? },
            _ => return Err(usage()),
        };
        let traffic = Self::of(shape);
        traffic.check()?;
        Ok(traffic)
    }

    /// Reads the history that Locust writes with `--csv`: its column `Requests/s` over `Timestamp`, of the line
    /// `Aggregated`.
    ///
    /// # Errors
    /// What is missing.
    pub fn history(csv: &str) -> Result<Self, String> {
        let mut lines = csv.lines().take(MAX_POINTS);
        let head: Vec<&str> =
            lines.next().unwrap_or_default().split(',').map(|name| name.trim_matches('"')).collect();
        let column = |name: &str| {
            head.iter()
                .position(|column| *column == name)
                .ok_or_else(|| format!("a Locust history has a column {name:?}"))
        };
        let (at, name, rate) = (column("Timestamp")?, column("Name")?, column("Requests/s")?);
        let mut points: Vec<(u64, f64)> = Vec::new();
        let mut start = None;
        for line in lines {
            let fields: Vec<&str> = line.split(',').map(|field| field.trim_matches('"')).collect();
            if fields.get(name) != Some(&"Aggregated") {
                continue;
            }
            let number = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
            let (Some(at), Some(rate)) = (number(at), number(rate)) else { continue };
            let since = at - *start.get_or_insert(at);
            if since >= 0.0 && points.last().is_none_or(|(last, _)| (since as u64) > *last) {
                points.push((since as u64, rate));
            }
        }
        let traffic = Self::of(Shape::Points { points, linear: false });
        traffic.check()?;
        Ok(traffic)
    }

    /// # Errors
    /// A rate that is negative, no number or beyond [`MAX_RATE`]; points that do not follow each other; noise beyond 1.
    pub fn check(&self) -> Result<(), String> {
        let rates: Vec<f64> = match &self.shape {
            Shape::Constant { rate } => vec![*rate],
            Shape::Step { from: a, to: b, .. }
            | Shape::Ramp { from: a, to: b, .. }
            | Shape::Spike { base: a, peak: b, .. }
            | Shape::Diurnal { low: a, high: b } => vec![*a, *b],
            Shape::Points { points, .. } => points.iter().map(|(_, rate)| *rate).collect(),
        };
        if rates.is_empty() || rates.len() > MAX_POINTS {
            return Err(format!("traffic needs from one to {MAX_POINTS} points"));
        }
        if let Some(wrong) = rates.iter().find(|rate| !(0.0..=MAX_RATE).contains(*rate)) {
            return Err(format!("{wrong} requests a second are not between 0 and {MAX_RATE:e}"));
        }
        if let Shape::Points { points, .. } = &self.shape
            && points.windows(2).any(|pair| pair[0].0 >= pair[1].0)
        {
            return Err("the points of traffic follow each other in time".into());
        }
        if !(0.0..=1.0).contains(&self.noise) {
            return Err(format!("noise of {} is not between 0 and 1", self.noise));
        }
        Ok(())
    }

    /// The same course, so many times as much.
    #[must_use]
    pub fn times(&self, factor: f64) -> Self {
        let mut traffic = self.clone();
        let scale = |rate: &mut f64| *rate *= factor;
        match &mut traffic.shape {
            Shape::Constant { rate } => scale(rate),
            Shape::Step { from: a, to: b, .. }
            | Shape::Ramp { from: a, to: b, .. }
            | Shape::Spike { base: a, peak: b, .. }
            | Shape::Diurnal { low: a, high: b } => {
                scale(a);
                scale(b);
            }
            Shape::Points { points, .. } => points.iter_mut().for_each(|(_, rate)| scale(rate)),
        }
        traffic
    }

    /// The requests of each second of a run.
    pub fn seconds(&self) -> impl Iterator<Item = f64> + '_ {
        let mut next = 0;
        (0u64..).map(move |second| {
            let rate = self.course(second, &mut next);
            if self.noise > 0.0 {
                (rate * (1.0 + self.noise * off(self.seed, second))).max(0.0)
            } else {
                rate
            }
        })
    }

    /// `next` is the first point that is still to come: seconds are asked for in order.
    fn course(&self, second: u64, next: &mut usize) -> f64 {
        match &self.shape {
            Shape::Constant { rate } => *rate,
            Shape::Step { from, to, at } => {
                if second < *at {
                    *from
                } else {
                    *to
                }
            }
            Shape::Ramp { from, to, at, over } => {
                let share = second.saturating_sub(*at) as f64 / (*over).max(1) as f64;
                from + (to - from) * share.min(1.0)
            }
            Shape::Spike { base, peak, at, lasts } => {
                if (*at..at.saturating_add(*lasts)).contains(&second) {
                    *peak
                } else {
                    *base
                }
            }
            Shape::Diurnal { low, high } => {
                // Radians since 4:00, the low point.
                let angle =
                    (second % 86_400) as f64 / 86_400.0 * std::f64::consts::TAU - std::f64::consts::FRAC_PI_3;
                low + (high - low) * (1.0 - angle.cos()) / 2.0
            }
            Shape::Points { points, linear } => between(points, *linear, second, next),
        }
    }
}

fn between(points: &[(u64, f64)], linear: bool, second: u64, next: &mut usize) -> f64 {
    while points.get(*next).is_some_and(|(at, _)| *at <= second) {
        *next += 1;
    }
    let before = next.checked_sub(1).and_then(|index| points.get(index));
    match (before, points.get(*next)) {
        (None, Some((_, rate))) | (Some((_, rate)), None) => *rate,
        (Some((start, from)), Some((end, to))) if linear => {
            from + (to - from) * (second - start) as f64 / (end - start) as f64
        }
        (Some((_, rate)), Some(_)) => *rate,
        (None, None) => 0.0,
    }
}

/// Evenly between -1 and 1. The mixing function of SplitMix64.
fn off(seed: u64, second: u64) -> f64 {
    let mut z = seed.wrapping_add(second.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Seconds in `90`, `90s`, `15m`, `2h` or `1d`, within a year.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|seconds| *seconds <= MAX_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(text: &str, seconds: &[usize]) -> Vec<f64> {
        let traffic = Traffic::parse(text).unwrap();
        let all: Vec<f64> = traffic.seconds().take(90_000).collect();
        seconds.iter().map(|second| (all[*second] * 1000.0).round() / 1000.0).collect()
    }

    #[test]
    fn shapes_are_what_they_are_called() {
        assert_eq!(rates("constant:7.5", &[0, 86_399]), [7.5, 7.5]);
        assert_eq!(rates("step:1..9@1m", &[59, 60]), [1.0, 9.0]);
        assert_eq!(rates("ramp:0..100@10+100", &[9, 10, 60, 110, 5000]), [0.0, 0.0, 50.0, 100.0, 100.0]);
        assert_eq!(rates("spike:1..9@60+1m", &[59, 60, 119, 120]), [1.0, 9.0, 9.0, 1.0]);
        assert_eq!(rates("diurnal:10..30", &[4 * 3600, 16 * 3600, 10 * 3600]), [10.0, 30.0, 20.0]);
    }

    #[test]
    fn what_is_no_traffic_is_refused() {
        for wrong in [
            "",
            "constant",
            "constant:",
            "constant:-1",
            "constant:nan",
            "constant:1e13",
            "step:1..2",
            "ramp:1..2@1",
            "spike:1@1+1",
            "diurnal:1",
            "constant:1@5",
            "step:1..2@400d",
            "wave:1..2",
        ] {
            assert!(Traffic::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_seed_is_the_same_noise_and_noise_stays_within_its_bound() {
        let noisy = |seed| Traffic { noise: 0.2, seed, ..Traffic::parse("constant:100").unwrap() };
        let run = |seed| noisy(seed).seconds().take(10_000).collect::<Vec<_>>();
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert!(run(1).iter().all(|rate| (80.0..=120.0).contains(rate)));
        let mean = run(1).iter().sum::<f64>() / 10_000.0;
        assert!((99.0..101.0).contains(&mean), "{mean}");
    }

    #[test]
    fn a_locust_history_is_its_aggregated_rate() {
        let csv = "Timestamp,User Count,Type,Name,Requests/s,Failures/s\n\
                   1700000000,1,POST,/,1.0,0\n1700000000,1,,Aggregated,0.0,0\n\
                   1700000001,5,,Aggregated,12.5,0\n1700000005,5,,Aggregated,20,0\n";
        let traffic = Traffic::history(csv).unwrap();
        assert_eq!(traffic.seconds().take(7).collect::<Vec<_>>(), [0.0, 12.5, 12.5, 12.5, 12.5, 20.0, 20.0]);
        assert!(Traffic::history("a,b\n1,2\n").unwrap_err().contains("Timestamp"));
    }
}
