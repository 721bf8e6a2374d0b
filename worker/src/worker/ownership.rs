//! Partitions that come and go.

use std::time::{Duration, Instant};

use tallybus_bus::{Assignment, Commit, OffsetRange, TopicPartition};
use tallybus_sdk::replayed::{Seen, keys_below};
use tallybus_sdk::{SealNote, StartAt};

use super::{COMMIT_TIMEOUT, REVOKE_GRACE, Worker, WorkerError};
use crate::builder::BatchBuilder;
use crate::lane::{Lane, LaneStart};

impl Worker {
    pub(super) fn assigned(&mut self, assignments: Vec<Assignment>) -> Result<(), WorkerError> {
        let mut starts = Vec::new();
        for assignment in assignments {
            let at = assignment.at.clone();
            match self.lane_of(assignment) {
                Ok((lane, offset)) => {
                    self.stopped.remove(&at);
                    self.lanes.add(lane);
                    starts.push((at, offset));
                }
                Err(reason) => {
                    tracing::error!(sink = self.options.sink, partition = %at, reason, "the partition cannot go on");
                    self.stopped.insert(at, reason);
                }
            }
        }
        tracing::info!(
            sink = self.options.sink,
            partitions = starts.len(),
            stopped = self.stopped.len(),
            "partitions assigned"
        );
        self.bus_call(|subscriber| subscriber.start(&starts))
    }

    pub(super) fn lane_of(&mut self, assignment: Assignment) -> Result<(Lane, u64), String> {
        let Assignment { at, committed, range } = assignment;
        let topic_index = self.topic_index(&at)?;
        let shape = self.options.shape.clone();
        self.lanes.sink().has_place(topic_index, at.partition)?;
        let (mut offset, metadata) = match &committed {
            Some(committed) => (committed.offset, committed.metadata.as_str()),
            None if self.options.start_at == StartAt::Newest => (range.end, ""),
            None => (range.first, ""),
        };
        let note = SealNote::parse(offset, metadata).map_err(|error| error.to_string())?;
        let stands_at = note.sealed_end().unwrap_or(offset);
        if stands_at > range.end {
            return Err(format!(
                "the group stands at offset {stands_at}, but {at} ends at {}: was the topic deleted and made again? \
                 reset the group's offsets, and the sink's ledger, on purpose",
                range.end
            ));
        }
        if offset < range.first {
            let gap = format!("{at}/{offset}-{}", range.first);
            if note.sealed_end().is_some() {
                return Err(format!(
                    "offsets {gap} are gone from the bus, and a batch that was perhaps written begins there; \
                     raise the topic's retention; settle the group by hand to go on"
                ));
            }
            if !self.options.accept_gaps.contains(&gap) {
                return Err(format!(
                    "offsets {gap} are gone from the bus before they were written; to go on without them \
                     set accept_gaps = [\"{gap}\"], and raise the topic's retention"
                ));
            }
            tracing::warn!(sink = self.options.sink, gap, "going on without lost offsets, as accepted in the settings");
            offset = range.first;
        }
        let under = note.shape.as_ref().unwrap_or(&shape);
        if under.sink != shape.sink {
            return Err(format!(
                "a batch was sealed under sink settings {:?}, which are {:?} now: start once with the old settings to finish it",
                under.sink, shape.sink
            ));
        }
        let selector = under.selector()?;
        self.next_epoch += 1;
        let mut builder = BatchBuilder::new(at.topic.clone(), at.partition, topic_index, selector);
        if self.options.replays.is_some() {
            builder = builder.of_letters(self.seen_below(&at, offset, range)?);
        }
        let start = LaneStart { at, epoch: self.next_epoch, offset, end: range.end, note, committed };
        Ok((Lane::new(start, builder, self.options.limits, shape), offset))
    }

    /// The place of a partition's topic in the settings, which names it in the backend.
    fn topic_index(&self, at: &TopicPartition) -> Result<u32, String> {
        if let Some(index) = self.options.replays {
            return Ok(index);
        }
        let place = self.options.topics.iter().position(|topic| **topic == *at.topic).ok_or_else(|| {
            format!(
                "the group was assigned {at}, but this sink's topics are {}: does another program use the group {}?",
                self.options.topics.join(", "),
                self.options.group
            )
        })?;
        u32::try_from(place).map_err(|error| format!("{at}: the sink has too many topics: {error}"))
    }

    /// The letters that stand in a topic of letters before `offset`.
    fn seen_below(&self, at: &TopicPartition, offset: u64, range: OffsetRange) -> Result<Seen, String> {
        if range.first > 0 {
            return Err(format!(
                "{at} begins at offset {}: which letters were written before that is not known any more, so none is written \
                 again; the topic was made to be kept for ever, do not limit it",
                range.first
            ));
        }
        keys_below(self.bus.as_ref(), at, offset).map_err(|error| error.to_string())
    }

    /// Gives what is being written a little time, then tells the group how far it came. What may have been written stays
    /// sealed, so the next owner repeats exactly that.
    pub(super) fn settle_before_leaving(&mut self, partitions: &[TopicPartition], grace: Duration) -> bool {
        for at in partitions {
            if let Some(slot) = self.lanes.get_mut(at) {
                slot.lane.discard_unsealed();
            }
        }
        let deadline = Instant::now() + grace;
        let (mut left, mut progress) = (usize::MAX, Instant::now());
        while Instant::now() < deadline {
            self.handle.status.turned();
            self.take_reports();
            self.take_delivered_letters(Instant::now());
            let unsettled = self.unsettled(partitions);
            if unsettled < left {
                (left, progress) = (unsettled, Instant::now());
            }
            // A backend that fails is not waited for: what is sealed stays so.
            let hopeless = self.lanes.is_troubled() && progress.elapsed() > REVOKE_GRACE;
            if unsettled == 0 || hopeless {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let farewells: Vec<Commit> =
            partitions.iter().filter_map(|at| self.lanes.get_mut(at).and_then(|slot| slot.lane.farewell())).collect();
        let mut told = true;
        if !farewells.is_empty() {
            for (at, answer) in self.subscriber.commit_now(&farewells, COMMIT_TIMEOUT) {
                if let Err(error) = answer {
                    told = false;
                    self.handle.status.update(|status| status.failed_commits += 1);
                    tracing::warn!(sink = self.options.sink, partition = %at, %error, "the last commit before giving a partition up failed");
                }
            }
        }
        told && !self.lanes.iter().any(|lane| partitions.contains(&lane.at) && lane.leaves_sealed())
    }

    /// How many batches of these partitions are sealed and not settled.
    fn unsettled(&mut self, partitions: &[TopicPartition]) -> usize {
        let lanes = self.lanes.iter().filter(|lane| partitions.contains(&lane.at));
        lanes.map(|lane| lane.sealed().len()).sum()
    }

    pub(super) fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkerError> {
        for at in partitions {
            self.drop_lane(at);
            self.stopped.remove(at);
            self.ends.remove(at);
        }
        self.bus_call(|subscriber| subscriber.release(partitions))
    }

    /// Takes a partition out of work; it stays owned, so that no other worker stumbles over the same thing.
    pub(super) fn stop_lane(&mut self, at: &TopicPartition, reason: String) {
        tracing::error!(sink = self.options.sink, partition = %at, reason, "the partition cannot go on");
        self.drop_lane(at);
        self.stopped.insert(at.clone(), reason);
    }

    /// Forgets a lane; what it had sealed stays so.
    pub(super) fn drop_lane(&mut self, at: &TopicPartition) {
        let Some(lane) = self.lanes.remove(at) else { return };
        for written in self.written.remove(&lane.epoch).into_iter().flatten() {
            // Whoever writes the batch again has the same letters again.
            written.letters.into_iter().for_each(|token| self.letters.forget(token));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tallybus_bus::embedded::EmbeddedBus;
    use tallybus_bus::{Bus as _, TopicOptions};
    use tallybus_sdk::testkit::{FakeBackend, FakeSink};
    use tallybus_sdk::{BatchLimits, Shape};

    use super::*;
    use crate::WorkerOptions;

    #[test]
    fn a_partition_of_a_topic_that_is_not_the_sinks_is_not_begun() {
        let dir = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(&dir.path().join("bus.db")).unwrap();
        bus.create_topic("ours", &TopicOptions::new(1)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = WorkerOptions {
            sink: "fake".to_owned(),
            group: "tallybus.fake".to_owned(),
            topics: vec!["ours".to_owned()],
            dead_topic: "dead".to_owned(),
            limits: BatchLimits::default(),
            shape: Shape::everything(),
            start_at: StartAt::Oldest,
            accept_gaps: Vec::new(),
            drain: Duration::ZERO,
            until_caught_up: false,
            replays: None,
        };
        let sink = Arc::new(FakeSink::new(FakeBackend::new()));
        let mut worker = Worker::new(Arc::new(bus), sink, runtime.handle().clone(), options).unwrap();
        let assigned = |topic: &str| Assignment {
            at: TopicPartition::new(topic, 0),
            committed: None,
            range: OffsetRange { first: 0, end: 5 },
        };
        let _entered = runtime.enter();
        assert!(worker.lane_of(assigned("ours")).is_ok());
        let Err(reason) = worker.lane_of(assigned("theirs")) else { panic!("it took a foreign topic for its first") };
        assert!(reason.contains("was assigned theirs/0") && reason.contains("topics are ours"), "{reason}");
    }
}
