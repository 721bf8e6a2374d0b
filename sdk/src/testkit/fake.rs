//! An in-memory backend: used by tests of the runtime, and the smallest sink to learn from.
//!
//! [`FakeBackend`] is the server, [`FakeSink`] a worker's connection to it; several workers connect to one backend. It
//! is idempotent by batch key, like a real backend with a ledger. It follows a script ([`Step`]), and it checks the
//! guarantees that a runtime gives to every sink: see [`FakeBackend::violations`].

mod ask;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tallybus_bus::TopicPartition;

use super::backend::FakeBackend;
use crate::clock::Clock;
use crate::ledger::{Divergence, Position};
use crate::{
    Answer, BackendVersion, Batch, Claims, DeliveryGuarantee, Encoded, Held, LedgerEnd, NANOS_PER_MINUTE, Question,
    ReadBack, Series, Sink, SinkError, Storage, VisitHeld, WindowTotal, WindowsQuery, WriteOutcome,
};

/// How often a partition is marked where there is no ledger.
pub(super) const MARKS_EVERY: Duration = Duration::from_secs(60);

/// A connection to a [`FakeBackend`].
#[derive(Debug)]
pub struct FakeSink {
    backend: Arc<FakeBackend>,
    shape: String,
    /// In nanoseconds; 0: each event is its own point.
    window: i64,
    /// Measures the pauses of the backend; `None` for Tokio's timer.
    clock: Option<Arc<dyn Clock>>,
    /// Partitions that are being written through this connection.
    in_flight: Mutex<Vec<TopicPartition>>,
    keeps_ledger: bool,
    holds_claims: bool,
    /// Whether it notices that the ledger was further before.
    notices_loss: bool,
    /// How far the ledger was at least when this connection last read or wrote it, for each partition.
    least: Mutex<HashMap<TopicPartition, Position>>,
}

impl FakeSink {
    /// Connects.
    pub fn new(backend: Arc<FakeBackend>) -> Self {
        Self {
            backend,
            shape: String::new(),
            window: 0,
            clock: None,
            in_flight: Mutex::default(),
            keeps_ledger: true,
            holds_claims: true,
            notices_loss: true,
            least: Mutex::default(),
        }
    }

    /// The same without a ledger, as a backend that only recognises the batches that it has.
    pub fn without_ledger(self) -> Self {
        self.backend.keep_no_ledger();
        Self { keeps_ledger: false, ..self }
    }

    /// The same without a ledger, claims and a name, as a server that only recognises the keys of batches.
    pub fn without_claims(self) -> Self {
        Self { holds_claims: false, ..self.without_ledger() }
    }

    /// The same, broken on purpose: a ledger that has lost batches is taken for one that never had them.
    pub fn without_noticing_loss(self) -> Self {
        Self { notices_loss: false, ..self }
    }

    /// The same with another [`Sink::layout_fingerprint`].
    pub fn with_shape(mut self, shape: &str) -> Self {
        self.shape = shape.to_owned();
        self
    }

    /// The same for points of this window, in nanoseconds.
    pub fn with_window(mut self, window: i64) -> Self {
        self.window = window;
        self
    }

    /// The same with pauses ([`FakeBackend::set_pause`]) on this clock instead of Tokio's timer.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }
}

impl FakeSink {
    /// Why nothing may be written, as every sink with a ledger finds it: the ledger was further before.
    fn lost_by_the_ledger(&self, batch: &Batch) -> Option<String> {
        let least = self.least.lock().unwrap_or_else(PoisonError::into_inner).get(&batch.id.at()).copied()?;
        let end = self.backend.position(&batch.id.topic, batch.id.partition);
        let is_behind = self.keeps_ledger && self.notices_loss && end < least;
        is_behind.then(|| Divergence::Behind.describe(&self.backend.name(), "backend", &batch.id, Some(end.offset)))
    }
}

/// Marks a partition as being written for as long as the value lives, also when the write is cancelled.
struct InFlight<'a> {
    sink: &'a FakeSink,
    at: TopicPartition,
}

impl<'a> InFlight<'a> {
    fn enter(sink: &'a FakeSink, batch: &Batch) -> Self {
        let at = TopicPartition { topic: batch.id.topic.clone(), partition: batch.id.partition };
        let mut in_flight = sink.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if in_flight.contains(&at) {
            sink.backend.violated(format!("{}: another batch of {at} is being written", batch.key()));
        }
        in_flight.push(at.clone());
        Self { sink, at }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.sink.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = in_flight.iter().position(|at| *at == self.at) {
            in_flight.swap_remove(place);
        }
    }
}

#[async_trait]
impl Sink for FakeSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    fn layout_fingerprint(&self) -> String {
        self.shape.clone()
    }

    async fn check(&self) -> Result<(), SinkError> {
        self.backend.look()
    }

    async fn ledger_end(&self, topic: &str, partition: u32) -> Result<Option<LedgerEnd>, SinkError> {
        self.backend.look()?;
        if !self.keeps_ledger {
            return Ok(None);
        }
        let end = self.backend.position(topic, partition);
        let at = TopicPartition::new(topic, partition);
        self.least.lock().unwrap_or_else(PoisonError::into_inner).insert(at, end);
        Ok(Some(LedgerEnd { destination: self.backend.name(), offset: end.offset }))
    }

    fn destination(&self) -> Option<String> {
        self.holds_claims.then(|| self.backend.name())
    }

    fn claims(&self) -> Option<&dyn Claims> {
        self.holds_claims.then_some(self as &dyn Claims)
    }

    /// One line for each point, so that a test can compare bytes.
    fn encode(&self, batch: &Batch) -> Encoded {
        let mut body = String::new();
        for point in &batch.points {
            body.push_str(&format!("{} {} {}\n", batch.series.get(point.series), point.value, point.time));
        }
        Encoded::bytes(body, Vec::new())
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        let _in_flight = InFlight::enter(self, batch);
        let (step, pause) = self.backend.next_step(batch);
        match &self.clock {
            _ if pause.is_zero() => {}
            Some(clock) => clock.sleep_async(pause).await,
            None => tokio::time::sleep(pause).await,
        }
        if let Some(reason) = self.lost_by_the_ledger(batch) {
            return WriteOutcome::Halt { reason };
        }
        let outcome = self.backend.write(batch, encoded, step);
        if matches!(outcome, WriteOutcome::Done | WriteOutcome::Rejected(_)) {
            let end = self.backend.position(&batch.id.topic, batch.id.partition);
            self.least.lock().unwrap_or_else(PoisonError::into_inner).insert(batch.id.at(), end);
        }
        outcome
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }
}

#[async_trait]
impl ReadBack for FakeSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        self.backend.look()?;
        let is_wanted = |series: &Series| query.name.as_deref().is_none_or(|name| series.name() == name);
        for ((series, start), total) in self.backend.rows() {
            if query.range.contains(start) && is_wanted(&series) {
                visit(Held::Window(WindowTotal { series: Arc::new(series), start, total: total.into() }));
            }
        }
        for (time, foreign) in self.backend.foreign() {
            if query.range.contains(time) {
                visit(Held::Foreign(foreign));
            }
        }
        Ok(())
    }

    async fn ask(&self, question: &Question) -> Result<Answer, SinkError> {
        self.backend.look()?;
        let is_by_minute = matches!(question, Question::SeriesByMinute { .. });
        if is_by_minute && self.window != 0 && NANOS_PER_MINUTE % self.window != 0 {
            return Ok(Answer::NotOffered("the sink's window does not divide a minute"));
        }
        Ok(ask::ask(&self.backend, question))
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        self.backend.look()?;
        let row = |((series, _), _): &((Series, i64), u64)| series.to_string().len() as u64 + 16;
        Ok(Storage::Bytes {
            bytes: self.backend.rows().into_iter().map(|held| row(&held)).sum(),
            what: "rows in memory",
        })
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        self.backend.look()?;
        Ok(BackendVersion::Is(env!("CARGO_PKG_VERSION").to_owned()))
    }
}

#[async_trait]
impl Claims for FakeSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        self.backend.look()?;
        Ok(self.backend.claims())
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.backend.look()?;
        self.backend.add_claim(entry);
        Ok(())
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.backend.look()?;
        self.backend.remove_claim(entry);
        Ok(())
    }

    async fn mark(&self, entry: &str, offset: u64) -> Result<(), SinkError> {
        self.backend.look()?;
        self.backend.set_mark(entry, offset);
        Ok(())
    }

    async fn marks(&self) -> Result<Vec<(String, u64)>, SinkError> {
        self.backend.look()?;
        Ok(self.backend.marks())
    }

    fn marks_every(&self) -> Option<Duration> {
        (!self.keeps_ledger).then_some(MARKS_EVERY)
    }

    fn keeps_tags_apart(&self) -> bool {
        self.backend.keeps_tags_apart()
    }
}

#[cfg(test)]
mod tests;
