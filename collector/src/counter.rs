use crate::cells;

/// A series that can be raised without naming it again: for hot loops, and for tags that stay the same for a while.
///
/// Made by [`counter!`](crate::counter). May be kept anywhere, copied, and used from any thread; it works before a
/// collector is started and after it has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Counter {
    series: u32,
}

impl Counter {
    pub(crate) fn of(series: u32) -> Self {
        Self { series }
    }

    /// Raises the counter; 0 does nothing.
    #[inline]
    pub fn add(&self, value: u64) {
        cells::add(self.series, value);
    }

    /// Raises the counter by one.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }
}
