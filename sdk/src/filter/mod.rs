//! The language in which `tap` and `count` select events: `name ~ "http.*" && status >= 500 && value > 10`.
//!
//! It is described in `docs/filters.md`. The audit uses it for series. It is in this crate, so that the selection of a sink, which
//! does not have it yet, can use it too. A filter is compiled once. What it asks about a series is answered once for each
//! series ([`Filter::ask`]); an event then takes a few comparisons and no allocation ([`Filter::takes`]).
//!
//! An expression is at most [`MOST_BYTES`] long, with [`MOST_CONDITIONS`] conditions and [`MOST_NESTED`] parentheses inside
//! each other, and patterns are matched in time that is linear in the text: no expression takes long or overflows the stack.

mod condition;
mod decimal;
mod error;
mod lexer;
mod parser;
mod pattern;

use tallybus_schemas::Series;

use crate::SeriesView;
use condition::{OfEvent, OfSeries};

pub use error::FilterError;

/// The longest expression, in bytes.
pub const MOST_BYTES: usize = 16_384;
/// The most conditions that an expression may have.
pub const MOST_CONDITIONS: usize = 60;
/// How deep parentheses may be nested.
pub const MOST_NESTED: usize = 60;

/// What an event has beside its tags, as filters name it.
pub const FIELDS: [&str; 6] = ["name", "value", "time", "topic", "partition", "offset"];

/// What a filter may ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterScope {
    /// The name and the tags of a series, so that all its events are taken or none.
    Series,
    /// Each event: also its value, time, topic, partition and offset.
    Events,
}

/// A series that a filter is asked about.
pub trait FilterSeries {
    /// The counter's name.
    fn name(&self) -> &str;

    /// The value of a tag; `None` if the series does not have it.
    fn tag(&self, key: &str) -> Option<&str>;
}

impl FilterSeries for Series {
    fn name(&self) -> &str {
        self.name()
    }

    fn tag(&self, key: &str) -> Option<&str> {
        self.tag(key)
    }
}

impl FilterSeries for SeriesView<'_> {
    fn name(&self) -> &str {
        (*self).name()
    }

    fn tag(&self, key: &str) -> Option<&str> {
        (*self).tag(key)
    }
}

/// What an event has of its own.
#[derive(Debug, Clone, Copy)]
pub struct EventFields<'a> {
    /// The increment.
    pub value: u64,
    /// Nanoseconds since the Unix epoch.
    pub time: i64,
    /// The topic of its message.
    pub topic: &'a str,
    /// The partition of its message.
    pub partition: u32,
    /// The offset of its message.
    pub offset: u64,
}

/// A compiled expression.
#[derive(Debug)]
pub struct Filter {
    root: Node,
    /// What it asks about series; the numbers are those of [`Node::Series`].
    of_series: Vec<OfSeries>,
}

/// A part of an expression. Nesting is bounded by [`MOST_NESTED`], so that recursion is too.
#[derive(Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// The number of a condition in [`Filter::of_series`], which is its bit in [`SeriesAnswer`].
    Series(u8),
    Event(OfEvent),
}

/// What a filter says about a series. Valid for the filter that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesAnswer {
    settled: Option<bool>,
    /// One bit for each condition on the series.
    held: u64,
}

impl SeriesAnswer {
    /// Whether all events of the series are taken, or none; `None` when that differs from event to event.
    pub fn settled(self) -> Option<bool> {
        self.settled
    }
}

impl Filter {
    /// A filter that takes everything.
    pub fn everything() -> Self {
        Self { root: Node::All(Vec::new()), of_series: Vec::new() }
    }

    /// Compiles an expression. Ages such as `-5m`, and `now`, are relative to `now`, in nanoseconds since the Unix epoch.
    ///
    /// # Errors
    /// Names the place that is wrong, and what was expected there.
    pub fn compile(expression: &str, scope: FilterScope, now: i64) -> Result<Self, FilterError> {
        parser::parse(expression, scope, now)
    }

    /// The same as `name ~ "pattern"`, in addition to what the filter asks already.
    ///
    /// # Errors
    /// The pattern is not a valid glob.
    pub fn and_name(self, pattern: &str) -> Result<Self, String> {
        let name = OfSeries::Name(condition::OfText::Matches(pattern::compile(pattern)?, true));
        Ok(self.and(name))
    }

    /// The same as `tag("key") == "value"` for each of these tags, in addition to what the filter asks already.
    #[must_use]
    pub fn and_tags(self, tags: &[(String, String)]) -> Self {
        if tags.is_empty() { self } else { self.and(OfSeries::HasAll(tags.into())) }
    }

    fn and(mut self, condition: OfSeries) -> Self {
        let node = Node::Series(number(self.of_series.len()));
        self.of_series.push(condition);
        self.root = match self.root {
            Node::All(mut all) => {
                all.push(node);
                Node::All(all)
            }
            root => Node::All(vec![root, node]),
        };
        self
    }

    /// What it says about a series: to be kept for as long as events of this series come.
    pub fn ask(&self, series: &dyn FilterSeries) -> SeriesAnswer {
        let mut held = 0;
        for (number, condition) in self.of_series.iter().enumerate() {
            held |= u64::from(condition.holds(series)) << number;
        }
        SeriesAnswer { settled: self.root.settled(held), held }
    }

    /// Whether it takes an event of the series that the answer is about.
    #[inline]
    pub fn takes(&self, answer: SeriesAnswer, event: &EventFields<'_>) -> bool {
        answer.settled.unwrap_or_else(|| self.root.holds(answer.held, event))
    }

    /// The keys of the tags that it asks for, each once, sorted.
    pub fn tags(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.of_series.iter().flat_map(OfSeries::keys).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// The number of a condition; see [`MOST_CONDITIONS`], to which `and_name` and `and_tags` add one each.
fn number(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX)
}

impl Node {
    /// The result where conditions on the series are enough for it.
    fn settled(&self, held: u64) -> Option<bool> {
        match self {
            Self::All(all) => combined(all, held, false),
            Self::Any(any) => combined(any, held, true),
            Self::Not(inner) => inner.settled(held).map(|holds| !holds),
            Self::Series(number) => Some(held >> number & 1 == 1),
            Self::Event(_) => None,
        }
    }

    fn holds(&self, held: u64, event: &EventFields<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|node| node.holds(held, event)),
            Self::Any(any) => any.iter().any(|node| node.holds(held, event)),
            Self::Not(inner) => !inner.holds(held, event),
            Self::Series(number) => held >> number & 1 == 1,
            Self::Event(condition) => condition.holds(event),
        }
    }
}

/// The result of several parts, of which one that comes to `decides` is enough.
fn combined(nodes: &[Node], held: u64, decides: bool) -> Option<bool> {
    let mut result = Some(!decides);
    for node in nodes {
        match node.settled(held) {
            Some(holds) if holds == decides => return Some(decides),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}
