//! The desired states on the control topic, and which of them a worker follows.

use std::collections::BTreeMap;

use crate::signature::Signed;
use crate::{Desired, Guard, Identity, Refusal, desired_key};

/// The most targets that are remembered; the desired state of another one is refused.
const MAX_TARGETS: usize = 10_000;

/// The last desired state of each target. Of several that match a worker the newest counts, by its place on the topic: the clocks
/// of those who ask may disagree.
#[derive(Debug, Default)]
pub struct DesiredStates {
    /// By key, with the pass over the topic and the offset at which it was found.
    states: BTreeMap<String, ((u64, u64), Desired)>,
    pass: u64,
}

impl DesiredStates {
    /// The topic is read from its beginning: it was recreated, or the records that would have been read next are gone. What was
    /// known stays, as older than everything that is found now: a worker that is drained does not run because a topic was lost.
    pub fn begin_again(&mut self) {
        self.pass += 1;
    }

    /// Takes a record of the control topic with the key of a desired state.
    ///
    /// # Errors
    /// Why it is refused. What this target's desired state was before stays.
    pub fn take(
        &mut self,
        guard: &Guard,
        key: &[u8],
        payload: &[u8],
        signed: Option<Signed<'_>>,
        offset: u64,
    ) -> Result<&Desired, Refusal> {
        let desired = guard.read_desired(payload, signed)?;
        let own_key = desired_key(&desired.target);
        // What compaction keeps under a key is about the key's target.
        if own_key.as_bytes() != key {
            return Err(Refusal::Malformed);
        }
        if self.states.len() >= MAX_TARGETS && !self.states.contains_key(&own_key) {
            return Err(Refusal::TooMany);
        }
        let place = (self.pass, offset);
        self.states.insert(own_key.clone(), (place, desired));
        self.states.get(&own_key).map(|(_, desired)| desired).ok_or(Refusal::Malformed)
    }

    /// The desired state of a key was deleted. With keys set nothing is: a deletion bears no signature.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn delete(&mut self, guard: &Guard, key: &[u8]) -> Result<(), Refusal> {
        if guard.takes_signed_only() {
            return Err(Refusal::Unsigned);
        }
        self.states.retain(|own_key, _| own_key.as_bytes() != key);
        Ok(())
    }

    /// What a worker shall be doing, and who wants it; `None` where no desired state matches it: it runs.
    pub fn of(&self, worker: &Identity) -> Option<&Desired> {
        let matching = self.states.values().filter(|(_, desired)| desired.target.matches(worker));
        matching.max_by_key(|(place, _)| *place).map(|(_, desired)| desired)
    }

    /// All of them, the newest first.
    pub fn all(&self) -> Vec<&Desired> {
        let mut all: Vec<&((u64, u64), Desired)> = self.states.values().collect();
        all.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        all.into_iter().map(|(_, desired)| desired).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DesiredState, VERSION};

    fn take(states: &mut DesiredStates, target: &str, state: DesiredState, offset: u64) -> Result<(), Refusal> {
        let desired = Desired {
            version: VERSION,
            id: format!("at-{offset}"),
            issuer: "ada@desk".to_owned(),
            issued_ms: 1,
            target: target.parse().unwrap(),
            state,
            reason: String::new(),
        };
        let (key, payload) = (desired_key(&desired.target), serde_json::to_vec(&desired).unwrap());
        states.take(&Guard::new(Vec::new()), key.as_bytes(), &payload, None, offset).map(drop)
    }

    fn state(states: &DesiredStates, sink: &str, name: &str) -> Option<DesiredState> {
        let kind = "sqlite".to_owned();
        let worker = Identity::Worker { sink: sink.to_owned(), kind, id: "7f".to_owned(), name: name.to_owned() };
        states.of(&worker).map(|desired| desired.state)
    }

    #[test]
    fn of_several_that_match_the_newest_counts_and_without_one_a_worker_runs() {
        let mut states = DesiredStates::default();
        assert_eq!(state(&states, "a", "w"), None);
        take(&mut states, "sink/a", DesiredState::Drained, 3).unwrap();
        assert_eq!((state(&states, "a", "w"), state(&states, "b", "w")), (Some(DesiredState::Drained), None));
        take(&mut states, "worker/w", DesiredState::Running, 4).unwrap();
        assert_eq!(state(&states, "a", "w"), Some(DesiredState::Running));
        assert_eq!(state(&states, "a", "other"), Some(DesiredState::Drained));
        take(&mut states, "sink/a", DesiredState::Paused, 5).unwrap();
        assert_eq!(state(&states, "a", "w"), Some(DesiredState::Paused));
        assert_eq!(states.all().len(), 2);
    }

    #[test]
    fn a_topic_that_was_lost_resumes_nobody_and_what_is_found_then_is_newer() {
        let mut states = DesiredStates::default();
        take(&mut states, "sink/a", DesiredState::Drained, 100).unwrap();
        states.begin_again();
        assert_eq!(state(&states, "a", "w"), Some(DesiredState::Drained));
        take(&mut states, "all", DesiredState::Running, 0).unwrap();
        assert_eq!(state(&states, "a", "w"), Some(DesiredState::Running));
    }

    #[test]
    fn a_record_under_another_targets_key_is_refused_and_an_unsigned_deletion_too_where_keys_are_set() {
        let mut states = DesiredStates::default();
        take(&mut states, "sink/a", DesiredState::Drained, 1).unwrap();
        let payload = serde_json::to_vec(states.all()[0]).unwrap();
        let open = Guard::new(Vec::new());
        assert_eq!(states.take(&open, b"desired/all", &payload, None, 2), Err(Refusal::Malformed));
        let key = crate::Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(states.delete(&Guard::new(vec![key]), b"desired/sink/a"), Err(Refusal::Unsigned));
        assert_eq!(state(&states, "a", "w"), Some(DesiredState::Drained));
        states.delete(&open, b"desired/sink/a").unwrap();
        assert_eq!(state(&states, "a", "w"), None);
    }
}
