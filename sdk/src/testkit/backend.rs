mod backup;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tallybus_bus::StreamId;
use tallybus_schemas::Series;

pub use self::backup::Backup;
use crate::ledger::{self, LedgerState, Position, Span};
use crate::{Batch, BatchId, Encoded, Foreign, Rejection, SinkError, WriteOutcome};

/// How the backend reacts to a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Stores it and acknowledges; points that it refuses are rejected.
    Take,
    /// Stores it, and the answer is lost: the worker sees [`WriteOutcome::Retry`].
    TakeAndLoseTheAnswer,
    /// Receives it only when [`FakeBackend::deliver_late`] is called; until then the worker sees [`WriteOutcome::Retry`].
    TakeLate,
    /// Stores nothing and returns this. With a [`WriteOutcome::Rejected`], the other points are stored.
    WriteOutcome(WriteOutcome),
}

/// A write that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// [`Batch::key`].
    pub key: String,
    /// The batch's offsets.
    pub id: BatchId,
    /// The body of [`Encoded::payload`].
    pub body: Vec<u8>,
    /// [`Batch::recovered`].
    pub recovered: bool,
    /// The result.
    pub answer: WriteOutcome,
}

type Decide = Box<dyn FnMut(&Batch) -> Option<Step> + Send>;
type Refuse = Box<dyn Fn(&Series) -> bool + Send>;

/// The server of a [`FakeSink`](super::FakeSink).
pub struct FakeBackend {
    number: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rows: Rows,
    /// What another program put there, with its time.
    foreign: Vec<(i64, Foreign)>,
    /// The rejected points of each batch or part that is stored.
    taken: Taken,
    /// Content by key, whether stored or not.
    seen: HashMap<String, Vec<u8>>,
    /// How far each partition has come, by topic and partition.
    ledger: Ledger,
    /// Offsets of every batch that was ever written, by topic, its incarnation, and partition.
    ranges: HashMap<(Arc<str>, Option<StreamId>, u32), Ranges>,
    writes: Vec<Write>,
    /// Requests that have not arrived yet.
    late: Vec<Batch>,
    is_idempotent: bool,
    /// Batches are recognised by their keys alone.
    has_no_ledger: bool,
    /// An operator has set a group back: batches are cut anew, and what is written twice is refused by the ledger.
    allows_overlaps: bool,
    violations: Vec<String>,
    script: VecDeque<Step>,
    decide: Option<Decide>,
    refuse: Option<Refuse>,
    pause: Duration,
    locked: Option<String>,
    away: bool,
    claims: BTreeSet<String>,
    marks: BTreeMap<String, u64>,
    claim_reads: u64,
    /// Added just before the next claim, as if by another worker.
    rival_claim: Option<String>,
    /// A write of a partition that nobody has claimed is a violation.
    demands_claims: bool,
    keeps_tags_apart: bool,
}

type Rows = BTreeMap<(Series, i64), u64>;
type Taken = HashMap<String, Vec<Rejection>>;
type Ledger = HashMap<(Arc<str>, u32), Position>;
/// By first offset, where each batch ends.
type Ranges = BTreeMap<u64, u64>;

impl FakeBackend {
    /// Creates an empty backend that accepts everything.
    pub fn new() -> Arc<Self> {
        static BACKENDS: AtomicU64 = AtomicU64::new(1);
        let state = State { is_idempotent: true, ..State::default() };
        Arc::new(Self { number: BACKENDS.fetch_add(1, Ordering::Relaxed), state: Mutex::new(state) })
    }

    /// From now on a batch that is written twice counts twice.
    pub fn forget_batches(&self) {
        self.lock().is_idempotent = false;
    }

    /// It keeps no ledger: a batch whose key it does not know is new.
    pub(super) fn keep_no_ledger(&self) {
        self.lock().has_no_ledger = true;
    }

    /// From now on sinks that add different values of one tag share it ([`Claims::keeps_tags_apart`](crate::Claims::keeps_tags_apart)).
    pub fn keep_tags_apart(&self) {
        self.lock().keeps_tags_apart = true;
    }

    pub(super) fn keeps_tags_apart(&self) -> bool {
        self.lock().keeps_tags_apart
    }

    /// From now on batches may overlap: an operator has set the group back, and a worker that was not seen may still write
    /// what it had sealed. The ledger has to refuse one of the two.
    pub fn allow_overlaps(&self) {
        self.lock().allows_overlaps = true;
    }

    /// From now on a write of a partition that nobody has claimed is a violation; or no longer.
    pub fn demand_claims(&self, demands: bool) {
        self.lock().demands_claims = demands;
    }

    /// The requests that were delayed ([`Step::TakeLate`]) arrive now; the answers reach nobody.
    pub fn deliver_late(&self) {
        let (mut state, name) = (self.lock(), self.name());
        for batch in std::mem::take(&mut state.late) {
            state.take(&name, &batch, None);
        }
    }

    /// Its name: no other one of this process has it.
    pub fn name(&self) -> String {
        format!("the fake backend {}", self.number)
    }

    /// Sets the reactions to the next writes, in order; after them every write is accepted.
    pub fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.lock().script.extend(steps);
    }

    /// Calls `decide` for every write; where it returns `None`, the script applies.
    pub fn decide(&self, decide: impl FnMut(&Batch) -> Option<Step> + Send + 'static) {
        self.lock().decide = Some(Box::new(decide));
    }

    /// Rejects every point of these series.
    pub fn refuse(&self, refuse: impl Fn(&Series) -> bool + Send + 'static) {
        self.lock().refuse = Some(Box::new(refuse));
    }

    /// How long every write takes.
    pub fn set_pause(&self, pause: Duration) {
        self.lock().pause = pause;
    }

    /// Sets whether the backend is unavailable: every write is to be retried.
    pub fn set_away(&self, away: bool) {
        self.lock().away = away;
    }

    /// Sets the reason why access is denied; every write halts.
    pub fn set_locked(&self, reason: Option<&str>) {
        self.lock().locked = reason.map(str::to_owned);
    }

    /// Sets how far a partition has come, as if it had been written from another bus or from a topic that was deleted.
    pub fn set_ledger_end(&self, topic: &str, partition: u32, offset: u64) {
        self.lock().ledger.insert((topic.into(), partition), offset.into());
    }

    /// How far a partition has come; 0 if nothing of it was stored.
    pub fn ledger_end(&self, topic: &str, partition: u32) -> u64 {
        self.position(topic, partition).offset
    }

    /// The same with the part of the next batch that was stored.
    pub(super) fn position(&self, topic: &str, partition: u32) -> Position {
        self.lock().ledger.get(&(topic.into(), partition)).copied().unwrap_or_default()
    }

    /// The entries of its claims.
    pub(super) fn claims(&self) -> Vec<String> {
        let mut state = self.lock();
        state.claim_reads += 1;
        state.claims.iter().cloned().collect()
    }

    /// How often its claims were read.
    pub fn claim_reads(&self) -> u64 {
        self.lock().claim_reads
    }

    pub(super) fn add_claim(&self, entry: &str) {
        let mut state = self.lock();
        let rival = state.rival_claim.take();
        state.claims.extend(rival);
        state.claims.insert(entry.to_owned());
    }

    pub(super) fn remove_claim(&self, entry: &str) {
        self.lock().claims.remove(entry);
    }

    pub(super) fn set_mark(&self, entry: &str, offset: u64) {
        self.lock().marks.insert(entry.to_owned(), offset);
    }

    /// The marks of its claims.
    pub fn marks(&self) -> Vec<(String, u64)> {
        self.lock().marks.iter().map(|(entry, offset)| (entry.clone(), *offset)).collect()
    }

    /// Sets its marks back, as a restored backup does.
    pub fn set_marks(&self, marks: Vec<(String, u64)>) {
        self.lock().marks = marks.into_iter().collect();
    }

    /// Adds this claim just before the next one, as a worker of another sink does that begins at the same moment.
    pub fn claim_before_the_next(&self, entry: &str) {
        self.lock().rival_claim = Some(entry.to_owned());
    }

    /// Every write so far, in order.
    pub fn writes(&self) -> Vec<Write> {
        self.lock().writes.clone()
    }

    /// Its content, by series and time.
    pub fn rows(&self) -> BTreeMap<(Series, i64), u64> {
        self.lock().rows.clone()
    }

    /// The sum of all values of one series.
    pub fn total_of(&self, series: &Series) -> u64 {
        let of_series = (series.clone(), i64::MIN)..=(series.clone(), i64::MAX);
        self.lock().rows.range(of_series).map(|(_, value)| value).sum()
    }

    /// Changes its content as another program would.
    pub fn tamper(&self, change: impl FnOnce(&mut Rows)) {
        change(&mut self.lock().rows);
    }

    /// Adds a point that no sink wrote, at this time.
    pub fn add_foreign(&self, time: i64, foreign: Foreign) {
        self.lock().foreign.push((time, foreign));
    }

    /// The points that no sink wrote, with their times.
    pub fn foreign(&self) -> Vec<(i64, Foreign)> {
        self.lock().foreign.clone()
    }

    /// The sum of all values it holds.
    pub fn total(&self) -> u64 {
        self.lock().rows.values().sum()
    }

    /// Violations of the guarantees that a sink relies on: the same key with other content, batches whose offsets
    /// overlap, a part of a batch that is stored as a whole, two batches of one partition at once.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Records a violation.
    pub(super) fn violated(&self, violation: String) {
        self.lock().violations.push(violation);
    }

    /// Checks whether it is available and grants access.
    pub fn look(&self) -> Result<(), SinkError> {
        let state = self.lock();
        if state.away {
            return Err(SinkError::Unavailable("the fake backend is unavailable".to_owned()));
        }
        state.locked.clone().map_or(Ok(()), |reason| Err(SinkError::Halt(reason)))
    }

    /// Determines the reaction to this write, and its duration.
    pub fn next_step(&self, batch: &Batch) -> (Step, Duration) {
        let mut state = self.lock();
        let pause = state.pause;
        if state.away {
            let reason = "the fake backend is unavailable".to_owned();
            return (Step::WriteOutcome(WriteOutcome::Retry { after: None, reason }), pause);
        }
        if let Some(reason) = state.locked.clone() {
            return (Step::WriteOutcome(WriteOutcome::Halt { reason }), pause);
        }
        let mut decide = state.decide.take();
        let decided = decide.as_mut().and_then(|decide| decide(batch));
        state.decide = decide;
        let step = decided.or_else(|| state.script.pop_front()).unwrap_or(Step::Take);
        (step, pause)
    }

    /// Stores a batch, or does what the script says instead.
    pub(super) fn write(&self, batch: &Batch, encoded: &Encoded, step: Step) -> WriteOutcome {
        let (mut state, name) = (self.lock(), self.name());
        state.watch(batch, encoded);
        let answer = match step {
            Step::Take => state.take(&name, batch, None),
            Step::WriteOutcome(WriteOutcome::Rejected(rejected)) => state.take(&name, batch, Some(rejected)),
            Step::WriteOutcome(answer) => answer,
            Step::TakeLate => {
                state.late.push(batch.clone());
                WriteOutcome::Retry { after: None, reason: "the fake backend did not answer in time".to_owned() }
            }
            Step::TakeAndLoseTheAnswer => {
                state.take(&name, batch, None);
                WriteOutcome::Retry { after: None, reason: "the fake backend's answer was lost".to_owned() }
            }
        };
        let write = Write {
            key: batch.key(),
            id: batch.id.clone(),
            body: body_of(encoded),
            recovered: batch.recovered,
            answer: answer.clone(),
        };
        state.writes.push(write);
        answer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds the batch to the rows, unless it is already stored.
    ///
    /// As in a real backend, the ledger only records how far it has come: it decides about a batch whose key is unknown.
    fn take(&mut self, name: &str, batch: &Batch, rejected: Option<Vec<Rejection>>) -> WriteOutcome {
        let key = batch.key();
        let at = (batch.id.topic.clone(), batch.id.partition);
        let end = self.ledger.get(&at).copied().unwrap_or_default();
        let Some(span) = Span::of(batch) else {
            return WriteOutcome::Halt { reason: format!("{key} was halved more often than is possible") };
        };
        if !self.has_no_ledger && !self.taken.contains_key(&key) {
            match ledger::decide(end, &span, batch.recovered, 0) {
                LedgerState::NotApplied => {}
                LedgerState::Partial => return WriteOutcome::Split { reason: "parts of it are stored".to_owned() },
                LedgerState::Applied => return WriteOutcome::Done,
                LedgerState::Diverged(how) => {
                    return WriteOutcome::Halt { reason: how.describe(name, "backend", &batch.id, Some(end.offset)) };
                }
            }
        }
        let rejected = match self.taken.get(&key).filter(|_| self.is_idempotent) {
            Some(rejected) => rejected.clone(),
            None => {
                let rejected = rejected.unwrap_or_else(|| self.refused(batch));
                for (index, point) in batch.points.iter().enumerate() {
                    if rejected.iter().all(|rejection| rejection.point != index) {
                        let series = batch.series.get(point.series).to_series();
                        *self.rows.entry((series, point.time)).or_default() += point.value;
                    }
                }
                self.taken.insert(key, rejected.clone());
                self.ledger.insert(at, end.max(span.to));
                rejected
            }
        };
        if rejected.is_empty() { WriteOutcome::Done } else { WriteOutcome::Rejected(rejected) }
    }

    fn refused(&self, batch: &Batch) -> Vec<Rejection> {
        let Some(refuse) = &self.refuse else { return Vec::new() };
        let refused = |(_, point): &(usize, &crate::Point)| refuse(&batch.series.get(point.series).to_series());
        let points = batch.points.iter().enumerate().filter(refused);
        points
            .map(|(point, _)| Rejection { point, reason: "the fake backend refuses this series".to_owned() })
            .collect()
    }
}

/// Empty for a batch without points.
fn body_of(encoded: &Encoded) -> Vec<u8> {
    encoded.as_bytes().map(|body| body.to_vec()).unwrap_or_default()
}

impl fmt::Debug for FakeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("FakeBackend")
            .field("rows", &state.rows.len())
            .field("writes", &state.writes.len())
            .field("violations", &state.violations)
            .finish_non_exhaustive()
    }
}
