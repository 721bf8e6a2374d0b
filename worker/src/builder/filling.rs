use tallybus_schemas::{Coordinate, RawSeriesKey, Receiver};
use tallybus_sdk::{Point, Selector, SeriesTable};

use super::MAX_VALUE;
use super::known::{RawSeriesKeyCache, SeriesIndex};

/// Handle of a series that the selection leaves out.
const LEFT_OUT: u32 = u32::MAX;

/// A decoded event.
pub(super) struct Decoded {
    pub(super) series: u32,
    pub(super) value: u64,
    pub(super) time: i64,
    pub(super) index: u32,
}

/// Receives one message's events.
pub(super) struct Filling<'a> {
    pub(super) selector: &'a Selector,
    pub(super) index: &'a mut SeriesIndex,
    pub(super) raw_keys: &'a mut RawSeriesKeyCache,
    pub(super) series: &'a mut SeriesTable,
    pub(super) points: &'a mut Vec<Point>,
    pub(super) message: &'a mut Vec<Decoded>,
    pub(super) stands_for: u32,
    /// Of the next event.
    pub(super) at: Coordinate,
}

impl Receiver for Filling<'_> {
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        if !self.selector.takes(name) {
            return LEFT_OUT;
        }
        if self.selector.keeps_tags() {
            return self.index.number(name, tags, self.series);
        }
        let mut shaped = Vec::with_capacity(tags.len() + 4);
        self.selector.shape_tags(tags, &mut shaped);
        self.index.number(name, &shaped, self.series)
    }

    fn lookup(&mut self, key: RawSeriesKey<'_>) -> Option<u32> {
        self.raw_keys.lookup(key)
    }

    fn remember(&mut self, key: RawSeriesKey<'_>, series: u32) {
        self.raw_keys.remember(key, series);
    }

    fn event(&mut self, series: u32, value: u64, time: i64) {
        let first = self.at;
        self.at.index += 1;
        if series == LEFT_OUT {
            return;
        }
        // Without a window nothing is summed, so the points to be rolled back are the last ones.
        if self.selector.window == 0 && value <= MAX_VALUE {
            self.points.push(Point { series, time, value, events: self.stands_for, first });
        } else {
            self.message.push(Decoded { series, value, time, index: first.index });
        }
    }
}
