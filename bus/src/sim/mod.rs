//! A bus in memory and virtual time, for simulations: it fails on command, and what it does follows from its seed and its
//! callers.
//!
//! It starts no thread, opens nothing and never sleeps: a wait lets the time of its [`Time`] pass. Its faults are methods
//! of [`SimBus`]; without them it keeps the contract of buses.
//!
//! Each [`SimBus`] is the connection of one process ([`SimBus::connect`]). A process that is silenced, frozen or killed
//! sends no heartbeats, and its members are evicted once their session has timed out.

mod faults;
mod fetch;
mod group;
mod observer;
mod publisher;
mod reader;
mod state;
mod subscriber;
mod time;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::faults::{CommitFault, CommitMade, Offsets, Ownership};
use self::observer::SimObserver;
use self::publisher::SimPublisher;
use self::reader::SimReader;
use self::state::{ClientId, State};
use self::subscriber::SimSubscriber;
pub use self::time::{ManualTime, Time};
use crate::{
    Bus, BusError, Committed, GroupOptions, Observer, Publisher, Reader, Subscriber, TopicOptions, TopicPartition,
    rules,
};

struct Shared {
    time: Arc<dyn Time>,
    state: Mutex<State>,
}

/// One process's connection to a bus in memory.
pub struct SimBus {
    shared: Arc<Shared>,
    client: ClientId,
}

impl fmt::Debug for SimBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBus").field("client", &self.client).finish_non_exhaustive()
    }
}

impl SimBus {
    /// An empty bus. The seed determines where it has a choice.
    pub fn new(time: Arc<dyn Time>, seed: u64) -> Self {
        let mut state = State::new(seed);
        let client = state.add_client();
        Self { shared: Arc::new(Shared { time, state: Mutex::new(state) }), client }
    }

    /// The connection of another process to the same bus.
    #[must_use]
    pub fn connect(&self) -> Self {
        let client = self.state().add_client();
        Self { shared: Arc::clone(&self.shared), client }
    }

    /// The same process's connection, for its publishers, subscribers and readers.
    fn share(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), client: self.client }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that panicked in a callback does not hold the lock: the state is consistent.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, when the bus answers this process.
    fn ask(&self) -> Result<MutexGuard<'_, State>, BusError> {
        let state = self.state();
        if state.answers(self.client) {
            return Ok(state);
        }
        Err(BusError::Unavailable("the simulated bus is unavailable".to_owned()))
    }
}

impl Bus for SimBus {
    fn describe(&self) -> String {
        "simulated bus".to_owned()
    }

    fn forgets_groups(&self) -> bool {
        self.state().ownership == Ownership::Unchecked
    }

    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<bool, BusError> {
        let partitions = options.partitions;
        rules::check_partitions(topic, partitions)?;
        let mut state = self.ask()?;
        match state.count(topic) {
            Some(actual) if actual == partitions => Ok(false),
            Some(actual) => Err(BusError::PartitionCount { topic: topic.to_owned(), wanted: partitions, actual }),
            None => {
                state.create(topic, partitions)?;
                Ok(true)
            }
        }
    }

    fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
        Ok(Box::new(SimObserver::new(self.share())))
    }

    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        Ok(Box::new(SimPublisher::new(self.share())))
    }

    fn subscriber(
        &self,
        group: &str,
        topics: &[String],
        options: &GroupOptions,
    ) -> Result<Box<dyn Subscriber>, BusError> {
        Ok(Box::new(SimSubscriber::join(self.share(), group, topics, options)?))
    }

    fn reset_group(&self, group: &str, to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        let now = self.shared.time.now();
        let silence = self.ask()?.silence_left(group, now);
        // A member whose process is gone is waited for, as with other buses.
        self.shared.time.pass(silence);
        let now = self.shared.time.now();
        let mut state = self.ask()?;
        state.evict_silent(now);
        state.reset(group, to)
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        Ok(Box::new(SimReader::new(self.share())))
    }
}
