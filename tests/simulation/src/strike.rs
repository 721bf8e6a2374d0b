//! Faults happen, and end.

use std::time::Duration;

use anyhow::Result;
use tallybus_bus::sim::Offsets;
use tallybus_bus::{Committed, TopicPartition};

use crate::events::Expected;
use crate::fault::Fault;
use crate::sinks::SinkSpec;
use crate::world::{FOREIGN, World};

/// Longer than a session.
const SESSION: Duration = Duration::from_secs(7);

fn chosen(number: u64, count: usize) -> Option<usize> {
    usize::try_from(number.checked_rem(count as u64)?).ok()
}

impl World {
    /// A fault happens now.
    pub(crate) fn strike(&mut self, fault: &Fault, step: u32) -> Result<()> {
        self.happened.push(fault.clone());
        match fault {
            Fault::Kill(who) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    let process = self.processes.swap_remove(at);
                    self.starts.push((step + 3, process.sink));
                    process.kill();
                    self.end_session(*who);
                }
            }
            Fault::Stop(who) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    let process = self.processes.swap_remove(at);
                    self.starts.push((step + 10, process.sink));
                    process.end();
                }
            }
            Fault::Join(who) => {
                if let Some(sink) = chosen(*who, self.sinks.len()) {
                    self.start(sink)?;
                }
            }
            Fault::Freeze(who, steps) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    self.processes[at].bus.silence(false);
                    self.processes[at].frozen_until = Some(step + steps);
                    self.end_session(*who);
                }
            }
            Fault::CutOff(who, steps) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    self.processes[at].bus.silence(true);
                    self.processes[at].cut_off_until = Some(step + steps);
                    self.end_session(*who);
                }
            }
            Fault::Evict(who) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    self.processes[at].bus.evict();
                }
            }
            Fault::Commit(who, commit) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    self.processes[at].bus.fault_next_commit(*commit);
                }
            }
            Fault::BusAway(steps) => {
                self.bus_away_until = Some(step + steps);
                self.bus.set_away(true);
            }
            Fault::DeadLettersRefused(steps) => {
                self.dead_letters_refused_until = Some(step + steps);
                self.refuse_dead_letters(true);
            }
            Fault::DeadLettersUnacknowledged(count) => {
                self.sinks.iter().for_each(|sink| self.bus.lose_acknowledgements(&sink.dead_letter_topic(), *count));
            }
            Fault::OtherWindow(who) => {
                if let Some(sink) = chosen(*who, self.sinks.len()) {
                    let window = &mut self.sinks[sink].window;
                    *window = if *window == 1_000_000_000 { 10_000_000_000 } else { 1_000_000_000 };
                }
            }
            Fault::Jump(time) => self.time.advance(*time),
            Fault::TrimSettled(who) => self.trim(*who, true)?,
            Fault::TrimUnsettled(who) => self.trim(*who, false)?,
            Fault::Misassign(who, steps) => {
                if let Some(sink) = chosen(*who, self.sinks.len()).filter(|_| self.misassigned_until.is_none()) {
                    let group = self.sinks[sink].group();
                    self.bus.misassign(&group, FOREIGN);
                    self.misassigned_until = Some((step + steps, group));
                }
            }
            Fault::BackendAway(who, steps) => {
                if let Some(at) = chosen(*who, self.backends.len()) {
                    self.backends[at].fake.set_away(true);
                    self.backends[at].away_until = Some(step + steps);
                }
            }
            Fault::BackendLocked(who, steps) => {
                if let Some(at) = chosen(*who, self.backends.len()) {
                    self.backends[at].fake.set_locked(Some("the token has expired"));
                    self.backends[at].locked_until = Some(step + steps);
                }
            }
            Fault::FlakyBackend(who, steps) => {
                if let Some(at) = chosen(*who, self.backends.len()) {
                    self.backends[at].set_flaky(true, &mut self.rng);
                    self.backends[at].flaky_until = Some(step + steps);
                }
            }
            Fault::Recreate(offsets) => self.recreate(*offsets)?,
            Fault::OffsetSet(who) => {
                if let Some(sink) = chosen(*who, self.sinks.len()) {
                    let (group, at) = (self.sinks[sink].group(), self.partition(*who)?);
                    let offset = self.bus.held(&group, &at).map_or(0, |held| held.offset) / 2;
                    self.bus.commit_as_another_program(&group, &at, Committed { offset, metadata: String::new() })?;
                }
            }
            Fault::GroupForgotten(who) => {
                if let Some(sink) = chosen(*who, self.sinks.len()) {
                    self.bus.forget_group(&self.sinks[sink].group())?;
                }
            }
            Fault::BackupRestored(who) => self.restore(*who),
            Fault::SecondSink(who) => {
                if let Some(backend) = chosen(*who, self.backends.len()) {
                    let number = self.sinks.len();
                    let sink = SinkSpec::new(number, backend, &self.topics.clone(), &mut self.rng);
                    if self.bus_away_until.is_none() {
                        self.add_sink(sink)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// For every second process that falls silent, time passes until its session has timed out.
    fn end_session(&self, who: u64) {
        if who.is_multiple_of(2) {
            self.time.advance(SESSION);
        }
    }

    fn refuse_dead_letters(&self, refuse: bool) {
        self.sinks.iter().for_each(|sink| self.bus.set_refusing(&sink.dead_letter_topic(), refuse));
    }

    /// A partition of the first topic.
    fn partition(&self, chosen: u64) -> Result<TopicPartition> {
        let (_, ranges) = self.bus.inspect(&self.topics[0])?;
        let partition = u32::try_from((chosen >> 8).checked_rem(ranges.len() as u64).unwrap_or(0))?;
        Ok(TopicPartition::new(&self.topics[0], partition))
    }

    fn trim(&mut self, chosen: u64, settled_only: bool) -> Result<()> {
        let at = self.partition(chosen)?;
        let (stream, ranges) = self.bus.inspect(&at.topic)?;
        let range = ranges[usize::try_from(at.partition)?];
        let settled = |sink: &SinkSpec| self.bus.held(&sink.group(), &at).map_or(0, |held| held.offset);
        let to = match settled_only {
            true => self.sinks.iter().map(settled).min().unwrap_or(0).min(range.end),
            false => range.end - (chosen % 3).min(range.end - range.first),
        };
        let place = (at.clone(), stream);
        (range.first..to).for_each(|offset| self.events.lose(&place, offset));
        self.bus.trim(&at, to)?;
        Ok(())
    }

    fn recreate(&mut self, offsets: Offsets) -> Result<()> {
        let topic = self.topics[0].clone();
        let (stream, ranges) = self.bus.inspect(&topic)?;
        for (partition, range) in (0..).zip(ranges) {
            let place = (TopicPartition::new(&topic, partition), stream.clone());
            (range.first..range.end).for_each(|offset| self.events.lose(&place, offset));
        }
        self.bus.recreate_topic(&topic, offsets)?;
        Ok(())
    }

    fn restore(&mut self, who: u64) {
        let Some(at) = chosen(who, self.backends.len()) else { return };
        let backend = &self.backends[at];
        let Some(backup) = &backend.backup else { return };
        let counted = |world: &Self| -> Vec<String> {
            let events = world.events.all().filter(|(_, _, event)| event.expected == Expected::Written);
            let fake = &world.backends[at].fake;
            events
                .filter(|(_, _, event)| fake.total_of(&event.series()) > 0)
                .map(|(_, _, event)| event.name.clone())
                .collect()
        };
        let before = counted(self);
        backend.fake.restore(backup);
        self.oracle.roll_back(at, before);
    }

    /// Ends the faults whose time has come; at the end of a life, all of them.
    pub(crate) fn heal(&mut self, step: u32, everything: bool) -> Result<()> {
        let is_due = |until: &Option<u32>| until.is_some_and(|until| everything || step >= until);
        if is_due(&self.bus_away_until) {
            self.bus_away_until = None;
            self.bus.set_away(false);
        }
        if is_due(&self.dead_letters_refused_until) {
            self.dead_letters_refused_until = None;
            self.refuse_dead_letters(false);
        }
        if let Some((_, group)) = self.misassigned_until.take_if(|(until, _)| everything || step >= *until) {
            self.bus.end_misassignment(&group);
        }
        for process in &mut self.processes {
            if is_due(&process.frozen_until) || is_due(&process.cut_off_until) {
                (process.frozen_until, process.cut_off_until) = (None, None);
                process.bus.end_silence();
            }
        }
        for backend in &mut self.backends {
            if is_due(&backend.away_until) {
                backend.away_until = None;
                backend.fake.set_away(false);
            }
            if is_due(&backend.locked_until) {
                backend.locked_until = None;
                backend.fake.set_locked(None);
            }
            if is_due(&backend.flaky_until) {
                backend.flaky_until = None;
                backend.set_flaky(false, &mut self.rng);
            }
        }
        if everything {
            self.bus.clear_commit_faults();
        }
        if self.bus_away_until.is_none() {
            let (due, later) = self.starts.drain(..).partition(|(at, _)| everything || step >= *at);
            self.starts = later;
            let due: Vec<(u32, usize)> = due;
            due.into_iter().try_for_each(|(_, sink)| self.start(sink))?;
        }
        Ok(())
    }
}
