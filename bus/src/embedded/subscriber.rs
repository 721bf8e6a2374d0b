//! A member of a consumer group.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::fetch::{Fetcher, Position};
use super::file::{Conn, WRITE_WAIT, find_partition, find_range};
use super::group::{self, Change};
use super::heartbeat::Heartbeat;
use super::streams;
use crate::{
    Assignment, BusError, Commit, CommitError, Committed, GroupEvent, GroupOptions, GroupState, OffsetRange, PollWaker,
    Record, StreamId, Subscriber, TopicPartition, rules,
};

/// How long a wait sleeps before it checks for writes of other processes.
const NAP: Duration = Duration::from_millis(10);
/// How often a waiting member checks that the file is still the one it opened.
const FILE_CHECK: Duration = Duration::from_secs(1);

/// The default session timeout: heartbeats share one file with everything else.
const SESSION: Duration = Duration::from_secs(6);
/// The shortest session timeout: a shorter session would end whenever the machine is busy.
const MIN_SESSION: Duration = Duration::from_millis(200);

type Answers = Vec<(TopicPartition, Result<(), CommitError>)>;

/// A partition that this member has a lease on.
struct Held {
    id: i64,
    /// Revoked, and not released yet.
    asked_back: bool,
}

pub(super) struct EmbeddedSubscriber {
    conn: Conn,
    heartbeat: Heartbeat,
    group: String,
    topics: Vec<String>,
    client_id: String,
    session: Duration,
    held: BTreeMap<TopicPartition, Held>,
    fetcher: Fetcher,
    answers: VecDeque<Answers>,
    /// The stream ids were queried, and the answer was not handed over yet.
    streams_due: bool,
    /// Released by the owner while the file could not be written; the next poll gives them back.
    unreleased: Vec<i64>,
    /// The membership has ended, and the owner has been notified.
    lost: bool,
    data_version: i64,
    generation: i64,
    look_at_group: bool,
    more_to_fetch: bool,
    file_checked: Instant,
    left: bool,
    /// A [`PollWaker`] requested the end of the wait.
    is_called: Arc<AtomicBool>,
}

impl EmbeddedSubscriber {
    pub(super) fn join(
        conn: Conn,
        group: &str,
        topics: &[String],
        options: &GroupOptions,
        max_poll_interval: Duration,
    ) -> Result<Self, BusError> {
        rules::check_topics(group, topics)?;
        let beating = conn.another()?;
        beating.do_not_wait_for_disk()?;
        let session = options.session_timeout.unwrap_or(SESSION).max(MIN_SESSION);
        let member = conn.write(WRITE_WAIT, "joining the group", |sql| {
            group::join(sql, group, topics, &options.client_id, session)
        })?;
        let heartbeat = Heartbeat::start(beating, group, member, session, max_poll_interval)
            .map_err(|error| BusError::Unavailable(format!("no thread for the heartbeats: {error}")))?;
        Ok(Self {
            conn,
            heartbeat,
            group: group.to_owned(),
            topics: topics.to_vec(),
            client_id: options.client_id.clone(),
            session,
            held: BTreeMap::new(),
            fetcher: Fetcher::default(),
            answers: VecDeque::new(),
            streams_due: false,
            unreleased: Vec::new(),
            lost: false,
            data_version: -1,
            generation: -1,
            look_at_group: true,
            more_to_fetch: false,
            file_checked: Instant::now(),
            left: false,
            is_called: Arc::default(),
        })
    }

    fn member(&self) -> i64 {
        self.heartbeat.pulse.member()
    }

    /// Compares this member's leases with its targets.
    fn reconcile(&mut self) -> Result<Option<GroupEvent>, BusError> {
        if !self.unreleased.is_empty() {
            self.give_back()?;
        }
        let (group, member) = (&self.group, self.member());
        let (known, look) = (self.generation, self.look_at_group);
        let news = self.conn.snapshot("reading the group", |sql| {
            let generation = group::generation(sql, group)?;
            if generation == known && !look {
                return Ok(None);
            }
            Ok(Some((generation, group::member_state(sql, group, member)?)))
        })?;
        let Some((generation, member_state)) = news else { return Ok(None) };
        if member_state.ended {
            return self.on_ended();
        }
        let asked_back: Vec<TopicPartition> = self
            .held
            .iter_mut()
            .filter(|(_, held)| !held.asked_back && member_state.to_give.contains(&held.id))
            .map(|(at, held)| {
                held.asked_back = true;
                at.clone()
            })
            .collect();
        if !asked_back.is_empty() {
            self.stop_fetching(&asked_back);
            return Ok(Some(GroupEvent::Revoked(asked_back)));
        }
        let has: Vec<i64> = self.held.values().map(|held| held.id).collect();
        if member_state.to_take.iter().any(|id| !has.contains(id)) {
            let taken =
                self.conn.write(WRITE_WAIT, "taking partitions", |sql| group::take(sql, group, member, &has))?;
            if !taken.is_empty() {
                return Ok(Some(GroupEvent::Assigned(taken.into_iter().map(|taken| self.hold(taken)).collect())));
            }
        }
        self.generation = generation;
        self.look_at_group = false;
        Ok(None)
    }

    fn hold(&mut self, taken: group::Taken) -> Assignment {
        let at = TopicPartition::new(&taken.topic, taken.partition);
        self.held.insert(at.clone(), Held { id: taken.id, asked_back: false });
        Assignment { at, stream: taken.stream, committed: taken.committed, range: taken.range }
    }

    fn on_ended(&mut self) -> Result<Option<GroupEvent>, BusError> {
        if self.held.is_empty() {
            let Self { group, topics, client_id, session, .. } = &*self;
            let member = self.conn.write(WRITE_WAIT, "joining the group again", |sql| {
                group::join(sql, group, topics, client_id, *session)
            })?;
            self.heartbeat.pulse.member.store(member, std::sync::atomic::Ordering::Release);
            self.lost = false;
            return self.reconcile();
        }
        // Reported once; the owner's release comes next.
        if self.lost {
            return Ok(None);
        }
        self.lost = true;
        let all: Vec<TopicPartition> = self.held.keys().cloned().collect();
        self.stop_fetching(&all);
        Ok(Some(GroupEvent::Lost(all)))
    }

    fn streams(&self) -> Result<Vec<(Arc<str>, StreamId)>, BusError> {
        self.conn.snapshot("reading stream ids", |sql| {
            let mut found = Vec::with_capacity(self.topics.len());
            for topic in &self.topics {
                match streams::find(sql, topic) {
                    Ok(Some(id)) => found.push((topic.as_str().into(), id)),
                    // An earlier version has recreated the topic just now: it has no id, which differs from every id.
                    Ok(None) => {}
                    Err(Fault::Bus(BusError::NoTopic(_))) => {}
                    Err(fault) => return Err(fault),
                }
            }
            Ok(found)
        })
    }

    fn give_back(&mut self) -> Result<(), BusError> {
        let (group, member, ids) = (&self.group, self.member(), &self.unreleased);
        self.conn.write(WRITE_WAIT, "releasing partitions", |sql| group::release(sql, group, member, ids))?;
        self.unreleased.clear();
        self.look_at_group = true;
        Ok(())
    }

    fn stop_fetching(&mut self, partitions: &[TopicPartition]) {
        self.fetcher.positions.retain(|position| !partitions.iter().any(|at| position.is(&at.topic, at.partition)));
    }

    fn id_of(&self, at: &TopicPartition) -> Result<i64, BusError> {
        if let Some(held) = self.held.get(at) {
            return Ok(held.id);
        }
        self.conn.read("finding a topic", |sql| find_partition(sql, at))
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        for position in &mut self.fetcher.positions {
            if partitions.iter().any(|at| position.is(&at.topic, at.partition)) {
                position.paused = paused;
            }
        }
        self.more_to_fetch = true;
    }

    fn commit_within(&self, commits: &[Commit], timeout: Duration) -> Answers {
        let member = self.member();
        let owned = |commit: &Commit| self.held.get(&commit.at).filter(|_| !self.lost).map(|held| held.id);
        let changes = self.conn.write(timeout, "committing", |sql| {
            let each = commits.iter().map(|commit| match owned(commit) {
                Some(id) => group::commit(sql, &self.group, member, id, commit),
                None => Ok(Change::NotOwner),
            });
            each.collect::<Result<Vec<Change>, Fault>>()
        });
        let changes = match changes {
            Ok(changes) => changes,
            Err(error) => {
                let unanswered = || Err(CommitError::Unanswered(error.to_string()));
                return commits.iter().map(|commit| (commit.at.clone(), unanswered())).collect();
            }
        };
        let answer = |change| match change {
            Change::Made => Ok(()),
            Change::NotOwner => Err(CommitError::NotOwner(format!("member {member} of group {:?}", self.group))),
            Change::Changed(Some(held)) => Err(CommitError::Changed(format!("it is {} now", held.offset))),
            Change::Changed(None) => Err(CommitError::Changed("it was deleted".to_owned())),
        };
        commits.iter().zip(changes).map(|(commit, change)| (commit.at.clone(), answer(change))).collect()
    }

    fn leave_group(&mut self) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let (group, member) = (&self.group, self.member());
        let left = self.conn.write(WRITE_WAIT, "leaving the group", |sql| group::remove(sql, group, member));
        if let Err(error) = left {
            tracing::warn!(group = self.group, %error, "could not leave the group: its partitions are reassigned when \
                the session times out");
        }
    }
}

impl Subscriber for EmbeddedSubscriber {
    fn poll(
        &mut self,
        timeout: Duration,
        max: usize,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Option<GroupEvent>, BusError> {
        let until = Instant::now() + timeout;
        loop {
            self.heartbeat.pulse.note_poll();
            if let Some(answers) = self.answers.pop_front() {
                return Ok(Some(GroupEvent::Committed(answers)));
            }
            if std::mem::take(&mut self.streams_due) {
                return Ok(Some(GroupEvent::Streams(self.streams())));
            }
            let writes = self.conn.shared.writes();
            let version = self.conn.data_version()?;
            if version != self.data_version || self.look_at_group {
                let event = self.reconcile();
                if !matches!(event, Ok(None)) {
                    return event;
                }
                self.more_to_fetch |= version != self.data_version;
                self.data_version = version;
            }
            if let Some((at, offset)) = self.fetcher.take_end() {
                return Ok(Some(GroupEvent::End { at, offset }));
            }
            if self.more_to_fetch && max > 0 {
                if self.conn.read("reading records", |sql| self.fetcher.fetch(sql, max, each))? > 0 {
                    return Ok(None);
                }
                self.more_to_fetch = false;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_called.swap(false, Ordering::AcqRel) {
                return Ok(None);
            }
            if self.file_checked.elapsed() >= FILE_CHECK {
                self.conn.shared.check_still_there()?;
                self.file_checked = Instant::now();
            }
            self.conn.shared.wait_written(writes, NAP.min(left));
        }
    }

    fn waker(&self) -> PollWaker {
        let (shared, is_called) = (Arc::clone(&self.conn.shared), Arc::clone(&self.is_called));
        PollWaker::new(move || {
            is_called.store(true, Ordering::Release);
            shared.end_waits();
        })
    }

    fn state(&mut self) -> &mut dyn GroupState {
        self
    }

    fn query_streams(&mut self) -> Result<(), BusError> {
        self.streams_due = true;
        Ok(())
    }

    fn start(&mut self, starts: &[(TopicPartition, u64)]) -> Result<(), BusError> {
        for (at, offset) in starts {
            let Some(held) = self.held.get(at) else {
                return Err(rules::not_assigned(at));
            };
            let id = held.id;
            let end = self.range(at)?.end;
            rules::check_start(at, *offset, end)?;
            self.stop_fetching(std::slice::from_ref(at));
            self.fetcher.positions.push(Position::new(Arc::clone(&at.topic), at.partition, id, *offset));
        }
        self.more_to_fetch = true;
        Ok(())
    }

    fn release(&mut self, partitions: &[TopicPartition]) -> Result<(), BusError> {
        self.stop_fetching(partitions);
        for at in partitions {
            let Some(held) = self.held.remove(at) else { continue };
            if !self.lost {
                self.unreleased.push(held.id);
            }
        }
        self.look_at_group = true;
        if self.unreleased.is_empty() {
            return Ok(());
        }
        // Leases that cannot be given back now are given back by a later poll.
        match self.give_back() {
            Err(error) if !error.is_transient() => Err(error),
            _ => Ok(()),
        }
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
        let id = self.id_of(at)?;
        self.conn.read("reading a partition", |sql| Ok(find_range(sql, id)?))
    }

    fn ranges(&mut self, partitions: &[TopicPartition]) -> Result<Vec<OffsetRange>, BusError> {
        partitions.iter().map(|at| self.range(at)).collect()
    }

    fn leave(mut self: Box<Self>) {
        self.leave_group();
    }
}

impl GroupState for EmbeddedSubscriber {
    fn get(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, BusError> {
        let ids = partitions.iter().map(|at| self.id_of(at)).collect::<Result<Vec<i64>, BusError>>()?;
        self.conn
            .snapshot("reading commits", |sql| ids.iter().map(|id| group::committed(sql, &self.group, *id)).collect())
    }

    fn compare_and_set(&mut self, commits: &[Commit]) -> Result<(), BusError> {
        rules::check_metadata(commits).map_err(BusError::Settings)?;
        let answers = self.commit_within(commits, WRITE_WAIT);
        self.answers.push_back(answers);
        Ok(())
    }

    fn compare_and_set_now(
        &mut self,
        commits: &[Commit],
        timeout: Duration,
    ) -> Vec<(TopicPartition, Result<(), CommitError>)> {
        if let Err(why) = rules::check_metadata(commits) {
            let refused = |commit: &Commit| (commit.at.clone(), Err(CommitError::Unanswered(why.clone())));
            return commits.iter().map(refused).collect();
        }
        self.commit_within(commits, timeout)
    }

    fn metadata_limit(&self) -> usize {
        rules::MAX_METADATA
    }
}

impl Drop for EmbeddedSubscriber {
    fn drop(&mut self) {
        self.leave_group();
    }
}
