use crate::text::grouped;

/// What is shown where a figure is not known.
pub(crate) const NOT_KNOWN: &str = "not known";

/// What an axis measures, and how its figures are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A number of things, named in the plural: `messages`, `events/s`.
    Count(&'static str),
    /// Bytes, in powers of a thousand.
    Bytes,
    /// A length of time, measured in seconds.
    Seconds,
    /// A share of all things of this name, from 0 to 1, written in per cent.
    Share(&'static str),
}

impl Unit {
    /// The axis's title.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Count(what) => what.to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Seconds => "time".to_owned(),
            Self::Share(what) => format!("share of {what}"),
        }
    }

    /// A figure in short, with three significant digits: `0`, `250`, `1.5 M`, `20 ms`, `50%`.
    pub(crate) fn short(self, value: f64) -> String {
        if !value.is_finite() {
            return NOT_KNOWN.to_owned();
        }
        match self {
            Self::Count(_) => scaled(value, &["", " k", " M", " G", " T"]),
            Self::Bytes => scaled(value, &[" B", " kB", " MB", " GB", " TB", " PB", " EB"]),
            Self::Seconds => time(value),
            Self::Share(_) => format!("{}%", significant(value * 100.0, 5)),
        }
    }

    /// A figure for a table: counts to the last digit.
    pub(crate) fn exact(self, value: Option<f64>) -> String {
        let Some(value) = known(value) else { return NOT_KNOWN.to_owned() };
        match self {
            Self::Count(_) if value.fract() == 0.0 && value.abs() < 1e15 => whole(value),
            _ => self.short(value),
        }
    }
}

/// A figure that can be drawn; what is no number is not known.
pub(crate) fn known(value: Option<f64>) -> Option<f64> {
    value.filter(|value| value.is_finite())
}

fn scaled(value: f64, suffixes: &[&str]) -> String {
    let size = value.abs();
    // Four digits are as short as two with a prefix.
    if (1_000.0..10_000.0).contains(&size) && value.fract() == 0.0 && suffixes.first() == Some(&"") {
        return whole(value);
    }
    let mut scaled = value;
    for suffix in suffixes {
        // What rounds to a thousand is one of the next unit.
        if scaled.abs() < 999.5 {
            let text = significant(scaled, 3);
            return if value == 0.0 { text } else { format!("{text}{suffix}") };
        }
        scaled /= 1_000.0;
    }
    format!("{value:.1e}").replace(".0e", "e")
}

fn time(seconds: f64) -> String {
    let size = seconds.abs();
    if size == 0.0 {
        return "0 s".to_owned();
    }
    let units = [(1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (f64::INFINITY, 1.0, "s")];
    let unit = units.into_iter().find(|(below, factor, _)| size < *below && (size * factor).abs() < 999.5);
    match unit {
        Some((_, factor, unit)) => format!("{} {unit}", significant(seconds * factor, 3)),
        None if size < 1e9 => format!("{} s", whole(seconds.round())),
        None => format!("{seconds:.1e} s").replace(".0e", "e"),
    }
}

/// A number with this many significant digits, without zeros at the end.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.abs() < 1e-4 {
        return format!("{value:.1e}").replace(".0e", "e");
    }
    let before = value.abs().log10().floor().max(-4.0);
    let mut places = 0;
    while (places as f64) < digits as f64 - 1.0 - before {
        places += 1;
    }
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A whole number below 10^15, grouped by thousands.
fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let sign = if value < 0.0 { "-" } else { "" };
    match digits.parse::<u64>() {
        Ok(number) => format!("{sign}{}", grouped(number)),
        Err(_) => format!("{sign}{digits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_whatever_their_size() {
        let count = Unit::Count("events");
        for (unit, value, expected) in [
            (count, 0.0, "0"),
            (count, 0.25, "0.25"),
            (count, 0.000_01, "1e-5"),
            (count, 7.0, "7"),
            (count, 999.6, "1 k"),
            (count, 1_500.0, "1,500"),
            (count, 250_000.0, "250 k"),
            (count, 999_999.0, "1 M"),
            (count, -1_234_567.0, "-1.23 M"),
            (count, 1e18, "1e18"),
            (count, f64::MAX, "1.8e308"),
            (Unit::Bytes, 0.0, "0"),
            (Unit::Bytes, 1_500.0, "1.5 kB"),
            (Unit::Bytes, 1e18, "1 EB"),
            (Unit::Seconds, 0.0, "0 s"),
            (Unit::Seconds, 2e-9, "2 ns"),
            (Unit::Seconds, 0.000_25, "250 µs"),
            (Unit::Seconds, 0.999_9, "1 s"),
            (Unit::Seconds, 0.02, "20 ms"),
            (Unit::Seconds, 6.25, "6.25 s"),
            (Unit::Seconds, 86_400.0, "86,400 s"),
            (Unit::Seconds, 1e18, "1e18 s"),
            (Unit::Share("probes"), 0.5, "50%"),
            (Unit::Share("probes"), 0.999, "99.9%"),
        ] {
            assert_eq!(unit.short(value), expected, "{value}");
        }
    }

    #[test]
    fn a_table_has_counts_to_the_last_digit_and_no_number_for_what_is_not_known() {
        let count = Unit::Count("events");
        assert_eq!(count.exact(Some(1_234_567.0)), "1,234,567");
        assert_eq!(count.exact(Some(1e18)), "1e18");
        for unknown in [None, Some(f64::NAN), Some(f64::INFINITY)] {
            assert_eq!(count.exact(unknown), "not known");
        }
    }
}
