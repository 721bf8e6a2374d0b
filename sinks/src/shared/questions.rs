//! What is the same in every backend's answers.

use tallybus_schemas::Series;
use tallybus_schemas::canonical::{MAX_KEY, is_printable};
use tallybus_sdk::{Answer, NANOS_PER_MINUTE, Question, SinkError, TimeRange};

/// The answer to a question that the sink does not know.
pub(crate) const UNKNOWN: Answer = Answer::NotOffered("this version of the sink does not know the question");

/// The question as the backend is asked: about no time before 1970, in which no sink writes, and about printable texts. A
/// question that needs no backend is answered here.
pub(crate) fn prepare(question: &Question, window: i64) -> Result<Question, Answer> {
    let mut question = question.clone();
    let empty = question.empty_answer();
    let is_empty = match &mut question {
        Question::TotalByTag { name, tag, range } => {
            // A key that no series can have gives the same answer as any other such key.
            if !is_printable(tag) || tag.is_empty() {
                *tag = "-".repeat(MAX_KEY + 1);
            }
            !is_name(name) || is_nothing(range)
        }
        Question::TopSeries { limit, range } => *limit == 0 || is_nothing(range),
        Question::SeriesByMinute { .. } if window != 0 && NANOS_PER_MINUTE % window != 0 => {
            return Err(Answer::NotOffered("the sink's window does not divide a minute"));
        }
        Question::SeriesByMinute { series, range } => !is_series(series) || is_nothing(range),
        Question::SeriesCount { range } => is_nothing(range),
        _ => return Err(UNKNOWN),
    };
    if is_empty { Err(empty) } else { Ok(question) }
}

/// Whether a counter can have the name.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && is_printable(name)
}

fn is_series(series: &Series) -> bool {
    is_name(series.name()) && series.tags().iter().all(|(key, value)| is_name(key) && is_name(value))
}

/// Leaves out what is before 1970; whether nothing is left.
fn is_nothing(range: &mut TimeRange) -> bool {
    range.from = Some(range.from.unwrap_or(0).max(0));
    range.to.is_some_and(|to| range.from >= Some(to))
}

/// A sum that a backend answers as text.
pub(crate) fn sum(text: &str) -> Result<u128, SinkError> {
    text.parse().map_err(|_| match text.parse::<i128>() {
        Ok(_) => negative(),
        Err(_) => SinkError::Unavailable(format!("the backend answered {text:?} where a sum was expected")),
    })
}

/// The error of a sum below zero, which no sink has written.
pub(crate) fn negative() -> SinkError {
    SinkError::Halt(
        "a sum is negative: another program wrote to the destination; `tallybus audit` names what it wrote".to_owned(),
    )
}
