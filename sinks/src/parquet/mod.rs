//! Parquet files, in a directory or in S3.
//!
//! # What is written
//! One file for each batch and day (UTC): `date=2026-11-25/<topic>-<partition>-<first>-<end>.parquet`, so the day in a
//! directory's name is the day of every row below it. A batch that crosses midnight has two files.
//!
//! # Why writing twice changes nothing
//! A file's name and rows depend on the batch alone. It is written only if no file of that name exists: in a directory,
//! under another name and linked once it is complete and on the disk; in S3, by one conditional `PUT`. So no reader
//! ever sees half a file, and a file never changes.
//!
//! An existing file is accepted as this batch's if it holds the same rows, whether the batch was found sealed or is
//! new. Any other belongs to a topic that was recreated: then the sink halts and reports it.
//!
//! # Order
//! In order within a partition; no order between partitions.

mod claims;
mod config;
mod encode;
mod read;
mod store;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tallybus_sdk::{
    Admin, Answer, BackendVersion, Batch, Claims, DeliveryGuarantee, Encoded, Fault, Kind, Question, ReadBack, Series,
    Sink, SinkError, Storage, Tried, Usage, VisitHeld, WindowsQuery, WriteOutcome,
};

use self::config::Config;
use self::encode::{File, Files};
use self::store::{Put, Store};
use crate::shared::aws::Aws;
use crate::shared::shadow::not_shadow;

/// The sink's entry in the table of kinds.
pub const KIND: Kind = Kind {
    name: "parquet",
    summary: "Parquet files in a directory or in S3",
    delivery_guarantee: DeliveryGuarantee::ExactlyOnce,
    mechanism: "a file's name depends on its batch alone, and a file is never overwritten",
    settings: config::SETTINGS,
    parse: config::parse,
    questions: &[],
    storage: Some(STORAGE),
    shadow: Some(config::shadow),
};

/// What [`ReadBack::storage`] counts.
const STORAGE: &str = "the sizes of the files";

/// Writes files below one directory or prefix.
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

    async fn write_whole(&self, batch: &Batch, encoded: &Encoded) -> Result<(), Fault> {
        let name = encode::name(&batch.id, batch.stream.as_ref());
        // A version whose names had no incarnation may have written a batch that was found sealed.
        let earlier = (batch.recovered && batch.stream.is_some()).then(|| encode::name(&batch.id, None));
        for File { day, content } in &encoded.as_value::<Files>()?.0 {
            if let Some(earlier) = &earlier
                && let Some(is_same) = self.store.compare(*day, earlier, content).await?
            {
                if is_same {
                    continue;
                }
                return Err(self.clash(batch));
            }
            let size = u64::try_from(content.len()).unwrap_or_default();
            if self.store.put(*day, &name, content.clone()).await? == Put::New {
                self.files.fetch_add(1, Ordering::Relaxed);
                self.bytes.fetch_add(size, Ordering::Relaxed);
                continue;
            }
            if !self.store.holds(*day, &name, content).await? {
                return Err(self.clash(batch));
            }
        }
        Ok(())
    }

    fn clash(&self, batch: &Batch) -> Fault {
        Fault::operator(format!(
            "{} has a file of batch {} with other rows: the topic was recreated, the group's offsets were reset, or another bus \
             or sink writes to this place. The file was left as it is, and nothing of the batch was written; set a new `path` \
             to count from here",
            self.store.config().place,
            batch.id
        ))
    }
}

#[async_trait]
impl Sink for ParquetSink {
    fn delivery_guarantee(&self) -> DeliveryGuarantee {
        DeliveryGuarantee::ExactlyOnce
    }

    async fn check(&self) -> Result<(), SinkError> {
        self.store.check().await
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }

    fn read_back(&self) -> Option<&dyn ReadBack> {
        Some(self)
    }

    fn destination(&self) -> Option<String> {
        Some(self.store.destination())
    }

    fn directory(&self) -> Option<PathBuf> {
        self.store.directory()
    }

    fn claims(&self) -> Option<&dyn Claims> {
        Some(self)
    }

    fn usage(&self) -> Vec<Usage> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![Usage::of("files", read(&self.files)), Usage::of("bytes", read(&self.bytes))]
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        encode::encode(batch)
    }

    async fn write(&self, batch: &Batch, encoded: &Encoded) -> WriteOutcome {
        if !batch.part.is_empty() {
            let reason = format!("{} is a part of a batch; a file holds whole batches only", batch.key());
            return WriteOutcome::Halt { reason };
        }
        if encoded.is_nothing() {
            if encoded.rejected.len() == batch.points.len() {
                return WriteOutcome::Done;
            }
            let reason = format!("batch {} cannot be written as Parquet: its offsets exceed 2^63 - 1", batch.id);
            return WriteOutcome::Halt { reason };
        }
        self.write_whole(batch, encoded).await.into()
    }
}

#[async_trait]
impl Admin for ParquetSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        self.store.prepare(self.store.config().create).await
    }

    async fn fix(&self) -> Result<(), SinkError> {
        self.store.prepare(true).await
    }

    async fn remove_shadow(&self) -> Result<(), SinkError> {
        let place = &self.store.config().place;
        match config::is_shadow(place) {
            true => self.store.remove_all().await,
            false => Err(not_shadow(place)),
        }
    }

    async fn try_access(&self) -> Result<Tried, SinkError> {
        self.entries().await?;
        // Writing by the check, with a file that was removed. An object in a bucket may be kept for ever by its settings.
        Ok(if self.store.is_folder() { Tried::WritingAndReading } else { Tried::Reading })
    }
}

#[async_trait]
impl ReadBack for ParquetSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        let range = query.range;
        let visit_row = |row: read::Row| {
            let is_wanted = |series: &Series| query.name.as_deref().is_none_or(|name| series.name() == name);
            if range.contains(row.time) && row.series.as_deref().is_none_or(is_wanted) {
                visit(row.into());
            }
        };
        self.store.rows(range, visit_row).await
    }

    async fn ask(&self, _question: &Question) -> Result<Answer, SinkError> {
        Ok(Answer::NotOffered(
            "files answer nothing: how long a question takes depends on the engine that reads them, such as DuckDB or Athena",
        ))
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        let sizes = self.store.objects().await?.into_iter().map(|object| object.size);
        Ok(Storage::Bytes { bytes: sizes.fold(0, u64::saturating_add), what: STORAGE })
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        Ok(BackendVersion::NotOffered("files have no server that has a version"))
    }
}

#[cfg(test)]
mod tests;
