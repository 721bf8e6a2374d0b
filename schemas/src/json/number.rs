//! The text of a number in a tag: equal numbers have one text, however their producers write them.

use std::borrow::Cow;

use crate::canonical::MAX_VALUE;

/// Whether this is a number in JSON's grammar that is already in the form that [`canonical`] gives it.
pub(super) fn is_canonical(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if whole == 0 || (whole > 1 && digits[0] == b'0') {
        return false;
    }
    match &digits[whole..] {
        [] => text != b"-0",
        [b'.', fraction @ ..] => {
            fraction.iter().all(u8::is_ascii_digit) && fraction.last().is_some_and(|last| *last != b'0')
        }
        _ => false,
    }
}

/// The text of a number: without exponent, sign of zero or superfluous zeros, so `200`, `200.0` and `2e2` have one text.
///
/// # Errors
/// The number has more digits than a tag's value may have, or is not one in JSON's grammar.
pub(super) fn canonical(written: &str) -> Result<Cow<'_, str>, &'static str> {
    const TOO_LONG: &str = "the number has more digits than a tag's value may have";
    if is_canonical(written.as_bytes()) {
        return Ok(Cow::Borrowed(written));
    }
    let (sign, unsigned) = written.strip_prefix('-').map_or(("", written), |unsigned| ("-", unsigned));
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("must be a string, a number, true or false");
    }
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(Cow::Borrowed("0"));
    }
    if digits.len() > MAX_VALUE {
        return Err(TOO_LONG);
    }
    let exponent: i32 = exponent.parse().map_err(|_| TOO_LONG)?;
    // Where the decimal point stands, counted from the first significant digit.
    let place = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let point = exponent.saturating_add(place(whole.len()) - place(digits.len() - significant.len()));
    let (before, zeros) =
        if point <= 0 { (0, point.unsigned_abs() as usize) } else { (point.unsigned_abs() as usize, 0) };
    if before.max(zeros + "0.".len()) > MAX_VALUE {
        return Err(TOO_LONG);
    }
    let significant = significant.trim_end_matches('0');
    Ok(Cow::Owned(match significant.split_at_checked(before) {
        _ if before == 0 => format!("{sign}0.{}{significant}", "0".repeat(zeros)),
        Some((whole, "")) => format!("{sign}{whole}"),
        Some((whole, fraction)) => format!("{sign}{whole}.{fraction}"),
        None => format!("{sign}{significant}{}", "0".repeat(before - significant.len())),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_numbers_have_one_text() {
        for (text, written) in [
            ("200", &["200", "200.0", "2e2", "2E+2", "0.02e4", "20000e-2", "200.000"][..]),
            ("0", &["0", "-0", "0.0", "-0.0e5", "0e99"]),
            ("-1.5", &["-1.5", "-1.50", "-15e-1", "-0.15e1"]),
            ("0.001", &["0.001", "1e-3", "0.0010", "0.1e-2"]),
            ("1000000000000000000000", &["1e21", "1000000000000000000000", "1000000000000000000000.0"]),
            ("12345678901234567890.5", &["12345678901234567890.5", "1234567890123456789050e-2"]),
        ] {
            for written in written {
                assert_eq!(canonical(written).unwrap(), text, "{written}");
            }
        }
    }

    #[test]
    fn a_number_too_long_for_a_tag_is_refused() {
        for written in ["1e1025", "1e-1025", "1e99999999999999999999", "1e-99999999999999999999"] {
            assert!(canonical(written).unwrap_err().contains("more digits"), "{written}");
        }
        assert_eq!(canonical("1e300").unwrap().len(), 301);
    }

    proptest! {
        #[test]
        fn the_text_is_canonical_and_means_the_same(
            written in "-?(0|[1-9][0-9]{0,18})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?",
        ) {
            let text = canonical(&written).unwrap();
            prop_assert!(is_canonical(text.as_bytes()), "{written} {text}");
            prop_assert_eq!(canonical(&text).unwrap(), text.clone());
            let (before, after): (f64, f64) = (written.parse().unwrap(), text.parse().unwrap());
            prop_assert!(before == after, "{} {}", written, text);
        }
    }
}
