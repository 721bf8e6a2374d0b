use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tallybus_control::{Address, Identity};
use tallybus_verify::heartbeats::{Heartbeats, Presence};
use tallybus_worker::SystemClock;
use tallybus_worker::control::DesiredReader;

use super::Place;
use super::addressees::identity;
use crate::Global;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, duration};

/// How long the control topic is read for.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Show what is wanted of workers, and what they do about it.
///
/// Of several desired states that match a worker the newest counts; they are listed newest first. Where [control] has `keys`, only
/// what one of them has signed is listed, as workers with the same keys take it. Exit status 0: everything was read, 2: not.
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Only the workers that this target means.
    #[arg(value_name = "TARGET", default_value = "all")]
    target: Address,
    /// The key of signed desired states: env:NAME or file:PATH; `keys` in [control] otherwise.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

impl Show {
    pub(super) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let place = Place::open(global, self.key.as_deref())?;
        let mut desired = DesiredReader::new(place.bus.clone(), &place.control_topic(), place.keys.clone());
        let until = Instant::now() + READ_WITHIN;
        while !desired.read(Duration::from_millis(200))? {
            if Instant::now() >= until {
                return Err(Failure::could_not_look(format!(
                    "topic {} could not be read to its end within {} s",
                    place.control_topic(),
                    READ_WITHIN.as_secs()
                )));
            }
        }
        let refused: u64 = desired.take_refused().values().sum();
        let mut heartbeats =
            Heartbeats::new(place.bus.clone(), &place.control_topic(), std::sync::Arc::new(SystemClock));
        heartbeats.refresh(Duration::from_secs(10))?;
        let states: Vec<Vec<String>> = desired
            .states()
            .all()
            .into_iter()
            .map(|one| vec![one.state.name().to_owned(), one.target.to_string(), one.why(), one.id.clone()])
            .collect();
        let mut workers = Vec::new();
        for seen in heartbeats.workers().filter(|seen| seen.presence != Presence::Left) {
            let ids = seen.document.sinks.iter().map(|sink| (sink, identity(seen.document, &sink.name, &sink.kind)));
            for (sink, worker) in ids.filter(|(_, worker)| self.target.matches(worker)) {
                let wanted = desired.states().of(&worker).map_or("running", |desired| desired.state.name());
                let seen_at = match seen.presence {
                    Presence::Live => "live".to_owned(),
                    _ => format!("silent for {}", duration(seen.age)),
                };
                let text = sink.control.as_ref().map(|control| control.text.clone()).unwrap_or_default();
                workers.push(Worker {
                    name: worker,
                    process: seen.document.worker.clone(),
                    wanted,
                    state: sink.state.name(),
                    takes: seen.document.control.clone(),
                    seen: seen_at,
                    text,
                });
            }
        }
        workers.sort_by_key(|worker| (worker.name.to_string(), worker.process.clone()));
        if output.json {
            output.report(&as_json(&states, &workers, refused).to_string())?;
            return Ok(Verdict::Good);
        }
        tell(&states, &workers, refused, output)?;
        Ok(Verdict::Good)
    }
}

/// A worker, as its last heartbeat has it.
struct Worker {
    name: Identity,
    process: String,
    wanted: &'static str,
    state: &'static str,
    takes: String,
    seen: String,
    text: String,
}

fn tell(states: &[Vec<String>], workers: &[Worker], refused: u64, output: &Output) -> Result<(), Failure> {
    if states.is_empty() {
        output.report("nothing is wanted: every worker runs")?;
    } else {
        let mut table = Table::new(&["wanted", "target", "by", "id"]);
        states.iter().for_each(|row| table.row(row.clone()));
        output.table(&table)?;
    }
    if refused > 0 {
        output
            .say(&format!("{} refused: not signed with a known key, or malformed", count_of(refused, "desired state")));
    }
    if workers.is_empty() {
        return output.report("no worker publishes heartbeats");
    }
    let mut table = Table::new(&["worker", "process", "wanted", "state", "takes commands", "heartbeats", "what"]);
    for worker in workers {
        let (name, takes) = (worker.name.to_string(), if worker.takes.is_empty() { "off" } else { &worker.takes });
        table.row(vec![
            name,
            worker.process.clone(),
            worker.wanted.to_owned(),
            worker.state.to_owned(),
            takes.to_owned(),
            worker.seen.clone(),
            worker.text.clone(),
        ]);
    }
    output.table(&table)
}

fn as_json(states: &[Vec<String>], workers: &[Worker], refused: u64) -> Value {
    let state = |row: &Vec<String>| json!({ "wanted": row[0], "target": row[1], "by": row[2], "id": row[3] });
    let worker = |one: &Worker| {
        json!({
            "addressee": one.name.to_string(), "process": one.process, "wanted": one.wanted, "state": one.state,
            "control": one.takes, "heartbeats": one.seen, "text": one.text,
        })
    };
    json!({
        "desired": states.iter().map(state).collect::<Vec<_>>(),
        "workers": workers.iter().map(worker).collect::<Vec<_>>(),
        "refused": refused,
    })
}
