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

    /// Checks the claims about an event. Events come in the order of their partition.
    pub(super) fn check_event(&mut self, topic: &str, event: &Event) {
        if let Some(claim) = self.claim_at(topic, event.partition, event.offset, Some(event.index)) {
            self.begin(claim, event);
            return;
        }
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

    /// The result. `is_gone`: whether the bus no longer has the record of a coordinate.
    pub(super) fn finish(self, is_gone: &dyn Fn(&At) -> bool) -> Checked {
        let mut checked = Checked::default();
        for claim in self.all {
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
                // Nothing of it is compared either.
                State::Unseen if is_gone(&claim.at) => continue,
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
mod tests {
    use super::*;

    fn at(offset: u64, index: Option<u32>) -> At {
        At { topic: "t".to_owned(), partition: 0, offset, index }
    }

    fn point(events: u32, value: u64) -> Content {
        Content::Event { events, series: 1, window: 10, value }
    }

    fn event(offset: u64, value: u64) -> Event {
        Event { partition: 0, offset, index: 0, series: Some(1), window: 10, value, stands_for: 1 }
    }

    /// The values that explain differences, and the reasons why others are wrong.
    fn outcome(claims: &[(At, Content)], events: &[Event]) -> (Vec<u64>, Vec<String>) {
        let mut all = Claims::default();
        for (at, content) in claims {
            all.refuse(at.clone(), *content);
        }
        for event in events {
            all.check_event("t", event);
        }
        all.end_topic();
        let checked = all.finish(&|_| false);
        assert_eq!(checked.outstanding, claims.len() as u64);
        let values = checked.refused.iter().map(|refused| refused.value).collect();
        (values, checked.wrong.into_iter().map(|wrong| wrong.reason).collect())
    }

    #[test]
    fn a_dead_letter_of_one_event_must_be_that_event() {
        let one = |content| [(at(4, Some(0)), content)];
        assert_eq!(outcome(&one(point(1, 7)), &[event(4, 7)]), (vec![7], vec![]));
        for (content, event, reason) in [
            (point(1, 8), event(4, 7), "its value is 8, and the bus has 7"),
            (point(1, 6), event(4, 7), "its value is 6, and the bus has 7"),
            (point(1, 7), Event { series: Some(2), ..event(4, 7) }, "another series"),
            (point(1, 7), Event { series: None, ..event(4, 7) }, "another series"),
            (point(1, 7), Event { window: 11, ..event(4, 7) }, "another window"),
            (point(1, 7), event(5, 7), "no such event"),
            (point(1, 7), Event { index: 1, ..event(4, 7) }, "no such event"),
            (point(1, 7), Event { partition: 1, ..event(4, 7) }, "no such event"),
        ] {
            let (values, reasons) = outcome(&one(content), &[event]);
            assert!(values.is_empty() && reasons.len() == 1 && reasons[0].contains(reason), "{reasons:?}: {reason}");
        }
    }

    #[test]
    fn a_dead_letter_of_a_point_must_be_the_sum_of_its_events() {
        let events = [
            event(4, 7),
            Event { series: Some(2), ..event(5, 100) },
            Event { window: 11, ..event(5, 100) },
            Event { partition: 1, ..event(5, 100) },
            Event { value: u64::MAX, ..event(6, 1) },
            event(7, 1),
            event(8, 2),
            event(9, 4),
        ];
        let of = |events: u32, value| [(at(4, Some(0)), point(events, value))];
        assert_eq!(outcome(&of(2, 8), &events), (vec![8], vec![]));
        assert_eq!(outcome(&of(4, 14), &events), (vec![14], vec![]));
        for (count, value) in [(3, 8), (2, 10), (2, 7), (5, 14)] {
            let (values, reasons) = outcome(&of(count, value), &events);
            assert!(values.is_empty() && reasons.len() == 1, "{count} {value}: {reasons:?}");
        }
        // No event is explained twice.
        let both = [(at(4, Some(0)), point(3, 10)), (at(7, Some(0)), point(2, 3))];
        let (values, reasons) = outcome(&both, &events);
        assert_eq!(values.len() + reasons.len(), 2);
        assert!(values.len() < 2, "{values:?}");
    }

    #[test]
    fn a_point_whose_events_exceed_its_own_letters_is_summed_without_them() {
        // The event at 5 did not fit into the point: it is a dead letter of its own.
        let claims = [(at(4, Some(0)), point(2, 3)), (at(5, Some(0)), point(1, 90))];
        let (mut values, reasons) = outcome(&claims, &[event(4, 1), event(5, 90), event(6, 2)]);
        values.sort_unstable();
        assert_eq!((values, reasons), (vec![3, 90], vec![]));
    }

    #[test]
    fn an_undecodable_record_must_have_the_bytes_of_its_dead_letter() {
        let check = |letter: &[u8], is_cut, record: &[u8]| {
            let mut claims = Claims::default();
            let content = claims.record_content(letter, is_cut);
            claims.refuse(at(4, None), content);
            let is_dead = claims.check_record("t", 0, 4, record);
            (is_dead, claims.finish(&|_| false).wrong.len())
        };
        assert_eq!(check(b"garbage", false, b"garbage"), (true, 0));
        assert_eq!(check(b"garbage", false, b"garbage and more"), (false, 1));
        assert_eq!(check(b"garbage", true, b"garbage and more"), (true, 0));
        assert_eq!(check(b"garbage", true, b"gar"), (false, 1));
        assert_eq!(check(b"garbage", false, b"GARBAGE"), (false, 1));
    }

    #[test]
    fn what_was_replayed_is_no_dead_letter_and_must_be_the_same() {
        let replayed = |content, is_written| {
            let mut claims = Claims::default();
            claims.refuse(at(4, Some(0)), point(1, 7));
            claims.replay(at(4, Some(0)), content, is_written);
            claims.check_event("t", &event(4, 7));
            let checked = claims.finish(&|_| false);
            (checked.refused.len(), checked.outstanding, checked.wrong.len())
        };
        assert_eq!(replayed(point(1, 7), true), (0, 0, 0));
        assert_eq!(replayed(point(1, 7), false), (1, 0, 0));
        assert_eq!(replayed(point(1, 9), true), (0, 0, 1));
        // A replayed one whose dead letter is gone.
        let mut claims = Claims::default();
        claims.replay(at(4, Some(0)), point(1, 7), true);
        claims.check_event("t", &event(4, 7));
        let checked = claims.finish(&|_| false);
        assert_eq!((checked.refused.len(), checked.outstanding, checked.wrong.len()), (0, 0, 0));
    }

    #[test]
    fn a_record_that_retention_deleted_is_neither_compared_nor_wrong() {
        let mut claims = Claims::default();
        claims.refuse(at(4, Some(0)), point(1, 7));
        let checked = claims.finish(&|at| at.offset < 5);
        assert_eq!((checked.refused.len(), checked.outstanding, checked.wrong.len()), (0, 1, 0));
    }
}
