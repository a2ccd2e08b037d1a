//! Go's arithmetic where it differs from Rust's: integers wrap, and a float that does not fit becomes the smallest
//! integer (what the language leaves open is here what amd64 does).

/// `int32(x)`.
#[must_use]
pub fn int32(x: f64) -> i32 {
    // The bounds are exact: both neighbours of the range are floats.
    if x > -2_147_483_649.0 && x < 2_147_483_648.0 { x as i32 } else { i32::MIN }
}

/// `int64(x)`.
#[must_use]
pub fn int64(x: f64) -> i64 {
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&x) { x as i64 } else { i64::MIN }
}

/// `int32(n)` of an int64: its lower half.
#[must_use]
pub fn low32(n: i64) -> i32 {
    n as i32
}

/// `a / b`, for a `b` that is not zero; zero where Go would panic.
#[must_use]
pub fn divided(a: i64, b: i64) -> i64 {
    if b == 0 { 0 } else { a.wrapping_div(b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_that_do_not_fit_become_the_smallest_integer() {
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2_147_483_648.0, -2_147_483_649.0, 1e300] {
            assert_eq!(int32(x), i32::MIN, "{x}");
        }
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 9_223_372_036_854_775_808.0, -1e19] {
            assert_eq!(int64(x), i64::MIN, "{x}");
        }
        assert_eq!(int32(2_147_483_647.9), i32::MAX);
        assert_eq!(int32(-2_147_483_648.9), i32::MIN);
        assert_eq!(int32(-0.9), 0);
        assert_eq!(int64(-9_223_372_036_854_775_808.0), i64::MIN);
    }

    #[test]
    fn integers_wrap() {
        assert_eq!(low32(1 << 32 | 5), 5);
        assert_eq!(divided(i64::MIN, -1), i64::MIN);
        assert_eq!(divided(-7, 2), -3);
        assert_eq!(divided(1, 0), 0);
    }
}
