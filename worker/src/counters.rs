//! What a worker counts beside its status: each number is added where it happens, once for a batch, request or commit, and
//! never falls during the life of the worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tallybus_sdk::WriteOutcome;

/// The upper bounds of the classes of [`Stage`] times, in seconds.
pub const SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0];
/// The upper bounds of the classes of batch sizes, in events.
pub const EVENTS: &[f64] = &[1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];

/// More than the classes of any distribution; the last one in use has no upper bound.
const MOST_CLASSES: usize = 12;

/// Something that is counted under one label of few values.
pub trait Label: Copy + 'static {
    /// All values, in the order of their numbers.
    const ALL: &'static [Self];

    /// The label's value in metrics and documents.
    fn name(self) -> &'static str;

    /// Its number in [`Label::ALL`].
    fn index(self) -> usize;
}

macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $value:ident => $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$what])* $value,)+ }

        impl $crate::counters::Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn name(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(crate) use labels;

labels! {
    /// A backend's answer to one request.
    Answer {
        /// Everything is stored.
        Done => "done",
        /// Some points are refused for good; everything else is stored.
        Rejected => "rejected",
        /// Too large, or refused as a whole: sent again in halves.
        Split => "split",
        /// Not now.
        Retry => "retry",
        /// Not before an operator has acted.
        Halt => "halt",
    }
}

impl Answer {
    pub(crate) fn of(outcome: &WriteOutcome) -> Self {
        match outcome {
            WriteOutcome::Done => Self::Done,
            WriteOutcome::Rejected(_) => Self::Rejected,
            WriteOutcome::Split { .. } => Self::Split,
            WriteOutcome::Retry { .. } => Self::Retry,
            WriteOutcome::Halt { .. } => Self::Halt,
        }
    }
}

labels! {
    /// Why a worker asks its backend again.
    RetryReason {
        /// The backend named how long to wait: it limits the rate.
        Throttled => "throttled",
        /// It did not answer, or answered with an error that may pass.
        Unavailable => "unavailable",
        /// It needs operator action; asked again slowly.
        Halted => "halted",
        /// The sink panicked: a defect of the sink.
        Panicked => "panicked",
    }
}

labels! {
    /// What happened to partitions in the consumer group.
    GroupChange {
        /// Partitions were assigned to this worker.
        Assigned => "assigned",
        /// Partitions were given to another worker, after their batches in flight were settled.
        Revoked => "revoked",
        /// Partitions had gone to another worker already.
        Lost => "lost",
    }
}

labels! {
    /// A step on a batch's way.
    Stage {
        /// From a commit, which seals batches and settles others, to its answer.
        Seal => "seal",
        /// Encoding a batch.
        Encode => "encode",
        /// One request to the backend, to its answer.
        Request => "request",
        /// Writing a batch, with all requests and the waits between them.
        Write => "write",
    }
}

/// Numbers under one label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Values([u64; 8]);

impl Values {
    /// Each value of the label, with its number.
    pub fn iter<L: Label>(&self) -> impl Iterator<Item = (L, u64)> {
        L::ALL.iter().map(|label| (*label, self.0[label.index()]))
    }

    /// The number of one value of the label.
    #[cfg(test)]
    fn of(&self, label: impl Label) -> u64 {
        self.0[label.index()]
    }
}

/// A distribution: how many values were in each class.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// The upper bounds of the classes, inclusive.
    pub bounds: &'static [f64],
    /// The number of values in each class; one more than there are bounds.
    pub classes: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
}

impl Distribution {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }
}

/// The numbers of a worker at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct CounterValues {
    /// Answers of the backend, by [`Answer`].
    pub answers: Values,
    /// By [`RetryReason`].
    pub retries: Values,
    /// By [`GroupChange`].
    pub group_changes: Values,
    /// Batches sealed by this worker.
    pub seals: u64,
    /// Bytes of the batches that were encoded, as the sink holds them in memory; parts of a split batch too.
    pub encoded_bytes: u64,
    /// Events of each settled batch.
    pub batch_events: Distribution,
    /// How long each [`Stage`] took, in seconds.
    pub stages: Vec<(Stage, Distribution)>,
}

/// Shared by a worker's threads and tasks, and the readers of its numbers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    answers: [AtomicU64; 8],
    retries: [AtomicU64; 8],
    group_changes: [AtomicU64; 8],
    seals: AtomicU64,
    encoded_bytes: AtomicU64,
    batch_events: Classes,
    stages: [Classes; 4],
}

#[derive(Debug, Default)]
struct Classes {
    counts: [AtomicU64; MOST_CLASSES],
    /// Of events, or of nanoseconds.
    sum: AtomicU64,
}

impl Classes {
    /// Adds a value: `value` in the unit of the bounds, `exact` in that of the sum.
    fn add(&self, bounds: &[f64], value: f64, exact: u64) {
        let class = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        add(&self.sum, exact);
        add(&self.counts[class], 1);
    }

    #[allow(clippy::cast_precision_loss, reason = "a sum of seconds or events, as metrics have it")]
    fn read(&self, bounds: &'static [f64], unit: f64) -> Distribution {
        let classes = self.counts[..=bounds.len()].iter().map(read).collect();
        Distribution { bounds, classes, sum: read(&self.sum) as f64 / unit }
    }
}

impl Counters {
    pub(crate) fn answered(&self, answer: Answer) {
        add(&self.answers[answer.index()], 1);
    }

    pub(crate) fn retried(&self, reason: RetryReason) {
        add(&self.retries[reason.index()], 1);
    }

    pub(crate) fn group_changed(&self, change: GroupChange) {
        add(&self.group_changes[change.index()], 1);
    }

    pub(crate) fn sealed(&self, batches: usize) {
        add(&self.seals, batches as u64);
    }

    pub(crate) fn encoded(&self, bytes: usize, took: Duration) {
        add(&self.encoded_bytes, bytes as u64);
        self.took(Stage::Encode, took);
    }

    #[allow(clippy::cast_precision_loss, reason = "compared with the bounds of classes")]
    pub(crate) fn settled(&self, events: u64) {
        self.batch_events.add(EVENTS, events as f64, events);
    }

    pub(crate) fn took(&self, stage: Stage, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.stages[stage.index()].add(SECONDS, time.as_secs_f64(), nanos);
    }

    /// How long a stage took so far, all times together.
    pub(crate) fn time_in(&self, stage: Stage) -> Duration {
        Duration::from_nanos(read(&self.stages[stage.index()].sum))
    }

    pub(crate) fn retries_so_far(&self, reason: RetryReason) -> u64 {
        read(&self.retries[reason.index()])
    }

    pub(crate) fn values(&self) -> CounterValues {
        const NANOS: f64 = 1e9;
        let stages = Stage::ALL.iter().map(|stage| (*stage, self.stages[stage.index()].read(SECONDS, NANOS)));
        CounterValues {
            answers: all(&self.answers),
            retries: all(&self.retries),
            group_changes: all(&self.group_changes),
            seals: read(&self.seals),
            encoded_bytes: read(&self.encoded_bytes),
            batch_events: self.batch_events.read(EVENTS, 1.0),
            stages: stages.collect(),
        }
    }
}

fn all(counters: &[AtomicU64; 8]) -> Values {
    Values(std::array::from_fn(|index| read(&counters[index])))
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_a_place_and_a_name_of_its_own() {
        fn check<L: Label>(most: usize) {
            let names: std::collections::BTreeSet<_> = L::ALL.iter().map(|label| label.name()).collect();
            assert!(names.len() == L::ALL.len() && names.len() <= most, "{names:?}");
            assert!(L::ALL.iter().enumerate().all(|(place, label)| label.index() == place), "{names:?}");
        }
        check::<Answer>(8);
        check::<RetryReason>(8);
        check::<GroupChange>(8);
        check::<Stage>(Counters::default().stages.len());
        assert!(SECONDS.len() < MOST_CLASSES && EVENTS.len() < MOST_CLASSES);
    }

    #[test]
    fn a_value_is_in_the_class_of_the_first_bound_that_it_does_not_exceed() {
        let counters = Counters::default();
        for events in [1, 2, 10, 11, 5_000_000] {
            counters.settled(events);
        }
        let read = counters.values().batch_events;
        assert_eq!(read.classes, [1, 2, 1, 0, 0, 0, 0, 1]);
        assert_eq!((read.count(), read.sum), (5, 5_000_024.0));
        counters.took(Stage::Seal, Duration::from_millis(6));
        let (stage, times) = counters.values().stages.swap_remove(0);
        assert_eq!((stage, times.count(), times.sum), (Stage::Seal, 1, 0.006));
        assert_eq!(times.classes.iter().position(|count| *count == 1), Some(2));
    }

    #[test]
    fn numbers_are_kept_by_label() {
        let counters = Counters::default();
        counters.answered(Answer::Split);
        counters.retried(RetryReason::Panicked);
        counters.retried(RetryReason::Panicked);
        let values = counters.values();
        assert_eq!((values.answers.of(Answer::Split), values.answers.of(Answer::Done)), (1, 0));
        let named: Vec<_> =
            values.retries.iter::<RetryReason>().map(|(reason, count)| (reason.name(), count)).collect();
        assert_eq!(named, [("throttled", 0), ("unavailable", 0), ("halted", 0), ("panicked", 2)]);
    }
}
