//! Claims: small files in a directory of their own, whose name begins with `_`, so that query engines skip it.

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use tallybus_sdk::{Claims, SinkError};

use super::ParquetSink;
use crate::shared::fingerprint::short_fingerprint;

const DIRECTORY: &str = "_claims";

/// The file of an entry.
fn file(entry: &str) -> Path {
    let name = format!("{}.json", short_fingerprint([entry]));
    Path::from_iter([DIRECTORY, name.as_str()])
}

#[async_trait]
impl Claims for ParquetSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        let mut entries = Vec::new();
        for (path, content) in self.store.files(&Path::from(DIRECTORY)).await? {
            let entry = String::from_utf8(content.to_vec()).map_err(|_| {
                SinkError::Halt(format!("{}/{path} is not a claim: remove it", self.store.config().place))
            })?;
            entries.push(entry);
        }
        Ok(entries)
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.store.replace(&file(entry), Bytes::copy_from_slice(entry.as_bytes())).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.store.remove(&file(entry)).await
    }
}
