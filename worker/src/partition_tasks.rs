use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{PollWaker, Record, TopicPartition};
use tallybus_sdk::Sink;
use tallybus_sdk::clock::Clock;
use tokio::runtime::Handle;

use super::backoff::Backoff;
use super::body_budget::BodyBudget;
use super::claims::{Owner, SinkClaims};
use super::counters::Counters;
use super::future::FutureTimes;
use super::partition_task::PartitionTask;
use super::readiness::Gate;
use super::writer::{EventSender, PartitionWriter, WriterContext};

/// This many halts in a row are no transient failure: there are several seconds between them.
const HALTS_SEEN: u32 = 2;

/// The approximate limit of memory for the batches of a worker, in bytes.
const MAX_MEMORY: usize = 20 << 20;

/// The partitions that a worker owns and processes, each with its writer.
pub(crate) struct PartitionTasks {
    owned: Vec<Owned>,
    /// The partition of the last record: the next record is mostly of the same partition.
    last: usize,
    handle: Handle,
    context: WriterContext,
    /// The memory limit of one open batch, in bytes, while all partitions together exceed the limit.
    share: usize,
    /// Whether an operator wants nothing more to be sealed.
    rests: bool,
}

/// One partition and its writer.
pub(crate) struct Owned {
    pub(crate) task: PartitionTask,
    writer: PartitionWriter,
    /// Whether the backend currently does not accept this partition's batches.
    pub(crate) is_failing: bool,
    /// How many times in a row the backend needed operator action.
    pub(crate) halts: u32,
    panics: Backoff,
    /// When a writer whose sink panicked is restarted.
    restart_at: Option<Instant>,
    /// How many times its share the open batch used when the last record was added.
    grown: usize,
}

impl PartitionTasks {
    pub(crate) fn new(
        handle: Handle,
        sink: Arc<dyn Sink>,
        name: &str,
        owner: Owner,
        events: EventSender,
        counters: Arc<Counters>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let context = WriterContext {
            sink,
            claims: Arc::new(SinkClaims::new(owner)),
            future_times: Arc::new(FutureTimes::new(name)),
            clock,
            bodies: BodyBudget::new(),
            events,
            counters,
            gate: None,
        };
        Self { owned: Vec::new(), last: 0, handle, context, share: MAX_MEMORY, rests: false }
    }

    /// The check beside the worker knows whether the backend was ready once.
    pub(crate) fn set_gate(&mut self, gate: Gate) {
        self.context.gate = Some(gate);
    }

    /// Whether something may be sealed from now on, in any partition.
    pub(crate) fn set_resting(&mut self, rests: bool) {
        if self.rests != rests {
            self.rests = rests;
            self.iter_mut().for_each(|task| task.set_resting(rests));
        }
    }

    pub(crate) fn add(&mut self, mut task: PartitionTask) {
        task.set_resting(self.rests);
        self.remove(&task.at.clone());
        let writer = self.writer_of(&task);
        let panics = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), task.epoch);
        let owned = Owned { task, writer, is_failing: false, halts: 0, panics, restart_at: None, grown: 0 };
        self.owned.push(owned);
        self.share_out();
    }

    /// What this worker has counted.
    pub(crate) fn counters(&self) -> &Counters {
        &self.context.counters
    }

    /// The memory that the batches of all partitions use, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.iter().map(PartitionTask::memory).sum()
    }

    /// The worker polls another subscriber from now on.
    pub(crate) fn set_waker(&mut self, waker: PollWaker) {
        self.context.events.set_waker(waker);
    }

    fn writer_of(&self, task: &PartitionTask) -> PartitionWriter {
        PartitionWriter::start(&self.handle, self.context.clone(), task.epoch, task.place(), task.destination_check())
    }

    /// Removes a partition; its writer stops.
    pub(crate) fn remove(&mut self, at: &TopicPartition) -> Option<PartitionTask> {
        let place = self.owned.iter().position(|owned| owned.task.at == *at)?;
        let task = self.owned.swap_remove(place).task;
        self.share_out();
        Some(task)
    }

    /// Half of the memory limit, divided equally among the partitions; the other half is for batches that wait to be
    /// written.
    fn share_out(&mut self) {
        self.share = (MAX_MEMORY / 2 / self.owned.len().max(1)).max(1);
    }

    /// Whether all partitions together exceed the memory limit. Open batches that have used up their share are then
    /// full.
    pub(crate) fn is_over(&mut self) -> bool {
        let is_over = self.memory() > MAX_MEMORY;
        if is_over {
            let share = self.share;
            self.iter_mut().for_each(|task| task.close_if_larger(share));
        }
        is_over
    }

    /// Has the writers take the claims without which nothing more can be sealed.
    pub(crate) fn take_claims(&mut self) {
        for owned in &mut self.owned {
            if owned.task.asks_for_claim() {
                owned.writer.claim();
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    /// Whether the backend currently does not accept the batches of any partition.
    pub(crate) fn is_failing(&self) -> bool {
        self.owned.iter().any(|owned| owned.is_failing)
    }

    /// Whether it does not accept those of this partition.
    pub(crate) fn is_failing_at(&self, at: &TopicPartition) -> bool {
        self.owned.iter().any(|owned| owned.is_failing && owned.task.at == *at)
    }

    /// A partition whose backend needs operator action, and was retried without success.
    pub(crate) fn halted(&self) -> Option<&TopicPartition> {
        self.owned.iter().find(|owned| owned.halts > HALTS_SEEN).map(|owned| &owned.task.at)
    }

    pub(crate) fn sink(&self) -> &dyn Sink {
        self.context.sink.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PartitionTask> {
        self.owned.iter().map(|owned| &owned.task)
    }

    pub(crate) fn owned_mut(&mut self) -> impl Iterator<Item = &mut Owned> {
        self.owned.iter_mut()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PartitionTask> {
        self.owned.iter_mut().map(|owned| &mut owned.task)
    }

    pub(crate) fn get_mut(&mut self, at: &TopicPartition) -> Option<&mut Owned> {
        self.owned.iter_mut().find(|owned| owned.task.at == *at)
    }

    pub(crate) fn by_epoch(&mut self, epoch: u64) -> Option<&mut Owned> {
        self.owned.iter_mut().find(|owned| owned.task.epoch == epoch)
    }

    /// Adds a record to its partition; breaks when it completes a batch, which is then sealed at once, and which may
    /// exhaust the memory: one poll of large records could bring many times the limit. A record of a partition that is
    /// not owned is dropped: it is still on the bus.
    ///
    /// # Errors
    /// Why the partition cannot continue.
    pub(crate) fn accept(
        &mut self,
        record: &Record<'_>,
        now: Instant,
    ) -> Result<ControlFlow<()>, (TopicPartition, String)> {
        let matches =
            |owned: &Owned| owned.task.at.partition == record.partition && &*owned.task.at.topic == record.topic;
        if !self.owned.get(self.last).is_some_and(matches) {
            let Some(place) = self.owned.iter().position(matches) else { return Ok(ControlFlow::Continue(())) };
            self.last = place;
        }
        let owned = &mut self.owned[self.last];
        let closed = owned.task.closed();
        if let Err(reason) = owned.task.accept(record, now) {
            return Err((owned.task.at.clone(), reason));
        }
        owned.hand_over();
        let memory = owned.task.open_memory();
        let completes = owned.task.closed() > closed;
        // The memory limit is also checked at intervals within a poll, not only between polls.
        let grown = memory / self.share > owned.grown;
        owned.grown = memory / self.share;
        Ok(if completes || grown { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// See [`PartitionTask::write_unsealed`].
    #[cfg(feature = "unsealed-benchmark")]
    pub(crate) fn write_unsealed(&mut self) {
        for owned in &mut self.owned {
            owned.task.write_unsealed();
            owned.hand_over();
        }
    }

    /// Restarts the writers whose sink panicked, with every batch that is sealed and not written; each after a delay,
    /// which grows. Returns those that have panicked since the last call.
    pub(crate) fn restart_writers(&mut self, now: Instant) -> Vec<TopicPartition> {
        let mut panicked = Vec::new();
        for place in 0..self.owned.len() {
            let owned = &mut self.owned[place];
            if !owned.writer.is_dead() {
                continue;
            }
            let Some(restart_at) = owned.restart_at else {
                owned.restart_at = Some(now + owned.panics.next());
                owned.is_failing = true;
                panicked.push(owned.task.at.clone());
                continue;
            };
            if now >= restart_at {
                let writer = self.writer_of(&self.owned[place].task);
                let owned = &mut self.owned[place];
                owned.restart_at = None;
                owned.writer = writer;
                owned.task.hand_over_again();
                owned.hand_over();
            }
        }
        panicked
    }
}

impl Owned {
    /// The destination agrees with the group: batches may be sealed. `ledger`: the ledger's offset, if it keeps one.
    pub(crate) fn destination_confirmed(&mut self, ledger: Option<u64>) {
        self.task.confirm_destination(ledger);
        self.backend_answered();
    }

    /// The backend accepted a request.
    pub(crate) fn backend_answered(&mut self) {
        self.is_failing = false;
        self.halts = 0;
        self.panics.reset();
    }

    /// Hands the writer the sealed batches that it does not have yet.
    pub(crate) fn hand_over(&mut self) {
        while let Some(batch) = self.task.next_batch() {
            self.writer.write(batch);
        }
    }
}

#[cfg(test)]
mod tests;
