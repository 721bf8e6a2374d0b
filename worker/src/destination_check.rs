use std::sync::Arc;

use tallybus_bus::{Observer, StreamId, TopicPartition};
use tallybus_sdk::clock::Clock;
use tallybus_sdk::progress::{GroupProgress, PartitionProgress, ProgressError};
use tallybus_sdk::{LedgerEnd, Sink, SinkError, StartAt, Written};
use thiserror::Error;

use super::claims::{Held, Owner, SinkClaims, conflict_with, named, read_claims};
use super::settings::SinkSettings;
#[cfg(feature = "simulation")]
use super::simulation::Mutant;
use super::writer::{EventKind, Patience};

/// What the consumer group says about a partition at assignment, to be compared with what the destination holds.
///
/// Nothing is sealed, and no batch that was found sealed is written, before the destination agrees with the group:
///
/// - Every offset below [`DestinationCheck::sealed_end`] was sealed by this group and may have been written. A ledger past
///   it names offsets that this group never sealed. New batches would be refused as already written; and once they were
///   sealed, a restarted worker could not distinguish them from batches that were written.
/// - A ledger behind what the group has written names a destination that lost counts: a restored backup, or a table that
///   was emptied; or the group has written to another destination meanwhile. The hole would never be filled.
/// - A destination that holds nothing of a partition which the group has written elsewhere is a new one, or that of another
///   deployment which uses the same group, or a mistyped setting. Only an operator knows.
/// - A mark past what the group has sealed names a bus that was restored from an older backup: the destination holds records
///   that the bus does not have, and new ones would take their place.
/// - A claim of another sink, or of another incarnation of the topic, means that two streams would meet.
/// - A claim of this very partition without a commit of the group means that the bus forgot the group's offsets: the
///   partition would be counted again from its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DestinationCheck {
    pub(crate) at: TopicPartition,
    /// The topic's incarnation.
    pub(crate) stream: StreamId,
    /// One past the last offset that the group sealed; the offset where it begins when nothing is sealed.
    pub(crate) sealed_end: u64,
    /// Whether the group has committed for this partition.
    pub(crate) is_known: bool,
    /// What the group has written, and to which destination, as far as its commit says.
    pub(crate) written: Option<Written>,
    /// Lost offset ranges that the operator accepts.
    pub(crate) accept_gaps: Arc<[String]>,
}

impl DestinationCheck {
    /// Queries the destination, with growing delays, until it agrees with the group; reports why it waits.
    pub(crate) async fn confirm(
        &self,
        sink: &dyn Sink,
        claims: &SinkClaims,
        clock: &dyn Clock,
        seed: u64,
        tell: &(dyn Fn(EventKind) + Sync),
    ) {
        let mut patience = Patience::new(seed);
        loop {
            match self.compare(sink, claims, clock).await {
                Ok(ledger) => return tell(EventKind::DestinationConfirmed { ledger }),
                Err(error) => patience.wait(error, clock, tell).await,
            }
        }
    }

    /// Reads what the destination holds and compares it; returns the ledger's offset, if it keeps one.
    async fn compare(&self, sink: &dyn Sink, claims: &SinkClaims, clock: &dyn Clock) -> Result<Option<u64>, SinkError> {
        let ledger = sink.ledger_end(&self.at.topic, self.at.partition).await?;
        let held = claims.held(sink, clock).await?;
        match self.disagreement(sink, claims.owner(), ledger.as_ref(), held.as_ref()) {
            Some(reason) => Err(SinkError::Halt(reason)),
            None => Ok(ledger.map(|end| end.offset)),
        }
    }

    /// Why nothing is sealed or written, and what to do; `None` when the destination agrees with the group. `ledger` and
    /// `claims`: what it holds, `None` if its kind keeps none.
    fn disagreement(
        &self,
        sink: &dyn Sink,
        owner: &Owner,
        ledger: Option<&LedgerEnd>,
        claims: Option<&Held>,
    ) -> Option<String> {
        // The claims first: they say more exactly what a ledger only hints at.
        if let Some(held) = claims {
            let ours = owner.claim(&self.at, &self.stream);
            if let Some(reason) = conflict_with(&ours, &held.claims, sink) {
                return Some(reason);
            }
            let is_claimed = ours.is_among(&held.claims);
            let destination = named(sink);
            let is_known = self.is_known;
            #[cfg(feature = "simulation")]
            let is_known = is_known || Mutant::takes_forgotten_groups();
            if is_claimed && !is_known {
                return Some(self.forgotten(&destination, &owner.group, ledger, held.mark_of(&ours)));
            }
            if ledger.is_none() {
                let mark = held.mark_of(&ours);
                let moved = self.moved(&destination, &owner.group, is_claimed);
                return moved
                    .or_else(|| self.restored(&destination, mark))
                    .or_else(|| self.past_the_bus(&destination, mark));
            }
        }
        let end = ledger?;
        self.ahead(end).or_else(|| self.behind(sink, &owner.group, end))
    }

    /// Whether the ledger is past the group.
    fn ahead(&self, end: &LedgerEnd) -> Option<String> {
        #[cfg(feature = "simulation")]
        if Mutant::LedgerAheadTaken.is_on() {
            return None;
        }
        let Self { at, sealed_end, .. } = self;
        let LedgerEnd { destination, offset } = end;
        (offset > sealed_end).then(|| {
            format!(
                "{destination} is past this group: it holds {at} up to offset {offset}, but the group has sealed it up to \
                 offset {sealed_end} only. The topic was recreated, the group's offsets were reset, or another bus or sink \
                 writes to this destination. Nothing of {at} was sealed or written; its records are safe on the bus. Give \
                 the sink a new destination to count from offset {sealed_end}; or, if the records below offset {offset} \
                 are in the destination already, run `tallybus group reset` with --partition {at} --to {offset}"
            )
        })
    }

    /// Whether the ledger is behind what the group has written.
    fn behind(&self, sink: &dyn Sink, group: &str, end: &LedgerEnd) -> Option<String> {
        #[cfg(feature = "simulation")]
        if Mutant::LedgerBehindTaken.is_on() {
            return None;
        }
        let (at, LedgerEnd { destination, offset }) = (&self.at, end);
        let written = self.written.as_ref().filter(|written| written.end > *offset)?;
        let is_same = sink.destination().is_some_and(|name| Written::destination_id(&name) == written.to);
        let gap = format!("{at}/{offset}-{}", written.end);
        if self.accept_gaps.contains(&gap) {
            return None;
        }
        if *offset == 0 && !is_same {
            return Some(self.new_destination(destination, group, written.end));
        }
        let what = match is_same {
            true => "was restored from an older backup or emptied",
            false => {
                "is not the one that the group wrote to last: another deployment uses this group, or the sink was \
                      given an earlier destination again"
            }
        };
        Some(format!(
            "{destination} holds {at} up to offset {offset} only, but the group has written it up to offset {}: the \
             destination {what}. Nothing more of {at} was sealed or written; its records are safe on the bus. To write \
             again what the destination lacks, stop the sink's workers and run `tallybus group reset` with --partition \
             {at} --to {offset}; to continue without it, set accept_gaps = [\"{gap}\"]",
            written.end
        ))
    }

    /// The destination keeps no ledger, but its claims show whether the group wrote to it.
    fn moved(&self, destination: &str, group: &str, is_claimed: bool) -> Option<String> {
        let (at, written) = (&self.at, self.written.as_ref()?);
        let is_same = Written::destination_id(destination) == written.to;
        let what = match (is_same, is_claimed) {
            (true, true) => return None,
            (false, false) if self.accept_gaps.contains(&format!("{at}/0-{}", written.end)) => return None,
            (false, false) => return Some(self.new_destination(destination, group, written.end)),
            (true, false) => format!("{destination} has lost the claim on {at}: it was emptied, or recreated"),
            (false, true) => format!(
                "{destination} holds {at}, but the group has written it to another destination since: another deployment \
                 uses this group, the destination has another address now, or the sink was given an earlier one again"
            ),
        };
        Some(format!(
            "{what}. The group has written {at} up to offset {end}. Nothing more of {at} was sealed or written; its records \
             are safe on the bus. Stop the sink's workers and run `tallybus group reset` with --partition {at} and --to the \
             offset from which this destination lacks counts: {end} if it lacks none",
            end = written.end
        ))
    }

    /// The destination holds nothing of the partition, which the group has written to another one.
    fn new_destination(&self, destination: &str, group: &str, end: u64) -> String {
        let at = &self.at;
        format!(
            "{destination} holds nothing of {at}, but group {group} has written {at} up to offset {end} to another \
             destination: the sink was given a new one, the setting is mistyped, or another deployment uses this group. \
             Nothing of {at} was sealed or written here; its records are safe on the bus. If it is the right destination, \
             stop the sink's workers and run `tallybus group reset` with --to oldest to write there what the bus still has, or \
             with --partition {at} --to {end} to begin at offset {end} (or set accept_gaps = [\"{at}/0-{end}\"])"
        )
    }

    /// The destination keeps no ledger, but its mark is past what the group has sealed. A group that an operator has set back
    /// knows of no mark, until a worker has passed the old one.
    fn past_the_bus(&self, destination: &str, mark: u64) -> Option<String> {
        let (at, sealed_end, written) = (&self.at, self.sealed_end, self.written.as_ref()?);
        let is_same = Written::destination_id(destination) == written.to;
        (is_same && written.marked.is_some() && mark > sealed_end).then(|| {
            format!(
                "{destination} is past this group: it is marked as written up to offset {mark} of {at}, but the group has \
                 sealed it up to offset {sealed_end} only: the bus was restored from an older backup, or another bus writes to \
                 this destination. New records would take the place of counts that the destination holds. Nothing of {at} \
                 was sealed or written; its records are safe on the bus. Restore the newer copy of the bus if there is one; \
                 otherwise give the sink a new destination"
            )
        })
    }

    /// The destination keeps no ledger, but its mark is older than the last one of the group.
    fn restored(&self, destination: &str, mark: u64) -> Option<String> {
        let (at, written) = (&self.at, self.written.as_ref()?);
        let is_same = Written::destination_id(destination) == written.to;
        let marked = written.marked.filter(|marked| is_same && *marked > mark)?;
        Some(format!(
            "{destination} was restored from an older backup: it is marked as written up to offset {mark} of {at}, but it \
             was marked up to offset {marked} before, and the group has written up to offset {end}. Nothing more of {at} was \
             sealed or written; its records are safe on the bus. Stop the sink's workers and run `tallybus group reset` with \
             --partition {at} and --to {mark} to write again what may be missing (counts from offset {mark} on that are in \
             the backup count twice, unless they are deleted first), or --to {end} to continue without it",
            end = written.end
        ))
    }

    /// The group has no offset of a partition that it wrote. `mark`: the destination's mark, 0 if it has none.
    fn forgotten(&self, destination: &str, group: &str, ledger: Option<&LedgerEnd>, mark: u64) -> String {
        let at = &self.at;
        let next = match ledger {
            Some(LedgerEnd { offset, .. }) => format!(
                "--to {offset}: the ledger of {destination} holds everything before that offset, and nothing from there on"
            ),
            None if mark > 0 => format!(
                "--to the offset where the group was. {destination} is marked as written up to offset {mark}; later counts \
                 may be there too"
            ),
            None => "--to the offset where the group was".to_owned(),
        };
        format!(
            "{destination} holds counts of {at} by group {group}, but the bus has no offset of the group for it: the group \
             was deleted, or the bus forgot it (Kafka forgets a group that was idle for offsets.retention.minutes). From \
             the start it would be counted twice. Nothing of {at} was sealed or written; its records are safe on the bus. \
             Stop the sink's workers and run `tallybus group restore`. Only where it finds no note of the group's workers: run \
             `tallybus group reset` with --partition {at} and {next}"
        )
    }
}

/// Why it is unknown whether a destination agrees with a group.
#[derive(Debug, Error)]
pub enum DestinationError {
    /// The bus did not respond, or the group's commits cannot be parsed.
    #[error(transparent)]
    Bus(#[from] ProgressError),
    /// The destination did not respond, or its ledger or claims cannot be read.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// For each partition in which the destination contradicts the group: why its worker halts, and what to do. Reads only.
///
/// # Errors
/// The bus or the destination did not respond.
pub async fn disagreements(
    observer: &dyn Observer,
    settings: &SinkSettings,
    sink: &dyn Sink,
) -> Result<Vec<String>, DestinationError> {
    let options = settings.worker_options();
    let topics: Vec<&str> = options.topics.iter().map(String::as_str).collect();
    // The destination is read before the group: a batch that a running worker seals and writes meanwhile is not a fault.
    let claims = read_claims(sink).await?;
    let mut found = Vec::new();
    for (topic, partitions) in topics.iter().zip(observer.partitions(&topics).map_err(ProgressError::Bus)?) {
        let Some(partitions) = partitions else { continue };
        let stream = observer.stream_id_of(topic).map_err(ProgressError::Bus)?;
        for partition in 0..partitions {
            let at = TopicPartition::new(topic, partition);
            let ledger = sink.ledger_end(topic, partition).await?;
            found.push((at, stream.clone(), ledger));
        }
    }
    let progress = GroupProgress::read(observer, &options.group, &topics)?;
    let (owner, accept_gaps) = (options.owner(sink), Arc::from(options.accept_gaps.clone()));
    let mut reasons = Vec::new();
    for (at, stream, ledger) in found {
        let Some(partition) = progress.partitions.iter().find(|partition| partition.at == at) else { continue };
        let check = DestinationCheck {
            sealed_end: sealed_end(partition, options.start_at),
            is_known: partition.settled.is_some(),
            written: partition.seal.as_ref().and_then(|seal| seal.written.clone()),
            accept_gaps: Arc::clone(&accept_gaps),
            at,
            stream,
        };
        reasons.extend(check.disagreement(sink, &owner, ledger.as_ref(), claims.as_ref()));
    }
    Ok(reasons)
}

fn sealed_end(partition: &PartitionProgress, start_at: StartAt) -> u64 {
    let start = match start_at {
        StartAt::Oldest => partition.range.first,
        StartAt::Newest => partition.range.end,
    };
    partition.sealed_end().unwrap_or(start).max(partition.range.first)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, SystemTime};

    use tallybus_sdk::clock::ManualClock;
    use tallybus_sdk::testkit::{FakeBackend, FakeSink};

    use super::*;

    /// The result of `confirm`, with the time at which it was reported.
    type Told = Arc<Mutex<Vec<(Duration, EventKind)>>>;

    fn check(sealed_end: u64) -> DestinationCheck {
        DestinationCheck {
            at: TopicPartition::new("t", 0),
            stream: "sim:1".parse().unwrap(),
            sealed_end,
            is_known: true,
            written: None,
            accept_gaps: Arc::from([]),
        }
    }

    fn owner(group: &str) -> Owner {
        Owner { group: group.to_owned(), tags: BTreeMap::new(), layout: None }
    }

    async fn take(group: &str, sink: &FakeSink, at: &TopicPartition, stream: &StreamId) -> Result<(), SinkError> {
        SinkClaims::new(owner(group)).take(sink, &ManualClock::at(SystemTime::UNIX_EPOCH), at, stream).await
    }

    #[tokio::test]
    async fn the_ledger_is_asked_again_ever_less_often_until_it_is_not_ahead() {
        let (backend, clock, told) = (FakeBackend::new(), ManualClock::at(SystemTime::UNIX_EPOCH), Told::default());
        backend.set_ledger_end("t", 0, 10);
        let confirming = tokio::spawn({
            let (backend, clock, told) = (Arc::clone(&backend), clock.clone(), Arc::clone(&told));
            async move {
                let tell = &|kind| told.lock().unwrap().push((clock.passed(), kind));
                let claims = SinkClaims::new(owner("g"));
                check(7).confirm(&FakeSink::new(backend), &claims, &clock, 42, tell).await;
            }
        });
        let steps = Duration::from_millis(500);
        for _ in 0..40 {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            clock.advance(steps);
        }
        let halts: Vec<Duration> = told.lock().unwrap().iter().map(|(at, _)| *at).collect();
        // At once, then after 2, 4 and 8 seconds plus up to a quarter.
        assert_eq!(halts.len(), 4, "{halts:?}");
        for (pair, wait) in halts.windows(2).zip([2, 4, 8]) {
            let waited = pair[1] - pair[0];
            let (least, most) = (Duration::from_secs(wait), Duration::from_secs(wait) * 5 / 4 + steps);
            assert!(least <= waited && waited <= most, "{halts:?}");
        }
        backend.set_ledger_end("t", 0, 7);
        clock.advance(Duration::from_secs(60));
        confirming.await.unwrap();
        assert!(matches!(told.lock().unwrap().last(), Some((_, EventKind::DestinationConfirmed { ledger: Some(7) }))));
    }

    /// In tables: replaced by the name of the backend.
    const HERE: &str = "here";

    fn here(end: u64) -> Option<Written> {
        Some(Written { to: HERE.to_owned(), end, marked: None })
    }

    fn elsewhere(end: u64) -> Option<Written> {
        Some(Written { to: Written::destination_id("elsewhere"), end, marked: None })
    }

    async fn disagreement(check: &DestinationCheck, sink: &FakeSink, group: &str) -> Option<String> {
        let ledger = sink.ledger_end(&check.at.topic, check.at.partition).await.unwrap();
        let claims = read_claims(sink).await.unwrap();
        let mut check = check.clone();
        if let Some(written) = check.written.as_mut().filter(|written| written.to == HERE) {
            written.to = Written::destination_id(&sink.destination().unwrap());
        }
        check.disagreement(sink, &owner(group), ledger.as_ref(), claims.as_ref())
    }

    #[tokio::test]
    async fn a_ledger_agrees_between_what_was_written_and_what_was_sealed() {
        let backend = FakeBackend::new();
        let sink = FakeSink::new(Arc::clone(&backend));
        for (ledger, written, sealed_end, expected) in [
            (0, None, 0, None),
            (0, None, 30, None),
            (10, None, 30, None),
            (30, here(30), 30, None),
            (31, here(30), 31, None),
            (29, here(30), 30, Some("was restored from an older backup or emptied")),
            (0, here(30), 30, Some("was restored from an older backup or emptied")),
            (
                0,
                elsewhere(30),
                30,
                Some("holds nothing of t/0, but group g has written t/0 up to offset 30 to another"),
            ),
            (10, elsewhere(30), 30, Some("is not the one that the group wrote to last")),
            (30, elsewhere(30), 30, None),
            (31, here(30), 30, Some("is past this group")),
            (31, None, 30, Some("is past this group")),
        ] {
            backend.set_ledger_end("t", 0, ledger);
            let check = DestinationCheck { written: written.clone(), ..check(sealed_end) };
            let found = disagreement(&check, &sink, "g").await;
            match expected {
                None => assert_eq!(found, None, "{ledger} {written:?}"),
                Some(words) => assert!(found.as_ref().is_some_and(|text| text.contains(words)), "{ledger}: {found:?}"),
            }
        }
        backend.set_ledger_end("t", 0, 10);
        let hole = DestinationCheck { written: here(30), ..check(30) };
        let reason = disagreement(&hole, &sink, "g").await.unwrap();
        assert!(
            reason.contains("holds t/0 up to offset 10 only, but the group has written it up to offset 30"),
            "{reason}"
        );
        assert!(
            reason.contains("--partition t/0 --to 10") && reason.contains("accept_gaps = [\"t/0/10-30\"]"),
            "{reason}"
        );
        let accepted = DestinationCheck { accept_gaps: Arc::from(["t/0/10-30".to_owned()]), ..hole };
        assert_eq!(disagreement(&accepted, &sink, "g").await, None);
    }

    #[tokio::test]
    async fn a_claim_of_another_sink_or_topic_and_a_forgotten_group_disagree() {
        let backend = FakeBackend::new();
        let sink = FakeSink::new(Arc::clone(&backend)).without_ledger();
        let (at, stream) = (TopicPartition::new("t", 0), check(0).stream);
        assert_eq!(disagreement(&check(0), &sink, "g").await, None);
        take("g", &sink, &at, &stream).await.unwrap();
        assert_eq!(disagreement(&check(0), &sink, "g").await, None);
        let other = disagreement(&check(0), &sink, "h").await.unwrap();
        assert!(other.contains("claimed by another sink: group g writes t/0"), "{other}");
        let recreated = DestinationCheck { stream: "sim:2".parse().unwrap(), ..check(0) };
        let reason = disagreement(&recreated, &sink, "g").await.unwrap();
        assert!(reason.contains("it was sim:1 and is sim:2 now"), "{reason}");
        let unknown = DestinationCheck { is_known: false, ..check(0) };
        let reason = disagreement(&unknown, &sink, "g").await.unwrap();
        assert!(reason.contains("no offset of the group for it: the group was deleted"), "{reason}");
        assert!(reason.ends_with("--partition t/0 and --to the offset where the group was"), "{reason}");
        let entry = owner("g").claim(&at, &stream).to_entry().unwrap();
        sink.claims().unwrap().mark(&entry, 20).await.unwrap();
        let reason = disagreement(&unknown, &sink, "g").await.unwrap();
        assert!(reason.contains("is marked as written up to offset 20; later counts may be there too"), "{reason}");
        let next = DestinationCheck { at: TopicPartition::new("t", 1), ..unknown };
        assert_eq!(disagreement(&next, &sink, "g").await, None, "a partition that was never written");
    }

    #[tokio::test]
    async fn a_forgotten_group_is_told_the_offset_of_the_ledger() {
        let backend = FakeBackend::new();
        let sink = FakeSink::new(Arc::clone(&backend));
        let (at, stream) = (TopicPartition::new("t", 0), check(0).stream);
        take("g", &sink, &at, &stream).await.unwrap();
        backend.set_ledger_end("t", 0, 400);
        let reason = disagreement(&DestinationCheck { is_known: false, ..check(0) }, &sink, "g").await.unwrap();
        assert!(reason.contains("--partition t/0 and --to 400: the ledger of "), "{reason}");
    }

    #[tokio::test]
    async fn without_a_ledger_the_claim_shows_whether_the_destination_is_the_one_that_was_written() {
        let sink = |is_claimed: bool| async move {
            let sink = FakeSink::new(FakeBackend::new()).without_ledger();
            if is_claimed {
                take("g", &sink, &TopicPartition::new("t", 0), &check(0).stream).await.unwrap();
            }
            sink
        };
        for (is_claimed, written, expected) in [
            (true, here(30), None),
            (true, None, None),
            (false, None, None),
            (
                false,
                elsewhere(30),
                Some("holds nothing of t/0, but group g has written t/0 up to offset 30 to another"),
            ),
            (false, here(30), Some("has lost the claim on t/0")),
            (true, elsewhere(30), Some("the group has written it to another destination since")),
        ] {
            let check = DestinationCheck { written: written.clone(), ..check(30) };
            let found = disagreement(&check, &sink(is_claimed).await, "g").await;
            match expected {
                None => assert_eq!(found, None, "{is_claimed} {written:?}"),
                Some(words) => assert!(found.as_ref().is_some_and(|text| text.contains(words)), "{found:?}"),
            }
        }
    }

    #[tokio::test]
    async fn without_a_ledger_an_older_mark_shows_a_restored_backup() {
        let sink = FakeSink::new(FakeBackend::new()).without_ledger();
        let (at, stream) = (TopicPartition::new("t", 0), check(0).stream);
        take("g", &sink, &at, &stream).await.unwrap();
        let entry = owner("g").claim(&at, &stream).to_entry().unwrap();
        sink.claims().unwrap().mark(&entry, 20).await.unwrap();
        let marked = |to: Option<Written>, mark: u64| to.map(|to| Written { marked: Some(mark), ..to });
        for (written, expected) in [
            (marked(here(30), 20), false),
            (marked(here(30), 19), false),
            (here(30), false),
            (marked(here(30), 21), true),
        ] {
            let check = DestinationCheck { written: written.clone(), ..check(30) };
            let found = disagreement(&check, &sink, "g").await;
            assert_eq!(found.is_some(), expected, "{written:?}: {found:?}");
        }
        // The group is behind the mark: the bus is older than the destination, unless an operator has set the group back.
        for (sealed_end, written, expected) in [
            (19, marked(here(10), 10), true),
            (20, marked(here(10), 10), false),
            (19, here(10), false),
            (19, None, false),
        ] {
            let check = DestinationCheck { written: written.clone(), ..check(sealed_end) };
            let found = disagreement(&check, &sink, "g").await;
            assert_eq!(found.is_some(), expected, "{written:?}: {found:?}");
            assert!(found.is_none_or(|reason| reason.contains("the bus was restored from an older backup")));
        }
        let check = DestinationCheck { written: marked(here(30), 25), ..check(30) };
        let reason = disagreement(&check, &sink, "g").await.unwrap();
        for words in ["marked as written up to offset 20 of t/0", "up to offset 25 before", "--to 20", "or --to 30"] {
            assert!(reason.contains(words), "{reason}");
        }
        // A claim of the same sink with other tags has the same mark.
        let mut tagged = owner("g");
        tagged.tags.insert("env".to_owned(), "prod".to_owned());
        let held = read_claims(&sink).await.unwrap().unwrap();
        assert_eq!(held.mark_of(&tagged.claim(&at, &stream)), 20);
    }
}
