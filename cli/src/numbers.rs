//! Whole numbers as arguments, with messages that say what is accepted.

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
    // `parse` would accept a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && (least..=most).contains(number)).ok_or_else(|| {
        let most = if most == u64::MAX { "2^64-1".to_owned() } else { most.to_string() };
        format!(
            "expected a whole number from {least} to {most}, in digits only: no sign, fraction, exponent or separator"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_number_is_refused_with_what_is_accepted() {
        for wrong in ["", "1.5", "-5", "+5", "1e6", "1_000_000", "1,000", "many", "18446744073709551616"] {
            let refused = whole(wrong).unwrap_err();
            assert!(
                refused.starts_with("expected a whole number from 0 to 2^64-1, in digits only"),
                "{wrong}: {refused}"
            );
        }
        assert_eq!((whole("0"), count("7"), positive("18446744073709551615")), (Ok(0), Ok(7), Ok(u64::MAX)));
        assert!(positive("0").is_err() && partitions("0").is_err() && partitions("4294967296").is_err());
    }
}
