//! The time of a point inside its window or millisecond, which makes the InfluxDB point unique to its batch.

use std::fmt;

use tallybus_schemas::Coordinate;
use tallybus_sdk::{BatchId, NANOS_PER_MILLI, resolution};

/// The fewest batches of one partition that a window must distinguish.
const MIN_CYCLE: i64 = 1_000_000;

/// The last of so many parts of a window or millisecond belongs to dead letters that are written again.
const PARTS: i64 = 64;

/// The most slot ranges with window 0, which leaves each of them 984 places in a millisecond.
const MAX_RANGES_OF_EVENTS: i64 = 1_000;

/// From so many messages on, the events of one series and millisecond in a batch share one point.
pub(super) const DENSE: usize = 16;

/// Batches of at least 2^shift offsets, which are at least 2^shift offsets apart, tell each other apart by `first >> shift`.
const DENSE_SHIFTS: [u32; 3] = [12, 8, 4];

/// Why the settings do not allow unique identities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The window cannot distinguish enough batches.
    Window {
        /// The shortest window that can, in nanoseconds.
        shortest: i64,
    },
    /// With window 0: too many partitions and topics for one millisecond.
    SlotRanges {
        /// The most that there may be.
        most: i64,
    },
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window { shortest } => write!(
                f,
                "window: too short to give each batch a slot of its own; set it to {} ms or longer, 0s, or lower \
                 max_partitions",
                (shortest + NANOS_PER_MILLI - 1) / NANOS_PER_MILLI
            ),
            Self::SlotRanges { most } => write!(
                f,
                "max_partitions: with window 0 the number of topics times max_partitions is at most {most}; lower it, or \
                 set a window"
            ),
        }
    }
}

/// Maps a batch and its events to places in time. Pure.
///
/// Every partition of every topic has a *slot range*: every P-th nanosecond of all but the last 64th of a window, P being the
/// number of slot ranges, so that they never overlap. Inside a slot range the place follows from offsets, which never repeat.
/// The last 64th is the slot range of replayed dead letters, whose windows are old: it does not move when P changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    max_partitions: u32,
    topics: u32,
    /// P.
    ranges: i64,
    /// Nanoseconds; 0: each event is its own point.
    window: i64,
}

/// The places of one partition in a window, or in a millisecond with window 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotRange {
    /// The first.
    start: i64,
    /// From one to the next.
    step: i64,
    /// How many.
    cycle: i64,
}

impl SlotRange {
    fn place(self, within: i64) -> i64 {
        self.start + within * self.step
    }

    /// With window 0, half of a millisecond's places are for single events.
    fn fine(self) -> i64 {
        self.cycle - 3 * self.coarse()
    }

    /// A sixth of them for each class of dense batches.
    fn coarse(self) -> i64 {
        self.cycle / 6
    }
}

impl Identity {
    pub(super) fn new(window: i64, topics: usize, max_partitions: u32) -> Result<Self, NoRoom> {
        let topics = i64::try_from(topics.max(1)).unwrap_or(i64::MAX);
        let ranges = topics.saturating_mul(i64::from(max_partitions.max(1)));
        if window == 0 && ranges > MAX_RANGES_OF_EVENTS {
            return Err(NoRoom::SlotRanges { most: MAX_RANGES_OF_EVENTS });
        }
        let topics = u32::try_from(topics).unwrap_or(u32::MAX);
        let identity = Self { max_partitions, topics, ranges, window };
        if window != 0 && identity.room() / ranges < MIN_CYCLE {
            let room = ranges.saturating_mul(MIN_CYCLE);
            return Err(NoRoom::Window { shortest: room.saturating_add(room / (PARTS - 1) + 1) });
        }
        Ok(identity)
    }

    /// The slot range of a partition; `None` when there is none for it. The topic after the last is that of replayed dead letters.
    pub(super) fn slot_range(&self, topic_index: u32, partition: u32) -> Option<SlotRange> {
        if topic_index == self.topics {
            let range = SlotRange { start: self.room(), step: 1, cycle: self.resolution() - self.room() };
            return (partition == 0).then_some(range);
        }
        if topic_index > self.topics || partition >= self.max_partitions {
            return None;
        }
        let start = i64::from(topic_index) * i64::from(self.max_partitions) + i64::from(partition);
        Some(SlotRange { start, step: self.ranges, cycle: self.room() / self.ranges })
    }

    /// How much of a window or millisecond belongs to the slot ranges of partitions.
    fn room(&self) -> i64 {
        self.resolution() - self.resolution() / PARTS
    }

    /// The offset of a batch's points from the start of the window: at least 0, less than the window.
    ///
    /// Two batches of a slot range share it only if their first offsets are congruent modulo the slot range's `cycle`.
    pub(super) fn slot_of_batch(&self, range: SlotRange, first: u64) -> i64 {
        range.place(remainder(first, range.cycle))
    }

    /// With window 0: the offset of the event of one message from the start of the millisecond.
    ///
    /// Two messages of a slot range share it only if their offsets are congruent modulo the slot range's `fine`.
    pub(super) fn slot_of_event(&self, range: SlotRange, at: Coordinate) -> i64 {
        range.place(remainder(at.offset, range.fine()))
    }

    /// With window 0: the same for all events of one series and millisecond in a batch that has [`DENSE`] messages of them.
    ///
    /// Two such batches share it only if both have at least 2^s offsets (s of [`DENSE_SHIFTS`], the largest that fits) and
    /// their first offsets are more than `(coarse - 1) * 2^s` apart. No batch shares it with an event.
    pub(super) fn slot_of_dense(&self, range: SlotRange, id: &BatchId) -> i64 {
        let length = id.end.saturating_sub(id.first);
        let fits = |shift: &u32| length >> shift > 0;
        let class = DENSE_SHIFTS.iter().position(fits).unwrap_or(DENSE_SHIFTS.len() - 1);
        let coarse = range.coarse();
        let within = remainder(id.first >> DENSE_SHIFTS[class], coarse);
        let class = i64::try_from(class).unwrap_or_default();
        range.place(range.fine() + class * coarse + within)
    }

    /// Everything besides the window that determines identities.
    pub(super) fn describe(&self) -> String {
        format!("slots=2,topics={},max_partitions={}", self.topics, self.max_partitions)
    }

    /// Nanoseconds; 0: each event is its own point.
    pub(super) fn window(&self) -> i64 {
        self.window
    }

    /// The resolution to which a time in the backend is rounded down when it is read: the window, or the millisecond.
    pub(super) fn resolution(&self) -> i64 {
        resolution(self.window)
    }
}

fn remainder(offset: u64, cycle: i64) -> i64 {
    let cycle = u64::try_from(cycle).unwrap_or(1).max(1);
    i64::try_from(offset % cycle).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn range(identity: &Identity, topic_index: u32, partition: u32) -> SlotRange {
        identity.slot_range(topic_index, partition).unwrap()
    }

    fn id(first: u64, end: u64) -> BatchId {
        BatchId { topic: "t".into(), partition: 0, first, end }
    }

    fn at(offset: u64) -> Coordinate {
        Coordinate { partition: 0, offset, index: 0 }
    }

    #[test]
    fn the_bounds_that_the_documentation_states() {
        let identity = Identity::new(SECOND, 1, 64).unwrap();
        assert_eq!(range(&identity, 0, 0).cycle, 15_380_859);
        assert_eq!(range(&identity, 1, 0).cycle, 15_625_000);
        let identity = Identity::new(0, 1, 64).unwrap();
        let events = range(&identity, 0, 63);
        assert_eq!((events.cycle, events.fine(), events.coarse()), (15_380, 7_691, 2_563));
        let apart = DENSE_SHIFTS.map(|shift| (events.coarse() - 1) << shift);
        assert_eq!(apart, [10_493_952, 655_872, 40_992]);
        let dead_letters = range(&identity, 1, 0);
        assert_eq!((dead_letters.cycle, dead_letters.fine(), dead_letters.coarse()), (15_625, 7_813, 2_604));
        let most = range(&Identity::new(0, 1, 1_000).unwrap(), 0, 999);
        assert_eq!(most.cycle, 984);
    }

    #[test]
    fn too_little_capacity_says_how_much_is_needed() {
        let refusal = Identity::new(10_000_000, 1, 64).unwrap_err();
        assert_eq!(refusal, NoRoom::Window { shortest: 65_015_874 });
        assert!(refusal.to_string().contains("66 ms"), "{refusal}");
        assert!(Identity::new(65_015_874, 1, 64).is_ok() && Identity::new(65_015_800, 1, 64).is_err());
        assert_eq!(Identity::new(0, 2, 501).unwrap_err(), NoRoom::SlotRanges { most: 1_000 });
        assert!(Identity::new(0, 2, 500).is_ok());
        assert!(Identity::new(SECOND, usize::MAX, u32::MAX).is_err());
    }

    #[test]
    fn partitions_and_topics_beyond_the_capacity_have_no_slot_range() {
        let identity = Identity::new(SECOND, 2, 3).unwrap();
        let ranges: Vec<_> = (0..4).flat_map(|topic| (0..4).map(move |part| (topic, part))).collect();
        let starts = ranges.iter().map(|&(topic, part)| identity.slot_range(topic, part).map(|range| range.start));
        let some = |range: std::ops::Range<i64>| range.map(Some).chain([None]);
        let dead_letters = [Some(SECOND - SECOND / 64), None, None, None];
        let expected: Vec<_> = some(0..3).chain(some(3..6)).chain(dead_letters).chain([None; 4]).collect();
        assert_eq!(starts.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_slot_range_of_dead_letters_stays_where_it_is() {
        for window in [0, SECOND, 60 * SECOND] {
            let one = Identity::new(window, 1, 64).unwrap();
            let more = Identity::new(window, 3, 300).unwrap();
            assert_eq!(one.slot_range(1, 0), more.slot_range(3, 0));
            let last = range(&more, 2, 299);
            assert!(last.place(last.cycle - 1) < range(&more, 3, 0).start);
            let dead_letters = range(&more, 3, 0);
            assert_eq!(dead_letters.place(dead_letters.cycle - 1), more.resolution() - 1);
        }
    }

    proptest! {
        /// Within `cycle` offsets no two batches of any slot ranges share a slot, and every slot lies inside the window.
        #[test]
        fn batches_have_slots_of_their_own(
            window in prop_oneof![Just(SECOND), Just(60 * SECOND), 100_000_000..10 * SECOND],
            topics in 1_usize..4,
            partitions in 1_u32..30,
            start in prop_oneof![0_u64..1 << 40, u64::MAX - (1 << 40)..u64::MAX - (1 << 34)],
            steps in prop::collection::vec(1_u64..400_000, 2..40),
            ranges in prop::collection::vec((0_u32..4, 0_u32..30), 1..6),
        ) {
            let identity = Identity::new(window, topics, partitions).unwrap();
            let dead_letters = [(u32::try_from(topics).unwrap(), 0)];
            let ranges = ranges.iter().chain(&dead_letters).filter_map(|&(topic, part)| identity.slot_range(topic, part));
            let ranges: Vec<SlotRange> = ranges.map(|range| (range.start, range)).collect::<BTreeMap<_, _>>().into_values().collect();
            let cycle = ranges.iter().map(|range| range.cycle).min().unwrap();
            let mut slots = BTreeSet::new();
            let mut written = 0;
            let mut first = start;
            for step in &steps {
                if first - start >= u64::try_from(cycle).unwrap() {
                    break;
                }
                for &range in &ranges {
                    let slot = identity.slot_of_batch(range, first);
                    prop_assert!((0..window).contains(&slot));
                    prop_assert_eq!(slot, identity.slot_of_batch(range, first));
                    slots.insert(slot);
                    written += 1;
                }
                first += step;
            }
            prop_assert_eq!(slots.len(), written);
        }

        /// The bound is exact: beyond it the same place comes again.
        #[test]
        fn the_bound_of_batches_is_exact(first in 0_u64..1 << 60, other in 0_u64..1 << 60) {
            let identity = Identity::new(SECOND, 1, 64).unwrap();
            for (range, cycle) in [(range(&identity, 0, 7), 15_380_859), (range(&identity, 1, 0), 15_625_000)] {
                let same = identity.slot_of_batch(range, first) == identity.slot_of_batch(range, other);
                prop_assert_eq!(same, first % cycle == other % cycle);
                prop_assert_eq!(identity.slot_of_batch(range, first), identity.slot_of_batch(range, first + cycle));
            }
        }

        /// Window 0: within the bounds, single events and dense batches never collide, and stay inside the millisecond.
        #[test]
        fn events_have_places_of_their_own(
            ranges in 1_u32..1_000,
            of_dead_letters in any::<bool>(),
            start in 0_u64..1 << 50,
            batches in prop::collection::vec((1_u64..6_000, any::<bool>()), 2..30),
        ) {
            let identity = Identity::new(0, 1, ranges).unwrap();
            let range = if of_dead_letters { range(&identity, 1, 0) } else { range(&identity, 0, ranges - 1) };
            let fine = u64::try_from(range.fine()).unwrap();
            let coarse = u64::try_from(range.coarse()).unwrap();
            let (mut slots, mut written) = (BTreeSet::new(), 0);
            let mut first = start;
            for (length, dense) in batches {
                let end = first + length;
                if dense && length >= 16 {
                    let bound = DENSE_SHIFTS.iter().find(|shift| length >> **shift > 0).map(|shift| (coarse - 1) << shift);
                    if first - start < bound.unwrap() {
                        slots.insert(identity.slot_of_dense(range, &id(first, end)));
                        written += 1;
                    }
                } else {
                    for offset in (first..end).filter(|offset| offset - start < fine) {
                        slots.insert(identity.slot_of_event(range, at(offset)));
                        written += 1;
                    }
                }
                first = end;
            }
            prop_assert_eq!(slots.len(), written);
            prop_assert!(slots.iter().all(|slot| (0..NANOS_PER_MILLI).contains(slot)));
            // Another slot range's places are other places.
            let room = NANOS_PER_MILLI - NANOS_PER_MILLI / 64;
            let is_own = |slot: &i64| match of_dead_letters {
                true => *slot >= room,
                false => *slot < room && slot % i64::from(ranges) == i64::from(ranges - 1),
            };
            prop_assert!(slots.iter().all(is_own));
        }
    }
}
