//! Parquet files, in a folder or in S3.
//!
//! # What is written
//! One file for each batch and day (UTC): `date=2026-11-25/<topic>-<partition>-<first>-<end>.parquet`, so that the day in a
//! folder's name is the day of every row below it. A batch that crosses midnight has two files.
//!
//! # Why writing twice changes nothing
//! A file's name and rows follow from the batch. It is written only where none of that name is: in a folder under another name
//! and linked once it is whole and on the disk, in S3 by one conditional `PUT`. So nobody ever sees half a file, and a file
//! never changes.
//!
//! A file that is there already is taken for this batch's if the batch was found sealed, so that somebody may have written it,
//! or if it holds the very same bytes. Any other belongs to a topic that was made anew: then the sink halts and says so.
//!
//! # Order
//! In order within a partition; partitions come as they come.

mod config;
mod encode;
mod read;
mod store;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tallybus_schemas::Series;
use tallybus_sdk::{Answer, Batch, Effect, Encoded, Kind, SeriesTotal, Sink, SinkError, TimeRange, Usage, grain};

use self::config::Config;
use self::store::{Put, Store, add};
use crate::aws::Aws;

/// The line in the table of kinds.
pub const KIND: Kind = Kind {
    name: "parquet",
    summary: "Parquet files in a folder or in S3",
    effect: Effect::ExactlyOnce,
    means: "a file's name follows from its batch, and a file is never written over",
    settings: config::SETTINGS,
    parse: config::parse,
};

/// Writes files below one place.
#[derive(Debug)]
pub struct ParquetSink {
    store: Store,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl ParquetSink {
    fn new(config: Config, aws: Aws) -> Self {
        Self { store: Store::new(config, aws), files: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    async fn write_whole(&self, batch: &Batch, encoded: &Encoded) -> Result<Answer, SinkError> {
        let name = encode::name(&batch.id);
        for (day, file) in encode::files(&encoded.body) {
            let size = u64::try_from(file.len()).unwrap_or_default();
            if self.store.put(day, &name, file.clone()).await? == Put::New {
                self.files.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(size, Ordering::Relaxed);
                continue;
            }
            if !self.store.holds(day, &name, &file).await? && !batch.recovered {
                return Ok(self.clash(batch));
            }
        }
        Ok(Answer::Done)
    }

    fn clash(&self, batch: &Batch) -> Answer {
        Answer::Halt {
            reason: format!(
                "{} has another file of batch {}, which is new: the topic was made anew, the group was set back, or another bus or \
                 sink writes to this place; name a new one to count from here",
                self.store.config().place,
                batch.id
            ),
        }
    }
}

#[async_trait]
impl Sink for ParquetSink {
    fn effect(&self) -> Effect {
        Effect::ExactlyOnce
    }

    async fn check(&self) -> Result<(), SinkError> {
        self.store.check().await
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        self.store.prepare(self.store.config().create).await
    }

    async fn fix(&self) -> Result<(), SinkError> {
        self.store.prepare(true).await
    }

    fn usage(&self) -> Vec<Usage> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![Usage::of("files", read(&self.files)), Usage::of("bytes", read(&self.bytes))]
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        encode::encode(batch)
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> Answer {
        if !batch.part.is_empty() {
            let reason = format!("{} is a part of a batch; a file holds whole batches only", batch.key());
            return Answer::Halt { reason };
        }
        if encoded.body.is_empty() && encoded.rejected.len() < batch.points.len() {
            let reason = format!("batch {} cannot be written as Parquet: its offsets are over 2^63 - 1", batch.id);
            return Answer::Halt { reason };
        }
        self.write_whole(batch, encoded).await.unwrap_or_else(Answer::from)
    }

    async fn totals(&self, range: TimeRange) -> Result<Vec<SeriesTotal>, SinkError> {
        let mut sums: BTreeMap<Series, u64> = BTreeMap::new();
        let add_row = |row: read::Row| {
            if range.contains(row.time) {
                add(&mut sums, row.series, row.value);
            }
        };
        self.store.rows(range, add_row).await?;
        Ok(sums.into_iter().map(|(series, total)| SeriesTotal { series, total }).collect())
    }

    async fn windows(&self, series: &Series, range: TimeRange) -> Result<Vec<(i64, u64)>, SinkError> {
        let grain = grain(self.store.config().window);
        let mut sums: BTreeMap<i64, u64> = BTreeMap::new();
        let add_row = |row: read::Row| {
            if row.series == *series && range.contains(row.time) {
                add(&mut sums, row.time - row.time.rem_euclid(grain), row.value);
            }
        };
        self.store.rows(range, add_row).await?;
        Ok(sums.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
