mod errors;
mod group_state;
mod held_back;
mod rebalance;

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::debug;

use self::rebalance::Assigning;
use super::commits::Commits;
use super::config::Settings;
use super::joining::{Joined, Joining};
use super::lookup::{self, Lookup};
use super::member::MemberContext;
use super::partitions::Partitions;
use super::state::Connection;
use super::streams::StreamQuery;
use super::waker::Wakeups;
use crate::{
    BusError, GroupEvent, GroupOptions, GroupState, OffsetRange, PollWaker, Record, Subscriber, TopicPartition,
};

/// The longest that one query to the brokers blocks the polling thread.
const ASKING: Duration = Duration::from_secs(5);
/// The longest that a refresh of the partitions' ends blocks it.
const LOOKING: Duration = Duration::from_secs(1);
/// How long a release waits for a commit under way: longer than librdkafka's own retries.
const LAST_ANSWER: Duration = Duration::from_secs(120);

pub(super) struct KafkaSubscriber {
    settings: Settings,
    // Queues are dropped before their clients, the consumer and that of `look`: fields are dropped in this order.
    commits: Commits,
    partitions: Partitions,
    streams: StreamQuery,
    consumer: BaseConsumer<MemberContext>,
    wakeups: Wakeups,
    /// Queries the partitions' ends. A connection of its own: on the consumer's, a query waits behind a fetch.
    look: Lookup,
    joining: Joining,
    assigning: Option<Assigning>,
    /// The group waits for `start`.
    start_due: bool,
    /// Revoked partitions that have not been released yet; the group waits for all of them.
    revoking: Vec<TopicPartition>,
    releasing: Vec<TopicPartition>,
    events: VecDeque<GroupEvent>,
    /// When it may be asked again why partitions are held back.
    ask_why_held_back: Instant,
}

impl KafkaSubscriber {
    pub(super) fn new(
        settings: &Settings,
        group: &str,
        topics: &[String],
        options: &GroupOptions,
    ) -> Result<Self, BusError> {
        let look = Lookup::new(&settings.lookup(), "look")?;
        let wakeups = Wakeups::new()
            .map_err(|error| BusError::Unavailable(format!("cannot create the wake-up socket: {error}")))?;
        let streams = StreamQuery::new(&look, topics, wakeups.waker())?;
        let joining = Joining::new(settings, group, topics, options);
        let Joined { commits, consumer } = joining.join(&wakeups, &look)?;
        Ok(Self {
            settings: settings.clone(),
            commits,
            partitions: Partitions::default(),
            streams,
            consumer,
            wakeups,
            look,
            joining,
            assigning: None,
            start_due: false,
            revoking: Vec::new(),
            releasing: Vec::new(),
            events: VecDeque::new(),
            ask_why_held_back: Instant::now(),
        })
    }

    fn connection(&self) -> &Connection {
        &self.consumer.context().connection
    }

    fn next_event(&mut self) -> Result<Option<GroupEvent>, BusError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(Some(event));
        }
        if let Some(outcome) = self.commits.poll(&self.consumer, Duration::ZERO) {
            return Ok(Some(self.told(outcome)));
        }
        if let Some(streams) = self.streams.poll(&self.look) {
            return Ok(Some(GroupEvent::Streams(streams)));
        }
        while let Some(event) = self.consumer.context().next_event() {
            if let Some(event) = self.rebalance(event)? {
                return Ok(Some(event));
            }
        }
        self.check_disowned()?;
        self.assigned()
    }

    /// How long one wait may last; any event ends it.
    fn wait(&self, left: Duration) -> Duration {
        let for_assignment =
            self.assigning.as_ref().map(|assigning| assigning.next_try.saturating_duration_since(Instant::now()));
        for_assignment.map_or(left, |wait| wait.min(left))
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        for at in partitions {
            if let Some(owned) = self.partitions.get(at) {
                owned.paused = paused;
            }
        }
    }
}

impl Subscriber for KafkaSubscriber {
    fn poll(
        &mut self,
        timeout: Duration,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Option<GroupEvent>, BusError> {
        let until = Instant::now() + timeout;
        loop {
            self.serve()?;
            if let Some(event) = self.next_event()? {
                return Ok(Some(event));
            }
            let handed = self.partitions.hand_over(self.consumer.client(), max.max(1), each);
            self.events.extend(handed.ends.into_iter().map(|(at, offset)| GroupEvent::End { at, offset }));
            for (at, offset, code) in handed.errors {
                let reason = self.connection().reason(code);
                self.judge(code, reason, Some((&at, offset)))?;
            }
            if handed.records > 0 {
                self.connection().alive();
                return Ok(self.events.pop_front());
            }
            if !self.events.is_empty() {
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.wakeups.take_call() {
                return Ok(None);
            }
            self.wakeups.wait(self.wait(left));
        }
    }

    fn waker(&self) -> PollWaker {
        self.wakeups.poll_waker()
    }

    fn state(&mut self) -> &mut dyn GroupState {
        self
    }

    fn query_streams(&mut self) -> Result<(), BusError> {
        self.streams.start(&self.look)
    }

    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        let mut given = Vec::with_capacity(starts.len());
        let mut again = Vec::new();
        for (at, offset) in starts {
            let Some(owned) = self.partitions.get(at).filter(|owned| !owned.leaving) else {
                debug!(target: "kafka", "{at} is not this member's any more and is not started");
                continue;
            };
            if owned.start(self.consumer.client(), *offset) {
                again.push(at.clone());
            }
            given.push((at.clone(), *offset));
        }
        if !again.is_empty() {
            self.unassign(&again)?;
        }
        if self.start_due || !given.is_empty() {
            self.start_due = false;
            self.assign(&given)?;
        }
        Ok(())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        if !self.settle_commit(LAST_ANSWER) {
            return Err(BusError::Fatal(
                "a commit is still unanswered while its partition must be released".to_owned(),
            ));
        }
        for at in partitions {
            if let Some(position) = self.revoking.iter().position(|revoked| revoked == at) {
                self.releasing.push(self.revoking.swap_remove(position));
                self.partitions.forget(at);
            }
        }
        if self.revoking.is_empty() && !self.releasing.is_empty() {
            let all = std::mem::take(&mut self.releasing);
            self.unassign(&all)?;
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        self.set_paused(partitions, true);
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        self.set_paused(partitions, false);
        Ok(())
    }

    fn range(&mut self, at: &TopicPartition) -> Result<OffsetRange, BusError> {
        let ranges = lookup::ranges(&self.consumer, self.connection(), &[(&*at.topic, at.partition)], ASKING)?;
        ranges
            .first()
            .copied()
            .ok_or_else(|| BusError::Unavailable(format!("the brokers did not report the offsets of {at}")))
    }

    fn ranges(&mut self, partitions: &[TopicPartition]) -> Result<Vec<OffsetRange>, BusError> {
        let wanted: Vec<(&str, u32)> = partitions.iter().map(|at| (&*at.topic, at.partition)).collect();
        let ranges = self.look.ranges_of(&wanted, LOOKING)?;
        self.note_held_back(partitions, &ranges);
        Ok(ranges)
    }

    fn leave(self: Box<Self>) {
        drop(self);
    }
}
