use std::collections::BTreeMap;
use std::time::Duration;

use tallybus_worker::live::{PartitionDocument, SinkDocument, SinkState, StatusDocument};

use crate::heartbeats::{Presence, SILENT_AFTER, SeenWorker};

/// What a worker said about its sink, in its last heartbeat.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerReport {
    /// The worker: host and process id.
    pub worker: String,
    /// The sink's name.
    pub sink: String,
    /// How long ago it said so.
    pub age: Duration,
    /// Requests that it has repeated since it started.
    pub retries: u64,
    /// What keeps it from advancing.
    pub last_error: Option<String>,
    /// Whether operators want it drained, rather than paused, and how far it is with that; `None` while it may run.
    pub rest: Option<(bool, String)>,
    /// Why it is halted, each reason once.
    pub halts: Vec<String>,
    /// Its partitions, by topic and number.
    pub partitions: BTreeMap<(String, u32), PartitionReport>,
}

/// What a worker said about one of its partitions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartitionReport {
    /// Age of its oldest unsettled message in seconds, now; `None` where there is none, or where it is unknown.
    pub oldest_seconds: Option<f64>,
    /// Why it is halted.
    pub halted: Option<String>,
}

impl WorkerReport {
    /// What the workers of a process said, one for each sink; none for a process that has left.
    pub fn of(seen: &SeenWorker<'_>) -> Vec<Self> {
        if seen.presence == Presence::Left {
            return Vec::new();
        }
        let document = seen.document;
        document.sinks.iter().map(|sink| Self::of_sink(document, sink, seen.age)).collect()
    }

    fn of_sink(document: &StatusDocument, sink: &SinkDocument, age: Duration) -> Self {
        let host = if document.host.is_empty() { &document.worker } else { &document.host };
        let last_error = sink.last_error.clone().or_else(|| match sink.state {
            SinkState::Failed => Some("a worker could not start; see its log".to_owned()),
            SinkState::Silent => Some("a worker hangs; see its log".to_owned()),
            _ => None,
        });
        let partitions = sink.partitions.iter().map(|partition| {
            let place = (partition.topic.clone(), partition.partition);
            (place, PartitionReport::of(partition, document.time_ms, age))
        });
        Self {
            worker: format!("{host}:{}", document.pid),
            sink: sink.name.clone(),
            age,
            retries: sink.retries.values().fold(0, |sum: u64, count| sum.saturating_add(*count)),
            last_error,
            rest: rest(sink),
            halts: sink.halts.clone(),
            partitions: partitions.collect(),
        }
    }

    /// Whether the worker still publishes heartbeats.
    pub fn is_fresh(&self) -> bool {
        self.age <= SILENT_AFTER
    }
}

fn rest(sink: &SinkDocument) -> Option<(bool, String)> {
    if !sink.state.is_resting() {
        return None;
    }
    let text = sink.control.as_ref().map_or_else(|| sink.state.name().to_owned(), |control| control.text.clone());
    Some((matches!(sink.state, SinkState::Draining | SinkState::Drained), text))
}

impl PartitionReport {
    /// `time_ms`: when it was said, by the clock of the host that said it. `age`: how long ago that is.
    fn of(document: &PartitionDocument, time_ms: i64, age: Duration) -> Self {
        let oldest_seconds = document.oldest_ms.map(|oldest| {
            // A message from the future, by that clock, is new.
            let then = u64::try_from(time_ms.saturating_sub(oldest)).unwrap_or_default();
            (Duration::from_millis(then) + age).as_secs_f64()
        });
        Self { oldest_seconds, halted: document.halted.as_ref().map(|halted| halted.reason.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_heartbeat_becomes_a_report_for_each_sink_and_none_of_a_process_that_left() {
        let partition = |number: u32, oldest: Option<i64>| {
            json!({ "topic": "t", "partition": number, "settled": 1, "next": 1, "end": 2, "oldest_ms": oldest, "halted":
                if number == 1 { json!({ "cause": "start", "reason": "gone" }) } else { json!(null) } })
        };
        let sink = json!({ "name": "a", "kind": "sqlite", "group": "tallybus.a", "state": "halted", "ready": true, "silent_ms": 1,
            "lag_messages": 1, "lag_seconds": 3.0, "oldest_unsettled_ms": 1, "events": 0, "value": "0", "messages": 0,
            "points": 0, "batches": 0, "seals": 0, "dead_letters": 0, "answers": {}, "retries": { "throttled": 2, "unavailable": 1 },
            "rebalances": {}, "failed_commits": 0, "encoded_bytes": 0, "memory_bytes": 0, "last_error": null,
            "halts": ["t/1: gone"], "wanted_workers": 1, "hold": null,
            "partitions": [partition(0, Some(7_000)), partition(1, None)] });
        let mut document = json!({ "version": 1, "worker": "ab12", "state": "running", "host": "h", "pid": 7, "build": "1",
            "commit": "c", "started_ms": 0, "time_ms": 10_000, "bus": "b", "sinks": [sink] });
        let reports = |document: &serde_json::Value, presence| {
            let document: StatusDocument = serde_json::from_value(document.clone()).unwrap();
            WorkerReport::of(&SeenWorker { document: &document, age: Duration::from_millis(500), presence })
        };
        let found = reports(&document, Presence::Live);
        let [report] = &found[..] else { panic!("{found:?}") };
        assert_eq!((report.worker.as_str(), report.retries, report.halts.len()), ("h:7", 3, 1));
        let of = |number| &report.partitions[&("t".to_owned(), number)];
        assert_eq!((of(0).oldest_seconds, &of(0).halted), (Some(3.5), &None));
        assert_eq!((of(1).oldest_seconds, of(1).halted.as_deref()), (None, Some("gone")));
        assert_eq!(reports(&document, Presence::Left), []);
        assert_eq!(report.rest, None);
        document["sinks"][0]["state"] = json!("draining");
        let text = "draining (2 batches in flight), as wanted by ada@desk";
        document["sinks"][0]["control"] = json!({ "wanted": "drained", "id": "1", "by": "ada@desk", "since_ms": 1,
            "reason": "", "text": text });
        assert_eq!(reports(&document, Presence::Live)[0].rest, Some((true, text.to_owned())));
        document["sinks"][0]["state"] = json!("failed");
        let failed = &reports(&document, Presence::Live)[0];
        assert_eq!(failed.last_error.as_deref(), Some("a worker could not start; see its log"));
    }
}
