//! Topics and their records, the processes that are connected, and the faults that are pending.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::faults::{CommitFault, CommitMade, Ownership};
use super::group::{Group, Member};
use crate::{BusError, OffsetRange, Placed, StreamId, TopicPartition};

pub(super) type ClientId = u64;

/// A record as it is stored.
pub(super) struct Stored {
    pub(super) time_ms: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) payload: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) first: u64,
    /// `None` for an offset without a record: the marker of a transaction.
    pub(super) records: VecDeque<Option<Arc<Stored>>>,
    /// One past the last offset that was handed to a reader.
    pub(super) read: u64,
}

impl Log {
    pub(super) fn range(&self) -> OffsetRange {
        OffsetRange { first: self.first, end: self.first + self.records.len() as u64 }
    }
}

pub(super) struct Topic {
    pub(super) stream: StreamId,
    pub(super) partitions: Vec<Log>,
}

/// A process.
#[derive(Default)]
pub(super) struct Client {
    /// It has sent no heartbeat since then.
    pub(super) silent_since: Option<Instant>,
    /// Nothing that it asks is answered.
    pub(super) is_cut_off: bool,
    /// It was killed: its members say no goodbye.
    pub(super) is_dead: bool,
    /// What happens to its next commits, in order.
    pub(super) commit_faults: VecDeque<CommitFault>,
}

pub(super) struct State {
    rng: u64,
    next_stream: u64,
    next_member: u64,
    pub(super) is_away: bool,
    pub(super) ownership: Ownership,
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) groups: BTreeMap<String, Group>,
    pub(super) clients: BTreeMap<ClientId, Client>,
    pub(super) commits: Vec<CommitMade>,
    /// Topics that take no record.
    pub(super) refusing: BTreeSet<String>,
    /// How many of the next records of a topic are stored without an acknowledgement.
    pub(super) unacknowledged: BTreeMap<String, u64>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: seed,
            next_stream: 0,
            next_member: 0,
            is_away: false,
            ownership: Ownership::Checked,
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            clients: BTreeMap::new(),
            commits: Vec::new(),
            refusing: BTreeSet::new(),
            unacknowledged: BTreeMap::new(),
        }
    }

    /// The next choice, below `bound` (splitmix64).
    pub(super) fn choose(&mut self, bound: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.rng ^ (self.rng >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)).checked_rem(bound).unwrap_or(0)
    }

    pub(super) fn add_client(&mut self) -> ClientId {
        let client = self.clients.len() as ClientId;
        self.clients.insert(client, Client::default());
        client
    }

    pub(super) fn new_member(&mut self) -> u64 {
        self.next_member += 1;
        self.next_member
    }

    pub(super) fn answers(&self, client: ClientId) -> bool {
        !self.is_away && self.clients.get(&client).is_some_and(|client| !client.is_cut_off && !client.is_dead)
    }

    pub(super) fn count(&self, topic: &str) -> Option<u32> {
        self.topics.get(topic).map(|topic| u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX))
    }

    pub(super) fn create(&mut self, topic: &str, partitions: u32) -> Result<(), BusError> {
        self.next_stream += 1;
        let invalid = |error: crate::InvalidStreamId| BusError::Fatal(error.to_string());
        let stream = format!("sim:{}", self.next_stream).parse().map_err(invalid)?;
        let partitions = (0..partitions).map(|_| Log::default()).collect();
        self.topics.insert(topic.to_owned(), Topic { stream, partitions });
        self.retarget_all();
        Ok(())
    }

    pub(super) fn topic(&self, name: &str) -> Result<&Topic, BusError> {
        self.topics.get(name).ok_or_else(|| BusError::NoTopic(name.to_owned()))
    }

    pub(super) fn log(&self, at: &TopicPartition) -> Option<&Log> {
        self.topics.get(&*at.topic)?.partitions.get(usize::try_from(at.partition).ok()?)
    }

    pub(super) fn log_mut(&mut self, at: &TopicPartition) -> Option<&mut Log> {
        self.topics.get_mut(&*at.topic)?.partitions.get_mut(usize::try_from(at.partition).ok()?)
    }

    pub(super) fn range(&self, at: &TopicPartition) -> Result<OffsetRange, BusError> {
        self.log(at).map(Log::range).ok_or_else(|| BusError::NoTopic(at.topic.to_string()))
    }

    pub(super) fn append(&mut self, at: &TopicPartition, record: Stored) -> Result<Placed, BusError> {
        let log = self.log_mut(at).ok_or_else(|| BusError::NoTopic(at.topic.to_string()))?;
        let offset = log.range().end;
        log.records.push_back(Some(Arc::new(record)));
        Ok(Placed::new(at.partition, Some(offset)))
    }

    /// How long a member of the group has been silent for: the time that is left until its session ends, at most.
    pub(super) fn silence_left(&self, group: &str, now: Instant) -> Duration {
        let Some(group) = self.groups.get(group) else { return Duration::ZERO };
        let left = group.members.values().filter_map(|member| {
            let since = self.clients.get(&member.client)?.silent_since?;
            Some((since + member.session).saturating_duration_since(now))
        });
        left.max().unwrap_or_default()
    }

    /// Removes the members whose sessions have timed out.
    pub(super) fn evict_silent(&mut self, now: Instant) {
        self.evict(|member, client| client.silent_since.is_some_and(|since| now >= since + member.session));
    }

    /// Removes the members for which this is true, and reassigns the partitions of their groups.
    pub(super) fn evict(&mut self, is_meant: impl Fn(&Member, &Client) -> bool) {
        let clients = &self.clients;
        let is_meant = |member: &Member| clients.get(&member.client).is_some_and(|client| is_meant(member, client));
        let mut changed = Vec::new();
        for (name, group) in &mut self.groups {
            let meant = group.members.iter().filter(|(_, member)| is_meant(member));
            let meant: Vec<u64> = meant.map(|(id, _)| *id).collect();
            if !meant.is_empty() {
                meant.into_iter().for_each(|member| group.remove(member));
                changed.push(name.clone());
            }
        }
        changed.iter().for_each(|group| self.retarget(group));
    }
}
