//! Faults happen, and end.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use tallybus_bus::sim::Offsets;
use tallybus_bus::{Bus, BusError, Committed, TopicPartition};
use tallybus_sdk::{SealMetadata, Shape};
use tallybus_worker::Note;

use crate::events::Expected;
use crate::fault::{Fault, SESSION};
use crate::process::Process;
use crate::sinks::{Guarantee, NOTES, SinkSpec};
use crate::world::{FOREIGN, World};

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
            Fault::Freeze(who, steps, silence) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    self.processes[at].bus.silence(false);
                    self.processes[at].frozen_until = Some(step + steps);
                    self.time.advance(*silence);
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
            Fault::Commits(who, commit, count) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    (0..*count).for_each(|_| self.processes[at].bus.fault_next_commit(*commit));
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
            Fault::OtherLimits(who) => {
                if let Some(sink) = chosen(*who, self.sinks.len()) {
                    self.sinks[sink].change_limits(&mut self.rng);
                }
            }
            Fault::Jump(time) => self.time.advance(*time),
            Fault::WallClock(seconds) => self.time.set_wall_time(UNIX_EPOCH + Duration::from_secs(*seconds)),
            Fault::TailForgotten(who) => self.forget_unread(*who)?,
            Fault::Markers(who, count) => {
                let at = self.partition(*who)?;
                (0..*count).try_for_each(|_| self.bus.add_marker(&at))?;
            }
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
                if let Some(sink) = chosen(*who, self.sinks.len()).filter(|_| self.bus_away_until.is_none()) {
                    self.forget_group(sink, step)?;
                }
            }
            Fault::OffsetReset(who) => {
                // Without a ledger it is the operator who answers for what is written twice.
                let has_ledger = |sink: &SinkSpec| self.backends[sink.backend].guarantee == Guarantee::Ledger;
                let sink = chosen(*who, self.sinks.len()).filter(|sink| has_ledger(&self.sinks[*sink]));
                if let Some(sink) = sink.filter(|_| self.bus_away_until.is_none()) {
                    self.reset(sink, *who, step)?;
                }
            }
            Fault::Rest(who, state, steps) => {
                if let Some(at) = chosen(*who, self.processes.len()) {
                    self.processes[at].want(Some(*state));
                    self.processes[at].rests_until = Some(step + steps);
                }
            }
            Fault::RestOfSink(who, state, steps) => {
                if let Some(sink) = chosen(*who, self.sinks.len()) {
                    self.rests.insert(sink, (*state, step + steps));
                    self.processes.iter().filter(|process| process.sink == sink).for_each(|one| one.want(Some(*state)));
                }
            }
            Fault::BackupRestored(who) => self.restore(*who),
            Fault::SecondSink(who) => {
                let is_claimed = |backend: &usize| self.backends[*backend].guarantee != Guarantee::Unclaimed;
                if let Some(backend) = chosen(*who, self.backends.len()).filter(is_claimed) {
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

    fn forget_unread(&mut self, chosen: u64) -> Result<()> {
        let at = self.partition(chosen)?;
        let (stream, ranges) = self.bus.inspect(&at.topic)?;
        let before = ranges[usize::try_from(at.partition)?].end;
        let end = self.bus.forget_unread(&at)?;
        (end..before).for_each(|offset| self.events.remove(&(at.clone(), stream.clone()), offset));
        Ok(())
    }

    /// Ends the workers of a sink in good order, and starts them again later. One that is frozen is not seen, and wakes later.
    fn stop_workers(&mut self, sink: usize, step: u32) {
        let is_stopped = |process: &Process| process.sink == sink && !process.is_frozen();
        while let Some(place) = self.processes.iter().position(is_stopped) {
            self.processes.swap_remove(place).end();
            self.starts.push((step + 3, sink));
        }
        self.time.advance(SESSION);
    }

    /// The operator stops the workers first.
    fn reset(&mut self, sink: usize, chosen: u64, step: u32) -> Result<()> {
        let (at, group) = (self.partition(chosen)?, self.sinks[sink].group());
        self.stop_workers(sink, step);
        let (stream, ranges) = self.bus.inspect(&at.topic)?;
        let Some(held) = self.bus.held(&group, &at) else { return Ok(()) };
        let first = ranges[usize::try_from(at.partition)?].first;
        let offset = first.max(held.offset * (chosen % 4) / 4);
        // What was sealed is given up: it may still be written, by a worker that is not seen, or by a request that is late.
        let is_seen = !self.processes.iter().any(|process| process.sink == sink && process.is_frozen());
        let sealed = SealMetadata::parse(held.offset, &held.metadata).map(|seal| seal.ends);
        let gives_up = !is_seen || !sealed.is_ok_and(|ends| ends.is_empty());
        let metadata = SealMetadata::new(stream, Vec::new(), &Shape::everything()).to_metadata()?;
        match self.bus.reset_group(&group, &[(at, Committed { offset, metadata })]) {
            // A worker that only was cut off lives, and the operator is told so.
            Err(BusError::GroupInUse(_)) => Ok(()),
            other => {
                other?;
                if gives_up {
                    self.backends[self.sinks[sink].backend].fake.allow_overlaps();
                }
                Ok(())
            }
        }
    }

    /// Kafka forgets a group that had no member for long; a simulated bus that does not say that it may forget does it at any
    /// time.
    fn forget_group(&mut self, sink: usize, step: u32) -> Result<()> {
        if self.bus.forgets_groups() {
            self.stop_workers(sink, step);
        }
        if self.would_be_noticed(sink) {
            self.bus.forget_group(&self.sinks[sink].group())?;
        }
        Ok(())
    }

    /// Whether a sink's worker can notice that the bus forgot its group: by its claims, or by notes of all that it committed,
    /// which it makes every few seconds, and only on a bus that may forget.
    fn would_be_noticed(&self, sink: usize) -> bool {
        let sink = &self.sinks[sink];
        if self.backends[sink.backend].guarantee != Guarantee::Unclaimed {
            return true;
        }
        let notes = self.bus.payloads(&TopicPartition::new(NOTES, 0), 0);
        let notes: Vec<Note> = notes.iter().filter_map(|payload| serde_json::from_slice(payload).ok()).collect();
        let group = sink.group();
        let is_noted = |at: &TopicPartition| notes.iter().any(|note| note.group == group && note.at() == *at);
        self.bus.forgets_groups() && self.bus.partitions_held(&group).iter().all(is_noted)
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
        // A claim that was made since the copy is gone with the rest, and its worker need not ask again.
        backend.fake.demand_claims(false);
        self.oracle.roll_back(at, before);
    }

    /// Resumes the workers whose time has come. The newest order counts, as it does for real ones.
    fn resume(&mut self, step: u32, everything: bool) {
        let is_due = |until: u32| everything || step >= until;
        let over: Vec<usize> =
            self.rests.iter().filter(|(_, (_, until))| is_due(*until)).map(|(sink, _)| *sink).collect();
        self.rests.retain(|sink, _| !over.contains(sink));
        for process in &mut self.processes {
            if over.contains(&process.sink) || process.rests_until.is_some_and(is_due) {
                process.rests_until = None;
                process.want(None);
            }
        }
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
        self.resume(step, everything);
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
