//! Whole numbers as arguments, with messages that say what is accepted.

use tallybus_sdk::text::digits;

/// A whole number from 0.
///
/// # Errors
/// What was expected.
pub(crate) fn whole(text: &str) -> Result<u64, String> {
    number(text, 0, u64::MAX)
}

/// A whole number from 0 that counts something in memory.
///
/// # Errors
/// What was expected.
pub(crate) fn count(text: &str) -> Result<usize, String> {
    let most = u64::try_from(usize::MAX).unwrap_or(u64::MAX);
    usize::try_from(number(text, 0, most)?).map_err(|error| error.to_string())
}

/// A whole number from 1.
///
/// # Errors
/// What was expected.
pub(crate) fn positive(text: &str) -> Result<u64, String> {
    number(text, 1, u64::MAX)
}

/// A number of partitions.
///
/// # Errors
/// What was expected.
pub(crate) fn partitions(text: &str) -> Result<u32, String> {
    u32::try_from(number(text, 1, u64::from(u32::MAX))?).map_err(|error| error.to_string())
}

fn number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    parse(text).filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        let shown = if most == u64::MAX { "2^64-1".to_owned() } else { most.to_string() };
        // Not taken as it is: where the comma is the decimal sign, `1,500` is one and a half.
        let without_commas = text.contains(',').then(|| text.replace(',', "_"));
        let hint = without_commas
            .filter(|other| parse(other).is_some_and(|number| (least..=most).contains(&number)))
            .map(|other| format!("; if `{text}` has commas between thousands, write {other}"));
        format!(
            "expected a whole number from {least} to {shown}, such as 1000000, 1_000_000 or 1e6{}",
            hint.unwrap_or_default()
        )
    })
}

/// Digits, with `_` between them where it helps to read; and a power of ten, before which there may be a fraction if the number
/// is a whole one: `1000000`, `1_000_000`, `1e6`, `2.5e6`. No sign: `+5` and `-5` are none.
fn parse(text: &str) -> Option<u64> {
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else { return digits(text)?.parse().ok() };
    let exponent: usize = digits(exponent)?.parse().ok()?;
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, digits(fraction)?),
        None => (digits(mantissa)?, String::new()),
    };
    let fraction = fraction.trim_end_matches('0');
    let zeros = exponent.checked_sub(fraction.len())?;
    let significant = format!("{whole}{fraction}");
    match significant.trim_start_matches('0') {
        "" => Some(0),
        // 2^64 has 20 digits.
        significant if significant.len().saturating_add(zeros) <= 20 => {
            format!("{significant}{}", "0".repeat(zeros)).parse().ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_and_powers_of_ten_are_numbers() {
        for (text, expected) in [
            ("0", 0),
            ("007", 7),
            ("1_000_000", 1_000_000),
            ("1e6", 1_000_000),
            ("1E6", 1_000_000),
            ("2.5e6", 2_500_000),
            ("1.50e1", 15),
            ("1_2.5e1", 125),
            ("0e99999999999", 0),
            ("0.0e0", 0),
            ("5e0", 5),
            ("18446744073709551615", u64::MAX),
            ("1.8446744073709551615e19", u64::MAX),
        ] {
            assert_eq!(whole(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_whole_number_is_refused_with_what_is_accepted() {
        for wrong in [
            "",
            "1.5",
            "1.55e1",
            "1.0",
            "-5",
            "+5",
            "-1e6",
            "1e-6",
            "e6",
            "1e",
            ".5e1",
            "1.e6",
            "_1",
            "1__0",
            "1_",
            "1e20",
            "1e18446744073709551616",
            "0x10",
            " 1",
            "many",
            "18446744073709551616",
        ] {
            let refused = whole(wrong).unwrap_err();
            assert_eq!(
                refused, "expected a whole number from 0 to 2^64-1, such as 1000000, 1_000_000 or 1e6",
                "{wrong}"
            );
        }
        assert_eq!((count("7"), positive("18446744073709551615")), (Ok(7), Ok(u64::MAX)));
        assert!(positive("0").is_err() && partitions("0").is_err() && partitions("4294967296").is_err());
    }

    #[test]
    fn commas_between_thousands_are_refused_with_what_to_write() {
        let refused = positive("1,000,000").unwrap_err();
        assert!(refused.ends_with("; if `1,000,000` has commas between thousands, write 1_000_000"), "{refused}");
        for wrong in [",", "1,", "0,0", "a,b", "1,5.0"] {
            assert!(!positive(wrong).unwrap_err().contains("write "), "{wrong}");
        }
    }
}
