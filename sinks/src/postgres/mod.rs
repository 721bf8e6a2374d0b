//! PostgreSQL, and servers with its protocol and guarantees, such as TimescaleDB.
//!
//! # What is written
//! One row for each series, window and batch: rows are only ever added. A series' count in a window is the sum of its rows.
//! Adding to an existing row would cost a lock on it, a dead version of it for each batch, and a unique key over tags,
//! which a hypertable can have only together with its time and a compressed one only at great cost.
//!
//! # Why writing twice changes nothing
//! The table `…_ledger` holds, for each partition, the offset up to which the database has everything. Its row is locked
//! first; rows are added and the ledger is advanced in one transaction, and only if the ledger is at or before the
//! batch's first offset. So a batch is applied exactly once, however many workers write it at the same time, for as
//! long as the ledger exists.
//! `synchronous_commit` is `on` where the server's default is `off`.
//!
//! A database that is already past a batch that cannot have been written before belongs to another bus, or to a recreated
//! topic: then the sink halts and reports it. A batch may have been written before if it was found sealed, or if this
//! process has begun to write it.
//!
//! # Order
//! In order within a partition; no order between partitions, each on a connection of its own while it is written.
//!
//! # Answers
//! A row that the database refuses (a value out of range, a `CHECK` of the table's owner) is found under savepoints, and
//! remembered in the same transaction in `…_refused`, so that a second try rejects the same.

mod answer;
mod apply;
mod ask;
mod claims;
mod client;
mod config;
mod encode;
mod read;
mod sent;
mod tables;

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tallybus_bus::TopicPartition;
use tallybus_sdk::{
    Admin, Answer, BackendVersion, Batch, Claims, DeliveryGuarantee, Encoded, Fault, InDoubt, Kind, LedgerEnd,
    QUESTIONS, Question, ReadBack, ShadowName, Sink, SinkError, Storage, Tried, Usage, VisitHeld, WindowsQuery,
    WriteOutcome,
};

use self::answer::Failure;
use self::apply::Applied;
use self::client::Pool;
use self::config::Config;
use self::encode::Rows;
use crate::shared::questions;
use crate::shared::shadow::not_shadow;

/// The sink's entry in the table of kinds.
pub const KIND: Kind = Kind {
    name: "postgres",
    summary: "PostgreSQL and TimescaleDB: one table",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "rows and ledger in one transaction",
    settings: config::SETTINGS,
    parse: config::parse,
    questions: QUESTIONS,
    storage: Some(STORAGE),
    shadow: Some(config::shadow),
};

/// What [`ReadBack::storage`] counts.
const STORAGE: &str = "rows, indexes and TOAST of the three tables, with their partitions";

/// Writes to one table.
pub struct PostgresSink {
    pool: Pool,
    state: Mutex<State>,
    /// In nanoseconds; 0: each event is its own point.
    window: i64,
}

#[derive(Debug, Default)]
struct State {
    in_doubt: InDoubt,
    transactions: u64,
    rows: u64,
}

impl PostgresSink {
    fn new(config: Config, window: i64) -> Result<Self, SinkError> {
        Ok(Self { pool: Pool::new(config)?, state: Mutex::default(), window })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values, consistent at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_whole(&self, batch: &Batch, encoded: &Encoded) -> Result<WriteOutcome, Failure> {
        let known = {
            let state = self.state();
            (state.in_doubt.contains(batch), state.in_doubt.least(batch))
        };
        let rows = encoded.as_value::<Rows>().map_err(Fault::from)?;
        let session = self.pool.take().await?;
        self.state().transactions += 1;
        let begin = || self.state().in_doubt.begin(batch);
        let applied = apply::apply(&session, &self.pool.config().tables, batch, &rows, known, begin).await?;
        session.give_back();
        if let Applied::In(rejected) = &applied {
            let taken = rows.len().saturating_sub(rejected.len());
            self.state().in_doubt.applied(batch);
            self.state().rows += u64::try_from(taken).unwrap_or_default();
        }
        Ok(self.answer(batch, applied))
    }

    fn answer(&self, batch: &Batch, applied: Applied) -> WriteOutcome {
        let table = self.pool.config().tables.counters();
        match applied {
            Applied::In(rejected) if rejected.is_empty() => WriteOutcome::Done,
            Applied::In(rejected) => WriteOutcome::Rejected(rejected),
            Applied::Diverged(how, end) => {
                WriteOutcome::Halt { reason: how.describe(&table, "table", &batch.id, Some(end)) }
            }
        }
    }

    async fn look(&self) -> Result<(), Failure> {
        let session = self.pool.take().await?;
        read::check(&session, self.pool.config()).await?;
        session.give_back();
        Ok(())
    }

    /// Creates missing tables. Two workers doing so at once would conflict, so one waits.
    async fn make(&self) -> Result<(), Failure> {
        let tables = &self.pool.config().tables;
        let session = self.pool.take().await?;
        session.begin().await?;
        session.run("SELECT pg_advisory_xact_lock(x'74616c6c'::int, x'79627573'::int)").await?;
        // `IF NOT EXISTS` asks for the right to create even where nothing is to be created.
        let schema = tables.schema.as_str();
        let key = [(&schema as _, tokio_postgres::types::Type::TEXT)];
        if session.query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &key).await?.is_empty() {
            session.run(&tables.make_schema()).await?;
        }
        session.run(&tables.make()).await?;
        session.run("COMMIT").await?;
        session.give_back();
        Ok(())
    }

    async fn prepare_tables(&self, may_create: bool) -> Result<(), Failure> {
        let mut wanted = self.pool.config().clone();
        wanted.create = false;
        let session = self.pool.take().await?;
        let whole = read::check(&session, &wanted).await;
        drop(session);
        match whole {
            Err(failure) if may_create && matches!(failure.fault, Fault::Operator { .. }) && failure.code.is_none() => {
                self.make().await?;
            }
            outcome => return outcome,
        }
        let session = self.pool.take().await?;
        read::check(&session, &wanted).await?;
        session.give_back();
        Ok(())
    }

    /// Tables that do not exist yet and may be created count as empty.
    fn or_nothing<T: Default>(&self, failure: Failure) -> Result<T, SinkError> {
        if self.pool.config().create && failure.is_missing_table() {
            return Ok(T::default());
        }
        Err(failure.into())
    }
}

#[async_trait]
impl Sink for PostgresSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    async fn check(&self) -> Result<(), SinkError> {
        Ok(self.look().await?)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn destination(&self) -> Option<String> {
        let Config { host, port, database, tables, .. } = self.pool.config();
        Some(format!("PostgreSQL {}:{port}/{database} {}", host.to_lowercase(), tables.counters()))
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn unencrypted(&self) -> Option<String> {
        self.pool.config().unencrypted()
    }

    fn usage(&self) -> Vec<Usage> {
        let state = self.state();
        let (round_trips, bytes) = self.pool.sent();
        vec![
            Usage::of("round trips", round_trips),
            Usage::of("transactions", state.transactions),
            Usage::of("rows", state.rows),
            Usage::of("bytes sent", bytes),
        ]
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        encode::encode(batch)
    }

    async fn ledger_end(&self, topic: &str, partition: u32) -> Result<Option<LedgerEnd>, SinkError> {
        let tables = &self.pool.config().tables;
        let session = self.pool.take().await?;
        let offset = match read::ledger_end(&session, tables, topic, partition).await {
            Ok(offset) => {
                session.give_back();
                offset
            }
            Err(failure) => self.or_nothing(failure)?,
        };
        self.state().in_doubt.found(TopicPartition::new(topic, partition), offset);
        Ok(Some(LedgerEnd { destination: tables.counters(), offset }))
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        if !batch.part.is_empty() {
            let reason = format!("{} is a part of a batch; PostgreSQL takes whole batches only", batch.key());
            return WriteOutcome::Halt { reason };
        }
        match self.write_whole(batch, encoded).await {
            Ok(answer) => answer,
            // Rows that are refused are found one by one; what is refused beyond that, as by a deferred constraint, is for
            // the operator.
            Err(Failure { fault: Fault::Refused { reason }, .. }) => WriteOutcome::Halt { reason },
            Err(failure) => failure.fault.into(),
        }
    }

    async fn close(&self) {
        self.pool.close();
    }
}

#[async_trait]
impl Admin for PostgresSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        Ok(self.prepare_tables(self.pool.config().create).await?)
    }

    async fn fix(&self) -> Result<(), SinkError> {
        Ok(self.prepare_tables(true).await?)
    }

    async fn try_access(&self) -> Result<Tried, SinkError> {
        let tables = &self.pool.config().tables;
        let session = self.pool.take().await?;
        for table in [tables.counters(), tables.ledger(), tables.refused()] {
            match session.run(&format!("INSERT INTO {table} SELECT * FROM {table} WHERE false")).await {
                Ok(()) => {}
                Err(failure) if self.pool.config().create && failure.is_missing_table() => return Ok(Tried::Nothing),
                Err(failure) => return Err(failure.into()),
            }
        }
        session.give_back();
        Ok(Tried::WritingAndReading)
    }

    async fn remove_shadow(&self) -> Result<(), SinkError> {
        let tables = &self.pool.config().tables;
        if !ShadowName::is(&tables.table) {
            return Err(not_shadow(tables.counters()));
        }
        let session = self.pool.take().await?;
        let [counters, ledger, refused] = [tables.counters(), tables.ledger(), tables.refused()];
        session.run(&format!("DROP TABLE IF EXISTS {counters}, {ledger}, {refused}")).await?;
        session.give_back();
        Ok(())
    }

    fn ddl(&self) -> Option<String> {
        Some(self.pool.config().tables.ddl())
    }
}

#[async_trait]
impl ReadBack for PostgresSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        let session = self.pool.take().await?;
        match read::windows(&session, &self.pool.config().tables, query, visit).await {
            Ok(()) => {
                session.give_back();
                Ok(())
            }
            Err(failure) => self.or_nothing(failure),
        }
    }

    async fn ask(&self, question: &Question) -> Result<Answer, SinkError> {
        let question = match questions::prepare(question, self.window) {
            Ok(question) => question,
            Err(answer) => return Ok(answer),
        };
        let session = self.pool.take().await?;
        match ask::ask(&session, &self.pool.config().tables, &question).await {
            Ok(answer) => {
                session.give_back();
                Ok(answer)
            }
            Err(failure) if self.pool.config().create && failure.is_missing_table() => Ok(question.empty_answer()),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        let session = self.pool.take().await?;
        let bytes = ask::storage(&session, &self.pool.config().tables).await?;
        session.give_back();
        Ok(Storage::Bytes { bytes, what: STORAGE })
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        let session = self.pool.take().await?;
        let version = ask::version(&session).await?;
        session.give_back();
        Ok(BackendVersion::Is(version))
    }
}

impl From<Failure> for SinkError {
    fn from(failure: Failure) -> Self {
        failure.fault.into()
    }
}
