//! Single conditions of an expression.

use std::cmp::Ordering;

use globset::GlobMatcher;

use super::decimal::{Bound, Decimal};
use super::lexer::Operator;
use super::{EventFields, FilterSeries};

/// How two values must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Differs,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// `None` for the operators of patterns.
    pub(super) fn of(operator: Operator) -> Option<Self> {
        Some(match operator {
            Operator::Equal => Self::Equal,
            Operator::Differs => Self::Differs,
            Operator::Less => Self::Less,
            Operator::LessOrEqual => Self::LessOrEqual,
            Operator::Greater => Self::Greater,
            Operator::GreaterOrEqual => Self::GreaterOrEqual,
            Operator::Matches | Operator::MatchesNot => return None,
        })
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Differs => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A condition that a text meets or not.
#[derive(Debug)]
pub(super) enum OfText {
    Compares(Comparison, Box<str>),
    /// As a number. A text that is no number differs from every number, and is neither less nor greater.
    ComparesAsNumber(Comparison, Decimal),
    /// The flag: whether the pattern must match.
    Matches(GlobMatcher, bool),
    /// Sorted texts, and numbers.
    OneOf(Box<[Box<str>]>, Box<[Decimal]>),
}

impl OfText {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Compares(comparison, other) => comparison.holds(text.cmp(other)),
            Self::ComparesAsNumber(comparison, number) => match number.order_of(text) {
                Some(order) => comparison.holds(order),
                None => *comparison == Comparison::Differs,
            },
            Self::Matches(pattern, must_match) => pattern.is_match(text) == *must_match,
            Self::OneOf(texts, numbers) => {
                texts.binary_search_by(|other| (**other).cmp(text)).is_ok()
                    || numbers.iter().any(|number| number.order_of(text) == Some(Ordering::Equal))
            }
        }
    }
}

/// A condition that all events of a series meet, or none.
#[derive(Debug)]
pub(super) enum OfSeries {
    Name(OfText),
    /// A tag that the series does not have meets no condition.
    Tag(Box<str>, OfText),
    Has(Box<str>),
    HasAll(Box<[(String, String)]>),
}

impl OfSeries {
    pub(super) fn holds(&self, series: &dyn FilterSeries) -> bool {
        match self {
            Self::Name(condition) => condition.holds(series.name()),
            Self::Tag(key, condition) => series.tag(key).is_some_and(|value| condition.holds(value)),
            Self::Has(key) => series.tag(key).is_some(),
            Self::HasAll(tags) => tags.iter().all(|(key, value)| series.tag(key) == Some(value)),
        }
    }

    /// The keys of the tags that it asks for.
    pub(super) fn keys(&self) -> Vec<&str> {
        match self {
            Self::Name(_) => Vec::new(),
            Self::Tag(key, _) | Self::Has(key) => vec![key],
            Self::HasAll(tags) => tags.iter().map(|(key, _)| key.as_str()).collect(),
        }
    }
}

/// A condition on a whole number.
#[derive(Debug)]
pub(super) enum OfNumber {
    Compares(Comparison, Bound),
    OneOf(Box<[Bound]>),
}

impl OfNumber {
    fn holds(&self, number: u64) -> bool {
        match self {
            Self::Compares(comparison, bound) => comparison.holds(bound.order_of(number)),
            Self::OneOf(all) => all.iter().any(|bound| bound.order_of(number).is_eq()),
        }
    }
}

/// A condition on a time.
#[derive(Debug)]
pub(super) enum OfTime {
    Compares(Comparison, i64),
    OneOf(Box<[i64]>),
}

/// A condition on what each event has of its own.
#[derive(Debug)]
pub(super) enum OfEvent {
    Value(OfNumber),
    Time(OfTime),
    Topic(OfText),
    Partition(OfNumber),
    Offset(OfNumber),
}

impl OfEvent {
    pub(super) fn holds(&self, event: &EventFields<'_>) -> bool {
        match self {
            Self::Value(condition) => condition.holds(event.value),
            Self::Time(OfTime::Compares(comparison, time)) => comparison.holds(event.time.cmp(time)),
            Self::Time(OfTime::OneOf(times)) => times.contains(&event.time),
            Self::Topic(condition) => condition.holds(event.topic),
            Self::Partition(condition) => condition.holds(u64::from(event.partition)),
            Self::Offset(condition) => condition.holds(event.offset),
        }
    }
}
