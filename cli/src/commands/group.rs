use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tallybus_bus::{BusError, Committed, Observer, OffsetRange, StreamId, TopicPartition};
use tallybus_sdk::{SealMetadata, SealMetadataError};
use tallybus_worker::settings::SinkSettings;

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, grouped, wrap};
use crate::{Global, config, selection, times};

/// Show or move the offsets of a sink's consumer group.
#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    Show(Show),
    Reset(Reset),
}

/// Show what a sink's consumer group holds for each partition.
///
/// Read-only. `stream` says whether the offset belongs to the topic that exists now.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The sink.
    sink: String,
    /// The group that replays the sink's dead letters.
    #[arg(long)]
    replay: bool,
}

/// Set the offsets of a sink's consumer group, as an operator's decision.
///
/// Without --yes it only shows what would change. Every worker of the sink must be stopped. What is read again may be counted
/// again, and what is passed over is never counted: the command says which before it changes anything.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// The sink.
    sink: String,
    /// The group that replays the sink's dead letters.
    #[arg(long)]
    replay: bool,
    /// `oldest`, `newest`, an offset, or a time as in `count --from`: the first record of that time or later.
    #[arg(long, value_name = "WHERE")]
    to: To,
    /// Only this partition, as TOPIC/NUMBER; repeatable. An offset needs it unless there is only one.
    #[arg(long = "partition", value_name = "TOPIC/N")]
    partitions: Vec<String>,
    /// Make the change.
    #[arg(long)]
    yes: bool,
}

/// Where to move a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Oldest,
    Newest,
    Offset(u64),
    /// Milliseconds since the Unix epoch.
    Time(i64),
}

impl std::str::FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oldest" => Ok(Self::Oldest),
            "newest" => Ok(Self::Newest),
            // Digits are an offset: no time is meant that is written so.
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                crate::numbers::whole(text).map(Self::Offset)
            }
            _ => times::parse(text)
                .map(|nanos| Self::Time(nanos.div_euclid(1_000_000)))
                .map_err(|_| "expected oldest, newest, an offset, or a time such as 2026-01-31T12:00:00Z".to_owned()),
        }
    }
}

/// What the group holds for a partition.
enum Held {
    /// It never committed, or the bus has deleted its offset.
    Nothing,
    /// A worker's commit, or an operator's by this command.
    Ours(u64, SealMetadata),
    /// An offset that cannot be used, and why.
    Unusable(u64, SealMetadataError),
}

/// A partition of the group's topics.
struct Found {
    at: TopicPartition,
    held: Held,
    range: OffsetRange,
    stream: StreamId,
}

impl Group {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        match self {
            Self::Show(command) => command.run(global, output),
            Self::Reset(command) => command.run(global, output),
        }
    }
}

impl Show {
    fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load(global)?;
        let sink = selection::select_one(&settings, &self.sink)?;
        let (group, topics) = group_of(sink, self.replay);
        let bus = config::open_bus(&settings)?;
        let found = find(bus.observer()?.as_ref(), &group, &topics)?;
        if output.json {
            let partitions: Vec<Value> = found.iter().map(Found::as_json).collect();
            output.print(&json!({ "group": group, "partitions": partitions }).to_string())?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&["partition", ">settled", ">sealed to", ">on the bus", "stream"]);
        found.iter().for_each(|found| table.row(found.as_row()));
        output.print(&format!("group {group}"))?;
        table.lines_within(output.width()).iter().try_for_each(|line| output.print(line))?;
        for found in &found {
            if let Held::Unusable(_, error) = &found.held {
                output.print(&format!("{}: {error}", found.at))?;
            }
        }
        Ok(Verdict::Good)
    }
}

impl Reset {
    fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load(global)?;
        let sink = selection::select_one(&settings, &self.sink)?;
        let (group, topics) = group_of(sink, self.replay);
        let bus = config::open_bus(&settings)?;
        let observer = bus.observer()?;
        let mut found = find(observer.as_ref(), &group, &topics)?;
        self.choose(&mut found)?;
        let moves = self.moves(observer.as_ref(), &found)?;

        let mut table = Table::new(&["partition", ">from", ">to", "what that means"]);
        for (found, to) in found.iter().zip(&moves) {
            let from = found.held.offset().map_or("-".to_owned(), grouped);
            table.row(vec![found.at.to_string(), from, grouped(*to), found.consequence(*to)]);
        }
        if !output.json {
            output.print(&format!("group {group}"))?;
            table.lines_within(output.width()).iter().try_for_each(|line| output.print(line))?;
            let advice = format!("{}: {}", sink.kind.name, sink.kind.mechanism);
            wrap(&advice, output.width()).iter().try_for_each(|line| output.print(line))?;
        }
        if self.yes {
            let mut to = Vec::with_capacity(moves.len());
            for (found, offset) in found.iter().zip(&moves) {
                let seal = SealMetadata::new(found.stream.clone(), Vec::new(), &sink.shape);
                let metadata = seal.to_metadata().map_err(Failure::failed)?;
                to.push((found.at.clone(), Committed { offset: *offset, metadata }));
            }
            match bus.reset_group(&group, &to) {
                Ok(()) => {}
                Err(error @ BusError::GroupInUse(_)) => return Err(Failure::failed(error)),
                Err(error) => return Err(error.into()),
            }
        }
        if output.json {
            let partitions = found.iter().zip(&moves).map(|(found, to)| {
                let consequence = found.consequence(*to);
                json!({ "partition": found.at.to_string(), "from": found.held.offset(), "to": to, "means": consequence })
            });
            let partitions: Vec<Value> = partitions.collect();
            output.print(&json!({ "group": group, "changed": self.yes, "partitions": partitions }).to_string())?;
        } else if self.yes {
            output.print(&format!("{} set", count_of(moves.len() as u64, "offset")))?;
        } else {
            output.print("nothing was changed; to make the change, stop the sink's workers and add --yes")?;
        }
        Ok(Verdict::Good)
    }

    /// Leaves the partitions that were asked for.
    fn choose(&self, found: &mut Vec<Found>) -> Result<(), Failure> {
        for wanted in &self.partitions {
            if !found.iter().any(|found| found.at.to_string() == *wanted) {
                let known: Vec<String> = found.iter().map(|found| found.at.to_string()).collect();
                let known = known.join(", ");
                return Err(Failure::could_not_look(format!("no partition {wanted:?} in the group's topics: {known}")));
            }
        }
        if !self.partitions.is_empty() {
            found.retain(|found| self.partitions.contains(&found.at.to_string()));
        }
        if matches!(self.to, To::Offset(_)) && found.len() > 1 {
            return Err(Failure::could_not_look(
                "an offset means another record in each partition: name one with --partition, or give a time",
            ));
        }
        Ok(())
    }

    /// The new offset of each partition.
    fn moves(&self, observer: &dyn Observer, found: &[Found]) -> Result<Vec<u64>, Failure> {
        let mut moves = Vec::with_capacity(found.len());
        for Found { at, range, .. } in found {
            let to = match self.to {
                To::Oldest => range.first,
                To::Newest => range.end,
                To::Offset(offset) if (range.first..=range.end).contains(&offset) => offset,
                To::Offset(offset) => {
                    return Err(Failure::could_not_look(format!(
                        "{at} holds offsets {} to {}: {offset} is outside",
                        range.first, range.end
                    )));
                }
                To::Time(time_ms) => {
                    let offsets = observer.offsets_at_time(&at.topic, time_ms)?;
                    let place = usize::try_from(at.partition).map_err(Failure::failed)?;
                    let offset = offsets.get(place).copied();
                    offset.ok_or_else(|| Failure::failed(format!("the bus did not report the offset of {at}")))?
                }
            };
            moves.push(to);
        }
        Ok(moves)
    }
}

/// The group and its topics.
fn group_of(sink: &SinkSettings, replay: bool) -> (String, Vec<String>) {
    if replay { (sink.replay_group(), vec![sink.replay_topic()]) } else { (sink.group(), sink.topics.clone()) }
}

fn find(observer: &dyn Observer, group: &str, topics: &[String]) -> Result<Vec<Found>, Failure> {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let of: Vec<(&str, &str)> = topics.iter().map(|topic| (group, *topic)).collect();
    // In this order: a group that advances in the meantime is never past an end that is read later.
    let (streams, committed) = (observer.stream_ids(&topics)?, observer.committed(&of)?);
    let ranges = observer.offsets(&topics)?;
    let mut found = Vec::new();
    for (((topic, stream), committed), ranges) in topics.iter().zip(streams).zip(committed).zip(ranges) {
        for ((partition, committed), range) in (0..).zip(committed).zip(ranges) {
            let held = match committed {
                None => Held::Nothing,
                Some(Committed { offset, metadata }) => match SealMetadata::parse(offset, &metadata) {
                    Ok(seal) => Held::Ours(offset, seal),
                    Err(error) => Held::Unusable(offset, error),
                },
            };
            found.push(Found { at: TopicPartition::new(topic, partition), held, range, stream: stream.clone() });
        }
    }
    Ok(found)
}

impl Held {
    fn offset(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Ours(offset, _) | Self::Unusable(offset, _) => Some(*offset),
        }
    }

    /// One past the last offset that may be in the backend.
    fn sealed_end(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Ours(offset, seal) => Some(seal.sealed_end().unwrap_or(*offset)),
            Self::Unusable(offset, _) => Some(*offset),
        }
    }
}

impl Found {
    /// Whose offset it is.
    fn stream(&self) -> String {
        match &self.held {
            Held::Nothing => "no offset".to_owned(),
            Held::Unusable(..) => "set by another program".to_owned(),
            Held::Ours(_, SealMetadata { stream: None, .. }) => "not recorded (earlier version)".to_owned(),
            Held::Ours(_, SealMetadata { stream: Some(stream), .. }) if *stream == self.stream => "present".to_owned(),
            Held::Ours(_, SealMetadata { stream: Some(stream), .. }) => format!("another topic's: {stream}"),
        }
    }

    fn as_row(&self) -> Vec<String> {
        let sealed = match &self.held {
            Held::Ours(_, seal) => seal.sealed_end().map_or("-".to_owned(), grouped),
            Held::Nothing | Held::Unusable(..) => "-".to_owned(),
        };
        let settled = self.held.offset().map_or("-".to_owned(), grouped);
        let range = format!("{} to {}", grouped(self.range.first), grouped(self.range.end));
        vec![self.at.to_string(), settled, sealed, range, self.stream()]
    }

    fn as_json(&self) -> Value {
        let (ends, of) = match &self.held {
            Held::Ours(_, seal) => (seal.ends.clone(), seal.stream.as_ref().map(ToString::to_string)),
            Held::Nothing | Held::Unusable(..) => (Vec::new(), None),
        };
        let error = match &self.held {
            Held::Unusable(_, error) => Some(error.to_string()),
            Held::Nothing | Held::Ours(..) => None,
        };
        json!({
            "partition": self.at.to_string(),
            "settled": self.held.offset(),
            "sealed_ends": ends,
            "stream": of,
            "topic_stream": self.stream.to_string(),
            "first": self.range.first,
            "end": self.range.end,
            "error": error,
        })
    }

    /// What moving to `to` means for the counts.
    fn consequence(&self, to: u64) -> String {
        let is_other =
            matches!(&self.held, Held::Ours(_, seal) if seal.stream.as_ref().is_some_and(|of| *of != self.stream));
        if is_other {
            return format!("begins the recreated topic at {to}; the old topic's counts stay in the destination");
        }
        let (Some(settled), Some(sealed_end)) = (self.held.offset(), self.held.sealed_end()) else {
            return match to.checked_sub(self.range.first) {
                Some(0) | None => "as a new group".to_owned(),
                Some(passed) => format!("{} never counted, unless the destination has them", messages(passed)),
            };
        };
        let mut parts = Vec::new();
        if to < settled {
            parts.push(format!(
                "{} read again: counted twice, unless the destination refuses them",
                messages(settled - to)
            ));
        }
        if sealed_end > settled {
            parts.push(format!("the seal up to {sealed_end} is given up: what it covers may be written already"));
        }
        if to > settled {
            parts.push(format!("{} never counted, unless the destination has them", messages(to - settled)));
        }
        if parts.is_empty() {
            parts.push("no message is read again or passed over".to_owned());
        }
        parts.join("; ")
    }
}

fn messages(count: u64) -> String {
    match count {
        1 => "1 message is".to_owned(),
        _ => format!("{} messages are", grouped(count)),
    }
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::Shape;

    use super::*;

    fn found(held: Option<(u64, &[u64], &str)>) -> Found {
        let held = held.map_or(Held::Nothing, |(offset, ends, stream)| {
            Held::Ours(offset, SealMetadata::new(stream.parse().unwrap(), ends.to_vec(), &Shape::everything()))
        });
        let range = OffsetRange { first: 5, end: 90 };
        Found { at: TopicPartition::new("t", 0), held, range, stream: "kafka:c:now".parse().unwrap() }
    }

    #[test]
    fn a_move_says_what_is_counted_again_or_never() {
        for (held, to, expected) in [
            (None, 5, "as a new group"),
            (None, 7, "2 messages are never counted, unless the destination has them"),
            (Some((50, &[] as &[u64], "kafka:c:now")), 50, "no message is read again or passed over"),
            (
                Some((50, &[], "kafka:c:now")),
                49,
                "1 message is read again: counted twice, unless the destination refuses them",
            ),
            (Some((50, &[], "kafka:c:now")), 90, "40 messages are never counted, unless the destination has them"),
            (
                Some((50, &[60], "kafka:c:now")),
                50,
                "the seal up to 60 is given up: what it covers may be written already",
            ),
            (
                Some((50, &[], "kafka:c:before")),
                5,
                "begins the recreated topic at 5; the old topic's counts stay in the destination",
            ),
        ] {
            assert_eq!(found(held).consequence(to), expected);
        }
    }

    #[test]
    fn where_to_is_a_name_an_offset_or_a_time() {
        assert_eq!("oldest".parse(), Ok(To::Oldest));
        assert_eq!("newest".parse(), Ok(To::Newest));
        assert_eq!("42".parse(), Ok(To::Offset(42)));
        assert_eq!("2026-01-31T00:00:00Z".parse(), Ok(To::Time(1_769_817_600_000)));
        for wrong in ["", "-", "latest", "1.5", "18446744073709551616"] {
            assert!(wrong.parse::<To>().is_err(), "{wrong}");
        }
    }
}
