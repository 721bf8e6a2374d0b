//! Chooses the partition of a series.

use crate::table::Entry;
use crate::{registry, vec_growth};

const OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const PRIME: u64 = 0x0100_0000_01B3;

/// The partition of a series: FNV-1a (64 bits) over its name and its tags, the collector's own included, sorted by key,
/// each text followed by a zero byte; modulo the number of partitions. A function of the series and that number alone,
/// so that a series always goes to the same partition, whichever process or version sends it. When partitions are added
/// to the topic, series move to other partitions from then on.
fn partition_of(entry: &Entry, common: &[(String, String)], partitions: u32) -> u32 {
    let mut hash = text(OFFSET, entry.shape.name);
    let mut own = entry.tags().peekable();
    let mut common = common.iter().map(|(key, value)| (key.as_str(), value.as_str())).peekable();
    loop {
        let next = match (own.peek(), common.peek()) {
            (Some(left), Some(right)) if right.0 < left.0 => common.next(),
            (Some(left), Some(right)) => {
                // A series' own tag replaces the collector's.
                let is_same = left.0 == right.0;
                common.next_if(|_| is_same);
                own.next()
            }
            (Some(_), None) => own.next(),
            (None, _) => common.next(),
        };
        let Some((key, value)) = next else { break };
        hash = text(text(hash, key), value);
    }
    u32::try_from(hash % u64::from(partitions.max(1))).unwrap_or(0)
}

/// The partition of each series, cached: computing it takes longer than everything else that a flush does for a series.
#[derive(Debug)]
pub(crate) struct Partitioner {
    common: Vec<(String, String)>,
    partitions: u32,
    /// By series.
    known: Vec<u32>,
}

const UNKNOWN: u32 = u32::MAX;

impl Partitioner {
    /// `common` are the tags that every series gets, sorted by key.
    pub(crate) fn new(common: Vec<(String, String)>) -> Self {
        Self { common, partitions: 0, known: Vec::new() }
    }

    /// How many partitions the topic has now.
    pub(crate) fn set_partitions(&mut self, partitions: u32) {
        if self.partitions != partitions {
            self.partitions = partitions;
            self.known.clear();
        }
    }

    /// The partition of a series: below the number of partitions.
    pub(crate) fn of(&mut self, series: u32) -> u32 {
        let place = series as usize;
        vec_growth::lengthen(&mut self.known, place + 1, UNKNOWN);
        if self.known[place] == UNKNOWN
            && let Some(entry) = registry::entry(series)
        {
            self.known[place] = partition_of(entry, &self.common, self.partitions);
        }
        // A series that counts is registered; were one not, it would go to partition 0.
        if self.known[place] == UNKNOWN { 0 } else { self.known[place] }
    }
}

fn text(hash: u64, text: &str) -> u64 {
    text.bytes().chain([0]).fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    fn partition(keys: &[&str], values: &[&str], common: &[(&str, &str)], partitions: u32) -> u32 {
        let entry = registry::resolve("http.requests", keys, values).entry.unwrap();
        let common: Vec<_> = common.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        partition_of(entry, &common, partitions)
    }

    #[test]
    fn the_place_follows_from_the_whole_series_alone() {
        let together = partition(&["route", "service", "zone"], &["/v1", "api", "a"], &[], 1 << 20);
        assert_eq!(together, partition(&["route"], &["/v1"], &[("service", "api"), ("zone", "a")], 1 << 20));
        assert_eq!(together, partition(&["route", "zone"], &["/v1", "a"], &[("service", "api")], 1 << 20));
        assert_eq!(
            together,
            partition(&["route", "service", "zone"], &["/v1", "api", "a"], &[("service", "x"), ("zone", "b")], 1 << 20)
        );
        assert_ne!(together, partition(&["route"], &["/v1"], &[("service", "web"), ("zone", "a")], 1 << 20));
    }

    #[test]
    fn what_is_remembered_is_what_would_be_worked_out() {
        let ids: Vec<u32> =
            (0..1_000).map(|number| registry::resolve("p.places", &["n"], &[&number.to_string()]).series).collect();
        let common = vec![("service".to_owned(), "api".to_owned())];
        let mut partitioner = Partitioner::new(common.clone());
        for partitions in [4, 4, 7, 1, 4] {
            partitioner.set_partitions(partitions);
            for id in &ids {
                assert_eq!(partitioner.of(*id), partition_of(registry::entry(*id).unwrap(), &common, partitions));
            }
        }
    }

    #[test]
    fn the_place_never_changes_between_versions() {
        assert_eq!(text(OFFSET, ""), 0xAF63_BD4C_8601_B7DF);
        assert_eq!(text(OFFSET, "foobar"), (0x8594_4171_F739_67E8u64).wrapping_mul(PRIME));
    }

    #[test]
    fn series_spread() {
        let mut hits = [0; 8];
        for number in 0..1_000 {
            hits[partition(&["n"], &[&number.to_string()], &[], 8) as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (70..200).contains(hits)), "{hits:?}");
    }
}
