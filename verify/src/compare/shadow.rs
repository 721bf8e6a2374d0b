//! The comparison of destinations of its own: a copy of the stream, and each sink in turn.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Bus, Observer, read_headers, read_topic};
use tallybus_sdk::clock::Clock;
use tallybus_worker::settings::BusSettings;
use tokio::runtime::Handle;

use super::asking::ask;
use super::copy::{self, Chosen, Copied};
use super::destinations::{Destinations, LeftBehind};
use super::entry::{Contender, Entry};
use super::probes::Background;
use super::questions::Subject;
use super::rounds::{self, RunError, Shadow, Stage};
use super::{
    CompareError, CompareResult, Environment, Method, Mode, RESULT_KIND, SCHEMA_VERSION, Watch, noise_floor, rankings,
};
use super::{probe_phase, sustainable};
use crate::audit::Messages;

/// Records that are replayed beside the probes are kept in so much memory.
const BACKGROUND_BYTES: usize = 32 << 20;
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How a comparison is made.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How many rounds count.
    pub rounds: u64,
    /// How many come before them and do not.
    pub warm_up_rounds: u64,
    /// How often each question is asked.
    pub asks: u64,
    /// Probes per second; above 0.
    pub probe_rate: f64,
    /// For how long probes are sent; zero for none.
    pub probe_time: Duration,
    /// The interval between two queries for the probes.
    pub poll_every: Duration,
    /// Events per second that are replayed beside them.
    pub background_rate: f64,
    /// How long the last probes may take to become visible.
    pub settle_within: Duration,
    /// Whether the first sink is run twice.
    pub control: bool,
    /// Whether the sustainable rate of each sink is looked for.
    pub sustainable: bool,
    /// The seed of the intervals.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            rounds: 5,
            warm_up_rounds: 1,
            asks: 6,
            probe_rate: 10.0,
            probe_time: Duration::from_secs(30),
            poll_every: Duration::from_millis(20),
            background_rate: 0.0,
            settle_within: Duration::from_secs(30),
            control: true,
            sustainable: false,
            seed: 1,
        }
    }
}

/// The input of a comparison of destinations of its own.
pub struct ShadowComparison<'a> {
    /// The bus that the records are copied from. It is only read.
    pub source: &'a dyn Bus,
    /// An observer of this bus.
    pub observer: &'a dyn Observer,
    /// Which records.
    pub chosen: Chosen,
    /// A directory of the comparison's own, for the copy and the journal of its destinations.
    pub dir: &'a Path,
    /// The bus of the copy; empty.
    pub copy: EmbeddedBus,
    /// Settings of the copy's bus.
    pub settings: &'a BusSettings,
    /// The sinks.
    pub contenders: &'a [Contender],
    /// How it is made.
    pub plan: Plan,
    /// Runs the sinks; the comparison must be called from outside of this runtime.
    pub runtime: &'a Handle,
    /// The clock of the workers.
    pub clock: Arc<dyn Clock>,
    /// The version of Tallybus.
    pub version: &'a str,
}

/// A result, and the destinations that are still there.
#[derive(Debug)]
pub struct Finished {
    /// The result.
    pub result: CompareResult,
    /// What could not be removed.
    pub left_behind: Vec<LeftBehind>,
}

/// Compares the sinks. Its destinations are removed at the end, and also after an error.
///
/// # Errors
/// The bus cannot be read or the copy not be written, or the comparison was stopped. What one sink cannot do is no error: the
/// result says it.
pub fn run(input: &ShadowComparison<'_>, watch: &mut dyn Watch) -> Result<Finished, CompareError> {
    let (began, started) = (Instant::now(), super::wall_nanos(input.clock.as_ref())?);
    let topics = topics_of(input.contenders);
    let encodings = &input.settings.encodings;
    let spans = copy::spans(input.source, input.observer, &topics, encodings, &input.chosen)?;
    let copied = copy::copy(input.source, input.observer, &spans, encodings, &input.copy, input.dir, watch)?;
    let stage = Stage {
        bus: Arc::new(input.copy.clone()),
        settings: input.settings,
        runtime: input.runtime,
        clock: Arc::clone(&input.clock),
    };
    let mut destinations = Destinations::new(input.dir, input.runtime)?;
    let mut entries = entries(input);
    let order = play_rounds(input, &stage, &mut entries, &mut destinations, watch)?;
    if let Some(subject) = Subject::of(&copied) {
        ask(&input.plan, &stage, &subject, &topics, &mut entries, watch)?;
    }
    let background = match input.plan.background_rate > 0.0 || input.plan.sustainable {
        true => background(&stage, &topics)?,
        false => Vec::new(),
    };
    let phase = probe_phase::run(input, &stage, &mut entries, &background, &topics, watch)?;

    if input.plan.sustainable {
        sustainable::run(&input.plan, &stage, &mut entries, &background, &topics, watch)?;
    }

    let notes = notes(input, &copied);
    let sinks: Vec<_> = in_order(entries).into_iter().map(|entry| entry.result(input.plan.seed)).collect();
    let left_behind = destinations.remove_all();
    let noise = noise_floor(&sinks);
    let rankings = rankings(&sinks, &noise);
    let result = CompareResult {
        kind: RESULT_KIND.to_owned(),
        schema_version: SCHEMA_VERSION,
        started: super::time_text(started),
        seconds: began.elapsed().as_secs_f64(),
        environment: Environment::here(input.version),
        method: Method {
            mode: Mode::Shadow,
            seed: input.plan.seed,
            fingerprint: fingerprint(input),
            rounds: input.plan.rounds,
            warm_up_rounds: input.plan.warm_up_rounds,
            order,
            asked: input.plan.asks,
            probes: phase.method,
        },
        workload: copied.workload,
        sinks,
        noise,
        rankings,
        timeline: phase.timeline,
        notes,
    };
    Ok(Finished { result, left_behind })
}

/// The sinks, and the first one for the second time. It comes last: no two runs of one sink follow each other in a round.
fn entries<'a>(input: &ShadowComparison<'a>) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> =
        (0..).zip(input.contenders).map(|(number, contender)| Entry::new(contender, number, false)).collect();
    if let Some(first) = input.contenders.first().filter(|_| input.plan.control) {
        entries.push(Entry::new(first, entries.len(), true));
    }
    entries
}

/// The control after the sink that it repeats.
fn in_order(mut entries: Vec<Entry<'_>>) -> Vec<Entry<'_>> {
    if entries.last().is_some_and(|last| last.control_of.is_some()) && entries.len() > 2 {
        let last = entries.len() - 1;
        entries[1..=last].rotate_right(1);
    }
    entries
}

/// Runs every sink in each round: forwards, then backwards, and so on. Returns the order.
fn play_rounds(
    input: &ShadowComparison<'_>,
    stage: &Stage<'_>,
    entries: &mut [Entry<'_>],
    destinations: &mut Destinations,
    watch: &mut dyn Watch,
) -> Result<Vec<Vec<String>>, CompareError> {
    let (all, warm_up) = (input.plan.rounds + input.plan.warm_up_rounds, input.plan.warm_up_rounds);
    let whole = all * entries.len() as u64;
    let (mut done, mut order) = (0, Vec::new());
    for round in 0..all {
        let mut places: Vec<usize> = (0..entries.len()).collect();
        if round % 2 == 1 {
            places.reverse();
        }
        order.push(places.iter().map(|place| entries[*place].label.clone()).collect());
        for place in places {
            let entry = &mut entries[place];
            let doing = match round.checked_sub(warm_up) {
                None => format!("warm-up: {}", entry.label),
                Some(counted) => format!("round {} of {}: {}", counted + 1, input.plan.rounds, entry.label),
            };
            watch.step(done, whole, &doing);
            done += 1;
            if !entry.takes_part() {
                continue;
            }
            match run_entry(entry, stage, destinations, (round, warm_up), watch) {
                Ok(()) => {}
                Err(RunError::Sink(reason)) => entry.fail(format!("{reason} ({doing})")),
                Err(RunError::Compare(error)) => return Err(error),
            }
            if watch.is_stopped() {
                return Err(CompareError::Interrupted);
            }
        }
    }
    Ok(order)
}

fn run_entry(
    entry: &mut Entry<'_>,
    stage: &Stage<'_>,
    destinations: &mut Destinations,
    (round, warm_up): (u64, u64),
    watch: &mut dyn Watch,
) -> Result<(), RunError> {
    // A destination and a group of its own: everything is written again.
    if let Some(before) = entry.shadow.take() {
        destinations.remove(&before.name);
    }
    let namespace = format!("compare-{round}-{}", entry.number);
    let shadow = Shadow::create(&entry.contender.shadow, &namespace, destinations)?;
    let number = (round + 1).saturating_sub(warm_up);
    let ran = rounds::run(stage, &shadow, number, watch);
    entry.shadow = Some(shadow);
    let ran = ran?;
    entry.audited(ran.completeness);
    entry.version = ran.version;
    if round >= warm_up {
        entry.rounds.push(ran.round);
        entry.storage = ran.storage;
    }
    Ok(())
}

/// Records of the copy, to be replayed beside the probes.
fn background(stage: &Stage<'_>, topics: &[String]) -> Result<Vec<Background>, CompareError> {
    let observer = stage.bus.observer()?;
    let mut messages = Messages::new(&stage.settings.encodings).map_err(CompareError::Settings)?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    for topic in topics {
        read_topic(stage.bus.as_ref(), observer.as_ref(), topic, STALL_TIMEOUT, &mut |record| {
            if bytes >= BACKGROUND_BYTES || messages.decode(&record).is_err() {
                return;
            }
            bytes += record.payload.len();
            records.push(Background {
                topic: record.topic.to_owned(),
                partition: record.partition,
                key: record.key.map(<[u8]>::to_vec),
                headers: read_headers(record.headers),
                payload: record.payload.to_vec(),
                events: messages.rows().len() as u64,
            });
        })?;
    }
    Ok(records)
}

/// The topics of all sinks, each once.
fn topics_of(contenders: &[Contender]) -> Vec<String> {
    let mut topics: Vec<String> = Vec::new();
    for topic in contenders.iter().flat_map(|contender| &contender.topics) {
        if !topics.contains(topic) {
            topics.push(topic.clone());
        }
    }
    topics
}

fn notes(input: &ShadowComparison<'_>, copied: &Copied) -> Vec<String> {
    let mut notes = Vec::new();
    if input.contenders.windows(2).any(|two| two[0].topics != two[1].topics) {
        notes.push("the sinks read different topics: their rates are of different events".to_owned());
    }
    if copied.tombstones > 0 {
        notes.push(format!("{} records without a value were left out of the copy", copied.tombstones));
    }
    if copied.unreadable > 0 {
        notes.push(format!("{} records that the bus could not deliver were left out of the copy", copied.unreadable));
    }
    notes
}

/// A hash of what the figures depend on: how they were measured, and the sinks' settings.
fn fingerprint(input: &ShadowComparison<'_>) -> String {
    // The seed changes no figure but the intervals' last digits.
    let plan = Plan { seed: 0, ..input.plan.clone() };
    let sinks: Vec<_> =
        input.contenders.iter().map(|one| (&one.name, one.kind, &one.topics, &one.fingerprint)).collect();
    super::hash_text(&format!("{plan:?} {sinks:?}"))
}
