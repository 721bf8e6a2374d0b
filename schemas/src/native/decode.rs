use std::mem;

use super::wire::{Column, Fault, Reader, WRONG_TYPE, Wire, unzigzag};
use super::{VERSION, field};
use crate::canonical::{MAX_TAGS, TOO_MANY_TAGS, UNPRINTABLE, arrange_printable, is_printable};
use crate::error::excerpt;
use crate::scratch::recycle;
use crate::{Encoding, Origin, Receiver, SchemaError};

/// Working memory for one message, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct NativeScratch {
    strings: Vec<&'static str>,
    tags: Vec<(&'static str, &'static str)>,
    common: Vec<(&'static str, &'static str)>,
    merged: Vec<(&'static str, &'static str)>,
    handles: Vec<u32>,
    columns: Columns,
}

#[derive(Debug, Default)]
struct Columns {
    common_tags: Column<u32>,
    series_name: Column<u32>,
    series_tag_counts: Column<u32>,
    series_tags: Column<u32>,
    event_series: Column<u32>,
    event_value: Column<u64>,
    event_time: Column<u64>,
}

type Tags<'a> = Vec<(&'a str, &'a str)>;

/// Decodes one batch.
pub(crate) fn decode(
    scratch: &mut NativeScratch,
    payload: &[u8],
    receiver: &mut dyn Receiver,
) -> Result<u32, SchemaError> {
    let mut strings = recycle(mem::take(&mut scratch.strings));
    let mut rows = Rows {
        strings: &[],
        tags: recycle(mem::take(&mut scratch.tags)),
        common: recycle(mem::take(&mut scratch.common)),
        merged: recycle(mem::take(&mut scratch.merged)),
    };
    scratch.columns.clear();

    let outcome = scratch.columns.read(payload, &mut strings).and_then(|origin| {
        rows.strings = &strings;
        receiver.origin(&origin);
        mark_used(&scratch.columns, &mut scratch.handles)?;
        rows.announce(&scratch.columns, &mut scratch.handles, receiver)?;
        deliver(&scratch.columns, &scratch.handles, origin.interval_end, receiver)
    });

    scratch.tags = recycle(rows.tags);
    scratch.common = recycle(rows.common);
    scratch.merged = recycle(rows.merged);
    scratch.strings = recycle(strings);
    outcome
}

fn refuse(field: impl Into<String>, position: usize, reason: impl Into<String>) -> SchemaError {
    SchemaError { encoding: Encoding::Native.name(), field: field.into(), position, reason: reason.into() }
}

impl Columns {
    fn clear(&mut self) {
        self.common_tags.clear();
        self.series_name.clear();
        self.series_tag_counts.clear();
        self.series_tags.clear();
        self.event_series.clear();
        self.event_value.clear();
        self.event_time.clear();
    }

    /// Reads every field of the message; checks each for itself.
    fn read<'a>(&mut self, payload: &'a [u8], strings: &mut Vec<&'a str>) -> Result<Origin, SchemaError> {
        let mut reader = Reader::new(payload);
        let mut is_versioned = false;
        let mut producer = None;
        let mut origin = Origin {
            producer: [0; 16],
            sequence: 0,
            interval_start: 0,
            interval_end: 0,
            partition_total: 0,
            emitted_total: 0,
        };
        while !reader.is_at_end() {
            let (number, wire) = reader.key().map_err(|fault| refuse("message", fault.position, fault.reason))?;
            let position = reader.position();
            let of_field = |fault: Fault| refuse(field::name(number), fault.position, fault.reason);
            match number {
                field::VERSION => {
                    check_version(read_number(wire, &mut reader).map_err(of_field)?, position)?;
                    is_versioned = true;
                }
                field::PRODUCER => {
                    let bytes = read_bytes(wire, &mut reader).map_err(of_field)?;
                    let id = bytes.try_into().map_err(|_| refuse("producer", position, "a producer has 16 bytes"))?;
                    producer = Some(id);
                }
                field::SEQUENCE => origin.sequence = read_number(wire, &mut reader).map_err(of_field)?,
                field::INTERVAL_START => origin.interval_start = read_time(wire, &mut reader).map_err(of_field)?,
                field::INTERVAL_END => origin.interval_end = read_time(wire, &mut reader).map_err(of_field)?,
                field::PARTITION_TOTAL => origin.partition_total = read_number(wire, &mut reader).map_err(of_field)?,
                field::EMITTED_TOTAL => origin.emitted_total = read_number(wire, &mut reader).map_err(of_field)?,
                field::STRINGS => {
                    let bytes = read_bytes(wire, &mut reader).map_err(of_field)?;
                    let name = || format!("strings[{}]", strings.len());
                    let text = std::str::from_utf8(bytes).map_err(|_| refuse(name(), position, "not UTF-8"))?;
                    if !is_printable(text) {
                        return Err(refuse(name(), position, UNPRINTABLE));
                    }
                    strings.push(text);
                }
                field::COMMON_TAGS => self.common_tags.read(wire, &mut reader).map_err(of_field)?,
                field::SERIES_NAME => self.series_name.read(wire, &mut reader).map_err(of_field)?,
                field::SERIES_TAG_COUNTS => self.series_tag_counts.read(wire, &mut reader).map_err(of_field)?,
                field::SERIES_TAGS => self.series_tags.read(wire, &mut reader).map_err(of_field)?,
                field::EVENT_SERIES => self.event_series.read(wire, &mut reader).map_err(of_field)?,
                field::EVENT_VALUE => self.event_value.read(wire, &mut reader).map_err(of_field)?,
                field::EVENT_TIME => self.event_time.read(wire, &mut reader).map_err(of_field)?,
                _ => reader.skip(wire).map_err(of_field)?,
            }
        }
        if !is_versioned {
            return Err(refuse("version", 0, "a batch has a version"));
        }
        origin.producer = producer.ok_or_else(|| refuse("producer", payload.len(), "a batch names its producer"))?;
        Ok(origin)
    }
}

fn check_version(version: u64, position: usize) -> Result<(), SchemaError> {
    match version {
        VERSION => Ok(()),
        0 => Err(refuse("version", position, "versions begin with 1")),
        newer => {
            let reason = format!("version {newer} needs a newer reader, this one knows version {VERSION}: upgrade it");
            Err(refuse("version", position, reason))
        }
    }
}

fn read_number(wire: Wire, reader: &mut Reader<'_>) -> Result<u64, Fault> {
    if wire != Wire::Varint {
        return Err(Fault { position: reader.position(), reason: WRONG_TYPE });
    }
    reader.varint()
}

fn read_time(wire: Wire, reader: &mut Reader<'_>) -> Result<i64, Fault> {
    let position = reader.position();
    let time = read_number(wire, reader)?;
    i64::try_from(time).map_err(|_| Fault { position, reason: "a time is not negative" })
}

fn read_bytes<'a>(wire: Wire, reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
    if wire != Wire::Bytes {
        return Err(Fault { position: reader.position(), reason: WRONG_TYPE });
    }
    reader.bytes()
}

/// Stands for a row without a handle as long as there are no handles yet.
const UNUSED: u32 = 0;
const USED: u32 = 1;

/// Checks the shape of the event columns and marks the series rows that they use.
fn mark_used(columns: &Columns, handles: &mut Vec<u32>) -> Result<(), SchemaError> {
    let Columns { series_name, event_series, event_value, event_time, .. } = columns;
    let (rows, events) = (series_name.values.len(), event_value.values.len());
    handles.clear();
    if event_series.values.is_empty() {
        handles.resize(rows, USED);
        if rows != events {
            let reason = format!("{events} values for {rows} series, and no event_series to tell whose they are");
            return Err(refuse("event_value", event_value.position(), reason));
        }
    } else {
        handles.resize(rows, UNUSED);
        if event_series.values.len() != events {
            let reason = format!("{} entries for {events} values", event_series.values.len());
            return Err(refuse("event_series", event_series.position(), reason));
        }
        for (event, &row) in event_series.values.iter().enumerate() {
            let Some(mark) = handles.get_mut(row as usize) else {
                let reason = format!("there is no series {row}, only {rows}");
                return Err(refuse(format!("event_series[{event}]"), event_series.position(), reason));
            };
            *mark = USED;
        }
    }
    if !event_time.values.is_empty() && event_time.values.len() != events {
        let reason = format!("{} entries for {events} values", event_time.values.len());
        return Err(refuse("event_time", event_time.position(), reason));
    }
    Ok(())
}

/// Puts the series together.
struct Rows<'a, 's> {
    strings: &'s [&'a str],
    tags: Tags<'a>,
    common: Tags<'a>,
    merged: Tags<'a>,
}

impl<'a> Rows<'a, '_> {
    /// Checks every row, and announces those in use: their marks become the receiver's handles.
    fn announce(
        &mut self,
        columns: &Columns,
        handles: &mut [u32],
        receiver: &mut dyn Receiver,
    ) -> Result<(), SchemaError> {
        self.read_common(&columns.common_tags)?;
        let Columns { series_name, series_tag_counts, series_tags, .. } = columns;
        if series_tag_counts.values.len() != series_name.values.len() {
            let reason = format!("{} entries for {} series", series_tag_counts.values.len(), series_name.values.len());
            return Err(refuse("series_tag_counts", series_tag_counts.position(), reason));
        }

        let mut rest = series_tags.values.as_slice();
        for (row, handle) in handles.iter_mut().enumerate() {
            let name = self.string(series_name, row, "series_name")?;
            let count = series_tag_counts.values[row] as usize;
            if count > MAX_TAGS {
                let field = format!("series_tag_counts[{row}]");
                return Err(refuse(field, series_tag_counts.position(), TOO_MANY_TAGS));
            }
            let Some((own, others)) = rest.split_at_checked(count * 2) else {
                return Err(refuse("series_tags", series_tags.position(), "fewer entries than series_tag_counts says"));
            };
            let from = series_tags.values.len() - rest.len();
            rest = others;
            self.tags.clear();
            for at in (from..from + own.len()).step_by(2) {
                let key = self.string(series_tags, at, "series_tags")?;
                self.tags.push((key, self.string(series_tags, at + 1, "series_tags")?));
            }

            let refuse_row = |error: crate::SeriesError| {
                let field = format!("series[{row}].{}", error.field);
                refuse(field, series_name.position(), format!("{} (in series {:?})", error.reason, excerpt(name)))
            };
            arrange_printable(name, &mut self.tags).map_err(refuse_row)?;
            let tags = if self.common.is_empty() {
                &self.tags
            } else {
                merge(&self.tags, &self.common, &mut self.merged);
                &self.merged
            };
            if tags.len() > MAX_TAGS {
                return Err(refuse_row(crate::SeriesError::tags(TOO_MANY_TAGS)));
            }
            if *handle == USED {
                *handle = receiver.series(name, tags);
            }
        }
        if !rest.is_empty() {
            return Err(refuse("series_tags", series_tags.position(), "more entries than series_tag_counts says"));
        }
        Ok(())
    }

    fn read_common(&mut self, column: &Column<u32>) -> Result<(), SchemaError> {
        const FIELD: &str = "common_tags";
        let entries = column.values.len();
        if entries > 2 * MAX_TAGS {
            return Err(refuse(FIELD, column.position(), TOO_MANY_TAGS));
        }
        if !entries.is_multiple_of(2) {
            return Err(refuse(FIELD, column.position(), "a key without a value"));
        }
        for at in (0..entries).step_by(2) {
            let key = self.string(column, at, FIELD)?;
            self.common.push((key, self.string(column, at + 1, FIELD)?));
        }
        arrange_printable("common", &mut self.common)
            .map_err(|error| refuse(format!("common_{}", error.field), column.position(), error.reason))
    }

    fn string(&self, column: &Column<u32>, at: usize, field: &str) -> Result<&'a str, SchemaError> {
        let index = column.values[at];
        self.strings.get(index as usize).copied().ok_or_else(|| {
            let reason = format!("there is no string {index}, only {}", self.strings.len());
            refuse(format!("{field}[{at}]"), column.position(), reason)
        })
    }
}

/// Merges two sorted lists; where both have a key, `own` wins.
fn merge<'a>(own: &[(&'a str, &'a str)], common: &[(&'a str, &'a str)], merged: &mut Tags<'a>) {
    merged.clear();
    let mut rest = common;
    for &tag in own {
        while let Some((&first, others)) = rest.split_first() {
            if first.0 > tag.0 {
                break;
            }
            if first.0 < tag.0 {
                merged.push(first);
            }
            rest = others;
        }
        merged.push(tag);
    }
    merged.extend_from_slice(rest);
}

fn deliver(
    columns: &Columns,
    handles: &[u32],
    interval_end: i64,
    receiver: &mut dyn Receiver,
) -> Result<u32, SchemaError> {
    let Columns { event_series, event_value, event_time, .. } = columns;
    for (event, &value) in event_value.values.iter().enumerate() {
        if value == 0 {
            let field = format!("event_value[{event}]");
            return Err(refuse(field, event_value.position(), "a value is greater than 0"));
        }
        let time = match event_time.values.get(event) {
            None => interval_end,
            Some(&distance) => {
                interval_end.checked_add(unzigzag(distance)).filter(|time| *time >= 0).ok_or_else(|| {
                    let reason = "interval_end and this are together before 1970 or after April 2262";
                    refuse(format!("event_time[{event}]"), event_time.position(), reason)
                })?
            }
        };
        // Both are in range: the columns' shapes are checked.
        let row = event_series.values.get(event).map_or(event, |&row| row as usize);
        receiver.event(handles[row], value, time);
    }
    Ok(u32::try_from(event_value.values.len()).unwrap_or(u32::MAX))
}
