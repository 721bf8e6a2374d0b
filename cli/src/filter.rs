//! Which events a command is about.

use clap::Args;
use tallybus_bus::Record;
use tallybus_schemas::Series;
use tallybus_sdk::filter::{EventFields, Filter, FilterScope, SeriesAnswer};
use tallybus_verify::audit::Row;

use crate::failure::Failure;
use crate::tags::KnownTags;
use crate::times;

/// The options that select events. All that are given must be met.
#[derive(Debug, Args)]
pub(crate) struct FilterArgs {
    /// Only events that meet these conditions, such as 'name ~ "http.*" && status >= 500 && value > 10'. docs/filters.md
    /// describes them.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Only counters whose name matches: short for --filter 'name ~ "GLOB"'.
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// Only series with this tag: short for --filter 'KEY == "VALUE"'; repeatable.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
}

impl FilterArgs {
    /// # Errors
    /// The expression or the pattern is wrong.
    pub(crate) fn compile(&self) -> Result<Selected, Failure> {
        let now = times::now().map_err(Failure::could_not_look)?;
        let filter = match &self.filter {
            None => Filter::everything(),
            Some(expression) => Filter::compile(expression, FilterScope::Events, now)
                .map_err(|error| Failure::could_not_look(format!("--filter: {error}")))?,
        };
        let filter = match &self.name {
            None => filter,
            Some(pattern) => {
                filter.and_name(pattern).map_err(|error| Failure::could_not_look(format!("--name: {error}")))?
            }
        };
        let filter = filter.and_tags(&self.tags);
        let asked = KnownTags::asked_for(filter.tags());
        Ok(Selected { filter, answers: Vec::new(), asked })
    }
}

/// A filter and its answers to the series that have been seen.
#[derive(Debug)]
pub(crate) struct Selected {
    filter: Filter,
    /// By series number.
    answers: Vec<Option<SeriesAnswer>>,
    asked: KnownTags,
}

impl Selected {
    /// Whether an event of a record is selected.
    #[inline]
    pub(crate) fn takes(&mut self, record: &Record<'_>, row: &Row, series: &Series) -> bool {
        let place = row.series as usize;
        let answer = match self.answers.get(place) {
            Some(Some(answer)) => *answer,
            _ => self.ask(place, series),
        };
        let event = EventFields {
            value: row.value,
            time: row.time,
            topic: record.topic,
            partition: record.partition,
            offset: record.offset,
        };
        self.filter.takes(answer, &event)
    }

    fn ask(&mut self, place: usize, series: &Series) -> SeriesAnswer {
        if self.answers.len() <= place {
            self.answers.resize(place + 1, None);
        }
        let answer = self.filter.ask(series);
        self.answers[place] = Some(answer);
        self.asked.see(series);
        answer
    }

    /// The numbers of series begin again at 0.
    pub(crate) fn forget_series(&mut self) {
        self.answers.clear();
    }

    /// A note for each tag that the filter asks for and no event has had: it may be misspelt.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.asked.unknown()
    }
}

/// Reads `key=value`.
///
/// # Errors
/// What was expected.
pub(crate) fn parse_tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected key=value".to_owned()),
    }
}
