//! Compacted topics: a record is deleted as soon as a later one has its key, so that a topic of states does not grow. All other topics
//! keep every record.
//!
//! Files of versions without compaction get the column when they are opened, as with stream ids; the file's version number does
//! not change. An earlier version that shares the file deletes nothing.

use rusqlite::Connection;

use super::fault::Fault;
use super::file::row_number;
use super::schema;

/// Adds the column to a file of a version without it.
pub(super) fn adopt(sql: &Connection) -> Result<(), Fault> {
    schema::add_to_topics(sql, "compacted", "ALTER TABLE topics ADD COLUMN compacted INTEGER NOT NULL DEFAULT 0")
}

/// Whether the topic of this partition is compacted.
pub(super) fn is_compacted(sql: &Connection, partition: i64) -> rusqlite::Result<bool> {
    let mut query =
        sql.prepare_cached("SELECT t.compacted FROM partitions p JOIN topics t ON t.id = p.topic WHERE p.id = ?1")?;
    query.query_row([partition], |row| row.get(0))
}

/// Deletes the records of this key before an offset.
pub(super) fn delete_earlier(sql: &Connection, partition: i64, offset: u64, key: &[u8]) -> rusqlite::Result<()> {
    let mut delete = sql.prepare_cached("DELETE FROM records WHERE id >= ?1 AND id < ?2 AND key = ?3")?;
    delete.execute((row_number(partition, 0), row_number(partition, offset), key)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::embedded::EmbeddedBus;
    use crate::{Bus, NewRecord, Progress, Publisher, Reader, TopicOptions};

    fn publish(publisher: &mut dyn Publisher, topic: &str, records: &[(Option<&str>, &str)]) {
        for (key, payload) in records {
            let key = key.map(str::as_bytes);
            let record = NewRecord { topic, partition: Some(0), key, payload: payload.as_bytes(), headers: &[] };
            publisher.publish(record, 1).unwrap();
        }
        let mut deliveries = Vec::new();
        let until = Instant::now() + Duration::from_secs(10);
        while deliveries.len() < records.len() && Instant::now() < until {
            publisher.poll(Duration::from_secs(1), &mut deliveries);
        }
        assert!(deliveries.iter().all(|delivery| delivery.outcome.is_ok()), "{deliveries:?}");
    }

    /// The records from an offset to the end, as `offset:payload`.
    fn read(reader: &mut dyn Reader) -> Vec<String> {
        let mut found = Vec::new();
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            let mut each = |record: crate::Record<'_>| {
                found.push(format!("{}:{}", record.offset, String::from_utf8_lossy(record.payload)));
                ControlFlow::Continue(())
            };
            if let Progress::End(_) = reader.poll(Duration::from_millis(100), &mut each).unwrap() {
                break;
            }
        }
        found
    }

    #[test]
    fn a_compacted_topic_keeps_the_last_record_of_each_key_and_is_read_across_what_went() {
        let directory = tempfile::tempdir().unwrap();
        let bus = EmbeddedBus::open(&directory.path().join("bus.db")).unwrap();
        bus.create_topic("states", &TopicOptions::new(1).compacted()).unwrap();
        bus.create_topic("counts", &TopicOptions::new(1)).unwrap();
        let mut publisher = bus.publisher().unwrap();
        let mut reader = bus.reader().unwrap();
        reader.assign("states", &[(0, 0)]).unwrap();
        let records = [(Some("a"), "1"), (None, "2"), (Some("b"), "3"), (Some("a"), "4")];
        publish(publisher.as_mut(), "states", &records[..1]);
        assert_eq!(read(reader.as_mut()), ["0:1"]);
        // Its next record goes before it is read.
        publish(publisher.as_mut(), "states", &[(Some("c"), "x"), (Some("c"), "y")]);
        publish(publisher.as_mut(), "states", &records);
        publish(publisher.as_mut(), "states", &[(Some("b"), "7")]);
        assert_eq!(read(reader.as_mut()), ["2:y", "4:2", "6:4", "7:7"]);
        let mut from_the_start = bus.reader().unwrap();
        from_the_start.assign("states", &[(0, 0)]).unwrap();
        assert_eq!(read(from_the_start.as_mut()), ["2:y", "4:2", "6:4", "7:7"]);
        assert!(bus.observer().unwrap().retention(&["states"]).unwrap()[0].compacts);

        publish(publisher.as_mut(), "counts", &records);
        from_the_start.assign("counts", &[(0, 0)]).unwrap();
        assert_eq!(read(from_the_start.as_mut()), ["0:1", "1:2", "2:3", "3:4"]);
        assert!(bus.observer().unwrap().retention(&["counts"]).unwrap()[0].is_forever());
    }

    #[test]
    fn a_file_of_a_version_without_compaction_gets_it_when_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bus.db");
        EmbeddedBus::open(&file).unwrap().create_topic("old", &TopicOptions::new(1)).unwrap();
        Connection::open(&file).unwrap().execute_batch("ALTER TABLE topics DROP COLUMN compacted").unwrap();
        let bus = EmbeddedBus::open(&file).unwrap();
        bus.create_topic("states", &TopicOptions::new(1).compacted()).unwrap();
        let retention = bus.observer().unwrap().retention(&["old", "states"]).unwrap();
        assert!(!retention[0].compacts && retention[1].compacts);
    }
}
