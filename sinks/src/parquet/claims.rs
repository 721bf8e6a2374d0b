//! Claims and marks: small files in directories of their own, whose names begin with `_`, so that query engines skip them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use tallybus_sdk::{Claims, SinkError};

use super::ParquetSink;
use crate::shared::fingerprint::short_fingerprint;
use crate::shared::marks::{mark_text, parse_mark};

const DIRECTORY: &str = "_claims";
const MARKS: &str = "_marks";
const MARKS_EVERY: Duration = Duration::from_secs(600);

/// The file of an entry in one of the directories.
fn file(directory: &str, entry: &str) -> Path {
    let name = format!("{}.json", short_fingerprint([entry]));
    Path::from_iter([directory, name.as_str()])
}

impl ParquetSink {
    async fn texts(&self, directory: &str) -> Result<Vec<String>, SinkError> {
        let mut texts = Vec::new();
        for (path, content) in self.store.files(&Path::from(directory)).await? {
            let text = String::from_utf8(content.to_vec()).map_err(|_| {
                SinkError::Halt(format!("{}/{path} is not a claim: remove it", self.store.config().place))
            })?;
            texts.push(text);
        }
        Ok(texts)
    }
}

#[async_trait]
impl Claims for ParquetSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        self.texts(DIRECTORY).await
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.store.replace(&file(DIRECTORY, entry), Bytes::copy_from_slice(entry.as_bytes())).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.store.remove(&file(DIRECTORY, entry)).await
    }

    async fn mark(&self, entry: &str, offset: u64) -> Result<(), SinkError> {
        self.store.replace(&file(MARKS, entry), Bytes::from(mark_text(entry, offset))).await
    }

    async fn marks(&self) -> Result<Vec<(String, u64)>, SinkError> {
        self.texts(MARKS).await?.iter().map(|text| parse_mark(text, MARKS)).collect()
    }

    fn marks_every(&self) -> Option<Duration> {
        Some(MARKS_EVERY)
    }
}
