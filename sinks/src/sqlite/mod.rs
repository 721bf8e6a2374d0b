//! SQLite: one file on this machine.
//!
//! # What is written
//! One row for each series and window in the table `counters`: the batch's sums are added to it. With window 0 the rows
//! carry the events' own times, and events of one series at the same nanosecond share a row, summed.
//!
//! # Why writing twice changes nothing
//! The table `ledger` holds, for each partition, the offset up to which the file has everything. A batch is added and the
//! ledger moved in one transaction (WAL, `synchronous = FULL`), and only if the ledger stands at or before the batch's
//! first offset. So a batch is in exactly once, however many write it at the same time.
//!
//! A file that is already past a batch that *nobody can have written* belongs to another bus, or to a topic that was made
//! anew: then the sink halts and says so, instead of taking the batch for done. A batch may have been written if it was found
//! sealed, or if this process has tried it before.
//!
//! # Order
//! In order within a partition; partitions come as they come.
//!
//! # Answers
//! A point whose sum would leave 64 bits is rejected, and remembered in the same transaction, so that a second try rejects
//! the same. A busy or full disk is tried again; a file that is missing, foreign, unwritable or replaced halts.

mod apply;
mod config;
mod file;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use rusqlite::{Connection, params};
use tallybus_schemas::Series;
use tallybus_sdk::{Answer, Batch, Effect, Encoded, Kind, SeriesTotal, Sink, SinkError, TimeRange, grain};

use self::apply::Applied;
use self::config::Config;
use self::file::{FileId, Trouble};
use crate::json_tags::{series_of, tags_to_json};
use crate::tried::Tried;

/// The line in the table of kinds.
pub const KIND: Kind = Kind {
    name: "sqlite",
    summary: "SQLite: one file on this machine",
    effect: Effect::ExactlyOnce,
    means: "rows and ledger in one transaction",
    settings: config::SETTINGS,
    parse: config::parse,
};

/// Writes to one file.
#[derive(Debug)]
pub struct SqliteSink {
    shared: Arc<Shared>,
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
    tried: Tried,
}

impl SqliteSink {
    fn new(config: Config) -> Self {
        Self { shared: Arc::new(Shared { config, state: Mutex::default() }) }
    }

    /// SQLite blocks; other tasks go on meanwhile. Work that has begun ends, even when nobody waits for it any more.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, Trouble> {
        let shared = Arc::clone(&self.shared);
        match tokio::task::spawn_blocking(move || work(&shared)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Trouble::Passing(format!("writing to SQLite was cut off: {error}"))),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves an open transaction at worst, which SQLite rolls back when the connection is dropped.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that may be created and is not there yet needs no more than a folder.
    fn check(&self) -> Result<(), Trouble> {
        let path = &self.config.path;
        if path.exists() || !self.config.create {
            return self.prepare();
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(Trouble::Lasting(format!("{} cannot be created: its folder does not exist", path.display())));
        }
        Ok(())
    }

    fn prepare(&self) -> Result<(), Trouble> {
        let mut state = self.lock();
        let outcome = self.connect(&mut state).and_then(|connection| {
            let trouble = |error| file::trouble(&self.config.path, &error);
            // A file that may not be written shows only when one tries.
            connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").map_err(trouble)
        });
        Self::settle(&mut state, outcome)
    }

    fn write(&self, batch: &Batch) -> Result<Answer, Trouble> {
        let mut state = self.lock();
        let may_be_in = state.tried.may_be_in(batch);
        let mut has_begun = false;
        let outcome = self.connect(&mut state).and_then(|connection| {
            apply::apply(connection, batch, may_be_in, || has_begun = true)
                .map_err(|error| file::trouble(&self.config.path, &error))
        });
        if has_begun {
            state.tried.begin(batch);
        }
        let applied = Self::settle(&mut state, outcome)?;
        Ok(self.answer(batch, applied))
    }

    fn answer(&self, batch: &Batch, applied: Applied) -> Answer {
        let path = self.config.path.display();
        match applied {
            Applied::In(rejected) if rejected.is_empty() => Answer::Done,
            Applied::In(rejected) => Answer::Rejected(rejected),
            Applied::Ahead(next) => Answer::Halt {
                reason: format!(
                    "{path} has everything of {}/{} before offset {next}, but batch {batch} is new: the topic was made anew, \
                     the group was set back, or another bus or sink writes to this file; name a new file to count from here",
                    batch.id.topic,
                    batch.id.partition,
                    batch = batch.id
                ),
            },
            Applied::Inside(next) => Answer::Halt {
                reason: format!(
                    "{path} stands at offset {next} of {}/{}, inside batch {batch}: another bus or sink writes to this file; \
                     name a new file to count from here",
                    batch.id.topic,
                    batch.id.partition,
                    batch = batch.id
                ),
            },
        }
    }

    /// The open connection, opened first where needed; never to another file than the first one.
    fn connect<'s>(&self, state: &'s mut State) -> Result<&'s mut Connection, Trouble> {
        let path = &self.config.path;
        if let Some(known) = state.file
            && FileId::of(path) != Some(known)
        {
            state.connection = None;
            return Err(Trouble::Lasting(format!(
                "{} was moved, removed or replaced while it was written to: put it back, or start the worker anew to go on \
                 with what is there now",
                path.display()
            )));
        }
        if state.connection.is_none() {
            state.connection = Some(file::open(path, self.config.create)?);
            state.file = FileId::of(path);
        }
        state.connection.as_mut().ok_or_else(|| Trouble::Passing(format!("{} is not open", path.display())))
    }

    /// After trouble that lasts the file is opened anew: what was wrong with it may have been set right.
    fn settle<T>(state: &mut State, outcome: Result<T, Trouble>) -> Result<T, Trouble> {
        if matches!(outcome, Err(Trouble::Lasting(_))) {
            state.connection = None;
        }
        outcome
    }

    /// A connection of its own, so that a long look does not hold up a write.
    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<Vec<T>>) -> Result<Vec<T>, Trouble> {
        let path = &self.config.path;
        let Some(connection) = file::open_to_read(path)? else {
            if self.config.create {
                return Ok(Vec::new());
            }
            return Err(Trouble::Lasting(format!("{} does not exist: correct `path`", path.display())));
        };
        read(&connection).map_err(|error| file::trouble(path, &error))
    }
}

#[async_trait]
impl Sink for SqliteSink {
    fn effect(&self) -> Effect {
        Effect::ExactlyOnce
    }

    async fn check(&self) -> Result<(), SinkError> {
        Ok(self.blocking(Shared::check).await?)
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        Ok(self.blocking(Shared::prepare).await?)
    }

    async fn write(&self, batch: &Batch, _encoded: &Encoded) -> Answer {
        if !batch.part.is_empty() {
            let reason = format!("{} is a part of a batch; SQLite takes whole batches only", batch.key());
            return Answer::Halt { reason };
        }
        let batch = batch.clone();
        match self.blocking(move |shared| shared.write(&batch)).await {
            Ok(answer) => answer,
            Err(Trouble::Passing(reason)) => Answer::Retry { after: None, reason },
            Err(Trouble::Lasting(reason)) => Answer::Halt { reason },
        }
    }

    async fn totals(&self, range: TimeRange) -> Result<Vec<SeriesTotal>, SinkError> {
        let totals = self.blocking(move |shared| shared.read(|connection| totals(connection, range))).await?;
        Ok(totals)
    }

    async fn windows(&self, series: &Series, range: TimeRange) -> Result<Vec<(i64, u64)>, SinkError> {
        let series = series.clone();
        let windows = move |shared: &Shared| {
            let grain = grain(shared.config.window);
            shared.read(|connection| windows(connection, &series, range, grain))
        };
        Ok(self.blocking(windows).await?)
    }

    async fn close(&self) {
        let closing = self.blocking(|shared| {
            shared.lock().connection = None;
            Ok(())
        });
        // Nothing is lost by a connection that closes late.
        let _closed = closing.await;
    }
}

/// High and low halves are summed apart: SQLite's own sum stops at 2^63.
fn totals(connection: &Connection, range: TimeRange) -> rusqlite::Result<Vec<SeriesTotal>> {
    let mut select = connection.prepare(
        "SELECT name, tags, sum(value >> 32), sum(value & 4294967295) FROM counters
         WHERE window_start >= ?1 AND window_start < ?2 OR ?2 IS NULL AND window_start >= ?1
         GROUP BY name, tags",
    )?;
    let mut rows = select.query(params![range.from.unwrap_or(0), range.to])?;
    let mut totals = Vec::new();
    while let Some(row) = rows.next()? {
        let (name, tags) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        let (high, low): (u64, u64) = (row.get(2)?, row.get(3)?);
        if let Some(series) = series_of(name, tags) {
            totals.push(SeriesTotal { series, total: (high << 32).saturating_add(low) });
        }
    }
    Ok(totals)
}

fn windows(
    connection: &Connection,
    series: &Series,
    range: TimeRange,
    grain: i64,
) -> rusqlite::Result<Vec<(i64, u64)>> {
    let mut select = connection.prepare(
        "SELECT window_start - window_start % ?5, sum(value >> 32), sum(value & 4294967295) FROM counters
         WHERE name = ?1 AND tags = ?2 AND window_start >= ?3 AND (?4 IS NULL OR window_start < ?4)
         GROUP BY 1 ORDER BY 1",
    )?;
    let tags = tags_to_json(series.tags().iter().map(|(key, value)| (&**key, &**value)));
    let values = params![series.name(), tags, range.from.unwrap_or(0), range.to, grain];
    let rows = select.query_map(values, |row| {
        let (high, low): (u64, u64) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, (high << 32).saturating_add(low)))
    })?;
    rows.collect()
}

impl From<Trouble> for SinkError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Passing(reason) => Self::Unavailable(reason),
            Trouble::Lasting(reason) => Self::Halt(reason),
        }
    }
}

#[cfg(test)]
mod tests;
