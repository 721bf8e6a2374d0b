//! Files read back, for audits.

use bytes::Bytes;
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use tallybus_schemas::Series;

/// The columns of a row that audits need.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) time: i64,
    pub(super) series: Series,
    pub(super) value: u64,
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
            let series = Series::from_sorted(text(name)?, &of_row);
            each(Row { time: *time, series, value: u64::try_from(*value).unwrap_or_default() });
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
