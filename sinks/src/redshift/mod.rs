//! Amazon Redshift, through the Data API: provisioned clusters and serverless workgroups, without a driver or a VPC.
//!
//! # What is written
//! One row for each series, window and batch: rows are only ever added, which is what a column store is good at. A series'
//! count in a window is the sum of its rows. Each row holds the coordinates of its batch (topic, partition, first
//! offset).
//!
//! # Why writing twice changes nothing
//! A batch is one transaction (`BatchExecuteStatement`): it locks the table `…_ledger`, advances the ledger from the
//! batch's first offset to its end, and adds the rows. The ledger has a row for each partition with the offset up to
//! which everything is written. If it is not at the batch's first offset, the statement that advances it yields a NULL
//! for a NOT NULL column, fails, and with it the whole transaction. (Redshift enforces NOT NULL, though not keys; and
//! rows that come as `VALUES` or by `COPY` cannot carry a condition.) So a batch is written exactly once, whichever
//! worker writes it, however often and late: a statement of a worker that ended long ago finds the ledger past its
//! batch.
//!
//! **Under both isolation levels.** `LOCK` comes first. It waits until every other transaction on this ledger is over, one that
//! only reads it included (a write that waits returns after `timeout`, says so, and waits again), and a
//! transaction takes its snapshot with the first statement that reads or writes, which comes after. So transactions of one
//! ledger run one after the other and each sees the effects of the previous one, under SNAPSHOT as under SERIALIZABLE.
//! Nothing else in them reads, so every order is serialisable. If Redshift nevertheless detects a conflict, it rolls a
//! transaction back (error 1023), and the batch is written again. This is why a ledger belongs to one sink: sinks that
//! shared one would wait for each other. Within a sink one transaction runs at a time; a worker requests the next one
//! when the last has ended, instead of letting it wait in the cluster.
//!
//! A table that is already past a batch that cannot have been written before belongs to another bus, or to a recreated topic:
//! then the sink halts and reports it.
//!
//! # Statements whose worker is gone
//! A request's `ClientToken` is derived from sink, batch, statements and attempt, so every worker that writes a batch
//! requests the same transaction, and the Data API runs it once. Attempt n + 1 is made only when attempt n is known to
//! have failed. While an attempt may still run, its state is polled and it is never replaced: after a lost answer the
//! same request is sent again.
//!
//! A worker that finds a batch sealed first reads the ledger and, if the batch is not written, begins at attempt 0. It
//! is not documented whether a token whose transaction *failed* returns that failure or runs the statements again. Both
//! are correct here: a failure older than the read of the ledger is an old one, and the next attempt is made at once.
//! Statements are part of the token, so no token is ever sent with different statements. And whatever a token does, the
//! ledger decides.
//!
//! # Parts
//! A batch that does not fit into one request is halved, by its size alone, and its parts are written from left to right.
//! The ledger then records how much of the batch is written. A batch with written parts is never written as a whole.
//!
//! # Order
//! In order within a partition; no order between partitions.
//!
//! # Answers
//! See `answer.rs`. A batch of which Redshift refuses a row is halved until the row is isolated. The refusal is
//! recorded in `…_refused`, in a transaction that advances the ledger, so that a second attempt rejects the same row.

mod answer;
mod ask;
mod attempts;
mod claims;
mod client;
mod config;
mod copy;
mod encode;
mod pages;
mod read;
mod sql;
mod statements;
mod tables;
mod write;

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tallybus_bus::TopicPartition;
use tallybus_sdk::{
    Admin, Answer, BackendVersion, Batch, Claims, DeliveryGuarantee, Encoded, Kind, LedgerEnd, QUESTIONS, Question,
    ReadBack, ShadowName, Sink, SinkContext, SinkError, Storage, Tried, Usage, VisitHeld, WindowsQuery, WriteOutcome,
};

use self::attempts::Attempts;
use self::client::Client;
use self::config::Config;
use self::copy::Stage;
use self::read::{Missing, SmallRead};
use self::tables::Tables;
use crate::shared::fingerprint::short_fingerprint;
use crate::shared::questions;
use crate::shared::shadow::not_shadow;

/// The sink's entry in the table of kinds.
pub const KIND: Kind = Kind {
    name: "redshift",
    summary: "Amazon Redshift through the Data API: one table",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "rows and ledger in one transaction, requested with a token derived from the batch",
    settings: config::SETTINGS,
    parse: config::parse,
    questions: QUESTIONS,
    storage: Some(STORAGE),
    shadow: Some(config::shadow),
};

/// What [`ReadBack::storage`] counts.
const STORAGE: &str = "1 MB blocks of the three tables, by SVV_TABLE_INFO";
const BLOCK: u64 = 1 << 20;

/// Writes to one table.
#[derive(Debug)]
pub struct RedshiftSink {
    name: String,
    client: Client,
    tables: Tables,
    stage: Option<Stage>,
    create: bool,
    /// One transaction at a time: further ones would wait in the cluster for the ledger's lock.
    turn: tokio::sync::Mutex<()>,
    attempts: Mutex<Attempts>,
    small_read: SmallRead,
    /// Warehouse, database and table, for people.
    place: String,
    /// The scope of a token besides the batch: warehouse, database, table, sink.
    scope: String,
    /// In nanoseconds; 0: each event is its own point.
    window: i64,
}

impl RedshiftSink {
    fn new(config: Config, context: &SinkContext) -> Self {
        let target = &config.target;
        let warehouse = target.cluster.iter().chain(&target.workgroup).cloned().collect::<String>();
        let scope = [&*warehouse, &target.database, &config.tables.counters(), &context.name].join("\0");
        let endpoint = config.aws.endpoint_host().map(|host| format!(" at {host}")).unwrap_or_default();
        let place = format!("Redshift {warehouse}/{} {}{endpoint}", target.database, config.tables.counters());
        Self {
            name: context.name.clone(),
            place,
            client: Client::new(&config),
            stage: Stage::of(&config, &context.name),
            create: config.create,
            turn: tokio::sync::Mutex::default(),
            attempts: Mutex::default(),
            small_read: SmallRead::default(),
            scope,
            window: context.window,
            tables: config.tables,
        }
    }

    fn attempts(&self) -> MutexGuard<'_, Attempts> {
        // Plain values, consistent at any time.
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The missing tables and columns, when nothing else is wrong.
    async fn look(&self) -> Result<Vec<String>, SinkError> {
        let found = read::look_at_tables(&self.client, &self.tables).await?;
        let wrong: Vec<&str> = found
            .iter()
            .filter_map(|missing| match missing {
                Missing::Column(text) => Some(text.as_str()),
                Missing::Table(_) => None,
            })
            .collect();
        if !wrong.is_empty() {
            return Err(SinkError::Halt(format!(
                "{}; alter the table, or set another `table`; `tallybus sink ddl {}` prints what is expected",
                wrong.join("; "),
                self.name
            )));
        }
        let missing = found.into_iter().filter_map(|missing| match missing {
            Missing::Table(table) => Some(table),
            Missing::Column(_) => None,
        });
        Ok(missing.collect())
    }

    /// Text comparison must be case-sensitive; either isolation level is accepted.
    async fn check_database(&self) -> Result<(), SinkError> {
        let collation = self.ask_database("SELECT db_collation()").await?.unwrap_or_default();
        if collation.contains("insensitive") {
            return Err(SinkError::Halt(
                "the database compares text case-insensitively (db_collation() is case_insensitive), and two counters \
                 could \
                 become one; set a case-sensitive `database`"
                    .to_owned(),
            ));
        }
        let level = format!(
            "SELECT TRIM(isolation_level) FROM stv_db_isolation_level WHERE TRIM(db_name) = {}",
            sql::literal(&self.client.database().to_lowercase())
        );
        let level = self.ask_database(&level).await?.unwrap_or_default();
        if level.is_empty() {
            tracing::info!(
                sink = self.name,
                "the database's isolation level is unknown: this user may not read stv_db_isolation_level; the sink needs \
                 SNAPSHOT or SERIALIZABLE"
            );
        }
        tracing::debug!(isolation = level, collation, "redshift answers");
        match level.is_empty() || level.contains("snapshot") || level.contains("serializable") {
            true => Ok(()),
            false => Err(SinkError::Halt(format!(
                "the database's isolation level is {level}; this sink requires SNAPSHOT or SERIALIZABLE"
            ))),
        }
    }

    /// A property of the database, in lower case; `None` when this user may not read it.
    async fn ask_database(&self, sql: &str) -> Result<Option<String>, SinkError> {
        let found = match self.client.query(sql).await {
            Ok(found) => found,
            Err(failure) if failure.fault.is_retry() => return Err(failure.into()),
            Err(failure) => {
                tracing::debug!(reason = failure.fault.reason(), "redshift did not report a property");
                return Ok(None);
            }
        };
        Ok(found.rows.first().and_then(|row| row.first()).map(|cell| cell.text().trim().to_lowercase()))
    }

    async fn make(&self, missing: &[String]) -> Result<(), SinkError> {
        if missing.is_empty() {
            return Ok(());
        }
        let statements = self.tables.create();
        Ok(self.client.execute(statements).await?)
    }
}

#[async_trait]
impl Sink for RedshiftSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    fn layout_fingerprint(&self) -> String {
        match self.tables.columns.is_empty() {
            true => String::new(),
            false => format!("columns={}", short_fingerprint(self.tables.columns.iter().map(String::as_str))),
        }
    }

    async fn check(&self) -> Result<(), SinkError> {
        let missing = self.look().await?;
        if !missing.is_empty() && !self.create {
            return Err(SinkError::Halt(format!(
                "schema {} has no table {}, or shows none to this user: `tallybus sink ddl {}` prints the DDL, `tallybus doctor \
                 --fix` makes them, `create = true` lets the worker",
                self.tables.schema,
                missing.join(", "),
                self.name
            )));
        }
        self.check_database().await?;
        match &self.stage {
            Some(stage) => stage.check().await,
            None => Ok(()),
        }
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn usage(&self) -> Vec<Usage> {
        let used = &self.client.used;
        vec![
            Usage::of("requests", used.requests.load(Ordering::Relaxed)),
            Usage::of("statements", used.statements.load(Ordering::Relaxed)),
            Usage::of("SQL bytes", used.sql_bytes.load(Ordering::Relaxed)),
            Usage::of("staged bytes", used.staged_bytes.load(Ordering::Relaxed)),
        ]
    }

    fn destination(&self) -> Option<String> {
        Some(self.place.clone())
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        match self.stage {
            Some(_) => encode::object(batch, &self.tables),
            None => encode::statements(batch, &self.tables),
        }
    }

    async fn ledger_end(&self, topic: &str, partition: u32) -> Result<Option<LedgerEnd>, SinkError> {
        let offset = match read::ledger_end(&self.client, &self.tables, topic, partition).await {
            // The worker may be about to create the tables: then they count as empty.
            Err(SinkError::Halt(_))
                if self.create && self.look().await?.contains(&format!("{}_ledger", self.tables.table)) =>
            {
                0
            }
            found => found?,
        };
        self.attempts().floor.found(TopicPartition::new(topic, partition), offset);
        Ok(Some(LedgerEnd { destination: self.tables.counters(), offset }))
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        write::write(self, batch, encoded).await
    }
}

#[async_trait]
impl Admin for RedshiftSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        if self.create {
            return self.fix().await;
        }
        self.check().await
    }

    async fn fix(&self) -> Result<(), SinkError> {
        let missing = self.look().await?;
        self.make(&missing).await?;
        self.check().await
    }

    async fn try_access(&self) -> Result<Tried, SinkError> {
        if !self.look().await?.is_empty() {
            return Ok(Tried::Nothing);
        }
        let tables = [self.tables.counters(), self.tables.ledger(), self.tables.refused()];
        let nothing = |table: &String| format!("INSERT INTO {table} SELECT * FROM {table} WHERE false");
        self.client.execute(tables.iter().map(nothing).collect()).await?;
        Ok(Tried::WritingAndReading)
    }

    async fn remove_shadow(&self) -> Result<(), SinkError> {
        if !ShadowName::is(&self.tables.table) {
            return Err(not_shadow(&self.place));
        }
        let tables = [self.tables.counters(), self.tables.ledger(), self.tables.refused()];
        let drop = |table: &String| format!("DROP TABLE IF EXISTS {table}");
        Ok(self.client.execute(tables.iter().map(drop).collect()).await?)
    }

    fn ddl(&self) -> Option<String> {
        Some(self.tables.ddl())
    }
}

#[async_trait]
impl ReadBack for RedshiftSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        read::windows(&self.client, &self.tables, &self.small_read, query, visit).await
    }

    async fn ask(&self, question: &Question) -> Result<Answer, SinkError> {
        match questions::prepare(question, self.window) {
            Ok(question) => ask::ask(&self.client, &self.tables, &question).await,
            Err(answer) => Ok(answer),
        }
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        Ok(match ask::blocks(&self.client, &self.tables).await? {
            Some(blocks) => Storage::Bytes { bytes: blocks.saturating_mul(BLOCK), what: STORAGE },
            None => Storage::NotOffered("SVV_TABLE_INFO shows this user nothing of the tables"),
        })
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        ask::version(&self.client).await
    }
}
