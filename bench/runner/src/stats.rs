//! When a difference may be quoted.
//!
//! Contenders are measured in turn, round by round, so a round's figures share whatever the machine was
//! doing at the time. Two contenders are therefore compared within rounds: one ratio a round, its median
//! as the result and its smallest to largest value as the spread. When the spread contains 1, the
//! measurement does not tell the two apart, and no difference is quoted.

use serde::Serialize;

/// With five rounds, the smallest to the largest value hold the true median in 15 of 16 runs.
/// With fewer they say too little to quote a difference.
pub(crate) const FEWEST_ROUNDS: usize = 5;

/// A median and how far single rounds were from it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without samples. What is not a number is missing.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted: Vec<_> = samples.iter().copied().filter(|sample| !sample.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, min, max })
    }
}

/// What may be said about two contenders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Less,
    More,
    NoDifference,
    TooFewRounds,
}

/// One contender's figure divided by another's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Ratio {
    #[serde(flatten)]
    pub(crate) spread: Spread,
    pub(crate) verdict: Verdict,
}

impl Ratio {
    /// `ours[i]` and `theirs[i]` come from the same round. Figures that cannot vary are `exact`: one
    /// sample of them is enough.
    pub(crate) fn of(ours: &[f64], theirs: &[f64], exact: bool) -> Option<Self> {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours / theirs)
            .filter(|ratio| !ratio.is_nan())
            .collect();
        let spread = Spread::of(&ratios).filter(|spread| spread.median.is_finite())?;
        let verdict = if ratios.len() < FEWEST_ROUNDS && !exact {
            Verdict::TooFewRounds
        } else if spread.max < 1.0 {
            Verdict::Less
        } else if spread.min > 1.0 {
            Verdict::More
        } else {
            Verdict::NoDifference
        };
        Some(Self { spread, verdict })
    }

    /// The ratio in words.
    pub(crate) fn reading(&self) -> String {
        match self.verdict {
            Verdict::Less => format!("{}x less", significant(1.0 / self.spread.median)),
            Verdict::More => format!("{}x more", significant(self.spread.median)),
            Verdict::NoDifference => "no difference measured".to_owned(),
            Verdict::TooFewRounds => "too few rounds".to_owned(),
        }
    }
}

/// What a goal allows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Under(f64),
}

impl Bound {
    /// Decided only when every round agrees.
    pub(crate) fn holds(self, spread: &Spread) -> Option<bool> {
        let holds = |value: f64| match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
            Self::Under(limit) => value < limit,
        };
        (holds(spread.min) == holds(spread.max)).then(|| holds(spread.median))
    }
}

/// Three significant digits, or all of those before the point.
pub(crate) fn significant(value: f64) -> String {
    let digits_before_the_point = if value.abs() < 1.0 { 0 } else { value.abs().log10() as usize + 1 };
    format!("{value:.*}", 3_usize.saturating_sub(digits_before_the_point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_an_even_number_of_samples_lies_between_the_middle_two() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[2.0]), Some(Spread { median: 2.0, min: 2.0, max: 2.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_difference_smaller_than_the_spread_is_not_quoted() {
        let ratio = Ratio::of(&[9.0, 9.0, 9.0, 9.0, 11.0], &[10.0; 5], false).unwrap();
        assert_eq!(ratio.verdict, Verdict::NoDifference);
        assert_eq!(ratio.reading(), "no difference measured");
    }

    #[test]
    fn rounds_are_compared_with_themselves_only() {
        // Everything doubled in the last round, for both: ours is cheaper by a tenth all the same.
        let ratio = Ratio::of(&[9.0, 9.0, 9.0, 9.0, 18.0], &[10.0, 10.0, 10.0, 10.0, 20.0], false).unwrap();
        assert_eq!(ratio.verdict, Verdict::Less);
        assert_eq!(ratio.reading(), "1.11x less");
    }

    #[test]
    fn few_rounds_decide_nothing_unless_the_figure_is_exact() {
        assert_eq!(Ratio::of(&[1.0; 4], &[2.0; 4], false).unwrap().verdict, Verdict::TooFewRounds);
        assert_eq!(Ratio::of(&[1.0], &[2.0], true).unwrap().verdict, Verdict::Less);
        assert_eq!(Ratio::of(&[], &[], true), None);
    }

    #[test]
    fn a_missing_sample_takes_its_round_with_it() {
        let nan = f64::NAN;
        let ours = [1.0, nan, 3.0, 4.0, 5.0, 6.0, 7.0];
        let theirs = [2.0, 2.0, nan, 8.0, 10.0, 12.0, 14.0];
        let ratio = Ratio::of(&ours, &theirs, false).unwrap();
        assert_eq!((ratio.verdict, ratio.spread.min, ratio.spread.max), (Verdict::Less, 0.5, 0.5));
        assert_eq!(Spread::of(&[nan]), None);
        assert_eq!(Ratio::of(&[1.0, nan], &[nan, 1.0], false), None);
    }

    #[test]
    fn a_goal_is_decided_only_when_every_round_agrees() {
        let spread = |min, max| Spread { median: f64::midpoint(min, max), min, max };
        assert_eq!(Bound::AtMost(1.0).holds(&spread(0.8, 1.0)), Some(true));
        assert_eq!(Bound::AtLeast(0.9).holds(&spread(0.9, 1.1)), Some(true));
        assert_eq!(Bound::AtLeast(0.9).holds(&spread(0.8, 0.89)), Some(false));
        assert_eq!(Bound::Under(1.0).holds(&spread(1.0, 1.2)), Some(false));
        assert_eq!(Bound::AtMost(1.0).holds(&spread(0.9, 1.1)), None);
    }

    #[test]
    fn numbers_carry_three_significant_digits() {
        assert_eq!(significant(0.0123), "0.012");
        assert_eq!(significant(6.1234), "6.12");
        assert_eq!(significant(61.26), "61.3");
        assert_eq!(significant(146_123.4), "146123");
    }
}
