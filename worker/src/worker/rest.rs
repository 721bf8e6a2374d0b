//! A worker that is paused or drained: it seals nothing more, and settles what is sealed.
//!
//! *Drained* is said when the bus has shown that everything that this worker had sealed is settled, and after it has left its
//! group: no commit of it is in flight, so that it seals nothing afterwards either. An open batch is dropped from memory; its
//! records are still on the bus, and the partition's next owner reads them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tallybus_bus::{BusError, Committed, TopicPartition};
use tallybus_control::DesiredState;
use tallybus_sdk::SealMetadata;

use super::streams::StreamCheck;
use super::{IDLE_WAIT, Worker, WorkerError};
use crate::duty::{Duty, Rest, RestProgress, SettledPartition, Wanted};
use crate::failure_log::without_retry;
use crate::partition_task::PartitionTask;
#[cfg(feature = "simulation")]
use crate::simulation::Mutant;

/// How soon the bus is asked again for what it did not confirm, and a group is joined again after the bus did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long a worker without partitions waits for others to settle what it, or an earlier life of it, left sealed, before it joins
/// the group to do it itself.
const OTHERS_SETTLE_WITHIN: Duration = Duration::from_secs(15);

/// What a worker has to remember to follow what is wanted of it.
#[derive(Default)]
pub(super) struct Following {
    /// What was seen of the handle.
    seen: u64,
    /// Not before this time: the next query of the bus.
    not_before: Option<Instant>,
    /// Not before this time: the next attempt to join.
    join_not_before: Option<Instant>,
    /// Partitions that went while batches of them were sealed, and where those end.
    owed: BTreeMap<TopicPartition, u64>,
    /// When it was read what the group held sealed, of a worker that owned nothing when it was to be drained.
    found: Option<Instant>,
}

impl Worker {
    /// Follows what is wanted. Returns whether the worker is a member of its group.
    ///
    /// # Errors
    /// The group cannot be joined, and that needs operator action.
    pub(super) fn follow(&mut self) -> Result<bool, WorkerError> {
        if let Some(wanted) = self.handle.news(&mut self.following.seen) {
            self.begin(wanted);
        }
        let is_resting = self.rests();
        self.tasks.set_resting(is_resting);
        if self.membership.is_member() {
            return Ok(true);
        }
        match &self.duty {
            Duty::Waiting(_) => Ok(false),
            Duty::Resting(rest) if rest.desired.state == DesiredState::Drained && !self.is_left_to_others() => {
                Ok(false)
            }
            Duty::Running(_) | Duty::Resting(_) => self.enter(),
        }
    }

    /// Whether nothing may be sealed now.
    fn rests(&self) -> bool {
        #[cfg(feature = "simulation")]
        if Mutant::SealsAfterDrain.is_on() {
            return false;
        }
        !matches!(self.duty, Duty::Running(_))
    }

    fn begin(&mut self, wanted: Wanted) {
        self.following.not_before = None;
        let duty = match wanted {
            Wanted::Unknown(reason) => Duty::Waiting(reason),
            Wanted::Known(Some(desired)) if desired.state != DesiredState::Running => {
                self.following.found = None;
                let progress = match &self.duty {
                    // The same again, by another order: what was reached still is.
                    Duty::Resting(rest) if rest.desired.state == desired.state && !self.membership.is_member() => {
                        rest.progress.clone()
                    }
                    _ => RestProgress::Unsettled("begins".to_owned()),
                };
                Duty::Resting(Rest { desired, progress })
            }
            Wanted::Known(desired) => Duty::Running(desired),
        };
        if let Some(desired) = duty.desired() {
            tracing::info!(
                sink = self.options.sink,
                wanted = desired.state.name(),
                id = desired.id,
                by = desired.issuer,
                reason = desired.reason,
                "an operator wants another state"
            );
        }
        self.change(duty);
    }

    fn change(&mut self, duty: Duty) {
        if self.duty == duty {
            return;
        }
        self.duty = duty;
        let duty = self.duty.clone();
        self.handle.status.update(|status| status.duty = duty);
    }

    /// Joins the group. Returns whether it has.
    fn enter(&mut self) -> Result<bool, WorkerError> {
        let now = self.clock.now();
        if self.following.join_not_before.is_some_and(|at| now < at) {
            return Ok(false);
        }
        match self.membership.join_again(&self.options) {
            Ok(()) => {
                self.check_metadata_limit()?;
                if let Some(waker) = self.membership.waker() {
                    self.tasks.set_waker(waker);
                }
                self.following.join_not_before = None;
                self.show_partitions();
                Ok(true)
            }
            Err(error) if error.is_transient() => {
                self.bus_failures.note(&error.to_string());
                self.following.join_not_before = Some(now + ASK_AGAIN);
                Ok(false)
            }
            Err(source) => Err(WorkerError::Bus { sink: self.options.sink.clone(), source }),
        }
    }

    /// One iteration of a worker that is no member of its group.
    pub(super) fn stand_by(&mut self) {
        self.clock.sleep(IDLE_WAIT);
        // Notes of progress may be under way.
        let _noted = self.dead_letters.poll(self.clock.now());
        if let Duty::Resting(rest) = &self.duty
            && !rest.is_settled()
        {
            self.rest_outside();
        }
        self.refresh_outside();
        self.refresh_last_error();
        self.pulse.beat(|| self.handle.status.snapshot());
        self.note_run();
    }

    /// Remembers a partition that is given up while batches of it are sealed.
    pub(super) fn owe(&mut self, task: &PartitionTask) {
        match task.last_sealed() {
            Some(end) => drop(self.following.owed.insert(task.at.clone(), end)),
            None => drop(self.following.owed.remove(&task.at)),
        }
    }

    /// The partition is owned again: what is sealed in it is this worker's to settle.
    pub(super) fn owes_no_more(&mut self, at: &TopicPartition) {
        self.following.owed.remove(at);
    }

    /// A worker that was never a member since it was to be drained, or has left: what is sealed of what it may have sealed in an
    /// earlier life is settled by others, or, when nobody does, by itself.
    fn rest_outside(&mut self) {
        let now = self.clock.now();
        if self.following.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.following.not_before = Some(now + ASK_AGAIN);
        let left = match self.following.found {
            None => self.find_sealed(),
            Some(_) => self.sealed_in_the_group(),
        };
        match left.map(|held| self.still_owed(&held)) {
            Ok(None) => self.say_settled(Vec::new()),
            Ok(Some(left)) | Err(left) => self.say_unsettled(left),
        }
    }

    /// Notes what the group holds sealed now, and returns it.
    fn find_sealed(&mut self) -> Result<BTreeMap<TopicPartition, (u64, u64)>, String> {
        let held = self.sealed_in_the_group()?;
        self.following.found = Some(self.clock.now());
        self.following.owed.extend(held.iter().map(|(at, (_, end))| (at.clone(), *end)));
        Ok(held)
    }

    /// Whether others have had time to settle what was left sealed, and did not.
    fn is_left_to_others(&self) -> bool {
        let Some(found) = self.following.found else { return false };
        !self.following.owed.is_empty() && self.clock.now() >= found + OTHERS_SETTLE_WITHIN
    }

    /// Forgets what is settled of what was left sealed; what is not, for people. `held`: what the group holds sealed now.
    fn still_owed(&mut self, held: &BTreeMap<TopicPartition, (u64, u64)>) -> Option<String> {
        // Sealed batches settle in order: what was sealed up to an end is settled once the settled offset has reached it.
        self.following.owed.retain(|at, end| held.get(at).is_some_and(|(settled, _)| settled < end));
        let (at, end) = self.following.owed.iter().next()?;
        Some(format!(
            "batches of {at} up to offset {end} were sealed before the partition went, and its next owner has not settled them yet"
        ))
    }

    /// The settled offset, and where the last sealed batch ends, of each partition of the group with sealed batches.
    fn sealed_in_the_group(&mut self) -> Result<BTreeMap<TopicPartition, (u64, u64)>, String> {
        let progress = self.ask_group().map_err(|error| format!("the group's offsets cannot be read: {error}"))?;
        let sealed = progress.partitions.into_iter().filter_map(|partition| {
            let end = partition.seal.as_ref()?.sealed_end()?;
            Some((partition.at, (partition.settled?, end)))
        });
        Ok(sealed.collect())
    }

    /// Says that the worker is paused or drained, once it is.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub(super) fn rest(&mut self) -> Result<(), WorkerError> {
        let Duty::Resting(rest) = &self.duty else { return Ok(()) };
        let leaves = rest.desired.state == DesiredState::Drained;
        #[cfg(feature = "simulation")]
        if Mutant::SealsAfterDrain.is_on() && rest.is_settled() {
            return Ok(());
        }
        if let Some(left) = self.unsettled_work() {
            self.say_unsettled(left);
            return Ok(());
        }
        if !leaves && rest.is_settled() && self.is_as_said() {
            return Ok(());
        }
        let now = self.clock.now();
        if self.following.not_before.is_some_and(|at| now < at) {
            return Ok(());
        }
        let partitions = match self.confirmed_by_the_bus() {
            Ok(partitions) => partitions,
            Err(left) => {
                self.following.not_before = Some(now + ASK_AGAIN);
                self.say_unsettled(left);
                return Ok(());
            }
        };
        #[cfg(feature = "simulation")]
        let leaves = leaves && !Mutant::SealsAfterDrain.is_on();
        if leaves {
            self.leave_group();
        }
        self.say_settled(partitions);
        Ok(())
    }

    /// Whether the partitions of a paused worker are those that it said are settled.
    fn is_as_said(&self) -> bool {
        let Duty::Resting(Rest { progress: RestProgress::Settled(said), .. }) = &self.duty else { return false };
        let is_said = |task: &PartitionTask| {
            let is = settled_partition(&task.at, task.committed_before().map(|held| held.offset));
            said.contains(&is)
        };
        let owned = self.tasks.iter().count() + self.membership.stopped().len();
        owned == said.len() && self.tasks.iter().all(is_said)
    }

    /// What is not settled of this worker's partitions as it knows by itself, for people; `None` when all is.
    fn unsettled_work(&self) -> Option<String> {
        let batches: usize = self.tasks.iter().map(PartitionTask::unsettled_batches).sum();
        #[cfg(feature = "simulation")]
        if Mutant::DrainedBeforeReadBack.is_on() && batches == 0 {
            return None;
        }
        let cause = || {
            let failure =
                self.backend_failures.last_error().map(|error| format!("; backend: {}", without_retry(&error)));
            let letters = || self.dead_letters.last_error().map(|error| format!("; dead letters: {error}"));
            let bus = || self.bus_failures.last_error().map(|error| format!("; bus: {}", without_retry(&error)));
            failure.or_else(letters).or_else(bus).unwrap_or_default()
        };
        if batches > 0 {
            let batches = if batches == 1 { "1 batch".to_owned() } else { format!("{batches} batches") };
            return Some(format!("{batches} in flight{}", cause()));
        }
        if !self.committer.is_idle() || !self.tasks.iter().all(PartitionTask::is_at_rest) {
            return Some(format!("everything is written; the commit that settles it is not answered yet{}", cause()));
        }
        None
    }

    /// Reads back what the group holds: that nothing is sealed, and everything settled that this worker has settled.
    fn confirmed_by_the_bus(&mut self) -> Result<Vec<SettledPartition>, String> {
        let owned: Vec<TopicPartition> =
            self.tasks.iter().map(|task| task.at.clone()).chain(self.membership.stopped().keys().cloned()).collect();
        #[cfg(feature = "simulation")]
        if Mutant::DrainedBeforeReadBack.is_on() {
            let settled = self.tasks.iter().map(|task| settled_partition(&task.at, Some(task.settled())));
            return Ok(settled.collect());
        }
        let held = match self.membership.subscriber() {
            Some(subscriber) if !owned.is_empty() => subscriber.state().get(&owned),
            _ => Ok(Vec::new()),
        };
        let held = held.and_then(|held| match held.len() == owned.len() {
            true => Ok(held),
            false => Err(BusError::Unavailable("not every offset was answered".to_owned())),
        });
        let held = held.map_err(|error| {
            self.bus_failures.note(&error.to_string());
            format!("everything is settled as far as this worker knows; the bus has not confirmed it: {error}")
        })?;
        let mut partitions = Vec::new();
        for (at, held) in owned.iter().zip(&held) {
            self.confirm(at, held.as_ref())?;
            partitions.push(settled_partition(at, held.as_ref().map(|held| held.offset)));
        }
        let is_drained = matches!(&self.duty, Duty::Resting(rest) if rest.desired.state == DesiredState::Drained);
        if is_drained && owned.is_empty() && self.following.found.is_none() {
            // It may have been started a moment ago, after an earlier life of it left batches sealed.
            self.find_sealed()?;
        }
        if !self.following.owed.is_empty() {
            let held = self.sealed_in_the_group()?;
            if let Some(left) = self.still_owed(&held) {
                return Err(left);
            }
        }
        Ok(partitions)
    }

    /// Compares what the group holds with what this worker has committed; a partition that is halted has only the former.
    fn confirm(&self, at: &TopicPartition, held: Option<&Committed>) -> Result<(), String> {
        let halted = || match self.membership.stopped().get(at) {
            Some((_, reason)) => format!(", and the partition is halted: {reason}"),
            None => String::new(),
        };
        if let Some(task) = self.tasks.iter().find(|task| task.at == *at)
            && task.committed_before() != held
        {
            let is = held.map_or("nothing".to_owned(), |held| format!("offset {}", held.offset));
            return Err(format!(
                "the group holds {is} for {at}, and not what this worker committed last ({})",
                task.settled()
            ));
        }
        let Some(held) = held else { return Ok(()) };
        match SealMetadata::parse(held.offset, &held.metadata) {
            Ok(seal) if seal.ends.is_empty() => Ok(()),
            Ok(seal) => {
                let count = seal.ends.len();
                Err(format!("sealed batches of {at} are not settled ({count}){}", halted()))
            }
            Err(error) => Err(format!("whether batches of {at} are sealed is not known: {error}{}", halted())),
        }
    }

    fn say_unsettled(&mut self, left: String) {
        let Duty::Resting(rest) = &self.duty else { return };
        let duty = Duty::Resting(Rest { desired: rest.desired.clone(), progress: RestProgress::Unsettled(left) });
        self.change(duty);
    }

    fn say_settled(&mut self, partitions: Vec<SettledPartition>) {
        let Duty::Resting(rest) = &self.duty else { return };
        let duty = Duty::Resting(Rest { desired: rest.desired.clone(), progress: RestProgress::Settled(partitions) });
        tracing::info!(
            sink = self.options.sink,
            id = rest.desired.id,
            by = rest.desired.issuer,
            reason = rest.desired.reason,
            "{}: everything that this worker had sealed is settled; the records of its partitions stay on the bus, or go to others",
            duty.name()
        );
        self.change(duty);
    }

    /// Leaves the group; what is read and not sealed is dropped from memory.
    fn leave_group(&mut self) {
        let owned: Vec<TopicPartition> = self.tasks.iter().map(|task| task.at.clone()).collect();
        self.note_last_progress(&owned, true);
        for at in &owned {
            self.drop_task(at);
            self.view.forget(at);
        }
        self.unreadable.clear();
        self.stream_check = StreamCheck::default();
        self.membership.leave();
        self.committer.forget();
        self.bus_failures.over();
        self.show_partitions();
    }
}

fn settled_partition(at: &TopicPartition, offset: Option<u64>) -> SettledPartition {
    SettledPartition { partition: at.to_string(), offset }
}
