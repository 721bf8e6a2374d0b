//! How a record's message is read: shared by workers and by the commands that must see the same events.

use std::fmt;
use std::str::FromStr;

use tallybus_bus::Record;
use tallybus_schemas::{ENCODING_HEADER, Encoding, TimeUnit};

use crate::dead_letter::{KIND_HEADER, REJECTED};

/// The encoding of a message and the unit of the times that it writes as numbers, where they are declared.
///
/// As text, for settings and shapes: `json`, `json ms`, `ms`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Detected when absent.
    pub encoding: Option<Encoding>,
    /// Nanoseconds when absent; numbers that are most likely of another unit are then refused.
    pub time_unit: Option<TimeUnit>,
}

impl Reading {
    /// How this record is read; `self` is declared for its topic. A record's own header comes first.
    ///
    /// # Errors
    /// The bus cannot deliver the record's content, or the header does not name an encoding.
    pub fn of(self, record: &Record<'_>) -> Result<Self, String> {
        if let Some(reason) = record.unreadable {
            return Err(reason.to_owned());
        }
        let mut reading = self;
        if let Some(name) = record.headers.get(ENCODING_HEADER) {
            let name = std::str::from_utf8(name).map_err(|_| format!("the header `{ENCODING_HEADER}` is not UTF-8"))?;
            let encoding: Encoding =
                name.parse().map_err(|error| format!("the header `{ENCODING_HEADER}`: {error}"))?;
            reading.encoding = Some(encoding);
        }
        // What Tallybus wrote itself is in nanoseconds, whatever the topic's producers write.
        let is_own = || record.headers.get(KIND_HEADER) == Some(REJECTED.as_bytes());
        if reading.encoding != Some(Encoding::Native) && is_own() {
            reading.time_unit = Some(TimeUnit::Nanoseconds);
        }
        Ok(reading)
    }
}

/// The record's own time in nanoseconds since the Unix epoch; negative when it has none.
pub fn record_time(record: &Record<'_>) -> i64 {
    if record.time_ms < 0 { -1 } else { record.time_ms.saturating_mul(1_000_000) }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.encoding, self.time_unit) {
            (Some(encoding), Some(unit)) => write!(f, "{encoding} {unit}"),
            (Some(encoding), None) => encoding.fmt(f),
            (None, Some(unit)) => unit.fmt(f),
            (None, None) => Ok(()),
        }
    }
}

impl FromStr for Reading {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut reading = Self::default();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            match word.parse::<TimeUnit>() {
                Ok(unit) => reading.time_unit = Some(unit),
                Err(_) => reading.encoding = Some(word.parse::<Encoding>().map_err(|error| error.to_string())?),
            }
        }
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    use tallybus_bus::NoHeaders;

    use super::*;

    fn record(headers: &dyn tallybus_bus::Headers) -> Record<'_> {
        Record {
            topic: "t",
            partition: 0,
            offset: 0,
            time_ms: -1,
            key: None,
            payload: b"x",
            is_tombstone: false,
            unreadable: None,
            headers,
        }
    }

    #[test]
    fn text_goes_both_ways() {
        for text in ["", "json", "influx s", "us", "native"] {
            assert_eq!(text.parse::<Reading>().unwrap().to_string(), text);
        }
        assert!("jason".parse::<Reading>().unwrap_err().contains("unknown encoding"));
    }

    #[test]
    fn the_records_header_comes_before_what_is_declared_for_its_topic() {
        let declared: Reading = "json ms".parse().unwrap();
        assert_eq!(declared.of(&record(&NoHeaders)), Ok(declared));
        let header = |value: &[u8]| vec![(ENCODING_HEADER.to_owned(), value.to_vec())];
        assert_eq!(declared.of(&record(&header(b"influx"))).unwrap().encoding, Some(Encoding::Influx));
        let refused = |value: &[u8]| declared.of(&record(&header(value))).unwrap_err();
        assert_eq!(refused(b"js\xffon"), "the header `tallybus-encoding` is not UTF-8");
        assert!(refused(b"xml").starts_with("the header `tallybus-encoding`: unknown encoding"));
    }

    #[test]
    fn a_rejected_event_is_in_nanoseconds_whatever_is_declared() {
        let declared: Reading = "json ms".parse().unwrap();
        let headers = vec![(KIND_HEADER.to_owned(), REJECTED.as_bytes().to_vec())];
        assert_eq!(declared.of(&record(&headers)).unwrap().time_unit, Some(TimeUnit::Nanoseconds));
    }

    #[test]
    fn a_record_without_a_time_has_none() {
        assert_eq!(record_time(&record(&NoHeaders)), -1);
        assert_eq!(record_time(&Record { time_ms: 5, ..record(&NoHeaders) }), 5_000_000);
    }
}
