use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::Observer;
use tallybus_sdk::Written;

use super::Which;
use super::ask::Asked;
use super::change::{ADD_YES, Change};
use super::consequence::Consequence;
use super::known::Known;
use super::partition::{Found, Held, Place, find, set};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, grouped};
use crate::waiting::waiting_for_bus;
use crate::{Global, config, numbers, times};

/// Set the offsets of a sink's consumer group, as an operator's decision.
///
/// Without --yes it only shows what would change. Every worker of the sink must be stopped. The command asks the destination,
/// the group's own commits and, on Kafka, the notes of its workers how far the sink has counted, and says which messages would
/// be counted twice or never. Those need --accept-double or --accept-loss beside --yes.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    which: Which,
    /// `oldest`, `newest`, an offset, or a time as in `count --from`: the first record of that time or later.
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    to: To,
    /// Only this partition, as TOPIC/NUMBER; repeatable. An offset needs it unless there is only one.
    #[arg(long = "partition", value_name = "TOPIC/N")]
    partitions: Vec<String>,
    #[command(flatten)]
    change: Change,
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

impl std::fmt::Display for To {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Oldest => f.write_str("oldest"),
            Self::Newest => f.write_str("newest"),
            Self::Offset(offset) => write!(f, "{offset}"),
            Self::Time(time_ms) => f.write_str(&times::show(time_ms.saturating_mul(1_000_000))),
        }
    }
}

/// A partition, where it is set, and what that means.
struct Move<'f> {
    found: &'f Found,
    to: u64,
    known: Known,
    consequence: Consequence,
    written: Option<Written>,
}

impl std::str::FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "oldest" => Ok(Self::Oldest),
            "newest" => Ok(Self::Newest),
            // Digits are an offset: no time is meant that is written so.
            _ if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                numbers::whole(text).map(Self::Offset)
            }
            _ => times::parse(text)
                .map(|nanos| Self::Time(nanos.div_euclid(1_000_000)))
                .map_err(|_| "expected oldest, newest, an offset, or a time such as 2026-01-31T12:00:00Z".to_owned()),
        }
    }
}

impl Reset {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = self.change.settings(&self.which, global)?;
        let (sink, group, topics) = self.which.of(&settings)?;
        let options = self.which.options(sink);
        let bus = config::open_bus(&settings)?;
        let (observer, mut found) = waiting_for_bus(output, bus.as_ref(), || {
            let observer = bus.observer()?;
            let found = find(observer.as_ref(), &group, &topics)?;
            Ok::<_, Failure>((observer, found))
        })?;
        self.choose(&mut found)?;
        let offsets = self.offsets(observer.as_ref(), &found)?;
        let asked = Asked::of(&found, bus.as_ref(), sink, &options, self.change.offline, output)?;
        let moves = moves(&found, &offsets, &asked);
        let refusal = self.refusal(&moves, sink.kind.name);
        if !output.json {
            output.print(&format!("group {group}"))?;
            self.show(&moves, &asked, sink.kind.name, output)?;
        }
        let is_changed = self.change.yes && refusal.is_none();
        if is_changed {
            let places: Vec<Place<'_>> =
                moves.iter().map(|one| Place { found: one.found, to: one.to, written: one.written.clone() }).collect();
            set(bus.as_ref(), &group, &sink.shape, &places)?;
        }
        if output.json {
            let partitions: Vec<Value> = moves.iter().map(|one| one.as_json(sink.kind.name)).collect();
            let unknown = &asked.unknown;
            output.print(
                &json!({ "group": group, "changed": is_changed, "unknown": unknown, "partitions": partitions })
                    .to_string(),
            )?;
        }
        let done = is_changed.then(|| format!("{} set", count_of(moves.len() as u64, "offset")));
        self.change.conclude(refusal, done, ADD_YES, output)
    }

    /// Shows each partition, what is known of it, and which offset is better.
    fn show(&self, moves: &[Move<'_>], asked: &Asked, place: &str, output: &Output) -> Result<(), Failure> {
        let mut table = Table::new(&["partition", ">from", ">to", "what that means"]);
        for one in moves {
            let from = one.found.held.offset().map_or("-".to_owned(), grouped);
            table.row(vec![one.found.at.to_string(), from, grouped(one.to), one.text(place)]);
        }
        output.table(&table)?;
        for one in moves {
            if let Held::Unusable(offset, _) = &one.found.held {
                let offset = grouped(*offset);
                let text = format!(
                    "{}: the offset {offset} is another program's, and says nothing of the counts",
                    one.found.at
                );
                output.wrapped(&text)?;
            }
            if let Some(text) = one.known.describe(place) {
                let offer = self.offer(one).map(|command| format!(": {command}")).unwrap_or_default();
                output.wrapped(&format!("{}: {text}{offer}", one.found.at))?;
            }
        }
        asked.unknown.iter().try_for_each(|text| output.wrapped(text))
    }

    /// The options that set a partition where the destination is; `None` where it is set there, or that is not known.
    fn offer(&self, one: &Move<'_>) -> Option<String> {
        let best = one.known.best(one.found.range).filter(|best| *best != one.to)?;
        Some(format!("--to {best} --partition {}", one.found.at))
    }

    /// Why the change needs more than --yes, and both ways on; `None` if it does not.
    fn refusal(&self, moves: &[Move<'_>], place: &str) -> Option<String> {
        let doubles = |one: &&Move<'_>| one.consequence.doubles(&one.known);
        let loses = |one: &&Move<'_>| one.consequence.loses();
        let lacks_double = !self.change.accept_double && moves.iter().any(|one| doubles(&one));
        let lacks_loss = !self.change.accept_loss && moves.iter().any(|one| loses(&one));
        if !lacks_double && !lacks_loss {
            return None;
        }
        let mut text = String::new();
        for one in moves.iter().filter(|one| lacks_double && doubles(one) || lacks_loss && loses(one)) {
            text.push_str(&format!("{}: {}. ", one.found.at, one.text(place)));
        }
        let sink = &self.which.sink;
        let replay = if self.which.replay { " --replay" } else { "" };
        for one in moves {
            if let Some(offer) = self.offer(one) {
                let known = one.known.describe(place).unwrap_or_default();
                text.push_str(&format!("{known}: `tallybus group reset {sink}{replay} {offer} --yes`. "));
            }
        }
        let partitions: String = self.partitions.iter().map(|partition| format!(" --partition {partition}")).collect();
        let offline = if self.change.offline { " --offline" } else { "" };
        let double = if lacks_double || self.change.accept_double { " --accept-double" } else { "" };
        let loss = if lacks_loss || self.change.accept_loss { " --accept-loss" } else { "" };
        text.push_str(&format!(
            "To accept it nevertheless: `tallybus group reset {sink}{replay} --to {}{partitions}{offline} --yes{double}{loss}`",
            self.to
        ));
        Some(text)
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
    fn offsets(&self, observer: &dyn Observer, found: &[Found]) -> Result<Vec<u64>, Failure> {
        let mut offsets = Vec::with_capacity(found.len());
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
                    let of_topic = observer.offsets_at_time(&at.topic, time_ms)?;
                    let place = usize::try_from(at.partition).map_err(Failure::failed)?;
                    let offset = of_topic.get(place).copied();
                    offset.ok_or_else(|| Failure::failed(format!("the bus did not report the offset of {at}")))?
                }
            };
            offsets.push(to);
        }
        Ok(offsets)
    }
}

impl Move<'_> {
    fn text(&self, place: &str) -> String {
        self.consequence.text(&self.known, place, self.found.range, self.to)
    }

    fn as_json(&self, place: &str) -> Value {
        let mut value = json!({
            "partition": self.found.at.to_string(),
            "from": self.found.held.offset(),
            "to": self.to,
            "means": self.text(place),
            "best": self.known.best(self.found.range),
        });
        if let (Some(value), Value::Object(counts)) = (value.as_object_mut(), self.consequence.as_json(&self.known)) {
            value.extend(counts);
        }
        value
    }
}

/// What setting each partition to its offset means.
fn moves<'f>(found: &'f [Found], offsets: &[u64], asked: &Asked) -> Vec<Move<'f>> {
    let mut moves = Vec::with_capacity(found.len());
    for (place, (found, &to)) in found.iter().zip(offsets).enumerate() {
        let told = asked.told(place, found);
        let known = Known::of(found, &told);
        let consequence = Consequence::of(&known, found.range, to);
        let written = known.written(found, &told, to);
        moves.push(Move { found, to, known, consequence, written });
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

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
