use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use tracing::{debug, warn};

use super::commits::{Commits, Outcome};
use super::config::Settings;
use super::joining::{Joined, Joining};
use super::lookup::{self, Lookup, list_of, offset_of};
use super::member::{Event, MemberContext, give_back};
use super::partitions::Partitions;
use super::state::{Connection, is_access, is_transport};
use super::streams::StreamQuery;
use super::waker::Wakeups;
use crate::{
    Assignment, BusError, Commit, CommitError, Committed, GroupEvent, GroupOptions, GroupState, OffsetRange, PollWaker,
    Record, StreamId, Subscriber, TopicPartition,
};

/// The longest that one query to the brokers blocks the polling thread.
const ASKING: Duration = Duration::from_secs(5);
/// The longest that a refresh of the partitions' ends blocks it.
const LOOKING: Duration = Duration::from_secs(1);
/// How soon a failed query is repeated.
const ASK_AGAIN: Duration = Duration::from_millis(300);
/// How long a release waits for a commit under way: longer than librdkafka's own retries.
const LAST_ANSWER: Duration = Duration::from_secs(120);
/// The brokers' default of `offset.metadata.max.bytes`.
const METADATA_LIMIT: usize = 4_096;
/// How long a member waits for its leaving to complete.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(super) struct KafkaSubscriber {
    // Their queues are dropped before the consumer: fields are dropped in this order.
    commits: Commits,
    partitions: Partitions,
    streams: StreamQuery,
    consumer: BaseConsumer<MemberContext>,
    wakeups: Wakeups,
    /// Queries the partitions' ends. A connection of its own: on the consumer's, a query waits behind a fetch.
    look: Lookup,
    joining: Joining,
    /// Partitions that the group has assigned and whose start offsets are not known yet.
    assigning: Option<Assigning>,
    /// The group waits for `start`.
    start_due: bool,
    /// Revoked partitions that have not been released yet; the group waits for all of them.
    revoking: Vec<TopicPartition>,
    releasing: Vec<TopicPartition>,
    events: VecDeque<GroupEvent>,
}

struct Assigning {
    partitions: Vec<TopicPartition>,
    next_try: Instant,
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

    fn rebalance(&mut self, event: Event) -> Result<Option<GroupEvent>, BusError> {
        match event {
            Event::Assign(partitions) => {
                if partitions.is_empty() {
                    self.assign(&[])?;
                    return Ok(None);
                }
                for at in &partitions {
                    if !self.partitions.announce(self.consumer.client(), at, self.wakeups.waker()) {
                        return Err(BusError::Fatal(format!("librdkafka has no queue for {at}")));
                    }
                }
                self.assigning = Some(Assigning { partitions, next_try: Instant::now() });
                Ok(None)
            }
            Event::Revoke { partitions, lost } => {
                for at in &partitions {
                    if let Some(owned) = self.partitions.get(at) {
                        owned.leaving = true;
                        owned.lost |= lost;
                    }
                }
                if partitions.is_empty() {
                    self.unassign(&[])?;
                    return Ok(None);
                }
                self.revoking.clone_from(&partitions);
                self.releasing.clear();
                Ok(Some(if lost { GroupEvent::Lost(partitions) } else { GroupEvent::Revoked(partitions) }))
            }
        }
    }

    /// Queries where the assigned partitions begin, and reports the assignment once that is known. The group waits
    /// meanwhile, and the owner can keep polling.
    fn assigned(&mut self) -> Result<Option<GroupEvent>, BusError> {
        let Some(assigning) = &mut self.assigning else { return Ok(None) };
        if Instant::now() < assigning.next_try {
            return Ok(None);
        }
        let wanted: Vec<(&str, u32)> = assigning.partitions.iter().map(|at| (&*at.topic, at.partition)).collect();
        let connection = &self.consumer.context().connection;
        // The stream ids first: offsets that are read after them, and records read after that, are of these streams when
        // the ids are the same later.
        let known = streams_of(&self.look, &assigning.partitions).and_then(|streams| {
            let committed = lookup::committed(&self.consumer, connection, &wanted, ASKING)?;
            Ok((streams, committed, lookup::ranges(&self.consumer, connection, &wanted, ASKING)?))
        });
        match known {
            Ok((streams, committed, ranges)) => {
                for (at, range) in assigning.partitions.iter().zip(&ranges) {
                    if let Some(owned) = self.partitions.get(at) {
                        owned.given_end = range.end;
                    }
                }
                let each = assigning.partitions.iter().zip(streams).zip(committed.into_iter().zip(ranges));
                let assignment = |((at, stream), (committed, range)): ((&TopicPartition, _), _)| {
                    Assignment { at: at.clone(), stream, committed, range }
                };
                let assignments = each.map(assignment).collect();
                self.assigning = None;
                self.start_due = true;
                Ok(Some(GroupEvent::Assigned(assignments)))
            }
            Err(error @ (BusError::Access(_) | BusError::Settings(_))) => Err(error),
            Err(error) => {
                assigning.next_try = Instant::now() + ASK_AGAIN;
                if let Some(more) = connection.due("assigned") {
                    warn!(target: "kafka", more, "partitions were given to this member; where they begin is not known: {error}");
                }
                Ok(None)
            }
        }
    }

    fn told(&mut self, outcome: Outcome) -> GroupEvent {
        for (at, result) in &outcome {
            let Some(owned) = self.partitions.get(at) else { continue };
            match result {
                Ok(()) => owned.disowned = None,
                Err(CommitError::NotOwner(_)) => {
                    owned.disowned.get_or_insert_with(Instant::now);
                }
                Err(CommitError::Changed(_) | CommitError::Unanswered(_)) => {}
            }
        }
        GroupEvent::Committed(outcome)
    }

    /// A member that the group does not know is usually notified of the loss soon. Without that notice its owner would
    /// wait forever for partitions that it has dropped; so the member is replaced.
    fn check_disowned(&self) -> Result<(), BusError> {
        let timeout = (self.joining.session() * 2).max(Duration::from_secs(10));
        let waits = |since: Instant| since.elapsed() > timeout;
        let forgotten = self.partitions.iter().find(|owned| !owned.leaving && owned.disowned.is_some_and(waits));
        match forgotten {
            Some(owned) => Err(BusError::Fatal(format!("the group reassigned {} without a revocation", owned.at))),
            None => Ok(()),
        }
    }

    fn assign(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        let list = list_of(starts.iter().map(|(at, offset)| (&*at.topic, at.partition, offset_of(*offset))))?;
        self.consumer.incremental_assign(&list).map_err(|error| BusError::Fatal(format!("starting: {error}")))
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        give_back(&self.consumer, partitions).map_err(|error| BusError::Fatal(format!("releasing: {error}")))
    }

    /// Waits until no commit is under way, keeping its answer for the owner.
    fn settle_commit(&mut self, timeout: Duration) -> bool {
        if !self.commits.is_open() {
            return true;
        }
        let until = Instant::now() + timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(outcome) = self.commits.poll(&self.consumer, left.min(Duration::from_millis(100))) {
                let event = self.told(outcome);
                self.events.push_back(event);
            }
            if !self.commits.is_open() {
                return true;
            }
            if left.is_zero() {
                return false;
            }
        }
    }

    /// Handles events of the group and of the client as a whole.
    fn serve(&mut self) -> Result<(), BusError> {
        match self.consumer.poll(Duration::ZERO) {
            // Out of order with those in its partition's own queue: records would be skipped.
            Some(Ok(message)) => {
                let (topic, partition) = (message.topic().to_owned(), message.partition());
                Err(BusError::Fatal(format!("a record of {topic}/{partition} came outside of its partition's queue")))
            }
            Some(Err(error)) => self.failed(&error),
            None => Ok(()),
        }
    }

    /// The error for the owner, if any: librdkafka recovers from most errors by itself.
    fn failed(&mut self, error: &KafkaError) -> Result<(), BusError> {
        let Some(code) = error.rdkafka_error_code() else {
            return Err(BusError::Fatal(error.to_string()));
        };
        let reason = self.connection().reason(code);
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(BusError::Fatal(reason));
        }
        self.judge(code, reason, None)
    }

    fn judge(&mut self, code: RDKafkaErrorCode, reason: String, at: Option<&TopicPartition>) -> Result<(), BusError> {
        match code {
            RDKafkaErrorCode::Fatal => return Err(BusError::Fatal(reason)),
            RDKafkaErrorCode::InvalidSessionTimeout => return self.join_with_longer_session(&reason),
            _ => {}
        }
        if is_access(code) {
            return Err(BusError::Access(reason));
        }
        match (code, at) {
            (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange, Some(at)) => {
                Err(self.out_of_range(at))
            }
            // librdkafka skips records with a wrong checksum; they would be lost.
            (RDKafkaErrorCode::BadMessage, _) => {
                Err(BusError::Fatal(format!("records on the bus are damaged: {reason}")))
            }
            // The connection's state has logged it, once.
            (code, _) if is_transport(code) => Ok(()),
            // librdkafka retries it forever, as with records that cannot be decompressed: the partition makes no
            // progress.
            (code, at) => {
                if let Some(more) = self.connection().due(&code.to_string()) {
                    let partition = at.map(ToString::to_string);
                    warn!(target: "kafka", partition, reason, more, "a partition cannot be read: {code}");
                }
                Ok(())
            }
        }
    }

    /// Nothing is owned before the brokers have accepted the session timeout.
    fn join_with_longer_session(&mut self, reason: &str) -> Result<(), BusError> {
        if !self.joining.lengthen() {
            return Err(BusError::Settings(format!("`session.timeout.ms`: {reason}")));
        }
        let Joined { commits, consumer } = self.joining.join(&self.wakeups, &self.look)?;
        self.commits = commits;
        self.partitions = Partitions::default();
        self.consumer = consumer;
        Ok(())
    }

    /// Nothing more is delivered of the partition, and no second error comes: if the brokers do not answer now, the
    /// error is final too.
    fn out_of_range(&mut self, at: &TopicPartition) -> BusError {
        let next = self.partitions.get(at).map_or(0, |owned| owned.next);
        match self.range(at) {
            Ok(range) => lookup::out_of_range(at, next, range),
            Err(_) => BusError::Fatal(format!("{at}: offset {next} no longer exists")),
        }
    }

    /// How long one wait may last; any event ends it.
    fn wait(&self, left: Duration) -> Duration {
        let for_assignment =
            self.assigning.as_ref().map(|assigning| assigning.next_try.saturating_duration_since(Instant::now()));
        for_assignment.map_or(left, |wait| wait.min(left))
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
            self.events.extend(handed.ends.into_iter().map(GroupEvent::End));
            for (at, code) in handed.errors {
                let reason = self.connection().reason(code);
                self.judge(code, reason, Some(&at))?;
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
        self.look.ranges_of(&wanted, LOOKING)
    }

    fn leave(self: Box<Self>) {
        drop(self);
    }
}

impl GroupState for KafkaSubscriber {
    fn get(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BusError> {
        if !self.settle_commit(ASKING) {
            return Err(BusError::Unavailable("a commit is under way; its outcome is not known yet".to_owned()));
        }
        let wanted: Vec<(&str, u32)> = partitions.iter().map(|at| (&*at.topic, at.partition)).collect();
        lookup::committed(&self.consumer, self.connection(), &wanted, ASKING)
    }

    fn compare_and_set(&mut self, commits: &[Commit]) -> Result<(), BusError> {
        let (mine, refused) = self.mine(commits);
        if mine.is_empty() {
            self.events.push_back(GroupEvent::Committed(refused));
            return Ok(());
        }
        self.commits.send(&self.consumer, &mine, refused)
    }

    fn compare_and_set_now(&mut self, commits: &[Commit], timeout: Duration) -> Outcome {
        let until = Instant::now() + timeout;
        let (mine, mut outcome) = self.mine(commits);
        if mine.is_empty() {
            return outcome;
        }
        let unanswered = |reason: &str| {
            mine.iter().map(|commit| (commit.at.clone(), Err(CommitError::Unanswered(reason.to_owned())))).collect()
        };
        if !self.settle_commit(timeout) {
            let open: Outcome = unanswered("not sent: the previous commit is still unanswered");
            outcome.extend(open);
            return outcome;
        }
        if let Err(error) = self.commits.send(&self.consumer, &mine, Vec::new()) {
            let open: Outcome = unanswered(&error.to_string());
            outcome.extend(open);
            return outcome;
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if let Some(answer) = self.commits.poll(&self.consumer, left) {
                if let GroupEvent::Committed(answer) = self.told(answer) {
                    outcome.extend(answer);
                }
                return outcome;
            }
            if left.is_zero() {
                outcome.extend(self.commits.give_up(timeout));
                return outcome;
            }
        }
    }

    fn metadata_limit(&self) -> usize {
        METADATA_LIMIT
    }
}

impl KafkaSubscriber {
    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        for at in partitions {
            if let Some(owned) = self.partitions.get(at) {
                owned.paused = paused;
            }
        }
    }

    /// Separates commits that may be sent from those refused here: the broker would accept them from any member.
    fn mine(&self, commits: &[Commit]) -> (Vec<Commit>, Outcome) {
        let (mine, others): (Vec<&Commit>, Vec<&Commit>) =
            commits.iter().partition(|commit| self.partitions.may_commit(&commit.at));
        let refused = others.into_iter().map(|commit| {
            let reason = "the partition was released, lost or never assigned".to_owned();
            (commit.at.clone(), Err(CommitError::NotOwner(reason)))
        });
        (mine.into_iter().cloned().collect(), refused.collect())
    }
}

/// The stream id of each partition's topic.
fn streams_of(look: &Lookup, partitions: &[TopicPartition]) -> Result<Vec<StreamId>, BusError> {
    let topics: Vec<&str> = partitions.iter().map(|at| &*at.topic).collect::<BTreeSet<_>>().into_iter().collect();
    let ids = look.stream_ids(&topics, ASKING)?;
    let known: BTreeMap<&str, StreamId> = topics.into_iter().zip(ids).collect();
    let each = partitions.iter().map(|at| known.get(&*at.topic).cloned());
    each.collect::<Option<_>>().ok_or_else(|| BusError::Unavailable("the brokers left a topic out".to_owned()))
}

impl Drop for KafkaSubscriber {
    /// Leaves the group. The wrapper's consumer waits in its own drop until it has left the group.
    fn drop(&mut self) {
        self.consumer.context().close();
        let _answered = self.settle_commit(LAST_WORDS);
        // An event that was taken and not answered yet would keep the consumer from closing.
        let mut unanswered: Vec<Event> = std::iter::from_fn(|| self.consumer.context().next_event()).collect();
        if self.assigning.is_some() || self.start_due {
            unanswered.push(Event::Assign(Vec::new()));
        }
        if !self.revoking.is_empty() || !self.releasing.is_empty() {
            let all = self.revoking.drain(..).chain(self.releasing.drain(..)).collect();
            unanswered.push(Event::Revoke { partitions: all, lost: false });
        }
        for event in unanswered {
            let answer = match event {
                Event::Assign(_) => self.assign(&[]),
                Event::Revoke { partitions, .. } => self.unassign(&partitions),
            };
            if let Err(error) = answer {
                debug!(target: "kafka", "while leaving the group: {error}");
            }
        }
    }
}
