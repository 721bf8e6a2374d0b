//! Values in human-readable form: durations and sizes.

use std::time::Duration;

/// Reads `1s`, `250ms`, `5m`, `1h`, `1.5s`, `0s`; a unit is required except for 0.
///
/// # Errors
/// What was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a duration such as \"250ms\", \"1s\", \"5m\" or \"1h\"".to_owned();
    let (number, unit) = split_unit(text);
    let nanos_per_unit = match unit {
        "ns" => 1,
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "" if number == "0" => 1,
        _ => return Err(expected()),
    };
    let nanos = scale(number, nanos_per_unit).ok_or_else(expected)?;
    Ok(Duration::from_nanos(u64::try_from(nanos).map_err(|_| expected())?))
}

/// Reads `4 MiB`, `512KB`, `1.5 GiB` or a plain number of bytes.
///
/// # Errors
/// What was expected.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || "expected a size such as \"512 KiB\", \"4 MiB\" or a number of bytes".to_owned();
    let (number, unit) = split_unit(text);
    let bytes_per_unit = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "k" => 1_000,
        "kib" => 1 << 10,
        "mb" | "m" => 1_000_000,
        "mib" => 1 << 20,
        "gb" | "g" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return Err(expected()),
    };
    let bytes = scale(number, bytes_per_unit).ok_or_else(expected)?;
    u64::try_from(bytes).map_err(|_| expected())
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    (number, unit.trim())
}

/// A decimal number times a whole one, exactly, so that `0.1s` is 100 ms; `None` when a remainder is left.
fn scale(number: &str, by: u128) -> Option<u128> {
    let number = number.replace('_', "");
    let (whole, fraction) = number.split_once('.').unwrap_or((&number, ""));
    if whole.is_empty() || number.ends_with('.') || fraction.len() > 18 {
        return None;
    }
    let mut total = whole.parse::<u128>().ok()?.checked_mul(by)?;
    if !fraction.is_empty() {
        let scaled = fraction.parse::<u128>().ok()?.checked_mul(by)?;
        let divisor = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        if scaled % divisor != 0 {
            return None;
        }
        total = total.checked_add(scaled / divisor)?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let ms = Duration::from_millis;
        for (text, duration) in [
            ("1s", ms(1_000)),
            ("250ms", ms(250)),
            ("5m", ms(300_000)),
            ("1h", ms(3_600_000)),
            ("0s", ms(0)),
            ("0", ms(0)),
            (" 1.5 s ", ms(1_500)),
            ("0.1s", ms(100)),
            ("1_000ms", ms(1_000)),
        ] {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
        for text in ["", "s", "1", "-1s", "1 parsec", "1.s", ".5s", "1.2.3s", "0.0000000001s", "99999999999999999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("4 MiB", 4 << 20), ("512KB", 512_000), ("17", 17), ("1.5 kib", 1_536), ("0", 0), ("2b", 2)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "4 miles", "0.3 b", "340282366920938463463374607431768211455 gib"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
