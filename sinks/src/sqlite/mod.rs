//! SQLite: one file on this machine.
//!
//! # What is written
//! One row for each series and window in the table `counters`: the batch's sums are added to it. With window 0 the rows
//! carry the events' own times, and events of one series at the same nanosecond share a row, summed.
//!
//! # Why writing twice changes nothing
//! The table `ledger` holds, for each partition, the offset up to which the file is complete. A batch is added and the
//! ledger advanced in one transaction (WAL, `synchronous = FULL`), and only if the ledger is at or before the batch's
//! first offset. So a batch is applied exactly once, however many workers write it at the same time.
//!
//! A file that is already past a batch that cannot have been written before belongs to another bus, or to a recreated topic:
//! then the sink halts and reports it, instead of treating the batch as applied. A batch may have been written before
//! if it was found sealed, or if this process has begun to write it.
//!
//! # Order
//! In order within a partition; no order between partitions.
//!
//! # Answers
//! A point whose sum would exceed 63 bits is rejected, and recorded in the same transaction, so that a second attempt
//! rejects the same. A busy or full disk is retried; a file that is missing, foreign, unwritable or replaced halts.

mod apply;
mod ask;
mod claims;
mod config;
mod file;
mod read;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rusqlite::Connection;
use tallybus_bus::TopicPartition;
use tallybus_sdk::{
    Admin, Answer, BackendVersion, Batch, Claims, DeliveryGuarantee, Encoded, Fault, InDoubt, Kind, LedgerEnd,
    QUESTIONS, Question, ReadBack, Sink, SinkError, Storage, Tried, VisitHeld, WindowsQuery, WriteOutcome, folder,
};
use tokio::sync::mpsc;

use self::apply::{Applied, Tags};
use self::config::Config;
use self::file::FileId;
use crate::shared::questions;
use crate::shared::shadow::not_shadow;

/// The sink's entry in the table of kinds.
pub const KIND: Kind = Kind {
    name: "sqlite",
    summary: "SQLite: one file on this machine",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "rows and ledger in one transaction",
    settings: config::SETTINGS,
    parse: config::parse,
    questions: QUESTIONS,
    storage: Some(STORAGE),
    shadow: Some(config::shadow),
};

/// What [`ReadBack::storage`] counts.
const STORAGE: &str = "the file with its write-ahead log";

/// How many rows that are read back are handed over at once.
const CHUNK: usize = 1_024;
/// How many such chunks may wait to be visited.
const CHUNKS: usize = 4;

/// Writes to one file.
#[derive(Debug)]
pub struct SqliteSink {
    shared: Arc<Shared>,
    /// In nanoseconds; 0: each event is its own point.
    window: i64,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<Connection>,
    /// The file that this process writes to; never another one of the same name.
    file: Option<FileId>,
    in_doubt: InDoubt,
}

impl SqliteSink {
    fn new(config: Config, window: i64) -> Self {
        Self { shared: Arc::new(Shared { config, state: Mutex::default() }), window }
    }

    /// Runs blocking work, so that other tasks continue meanwhile. Work that has begun completes, even when its caller
    /// was dropped.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Fault::retry(format!("writing to SQLite was cancelled: {error}"))),
        }
    }
}

impl SqliteSink {
    /// Reads in a thread that may block, and visits the rows in chunks.
    async fn stream(&self, query: WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), Fault> {
        let (sender, mut receiver) = mpsc::channel(CHUNKS);
        let reading = self.blocking(move |shared| {
            let mut chunk = Vec::with_capacity(CHUNK);
            // The receiver is dropped when no more rows are wanted.
            let mut hand = |held| {
                chunk.push(held);
                if chunk.len() < CHUNK {
                    return ControlFlow::Continue(());
                }
                match sender.blocking_send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK))) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            };
            shared.read(|connection| read::windows(connection, &query, &mut hand))?;
            let _gone = sender.blocking_send(chunk);
            Ok(())
        });
        let visiting = async {
            while let Some(chunk) = receiver.recv().await {
                chunk.into_iter().for_each(&mut *visit);
            }
        };
        tokio::join!(reading, visiting).0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves an open transaction at worst, which SQLite rolls back when the connection is dropped.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that may be created and does not exist yet needs only a directory in which it can be created.
    fn check(&self) -> Result<(), Fault> {
        let path = &self.config.path;
        let folder = self.directory();
        if file::exists(path)? || !self.config.create {
            self.prepare()?;
            // A transaction that is rolled back allocates nothing.
            return match folder::probe(folder) {
                Err(error) if folder::is_full(&error) => {
                    Err(Fault::retry(format!("{} cannot be written: {error}; free some space", path.display())))
                }
                // The file is there; what it needs beside it, SQLite has just opened.
                _ => Ok(()),
            };
        }
        if !folder.is_dir() {
            return Err(Fault::operator(format!("{} cannot be created: its directory does not exist", path.display())));
        }
        folder::probe(folder).map_err(|error| match folder::is_full(&error) {
            true => Fault::retry(format!("{} cannot be created: {error}; free some space", path.display())),
            false => Fault::operator(format!(
                "{} cannot be created: {error}; give this user write permission on {}, or correct `path`",
                path.display(),
                folder.display()
            )),
        })
    }

    fn directory(&self) -> &Path {
        folder::of_file(&self.config.path)
    }

    fn prepare(&self) -> Result<(), Fault> {
        let mut state = self.lock();
        let outcome = self.connect(&mut state).and_then(|connection| {
            let fault = |error| file::fault(&self.config.path, &error);
            // Only an attempt to write shows whether the file is writable.
            connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(fault)
        });
        Self::settle(&mut state, outcome)
    }

    fn write(&self, batch: &Batch, tags: &Tags) -> Result<WriteOutcome, Fault> {
        let mut state = self.lock();
        let known = (state.in_doubt.contains(batch), state.in_doubt.least(batch));
        let mut has_begun = false;
        let outcome = self.connect(&mut state).and_then(|connection| {
            apply::apply(connection, batch, tags, known, || has_begun = true)
                .map_err(|error| file::fault(&self.config.path, &error))
        });
        if has_begun {
            state.in_doubt.begin(batch);
        }
        let applied = Self::settle(&mut state, outcome)?;
        if matches!(applied, Applied::In(_)) {
            state.in_doubt.applied(batch);
        }
        Ok(self.answer(batch, applied))
    }

    fn answer(&self, batch: &Batch, applied: Applied) -> WriteOutcome {
        let path = self.config.path.display();
        match applied {
            Applied::In(rejected) if rejected.is_empty() => WriteOutcome::Done,
            Applied::In(rejected) => WriteOutcome::Rejected(rejected),
            Applied::Diverged(how, end) => {
                WriteOutcome::Halt { reason: how.describe(&path.to_string(), "file", &batch.id, Some(end)) }
            }
        }
    }

    /// Fails when the file is no longer the one that this process wrote to.
    fn same_file(&self, state: &mut State) -> Result<(), Fault> {
        let path = &self.config.path;
        if let Some(known) = state.file
            && FileId::of(path) != Some(known)
        {
            state.connection = None;
            return Err(Fault::operator(format!(
                "{} was moved, removed or replaced while it was written to: put it back, or restart the worker to \
                 continue with \
                 the current file",
                path.display()
            )));
        }
        Ok(())
    }

    /// Removes the file, with what SQLite keeps beside it.
    fn remove_shadow(&self) -> Result<(), Fault> {
        let path = &self.config.path;
        if !config::is_shadow(path) {
            return Err(not_shadow(path.display()).into());
        }
        let mut state = self.lock();
        state.connection = None;
        state.file = None;
        file::remove(path)
    }

    /// The offset up to which the file contains a partition.
    fn ledger_end(&self, topic: &str, partition: u32) -> Result<u64, Fault> {
        self.same_file(&mut self.lock())?;
        let end = self.read(|connection| apply::ledger_end(connection, topic, partition))?;
        self.lock().in_doubt.found(TopicPartition::new(topic, partition), end);
        Ok(end)
    }

    /// The open connection, opened first where needed; never to another file than the first one.
    fn connect<'s>(&self, state: &'s mut State) -> Result<&'s mut Connection, Fault> {
        let path = &self.config.path;
        self.same_file(state)?;
        if state.connection.is_none() {
            state.connection = Some(file::open(path, self.config.create)?);
            state.file = FileId::of(path);
        }
        state.connection.as_mut().ok_or_else(|| Fault::retry(format!("{} is not open", path.display())))
    }

    /// After a fault that needs operator action the file is opened again: it may have been fixed or replaced.
    fn settle<T>(state: &mut State, outcome: Result<T, Fault>) -> Result<T, Fault> {
        if matches!(outcome, Err(Fault::Operator { .. })) {
            state.connection = None;
        }
        outcome
    }

    /// Reads on a connection of its own, so that a long read does not block a write. Returns the default when the file
    /// does not exist yet and may be created.
    fn read<T: Default>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        let path = &self.config.path;
        let Some(connection) = file::open_to_read(path)? else {
            if self.config.create {
                return Ok(T::default());
            }
            return Err(Fault::operator(format!("{} does not exist: correct `path`", path.display())));
        };
        read(&connection).map_err(|error| file::fault(path, &error))
    }
}

#[async_trait]
impl Sink for SqliteSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    async fn check(&self) -> Result<(), SinkError> {
        Ok(self.blocking(Shared::check).await?)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn destination(&self) -> Option<String> {
        Some(tallybus_sdk::canonical_path(&self.shared.config.path).display().to_string())
    }

    fn directory(&self) -> Option<PathBuf> {
        Some(self.shared.directory().to_owned())
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn without_network(&self) -> Option<&'static str> {
        Some("not offered: the sink writes a file, and nothing crosses a network")
    }

    async fn ledger_end(&self, topic: &str, partition: u32) -> Result<Option<LedgerEnd>, SinkError> {
        let topic = topic.to_owned();
        let offset = self.blocking(move |shared| shared.ledger_end(&topic, partition)).await?;
        Ok(Some(LedgerEnd { destination: self.shared.config.path.display().to_string(), offset }))
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        apply::encode(batch)
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        if !batch.part.is_empty() {
            let reason = format!("{} is a part of a batch; SQLite takes whole batches only", batch.key());
            return WriteOutcome::Halt { reason };
        }
        let tags = match encoded.as_value::<Tags>() {
            Ok(tags) => tags,
            Err(error) => return Fault::from(error).into(),
        };
        let batch = batch.clone();
        match self.blocking(move |shared| shared.write(&batch, &tags)).await {
            Ok(answer) => answer,
            Err(fault) => fault.into(),
        }
    }

    async fn close(&self) {
        let closing = self.blocking(|shared| {
            shared.lock().connection = None;
            Ok(())
        });
        // A connection that closes late loses nothing.
        let _closed = closing.await;
    }
}

#[async_trait]
impl Admin for SqliteSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        Ok(self.blocking(Shared::prepare).await?)
    }

    async fn try_access(&self) -> Result<Tried, SinkError> {
        // Writing by the check, in a transaction that was rolled back or with a file that was removed.
        self.blocking(|shared| shared.ledger_end("", 0)).await?;
        Ok(Tried::WritingAndReading)
    }

    async fn remove_shadow(&self) -> Result<(), SinkError> {
        Ok(self.blocking(Shared::remove_shadow).await?)
    }
}

#[async_trait]
impl ReadBack for SqliteSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        Ok(self.stream(query.clone(), visit).await?)
    }

    async fn ask(&self, question: &Question) -> Result<Answer, SinkError> {
        let question = match questions::prepare(question, self.window) {
            Ok(question) => question,
            Err(answer) => return Ok(answer),
        };
        let asked = question.clone();
        let found = self.blocking(move |shared| shared.read(|connection| ask::ask(connection, &asked))).await?;
        found.answer(&question)
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        let bytes = self.blocking(|shared| file::size(&shared.config.path)).await?;
        Ok(Storage::Bytes { bytes, what: STORAGE })
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        // That of the library, which is the whole engine.
        Ok(BackendVersion::Is(rusqlite::version().to_owned()))
    }
}

#[cfg(test)]
mod tests;
