use std::collections::{BTreeMap, HashMap};

use tallybus_schemas::Series;
use tallybus_sdk::{Selector, WindowTotal, WindowsQuery, resolution};

use super::dead_letters::{DeadLetterPoint, DeadLetters};
use super::messages::Messages;
use super::pass::{Pass, read_topic};
use super::sink_progress::SinkProgress;
use super::tally::{Bounds, shape};
use super::{Audit, AuditError, AuditedSink, Difference, OffsetSpan, Place, read_back};

/// The value that the bus holds of one series in one window.
#[derive(Default)]
struct Window {
    bounds: Bounds,
    spans: BTreeMap<(String, u32), (u64, u64)>,
}

/// For each of these differences, finds the first window that differs and the offsets of its messages.
pub(super) fn locate(
    audit: &Audit<'_>,
    sink: &AuditedSink,
    dead_letters: &DeadLetters,
    differences: &mut [Difference],
    pass: &mut Pass<'_>,
) -> Result<(), AuditError> {
    let cannot = |reason: String| AuditError::Sink { sink: sink.name.clone(), reason };
    let selector = sink.shape.selector().map_err(cannot)?;
    let before = SinkProgress::read(audit.observer, sink).map_err(cannot)?;
    let mut held = Vec::with_capacity(differences.len());
    for difference in differences.iter() {
        let query = WindowsQuery::new((*difference.series).clone(), audit.range, resolution(selector.window));
        let mut sums: BTreeMap<i64, u128> = BTreeMap::new();
        let mut add = |window: WindowTotal| *sums.entry(window.start).or_default() += u128::from(window.total);
        let read = audit.runtime.block_on(read_back(sink).map_err(cannot)?.windows(&query, &mut add));
        read.map_err(|error| cannot(error.to_string()))?;
        held.push(sums);
    }
    let after = SinkProgress::read(audit.observer, sink).map_err(cannot)?;

    let wanted: HashMap<&Series, usize> =
        differences.iter().enumerate().map(|(index, difference)| (difference.series.as_ref(), index)).collect();
    let mut windows: Vec<BTreeMap<i64, Window>> = differences.iter().map(|_| BTreeMap::new()).collect();
    let mut messages = Messages::new(audit.encodings).map_err(AuditError::Encoding)?;
    let mut places: Vec<Option<Option<usize>>> = Vec::new();
    for topic in &sink.topics {
        read_topic(audit, topic, pass, &mut |record| {
            if messages.decode(record).is_err() {
                return;
            }
            let settled = before.mark(topic, record.partition).settled;
            let mark = after.mark(topic, record.partition);
            let sealed = mark.sealed.max(mark.settled);
            for row in messages.rows() {
                let number = row.series as usize;
                if number >= places.len() {
                    places.resize(number + 1, None);
                }
                let place = *places[number].get_or_insert_with(|| {
                    shape(&selector, messages.series(row.series)).and_then(|shaped| wanted.get(&shaped).copied())
                });
                let Some(place) = place else { continue };
                if record.offset >= sealed || !audit.range.contains(selector.window_start(row.time)) {
                    continue;
                }
                let window = windows[place].entry(bucket(&selector, row.time)).or_default();
                let is_dead = dead_letters.is_dead(topic, record.partition, record.offset, row.index);
                window.bounds.add(row.value, (record.offset, is_dead), settled, sealed);
                let span =
                    window.spans.entry((topic.clone(), record.partition)).or_insert((record.offset, record.offset));
                *span = (span.0.min(record.offset), span.1.max(record.offset));
            }
        })?;
    }
    for (index, difference) in differences.iter().enumerate() {
        let mut by_window: BTreeMap<i64, Vec<&DeadLetterPoint>> = BTreeMap::new();
        for point in dead_letters.points.get(difference.series.as_ref()).into_iter().flatten() {
            if point.offset < before.mark(&point.topic, point.partition).settled {
                by_window.entry(bucket(&selector, point.time)).or_default().push(point);
            }
        }
        for (start, points) in by_window {
            if let Some(window) = windows[index].get_mut(&start) {
                window.bounds.add_letters(points.iter().copied());
            }
        }
    }
    drop(wanted);
    for (index, difference) in differences.iter_mut().enumerate() {
        difference.place = first_difference(&selector, &windows[index], &held[index]);
    }
    Ok(())
}

fn first_difference(selector: &Selector, bus: &BTreeMap<i64, Window>, held: &BTreeMap<i64, u128>) -> Option<Place> {
    let mut starts: Vec<i64> = bus.keys().chain(held.keys()).copied().collect();
    starts.sort_unstable();
    starts.dedup();
    let nothing = Window::default();
    for start in starts {
        let window = bus.get(&start).unwrap_or(&nothing);
        let total = held.get(&start).copied().unwrap_or_default();
        let (missing, extra) = window.bounds.compare(total);
        if missing == 0 && extra == 0 {
            continue;
        }
        let offsets = window.spans.iter().map(|((topic, partition), &(first, last))| OffsetSpan {
            topic: topic.clone(),
            partition: *partition,
            first,
            end: last + 1,
        });
        return Some(Place {
            window_start: start,
            window: resolution(selector.window),
            expected: window.bounds.low,
            total,
            offsets: offsets.collect(),
        });
    }
    None
}

/// The window that contains a time, at the finest resolution at which a sink can be read back.
fn bucket(selector: &Selector, time: i64) -> i64 {
    time - time.rem_euclid(resolution(selector.window))
}
