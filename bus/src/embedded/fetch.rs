//! Reading records of several partitions in turn, straight from the file's pages.

use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::compaction::is_compacted;
use super::fault::Fault;
use super::file::{OFFSET_BITS, find_range, row_number};
use super::headers::PackedHeaders;
use super::unsigned::Unsigned;
use crate::rules::End;
use crate::{BusError, Headers, NoHeaders, OffsetRange, Record, TopicPartition};

/// The most records or bytes read from one partition before the next gets its turn.
const CHUNK_RECORDS: usize = 1_000;
const CHUNK_BYTES: usize = 4 << 20;

/// The read position in a partition.
pub(super) struct Position {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
    pub(super) id: i64,
    pub(super) next: u64,
    pub(super) paused: bool,
    end: End,
}

impl Position {
    pub(super) fn new(topic: Arc<str>, partition: u32, id: i64, next: u64) -> Self {
        Self { topic, partition, id, next, paused: false, end: End::NotReached }
    }

    fn gone(&self, first: u64) -> Fault {
        let at = TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition };
        Fault::Bus(BusError::Gone { at, wanted: self.next, first })
    }

    pub(super) fn is(&self, topic: &str, partition: u32) -> bool {
        self.partition == partition && &*self.topic == topic
    }
}

/// Read positions, served round-robin.
#[derive(Default)]
pub(super) struct Fetcher {
    pub(super) positions: Vec<Position>,
    turn: usize,
}

impl Fetcher {
    /// A partition whose end has been reached and not reported yet.
    pub(super) fn take_end(&mut self) -> Option<(TopicPartition, u64)> {
        let position = self.positions.iter_mut().find(|position| position.end == End::Due && !position.paused)?;
        position.end = End::Reported;
        let at = TopicPartition { topic: Arc::clone(&position.topic), partition: position.partition };
        Some((at, position.next))
    }

    /// Hands over at most `max` records; returns how many. Zero means that all partitions have been read to their end.
    ///
    /// A partition whose next record was deleted is not read any more.
    pub(super) fn fetch(
        &mut self,
        sql: &Connection,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<usize, Fault> {
        let mut handed = 0;
        let mut bytes = 0;
        let count = self.positions.len();
        for _ in 0..count {
            if handed >= max || bytes >= CHUNK_BYTES {
                break;
            }
            self.turn = (self.turn + 1) % count;
            let Some(position) = self.positions.get_mut(self.turn).filter(|position| !position.paused) else {
                continue;
            };
            let limit = CHUNK_RECORDS.min(max - handed);
            let chunk = match read_chunk(sql, position, limit, each) {
                Ok(chunk) => chunk,
                Err(fault) => {
                    if matches!(fault, Fault::Bus(BusError::Gone { .. })) {
                        self.positions.remove(self.turn);
                    }
                    return Err(fault);
                }
            };
            handed += chunk.records;
            bytes += chunk.bytes;
            if chunk.broke {
                break;
            }
        }
        Ok(handed)
    }
}

struct Chunk {
    records: usize,
    bytes: usize,
    broke: bool,
}

fn read_chunk(
    sql: &Connection,
    position: &mut Position,
    limit: usize,
    each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
) -> Result<Chunk, Fault> {
    let mut chunk = Chunk { records: 0, bytes: 0, broke: false };
    let mut query = sql.prepare_cached(
        "SELECT id, time_ms, key, headers, payload FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3",
    )?;
    let first = row_number(position.id, position.next);
    let mut rows = query.query((first, row_number(position.id + 1, 0), Unsigned(limit as u64)))?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let (headers, value) = (row.get_ref(3)?, bytes_of(row.get_ref(4)?));
        let payload = value.unwrap_or_default();
        let packed = bytes_of(headers).map(PackedHeaders);
        let headers: &dyn Headers = packed.as_ref().map_or(&NoHeaders, |packed| packed);
        let offset = u64::try_from(id - (position.id << OFFSET_BITS)).unwrap_or_default();
        // Offsets have gaps only where records were deleted: by compaction, or without a record to take their place.
        if offset > position.next && !is_gap_of_compaction(sql, position)? {
            return Err(position.gone(offset));
        }
        let key = bytes_of(row.get_ref(2)?);
        // The record counts as handed over from here on, whatever happens to the next row.
        position.next = offset + 1;
        position.end = End::NotReached;
        chunk.records += 1;
        chunk.bytes += payload.len();
        let record = Record {
            topic: &position.topic,
            partition: position.partition,
            offset,
            time_ms: row.get(1)?,
            key,
            payload,
            is_tombstone: value.is_none(),
            unreadable: None,
            headers,
        };
        if each(record).is_break() {
            chunk.broke = true;
            return Ok(chunk);
        }
        if chunk.bytes >= CHUNK_BYTES {
            return Ok(chunk);
        }
    }
    if chunk.records == 0 {
        let OffsetRange { first, .. } = find_range(sql, position.id)?;
        if first > position.next {
            return Err(position.gone(first));
        }
    }
    if chunk.records < limit && position.end == End::NotReached {
        position.end = End::Due;
    }
    Ok(chunk)
}

/// Whether the records before the next one went because later ones have their keys, and not from the partition's front.
fn is_gap_of_compaction(sql: &Connection, position: &Position) -> rusqlite::Result<bool> {
    Ok(is_compacted(sql, position.id)? && find_range(sql, position.id)?.first <= position.next)
}

fn bytes_of(value: ValueRef<'_>) -> Option<&[u8]> {
    match value {
        ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Some(bytes),
        _ => None,
    }
}
