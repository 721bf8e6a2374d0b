//! One life: faults in the order of its seed, then everything heals that heals by itself, and the end is awaited.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use anyhow::Result;
use tallybus_bus::TopicPartition;
use tallybus_sdk::{Rng, SealMetadata};

use crate::events::Place;
use crate::fault::{self, Fault, Plan, RESTORED, SESSION};
use crate::oracle::{Named, View};
use crate::process::Process;
use crate::sinks::SinkSpec;
use crate::world::World;

/// How many steps a life has at least.
const SHORTEST: u32 = 120;
/// Rounds after which a life that has not ended is stuck: several minutes of its time.
const LAST_ROUND: u32 = 3_000;
/// How much time a round takes at least.
const ROUND: Duration = Duration::from_millis(100);
/// Beside a halt, a sink is at its end when nothing was committed for so many rounds: longer than the waits of a worker
/// that tries again, which are up to 38 s.
const QUIET: u32 = 450;

/// How a life went.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How many steps it took, to the end.
    pub steps: u64,
    /// The faults that were planned.
    pub plan: Plan,
    /// How many events the services published.
    pub events: u64,
    /// How many batches, and parts of batches, were sent to backends.
    pub writes: u64,
    /// How many of them a worker had found sealed.
    pub recovered: u64,
    /// How many changes of partitions' offsets the workers committed.
    pub commits: u64,
    /// How often a worker said that it is drained.
    pub drains: u64,
    /// Whether a sink halted, as its faults ask for.
    pub is_halted: bool,
    /// What must not happen and did; empty for a good life.
    pub violations: Vec<String>,
    /// The same for two lives of the same seed and plan.
    pub digest: u64,
}

/// The plan of a seed, and how many steps its life has.
pub fn plan_of(seed: u64) -> (Plan, u32) {
    let mut rng = Rng::new(seed ^ 0x005e_ed0f_fa17);
    let steps = SHORTEST + u32::try_from(rng.below(300)).unwrap_or(0);
    (fault::plan(&mut rng, steps), steps)
}

/// Lives the life of a seed.
pub fn live(seed: u64) -> Report {
    let (plan, _) = plan_of(seed);
    live_with(seed, plan)
}

/// Lives the life of a seed with other faults.
pub fn live_with(seed: u64, plan: Plan) -> Report {
    let mut report = Report {
        seed,
        steps: 0,
        plan,
        events: 0,
        writes: 0,
        recovered: 0,
        commits: 0,
        drains: 0,
        is_halted: false,
        violations: Vec::new(),
        digest: 0,
    };
    match catch_unwind(AssertUnwindSafe(|| run(&mut report))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => report.violations.push(format!("the life broke off: {error:#}")),
        Err(_) => report.violations.push("something panicked".to_owned()),
    }
    report
}

fn run(report: &mut Report) -> Result<()> {
    let mut world = World::new(report.seed)?;
    let (_, steps) = plan_of(report.seed);
    for step in 0..steps {
        world.heal(step, false)?;
        for (_, fault) in report.plan.iter().filter(|(at, _)| *at == step) {
            world.strike(fault, step)?;
            world.look();
        }
        world.act()?;
        world.look();
        report.steps += 1;
        if !world.oracle.violations().is_empty() {
            break;
        }
    }
    if world.oracle.violations().is_empty() {
        end(&mut world, steps, report)?;
    }
    report.violations = world.oracle.violations().to_vec();
    report.events = world.events.all().count() as u64;
    for backend in &world.backends {
        let writes = backend.fake.writes();
        report.writes += writes.len() as u64;
        report.recovered += writes.iter().filter(|write| write.recovered).count() as u64;
    }
    report.commits = world.commits;
    report.drains = world.oracle.drains;
    report.digest = world.digest;
    Ok(())
}

/// Heals everything and waits for the end.
fn end(world: &mut World, steps: u32, report: &mut Report) -> Result<()> {
    world.heal(steps, true)?;
    restart_restored(world)?;
    for sink in 0..world.sinks.len() {
        if !world.processes.iter().any(|process| process.sink == sink) {
            world.start(sink)?;
        }
    }
    let mut quiet = Quiet { digest: 0, rounds: 0 };
    // A worker shows the last halt only, and each of its partitions has its own.
    let mut seen = BTreeSet::new();
    for _ in 0..LAST_ROUND {
        for at in 0..world.processes.len() as u64 {
            world.step_one(at, None);
            report.steps += 1;
        }
        world.look();
        if !world.oracle.violations().is_empty() {
            return Ok(());
        }
        world.backends.iter().for_each(|backend| backend.fake.deliver_late());
        world.time.advance(ROUND);
        quiet = quiet.after(world.digest);
        for (number, sink) in world.sinks.iter().enumerate() {
            seen.extend(halts(world, number).into_iter().map(|halt| (sink.name.clone(), halt)));
        }
        if quiet.rounds % 8 == 7 && is_finished(world, quiet.rounds)? {
            break;
        }
    }
    judge(world, &seen, report)
}

/// A worker that has nothing more to write need not notice that its destination was replaced; the next one must.
fn restart_restored(world: &mut World) -> Result<()> {
    let is_due = |world: &World, process: &Process| world.oracle.is_restored(world.sinks[process.sink].backend);
    while let Some(at) = (0..world.processes.len()).find(|at| is_due(world, &world.processes[*at])) {
        world.processes.swap_remove(at).kill();
    }
    world.time.advance(SESSION);
    Ok(())
}

/// The partitions of a sink that are not settled to their end.
fn unsettled(world: &World, sink: &SinkSpec) -> Result<Vec<Place>> {
    let mut unsettled = Vec::new();
    for topic in &sink.topics {
        let (stream, ranges) = world.bus.inspect(topic)?;
        for (partition, range) in (0..).zip(ranges) {
            let at = TopicPartition::new(topic, partition);
            let is_settled = match world.bus.held(&sink.group(), &at) {
                None => range.end == 0,
                Some(held) => {
                    let seal = SealMetadata::parse(held.offset, &held.metadata).ok();
                    let is_current =
                        |seal: &SealMetadata| seal.stream.as_ref() == Some(&stream) && seal.ends.is_empty();
                    held.offset == range.end && seal.as_ref().is_some_and(is_current)
                }
            };
            if !is_settled {
                unsettled.push((at, stream.clone()));
            }
        }
    }
    Ok(unsettled)
}

/// Why the workers of a sink need an operator.
fn halts(world: &World, sink: usize) -> Vec<String> {
    world.processes.iter().filter(|process| process.sink == sink).flat_map(|process| process.halts()).collect()
}

fn is_finished(world: &World, quiet_rounds: u32) -> Result<bool> {
    for (number, sink) in world.sinks.iter().enumerate() {
        let halts = halts(world, number);
        // A halt that ends by itself is waited for, and beside one that does not, the other partitions go on.
        let is_good = match halts.is_empty() {
            true => {
                let open = unsettled(world, sink)?;
                open.is_empty() || quiet_rounds >= QUIET && open.iter().all(|(at, _)| is_unnoticed(world, sink, at))
            }
            false => halts.iter().all(|halt| is_asked_for(world, halt)) && quiet_rounds >= QUIET,
        };
        if !is_good {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the bus has forgotten what the group committed, or another program has replaced it, while its worker had nothing
/// more to commit: the worker need not notice, and the oracle asks whether every event was written.
fn is_unnoticed(world: &World, sink: &SinkSpec, at: &TopicPartition) -> bool {
    let held = world.bus.held(&sink.group(), at);
    world.happened.iter().any(|fault| match fault {
        Fault::GroupForgotten(_) => held.is_none(),
        Fault::OffsetSet(_) => {
            held.as_ref().is_some_and(|held| SealMetadata::parse(held.offset, &held.metadata).is_err())
        }
        _ => false,
    })
}

/// For how many rounds nothing was committed.
struct Quiet {
    digest: u64,
    rounds: u32,
}

impl Quiet {
    fn after(self, digest: u64) -> Self {
        Self { digest, rounds: if self.digest == digest { self.rounds + 1 } else { 0 } }
    }
}

fn is_asked_for(world: &World, halt: &str) -> bool {
    world.happened.iter().flat_map(Fault::halts).any(|words| halt.contains(words))
}

fn names_a_backup(halt: &str) -> bool {
    RESTORED.iter().any(|words| halt.contains(words))
}

/// Whether a halt keeps this partition from its end: it begins with the partition, among others, or with none.
fn concerns(world: &World, halt: &str, at: &TopicPartition) -> bool {
    let names: Vec<&str> = halt.split(": ").next().unwrap_or_default().split(", ").collect();
    let is_partition = |name: &&str| world.topics.iter().any(|topic| name.starts_with(&format!("{topic}/")));
    !names.iter().all(is_partition) || names.contains(&&*at.to_string())
}

/// `seen`: every halt since the faults ended, with its sink.
fn judge(world: &mut World, seen: &BTreeSet<(String, String)>, report: &mut Report) -> Result<()> {
    let mut over: Vec<(String, Place)> = Vec::new();
    for number in 0..world.sinks.len() {
        let halts = halts(world, number);
        let open = unsettled(world, &world.sinks[number])?;
        let name = world.sinks[number].name.clone();
        for halt in halts.iter().filter(|halt| !is_asked_for(world, halt)).cloned().collect::<Vec<_>>() {
            world.oracle.violated(format!("{name} halted although no fault asks for it: {halt}"));
        }
        report.is_halted |= !halts.is_empty();
        let is_halted = |at: &TopicPartition| halts.iter().any(|halt| concerns(world, halt, at));
        let is_unnoticed = |at: &TopicPartition| is_unnoticed(world, &world.sinks[number], at);
        // Where the worker noticed nothing, everything must have been written.
        let (unnoticed, open): (Vec<Place>, Vec<Place>) =
            open.into_iter().partition(|(at, _)| !is_halted(at) && is_unnoticed(at));
        if !open.iter().all(|(at, _)| is_halted(at)) {
            let mine = world.processes.iter().filter(|process| process.sink == number);
            let states: Vec<String> = mine.map(|process| process.summary()).collect();
            let states = states.join("; ");
            world
                .oracle
                .violated(format!("{name} is stuck: {open:?} is not settled ({unnoticed:?} need not be); {states}"));
        }
        over.extend(open.into_iter().map(|place| (name.clone(), place)));
    }
    let is_named = |sink: &SinkSpec, at: &TopicPartition| {
        let of_sink = seen.iter().filter(|(name, halt)| *name == sink.name && names_a_backup(halt));
        match of_sink.clone().any(|(_, halt)| halt.contains(&at.to_string())) {
            true => Named::It,
            false if of_sink.count() > 0 => Named::Another,
            false => Named::None,
        }
    };
    let World { bus, events, sinks, backends, .. } = world;
    let view = View { bus, events, sinks, backends };
    let is_over = |sink: &SinkSpec, place: &Place| over.iter().any(|(name, at)| *name == sink.name && at == place);
    world.oracle.end(&view, &is_over, &is_named);
    Ok(())
}
