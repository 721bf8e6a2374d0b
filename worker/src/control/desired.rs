//! The desired states on the control topic, read from its beginning on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Record};
use tallybus_control::{DesiredStates, Guard, Key, Refusal, is_desired};

use super::topic_reader::{Found, From, Headers, TopicReader};

/// Reads the desired states; skips the heartbeats beside them.
pub struct DesiredReader {
    topic: TopicReader,
    guard: Guard,
    states: DesiredStates,
    is_known: bool,
    refused: BTreeMap<Refusal, u64>,
}

impl DesiredReader {
    /// Takes what one of these keys has signed; without any, what is there.
    pub fn new(bus: Arc<dyn Bus>, topic: &str, keys: Vec<Key>) -> Self {
        Self {
            topic: TopicReader::new(bus, topic, From::Beginning),
            guard: Guard::new(keys),
            states: DesiredStates::default(),
            is_known: false,
            refused: BTreeMap::new(),
        }
    }

    /// Reads what has come, for this time at most. Returns whether everything was read that is there: only then does
    /// [`DesiredReader::states`] show what is wanted. A topic that certainly does not exist holds nothing.
    ///
    /// # Errors
    /// The bus did not answer, or refuses access.
    pub fn read(&mut self, at_most: Duration) -> Result<bool, BusError> {
        let (guard, states, refused) = (&self.guard, &mut self.states, &mut self.refused);
        let mut each = |record: &Record<'_>| {
            if let Some(key) = record.key.filter(|key| is_desired(key))
                && let Err(refusal) = take(guard, states, key, record)
            {
                *refused.entry(refusal).or_default() += 1;
            }
        };
        match self.topic.read(at_most, &mut each)? {
            Found::End => self.is_known = true,
            Found::NoTopic if !self.is_known => self.is_known = true,
            // What was known before stays, and what is on a new topic is newer.
            Found::NoTopic => {}
            Found::More => return Ok(false),
            Found::Restart => {
                self.states.begin_again();
                return Ok(false);
            }
        }
        Ok(self.is_known)
    }

    /// What is wanted, as far as it was read.
    pub fn states(&self) -> &DesiredStates {
        &self.states
    }

    /// Records that were refused since the last call, by reason.
    pub fn take_refused(&mut self) -> BTreeMap<Refusal, u64> {
        std::mem::take(&mut self.refused)
    }
}

fn take(guard: &Guard, states: &mut DesiredStates, key: &[u8], record: &Record<'_>) -> Result<(), Refusal> {
    if record.is_tombstone {
        return states.delete(guard, key);
    }
    if record.unreadable.is_some() {
        return Err(Refusal::Malformed);
    }
    let headers = Headers::of(record);
    states.take(guard, key, record.payload, headers.as_ref().map(Headers::signed), record.offset).map(drop)
}
