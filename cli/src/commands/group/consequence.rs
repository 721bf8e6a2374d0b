//! What moving a partition of a group to an offset means for the counts.

use serde_json::{Value, json};
use tallybus_bus::OffsetRange;

use super::known::{Known, Source};
use crate::text::grouped;

/// What moving a partition to an offset means, in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Consequence {
    /// Read again although they are counted.
    pub(super) counted: u64,
    /// Read again, and perhaps counted already.
    pub(super) perhaps_counted: u64,
    /// Read again, and not in the destination.
    pub(super) filled: u64,
    /// Passed over, and never counted.
    pub(super) lost: u64,
    /// Passed over, and perhaps counted already.
    pub(super) perhaps_lost: u64,
}

impl Consequence {
    /// Of moving a partition of this range to `to`.
    pub(super) fn of(known: &Known, range: OffsetRange, to: u64) -> Self {
        let complete = known.complete_to.unwrap_or(range.first);
        let counted = known.counted_to.unwrap_or(range.end);
        // Below both everything is counted; from both on, nothing. Between them it is unknown, or need not be there.
        let (both, either) = (complete.min(counted), complete.max(counted));
        let is_unknown = complete < counted;
        let (read_between, passed_between) = (either.saturating_sub(to.max(both)), to.min(either).saturating_sub(both));
        Self {
            counted: both.saturating_sub(to),
            perhaps_counted: if is_unknown { read_between } else { 0 },
            filled: if is_unknown { 0 } else { read_between },
            lost: to.saturating_sub(either),
            perhaps_lost: if is_unknown { passed_between } else { 0 },
        }
    }

    /// Whether messages are counted twice, or may be.
    pub(super) fn doubles(self, known: &Known) -> bool {
        !known.has_ledger && self.counted + self.perhaps_counted > 0
    }

    /// Whether messages are never counted, or may never be.
    pub(super) fn loses(self) -> bool {
        self.lost + self.perhaps_lost > 0
    }

    /// For people. `place`: the destination, in a few words.
    pub(super) fn text(self, known: &Known, place: &str, range: OffsetRange, to: u64) -> String {
        let mut parts = Vec::new();
        if known.source == Source::OtherTopic {
            parts.push(format!("begins the recreated topic at {to}; the old topic's counts stay in the destination"));
        }
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                parts.push(format!("{} {what}", messages(count)));
            }
        };
        match known.has_ledger {
            true => add(
                self.counted,
                &format!("read again: the ledger of {place} has them, so that the sink halts and counts none twice"),
            ),
            false => add(self.counted, &format!("read again: counted twice in {place}")),
        }
        add(self.perhaps_counted, &format!("read again: counted twice if {place} has them, which is unknown"));
        add(self.filled, &format!("read again: {place} does not have them"));
        add(self.lost, "passed over: never counted");
        add(self.perhaps_lost, &format!("passed over: never counted unless {place} has them, which is unknown"));
        if parts.is_empty() {
            parts.push(match known.complete_to {
                None if to == range.first => "begins at the oldest message, as a new group".to_owned(),
                _ => "no message is read again or passed over".to_owned(),
            });
        }
        parts.join("; ")
    }

    pub(super) fn as_json(self, known: &Known) -> Value {
        json!({
            "complete_to": known.complete_to,
            "counted_to": known.counted_to,
            "counted_twice": if known.has_ledger { 0 } else { self.counted },
            "perhaps_counted_twice": if known.has_ledger { 0 } else { self.perhaps_counted },
            "never_counted": self.lost,
            "perhaps_never_counted": self.perhaps_lost,
            "halts": known.has_ledger && self.counted > 0,
        })
    }
}

impl Known {
    /// The offset at which no message is counted twice or lost, as far as is known; `None` where nothing is known.
    pub(super) fn best(&self, range: OffsetRange) -> Option<u64> {
        self.complete_to.filter(|offset| (range.first..=range.end).contains(offset))
    }

    /// How far the partition is counted, and who says so.
    pub(super) fn describe(&self, place: &str) -> Option<String> {
        let offset = grouped(self.complete_to?);
        Some(match self.source {
            Source::Ledger => format!("{place} holds everything up to {offset}, as its ledger says"),
            Source::Commit => format!("the group had settled everything up to {offset}"),
            Source::Note => format!(
                "the group had settled everything up to {offset}, as its workers last noted (one that was killed may have \
                 written up to ten seconds more)"
            ),
            Source::Mark => format!("{place} is marked as written up to {offset}; later counts may be there too"),
            Source::NoClaim | Source::OtherTopic | Source::Nobody => return None,
        })
    }
}

fn messages(count: u64) -> String {
    match count {
        1 => "1 message is".to_owned(),
        _ => format!("{} messages are", grouped(count)),
    }
}

#[cfg(test)]
mod tests {
    use tallybus_bus::TopicPartition;
    use tallybus_sdk::{SealMetadata, SealMetadataError, Shape};
    use tallybus_worker::Holding;

    use super::super::known::Told;
    use super::super::partition::{Found, Held};
    use super::*;

    const RANGE: OffsetRange = OffsetRange { first: 5, end: 200 };

    fn foreign(offset: u64) -> Held {
        Held::Unusable(offset, SealMetadataError::Missing { offset })
    }

    fn ours(offset: u64, ends: &[u64], stream: &str) -> Held {
        Held::Ours(offset, SealMetadata::new(stream.parse().unwrap(), ends.to_vec(), &Shape::everything()))
    }

    /// The text, whether it doubles and whether it loses.
    fn moved(held: Held, holding: Option<Holding>, note: Option<u64>, to: u64) -> (String, bool, bool) {
        let found =
            Found { at: TopicPartition::new("t", 0), held, range: RANGE, stream: "kafka:c:now".parse().unwrap() };
        let told = Told { holding: holding.as_ref(), destination: None, note };
        let known = Known::of(&found, &told);
        let consequence = Consequence::of(&known, RANGE, to);
        (consequence.text(&known, "here", RANGE, to), consequence.doubles(&known), consequence.loses())
    }

    #[test]
    fn a_move_says_what_is_counted_twice_or_never_from_what_is_known_to_be_written() {
        const NONE: &str = "no message is read again or passed over";
        const NEW: &str = "begins at the oldest message, as a new group";
        use Holding::{Ledger, Marked, Nothing, Untold};
        let now = "kafka:c:now";
        let cases = [
            // Another program has set the group to the oldest offset; 100 is written.
            (
                foreign(5),
                Some(Ledger(100)),
                None,
                5,
                "95 messages are read again: the ledger of here has them, so that the sink halts and counts none twice",
                false,
                false,
            ),
            (
                foreign(5),
                Some(Marked(60)),
                Some(100),
                5,
                "95 messages are read again: counted twice in here",
                true,
                false,
            ),
            (
                foreign(5),
                Some(Marked(60)),
                None,
                5,
                "55 messages are read again: counted twice in here; 140 messages are read again: counted twice if here has \
                 them, which is unknown",
                true,
                false,
            ),
            (foreign(5), Some(Untold), Some(100), 5, "95 messages are read again: counted twice in here", true, false),
            (
                foreign(5),
                None,
                None,
                5,
                "195 messages are read again: counted twice if here has them, which is unknown",
                true,
                false,
            ),
            // To the newest offset.
            (foreign(200), Some(Ledger(100)), None, 200, "100 messages are passed over: never counted", false, true),
            (
                foreign(200),
                Some(Marked(60)),
                Some(100),
                200,
                "100 messages are passed over: never counted",
                false,
                true,
            ),
            (
                foreign(200),
                Some(Marked(60)),
                None,
                200,
                "140 messages are passed over: never counted unless here has them, which is unknown",
                false,
                true,
            ),
            (
                foreign(200),
                None,
                None,
                100,
                "100 messages are read again: counted twice if here has them, which is unknown; 95 messages are passed \
                 over: never counted unless here has them, which is unknown",
                true,
                true,
            ),
            // To where the destination is.
            (foreign(5), Some(Ledger(100)), None, 100, NONE, false, false),
            (foreign(5), Some(Marked(60)), Some(100), 100, NONE, false, false),
            // A group without an offset.
            (Held::Nothing, Some(Nothing), None, 5, NEW, false, false),
            (Held::Nothing, Some(Ledger(0)), None, 5, NEW, false, false),
            (Held::Nothing, Some(Nothing), None, 7, "2 messages are passed over: never counted", false, true),
            (
                Held::Nothing,
                Some(Marked(0)),
                Some(100),
                5,
                "95 messages are read again: counted twice in here",
                true,
                false,
            ),
            // Our own commit.
            (ours(50, &[], now), Some(Marked(50)), None, 50, NONE, false, false),
            (ours(50, &[], now), Some(Ledger(50)), None, 50, NONE, false, false),
            (
                ours(50, &[], now),
                Some(Marked(50)),
                None,
                49,
                "1 message is read again: counted twice in here",
                true,
                false,
            ),
            (
                ours(50, &[], now),
                Some(Marked(50)),
                None,
                200,
                "150 messages are passed over: never counted",
                false,
                true,
            ),
            (
                ours(50, &[60], now),
                Some(Marked(50)),
                None,
                50,
                "10 messages are read again: counted twice if here has them, which is unknown",
                true,
                false,
            ),
            (
                ours(50, &[60], now),
                Some(Marked(50)),
                None,
                60,
                "10 messages are passed over: never counted unless here has them, which is unknown",
                false,
                true,
            ),
            (ours(50, &[60], now), Some(Ledger(50)), None, 50, NONE, false, false),
            (
                ours(50, &[], now),
                Some(Nothing),
                None,
                5,
                "45 messages are read again: here does not have them",
                false,
                false,
            ),
            (ours(3, &[], now), Some(Ledger(3)), None, 5, "2 messages are passed over: never counted", false, true),
            // A recreated topic.
            (
                ours(50, &[], "kafka:c:before"),
                Some(Holding::Excluded),
                None,
                5,
                "begins the recreated topic at 5; the old topic's counts stay in the destination",
                false,
                false,
            ),
            (
                ours(50, &[], "kafka:c:before"),
                Some(Holding::Excluded),
                None,
                6,
                "begins the recreated topic at 6; the old topic's counts stay in the destination; 1 message is passed over: \
                 never counted",
                false,
                true,
            ),
        ];
        for (held, holding, note, to, text, doubles, loses) in cases {
            let told = moved(held, holding, note, to);
            assert_eq!(told, (text.to_owned(), doubles, loses));
        }
    }

    #[test]
    fn every_message_is_counted_once_passed_over_or_read_again_whatever_is_known() {
        for complete in [None, Some(0), Some(5), Some(50), Some(200)] {
            for counted in [None, Some(0), Some(50), Some(120)] {
                for to in [5, 49, 50, 51, 199, 200] {
                    let known = Known { complete_to: complete, counted_to: counted, ..known_of_nothing() };
                    let found = Consequence::of(&known, RANGE, to);
                    let is_exact = found == Consequence { filled: found.filled, ..Consequence::default() };
                    let complete = complete.unwrap_or(RANGE.first);
                    let counted = counted.unwrap_or(RANGE.end);
                    assert_eq!(is_exact, counted <= to && to <= complete, "{known:?} {to}");
                }
            }
        }
    }

    fn known_of_nothing() -> Known {
        let found = Found {
            at: TopicPartition::new("t", 0),
            held: Held::Nothing,
            range: RANGE,
            stream: "kafka:c:now".parse().unwrap(),
        };
        Known::of(&found, &Told { holding: None, destination: None, note: None })
    }
}
