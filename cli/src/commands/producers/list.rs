use clap::Args;
use serde_json::{Value, json};
use tallybus_verify::producers::{Known, Presence, Producer, Word};

use super::{Opened, open, short};
use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, grouped};
use crate::{Global, times};

const COLUMNS: [&str; 17] = [
    "producer",
    "service",
    "instance",
    "host",
    "pid",
    "version",
    "state",
    "complete_before",
    "started",
    "rate",
    "series",
    "emitted",
    "delivered",
    "unknown",
    "give_backs",
    "overflowed",
    "topic",
];

/// Which producers are shown, and how.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only those of this service.
    #[arg(long)]
    service: Option<String>,
    /// Those that have ended, and dismissed ones, too.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    csv: CsvOption,
}

impl List {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let now_ms = times::now().map_err(Failure::could_not_look)? / 1_000_000;
        let Opened { read, .. } = open(global, output)?;
        let (shown, left_out) = self.choose(read.known(), now_ms);
        if output.json || csv {
            let rows: Vec<Value> = shown.iter().map(|(id, producer)| as_json(id, producer, now_ms)).collect();
            if csv {
                Csv::of(&COLUMNS, &rows).report(output)?;
            } else {
                let skipped = read.known().skipped();
                output.print(
                    &json!({ "producers": rows, "left_out": left_out, "records_skipped": skipped }).to_string(),
                )?;
            }
            return Ok(Verdict::Good);
        }
        let mut table =
            Table::new(&["id", "service/instance", "version", "complete before", ">rate/s", ">series", "state"]);
        shown.iter().for_each(|(id, producer)| table.row(as_row(id, producer, now_ms)));
        output.table(&table)?;
        if left_out > 0 {
            output.print(&format!("{} that ended or were dismissed: --all", count_of(left_out, "producer")))?;
        }
        for (id, producer) in &shown {
            if let Some(Word::Unreadable(reason)) = &producer.word {
                output.wrapped(&format!("{}: {reason}", short(id)))?;
            }
            let unknown = producer.open_doubts().map(|doubt| doubt.value).fold(0u64, u64::saturating_add);
            if unknown > 0 {
                output.wrapped(&format!(
                    "{}: a sum of {} may or may not be on the bus",
                    short(id),
                    grouped(unknown)
                ))?;
            }
        }
        Ok(Verdict::Good)
    }

    /// The producers to show, by service and instance, and the number of those that are left out for their state.
    fn choose<'k>(&self, known: &'k Known, now_ms: i64) -> (Vec<(&'k str, &'k Producer)>, u64) {
        let service = |producer: &Producer| producer.checkpoint().map(|checkpoint| checkpoint.service.clone());
        let is_chosen = |producer: &Producer| self.service.is_none() || service(producer) == self.service;
        let is_over = |producer: &Producer| {
            matches!(producer.presence(now_ms), Presence::Ended | Presence::Dismissed) && !self.all
        };
        let chosen: Vec<_> = known.producers().filter(|(_, producer)| is_chosen(producer)).collect();
        let left_out = chosen.iter().filter(|(_, producer)| is_over(producer)).count() as u64;
        let mut shown: Vec<_> = chosen.into_iter().filter(|(_, producer)| !is_over(producer)).collect();
        let order =
            |producer: &Producer| producer.checkpoint().map(|of| (of.service.clone(), of.instance.clone(), of.started));
        shown.sort_by_cached_key(|(_, producer)| order(producer));
        (shown, left_out)
    }
}

fn as_json(id: &str, producer: &Producer, now_ms: i64) -> Value {
    let state = producer.presence(now_ms).name();
    let before = producer.on_the_bus_before().map(times::show);
    let Some(checkpoint) = producer.checkpoint() else { return json!({ "producer": id, "state": state }) };
    json!({
        "producer": id,
        "service": checkpoint.service,
        "instance": checkpoint.instance,
        "host": checkpoint.host,
        "pid": checkpoint.pid,
        "version": checkpoint.version,
        "state": state,
        "complete_before": before,
        "started": times::show(checkpoint.started),
        "rate": producer.rate(),
        "series": checkpoint.series,
        "emitted": checkpoint.emitted,
        "delivered": checkpoint.delivered,
        "unknown": checkpoint.unknown,
        "give_backs": checkpoint.give_backs,
        "overflowed": checkpoint.overflowed,
        "topic": checkpoint.topic,
    })
}

fn as_row(id: &str, producer: &Producer, now_ms: i64) -> Vec<String> {
    let state = producer.presence(now_ms).name().to_owned();
    let none = || "-".to_owned();
    let Some(checkpoint) = producer.checkpoint() else {
        return vec![short(id).to_owned(), none(), none(), none(), none(), none(), state];
    };
    let name = format!("{}/{}", checkpoint.service, checkpoint.instance);
    vec![
        short(id).to_owned(),
        clipped(&name, 18),
        clipped(&checkpoint.version, 7),
        producer.on_the_bus_before().map_or_else(none, day_and_time),
        producer.rate().map_or_else(none, short_number),
        short_number(checkpoint.series as f64),
        state,
    ]
}

fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// `11-30 16:40:01`, in UTC: the year and the fraction are in JSON.
fn day_and_time(nanos: i64) -> String {
    let text = times::show(nanos);
    text.get(5..19).map_or_else(|| text.clone(), |text| text.replace('T', " "))
}

/// At most five characters: `999`, `12.3k`, `4.5M`.
fn short_number(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut scaled, mut unit) = (number, 0);
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1_000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && scaled < 99.95);
    format!("{scaled:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_into_narrow_columns() {
        for (number, expected) in [
            (0.0, "0"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (12_345.0, "12.3k"),
            (100_400.0, "100k"),
            (2e6, "2.0M"),
            (1e16, "10000T"),
        ] {
            assert_eq!(short_number(number), expected);
        }
        assert_eq!(clipped("checkout/checkout-7d9f", 18), "checkout/checkout…");
        assert_eq!(day_and_time(1_769_860_800_123_456_789), "01-31 12:00:00");
    }
}
