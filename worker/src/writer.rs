use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::{PollWaker, StreamId, TopicPartition};
use tallybus_sdk::clock::Clock;
use tallybus_sdk::dead_letter::DeadLetter;
use tallybus_sdk::{Batch, Claim, Encoded, Sink, SinkError, WriteOutcome};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::task::AbortHandle;

use super::backoff::Backoff;
use super::body_budget::{BodyBudget, BodyShare};
use super::claims::{Marking, SinkClaims};
use super::counters::{Answer, Counters, Stage};
use super::destination_check::DestinationCheck;
use super::future::FutureTimes;
use super::readiness::Gate;
#[cfg(feature = "simulation")]
use super::simulation::Mutant;

/// Maximum wait: a backend may request a wait by wall clock, and its clock or ours may be wrong.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// An event that the writer of a partition reports to the worker.
#[derive(Debug)]
pub(crate) struct WriterEvent {
    /// The ownership of the partition that it belongs to.
    pub(crate) epoch: u64,
    pub(crate) kind: EventKind,
}

#[derive(Debug)]
pub(crate) enum EventKind {
    /// The destination agrees with the group: batches may be sealed.
    DestinationConfirmed {
        /// The ledger's offset; `None` if the kind keeps none.
        ledger: Option<u64>,
    },
    /// The destination holds the sink's claim on the partition: batches with points may be sealed.
    ClaimHeld,
    /// All of the batch is written except these dead letters.
    Written {
        end: u64,
        dead_letters: Vec<DeadLetter>,
        requests: u64,
        /// The mark that the destination holds since then, if one was due.
        marked: Option<u64>,
    },
    /// The backend currently does not accept the batch; the writer retries after `wait`, which the backend asked for when it
    /// is `throttled`.
    Retrying { reason: String, wait: Duration, throttled: bool },
    /// Needs operator action; the writer retries slowly.
    Halted { reason: String, wait: Duration },
}

/// Sends events to the worker, and wakes its thread for them.
#[derive(Clone)]
pub(crate) struct EventSender {
    events: UnboundedSender<WriterEvent>,
    waker: PollWaker,
}

impl EventSender {
    pub(crate) fn new(events: UnboundedSender<WriterEvent>, waker: PollWaker) -> Self {
        Self { events, waker }
    }

    /// Switches to the waker of the subscriber that the worker polls now.
    pub(crate) fn set_waker(&mut self, waker: PollWaker) {
        self.waker = waker;
    }

    /// Returns `false` when the worker is gone.
    fn send(&self, event: WriterEvent) -> bool {
        let is_heard = self.events.send(event).is_ok();
        self.waker.wake();
        is_heard
    }
}

/// State shared by the writers of all partitions.
#[derive(Clone)]
pub(crate) struct WriterContext {
    pub(crate) sink: Arc<dyn Sink>,
    pub(crate) claims: Arc<SinkClaims>,
    pub(crate) future_times: Arc<FutureTimes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) bodies: BodyBudget,
    pub(crate) events: EventSender,
    pub(crate) counters: Arc<Counters>,
    /// Whether the backend was ready once; `None` where no check runs beside the worker.
    pub(crate) gate: Option<Gate>,
}

/// Encodes and writes the sealed batches of one partition, in order, one at a time; encodes the next one in parallel.
pub(crate) struct PartitionWriter {
    orders: UnboundedSender<Order>,
    tasks: [AbortHandle; 2],
}

/// What a worker asks of a partition's writer.
enum Order {
    /// Take the claim on the partition.
    Claim,
    /// Write a sealed batch.
    Write(Arc<Batch>),
}

impl PartitionWriter {
    /// Writes nothing before `check` is confirmed, and before the destination holds the sink's claim on `place`: a partition
    /// and its topic's incarnation.
    pub(crate) fn start(
        handle: &Handle,
        context: WriterContext,
        epoch: u64,
        place: (TopicPartition, StreamId),
        check: Option<DestinationCheck>,
    ) -> Self {
        let (orders, incoming) = unbounded_channel();
        let (encoded, ready) = channel(1);
        let encoder = handle.spawn(encode(context.clone(), incoming, encoded));
        let WriterContext { sink, claims, future_times, clock, events, counters, gate, .. } = context;
        let writing = Writing { sink, claims, future_times, clock, events, counters, gate, epoch };
        let writer = handle.spawn(write(writing, place, check, ready));
        Self { orders, tasks: [encoder.abort_handle(), writer.abort_handle()] }
    }

    /// Has the destination confirmed, and takes the claim on the partition.
    pub(crate) fn claim(&self) {
        self.order(Order::Claim);
    }

    /// Hands over a batch. The partition's task limits how many wait here.
    pub(crate) fn write(&self, batch: Arc<Batch>) {
        self.order(Order::Write(batch));
    }

    fn order(&self, order: Order) {
        // `is_dead` reports a writer that died; it is then restarted with every sealed batch.
        let _ = self.orders.send(order);
    }

    /// Whether a task ended without being stopped: the sink panicked.
    pub(crate) fn is_dead(&self) -> bool {
        self.tasks.iter().any(AbortHandle::is_finished)
    }
}

impl Drop for PartitionWriter {
    /// The batch of an interrupted write stays sealed; the next owner of the partition writes the same batch.
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What is next for the destination.
enum Ready {
    Claim,
    /// A batch to write, its body, and the body's share of the memory budget.
    Batch(Arc<Batch>, Encoded, BodyShare),
}

async fn encode(context: WriterContext, mut incoming: UnboundedReceiver<Order>, ready: Sender<Ready>) {
    let WriterContext { sink, bodies, clock, counters, .. } = context;
    // Capacity first: at most one encoded batch waits while another is written, because bodies use the most memory.
    while let Ok(permit) = ready.reserve().await {
        let batch = match incoming.recv().await {
            Some(Order::Write(batch)) => batch,
            Some(Order::Claim) => {
                permit.send(Ready::Claim);
                continue;
            }
            None => return,
        };
        let mut share = bodies.share_for(&batch).await;
        let encoded = encode_counted(sink.as_ref(), clock.as_ref(), &counters, &batch);
        share.shrink_to(encoded.memory);
        permit.send(Ready::Batch(batch, encoded, share));
        // The writer was woken on this thread, and no other thread steals it from here: without a yield it would wait
        // until the next batch is encoded too.
        tokio::task::yield_now().await;
    }
}

fn encode_counted(sink: &dyn Sink, clock: &dyn Clock, counters: &Counters, batch: &Batch) -> Encoded {
    let begun = clock.now();
    let encoded = sink.encode(batch);
    counters.encoded(encoded.memory, clock.now() - begun);
    encoded
}

async fn write(
    writing: Writing,
    (at, stream): (TopicPartition, StreamId),
    check: Option<DestinationCheck>,
    mut ready: Receiver<Ready>,
) {
    let (sink, claims, clock) = (writing.sink.as_ref(), writing.claims.as_ref(), writing.clock.as_ref());
    if let Some(check) = check {
        check.confirm(sink, claims, clock, writing.epoch, &|kind| writing.tell(kind)).await;
    }
    let mut is_claimed = false;
    let mut marking = Marking::of(sink);
    let claim = claims.owner().claim(&at, &stream);
    #[cfg(feature = "simulation")]
    if Mutant::ClaimNotTaken.is_on() || Mutant::ClaimTakenAfterTheWrite.is_on() {
        is_claimed = true;
    }
    while let Some(next) = ready.recv().await {
        let needs_claim = match &next {
            Ready::Claim => true,
            // Sealed by an earlier owner, or by a version that sealed before it took the claim.
            Ready::Batch(batch, encoded, _) => encoded.rejected.len() < batch.points.len(),
        };
        if !is_claimed && needs_claim {
            let mut patience = Patience::new(writing.epoch);
            while let Err(error) = claims.take(sink, clock, &at, &stream).await {
                patience.wait(error, clock, &|kind| writing.tell(kind)).await;
            }
            is_claimed = true;
        }
        let Ready::Batch(batch, encoded, share) = next else {
            writing.tell(EventKind::ClaimHeld);
            continue;
        };
        writing.future_times.note(&batch, clock);
        let begun = clock.now();
        let (dead_letters, requests) = writing.whole(&batch, encoded).await;
        writing.counters.took(Stage::Write, clock.now() - begun);
        #[cfg(feature = "simulation")]
        if Mutant::ClaimTakenAfterTheWrite.is_on() {
            while claims.take(sink, clock, &at, &stream).await.is_err() {
                clock.sleep_async(Duration::from_secs(1)).await;
            }
        }
        drop(share);
        let end = batch.id.end;
        let marked = if requests > 0 { writing.mark(&mut marking, &claim, end).await } else { None };
        let kind = EventKind::Written { end, dead_letters, requests, marked };
        if !writing.events.send(WriterEvent { epoch: writing.epoch, kind }) {
            return;
        }
    }
}

struct Writing {
    sink: Arc<dyn Sink>,
    claims: Arc<SinkClaims>,
    future_times: Arc<FutureTimes>,
    clock: Arc<dyn Clock>,
    events: EventSender,
    counters: Arc<Counters>,
    gate: Option<Gate>,
    epoch: u64,
}

/// The growing waits of one attempt at a backend: short where trying again may help, long where an operator has to act.
pub(crate) struct Patience {
    retries: Backoff,
    halts: Backoff,
}

impl Patience {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            retries: Backoff::new(Duration::from_millis(100), Duration::from_secs(5), seed),
            halts: Backoff::new(Duration::from_secs(2), Duration::from_secs(30), seed),
        }
    }

    /// Reports why the backend could not be asked, and waits before it is asked again.
    pub(crate) async fn wait(&mut self, error: SinkError, clock: &dyn Clock, tell: &(dyn Fn(EventKind) + Sync)) {
        match error {
            SinkError::Unavailable(reason) => self.wait_to_retry(reason, None, clock, tell).await,
            SinkError::Halt(reason) => self.wait_halted(reason, clock, tell).await,
        }
    }

    async fn wait_to_retry(
        &mut self,
        reason: String,
        requested: Option<Duration>,
        clock: &dyn Clock,
        tell: &(dyn Fn(EventKind) + Sync),
    ) {
        let wait = wait_before_retry(&mut self.retries, requested);
        tell(EventKind::Retrying { reason, wait, throttled: requested.is_some() });
        clock.sleep_async(wait).await;
    }

    async fn wait_halted(&mut self, reason: String, clock: &dyn Clock, tell: &(dyn Fn(EventKind) + Sync)) {
        let wait = self.halts.next();
        tell(EventKind::Halted { reason, wait });
        clock.sleep_async(wait).await;
    }

    fn reset(&mut self) {
        self.retries.reset();
        self.halts.reset();
    }
}

/// How long to wait before the next attempt: our own backoff, or longer when the backend requests it. A backend that
/// requests no wait, or one that is over by our clock, does not make us faster.
fn wait_before_retry(backoff: &mut Backoff, requested: Option<Duration>) -> Duration {
    backoff.next().max(requested.unwrap_or_default().min(LONGEST_WAIT))
}

impl Writing {
    /// Writes a batch until all of it is stored or rejected. Returns the dead letters and the number of requests.
    async fn whole(&self, batch: &Arc<Batch>, encoded: Encoded) -> (Vec<DeadLetter>, u64) {
        #[cfg(feature = "simulation")]
        if Mutant::RecoveredMeansDone.is_on() && batch.recovered {
            return (Vec::new(), 0);
        }
        let mut dead_letters = Vec::new();
        let mut requests = 0;
        let mut parts: Vec<(Arc<Batch>, Option<Encoded>)> = vec![(batch.clone(), Some(encoded))];
        let mut patience = Patience::new(batch.id.first ^ self.epoch);
        while let Some((part, encoded)) = parts.pop() {
            let encoded = encoded.unwrap_or_else(|| self.encode(&part));
            let mut settle = |rejected: &[tallybus_sdk::Rejection]| {
                let all = encoded.rejected.iter().chain(rejected);
                dead_letters.extend(all.filter_map(|rejection| DeadLetter::of_point(&part, rejection)));
            };
            if encoded.rejected.len() == part.points.len() {
                settle(&[]);
                continue;
            }
            requests += 1;
            match self.send(&part, &encoded).await {
                WriteOutcome::Done => settle(&[]),
                WriteOutcome::Rejected(rejected) => settle(&rejected),
                WriteOutcome::Split { reason } => match part.split() {
                    #[cfg(feature = "simulation")]
                    Some((left, right)) if Mutant::HalvesInTheWrongOrder.is_on() => {
                        parts.push((Arc::new(left), None));
                        parts.push((Arc::new(right), None));
                        continue;
                    }
                    #[cfg(feature = "simulation")]
                    Some((left, _)) if Mutant::RightHalfDropped.is_on() => {
                        parts.push((Arc::new(left), None));
                        continue;
                    }
                    Some((left, right)) => {
                        parts.push((Arc::new(right), None));
                        parts.push((Arc::new(left), None));
                        continue;
                    }
                    // A batch that cannot be halved is refused as a whole; points that were not encoded are rejected
                    // already.
                    None => {
                        let sent = |point: &usize| encoded.rejected.iter().all(|rejection| rejection.point != *point);
                        let refused = (0..part.points.len()).filter(sent);
                        let refused = refused.map(|point| tallybus_sdk::Rejection { point, reason: reason.clone() });
                        settle(&refused.collect::<Vec<_>>());
                    }
                },
                WriteOutcome::Retry { after, reason } => {
                    patience.wait_to_retry(reason, after, self.clock.as_ref(), &|kind| self.tell(kind)).await;
                    #[cfg(feature = "simulation")]
                    if let Some(others) = retry_with_others(&part) {
                        parts.extend(others.into_iter().map(|part| (Arc::new(part), None)));
                        continue;
                    }
                    parts.push((part, Some(encoded)));
                    continue;
                }
                WriteOutcome::Halt { reason } => {
                    patience.wait_halted(reason, self.clock.as_ref(), &|kind| self.tell(kind)).await;
                    parts.push((part, Some(encoded)));
                    continue;
                }
            }
            patience.reset();
        }
        (dead_letters, requests)
    }

    fn encode(&self, part: &Batch) -> Encoded {
        encode_counted(self.sink.as_ref(), self.clock.as_ref(), &self.counters, part)
    }

    /// One request.
    async fn send(&self, part: &Batch, encoded: &Encoded) -> WriteOutcome {
        let begun = self.clock.now();
        let outcome = self.sink.write(part, encoded).await;
        self.counters.took(Stage::Request, self.clock.now() - begun);
        self.counters.answered(Answer::of(&outcome));
        outcome
    }

    /// Marks the partition as written up to `end`, when that is due; waits while the destination halts.
    async fn mark(&self, marking: &mut Marking, claim: &Claim, end: u64) -> Option<u64> {
        let (sink, clock) = (self.sink.as_ref(), self.clock.as_ref());
        let mut patience = Patience::new(self.epoch);
        loop {
            match marking.mark(sink, &self.claims, clock, claim, end).await {
                Ok(marked) => return marked,
                Err(error) => patience.wait(error, clock, &|kind| self.tell(kind)).await,
            }
        }
    }

    fn tell(&self, kind: EventKind) {
        let kind = match &self.gate {
            Some(gate) => gate.reword(kind),
            None => kind,
        };
        // The worker that received the events is gone, and so is this partition's task.
        let _gone = self.events.send(WriterEvent { epoch: self.epoch, kind });
    }
}

/// What a broken worker writes instead of the batch that it was to write again, the last part first.
#[cfg(feature = "simulation")]
fn retry_with_others(batch: &Batch) -> Option<Vec<Batch>> {
    if Mutant::RetryInHalves.is_on() {
        return batch.split().map(|(left, right)| vec![right, left]);
    }
    let lacks_one = Mutant::RetryWithoutAPoint.is_on() && batch.points.len() > 1;
    lacks_one.then(|| vec![Batch { points: batch.points[1..].to_vec(), ..batch.clone() }])
}

#[cfg(test)]
mod tests;
