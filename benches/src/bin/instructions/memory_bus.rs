//! A bus of one partition that holds the same messages over and over, and takes whatever is published: no server, no
//! file and no wait between the code under measurement and its input.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tallybus_bus::{
    Assignment, Bus, BusError, Commit, CommitError, Committed, Delivery, GroupEvent, GroupOptions, GroupState, Headers,
    NewRecord, Observer, OffsetRange, Placed, PollWaker, Publisher, Reader, Record, StreamId, Subscriber, TopicOptions,
    TopicPartition,
};
use tallybus_schemas::ENCODING_HEADER;

use crate::messages::Messages;

pub(crate) const TOPIC: &str = "tallybus.counters";
/// How long a poll without anything to tell takes at most.
const NAP: Duration = Duration::from_millis(1);

#[derive(Clone)]
pub(crate) struct MemoryBus {
    messages: Arc<Messages>,
    range: OffsetRange,
    committed: Arc<Mutex<Option<Committed>>>,
}

impl MemoryBus {
    /// Offsets 0 to `end` hold these messages, repeated.
    pub(crate) fn new(messages: Arc<Messages>, end: u64) -> Self {
        Self { messages, range: OffsetRange { first: 0, end }, committed: Arc::default() }
    }

    fn committed(&self) -> MutexGuard<'_, Option<Committed>> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bus for MemoryBus {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn create_topic(&self, _topic: &str, _options: &TopicOptions) -> Result<bool, BusError> {
        Ok(false)
    }

    fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
        Ok(Box::new(self.clone()))
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        Ok(Box::new(Taker::default()))
    }

    fn subscriber(&self, _: &str, _: &[String], _: &GroupOptions) -> Result<Box<dyn Subscriber>, BusError> {
        let at = TopicPartition::new(TOPIC, 0);
        let assignment = Assignment { at: at.clone(), stream: stream()?, committed: None, range: self.range };
        Ok(Box::new(Member {
            bus: self.clone(),
            at,
            headers: Named(self.messages.encoding.name().as_bytes()),
            events: VecDeque::from([GroupEvent::Assigned(vec![assignment])]),
            next: self.range.end,
            is_paused: false,
        }))
    }

    fn reset_group(&self, _group: &str, _to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        Err(BusError::Unavailable("this bus has no groups".to_owned()))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Err(BusError::Unavailable("a bus in memory is read by its one member only".to_owned()))
    }
}

impl Observer for MemoryBus {
    fn partitions(&self, topics: &[&str]) -> Result<Vec<Option<u32>>, BusError> {
        Ok(topics.iter().map(|_| Some(1)).collect())
    }

    fn offsets(&self, topics: &[&str]) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        Ok(topics.iter().map(|_| vec![self.range]).collect())
    }

    fn offsets_at(&self, topics: &[&str], _time_ms: i64) -> Result<Vec<Vec<u64>>, BusError> {
        Ok(topics.iter().map(|_| vec![self.range.end]).collect())
    }

    fn committed(&self, of: &[(&str, &str)]) -> Result<Vec<Vec<Option<Committed>>>, BusError> {
        Ok(of.iter().map(|_| vec![MemoryBus::committed(self).clone()]).collect())
    }

    fn stream_ids(&self, topics: &[&str]) -> Result<Vec<StreamId>, BusError> {
        topics.iter().map(|_| stream()).collect()
    }
}

/// The only topic's incarnation.
fn stream() -> Result<StreamId, BusError> {
    "memory:1".parse().map_err(|error| BusError::Fatal(format!("the stream id: {error}")))
}

/// Takes every record at once.
#[derive(Default)]
struct Taker {
    waiting: Vec<Delivery>,
    taken: u64,
}

impl Publisher for Taker {
    fn publish(&mut self, record: NewRecord<'_>, token: u64) -> Result<(), BusError> {
        let partition = record.partition.unwrap_or_default();
        self.waiting.push(Delivery { token, outcome: Ok(Placed::new(partition, Some(self.taken))) });
        self.taken += 1;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, deliveries: &mut Vec<Delivery>) {
        if self.waiting.is_empty() {
            thread::sleep(timeout.min(NAP));
        }
        deliveries.append(&mut self.waiting);
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }

    fn partitions(&mut self, _topic: &str) -> Result<Option<u32>, BusError> {
        Ok(Some(1))
    }
}

/// The headers of every record.
struct Named(&'static [u8]);

impl Headers for Named {
    fn get(&self, name: &str) -> Option<&[u8]> {
        (name == ENCODING_HEADER).then_some(self.0)
    }

    fn each(&self, each: &mut dyn FnMut(&str, &[u8])) {
        each(ENCODING_HEADER, self.0);
    }
}

/// The only member of its group.
struct Member {
    bus: MemoryBus,
    at: TopicPartition,
    headers: Named,
    events: VecDeque<GroupEvent>,
    next: u64,
    is_paused: bool,
}

impl Subscriber for Member {
    fn poll(
        &mut self,
        timeout: Duration,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Option<GroupEvent>, BusError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        let end = self.bus.range.end;
        if self.is_paused || self.next == end {
            thread::sleep(timeout.min(NAP));
            return Ok(None);
        }
        let payloads = &self.bus.messages.payloads;
        let until = end.min(self.next + max as u64);
        while self.next < until {
            let offset = self.next;
            self.next += 1;
            let place = usize::try_from(offset).unwrap_or_default() % payloads.len();
            let flow = each(Record {
                topic: TOPIC,
                partition: 0,
                offset,
                time_ms: 1_700_000_000_000,
                key: None,
                payload: &payloads[place],
                is_tombstone: false,
                unreadable: None,
                headers: &self.headers,
            });
            if flow.is_break() {
                break;
            }
        }
        if self.next == end {
            self.events.push_back(GroupEvent::End { at: self.at.clone(), offset: end });
        }
        Ok(None)
    }

    fn waker(&self) -> PollWaker {
        // No poll waits for longer than a nap.
        PollWaker::new(|| {})
    }

    fn state(&mut self) -> &mut dyn GroupState {
        self
    }

    fn query_streams(&mut self) -> Result<(), BusError> {
        self.events.push_back(GroupEvent::Streams(stream().map(|stream| vec![(self.at.topic.clone(), stream)])));
        Ok(())
    }

    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        if let Some((_, offset)) = starts.first() {
            self.next = *offset;
        }
        Ok(())
    }

    fn release(&mut self, _partitions: &[TopicPartition]) -> Result<(), BusError> {
        Ok(())
    }

    fn pause(&mut self, _partitions: &[TopicPartition]) -> Result<(), BusError> {
        self.is_paused = true;
        Ok(())
    }

    fn resume(&mut self, _partitions: &[TopicPartition]) -> Result<(), BusError> {
        self.is_paused = false;
        Ok(())
    }

    fn range(&mut self, _at: &TopicPartition) -> Result<OffsetRange, BusError> {
        Ok(self.bus.range)
    }

    fn ranges(&mut self, partitions: &[TopicPartition]) -> Result<Vec<OffsetRange>, BusError> {
        Ok(partitions.iter().map(|_| self.bus.range).collect())
    }

    fn leave(self: Box<Self>) {}
}

impl GroupState for Member {
    fn get(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BusError> {
        Ok(partitions.iter().map(|_| self.bus.committed().clone()).collect())
    }

    fn compare_and_set(&mut self, commits: &[Commit]) -> Result<(), BusError> {
        let answers = self.compare_and_set_now(commits, Duration::ZERO);
        self.events.push_back(GroupEvent::Committed(answers));
        Ok(())
    }

    fn compare_and_set_now(
        &mut self,
        commits: &[Commit],
        _: Duration,
    ) -> Vec<(TopicPartition, Result<(), CommitError>)> {
        if let Some(commit) = commits.last() {
            let made = Committed { offset: commit.offset, metadata: commit.metadata.clone() };
            *self.bus.committed() = Some(made);
        }
        commits.iter().map(|commit| (commit.at.clone(), Ok(()))).collect()
    }

    fn metadata_limit(&self) -> usize {
        4_096
    }
}
