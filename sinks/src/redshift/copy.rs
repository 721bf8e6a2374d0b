//! Objects in S3 that `COPY` reads.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use tallybus_sdk::{Batch, SeriesView, SinkError};
use tokio::sync::OnceCell;

use super::config::{Config, Staging};
use super::encode::columns;
use super::sql::literal;
use super::tables::Tables;
use crate::shared::aws::{Aws, judge_store, open_store};

/// The temporary place of the objects.
#[derive(Debug)]
pub(super) struct Stage {
    staging: Staging,
    aws: Aws,
    store: OnceCell<Arc<dyn ObjectStore>>,
    sink: String,
}

impl Stage {
    pub(super) fn of(config: &Config, sink: &str) -> Option<Self> {
        let staging = config.staging.clone()?;
        let aws = Aws::new(staging.aws.clone(), config.timeout);
        Some(Self { staging, aws, store: OnceCell::new(), sink: sink.to_owned() })
    }

    async fn store(&self) -> Result<&Arc<dyn ObjectStore>, SinkError> {
        self.store.get_or_try_init(|| open_store(&self.staging.url, &self.aws)).await
    }

    /// Uploads the object of a batch: always the same bytes under the same name.
    pub(super) async fn put(&self, batch: &Batch, body: &Bytes) -> Result<(), SinkError> {
        let path = Path::from(self.name(batch));
        let put = self.store().await?.put(&path, PutPayload::from_bytes(body.clone())).await;
        put.map(drop).map_err(|error| self.judge(&error))
    }

    /// Deletes it once its rows are loaded. A leftover object does no harm; a lifecycle rule deletes it.
    pub(super) async fn delete(&self, batch: &Batch) {
        let path = Path::from(self.name(batch));
        let deleted = match self.store().await {
            Ok(store) => store.delete(&path).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = deleted {
            tracing::debug!(%path, error, "a staged object was not deleted");
        }
    }

    /// Checks that objects can be uploaded and deleted.
    pub(super) async fn check(&self) -> Result<(), SinkError> {
        let path = Path::from(format!("{}/check", percent(&self.sink)));
        let store = self.store().await?;
        store.put(&path, PutPayload::from_static(b"")).await.map_err(|error| self.judge(&error))?;
        store.delete(&path).await.map_err(|error| self.judge(&error))
    }

    fn judge(&self, error: &object_store::Error) -> SinkError {
        judge_store(error, "staging", &self.aws.settings().secrets())
    }

    /// No name is a prefix of another: `COPY` interprets it as a prefix.
    fn name(&self, batch: &Batch) -> String {
        let id = &batch.id;
        let part = if batch.part.is_empty() { String::new() } else { format!("-{}", batch.part) };
        // The same offsets of a recreated topic are another object.
        let topic = match &batch.stream {
            Some(stream) => format!("{}@{}", id.topic, stream.short()),
            None => id.topic.to_string(),
        };
        let (sink, topic) = (percent(&self.sink), percent(&topic));
        format!("{sink}/{topic}/{}/{}-{}{part}.json.gz", id.partition, id.first, id.end)
    }

    /// The statement that reads it.
    pub(super) fn statement(&self, batch: &Batch, tables: &Tables) -> String {
        let from = literal(&format!("{}/{}", self.staging.prefix, self.name(batch)));
        let role = match self.staging.iam_role.as_str() {
            "default" => "default".to_owned(),
            role => literal(role),
        };
        let region = match &self.staging.region {
            Some(region) => format!(" REGION {}", literal(region)),
            None => String::new(),
        };
        format!(
            "COPY {} ({}) FROM {from} IAM_ROLE {role}{region} FORMAT JSON 'auto' GZIP TIMEFORMAT 'auto' NULL AS {} \
             COMPUPDATE OFF STATUPDATE OFF",
            tables.counters(),
            columns(tables),
            literal(&null_text(batch))
        )
    }
}

/// A text that no tag of the batch has, for `COPY` to load as NULL: its default, `\\N`, may be a tag's value.
fn null_text(batch: &Batch) -> String {
    let mut number = 0;
    loop {
        let text = format!("tallybus-null-{number}");
        let is_value = |view: SeriesView<'_>| view.name() == text || view.tags().any(|(_, value)| value == text);
        if !batch.series.iter().any(is_value) {
            return text;
        }
        number += 1;
    }
}

/// A name as one segment of a path that means the same everywhere.
fn percent(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "={byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use tallybus_schemas::Series;

    use super::*;
    use crate::redshift::statements;

    #[test]
    fn a_name_is_one_segment() {
        assert_eq!(percent("tallybus.counters"), "tallybus.counters");
        assert_eq!(percent("a/b 'é"), "a=2Fb=20=27=C3=A9");
    }

    #[test]
    fn the_text_for_null_is_no_tag_of_the_batch() {
        let batch = |tags: &[(&str, &str)]| Batch {
            series: Arc::new([Series::from_sorted("n", tags)].into_iter().collect()),
            ..statements::tests::batch(1)
        };
        assert_eq!(null_text(&batch(&[("a", "\\N")])), "tallybus-null-0");
        assert_eq!(null_text(&batch(&[("a", "tallybus-null-0"), ("b", "tallybus-null-1")])), "tallybus-null-2");
    }
}
