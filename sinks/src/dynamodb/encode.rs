//! Encodes a batch as requests to the table. Pure: the same batch always gives the same requests.

use std::collections::HashMap as Attributes;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use hashbrown::HashMap;
use tallybus_sdk::{Batch, Encoded, Point, SeriesView};

use super::keys;

/// The settings that determine an item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) mode: Mode,
    pub(super) shards: u32,
    /// How long after its window an item expires.
    pub(super) ttl: Option<Duration>,
}

/// The mode: what one item holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The sum of a series and window.
    Rollup,
    /// A point: with window 0, an event.
    Raw,
}

/// One write to one item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    pub(super) name: Arc<Name>,
    shard: u32,
    pub(super) sk: String,
    /// The value that is added to the item, or that it holds.
    pub(super) value: u128,
    /// Seconds since the Unix epoch.
    pub(super) expires_at: Option<i64>,
    /// The points of the batch that it contains.
    pub(super) points: Vec<usize>,
}

impl Write {
    /// The item's partition key.
    pub(super) fn pk(&self) -> String {
        keys::partition_key(&self.name.hash, self.shard)
    }
}

/// The writes of a batch, each to another item, in the order of their first points.
#[derive(Debug, PartialEq)]
pub(super) struct Writes(pub(super) Vec<Write>);

/// Encodes the batch as writes.
pub(super) fn encode(batch: &Batch, layout: &Layout) -> Encoded {
    let names: Vec<Arc<Name>> = batch.series.iter().map(|series| Arc::new(Name::of(series))).collect();
    let writes = match layout.mode {
        Mode::Rollup => rollup(batch, layout, &names),
        Mode::Raw => raw(batch, layout, &names),
    };
    let of_names: usize = names.iter().map(|name| name.memory).sum();
    let of_writes: usize =
        writes.iter().map(|write| size_of::<Write>() + write.sk.len() + 8 * write.points.len()).sum();
    Encoded::value(Writes(writes), of_names + of_writes, Vec::new())
}

/// A series, rendered once for all of its points.
#[derive(Debug, PartialEq)]
pub(super) struct Name {
    hash: String,
    pub(super) name: String,
    pub(super) tags: AttributeValue,
    memory: usize,
}

impl Name {
    fn of(series: SeriesView<'_>) -> Self {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let tags: Attributes<_, _> = series.tags().map(|(key, value)| (key.to_owned(), text(value))).collect();
        let hash = keys::series_hash(series.name(), series.tags());
        let tag = size_of::<(String, AttributeValue)>();
        let of_tags: usize = series.tags().map(|(key, value)| tag + key.len() + value.len()).sum();
        let memory = size_of::<Self>() + hash.len() + series.name().len() + of_tags;
        Self { hash, name: series.name().to_owned(), tags: AttributeValue::M(tags), memory }
    }
}

/// A batch writes to each item at most once: points of one series and time, which occur with window 0, are summed.
fn rollup(batch: &Batch, layout: &Layout, names: &[Arc<Name>]) -> Vec<Write> {
    let number = keys::partition_number(&batch.id.topic, batch.id.partition);
    let mut places: HashMap<(&str, i64), usize> = HashMap::with_capacity(batch.points.len());
    let mut writes: Vec<Write> = Vec::with_capacity(batch.points.len());
    for (index, point) in batch.points.iter().enumerate() {
        let name = &names[point.series as usize];
        if let Some(&place) = places.get(&(name.hash.as_str(), point.time)) {
            writes[place].value += u128::from(point.value);
            writes[place].points.push(index);
            continue;
        }
        places.insert((&name.hash, point.time), writes.len());
        writes.push(write(batch, layout, name, index, point, number, keys::time_text(point.time)));
    }
    writes
}

fn raw(batch: &Batch, layout: &Layout, names: &[Arc<Name>]) -> Vec<Write> {
    let topic = keys::topic_text(&batch.id.topic);
    let one = |(index, point): (usize, &Point)| {
        let name = &names[point.series as usize];
        let first = &point.first;
        let sk =
            format!("{}/{topic}/{}/{}/{}", keys::time_text(point.time), first.partition, first.offset, first.index);
        write(batch, layout, name, index, point, first.offset.wrapping_add(u64::from(first.index)), sk)
    };
    batch.points.iter().enumerate().map(one).collect()
}

fn write(
    batch: &Batch,
    layout: &Layout,
    name: &Arc<Name>,
    index: usize,
    point: &Point,
    spread: u64,
    sk: String,
) -> Write {
    // The remainder of a division by a `u32` is one.
    let shard = u32::try_from(spread % u64::from(layout.shards)).unwrap_or_default();
    Write {
        name: Arc::clone(name),
        shard,
        sk,
        value: u128::from(point.value),
        expires_at: layout.ttl.map(|ttl| expires_at(point.time, batch.window, ttl)),
        points: vec![index],
    }
}

/// The first whole second at which the window is `ttl` in the past.
fn expires_at(time: i64, window: i64, ttl: Duration) -> i64 {
    let ttl = i128::try_from(ttl.as_nanos()).unwrap_or(i128::MAX / 2);
    let nanos = i128::from(time) + i128::from(window) + ttl;
    let seconds = nanos.div_euclid(1_000_000_000) + i128::from(nanos.rem_euclid(1_000_000_000) != 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use tallybus_schemas::{Coordinate, Series};
    use tallybus_sdk::BatchId;

    use super::*;

    const ROLLUP: Layout = Layout { mode: Mode::Rollup, shards: 1, ttl: None };
    const RAW: Layout = Layout { mode: Mode::Raw, shards: 8, ttl: None };

    fn writes(batch: &Batch, layout: &Layout) -> Vec<Write> {
        let encoded = encode(batch, layout);
        assert!(encoded.memory >= size_of::<Write>() * batch.points.len().min(1));
        encoded.as_value::<Writes>().unwrap().0.clone()
    }

    /// Points of these series and times, worth 1, 2, 3 and so on.
    fn batch(window: i64, points: &[(u32, i64)]) -> Batch {
        let point = |(index, &(series, time)): (usize, &(u32, i64))| {
            let first =
                Coordinate { partition: 5, offset: 100 + index as u64 / 3, index: u32::try_from(index % 3).unwrap() };
            Point { series, time, value: 1 + index as u64, events: 1, first }
        };
        Batch {
            id: BatchId { topic: "t".into(), partition: 5, first: 100, end: 101 + points.len() as u64 / 3 },
            topic_index: 0,
            series: Arc::new((0..9).map(|n| Series::from_sorted(&format!("n{n}"), &[("k", "v")])).collect()),
            points: points.iter().enumerate().map(point).collect(),
            window,
            part: String::new(),
            stream: None,
            recovered: false,
        }
    }

    #[test]
    fn rollup_touches_an_item_once_and_sums_what_meets() {
        let writes = writes(&batch(0, &[(1, 7), (2, 7), (1, 8), (1, 7), (2, 7)]), &ROLLUP);
        let found: Vec<_> =
            writes.iter().map(|write| (write.name.name.as_str(), write.value, write.points.as_slice())).collect();
        assert_eq!(found, [("n1", 5, &[0_usize, 3][..]), ("n2", 7, &[1, 4]), ("n1", 3, &[2])]);
        assert_eq!(writes[0].sk, "1970-01-01T00:00:00.000000007Z");
        assert!(writes[0].pk().ends_with("#0") && writes[0].pk() == writes[2].pk());
    }

    #[test]
    fn an_event_s_item_is_named_by_its_coordinate() {
        let writes = writes(&batch(0, &[(1, 7), (1, 7), (1, 7), (1, 7)]), &RAW);
        let keys: Vec<&str> = writes.iter().map(|write| write.sk.as_str()).collect();
        let time = "1970-01-01T00:00:00.000000007Z";
        let expected =
            ["t/5/100/0", "t/5/100/1", "t/5/100/2", "t/5/101/0"].map(|coordinate| format!("{time}/{coordinate}"));
        assert_eq!(keys, expected);
        let shards: BTreeSet<String> = writes.iter().map(|write| write.pk().split_off(64)).collect();
        assert_eq!(shards, BTreeSet::from(["#4", "#5", "#6"].map(str::to_owned)));
    }

    #[test]
    fn partitions_are_spread_over_shards_and_keep_theirs() {
        let layout = Layout { shards: 4, ..ROLLUP };
        let shard = |partition: u32| {
            let mut batch = batch(1_000, &[(1, 0)]);
            batch.id.partition = partition;
            writes(&batch, &layout)[0].pk().split_off(64)
        };
        let shards: Vec<String> = (0..8).map(shard).collect();
        assert_eq!(shards[..4], shards[4..]);
        assert_eq!(shards.iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn an_item_expires_so_long_after_its_window() {
        let second = 1_000_000_000;
        let ttl = Duration::from_secs(60);
        for (time, window, expected) in [
            (0, second, 61),
            (1, 0, 61),
            (5 * second, 60 * second, 125),
            (-second, second, 60),
            (i64::MAX, 0, 9_223_372_097),
        ] {
            assert_eq!(expires_at(time, window, ttl), expected, "{time} {window}");
        }
        assert_eq!(writes(&batch(second, &[(1, 0)]), &Layout { ttl: Some(ttl), ..ROLLUP })[0].expires_at, Some(61));
    }

    #[test]
    fn the_longest_series_fits_into_keys_and_item() {
        use tallybus_schemas::canonical::{MAX_KEY, MAX_NAME, MAX_TAGS, MAX_VALUE};
        let tags: Vec<(String, String)> =
            (0..MAX_TAGS).map(|n| (format!("{n:0>MAX_KEY$}"), "v".repeat(MAX_VALUE))).collect();
        let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut batch = batch(0, &[(0, i64::MIN)]);
        batch.series = Arc::new([Series::from_sorted(&"n".repeat(MAX_NAME), &tags)].iter().collect());
        batch.id.topic = "t".repeat(249).into();
        for layout in [ROLLUP, RAW] {
            let write = writes(&batch, &layout).remove(0);
            assert!(write.pk().len() <= 2_048 && write.sk.len() <= 1_024);
            let AttributeValue::M(tags) = &write.name.tags else { panic!("no map") };
            // As DynamoDB counts: names, values, and 3 bytes and 1 for each element of a map.
            let tags = tags.iter().fold(3, |size, (key, value)| size + 1 + key.len() + value.as_s().unwrap().len());
            let size = write.pk().len() + write.sk.len() + write.name.name.len() + tags + 200;
            assert!(size < 84 << 10 && size * super::super::client::PUTS < 16 << 20, "{size}");
        }
    }

    proptest! {
        /// Every point is in exactly one write, no two writes go to one item, and nothing is lost; halves touch other items
        /// than each other.
        #[test]
        fn every_point_is_written_once(
            points in prop::collection::vec((0_u32..9, 0_i64..4), 0..60),
            is_raw in any::<bool>(),
            shards in 1_u32..5,
        ) {
            let points: Vec<(u32, i64)> = points.into_iter().map(|(series, time)| (series, time * 600_000)).collect();
            let layout = Layout { mode: if is_raw { Mode::Raw } else { Mode::Rollup }, shards, ttl: None };
            let whole = batch(0, &points);
            let found = writes(&whole, &layout);
            let mut places: Vec<usize> = found.iter().flat_map(|write| write.points.clone()).collect();
            places.sort_unstable();
            prop_assert_eq!(places, (0..points.len()).collect::<Vec<_>>());
            let keys: BTreeSet<(String, &str)> = found.iter().map(|write| (write.pk(), write.sk.as_str())).collect();
            prop_assert_eq!(keys.len(), found.len());
            prop_assert_eq!(found.iter().map(|write| write.value).sum::<u128>(), whole.total());
            prop_assert_eq!(&found, &writes(&whole, &layout));
            if let Some((left, right)) = whole.split() {
                let (left, right) = (writes(&left, &layout), writes(&right, &layout));
                prop_assert_eq!(left.len() + right.len(), found.len());
                let all: BTreeSet<(String, &str)> =
                    left.iter().chain(&right).map(|write| (write.pk(), write.sk.as_str())).collect();
                prop_assert_eq!(all.len(), found.len());
            }
        }
    }
}
