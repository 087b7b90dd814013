//! Reads decimal numbers in few bytes of code: the parser of the standard library brings 15 KB for a 16th digit.

/// Returns the number of a text such as `0.7`, `.5`, `+1.` or `1e-3`; infinity where it is too large. Of a number with
/// more than 15 digits the last bit may be another than the nearest.
pub fn parse_float(text: &str) -> Option<f64> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let of_exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_number = are_digits(whole)
        && are_digits(fraction)
        && are_digits(of_exponent)
        && !of_exponent.is_empty()
        && !(whole.is_empty() && fraction.is_empty());
    if !is_number {
        return None;
    }
    // JSON wants digits around the point, and no zeros before others.
    let json = format!("0{whole}");
    let whole = json.trim_start_matches('0');
    let json = format!("{}.{fraction}0e{exponent}", if whole.is_empty() { "0" } else { whole });
    let number = serde_json::from_str(&json).unwrap_or(f64::INFINITY);
    Some(if is_negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_standard_library() {
        for text in [
            "0",
            "1",
            "-1",
            "+1",
            "0.7",
            "-0.7",
            ".5",
            "5.",
            "1e3",
            "1E3",
            "1e-3",
            "1e+3",
            "00.10",
            "007",
            "1.5e2",
            "123456789012345",
            "1e308",
            "1e400",
            "-1e400",
            "1e-400",
            "0e999999999999",
        ] {
            assert_eq!(parse_float(text), text.parse().ok(), "{text}");
        }
        for text in [
            "", ".", "-", "+", "e1", "1e", "1e+", "1_0", " 1", "1 ", "0x1", "1.2.3", "--1", "inf", "NaN", "١",
        ] {
            assert_eq!(parse_float(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_of_15_digits_are_exact(digits in 0..1_000_000_000_000_000_u64, point in 0..15_usize, minus: bool) {
            let mut text = format!("{digits:015}");
            text.insert(point, '.');
            let text = if minus { format!("-{text}") } else { text };
            prop_assert_eq!(parse_float(&text), text.parse().ok());
        }

        #[test]
        fn numbers_of_any_length_are_near(number in prop::num::f64::NORMAL) {
            let text = format!("{number:e}");
            let parsed = parse_float(&text).unwrap();
            prop_assert!((parsed / number - 1.0).abs() < 1e-15, "{} {}", parsed, number);
        }
    }
}
