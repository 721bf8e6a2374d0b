//! The thread that reads commands: without a group, from the end of the topic on, so that each instance sees each of them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Reader, Record};
use tallybus_control::{Address, Command, Guard, Identity, Refusal, Reply, is_answer};

use super::answerer::{Answered, Answerer};
use super::clock::millis_now;
use super::counts::{Counted, Counters};
use super::listener::{FailureLog, Stop};
use super::pool::{Order, Orders};
use super::presence::Presence;
use super::topics::{self, Topics};

/// How long one wait for commands lasts, and so how soon a stop is noticed.
const TURN: Duration = Duration::from_millis(200);
/// How soon a bus that does not answer is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Reading {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) topics: Topics,
    pub(super) create_topics: bool,
    pub(super) identity: Identity,
    pub(super) guard: Guard,
    /// The names that are registered.
    pub(super) names: Vec<String>,
    pub(super) to_executor: SyncSender<Command>,
    /// `None` where no task is registered.
    pub(super) pool: Option<Orders>,
    pub(super) answerer: Arc<Answerer>,
    pub(super) presence: Arc<Presence>,
    pub(super) counters: Arc<Counters>,
    pub(super) stop: Arc<Stop>,
}

impl Reading {
    /// Reads until it has to stop.
    pub(super) fn run(mut self) {
        let mut failures = FailureLog::new("reading commands");
        let mut reader = None;
        while self.stop.left().is_none() {
            match self.turn(&mut reader) {
                Ok(()) => failures.over(),
                Err(error) => {
                    failures.begin(&error);
                    if !matches!(error, BusError::Unavailable(_)) {
                        // The topic was recreated, or the client has failed: from the end on again.
                        reader = None;
                    }
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn turn(&mut self, reader: &mut Option<Box<dyn Reader>>) -> Result<(), BusError> {
        let open = match reader.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let open = reader.insert(open);
        let mut each = |record: Record<'_>| {
            self.take(&record);
            ControlFlow::Continue(())
        };
        open.poll(TURN, &mut each).map(drop)
    }

    /// Reads from the end of the topic on. From then on a command that is sent is seen, and the instance says that it is there.
    fn begin(&self) -> Result<Box<dyn Reader>, BusError> {
        let create = |options| self.create_topics.then_some(options);
        let bus = self.bus.as_ref();
        topics::ensure(bus, &self.topics.control, create(topics::control_options()))?;
        topics::ensure(bus, &self.topics.commands, create(topics::commands_options()))?;
        let ranges = bus.observer()?.offsets_of(&self.topics.commands)?;
        let ends: Vec<(u32, u64)> = (0..).zip(ranges.iter().map(|range| range.end)).collect();
        let mut reader = bus.reader()?;
        reader.assign(&self.topics.commands, &ends)?;
        self.presence.set_ready();
        Ok(reader)
    }

    fn take(&mut self, record: &Record<'_>) {
        if record.is_tombstone || record.key.is_some_and(is_answer) || !self.is_for_this(record) {
            return;
        }
        let command = match self.guard.take(record.payload, topics::signed_of(record), millis_now()) {
            Ok(accepted) => accepted.0,
            Err((refusal, command)) => {
                self.counters.count(Counted::Refused(refusal));
                // One that comes a second time has its answer already.
                if let Some(command) = command.filter(|_| refusal != Refusal::Repeated) {
                    self.answerer.answer(&on_bus(*command), Answered::refused(refusal.to_string()), None);
                }
                return;
            }
        };
        if let Err(reason) = self.answerer.check_reply(&command.reply) {
            return self.answerer.answer(&command, Answered::refused(reason), None);
        }
        match command.name.as_str() {
            "drain" => self.order(command, Order::Drain),
            "resume" => self.order(command, Order::Resume),
            name if self.names.iter().any(|known| known == name) => self.execute(command),
            _ => self.refuse_unknown(&command),
        }
    }

    /// Whether a record is a command for this instance. One that cannot be read is counted by the guard.
    fn is_for_this(&self, record: &Record<'_>) -> bool {
        /// As much of a command as says whom it is for.
        #[derive(serde::Deserialize)]
        struct Addressed {
            target: Address,
        }
        match serde_json::from_slice::<Addressed>(record.payload) {
            Ok(addressed) => addressed.target.matches(&self.identity),
            Err(_) => true,
        }
    }

    fn execute(&self, command: Command) {
        if matches!(command.reply, Reply::Callback(_)) {
            self.answerer.answer(&command, Answered::accepted(), None);
        }
        match self.to_executor.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => {
                self.counters.count(Counted::Refused(Refusal::TooMany));
                self.answerer.answer(&on_bus(command), Answered::refused("too many commands wait here"), None);
            }
        }
    }

    fn order(&self, command: Command, order: impl FnOnce(Command) -> Order) {
        self.counters.count(Counted::Command);
        let Some(pool) = &self.pool else {
            let text = "this instance is in no pool: its service has registered no task";
            return self.answerer.answer(&command, Answered::refused(text), None);
        };
        // It may take as long as the task in hand.
        self.answerer.answer(&command, Answered::accepted(), None);
        pool.send(order(command));
    }

    fn refuse_unknown(&self, command: &Command) {
        self.counters.count(Counted::Unknown);
        let names = if self.names.is_empty() { "none".to_owned() } else { self.names.join(", ") };
        let hint = match self.pool.is_some() {
            true => "; tasks are sent to the pool",
            false => "",
        };
        let text = format!("no command of this name; registered here: {names}{hint}");
        self.answerer.answer(command, Answered::refused(text), None);
    }
}

/// The command, with its answer on the bus: a refusal is no callback.
fn on_bus(command: Command) -> Command {
    Command { reply: Reply::Bus, ..command }
}
