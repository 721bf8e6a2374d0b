use clap::Args;
use serde_json::{Value, json};

use super::Which;
use super::partition::{Found, Held, find};
use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::Table;
use crate::waiting::waiting_for_bus;
use crate::{Global, config};

/// Show what a sink's consumer group holds for each partition.
///
/// Read-only. `stream` says whether the offset belongs to the topic that exists now.
#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    csv: CsvOption,
}

impl Show {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let settings = config::load_without_secrets(global)?;
        let (_, group, topics) = self.which.of(&settings)?;
        let bus = config::open_bus(&settings)?;
        let found = waiting_for_bus(output, bus.as_ref(), || find(bus.observer()?.as_ref(), &group, &topics))?;
        if output.json {
            let partitions: Vec<Value> = found.iter().map(Found::as_json).collect();
            output.print(&json!({ "group": group, "partitions": partitions }).to_string())?;
            return Ok(Verdict::Good);
        }
        if csv {
            let partitions: Vec<Value> = found.iter().map(Found::as_json).collect();
            let columns = ["partition", "settled", "sealed_ends", "first", "end", "stream", "topic_stream", "error"];
            Csv::of(&columns, &partitions).report(output)?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&["partition", ">settled", ">sealed to", ">on the bus", "stream"]);
        found.iter().for_each(|found| table.row(found.as_row()));
        output.print(&format!("group {group}"))?;
        output.table(&table)?;
        for found in &found {
            if let Held::Unusable(_, error) = &found.held {
                output.print(&format!("{}: {error}", found.at))?;
            }
        }
        Ok(Verdict::Good)
    }
}
