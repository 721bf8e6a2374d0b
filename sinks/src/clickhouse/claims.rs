//! Claims: rows of the table of counts with an empty name, which no counter has, and the value 0. So they need no table and no
//! right of their own. They are dated 2200, so that no TTL deletes them. Rows are only added: of those of one entry the one
//! with the greatest `first_offset` counts, and it is a removal when its `end_offset` is 0.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tallybus_sdk::{Claims, SinkError};

use super::answer::judge;
use super::{ClickHouseSink, encode, read};

/// 2200-01-01 in seconds since the Unix epoch.
const TIME: &str = "7258118400.000000000";

/// An entry's last change.
struct Change {
    entry: String,
    number: u64,
    is_held: bool,
}

impl ClickHouseSink {
    /// The last change of every entry that was ever added.
    async fn claim_changes(&self) -> Result<Vec<Change>, SinkError> {
        if self.client.config().create && !read::check(&self.client).await? {
            // The worker is about to create the table: then it has no claims.
            return Ok(Vec::new());
        }
        let table = self.client.config().table.quoted();
        let select = format!(
            "SELECT tags['claim'] AS claim, max(first_offset), argMax(end_offset, first_offset) FROM {table} \
             WHERE name = '' AND topic = '' GROUP BY claim"
        );
        let mut changes = Vec::new();
        for row in self.client.rows(&select).await? {
            let number = |at: usize| row.get(at).and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok());
            let (Some(entry), Some(number), Some(end)) = (row.first().and_then(Value::as_str), number(1), number(2))
            else {
                return Err(SinkError::Halt(format!("{table} contains rows that Tallybus did not write")));
            };
            changes.push(Change { entry: entry.to_owned(), number, is_held: end > 0 });
        }
        Ok(changes)
    }

    async fn change_claim(&self, entry: &str, is_held: bool) -> Result<(), SinkError> {
        let changes = self.claim_changes().await?;
        let known = changes.iter().find(|change| change.entry == entry);
        if known.map_or(!is_held, |known| known.is_held == is_held) {
            return Ok(());
        }
        let number = known.map_or(1, |known| known.number + 1);
        let row = json!({
            "time": TIME, "name": "", "tags": {"claim": entry}, "value": 0, "topic": "", "partition": u32::MAX,
            "first_offset": number, "end_offset": u8::from(is_held), "part": "",
        });
        let row = row.to_string();
        let body = if self.client.config().gzip { encode::compressed(row.as_bytes()) } else { row.into_bytes() };
        // Every change is an insert of its own: the server recognises none of them as a repeated one.
        let token = format!("claim/{number}/{is_held}/{entry}");
        let reply = self.client.insert(Bytes::from(body), &token).await.map_err(SinkError::Unavailable)?;
        Ok(judge(&reply, std::time::SystemTime::now())?)
    }
}

#[async_trait]
impl Claims for ClickHouseSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        let changes = self.claim_changes().await?;
        Ok(changes.into_iter().filter(|change| change.is_held).map(|change| change.entry).collect())
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.change_claim(entry, true).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.change_claim(entry, false).await
    }
}
