//! The events of a life: where each is on the bus, and what should become of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use tallybus_bus::{StreamId, TopicPartition};
use tallybus_schemas::Series;

/// What a sink does with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Written,
    /// Nobody can decode it, or every backend refuses it.
    DeadLetter,
}

/// One event: a record of its own, with a name of its own and the value 1.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) expected: Expected,
}

impl Event {
    pub(crate) fn series(&self) -> Series {
        Series::from_sorted(&self.name, &[])
    }
}

/// A partition of one incarnation of a topic.
pub(crate) type Place = (TopicPartition, StreamId);

#[derive(Default)]
pub(crate) struct Events {
    places: BTreeMap<Place, BTreeMap<u64, Event>>,
    /// Deleted from the bus before every group had settled them.
    gone: BTreeSet<(Place, u64)>,
}

impl Events {
    pub(crate) fn add(&mut self, place: Place, offset: u64, event: Event) {
        self.places.entry(place).or_default().insert(offset, event);
    }

    pub(crate) fn within(&self, place: &Place, offsets: Range<u64>) -> impl Iterator<Item = (u64, &Event)> {
        let events = self.places.get(place).into_iter();
        events.flat_map(move |events| events.range(offsets.clone()).map(|(offset, event)| (*offset, event)))
    }

    /// Every event, with its place.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Place, u64, &Event)> {
        self.places.iter().flat_map(|(place, events)| events.iter().map(move |(offset, event)| (place, *offset, event)))
    }

    /// It never was on the bus, whatever its publisher was told.
    pub(crate) fn remove(&mut self, place: &Place, offset: u64) {
        if let Some(events) = self.places.get_mut(place) {
            events.remove(&offset);
        }
    }

    pub(crate) fn lose(&mut self, place: &Place, offset: u64) {
        self.gone.insert((place.clone(), offset));
    }

    pub(crate) fn is_gone(&self, place: &Place, offset: u64) -> bool {
        self.gone.contains(&(place.clone(), offset))
    }
}

/// The name of the event that a dead letter holds.
pub(crate) fn name_in(payload: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(payload).ok()?;
    if let Some(name) = text.strip_prefix("not an event: ") {
        return Some(name.to_owned());
    }
    let event: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(event.get("name")?.as_str()?.to_owned())
}
