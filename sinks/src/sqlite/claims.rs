//! The claims of a file: which sinks write to it.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use tallybus_sdk::{Claims, Fault, SinkError};

use super::file::{self, CLAIMS};
use super::{Shared, SqliteSink};

impl Shared {
    /// Every entry; none while the file or its table does not exist yet.
    fn claims(&self) -> Result<Vec<String>, Fault> {
        self.same_file(&mut self.lock())?;
        self.read(|connection| {
            if !connection.table_exists(None, "claims")? {
                return Ok(Vec::new());
            }
            let mut select = connection.prepare("SELECT entry FROM claims")?;
            let entries = select.query_map([], |row| row.get(0))?;
            entries.collect()
        })
    }

    fn change_claims(&self, statement: &str, entry: &str) -> Result<(), Fault> {
        let mut state = self.lock();
        let outcome = self.connect(&mut state).and_then(|connection| {
            change(connection, statement, entry).map_err(|error| file::fault(&self.config.path, &error))
        });
        Self::settle(&mut state, outcome)
    }
}

fn change(connection: &Connection, statement: &str, entry: &str) -> rusqlite::Result<()> {
    connection.execute_batch(CLAIMS)?;
    connection.execute(statement, params![entry])?;
    Ok(())
}

#[async_trait]
impl Claims for SqliteSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        Ok(self.blocking(Shared::claims).await?)
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        let entry = entry.to_owned();
        let insert = "INSERT INTO claims (entry) VALUES (?1) ON CONFLICT DO NOTHING";
        Ok(self.blocking(move |shared| shared.change_claims(insert, &entry)).await?)
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        let entry = entry.to_owned();
        let delete = "DELETE FROM claims WHERE entry = ?1";
        Ok(self.blocking(move |shared| shared.change_claims(delete, &entry)).await?)
    }
}
