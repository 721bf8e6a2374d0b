//! Whether more workers would help a sink that is behind, or whether something else is the limit.
//!
//! A worker writes its partitions at the same time, each in order. So more workers share the work of the processor, and make no
//! backend faster: while a backend is the limit, adding workers only adds load to it.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use crate::counters::{Counters, RetryReason, Stage, labels};
use crate::status::{PartitionState, WorkerStatus};

/// How long the worker is measured.
const WINDOW: Duration = Duration::from_secs(60);
/// The least that a hint is based on.
const LEAST: Duration = Duration::from_secs(30);
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// A worker that is behind by no more than this needs no help.
const MAX_LAG: Duration = Duration::from_secs(60);
/// Within what time the workers wanted would have caught up.
const CATCH_UP: Duration = Duration::from_secs(300);
/// From this share of the time on that the writers of partitions behind spend on requests, the backend is the limit.
const BACKEND_LIMITS: f64 = 0.5;

/// How many workers this worker's partitions want, and why no other number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScaleHint {
    /// Workers wanted for the partitions that this worker owns: 1 while it suffices, and while the hint is to hold. The sum over
    /// a sink's workers is what the sink wants.
    pub wanted: u32,
    /// Why the number of workers should stay as it is; `None` while more or fewer would serve.
    pub hold: Option<Hold>,
}

impl ScaleHint {
    const fn hold(reason: Hold) -> Self {
        Self { wanted: 1, hold: Some(reason) }
    }
}

impl Default for ScaleHint {
    fn default() -> Self {
        Self::hold(Hold::NotMeasured)
    }
}

labels! {
    /// Why the number of workers should stay as it is.
    Hold {
        /// The worker has not run long enough to tell, or has settled nothing in the last minute.
        NotMeasured => "not_measured",
        /// The lag is unknown.
        LagUnknown => "lag_unknown",
        /// The bus does not answer.
        Bus => "bus",
        /// The backend is the limit: it defers or fails requests, or the writers mostly wait for its answers.
        Backend => "backend",
        /// Partitions are halted: an operator has to act.
        Halted => "halted",
        /// The worker owns one partition, which cannot be divided.
        OnePartition => "one_partition",
    }
}

/// The last minute of a worker.
#[derive(Debug, Default)]
pub(crate) struct ScaleWindow {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    settled: u64,
    lag: u64,
    requests: Duration,
    retries: u64,
}

impl ScaleWindow {
    /// The hint now.
    pub(crate) fn hint(
        &mut self,
        now: Instant,
        wall_time: SystemTime,
        status: &WorkerStatus,
        counters: &Counters,
    ) -> ScaleHint {
        if status.is_bus_failing {
            return ScaleHint::hold(Hold::Bus);
        }
        let is_stopped = |state: &PartitionState| *state != PartitionState::Running;
        if status.halted_by_backend() > 0 || status.partitions.values().any(|partition| is_stopped(&partition.state)) {
            return ScaleHint::hold(Hold::Halted);
        }
        let Some(lag) = status.lag() else { return ScaleHint::hold(Hold::LagUnknown) };
        let sample = Sample {
            at: now,
            settled: status.messages,
            lag,
            requests: counters.time_in(Stage::Request),
            retries: [RetryReason::Throttled, RetryReason::Unavailable, RetryReason::Panicked]
                .map(|reason| counters.retries_so_far(reason))
                .iter()
                .sum(),
        };
        let first = self.keep(sample);
        if now - first.at < LEAST {
            return ScaleHint::hold(Hold::NotMeasured);
        }
        if sample.retries > first.retries {
            return ScaleHint::hold(Hold::Backend);
        }
        match status.lag_time(wall_time) {
            None => return ScaleHint::hold(Hold::LagUnknown),
            Some(age) if age <= MAX_LAG => return ScaleHint { wanted: 1, hold: None },
            Some(_) => {}
        }
        self::wanted(&first, &sample, status)
    }

    /// Keeps a sample at intervals; returns the oldest one that is kept.
    fn keep(&mut self, sample: Sample) -> Sample {
        while self.samples.front().is_some_and(|first| sample.at - first.at > WINDOW) {
            self.samples.pop_front();
        }
        if self.samples.back().is_none_or(|last| sample.at - last.at >= SAMPLE_EVERY) {
            self.samples.push_back(sample);
        }
        self.samples.front().copied().unwrap_or(sample)
    }
}

/// The hint for a worker that is behind, from what it did between two samples.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, limited to the number of partitions"
)]
fn wanted(first: &Sample, last: &Sample, status: &WorkerStatus) -> ScaleHint {
    let partitions = u32::try_from(status.partitions.len()).unwrap_or(u32::MAX);
    if partitions < 2 {
        return ScaleHint::hold(Hold::OnePartition);
    }
    let seconds = (last.at - first.at).as_secs_f64();
    let behind = status.partitions.values().filter(|partition| partition.end != Some(partition.settled)).count();
    let writing = (last.requests.saturating_sub(first.requests)).as_secs_f64() / seconds / behind.max(1) as f64;
    if writing >= BACKEND_LIMITS {
        return ScaleHint::hold(Hold::Backend);
    }
    let rate = last.settled.saturating_sub(first.settled) as f64 / seconds;
    if rate == 0.0 {
        return ScaleHint::hold(Hold::NotMeasured);
    }
    let arriving = rate + (last.lag as f64 - first.lag as f64) / seconds;
    let needed = arriving.max(0.0) + last.lag as f64 / CATCH_UP.as_secs_f64();
    let wanted = (needed / rate).ceil().clamp(1.0, f64::from(partitions));
    ScaleHint { wanted: wanted as u32, hold: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::Answer;
    use crate::status::{HaltCause, PartitionStatus};

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn status(partitions: u64, settled: u64, lag: u64, age: u64) -> WorkerStatus {
        let one = PartitionStatus {
            settled,
            next: settled,
            end: Some(settled + lag / partitions),
            oldest: Some(SystemTime::UNIX_EPOCH + NOW - Duration::from_secs(age)),
            state: PartitionState::Running,
        };
        let partitions = (0..partitions).map(|number| (format!("t/{number}"), one.clone())).collect();
        WorkerStatus { partitions, messages: settled, ..WorkerStatus::default() }
    }

    /// The hint after a minute of this status each second: `settled` grows by `rate` a second, and requests take `writing`
    /// seconds of each second.
    fn after_a_minute(partitions: u64, rate: u64, lag: u64, age: u64, writing: f64) -> ScaleHint {
        let (mut window, counters, begun) = (ScaleWindow::default(), Counters::default(), Instant::now());
        let mut hint = ScaleHint::default();
        for second in 0..=60 {
            counters.took(Stage::Request, Duration::from_secs_f64(writing));
            let status = status(partitions, second * rate, lag, age);
            let now = begun + Duration::from_secs(second);
            hint = window.hint(now, SystemTime::UNIX_EPOCH + NOW, &status, &counters);
        }
        hint
    }

    #[test]
    fn a_worker_that_is_behind_by_its_own_limit_wants_others_up_to_its_partitions() {
        // 1000 arrive a second, as many are settled, and 600,000 wait: three times the rate catches up in 300 s.
        let hint = after_a_minute(8, 1_000, 600_000, 600, 0.5);
        assert_eq!(hint, ScaleHint { wanted: 3, hold: None });
        assert_eq!(after_a_minute(2, 1_000, 600_000, 600, 0.5).wanted, 2);
        assert_eq!(after_a_minute(8, 1_000, 600_000, 30, 0.5), ScaleHint { wanted: 1, hold: None }, "30 s behind");
    }

    #[test]
    fn where_more_workers_do_not_help_the_hint_is_to_hold_with_the_reason() {
        let hold = |hint: ScaleHint| hint.hold.filter(|_| hint.wanted == 1);
        assert_eq!(hold(after_a_minute(8, 1_000, 600_000, 600, 6.0)), Some(Hold::Backend), "6 of 8 writers wait");
        assert_eq!(hold(after_a_minute(1, 1_000, 600_000, 600, 0.1)), Some(Hold::OnePartition));
        assert_eq!(hold(after_a_minute(8, 0, 600_000, 600, 0.1)), Some(Hold::NotMeasured), "nothing was settled");
        let counters = Counters::default();
        let at_once = |status: WorkerStatus| {
            hold(ScaleWindow::default().hint(Instant::now(), SystemTime::UNIX_EPOCH + NOW, &status, &counters))
        };
        assert_eq!(at_once(status(4, 1, 100, 600)), Some(Hold::NotMeasured));
        assert_eq!(at_once(WorkerStatus::default()), Some(Hold::LagUnknown));
        assert_eq!(at_once(WorkerStatus { is_bus_failing: true, ..status(4, 1, 100, 600) }), Some(Hold::Bus));
        let reason = format!("{}: no table", crate::failure_log::HALTED);
        let halted = crate::status::BackendFailure { reason, partitions: vec!["t/0".to_owned()] };
        let by_backend = WorkerStatus { backend_failures: vec![halted], ..status(4, 1, 100, 600) };
        assert_eq!(at_once(by_backend), Some(Hold::Halted));
        let mut stopped = status(4, 1, 100, 600);
        let state = PartitionState::Stopped { cause: HaltCause::Start, reason: "gone".to_owned() };
        stopped.partitions.entry("t/0".to_owned()).and_modify(|partition| partition.state = state);
        assert_eq!(at_once(stopped), Some(Hold::Halted));
    }

    #[test]
    fn a_backend_that_defers_requests_is_the_limit_until_a_minute_after_the_last() {
        let (mut window, counters, begun) = (ScaleWindow::default(), Counters::default(), Instant::now());
        let mut holds = Vec::new();
        for second in 0..=180 {
            if (60..90).contains(&second) {
                counters.answered(Answer::Retry);
                counters.retried(RetryReason::Throttled);
            }
            let status = status(4, second * 100, 100_000, 600);
            let now = begun + Duration::from_secs(second);
            holds.push(window.hint(now, SystemTime::UNIX_EPOCH + NOW, &status, &counters).hold);
        }
        assert_eq!((holds[59], holds[60], holds[120]), (None, Some(Hold::Backend), Some(Hold::Backend)));
        assert_eq!(holds[160], None);
    }
}
