//! Consumer groups: members, targets (which member shall own a partition) and leases (which member owns it), as in the
//! embedded bus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::faults::{CommitMade, Ownership};
use super::state::{ClientId, State};
use crate::balance::{self, Share};
use crate::{Assignment, BusError, Commit, CommitError, Committed, Expected, TopicPartition};

pub(super) struct Member {
    pub(super) client: ClientId,
    pub(super) topics: Vec<String>,
    pub(super) session: Duration,
}

#[derive(Default)]
pub(super) struct Group {
    pub(super) members: BTreeMap<u64, Member>,
    targets: BTreeMap<TopicPartition, u64>,
    pub(super) leases: BTreeMap<TopicPartition, u64>,
    pub(super) committed: BTreeMap<TopicPartition, Committed>,
    /// Topics that members are assigned although they did not subscribe to them.
    pub(super) foreign: Vec<String>,
}

impl Group {
    /// Ends a membership and frees its leases.
    pub(super) fn remove(&mut self, member: u64) {
        self.members.remove(&member);
        self.leases.retain(|_, owner| *owner != member);
    }

    /// Partitions that the member has and another one shall have.
    pub(super) fn to_give(&self, member: u64) -> Vec<TopicPartition> {
        let is_moved = |at: &TopicPartition| self.targets.get(at) != Some(&member);
        let leased = self.leases.iter().filter(|(at, owner)| **owner == member && is_moved(at));
        leased.map(|(at, _)| at.clone()).collect()
    }

    /// Partitions that the member shall have and that no other one has.
    fn to_take(&self, member: u64) -> Vec<TopicPartition> {
        let is_free = |at: &TopicPartition| self.leases.get(at).is_none_or(|owner| *owner == member);
        let targeted = self.targets.iter().filter(|(at, target)| **target == member && is_free(at));
        targeted.map(|(at, _)| at.clone()).collect()
    }
}

impl State {
    pub(super) fn group(&mut self, name: &str) -> &mut Group {
        self.groups.entry(name.to_owned()).or_default()
    }

    pub(super) fn join(&mut self, group: &str, client: ClientId, topics: &[String], session: Duration) -> u64 {
        let member = self.new_member();
        self.group(group).members.insert(member, Member { client, topics: topics.to_vec(), session });
        self.retarget(group);
        member
    }

    pub(super) fn leave(&mut self, group: &str, member: u64) {
        self.group(group).remove(member);
        self.retarget(group);
    }

    pub(super) fn retarget_all(&mut self) {
        let names: Vec<String> = self.groups.keys().cloned().collect();
        names.iter().for_each(|group| self.retarget(group));
    }

    /// Reassigns the partitions among the current members.
    pub(super) fn retarget(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name) else { return };
        let id = |id: u64| i64::try_from(id).unwrap_or(i64::MAX);
        let members: Vec<balance::Member> = group
            .members
            .iter()
            .map(|(member, Member { topics, .. })| balance::Member {
                id: id(*member),
                topics: topics.iter().chain(&group.foreign).cloned().collect(),
            })
            .collect();
        let is_wanted = |topic: &str| members.iter().any(|member| member.topics.iter().any(|wanted| wanted == topic));
        let (mut all, mut shares) = (Vec::new(), Vec::new());
        for (topic, log) in self.topics.iter().filter(|(topic, _)| is_wanted(topic)) {
            for partition in (0..).take(log.partitions.len()) {
                let at = TopicPartition::new(topic, partition);
                let so_far = group.targets.get(&at).copied().map(id);
                shares.push(Share { partition: id(all.len() as u64), topic: topic.clone(), so_far });
                all.push(at);
            }
        }
        let owners = balance::assign(&members, &shares);
        group.targets = all
            .into_iter()
            .zip(0..)
            .filter_map(|(at, index)| Some((at, u64::try_from(*owners.get(&index)?).ok()?)))
            .collect();
    }

    /// Takes the partitions that the member shall have and `has` not.
    pub(super) fn take(
        &mut self,
        name: &str,
        member: u64,
        has: &dyn Fn(&TopicPartition) -> bool,
    ) -> Result<Vec<Assignment>, BusError> {
        let free: Vec<TopicPartition> = self.group(name).to_take(member).into_iter().filter(|at| !has(at)).collect();
        let mut taken = Vec::with_capacity(free.len());
        for at in free {
            let (stream, range) = (self.topic(&at.topic)?.stream.clone(), self.range(&at)?);
            let group = self.group(name);
            group.leases.insert(at.clone(), member);
            let committed = group.committed.get(&at).cloned();
            taken.push(Assignment { at, stream, committed, range });
        }
        Ok(taken)
    }

    pub(super) fn release(&mut self, name: &str, member: u64, partitions: &[TopicPartition]) {
        let group = self.group(name);
        for at in partitions {
            if group.leases.get(at) == Some(&member) {
                group.leases.remove(at);
            }
        }
    }

    /// Commits if the member may.
    pub(super) fn commit(
        &mut self,
        name: &str,
        member: u64,
        believes: bool,
        commit: &Commit,
    ) -> Result<(), CommitError> {
        let Some(topic) = self.topics.get(&*commit.at.topic) else {
            return Err(CommitError::Unanswered(format!("topic {} does not exist", commit.at.topic)));
        };
        let stream = topic.stream.clone();
        let is_checked = self.ownership == Ownership::Checked;
        let group = self.group(name);
        let owns = believes && group.leases.get(&commit.at) == Some(&member);
        let process = group.members.get(&member).map(|member| member.client);
        if process.is_none() || is_checked && !owns {
            return Err(CommitError::NotOwner(format!("member {member} of group {name:?}")));
        }
        let held = group.committed.get(&commit.at).cloned();
        if let Expected::Exactly(expected) = &commit.expected
            && is_checked
            && held != *expected
        {
            let found = held.map_or("it was deleted".to_owned(), |held| format!("it is {} now", held.offset));
            return Err(CommitError::Changed(found));
        }
        let after = Committed { offset: commit.offset, metadata: commit.metadata.clone() };
        group.committed.insert(commit.at.clone(), after.clone());
        let (group, at) = (Arc::from(name), commit.at.clone());
        self.commits.push(CommitMade {
            group,
            at,
            stream,
            member: Some(member),
            process,
            before: held,
            after: Some(after),
        });
        Ok(())
    }

    pub(super) fn reset(&mut self, name: &str, to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        if self.groups.get(name).is_some_and(|group| !group.members.is_empty()) {
            return Err(BusError::GroupInUse(name.to_owned()));
        }
        for (at, _) in to {
            self.range(at)?;
        }
        to.iter().try_for_each(|(at, committed)| self.set(name, at, Some(committed.clone())))
    }

    /// Sets what the group holds, whoever its members are.
    pub(super) fn set(&mut self, name: &str, at: &TopicPartition, after: Option<Committed>) -> Result<(), BusError> {
        let stream = self.topic(&at.topic)?.stream.clone();
        let committed = &mut self.group(name).committed;
        let before = match &after {
            Some(after) => committed.insert(at.clone(), after.clone()),
            None => committed.remove(at),
        };
        let (group, at, member, process) = (name.into(), at.clone(), None, None);
        self.commits.push(CommitMade { group, at, stream, member, process, before, after });
        Ok(())
    }
}
