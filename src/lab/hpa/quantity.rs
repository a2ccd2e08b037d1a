//! Kubernetes' quantities: `500m`, `1.5`, `128Mi`, `12e6`.
//!
//! Source: `k8s.io/apimachinery/pkg/api/resource`, `ParseQuantity` and `MilliValue`.

/// The largest number of digits that is looked at. Beyond it a value is absurd in any unit, and says so.
const MOST_DIGITS: usize = 30;

/// A quantity in thousandths, rounded away from zero; what does not fit is 0, as `MilliValue` has it.
///
/// # Errors
/// That it is not a quantity.
pub fn milli(text: &str) -> Result<i64, String> {
    scaled(text, -3)
}

/// A quantity as a number, for ratios such as a tolerance.
///
/// # Errors
/// That it is not a quantity.
pub fn float(text: &str) -> Result<f64, String> {
    // To the billionth: no quantity is finer. One division rounds once, so that `0.1` is 0.1.
    scaled(text, -9).map(|billionths| billionths as f64 / 1e9)
}

fn scaled(text: &str, scale: i32) -> Result<i64, String> {
    let Parts { is_negative, digits, decimals, suffix } = split(text)?;
    let (binary, decimal) = unit(suffix).ok_or_else(|| refused(text))?;
    if digits.len() > MOST_DIGITS || decimals.len() > MOST_DIGITS {
        return Err(format!("the quantity {text:?} has too many digits"));
    }
    let mut whole: u128 = 0;
    // All that fits with the largest unit. What is cut off only says that there is a rest.
    let room = if binary > 0 { 12 } else { MOST_DIGITS.min(37 - digits.len()) };
    let (kept, cut) = decimals.split_at(decimals.len().min(room));
    for digit in digits.bytes().chain(kept.bytes()) {
        whole = whole
            .checked_mul(10)
            .and_then(|whole| whole.checked_add(u128::from(digit - b'0')))
            .unwrap_or(u128::MAX);
    }
    let exponent = decimal - kept.len() as i32 - scale;
    let is_inexact = cut.bytes().any(|digit| digit != b'0');
    let value =
        shift(whole, binary, exponent, is_inexact).and_then(|value| i64::try_from(value).ok()).unwrap_or(0);
    Ok(if is_negative { -value } else { value })
}

/// `whole * 2^binary * 10^exponent`, rounded up; nothing where it does not fit.
fn shift(whole: u128, binary: u32, exponent: i32, is_inexact: bool) -> Option<u128> {
    let mut value = whole.checked_mul(1u128 << binary)?;
    if exponent >= 0 {
        return if value == 0 {
            Some(0)
        } else {
            value.checked_mul(10u128.checked_pow(exponent.unsigned_abs())?)
        };
    }
    let mut rest = is_inexact;
    for _ in 0..exponent.unsigned_abs().min(60) {
        rest |= value % 10 != 0;
        value /= 10;
    }
    value.checked_add(u128::from(rest))
}

struct Parts<'a> {
    is_negative: bool,
    digits: &'a str,
    decimals: &'a str,
    suffix: &'a str,
}

fn refused(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    format!("{shown:?} is not a quantity such as 500m, 1.5 or 128Mi")
}

fn split(text: &str) -> Result<Parts<'_>, String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (digits, rest) =
        unsigned.split_at(unsigned.find(|c: char| !c.is_ascii_digit()).unwrap_or(unsigned.len()));
    let (decimals, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    if digits.is_empty() && decimals.is_empty() {
        return Err(refused(text));
    }
    let (digits, decimals) = (digits.trim_start_matches('0'), decimals.trim_end_matches('0'));
    Ok(Parts { is_negative: text.starts_with('-'), digits, decimals, suffix })
}

/// The power of two and the power of ten that a suffix stands for.
fn unit(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (10, 0),
        "Mi" => (20, 0),
        "Gi" => (30, 0),
        "Ti" => (40, 0),
        "Pi" => (50, 0),
        "Ei" => (60, 0),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (0, exponent.clamp(-60, 60))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_thousandths_rounded_away_from_zero() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1000),
            ("+1", 1000),
            ("-1", -1000),
            ("500m", 500),
            ("1.5", 1500),
            (".5", 500),
            ("5.", 5000),
            ("56250000n", 57),
            ("-56250000n", -57),
            ("100000u", 100),
            ("100001u", 101),
            ("128Mi", 134_217_728_000),
            ("1.5Ki", 1_536_000),
            ("0.0001", 1),
            ("0.0000000000000000001", 1),
            ("12e6", 12_000_000_000),
            ("12E6", 12_000_000_000),
            ("1e-3", 1),
            ("0.00000000000001e14", 1000),
            ("1.00000000000000000000000000000000000000000Ki", 1_024_000),
            ("1E", 0),
            ("9223372036854775807m", i64::MAX),
            ("9223372036854775808m", 0),
            ("7Ei", 0),
            ("0e60", 0),
        ] {
            assert_eq!(milli(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "m", ".", "-", "1x", "1 ", " 1", "1mm", "1Mi2", "1e", "0x10", "1_000", "NaN", "٣"] {
            assert!(milli(text).is_err(), "{text}");
        }
        assert!(milli(&"9".repeat(100)).is_err());
        assert_eq!(milli(&"0".repeat(100)), Ok(0));
    }

    #[test]
    fn a_ratio_is_the_nearest_number() {
        assert_eq!(float("0.1"), Ok(0.1));
        assert_eq!(float("50m"), Ok(0.05));
        assert_eq!(float("0"), Ok(0.0));
    }
}
