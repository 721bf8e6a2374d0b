use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use tallybus_bus::read_range;
use tallybus_schemas::Series;
use tallybus_verify::audit::Messages;

use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::filter::{Filter, parse_tag};
use crate::output::{Output, number};
use crate::progress::Progress;
use crate::text::{self, Table};
use crate::waiting::waiting_for_bus;
use crate::{Global, config, times};

const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Exact sums of what is on the bus, by name or tag.
///
/// Messages that arrive while the command runs are left out.
#[derive(Debug, Args)]
pub(crate) struct Count {
    /// Group by this tag, or by the counter's name with `name`; repeatable.
    #[arg(long = "by", value_name = "TAG")]
    by: Vec<String>,
    /// Only counters whose name matches.
    #[arg(long, value_name = "GLOB")]
    name: Option<String>,
    /// Only series with this tag; repeatable.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse_tag)]
    tags: Vec<(String, String)>,
    /// Only events at or after this time: RFC 3339, a date, -1h, now, or nanoseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    from: Option<i64>,
    /// Only events before this time.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    to: Option<i64>,
    /// Topic [default: the bus's].
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    csv: CsvOption,
}

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    total: u128,
    events: u64,
}

impl Sum {
    fn add(&mut self, value: u64) {
        self.total += u128::from(value);
        self.events += 1;
    }
}

/// What is on the bus and holds no event.
#[derive(Clone, Copy)]
struct Passed {
    /// Records, and lines of records, that cannot be decoded.
    undecodable: u64,
    /// Records with a null value.
    tombstones: u64,
}

/// The values of the tags to group by; `None` where a series does not have the tag.
type Key = Vec<Option<String>>;

impl Count {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let settings = config::load_bus(global)?;
        let topic = self.topic.as_ref().unwrap_or(&settings.bus.topic);
        let filter = Filter::new(self.name.as_deref(), &self.tags)?;
        let mut messages = Messages::new(&settings.bus.encodings).map_err(Failure::could_not_look)?;
        let range = times::range(self.from, self.to)?;
        let bus = config::open_bus(&settings)?;

        let ranges = waiting_for_bus(output, bus.as_ref(), || bus.observer()?.offsets_of(topic))?;
        let messages_there: u64 = ranges.iter().map(|range| range.end - range.first).sum();
        let spans: Vec<_> = (0..).zip(&ranges).map(|(partition, range)| (partition, range.first..range.end)).collect();
        let mut whole = Sum::default();
        let mut groups: BTreeMap<Key, Sum> = BTreeMap::new();
        // By series number: whether the filter accepts it.
        let mut taken: Vec<Option<bool>> = Vec::new();
        // By series number: whether its tags are in `tags`.
        let mut seen: Vec<bool> = Vec::new();
        let mut tags: BTreeSet<String> = BTreeSet::new();
        let (mut undecodable, mut tombstones, mut read) = (0_u64, 0_u64, 0_u64);
        let mut progress = Progress::new(output, "messages");
        read_range(bus.reader()?.as_mut(), topic, &spans, STALL_TIMEOUT, &mut |record| {
            read += 1;
            if read.is_multiple_of(64) {
                progress.at(read, messages_there);
            }
            tombstones += u64::from(record.is_tombstone);
            if messages.decode(&record).is_err() {
                undecodable += 1;
                return;
            }
            undecodable += messages.refused().len() as u64;
            for row in messages.rows() {
                let series = messages.series(row.series);
                let place = row.series as usize;
                if taken.len() <= place {
                    taken.resize(place + 1, None);
                    seen.resize(place + 1, false);
                }
                let takes = *taken[place].get_or_insert_with(|| filter.takes(series));
                if !takes || !range.contains(row.time) {
                    continue;
                }
                whole.add(row.value);
                if !std::mem::replace(&mut seen[place], true) && !self.by.is_empty() {
                    tags.extend(series.tags().iter().map(|(key, _)| key.to_string()));
                }
                if !self.by.is_empty() {
                    groups.entry(self.key(series)).or_default().add(row.value);
                }
            }
        })?;
        drop(progress);
        if let Some(first) = ranges.iter().map(|range| range.first).find(|first| *first > 0) {
            output
                .say(&format!("note: older messages were deleted by retention (a partition begins at offset {first})"));
        }
        let unknown: Vec<&String> = self.by.iter().filter(|by| *by != "name" && !tags.contains(*by)).collect();
        if whole.events > 0 {
            unknown.iter().for_each(|tag| output.say(&no_such_tag(tag, &tags)));
        }
        let passed = Passed { undecodable, tombstones };
        if output.json {
            output.report(&self.as_json(whole, &groups, passed).to_string())?;
        } else if csv {
            self.csv(whole, &groups).report(output)?;
            passed.notes().iter().for_each(|note| output.say(note));
        } else {
            // Groups by tags that no event has are one row that says nothing.
            let groups = if unknown.len() < self.by.len() { groups } else { BTreeMap::new() };
            self.show(whole, &groups, passed, output)?;
        }
        Ok(Verdict::Good)
    }

    fn key(&self, series: &Series) -> Key {
        let value = |by: &String| match by.as_str() {
            "name" => Some(series.name().to_owned()),
            tag => series.tag(tag).map(str::to_owned),
        };
        self.by.iter().map(value).collect()
    }

    fn as_json(&self, whole: Sum, groups: &BTreeMap<Key, Sum>, passed: Passed) -> Value {
        let groups: Vec<Value> = groups
            .iter()
            .map(|(key, sum)| {
                let key: Map<String, Value> =
                    self.by.iter().cloned().zip(key.iter().map(|value| value.clone().into())).collect();
                json!({ "key": key, "total": number(sum.total), "events": sum.events })
            })
            .collect();
        json!({
            "total": number(whole.total), "events": whole.events, "groups": groups,
            "undecodable": passed.undecodable, "tombstones": passed.tombstones,
        })
    }

    /// One row for each group, or the whole without any.
    fn csv(&self, whole: Sum, groups: &BTreeMap<Key, Sum>) -> Csv {
        let mut table = Csv::new(self.by.iter().map(String::as_str).chain(["total", "events"]));
        let mut row = |key: &Key, sum: &Sum| {
            let key = key.iter().map(|value| Value::from(value.clone()));
            table.row(key.chain([number(sum.total), sum.events.into()]));
        };
        if self.by.is_empty() {
            row(&Vec::new(), &whole);
        }
        sorted(groups).into_iter().for_each(|(key, sum)| row(key, sum));
        table
    }

    fn show(&self, whole: Sum, groups: &BTreeMap<Key, Sum>, passed: Passed, output: &Output) -> Result<(), Failure> {
        if !groups.is_empty() {
            let mut titles: Vec<&str> = self.by.iter().map(String::as_str).collect();
            titles.extend([">total", ">events"]);
            let mut table = Table::new(&titles);
            for (key, sum) in sorted(groups) {
                let mut cells: Vec<String> =
                    key.iter().map(|value| value.clone().unwrap_or_else(|| "-".to_owned())).collect();
                cells.extend([text::grouped(sum.total), text::grouped(sum.events)]);
                table.row(cells);
            }
            for line in table.lines() {
                output.report(&line)?;
            }
            output.report("")?;
        }
        output.report(&format!("total {} in {}", text::grouped(whole.total), text::count_of(whole.events, "event")))?;
        passed.notes().iter().try_for_each(|note| output.report(note))
    }
}

impl Passed {
    fn notes(self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.tombstones > 0 {
            let what = text::count_of(self.tombstones, "tombstone");
            notes.push(format!("not counted, because without a value: {what}"));
        }
        if self.undecodable > 0 {
            let what = text::count_of(self.undecodable, "record");
            notes
                .push(format!("not counted, because undecodable: {what}; `tallybus tap --from beginning` shows where"));
        }
        notes
    }
}

/// The groups, the largest sum first.
fn sorted(groups: &BTreeMap<Key, Sum>) -> Vec<(&Key, &Sum)> {
    let mut sorted: Vec<_> = groups.iter().collect();
    sorted.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.total));
    sorted
}

/// The maximum number of tags that are named when one is unknown.
const MOST_NAMED: usize = 20;

fn no_such_tag(tag: &str, tags: &BTreeSet<String>) -> String {
    if tags.is_empty() {
        return format!("no event has the tag `{tag}`: none has any tag");
    }
    let named: Vec<String> = tags.iter().take(MOST_NAMED).map(|tag| tag.escape_debug().to_string()).collect();
    let more = tags.len() - named.len();
    let more = if more > 0 { format!(" and {} more", text::grouped(more as u64)) } else { String::new() };
    format!("no event has the tag `{tag}`; tags: {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_no_event_has_is_answered_with_those_that_events_have() {
        let tags = |count: usize| (0..count).map(|number| format!("t{number:02}")).collect::<BTreeSet<_>>();
        assert_eq!(no_such_tag("x", &tags(2)), "no event has the tag `x`; tags: t00, t01");
        assert!(no_such_tag("x", &tags(23)).ends_with("t19 and 3 more"));
        assert_eq!(no_such_tag("x", &tags(0)), "no event has the tag `x`: none has any tag");
    }
}
