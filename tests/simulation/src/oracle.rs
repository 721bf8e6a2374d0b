//! What has to hold at every step, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tallybus_bus::sim::{CommitMade, SimBus};
use tallybus_bus::{Committed, StreamId, TopicPartition};
use tallybus_sdk::SealMetadata;
use tallybus_worker::SettledPartition;

use crate::events::{Event, Events, Expected, Place, name_in};
use crate::sinks::{Backend, Guarantee, SinkSpec};

/// The seals of one partition by one group: a chain without a fork.
#[derive(Default)]
struct Chain {
    /// `None` before the first commit, and after another program changed the group's offset.
    settled: Option<u64>,
    is_disturbed: bool,
    sealed_end: u64,
    /// Every batch that was ever sealed: first offset and end.
    batches: BTreeMap<u64, u64>,
}

#[derive(Default)]
pub(crate) struct Oracle {
    chains: BTreeMap<(Arc<str>, TopicPartition, StreamId), Chain>,
    /// The names in each sink's dead letters, and how many of them were read.
    dead: BTreeMap<String, (u64, BTreeSet<String>)>,
    /// What backends held before an earlier copy replaced them.
    rolled_back: BTreeSet<(usize, String)>,
    /// The backends that an earlier copy replaced.
    restored: BTreeSet<usize>,
    /// The processes that have said that they are drained, and were not resumed.
    drained: BTreeSet<u64>,
    /// How often one has said so.
    pub(crate) drains: u64,
    violations: Vec<String>,
}

/// What the halts of a sink say of a partition whose destination lost some of it.
pub(crate) enum Named {
    It,
    /// That of another partition.
    Another,
    None,
}

/// A worker that says that it is drained.
pub(crate) struct Drained {
    /// Its process on the bus.
    pub(crate) process: u64,
    /// The number of its sink.
    pub(crate) sink: usize,
    pub(crate) said: Vec<SettledPartition>,
    /// It says so for the first time.
    pub(crate) is_first: bool,
    /// There is no other worker of its sink.
    pub(crate) is_alone: bool,
}

/// The world as the oracle sees it.
pub(crate) struct View<'a> {
    pub(crate) bus: &'a SimBus,
    pub(crate) events: &'a Events,
    pub(crate) sinks: &'a [SinkSpec],
    pub(crate) backends: &'a [Backend],
}

impl Oracle {
    /// The violations that were found so far.
    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }

    pub(crate) fn violated(&mut self, violation: String) {
        self.violations.push(violation);
    }

    /// An earlier copy replaced a backend, which held these events before.
    pub(crate) fn roll_back(&mut self, backend: usize, names: Vec<String>) {
        self.restored.insert(backend);
        self.rolled_back.extend(names.into_iter().map(|name| (backend, name)));
    }

    /// After every step: what was committed meanwhile, what the backends have noticed, and which workers say that they are
    /// drained. Returns the commits.
    pub(crate) fn look(&mut self, view: &View<'_>, drained: &[Drained]) -> Vec<CommitMade> {
        let commits = view.bus.take_commits();
        for made in &commits {
            self.committed(view, made);
            if made.process.is_some_and(|process| self.drained.contains(&process)) {
                self.violated(format!("{} committed {} after it had said that it is drained", made.group, made.at));
            }
        }
        // Those that were resumed are members again from the next step on.
        self.drained = drained.iter().map(|one| one.process).collect();
        drained.iter().filter(|one| one.is_first).for_each(|one| self.said_drained(view, one));
        for backend in view.backends {
            let noticed = backend.fake.violations();
            self.violations.extend(noticed.into_iter().take(1).map(|text| format!("a backend noticed: {text}")));
        }
        commits
    }

    /// What a worker says is what the group holds, and nothing is sealed in it. Without another worker nothing is sealed at all.
    fn said_drained(&mut self, view: &View<'_>, drained: &Drained) {
        self.drains += 1;
        let group = view.sinks[drained.sink].group();
        let ends = |held: &Option<Committed>| {
            let seal = held.as_ref().and_then(|held| SealMetadata::parse(held.offset, &held.metadata).ok());
            seal.map(|seal| seal.ends).unwrap_or_default()
        };
        for SettledPartition { partition, offset } in &drained.said {
            let number = partition.rsplit_once('/').and_then(|(topic, number)| Some((topic, number.parse().ok()?)));
            let Some((topic, number)) = number else { return self.violated(format!("{partition} is no partition")) };
            let held = view.bus.held(&group, &TopicPartition::new(topic, number));
            if held.as_ref().map(|held| held.offset) != *offset || !ends(&held).is_empty() {
                self.violated(format!(
                    "{group} said that it is drained, {partition} at {offset:?}; the group holds {held:?}"
                ));
            }
        }
        let others = view.bus.partitions_held(&group).into_iter().filter(|_| drained.is_alone);
        for at in others {
            let held = view.bus.held(&group, &at);
            if !ends(&held).is_empty() {
                self.violated(format!("the only worker of {group} said that it is drained; {at} is sealed: {held:?}"));
            }
        }
    }

    fn committed(&mut self, view: &View<'_>, made: &CommitMade) {
        let CommitMade { group, at, .. } = made;
        let Some(sink) = view.sinks.iter().find(|sink| *sink.group() == **group) else {
            return self.violated(format!("a commit to the unknown group {group}"));
        };
        if made.member.is_none() {
            let of_group = |(of, place, _): &(Arc<str>, TopicPartition, StreamId)| of == group && place == at;
            let disturbed = self.chains.iter_mut().filter(|(key, _)| of_group(key));
            disturbed.for_each(|(_, chain)| *chain = Chain { is_disturbed: true, ..Chain::default() });
            return;
        }
        let Some(after) = &made.after else { return self.violated(format!("a member deleted the offset of {at}")) };
        if !sink.topics.iter().any(|topic| **topic == *at.topic) {
            return self.violated(format!("{group} committed {at}, which is not its topic"));
        }
        let seal = match SealMetadata::parse(after.offset, &after.metadata) {
            Ok(SealMetadata { stream: Some(stream), ends, .. }) => (stream, ends),
            other => return self.violated(format!("{group} committed metadata without a stream: {other:?}")),
        };
        self.sealed(view, sink, made, after.offset, seal);
    }

    /// A commit of a worker: it settles up to `offset`, and seals up to each of `ends`.
    fn sealed(
        &mut self,
        view: &View<'_>,
        sink: &SinkSpec,
        made: &CommitMade,
        offset: u64,
        (stream, ends): (StreamId, Vec<u64>),
    ) {
        let (group, at) = (&made.group, &made.at);
        let place = (at.clone(), stream.clone());
        let mut chain = self.chains.remove(&(group.clone(), at.clone(), stream.clone())).unwrap_or_default();
        let mut found = Vec::new();
        if chain.settled.is_some_and(|settled| offset < settled) {
            found.push(format!("{group} went back in {at} from {:?} to {offset}", chain.settled));
        }
        let mut first = offset;
        for end in &ends {
            let earlier = chain.batches.range(..end).next_back().map(|(first, end)| (*first, *end));
            match earlier {
                Some(earlier) if earlier == (first, *end) => {}
                Some(earlier) if earlier.1 > first => {
                    found.push(format!("the chain of seals forks: {group} sealed {at}/{first}-{end} over {earlier:?}"));
                }
                _ => {
                    chain.batches.insert(first, *end);
                }
            }
            first = *end;
        }
        if first < chain.sealed_end {
            found.push(format!("{group} unsealed {at}: {first}, it was sealed up to {}", chain.sealed_end));
        }
        if !chain.is_disturbed || chain.settled.is_some() {
            let passed = chain.settled.unwrap_or(0).min(offset)..offset;
            for (passed, event) in view.events.within(&place, passed) {
                let is_start = chain.settled.is_none() && view.events.is_gone(&place, passed);
                if !is_start && !self.is_safe(view, sink, event) {
                    found.push(format!(
                        "{group} passed {at}@{passed}: {} is neither written nor a dead letter",
                        event.name
                    ));
                }
            }
        }
        chain.settled = Some(offset);
        chain.sealed_end = chain.sealed_end.max(first);
        self.chains.insert((group.clone(), at.clone(), stream), chain);
        self.violations.extend(found);
    }

    /// Whether an event is where it should be.
    fn is_safe(&mut self, view: &View<'_>, sink: &SinkSpec, event: &Event) -> bool {
        match event.expected {
            Expected::Written => {
                let is_rolled_back = || self.rolled_back.contains(&(sink.backend, event.name.clone()));
                view.backends[sink.backend].fake.total_of(&event.series()) > 0
                    || is_rolled_back()
                    || view.backends[sink.backend].has_refused(&event.name)
                        && self.dead_letters(view.bus, sink).contains(&event.name)
            }
            Expected::DeadLetter => self.dead_letters(view.bus, sink).contains(&event.name),
        }
    }

    /// Whether a destination with a ledger counted this event before an earlier copy replaced it, and has not since.
    fn is_lost_by_a_ledger(&mut self, view: &View<'_>, sink: &SinkSpec, event: &Event) -> bool {
        let backend = &view.backends[sink.backend];
        let was_counted = self.rolled_back.contains(&(sink.backend, event.name.clone()));
        // Written again, it may be refused, and is a dead letter then.
        let is_dead = backend.has_refused(&event.name) && self.dead_letters(view.bus, sink).contains(&event.name);
        let is_counted = backend.fake.total_of(&event.series()) > 0;
        backend.guarantee == Guarantee::Ledger && was_counted && !is_counted && !is_dead
    }

    /// Whether an earlier copy replaced this backend.
    pub(crate) fn is_restored(&self, backend: usize) -> bool {
        self.restored.contains(&backend)
    }

    fn dead_letters(&mut self, bus: &SimBus, sink: &SinkSpec) -> &BTreeSet<String> {
        let topic = sink.dead_letter_topic();
        let (read, names) = self.dead.entry(topic.clone()).or_default();
        for payload in bus.payloads(&TopicPartition::new(&topic, 0), *read) {
            *read += 1;
            names.extend(name_in(&payload));
        }
        names
    }

    /// At the end, for every event and sink: nothing is counted twice, and what was settled is there. `is_over` says whether
    /// a sink need not have come to the end of this partition; `named`, whether a halt says that the destination lost some of
    /// it.
    pub(crate) fn end(
        &mut self,
        view: &View<'_>,
        is_over: &dyn Fn(&SinkSpec, &Place) -> bool,
        named: &dyn Fn(&SinkSpec, &TopicPartition) -> Named,
    ) {
        let mut found = Vec::new();
        for (place, offset, event) in view.events.all() {
            let (at, _) = place;
            for (number, backend) in view.backends.iter().enumerate() {
                let total = backend.fake.total_of(&event.series());
                let is_wanted = event.expected == Expected::Written
                    && view
                        .sinks
                        .iter()
                        .any(|sink| sink.backend == number && sink.topics.iter().any(|topic| **topic == *at.topic));
                let most = match backend.guarantee {
                    _ if !is_wanted => 0,
                    Guarantee::AtLeastOnce => u64::MAX,
                    Guarantee::Ledger | Guarantee::ByKey | Guarantee::Unclaimed => 1,
                };
                let writer = view.sinks.iter().find(|sink| sink.backend == number);
                let is_once = most == 1 && !self.restored.contains(&number);
                let is_dead = writer.is_some_and(|sink| self.dead_letters(view.bus, sink).contains(&event.name));
                if is_once && total == 1 && is_dead {
                    found.push(format!(
                        "{} of {at}@{offset} is a dead letter, and backend {number} counts it",
                        event.name
                    ));
                }
                if total > most {
                    found.push(format!("backend {number} counts {} of {at}@{offset} {total} times", event.name));
                }
            }
            for sink in view.sinks.iter().filter(|sink| sink.topics.iter().any(|topic| **topic == *at.topic)) {
                if !is_over(sink, place) && !view.events.is_gone(place, offset) && !self.is_safe(view, sink, event) {
                    found.push(format!("{}: {} of {at}@{offset} was never written", sink.name, event.name));
                }
                // A ledger shows that its destination lost batches, so that this is either said or mended.
                let is_named = match named(sink, at) {
                    Named::It => true,
                    // A worker shows one halt at a time. It has one for this partition too, as long as its ledger shows the loss.
                    Named::Another => {
                        let fake = &view.backends[sink.backend].fake;
                        fake.ledger_end(&at.topic, at.partition) <= offset
                    }
                    Named::None => false,
                };
                if self.is_lost_by_a_ledger(view, sink, event) && !is_named {
                    found.push(format!(
                        "{}: {} of {at}@{offset} was lost by the restored destination, and no halt says so",
                        sink.name, event.name
                    ));
                }
            }
        }
        self.violations.extend(found);
    }
}
