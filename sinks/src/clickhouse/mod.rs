//! ClickHouse, over its HTTP interface.
//!
//! # What is written
//! One row for each series, window and batch, in one insert a batch: rows are only ever added. A series' count in a window is
//! the sum of its rows.
//!
//! # Why writing twice changes nothing
//! Each insert is one block and carries the batch's key as its deduplication token: ClickHouse treats an insert with a
//! known token as already done. It remembers the last inserts of a table (10,000 in a table that this sink creates; for
//! replicated tables the server's defaults are 10,000 and one hour). Beyond that window, the sink first queries for a
//! batch that may have been written before: every row holds its batch's coordinates. A batch may have been written if
//! it was found sealed, or if this process has attempted it before.
//!
//! So the guarantee does not cover a writer that lost its partition and first sends a batch after the window has passed
//! since its successor wrote it. A table that its owner has partitioned takes a block partition by partition, each
//! deduplicated by the token: a block left half done by a crash of the server is completed by the next attempt, within
//! the window.
//!
//! # Order
//! In order within a partition; no order between partitions.
//!
//! # Answers
//! Rows that a constraint of the table refuses are found by halving. A half has a token of its own, and its rows name
//! the half, so that a batch of which halves are already inserted is halved again and never also written whole.

mod answer;
mod ask;
mod claims;
mod client;
mod config;
mod encode;
mod read;
mod table;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use tallybus_sdk::{
    Admin, Answer, BackendVersion, Batch, Claims, DeliveryGuarantee, Encoded, Fault, InDoubt, Kind, QUESTIONS,
    Question, ReadBack, ShadowName, Sink, SinkError, Storage, Tried, Usage, VisitHeld, WindowsQuery, WriteOutcome,
};

use self::answer::{judge, judge_query};
use self::client::Client;
use self::config::Config;
use crate::shared::questions;
use crate::shared::shadow::not_shadow;

/// The sink's entry in the table of kinds.
pub const KIND: Kind = Kind {
    name: "clickhouse",
    summary: "ClickHouse: one table",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "each insert carries its batch's key as deduplication token, and a batch found sealed is queried \
        first; within a \
            stated bound",
    settings: config::SETTINGS,
    parse: config::parse,
    questions: QUESTIONS,
    storage: Some(STORAGE),
    shadow: Some(config::shadow),
};

/// What [`ReadBack::storage`] counts.
const STORAGE: &str = "active parts on the disk, compressed";

/// Writes to one table.
#[derive(Debug)]
pub struct ClickHouseSink {
    client: Client,
    state: Mutex<State>,
    /// In nanoseconds; 0: each event is its own point.
    window: i64,
}

#[derive(Debug, Default)]
struct State {
    in_doubt: InDoubt,
    inserts: u64,
    rows: u64,
    bytes: u64,
}

impl ClickHouseSink {
    fn new(config: Config, window: i64) -> Result<Self, SinkError> {
        Ok(Self { client: Client::new(config)?, state: Mutex::default(), window })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values, consistent at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_rows(&self, batch: &Batch, encoded: &Encoded) -> Result<(), Fault> {
        let body = encoded.as_bytes()?;
        let in_doubt = self.state().in_doubt.contains(batch);
        let points = u64::try_from(batch.points.len()).unwrap_or(u64::MAX);
        if in_doubt {
            let held = read::held(&self.client, batch).await?;
            if held.parts {
                return Err(Fault::refused("parts of the batch are already written"));
            }
            if held.rows >= points {
                return Ok(());
            }
        }
        {
            let mut state = self.state();
            state.in_doubt.begin(batch);
            state.inserts += 1;
            state.bytes += u64::try_from(body.len()).unwrap_or_default();
        }
        let reply = self.client.insert(body.clone(), &batch.key()).await.map_err(Fault::retry)?;
        judge(&reply, SystemTime::now())?;
        self.state().rows += points;
        Ok(())
    }

    /// Creates the missing database and table.
    async fn make(&self) -> Result<(), SinkError> {
        let table = &self.client.config().table;
        let select = format!("SELECT 1 FROM system.databases WHERE name = {}", table::literal(&table.database));
        if self.client.rows(&select).await?.is_empty() {
            self.run(&table.make_database()).await?;
        }
        self.run(&table.make()).await
    }

    async fn run(&self, statement: &str) -> Result<(), SinkError> {
        match self.client.query(statement).await? {
            Ok(_) => Ok(()),
            Err(reply) => Err(judge_query(&reply)),
        }
    }

    async fn prepare_table(&self, may_create: bool) -> Result<(), SinkError> {
        if may_create && !read::check(&self.client).await? {
            self.make().await?;
        }
        self.check().await
    }

    /// Whether the table exists; a missing one counts as empty when the sink may create it.
    async fn is_there(&self) -> Result<bool, SinkError> {
        if !self.client.config().create {
            return Ok(true);
        }
        let select = format!("EXISTS TABLE {}", self.client.config().table.quoted());
        match self.client.query(&select).await? {
            Ok(answer) => Ok(answer.starts_with(b"1")),
            Err(reply) if reply.says_missing() => Ok(false),
            Err(reply) => Err(judge_query(&reply)),
        }
    }
}

#[async_trait]
impl Sink for ClickHouseSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    async fn check(&self) -> Result<(), SinkError> {
        let config = self.client.config();
        if read::check(&self.client).await? || config.create {
            return Ok(());
        }
        Err(SinkError::Halt(format!(
            "table {} does not exist: set `create = true`, or run what `tallybus sink ddl` prints",
            config.table.quoted()
        )))
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn destination(&self) -> Option<String> {
        let Config { url, table, .. } = self.client.config();
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        Some(format!("ClickHouse {host}:{port}/{}/{}", table.database, table.name))
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn usage(&self) -> Vec<Usage> {
        let state = self.state();
        vec![Usage::of("inserts", state.inserts), Usage::of("rows", state.rows), Usage::of("bytes", state.bytes)]
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        encode::encode(batch, self.client.config().gzip)
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        if encoded.is_nothing() {
            return WriteOutcome::Done;
        }
        self.write_rows(batch, encoded).await.into()
    }
}

#[async_trait]
impl Admin for ClickHouseSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.prepare_table(self.client.config().create).await
    }

    async fn fix(&self) -> Result<(), SinkError> {
        self.prepare_table(true).await
    }

    async fn try_access(&self) -> Result<Tried, SinkError> {
        if !self.is_there().await? {
            return Ok(Tried::Nothing);
        }
        let table = self.client.config().table.quoted();
        self.run(&format!("INSERT INTO {table} SELECT * FROM {table} WHERE 0")).await?;
        Ok(Tried::WritingAndReading)
    }

    async fn remove_shadow(&self) -> Result<(), SinkError> {
        let table = &self.client.config().table;
        if !ShadowName::is(&table.name) {
            return Err(not_shadow(table.quoted()));
        }
        self.run(&format!("DROP TABLE IF EXISTS {} SYNC", table.quoted())).await
    }

    fn ddl(&self) -> Option<String> {
        Some(self.client.config().table.ddl())
    }
}

#[async_trait]
impl ReadBack for ClickHouseSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        match self.is_there().await? {
            true => read::windows(&self.client, query, visit).await,
            false => Ok(()),
        }
    }

    async fn ask(&self, question: &Question) -> Result<Answer, SinkError> {
        match questions::prepare(question, self.window) {
            Ok(question) if self.is_there().await? => ask::ask(&self.client, &question).await,
            Ok(question) => Ok(question.empty_answer()),
            Err(answer) => Ok(answer),
        }
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        Ok(Storage::Bytes { bytes: ask::storage(&self.client).await?, what: STORAGE })
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        Ok(BackendVersion::Is(ask::version(&self.client).await?))
    }
}
