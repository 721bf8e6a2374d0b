//! What can go wrong, on command.

use std::sync::Arc;

use super::SimBus;
use crate::{BusError, Committed, OffsetRange, StreamId, TopicPartition};

/// What happens to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// It is made, and its answer is lost: it is reported as unanswered.
    LoseTheAnswer,
    /// It is not made, and reported as unanswered.
    Drop,
    /// It is made at once, and answered only after this many polls: records and events overtake the answer.
    AnswerLate(u32),
    /// It is made and answered only after this many polls. If its member is killed before, the seed decides whether it
    /// is made.
    MakeLate(u32),
}

/// Who may commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    /// Only the partition's owner, and only over what it expects: as the embedded bus.
    Checked,
    /// Every live member of the group, over anything: what a Kafka broker itself checks. Such a bus says that it may forget
    /// groups ([`Bus::forgets_groups`](crate::Bus::forgets_groups)).
    Unchecked,
}

/// What becomes of the groups' offsets when a topic is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offsets {
    /// They stay.
    Kept,
    /// They are deleted with it.
    Deleted,
}

/// A change of what a group holds.
#[derive(Debug, Clone)]
pub struct CommitMade {
    /// The group.
    pub group: Arc<str>,
    /// The partition.
    pub at: TopicPartition,
    /// The topic's incarnation at the time.
    pub stream: StreamId,
    /// Which member made it; `None` for an operator, or another program.
    pub member: Option<u64>,
    /// The process of this member, as [`SimBus::process`] numbers it.
    pub process: Option<u64>,
    /// What the group held.
    pub before: Option<Committed>,
    /// What it holds since.
    pub after: Option<Committed>,
}

impl SimBus {
    /// Numbers this process.
    pub fn process(&self) -> u64 {
        self.client
    }

    /// The changes of what groups hold since the last call, in order.
    pub fn take_commits(&self) -> Vec<CommitMade> {
        std::mem::take(&mut self.state().commits)
    }

    /// The payloads of a partition from this offset on, whether the bus is available or not; empty when it does not exist.
    pub fn payloads(&self, at: &TopicPartition, from: u64) -> Vec<Vec<u8>> {
        let state = self.state();
        let Some(log) = state.log(at) else { return Vec::new() };
        let skip = usize::try_from(from.saturating_sub(log.first)).unwrap_or(usize::MAX);
        log.records.iter().skip(skip).flatten().map(|record| record.payload.clone()).collect()
    }

    /// Ends a partition with an offset that holds no record, as the marker of a transaction does.
    ///
    /// # Errors
    /// [`BusError::NoTopic`].
    pub fn add_marker(&self, at: &TopicPartition) -> Result<(), BusError> {
        let mut state = self.state();
        let log = state.log_mut(at).ok_or_else(|| BusError::NoTopic(at.topic.to_string()))?;
        log.records.push_back(None);
        Ok(())
    }

    /// Forgets the records of a partition that nobody has read yet, although they were acknowledged: a broker lost them
    /// before they were on a disk, and the next records get their offsets. Returns the partition's end since.
    ///
    /// # Errors
    /// [`BusError::NoTopic`].
    pub fn forget_unread(&self, at: &TopicPartition) -> Result<u64, BusError> {
        let mut state = self.state();
        let log = state.log_mut(at).ok_or_else(|| BusError::NoTopic(at.topic.to_string()))?;
        let kept = usize::try_from(log.read.saturating_sub(log.first)).unwrap_or(usize::MAX);
        log.records.truncate(kept);
        Ok(log.range().end)
    }

    /// What the topic's partitions hold, and its incarnation, whether the bus is available or not.
    ///
    /// # Errors
    /// [`BusError::NoTopic`].
    pub fn inspect(&self, topic: &str) -> Result<(StreamId, Vec<OffsetRange>), BusError> {
        let state = self.state();
        let topic = state.topic(topic)?;
        Ok((topic.stream.clone(), topic.partitions.iter().map(super::state::Log::range).collect()))
    }

    /// What a group holds for a partition, whether the bus is available or not.
    pub fn held(&self, group: &str, at: &TopicPartition) -> Option<Committed> {
        self.state().groups.get(group)?.committed.get(at).cloned()
    }

    /// The partitions for which a group holds an offset, whether the bus is available or not.
    pub fn partitions_held(&self, group: &str) -> Vec<TopicPartition> {
        self.state().groups.get(group).into_iter().flat_map(|group| group.committed.keys().cloned()).collect()
    }

    /// Forgets the faults of commits that have not happened yet.
    pub fn clear_commit_faults(&self) {
        self.state().clients.values_mut().for_each(|client| client.commit_faults.clear());
    }

    /// Sets whether the bus is unavailable for every process.
    pub fn set_away(&self, away: bool) {
        self.state().is_away = away;
    }

    /// Sets who may commit.
    pub fn set_ownership(&self, ownership: Ownership) {
        self.state().ownership = ownership;
    }

    /// Sets what happens to the next commit of this process that has no fault yet.
    pub fn fault_next_commit(&self, fault: CommitFault) {
        if let Some(client) = self.state().clients.get_mut(&self.client) {
            client.commit_faults.push_back(fault);
        }
    }

    /// This process sends no heartbeats any more, although it runs on; with `cut_off`, nothing that it asks is answered
    /// either.
    pub fn silence(&self, cut_off: bool) {
        let now = self.shared.time.now();
        if let Some(client) = self.state().clients.get_mut(&self.client) {
            client.silent_since.get_or_insert(now);
            client.is_cut_off = cut_off;
        }
    }

    /// This process sends heartbeats again. A member that was evicted meanwhile learns of it by its next poll.
    pub fn end_silence(&self) {
        let now = self.shared.time.now();
        let mut state = self.state();
        state.evict_silent(now);
        if let Some(client) = state.clients.get_mut(&self.client) {
            client.silent_since = None;
            client.is_cut_off = false;
        }
    }

    /// Kills this process: its members are evicted when their sessions time out, and nothing of it reaches the bus.
    pub fn kill(&self) {
        self.silence(true);
        if let Some(client) = self.state().clients.get_mut(&self.client) {
            client.is_dead = true;
        }
    }

    /// Evicts every member of this process at once, as a coordinator does that has missed its heartbeats. It runs on, and
    /// learns of it by its next poll.
    pub fn evict(&self) {
        let this = self.client;
        self.state().evict(|member, _| member.client == this);
    }

    /// Deletes the records of a partition below `first`, as retention does.
    ///
    /// # Errors
    /// [`BusError::NoTopic`].
    pub fn trim(&self, at: &TopicPartition, first: u64) -> Result<(), BusError> {
        let mut state = self.state();
        let log = state.log_mut(at).ok_or_else(|| BusError::NoTopic(at.topic.to_string()))?;
        while log.first < first && log.records.pop_front().is_some() {
            log.first += 1;
        }
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// [`BusError::NoTopic`].
    pub fn delete_topic(&self, topic: &str, offsets: Offsets) -> Result<(), BusError> {
        let mut state = self.state();
        state.forget_topic(topic, offsets)?;
        state.topics.remove(topic).ok_or_else(|| BusError::NoTopic(topic.to_owned()))?;
        state.retarget_all();
        Ok(())
    }

    /// Deletes a topic and creates it again with as many partitions, before any member notices: another incarnation, whose
    /// offsets begin with 0.
    ///
    /// # Errors
    /// [`BusError::NoTopic`].
    pub fn recreate_topic(&self, topic: &str, offsets: Offsets) -> Result<(), BusError> {
        let mut state = self.state();
        let partitions = state.count(topic).ok_or_else(|| BusError::NoTopic(topic.to_owned()))?;
        state.forget_topic(topic, offsets)?;
        state.create(topic, partitions)
    }

    /// Another program sets what a group holds, whoever its members are.
    ///
    /// # Errors
    /// [`BusError::NoTopic`].
    pub fn commit_as_another_program(
        &self,
        group: &str,
        at: &TopicPartition,
        committed: Committed,
    ) -> Result<(), BusError> {
        self.state().set(group, at, Some(committed))
    }

    /// The bus forgets everything that a group has committed.
    ///
    /// # Errors
    /// [`BusError::NoTopic`].
    pub fn forget_group(&self, group: &str) -> Result<(), BusError> {
        self.state().forget(group, None)
    }

    /// Assigns the partitions of this topic to the group's members too, which did not subscribe to it.
    pub fn misassign(&self, group: &str, topic: &str) {
        let mut state = self.state();
        state.group(group).foreign.push(topic.to_owned());
        state.retarget(group);
    }

    /// Undoes [`SimBus::misassign`].
    pub fn end_misassignment(&self, group: &str) {
        let mut state = self.state();
        state.group(group).foreign.clear();
        state.retarget(group);
    }

    /// Sets whether a topic refuses every record.
    pub fn set_refusing(&self, topic: &str, refusing: bool) {
        let mut state = self.state();
        if refusing {
            state.refusing.insert(topic.to_owned());
        } else {
            state.refusing.remove(topic);
        }
    }

    /// Stores the next records of a topic, and loses the acknowledgements.
    pub fn lose_acknowledgements(&self, topic: &str, count: u64) {
        self.state().unacknowledged.insert(topic.to_owned(), count);
    }
}

impl super::state::State {
    /// Deletes what the groups have committed for a topic, where it goes with the topic.
    fn forget_topic(&mut self, topic: &str, offsets: Offsets) -> Result<(), BusError> {
        if offsets == Offsets::Kept {
            return Ok(());
        }
        let groups: Vec<String> = self.groups.keys().cloned().collect();
        groups.iter().try_for_each(|group| self.forget(group, Some(topic)))
    }

    /// Deletes what a group has committed, for one topic or all.
    fn forget(&mut self, group: &str, topic: Option<&str>) -> Result<(), BusError> {
        let held = &self.group(group).committed;
        let of_topic = |at: &&TopicPartition| topic.is_none_or(|topic| *at.topic == *topic);
        let forgotten: Vec<TopicPartition> = held.keys().filter(of_topic).cloned().collect();
        forgotten.iter().try_for_each(|at| self.set(group, at, None))
    }
}
