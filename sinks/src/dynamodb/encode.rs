//! From a batch to what is asked of the table. Pure: the same requests for the same batch for ever.

use std::collections::HashMap as Attributes;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use hashbrown::HashMap;

use super::keys;
use crate::{Batch, Point, SeriesView};

/// What shapes an item.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) mode: Mode,
    pub(super) shards: u32,
    /// How long after its window an item expires.
    pub(super) ttl: Option<Duration>,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The sum of a series and window.
    Rollup,
    /// A point: with window 0, an event.
    Raw,
}

/// What is written to one item.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    pub(super) pk: String,
    pub(super) sk: String,
    pub(super) name: String,
    pub(super) tags: AttributeValue,
    /// What is added to the item, or what it holds.
    pub(super) value: u128,
    /// Seconds since the Unix epoch.
    pub(super) expires_at: Option<i64>,
    /// Which points of the batch it is made of.
    pub(super) points: Vec<usize>,
}

/// The batch as writes, each to another item, in the order of their first points.
pub(super) fn writes(batch: &Batch, layout: &Layout) -> Vec<Write> {
    let names: Vec<Name> = batch.series.iter().map(|series| Name::of(series)).collect();
    match layout.mode {
        Mode::Rollup => rollup(batch, layout, &names),
        Mode::Raw => raw(batch, layout, &names),
    }
}

/// A series, rendered once for all of its points.
struct Name {
    hash: String,
    name: String,
    tags: AttributeValue,
}

impl Name {
    fn of(series: SeriesView<'_>) -> Self {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let tags: Attributes<_, _> = series.tags().map(|(key, value)| (key.to_owned(), text(value))).collect();
        Self {
            hash: keys::series_hash(series.name(), series.tags()),
            name: series.name().to_owned(),
            tags: AttributeValue::M(tags),
        }
    }
}

/// An item is touched once by a batch: points of one series and time, which there are with window 0, are summed.
fn rollup(batch: &Batch, layout: &Layout, names: &[Name]) -> Vec<Write> {
    let lane = keys::lane_number(&batch.id.topic, batch.id.partition);
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
        writes.push(write(batch, layout, name, index, point, lane, keys::time_text(point.time)));
    }
    writes
}

fn raw(batch: &Batch, layout: &Layout, names: &[Name]) -> Vec<Write> {
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

fn write(batch: &Batch, layout: &Layout, name: &Name, index: usize, point: &Point, spread: u64, sk: String) -> Write {
    // The remainder of a division by a `u32` is one.
    let shard = u32::try_from(spread % u64::from(layout.shards)).unwrap_or_default();
    Write {
        pk: keys::partition_key(&name.hash, shard),
        sk,
        name: name.name.clone(),
        tags: name.tags.clone(),
        value: u128::from(point.value),
        expires_at: layout.ttl.map(|ttl| expires_at(point.time, batch.window, ttl)),
        points: vec![index],
    }
}

/// The first whole second at which the window lies `ttl` back.
fn expires_at(time: i64, window: i64, ttl: Duration) -> i64 {
    let ttl = i128::try_from(ttl.as_nanos()).unwrap_or(i128::MAX / 2);
    let nanos = i128::from(time) + i128::from(window) + ttl;
    let seconds = nanos.div_euclid(1_000_000_000) + i128::from(nanos.rem_euclid(1_000_000_000) != 0);
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
