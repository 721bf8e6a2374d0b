//! Applies one batch to the database, in one transaction.

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};
use tallybus_sdk::ledger::{self, Divergence, LedgerState, Span};
use tallybus_sdk::{Batch, Encoded, Point, Rejection};

use crate::shared::json_tags::tags_to_json;

/// The tags of each series of a batch as its rows hold them.
#[derive(Debug, PartialEq)]
pub(super) struct Tags(Vec<String>);

/// A batch as its rows.
pub(super) fn encode(batch: &Batch) -> Encoded {
    let tags: Vec<String> = batch.series.iter().map(|series| tags_to_json(series.tags())).collect();
    let memory = tags.iter().map(|text| size_of::<String>() + text.capacity()).sum();
    Encoded::value(Tags(tags), memory, Vec::new())
}

/// The outcome of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is applied now, or was before, except for these points, which never will be.
    In(Vec<Rejection>),
    /// The ledger, at this offset, contradicts the batch.
    Diverged(Divergence, u64),
}

/// Writes the batch unless it was applied before. `in_doubt`: whether it may have been applied before; `least`: as
/// for [`ledger::decide`].
///
/// `begin` is called once the batch is about to be written, before anything can become durable.
pub(super) fn apply(
    connection: &mut Connection,
    batch: &Batch,
    tags: &Tags,
    (in_doubt, least): (bool, u64),
    begin: impl FnOnce(),
) -> rusqlite::Result<Applied> {
    // The lock is taken before the ledger is read: of two that write the same batch, the second sees what the first did.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let next = ledger_end(&transaction, &batch.id.topic, batch.id.partition)?;
    match ledger::decide(next, &Span::whole(&batch.id), in_doubt, least) {
        LedgerState::NotApplied => {}
        LedgerState::Applied => return Ok(Applied::In(refused(&transaction, batch)?)),
        LedgerState::Diverged(how) => return Ok(Applied::Diverged(how, next)),
        // This ledger records whole batches only.
        LedgerState::Partial => return Ok(Applied::Diverged(Divergence::Inside, next)),
    }
    begin();
    let rejected = add(&transaction, batch, tags)?;
    remember(&transaction, batch, &rejected)?;
    transaction.commit()?;
    Ok(Applied::In(rejected))
}

/// The offset up to which the file contains a partition.
pub(super) fn ledger_end(connection: &Connection, topic: &str, partition: u32) -> rusqlite::Result<u64> {
    let mut select = connection.prepare_cached("SELECT next_offset FROM ledger WHERE topic = ?1 AND partition = ?2")?;
    let next = select.query_row(params![topic, partition], |row| row.get(0)).optional()?;
    Ok(next.unwrap_or(0))
}

/// Adds every point to its row; returns those whose sum would exceed what SQLite can store.
fn add(transaction: &Transaction<'_>, batch: &Batch, tags: &Tags) -> rusqlite::Result<Vec<Rejection>> {
    let mut insert = transaction.prepare_cached(
        "INSERT INTO counters (name, tags, window_start, value) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET value = value + excluded.value WHERE value <= 9223372036854775807 - excluded.value",
    )?;
    let mut rejected = Vec::new();
    for (index, Point { series, time, value, .. }) in batch.points.iter().enumerate() {
        let view = batch.series.get(*series);
        let text = tags.0.get(*series as usize).map_or("{}", String::as_str);
        let fits = match i64::try_from(*value) {
            Ok(value) => insert.execute(params![view.name(), text, time, value])? == 1,
            Err(_) => false,
        };
        if !fits {
            let reason = "the sum of its series and window exceeds 2^63 - 1, the most that SQLite can store".to_owned();
            rejected.push(Rejection { point: index, reason });
        }
    }
    Ok(rejected)
}

fn remember(transaction: &Transaction<'_>, batch: &Batch, rejected: &[Rejection]) -> rusqlite::Result<()> {
    let id = &batch.id;
    let mut advance = transaction.prepare_cached(
        "INSERT INTO ledger (topic, partition, next_offset) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
    )?;
    advance.execute(params![&*id.topic, id.partition, id.end])?;
    let mut refuse = transaction.prepare_cached("INSERT INTO refused VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for rejection in rejected {
        refuse.execute(params![&*id.topic, id.partition, id.first, rejection.point, rejection.reason])?;
    }
    Ok(())
}

fn refused(transaction: &Transaction<'_>, batch: &Batch) -> rusqlite::Result<Vec<Rejection>> {
    let mut select = transaction.prepare_cached(
        "SELECT point, reason FROM refused WHERE topic = ?1 AND partition = ?2 AND first_offset = ?3 ORDER BY point",
    )?;
    let id = &batch.id;
    let rows = select.query_map(params![&*id.topic, id.partition, id.first], |row| {
        Ok(Rejection { point: row.get(0)?, reason: row.get(1)? })
    })?;
    rows.collect()
}
