//! Everything that there is in a life, and one step of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use tallybus_bus::sim::{Ownership, SimBus};
use tallybus_bus::{Bus, NewRecord, Publisher, TopicOptions, TopicPartition};
use tallybus_control::DesiredState;
use tallybus_sdk::Rng;
use tallybus_sdk::clock::ManualClock;

use crate::events::{Event, Events, Expected};
use crate::fault::Fault;
use crate::oracle::{Drained, Oracle, View};
use crate::process::Process;
use crate::sinks::{Backend, NOTES, REFUSED, SinkSpec};
use crate::time::BusTime;

/// A topic that no sink writes.
pub(crate) const FOREIGN: &str = "foreign";

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) time: ManualClock,
    pub(crate) bus: SimBus,
    publisher: Box<dyn Publisher>,
    pub(crate) topics: Vec<String>,
    pub(crate) events: Events,
    pub(crate) sinks: Vec<SinkSpec>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) processes: Vec<Process>,
    /// When a sink without a worker gets one.
    pub(crate) starts: Vec<(u32, usize)>,
    pub(crate) bus_away_until: Option<u32>,
    pub(crate) dead_letters_refused_until: Option<u32>,
    pub(crate) misassigned_until: Option<(u32, String)>,
    /// The sinks whose workers are to be paused or drained, and until when.
    pub(crate) rests: BTreeMap<usize, (DesiredState, u32)>,
    /// The faults that happened.
    pub(crate) happened: Vec<Fault>,
    pub(crate) oracle: Oracle,
    /// How many changes of offsets there were.
    pub(crate) commits: u64,
    /// Of everything that was committed: two lives of one seed have the same.
    pub(crate) digest: u64,
    next_event: u64,
}

impl World {
    pub(crate) fn new(seed: u64) -> Result<Self> {
        let mut rng = Rng::new(seed);
        let time = ManualClock::at(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let bus = SimBus::new(Arc::new(BusTime(time.clone())), rng.number());
        if rng.below(2) == 0 {
            bus.set_ownership(Ownership::Unchecked);
        }
        let mut topics = vec!["counters".to_owned()];
        if rng.below(3) == 0 {
            topics.push("visits".to_owned());
        }
        for topic in topics.iter().map(String::as_str).chain([FOREIGN]) {
            let partitions = 1 + u32::try_from(rng.below(3))?;
            bus.create_topic(topic, &TopicOptions::new(partitions))?;
        }
        bus.create_topic(NOTES, &TopicOptions::new(1).compacted())?;
        let count = 1 + usize::try_from(rng.below(3))?;
        let backends: Vec<Backend> = (0..count).map(|_| Backend::new(&mut rng)).collect();
        let sinks: Vec<SinkSpec> = (0..count).map(|number| SinkSpec::new(number, number, &topics, &mut rng)).collect();
        let mut world = Self {
            publisher: bus.connect().publisher()?,
            rng,
            time,
            bus,
            topics,
            events: Events::default(),
            sinks: Vec::new(),
            backends,
            processes: Vec::new(),
            starts: Vec::new(),
            bus_away_until: None,
            dead_letters_refused_until: None,
            misassigned_until: None,
            rests: BTreeMap::new(),
            happened: Vec::new(),
            oracle: Oracle::default(),
            commits: 0,
            digest: 0xcbf2_9ce4_8422_2325,
            next_event: 0,
        };
        for sink in sinks {
            world.add_sink(sink)?;
        }
        world.look();
        Ok(world)
    }

    /// A sink, and its first workers.
    pub(crate) fn add_sink(&mut self, sink: SinkSpec) -> Result<()> {
        self.bus.create_topic(&sink.dead_letter_topic(), &TopicOptions::new(1).kept())?;
        let (number, workers) = (self.sinks.len(), sink.workers);
        self.sinks.push(sink);
        (0..workers).try_for_each(|_| self.start(number))
    }

    /// Starts a worker of a sink. While the bus is unavailable it starts later.
    pub(crate) fn start(&mut self, sink: usize) -> Result<()> {
        if self.bus_away_until.is_some() {
            self.starts.push((0, sink));
            return Ok(());
        }
        let spec = &self.sinks[sink];
        let connection = Arc::new(self.backends[spec.backend].connect(&self.time));
        let rest = self.rests.get(&sink).map(|(state, _)| *state);
        let process = Process::start(sink, &self.bus, connection, spec.options(), &self.time, rest)?;
        self.processes.push(process);
        Ok(())
    }

    pub(crate) fn look(&mut self) {
        let mut alone = vec![0; self.sinks.len()];
        self.processes.iter().for_each(|process| alone[process.sink] += 1);
        // One that was killed a moment ago may have left batches sealed, which its next life settles.
        self.starts.iter().for_each(|(_, sink)| alone[*sink] += 1);
        let mut drained = Vec::new();
        for process in &mut self.processes {
            if let Some((said, is_first)) = process.drained() {
                let (sink, is_alone) = (process.sink, alone[process.sink] == 1);
                drained.push(Drained { process: process.bus.process(), sink, said, is_first, is_alone });
            }
        }
        let Self { bus, events, sinks, backends, .. } = self;
        let commits = self.oracle.look(&View { bus, events, sinks, backends }, &drained);
        self.commits += commits.len() as u64;
        for made in commits {
            let offset = made.after.map_or(u64::MAX, |held| held.offset);
            let text = format!("{} {} {:?} {offset}", made.group, made.at, made.member);
            self.note(&text);
        }
    }

    pub(crate) fn note(&mut self, text: &str) {
        for byte in text.bytes() {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// One process, or the services, or the time moves on.
    pub(crate) fn act(&mut self) -> Result<()> {
        match self.rng.below(20) {
            0..=2 => self.publish()?,
            3 | 4 => {
                let longest = if self.rng.below(10) == 0 { 3_000 } else { 120 };
                self.time.advance(Duration::from_millis(self.rng.below(longest)));
            }
            5 => self.backends.iter().for_each(|backend| backend.fake.deliver_late()),
            6 => self.back_up(),
            _ => {
                let chosen = self.rng.number() >> 32;
                let turns = u32::try_from(self.rng.below(12))?;
                self.step_one(chosen, Some(turns));
            }
        }
        Ok(())
    }

    fn back_up(&mut self) {
        let chosen = self.rng.below(self.backends.len() as u64);
        for backend in self.backends.iter_mut().skip(usize::try_from(chosen).unwrap_or(0)).take(1) {
            backend.backup.get_or_insert_with(|| backend.fake.backup());
        }
    }

    /// Lets one process that is not frozen run once.
    pub(crate) fn step_one(&mut self, chosen: u64, turns: Option<u32>) {
        let awake: Vec<usize> = (0..self.processes.len()).filter(|at| !self.processes[*at].is_frozen()).collect();
        let Some(at) = chosen.checked_rem(awake.len() as u64).and_then(|at| usize::try_from(at).ok()) else { return };
        if let Err(error) = self.processes[awake[at]].step(turns) {
            let process = self.processes.swap_remove(awake[at]);
            let sink = process.sink;
            process.kill();
            self.oracle.violated(format!("a worker of {} ended: {error}", self.sinks[sink].name));
        }
    }

    /// Services publish a few events.
    fn publish(&mut self) -> Result<()> {
        if self.bus_away_until.is_some() {
            return Ok(());
        }
        for _ in 0..=self.rng.below(6) {
            let topic = match self.rng.below(8) {
                0 => FOREIGN.to_owned(),
                other => self.topics[usize::try_from(other)? % self.topics.len()].clone(),
            };
            let (stream, ranges) = self.bus.inspect(&topic)?;
            let partition = u32::try_from(self.rng.below(ranges.len() as u64))?;
            let number = self.next_event;
            self.next_event += 1;
            let (name, expected) = match self.rng.below(16) {
                0 => (format!("broken.{number}"), Expected::DeadLetter),
                1 => (format!("{REFUSED}.{number}"), Expected::DeadLetter),
                _ => (format!("counted.{number}"), Expected::Written),
            };
            let payload = match name.starts_with("broken") {
                true => format!("not an event: {name}"),
                // It is of the time of its record.
                false if number.is_multiple_of(4) => format!(r#"{{"name":"{name}","value":1}}"#),
                false => {
                    format!(r#"{{"name":"{name}","value":1,"ts":{}}}"#, 1_700_000_000_000_000_000 + number * 37_000_000)
                }
            };
            let record = NewRecord {
                topic: &topic,
                partition: Some(partition),
                key: None,
                payload: payload.as_bytes(),
                headers: &[],
            };
            self.publisher.publish(record, number)?;
            let mut deliveries = Vec::new();
            self.publisher.poll(Duration::ZERO, &mut deliveries);
            let delivery = deliveries.pop().context("a record was not answered")?;
            let offset = delivery.outcome?.offset.context("a record has no offset")?;
            self.events.add((TopicPartition::new(&topic, partition), stream), offset, Event { name, expected });
        }
        Ok(())
    }
}
