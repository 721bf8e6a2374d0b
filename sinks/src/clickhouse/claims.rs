//! Claims: rows of the table of counts with an empty name, which no counter has, and the value 0. So they need no table and no
//! right of their own. They are dated 2200, so that no TTL deletes them. Rows are only added: of those of one entry the one
//! with the greatest `first_offset` counts, and it is a removal when its `end_offset` is 0. Rows whose `part` is `mark` are
//! marks; of those of one entry the greatest `end_offset` counts.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};
use tallybus_sdk::{Claims, SinkError};

use super::answer::judge;
use super::{ClickHouseSink, encode};
use crate::shared::claim_log::{Change, ClaimLog, not_ours};

/// The `part` of a mark.
const MARK: &str = "mark";
/// Every mark adds a row that stays.
const MARKS_EVERY: Duration = Duration::from_secs(86_400);
/// 2200-01-01 in seconds since the Unix epoch.
const TIME: &str = "7258118400.000000000";

impl ClickHouseSink {
    async fn claim_log(&self) -> Result<ClaimLog, SinkError> {
        if self.client.config().create && !self.is_there().await? {
            // The worker is about to create the table: then it has no claims.
            return Ok(ClaimLog::default());
        }
        let table = self.client.config().table.quoted();
        let select = format!(
            "SELECT DISTINCT tags['claim'], first_offset, end_offset FROM {table} WHERE name = '' AND topic = '' AND part = ''"
        );
        let mut log = ClaimLog::default();
        for row in self.client.rows(&select).await? {
            let number = |at: usize| row.get(at).and_then(Value::as_str).and_then(|text| text.parse::<u64>().ok());
            let (Some(entry), Some(number), Some(end)) = (row.first().and_then(Value::as_str), number(1), number(2))
            else {
                return Err(SinkError::Halt(not_ours(&table)));
            };
            log.note(Change { entry: entry.to_owned(), number, is_held: end > 0 });
        }
        Ok(log)
    }

    async fn change_claim(&self, entry: &str, is_held: bool) -> Result<(), SinkError> {
        let Some(number) = self.claim_log().await?.next_number(entry, is_held) else { return Ok(()) };
        // Every change is an insert of its own: the server recognises none of them as a repeated one.
        let token = format!("claim/{number}/{is_held}/{entry}");
        self.insert_claim(entry, "", (number, u64::from(is_held)), &token).await
    }

    async fn insert_claim(
        &self,
        entry: &str,
        part: &str,
        (first, end): (u64, u64),
        token: &str,
    ) -> Result<(), SinkError> {
        let row = json!({
            "time": TIME, "name": "", "tags": {"claim": entry}, "value": 0, "topic": "", "partition": u32::MAX,
            "first_offset": first, "end_offset": end, "part": part,
        });
        let row = row.to_string();
        let body = if self.client.config().gzip { encode::compressed(row.as_bytes()) } else { row.into_bytes() };
        let reply = self.client.insert(Bytes::from(body), token).await.map_err(SinkError::Unavailable)?;
        Ok(judge(&reply, std::time::SystemTime::now())?)
    }
}

#[async_trait]
impl Claims for ClickHouseSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        Ok(self.claim_log().await?.into_held())
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.change_claim(entry, true).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.change_claim(entry, false).await
    }

    async fn mark(&self, entry: &str, offset: u64) -> Result<(), SinkError> {
        self.insert_claim(entry, MARK, (0, offset), &format!("mark/{offset}/{entry}")).await
    }

    async fn marks(&self) -> Result<Vec<(String, u64)>, SinkError> {
        if self.client.config().create && !self.is_there().await? {
            return Ok(Vec::new());
        }
        let table = self.client.config().table.quoted();
        let select = format!(
            "SELECT tags['claim'] AS claim, max(end_offset) FROM {table} \
             WHERE name = '' AND topic = '' AND part = '{MARK}' GROUP BY claim"
        );
        let rows = self.client.rows(&select).await?;
        let mark = |row: &Vec<Value>| {
            let offset = row.get(1).and_then(Value::as_str).and_then(|text| text.parse().ok());
            row.first().and_then(Value::as_str).map(str::to_owned).zip(offset)
        };
        rows.iter().map(|row| mark(row).ok_or_else(|| SinkError::Halt(not_ours(&table)))).collect()
    }

    fn marks_every(&self) -> Option<Duration> {
        Some(MARKS_EVERY)
    }
}
