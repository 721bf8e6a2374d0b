//! Applies one batch to the database, in one transaction.

use tallybus_sdk::ledger::{self, Divergence, LedgerState, Span};
use tallybus_sdk::{Batch, Fault, Rejection};
use tokio_postgres::types::Type;

use super::answer::Failure;
use super::client::Session;
use super::encode::Rows;
use super::tables::{Tables, time_of};

/// The outcome of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Applied {
    /// It is applied now, or was before, except for these points, which never will be.
    In(Vec<Rejection>),
    /// The ledger, at this offset, contradicts the batch.
    Diverged(Divergence, u64),
}

/// Writes the batch unless it was applied before. `known`: whether it may have been applied before, and the
/// offset that the ledger has at least. The session has
/// no open transaction when this succeeds.
///
/// `begin` is called once the batch is about to be written, before anything can become durable.
pub(super) async fn apply(
    session: &Session<'_>,
    tables: &Tables,
    batch: &Batch,
    rows: &Rows,
    known: (bool, u64),
    mut begin: impl FnMut(),
) -> Result<Applied, Failure> {
    match attempt(session, tables, batch, rows, known, &mut begin, false).await {
        // One bad row rolls back all. Bad rows are rare, so they are searched for only now, under savepoints.
        Err(failure) if failure.fault.is_refused() => {
            session.run("ROLLBACK").await?;
            attempt(session, tables, batch, rows, known, &mut begin, true).await
        }
        outcome => outcome,
    }
}

async fn attempt(
    session: &Session<'_>,
    tables: &Tables,
    batch: &Batch,
    rows: &Rows,
    (in_doubt, least): (bool, u64),
    begin: &mut impl FnMut(),
    careful: bool,
) -> Result<Applied, Failure> {
    let place = Place::of(batch)?;
    session.begin().await?;
    // The ledger's row is locked before it is read: of two that write the same batch, the second sees what the first did.
    let next = locked_ledger(session, tables, &place).await?;
    let decided = match ledger::decide(next, &Span::whole(&batch.id), in_doubt, least) {
        LedgerState::NotApplied => None,
        LedgerState::Applied => Some(Applied::In(refused(session, tables, &place).await?)),
        LedgerState::Diverged(how) => Some(Applied::Diverged(how, next)),
        // This ledger records whole batches only.
        LedgerState::Partial => Some(Applied::Diverged(Divergence::Inside, next)),
    };
    if let Some(applied) = decided {
        session.run("ROLLBACK").await?;
        return Ok(applied);
    }
    begin();
    let mut rejected = Vec::new();
    if careful {
        rejected = add_carefully(session, tables, &place, rows).await?;
        remember(session, tables, &place, &rejected).await?;
    } else if rows.len() > 0 {
        add(session, tables, &place, rows, 0, rows.len()).await?;
    }
    let advance = format!("UPDATE {} SET next_offset = $3 WHERE topic = $1 AND partition = $2", tables.ledger());
    session
        .execute(&advance, &[(&place.topic, Type::TEXT), (&place.partition, Type::INT8), (&place.end, Type::INT8)])
        .await?;
    session.run("COMMIT").await?;
    Ok(Applied::In(rejected))
}

/// The batch's coordinates as PostgreSQL holds them.
struct Place<'b> {
    batch: &'b Batch,
    topic: &'b str,
    partition: i64,
    first: i64,
    end: i64,
}

impl<'b> Place<'b> {
    fn of(batch: &'b Batch) -> Result<Self, Failure> {
        let id = &batch.id;
        match (i64::try_from(id.first), i64::try_from(id.end)) {
            (Ok(first), Ok(end)) => {
                Ok(Self { batch, topic: &id.topic, partition: i64::from(id.partition), first, end })
            }
            _ => {
                Err(Fault::operator(format!("the offsets of {id} exceed 2^63 - 1, the most that PostgreSQL can store"))
                    .into())
            }
        }
    }
}

/// The partition's offset in the ledger; its row is locked from here to the end of the transaction.
async fn locked_ledger(session: &Session<'_>, tables: &Tables, place: &Place<'_>) -> Result<u64, Failure> {
    let key = [(&place.topic as _, Type::TEXT), (&place.partition as _, Type::INT8)];
    let select = format!("SELECT next_offset FROM {} WHERE topic = $1 AND partition = $2 FOR UPDATE", tables.ledger());
    if let Some(row) = session.query(&select, &key).await?.first() {
        return next_offset(row, tables);
    }
    // Of two that begin a partition, the second waits here for the first's transaction.
    let insert = format!("INSERT INTO {} VALUES ($1, $2, 0) ON CONFLICT DO NOTHING", tables.ledger());
    session.execute(&insert, &key).await?;
    match session.query(&select, &key).await?.first() {
        Some(row) => next_offset(row, tables),
        None => {
            Err(Fault::retry(format!("the row of {}/{} was deleted from the ledger", place.topic, place.partition))
                .into())
        }
    }
}

/// The offset of a row of the ledger.
pub(super) fn next_offset(row: &tokio_postgres::Row, tables: &Tables) -> Result<u64, Failure> {
    let next: i64 = row.try_get(0).map_err(|error| Failure::of(&error, None))?;
    u64::try_from(next)
        .map_err(|_| Fault::operator(format!("the ledger {} holds offset {next}", tables.ledger())).into())
}

async fn add(
    session: &Session<'_>,
    tables: &Tables,
    place: &Place<'_>,
    rows: &Rows,
    from: usize,
    to: usize,
) -> Result<(), Failure> {
    let insert = format!(
        "INSERT INTO {} (time, time_ns, name, tags, value, topic, partition, first_offset) \
         SELECT {}, p.time_ns, p.name, p.tags::jsonb, p.value, $5, $6, $7 \
         FROM unnest($1, $2, $3, $4) AS p(time_ns, name, tags, value)",
        tables.counters(),
        time_of("p.time_ns")
    );
    session
        .execute(
            &insert,
            &[
                (&&rows.times[from..to], Type::INT8_ARRAY),
                (&rows.names(place.batch, from..to), Type::TEXT_ARRAY),
                (&rows.tags(from..to), Type::TEXT_ARRAY),
                (&&rows.values[from..to], Type::INT8_ARRAY),
                (&place.topic, Type::TEXT),
                (&place.partition, Type::INT8),
                (&place.first, Type::INT8),
            ],
        )
        .await?;
    Ok(())
}

/// Adds every row that the database accepts; returns the refused ones. Halves what it refuses, under a savepoint each.
async fn add_carefully(
    session: &Session<'_>,
    tables: &Tables,
    place: &Place<'_>,
    rows: &Rows,
) -> Result<Vec<Rejection>, Failure> {
    let mut rejected = Vec::new();
    let mut parts = vec![(0, rows.len())];
    while let Some((from, to)) = parts.pop() {
        if from == to {
            continue;
        }
        session.run("SAVEPOINT part").await?;
        match add(session, tables, place, rows, from, to).await {
            Ok(()) => session.run("RELEASE part").await?,
            Err(failure) if failure.fault.is_refused() => {
                session.run("ROLLBACK TO part; RELEASE part").await?;
                if to - from == 1 {
                    rejected.push(Rejection { point: rows.points[from], reason: failure.fault.reason().to_owned() });
                } else {
                    let middle = from + (to - from) / 2;
                    parts.push((middle, to));
                    parts.push((from, middle));
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(rejected)
}

async fn remember(
    session: &Session<'_>,
    tables: &Tables,
    place: &Place<'_>,
    rejected: &[Rejection],
) -> Result<(), Failure> {
    if rejected.is_empty() {
        return Ok(());
    }
    let points: Vec<i64> = rejected.iter().filter_map(|rejection| i64::try_from(rejection.point).ok()).collect();
    let reasons: Vec<&str> = rejected.iter().map(|rejection| rejection.reason.as_str()).collect();
    let insert = format!(
        "INSERT INTO {} SELECT $1, $2, $3, p.point, p.reason FROM unnest($4, $5) AS p(point, reason)",
        tables.refused()
    );
    session
        .execute(
            &insert,
            &[
                (&place.topic, Type::TEXT),
                (&place.partition, Type::INT8),
                (&place.first, Type::INT8),
                (&points, Type::INT8_ARRAY),
                (&reasons, Type::TEXT_ARRAY),
            ],
        )
        .await?;
    Ok(())
}

async fn refused(session: &Session<'_>, tables: &Tables, place: &Place<'_>) -> Result<Vec<Rejection>, Failure> {
    let select = format!(
        "SELECT point, reason FROM {} WHERE topic = $1 AND partition = $2 AND first_offset = $3 ORDER BY point",
        tables.refused()
    );
    let key = [(&place.topic as _, Type::TEXT), (&place.partition as _, Type::INT8), (&place.first as _, Type::INT8)];
    let mut rejected = Vec::new();
    for row in session.query(&select, &key).await? {
        let read = |error: tokio_postgres::Error| Failure::of(&error, None);
        let (point, reason): (i64, String) = (row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?);
        let point = usize::try_from(point).map_err(|_| Fault::operator("a point below 0 was refused"))?;
        rejected.push(Rejection { point, reason });
    }
    Ok(rejected)
}
