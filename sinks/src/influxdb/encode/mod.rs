//! Encodes a batch as line protocol. Pure.

mod keys;
mod lines;

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use tallybus_sdk::{Batch, Encoded, NANOS_PER_MILLI, Point, Rejection};

use self::keys::Keys;
use self::lines::Lines;
use super::identity::{DENSE, Identity, SlotRange};

/// The last nanosecond that InfluxDB holds.
pub(super) const MAX_TIME: i64 = i64::MAX - 1;

/// Instead of a place in a list.
const NONE: u32 = u32::MAX;

/// Line protocol, gzipped if requested; points that it cannot express are rejected.
pub(super) fn encode(batch: &Batch, identity: &Identity, gzip: bool) -> Encoded {
    let Some(range) = identity.slot_range(batch.topic_index, batch.id.partition) else {
        // The write halts: this partition has no slot range.
        return Encoded::default();
    };
    let keys = Keys::new(&batch.series);
    let lines = Lines::new(gzip, batch.points.len(), batch.series.mean_len());
    // A key that most likely comes once is rendered where it is needed, and not kept.
    let keeps_keys = batch.series.len() < batch.points.len() / 2;
    let mut encoder = Encoder { batch, identity, range, keys, keeps_keys, lines, rejected: Vec::new() };
    if batch.window != 0 {
        encoder.sums();
    } else if each_stands_alone(batch) {
        encoder.events_apart();
    } else {
        encoder.events();
    }
    match encoder.lines.finish() {
        Ok(body) => Encoded::bytes(body, encoder.rejected),
        // Compression into memory does not fail; if it ever did, the plain text would be sent: the client checks which
        // it is.
        Err(_) => encode(batch, identity, false),
    }
}

struct Encoder<'a> {
    batch: &'a Batch,
    identity: &'a Identity,
    range: SlotRange,
    keys: Keys<'a>,
    keeps_keys: bool,
    lines: Lines,
    rejected: Vec<Rejection>,
}

/// The events of one series that share one time with window 0.
struct Spot {
    time: i64,
    series: u32,
    value: u64,
    /// The one before it in its group.
    before: u32,
}

impl Encoder<'_> {
    /// One line for each point, all at the batch's slot.
    fn sums(&mut self) {
        let slot = self.identity.slot_of_batch(self.range, self.batch.id.first);
        for (index, point) in self.batch.points.iter().enumerate() {
            let outcome = match at(point.time, slot) {
                Ok(time) => self.line(point.series, point.value, time),
                Err(reason) => Err(reason.to_owned()),
            };
            self.reject_if(index, outcome);
        }
    }

    /// With window 0, as [`Encoder::events`], where no two events share series and millisecond: a line for each.
    fn events_apart(&mut self) {
        for (index, point) in self.batch.points.iter().enumerate() {
            let slot = self.identity.slot_of_event(self.range, point.first);
            let time = at(milli_of(point).saturating_mul(NANOS_PER_MILLI), slot);
            let outcome = match time.and_then(|time| Ok((time, sum(0, point)?))) {
                Ok((time, value)) => self.line(point.series, value, time),
                Err(reason) => Err(reason.to_owned()),
            };
            self.reject_if(index, outcome);
        }
    }

    fn line(&mut self, series: u32, value: u64, time: i64) -> Result<(), String> {
        if self.keeps_keys {
            self.lines.push(self.keys.of(series)?, value, time);
            return Ok(());
        }
        let series = self.batch.series.get(series);
        self.lines.push_with(|text| keys::render(text, series), value, time)
    }

    fn reject_if(&mut self, point: usize, outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            self.rejected.push(Rejection { point, reason });
        }
    }

    /// With window 0: one line for each series, millisecond and message; one for the whole batch where those are many.
    fn events(&mut self) {
        let mut groups = Groups::of(&self.batch.points);
        let slot_of_batch = self.identity.slot_of_dense(self.range, &self.batch.id);
        let mut spots: Vec<Spot> = Vec::with_capacity(self.batch.points.len());
        for (index, point) in self.batch.points.iter().enumerate() {
            let group = groups.shared_by(index);
            let is_dense = group.as_ref().is_some_and(|group| group.messages >= DENSE);
            let slot = if is_dense { slot_of_batch } else { self.identity.slot_of_event(self.range, point.first) };
            let time = at(milli_of(point).saturating_mul(NANOS_PER_MILLI), slot);
            let outcome = time.and_then(|time| {
                self.keys.of(point.series)?;
                let last = group.as_ref().map_or(NONE, |group| group.last_spot);
                let place = match spot_at(&spots, last, time) {
                    Some(place) => place,
                    None => {
                        if let Some(group) = group {
                            group.last_spot = narrow(spots.len());
                        }
                        spots.push(Spot { time, series: point.series, value: 0, before: last });
                        spots.len() - 1
                    }
                };
                spots[place].value = sum(spots[place].value, point)?;
                Ok(())
            });
            if let Err(reason) = outcome {
                self.rejected.push(Rejection { point: index, reason: reason.to_owned() });
            }
        }
        for spot in spots.iter().filter(|spot| spot.value > 0) {
            // The key of every spot is known to be sound.
            if let Ok(key) = self.keys.of(spot.series) {
                self.lines.push(key, spot.value, spot.time);
            }
        }
    }
}

/// Which points of a batch share series and millisecond with others; in most batches none.
///
/// Points of two groups never have the same time, because a slot is shorter than a millisecond.
struct Groups {
    /// For each point its place in `shared`, or [`NONE`].
    of_point: Vec<u32>,
    shared: Vec<Group>,
}

/// Two points or more of one series and millisecond.
struct Group {
    /// How many messages they came in.
    messages: usize,
    last_offset: u64,
    last_spot: u32,
}

impl Groups {
    fn of(points: &[Point]) -> Self {
        let mut groups = Self { of_point: vec![NONE; points.len()], shared: Vec::new() };
        // The first points of their series and millisecond. Producers choose both, hence the seeded hash.
        let mut firsts: HashTable<u32> = HashTable::with_capacity(points.len());
        let hasher = DefaultHashBuilder::default();
        for (index, point) in points.iter().enumerate() {
            let key = (point.series, milli_of(point));
            let hash = hasher.hash_one(key);
            let is_same = |&first: &u32| {
                let first = &points[first as usize];
                (first.series, milli_of(first)) == key
            };
            match firsts.find(hash, is_same) {
                Some(&first) => groups.join(index, first as usize, points),
                None => {
                    // The capacity is enough for all, so the table never rehashes.
                    firsts.insert_unique(hash, narrow(index), |_| hash);
                }
            }
        }
        groups
    }

    fn join(&mut self, index: usize, first: usize, points: &[Point]) {
        if self.of_point[first] == NONE {
            self.of_point[first] = narrow(self.shared.len());
            self.shared.push(Group { messages: 1, last_offset: points[first].first.offset, last_spot: NONE });
        }
        self.of_point[index] = self.of_point[first];
        let group = &mut self.shared[self.of_point[first] as usize];
        if group.last_offset != points[index].first.offset {
            group.messages += 1;
            group.last_offset = points[index].first.offset;
        }
    }

    fn shared_by(&mut self, point: usize) -> Option<&mut Group> {
        self.shared.get_mut(self.of_point[point] as usize)
    }
}

/// Searches the spots of one group, of which there are fewer than [`DENSE`].
fn spot_at(spots: &[Spot], last: u32, time: i64) -> Option<usize> {
    let mut place = last as usize;
    while let Some(spot) = spots.get(place) {
        if spot.time == time {
            return Some(place);
        }
        place = spot.before as usize;
    }
    None
}

fn milli_of(point: &Point) -> i64 {
    point.time.div_euclid(NANOS_PER_MILLI)
}

/// A batch has fewer points than its records have bytes.
fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}

fn at(start: i64, slot: i64) -> Result<i64, &'static str> {
    let time = start.checked_add(slot).filter(|time| *time <= MAX_TIME);
    time.ok_or("its time is after 2262-04-11, the last day that InfluxDB can store")
}

fn sum(value: u64, point: &Point) -> Result<u64, &'static str> {
    let sum = value.checked_add(point.value).filter(|sum| i64::try_from(*sum).is_ok());
    sum.ok_or("with the other events of its series and millisecond it exceeds 2^63 - 1")
}

/// Whether the times of each series rise by a millisecond at least: then no two points can collide, and no search is
/// needed.
fn each_stands_alone(batch: &Batch) -> bool {
    let mut last = vec![i64::MIN; batch.series.len()];
    batch.points.iter().all(|point| {
        let (milli, last) = (milli_of(point), &mut last[point.series as usize]);
        std::mem::replace(last, milli) < milli
    })
}

#[cfg(test)]
mod tests;
