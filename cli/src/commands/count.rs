use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};
use tallybus_bus::read_range;
use tallybus_verify::audit::Messages;

use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::filter::FilterArgs;
use crate::groups::{Groups, Key, Sum};
use crate::output::{Output, number};
use crate::progress::Progress;
use crate::tags::KnownTags;
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
    #[arg(long = "by", visible_alias = "sum-by", value_name = "TAG")]
    by: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
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

/// What is on the bus and holds no event.
#[derive(Clone, Copy)]
struct Passed {
    /// Records, and lines of records, that cannot be decoded.
    undecodable: u64,
    /// Records with a null value.
    tombstones: u64,
}

impl Count {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let settings = config::load_bus(global)?;
        let topic = self.topic.as_ref().unwrap_or(&settings.bus.topic);
        let mut selected = self.filter.compile()?;
        let mut messages = Messages::new(&settings.bus.encodings).map_err(Failure::could_not_look)?;
        let range = times::range(self.from, self.to)?;
        let bus = config::open_bus(&settings)?;

        let ranges = waiting_for_bus(output, bus.as_ref(), || bus.observer()?.offsets_of(topic))?;
        let messages_there: u64 = ranges.iter().map(|range| range.end - range.first).sum();
        let spans: Vec<_> = (0..).zip(&ranges).map(|(partition, range)| (partition, range.first..range.end)).collect();
        let mut whole = Sum::default();
        let mut groups = Groups::new(&self.by);
        // By the number of the group.
        let mut sums: Vec<Sum> = Vec::new();
        let mut known = KnownTags::asked_for(self.by.iter().map(String::as_str).filter(|by| *by != "name"));
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
                if !selected.takes(&record, row, series) || !range.contains(row.time) {
                    continue;
                }
                whole.add(row.value);
                if self.by.is_empty() {
                    continue;
                }
                let (group, is_new) = groups.of(row.series, series);
                if is_new {
                    known.see(series);
                    sums.resize(groups.len(), Sum::default());
                }
                sums[group as usize].add(row.value);
            }
        })?;
        drop(progress);
        if let Some(first) = ranges.iter().map(|range| range.first).find(|first| *first > 0) {
            output
                .say(&format!("note: older messages were deleted by retention (a partition begins at offset {first})"));
        }
        selected.notes().iter().chain(&known.unknown()).for_each(|note| output.say(note));
        let groups = sorted(&groups, &sums);
        let passed = Passed { undecodable, tombstones };
        if output.json {
            output.report(&self.as_json(whole, &groups, passed).to_string())?;
        } else if csv {
            self.csv(whole, &groups).report(output)?;
            passed.notes().iter().for_each(|note| output.say(note));
        } else {
            // Groups by tags that no event has are one row that says nothing.
            let says_nothing = known.all_missing() && !self.by.iter().any(|by| by == "name");
            let groups = if says_nothing { Vec::new() } else { groups };
            self.show(whole, &groups, passed, output)?;
        }
        Ok(Verdict::Good)
    }

    fn as_json(&self, whole: Sum, groups: &[(Key, Sum)], passed: Passed) -> Value {
        let mut groups: Vec<&(Key, Sum)> = groups.iter().collect();
        groups.sort_by(|one, other| one.0.cmp(&other.0));
        let groups: Vec<Value> = groups
            .into_iter()
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
    fn csv(&self, whole: Sum, groups: &[(Key, Sum)]) -> Csv {
        let mut table = Csv::new(self.by.iter().map(String::as_str).chain(["total", "events"]));
        let mut row = |key: &Key, sum: &Sum| {
            let key = key.iter().map(|value| Value::from(value.clone()));
            table.row(key.chain([number(sum.total), sum.events.into()]));
        };
        if self.by.is_empty() {
            row(&Vec::new(), &whole);
        }
        groups.iter().for_each(|(key, sum)| row(key, sum));
        table
    }

    fn show(&self, whole: Sum, groups: &[(Key, Sum)], passed: Passed, output: &Output) -> Result<(), Failure> {
        if !groups.is_empty() {
            let mut titles: Vec<&str> = self.by.iter().map(String::as_str).collect();
            titles.extend([">total", ">events"]);
            let mut table = Table::new(&titles);
            for (key, sum) in groups {
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

/// The groups, the largest sum first; of equal ones, the one that sorts first by its key.
fn sorted(groups: &Groups, sums: &[Sum]) -> Vec<(Key, Sum)> {
    let mut sorted: Vec<(Key, Sum)> = (0..).zip(sums).map(|(group, sum)| (groups.key(group).clone(), *sum)).collect();
    sorted.sort_by(|(one, a), (other, b)| b.total.cmp(&a.total).then_with(|| one.cmp(other)));
    sorted
}
