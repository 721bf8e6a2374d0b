use std::fmt;

use serde::{Deserialize, Serialize};

/// A figure that was measured, or the reason why it is not known. Never a stand-in such as 0.
///
/// In JSON `{"value": 5}` or `{"value": null, "unknown": "reason"}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written<T>", into = "Written<T>", bound(serialize = "T: Clone + Serialize"))]
pub enum Known<T> {
    /// Measured.
    Is(T),
    /// Not known: the reason, for people.
    Unknown(String),
}

impl<T> Known<T> {
    /// Not known, for this reason.
    pub fn unknown(reason: impl fmt::Display) -> Self {
        Self::Unknown(reason.to_string())
    }

    /// The figure, if it is known.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Why it is not known; `None` when it is.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Is(_) => None,
            Self::Unknown(reason) => Some(reason),
        }
    }

    /// Another figure that follows from this one; unknown for the same reason.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Self::Is(value) => Known::Is(change(value)),
            Self::Unknown(reason) => Known::Unknown(reason),
        }
    }
}

/// How it is written.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written<T> {
    value: Option<T>,
    #[serde(default = "no_reason", skip_serializing_if = "Option::is_none")]
    unknown: Option<String>,
}

fn no_reason() -> Option<String> {
    None
}

impl<T> From<Known<T>> for Written<T> {
    fn from(known: Known<T>) -> Self {
        match known {
            Known::Is(value) => Self { value: Some(value), unknown: None },
            Known::Unknown(reason) => Self { value: None, unknown: Some(reason) },
        }
    }
}

impl<T> TryFrom<Written<T>> for Known<T> {
    type Error = &'static str;

    fn try_from(written: Written<T>) -> Result<Self, Self::Error> {
        match written {
            Written { value: Some(value), unknown: None } => Ok(Self::Is(value)),
            Written { value: None, unknown: Some(reason) } => Ok(Self::Unknown(reason)),
            Written { value: None, unknown: None } => Err("a figure that is not known needs the reason in `unknown`"),
            Written { value: Some(_), unknown: Some(_) } => Err("a figure cannot be known and unknown"),
        }
    }
}

/// A sum of values: decimal digits in a string, because it may exceed what JSON readers keep exactly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Total(pub u128);

impl From<Total> for String {
    fn from(total: Total) -> Self {
        total.0.to_string()
    }
}

impl TryFrom<String> for Total {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, to_string};

    use super::*;

    #[test]
    fn what_is_not_known_is_null_with_its_reason_and_is_read_back() {
        for (known, text) in [
            (Known::Is(5_u64), r#"{"value":5}"#),
            (Known::Is(0), r#"{"value":0}"#),
            (Known::unknown("not asked"), r#"{"value":null,"unknown":"not asked"}"#),
        ] {
            assert_eq!(to_string(&known).unwrap(), text);
            assert_eq!(from_str::<Known<u64>>(text).unwrap(), known);
        }
    }

    #[test]
    fn a_null_without_a_reason_is_not_read() {
        for text in [r#"{"value":null}"#, "{}", r#"{"value":1,"unknown":"x"}"#, "null", r#"{"value":1,"more":2}"#] {
            assert!(from_str::<Known<u64>>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_total_beyond_64_bits_keeps_every_digit() {
        let total = Total(u128::MAX);
        assert_eq!(to_string(&total).unwrap(), "\"340282366920938463463374607431768211455\"");
        assert_eq!(from_str::<Total>(&to_string(&total).unwrap()).unwrap(), total);
        assert!(from_str::<Total>("\"-1\"").is_err());
    }
}
