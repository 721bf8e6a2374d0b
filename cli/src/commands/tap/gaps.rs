use crate::text::{count_of, grouped};

/// How many gaps are named one by one: a compacted topic has gaps everywhere.
const MOST_NAMED: u64 = 10;

/// Offsets that the bus did not deliver.
#[derive(Debug)]
pub(super) struct Gaps {
    topic: String,
    /// The next offset of each partition, by number; `None` for those that are not read.
    next: Vec<Option<u64>>,
    gaps: u64,
    offsets: u64,
}

impl Gaps {
    pub(super) fn new(topic: &str, starts: &[(u32, u64)]) -> Self {
        let mut next = Vec::new();
        for (partition, start) in starts {
            let place = *partition as usize;
            next.resize(next.len().max(place + 1), None);
            next[place] = Some(*start);
        }
        Self { topic: topic.to_owned(), next, gaps: 0, offsets: 0 }
    }

    /// Takes note of a record; returns a line about the offsets that are missing before it.
    pub(super) fn record(&mut self, partition: u32, offset: u64) -> Option<String> {
        let next = self.advance(partition, offset.saturating_add(1))?;
        if offset <= next {
            return None;
        }
        self.missing(partition, next, offset, "transactions and compaction leave such gaps")
    }

    /// Takes note that everything before `first` was deleted; returns a line about it.
    pub(super) fn deleted(&mut self, partition: u32, first: u64) -> Option<String> {
        let next = self.advance(partition, first)?;
        self.missing(partition, next, first, "deleted before they were read")
    }

    /// Sets the next offset of a partition and returns the one before; `None` for a partition that is not read.
    fn advance(&mut self, partition: u32, to: u64) -> Option<u64> {
        let next = self.next.get_mut(partition as usize)?.as_mut()?;
        Some(std::mem::replace(next, to))
    }

    fn missing(&mut self, partition: u32, first: u64, end: u64, why: &str) -> Option<String> {
        self.gaps += 1;
        self.offsets += end.saturating_sub(first);
        let topic = &self.topic;
        let offsets = match end - 1 {
            last if last == first => format!("offset {first} is"),
            last => format!("offsets {first} to {last} are"),
        };
        match self.gaps {
            ..MOST_NAMED => Some(format!("gap: {topic}/{partition}: {offsets} not on the bus ({why})")),
            MOST_NAMED => Some(format!(
                "gap: {topic}/{partition}: {offsets} not on the bus ({why}); from here on gaps are only counted"
            )),
            _ => None,
        }
    }

    /// Where to go on reading: partitions and their next offsets.
    pub(super) fn positions(&self) -> Vec<(u32, u64)> {
        (0..).zip(&self.next).filter_map(|(partition, next)| Some((partition, (*next)?))).collect()
    }

    /// A line about all gaps, where not all were named.
    pub(super) fn summary(&self) -> Option<String> {
        let all = || format!("in total {} missing in {} gaps", count_of(self.offsets, "offset"), grouped(self.gaps));
        (self.gaps > MOST_NAMED).then(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_offsets_are_named_and_those_that_follow_each_other_are_not() {
        let mut gaps = Gaps::new("t", &[(0, 5), (2, 0)]);
        assert_eq!((gaps.record(0, 5), gaps.record(0, 6), gaps.record(2, 0)), (None, None, None));
        let named = "gap: t/0: offsets 7 to 8 are not on the bus (transactions and compaction leave such gaps)";
        assert_eq!(gaps.record(0, 9).as_deref(), Some(named));
        assert!(gaps.record(2, 2).unwrap().contains("t/2: offset 1 is not on the bus"));
        assert!(
            gaps.deleted(0, 15).unwrap().contains("offsets 10 to 14 are not on the bus (deleted before they were read")
        );
        assert_eq!(gaps.record(0, 15), None);
        assert_eq!(gaps.record(1, 99), None, "a partition that is not read");
        assert_eq!(gaps.positions(), [(0, 16), (2, 3)]);
        assert_eq!(gaps.summary(), None);
    }

    #[test]
    fn a_topic_full_of_gaps_names_the_first_ones_and_counts_all() {
        let mut gaps = Gaps::new("t", &[(0, 0)]);
        let named: Vec<String> = (0..1_000).filter_map(|number| gaps.record(0, number * 3 + 1)).collect();
        assert_eq!(named.len(), 10);
        assert!(named[9].ends_with("from here on gaps are only counted"), "{named:?}");
        assert_eq!(gaps.summary().as_deref(), Some("in total 1,999 offsets missing in 1,000 gaps"));
    }
}
