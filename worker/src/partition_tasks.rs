use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{PollWaker, Record, TopicPartition};
use tallybus_sdk::Sink;
use tallybus_sdk::clock::Clock;
use tokio::runtime::Handle;

use super::backoff::Backoff;
use super::body_budget::BodyBudget;
use super::partition_task::PartitionTask;
use super::writer::{EventSender, PartitionWriter, WriterContext};

/// So many halts in a row are no passing failure: some seconds lie between them.
const HALTS_SEEN: u32 = 2;

/// The batches of a worker take up about so many bytes of memory at most.
const MAX_MEMORY: usize = 20 << 20;

/// The partitions that a worker owns and works on, each with its writer.
pub(crate) struct PartitionTasks {
    owned: Vec<Owned>,
    /// Where the last record went: the next one mostly goes there too.
    last: usize,
    handle: Handle,
    context: WriterContext,
    /// What an open batch may take up, in bytes, while all partitions together take up too much.
    share: usize,
}

/// One partition and its writer.
pub(crate) struct Owned {
    pub(crate) task: PartitionTask,
    writer: PartitionWriter,
    /// Whether the backend does not take this partition's batches now.
    pub(crate) is_failing: bool,
    /// How often in a row the backend needed the operator to act.
    pub(crate) halts: u32,
    panics: Backoff,
    /// When a writer whose sink panicked is started again.
    restart_at: Option<Instant>,
    /// How many times its share the open batch took up when a record came last.
    grown: usize,
}

impl PartitionTasks {
    pub(crate) fn new(handle: Handle, sink: Arc<dyn Sink>, events: EventSender, clock: Arc<dyn Clock>) -> Self {
        let context = WriterContext { sink, clock, bodies: BodyBudget::new(), events };
        Self { owned: Vec::new(), last: 0, handle, context, share: MAX_MEMORY }
    }

    pub(crate) fn add(&mut self, task: PartitionTask) {
        self.remove(&task.at.clone());
        let writer = self.writer_of(&task);
        let panics = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), task.epoch);
        let owned = Owned { task, writer, is_failing: false, halts: 0, panics, restart_at: None, grown: 0 };
        self.owned.push(owned);
        self.share_out();
    }

    /// The worker polls another subscriber from now on.
    pub(crate) fn set_waker(&mut self, waker: PollWaker) {
        self.context.events.set_waker(waker);
    }

    fn writer_of(&self, task: &PartitionTask) -> PartitionWriter {
        PartitionWriter::start(&self.handle, self.context.clone(), task.epoch, task.ledger_check())
    }

    /// Takes a partition out; its writer stops.
    pub(crate) fn remove(&mut self, at: &TopicPartition) -> Option<PartitionTask> {
        let place = self.owned.iter().position(|owned| owned.task.at == *at)?;
        let task = self.owned.swap_remove(place).task;
        self.share_out();
        Some(task)
    }

    /// Half of what there is, to each partition alike; the other half is for batches that wait to be written.
    fn share_out(&mut self) {
        self.share = (MAX_MEMORY / 2 / self.owned.len().max(1)).max(1);
    }

    /// Whether all partitions together take up more memory than they may. The open batches that have their share are then full.
    pub(crate) fn is_over(&mut self) -> bool {
        let is_over = self.iter().map(PartitionTask::memory).sum::<usize>() > MAX_MEMORY;
        if is_over {
            let share = self.share;
            self.iter_mut().for_each(|task| task.close_if_larger(share));
        }
        is_over
    }

    pub(crate) fn clear(&mut self) {
        self.owned.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    /// Whether the backend does not take the batches of some partition now.
    pub(crate) fn is_failing(&self) -> bool {
        self.owned.iter().any(|owned| owned.is_failing)
    }

    /// A partition whose backend needs the operator to act, and was tried again without change.
    pub(crate) fn halted(&self) -> Option<&TopicPartition> {
        self.owned.iter().find(|owned| owned.halts > HALTS_SEEN).map(|owned| &owned.task.at)
    }

    pub(crate) fn sink(&self) -> &dyn Sink {
        self.context.sink.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PartitionTask> {
        self.owned.iter().map(|owned| &owned.task)
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

    /// Gives a record to its partition; breaks when it completes a batch, which is sealed at once then, and which may leave no
    /// capacity for more: one poll of large records could bring many times what partitions may take up. A record of a partition
    /// that is not owned is dropped: it is on the bus.
    ///
    /// # Errors
    /// The partition cannot go on, and why.
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
        // Now and then on the way, too: whether all partitions together take up too much is looked at between polls.
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

    /// Starts the writers again whose sink panicked, with everything that is sealed and not written; each after a while, which
    /// grows. Answers how many have panicked since the last call.
    pub(crate) fn restart_writers(&mut self, now: Instant) -> u64 {
        let mut panicked = 0;
        for place in 0..self.owned.len() {
            let owned = &mut self.owned[place];
            if !owned.writer.is_dead() {
                continue;
            }
            let Some(restart_at) = owned.restart_at else {
                owned.restart_at = Some(now + owned.panics.next());
                owned.is_failing = true;
                panicked += 1;
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
    /// The destination's ledger was confirmed: batches may be sealed.
    pub(crate) fn ledger_confirmed(&mut self) {
        self.task.confirm_ledger();
        self.backend_answered();
    }

    /// The backend did what it was asked to.
    pub(crate) fn backend_answered(&mut self) {
        self.is_failing = false;
        self.halts = 0;
        self.panics.reset();
    }

    /// Hands the sealed batches to the writer that it does not have yet.
    pub(crate) fn hand_over(&mut self) {
        while let Some(batch) = self.task.next_batch() {
            self.writer.write(batch);
        }
    }
}
