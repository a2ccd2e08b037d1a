//! The arithmetic, free of HTTP.

/// `a + b` in IEEE 754 binary64, rounded to nearest, ties to even; `None` when it overflows.
pub(super) fn finite(a: f64, b: f64) -> Option<f64> {
    Some(a + b).filter(|sum| sum.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_ieee_754() {
        assert_eq!(finite(10.0, 5.0), Some(15.0));
        assert_eq!(finite(0.1, 0.2), Some(0.300_000_000_000_000_04));
        assert_eq!(finite(5e-324, 0.0), Some(5e-324));
        assert_eq!(finite(9_007_199_254_740_992.0, 1.0), Some(9_007_199_254_740_992.0));
        assert!(finite(-0.0, -0.0).is_some_and(|zero| zero.is_sign_negative()));
    }

    #[test]
    fn an_overflow_is_no_sum() {
        assert_eq!(finite(1e308, 1e308), None);
        assert_eq!(finite(-1e308, -1e308), None);
    }
}
