//! Encodes a batch as Parquet files: one for each day (UTC) of its points.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use jiff::civil::{Date, date};
use jiff::{Span, Unit};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::TypePtr;
use tallybus_bus::StreamId;
use tallybus_sdk::{Batch, BatchId, Encoded, Rejection};

/// Spark reads times in microseconds at best, so the exact time has a column of its own.
pub(super) const SCHEMA: &str = "
    message counters {
        REQUIRED INT64 time (TIMESTAMP(MICROS, true));
        REQUIRED INT64 time_ns;
        REQUIRED BYTE_ARRAY name (STRING);
        REQUIRED GROUP tags (MAP) {
            REPEATED GROUP key_value {
                REQUIRED BYTE_ARRAY key (STRING);
                REQUIRED BYTE_ARRAY value (STRING);
            }
        }
        REQUIRED INT64 value;
        REQUIRED BYTE_ARRAY topic (STRING);
        REQUIRED INT64 partition;
        REQUIRED INT64 first_offset;
        REQUIRED INT64 end_offset;
    }";

const EPOCH: Date = date(1970, 1, 1);
const NANOS_PER_DAY: i64 = 86_400 * 1_000_000_000;

/// The files of a batch, in the order of their days.
#[derive(Debug, PartialEq)]
pub(super) struct Files(pub(super) Vec<File>);

/// One file.
#[derive(Debug, PartialEq)]
pub(super) struct File {
    /// Days since 1970-01-01.
    pub(super) day: i32,
    pub(super) content: Bytes,
}

type Made = Result<(TypePtr, WriterPropertiesPtr), ParquetError>;

/// The writer's properties, the same for every file. Nothing in them depends on when or where a file is written.
static LAYOUT: LazyLock<Made> = LazyLock::new(|| {
    let properties = WriterProperties::builder()
        .set_created_by("tallybus".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .build();
    Ok((Arc::new(parse_message_type(SCHEMA)?), Arc::new(properties)))
});

pub(super) fn encode(batch: &Batch) -> Encoded {
    let mut rejected = Vec::new();
    let mut days: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    for (index, point) in batch.points.iter().enumerate() {
        if i64::try_from(point.value).is_ok() {
            days.entry(point.time.div_euclid(NANOS_PER_DAY)).or_default().push(index);
        } else {
            let reason = "the value exceeds 2^63 - 1, the most that a 64-bit column can store".to_owned();
            rejected.push(Rejection { point: index, reason });
        }
    }
    let mut files = Vec::new();
    for (day, points) in days {
        let (Ok(content), Ok(day)) = (file(batch, &points), i32::try_from(day)) else {
            // Writing to memory cannot fail; if it did, the batch would halt without its files.
            return Encoded::nothing(rejected);
        };
        files.push(File { day, content: content.into() });
    }
    if files.is_empty() {
        return Encoded::nothing(rejected);
    }
    let memory = files.iter().map(|file| file.content.len()).sum();
    Encoded::value(Files(files), memory, rejected)
}

/// `date=2026-11-25`, as Hive, Spark, Athena and DuckDB read a column out of a directory's name.
pub(super) fn folder(day: i32) -> String {
    // Every day of a time of 64 bits is one.
    let date = EPOCH.checked_add(Span::new().days(day)).unwrap_or(EPOCH);
    format!("date={date}")
}

/// The day of a directory's name.
pub(super) fn day_of(folder: &str) -> Option<i64> {
    let date: Date = folder.strip_prefix("date=")?.parse().ok()?;
    Some(i64::from(date.since((Unit::Day, EPOCH)).ok()?.get_days()))
}

/// Begin and end of a day, in nanoseconds.
pub(super) fn day_bounds(day: i64) -> (i64, i64) {
    let start = day.saturating_mul(NANOS_PER_DAY);
    (start, start.saturating_add(NANOS_PER_DAY))
}

/// A file's name depends on the batch alone, and names the topic's incarnation: the same offsets of a recreated topic have
/// another name. A batch that was sealed without a stream id keeps the name that it had then.
pub(super) fn name(id: &BatchId, stream: Option<&StreamId>) -> String {
    // An id may have a slash, a file's name may not.
    let stream = stream.map(|stream| format!("@{}", stream.short().replace('/', "_"))).unwrap_or_default();
    format!("{}{stream}-{}-{:020}-{:020}.parquet", id.topic, id.partition, id.first, id.end)
}

/// Whether a file's name is one of [`name`]'s.
pub(super) fn is_name(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".parquet") else { return false };
    let mut parts = stem.rsplitn(4, '-');
    let mut numbers = parts.by_ref().take(3);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let sound = numbers.next().is_some_and(|end| end.len() == 20 && is_number(end))
        && numbers.next().is_some_and(|first| first.len() == 20 && is_number(first))
        && numbers.next().is_some_and(is_number);
    sound && parts.next().is_some_and(|topic| !topic.is_empty())
}

fn file(batch: &Batch, points: &[usize]) -> Result<Vec<u8>, ParquetError> {
    let (schema, properties) = LAYOUT.as_ref().map_err(|error| ParquetError::General(error.to_string()))?;
    file_with(batch, points, schema, properties)
}

/// The same rows, encoded as the properties say.
pub(super) fn file_with(
    batch: &Batch,
    points: &[usize],
    schema: &TypePtr,
    properties: &WriterPropertiesPtr,
) -> Result<Vec<u8>, ParquetError> {
    let mut writer = SerializedFileWriter::new(Vec::new(), Arc::clone(schema), Arc::clone(properties))?;
    let mut group = writer.next_row_group()?;
    let points = || points.iter().map(|index| &batch.points[*index]);
    let constant = |number: u64| i64::try_from(number).map(|number| vec![number; points().count()]).map_err(over);

    let times: Vec<i64> = points().map(|point| point.time).collect();
    column::<Int64Type>(&mut group, &times.iter().map(|time| time.div_euclid(1_000)).collect::<Vec<_>>(), None)?;
    column::<Int64Type>(&mut group, &times, None)?;
    let names: Vec<ByteArray> = batch.series.iter().map(|series| ByteArray::from(series.name())).collect();
    let name = |series: u32| names.get(series as usize).cloned().unwrap_or_default();
    column::<ByteArrayType>(&mut group, &points().map(|point| name(point.series)).collect::<Vec<_>>(), None)?;
    let tags = Tags::of(batch, points().map(|point| point.series));
    column::<ByteArrayType>(&mut group, &tags.keys, Some((&tags.defined, &tags.repeated)))?;
    column::<ByteArrayType>(&mut group, &tags.values, Some((&tags.defined, &tags.repeated)))?;
    let values: Result<Vec<i64>, _> = points().map(|point| i64::try_from(point.value)).collect();
    column::<Int64Type>(&mut group, &values.map_err(over)?, None)?;
    let topic = ByteArray::from(&*batch.id.topic);
    column::<ByteArrayType>(&mut group, &vec![topic; points().count()], None)?;
    column::<Int64Type>(&mut group, &constant(u64::from(batch.id.partition))?, None)?;
    column::<Int64Type>(&mut group, &constant(batch.id.first)?, None)?;
    column::<Int64Type>(&mut group, &constant(batch.id.end)?, None)?;
    group.close()?;
    writer.into_inner()
}

fn over(error: std::num::TryFromIntError) -> ParquetError {
    ParquetError::General(error.to_string())
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: Option<(&[i16], &[i16])>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("more columns than the schema has".to_owned()));
    };
    let (defined, repeated) = levels.unzip();
    column.typed::<T>().write_batch(values, defined, repeated)?;
    column.close()
}

/// The tags of rows as Parquet's levels: 1 defined for a tag, 0 for a row without any; 1 repeated from a row's second tag on.
#[derive(Default)]
struct Tags {
    keys: Vec<ByteArray>,
    values: Vec<ByteArray>,
    defined: Vec<i16>,
    repeated: Vec<i16>,
}

impl Tags {
    fn of(batch: &Batch, rows: impl Iterator<Item = u32>) -> Self {
        // Each series' texts are copied once; rows share them.
        let texts = |(key, value): (&str, &str)| (ByteArray::from(key), ByteArray::from(value));
        let known: Vec<Vec<(ByteArray, ByteArray)>> =
            batch.series.iter().map(|series| series.tags().map(texts).collect()).collect();
        let mut tags = Self::default();
        for series in rows {
            let of_row = known.get(series as usize).map(Vec::as_slice).unwrap_or_default();
            if of_row.is_empty() {
                tags.defined.push(0);
                tags.repeated.push(0);
            }
            for (index, (key, value)) in of_row.iter().enumerate() {
                tags.keys.push(key.clone());
                tags.values.push(value.clone());
                tags.defined.push(1);
                tags.repeated.push(i16::from(index > 0));
            }
        }
        tags
    }
}
