//! Decimal numbers of any length, compared exactly and without allocation.

use std::cmp::Ordering;

use crate::text::digits;

/// The most digits that a number of an expression may have when it is written out.
pub(super) const MOST_DIGITS: usize = 40;

/// A number of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    is_negative: bool,
    /// Without leading zeros.
    whole: String,
    /// Without trailing zeros.
    fraction: String,
}

/// A number in a text.
#[derive(Debug, Clone, Copy)]
struct Digits<'t> {
    is_negative: bool,
    whole: &'t str,
    fraction: &'t str,
}

impl Decimal {
    /// Reads `500`, `-0.25`, `1_000_000`, `1e6`, `2.5e6`; `None` if it is not a number, or has too many digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (is_negative, text) = sign(text);
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, digits(exponent)?.parse::<usize>().ok()?),
            None => (text, 0),
        };
        let (whole, mut fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (digits(whole)?, digits(fraction)?),
            None => (digits(mantissa)?, String::new()),
        };
        if whole.len().saturating_add(fraction.len()).saturating_add(exponent) > MOST_DIGITS {
            return None;
        }
        while fraction.len() < exponent {
            fraction.push('0');
        }
        let (moved, fraction) = fraction.split_at(exponent);
        let whole = format!("{whole}{moved}").trim_start_matches('0').to_owned();
        let fraction = fraction.trim_end_matches('0').to_owned();
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self { is_negative: is_negative && !is_zero, whole, fraction })
    }

    /// How the number in a text compares with this one; `None` if the text is not a number: digits with at most a sign and a
    /// fraction.
    pub(super) fn order_of(&self, text: &str) -> Option<Ordering> {
        let text = Digits::of(text)?;
        let own = Digits { is_negative: self.is_negative, whole: &self.whole, fraction: &self.fraction };
        Some(text.cmp(own))
    }

    /// The same number for comparisons with whole numbers.
    pub(super) fn bound(&self) -> Bound {
        if self.is_negative {
            return Bound::Below;
        }
        let whole = if self.whole.is_empty() { Ok(0) } else { self.whole.parse() };
        match whole {
            Ok(whole) if self.fraction.is_empty() => Bound::At(whole),
            Ok(whole) => Bound::Above(whole),
            Err(_) => Bound::Beyond,
        }
    }
}

impl<'t> Digits<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let (is_negative, text) = sign(text);
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (text, ""),
        };
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let is_zero = whole.is_empty() && fraction.is_empty();
        Some(Self { is_negative: is_negative && !is_zero, whole, fraction })
    }

    fn cmp(self, other: Digits<'_>) -> Ordering {
        let magnitude = |one: Digits<'_>, other: Digits<'_>| {
            let lengths = one.whole.len().cmp(&other.whole.len());
            lengths.then_with(|| one.whole.cmp(other.whole)).then_with(|| one.fraction.cmp(other.fraction))
        };
        match (self.is_negative, other.is_negative) {
            (false, false) => magnitude(self, other),
            (true, true) => magnitude(other, self),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        }
    }
}

/// Where a number is among the whole numbers from 0 to 2^64 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// Less than 0.
    Below,
    /// This number.
    At(u64),
    /// Between this number and the next.
    Above(u64),
    /// Greater than all.
    Beyond,
}

impl Bound {
    /// How a whole number compares with this one.
    pub(super) fn order_of(self, value: u64) -> Ordering {
        match self {
            Self::Below => Ordering::Greater,
            Self::At(bound) => value.cmp(&bound),
            Self::Above(bound) if value > bound => Ordering::Greater,
            Self::Above(_) | Self::Beyond => Ordering::Less,
        }
    }
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_compare_exactly_at_any_length() {
        use Ordering::{Equal, Greater, Less};
        for (text, literal, expected) in [
            ("500", "500", Some(Equal)),
            ("0500", "5e2", Some(Equal)),
            ("500.0", "5_00", Some(Equal)),
            ("99", "500", Some(Less)),
            ("1000", "500", Some(Greater)),
            ("9007199254740993", "9007199254740992", Some(Greater)),
            ("0.5", "0.25", Some(Greater)),
            ("0.05", "0.5", Some(Less)),
            ("-1", "-2", Some(Greater)),
            ("-1", "0.5", Some(Less)),
            ("-0", "0", Some(Equal)),
            ("+7", "7", Some(Equal)),
            ("340282366920938463463374607431768211456", "2.5e6", Some(Greater)),
            ("25", "2.5e1", Some(Equal)),
            ("", "0", None),
            ("-", "0", None),
            (".5", "0", None),
            ("5.", "0", None),
            ("5e2", "0", None),
            ("1_0", "0", None),
            ("five", "0", None),
            ("٣", "0", None),
        ] {
            assert_eq!(Decimal::parse(literal).unwrap().order_of(text), expected, "{text} and {literal}");
        }
        for wrong in ["", "-", "1e", "e1", "1.", ".1", "1__0", "1e41", "0x1", "1e-3", "--1"] {
            assert_eq!(Decimal::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn whole_numbers_compare_with_fractions_and_with_numbers_that_they_do_not_reach() {
        use Ordering::{Equal, Greater, Less};
        let order = |value, literal: &str| Decimal::parse(literal).unwrap().bound().order_of(value);
        assert_eq!((order(10, "10"), order(10, "10.5"), order(11, "10.5")), (Equal, Less, Greater));
        assert_eq!(
            (order(0, "-0.5"), order(0, "0.5"), order(u64::MAX, "18446744073709551615")),
            (Greater, Less, Equal)
        );
        assert_eq!(order(u64::MAX, "18446744073709551616"), Less);
    }
}
