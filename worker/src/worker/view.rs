//! Flow control, the status, and whether the worker is caught up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tallybus_bus::{Observer, TopicPartition};
use tallybus_sdk::progress::{GroupProgress, ProgressError};

use super::{ASK_GROUP_EVERY, REFRESH_AFTER_FAILURE, REFRESH_EVERY, Worker, WorkerError};
use crate::descriptors::{Descriptors, FOR_A_CONNECTION};
use crate::duty::Duty;
use crate::failure_log::without_retry;
use crate::scale::ScaleWindow;
use crate::status::{PartitionState, PartitionStatus};

/// A worker that is refused asks again more often than this.
const REFUSAL_LASTS: Duration = Duration::from_secs(15);

/// The worker's view of its partitions, beside the tasks.
#[derive(Default)]
pub(super) struct View {
    /// The ends of the partitions when they were last queried.
    ends: BTreeMap<TopicPartition, u64>,
    refresh_at: Option<Instant>,
    asked_group: Option<Instant>,
    descriptors: Descriptors,
    scale: ScaleWindow,
    /// When the bus last refused access.
    refused_at: Option<Instant>,
    /// Created when the group's progress is first queried.
    observer: Option<Box<dyn Observer>>,
}

impl View {
    pub(super) fn forget(&mut self, at: &TopicPartition) {
        self.ends.remove(at);
    }

    /// The bus refuses access.
    pub(super) fn refused(&mut self, now: Instant) {
        self.refused_at = Some(now);
    }

    /// Whether the bus has refused access lately: that it answers a question that needs fewer rights does not end the failure.
    fn is_refused(&self, now: Instant) -> bool {
        self.refused_at.is_some_and(|at| now.saturating_duration_since(at) < REFUSAL_LASTS)
    }
}

impl Worker {
    /// Pauses the partitions whose tasks are crowded, or of which nothing may be sealed; the bus is the only buffer.
    pub(super) fn control_flow(&mut self) -> Result<(), WorkerError> {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        let over = self.tasks.is_over();
        for task in self.tasks.iter_mut() {
            // A partition without finished batches continues, however many the other partitions have: each makes
            // progress.
            if !task.paused && (task.wants_no_records() || task.is_crowded() || over && !task.is_idle()) {
                task.paused = true;
                pause.push(task.at.clone());
            } else if task.paused && !task.wants_no_records() && task.has_capacity() && (!over || task.is_idle()) {
                task.paused = false;
                resume.push(task.at.clone());
            }
        }
        if !pause.is_empty() {
            self.bus_call(|subscriber| subscriber.pause(&pause))?;
        }
        if !resume.is_empty() {
            self.bus_call(|subscriber| subscriber.resume(&resume))?;
        }
        Ok(())
    }

    /// Refreshes the ends of the partitions and the status at intervals.
    pub(super) fn refresh_status(&mut self, now: bool) {
        if !now && self.view.refresh_at.is_some_and(|at| self.clock.now() < at) {
            return;
        }
        self.view.refresh_at = Some(self.clock.now() + REFRESH_EVERY);
        let mut asked: Vec<TopicPartition> = self.tasks.iter().map(|task| task.at.clone()).collect();
        if asked.is_empty() {
            // A member without partitions, as one has that lost them because the bus is away, asks for one all the same: it
            // would not notice otherwise that the bus does not answer, or does again.
            asked.extend(self.options.topics.first().map(|topic| TopicPartition::new(topic, 0)));
        }
        let Some(subscriber) = self.membership.subscriber() else { return };
        match subscriber.ranges(&asked) {
            Ok(ranges) => {
                if !self.view.is_refused(self.clock.now()) {
                    self.bus_failures.over();
                }
                for (task, range) in self.tasks.iter_mut().zip(ranges) {
                    task.observe_end(range.end);
                    self.view.ends.insert(task.at.clone(), range.end);
                }
            }
            // Of a partition that this member does not own, and that may not exist: the bus has answered.
            Err(error) if self.tasks.is_empty() && !error.is_transient() && !error.is_refusal() => {
                self.bus_failures.over();
            }
            Err(error) => {
                // The query may have taken a while, so the next interval starts now.
                self.bus_failures.note(&error.to_string());
                self.view.refresh_at = Some(self.clock.now() + REFRESH_AFTER_FAILURE);
            }
        }
        self.show_partitions();
    }

    /// The status of a worker that is no member of its group.
    pub(super) fn refresh_outside(&mut self) {
        let now = self.clock.now();
        if self.view.refresh_at.is_some_and(|at| now < at) {
            return;
        }
        self.view.refresh_at = Some(now + REFRESH_EVERY);
        self.show_partitions();
    }

    pub(super) fn show_partitions(&mut self) {
        let ends = &self.view.ends;
        let running = self.tasks.iter_mut().map(|task| {
            let end = ends.get(&task.at).map(|end| (*end).max(task.next()));
            let (oldest, state) = (task.oldest(), PartitionState::Running);
            (task.at.to_string(), PartitionStatus { settled: task.settled(), next: task.next(), end, oldest, state })
        });
        let stopped = self.membership.stopped().iter().map(|(at, (cause, reason))| {
            let state = PartitionState::Stopped { cause: *cause, reason: reason.clone() };
            (at.to_string(), PartitionStatus { settled: 0, next: 0, end: None, oldest: None, state })
        });
        let partitions = running.chain(stopped).collect();
        let batches = self.tasks.iter().map(|task| (task.at.to_string(), task.batches())).collect();
        let (memory, dead_letters) = (self.tasks.memory(), self.dead_letters.published());
        let is_member = self.membership.is_member();
        let (now, wall_time, scale) = (self.clock.now(), self.clock.wall_time(), &mut self.view.scale);
        let counters = self.handle.status.counters();
        self.handle.status.update(|status| {
            status.partitions = partitions;
            status.batches_in_memory = batches;
            status.is_member = is_member;
            status.memory = memory;
            status.dead_letters = dead_letters;
            status.scale_hint = scale.hint(now, wall_time, status, counters);
        });
    }

    /// Whether the whole group has settled everything on the bus; partitions of other members count too.
    pub(super) fn is_caught_up(&mut self) -> Result<bool, WorkerError> {
        self.check_descriptors()?;
        match &self.duty {
            Duty::Running(_) => {}
            Duty::Waiting(_) => return Ok(false),
            Duty::Resting(rest) => {
                let (sink, reason) = (self.options.sink.clone(), rest.desired.why());
                return Err(WorkerError::Resting { sink, state: rest.desired.state.name(), reason });
            }
        }
        let stopped = |partition: String, reason: String| {
            let sink = self.options.sink.clone();
            Err(WorkerError::Stopped { sink, partition, reason })
        };
        if let Some((at, (_, reason))) = self.membership.stopped().iter().next() {
            return stopped(at.to_string(), reason.clone());
        }
        if let Some(at) = self.tasks.halted() {
            let reason = self.backend_failures.reason_of(at).unwrap_or_default();
            return stopped(at.to_string(), without_retry(reason).to_owned());
        }
        if !self.dead_letters.is_idle() || self.tasks.iter().any(|task| !task.is_caught_up()) {
            return Ok(false);
        }
        let now = self.clock.now();
        if self.view.asked_group.is_some_and(|at| now - at < ASK_GROUP_EVERY) {
            return Ok(false);
        }
        self.view.asked_group = Some(now);
        let progress = match self.ask_group() {
            Ok(progress) => progress,
            Err(ProgressError::Bus(error)) if error.is_transient() => {
                self.bus_failures.note(&error.to_string());
                return Ok(false);
            }
            Err(ProgressError::Bus(source)) => {
                return Err(WorkerError::Bus { sink: self.options.sink.clone(), source });
            }
            Err(error @ ProgressError::Seal { .. }) => {
                let sink = self.options.sink.clone();
                return Err(WorkerError::Settings { sink, reason: error.to_string() });
            }
        };
        // All partitions of this worker are caught up already.
        let is_own = |at: &TopicPartition| self.tasks.iter().any(|task| task.at == *at);
        let others = progress.partitions.iter().filter(|partition| !is_own(&partition.at));
        let are_settled = others.into_iter().all(|partition| partition.is_settled());
        Ok(are_settled && (!self.tasks.is_empty() || self.options.topics.is_empty()))
    }

    /// A worker that shall end does not wait for descriptors that only a restart with a higher limit gives it.
    pub(super) fn check_descriptors(&mut self) -> Result<(), WorkerError> {
        let needed = if self.tasks.is_empty() { FOR_A_CONNECTION } else { 1 };
        if self.view.descriptors.have_run_out(self.clock.now(), needed) {
            return Err(WorkerError::Descriptors { sink: self.options.sink.clone() });
        }
        Ok(())
    }

    pub(super) fn ask_group(&mut self) -> Result<GroupProgress, ProgressError> {
        let observer = match self.view.observer.take() {
            Some(observer) => observer,
            None => self.bus.observer()?,
        };
        let observer = self.view.observer.insert(observer);
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        GroupProgress::read(observer.as_ref(), &self.options.group, &topics)
    }
}
