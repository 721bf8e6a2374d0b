//! The sinks of a life, and the backends that they write to.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tallybus_sdk::clock::ManualClock;
use tallybus_sdk::testkit::{Backup, FakeBackend, FakeSink, Step};
use tallybus_sdk::{Batch, BatchLimits, Rejection, Rng, Shape, StartAt, WriteOutcome};
use tallybus_worker::WorkerOptions;
use tallybus_worker::simulation::Mutant;

/// How a backend copes with a batch that is written twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guarantee {
    /// It keeps a ledger.
    Ledger,
    /// It keeps no ledger, and recognises each batch by its key.
    ByKey,
    /// It recognises each batch by its key, and holds no claims: a server behind an URL.
    Unclaimed,
    /// It counts the batch twice.
    AtLeastOnce,
}

pub(crate) struct Backend {
    pub(crate) fake: Arc<FakeBackend>,
    pub(crate) guarantee: Guarantee,
    pub(crate) backup: Option<Backup>,
    pub(crate) away_until: Option<u32>,
    pub(crate) locked_until: Option<u32>,
    pub(crate) flaky_until: Option<u32>,
    /// The events that it refused although it takes others like them.
    refused_once: Arc<Mutex<BTreeSet<String>>>,
}

/// The topic of the workers' notes.
pub(crate) const NOTES: &str = "tallybus.progress";

/// Begins the name of every event that backends refuse.
pub(crate) const REFUSED: &str = "refused";

impl Backend {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let fake = FakeBackend::new();
        let guarantee = match rng.below(8) {
            0..=2 => Guarantee::Ledger,
            3 | 4 => Guarantee::ByKey,
            5 | 6 => Guarantee::Unclaimed,
            _ => Guarantee::AtLeastOnce,
        };
        if guarantee == Guarantee::AtLeastOnce {
            fake.forget_batches();
        }
        fake.demand_claims(guarantee != Guarantee::Unclaimed);
        fake.refuse(|series| series.name().starts_with(REFUSED));
        let backend = Self {
            fake,
            guarantee,
            backup: None,
            away_until: None,
            locked_until: None,
            flaky_until: None,
            refused_once: Arc::default(),
        };
        backend.set_flaky(false, rng);
        backend
    }

    /// Asks for the halves of some batches, always the same ones. A flaky one loses and delays writes and answers too.
    pub(crate) fn set_flaky(&self, is_flaky: bool, rng: &mut Rng) {
        let (mut rng, guarantee) = (Rng::new(rng.number()), self.guarantee);
        let refused_once = Arc::clone(&self.refused_once);
        let pause = if is_flaky { rng.below(400) } else { rng.below(20) };
        self.fake.set_pause(Duration::from_millis(pause));
        self.fake.decide(move |batch| {
            if batch.part.is_empty() && is_large(batch) {
                return Some(Step::WriteOutcome(WriteOutcome::Split { reason: "it is too large".to_owned() }));
            }
            let retry = || WriteOutcome::Retry { after: None, reason: "it is overloaded".to_owned() };
            match rng.below(8) {
                _ if !is_flaky => None,
                0 => Some(Step::TakeAndLoseTheAnswer),
                1 => Some(Step::WriteOutcome(retry())),
                // What such a backend stores late, it stores twice.
                2 if guarantee != Guarantee::AtLeastOnce => Some(Step::TakeLate),
                3 => {
                    let refused = batch.points.first().map(|point| batch.series.get(point.series).to_series());
                    let mut names = refused_once.lock().unwrap_or_else(PoisonError::into_inner);
                    names.extend(refused.map(|series| series.name().to_owned()));
                    Some(Step::WriteOutcome(WriteOutcome::Rejected(refused_and_first(batch))))
                }
                _ => None,
            }
        });
    }

    /// Whether it once refused this event, although it takes others like it.
    pub(crate) fn has_refused(&self, name: &str) -> bool {
        self.refused_once.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    pub(crate) fn connect(&self, time: &ManualClock) -> FakeSink {
        let sink = FakeSink::new(Arc::clone(&self.fake)).with_clock(Arc::new(time.clone()));
        match self.guarantee {
            Guarantee::Ledger if Mutant::LedgerLossNotNoticed.is_on() => sink.without_noticing_loss(),
            Guarantee::Ledger => sink,
            Guarantee::ByKey | Guarantee::AtLeastOnce => sink.without_ledger(),
            Guarantee::Unclaimed => sink.without_claims(),
        }
    }
}

/// The points that are refused always, and the first one.
fn refused_and_first(batch: &Batch) -> Vec<Rejection> {
    let is_refused = |point: &usize| {
        let series = batch.series.get(batch.points[*point].series).to_series();
        *point == 0 || series.name().starts_with(REFUSED)
    };
    let refused = (0..batch.points.len()).filter(is_refused);
    refused.map(|point| Rejection { point, reason: "it does not like this point today".to_owned() }).collect()
}

/// Whether a batch is too large for its backend: the same for every worker, and for ever.
fn is_large(batch: &Batch) -> bool {
    (batch.id.first ^ batch.id.end).is_multiple_of(7) && batch.points.len() > 2
}

fn limits(rng: &mut Rng) -> BatchLimits {
    let max_events = 2 + usize::try_from(rng.below(10)).unwrap_or(0);
    BatchLimits { max_events, max_bytes: 1 << 20, max_delay: Duration::from_millis(20 + rng.below(500)) }
}

pub(crate) struct SinkSpec {
    pub(crate) name: String,
    pub(crate) topics: Vec<String>,
    /// Which backend.
    pub(crate) backend: usize,
    /// The window for workers that start now, in nanoseconds.
    pub(crate) window: i64,
    pub(crate) limits: BatchLimits,
    /// How many workers it has at first.
    pub(crate) workers: u64,
}

impl SinkSpec {
    pub(crate) fn new(number: usize, backend: usize, topics: &[String], rng: &mut Rng) -> Self {
        Self {
            name: format!("sink{number}"),
            topics: topics.to_vec(),
            backend,
            window: 1_000_000_000,
            limits: limits(rng),
            workers: 1 + rng.below(3),
        }
    }

    /// Other limits of batches, for workers that start from now on.
    pub(crate) fn change_limits(&mut self, rng: &mut Rng) {
        self.limits = limits(rng);
    }

    pub(crate) fn group(&self) -> String {
        format!("tallybus.{}", self.name)
    }

    pub(crate) fn dead_letter_topic(&self) -> String {
        format!("tallybus.dead.{}", self.name)
    }

    pub(crate) fn options(&self) -> WorkerOptions {
        WorkerOptions {
            sink: self.name.clone(),
            group: self.group(),
            topics: self.topics.clone(),
            dead_letter_topic: self.dead_letter_topic(),
            limits: self.limits,
            shape: Shape { window: self.window, ..Shape::everything() },
            start_at: StartAt::Oldest,
            accept_gaps: Vec::new(),
            drain: Duration::from_secs(2),
            until_caught_up: false,
            progress_topic: NOTES.to_owned(),
            replays: None,
        }
    }
}
