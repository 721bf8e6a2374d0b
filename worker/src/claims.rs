//! The claims of one sink on its destination: read before anything is sealed, added before a partition is first written.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tallybus_bus::{StreamId, TopicPartition};
use tallybus_sdk::clock::Clock;
use tallybus_sdk::{Claim, Claims, Sink, SinkError};
use tokio::sync::Mutex;

/// The partitions of a sink are assigned, and first written, at about the same time: what was read for one this recently serves
/// the others too.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// When a mark that failed is tried again.
const AFTER_A_FAILURE: Duration = Duration::from_secs(60);

/// Who a worker's sink is, in claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The consumer group of the sink; also for the worker that writes its replayed dead letters.
    pub(crate) group: String,
    /// The tags that the sink adds to every series.
    pub(crate) tags: BTreeMap<String, String>,
    /// How the sink places points, where that must not change.
    pub(crate) layout: Option<String>,
}

impl Owner {
    pub(crate) fn claim(&self, at: &TopicPartition, stream: &StreamId) -> Claim {
        Claim::new(&self.group, at, stream, &self.tags).with_layout(self.layout.clone())
    }
}

/// The claims that a destination holds, and how far it was written when it was last marked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) claims: Vec<Claim>,
    pub(crate) marks: Vec<(Claim, u64)>,
}

impl Held {
    /// The last mark of a claim; 0 if there is none.
    pub(crate) fn mark_of(&self, claim: &Claim) -> u64 {
        let marks = self.marks.iter().filter(|(marked, _)| marked.is_same(claim));
        marks.map(|(_, offset)| *offset).max().unwrap_or(0)
    }
}

/// What a worker knows of the claims in its sink's destination; shared by the writers of its partitions.
pub(crate) struct SinkClaims {
    owner: Owner,
    known: Mutex<Known>,
    /// Whether it was reported that the destination takes no marks.
    is_unmarked: AtomicBool,
}

/// The claims as they were last read, and what was added since.
#[derive(Default)]
struct Known {
    held: Held,
    read_at: Option<Instant>,
}

impl SinkClaims {
    pub(crate) fn new(owner: Owner) -> Self {
        Self { owner, known: Mutex::default(), is_unmarked: AtomicBool::new(false) }
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Every claim and mark in the destination; `None` if its kind holds none.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) async fn held(&self, sink: &dyn Sink, clock: &dyn Clock) -> Result<Option<Held>, SinkError> {
        if sink.claims().is_none() {
            return Ok(None);
        }
        let mut known = self.known.lock().await;
        known.read_unless_recent(sink, clock).await?;
        Ok(Some(known.held.clone()))
    }

    /// Adds the claim on a partition, unless the destination has it. The claims are read before that, and again after the first
    /// claim of this sink: of two sinks that begin at the same moment, at least one sees the other and gives way. Once the
    /// destination has a claim of this sink, no other one begins there, and further claims need not be read back.
    ///
    /// # Errors
    /// [`SinkError::Halt`] when the destination is claimed by another sink, or holds another incarnation of the topic; a
    /// claim that was added for it is removed. Nothing may be written.
    pub(crate) async fn take(
        &self,
        sink: &dyn Sink,
        clock: &dyn Clock,
        at: &TopicPartition,
        stream: &StreamId,
    ) -> Result<(), SinkError> {
        let Some(claims) = sink.claims() else { return Ok(()) };
        let ours = self.owner.claim(at, stream);
        let entry = ours.to_entry()?;
        {
            let mut known = self.known.lock().await;
            known.read_unless_recent(sink, clock).await?;
            known.excludes(&ours, sink)?;
            if ours.is_among(&known.held.claims) {
                return Ok(());
            }
            if known.held.claims.iter().all(|claim| claim.owner != ours.owner) {
                claims.add(&entry).await?;
                known.read(sink, clock).await?;
                let excluded = known.excludes(&ours, sink);
                if excluded.is_err() {
                    claims.remove(&entry).await?;
                }
                return excluded;
            }
        }
        claims.add(&entry).await?;
        self.known.lock().await.held.claims.push(ours);
        Ok(())
    }
}

impl SinkClaims {
    fn marked(&self, ours: &Claim) {
        if self.is_unmarked.swap(false, Ordering::Relaxed) {
            tracing::info!(claim = %ours, "how far partitions are written is marked in the destination again");
        }
    }

    /// Whether the destination refuses marks from now on. An unavailable one is reported by the batches that it does not take.
    fn is_new_refusal(&self, error: &SinkError) -> bool {
        matches!(error, SinkError::Halt(_)) && !self.is_unmarked.swap(true, Ordering::Relaxed)
    }

    fn not_marked(&self, ours: &Claim, error: &SinkError) {
        if self.is_new_refusal(error) {
            tracing::warn!(
                claim = %ours,
                %error,
                "how far partitions are written cannot be marked in the destination; counts are written, but a backup that is \
                 restored there would not be noticed; tried again every minute"
            );
        } else {
            tracing::debug!(claim = %ours, %error, "how far it is written could not be marked in the destination");
        }
    }
}

/// When a partition is marked in a destination without a ledger.
pub(crate) struct Marking {
    every: Option<Duration>,
    due: Option<Instant>,
    /// The last mark that was made.
    last: Option<u64>,
}

impl Marking {
    pub(crate) fn of(sink: &dyn Sink) -> Self {
        Self { every: sink.claims().and_then(Claims::marks_every), due: None, last: None }
    }

    /// Marks that everything before `end` is written, if that is due. Returns the mark that was made; one that could not be
    /// made is due again with a later batch.
    ///
    /// # Errors
    /// [`SinkError::Halt`] when the destination does not hold the last mark any more: it was restored from a backup while it
    /// was written. It is not marked again then, so that the next worker halts too.
    pub(crate) async fn mark(
        &mut self,
        sink: &dyn Sink,
        claims: &SinkClaims,
        clock: &dyn Clock,
        ours: &Claim,
        end: u64,
    ) -> Result<Option<u64>, SinkError> {
        let Some(every) = self.every else { return Ok(None) };
        if self.due.is_some_and(|due| clock.now() < due) {
            return Ok(None);
        }
        match self.mark_now(sink, claims, clock, ours, end).await {
            Ok(is_marked) => {
                self.due = Some(clock.now() + every);
                if is_marked {
                    self.last = Some(end);
                    claims.marked(ours);
                }
                Ok(is_marked.then_some(end))
            }
            Err(error @ SinkError::Halt(_)) if self.last.is_some() => Err(error),
            Err(error) => {
                claims.not_marked(ours, &error);
                self.due = Some(clock.now() + every.min(AFTER_A_FAILURE));
                Ok(None)
            }
        }
    }

    /// Returns whether it was marked: not where the mark is further already. Then another worker owns the partition, and this
    /// one was frozen meanwhile; or an operator has set the group back.
    async fn mark_now(
        &self,
        sink: &dyn Sink,
        claims: &SinkClaims,
        clock: &dyn Clock,
        ours: &Claim,
        end: u64,
    ) -> Result<bool, SinkError> {
        let Some(marks) = sink.claims() else { return Ok(false) };
        let held = claims.held(sink, clock).await?.unwrap_or_default().mark_of(ours);
        if held >= end {
            return Ok(false);
        }
        if let Some(last) = self.last
            && held < last
        {
            return Err(SinkError::Halt(format!(
                "{} was restored from an older backup, or lost its marks, while it was written: it is marked as written \
                 up to offset {held} of {}/{}, but was marked up to offset {last} before. Nothing more of it is written; \
                 its records are safe on the bus. Stop the sink's workers; the next one to start says what to do",
                named(sink),
                ours.topic,
                ours.partition
            )));
        }
        marks.mark(&ours.to_entry()?, end).await?;
        Ok(true)
    }
}

impl Known {
    async fn read_unless_recent(&mut self, sink: &dyn Sink, clock: &dyn Clock) -> Result<(), SinkError> {
        let is_recent = self.read_at.is_some_and(|at| clock.now().saturating_duration_since(at) < READ_AGAIN);
        if is_recent { Ok(()) } else { self.read(sink, clock).await }
    }

    async fn read(&mut self, sink: &dyn Sink, clock: &dyn Clock) -> Result<(), SinkError> {
        // From before the request: what is added during it may be missing.
        let begun = clock.now();
        self.read_at = None;
        self.held = read_claims(sink).await?.unwrap_or_default();
        self.read_at = Some(begun);
        Ok(())
    }

    /// # Errors
    /// Why this claim must not be made.
    fn excludes(&self, ours: &Claim, sink: &dyn Sink) -> Result<(), SinkError> {
        conflict_with(ours, &self.held.claims, sink).map_or(Ok(()), |reason| Err(SinkError::Halt(reason)))
    }
}

/// Reads the claims and marks in a destination; `None` if its kind holds none.
///
/// # Errors
/// They cannot be read.
pub(crate) async fn read_claims(sink: &dyn Sink) -> Result<Option<Held>, SinkError> {
    let Some(claims) = sink.claims() else { return Ok(None) };
    let held = claims.held().await?;
    let marks: Result<Vec<(Claim, u64)>, SinkError> =
        claims.marks().await?.iter().map(|(entry, offset)| Ok((Claim::parse(entry)?, *offset))).collect();
    Ok(Some(Held { claims: held, marks: marks? }))
}

/// Why a sink must not write to its destination, which holds these claims, and what to do.
pub(crate) fn conflict_with(ours: &Claim, held: &[Claim], sink: &dyn Sink) -> Option<String> {
    #[cfg(feature = "simulation")]
    if crate::simulation::Mutant::ClaimsNotCompared.is_on() {
        return None;
    }
    let tags_apart = sink.claims()?.keeps_tags_apart();
    let conflict = ours.conflict(held, tags_apart)?;
    Some(conflict.describe(ours, &named(sink), tags_apart))
}

/// The destination, for messages.
pub(crate) fn named(sink: &dyn Sink) -> Cow<'static, str> {
    sink.destination().map_or(Cow::Borrowed("the destination"), Cow::Owned)
}

#[cfg(test)]
mod tests;
