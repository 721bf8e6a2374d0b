use clap::Args;
use serde_json::{Value, json};
use tallybus_sdk::{Claim, Claims, SinkError};

use crate::csv::{Csv, CsvOption};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, numbers_as_ranges};
use crate::{Global, config, selection};

/// Show which sinks write to the destination of a sink, as the destination records it.
///
/// A destination belongs to one sink and to one incarnation of each topic. A worker that finds another sink's claim there
/// halts. With --remove and --yes, the claims of a sink that is gone for good are removed: its workers must be stopped.
#[derive(Debug, Args)]
pub(crate) struct ShowClaims {
    /// The sink's name in the settings.
    name: String,
    /// Remove the claims of this consumer group.
    #[arg(long, value_name = "GROUP")]
    remove: Option<String>,
    /// Make the change.
    #[arg(long, requires = "remove")]
    yes: bool,
    #[command(flatten)]
    csv: CsvOption,
}

impl ShowClaims {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let settings = config::load(global)?;
        let settings = selection::select_one(&settings, &self.name)?;
        let failed = |error: SinkError| Failure::could_not_look(format!("sink {}: {error}", self.name));
        let sink = settings.make().map_err(failed)?;
        let runtime = super::super::start_runtime()?;
        let Some(claims) = sink.claims() else {
            return Err(Failure::could_not_look(format!(
                "sink {}: a destination of the kind {} holds no claims",
                self.name, settings.kind.name
            )));
        };
        let destination = sink.destination().unwrap_or_else(|| self.name.clone());
        let held = runtime.block_on(read(claims)).map_err(failed)?;
        let removed: Vec<&Claim> =
            held.iter().filter(|claim| self.remove.as_ref().is_some_and(|group| claim.owner == *group)).collect();
        if let Some(group) = &self.remove
            && removed.is_empty()
        {
            return Err(Failure::could_not_look(format!("{destination} holds no claim of group {group}")));
        }
        if self.yes {
            for claim in &removed {
                let entry = claim.to_entry().map_err(failed)?;
                runtime.block_on(claims.remove(&entry)).map_err(failed)?;
            }
        }
        runtime.block_on(sink.close());
        if output.json {
            let claims = serde_json::to_value(&held).map_err(Failure::failed)?;
            let removed = if self.yes { removed.len() } else { 0 };
            output.print(&json!({ "destination": destination, "claims": claims, "removed": removed }).to_string())?;
            return Ok(Verdict::Good);
        }
        if csv {
            claims_csv(&destination, &held).report(output)?;
            if let Some(group) = &self.remove {
                output.say(&self.outcome(group, removed.len()));
            }
            return Ok(Verdict::Good);
        }
        output.print(&destination)?;
        if held.is_empty() {
            output.print("no claims: nothing was written yet, or only by a version without claims")?;
            return Ok(Verdict::Good);
        }
        let mut table = Table::new(&["group", "topic", "partitions", "stream"]);
        for (first, partitions) in grouped(&held) {
            let partitions = numbers_as_ranges(&partitions);
            table.row(vec![first.owner.clone(), first.topic.clone(), partitions, first.stream.clone()]);
        }
        output.table(&table)?;
        if let Some(group) = &self.remove {
            output.print(&self.outcome(group, removed.len()))?;
        }
        Ok(Verdict::Good)
    }

    /// What --remove has done.
    fn outcome(&self, group: &str, removed: usize) -> String {
        let count = count_of(removed as u64, "claim");
        match self.yes {
            true => format!("{count} removed"),
            false => format!(
                "nothing was changed; to remove {count} of {group}, stop the workers of that group for good and add --yes"
            ),
        }
    }
}

/// One row for each claim.
fn claims_csv(destination: &str, held: &[Claim]) -> Csv {
    let mut table = Csv::new(["destination", "group", "topic", "partition", "stream"]);
    for claim in held {
        let texts = [destination, &claim.owner, &claim.topic].map(Value::from);
        table.row(texts.into_iter().chain([claim.partition.into(), claim.stream.as_str().into()]));
    }
    table
}

async fn read(claims: &dyn Claims) -> Result<Vec<Claim>, SinkError> {
    let mut held = claims.held().await?;
    held.sort_by(|a, b| {
        (&a.owner, &a.topic, &a.stream, a.partition).cmp(&(&b.owner, &b.topic, &b.stream, b.partition))
    });
    Ok(held)
}

/// The partitions of each group, topic and incarnation.
fn grouped(held: &[Claim]) -> Vec<(&Claim, Vec<u32>)> {
    let mut groups: Vec<(&Claim, Vec<u32>)> = Vec::new();
    for claim in held {
        match groups.last_mut() {
            Some((first, partitions))
                if (&first.owner, &first.topic, &first.stream) == (&claim.owner, &claim.topic, &claim.stream) =>
            {
                partitions.push(claim.partition);
            }
            _ => groups.push((claim, vec![claim.partition])),
        }
    }
    groups
}
