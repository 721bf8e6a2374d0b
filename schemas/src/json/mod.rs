//! Events as JSON, for other languages and for the command line.
//!
//! ```json
//! {"ts":1700000000000000000,"name":"http.requests","value":1,"tags":{"service":"api","route":"/v1/sites"}}
//! ```
//! A message is one such object, an array of them, or newline-delimited ones.
//!
//! | field | meaning |
//! |---|---|
//! | `ts` | nanoseconds since the Unix epoch as an integer, or an RFC 3339 string with its offset; the record's own timestamp when missing |
//! | `name` | the counter's name; required |
//! | `value` | a whole number from 1 to 18446744073709551615, also written as `3.0` or `3e2`; 1 when missing |
//! | `tags` | an object; values are strings, or numbers, `true` and `false`, which become their text; `null`: no tag |
//!
//! Equal numbers in tags have one text: `200`, `200.0` and `2e2` are one tag value.
//!
//! Any other field, and any field given twice, is an error: a misspelt `vaule` must not count as 1.

mod decode;
mod encode;
mod fields;
mod number;
mod plain;

pub(crate) use decode::decode;
pub use encode::{write_event, write_increment};
pub(crate) use fields::whole;
