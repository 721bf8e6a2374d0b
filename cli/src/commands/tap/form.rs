use std::io::Write;

use clap::ValueEnum;
use serde_json::{Value, json};
use tallybus_bus::Record;
use tallybus_schemas::{Series, json as json_events, line as line_protocol};
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_sdk::text::{escape_json, is_obeyed};
use tallybus_verify::audit::Row;

use super::start::Place;
use super::sums::Line;
use crate::failure::Failure;
use crate::output::{Output, number};
use crate::{csv, text, times};

/// How events and sums are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// For people.
    Table,
    /// One JSON object in each line, as --json.
    Json,
    /// With a header. A text that a spreadsheet would take for a formula has a ' before it.
    Csv,
    /// Influx line protocol; what it cannot hold, and what a terminal would obey, is left out and named.
    Influx,
}

impl Form {
    /// The form that these options ask for together.
    ///
    /// # Errors
    /// They contradict each other.
    pub(super) fn chosen(form: Option<Self>, output: &Output) -> Result<Self, Failure> {
        let json = output.json.then_some(Self::Json);
        match (form, json) {
            (Some(form), Some(json)) if form != json => {
                Err(Failure::could_not_look("--json and --output are two forms of one result: choose one"))
            }
            _ => Ok(form.or(json).unwrap_or(Self::Table)),
        }
    }
}

/// Writes events and sums as lines.
#[derive(Debug)]
pub(super) struct Lines {
    form: Form,
    coordinates: bool,
    /// The record or event that the table marks.
    around: Option<Place>,
    /// By series number: the series as the table shows it, safe for a terminal.
    shown: Vec<Option<Box<str>>>,
    /// CSV: whether its events are dead letters, once the header is written.
    header: Option<bool>,
}

impl Lines {
    pub(super) fn new(form: Form, coordinates: bool, around: Option<Place>) -> Self {
        Self { form, coordinates, around, shown: Vec::new(), header: None }
    }

    /// Appends an event.
    ///
    /// # Errors
    /// Why this form cannot hold it; nothing was appended then.
    pub(super) fn event(
        &mut self,
        out: &mut Vec<u8>,
        record: &Record<'_>,
        row: Row,
        series: &Series,
    ) -> Result<(), String> {
        match self.form {
            Form::Table => self.table(out, record, row, series),
            Form::Json => self.json(out, record, row, series),
            Form::Csv => self.csv(out, record, row, series),
            Form::Influx => return influx(out, row, series),
        }
        Ok(())
    }

    fn table(&mut self, out: &mut Vec<u8>, record: &Record<'_>, row: Row, series: &Series) {
        let place = row.series as usize;
        if self.shown.len() <= place {
            self.shown.resize(place + 1, None);
        }
        let shown = self.shown[place].get_or_insert_with(|| text::escape(&text::series(series), false).into());
        let (time, value) = (times::show(row.time), text::grouped(row.value));
        if let Some(place) = &self.around {
            let is_it = place.offset == record.offset && place.index.is_none_or(|index| index == row.index);
            out.extend_from_slice(if is_it { b"> " } else { b"  " });
        }
        // Writing to a vector cannot fail.
        let _ = write!(out, "{time:<30} {value:>9}  {shown}");
        if self.coordinates {
            let _ = write!(out, "  [{}]", text::escape(&coordinate(record, row.index), false));
        }
        if let Some(dead_letter) = DeadLetterHeaders::of(record) {
            let why = format!("{}: {}", dead_letter.coordinate(), dead_letter.reason);
            let _ = write!(out, "  [{}]", text::escape(&why, false));
        }
        out.push(b'\n');
    }

    fn json(&self, out: &mut Vec<u8>, record: &Record<'_>, row: Row, series: &Series) {
        let start = out.len();
        json_events::write_increment(out, series, row.value, row.time);
        if self.coordinates {
            out.pop();
            let (topic, partition, offset, index) = (record.topic, record.partition, record.offset, row.index);
            let topic = Value::from(topic);
            // Writing to a vector cannot fail.
            let _ = write!(out, ",\"topic\":{topic},\"partition\":{partition},\"offset\":{offset},\"index\":{index}}}");
        }
        if let Some(dead_letter) = DeadLetterHeaders::of(record) {
            out.pop();
            let (key, reason) = (Value::from(dead_letter.coordinate()), Value::from(dead_letter.reason));
            let _ = write!(out, ",\"dead_letter\":{key},\"reason\":{reason}}}");
        }
        out.push(b'\n');
        let is_plain = out[start..].iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~'));
        if !is_plain {
            let safe = escape_json(&String::from_utf8_lossy(&out[start..])).into_owned();
            out.truncate(start);
            out.extend_from_slice(safe.as_bytes());
        }
    }

    fn csv(&mut self, out: &mut Vec<u8>, record: &Record<'_>, row: Row, series: &Series) {
        let dead_letter = DeadLetterHeaders::of(record);
        let has_reasons = match self.header {
            Some(has_reasons) => has_reasons,
            None => {
                self.csv_header(out, dead_letter.is_some());
                dead_letter.is_some()
            }
        };
        let tags: serde_json::Map<String, Value> =
            series.tags().iter().map(|(key, value)| (key.to_string(), Value::from(&**value))).collect();
        let mut cells = vec![times::show(row.time).into(), series.name().into(), tags.into(), row.value.into()];
        if self.coordinates {
            cells.push(coordinate(record, row.index).into());
        }
        if has_reasons {
            cells.push(dead_letter.as_ref().map(DeadLetterHeaders::coordinate).into());
            cells.push(dead_letter.as_ref().map(|dead_letter| dead_letter.reason).into());
        }
        csv_line(out, cells);
    }

    fn csv_header(&mut self, out: &mut Vec<u8>, has_reasons: bool) {
        self.header = Some(has_reasons);
        let mut titles = vec!["time", "name", "tags", "value"];
        titles.extend(self.coordinates.then_some("coordinate"));
        titles.extend(["dead_letter", "reason"].into_iter().filter(|_| has_reasons));
        csv_line(out, titles.into_iter().map(Value::from).collect());
    }

    /// Appends sums.
    pub(super) fn sums(&mut self, out: &mut Vec<u8>, by: &[String], lines: &[Line]) {
        for line in lines {
            let time = times::show(line.time);
            match self.form {
                Form::Json => {
                    let key: serde_json::Map<String, Value> =
                        by.iter().cloned().zip(line.key.iter().map(|value| value.clone().into())).collect();
                    let (total, events) = (number(line.sum.total), line.sum.events);
                    let object = json!({ "time": time, "key": key, "total": total, "events": events }).to_string();
                    out.extend_from_slice(escape_json(&object).as_bytes());
                    out.push(b'\n');
                }
                Form::Csv => {
                    if self.header.is_none() {
                        self.sums_header(out, by);
                    }
                    let key = line.key.iter().map(|value| Value::from(value.clone()));
                    let sum = [number(line.sum.total), line.sum.events.into()];
                    csv_line(out, [time.into()].into_iter().chain(key).chain(sum).collect());
                }
                Form::Table | Form::Influx => {
                    let (total, events) = (text::grouped(line.sum.total), text::count_of(line.sum.events, "event"));
                    // Writing to a vector cannot fail.
                    let _ = write!(out, "{time:<30} {total:>12} in {events:<12}");
                    for (tag, value) in by.iter().zip(&line.key) {
                        let shown = value.as_deref().map_or_else(|| "-".to_owned(), text::quoted);
                        let _ = write!(out, "  {}={}", text::quoted(tag), text::escape(&shown, false));
                    }
                    out.truncate(out.trim_ascii_end().len());
                    out.push(b'\n');
                }
            }
        }
    }

    fn sums_header(&mut self, out: &mut Vec<u8>, by: &[String]) {
        self.header = Some(false);
        let titles = ["time"].into_iter().chain(by.iter().map(String::as_str)).chain(["total", "events"]);
        csv_line(out, titles.map(Value::from).collect());
    }

    /// What a result without any line still has. `sums`: the tags to group by, where sums are written.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>, sums: Option<&[String]>) {
        match (self.form, self.header, sums) {
            (Form::Csv, None, None) => self.csv_header(out, false),
            (Form::Csv, None, Some(by)) => self.sums_header(out, by),
            _ => {}
        }
    }

    /// The numbers of series begin again at 0.
    pub(super) fn forget_series(&mut self) {
        self.shown.clear();
    }
}

/// Names an event, or a line that is none, by its place on the bus.
pub(super) fn coordinate(record: &Record<'_>, index: u32) -> String {
    format!("{}/{}/{}/{index}", record.topic, record.partition, record.offset)
}

fn csv_line(out: &mut Vec<u8>, cells: Vec<Value>) {
    out.extend_from_slice(csv::line(cells.into_iter()).as_bytes());
    out.push(b'\n');
}

fn influx(out: &mut Vec<u8>, row: Row, series: &Series) -> Result<(), String> {
    let has_obeyed = |text: &str| text.contains(is_obeyed);
    if has_obeyed(series.name()) || series.tags().iter().any(|(key, value)| has_obeyed(key) || has_obeyed(value)) {
        return Err("it has characters that a terminal would obey, and line protocol cannot escape them".to_owned());
    }
    line_protocol::write_series_key(out, series.name(), series.tags()).map_err(|error| error.to_string())?;
    // InfluxDB 1 knows no other integers.
    let suffix = if i64::try_from(row.value).is_ok() { 'i' } else { 'u' };
    // Writing to a vector cannot fail.
    let _ = writeln!(out, " value={}{suffix} {}", row.value, row.time);
    Ok(())
}
