use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tallybus_bus::{Bus, NewRecord};
use tallybus_schemas::checkpoint::Dismissal;
use tallybus_verify::producers::{Known, Presence, Producer};

use super::{Opened, name_of, open};
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::waiting::waiting_for_bus;
use crate::{Global, times};

/// How long the bus may take to confirm the record.
const CONFIRM_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Wait no longer for a producer that is gone for good, or for what it does not know the fate of.
///
/// It holds no watermark back any more. Counts that it made and that never reached the bus are lost, as they were before. If it
/// writes a checkpoint again, it counts again.
#[derive(Debug, Args)]
pub(super) struct Dismiss {
    /// Its id, or the first digits of it, as `tallybus producers` shows them (repeatable).
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

impl Dismiss {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let now = times::now().map_err(Failure::could_not_look)?;
        let Opened { bus, topic, read } = open(global, output)?;
        let chosen = self.ids.iter().map(|id| find(read.known(), id)).collect::<Result<Vec<_>, Failure>>()?;
        for (id, producer) in chosen {
            let number = producer.checkpoint().map_or(0, |checkpoint| checkpoint.number);
            let dismissal = Dismissal::new(id, number, now);
            waiting_for_bus(output, bus.as_ref(), || publish(bus.as_ref(), &topic, &dismissal))?;
            let presence = producer.presence(now / 1_000_000);
            let before = producer.on_the_bus_before().map(times::show);
            if output.json {
                let state = presence.name();
                output.report(&json!({ "dismissed": id, "was": state, "complete_before": before }).to_string())?;
                continue;
            }
            let since = before.map_or_else(String::new, |before| format!(", complete before {before}"));
            output.wrapped(&format!("dismissed: {}, which was {}{since}", name_of(id, producer), presence.name()))?;
            if presence == Presence::Live {
                output.wrapped(
                    "it is live, and counts again from its next checkpoint on; what it was in doubt about is accepted",
                )?;
            }
        }
        Ok(Verdict::Good)
    }
}

/// The only producer whose id begins so.
fn find<'k>(known: &'k Known, id: &str) -> Result<(&'k str, &'k Producer), Failure> {
    let id = id.to_ascii_lowercase();
    let mut found = known.producers().filter(|(other, _)| !id.is_empty() && other.starts_with(&id));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Failure::could_not_look(format!("several producers begin with {id:?}: give more digits")))
        }
        (None, _) => Err(Failure::could_not_look(format!("no producer {id:?}: `tallybus producers --all` shows them"))),
    }
}

fn publish(bus: &dyn Bus, topic: &str, dismissal: &Dismissal) -> Result<(), Failure> {
    let payload = dismissal.encode().map_err(Failure::failed)?;
    let key = dismissal.key();
    let record = NewRecord { topic, partition: None, key: Some(key.as_bytes()), payload: &payload, headers: &[] };
    let mut publisher = bus.publisher()?;
    publisher.publish(record, 0)?;
    let until = Instant::now() + CONFIRM_WITHIN;
    let mut deliveries = Vec::new();
    while deliveries.is_empty() && Instant::now() < until {
        publisher.poll(LOOK_AGAIN, &mut deliveries);
    }
    match deliveries.pop() {
        Some(delivery) => delivery.outcome.map(|_| ()).map_err(Failure::failed),
        None => {
            Err(Failure::could_not_look("the bus did not confirm it in time: look with `tallybus producers --all`"))
        }
    }
}
