//! The commands that workers know.

use serde_json::{Value, json};
use tallybus_bus::Record;
use tallybus_control::{Accepted, Command, Guard, Identity, Outcome, Refusal, Reply};

use super::topic_reader::Headers;
use crate::live::{Addressee, Process};
use crate::status::{PartitionState, WorkerStatus};

/// The commands, for those that ask for another one.
const COMMANDS: [&str; 3] = ["status", "retry-now", "dump"];

/// A record on the topic of commands that is no answer.
pub(super) enum Taken {
    Accepted(Box<Command>),
    /// Why it is refused, and the command where it is one.
    Refused(Refusal, Option<Box<Command>>),
}

impl Taken {
    pub(super) fn of(guard: &mut Guard, record: &Record<'_>, now_ms: i64) -> Self {
        if record.unreadable.is_some() {
            return Self::Refused(Refusal::Malformed, None);
        }
        let headers = Headers::of(record);
        match guard.take(record.payload, headers.as_ref().map(Headers::signed), now_ms) {
            Ok(Accepted(command)) => Self::Accepted(Box::new(command)),
            Err((refusal, command)) => Self::Refused(refusal, command),
        }
    }

    /// Whether it is for this worker.
    pub(super) fn is_for(&self, worker: &Identity) -> bool {
        match self {
            Self::Accepted(command) => command.target.matches(worker),
            Self::Refused(_, command) => command.as_ref().is_some_and(|command| command.target.matches(worker)),
        }
    }
}

/// Does what a command asks of a worker, and says what came of it, for people and for programs.
pub(super) fn carry_out(command: &Command, addressee: &Addressee, process: &Process) -> (Outcome, String, Value) {
    if command.reply != Reply::Bus {
        let text = "workers answer on the bus only: ask without a callback";
        return (Outcome::Refused, text.to_owned(), Value::Null);
    }
    let Some(status) = addressee.status() else {
        return (Outcome::Failed, "the worker could not start; see its log".to_owned(), Value::Null);
    };
    match command.name.as_str() {
        "status" => status_of(addressee, process),
        "retry-now" => {
            addressee.retry_now();
            let backed_off: usize = status.backend_failures.iter().map(|failure| failure.partitions.len()).sum();
            let stopped = status.partitions.values().filter(|one| one.state != PartitionState::Running).count();
            let left =
                if stopped > 0 { "; those that are halted for another reason are tried after a restart" } else { "" };
            let text = format!("tried at once: partitions that wait for their backend: {backed_off}{left}");
            (Outcome::Done, text, json!({ "tried": backed_off, "stopped": stopped }))
        }
        "dump" => (Outcome::Done, String::new(), dump(&status)),
        other => {
            let text = format!("unknown command {other:?}: workers know {}", COMMANDS.join(", "));
            (Outcome::Refused, text, Value::Null)
        }
    }
}

/// The status document of the process with this worker's sink alone.
fn status_of(addressee: &Addressee, process: &Process) -> (Outcome, String, Value) {
    let mut document = process.document();
    document.sinks.retain(|sink| sink.name == addressee.sink());
    let text = document.sinks.first().map_or(String::new(), |sink| {
        let why = sink.control.as_ref().map(|control| format!(" ({})", control.text)).unwrap_or_default();
        let lag = sink.lag_messages.map_or("lag unknown".to_owned(), |lag| format!("{lag} messages behind"));
        format!("{}{why}, {lag}", sink.state.name())
    });
    match serde_json::to_value(&document) {
        Ok(document) => (Outcome::Done, text, document),
        Err(error) => (Outcome::Failed, format!("the status cannot be written: {error}"), Value::Null),
    }
}

/// Sizes, partitions and batches in memory. Holds no event and no secret.
fn dump(status: &WorkerStatus) -> Value {
    let partitions = status.partitions.iter().map(|(at, partition)| {
        let state = match &partition.state {
            PartitionState::Running => "running",
            PartitionState::Stopped { .. } => "halted",
        };
        json!({
            "partition": at, "state": state, "settled": partition.settled, "next": partition.next, "end": partition.end,
            "batches": status.batches_in_memory.get(at),
        })
    });
    json!({
        "state": status.duty.name(),
        "is_member": status.is_member,
        "memory_bytes": status.memory,
        "events": status.events,
        "batches_settled": status.batches,
        "retries": status.retries,
        "failed_commits": status.failed_commits,
        "last_error": status.last_error,
        "partitions": partitions.collect::<Vec<_>>(),
    })
}
