//! Files read back, for audits.

use std::sync::Arc;

use bytes::Bytes;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use tallybus_schemas::Series;
use tallybus_sdk::{Foreign, ForeignKind, Held, WindowTotal};

/// The columns of a row that audits need.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) time: i64,
    /// `None` when a key comes twice.
    pub(super) series: Option<Arc<Series>>,
    pub(super) value: i64,
}

impl From<Row> for Held {
    fn from(row: Row) -> Self {
        let foreign = |kind| {
            let series = row.series.as_deref().map_or_else(|| "a series".to_owned(), ToString::to_string);
            Self::Foreign(Foreign::new(kind, format!("{series}, time_ns {}, value {}", row.time, row.value)))
        };
        match (&row.series, u128::try_from(row.value)) {
            _ if row.time < 0 => foreign(ForeignKind::BeforeEpoch),
            (None, _) => foreign(ForeignKind::Tags),
            (Some(_), Err(_)) => foreign(ForeignKind::Negative),
            (Some(series), Ok(total)) => {
                Self::Window(WindowTotal { series: Arc::clone(series), start: row.time, total })
            }
        }
    }
}

/// Whether two files hold the same rows in the same order. Their bytes may differ: another version of the library that writes
/// Parquet may encode the same rows differently.
pub(super) fn same_rows(one: &Bytes, other: &Bytes) -> Result<bool, ParquetError> {
    let collect = |file: &Bytes| {
        let mut found = Vec::new();
        rows(file.clone(), |row| found.push(row)).map(|()| found)
    };
    Ok(collect(one)? == collect(other)?)
}

/// Visits every row of a file.
pub(super) fn rows(file: Bytes, mut each: impl FnMut(Row)) -> Result<(), ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let mut last: Option<Arc<Series>> = None;
    for number in 0..reader.num_row_groups() {
        let group = reader.get_row_group(number)?;
        let count = usize::try_from(group.metadata().num_rows()).unwrap_or_default();
        let times = column::<Int64Type>(&*group, "time_ns", count)?.0;
        let names = column::<ByteArrayType>(&*group, "name", count)?.0;
        let (keys, defined, repeated) = column::<ByteArrayType>(&*group, "tags.key_value.key", count)?;
        let (tag_values, ..) = column::<ByteArrayType>(&*group, "tags.key_value.value", count)?;
        let values = column::<Int64Type>(&*group, "value", count)?.0;
        let mut tags = keys.iter().zip(&tag_values);
        let mut levels = defined.iter().zip(&repeated).peekable();
        for ((time, name), value) in times.iter().zip(&names).zip(&values) {
            let mut of_row: Vec<(&str, &str)> = Vec::new();
            let mut is_first = true;
            while let Some((defined, _)) = levels.next_if(|(_, repeated)| is_first || **repeated == 1) {
                is_first = false;
                if *defined == 0 {
                    continue;
                }
                let Some((key, value)) = tags.next() else { break };
                of_row.push((text(key)?, text(value)?));
            }
            of_row.sort_unstable();
            let series = match of_row.windows(2).any(|pair| pair[0].0 == pair[1].0) {
                true => None,
                false => Some(Series::from_sorted(text(name)?, &of_row)),
            };
            let series = series.map(|series| match &last {
                Some(last) if **last == series => Arc::clone(last),
                _ => Arc::clone(last.insert(Arc::new(series))),
            });
            each(Row { time: *time, series, value: *value });
        }
    }
    Ok(())
}

fn text(bytes: &ByteArray) -> Result<&str, ParquetError> {
    std::str::from_utf8(bytes.data()).map_err(|error| ParquetError::General(error.to_string()))
}

type Column<T> = (Vec<T>, Vec<i16>, Vec<i16>);

/// All values of a column, with their definition and repetition levels.
fn column<T: DataType>(group: &dyn RowGroupReader, path: &str, count: usize) -> Result<Column<T::T>, ParquetError> {
    let place = group.metadata().columns().iter().position(|column| column.column_path().string() == path);
    let wrong = || ParquetError::General(format!("no column {path} as Tallybus writes it"));
    let place = place.ok_or_else(wrong)?;
    if group.metadata().column(place).column_type() != T::get_physical_type() {
        return Err(wrong());
    }
    let mut reader = get_typed_column_reader::<T>(group.get_column_reader(place)?);
    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
    let mut left = count;
    while left > 0 {
        let (records, ..) = reader.read_records(left, Some(&mut defined), Some(&mut repeated), &mut values)?;
        if records == 0 {
            return Err(ParquetError::General(format!("column {path} ends early")));
        }
        left -= records;
    }
    Ok((values, defined, repeated))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_point_or_foreign() {
        let series = Some(Arc::new(Series::from_sorted("n", &[])));
        let kind =
            |series: &Option<Arc<Series>>, time, value| match Held::from(Row { time, series: series.clone(), value }) {
                Held::Window(window) => {
                    assert_eq!((window.start, window.total), (0, u128::MAX >> 65));
                    None
                }
                Held::Foreign(foreign) => Some(foreign.kind),
            };
        assert_eq!(kind(&series, 0, i64::MAX), None);
        assert_eq!(kind(&series, -1, 1), Some(ForeignKind::BeforeEpoch));
        assert_eq!(kind(&series, 0, -1), Some(ForeignKind::Negative));
        assert_eq!(kind(&None, 0, 1), Some(ForeignKind::Tags));
    }
}
