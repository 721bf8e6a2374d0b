//! The metrics of a worker process.

mod page;
mod table;

use std::time::SystemTime;

pub use self::page::Format;
use self::page::Page;
use self::table as metric;
pub use self::table::{METRICS, Metric, MetricKind};
use crate::counters::{Answer, GroupChange, Label, RetryReason, Values};
use crate::live::{Lag, Process, View, WorkerView, split_place};
use crate::scale::Hold;
use crate::status::{HaltCause, PartitionState, PartitionStatus, WorkerStatus};

/// What a worker may do about what operators want: [`Duty::name`](crate::Duty::name).
const DUTIES: [&str; 6] = ["waiting", "running", "pausing", "paused", "draining", "drained"];

/// The metrics of a process now, as a page of this format.
pub fn render(process: &Process, format: Format) -> String {
    page(process).render(format)
}

fn page(process: &Process) -> Page {
    let (mut page, now, build) = (Page::default(), SystemTime::now(), process.build());
    page.add(&metric::BUILD_INFO, &[build.version, build.commit], 1);
    let started = process.started().duration_since(SystemTime::UNIX_EPOCH).ok();
    page.add_known(&metric::START_TIME, &[], started.map(|since| since.as_secs_f64()));
    let (published, failed) = process.heartbeats();
    page.add(&metric::HEARTBEATS, &[], published);
    page.add(&metric::FAILED_HEARTBEATS, &[], failed);
    page.add(&metric::COMMANDS, &[], process.control_counts().taken());
    for (reason, count) in process.control_counts().refused() {
        page.add(&metric::REFUSED_COMMANDS, &[reason], count);
    }
    for view in process.views().iter().flatten() {
        add_sink(&mut page, view, now);
    }
    page
}

fn add_sink(page: &mut Page, view: &View, now: SystemTime) {
    let sink = [view.name.as_str()];
    page.add(&metric::SINK_UP, &[sink[0], view.kind], u8::from(view.is_up()));
    page.add(&metric::SINK_READY, &sink, u8::from(view.is_ready));
    let Some(worker) = &view.worker else { return };
    let status = &worker.status;
    add_state(page, sink, status, now);
    add_counters(page, sink, worker);
    for (at, partition) in &status.partitions {
        add_partition(page, sink, status, (at, partition), now);
    }
}

fn add_state(page: &mut Page, sink: [&str; 1], status: &WorkerStatus, now: SystemTime) {
    page.add(&metric::SINK_FAILING, &sink, u8::from(status.last_error.is_some() || !status.halts().is_empty()));
    for state in DUTIES {
        page.add(&metric::SINK_CONTROL, &[sink[0], state], u8::from(status.duty.name() == state));
    }
    page.add(&metric::BUS_FAILING, &sink, u8::from(status.is_bus_failing));
    for cause in HaltCause::ALL {
        let halted = match cause {
            HaltCause::Backend => status.halted_by_backend(),
            _ => status.partitions.values().filter(|partition| is_halted(partition, *cause)).count(),
        };
        page.add(&metric::HALTED_PARTITIONS, &[sink[0], cause.name()], halted);
    }
    page.add(&metric::PARTITIONS, &sink, status.partitions.len());
    let lag = Lag::of(status, now);
    page.add_known(&metric::LAG_MESSAGES, &sink, lag.messages);
    page.add_known(&metric::LAG_SECONDS, &sink, lag.time.map(|time| time.as_secs_f64()));
    page.add(&metric::MEMORY, &sink, status.memory);
    page.add(&metric::WANTED_WORKERS, &sink, status.scale_hint.wanted);
    for hold in Hold::ALL {
        page.add(&metric::HOLD, &[sink[0], hold.name()], u8::from(status.scale_hint.hold == Some(*hold)));
    }
}

fn is_halted(partition: &PartitionStatus, by: HaltCause) -> bool {
    matches!(&partition.state, PartitionState::Stopped { cause, .. } if *cause == by)
}

fn add_counters(page: &mut Page, sink: [&str; 1], worker: &WorkerView) {
    let (status, counters) = (&worker.status, &worker.counters);
    page.add(&metric::SETTLED_EVENTS, &sink, status.events);
    page.add(&metric::SETTLED_VALUE, &sink, status.value);
    page.add(&metric::SETTLED_MESSAGES, &sink, status.messages);
    page.add(&metric::SETTLED_POINTS, &sink, status.points);
    page.add(&metric::SETTLED_BATCHES, &sink, status.batches);
    page.add(&metric::DEAD_LETTERS, &sink, status.dead_letters);
    page.add(&metric::SEALED_BATCHES, &sink, counters.seals);
    page.add(&metric::FAILED_COMMITS, &sink, status.failed_commits);
    page.add(&metric::ENCODED_BYTES, &sink, counters.encoded_bytes);
    add_values::<Answer>(page, &metric::REQUESTS, sink, &counters.answers);
    add_values::<RetryReason>(page, &metric::RETRIES, sink, &counters.retries);
    add_values::<GroupChange>(page, &metric::GROUP_CHANGES, sink, &counters.group_changes);
    page.add_distribution(&metric::BATCH_EVENTS, &sink, &counters.batch_events);
    for (stage, times) in &counters.stages {
        page.add_distribution(&metric::STAGE_SECONDS, &[sink[0], stage.name()], times);
    }
}

fn add_values<L: Label>(page: &mut Page, metric: &'static Metric, sink: [&str; 1], values: &Values) {
    for (label, count) in values.iter::<L>() {
        page.add(metric, &[sink[0], label.name()], count);
    }
}

fn add_partition(
    page: &mut Page,
    sink: [&str; 1],
    status: &WorkerStatus,
    (at, partition): (&String, &PartitionStatus),
    now: SystemTime,
) {
    let (topic, number) = split_place(at);
    let labels = [sink[0], topic, number];
    let lag = Lag::of_partition(status, partition, now);
    page.add_known(&metric::PARTITION_LAG_MESSAGES, &labels, lag.messages);
    page.add_known(&metric::PARTITION_LAG_SECONDS, &labels, lag.time.map(|time| time.as_secs_f64()));
    if partition.state == PartitionState::Running {
        page.add(&metric::PARTITION_SETTLED, &labels, partition.settled);
    }
    let end = partition.end.filter(|_| !status.is_bus_failing);
    page.add_known(&metric::PARTITION_END, &labels, end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::{process, status};

    #[test]
    fn every_metric_of_the_table_is_on_the_page_of_a_working_process() {
        let mut status = status();
        status.partitions.remove("a/b.c/1");
        let mut names: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        assert_eq!(page(&process(status)).names(), names);
    }

    #[test]
    fn what_is_unknown_is_absent_and_halts_are_counted_by_cause() {
        let text = render(&process(status()), Format::Text);
        assert!(!text.contains("tallybus_sink_lag_"), "{text}");
        for line in [
            "tallybus_build_info{version=\"1.2.3\",commit=\"abc\"} 1",
            "tallybus_sink_up{sink=\"influx\",kind=\"influxdb\"} 1",
            "tallybus_sink_ready{sink=\"influx\"} 0",
            "tallybus_sink_failing{sink=\"influx\"} 1",
            "tallybus_sink_halted_partitions{sink=\"influx\",reason=\"recreated\"} 1",
            "tallybus_sink_halted_partitions{sink=\"influx\",reason=\"backend\"} 0",
            "tallybus_sink_settled_value_total{sink=\"influx\"} 18446744073709551616",
            "tallybus_partition_lag_messages{sink=\"influx\",topic=\"a/b.c\",partition=\"0\"} 7",
            "tallybus_sink_hold{sink=\"influx\",reason=\"not_measured\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("partition=\"1\""), "nothing is known of the halted partition\n{text}");
    }
}
