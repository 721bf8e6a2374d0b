//! Encodes a batch as rows.

use std::ops::Range;

use tallybus_sdk::{Batch, Encoded, Rejection};

use crate::shared::json_tags::tags_to_json;

/// Points that PostgreSQL cannot store: its texts have no byte 0, its numbers no more than 63 bits.
fn unwritable(batch: &Batch) -> Vec<Rejection> {
    let has_zero: Vec<bool> = batch
        .series
        .iter()
        .map(|series| {
            series.name().contains('\0') || series.tags().any(|(key, value)| key.contains('\0') || value.contains('\0'))
        })
        .collect();
    let mut rejected = Vec::new();
    for (index, point) in batch.points.iter().enumerate() {
        let reason = if has_zero.get(point.series as usize).copied().unwrap_or_default() {
            "PostgreSQL's texts cannot hold the character 0"
        } else if i64::try_from(point.value).is_err() {
            "the value exceeds 2^63 - 1, the most that PostgreSQL can store"
        } else {
            continue;
        };
        rejected.push(Rejection { point: index, reason: reason.to_owned() });
    }
    rejected
}

/// The rows of a batch, by column; without those that are rejected.
#[derive(Debug, PartialEq)]
pub(super) struct Rows {
    /// Which point each is.
    pub(super) points: Vec<usize>,
    pub(super) times: Vec<i64>,
    series: Vec<u32>,
    /// Of each series.
    tags: Vec<String>,
    pub(super) values: Vec<i64>,
}

/// The rows of a batch, and the points that cannot be one.
pub(super) fn encode(batch: &Batch) -> Encoded {
    let rejected = unwritable(batch);
    let rows = Rows::of(batch, &rejected);
    let memory = rows.memory();
    Encoded::value(rows, memory, rejected)
}

impl Rows {
    fn of(batch: &Batch, rejected: &[Rejection]) -> Self {
        let mut left_out = rejected.iter().map(|rejection| rejection.point).peekable();
        let mut rows = Rows {
            points: Vec::with_capacity(batch.points.len()),
            times: Vec::with_capacity(batch.points.len()),
            series: Vec::with_capacity(batch.points.len()),
            tags: batch.series.iter().map(|series| tags_to_json(series.tags())).collect(),
            values: Vec::with_capacity(batch.points.len()),
        };
        for (index, point) in batch.points.iter().enumerate() {
            if left_out.next_if_eq(&index).is_some() {
                continue;
            }
            let Ok(value) = i64::try_from(point.value) else { continue };
            rows.points.push(index);
            rows.times.push(point.time);
            rows.series.push(point.series);
            rows.values.push(value);
        }
        rows
    }

    fn memory(&self) -> usize {
        let row = size_of::<usize>() + 2 * size_of::<i64>() + size_of::<u32>();
        let tags: usize = self.tags.iter().map(|text| size_of::<String>() + text.capacity()).sum();
        self.points.capacity() * row + tags
    }

    pub(super) fn len(&self) -> usize {
        self.points.len()
    }

    pub(super) fn names<'b>(&self, batch: &'b Batch, range: Range<usize>) -> Vec<&'b str> {
        self.series[range].iter().map(|series| batch.series.get(*series).name()).collect()
    }

    pub(super) fn tags(&self, range: Range<usize>) -> Vec<&str> {
        let text = |series: &u32| self.tags.get(*series as usize).map_or("{}", String::as_str);
        self.series[range].iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tallybus_schemas::{Coordinate, Series};
    use tallybus_sdk::{BatchId, Point};

    use super::*;

    #[test]
    fn what_cannot_be_stored_is_left_out_and_reported() {
        let series = [
            Series::from_sorted("a", &[("k\"", "v\\")]),
            Series::from_sorted("n\0", &[]),
            Series::from_sorted("b", &[("k", "\0")]),
        ];
        let point = |(index, (series, value)): (usize, (u32, u64))| {
            let first = Coordinate { partition: 0, offset: index as u64, index: 0 };
            Point { series, time: 7 + i64::try_from(index).unwrap(), value, events: 1, first }
        };
        let most = i64::MAX as u64;
        let points = [(0, 1), (1, 2), (2, 3), (0, most + 1), (0, most)];
        let batch = Batch {
            id: BatchId { topic: "t".into(), partition: 0, first: 0, end: 5 },
            topic_index: 0,
            series: Arc::new(series.into_iter().collect()),
            points: points.into_iter().enumerate().map(point).collect(),
            window: 1,
            part: String::new(),
            stream: None,
            recovered: false,
        };
        let encoded = encode(&batch);
        let (rejected, rows) = (&encoded.rejected, encoded.as_value::<Rows>().unwrap());
        assert_eq!(rejected.iter().map(|rejection| rejection.point).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(encoded.memory >= 2 * (8 + 8 + 8 + 4), "{}", encoded.memory);
        assert_eq!((rows.points.clone(), rows.times.clone()), (vec![0, 4], vec![7, 11]));
        assert_eq!(rows.names(&batch, 0..2), ["a", "a"]);
        assert_eq!(rows.tags(0..2), [r#"{"k\"":"v\\"}"#; 2]);
        assert_eq!(rows.values, [1, i64::MAX]);
    }
}
