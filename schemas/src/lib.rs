//! Counter events and the encodings in which they travel.
//!
//! Pure: no I/O, no clock, no `unsafe`. A decoder hands events to a [`Receiver`] one by one, in the order of the
//! message, so that a caller decides what to keep; nothing is allocated for a series that the caller knows already.

mod decoder;
mod encoding;
mod error;
mod event;
mod events;
mod foreign;
mod lines;
mod message;
mod native;
mod receiver;
mod scan;
mod scratch;
mod series;
mod time;

pub mod canonical;
pub mod checkpoint;
pub mod json;
pub mod line;

pub use decoder::Decoder;
pub use encoding::{ENCODING_HEADER, Encoding, UnknownEncoding};
pub use error::{SchemaError, SeriesError};
pub use event::{Coordinate, Event};
pub use events::{Events, decode_all};
pub use lines::{Line, Lines};
pub use native::NativeEncoder;
pub use receiver::{Origin, RawSeriesKey, Receiver};
pub use series::{Series, Tag};
pub use time::{TimeUnit, UnknownTimeUnit};
