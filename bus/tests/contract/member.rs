//! A group member that does what a careful owner does, and remembers all it saw.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{
    Assignment, Bus, BusError, Commit, CommitError, Expected, GroupEvent, GroupOptions, StreamId, Subscriber,
    TopicPartition,
};

use super::{PATIENCE, Subject};

/// One poll of one member; several members take turns on one thread.
const TURN: Duration = Duration::from_millis(20);

pub struct Member {
    pub subscriber: Box<dyn Subscriber>,
    /// What it owns, and the offset that comes next.
    pub owned: BTreeMap<TopicPartition, u64>,
    /// Everything delivered: partition, offset, payload.
    pub records: Vec<(TopicPartition, u64, String)>,
    /// How each partition came, in order.
    pub assigned: Vec<Assignment>,
    /// Asked back and not released: only with `keep_revoked`.
    pub asked_back: Vec<TopicPartition>,
    pub answers: Vec<(TopicPartition, Result<(), CommitError>)>,
    pub ends: Vec<TopicPartition>,
    pub lost: Vec<TopicPartition>,
    /// The answers to `query_streams`.
    pub streams: Vec<BTreeMap<Arc<str>, StreamId>>,
    /// How many events moved partitions.
    pub events: usize,
    /// Leaves the release of revoked partitions to the test.
    pub keep_revoked: bool,
    /// Leaves the start of assigned partitions to the test.
    pub keep_stopped: bool,
    /// At most so many records in one poll.
    pub max: usize,
    /// Has enough, for that poll, after each so many records.
    pub break_at: usize,
}

impl Member {
    pub fn join(subject: &dyn Subject, group: &str, topics: &[&str]) -> Self {
        Self::join_bus(&*subject.bus(), group, topics, &subject.options())
    }

    pub fn join_bus(bus: &dyn Bus, group: &str, topics: &[&str], options: &GroupOptions) -> Self {
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Self {
            subscriber: bus.subscriber(group, &topics, options).unwrap(),
            owned: BTreeMap::new(),
            records: Vec::new(),
            assigned: Vec::new(),
            asked_back: Vec::new(),
            answers: Vec::new(),
            ends: Vec::new(),
            lost: Vec::new(),
            streams: Vec::new(),
            events: 0,
            keep_revoked: false,
            keep_stopped: false,
            max: 500,
            break_at: usize::MAX,
        }
    }

    /// One poll, and the answer to its event. The bus may be away.
    pub fn step(&mut self) {
        match self.try_step() {
            Ok(()) | Err(BusError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// The same, where an error may come.
    pub fn try_step(&mut self) -> Result<(), BusError> {
        let (owned, records, break_at) = (&mut self.owned, &mut self.records, self.break_at);
        let mut take = |record: tallybus_bus::Record<'_>| {
            let at = TopicPartition::new(record.topic, record.partition);
            let next = owned.get_mut(&at).unwrap_or_else(|| panic!("{record:?} of a partition that is not owned"));
            assert!(record.offset >= *next, "{record:?} came where {next} was next");
            *next = record.offset + 1;
            records.push((at, record.offset, String::from_utf8_lossy(record.payload).into_owned()));
            if records.len() % break_at == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        if let Some(event) = self.subscriber.poll(TURN, self.max, &mut take)? {
            self.answer(event);
        }
        Ok(())
    }

    fn answer(&mut self, event: GroupEvent) {
        match event {
            GroupEvent::Assigned(assignments) => {
                self.events += 1;
                let starts: Vec<(TopicPartition, u64)> =
                    assignments.iter().map(|assignment| (assignment.at.clone(), start_of(assignment))).collect();
                for (at, start) in &starts {
                    assert!(self.owned.insert(at.clone(), *start).is_none(), "{at} was assigned twice");
                }
                self.assigned.extend(assignments);
                if !self.keep_stopped {
                    self.subscriber.start(&starts).unwrap();
                }
            }
            GroupEvent::Revoked(partitions) => {
                self.events += 1;
                if self.keep_revoked {
                    self.asked_back.extend(partitions);
                    return;
                }
                self.settle(&partitions);
                self.release(&partitions);
            }
            GroupEvent::Lost(partitions) => {
                self.events += 1;
                self.lost.extend(partitions.iter().cloned());
                self.release(&partitions);
            }
            GroupEvent::Committed(answers) => self.answers.extend(answers),
            GroupEvent::End { at, .. } => self.ends.push(at),
            GroupEvent::Streams(answer) => self.streams.push(answer.unwrap().into_iter().collect()),
        }
    }

    /// Commits what has been delivered of these partitions.
    pub fn settle(&mut self, partitions: &[TopicPartition]) {
        let commits: Vec<Commit> =
            partitions.iter().map(|at| commit(at, self.owned[at], &format!("{at} up to {}", self.owned[at]))).collect();
        self.commit_now(&commits);
    }

    pub fn commit_now(&mut self, commits: &[Commit]) {
        let answers = self.subscriber.state().compare_and_set_now(commits, PATIENCE);
        assert_eq!(answers.len(), commits.len());
        for (commit, (at, answer)) in commits.iter().zip(&answers) {
            assert_eq!(*at, commit.at);
            assert!(answer.is_ok(), "{at}: {answer:?}");
        }
    }

    pub fn release(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            assert!(self.owned.remove(at).is_some(), "{at} was taken back but not owned");
        }
        self.asked_back.retain(|at| !partitions.contains(at));
        self.subscriber.release(partitions).unwrap();
    }

    /// Polls until it is so.
    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        self.until_told(what, done);
    }

    /// The same, where looking changes what is known.
    pub fn until_told(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(self) {
            self.step();
            assert!(Instant::now() < until, "waited in vain for {what}: {}", self.summary());
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.step();
        }
    }

    /// Settles everything and leaves.
    pub fn leave(mut self) -> Vec<(TopicPartition, u64, String)> {
        let owned: Vec<TopicPartition> = self.owned.keys().cloned().collect();
        self.settle(&owned);
        self.subscriber.leave();
        self.records
    }

    pub fn count(&self, at: &TopicPartition) -> usize {
        self.records.iter().filter(|(of, ..)| of == at).count()
    }

    pub fn summary(&self) -> String {
        format!(
            "owns {:?}, {} records, asked back {:?}, lost {:?}, ends {:?}, {} answers",
            self.owned,
            self.records.len(),
            self.asked_back,
            self.lost,
            self.ends,
            self.answers.len()
        )
    }
}

pub fn start_of(assignment: &Assignment) -> u64 {
    assignment.committed.as_ref().map_or(assignment.range.first, |committed| committed.offset)
}

pub fn commit(at: &TopicPartition, offset: u64, metadata: &str) -> Commit {
    Commit { at: at.clone(), offset, metadata: metadata.to_owned(), expected: Expected::Anything }
}

/// Lets members take turns until it is so.
pub fn run_all(members: &mut [&mut Member], what: &str, done: impl Fn(&[&mut Member]) -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done(members) {
        for member in members.iter_mut() {
            member.step();
        }
        let state: Vec<String> = members.iter().map(|member| member.summary()).collect();
        assert!(Instant::now() < until, "waited in vain for {what}: {state:#?}");
    }
}
