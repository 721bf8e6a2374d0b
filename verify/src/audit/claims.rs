use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};

use super::report::WrongDeadLetter;

/// Where a record is, and which of its events is meant; `None` for the record as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct At {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) index: Option<u32>,
}

/// What a dead letter says about its coordinate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// The record could not be decoded. This many bytes of it are in the dead letter, with this hash.
    Record { bytes: usize, hash: u64, is_cut: bool },
    /// One line of the record could not be decoded: an event that it may be now was not written.
    Line,
    /// A point was refused: the sum of so many events of a series in a window, from the coordinate on.
    Event { events: u32, series: u32, window: i64, value: u64 },
}

/// One event of a record, or a replayed point, as the sink takes it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) index: u32,
    /// The series' number; `None` when the sink's selection excludes it.
    pub(super) series: Option<u32>,
    pub(super) window: i64,
    pub(super) value: u64,
    /// How many events it stands for: more than one for a replayed point.
    pub(super) stands_for: u32,
}

/// The dead letters of a sink. Each claims that the sink did not write something of the bus; a claim explains a
/// difference only after it was checked against what the bus has at its coordinate.
#[derive(Debug, Default)]
pub(super) struct Claims {
    all: Vec<Claim>,
    /// By topic, then partition and offset.
    places: HashMap<String, HashMap<(u32, u64), Vec<usize>>>,
    /// Points of several events that are being summed, by partition, series and window.
    open: HashMap<(u32, u32, i64), Open>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Claim {
    at: At,
    content: Content,
    is_refused: bool,
    /// It is in the replay topic and settled there: it is no dead letter any more.
    is_answered: bool,
    /// It was written.
    is_replayed: bool,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Unseen,
    Open,
    Matched,
    Wrong(String),
}

#[derive(Debug)]
struct Open {
    claim: usize,
    left: u32,
    sum: u128,
}

/// What the checked claims come to.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Refused points that are nowhere else: partition's topic, partition, offset, series, window, value.
    pub(super) refused: Vec<Refused>,
    /// Dead letters, including undecodable records, that were not replayed.
    pub(super) outstanding: u64,
    pub(super) wrong: Vec<WrongDeadLetter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) at: At,
    pub(super) series: u32,
    pub(super) window: i64,
    pub(super) value: u64,
}

/// No sink takes a larger value: such an event is a dead letter of its own and part of no point.
const MAX_VALUE: u64 = i64::MAX.unsigned_abs();

impl Claims {
    /// The content of a dead letter of an undecodable record.
    pub(super) fn record_content(&self, payload: &[u8], is_cut: bool) -> Content {
        Content::Record { bytes: payload.len(), hash: self.hasher.hash_one(payload), is_cut }
    }

    /// Adds a dead letter; each coordinate comes once.
    pub(super) fn refuse(&mut self, at: At, content: Content) {
        let claim = self.find_or_add(at, content);
        self.all[claim].is_refused = true;
    }

    /// Adds a dead letter that was replayed and settled; `is_written` unless it could not be decoded.
    pub(super) fn replay(&mut self, at: At, content: Content, is_written: bool) {
        let number = self.find_or_add(at, content);
        let claim = &mut self.all[number];
        claim.is_answered = true;
        if claim.content == content {
            claim.is_replayed = is_written;
        } else {
            claim.state = State::Wrong("what was replayed differs from the dead letter".to_owned());
        }
    }

    fn find_or_add(&mut self, at: At, content: Content) -> usize {
        let places = self.places.entry(at.topic.clone()).or_default();
        let here = places.entry((at.partition, at.offset)).or_default();
        if let Some(known) = here.iter().copied().find(|&claim| self.all[claim].at.index == at.index) {
            return known;
        }
        here.push(self.all.len());
        let (is_refused, is_answered, is_replayed) = (false, false, false);
        self.all.push(Claim { at, content, is_refused, is_answered, is_replayed, state: State::Unseen });
        self.all.len() - 1
    }

    /// Whether anything of this topic is claimed.
    pub(super) fn concern(&self, topic: &str) -> bool {
        self.places.contains_key(topic)
    }

    /// Checks the claim that a record could not be decoded. Returns whether it is right, and the record was not replayed:
    /// then the sink wrote none of its events.
    pub(super) fn check_record(&mut self, topic: &str, partition: u32, offset: u64, payload: &[u8]) -> bool {
        let Some(number) = self.claim_at(topic, partition, offset, None) else { return false };
        let (content, hasher) = (self.all[number].content, &self.hasher);
        let Content::Record { bytes, hash, is_cut } = content else { return false };
        let is_same = (is_cut || bytes == payload.len())
            && payload.get(..bytes).is_some_and(|payload| hasher.hash_one(payload) == hash);
        let claim = &mut self.all[number];
        if !is_same {
            claim.find_wrong(|| "the record there has other bytes".to_owned());
        } else if claim.state == State::Unseen {
            claim.state = State::Matched;
        }
        claim.state == State::Matched && claim.is_refused && !claim.is_replayed
    }

    /// Checks the claims about an event. Events come in the order of their partition. Returns whether the sink could not
    /// decode the event when it read the record, and it was not replayed.
    pub(super) fn check_event(&mut self, topic: &str, event: &Event) -> bool {
        if let Some(number) = self.claim_at(topic, event.partition, event.offset, Some(event.index)) {
            self.begin(number, event);
            let claim = &self.all[number];
            return claim.content == Content::Line && claim.is_refused && !claim.is_replayed;
        }
        self.add_to_open(event);
        false
    }

    /// Adds an event to the point that it is part of, if that is claimed.
    fn add_to_open(&mut self, event: &Event) {
        if self.open.is_empty() || event.value > MAX_VALUE {
            return;
        }
        let Some(series) = event.series else { return };
        let key = (event.partition, series, event.window);
        let Some(open) = self.open.get_mut(&key) else { return };
        open.sum += u128::from(event.value);
        open.left = open.left.saturating_sub(event.stands_for);
        if open.left == 0 {
            let (claim, sum) = (open.claim, open.sum);
            self.open.remove(&key);
            self.all[claim].end(sum);
        }
    }

    fn begin(&mut self, number: usize, event: &Event) {
        let claim = &mut self.all[number];
        let Content::Event { events, series, window, .. } = claim.content else { return };
        if claim.state != State::Unseen {
            return;
        }
        let Some(key) = event.series.filter(|found| *found == series).map(|series| (event.partition, series, window))
        else {
            claim.find_wrong(|| "the event there is of another series".to_owned());
            return;
        };
        if event.window != window {
            claim.find_wrong(|| "the event there is in another window".to_owned());
            return;
        }
        if events <= event.stands_for {
            claim.end(u128::from(event.value));
            return;
        }
        match self.open.entry(key) {
            Entry::Occupied(_) => {
                claim.find_wrong(|| "the event there is part of another dead letter".to_owned());
            }
            Entry::Vacant(vacant) => {
                claim.state = State::Open;
                let left = events - event.stands_for;
                vacant.insert(Open { claim: number, left, sum: u128::from(event.value) });
            }
        }
    }

    fn claim_at(&self, topic: &str, partition: u32, offset: u64, index: Option<u32>) -> Option<usize> {
        let here = self.places.get(topic)?.get(&(partition, offset))?;
        here.iter().copied().find(|&claim| self.all[claim].at.index == index)
    }

    /// Ends a topic: what its events did not complete is wrong.
    pub(super) fn end_topic(&mut self) {
        for (_, open) in self.open.drain() {
            let sum = open.sum;
            self.all[open.claim].find_wrong(|| format!("the bus has fewer events of it, which sum to {sum}"));
        }
    }

    /// The result. `is_gone`: whether the bus no longer has the record of a coordinate. `chooses`: whether a series is compared;
    /// what is refused of others is left out.
    pub(super) fn finish(self, is_gone: &dyn Fn(&At) -> bool, chooses: &dyn Fn(u32) -> bool) -> Checked {
        let mut checked = Checked::default();
        for claim in self.all {
            if let Content::Event { series, .. } = claim.content
                && !chooses(series)
            {
                continue;
            }
            if claim.is_refused && !claim.is_answered {
                checked.outstanding += 1;
            }
            let reason = match claim.state {
                State::Matched => {
                    if let Content::Event { series, window, value, .. } = claim.content
                        && claim.is_refused
                        && !claim.is_replayed
                    {
                        checked.refused.push(Refused { at: claim.at, series, window, value });
                    }
                    continue;
                }
                // Nothing of it is compared either; nor of a line that is still no event.
                State::Unseen if claim.content == Content::Line || is_gone(&claim.at) => continue,
                State::Unseen | State::Open => "the bus has no such event".to_owned(),
                State::Wrong(reason) => reason,
            };
            let At { topic, partition, offset, index } = claim.at;
            checked.wrong.push(WrongDeadLetter { topic, partition, offset, index, reason });
        }
        checked
    }
}

impl Claim {
    /// All events of the point have come.
    fn end(&mut self, sum: u128) {
        let Content::Event { value, .. } = self.content else { return };
        if sum == u128::from(value) {
            self.state = State::Matched;
        } else {
            self.find_wrong(|| format!("its value is {value}, and the bus has {sum}"));
        }
    }

    fn find_wrong(&mut self, reason: impl FnOnce() -> String) {
        self.state = State::Wrong(reason());
    }
}

#[cfg(test)]
mod tests;
