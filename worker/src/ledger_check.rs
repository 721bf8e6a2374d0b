use std::time::Duration;

use tallybus_bus::{Observer, TopicPartition};
use tallybus_sdk::clock::Clock;
use tallybus_sdk::progress::{GroupProgress, ProgressError};
use tallybus_sdk::{LedgerEnd, Sink, SinkError, StartAt};
use thiserror::Error;

use super::backoff::Backoff;
use super::writer::EventKind;

/// The consumer group's offsets of a partition at assignment, to be compared with the destination's ledger.
///
/// Every offset below [`LedgerCheck::sealed_end`] was sealed by this group and may have been written. A ledger past it
/// names offsets that this group never sealed: the topic was recreated, the offsets were reset, or another bus or sink
/// writes to the destination. New batches would then be refused as already written; and once they were sealed, a
/// restarted worker could not distinguish them from batches that were written. So nothing is sealed until the ledger
/// has been confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LedgerCheck {
    pub(crate) at: TopicPartition,
    /// One past the last offset that the group sealed; the offset where it begins when nothing is sealed.
    pub(crate) sealed_end: u64,
}

impl LedgerCheck {
    /// Queries the sink's ledger, with growing delays, until it is not past the group's offsets; reports why it waits.
    pub(crate) async fn confirm(&self, sink: &dyn Sink, clock: &dyn Clock, seed: u64, tell: impl Fn(EventKind)) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5), seed);
        let mut halts = Backoff::new(Duration::from_secs(2), Duration::from_secs(30), seed);
        loop {
            let reason = match sink.ledger_end(&self.at.topic, self.at.partition).await {
                Ok(end) => match self.ahead(end.as_ref()) {
                    Some(reason) => reason,
                    None => return tell(EventKind::LedgerConfirmed),
                },
                Err(SinkError::Unavailable(reason)) => {
                    let wait = backoff.next();
                    tell(EventKind::Retrying { reason, wait });
                    clock.sleep_async(wait).await;
                    continue;
                }
                Err(SinkError::Halt(reason)) => reason,
            };
            let wait = halts.next();
            tell(EventKind::Halted { reason, wait });
            clock.sleep_async(wait).await;
        }
    }

    /// Why nothing is sealed or written, and what to do; `None` when the ledger is not past the group, or there is none.
    fn ahead(&self, end: Option<&LedgerEnd>) -> Option<String> {
        let Self { at, sealed_end } = self;
        let LedgerEnd { destination, offset } = end.filter(|end| end.offset > *sealed_end)?;
        Some(format!(
            "{destination} is past this group: it holds {at} up to offset {offset}, but the group has sealed it up to \
             offset {sealed_end} only. The topic was recreated, the group's offsets were reset, or another bus or sink \
             writes to this destination. Nothing of {at} was sealed or written; its records are safe on the bus. Give \
             the sink a new destination to count from offset {sealed_end}; or, if the records below offset {offset} \
             are in the destination already, run `tallybus group reset` with --partition {at} --to {offset}"
        ))
    }
}

/// Why it is unknown whether a ledger is past a group.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The bus did not respond, or the group's commits cannot be parsed.
    #[error(transparent)]
    Bus(#[from] ProgressError),
    /// The destination did not respond, or its ledger cannot be read.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// For each partition in which the destination is past the group: why its worker halts, and what to do. Reads only.
/// `start_at`: where a group that never committed begins.
///
/// # Errors
/// The bus or the destination did not respond.
pub async fn ledgers_ahead(
    observer: &dyn Observer,
    group: &str,
    topics: &[&str],
    start_at: StartAt,
    sink: &dyn Sink,
) -> Result<Vec<String>, LedgerError> {
    // The ledgers are read before the group: a batch that a running worker seals and writes meanwhile is not a fault.
    let mut ends = Vec::new();
    for (topic, partitions) in topics.iter().zip(observer.partitions(topics).map_err(ProgressError::Bus)?) {
        for partition in 0..partitions.unwrap_or(0) {
            ends.push((TopicPartition::new(topic, partition), sink.ledger_end(topic, partition).await?));
        }
    }
    let progress = GroupProgress::read(observer, group, topics)?;
    let mut ahead = Vec::new();
    for (at, end) in ends {
        let Some(partition) = progress.partitions.iter().find(|partition| partition.at == at) else { continue };
        let start = match start_at {
            StartAt::Oldest => partition.range.first,
            StartAt::Newest => partition.range.end,
        };
        let sealed_end = partition.sealed_end().unwrap_or(start).max(partition.range.first);
        ahead.extend(LedgerCheck { at, sealed_end }.ahead(end.as_ref()));
    }
    Ok(ahead)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::SystemTime;

    use tallybus_sdk::clock::ManualClock;
    use tallybus_sdk::testkit::{FakeBackend, FakeSink};

    use super::*;

    /// The result of `confirm`, with the time at which it was reported.
    type Told = Arc<Mutex<Vec<(Duration, EventKind)>>>;

    #[tokio::test]
    async fn the_ledger_is_asked_again_ever_less_often_until_it_is_not_ahead() {
        let (backend, clock, told) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH), Told::default());
        backend.set_ledger_end("t", 0, 10);
        let confirming = tokio::spawn({
            let (backend, clock, told) = (Arc::clone(&backend), clock.clone(), Arc::clone(&told));
            async move {
                let check = LedgerCheck { at: TopicPartition::new("t", 0), sealed_end: 7 };
                let tell = |kind| told.lock().unwrap().push((clock.passed(), kind));
                check.confirm(&FakeSink::new(backend), &clock, 42, tell).await;
            }
        });
        let steps = Duration::from_millis(500);
        for _ in 0..40 {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            clock.advance(steps);
        }
        let halts: Vec<Duration> = told.lock().unwrap().iter().map(|(at, _)| *at).collect();
        // At once, then after 2, 4 and 8 seconds plus up to a quarter.
        assert_eq!(halts.len(), 4, "{halts:?}");
        for (pair, wait) in halts.windows(2).zip([2, 4, 8]) {
            let waited = pair[1] - pair[0];
            let (least, most) = (Duration::from_secs(wait), Duration::from_secs(wait) * 5 / 4 + steps);
            assert!(least <= waited && waited <= most, "{halts:?}");
        }
        backend.set_ledger_end("t", 0, 7);
        clock.advance(Duration::from_secs(60));
        confirming.await.unwrap();
        assert!(matches!(told.lock().unwrap().last(), Some((_, EventKind::LedgerConfirmed))));
    }
}
