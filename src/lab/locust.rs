//! Two recorded runs of Locust, request by request: how they differ, and how sure that is.
//!
//! Requests close to each other are alike: they met the same queue. So intervals come from a bootstrap over stretches of
//! time, not over single requests, which would make them too narrow. Source: H. R. Künsch, The Jackknife and the Bootstrap
//! for General Stationary Observations, Annals of Statistics 17 (1989), with blocks that do not overlap.

use serde::Serialize;

/// Most requests that a file may hold.
const MOST: usize = 2_000_000;
/// Stretches of time that a run is cut into.
const BLOCKS: usize = 50;
/// Runs that are drawn from each.
const DRAWS: usize = 1000;
/// Two-sided 95 % of the normal distribution.
const Z: f64 = 1.959_964;
/// Requests beyond a percentile below which nothing is said about it.
const LEAST_BEYOND: f64 = 5.0;
/// The percentiles that are compared.
pub const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)];

/// One request of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// When it was sent, in seconds of the Unix clock.
    pub started: f64,
    /// Method and path, such as `POST /`.
    pub name: String,
    /// Milliseconds until its answer.
    pub ms: f64,
    /// Whether it failed: no answer, or not the right one.
    pub is_failed: bool,
    /// What the answer's `x-request-id` says: on Lambda the invocation.
    pub id: String,
}

/// Reads the file that `locustfile.py --requests-csv` writes.
///
/// # Errors
/// Which line is wrong.
pub fn read(csv: &str) -> Result<Vec<Request>, String> {
    let mut lines = csv.lines().enumerate();
    let head = lines.next().map(|(_, line)| fields(line)).unwrap_or_default();
    let place = |name: &str| {
        head.iter().position(|field| field == name).ok_or_else(|| {
            format!("there is no column {name}: give what `locust --requests-csv FILE` of our locustfile.py writes")
        })
    };
    let places = ["started", "method", "name", "ms", "failed", "request_id"].map(place);
    let [Ok(started), Ok(method), Ok(name), Ok(ms), Ok(failed), Ok(id)] = places else {
        return Err(places.into_iter().find_map(Result::err).unwrap_or_default());
    };
    let mut requests = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let fields = fields(line);
        let text = |place: usize| fields.get(place).map(String::as_str);
        let number = |place| text(place)?.parse::<f64>().ok().filter(|number| (0.0..1e12).contains(number));
        let request = || {
            Some(Request {
                started: number(started)?,
                name: format!("{} {}", text(method)?, text(name)?),
                ms: number(ms)?,
                is_failed: number(failed)? != 0.0,
                id: text(id)?.to_owned(),
            })
        };
        requests.push(request().ok_or_else(|| format!("line {}: not a request", index + 1))?);
        if requests.len() > MOST {
            return Err(format!("more than {MOST} requests"));
        }
    }
    if requests.is_empty() {
        return Err("there is not one request".into());
    }
    Ok(requests)
}

/// The fields of a line of CSV, quoted or not (RFC 4180, without line breaks in them).
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if is_quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

/// Seconds from the first request to the last answer.
#[must_use]
pub fn seconds(requests: &[Request]) -> f64 {
    let first = requests.iter().map(|request| request.started).fold(f64::INFINITY, f64::min);
    let last = requests.iter().map(|request| request.started + request.ms / 1000.0).fold(0.0, f64::max);
    (last - first).max(0.0)
}

/// A figure, and where the true one is with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// What was measured.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Estimate {
    /// Whether a difference is one: zero lies outside.
    #[must_use]
    pub fn is_significant(&self) -> bool {
        self.low > 0.0 || self.high < 0.0
    }
}

/// One figure of both runs; nothing of a run that has too few requests for it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Row {
    /// Of which figure.
    pub name: &'static str,
    /// Of each run.
    pub sides: [Option<Estimate>; 2],
    /// The second less the first.
    pub difference: Option<Estimate>,
}

/// The shares of failed requests, with Wilson's intervals, and Newcombe's for their difference: they hold for rates of
/// zero too. Source: R. G. Newcombe, Interval estimation for the difference between independent proportions, Statistics
/// in Medicine 17 (1998), method 10.
#[must_use]
pub fn failures(runs: [&[&Request]; 2]) -> Row {
    let [one, other] = runs.map(|run| {
        let failed = run.iter().filter(|request| request.is_failed).count();
        wilson(failed as f64, run.len() as f64)
    });
    let difference = one.zip(other).map(|(one, other)| {
        let value = other.value - one.value;
        let distance = |a: f64, b: f64| (a * a + b * b).sqrt();
        Estimate {
            value,
            low: value - distance(other.value - other.low, one.high - one.value),
            high: value + distance(other.high - other.value, one.value - one.low),
        }
    });
    Row { name: "failed", sides: [one, other], difference }
}

fn wilson(failed: f64, count: f64) -> Option<Estimate> {
    if count <= 0.0 {
        return None;
    }
    let value = failed / count;
    let middle = (value + Z * Z / (2.0 * count)) / (1.0 + Z * Z / count);
    let half =
        Z / (1.0 + Z * Z / count) * (value * (1.0 - value) / count + Z * Z / (4.0 * count * count)).sqrt();
    // At the ends the arithmetic is off by a bit.
    Some(Estimate { value, low: (middle - half).clamp(0.0, value), high: (middle + half).clamp(value, 1.0) })
}

/// The percentiles of both runs' good answers. The same seed gives the same intervals.
#[must_use]
pub fn percentiles(runs: [&[&Request]; 2], seed: u64) -> Vec<Row> {
    let mut random = fastrand::Rng::with_seed(seed);
    let [one, other] = runs.map(|run| Sample::of(run).map(|sample| (sample.draws(&mut random), sample)));
    let rows = SHARES.iter().enumerate().map(|(place, (name, share))| {
        let side = |side: &Option<(Vec<[f64; 3]>, Sample)>| {
            let (draws, sample) = side.as_ref()?;
            let draws: Vec<f64> = draws.iter().map(|draw| draw[place]).collect();
            sample.has(*share).then(|| (sample.measured[place], draws))
        };
        let (one, other) = (side(&one), side(&other));
        let difference = one.as_ref().zip(other.as_ref()).map(|((one, draws), (other, others))| {
            interval(other - one, draws.iter().zip(others).map(|(one, other)| other - one).collect())
        });
        let sides = [one, other].map(|side| side.map(|(value, draws)| interval(value, draws)));
        Row { name, sides, difference }
    });
    rows.collect()
}

/// From 2.5 % to 97.5 % of what was drawn.
fn interval(value: f64, mut draws: Vec<f64>) -> Estimate {
    draws.sort_by(f64::total_cmp);
    let at = |share: f64| draws.get((draws.len() as f64 * share) as usize).copied().unwrap_or(value);
    Estimate { value, low: at(0.025), high: at(0.975) }
}

/// A run's good answers by time taken, each with its stretch.
struct Sample {
    answers: Vec<(f64, usize)>,
    sizes: [u64; BLOCKS],
    measured: [f64; 3],
}

impl Sample {
    fn of(run: &[&Request]) -> Option<Self> {
        let good = || run.iter().filter(|request| !request.is_failed);
        let first = good().map(|request| request.started).fold(f64::INFINITY, f64::min);
        let last = good().map(|request| request.started).fold(0.0, f64::max);
        let block = |request: &Request| {
            let share = (request.started - first) / (last - first).max(f64::MIN_POSITIVE);
            ((share * BLOCKS as f64) as usize).min(BLOCKS - 1)
        };
        let mut answers: Vec<(f64, usize)> = good().map(|request| (request.ms, block(request))).collect();
        answers.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut sizes = [0; BLOCKS];
        answers.iter().for_each(|(_, block)| sizes[*block] += 1);
        let mut sample = Self { answers, sizes, measured: [0.0; 3] };
        sample.measured = sample.quantiles(&[1; BLOCKS])?;
        Some(sample)
    }

    /// Whether enough answers took longer.
    fn has(&self, share: f64) -> bool {
        self.answers.len() as f64 * (1.0 - share) >= LEAST_BEYOND
    }

    /// The percentiles when each stretch counts so many times.
    fn quantiles(&self, weights: &[u64; BLOCKS]) -> Option<[f64; 3]> {
        let total: u64 = weights.iter().zip(&self.sizes).map(|(weight, size)| weight * size).sum();
        if total == 0 {
            return None;
        }
        let mut ranks = SHARES.map(|(_, share)| (total as f64 * share).ceil() as u64).into_iter();
        let mut quantiles = [0.0; 3];
        let (mut place, mut wanted, mut sum) = (0, ranks.next()?, 0);
        for (ms, block) in &self.answers {
            sum += weights[*block];
            while sum >= wanted {
                quantiles[place] = *ms;
                place += 1;
                match ranks.next() {
                    Some(rank) => wanted = rank,
                    None => return Some(quantiles),
                }
            }
        }
        None
    }

    fn draws(&self, random: &mut fastrand::Rng) -> Vec<[f64; 3]> {
        // A stretch without answers is drawn too: it is part of what happened.
        let draw = |_| {
            let mut weights = [0; BLOCKS];
            (0..BLOCKS).for_each(|_| weights[random.usize(..BLOCKS)] += 1);
            self.quantiles(&weights).unwrap_or(self.measured)
        };
        (0..DRAWS).map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "started,method,name,status,ms,failed,request_id\n";

    fn requests(count: u32, seed: u64, ms: f64) -> Vec<Request> {
        let mut random = fastrand::Rng::with_seed(seed);
        let request = |index| Request {
            started: 1e9 + f64::from(index) / 10.0,
            name: "POST /".into(),
            ms: ms - 2.0 * random.f64().max(1e-9).ln(),
            is_failed: false,
            id: String::new(),
        };
        (0..count).map(request).collect()
    }

    fn all(requests: &[Request]) -> Vec<&Request> {
        requests.iter().collect()
    }

    #[test]
    fn the_file_is_read_and_a_wrong_line_is_named() {
        let csv = format!("{HEAD}100.5,POST,/,200,3.25,0,abc\r\n101,GET,\"/a \"\"b\"\", c\",503,1,1,\n");
        let read = super::read(&csv).unwrap();
        assert_eq!((read[0].name.as_str(), read[0].ms, read[0].id.as_str()), ("POST /", 3.25, "abc"));
        assert_eq!((read[1].name.as_str(), read[1].is_failed), ("GET /a \"b\", c", true));
        assert!((seconds(&read) - 0.501).abs() < 1e-9);
        assert!(super::read(&format!("{HEAD}x,POST,/,200,3,0,\n")).unwrap_err().contains("line 2"));
        assert!(super::read(&format!("{HEAD}1,POST,/,200,-3,0,\n")).unwrap_err().contains("line 2"));
        assert!(super::read("a,b\n").unwrap_err().contains("no column started"));
        assert!(super::read(HEAD).unwrap_err().contains("not one request"));
    }

    #[test]
    fn runs_of_the_same_kind_do_not_differ_and_a_millisecond_more_does() {
        let (one, like_it, slower) = (requests(3000, 1, 5.0), requests(3000, 2, 5.0), requests(3000, 3, 6.0));
        let median = |other: &[Request]| percentiles([&all(&one), &all(other)], 7)[0].difference.unwrap();
        assert!(!median(&like_it).is_significant());
        let difference = median(&slower);
        assert!(
            difference.is_significant() && difference.low < 1.0 && 1.0 < difference.high,
            "{difference:?}"
        );
    }

    /// 95 of 100 intervals hold the true median, 5 + 2 ln 2; chance alone leaves 85 of 100 below once in thousands.
    #[test]
    fn intervals_hold_the_truth_as_often_as_they_say() {
        let truth = 5.0 + 2.0 * 2f64.ln();
        let holds = (0..100).filter(|seed| {
            let run = requests(500, 100 + seed, 5.0);
            let median = percentiles([&all(&run), &[]], *seed)[0].sides[0].unwrap();
            (median.low..=median.high).contains(&truth)
        });
        assert!(holds.count() >= 85);
    }

    #[test]
    fn requests_that_are_alike_in_time_make_intervals_wider() {
        let even = requests(2000, 4, 5.0);
        let mut slow_half = even.clone();
        // A second half of the run at another speed: what the median of such runs is, nobody knows to 0.1 ms.
        slow_half.iter_mut().skip(1000).for_each(|request| request.ms += 10.0);
        let width = |run: &[Request]| {
            let median = percentiles([&all(run), &[]], 7)[0].sides[0].unwrap();
            median.high - median.low
        };
        assert!(width(&slow_half) > 5.0 * width(&even));
    }

    #[test]
    fn the_same_seed_gives_the_same_intervals_and_few_requests_none() {
        let run = requests(300, 5, 5.0);
        let of = |seed| percentiles([&all(&run), &all(&run)], seed);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let [p50, p95, p99] = of(1).try_into().unwrap();
        assert!(p50.difference.is_some() && p95.difference.is_some());
        assert_eq!((p99.sides, p99.difference), ([None, None], None));
    }

    #[test]
    fn failures_have_intervals_even_at_zero() {
        let good = requests(1000, 6, 5.0);
        let mut bad = good.clone();
        let row = failures([&all(&good), &all(&bad)]);
        let side = row.sides[0].unwrap();
        // Wilson for 0 of 1,000: z² / (n + z²).
        assert!(side.low == 0.0 && (side.high - 0.003_827).abs() < 1e-5, "{side:?}");
        assert!(!row.difference.unwrap().is_significant());
        bad.iter_mut().take(20).for_each(|request| request.is_failed = true);
        let difference = failures([&all(&good), &all(&bad)]).difference.unwrap();
        assert!(difference.is_significant() && (difference.value - 0.02).abs() < 1e-9);
    }

    /// Newcombe's own example (a): 56 of 70 and 48 of 80 differ by 0.2, 0.0524 to 0.3339.
    #[test]
    fn the_difference_of_two_shares_is_newcombes() {
        let run = |failed: u32, count| {
            let mut run = requests(count, 6, 5.0);
            run.iter_mut().take(failed as usize).for_each(|request| request.is_failed = true);
            run
        };
        let (one, other) = (run(48, 80), run(56, 70));
        let difference = failures([&all(&one), &all(&other)]).difference.unwrap();
        assert!((difference.low - 0.0524).abs() < 1e-4 && (difference.high - 0.3339).abs() < 1e-4);
    }
}
