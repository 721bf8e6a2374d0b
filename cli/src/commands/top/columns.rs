//! The columns of the tables: title, text, and what rows are sorted by.

use std::cmp::Ordering;
use std::time::Duration;

use tallybus_verify::live::{CatchUp, PartitionPicture, SinkPicture, TopicPicture};

use crate::text;

/// A cell whose figure is not known.
const UNKNOWN: &str = "-";

/// A column of a table whose rows are `R`.
pub(in crate::commands) struct Column<R> {
    pub(in crate::commands) title: &'static str,
    pub(in crate::commands) is_right: bool,
    /// Where the width does not suffice, columns of a higher rank go first. Those of rank 0 stay.
    pub(super) rank: u8,
    pub(in crate::commands) text: fn(&R) -> String,
    /// What rows are sorted by.
    pub(in crate::commands) by: fn(&R) -> By,
}

/// What a row is sorted by; unknown figures come last.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::commands) enum By {
    Text(String),
    /// Larger ones first.
    Number(Option<f64>),
}

impl By {
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Number(Some(a)), Self::Number(Some(b))) => b.total_cmp(a),
            (Self::Number(a), Self::Number(b)) => a.is_none().cmp(&b.is_none()),
            _ => Ordering::Equal,
        }
    }
}

const fn left<R>(title: &'static str, rank: u8, text: fn(&R) -> String, by: fn(&R) -> By) -> Column<R> {
    Column { title, is_right: false, rank, text, by }
}

const fn right<R>(title: &'static str, rank: u8, text: fn(&R) -> String, by: fn(&R) -> By) -> Column<R> {
    Column { title, is_right: true, rank, text, by }
}

/// The title of the column of reasons.
pub(super) const WHY: &str = "WHY";

/// The columns of sinks.
pub(in crate::commands) const SINKS: &[Column<SinkPicture>] = &[
    left("SINK", 0, |sink| sink.name.clone(), |sink| By::Text(sink.name.clone())),
    left("STATE", 2, |sink| sink.state.name().to_owned(), |sink| By::Text(format!("{:02}", sink.state as u8))),
    right("LAG", 1, |sink| count(sink.lag_messages), |sink| by_count(sink.lag_messages)),
    right("OLDEST", 4, |sink| seconds(sink.lag_seconds), |sink| By::Number(sink.lag_seconds)),
    right("IN/S", 6, |sink| rate(sink.arriving_per_second), |sink| By::Number(sink.arriving_per_second)),
    right("OUT/S", 5, |sink| rate(sink.settled_per_second), |sink| By::Number(sink.settled_per_second)),
    right("CATCH UP", 3, |sink| catch_up(sink.catch_up), |sink| by_catch_up(sink.catch_up)),
    right("DEAD", 7, |sink| count(sink.dead_letters), |sink| by_count(sink.dead_letters)),
    right("SEALED", 10, |sink| count(sink.sealed_batches), |sink| by_count(sink.sealed_batches)),
    right("WORKERS", 9, |sink| count(sink.workers.map(u64::from)), |sink| by_count(sink.workers.map(u64::from))),
    right("RETRIES", 11, |sink| count(sink.retries), |sink| by_count(sink.retries)),
    left(
        "KIND",
        12,
        |sink| sink.kind.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        |sink| By::Text(sink.kind.clone().unwrap_or_default()),
    ),
    left(WHY, 8, |sink| sink.why.clone(), |sink| By::Text(sink.why.clone())),
];

/// The columns of a sink's partitions.
pub(in crate::commands) const PARTITIONS: &[Column<PartitionPicture>] = &[
    right("PARTITION", 0, |of| of.partition.to_string(), |of| By::Text(format!("{:010} {}", of.partition, of.topic))),
    right("LAG", 1, |of| count(Some(of.lag_messages)), |of| by_count(Some(of.lag_messages))),
    right("OLDEST", 3, |of| seconds(of.lag_seconds), |of| By::Number(of.lag_seconds)),
    right("IN/S", 5, |of| rate(of.arriving_per_second), |of| By::Number(of.arriving_per_second)),
    right("OUT/S", 4, |of| rate(of.settled_per_second), |of| By::Number(of.settled_per_second)),
    right("CATCH UP", 2, |of| catch_up(of.catch_up), |of| by_catch_up(of.catch_up)),
    right("SETTLED", 6, |of| offset(of.settled), |of| by_count(of.settled)),
    right("SEALED", 8, |of| offset(of.sealed_end), |of| by_count(of.sealed_end)),
    right("END", 7, |of| offset(Some(of.end)), |of| by_count(Some(of.end))),
    left(
        "WORKER",
        9,
        |of| of.worker.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        |of| By::Text(of.worker.clone().unwrap_or_default()),
    ),
    left(
        "HALTED",
        10,
        |of| of.halted.clone().unwrap_or_default(),
        |of| By::Text(of.halted.clone().unwrap_or_default()),
    ),
];

/// The columns of topics.
pub(in crate::commands) const TOPICS: &[Column<TopicPicture>] = &[
    left("TOPIC", 0, |topic| topic.name.clone(), |topic| By::Text(topic.name.clone())),
    right("MESSAGES", 1, |topic| count(topic.messages), |topic| by_count(topic.messages)),
    right("IN/S", 2, |topic| rate(topic.arriving_per_second), |topic| By::Number(topic.arriving_per_second)),
    right(
        "PARTITIONS",
        4,
        |topic| count(topic.partitions.map(u64::from)),
        |topic| by_count(topic.partitions.map(u64::from)),
    ),
    left("HOLDS", 3, |topic| topic.role.name(), |topic| By::Text(topic.role.name())),
];

/// The name of a row: `topic/partition`.
pub(in crate::commands) fn place(of: &PartitionPicture) -> String {
    format!("{}/{}", of.topic, of.partition)
}

fn by_count(count: Option<u64>) -> By {
    By::Number(count.map(|count| count as f64))
}

/// The longest first, and never before all.
fn by_catch_up(catch_up: CatchUp) -> By {
    By::Number(match catch_up {
        CatchUp::CaughtUp => Some(0.0),
        CatchUp::WithinSeconds(seconds) => Some(seconds),
        CatchUp::Never => Some(f64::INFINITY),
        CatchUp::Unknown => None,
    })
}

fn offset(offset: Option<u64>) -> String {
    offset.map_or_else(|| UNKNOWN.to_owned(), |offset| offset.to_string())
}

/// All digits up to six of them; above that, four with a unit.
pub(in crate::commands) fn count(count: Option<u64>) -> String {
    match count {
        None => UNKNOWN.to_owned(),
        Some(count) if count < 1_000_000 => text::grouped(count),
        Some(count) => with_unit(count as f64),
    }
}

pub(in crate::commands) fn rate(rate: Option<f64>) -> String {
    match rate {
        None => UNKNOWN.to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate < 10.0 => format!("{rate:.1}"),
        Some(rate) if rate < 10_000.0 => format!("{rate:.0}"),
        Some(rate) => with_unit(rate),
    }
}

/// Three digits, in the smallest unit that leaves no more than three before the point once they are rounded.
fn with_unit(number: f64) -> String {
    const UNITS: [(f64, &str); 6] = [(1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P"), (1e18, "E")];
    let fits = |(size, _): &(f64, &str)| number / size < 999.5;
    let (size, unit) = UNITS.into_iter().find(fits).unwrap_or(UNITS[5]);
    let shown = number / size;
    // By what is shown: 9.996 is 10.0.
    let decimals = if shown < 9.995 { 2 } else { usize::from(shown < 99.95) };
    format!("{shown:.decimals$}{unit}")
}

pub(in crate::commands) fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => UNKNOWN.to_owned(),
        Some(0.0) => "0s".to_owned(),
        Some(seconds) if (0.0..10.0).contains(&seconds) => format!("{seconds:.1}s"),
        Some(seconds) => Duration::try_from_secs_f64(seconds).map_or_else(|_| UNKNOWN.to_owned(), text::duration),
    }
}

pub(in crate::commands) fn catch_up(catch_up: CatchUp) -> String {
    match catch_up {
        CatchUp::CaughtUp => "done".to_owned(),
        CatchUp::WithinSeconds(left) => seconds(Some(left)),
        CatchUp::Never => "never".to_owned(),
        CatchUp::Unknown => UNKNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_unknown_ones_are_no_zeros() {
        assert_eq!((count(None), count(Some(0)), count(Some(999_999))), ("-".into(), "0".into(), "999,999".into()));
        assert_eq!((count(Some(1_234_567)), count(Some(u64::MAX))), ("1.23M".into(), "18.4E".into()));
        for (number, shown) in
            [(999_499.0, "999k"), (999_500.0, "1.00M"), (999_999_999.0, "1.00G"), (99_960_000.0, "100M")]
        {
            assert_eq!(rate(Some(number)), shown);
        }
        assert_eq!((count(Some(999_999_999)), count(Some(9_999_999))), ("1.00G".into(), "10.0M".into()));
        assert_eq!((rate(None), rate(Some(0.0)), rate(Some(0.25))), ("-".into(), "0".into(), "0.2".into()));
        assert_eq!((rate(Some(9_999.4)), rate(Some(12_345.0))), ("9999".into(), "12.3k".into()));
        assert_eq!(
            (seconds(None), seconds(Some(1.25)), seconds(Some(200.0))),
            ("-".into(), "1.2s".into(), "3m 20s".into())
        );
        // Longer than a duration can be.
        assert_eq!(seconds(Some(f64::MAX)), "-");
        assert_eq!((catch_up(CatchUp::Never), catch_up(CatchUp::Unknown)), ("never".into(), "-".into()));
    }

    #[test]
    fn rows_are_sorted_by_text_upwards_by_figures_downwards_and_unknown_ones_last() {
        let mut rows = [By::Number(None), By::Number(Some(1.0)), By::Number(Some(f64::INFINITY))];
        rows.sort_by(By::compare);
        assert_eq!(rows, [By::Number(Some(f64::INFINITY)), By::Number(Some(1.0)), By::Number(None)]);
        assert_eq!(By::Text("a".to_owned()).compare(&By::Text("b".to_owned())), Ordering::Less);
    }
}
