use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::Observer;

use super::Which;
use super::partition::{Found, find, set};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, grouped, wrap};
use crate::waiting::waiting_for_bus;
use crate::{Global, config, numbers, times};

/// Set the offsets of a sink's consumer group, as an operator's decision.
///
/// Without --yes it only shows what would change. Every worker of the sink must be stopped. What is read again may be counted
/// again, and what is passed over is never counted: the command says which before it changes anything.
#[derive(Debug, Args)]
pub(crate) struct Reset {
    #[command(flatten)]
    which: Which,
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
        let settings = config::load(global)?;
        let (sink, group, topics) = self.which.of(&settings)?;
        let bus = config::open_bus(&settings)?;
        let (observer, mut found) = waiting_for_bus(output, bus.as_ref(), || {
            let observer = bus.observer()?;
            let found = find(observer.as_ref(), &group, &topics)?;
            Ok::<_, Failure>((observer, found))
        })?;
        self.choose(&mut found)?;
        let moves = self.moves(observer.as_ref(), &found)?;

        let mut table = Table::new(&["partition", ">from", ">to", "what that means"]);
        for (found, to) in found.iter().zip(&moves) {
            let from = found.held.offset().map_or("-".to_owned(), grouped);
            table.row(vec![found.at.to_string(), from, grouped(*to), found.consequence(*to)]);
        }
        if !output.json {
            output.print(&format!("group {group}"))?;
            output.table(&table)?;
            let advice = format!("{}: {}", sink.kind.name, sink.kind.mechanism);
            wrap(&advice, output.width()).iter().try_for_each(|line| output.print(line))?;
        }
        if self.yes {
            let to: Vec<(&Found, u64)> = found.iter().zip(moves.iter().copied()).collect();
            set(bus.as_ref(), &group, &sink.shape, &to)?;
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
