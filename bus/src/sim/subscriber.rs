//! A member of a consumer group.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::SimBus;
use super::faults::CommitFault;
use super::fetch::Fetcher;
use crate::{
    BusError, Commit, CommitError, Committed, GroupEvent, GroupOptions, GroupState, OffsetRange, PollWaker, Record,
    StreamId, Subscriber, TopicPartition, rules,
};

const SESSION: Duration = Duration::from_secs(6);

type Answers = Vec<(TopicPartition, Result<(), CommitError>)>;

/// A commit that was not answered yet.
struct Pending {
    /// After how many polls.
    polls: u32,
    what: What,
}

enum What {
    Answer(Answers),
    /// Not made yet.
    Make(Vec<Commit>),
}

pub(super) struct SimSubscriber {
    bus: SimBus,
    group: String,
    topics: Vec<String>,
    session: Duration,
    member: u64,
    /// The partitions that this member has, and whether they were asked back.
    held: BTreeMap<TopicPartition, bool>,
    fetcher: Fetcher,
    pending: VecDeque<Pending>,
    is_streams_due: bool,
    /// The membership has ended, and the owner has been notified.
    lost: bool,
    left: bool,
    is_called: Arc<AtomicBool>,
}

impl SimSubscriber {
    pub(super) fn join(bus: SimBus, group: &str, topics: &[String], options: &GroupOptions) -> Result<Self, BusError> {
        rules::check_topics(group, topics)?;
        let session = options.session_timeout.unwrap_or(SESSION);
        let member = bus.ask()?.join(group, bus.client, topics, session);
        Ok(Self {
            bus,
            group: group.to_owned(),
            topics: topics.to_vec(),
            session,
            member,
            held: BTreeMap::new(),
            fetcher: Fetcher::default(),
            pending: VecDeque::new(),
            is_streams_due: false,
            lost: false,
            left: false,
            is_called: Arc::default(),
        })
    }

    /// Compares what this member has with what it shall have.
    fn reconcile(&mut self) -> Result<Option<GroupEvent>, BusError> {
        let now = self.bus.shared.time.now();
        let mut state = self.bus.ask()?;
        state.evict_silent(now);
        let group = state.group(&self.group);
        if !group.members.contains_key(&self.member) {
            if self.held.is_empty() {
                self.member = state.join(&self.group, self.bus.client, &self.topics, self.session);
                self.lost = false;
                return Ok(None);
            }
            if std::mem::replace(&mut self.lost, true) {
                return Ok(None);
            }
            let all: Vec<TopicPartition> = self.held.keys().cloned().collect();
            self.fetcher.stop(&all);
            return Ok(Some(GroupEvent::Lost(all)));
        }
        let moved = group.to_give(self.member);
        let news = self.held.iter_mut().filter(|(at, asked_back)| !**asked_back && moved.contains(at));
        let revoked: Vec<TopicPartition> = news
            .map(|(at, asked_back)| {
                *asked_back = true;
                at.clone()
            })
            .collect();
        if !revoked.is_empty() {
            self.fetcher.stop(&revoked);
            return Ok(Some(GroupEvent::Revoked(revoked)));
        }
        let taken = state.take(&self.group, self.member, &|at| self.held.contains_key(at))?;
        self.held.extend(taken.iter().map(|assignment| (assignment.at.clone(), false)));
        Ok((!taken.is_empty()).then_some(GroupEvent::Assigned(taken)))
    }

    fn streams(&self) -> Result<Vec<(Arc<str>, StreamId)>, BusError> {
        let state = self.bus.ask()?;
        let found = self.topics.iter().filter_map(|name| Some((name, state.topics.get(name)?)));
        Ok(found.map(|(name, topic)| (name.as_str().into(), topic.stream.clone())).collect())
    }

    fn make(&self, commits: &[Commit]) -> Answers {
        let mut state = self.bus.state();
        let believes = |at: &TopicPartition| self.held.contains_key(at) && !self.lost;
        let each = commits.iter().map(|commit| {
            let answer = state.commit(&self.group, self.member, believes(&commit.at), commit);
            (commit.at.clone(), answer)
        });
        each.collect()
    }

    /// Makes the commits that are late: one connection keeps their order with everything that comes after them.
    fn make_late_ones(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        for waiting in &mut pending {
            if let What::Make(commits) = &waiting.what {
                waiting.what = What::Answer(self.make(commits));
            }
        }
        self.pending = pending;
    }

    /// The answer to a commit, when it is due.
    fn answer(&mut self) -> Option<Answers> {
        let first = self.pending.front_mut()?;
        if first.polls > 0 {
            first.polls -= 1;
            return None;
        }
        self.make_late_ones();
        match self.pending.pop_front()?.what {
            What::Answer(answers) => Some(answers),
            What::Make(commits) => Some(self.make(&commits)),
        }
    }

    fn next_fault(&self) -> Option<CommitFault> {
        self.bus.state().clients.get_mut(&self.bus.client)?.commit_faults.pop_front()
    }

    fn leave_group(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let mut state = self.bus.state();
        if !state.answers(self.bus.client) {
            let is_made = state.choose(2) == 0;
            drop(state);
            // What was on its way when the process died may arrive.
            if is_made {
                self.make_late_ones();
            }
            return;
        }
        drop(state);
        self.make_late_ones();
        self.bus.state().leave(&self.group, self.member);
    }
}

fn unanswered(commits: &[Commit], why: &str) -> Answers {
    commits.iter().map(|commit| (commit.at.clone(), Err(CommitError::Unanswered(why.to_owned())))).collect()
}

impl Subscriber for SimSubscriber {
    fn poll(
        &mut self,
        timeout: Duration,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Option<GroupEvent>, BusError> {
        drop(self.bus.ask()?);
        if let Some(answers) = self.answer() {
            return Ok(Some(GroupEvent::Committed(answers)));
        }
        for last in [false, true] {
            if std::mem::take(&mut self.is_streams_due) {
                return Ok(Some(GroupEvent::Streams(self.streams())));
            }
            if let Some(event) = self.reconcile()? {
                return Ok(Some(event));
            }
            if let Some((at, offset)) = self.fetcher.take_end() {
                return Ok(Some(GroupEvent::End { at, offset }));
            }
            if max > 0 && self.fetcher.fetch(&self.bus, max, each)? > 0 {
                return Ok(None);
            }
            if let Some((at, offset)) = self.fetcher.take_end() {
                return Ok(Some(GroupEvent::End { at, offset }));
            }
            if last || self.is_called.swap(false, Ordering::AcqRel) {
                break;
            }
            self.bus.shared.time.pass(timeout);
        }
        Ok(None)
    }

    fn waker(&self) -> PollWaker {
        let is_called = Arc::clone(&self.is_called);
        PollWaker::new(move || is_called.store(true, Ordering::Release))
    }

    fn state(&mut self) -> &mut dyn GroupState {
        self
    }

    fn query_streams(&mut self) -> Result<(), BusError> {
        drop(self.bus.ask()?);
        self.is_streams_due = true;
        Ok(())
    }

    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        for (at, offset) in starts {
            if !self.held.contains_key(at) {
                return Err(rules::not_assigned(at));
            }
            rules::check_start(at, *offset, self.bus.ask()?.range(at)?.end)?;
            self.fetcher.start(at.clone(), *offset);
        }
        Ok(())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        self.make_late_ones();
        self.fetcher.stop(partitions);
        partitions.iter().for_each(|at| {
            self.held.remove(at);
        });
        // Like a member of Kafka, it need not wait for the answer.
        self.bus.state().release(&self.group, self.member, partitions);
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        self.fetcher.set_paused(partitions, true);
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        self.fetcher.set_paused(partitions, false);
        Ok(())
    }

    fn range(&mut self, at: &TopicPartition) -> Result<OffsetRange, BusError> {
        self.bus.ask()?.range(at)
    }

    fn ranges(&mut self, partitions: &[TopicPartition]) -> Result<Vec<OffsetRange>, BusError> {
        let state = self.bus.ask()?;
        partitions.iter().map(|at| state.range(at)).collect()
    }

    fn leave(mut self: Box<Self>) {
        self.leave_group();
    }
}

impl GroupState for SimSubscriber {
    fn get(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BusError> {
        drop(self.bus.ask()?);
        self.make_late_ones();
        let mut state = self.bus.ask()?;
        let held = &state.group(&self.group).committed;
        Ok(partitions.iter().map(|at| held.get(at).cloned()).collect())
    }

    fn compare_and_set(&mut self, commits: &[Commit]) -> Result<(), BusError> {
        rules::check_metadata(commits).map_err(BusError::Settings)?;
        drop(self.bus.ask()?);
        let (polls, what) = match self.next_fault() {
            None => (0, What::Answer(self.make(commits))),
            Some(CommitFault::LoseTheAnswer) => {
                self.make(commits);
                (1, What::Answer(unanswered(commits, "the answer was lost")))
            }
            Some(CommitFault::Drop) => (1, What::Answer(unanswered(commits, "the commit was lost"))),
            Some(CommitFault::AnswerLate(polls)) => (polls, What::Answer(self.make(commits))),
            Some(CommitFault::MakeLate(polls)) => (polls, What::Make(commits.to_vec())),
        };
        self.pending.push_back(Pending { polls, what });
        Ok(())
    }

    fn compare_and_set_now(
        &mut self,
        commits: &[Commit],
        timeout: Duration,
    ) -> Vec<(TopicPartition, Result<(), CommitError>)> {
        if let Err(why) = rules::check_metadata(commits) {
            return unanswered(commits, &why);
        }
        if let Err(error) = self.bus.ask().map(drop) {
            self.bus.shared.time.pass(timeout);
            return unanswered(commits, &error.to_string());
        }
        self.make_late_ones();
        match self.next_fault() {
            Some(CommitFault::Drop) => unanswered(commits, "the commit was lost"),
            Some(CommitFault::LoseTheAnswer) => {
                self.make(commits);
                unanswered(commits, "the answer was lost")
            }
            Some(CommitFault::AnswerLate(_) | CommitFault::MakeLate(_)) | None => self.make(commits),
        }
    }

    fn metadata_limit(&self) -> usize {
        rules::MAX_METADATA
    }
}

impl Drop for SimSubscriber {
    fn drop(&mut self) {
        self.leave_group();
    }
}
