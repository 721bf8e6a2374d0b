//! Claims: rows of the table of refused points with the partition -1, which no topic has. So they need no table and no right
//! of their own. The entry is the row's reason. Rows are only added: of those of one entry the one with the greatest
//! `point_index` counts, and it is a removal when its `first_offset` is 1.

use async_trait::async_trait;
use tallybus_sdk::{Claims, SinkError};

use super::RedshiftSink;
use super::client::Cell;
use super::sql::literal;

/// An entry's last change.
struct Change {
    entry: String,
    number: u64,
    is_removed: bool,
}

impl RedshiftSink {
    /// The last change of every entry that was ever added.
    async fn claim_changes(&self) -> Result<Vec<Change>, SinkError> {
        let table = self.tables.refused();
        let sql = format!("SELECT reason, point_index, first_offset FROM {table} WHERE partition_id = -1");
        let rows = match self.client.query(&sql).await {
            Ok(found) => found.rows,
            // The worker may be about to create the tables: then there are no claims.
            Err(failure) => {
                let error = SinkError::from(failure);
                let missing = format!("{}_refused", self.tables.table);
                return match error {
                    SinkError::Halt(_) if self.create && self.look().await?.contains(&missing) => Ok(Vec::new()),
                    error => Err(error),
                };
            }
        };
        let mut last: Vec<Change> = Vec::new();
        for row in &rows {
            let number = |at: usize| row.get(at).and_then(Cell::number::<u64>);
            let (Some(entry), Some(number), Some(removed)) = (row.first(), number(1), number(2)) else {
                return Err(SinkError::Halt(format!("{table} contains rows that Tallybus did not write")));
            };
            let change = Change { entry: entry.text().to_owned(), number, is_removed: removed == 1 };
            match last.iter_mut().find(|known| known.entry == change.entry) {
                Some(known) if known.number < change.number => *known = change,
                Some(_) => {}
                None => last.push(change),
            }
        }
        Ok(last)
    }

    async fn change_claim(&self, entry: &str, is_removed: bool) -> Result<(), SinkError> {
        let changes = self.claim_changes().await?;
        let known = changes.iter().find(|change| change.entry == entry);
        if known.map_or(is_removed, |known| known.is_removed == is_removed) {
            return Ok(());
        }
        let number = known.map_or(0, |known| known.number + 1);
        let sql = format!(
            "INSERT INTO {} (topic, partition_id, first_offset, point_offset, point_index, reason) \
             VALUES ('', -1, {}, 0, {number}, {})",
            self.tables.refused(),
            u8::from(is_removed),
            literal(entry)
        );
        Ok(self.client.execute(vec![sql]).await?)
    }
}

#[async_trait]
impl Claims for RedshiftSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        let changes = self.claim_changes().await?;
        Ok(changes.into_iter().filter(|change| !change.is_removed).map(|change| change.entry).collect())
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.change_claim(entry, false).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.change_claim(entry, true).await
    }
}
