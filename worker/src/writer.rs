use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::PollWaker;
use tallybus_sdk::dead_letter::DeadLetter;
use tallybus_sdk::{Answer, Batch, Encoded, Sink};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::task::AbortHandle;

use super::backoff::Backoff;
use super::body_budget::{BodyBudget, BodyShare};
use super::ledger_check::LedgerCheck;

/// A backend that asks for no wait is not written to in a tight loop.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// A backend may ask for a wait by the clock, and one of the two clocks may be wrong.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What a lane's writer tells the worker.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) epoch: u64,
    pub(crate) news: News,
}

/// Brings reports to the worker, and wakes its thread for them.
#[derive(Clone)]
pub(crate) struct Reporter {
    reports: UnboundedSender<Report>,
    waker: PollWaker,
}

impl Reporter {
    pub(crate) fn new(reports: UnboundedSender<Report>, waker: PollWaker) -> Self {
        Self { reports, waker }
    }

    /// Whoever polls another subscriber now is waked by that one's waker.
    pub(crate) fn set_waker(&mut self, waker: PollWaker) {
        self.waker = waker;
    }

    /// Answers `false` when the worker is gone.
    fn send(&self, report: Report) -> bool {
        let is_heard = self.reports.send(report).is_ok();
        self.waker.wake();
        is_heard
    }
}

#[derive(Debug)]
pub(crate) enum News {
    /// The destination's ledger is not past what the group sealed: batches may be sealed.
    LedgerConfirmed,
    /// All of the batch is in, but for these letters.
    Written { end: u64, letters: Vec<DeadLetter>, requests: u64 },
    /// The backend does not take it now; the writer tries again after `wait`.
    Retrying { reason: String, wait: Duration },
    /// Somebody must act; the writer tries again slowly.
    Halted { reason: String, wait: Duration },
}

/// Encodes and writes the sealed batches of one lane, in order, one at a time; encodes the next meanwhile.
pub(crate) struct LaneWriter {
    batches: UnboundedSender<Arc<Batch>>,
    tasks: [AbortHandle; 2],
}

impl LaneWriter {
    /// Writes nothing before `check` is confirmed.
    pub(crate) fn start(
        handle: &Handle,
        sink: Arc<dyn Sink>,
        bodies: BodyBudget,
        epoch: u64,
        reports: Reporter,
        check: Option<LedgerCheck>,
    ) -> Self {
        let (batches, incoming) = unbounded_channel();
        let (encoded, ready) = channel(1);
        let encoder = handle.spawn(encode(sink.clone(), bodies, incoming, encoded));
        let writer = handle.spawn(write(Writing { sink, epoch, reports }, check, ready));
        Self { batches, tasks: [encoder.abort_handle(), writer.abort_handle()] }
    }

    /// Hands a batch over. The lane bounds how many wait here.
    pub(crate) fn write(&self, batch: Arc<Batch>) {
        // A writer that died is noticed by `is_dead`, and started again with everything that is sealed.
        let _ = self.batches.send(batch);
    }

    /// Whether a task ended although nobody asked it to: a sink panicked.
    pub(crate) fn is_dead(&self) -> bool {
        self.tasks.iter().any(AbortHandle::is_finished)
    }
}

impl Drop for LaneWriter {
    /// A write that is cut off here stays sealed; whoever owns the partition next writes the same batch.
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A batch to write, its body, and the body's share of what all may take up.
type Ready = (Arc<Batch>, Encoded, BodyShare);

async fn encode(
    sink: Arc<dyn Sink>,
    bodies: BodyBudget,
    mut incoming: UnboundedReceiver<Arc<Batch>>,
    ready: Sender<Ready>,
) {
    // Room first: at most one encoded batch waits while another is written, because bodies are the largest thing in memory.
    while let Ok(room) = ready.reserve().await {
        let Some(batch) = incoming.recv().await else { return };
        let mut share = bodies.share_for(&batch).await;
        let encoded = sink.encode(&batch);
        share.shrink_to(encoded.memory);
        room.send((batch, encoded, share));
        // The writer was woken on this thread, and no other thread takes it from here: without a pause it would wait until
        // the next batch is encoded too.
        tokio::task::yield_now().await;
    }
}

async fn write(writing: Writing, check: Option<LedgerCheck>, mut ready: Receiver<Ready>) {
    if let Some(check) = check {
        check.confirm(writing.sink.as_ref(), writing.epoch, |news| writing.report(news)).await;
    }
    while let Some((batch, encoded, share)) = ready.recv().await {
        let (letters, requests) = writing.whole(&batch, encoded).await;
        drop(share);
        let news = News::Written { end: batch.id.end, letters, requests };
        if !writing.reports.send(Report { epoch: writing.epoch, news }) {
            return;
        }
    }
}

struct Writing {
    sink: Arc<dyn Sink>,
    epoch: u64,
    reports: Reporter,
}

impl Writing {
    /// Writes a batch until all of it is in or rejected. Answers the letters and how many requests it took.
    async fn whole(&self, batch: &Arc<Batch>, encoded: Encoded) -> (Vec<DeadLetter>, u64) {
        let mut letters = Vec::new();
        let mut requests = 0;
        let mut parts: Vec<(Arc<Batch>, Option<Encoded>)> = vec![(batch.clone(), Some(encoded))];
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5), batch.id.first ^ self.epoch);
        let mut halts = Backoff::new(Duration::from_secs(2), Duration::from_secs(30), batch.id.first ^ self.epoch);
        while let Some((part, encoded)) = parts.pop() {
            let encoded = encoded.unwrap_or_else(|| self.sink.encode(&part));
            let mut settle = |rejected: &[tallybus_sdk::Rejection]| {
                let all = encoded.rejected.iter().chain(rejected);
                letters.extend(all.filter_map(|rejection| DeadLetter::of_point(&part, rejection)));
            };
            if encoded.rejected.len() == part.points.len() {
                settle(&[]);
                continue;
            }
            requests += 1;
            match self.sink.write(&part, &encoded).await {
                Answer::Done => settle(&[]),
                Answer::Rejected(rejected) => settle(&rejected),
                Answer::Split { reason } => match part.split() {
                    Some((left, right)) => {
                        parts.push((Arc::new(right), None));
                        parts.push((Arc::new(left), None));
                        continue;
                    }
                    // What cannot be halved is refused as a whole; what was not sent is rejected already.
                    None => {
                        let sent = |point: &usize| encoded.rejected.iter().all(|rejection| rejection.point != *point);
                        let refused = (0..part.points.len()).filter(sent);
                        let refused = refused.map(|point| tallybus_sdk::Rejection { point, reason: reason.clone() });
                        settle(&refused.collect::<Vec<_>>());
                    }
                },
                Answer::Retry { after, reason } => {
                    let wait = after.map_or_else(|| backoff.next(), |asked| asked.clamp(SHORTEST_WAIT, LONGEST_WAIT));
                    self.report(News::Retrying { reason, wait });
                    tokio::time::sleep(wait).await;
                    parts.push((part, Some(encoded)));
                    continue;
                }
                Answer::Halt { reason } => {
                    let wait = halts.next();
                    self.report(News::Halted { reason, wait });
                    tokio::time::sleep(wait).await;
                    parts.push((part, Some(encoded)));
                    continue;
                }
            }
            backoff.reset();
            halts.reset();
        }
        (letters, requests)
    }

    fn report(&self, news: News) {
        // The worker that listened is gone: so is this lane.
        let _gone = self.reports.send(Report { epoch: self.epoch, news });
    }
}
