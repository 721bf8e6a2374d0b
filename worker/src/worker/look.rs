//! Flow control, lag, and whether all is done.

use std::time::Instant;

use tallybus_bus::{BusError, Committed, OffsetRange, TopicPartition};
use tallybus_sdk::{SealNote, SealNoteError};

use super::{ASK_GROUP_EVERY, LOOK_AFTER_FAILURE, LOOK_EVERY, Worker, WorkerError};
use crate::lane::Lane;
use crate::status::{LaneState, LaneStatus};

impl Worker {
    /// Pauses the partitions whose lanes are crowded; the bus is the only buffer.
    pub(super) fn control_flow(&mut self) -> Result<(), WorkerError> {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        let over = self.lanes.is_over();
        for lane in self.lanes.iter_mut() {
            // A lane that holds nothing closed goes on, however much the others hold: each makes progress.
            if !lane.paused && (lane.is_crowded() || over && !lane.is_idle()) {
                lane.paused = true;
                pause.push(lane.at.clone());
            } else if lane.paused && lane.has_room() && (!over || lane.is_idle()) {
                lane.paused = false;
                resume.push(lane.at.clone());
            }
        }
        if !pause.is_empty() {
            self.bus_call(|subscriber| subscriber.pause(&pause))?;
        }
        if !resume.is_empty() {
            self.bus_call(|subscriber| subscriber.resume(&resume))?;
        }
        Ok(())
    }

    /// Refreshes the ends of the partitions and the status, now and then.
    pub(super) fn look(&mut self, now: bool) {
        if !now && self.look_next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        self.look_next = Some(Instant::now() + LOOK_EVERY);
        let owned: Vec<TopicPartition> = self.lanes.iter().map(|lane| lane.at.clone()).collect();
        match self.subscriber.ranges(&owned) {
            Ok(ranges) => {
                self.bus_trouble.over();
                for (lane, range) in self.lanes.iter_mut().zip(ranges) {
                    lane.observe_end(range.end);
                    self.ends.insert(lane.at.clone(), range.end);
                }
            }
            Err(error) => {
                // Asking may have taken a while: the next question waits too.
                self.bus_trouble.note(&error.to_string());
                self.look_next = Some(Instant::now() + LOOK_AFTER_FAILURE);
            }
        }
        let mut statuses: Vec<(String, LaneStatus)> = Vec::new();
        for lane in self.lanes.iter() {
            let end = self.ends.get(&lane.at).copied().unwrap_or(lane.next()).max(lane.next());
            let status = LaneStatus { settled: lane.settled(), next: lane.next(), end, state: LaneState::Running };
            statuses.push((lane.at.to_string(), status));
        }
        for (at, reason) in &self.stopped {
            let status = LaneStatus { settled: 0, next: 0, end: 0, state: LaneState::Stopped(reason.clone()) };
            statuses.push((at.to_string(), status));
        }
        self.handle.status.update(|status| status.lanes = statuses.into_iter().collect());
    }

    /// Whether the whole group has settled everything there is; partitions of other members count too.
    pub(super) fn is_caught_up(&mut self) -> Result<bool, WorkerError> {
        if let Some((at, reason)) = self.stopped.iter().next() {
            return Err(WorkerError::Stopped {
                sink: self.options.sink.clone(),
                partition: at.to_string(),
                reason: reason.clone(),
            });
        }
        if let Some(at) = self.lanes.halted() {
            return Err(WorkerError::Stopped {
                sink: self.options.sink.clone(),
                partition: at.to_string(),
                reason: self.trouble.current().unwrap_or_default(),
            });
        }
        if !self.letters.is_idle() || self.lanes.iter().any(|lane| !lane.is_caught_up()) {
            return Ok(false);
        }
        if self.asked_group.is_some_and(|at| at.elapsed() < ASK_GROUP_EVERY) {
            return Ok(false);
        }
        self.asked_group = Some(Instant::now());
        let (ranges, committed) = match self.ask_group() {
            Ok(answers) => answers,
            Err(error) if error.is_transient() => {
                self.bus_trouble.note(&error.to_string());
                return Ok(false);
            }
            Err(source) => return Err(WorkerError::Bus { sink: self.options.sink.clone(), source }),
        };
        for ((topic, ranges), committed) in self.options.topics.iter().zip(ranges).zip(committed) {
            for (partition, range) in ranges.iter().enumerate() {
                let is_this = |lane: &&Lane| *lane.at.topic == **topic && lane.at.partition as usize == partition;
                // All lanes of this worker are caught up already.
                if self.lanes.iter().any(|lane| is_this(&lane)) {
                    continue;
                }
                let is_settled = is_settled(committed.get(partition).and_then(Option::as_ref), *range);
                match is_settled {
                    Ok(true) => {}
                    Ok(false) => return Ok(false),
                    Err(error) => {
                        return Err(WorkerError::Stopped {
                            sink: self.options.sink.clone(),
                            partition: format!("{topic}/{partition}"),
                            reason: error.to_string(),
                        });
                    }
                }
            }
        }
        Ok(!self.lanes.is_empty() || self.options.topics.is_empty())
    }
}

impl Worker {
    /// What the topics hold, and what the group committed for them.
    #[expect(clippy::type_complexity, reason = "two answers of the observer")]
    fn ask_group(&mut self) -> Result<(Vec<Vec<OffsetRange>>, Vec<Vec<Option<Committed>>>), BusError> {
        let observer = match self.observer.take() {
            Some(observer) => observer,
            None => self.bus.observer()?,
        };
        let observer = self.observer.insert(observer);
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        let of: Vec<(&str, &str)> = topics.iter().map(|topic| (self.options.group.as_str(), *topic)).collect();
        Ok((observer.offsets(&topics)?, observer.committed(&of)?))
    }
}

/// Whether the group has settled all of a partition that another member owns, or nobody.
fn is_settled(committed: Option<&Committed>, range: OffsetRange) -> Result<bool, SealNoteError> {
    let Some(committed) = committed else { return Ok(range.first == range.end) };
    let note = SealNote::parse(committed.offset, &committed.metadata)?;
    Ok(note.sealed_end().is_none() && committed.offset >= range.end)
}
