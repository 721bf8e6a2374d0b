//! Records that were on another bus, with the times that they had there.

use super::publisher::{Queued, insert};
use super::{EmbeddedBus, WRITE_WAIT, find_partitions, headers, lock};
use crate::{BusError, rules};

/// A record to be copied to an embedded bus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportedRecord {
    /// The partition that it goes to.
    pub partition: u32,
    /// The timestamp that it keeps: milliseconds since the Unix epoch; negative when it has none.
    pub time_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its bytes.
    pub payload: Vec<u8>,
}

impl ImportedRecord {
    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.payload.len() + self.key.as_ref().map_or(0, Vec::len) + headers
    }
}

impl EmbeddedBus {
    /// Appends these records, in one transaction: all of them, or after an error none. Unlike published records, each keeps its
    /// own timestamp.
    ///
    /// # Errors
    /// The topic or a partition does not exist, or the file cannot be written.
    pub fn import(&self, topic: &str, records: Vec<ImportedRecord>) -> Result<(), BusError> {
        lock(&self.conn).write(WRITE_WAIT, "importing records", |sql| {
            let Some(ids) = find_partitions(sql, topic)? else {
                return Ok(Err(BusError::NoTopic(topic.to_owned())));
            };
            let mut queued = Vec::with_capacity(records.len());
            for record in &records {
                let Some(id) = ids.get(record.partition as usize) else {
                    let why = rules::no_partition(topic, u64::from(record.partition), ids.len() as u64);
                    return Ok(Err(BusError::Settings(why)));
                };
                let names: Vec<(&str, &[u8])> =
                    record.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
                queued.push(Queued {
                    token: 0,
                    id: *id,
                    partition: record.partition,
                    time_ms: record.time_ms,
                    key: record.key.clone(),
                    headers: headers::pack(&names),
                    payload: record.payload.clone(),
                });
            }
            insert(sql, queued.iter())?;
            Ok(Ok(()))
        })?
    }
}
