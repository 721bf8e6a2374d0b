//! Keeps a batch's points distinct from those of other batches in formats that identify a point by series and time.
//! Pure.

use tallybus_sdk::Batch;

/// The label with the partition that a point came through: `topic/partition`.
pub(super) const PARTITION: &str = "tallybus_partition";

/// The label that holds the batch's slot, where there is more than one.
pub(super) const SLOT: &str = "tallybus_slot";

const NANOS_PER_MILLI: u64 = 1_000_000;

/// Nanosecond places in a millisecond; the first is left out, so that a point is always after the start of its window.
const BELOW_A_MILLI: u64 = NANOS_PER_MILLI - 1;

/// The labels and time offset of a batch's points. Every part of a batch has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Value of [`PARTITION`].
    pub(super) partition: String,
    /// Value of [`SLOT`].
    pub(super) slot: Option<String>,
    /// Nanoseconds behind the start of the window (or of the millisecond, without one): more than 0, less than the window.
    pub(super) within: i64,
}

impl Identity {
    /// Two batches of one partition have the same only if their first offsets are congruent modulo `slots` times the
    /// window's milliseconds less one times 999,999; where times keep milliseconds only, modulo the first two; where they
    /// keep seconds only, modulo `slots`.
    ///
    /// No point is exactly at the start of a window, not even to the millisecond: a query's range covers the same
    /// windows whether it includes its ends or not.
    pub(super) fn of(batch: &Batch, slots: u64) -> Self {
        let slots = slots.max(1);
        let window = u64::try_from(batch.window).unwrap_or(0) / NANOS_PER_MILLI;
        let (skipped, millis) = if window > 1 { (1, window - 1) } else { (0, 1) };
        let first = batch.id.first;
        let turn = first / slots;
        let within = (skipped + turn % millis) * NANOS_PER_MILLI + turn / millis % BELOW_A_MILLI + 1;
        Self {
            partition: format!("{}/{}", batch.id.topic, batch.id.partition),
            slot: (slots > 1).then(|| (first % slots).to_string()),
            within: i64::try_from(within).unwrap_or(1),
        }
    }

    /// Whether a tag of this key would hide the identity.
    pub(super) fn takes(&self, key: &str) -> bool {
        key == PARTITION || (self.slot.is_some() && key == SLOT)
    }

    /// The labels that a point has in addition to its tags.
    pub(super) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let slot: Option<(&str, &str)> = self.slot.as_deref().map(|slot| (SLOT, slot));
        std::iter::once((PARTITION, self.partition.as_str())).chain(slot)
    }
}

/// Whether this label is one that [`Identity`] adds, and so not part of the series.
pub(super) fn is_own(label: &str) -> bool {
    label != PARTITION && label != SLOT
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use tallybus_sdk::{BatchId, SeriesTable};

    use super::*;

    fn batch(window: i64, first: u64) -> Batch {
        Batch {
            id: BatchId { topic: "t".into(), partition: 3, first, end: first.saturating_add(1) },
            topic_index: 0,
            series: Arc::new(SeriesTable::new()),
            points: Vec::new(),
            window,
            part: String::new(),
            stream: None,
            recovered: false,
        }
    }

    #[test]
    fn batches_stand_apart_within_the_stated_bound() {
        for (window, slots, kept) in [(1_000_000_000, 1, 999), (1_000_000_000, 4, 4 * 999), (20_000_000, 3, 57)] {
            let mut places = BTreeSet::new();
            let mut finer = BTreeSet::new();
            for first in 77..77 + 3 * kept {
                let identity = Identity::of(&batch(window, first), slots);
                assert!(identity.within > 0 && identity.within < window, "{identity:?}");
                places.insert((identity.slot.clone(), identity.within / 1_000_000));
                finer.insert((identity.slot, identity.within));
            }
            assert_eq!(u64::try_from(places.len()).unwrap(), kept, "to the millisecond");
            assert_eq!(u64::try_from(finer.len()).unwrap(), 3 * kept, "to the nanosecond");
        }
        let second = |first| Identity::of(&batch(1_000_000_000, first), 1);
        assert_eq!(second(5), second(5 + 999 * 999_999));
        assert!(second(0).within >= 1_000_000);
    }

    #[test]
    fn an_identity_fits_any_window_and_offset() {
        for window in [0, 1_000_000, 1_500_000, 1_000_000_000, i64::MAX] {
            for first in [0, 1, 999_998, 999_999, u64::MAX] {
                let identity = Identity::of(&batch(window, first), 7);
                assert!(identity.within > 0 && identity.within < window.max(1_000_001), "{window} {first}");
            }
        }
    }

    #[test]
    fn the_slot_is_a_label_only_where_there_are_several() {
        let one = Identity::of(&batch(1_000_000_000, 9), 1);
        assert_eq!(one.labels().collect::<Vec<_>>(), [(PARTITION, "t/3")]);
        assert!(one.takes(PARTITION) && !one.takes(SLOT));
        let many = Identity::of(&batch(1_000_000_000, 9), 4);
        assert_eq!(many.labels().collect::<Vec<_>>(), [(PARTITION, "t/3"), (SLOT, "1")]);
        assert!(many.takes(SLOT));
    }
}
