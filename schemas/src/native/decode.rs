use std::mem;

use super::rows::{self, RowScratch};
use super::wire::{Column, Fault, Reader, WRONG_TYPE, Wire, unzigzag};
use super::{VERSION, field};
use crate::canonical::{UNPRINTABLE, is_printable};
use crate::scratch::recycle;
use crate::{Encoding, Origin, Receiver, SchemaError};

/// Working memory for one message, kept for the next.
#[derive(Debug, Default)]
pub(crate) struct NativeScratch {
    strings: Vec<&'static str>,
    rows: RowScratch,
    handles: Vec<u32>,
    columns: Columns,
}

#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) common_tags: Column<u32>,
    pub(super) series_name: Column<u32>,
    pub(super) series_tag_counts: Column<u32>,
    pub(super) series_tags: Column<u32>,
    event_series: Column<u32>,
    event_value: Column<u64>,
    event_time: Column<u64>,
}

/// Decodes one batch.
pub(crate) fn decode(
    scratch: &mut NativeScratch,
    payload: &[u8],
    receiver: &mut dyn Receiver,
) -> Result<u32, SchemaError> {
    let mut strings = recycle(mem::take(&mut scratch.strings));
    scratch.columns.clear();

    let outcome = scratch.columns.read(payload, &mut strings).and_then(|origin| {
        receiver.origin(&origin);
        mark_used(&scratch.columns, &mut scratch.handles)?;
        rows::announce(&mut scratch.rows, &strings, &scratch.columns, &mut scratch.handles, receiver)?;
        deliver(&scratch.columns, &scratch.handles, origin.interval_end, receiver)
    });

    scratch.strings = recycle(strings);
    outcome
}

pub(super) fn refuse(field: impl Into<String>, position: usize, reason: impl Into<String>) -> SchemaError {
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
        let mut has_unknown = false;
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
                    let id = bytes.try_into().map_err(|_| refuse("producer", position, "must have 16 bytes"))?;
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
                _ => {
                    reader.skip(wire).map_err(of_field)?;
                    has_unknown = true;
                }
            }
        }
        if !is_versioned {
            return Err(refuse("version", 0, "is missing"));
        }
        origin.producer = producer.ok_or_else(|| refuse("producer", payload.len(), "is missing"))?;
        // Another program's message may have the same first fields: it must not pass for a batch that counts nothing.
        if origin.sequence == 0 {
            return Err(refuse("sequence", payload.len(), "is missing: this is a protobuf message of another kind"));
        }
        if has_unknown && self.event_value.values.is_empty() {
            let reason = "the message has unknown fields and no event: this is a protobuf message of another kind";
            return Err(refuse("event_value", payload.len(), reason));
        }
        Ok(origin)
    }
}

fn check_version(version: u64, position: usize) -> Result<(), SchemaError> {
    match version {
        VERSION => Ok(()),
        0 => Err(refuse("version", position, "must be 1 or higher")),
        newer => {
            let reason = format!(
                "version {newer} is newer than version {VERSION}, the latest that this program reads: upgrade it"
            );
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
    i64::try_from(time).map_err(|_| Fault { position, reason: "must not be negative" })
}

fn read_bytes<'a>(wire: Wire, reader: &mut Reader<'a>) -> Result<&'a [u8], Fault> {
    if wire != Wire::Bytes {
        return Err(Fault { position: reader.position(), reason: WRONG_TYPE });
    }
    reader.bytes()
}

/// Marks a row in use that has no handle yet.
const UNUSED: u32 = 0;
pub(super) const USED: u32 = 1;

/// Checks the shape of the event columns and marks the series rows that they use.
fn mark_used(columns: &Columns, handles: &mut Vec<u32>) -> Result<(), SchemaError> {
    let Columns { series_name, event_series, event_value, event_time, .. } = columns;
    let (rows, events) = (series_name.values.len(), event_value.values.len());
    handles.clear();
    if event_series.values.is_empty() {
        handles.resize(rows, USED);
        if rows != events {
            let reason = format!("{events} values for {rows} series, and no event_series to assign them");
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

/// Hands the events over; the columns' shapes are checked.
fn deliver(
    columns: &Columns,
    handles: &[u32],
    interval_end: i64,
    receiver: &mut dyn Receiver,
) -> Result<u32, SchemaError> {
    let own_time = |&distance: &u64| interval_end.checked_add(unzigzag(distance)).filter(|time| *time >= 0);
    let times = columns.event_time.values.iter().map(own_time);
    let same_time = std::iter::repeat(Some(interval_end));
    let of_rows = columns.event_series.values.iter().map(|&row| handles[row as usize]);
    let in_order = handles.iter().copied();
    match (columns.event_series.values.is_empty(), columns.event_time.values.is_empty()) {
        (true, true) => deliver_each(columns, in_order, same_time, receiver),
        (true, false) => deliver_each(columns, in_order, times, receiver),
        (false, true) => deliver_each(columns, of_rows, same_time, receiver),
        (false, false) => deliver_each(columns, of_rows, times, receiver),
    }
}

fn deliver_each(
    columns: &Columns,
    series: impl Iterator<Item = u32>,
    times: impl Iterator<Item = Option<i64>>,
    receiver: &mut dyn Receiver,
) -> Result<u32, SchemaError> {
    let values = &columns.event_value;
    for (event, ((&value, series), time)) in values.values.iter().zip(series).zip(times).enumerate() {
        if value == 0 {
            let field = format!("event_value[{event}]");
            return Err(refuse(field, values.position(), "must be greater than 0"));
        }
        let Some(time) = time else {
            let reason = "interval_end plus this is before 1970 or after April 2262";
            return Err(refuse(format!("event_time[{event}]"), columns.event_time.position(), reason));
        };
        receiver.event(series, value, time);
    }
    Ok(u32::try_from(values.values.len()).unwrap_or(u32::MAX))
}
