//! The statements around the rows of a batch: lock, fence, and the ledger's old rows. Pure.

use tallybus_sdk::ledger::Span;
use tallybus_sdk::text::clip;
use tallybus_sdk::{Batch, Point};

use super::sql::literal;
use super::tables::{REASON_BYTES, Tables};

/// The statements of a batch, with the rows between them.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) before: [String; 2],
    pub(super) after: String,
}

impl Frame {
    /// `least`: as for [`decide`](tallybus_sdk::ledger::decide).
    pub(super) fn of(batch: &Batch, span: &Span, least: u64, tables: &Tables) -> Self {
        let ledger = tables.ledger();
        let (topic, partition) = (literal(&batch.id.topic), batch.id.partition);
        let Span { from, to } = span;
        // The aggregate yields one row whether or not the partition has one yet; if the ledger must not advance, because it is
        // past the batch's beginning or behind its floor, the value is NULL, which the column refuses, and with it the transaction.
        let floor = match least {
            0 => String::new(),
            _ => format!(" AND MAX(next_offset) >= {least}"),
        };
        let fence = format!(
            "INSERT INTO {ledger} (topic, partition_id, next_offset, part) \
             SELECT {topic}, {partition}, CASE WHEN COUNT(CASE WHEN next_offset > {first} OR (next_offset = {first} AND part > \
             {begin}) THEN 1 END) = 0{floor} THEN {next} END, {part} FROM {ledger} WHERE topic = {topic} AND partition_id = {partition}",
            first = from.offset,
            begin = from.part,
            next = to.offset,
            part = to.part,
        );
        let after = format!(
            "DELETE FROM {ledger} WHERE topic = {topic} AND partition_id = {partition} AND (next_offset < {next} OR \
             (next_offset = {next} AND part < {part}))",
            next = to.offset,
            part = to.part,
        );
        Self { before: [format!("LOCK {ledger}"), fence], after }
    }

    pub(super) fn around(self, rows: impl IntoIterator<Item = String>) -> Vec<String> {
        self.before.into_iter().chain(rows).chain([self.after]).collect()
    }
}

/// Records that these points were refused.
pub(super) fn refuse(batch: &Batch, points: &[Point], reason: &str, tables: &Tables) -> String {
    let (topic, reason) = (literal(&batch.id.topic), literal(&shorten(reason)));
    let (partition, first) = (batch.id.partition, batch.id.first);
    let row = |point: &Point| {
        format!("({topic}, {partition}, {first}, {}, {}, {reason})", point.first.offset, point.first.index)
    };
    let rows: Vec<String> = points.iter().map(row).collect();
    format!(
        "INSERT INTO {} (topic, partition_id, first_offset, point_offset, point_index, reason) VALUES {}",
        tables.refused(),
        rows.join(", ")
    )
}

/// Queries the partition's ledger, and the refused points of this batch: kind, two numbers and a text in each row.
pub(super) fn look(batch: &Batch, tables: &Tables) -> String {
    let (topic, partition) = (literal(&batch.id.topic), batch.id.partition);
    format!(
        "SELECT 0 AS kind, next_offset AS one, part AS two, CAST('' AS VARCHAR({REASON_BYTES})) AS reason FROM {} \
         WHERE topic = {topic} AND partition_id = {partition} UNION ALL SELECT 1, point_offset, point_index, reason FROM {} WHERE topic = {topic} AND partition_id = \
         {partition} AND first_offset = {}",
        tables.ledger(),
        tables.refused(),
        batch.id.first
    )
}

/// A reason, cut to what the table can store, without characters that it cannot.
fn shorten(reason: &str) -> String {
    let fit: String = reason.chars().filter(|c| super::sql::unfit(c.encode_utf8(&mut [0; 4])).is_none()).collect();
    clip(&fit, REASON_BYTES).to_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use tallybus_schemas::{Coordinate, Series};
    use tallybus_sdk::BatchId;

    use super::*;

    pub(crate) fn batch(points: u64) -> Batch {
        let point = |n: u64| Point {
            series: 0,
            time: i64::try_from(n).unwrap() * 1_000_000_000,
            value: 1,
            events: 1,
            first: Coordinate { partition: 3, offset: 10 + n, index: 0 },
        };
        Batch {
            id: BatchId { topic: "t'x".into(), partition: 3, first: 10, end: 20 },
            topic_index: 0,
            series: Arc::new([Series::from_sorted("n", &[])].into_iter().collect()),
            points: (0..points).map(point).collect(),
            window: 1_000_000_000,
            part: String::new(),
            stream: None,
            recovered: false,
        }
    }

    #[test]
    fn a_frame_locks_refuses_what_the_ledger_contradicts_and_advances_it() {
        let tables = Tables { schema: "s".into(), table: "t".into(), columns: vec![] };
        let batch = batch(1);
        let frame = |least| {
            let frame = Frame::of(&batch, &Span::whole(&batch.id), least, &tables);
            frame.around(["row".to_owned()])
        };
        let [lock, fence, row, after] = frame(0).try_into().unwrap();
        assert_eq!((lock.as_str(), row.as_str()), ("LOCK \"s\".\"t_ledger\"", "row"));
        assert_eq!(
            fence,
            "INSERT INTO \"s\".\"t_ledger\" (topic, partition_id, next_offset, part) SELECT 't''x', 3, CASE WHEN COUNT(CASE WHEN \
             next_offset > 10 OR (next_offset = 10 AND part > 0) THEN 1 END) = 0 THEN 20 END, 0 FROM \"s\".\"t_ledger\" WHERE \
             topic = 't''x' AND partition_id = 3"
        );
        assert!(
            after.starts_with("DELETE FROM \"s\".\"t_ledger\" WHERE topic = 't''x' AND partition_id = 3 AND (next")
        );
        let floor = frame(7).swap_remove(1);
        assert!(floor.contains("END) = 0 AND MAX(next_offset) >= 7 THEN 20 END"), "{floor}");
    }

    #[test]
    fn a_reason_fits_its_column() {
        let tables = Tables { schema: "s".into(), table: "t".into(), columns: vec![] };
        let batch = batch(1);
        let sql = refuse(&batch, &batch.points, &format!("a\0'{}", "é".repeat(1_000)), &tables);
        assert!(sql.len() < 1_300 && sql.contains("('t''x', 3, 10, 10, 0, 'a''é") && !sql.contains('\0'), "{sql}");
    }
}
