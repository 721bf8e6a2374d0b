//! Claims: rows of the ledger's table with the partition -1, which no topic has. So they need no table and no right of their
//! own. The entry is the row's topic; a removed one has the offset 1.

use async_trait::async_trait;
use tallybus_sdk::{Claims, SinkError};
use tokio_postgres::types::Type;

use super::PostgresSink;
use super::answer::Failure;

impl PostgresSink {
    async fn read_claims(&self) -> Result<Vec<String>, Failure> {
        let session = self.pool.take().await?;
        let ledger = self.pool.config().tables.ledger();
        let select = format!("SELECT topic FROM {ledger} WHERE partition = -1 AND next_offset = 0");
        let rows = session.query(&select, &[]).await?;
        let entries = rows.iter().map(|row| row.try_get(0).map_err(|error| Failure::of(&error, None)));
        let entries = entries.collect::<Result<Vec<String>, Failure>>()?;
        session.give_back();
        Ok(entries)
    }

    async fn change_claims(&self, statement: &str, entry: &str) -> Result<(), Failure> {
        let session = self.pool.take().await?;
        session.begin().await?;
        session.execute(statement, &[(&entry as _, Type::TEXT)]).await?;
        session.run("COMMIT").await?;
        session.give_back();
        Ok(())
    }
}

#[async_trait]
impl Claims for PostgresSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        match self.read_claims().await {
            Ok(entries) => Ok(entries),
            Err(failure) => self.or_nothing(failure),
        }
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        let ledger = self.pool.config().tables.ledger();
        let insert = format!(
            "INSERT INTO {ledger} (topic, partition, next_offset) VALUES ($1, -1, 0) \
             ON CONFLICT (topic, partition) DO UPDATE SET next_offset = 0"
        );
        Ok(self.change_claims(&insert, entry).await?)
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        let ledger = self.pool.config().tables.ledger();
        let update = format!("UPDATE {ledger} SET next_offset = 1 WHERE topic = $1 AND partition = -1");
        Ok(self.change_claims(&update, entry).await?)
    }
}
