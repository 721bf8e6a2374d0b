//! A publisher: records queue in memory and go into the file many at a time, because each transaction waits for the disk.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, params};

use super::compaction::delete_earlier;
use super::fault::Fault;
use super::file::{Conn, WRITE_WAIT, find_partitions, row_number};
use super::headers::pack;
use super::streams;
use super::unsigned::Unsigned;
use crate::rules::{self, MAX_RECORD, hash, millis_of};
use crate::{BusError, Delivery, NewRecord, Placed, PublishError, Publisher, StreamId, count_of};

/// The most bytes that a publisher queues before a poll writes them to the file.
const MAX_QUEUE: usize = 64 << 20;
/// The most bytes in one transaction, so that other writers need not wait long.
const MAX_WRITE_BYTES: usize = 8 << 20;
const MAX_WRITE_RECORDS: usize = 10_000;

pub(super) struct Queued {
    pub(super) token: u64,
    pub(super) id: i64,
    pub(super) partition: u32,
    pub(super) time_ms: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
}

impl Queued {
    fn bytes(&self) -> usize {
        self.payload.len() + self.key.as_ref().map_or(0, Vec::len) + self.headers.as_ref().map_or(0, Vec::len) + 64
    }
}

pub(super) struct EmbeddedPublisher {
    conn: Conn,
    topics: BTreeMap<String, Vec<i64>>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    refused: Vec<Delivery>,
    next_keyless: usize,
    state: State,
    /// Why the last transaction failed, for [`Publisher::withdraw`]; `None` when it succeeded.
    failure: Option<String>,
}

/// How publishing goes.
#[derive(Debug, Clone, Copy)]
enum State {
    /// The last write succeeded.
    Good,
    /// None has succeeded since. A poll may be shorter than other writers of the file take: for as long as any other write would
    /// wait for them, this is no failure.
    Waiting(Instant),
    /// It was reported.
    Failing,
}

impl EmbeddedPublisher {
    pub(super) fn new(conn: Conn) -> Self {
        Self {
            conn,
            topics: BTreeMap::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            refused: Vec::new(),
            next_keyless: 0,
            state: State::Good,
            failure: None,
        }
    }

    fn partitions_of(&mut self, topic: &str) -> Result<&[i64], BusError> {
        if !self.topics.contains_key(topic) {
            let found = self.conn.read("finding a topic", |sql| Ok(find_partitions(sql, topic)?))?;
            let ids = found.ok_or_else(|| BusError::NoTopic(topic.to_owned()))?;
            self.topics.insert(topic.to_owned(), ids);
        }
        Ok(self.topics.get(topic).map_or(&[], Vec::as_slice))
    }

    fn refuse(&mut self, token: u64, why: PublishError) {
        self.refused.push(Delivery { token, outcome: Err(why) });
    }

    /// How many records go into the next transaction.
    fn slice(&self) -> usize {
        let mut bytes = 0;
        let fits = |queued: &&Queued| {
            bytes += queued.bytes();
            bytes <= MAX_WRITE_BYTES
        };
        self.queue.iter().take(MAX_WRITE_RECORDS).take_while(fits).count().max(1)
    }

    fn write(&mut self, wait: Duration, deliveries: &mut Vec<Delivery>) -> Result<(), BusError> {
        let count = self.slice().min(self.queue.len());
        let slice = self.queue.iter().take(count);
        let offsets = self.conn.write(wait, "publishing", |sql| insert(sql, slice))?;
        for (queued, offset) in self.queue.drain(..count).zip(offsets) {
            self.queued_bytes -= queued.bytes();
            deliveries.push(Delivery { token: queued.token, outcome: Ok(Placed::new(queued.partition, Some(offset))) });
        }
        Ok(())
    }

    fn report(&mut self, outcome: &Result<(), BusError>) {
        self.failure = outcome.as_ref().err().map(BusError::to_string);
        self.state = match (outcome, self.state) {
            (Ok(()), state) => {
                if matches!(state, State::Failing) {
                    tracing::info!("publishing recovered");
                }
                State::Good
            }
            (Err(_), State::Good) => State::Waiting(Instant::now()),
            (Err(error), State::Waiting(since)) if since.elapsed() >= WRITE_WAIT => {
                tracing::warn!(%error, waiting = self.queue.len(), "publishing failed, retrying (no data lost)");
                State::Failing
            }
            (Err(_), state) => state,
        };
    }
}

/// Where the next record of a partition is stored.
struct Tail {
    next: u64,
    max_ms: i64,
    compacted: bool,
}

pub(super) fn insert<'a>(sql: &Connection, records: impl Iterator<Item = &'a Queued>) -> Result<Vec<u64>, Fault> {
    let mut tails: BTreeMap<i64, Tail> = BTreeMap::new();
    let mut offsets = Vec::new();
    let mut insert = sql.prepare_cached(
        "INSERT INTO records(id, time_ms, behind_ms, key, headers, payload) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for record in records {
        let tail = match tails.entry(record.id) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(unknown) => unknown.insert(read_tail(sql, record.id)?),
        };
        tail.max_ms = tail.max_ms.max(record.time_ms);
        insert.execute(params![
            row_number(record.id, tail.next),
            record.time_ms,
            tail.max_ms - record.time_ms,
            record.key,
            record.headers,
            record.payload
        ])?;
        if let (true, Some(key)) = (tail.compacted, &record.key) {
            delete_earlier(sql, record.id, tail.next, key)?;
        }
        offsets.push(tail.next);
        tail.next += 1;
    }
    for (id, tail) in tails {
        sql.prepare_cached("UPDATE partitions SET next = ?2, max_ms = ?3 WHERE id = ?1")?.execute(params![
            id,
            Unsigned(tail.next),
            tail.max_ms
        ])?;
    }
    Ok(offsets)
}

fn read_tail(sql: &Connection, id: i64) -> rusqlite::Result<Tail> {
    let query =
        "SELECT p.next, p.max_ms, t.compacted FROM partitions p JOIN topics t ON t.id = p.topic WHERE p.id = ?1";
    sql.prepare_cached(query)?.query_row([id], |row| {
        let Unsigned(next) = row.get(0)?;
        Ok(Tail { next, max_ms: row.get(1)?, compacted: row.get(2)? })
    })
}

impl Publisher for EmbeddedPublisher {
    fn publish(&mut self, record: NewRecord<'_>, token: u64) -> Result<(), BusError> {
        let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        let size = record.payload.len() + record.key.map_or(0, <[u8]>::len) + headers;
        if size > MAX_RECORD {
            self.refuse(token, PublishError::TooLarge { limit: Some(MAX_RECORD as u64) });
            return Ok(());
        }
        if self.queued_bytes + size > MAX_QUEUE {
            return Err(BusError::Unavailable(format!(
                "the embedded bus's queue is full ({}, {} bytes): wait for deliveries",
                count_of(self.queue.len() as u64, "record"),
                self.queued_bytes
            )));
        }
        let time_ms = millis_of(SystemTime::now())?;
        let keyless = self.next_keyless;
        let ids = self.partitions_of(record.topic)?;
        let count = ids.len().max(1);
        let partition = match (record.partition, record.key) {
            (Some(partition), _) => usize::try_from(partition).unwrap_or(usize::MAX),
            (None, Some(key)) => usize::try_from(hash(key) % count as u64).unwrap_or_default(),
            (None, None) => keyless % count,
        };
        let Some(id) = ids.get(partition).copied() else {
            let why = rules::no_partition(record.topic, partition as u64, count as u64);
            self.refuse(token, PublishError::Refused(why));
            return Ok(());
        };
        if record.partition.is_none() && record.key.is_none() {
            self.next_keyless = keyless.wrapping_add(1);
        }
        let queued = Queued {
            token,
            id,
            partition: u32::try_from(partition).unwrap_or(u32::MAX),
            time_ms,
            key: record.key.map(<[u8]>::to_vec),
            headers: pack(record.headers),
            payload: record.payload.to_vec(),
        };
        self.queued_bytes += queued.bytes();
        self.queue.push_back(queued);
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, deliveries: &mut Vec<Delivery>) {
        let until = Instant::now() + timeout;
        if !self.refused.is_empty() {
            deliveries.append(&mut self.refused);
            return;
        }
        while !self.queue.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let outcome = self.write(left, deliveries);
            self.report(&outcome);
            if outcome.is_ok() || left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
        // Nothing is pending, so no delivery can come: a caller that polls in a loop must not spin.
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
    }

    // A record leaves the queue in the transaction that stores it, and a transaction that fails stores nothing.
    fn withdraw(&mut self, deliveries: &mut Vec<Delivery>) {
        deliveries.append(&mut self.refused);
        let reason = self.failure.as_deref().unwrap_or("it was not written before the publisher ended");
        for queued in self.queue.drain(..) {
            let outcome = Err(PublishError::Refused(reason.to_owned()));
            deliveries.push(Delivery { token: queued.token, outcome });
        }
        self.queued_bytes = 0;
    }

    fn in_flight(&self) -> usize {
        self.queue.len() + self.refused.len()
    }

    fn partitions(&mut self, topic: &str) -> Result<Option<u32>, BusError> {
        match self.partitions_of(topic) {
            Ok(ids) => Ok(Some(u32::try_from(ids.len()).unwrap_or(u32::MAX))),
            Err(BusError::NoTopic(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn stream_id(&mut self, topic: &str) -> Result<Option<StreamId>, BusError> {
        match self.conn.read("finding a topic", |sql| streams::find(sql, topic)) {
            Ok(Some(id)) => Ok(Some(id)),
            // An earlier version created the topic; a reader that asks for its id gives it one.
            Ok(None) => Err(BusError::Unavailable(format!("topic {topic:?} has no stream id yet"))),
            Err(BusError::NoTopic(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::EmbeddedBus;
    use crate::{Bus, TopicOptions};

    #[test]
    fn other_writers_of_the_file_are_a_failure_only_once_they_have_taken_as_long_as_any_write_waits() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("bus.db");
        let bus = EmbeddedBus::open(&file).unwrap();
        bus.create_topic("t", &TopicOptions::new(1)).unwrap();
        let mut publisher = EmbeddedPublisher::new(bus.connect().unwrap());
        let other = Connection::open(&file).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();

        let record = NewRecord { topic: "t", partition: Some(0), key: None, payload: b"p", headers: &[] };
        publisher.publish(record, 1).unwrap();
        let mut deliveries = Vec::new();
        for _ in 0..3 {
            publisher.poll(Duration::from_millis(30), &mut deliveries);
            assert!(deliveries.is_empty() && matches!(publisher.state, State::Waiting(_)), "{:?}", publisher.state);
        }
        publisher.state = State::Waiting(Instant::now().checked_sub(WRITE_WAIT).unwrap());
        publisher.poll(Duration::from_millis(30), &mut deliveries);
        assert!(deliveries.is_empty() && matches!(publisher.state, State::Failing), "{:?}", publisher.state);

        other.execute_batch("COMMIT").unwrap();
        publisher.poll(Duration::from_secs(10), &mut deliveries);
        assert!(deliveries.len() == 1 && matches!(publisher.state, State::Good), "{:?}", publisher.state);
    }
}
