//! Claims: rows of the table of refused points with the partition -1, which no topic has. So they need no table and no right
//! of their own. The entry is the row's reason. Rows are only added: of those of one entry the one with the greatest
//! `point_index` counts, and it is a removal when its `first_offset` is 1.

use async_trait::async_trait;
use tallybus_sdk::{Claims, SinkError};

use super::RedshiftSink;
use super::client::Cell;
use super::sql::literal;
use crate::shared::claim_log::{Change, ClaimLog, not_ours};

impl RedshiftSink {
    async fn claim_log(&self) -> Result<ClaimLog, SinkError> {
        let table = self.tables.refused();
        let sql = format!("SELECT reason, point_index, first_offset FROM {table} WHERE partition_id = -1");
        let rows = match self.client.query(&sql).await {
            Ok(found) => found.rows,
            // The worker may be about to create the tables: then there are no claims.
            Err(failure) => {
                let error = SinkError::from(failure);
                let missing = format!("{}_refused", self.tables.table);
                return match error {
                    SinkError::Halt(_) if self.create && self.look().await?.contains(&missing) => {
                        Ok(ClaimLog::default())
                    }
                    error => Err(error),
                };
            }
        };
        let mut log = ClaimLog::default();
        for row in &rows {
            let number = |at: usize| row.get(at).and_then(Cell::number::<u64>);
            let (Some(entry), Some(number), Some(removed)) = (row.first(), number(1), number(2)) else {
                return Err(SinkError::Halt(not_ours(&table)));
            };
            log.note(Change { entry: entry.text().to_owned(), number, is_held: removed == 0 });
        }
        Ok(log)
    }

    async fn change_claim(&self, entry: &str, is_held: bool) -> Result<(), SinkError> {
        let Some(number) = self.claim_log().await?.next_number(entry, is_held) else { return Ok(()) };
        let sql = format!(
            "INSERT INTO {} (topic, partition_id, first_offset, point_offset, point_index, reason) \
             VALUES ('', -1, {}, 0, {number}, {})",
            self.tables.refused(),
            u8::from(!is_held),
            literal(entry)
        );
        Ok(self.client.execute(vec![sql]).await?)
    }
}

#[async_trait]
impl Claims for RedshiftSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        Ok(self.claim_log().await?.into_held())
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.change_claim(entry, true).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.change_claim(entry, false).await
    }
}
