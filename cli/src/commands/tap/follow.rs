use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Observer, Progress, Reader};

use super::WAIT;
use super::behind::Behind;
use super::gaps::Gaps;
use super::show::Show;
use super::start::Plan;
use crate::failure::Failure;
use crate::interrupt::Interrupted;
use crate::output::Output;
use crate::times;

/// Reads a topic as it grows. It joins no consumer group.
pub(super) struct Follow<'a> {
    pub(super) bus: &'a dyn Bus,
    pub(super) observer: &'a dyn Observer,
    pub(super) topic: &'a str,
    pub(super) interrupted: &'a Interrupted,
    pub(super) output: &'a Output,
}

/// How far it is.
struct Position {
    gaps: Gaps,
    behind: Behind,
    /// Partitions that have not been read to their ends of the start, and these ends.
    open: Vec<(u32, u64)>,
    /// The time of the last record, in milliseconds since the Unix epoch; negative where it has none.
    last_time_ms: i64,
}

impl Follow<'_> {
    /// Hands records to `show` until it has enough, the plan's end is reached, or the user interrupts it.
    pub(super) fn run(&self, plan: &Plan, show: &mut Show<'_>) -> Result<(), Failure> {
        let mut position = Position {
            gaps: Gaps::new(self.topic, &plan.starts),
            behind: Behind::new(Instant::now()),
            open: plan.ends.clone(),
            last_time_ms: -1,
        };
        if plan.stops && position.open.is_empty() {
            return Ok(());
        }
        let mut reader = self.bus.reader()?;
        reader.assign(self.topic, &plan.starts)?;
        let outcome = self.read(plan, reader.as_mut(), &mut position, show);
        if let Some(line) = position.gaps.summary() {
            self.say(show, &line)?;
        }
        outcome
    }

    fn read(
        &self,
        plan: &Plan,
        reader: &mut dyn Reader,
        position: &mut Position,
        show: &mut Show<'_>,
    ) -> Result<(), Failure> {
        let mut is_away = false;
        loop {
            let polled = self.poll(plan, reader, position, show)?;
            show.pause(&position.open)?;
            let is_back = is_away && polled.is_ok();
            match polled {
                // A tap that stops reads no more than was there when it began.
                Ok(Progress::Records) if plan.stops => {}
                Ok(Progress::Records) => self.check(position, show)?,
                Ok(Progress::Idle) => {
                    if let Some(line) = position.behind.caught_up(Instant::now()) {
                        self.say(show, &line)?;
                    }
                }
                Ok(Progress::End(partition)) => position.open.retain(|(other, _)| *other != partition),
                Err(BusError::Unavailable(reason)) => {
                    if !is_away {
                        self.say(show, &format!("bus unavailable, waiting for it: {reason}"))?;
                    }
                    is_away = true;
                    std::thread::sleep(WAIT);
                }
                Err(BusError::Gone { at, first, .. }) => {
                    if let Some(line) = position.gaps.deleted(at.partition, first) {
                        self.say(show, &line)?;
                    }
                    reader.assign(self.topic, &position.gaps.positions())?;
                }
                Err(error) => return Err(error.into()),
            }
            if is_back {
                self.say(show, "bus available again")?;
                is_away = false;
            }
            if show.is_full() || self.interrupted.is_set() || plan.stops && position.open.is_empty() {
                return Ok(());
            }
        }
    }

    /// Reads some records.
    ///
    /// # Errors
    /// The outer one: what they are shown on cannot be written.
    fn poll(
        &self,
        plan: &Plan,
        reader: &mut dyn Reader,
        position: &mut Position,
        show: &mut Show<'_>,
    ) -> Result<Result<Progress, BusError>, Failure> {
        let Position { gaps, open, last_time_ms, .. } = position;
        let mut outcome = Ok(());
        let polled = reader.poll(WAIT, &mut |record| {
            let (partition, offset) = (record.partition, record.offset);
            let end = plan.ends.iter().find(|(other, _)| *other == partition).map(|(_, end)| *end);
            // What comes later belongs to no plan that stops.
            let is_beyond = plan.stops && end.is_none_or(|end| offset >= end);
            if end.is_none_or(|end| offset.saturating_add(1) >= end) {
                open.retain(|(other, _)| *other != partition);
            }
            if is_beyond {
                return ControlFlow::Continue(());
            }
            *last_time_ms = record.time_ms;
            let gap = gaps.record(partition, offset);
            outcome = gap.map_or(Ok(()), |line| self.say(show, &line)).and_then(|()| show.record(&record));
            let goes_on = outcome.is_ok() && !show.is_full() && !self.interrupted.is_set();
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        outcome?;
        show.flush()?;
        Ok(polled)
    }

    /// Says how far it is behind, where that grows.
    fn check(&self, position: &mut Position, show: &mut Show<'_>) -> Result<(), Failure> {
        let now = Instant::now();
        if !position.behind.is_due(now) {
            return Ok(());
        }
        let ends = match self.observer.offsets_of(self.topic) {
            Ok(ends) => ends,
            // The reader says so, if it lasts.
            Err(error) if error.is_transient() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let left =
            |(partition, next): (u32, u64)| ends.get(partition as usize).map(|range| range.end.saturating_sub(next));
        let messages = position.gaps.positions().into_iter().filter_map(left).sum();
        let age = match position.last_time_ms {
            ..0 => None,
            time => {
                let now = times::now().map_err(Failure::could_not_look)?;
                Some(Duration::from_millis((now / 1_000_000).saturating_sub(time).max(0).unsigned_abs()))
            }
        };
        match position.behind.check(now, messages, age) {
            Some(line) => self.say(show, &line),
            None => Ok(()),
        }
    }

    /// Says something between two events.
    fn say(&self, show: &mut Show<'_>, line: &str) -> Result<(), Failure> {
        show.flush()?;
        self.output.say(line);
        Ok(())
    }
}
