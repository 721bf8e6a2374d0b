mod committer;
mod group;
mod interface;
mod leaving;
mod membership;
mod rest;
mod settling;
mod streams;
mod turns;
mod unreadable;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::{Bus, CommitError, PollWaker, TopicPartition};
use tallybus_sdk::clock::Clock;
use tallybus_sdk::{SealMetadata, Sink};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::committer::{CommitFailure, Committer};
pub use self::interface::{Outcome, WorkerError, WorkerHandle, WorkerOptions};
use self::membership::Membership;
use self::rest::Following;
use self::streams::StreamCheck;
use self::turns::Turns;
use self::view::View;
use super::clock::SystemClock;
use super::dead_letter::DeadLetterPublisher;
use super::duty::{Duty, Wanted};
use super::failure_log::FailureLog;
use super::notes::ProgressNotes;
use super::partition_task::PartitionTask;
use super::partition_tasks::PartitionTasks;
use super::pulse::Pulse;
use super::readiness::Gate;
use super::writer::{EventSender, WriterEvent};

/// The polling thread wakes at least this often while dead letters are being published.
const BUSY_WAIT: Duration = Duration::from_millis(5);
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// How long giving up a partition waits for the write in flight; after that the next owner repeats it.
const REVOKE_GRACE: Duration = Duration::from_secs(3);
/// How long the end of a worker waits for its last notes of progress.
const LAST_NOTES: Duration = Duration::from_secs(2);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same while the bus does not answer.
const COMMIT_TIMEOUT_AWAY: Duration = Duration::from_millis(300);
/// How often the ends of partitions are queried, for lag.
const REFRESH_EVERY: Duration = Duration::from_millis(500);
const REFRESH_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How often a worker that shall end when caught up queries the progress of its whole group.
const ASK_GROUP_EVERY: Duration = Duration::from_millis(200);

/// Writes one sink's stream. [`Worker::run`] blocks; give it a thread of its own.
///
/// Three parts with separate state: the partitions it owns (`Membership`), its commits (`Committer`), and the
/// partitions in progress (`PartitionTasks`). `Worker::run_once` calls them in an order that matters.
pub struct Worker {
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    options: WorkerOptions,
    membership: Membership,
    committer: Committer,
    stream_check: StreamCheck,
    tasks: PartitionTasks,
    events: UnboundedReceiver<WriterEvent>,
    dead_letters: DeadLetterPublisher,
    /// `None` on a bus that forgets no group.
    notes: Option<ProgressNotes>,
    next_token: u64,
    backend_failures: FailureLog,
    bus_failures: FailureLog,
    handle: WorkerHandle,
    duty: Duty,
    following: Following,
    view: View,
    pulse: Pulse,
    turns: Turns,
    /// Partitions whose next record cannot be read, and why: each is stopped once everything before it is settled.
    unreadable: BTreeMap<TopicPartition, String>,
    #[cfg(feature = "unsealed-benchmark")]
    unsealed: bool,
}

impl Worker {
    /// Joins the sink's group.
    ///
    /// # Errors
    /// The settings are invalid, or the bus refuses. An unavailable bus is not an error.
    pub fn new(
        bus: Arc<dyn Bus>,
        sink: Arc<dyn Sink>,
        runtime: Handle,
        options: WorkerOptions,
    ) -> Result<Self, WorkerError> {
        Self::with_clock(bus, sink, runtime, options, Arc::new(SystemClock))
    }

    /// The same with another clock.
    ///
    /// # Errors
    /// As [`Worker::new`].
    pub fn with_clock(
        bus: Arc<dyn Bus>,
        sink: Arc<dyn Sink>,
        runtime: Handle,
        options: WorkerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WorkerError> {
        let mut worker = Self::outside(bus, sink, runtime, options, clock)?;
        let joined = worker.membership.join_again(&worker.options);
        joined.map_err(|source| WorkerError::Bus { sink: worker.options.sink.clone(), source })?;
        worker.check_metadata_limit()?;
        if let Some(waker) = worker.membership.waker() {
            worker.tasks.set_waker(waker);
        }
        Ok(worker)
    }

    /// The same, for a worker that follows what operators want: it waits until [`WorkerHandle::want`] says what that is, before
    /// it joins its group.
    ///
    /// # Errors
    /// As [`Worker::new`], but what the bus refuses when it joins is an error of [`Worker::run`].
    pub fn controlled(
        bus: Arc<dyn Bus>,
        sink: Arc<dyn Sink>,
        runtime: Handle,
        options: WorkerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WorkerError> {
        let mut worker = Self::outside(bus, sink, runtime, options, clock)?;
        worker.duty = Duty::Waiting("the desired states are read".to_owned());
        worker.handle.want(Wanted::Unknown("the desired states are read".to_owned()));
        let duty = worker.duty.clone();
        worker.handle.status.update(|status| status.duty = duty);
        Ok(worker)
    }

    /// A worker that is no member of its group yet.
    fn outside(
        bus: Arc<dyn Bus>,
        sink: Arc<dyn Sink>,
        runtime: Handle,
        mut options: WorkerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WorkerError> {
        options.shape.sink = sink.layout_fingerprint();
        let settings = |reason| WorkerError::Settings { sink: options.sink.clone(), reason };
        options.shape.selector().map_err(settings)?;
        let failed = |source| WorkerError::Bus { sink: options.sink.clone(), source };
        let membership = Membership::outside(Arc::clone(&bus));
        let dead_letters =
            DeadLetterPublisher::new(&options.sink, &options.dead_letter_topic, bus.publisher().map_err(failed)?);
        let (sender, events) = unbounded_channel();
        // There is no writer before there is a member, whose waker it gets.
        let sender = EventSender::new(sender, PollWaker::new(|| {}));
        let notes = bus.forgets_groups().then(|| {
            let failures = FailureLog::new(&options.sink, "noting the group's progress", Arc::clone(&clock));
            ProgressNotes::new(&options.progress_topic, &options.group, clock.now(), failures)
        });
        let owner = options.owner(sink.as_ref());
        let handle = WorkerHandle::default();
        let counters = Arc::clone(handle.status.counters());
        let writers_clock: Arc<dyn Clock> = Arc::new(handle.retries.clock(Arc::clone(&clock)));
        Ok(Self {
            notes,
            tasks: PartitionTasks::new(runtime, sink, &options.sink, owner, sender, counters, writers_clock),
            membership,
            committer: Committer::new(Arc::clone(&clock)),
            stream_check: StreamCheck::default(),
            events,
            dead_letters,
            next_token: 0,
            backend_failures: FailureLog::new(&options.sink, "the backend", Arc::clone(&clock)),
            bus_failures: FailureLog::new(&options.sink, "the bus", Arc::clone(&clock)),
            handle,
            duty: Duty::default(),
            following: Following::default(),
            view: View::default(),
            pulse: Pulse::new(&options.sink, Arc::clone(&clock)),
            turns: Turns::new(Arc::clone(&clock)),
            unreadable: BTreeMap::new(),
            #[cfg(feature = "unsealed-benchmark")]
            unsealed: false,
            bus,
            clock,
            options,
        })
    }

    /// Commits name a batch's shape, which has to fit into what the bus keeps beside an offset.
    fn check_metadata_limit(&mut self) -> Result<(), WorkerError> {
        let Some(subscriber) = self.membership.subscriber() else { return Ok(()) };
        let limit = subscriber.state().metadata_limit();
        if SealMetadata::fits(&self.options.shape, limit) {
            return Ok(());
        }
        let reason = format!("`select` is too long to be kept beside the offsets ({limit} bytes): shorten it");
        Err(WorkerError::Settings { sink: self.options.sink.clone(), reason })
    }

    /// Disables the guarantee: batches are written before anything is committed, so that a repeated write counts twice.
    /// Only for the benchmark that measures the cost of sealing; no setting enables it.
    #[cfg(feature = "unsealed-benchmark")]
    #[must_use]
    pub fn without_seals(mut self) -> Self {
        self.unsealed = true;
        self
    }

    /// The check beside the worker knows whether the backend was ready once.
    pub(crate) fn set_gate(&mut self, gate: Gate) {
        self.tasks.set_gate(gate);
    }

    /// The handle that stops the worker while it runs, and shows its status.
    pub fn handle(&self) -> WorkerHandle {
        self.handle.clone()
    }

    /// Runs until it is stopped or, where requested, caught up.
    ///
    /// # Errors
    /// Only errors that need operator action; transient errors are retried.
    pub fn run(mut self) -> Result<Outcome, WorkerError> {
        while !self.handle.is_stopped() {
            self.run_once()?;
            if self.options.until_caught_up && self.is_caught_up()? {
                break;
            }
        }
        Ok(self.finish())
    }

    /// One iteration, on the caller's thread: for a simulation, which decides when each worker runs.
    ///
    /// # Errors
    /// As [`Worker::run`].
    #[cfg(feature = "simulation")]
    pub fn step(&mut self) -> Result<(), WorkerError> {
        self.run_once()
    }

    /// Ends a worker that was stepped, as [`Worker::run`] does when it is stopped. One that is dropped instead was killed.
    #[cfg(feature = "simulation")]
    pub fn end(self) -> Outcome {
        self.finish()
    }

    /// One iteration. The order matters:
    ///
    /// 1. Records and group events come in: assigned and revoked partitions, the answer to the last commit.
    /// 2. Written batches are settled and old ones closed, so that the next commit covers all of them. Flow control may
    ///    close batches too.
    /// 3. A query confirms that the topics of closed batches were not recreated; only confirmed batches are sealed, and the
    ///    first of them only after the destination holds the sink's claim on the partition.
    /// 4. A commit in doubt is read back before the next one is planned: one commit is in flight at a time.
    /// 5. One commit settles and seals, of all partitions at once.
    /// 6. A worker that is to rest says so once nothing of it is sealed or in flight any more.
    /// 7. The remaining steps publish the status and do not block.
    ///
    /// What operators want is looked at first: after it nothing more is sealed.
    fn run_once(&mut self) -> Result<(), WorkerError> {
        self.turns.begin();
        if !self.follow()? {
            self.stand_by();
            return Ok(());
        }
        let timeout = self.poll_timeout();
        self.poll(timeout)?;
        self.take_events();
        self.take_published_dead_letters();
        let now = self.clock.now();
        self.tasks.iter_mut().for_each(|task| task.close_if_due(now));
        self.control_flow()?;
        #[cfg(feature = "unsealed-benchmark")]
        if self.unsealed {
            self.tasks.write_unsealed();
        }
        self.query_streams();
        self.tasks.take_claims();
        self.read_back();
        self.commit()?;
        self.rest()?;
        self.note_progress();
        self.restart_writers();
        self.refresh_status(false);
        self.refresh_last_error();
        self.pulse.beat(|| self.handle.status.snapshot());
        self.note_run();
        Ok(())
    }

    /// How long to wait for records. Everything else that the worker waits for wakes this thread.
    fn poll_timeout(&self) -> Duration {
        let longest = if self.dead_letters.is_idle() { IDLE_WAIT } else { BUSY_WAIT };
        let due = self.tasks.iter().filter_map(PartitionTask::due_at).min();
        due.map_or(longest, |due| due.saturating_duration_since(self.clock.now()).min(longest))
    }

    /// Records that the loop is alive.
    fn note_run(&self) {
        let now = self.clock.now();
        self.handle.status.update(|status| status.last_run = Some(now));
    }

    fn commit(&mut self) -> Result<(), WorkerError> {
        let Some(subscriber) = self.membership.subscriber() else { return Ok(()) };
        match self.committer.commit(&mut self.tasks, subscriber) {
            Ok(lost) => {
                self.give_up(lost);
                Ok(())
            }
            Err(CommitFailure::Unsent(error)) => {
                self.bus_failures.note(&error.to_string());
                Ok(())
            }
            Err(CommitFailure::Fatal(error)) => self.rejoin(&error.to_string()),
        }
    }

    /// Notes what the group has committed, for a bus that may forget it.
    fn note_progress(&mut self) {
        let Some(notes) = &mut self.notes else { return };
        if self.bus_failures.is_failing() {
            return notes.put_off(self.clock.now(), &mut self.dead_letters);
        }
        let committed = self.tasks.iter().filter_map(PartitionTask::committed_offset);
        notes.note(self.clock.now(), committed, &mut self.dead_letters);
    }

    /// The last notes of these partitions, which another worker may own next. `is_settled`: whether the final commit was
    /// acknowledged. Does not wait for the bus. A bus that does not answer takes no notes either; older ones stay.
    fn note_last_progress(&mut self, partitions: &[TopicPartition], is_settled: bool) {
        let Some(notes) = &mut self.notes else { return };
        if self.bus_failures.is_failing() {
            return;
        }
        let tasks = self.tasks.iter().filter(|task| partitions.contains(&task.at));
        let committed = tasks.filter_map(|task| {
            let (at, stream, offset) = task.committed_offset()?;
            Some((at, stream, if is_settled { task.settled() } else { offset }))
        });
        notes.note_now(committed, &mut self.dead_letters);
    }

    fn read_back(&mut self) {
        let Some(subscriber) = self.membership.subscriber() else { return };
        match self.committer.read_back(&mut self.tasks, subscriber) {
            Ok(lost) => self.give_up(lost),
            Err(error) => self.bus_failures.note(&error.to_string()),
        }
    }

    fn committed(&mut self, answers: Vec<(TopicPartition, Result<(), CommitError>)>) {
        let (count, errors) = self.committer.answered(answers, &mut self.tasks);
        self.handle.status.update(|status| status.failed_commits += count);
        for error in errors {
            self.bus_failures.note(&error.to_string());
        }
    }

    /// Waits a short time until the bus has the last notes.
    fn await_notes(&mut self) {
        let until = self.clock.now() + LAST_NOTES;
        while self.notes.is_some() && self.dead_letters.is_sending() && self.clock.now() < until {
            let _published = self.dead_letters.poll(self.clock.now());
            self.clock.sleep(BUSY_WAIT);
        }
    }

    fn finish(mut self) -> Outcome {
        let partitions: Vec<TopicPartition> = self.tasks.iter().map(|task| task.at.clone()).collect();
        let drained = self.settle_before_leaving(&partitions, self.options.drain);
        // A bus that does not answer is not asked again: the last numbers stay.
        if !self.bus_failures.is_failing() {
            self.refresh_status(true);
        }
        self.refresh_last_error();
        let status = self.handle.status.snapshot();
        self.await_notes();
        // Nothing is written for a partition that another member may have.
        drop(self.tasks);
        self.membership.leave();
        Outcome { status, drained }
    }
}

#[cfg(test)]
mod tests;
