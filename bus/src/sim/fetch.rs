//! Read positions, served in turn.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::SimBus;
use super::state::Stored;
use crate::rules::End;
use crate::{BusError, OffsetRange, Record, TopicPartition};

/// The most records that are handed over of one partition before the next one's turn.
const CHUNK: usize = 1_000;

/// Consecutive offsets; `None` for one without a record.
type Chunk = Vec<Option<Arc<Stored>>>;

pub(super) struct Position {
    at: TopicPartition,
    next: u64,
    pub(super) paused: bool,
    end: End,
}

#[derive(Default)]
pub(super) struct Fetcher {
    positions: Vec<Position>,
    turn: usize,
}

impl Fetcher {
    pub(super) fn start(&mut self, at: TopicPartition, next: u64) {
        self.stop(std::slice::from_ref(&at));
        self.positions.push(Position { at, next, paused: false, end: End::NotReached });
    }

    pub(super) fn stop(&mut self, partitions: &[TopicPartition]) {
        self.positions.retain(|position| !partitions.contains(&position.at));
    }

    pub(super) fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        let named = self.positions.iter_mut().filter(|position| partitions.contains(&position.at));
        named.for_each(|position| position.paused = paused);
    }

    /// A partition whose end has been reached and not reported yet.
    pub(super) fn take_end(&mut self) -> Option<(TopicPartition, u64)> {
        let position = self.positions.iter_mut().find(|position| position.end == End::Due && !position.paused)?;
        position.end = End::Reported;
        Some((position.at.clone(), position.next))
    }

    /// Hands over at most `max` records; returns how many.
    pub(super) fn fetch(
        &mut self,
        bus: &SimBus,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<usize, BusError> {
        let mut handed = 0;
        let count = self.positions.len();
        for _ in 0..count {
            if handed >= max {
                break;
            }
            self.turn = (self.turn + 1) % count;
            let position = &mut self.positions[self.turn];
            if position.paused {
                continue;
            }
            let chunk = match position.chunk(bus, CHUNK.min(max - handed)) {
                Ok(chunk) => chunk,
                Err(error) => {
                    // Nothing more is read of a partition whose next record was deleted.
                    if matches!(error, BusError::Gone { .. }) {
                        self.positions.remove(self.turn);
                    }
                    return Err(error);
                }
            };
            for record in chunk {
                let Some(record) = record else {
                    position.pass();
                    continue;
                };
                handed += 1;
                if position.hand_over(&record, each).is_break() {
                    return Ok(handed);
                }
            }
        }
        Ok(handed)
    }
}

impl Position {
    /// The next offsets, and whether the end was reached.
    fn chunk(&mut self, bus: &SimBus, limit: usize) -> Result<Chunk, BusError> {
        let mut state = bus.ask()?;
        // Waits for a topic that was deleted, and silently for one that was recreated and is shorter now: recognising that
        // is the reader's part.
        let Some(log) = state.log_mut(&self.at) else { return Ok(Vec::new()) };
        let OffsetRange { first, end } = log.range();
        if self.next < first {
            return Err(BusError::Gone { at: self.at.clone(), wanted: self.next, first });
        }
        if self.next == end && self.end == End::NotReached {
            self.end = End::Due;
        }
        let skip = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        let chunk: Chunk = log.records.iter().skip(skip).take(limit).cloned().collect();
        log.read = log.read.max(self.next + chunk.len() as u64);
        Ok(chunk)
    }

    /// An offset without a record.
    fn pass(&mut self) {
        self.next += 1;
        self.end = End::NotReached;
    }

    fn hand_over(&mut self, stored: &Stored, each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> ControlFlow<()> {
        let offset = self.next;
        self.pass();
        each(Record {
            topic: &self.at.topic,
            partition: self.at.partition,
            offset,
            time_ms: stored.time_ms,
            key: stored.key.as_deref(),
            payload: &stored.payload,
            is_tombstone: false,
            unreadable: None,
            headers: &stored.headers,
        })
    }
}
