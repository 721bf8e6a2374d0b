//! InfluxDB's line protocol: the format that existing producers send, and in which the InfluxDB sink names a series.
//!
//! ```text
//! http.requests,route=/v1/sites,status=200 value=3i 1700000000000000000
//! ```
//! The measurement is the counter's name and the one field `value` is the increment: an integer (`3i` or `3u`), or a float without
//! a fraction (`3` or `3.0`). Timestamps
//! are nanoseconds; a line without one gets the record's own timestamp. Blank lines and comments are skipped.
//! Any other field is an error that names it: a line that counts only in part would be a silent loss.
//!
//! Escapes are InfluxDB's: a backslash makes a comma, a space or (in tags) an equals sign part of the text, is dropped
//! before an equals sign or a double quote in a name, and is an ordinary character before anything else. So a text that ends in a backslash cannot be expressed.

mod decode;
mod encode;
mod plain;

pub(crate) use decode::decode;
pub use encode::write_series_key;
