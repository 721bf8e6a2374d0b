//! The thread that takes tasks: a member of the consumer group of the service's pool.
//!
//! A task in hand is never redone by this instance while it owns the partition, and nothing behind it is committed before it: the
//! group's offset is the task in hand, and its metadata says that it was begun ([`Mark`]). A new owner that finds it so does the task
//! again, and says so.

mod begun;
mod hand;
mod membership;
mod orders;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use serde_json::json;
use tallybus_bus::{Bus, BusError, GroupOptions, Subscriber, TopicPartition};
use tallybus_control::{Address, Command, Guard, PoolState, Refusal, Reply};

use self::begun::Mark;
use self::hand::{Hand, Happened};
pub(super) use self::orders::{Order, Orders};
use super::answerer::{Answered, Answerer};
use super::clock::millis_now;
use super::counts::{Counted, Counters};
use super::handlers::Handlers;
use super::listener::{FailureLog, Stop};
use super::presence::Presence;
use super::topics;

/// How long one wait lasts, and so how soon a stop is noticed.
const TURN: Duration = Duration::from_millis(200);
/// How soon a bus that does not answer is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// The most tasks that are fetched and wait here.
const MAX_FETCHED: usize = 64;

/// A partition that this instance owns.
struct Owned {
    stream: String,
    /// The next offset that is not committed.
    next: u64,
    /// The task that a former owner, or this one in a former ownership, has begun.
    begun: Option<u64>,
}

/// A task as it came.
struct Fetched {
    at: TopicPartition,
    offset: u64,
    payload: Vec<u8>,
    signature: Option<(String, i64, String)>,
}

/// See the module.
pub(super) struct Pool {
    bus: Arc<dyn Bus>,
    topic: Arc<str>,
    /// With how many partitions the topic is created; `None` where it is waited for.
    create: Option<u32>,
    service: String,
    guard: Guard,
    orders: Orders,
    answerer: Arc<Answerer>,
    presence: Arc<Presence>,
    counters: Arc<Counters>,
    stop: Arc<Stop>,
    owned: BTreeMap<TopicPartition, Owned>,
    fetched: VecDeque<Fetched>,
    is_paused: bool,
    /// The last task of each partition that the guard has taken: the same record is taken once more when it is delivered again.
    taken: BTreeMap<TopicPartition, (String, u64)>,
    /// A commit was not made: this instance joins again, and its partitions are assigned anew.
    must_join_again: bool,
    /// Commands that wait for this instance to have left the pool.
    draining: Vec<Command>,
    failures: FailureLog,
}

impl Pool {
    #[allow(clippy::too_many_arguments, reason = "what an instance has, handed over once")]
    pub(super) fn new(
        bus: Arc<dyn Bus>,
        topic: Arc<str>,
        create: Option<u32>,
        service: &str,
        guard: Guard,
        orders: Orders,
        answerer: Arc<Answerer>,
        presence: Arc<Presence>,
        counters: Arc<Counters>,
        stop: Arc<Stop>,
    ) -> Self {
        Self {
            bus,
            topic,
            create,
            service: service.to_owned(),
            guard,
            orders,
            answerer,
            presence,
            counters,
            stop,
            owned: BTreeMap::new(),
            fetched: VecDeque::new(),
            is_paused: false,
            taken: BTreeMap::new(),
            must_join_again: false,
            draining: Vec::new(),
            failures: FailureLog::new("taking tasks"),
        }
    }

    /// Takes tasks until it has to stop. `alive` lives as long as the thread that does them.
    pub(super) fn run(mut self, tasks: Handlers, alive: Sender<()>) {
        let mut hand = match Hand::start(tasks, self.orders.clone(), alive) {
            Ok(hand) => hand,
            Err(error) => {
                tracing::error!(%error, "the system refuses a thread for tasks: this instance takes none");
                self.presence.set_pool(PoolState::Out);
                return;
            }
        };
        let mut member: Option<Box<dyn Subscriber>> = None;
        loop {
            let is_stopping = self.stop.left().is_some();
            if self.stop.left().is_some_and(|left| left.is_zero()) || (is_stopping && hand.is_empty()) {
                break;
            }
            match self.turn(&mut member, &mut hand) {
                Ok(()) => self.failures.over(),
                Err(error) => {
                    self.failures.begin(&error);
                    if !error.is_transient() {
                        self.leave(&mut member, &mut hand);
                    }
                    self.orders.wait(RETRY);
                }
            }
        }
        self.leave(&mut member, &mut hand);
    }

    fn turn(&mut self, member: &mut Option<Box<dyn Subscriber>>, hand: &mut Hand) -> Result<(), BusError> {
        self.obey(member, hand);
        if self.presence.pool() == PoolState::Out {
            self.orders.wait(TURN);
            return Ok(());
        }
        if member.is_none() {
            *member = Some(self.join()?);
        }
        let Some(joined) = member.as_mut() else { return Ok(()) };
        self.go_on(joined.as_mut(), hand);
        if hand.is_empty() && self.presence.pool() == PoolState::In && self.stop.left().is_none() {
            self.begin_next(joined.as_mut(), hand);
        }
        if std::mem::take(&mut self.must_join_again) {
            self.leave(member, hand);
            return Err(BusError::Unavailable("a commit of a task was not made".to_owned()));
        }
        self.poll(joined.as_mut(), hand)
    }

    fn join(&mut self) -> Result<Box<dyn Subscriber>, BusError> {
        topics::ensure(self.bus.as_ref(), &self.topic, self.create.map(topics::tasks_options))?;
        self.is_paused = false;
        let options = GroupOptions::default().with_client_id(&*self.answerer.addressee);
        let member = self.bus.subscriber(&self.topic, &[self.topic.to_string()], &options)?;
        self.orders.set_waker(Some(member.waker()));
        Ok(member)
    }

    /// Leaves the group: other members take the partitions, and do a task in hand again.
    fn leave(&mut self, member: &mut Option<Box<dyn Subscriber>>, hand: &mut Hand) {
        self.orders.set_waker(None);
        self.fetched.clear();
        self.owned.clear();
        hand.disown(|_| true);
        if let Some(member) = member.take() {
            member.leave();
        }
    }

    /// Drains and resumes.
    fn obey(&mut self, member: &mut Option<Box<dyn Subscriber>>, hand: &mut Hand) {
        while let Some(order) = self.orders.next() {
            match order {
                Order::Drain(command) => {
                    if self.presence.pool() == PoolState::In {
                        self.presence.set_pool(PoolState::Draining);
                    }
                    self.draining.push(command);
                }
                Order::Resume(command) => {
                    for drain in std::mem::take(&mut self.draining) {
                        self.answerer.answer(
                            &drain,
                            Answered::of(Err("resumed before it was drained".to_owned()), false),
                            None,
                        );
                    }
                    self.presence.set_pool(PoolState::In);
                    self.answerer.answer(&command, Answered::done(json!({ "pool": "in" })), None);
                }
            }
        }
        if self.draining.is_empty() || !hand.is_empty() {
            return;
        }
        let partitions: Vec<_> = self
            .owned
            .iter()
            .map(|(at, owned)| json!({ "topic": &*at.topic, "partition": at.partition, "next": owned.next }))
            .collect();
        self.leave(member, hand);
        self.presence.set_pool(PoolState::Out);
        for drain in std::mem::take(&mut self.draining) {
            self.answerer.answer(&drain, Answered::done(json!({ "pool": "out", "partitions": &partitions })), None);
        }
    }

    /// Takes note of what has happened to the task in hand, and commits it once it is answered.
    fn go_on(&mut self, member: &mut dyn Subscriber, hand: &mut Hand) {
        while let Some(happened) = hand.next_event() {
            match happened {
                Happened::Ended { command, answered } => {
                    let done = hand.answered();
                    self.answerer.answer(&command, answered, Some(done));
                }
                Happened::Answered { at, offset } => self.commit_end(member, &at, offset),
            }
        }
    }

    fn commit_end(&mut self, member: &mut dyn Subscriber, at: &TopicPartition, offset: u64) {
        let Some(owned) = self.owned.get_mut(at) else { return };
        let mark = Mark { stream: owned.stream.clone(), begun: None };
        if begun::commit(member, at, offset + 1, &mark) {
            owned.next = offset + 1;
            owned.begun = None;
        } else {
            // The partition may be another member's: nothing more of it is done before it is assigned again.
            self.must_join_again = true;
        }
    }

    fn disown(&mut self, at: &TopicPartition) {
        self.owned.remove(at);
        self.fetched.retain(|fetched| fetched.at != *at);
    }

    fn begin_next(&mut self, member: &mut dyn Subscriber, hand: &mut Hand) {
        while let Some(fetched) = self.fetched.pop_front() {
            let Some(owned) = self.owned.get(&fetched.at) else { continue };
            let again = owned.begun == Some(fetched.offset);
            let place = (owned.stream.clone(), fetched.offset);
            let was_taken = self.taken.get(&fetched.at) == Some(&place);
            let signed = fetched.signature.as_ref().map(|(id, timestamp, signature)| tallybus_control::Signed {
                id,
                timestamp: *timestamp,
                signature,
            });
            let command = match self.guard.take(&fetched.payload, signed, millis_now()) {
                Ok(accepted) => accepted.0,
                // The same record, delivered a second time. A copy of it under another offset is refused.
                Err((Refusal::Repeated, Some(command))) if was_taken => *command,
                Err((refusal, command)) => {
                    self.refuse(member, &fetched, refusal, command.map(|command| *command));
                    continue;
                }
            };
            if let Some(reason) = self.reason_against(&command, hand) {
                self.answerer.answer(&Command { reply: Reply::Bus, ..command }, Answered::refused(reason), None);
                self.commit_end(member, &fetched.at, fetched.offset);
                continue;
            }
            let mark = Mark { stream: place.0.clone(), begun: Some(fetched.offset) };
            self.taken.insert(fetched.at.clone(), place);
            if !begun::commit(member, &fetched.at, fetched.offset, &mark) {
                self.must_join_again = true;
                return;
            }
            if let Some(owned) = self.owned.get_mut(&fetched.at) {
                (owned.next, owned.begun) = (fetched.offset, Some(fetched.offset));
            }
            self.counters.count(Counted::Task);
            if again {
                self.counters.count(Counted::Again);
            }
            if matches!(command.reply, Reply::Callback(_)) {
                self.answerer.answer(&command, Answered::accepted(), None);
            }
            hand.begin(fetched.at, fetched.offset, command, again);
            return;
        }
    }

    /// Why a task that was taken is not done.
    fn reason_against(&self, command: &Command, hand: &Hand) -> Option<String> {
        let for_the_pool = Address::Service { service: self.service.clone(), instance: None };
        if command.target != for_the_pool {
            self.counters.count(Counted::Refused(Refusal::Malformed));
            return Some(format!("a task of this pool is for {for_the_pool}"));
        }
        if !hand.knows(&command.name) {
            self.counters.count(Counted::Unknown);
            return Some(format!("no task of this name; registered here: {}", hand.names().join(", ")));
        }
        self.answerer.check_reply(&command.reply).err()
    }

    fn refuse(&mut self, member: &mut dyn Subscriber, fetched: &Fetched, refusal: Refusal, command: Option<Command>) {
        self.counters.count(Counted::Refused(refusal));
        if let Some(command) = command.filter(|_| refusal != Refusal::Repeated) {
            let command = Command { reply: Reply::Bus, ..command };
            self.answerer.answer(&command, Answered::refused(refusal.to_string()), None);
        }
        self.commit_end(member, &fetched.at, fetched.offset);
    }
}
