//! A second, simple encoder: the reference that the real one must match byte by byte.

use std::io::Write as _;
use std::ops::Range;

use rustc_hash::FxHashMap;
use tallybus_schemas::line;
use tallybus_sdk::{Batch, Encoded, Point, Rejection, SeriesView};

use crate::influxdb::identity::{DENSE, Identity, SlotRange};

const NANOS_PER_MILLI: i64 = 1_000_000;

const MAX_TIME: i64 = i64::MAX - 1;

/// Tag keys that InfluxDB, or Flux when it reads, reserves.
const RESERVED_KEYS: [&str; 7] = ["_field", "_measurement", "_start", "_stop", "_time", "_value", "time"];

pub(super) fn encode(batch: &Batch, identity: &Identity) -> Encoded {
    let Some(range) = identity.slot_range(batch.topic_index, batch.id.partition) else {
        // The write halts: this partition has no slot range.
        return Encoded::default();
    };
    let mut encoder =
        Encoder { batch, identity, range, keys: Keys::new(batch), text: Vec::new(), rejected: Vec::new() };
    if batch.window == 0 {
        encoder.events()
    } else {
        encoder.sums()
    }
    encoder.rejected.sort_by_key(|rejection| rejection.point);
    Encoded::bytes(encoder.text, encoder.rejected)
}

struct Encoder<'a> {
    batch: &'a Batch,
    identity: &'a Identity,
    range: SlotRange,
    keys: Keys,
    text: Vec<u8>,
    rejected: Vec<Rejection>,
}

/// The events of one series that share one time with window 0.
struct Spot {
    time: i64,
    series: u32,
    value: u64,
}

impl Encoder<'_> {
    /// One line for each point, all at the batch's slot.
    fn sums(&mut self) {
        let slot = self.identity.slot_of_batch(self.range, self.batch.id.first);
        for (index, point) in self.batch.points.iter().enumerate() {
            let outcome = at(point.time, slot).and_then(|time| self.line(point.series, point.value, time));
            if let Err(reason) = outcome {
                self.rejected.push(Rejection { point: index, reason });
            }
        }
    }

    /// With window 0: one line for each series, millisecond and message; one for the whole batch where those are many.
    fn events(&mut self) {
        let dense = self.dense_groups();
        let mut spots: Vec<Spot> = Vec::with_capacity(self.batch.points.len());
        let mut known = FxHashMap::default();
        let slot_of_batch = self.identity.slot_of_dense(self.range, &self.batch.id);
        for (index, point) in self.batch.points.iter().enumerate() {
            let milli = point.time.div_euclid(NANOS_PER_MILLI);
            let is_dense = dense.get(&(point.series, milli)).is_some_and(|group| group.messages >= DENSE);
            let slot = if is_dense { slot_of_batch } else { self.identity.slot_of_event(self.range, point.first) };
            let time = at(milli.saturating_mul(NANOS_PER_MILLI), slot);
            let outcome = time.and_then(|time| {
                self.keys.of(self.batch, point.series)?;
                let fresh = spots.len();
                let place = *known.entry((point.series, time)).or_insert(fresh);
                if place == fresh {
                    spots.push(Spot { time, series: point.series, value: 0 });
                }
                add(&mut spots[place], point)
            });
            if let Err(reason) = outcome {
                self.rejected.push(Rejection { point: index, reason });
            }
        }
        for spot in spots.iter().filter(|spot| spot.value > 0) {
            // The key of every spot is known to be sound.
            let _written = self.line(spot.series, spot.value, spot.time);
        }
    }

    /// How many messages of the batch hold events of the same series and millisecond.
    fn dense_groups(&self) -> FxHashMap<(u32, i64), Group> {
        let mut groups: FxHashMap<(u32, i64), Group> = FxHashMap::default();
        for point in &self.batch.points {
            let group = groups.entry((point.series, point.time.div_euclid(NANOS_PER_MILLI))).or_default();
            if group.messages == 0 || group.last_offset != point.first.offset {
                group.messages += 1;
                group.last_offset = point.first.offset;
            }
        }
        groups
    }

    fn line(&mut self, series: u32, value: u64, time: i64) -> Result<(), String> {
        let key = self.keys.of(self.batch, series)?;
        self.text.extend_from_slice(key);
        writeln!(self.text, " value={value}i {time}").unwrap();
        Ok(())
    }
}

#[derive(Default)]
struct Group {
    messages: usize,
    last_offset: u64,
}

fn at(start: i64, slot: i64) -> Result<i64, String> {
    start
        .checked_add(slot)
        .filter(|time| *time <= MAX_TIME)
        .ok_or_else(|| "its time is after 2262-04-11, the last day that InfluxDB can store".to_owned())
}

fn add(spot: &mut Spot, point: &Point) -> Result<(), String> {
    let sum = spot.value.checked_add(point.value).filter(|sum| i64::try_from(*sum).is_ok());
    spot.value = sum.ok_or("with the other events of its series and millisecond it exceeds 2^63 - 1")?;
    Ok(())
}

/// Series keys in line protocol, each rendered once.
struct Keys {
    text: Vec<u8>,
    known: Vec<Option<Result<Range<usize>, String>>>,
}

impl Keys {
    fn new(batch: &Batch) -> Self {
        Self { text: Vec::new(), known: vec![None; batch.series.len()] }
    }

    fn of(&mut self, batch: &Batch, series: u32) -> Result<&[u8], String> {
        let index = series as usize;
        let known = match &self.known[index] {
            Some(known) => known.clone(),
            None => self.known[index].insert(render(&mut self.text, batch.series.get(series))).clone(),
        };
        known.map(|range| &self.text[range])
    }
}

fn render(text: &mut Vec<u8>, series: SeriesView<'_>) -> Result<Range<usize>, String> {
    if series.name().starts_with('_') {
        return Err("name: InfluxDB reserves measurements that begin with an underscore".to_owned());
    }
    // The engine drops such a backslash, so that `a\ b` and `a b` would become one series.
    if series.name().as_bytes().windows(2).any(|pair| pair[0] == b'\\' && b" ,=\"".contains(&pair[1])) {
        return Err("name: InfluxDB drops a backslash before a space, comma, equals sign or quote".to_owned());
    }
    if let Some((key, _)) = series.tags().find(|(key, _)| RESERVED_KEYS.contains(key)) {
        return Err(format!("tags.{key}: InfluxDB reserves this tag key; remove it with `drop_tags` in `select`"));
    }
    let start = text.len();
    line::write_series_key(text, series.name(), &series.tags().collect::<Vec<_>>())
        .map_err(|error| error.to_string())?;
    Ok(start..text.len())
}
