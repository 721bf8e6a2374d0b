use globset::{Glob, GlobMatcher};
use tallybus_sdk::TimeRange;

use super::{DeadLetterEntry, DeadLetterIndex, State};

/// The maximum number of replays of a dead letter, unless forced.
pub const MOST_REPLAYS: u32 = 3;

/// A text that must be part of a reason, or a glob that must match all of it.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// The reason contains it.
    Text(String),
    /// It matches the whole reason.
    Glob(GlobMatcher),
}

impl Pattern {
    /// A text with one of `*?[{` is a glob.
    ///
    /// # Errors
    /// It is not a valid glob, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(Self::Text(text.to_owned()));
        }
        Glob::new(text).map(|glob| Self::Glob(glob.compile_matcher())).map_err(|error| error.to_string())
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Text(part) => text.contains(part.as_str()),
            Self::Glob(glob) => glob.is_match(text),
        }
    }
}

/// Selects dead letters; all of them by default.
#[derive(Debug, Default)]
pub struct Filter {
    /// Those with a matching reason.
    pub reason: Option<Pattern>,
    /// Those of a counter whose name matches; undecodable records have no name.
    pub name: Option<GlobMatcher>,
    /// Those of events, or of undecodable records, in this time range.
    pub range: TimeRange,
    /// These, by key; all when empty.
    pub keys: Vec<String>,
}

impl Filter {
    /// Whether the dead letter is selected.
    pub fn takes(&self, dead_letter: &DeadLetterEntry) -> bool {
        let time = dead_letter
            .event
            .as_ref()
            .map_or_else(|| dead_letter.time_ms.saturating_mul(1_000_000), |event| event.time);
        let name = dead_letter.event.as_ref().map(|event| event.series.name());
        (self.keys.is_empty() || self.keys.contains(&dead_letter.key))
            && self.reason.as_ref().is_none_or(|pattern| pattern.matches(&dead_letter.reason))
            && self.name.as_ref().is_none_or(|glob| name.is_some_and(|name| glob.is_match(name)))
            && self.range.contains(time)
    }
}

/// A request to replay dead letters.
#[derive(Debug, Default)]
pub struct Choice {
    /// Which dead letters.
    pub filter: Filter,
    /// The maximum number of them, the oldest first.
    pub limit: Option<usize>,
    /// Include dead letters that were replayed and refused again, up to [`MOST_REPLAYS`] times.
    pub again: bool,
    /// Include them however often they were refused.
    pub force: bool,
}

/// The dead letters to be replayed.
#[derive(Debug, Default)]
pub struct Plan<'l> {
    /// The chosen ones.
    pub chosen: Vec<&'l DeadLetterEntry>,
    /// Those that the filter selects but that are not chosen.
    pub skipped: Skipped,
}

/// How many dead letters are not chosen, and why.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// Replayed before, or chosen for it.
    pub chosen_before: u64,
    /// Refused again before; replayed only on request.
    pub refused_again: u64,
    /// Refused so often that a replay must be forced.
    pub too_often: u64,
    /// Their batch is not settled yet.
    pub unsettled: u64,
    /// An event that was truncated to fit the topic: the end of its payload is lost.
    pub cut: u64,
}

/// Why a dead letter is not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// See [`Skipped::chosen_before`].
    ChosenBefore,
    /// See [`Skipped::refused_again`].
    RefusedAgain,
    /// See [`Skipped::too_often`].
    TooOften,
    /// See [`Skipped::unsettled`].
    Unsettled,
    /// See [`Skipped::cut`].
    Cut,
}

impl DeadLetterEntry {
    /// Why it cannot be replayed, or only on request; `None` when it can.
    pub fn why_not(&self, again: bool, force: bool) -> Option<Why> {
        match self.state {
            State::Chosen | State::Replayed | State::RefusedAgain(_) => Some(Why::ChosenBefore),
            State::Unsettled => Some(Why::Unsettled),
            // It is no longer known which of a message's events it sums.
            State::Dead if self.cut_from.is_some() && self.events > 0 => Some(Why::Cut),
            State::Dead if force => None,
            State::Dead if self.replays >= MOST_REPLAYS => Some(Why::TooOften),
            State::Dead if self.replays > 0 && !again => Some(Why::RefusedAgain),
            State::Dead => None,
        }
    }
}

impl DeadLetterIndex {
    /// The dead letter of this key.
    pub fn find(&self, key: &str) -> Option<&DeadLetterEntry> {
        self.by_key.get(key).map(|place| &self.dead_letters[*place])
    }

    /// Chooses the dead letters to be replayed.
    pub fn plan(&self, choice: &Choice) -> Plan<'_> {
        let mut plan = Plan::default();
        for dead_letter in self.dead_letters.iter().filter(|dead_letter| choice.filter.takes(dead_letter)) {
            match dead_letter.why_not(choice.again, choice.force) {
                None if choice.limit.is_none_or(|limit| plan.chosen.len() < limit) => plan.chosen.push(dead_letter),
                None => {}
                Some(Why::ChosenBefore) => plan.skipped.chosen_before += 1,
                Some(Why::RefusedAgain) => plan.skipped.refused_again += 1,
                Some(Why::TooOften) => plan.skipped.too_often += 1,
                Some(Why::Unsettled) => plan.skipped.unsettled += 1,
                Some(Why::Cut) => plan.skipped.cut += 1,
            }
        }
        plan
    }
}
