use clap::Subcommand;
use serde_json::json;
use tallybus_bus::{BusError, TopicOptions};

use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;
use crate::waiting::waiting_for_bus;
use crate::{Global, config, numbers};

/// Manage topics.
#[derive(Debug, Subcommand)]
pub(crate) enum Topic {
    /// Create a topic, or check that it has this many partitions.
    Create {
        /// Its name [default: the bus's topic].
        name: Option<String>,
        /// How many partitions [default: `partitions` of the settings].
        #[arg(long, value_name = "N", value_parser = numbers::partitions, allow_negative_numbers = true)]
        partitions: Option<u32>,
        #[command(flatten)]
        csv: CsvOption,
    },
}

impl Topic {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let Self::Create { name, partitions, csv } = self;
        let csv = csv.is_set(output)?;
        let settings = config::load_bus(global)?;
        let name = name.as_ref().unwrap_or(&settings.bus.topic);
        tallybus_worker::settings::check_topic(name).map_err(Failure::could_not_look)?;
        let partitions = partitions.unwrap_or(settings.bus.partitions);
        let bus = config::open_or_create_bus(&settings)?;
        let create = || bus.create_topic(name, &TopicOptions::new(partitions));
        let created = match waiting_for_bus(output, bus.as_ref(), create) {
            Ok(created) => created,
            Err(error @ BusError::PartitionCount { .. }) => return Err(Failure::failed(error)),
            Err(error) => return Err(error.into()),
        };
        let topic = json!({ "topic": name, "partitions": partitions, "created": created });
        if output.json {
            output.report(&topic.to_string())?;
        } else if csv {
            Csv::of(&["topic", "partitions", "created"], &[topic]).report(output)?;
        } else {
            let what = if created { "created" } else { "already exists" };
            output.report(&format!("{name}: {what}, {} ({})", count_of(partitions, "partition"), bus.describe()))?;
        }
        Ok(Verdict::Good)
    }
}
