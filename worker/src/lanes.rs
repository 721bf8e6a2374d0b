use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{PollWaker, Record, TopicPartition};
use tallybus_sdk::Sink;
use tokio::runtime::Handle;

use super::backoff::Backoff;
use super::body_budget::BodyBudget;
use super::lane::Lane;
use super::writer::{LaneWriter, Reporter};

/// So many halts in a row are no passing thing: some seconds lie between them.
const HALTS_SEEN: u32 = 2;

/// The batches of a worker take up about so many bytes of memory at most.
const MAX_HELD_BYTES: usize = 20 << 20;

/// The lanes of the partitions that a worker owns, each with its writer.
pub(crate) struct Lanes {
    slots: Vec<Slot>,
    /// Where the last record went: the next one mostly goes there too.
    last: usize,
    handle: Handle,
    sink: Arc<dyn Sink>,
    reports: Reporter,
    bodies: BodyBudget,
    /// What an open batch may take up, in bytes, while all lanes together hold too much.
    share: usize,
}

pub(crate) struct Slot {
    pub(crate) lane: Lane,
    writer: LaneWriter,
    /// Whether the backend does not take this lane's batches now.
    pub(crate) troubled: bool,
    /// How often in a row the backend has asked for somebody to act.
    pub(crate) halts: u32,
    panics: Backoff,
    /// When a writer whose sink panicked is started again.
    revive_at: Option<Instant>,
    /// How many times its share the open batch took up when a record came last.
    grown: usize,
}

impl Lanes {
    pub(crate) fn new(handle: Handle, sink: Arc<dyn Sink>, reports: Reporter) -> Self {
        Self { slots: Vec::new(), last: 0, handle, sink, reports, bodies: BodyBudget::new(), share: MAX_HELD_BYTES }
    }

    pub(crate) fn add(&mut self, lane: Lane) {
        self.remove(&lane.at.clone());
        let writer = self.writer_of(&lane);
        let panics = Backoff::new(Duration::from_millis(200), Duration::from_secs(30), lane.epoch);
        self.slots.push(Slot { lane, writer, troubled: false, halts: 0, panics, revive_at: None, grown: 0 });
        self.share_out();
    }

    /// The worker polls another subscriber from now on.
    pub(crate) fn set_waker(&mut self, waker: PollWaker) {
        self.reports.set_waker(waker);
    }

    fn writer_of(&self, lane: &Lane) -> LaneWriter {
        let (sink, bodies, reports) = (self.sink.clone(), self.bodies.clone(), self.reports.clone());
        LaneWriter::start(&self.handle, sink, bodies, lane.epoch, reports, lane.ledger_check())
    }

    /// Takes a lane out; its writer stops.
    pub(crate) fn remove(&mut self, at: &TopicPartition) -> Option<Lane> {
        let place = self.slots.iter().position(|slot| slot.lane.at == *at)?;
        let lane = self.slots.swap_remove(place).lane;
        self.share_out();
        Some(lane)
    }

    /// Half of what there is, to each lane alike; the other half is for batches that wait to be written.
    fn share_out(&mut self) {
        self.share = (MAX_HELD_BYTES / 2 / self.slots.len().max(1)).max(1);
    }

    /// Whether all lanes together take up more memory than they may. The open batches that have their share are then full.
    pub(crate) fn is_over(&mut self) -> bool {
        let is_over = self.iter().map(Lane::held).sum::<usize>() > MAX_HELD_BYTES;
        if is_over {
            let share = self.share;
            self.iter_mut().for_each(|lane| lane.close_if_held(share));
        }
        is_over
    }

    pub(crate) fn clear(&mut self) {
        self.slots.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether the backend does not take the batches of some lane now.
    pub(crate) fn is_troubled(&self) -> bool {
        self.slots.iter().any(|slot| slot.troubled)
    }

    /// A partition whose backend has asked for somebody to act, and has been looked at again without change.
    pub(crate) fn halted(&self) -> Option<&TopicPartition> {
        self.slots.iter().find(|slot| slot.halts > HALTS_SEEN).map(|slot| &slot.lane.at)
    }

    pub(crate) fn sink(&self) -> &dyn Sink {
        self.sink.as_ref()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.slots.iter().map(|slot| &slot.lane)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.slots.iter_mut().map(|slot| &mut slot.lane)
    }

    pub(crate) fn get_mut(&mut self, at: &TopicPartition) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.lane.at == *at)
    }

    pub(crate) fn by_epoch(&mut self, epoch: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.lane.epoch == epoch)
    }

    /// Gives a record to its lane; breaks when it completes a batch, which is sealed at once then, and which may leave no
    /// room for more: one poll of large records could bring many times what lanes may hold. A record of a partition that is not owned is dropped: it is on the bus.
    ///
    /// # Errors
    /// The lane cannot go on, and why.
    pub(crate) fn accept(
        &mut self,
        record: &Record<'_>,
        now: Instant,
    ) -> Result<ControlFlow<()>, (TopicPartition, String)> {
        let matches = |slot: &Slot| slot.lane.at.partition == record.partition && &*slot.lane.at.topic == record.topic;
        if !self.slots.get(self.last).is_some_and(matches) {
            let Some(place) = self.slots.iter().position(matches) else { return Ok(ControlFlow::Continue(())) };
            self.last = place;
        }
        let slot = &mut self.slots[self.last];
        let closed = slot.lane.closed();
        match slot.lane.accept(record, now) {
            Ok(None) => {}
            Ok(Some(recovered)) => slot.write_last(recovered),
            Err(reason) => return Err((slot.lane.at.clone(), reason)),
        }
        let held = slot.lane.open_held();
        let completes = slot.lane.closed() > closed;
        // Now and then on the way, too: whether all lanes together hold too much is looked at between polls.
        let grown = held / self.share > slot.grown;
        slot.grown = held / self.share;
        Ok(if completes || grown { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// See [`Lane::write_unsealed`].
    pub(crate) fn write_unsealed(&mut self) {
        for slot in &mut self.slots {
            let writable = slot.lane.write_unsealed();
            slot.write_last(writable);
        }
    }

    /// Starts the writers again whose sink panicked, with everything that is sealed; each after a while, which grows.
    /// Answers how many have panicked since the last call.
    pub(crate) fn revive(&mut self, now: Instant) -> u64 {
        let mut panicked = 0;
        for place in 0..self.slots.len() {
            let slot = &mut self.slots[place];
            if !slot.writer.is_dead() {
                continue;
            }
            let Some(revive_at) = slot.revive_at else {
                slot.revive_at = Some(now + slot.panics.next());
                slot.troubled = true;
                panicked += 1;
                continue;
            };
            if now >= revive_at {
                let writer = self.writer_of(&self.slots[place].lane);
                let slot = &mut self.slots[place];
                slot.revive_at = None;
                slot.writer = writer;
                slot.write_last(slot.lane.sealed().len());
            }
        }
        panicked
    }
}

impl Slot {
    /// The destination's ledger was confirmed: batches may be sealed.
    pub(crate) fn confirmed(&mut self) {
        self.lane.confirm_ledger();
        self.wrote();
    }

    /// The backend took a batch.
    pub(crate) fn wrote(&mut self) {
        self.troubled = false;
        self.halts = 0;
        self.panics.reset();
    }

    /// Hands the newest `count` sealed batches to the writer.
    pub(crate) fn write_last(&self, count: usize) {
        let sealed = self.lane.sealed();
        for closed in sealed.iter().skip(sealed.len().saturating_sub(count)) {
            self.writer.write(closed.batch.clone());
        }
    }
}
