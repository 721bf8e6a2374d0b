//! What the demo puts on stage: a worker is killed in the middle of a batch, and another one takes over.

use std::time::{Duration, Instant};

use tallybus_bus::Observer;
use tallybus_sdk::progress::{GroupProgress, PartitionProgress};

use super::workers::{Worker, Workers};
use crate::failure::Failure;
use crate::output::{Colour, Output};
use crate::text::{count_of, wrap};

/// How long everything runs before the worker is killed.
const KILL_AFTER: Duration = Duration::from_millis(1_500);
/// How long the sink is without a worker before another one is started, so that a reader sees one thing after the other.
const START_AFTER: Duration = Duration::from_millis(700);
/// A worker that was between two batches when it was killed shows nothing: so often another one is killed.
const ATTEMPTS: u32 = 5;

/// How far it has come.
enum Step {
    /// The worker runs.
    Waiting,
    /// It was killed, and none has been started since.
    Killed { at: Instant, kill: Kill, sealed: Vec<PartitionProgress> },
    /// Another one was started, and has not yet finished what was in flight.
    Started { at: Instant, kill: Kill, sealed: Vec<PartitionProgress> },
    /// It has.
    Done(Takeover),
}

/// A worker that was killed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Kill {
    pub(super) pid: u32,
    /// Seconds since the beginning.
    pub(super) seconds: f64,
    /// Batches that it had sealed and not settled.
    pub(super) batches: u64,
    /// The messages in them.
    pub(super) messages: u64,
}

/// A worker that has finished what another one had in flight when it was killed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Takeover {
    pub(super) killed: Kill,
    pub(super) pid: u32,
    /// Seconds since the beginning.
    pub(super) seconds: f64,
}

/// The act: it concerns one sink.
pub(super) struct Act<'a> {
    sink: &'a str,
    group: String,
    topic: &'a str,
    began: Instant,
    attempts: u32,
    step: Step,
    output: &'a Output,
}

impl<'a> Act<'a> {
    pub(super) fn new(sink: &'a str, group: String, topic: &'a str, output: &'a Output) -> Self {
        Self { sink, group, topic, began: Instant::now(), attempts: 0, step: Step::Waiting, output }
    }

    /// Whether nothing is left to be done that was begun.
    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self.step, Step::Waiting | Step::Done(_))
    }

    /// Whether the moment to kill the worker may come at any time, so that it has to be watched closely.
    pub(super) fn is_lurking(&self) -> bool {
        matches!(self.step, Step::Waiting) && self.began.elapsed() >= KILL_AFTER && self.attempts < ATTEMPTS
    }

    /// The takeover, once it has happened.
    pub(super) fn takeover(&self) -> Option<Takeover> {
        match self.step {
            Step::Done(takeover) => Some(takeover),
            _ => None,
        }
    }

    /// The next step, if its time has come.
    pub(super) fn go_on(
        &mut self,
        observer: &dyn Observer,
        workers: &Workers<'_>,
        worker: &mut Worker,
    ) -> Result<(), Failure> {
        let step = std::mem::replace(&mut self.step, Step::Waiting);
        self.step = match step {
            Step::Waiting if self.is_lurking() && self.progress(observer)?.sealed_batches() > 0 => {
                self.kill(observer, workers, worker)?
            }
            Step::Killed { at, kill, sealed } if at.elapsed() >= START_AFTER => {
                *worker = workers.start(self.sink)?;
                self.say(
                    &format!(
                        "{}: another worker started, pid {}. The bus waits until pid {} has been silent for some \
                         seconds, then it gives the new one its partitions. The other sinks notice nothing.",
                        self.sink,
                        worker.pid(),
                        kill.pid
                    ),
                    &[("another worker started", Colour::Strong)],
                );
                Step::Started { at, kill, sealed }
            }
            Step::Started { at, kill, sealed } => self.look(observer, worker, (at, kill, sealed))?,
            step => step,
        };
        Ok(())
    }

    fn kill(&mut self, observer: &dyn Observer, workers: &Workers<'_>, worker: &mut Worker) -> Result<Step, Failure> {
        worker.kill()?;
        self.attempts += 1;
        let at = Instant::now();
        // No other worker is in the group: what it says now stays so.
        let sealed: Vec<PartitionProgress> = self.progress(observer)?.partitions;
        let kill = Kill {
            pid: worker.pid(),
            seconds: self.began.elapsed().as_secs_f64(),
            batches: sealed
                .iter()
                .filter_map(|partition| partition.seal.as_ref())
                .map(|seal| seal.ends.len() as u64)
                .sum(),
            messages: sealed.iter().map(in_flight).sum(),
        };
        if kill.messages == 0 {
            self.say(
                &format!(
                    "{}: worker killed with SIGKILL, pid {}, but it was between two batches: nothing was in flight. \
                     Another one is started, and killed too.",
                    self.sink, kill.pid
                ),
                &[("killed with SIGKILL", Colour::Bad)],
            );
            *worker = workers.start(self.sink)?;
            return Ok(Step::Waiting);
        }
        self.say(
            &format!(
                "{}: worker killed with SIGKILL, pid {}, in the middle of {}: {} sealed and not settled. Whether they \
                 are in the database, nobody can know.",
                self.sink,
                kill.pid,
                count_of(kill.batches, "batch"),
                count_of(kill.messages, "message")
            ),
            &[("killed with SIGKILL", Colour::Bad)],
        );
        Ok(Step::Killed { at, kill, sealed })
    }

    /// Whether the new worker has finished what the other one had sealed.
    fn look(
        &self,
        observer: &dyn Observer,
        worker: &Worker,
        (at, kill, sealed): (Instant, Kill, Vec<PartitionProgress>),
    ) -> Result<Step, Failure> {
        let now = self.progress(observer)?;
        let is_past = |before: &PartitionProgress| {
            let after = now.partitions.iter().find(|after| after.at == before.at);
            before.sealed_end() <= after.and_then(|after| after.settled)
        };
        if !sealed.iter().filter(|before| in_flight(before) > 0).all(is_past) {
            return Ok(Step::Started { at, kill, sealed });
        }
        let takeover = Takeover { killed: kill, pid: worker.pid(), seconds: self.began.elapsed().as_secs_f64() };
        self.say(
            &format!(
                "{}: pid {} took over, {:.1} s after the kill: it wrote {} of pid {} again, the same messages under \
                 the same name, so that none is missing and none counts twice.",
                self.sink,
                takeover.pid,
                at.elapsed().as_secs_f64(),
                count_of(kill.batches, "batch"),
                kill.pid
            ),
            &[("took over", Colour::Good)],
        );
        Ok(Step::Done(takeover))
    }

    fn progress(&self, observer: &dyn Observer) -> Result<GroupProgress, Failure> {
        Ok(GroupProgress::read(observer, &self.group, &[self.topic])?)
    }

    /// Says something with the time, in lines of the terminal's width.
    fn say(&self, text: &str, words: &[(&str, Colour)]) {
        self.output.clear();
        let time = format!("{:4.1} s  ", self.began.elapsed().as_secs_f64());
        let lines = wrap(text, self.output.width().saturating_sub(time.len() + 1));
        for (number, line) in lines.iter().enumerate() {
            let margin = if number == 0 { time.clone() } else { " ".repeat(time.len()) };
            self.output.say_coloured(&format!("{margin}{line}"), words);
        }
    }
}

/// The messages of a partition that are sealed and not settled.
fn in_flight(partition: &PartitionProgress) -> u64 {
    partition.sealed_end().zip(partition.settled).map_or(0, |(sealed, settled)| sealed.saturating_sub(settled))
}
