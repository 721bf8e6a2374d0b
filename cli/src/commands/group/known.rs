//! How far a partition is known to be counted in the sink's destination, whatever offset the group holds.

use tallybus_sdk::{SealMetadata, Written};
use tallybus_worker::Holding;

use super::partition::{Found, Held};

/// How far a partition is known to be counted in the sink's destination.
///
/// It never follows from an offset that another program has committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Every message before it is counted, or was passed over on purpose; `None` where that is unknown.
    pub(super) complete_to: Option<u64>,
    /// No message from there on is counted; `None` where that is unknown.
    pub(super) counted_to: Option<u64>,
    /// Who says so.
    pub(super) source: Source,
    /// Whether the destination keeps a ledger, which lets no message be counted twice.
    pub(super) has_ledger: bool,
    /// The last mark that the destination holds.
    pub(super) mark: Option<u64>,
}

/// Who says how far a partition is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The destination's ledger.
    Ledger,
    /// The group's own commit.
    Commit,
    /// The last note of the group's workers.
    Note,
    /// The destination's mark: more may be counted.
    Mark,
    /// The destination, which has no claim of the group on the partition.
    NoClaim,
    /// The topic was recreated.
    OtherTopic,
    /// Nobody.
    Nobody,
}

/// What the destination says; `None` in place of it where it was not asked, or did not answer.
pub(super) struct Told<'a> {
    pub(super) holding: Option<&'a Holding>,
    /// The destination's short name in commits.
    pub(super) destination: Option<&'a str>,
    /// The offset of the last note on this incarnation of the topic.
    pub(super) note: Option<u64>,
}

/// The group's own commit for the present topic.
fn own(found: &Found) -> Option<(u64, &SealMetadata)> {
    match &found.held {
        Held::Ours(offset, seal) if seal.stream.as_ref().is_none_or(|of| *of == found.stream) => Some((*offset, seal)),
        Held::Ours(..) | Held::Nothing | Held::Unusable(..) => None,
    }
}

impl Known {
    /// Determines it from what the group has committed itself, what its workers have noted, and what the destination says.
    pub(super) fn of(found: &Found, told: &Told<'_>) -> Self {
        if found.is_of_another_topic() {
            return Self::new(None, Some(0), Source::OtherTopic);
        }
        match told.holding {
            Some(Holding::Ledger(end)) => Self::by_ledger(found, *end, told),
            Some(Holding::Marked(mark)) => Self::by_mark(found, *mark, told),
            Some(Holding::Nothing) => Self::without_claim(found, told),
            // Nothing is written to it: the sink needs another destination, which holds nothing yet.
            Some(Holding::Excluded) => Self { counted_to: Some(0), ..Self::by_group(found, told) },
            Some(Holding::Untold) | None => Self::by_group(found, told),
        }
    }

    fn new(complete_to: Option<u64>, counted_to: Option<u64>, source: Source) -> Self {
        Self { complete_to, counted_to, source, has_ledger: false, mark: None }
    }

    /// What the group says alone.
    fn by_group(found: &Found, told: &Told<'_>) -> Self {
        match (own(found), told.note) {
            (Some((offset, seal)), _) => {
                let sealed = seal.sealed_end().unwrap_or(offset);
                // After a reset to an earlier offset, the commit still names what was written before.
                let written = written_here(seal, told).map_or(0, |written| written.end);
                Self::new(Some(offset), Some(sealed.max(written)), Source::Commit)
            }
            (None, Some(note)) => Self::new(Some(note), Some(note), Source::Note),
            (None, None) => Self::new(None, None, Source::Nobody),
        }
    }

    fn by_ledger(found: &Found, end: u64, told: &Told<'_>) -> Self {
        let (complete_to, source) = match own(found) {
            // Batches after the ledger's end had nothing to write, unless the destination has lost some.
            Some((offset, seal)) if !is_behind(end, seal, told) && offset > end => (Some(offset), Source::Commit),
            Some(_) => (Some(end), Source::Ledger),
            None => ((end > 0).then_some(end), Source::Ledger),
        };
        Self { has_ledger: true, ..Self::new(complete_to, Some(end), source) }
    }

    fn by_mark(found: &Found, mark: u64, told: &Told<'_>) -> Self {
        let Self { complete_to, counted_to, source, .. } = Self::by_group(found, told);
        let at_least = (mark > 0).then_some(mark);
        let lost = own(found).and_then(|(_, seal)| seal.written.as_ref()).is_some_and(|written| {
            let is_here = told.destination == Some(written.to.as_str());
            // It was restored from a backup, or is an earlier destination.
            !is_here || written.marked.is_some_and(|marked| marked > mark)
        });
        let (complete_to, source) = match complete_to {
            Some(complete) if !lost && complete >= mark => (Some(complete), source),
            Some(_) | None => (at_least, Source::Mark),
        };
        let counted_to = counted_to.map(|counted| counted.max(mark));
        Self { mark: at_least, ..Self::new(complete_to, counted_to, source) }
    }

    fn without_claim(found: &Found, told: &Told<'_>) -> Self {
        match own(found) {
            // It was emptied, or its claims were.
            Some((_, seal)) if written_here(seal, told).is_some() => {
                Self { complete_to: None, ..Self::by_group(found, told) }
            }
            Some(_) => Self { counted_to: Some(0), ..Self::by_group(found, told) },
            None => Self::new(None, Some(0), Source::NoClaim),
        }
    }

    /// What the commit of a reset to `to` says of the destination, so that a worker halts at one that holds less: also where
    /// messages are passed over on purpose.
    pub(super) fn written(&self, found: &Found, told: &Told<'_>, to: u64) -> Option<Written> {
        let here = |end: u64, marked| {
            let destination = told.destination.filter(|_| end > 0)?;
            Some(Written { to: destination.to_owned(), end, marked })
        };
        match told.holding {
            Some(Holding::Ledger(end)) => here(*end, None),
            // A group that is set back before the mark is not expected to be past it.
            Some(Holding::Marked(_)) => {
                let marked = self.mark.filter(|mark| *mark <= to);
                here(self.counted_to.or(self.complete_to).unwrap_or(0), marked)
            }
            Some(Holding::Nothing | Holding::Excluded | Holding::Untold) => None,
            // What was known is still expected of it, up to where the group is set.
            None => own(found).and_then(|(_, seal)| seal.written.clone()).map(|written| Written {
                end: written.end.min(to),
                marked: written.marked.map(|marked| marked.min(to)),
                ..written
            }),
        }
    }
}

/// What the commit says that this destination holds.
fn written_here<'s>(seal: &'s SealMetadata, told: &Told<'_>) -> Option<&'s Written> {
    // Which destination it is cannot be told where it was not asked.
    seal.written.as_ref().filter(|written| told.destination.is_none_or(|name| name == written.to))
}

/// Whether a ledger is behind what the group has written.
fn is_behind(end: u64, seal: &SealMetadata, told: &Told<'_>) -> bool {
    let Some(written) = seal.written.as_ref().filter(|written| written.end > end) else { return false };
    // A new destination is empty on purpose.
    end > 0 || told.destination == Some(written.to.as_str())
}

#[cfg(test)]
mod tests {
    use tallybus_bus::{OffsetRange, TopicPartition};
    use tallybus_sdk::{SealMetadataError, Shape};

    use super::*;

    fn found(held: Held) -> Found {
        let range = OffsetRange { first: 0, end: 300 };
        Found { at: TopicPartition::new("t", 0), held, range, stream: "kafka:c:now".parse().unwrap() }
    }

    fn ours(offset: u64, ends: &[u64], written: Option<(&str, u64, Option<u64>)>) -> Held {
        let seal = SealMetadata::new("kafka:c:now".parse().unwrap(), ends.to_vec(), &Shape::everything());
        let written = written.map(|(to, end, marked)| Written { to: to.to_owned(), end, marked });
        Held::Ours(offset, seal.with_written(written))
    }

    fn foreign(offset: u64) -> Held {
        Held::Unusable(offset, SealMetadataError::Missing { offset })
    }

    fn told(holding: Option<&Holding>, note: Option<u64>) -> Told<'_> {
        let destination = holding.is_some_and(|holding| *holding != Holding::Untold).then_some("here");
        Told { holding, destination, note }
    }

    #[test]
    fn what_is_counted_follows_from_the_destination_the_own_commit_and_the_note_and_never_from_a_foreign_commit() {
        use Holding::{Excluded, Ledger, Marked, Nothing, Untold};
        let cases = [
            // A foreign commit.
            (foreign(0), Some(Ledger(100)), None, (Some(100), Some(100)), Source::Ledger),
            (foreign(200), Some(Ledger(100)), None, (Some(100), Some(100)), Source::Ledger),
            (foreign(200), Some(Ledger(0)), None, (None, Some(0)), Source::Ledger),
            (foreign(200), Some(Ledger(100)), Some(120), (Some(100), Some(100)), Source::Ledger),
            (foreign(0), Some(Marked(60)), Some(100), (Some(100), Some(100)), Source::Note),
            (foreign(0), Some(Marked(100)), Some(60), (Some(100), Some(100)), Source::Mark),
            (foreign(0), Some(Marked(60)), None, (Some(60), None), Source::Mark),
            (foreign(0), Some(Marked(0)), None, (None, None), Source::Mark),
            (foreign(0), Some(Nothing), None, (None, Some(0)), Source::NoClaim),
            (foreign(0), Some(Untold), None, (None, None), Source::Nobody),
            (foreign(0), Some(Untold), Some(100), (Some(100), Some(100)), Source::Note),
            (foreign(0), None, None, (None, None), Source::Nobody),
            (foreign(0), None, Some(100), (Some(100), Some(100)), Source::Note),
            (foreign(0), Some(Excluded), None, (None, Some(0)), Source::Nobody),
            // No commit.
            (Held::Nothing, Some(Ledger(100)), None, (Some(100), Some(100)), Source::Ledger),
            (Held::Nothing, Some(Marked(60)), Some(100), (Some(100), Some(100)), Source::Note),
            (Held::Nothing, Some(Nothing), Some(100), (None, Some(0)), Source::NoClaim),
            // Our own, with a ledger.
            (ours(100, &[], None), Some(Ledger(80)), None, (Some(100), Some(80)), Source::Commit),
            (ours(100, &[], Some(("here", 80, None))), Some(Ledger(80)), None, (Some(100), Some(80)), Source::Commit),
            (ours(100, &[], Some(("here", 90, None))), Some(Ledger(80)), None, (Some(80), Some(80)), Source::Ledger),
            (ours(100, &[], Some(("here", 90, None))), Some(Ledger(0)), None, (Some(0), Some(0)), Source::Ledger),
            (ours(100, &[], Some(("there", 90, None))), Some(Ledger(0)), None, (Some(100), Some(0)), Source::Commit),
            (ours(100, &[], Some(("there", 90, None))), Some(Ledger(80)), None, (Some(80), Some(80)), Source::Ledger),
            (ours(100, &[120], None), Some(Ledger(120)), None, (Some(120), Some(120)), Source::Ledger),
            // Our own, without one.
            (
                ours(100, &[], Some(("here", 100, Some(60)))),
                Some(Marked(60)),
                None,
                (Some(100), Some(100)),
                Source::Commit,
            ),
            (ours(100, &[120], None), Some(Marked(60)), None, (Some(100), Some(120)), Source::Commit),
            (ours(0, &[], Some(("here", 100, Some(60)))), Some(Marked(60)), None, (Some(60), Some(100)), Source::Mark),
            (
                ours(100, &[], Some(("here", 100, Some(60)))),
                Some(Marked(20)),
                None,
                (Some(20), Some(100)),
                Source::Mark,
            ),
            (
                ours(100, &[], Some(("there", 100, Some(60)))),
                Some(Marked(20)),
                None,
                (Some(20), Some(100)),
                Source::Mark,
            ),
            (ours(100, &[], Some(("here", 100, None))), Some(Nothing), None, (None, Some(100)), Source::Commit),
            (ours(100, &[], Some(("there", 100, None))), Some(Nothing), None, (Some(100), Some(0)), Source::Commit),
            (ours(100, &[120], None), Some(Untold), None, (Some(100), Some(120)), Source::Commit),
            (ours(100, &[], None), Some(Untold), Some(40), (Some(100), Some(100)), Source::Commit),
            (ours(40, &[], Some(("here", 100, None))), None, None, (Some(40), Some(100)), Source::Commit),
        ];
        for (held, holding, note, expected, source) in cases {
            let found = found(held);
            let known = Known::of(&found, &told(holding.as_ref(), note));
            let case = format!("{:?} {holding:?} {note:?}", found.as_json());
            assert_eq!(((known.complete_to, known.counted_to), known.source), (expected, source), "{case}");
            assert_eq!(known.has_ledger, matches!(holding, Some(Ledger(_))), "{case}");
        }
    }

    #[test]
    fn a_recreated_topic_has_no_message_that_is_counted() {
        let seal = SealMetadata::new("kafka:c:before".parse().unwrap(), Vec::new(), &Shape::everything());
        let known = Known::of(&found(Held::Ours(100, seal)), &told(Some(&Holding::Ledger(100)), Some(100)));
        assert_eq!((known.complete_to, known.counted_to, known.source), (None, Some(0), Source::OtherTopic));
    }

    #[test]
    fn a_reset_commits_what_the_destination_holds_so_that_a_later_loss_is_noticed() {
        let here = |end, marked| Some(Written { to: "here".to_owned(), end, marked });
        for (held, holding, to, expected) in [
            (foreign(0), Some(Holding::Ledger(100)), 200, here(100, None)),
            (foreign(0), Some(Holding::Ledger(0)), 200, None),
            (ours(200, &[], Some(("here", 150, None))), Some(Holding::Ledger(100)), 100, here(100, None)),
            (ours(100, &[], Some(("here", 100, Some(60)))), Some(Holding::Marked(60)), 0, here(100, None)),
            (ours(100, &[], Some(("here", 100, Some(60)))), Some(Holding::Marked(20)), 20, here(100, Some(20))),
            (foreign(0), Some(Holding::Marked(60)), 60, here(60, Some(60))),
            (foreign(0), Some(Holding::Marked(0)), 60, None),
            (ours(100, &[], Some(("here", 100, None))), Some(Holding::Nothing), 100, None),
            (ours(100, &[], Some(("here", 90, Some(60)))), None, 200, here(90, Some(60))),
            (ours(100, &[], Some(("here", 90, Some(60)))), None, 40, here(40, Some(40))),
            (foreign(100), None, 200, None),
        ] {
            let found = found(held);
            let told = told(holding.as_ref(), None);
            let written = Known::of(&found, &told).written(&found, &told, to);
            assert_eq!(written, expected, "{:?} {holding:?} {to}", found.as_json());
        }
    }
}
