use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{
    BusError, CommitError, Committed, GroupState, NewRecord, Observer, PublishError, Record, StreamId, TopicPartition,
};

/// A message bus. Cheap to share; every publisher, subscriber and reader created from it is independent of the others.
pub trait Bus: Send + Sync {
    /// The bus and its place, for messages; holds no secret.
    fn describe(&self) -> String;

    /// Creates the topic, or checks that it has that many partitions. Returns whether it was created. For an existing
    /// topic, the other options are neither checked nor changed.
    ///
    /// # Errors
    /// [`BusError::PartitionCount`] when it exists with another count; [`BusError::Settings`] when the bus cannot create
    /// such a topic.
    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<bool, BusError>;

    /// An observer, to be kept: it serves any number of queries about topics and groups.
    fn observer(&self) -> Result<Box<dyn Observer>, BusError>;

    /// A publisher: idempotent, acknowledged by all replicas.
    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError>;

    /// Joins a consumer group.
    fn subscriber(
        &self,
        group: &str,
        topics: &[String],
        options: &GroupOptions,
    ) -> Result<Box<dyn Subscriber>, BusError>;

    /// Sets what a group holds for these partitions, whatever it held before: an operator's decision. The group's next
    /// members begin there. May wait for several seconds until it is certain whether a member lives.
    ///
    /// # Errors
    /// [`BusError::GroupInUse`] when the group has members; nothing was set. After any other error some of it may be set.
    fn reset_group(&self, group: &str, to: &[(TopicPartition, Committed)]) -> Result<(), BusError>;

    /// Whether the bus may delete a group's offsets by itself: those of a group that was idle for long, or those of a topic
    /// that was deleted.
    fn forgets_groups(&self) -> bool {
        false
    }

    /// A reader that belongs to no group: no group is affected by it.
    fn reader(&self) -> Result<Box<dyn Reader>, BusError>;
}

/// How a topic is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicOptions {
    /// How many partitions it has.
    pub partitions: u32,
    /// Whether its records are kept forever, without a limit of time or size. Otherwise the bus's default decides.
    pub keep: bool,
    /// On how many brokers each record is stored; `None` for the bus's default.
    pub replicas: Option<u16>,
    /// Whether only the last record of each key has to be kept, and that one forever. A bus that cannot delete the others
    /// keeps all.
    pub compact: bool,
    /// For how long a record has to be kept; `None` for the bus's default. A bus that does not delete by age keeps all.
    pub retention: Option<Duration>,
}

impl TopicOptions {
    /// This many partitions, and the bus's defaults for everything else.
    pub fn new(partitions: u32) -> Self {
        Self { partitions, keep: false, replicas: None, compact: false, retention: None }
    }

    /// Keeps records forever.
    #[must_use]
    pub fn kept(self) -> Self {
        Self { keep: true, ..self }
    }

    /// Keeps the last record of each key forever.
    #[must_use]
    pub fn compacted(self) -> Self {
        Self { compact: true, ..self }
    }

    /// Keeps each record for this long.
    #[must_use]
    pub fn kept_for(self, retention: Duration) -> Self {
        Self { retention: Some(retention), ..self }
    }

    /// Stores each record on this many brokers.
    #[must_use]
    pub fn replicas(self, replicas: Option<u16>) -> Self {
        Self { replicas, ..self }
    }
}

/// The offsets that a partition holds: `first` is the oldest kept, `end` the next to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    /// The oldest offset still there.
    pub first: u64,
    /// One past the newest, whether readers may read it yet or a transaction is open before it.
    pub end: u64,
}

/// How a group member behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupOptions {
    /// The session timeout: a member that sends no heartbeat for this long is removed. The bus chooses when absent.
    pub session_timeout: Option<Duration>,
    /// This member's name, for the broker's logs and for operators.
    pub client_id: String,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self { session_timeout: None, client_id: "tallybus".to_owned() }
    }
}

impl GroupOptions {
    /// With this session timeout.
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = Some(timeout);
        self
    }

    /// With this name of the member.
    pub fn with_client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }
}

/// Publishes records.
pub trait Publisher: Send {
    /// Hands a record over. Its outcome comes from [`Publisher::poll`] under the same token, also for a record that is
    /// too large ([`PublishError::TooLarge`]).
    ///
    /// # Errors
    /// The record was not accepted, and no delivery will come: a full queue is [`BusError::Unavailable`].
    fn publish(&mut self, record: NewRecord<'_>, token: u64) -> Result<(), BusError>;

    /// Waits up to `timeout` for deliveries and appends them. Returns early with the first.
    fn poll(&mut self, timeout: Duration, deliveries: &mut Vec<Delivery>);

    /// Gives up the records that are certainly not on the bus, and appends a delivery for each: a
    /// [`PublishError::Refused`] with the reason. The default is for a bus that cannot tell: it gives up none.
    fn withdraw(&mut self, _deliveries: &mut Vec<Delivery>) {}

    /// The number of records handed over without an outcome yet.
    fn in_flight(&self) -> usize;

    /// The topic's number of partitions; `None` while it does not exist.
    ///
    /// # Errors
    /// The bus did not respond, or refuses access: whether the topic exists is unknown.
    fn partitions(&mut self, topic: &str) -> Result<Option<u32>, BusError>;
}

/// Ends a wait in [`Subscriber::poll`], from any thread: the current one, or otherwise the next.
#[derive(Clone)]
pub struct PollWaker(Arc<dyn Fn() + Send + Sync>);

impl PollWaker {
    /// `wake` must not block.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Makes the poll return soon.
    pub fn wake(&self) {
        (self.0)();
    }
}

/// The outcome of a record.
#[derive(Debug)]
pub struct Delivery {
    /// As given to [`Publisher::publish`].
    pub token: u64,
    /// Where it was stored, or why it was not.
    pub outcome: Result<Placed, PublishError>,
}

/// Where the bus put a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Placed {
    /// The partition it is in.
    pub partition: u32,
    /// Its offset there; `None` when the bus confirms the record without its offset.
    pub offset: Option<u64>,
}

impl Placed {
    /// For implementations of [`Publisher`].
    pub fn new(partition: u32, offset: Option<u64>) -> Self {
        Self { partition, offset }
    }
}

/// An event that a subscriber reports to its owner, one at a time.
#[derive(Debug)]
pub enum GroupEvent {
    /// These partitions are assigned to this member. Nothing of them is delivered before [`Subscriber::start`].
    Assigned(Vec<Assignment>),
    /// These partitions go to another member. Settle or abandon, then [`Subscriber::release`]; the group waits for it.
    Revoked(Vec<TopicPartition>),
    /// These partitions may belong to another member already: drop all their state, commit nothing, then
    /// [`Subscriber::release`].
    Lost(Vec<TopicPartition>),
    /// The answer to [`GroupState::compare_and_set`].
    Committed(Vec<(TopicPartition, Result<(), CommitError>)>),
    /// Every record in this partition has been delivered. Not sent again until more have come.
    End {
        /// The partition.
        at: TopicPartition,
        /// No record below this offset is still to come; those that were not delivered do not exist: markers of
        /// transactions, records of aborted ones, records that compaction removed.
        offset: u64,
    },
    /// The answer to [`Subscriber::query_streams`]: the current incarnation of each of the group's topics that exist.
    Streams(Result<Vec<(Arc<str>, StreamId)>, BusError>),
}

/// A partition handed to a member.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The partition.
    pub at: TopicPartition,
    /// The incarnation of its topic, read before `committed` and `range`.
    pub stream: StreamId,
    /// The group's last commit.
    pub committed: Option<Committed>,
    /// The offsets that the partition holds.
    pub range: OffsetRange,
}

/// A member of a consumer group: fetches records. [`Subscriber::state`] reads and changes the group's commits. Used
/// from one thread, which must call [`Subscriber::poll`] at least every few minutes.
pub trait Subscriber: Send {
    /// Waits up to `timeout` for records or an event, hands at most `max` records to `each` until it breaks, and
    /// returns after them or with the first event. The record at which it breaks counts as handed over.
    ///
    /// # Errors
    /// [`BusError::Unavailable`] may be polled again. [`BusError::Gone`] is returned once for a partition whose start offset
    /// or current position was deleted, [`BusError::Unreadable`] once for one whose next records cannot be decompressed when
    /// it is not known where they end (otherwise each is delivered without its payload); nothing more is delivered of the
    /// partition until it is started again. Any other error ends this subscriber.
    fn poll(
        &mut self,
        timeout: Duration,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Option<GroupEvent>, BusError>;

    /// A handle with which other threads end waits in [`Subscriber::poll`].
    fn waker(&self) -> PollWaker;

    /// The group's commits for this member's partitions.
    fn state(&mut self) -> &mut dyn GroupState;

    /// Starts a query for the current stream ids of the group's topics; one [`GroupEvent::Streams`] answers it. The ids are
    /// read after this call: when a topic's id is the one in [`Assignment::stream`], every record of it that was
    /// delivered before the call is of that incarnation. One query at a time.
    fn query_streams(&mut self) -> Result<(), BusError>;

    /// Answers [`GroupEvent::Assigned`]: delivers from these offsets on. A partition that is left out is owned but not
    /// delivered.
    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), BusError>;

    /// Answers [`GroupEvent::Revoked`] and [`GroupEvent::Lost`].
    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError>;

    /// Delivers nothing of these partitions until [`Subscriber::resume`].
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError>;

    /// Delivers again, from where it paused.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError>;

    /// The offsets that the partition holds now; queries the bus.
    fn range(&mut self, at: &TopicPartition) -> Result<OffsetRange, BusError>;

    /// The offsets of several partitions at once, for frequent calls: it does not wait long for an unavailable bus.
    fn ranges(&mut self, partitions: &[TopicPartition]) -> Result<Vec<OffsetRange>, BusError>;

    /// Leaves the group at once, so that other members need not wait for the session to time out. The owner must have
    /// settled before.
    fn leave(self: Box<Self>);
}

/// Reads without a group.
pub trait Reader: Send {
    /// Starts to read these partitions of one topic from these offsets; forgets earlier assignments.
    fn assign(&mut self, topic: &str, starts: &[(u32, u64)]) -> Result<(), BusError>;

    /// Waits up to `timeout` for records and hands them to `each` until it breaks. [`Progress::End`] is returned once
    /// for each partition when all its records have been handed over.
    ///
    /// # Errors
    /// [`BusError::Gone`] when the next records to read were deleted; nothing more of that partition is read until the next
    /// [`Reader::assign`].
    fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, BusError>;

    /// The monotonic time by which [`Reader::poll`] waits. A bus in simulated time returns that time.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// The result of a [`Reader::poll`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Records were handed over.
    Records,
    /// No record came in time.
    Idle,
    /// This partition has been read to its end as of now.
    End(u32),
}
