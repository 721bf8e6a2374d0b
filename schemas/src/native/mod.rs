//! The native message: `proto/tallybus/v1/batch.proto`, written and read by hand because it is the hot path.

mod decode;
mod encode;
mod intern;
mod rows;
mod wire;

pub(crate) use decode::{NativeScratch, decode};
pub use encode::NativeEncoder;

/// The only version.
const VERSION: u64 = 1;

/// Field numbers of `batch.proto`.
mod field {
    pub(super) const VERSION: u32 = 1;
    pub(super) const PRODUCER: u32 = 2;
    pub(super) const SEQUENCE: u32 = 3;
    pub(super) const INTERVAL_START: u32 = 4;
    pub(super) const INTERVAL_END: u32 = 5;
    pub(super) const PARTITION_TOTAL: u32 = 6;
    pub(super) const EMITTED_TOTAL: u32 = 7;
    pub(super) const STRINGS: u32 = 8;
    pub(super) const COMMON_TAGS: u32 = 9;
    pub(super) const SERIES_NAME: u32 = 10;
    pub(super) const SERIES_TAG_COUNTS: u32 = 11;
    pub(super) const SERIES_TAGS: u32 = 12;
    pub(super) const EVENT_SERIES: u32 = 13;
    pub(super) const EVENT_VALUE: u32 = 14;
    pub(super) const EVENT_TIME: u32 = 15;

    /// The field's name, as its producer knows it.
    pub(super) const fn name(number: u32) -> &'static str {
        match number {
            VERSION => "version",
            PRODUCER => "producer",
            SEQUENCE => "sequence",
            INTERVAL_START => "interval_start",
            INTERVAL_END => "interval_end",
            PARTITION_TOTAL => "partition_total",
            EMITTED_TOTAL => "emitted_total",
            STRINGS => "strings",
            COMMON_TAGS => "common_tags",
            SERIES_NAME => "series_name",
            SERIES_TAG_COUNTS => "series_tag_counts",
            SERIES_TAGS => "series_tags",
            EVENT_SERIES => "event_series",
            EVENT_VALUE => "event_value",
            EVENT_TIME => "event_time",
            _ => "unknown field",
        }
    }
}
