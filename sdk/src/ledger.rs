//! The state of a destination's ledger in relation to a batch: one implementation for every sink that keeps a ledger.
//!
//! A ledger records, for each partition, how far the destination has come. It advances together with the rows of a
//! batch, or before them, and only from at or before the batch's first offset to its end.

use crate::{Batch, BatchId};

/// A whole batch in parts of 2^-62: deeper than any batch can be halved.
const WHOLE: i64 = 1 << 62;

/// How far a partition has come: everything before the offset, and of the batch that begins there this share (of 2^62)
/// from its beginning. Parts of a batch are written from left to right, so one pair of numbers is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// One past the last offset whose batch is applied in full.
    pub offset: u64,
    /// The applied share of the batch that begins at `offset`; 0 in a ledger of whole batches only.
    pub part: i64,
}

impl From<u64> for Position {
    fn from(offset: u64) -> Self {
        Self { offset, part: 0 }
    }
}

/// Where a batch, or a part of one, begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The ledger must be at or before this position.
    pub from: Position,
    /// The position of the ledger after the batch.
    pub to: Position,
}

/// The state of a ledger in relation to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerState {
    /// Nothing of it was applied.
    NotApplied,
    /// Parts of it were applied: it must be written in parts.
    Partial,
    /// All of it was applied, by an earlier write of the same batch.
    Applied,
    /// The ledger is at a position to which no write of this batch can have moved it: needs operator action.
    Diverged(Divergence),
}

/// How a ledger contradicts a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divergence {
    /// It is behind what this process has written: a backup was restored, or a failover lost commits.
    Behind,
    /// It is past a batch that cannot have been written before.
    Ahead,
    /// It is inside the batch, at a position where no part ends.
    Inside,
}

impl Span {
    /// The range of a whole batch.
    pub fn whole(id: &BatchId) -> Self {
        Self { from: id.first.into(), to: id.end.into() }
    }

    /// The range of a batch or a part of one; `None` for a part that was halved more often than is possible.
    pub fn of(batch: &Batch) -> Option<Self> {
        let (first, end) = (batch.id.first, batch.id.end);
        let mut size = WHOLE;
        let mut begin = 0;
        for side in batch.part.chars() {
            size /= 2;
            if size == 0 {
                return None;
            }
            if side == '1' {
                begin += size;
            }
        }
        let to = match begin + size {
            WHOLE => Position::from(end),
            part => Position { offset: first, part },
        };
        Some(Self { from: Position { offset: first, part: begin }, to })
    }
}

/// Determines the state of a ledger at `end` in relation to a batch. `in_doubt`: whether the batch may have been
/// applied before, because it was found sealed or this process has started to write it ([`InDoubt`](crate::InDoubt)).
/// `least`: the ledger's floor ([`LedgerFloor::of`](crate::LedgerFloor::of)). Pure.
pub fn decide(end: impl Into<Position>, batch: &Span, in_doubt: bool, least: u64) -> LedgerState {
    let end = end.into();
    if end.offset < least {
        return LedgerState::Diverged(Divergence::Behind);
    }
    if end <= batch.from {
        return LedgerState::NotApplied;
    }
    let is_past = end >= batch.to;
    match (is_past, in_doubt) {
        (true, true) => LedgerState::Applied,
        (true, false) => LedgerState::Diverged(Divergence::Ahead),
        (false, true) if end.offset == batch.from.offset => LedgerState::Partial,
        (false, _) => LedgerState::Diverged(Divergence::Inside),
    }
}

impl Divergence {
    /// Describes what happened, what is safe and what to do next. `destination` is the place that has the ledger,
    /// `what` its kind (`file`, `table`), and `end` the ledger's offset, if it is known.
    pub fn describe(self, destination: &str, what: &str, id: &BatchId, end: Option<u64>) -> String {
        let at = end.map_or_else(|| format!("past offset {}", id.first), |end| format!("at offset {end}"));
        let partition = format!("{}/{}", id.topic, id.partition);
        let cause = match self {
            Self::Behind => {
                return format!(
                    "{destination} is {at} of {partition}, and was further before: it was restored from a backup, or a failover \
                     lost what it had acknowledged. Nothing more was written; the batch's records are safe on the bus. Restart \
                     the worker: it says from where to write again"
                );
            }
            Self::Ahead => format!(
                "but batch {id} is new: the topic was recreated, the group's offsets were reset, or another bus or \
                 sink writes to this {what}"
            ),
            Self::Inside => format!("inside batch {id}: another bus or sink writes to this {what}"),
        };
        format!(
            "{destination} is {at} of {partition}, {cause}. The batch's records are safe on the bus. Name a new \
             {what} to count from here"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tallybus_schemas::{Coordinate, Series};

    use super::*;
    use crate::Point;

    fn batch(points: u64) -> Batch {
        let point = |n: u64| Point {
            series: 0,
            time: i64::try_from(n).unwrap() * 1_000_000_000,
            value: 1,
            events: 1,
            first: Coordinate { partition: 3, offset: 10 + n, index: 0 },
        };
        Batch {
            id: BatchId { topic: "t".into(), partition: 3, first: 10, end: 20 },
            topic_index: 0,
            series: Arc::new([Series::from_sorted("n", &[])].into_iter().collect()),
            points: (0..points).map(point).collect(),
            window: 1_000_000_000,
            part: String::new(),
            stream: None,
            recovered: false,
        }
    }

    fn leaves(batch: &Batch) -> Vec<Batch> {
        match batch.split() {
            None => vec![batch.clone()],
            Some((left, right)) => leaves(&left).into_iter().chain(leaves(&right)).collect(),
        }
    }

    #[test]
    fn parts_lie_side_by_side_from_the_first_offset_to_the_end() {
        for points in 1..40 {
            let whole = batch(points);
            let span = Span::of(&whole).unwrap();
            assert_eq!(span, Span::whole(&whole.id));
            assert_eq!((span.from, span.to), (Position::from(10), Position::from(20)));
            let mut at = span.from;
            for leaf in leaves(&whole) {
                let part = Span::of(&leaf).unwrap();
                assert_eq!(part.from, at, "{}", leaf.key());
                assert!(part.from < part.to);
                at = part.to;
            }
            assert_eq!(at, span.to);
        }
        let deep = Batch { part: "1".repeat(63), ..batch(2) };
        assert_eq!(Span::of(&deep), None);
        assert!(Span::of(&Batch { part: "1".repeat(62), ..batch(2) }).is_some());
    }

    #[test]
    fn every_place_of_the_ledger_has_its_state() {
        use Divergence::{Ahead, Inside};
        use LedgerState::{Applied, Diverged, NotApplied, Partial};
        let whole = batch(4);
        let (left, right) = whole.split().unwrap();
        let [whole, left, right] = [&whole, &left, &right].map(|batch| Span::of(batch).unwrap());
        let at = |offset, part| Position { offset, part };
        // Whole, left half and right half, in doubt; then the whole as a new batch.
        for (end, of_whole, of_left, of_right, of_new) in [
            (at(0, 0), NotApplied, NotApplied, NotApplied, NotApplied),
            (at(9, 5), NotApplied, NotApplied, NotApplied, NotApplied),
            (at(10, 0), NotApplied, NotApplied, NotApplied, NotApplied),
            (at(10, WHOLE / 4), Partial, Partial, NotApplied, Diverged(Inside)),
            (at(10, WHOLE / 2), Partial, Applied, NotApplied, Diverged(Inside)),
            (at(20, 0), Applied, Applied, Applied, Diverged(Ahead)),
            (at(15, 0), Diverged(Inside), Applied, Diverged(Inside), Diverged(Inside)),
            (at(99, 0), Applied, Applied, Applied, Diverged(Ahead)),
        ] {
            assert_eq!(decide(end, &whole, true, 0), of_whole, "{end:?}");
            assert_eq!(decide(end, &left, true, 0), of_left, "{end:?}");
            assert_eq!(decide(end, &right, true, 0), of_right, "{end:?}");
            assert_eq!(decide(end, &whole, false, 0), of_new, "{end:?}");
        }
    }

    #[test]
    fn a_ledger_behind_what_was_written_is_no_place_for_the_next_batch() {
        let span = Span::whole(&batch(1).id);
        for (end, least, expected) in [
            (9, 10, LedgerState::Diverged(Divergence::Behind)),
            (0, 1, LedgerState::Diverged(Divergence::Behind)),
            (10, 10, LedgerState::NotApplied),
            (9, 9, LedgerState::NotApplied),
            (20, 10, LedgerState::Applied),
        ] {
            assert_eq!(decide(end, &span, true, least), expected, "{end} {least}");
        }
        let text = Divergence::Behind.describe("c.db", "file", &batch(1).id, Some(9));
        assert!(text.starts_with("c.db is at offset 9 of t/3, and was further before: it was restored"), "{text}");
    }

    #[test]
    fn a_divergence_says_what_is_safe_and_what_to_do() {
        let id = batch(1).id;
        let ahead = Divergence::Ahead.describe("\"s\".\"t\"", "table", &id, Some(71));
        assert!(
            ahead
                .starts_with("\"s\".\"t\" is at offset 71 of t/3, but batch t/3/10-20 is new: the topic was recreated")
        );
        assert!(ahead.ends_with("safe on the bus. Name a new table to count from here"), "{ahead}");
        let inside = Divergence::Inside.describe("a.db", "file", &id, None);
        assert!(
            inside.starts_with("a.db is past offset 10 of t/3, inside batch t/3/10-20: another bus or sink"),
            "{inside}"
        );
    }
}
