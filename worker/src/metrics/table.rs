//! Every metric of a worker process. The endpoint, the documentation, the dashboard and the alert rules have their names from
//! here, or are checked against it.

/// A metric as it is described to its readers.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name, as dashboards and rules have it.
    pub name: &'static str,
    /// How its values behave.
    pub kind: MetricKind,
    /// The unit of its values; empty for plain numbers and states.
    pub unit: &'static str,
    /// The names of its labels. None of their values comes from events.
    pub labels: &'static [&'static str],
    /// What it says, as a sentence.
    pub help: &'static str,
}

/// How the values of a metric behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Never falls while the process lives.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts values by size.
    Histogram,
}

impl MetricKind {
    /// The word of the exposition formats.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const SINK: &[&str] = &["sink"];
const PARTITION: &[&str] = &["sink", "topic", "partition"];

const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: MetricKind::Counter, unit, labels, help }
}

const fn gauge(name: &'static str, unit: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, unit, labels, help }
}

/// All metrics, in the order in which they are shown.
pub const METRICS: &[&Metric] = &[
    &BUILD_INFO,
    &START_TIME,
    &HEARTBEATS,
    &FAILED_HEARTBEATS,
    &COMMANDS,
    &REFUSED_COMMANDS,
    &SINK_UP,
    &SINK_READY,
    &SINK_FAILING,
    &SINK_CONTROL,
    &BUS_FAILING,
    &HALTED_PARTITIONS,
    &PARTITIONS,
    &LAG_MESSAGES,
    &LAG_SECONDS,
    &SETTLED_EVENTS,
    &SETTLED_VALUE,
    &SETTLED_MESSAGES,
    &SETTLED_POINTS,
    &SETTLED_BATCHES,
    &DEAD_LETTERS,
    &REQUESTS,
    &RETRIES,
    &SEALED_BATCHES,
    &FAILED_COMMITS,
    &GROUP_CHANGES,
    &ENCODED_BYTES,
    &MEMORY,
    &BATCH_EVENTS,
    &STAGE_SECONDS,
    &WANTED_WORKERS,
    &HOLD,
    &PARTITION_LAG_MESSAGES,
    &PARTITION_LAG_SECONDS,
    &PARTITION_SETTLED,
    &PARTITION_END,
];

pub(super) static BUILD_INFO: Metric =
    gauge("tallybus_build_info", "", &["version", "commit"], "1; its labels say what the process was built from.");
pub(super) static START_TIME: Metric =
    gauge("process_start_time_seconds", "seconds", &[], "When the process started, in seconds since the Unix epoch.");
pub(super) static HEARTBEATS: Metric =
    counter("tallybus_heartbeats_total", "", &[], "Heartbeats that the bus has confirmed.");
pub(super) static FAILED_HEARTBEATS: Metric = counter(
    "tallybus_heartbeats_failed_total",
    "",
    &[],
    "Heartbeats that the bus refused, or did not confirm in time. No count depends on them.",
);
pub(super) static COMMANDS: Metric =
    counter("tallybus_commands_total", "", &[], "Commands that this process has taken (`tallybus ctl`).");
pub(super) static REFUSED_COMMANDS: Metric = counter(
    "tallybus_commands_refused_total",
    "",
    &["reason"],
    "Commands and desired states that were refused, by reason.",
);
pub(super) static SINK_CONTROL: Metric = gauge(
    "tallybus_sink_control",
    "",
    &["sink", "state"],
    "1 for what the worker does about what operators want (`tallybus ctl`), 0 for the others: `waiting` until it knows whether it \
     may run, `running`, `pausing`, `paused`, `draining` or `drained`.",
);
pub(super) static SINK_UP: Metric = gauge(
    "tallybus_sink_up",
    "",
    &["sink", "kind"],
    "1 while the sink's worker runs, whatever it waits for; 0 when it could not start, has ended or hangs.",
);
pub(super) static SINK_READY: Metric =
    gauge("tallybus_sink_ready", "", SINK, "1 once the backend has been found as it must be, since the start.");
pub(super) static SINK_FAILING: Metric = gauge(
    "tallybus_sink_failing",
    "",
    SINK,
    "1 while something keeps the worker from advancing: it is retried, or halted until an operator acts.",
);
pub(super) static BUS_FAILING: Metric =
    gauge("tallybus_sink_bus_failing", "", SINK, "1 while the bus does not answer.");
pub(super) static HALTED_PARTITIONS: Metric = gauge(
    "tallybus_sink_halted_partitions",
    "",
    &["sink", "reason"],
    "Partitions of this worker that do not advance before an operator has acted, by the kind of reason.",
);
pub(super) static PARTITIONS: Metric = gauge("tallybus_sink_partitions", "", SINK, "Partitions that this worker owns.");
pub(super) static LAG_MESSAGES: Metric = gauge(
    "tallybus_sink_lag_messages",
    "messages",
    SINK,
    "Messages of this worker's partitions that are not settled. Absent while it is unknown: before partitions are \
     assigned, while one of them cannot be begun, and while the bus does not answer.",
);
pub(super) static LAG_SECONDS: Metric = gauge(
    "tallybus_sink_lag_seconds",
    "seconds",
    SINK,
    "Age of the oldest message of this worker's partitions that is not settled; 0 when all are. Absent while it is unknown.",
);
pub(super) static SETTLED_EVENTS: Metric = counter(
    "tallybus_sink_settled_events_total",
    "",
    SINK,
    "Events in settled batches, whether the sink selects them or not.",
);
pub(super) static SETTLED_VALUE: Metric = counter(
    "tallybus_sink_settled_value_total",
    "",
    SINK,
    "Sum of the values of the points in settled batches, those of points that became dead letters too. An event that can be no point of the sink adds nothing.",
);
pub(super) static SETTLED_MESSAGES: Metric = counter(
    "tallybus_sink_settled_messages_total",
    "",
    SINK,
    "Offsets that settled batches cover: messages, and the markers of transactions among them.",
);
pub(super) static SETTLED_POINTS: Metric =
    counter("tallybus_sink_settled_points_total", "", SINK, "Points in settled batches.");
pub(super) static SETTLED_BATCHES: Metric =
    counter("tallybus_sink_settled_batches_total", "", SINK, "Settled batches.");
pub(super) static DEAD_LETTERS: Metric =
    counter("tallybus_sink_dead_letters_total", "", SINK, "Dead letters that the bus has confirmed.");
pub(super) static REQUESTS: Metric = counter(
    "tallybus_sink_requests_total",
    "",
    &["sink", "answer"],
    "Writes that the backend answered, by the kind of answer.",
);
pub(super) static RETRIES: Metric = counter(
    "tallybus_sink_retries_total",
    "",
    &["sink", "reason"],
    "Requests to the backend that are repeated after a wait, by reason. No data is lost by that.",
);
pub(super) static SEALED_BATCHES: Metric =
    counter("tallybus_sink_sealed_batches_total", "", SINK, "Batches that this worker has sealed.");
pub(super) static FAILED_COMMITS: Metric = counter(
    "tallybus_sink_failed_commits_total",
    "",
    SINK,
    "Commits of partitions that the bus refused or did not answer; each is read back before the next one.",
);
pub(super) static GROUP_CHANGES: Metric = counter(
    "tallybus_sink_rebalances_total",
    "",
    &["sink", "change"],
    "Changes of what this worker owns in its consumer group.",
);
pub(super) static ENCODED_BYTES: Metric = counter(
    "tallybus_sink_encoded_bytes_total",
    "bytes",
    SINK,
    "Approximate size of the encoded batches, before they are compressed for the network.",
);
pub(super) static MEMORY: Metric = gauge(
    "tallybus_sink_memory_bytes",
    "bytes",
    SINK,
    "Memory that the worker's batches use, half a second ago at most.",
);
pub(super) static BATCH_EVENTS: Metric = Metric {
    name: "tallybus_sink_batch_events",
    kind: MetricKind::Histogram,
    unit: "events",
    labels: SINK,
    help: "Events in each settled batch.",
};
pub(super) static STAGE_SECONDS: Metric = Metric {
    name: "tallybus_sink_stage_seconds",
    kind: MetricKind::Histogram,
    unit: "seconds",
    labels: &["sink", "stage"],
    help: "How long a step of a batch took: the commit that seals, encoding, one request, or writing with all requests \
           and the waits between them.",
};
pub(super) static WANTED_WORKERS: Metric = gauge(
    "tallybus_sink_wanted_workers",
    "",
    SINK,
    "Workers wanted for the partitions that this worker owns: 1 while it suffices, and while tallybus_sink_hold has a \
     reason. The sum over a sink's workers is what the sink wants.",
);
pub(super) static HOLD: Metric = gauge(
    "tallybus_sink_hold",
    "",
    &["sink", "reason"],
    "1 for the reason why the number of workers should stay as it is; 0 for the others.",
);
pub(super) static PARTITION_LAG_MESSAGES: Metric = gauge(
    "tallybus_partition_lag_messages",
    "messages",
    PARTITION,
    "Messages of the partition that are not settled. Absent while it is unknown.",
);
pub(super) static PARTITION_LAG_SECONDS: Metric = gauge(
    "tallybus_partition_lag_seconds",
    "seconds",
    PARTITION,
    "Age of the partition's oldest message that is not settled; 0 when all are. Absent while it is unknown.",
);
pub(super) static PARTITION_SETTLED: Metric =
    gauge("tallybus_partition_settled_offset", "", PARTITION, "Everything below this offset is settled.");
pub(super) static PARTITION_END: Metric =
    gauge("tallybus_partition_end_offset", "", PARTITION, "The next offset to be written. Absent while it is unknown.");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let names: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), METRICS.len(), "a name is there twice");
        for metric in METRICS {
            let name = metric.name;
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
            let family = name.strip_suffix("_total").unwrap_or(name);
            assert!(metric.unit.is_empty() || family.ends_with(&format!("_{}", metric.unit)), "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
            for label in metric.labels {
                let known =
                    ["sink", "kind", "topic", "partition", "reason", "answer", "change", "stage", "version", "commit"];
                assert!(known.contains(label), "{name}: {label} may have any number of values");
            }
        }
    }
}
