//! Encodes a batch as statements, or as the object that `COPY` reads. Pure: the same batch always gives the same bytes.

use std::fmt::Write as _;
use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tallybus_sdk::{Batch, Encoded, Point, Rejection, SeriesView};

use super::sql::{push_literal, timestamp, unfit};
use super::tables::{NAME_BYTES, OWN_COLUMNS, Tables, VALUE_BYTES};
use crate::shared::json_tags::tags_to_json;

/// The Data API refuses statements over 100 kB; whether kB means 1,000 or 1,024 bytes is not documented.
pub(super) const MAX_STATEMENT: usize = 100_000;
/// The most statements that one request accepts.
pub(super) const MAX_STATEMENTS: usize = 40;
/// Lock, fence, and the ledger's old row, which are put around the rows of every request.
const FRAME: usize = 3;
/// The most bytes of a `VARCHAR`, and so of the text that `JSON_PARSE` accepts.
const MAX_TEXT: usize = 65_535;

/// The statements that insert the rows of a batch. An empty result for a batch with points that are not rejected means that they do not fit
/// into one request.
pub(super) fn statements(batch: &Batch, tables: &Tables) -> Encoded {
    let mut texts = Texts::new(batch, tables, Form::Sql);
    let head = head(tables);
    let mut inserts: Vec<String> = Vec::new();
    let mut rejected = Vec::new();
    let mut row = String::new();
    let tail = tail(batch);
    for (index, point) in batch.points.iter().enumerate() {
        row.clear();
        let made = texts.get(point.series).and_then(|series| {
            let value = value(point)?;
            let (time, nanos) = timestamp(point.time);
            let _ = write!(row, "('{time}',{nanos},{series},{value},{tail})");
            match head.len() + row.len() > MAX_STATEMENT {
                true => Err("its row is larger than a statement of the Data API may be"),
                false => Ok(()),
            }
        });
        if let Err(reason) = made {
            rejected.push(Rejection { point: index, reason: reason.to_owned() });
            continue;
        }
        match inserts.last_mut() {
            Some(open) if open.len() + 1 + row.len() <= MAX_STATEMENT => {
                open.push(',');
                open.push_str(&row);
            }
            _ => {
                if inserts.len() == MAX_STATEMENTS - FRAME {
                    return Encoded::default();
                }
                inserts.push(format!("{head}{row}"));
            }
        }
    }
    if inserts.is_empty() {
        return Encoded::nothing(rejected);
    }
    Encoded::many(inserts.into_iter().map(Bytes::from).collect(), rejected)
}

/// The object that `COPY` reads: a JSON object a line, gzipped.
pub(super) fn object(batch: &Batch, tables: &Tables) -> Encoded {
    let mut texts = Texts::new(batch, tables, Form::Json);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let mut rejected = Vec::new();
    let mut rows = 0_usize;
    let (topic, partition, first) = (Value::from(&*batch.id.topic), batch.id.partition, batch.id.first);
    for (index, point) in batch.points.iter().enumerate() {
        let made = texts.get(point.series).and_then(|series| {
            let value = value(point)?;
            let (time, nanos) = timestamp(point.time);
            let line = writeln!(
                gzip,
                "{{\"window_start\":\"{time}\",\"nanos\":{nanos},{series},\"value\":{value},\"topic\":{topic},\
                 \"partition_id\":{partition},\"first_offset\":{first}}}"
            );
            line.map_err(|_| "it could not be compressed")
        });
        match made {
            Ok(()) => rows += 1,
            Err(reason) => rejected.push(Rejection { point: index, reason: reason.to_owned() }),
        }
    }
    match gzip.finish() {
        Ok(object) if rows > 0 => Encoded::bytes(object, rejected),
        _ => Encoded::nothing(rejected),
    }
}

/// The columns of a row, in its order.
pub(super) fn columns(tables: &Tables) -> String {
    let [window_start, nanos, name, tags, value, topic, partition, first] = OWN_COLUMNS;
    let mut names = vec![window_start.to_owned(), nanos.to_owned(), name.to_owned()];
    names.extend(tables.columns.iter().map(|key| super::sql::identifier(&Tables::column(key))));
    names.extend([tags, value, topic, partition, first].map(str::to_owned));
    names.join(", ")
}

fn head(tables: &Tables) -> String {
    format!("INSERT INTO {} ({}) VALUES ", tables.counters(), columns(tables))
}

/// The last columns of every row of a batch: its coordinates.
fn tail(batch: &Batch) -> String {
    let mut tail = String::new();
    push_literal(&mut tail, &batch.id.topic);
    let _ = write!(tail, ",{},{}", batch.id.partition, batch.id.first);
    tail
}

fn value(point: &Point) -> Result<i64, &'static str> {
    i64::try_from(point.value).map_err(|_| "its value exceeds 2^63 - 1, the most that a BIGINT can store")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Sql,
    Json,
}

/// The columns of a batch's series, each rendered once.
struct Texts<'b> {
    batch: &'b Batch,
    tables: &'b Tables,
    form: Form,
    known: Vec<Option<Result<String, &'static str>>>,
}

impl<'b> Texts<'b> {
    fn new(batch: &'b Batch, tables: &'b Tables, form: Form) -> Self {
        Self { batch, tables, form, known: vec![None; batch.series.len()] }
    }

    fn get(&mut self, number: u32) -> Result<&str, &'static str> {
        let (batch, tables, form) = (self.batch, self.tables, self.form);
        let text = self.known[number as usize].get_or_insert_with(|| render(batch.series.get(number), tables, form));
        text.as_deref().map_err(|reason| *reason)
    }
}

/// Name, tags with columns of their own, and the other tags as JSON.
fn render(series: SeriesView<'_>, tables: &Tables, form: Form) -> Result<String, &'static str> {
    let name = series.name();
    let texts = series.tags().flat_map(|(key, value)| [key, value]).chain([name]);
    if let Some(reason) = texts.into_iter().find_map(unfit) {
        return Err(reason);
    }
    if name.len() > NAME_BYTES {
        return Err("its name is longer than its column");
    }
    let mut out = String::new();
    match form {
        Form::Sql => push_literal(&mut out, name),
        Form::Json => out = format!("\"name\":{}", Value::from(name)),
    }
    for key in &tables.columns {
        let value = series.tag(key);
        if value.is_some_and(|value| value.len() > VALUE_BYTES) {
            return Err("a tag's value is longer than its column");
        }
        match (form, value) {
            (Form::Sql, Some(value)) => {
                out.push(',');
                push_literal(&mut out, value);
            }
            (Form::Sql, None) => out.push_str(",NULL"),
            (Form::Json, Some(value)) => {
                let _ = write!(out, ",{}:{}", Value::from(Tables::column(key)), Value::from(value));
            }
            // A missing tag is NULL.
            (Form::Json, None) => {}
        }
    }
    let rest = series.tags().filter(|(key, _)| !tables.columns.iter().any(|column| column == key));
    let json = tags_to_json(rest);
    if json.len() > MAX_TEXT {
        return Err("its tags are longer than the longest text that Redshift reads");
    }
    match form {
        Form::Sql => {
            out.push_str(",JSON_PARSE(");
            push_literal(&mut out, &json);
            out.push(')');
        }
        Form::Json => {
            let _ = write!(out, ",\"tags\":{json}");
        }
    }
    Ok(out)
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
