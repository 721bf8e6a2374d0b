mod committer;
mod leaving;
mod membership;
mod settling;
mod view;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tallybus_bus::{Assignment, Bus, BusError, CommitError, GroupEvent, Subscriber, TopicPartition};
use tallybus_sdk::clock::Clock;
use tallybus_sdk::{BatchLimits, SealMetadata, Shape, Sink, StartAt};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use self::committer::{CommitFailure, Committer, Lost};
use self::membership::Membership;
use self::view::View;
use super::clock::SystemClock;
use super::dead_letter::DeadLetterPublisher;
use super::failure_log::FailureLog;
use super::partition_task::PartitionTask;
use super::partition_tasks::PartitionTasks;
use super::status::{SharedStatus, WorkerStatus};
use super::writer::{EventSender, WriterEvent};

/// Records processed by one poll: few enough that commits and completions are handled in between.
const MAX_RECORDS: usize = 4_096;
/// The polling thread wakes at least this often while dead letters are being published.
const BUSY_WAIT: Duration = Duration::from_millis(5);
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// How long giving up a partition waits for the write in flight; after that the next owner repeats it.
const REVOKE_GRACE: Duration = Duration::from_secs(3);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the ends of partitions are queried, for lag.
const REFRESH_EVERY: Duration = Duration::from_millis(500);
const REFRESH_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a worker waits before it replaces a client that failed for good.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// How often a worker that shall end when caught up queries the progress of its whole group.
const ASK_GROUP_EVERY: Duration = Duration::from_millis(200);

/// The options of a worker.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The sink's name.
    pub sink: String,
    /// Its consumer group.
    pub group: String,
    /// Its topics, in the order of the settings.
    pub topics: Vec<String>,
    /// The topic of its dead letters.
    pub dead_letter_topic: String,
    /// When a batch is full.
    pub limits: BatchLimits,
    /// How events become points. [`Shape::sink`] is filled in from the sink.
    pub shape: Shape,
    /// Where to start in a partition for which the group never committed.
    pub start_at: StartAt,
    /// Lost offset ranges that the operator accepts, as `topic/partition/first-end`.
    pub accept_gaps: Vec<String>,
    /// How long a stop waits for sealed batches.
    pub drain: Duration,
    /// End once everything on the bus is settled.
    pub until_caught_up: bool,
    /// The only topic holds dead letters to be replayed; its index, behind the sink's topics, is
    /// [`Batch::topic_index`].
    ///
    /// [`Batch::topic_index`]: tallybus_sdk::Batch::topic_index
    pub replays: Option<u32>,
}

/// How a worker ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its last state.
    pub status: WorkerStatus,
    /// Whether everything that it had sealed was written and settled. If not, no data is lost: the next owner writes
    /// the same batches.
    pub drained: bool,
}

/// Why a worker cannot run.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// An error of the bus.
    #[error("sink {sink}: {source}")]
    Bus {
        /// The sink's name.
        sink: String,
        /// The cause.
        source: BusError,
    },
    /// The settings are invalid.
    #[error("sink {sink}: {reason}")]
    Settings {
        /// The sink's name.
        sink: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A worker that shall run until caught up has a partition that cannot continue.
    #[error("sink {sink}: {partition} is stopped: {reason}")]
    Stopped {
        /// The sink's name.
        sink: String,
        /// Which partition.
        partition: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// Stops a worker and shows its status, from another thread.
#[derive(Debug, Clone, Default)]
pub struct WorkerHandle {
    stop: Arc<AtomicBool>,
    status: SharedStatus,
}

impl WorkerHandle {
    /// Requests a graceful stop: sealed batches are written and settled, everything else stays on the bus.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// The worker's current status.
    pub fn status(&self) -> WorkerStatus {
        self.status.snapshot()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

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
    tasks: PartitionTasks,
    events: UnboundedReceiver<WriterEvent>,
    dead_letters: DeadLetterPublisher,
    next_token: u64,
    backend_failures: FailureLog,
    bus_failures: FailureLog,
    handle: WorkerHandle,
    view: View,
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
        mut options: WorkerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, WorkerError> {
        options.shape.sink = sink.layout_fingerprint();
        let settings = |reason| WorkerError::Settings { sink: options.sink.clone(), reason };
        options.shape.selector().map_err(settings)?;
        let failed = |source| WorkerError::Bus { sink: options.sink.clone(), source };
        let mut membership = Membership::join(Arc::clone(&bus), &options).map_err(failed)?;
        let limit = membership.subscriber.state().metadata_limit();
        if !SealMetadata::fits(&options.shape, limit) {
            return Err(settings(format!(
                "`select` is too long to be kept beside the offsets ({limit} bytes): shorten it"
            )));
        }
        let dead_letters =
            DeadLetterPublisher::new(&options.sink, &options.dead_letter_topic, bus.publisher().map_err(failed)?);
        let (sender, events) = unbounded_channel();
        let sender = EventSender::new(sender, membership.subscriber.waker());
        Ok(Self {
            tasks: PartitionTasks::new(runtime, sink, sender, Arc::clone(&clock)),
            membership,
            committer: Committer::new(Arc::clone(&clock)),
            events,
            dead_letters,
            next_token: 0,
            backend_failures: FailureLog::new(&options.sink, "the backend", Arc::clone(&clock)),
            bus_failures: FailureLog::new(&options.sink, "the bus", Arc::clone(&clock)),
            handle: WorkerHandle::default(),
            view: View::default(),
            #[cfg(feature = "unsealed-benchmark")]
            unsealed: false,
            bus,
            clock,
            options,
        })
    }

    /// Disables the guarantee: batches are written before anything is committed, so that a repeated write counts twice.
    /// Only for the benchmark that measures the cost of sealing; no setting enables it.
    #[cfg(feature = "unsealed-benchmark")]
    #[must_use]
    pub fn without_seals(mut self) -> Self {
        self.unsealed = true;
        self
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

    /// One iteration. The order matters:
    ///
    /// 1. Records and group events come in: assigned and revoked partitions, the answer to the last commit.
    /// 2. Written batches are settled and old ones closed, so that the next commit covers all of them. Flow control may
    ///    close batches too.
    /// 3. A commit in doubt is read back before the next one is planned: one commit is in flight at a time.
    /// 4. One commit settles and seals, of all partitions at once.
    /// 5. The remaining steps publish the status and do not block.
    fn run_once(&mut self) -> Result<(), WorkerError> {
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
        self.read_back();
        self.commit()?;
        self.restart_writers();
        self.refresh_status(false);
        self.refresh_last_error();
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
        match self.committer.commit(&mut self.tasks, self.membership.subscriber.as_mut()) {
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

    fn read_back(&mut self) {
        match self.committer.read_back(&mut self.tasks, self.membership.subscriber.as_mut()) {
            Ok(lost) => self.give_up(lost),
            Err(error) => self.bus_failures.note(&error.to_string()),
        }
    }

    fn give_up(&mut self, lost: Vec<Lost>) {
        for lost in lost {
            match lost {
                Lost::Taken(at) => {
                    tracing::warn!(
                        sink = self.options.sink,
                        partition = %at,
                        "another worker has taken the partition over"
                    );
                    self.drop_task(&at);
                }
                Lost::Stopped(at, reason) => self.stop_partition(&at, reason),
            }
        }
    }

    fn poll(&mut self, timeout: Duration) -> Result<(), WorkerError> {
        let (tasks, clock) = (&mut self.tasks, &self.clock);
        // When the first record arrived: a poll may have waited long for it.
        let mut now = None;
        let mut broken = None;
        let mut each = |record: tallybus_bus::Record<'_>| {
            let now = *now.get_or_insert_with(|| clock.now());
            tasks.accept(&record, now).unwrap_or_else(|reason| {
                broken.get_or_insert(reason);
                ControlFlow::Continue(())
            })
        };
        let polled = self.membership.subscriber.poll(timeout, MAX_RECORDS, &mut each);
        if let Some((at, reason)) = broken {
            self.stop_partition(&at, reason);
        }
        match polled {
            Ok(event) => event.map_or(Ok(()), |event| self.take_group_event(event)),
            Err(error) if error.is_transient() => {
                self.bus_failures.note(&error.to_string());
                self.clock.sleep(timeout.min(IDLE_WAIT));
                Ok(())
            }
            Err(BusError::Fatal(reason)) => self.rejoin(&reason),
            // Records read before the gap are settled first; the group's offset then decides whether the partition can
            // continue.
            Err(error @ BusError::Gone { .. }) => {
                let owned: Vec<TopicPartition> = self.tasks.iter().map(|task| task.at.clone()).collect();
                self.settle_before_leaving(&owned, REVOKE_GRACE);
                self.rejoin(&error.to_string())
            }
            Err(source) => Err(WorkerError::Bus { sink: self.options.sink.clone(), source }),
        }
    }

    /// The client has failed for good: every partition is given up without a final commit, as if the worker had been
    /// killed.
    fn rejoin(&mut self, reason: &str) -> Result<(), WorkerError> {
        tracing::error!(
            sink = self.options.sink,
            reason,
            "the subscription failed; rejoining the group (no data lost)"
        );
        let owned: Vec<TopicPartition> = self.tasks.iter().map(|task| task.at.clone()).collect();
        owned.iter().for_each(|at| self.drop_task(at));
        self.committer.forget();
        loop {
            self.clock.sleep(REJOIN_AFTER);
            self.note_run();
            match self.membership.join_again(&self.options) {
                Ok(()) => {
                    self.tasks.set_waker(self.membership.subscriber.waker());
                    return Ok(());
                }
                Err(error) if error.is_transient() => self.bus_failures.note(&error.to_string()),
                Err(source) => return Err(WorkerError::Bus { sink: self.options.sink.clone(), source }),
            }
            if self.handle.is_stopped() {
                return Ok(());
            }
        }
    }

    fn take_group_event(&mut self, event: GroupEvent) -> Result<(), WorkerError> {
        match event {
            GroupEvent::Assigned(assignments) => self.assigned(assignments),
            GroupEvent::Revoked(partitions) => {
                self.settle_before_leaving(&partitions, REVOKE_GRACE);
                self.release(&partitions)
            }
            GroupEvent::Lost(partitions) => {
                tracing::warn!(
                    sink = self.options.sink,
                    partitions = partitions.len(),
                    "partitions were lost to another worker"
                );
                self.release(&partitions)
            }
            GroupEvent::Committed(answers) => {
                self.committed(answers);
                Ok(())
            }
            GroupEvent::End(at) => {
                if let Some(owned) = self.tasks.get_mut(&at) {
                    match owned.task.reached_end() {
                        Ok(()) => owned.hand_over(),
                        Err(reason) => self.stop_partition(&at, reason),
                    }
                }
                Ok(())
            }
        }
    }

    fn bus_call(&mut self, call: impl FnOnce(&mut dyn Subscriber) -> Result<(), BusError>) -> Result<(), WorkerError> {
        match call(self.membership.subscriber.as_mut()) {
            Ok(()) => Ok(()),
            Err(error) => self.rejoin(&error.to_string()),
        }
    }

    /// Starts the assigned partitions; one that cannot continue stays owned and stopped.
    fn assigned(&mut self, assignments: Vec<Assignment>) -> Result<(), WorkerError> {
        let mut starts = Vec::new();
        for assignment in assignments {
            let at = assignment.at.clone();
            match self.membership.begin(assignment, &self.options, self.tasks.sink()) {
                Ok((task, offset)) => {
                    self.membership.forget(&at);
                    self.tasks.add(task);
                    starts.push((at, offset));
                }
                Err(reason) => {
                    tracing::error!(
                        sink = self.options.sink,
                        partition = %at,
                        reason,
                        "partition halted: needs operator action"
                    );
                    self.membership.stop(at, reason);
                }
            }
        }
        let stopped = self.membership.stopped().len();
        tracing::info!(sink = self.options.sink, partitions = starts.len(), stopped, "partitions assigned");
        self.bus_call(|subscriber| subscriber.start(&starts))
    }

    fn committed(&mut self, answers: Vec<(TopicPartition, Result<(), CommitError>)>) {
        for error in self.committer.answered(answers, &mut self.tasks) {
            self.handle.status.update(|status| status.failed_commits += 1);
            self.bus_failures.note(&error.to_string());
        }
    }

    fn finish(mut self) -> Outcome {
        let partitions: Vec<TopicPartition> = self.tasks.iter().map(|task| task.at.clone()).collect();
        let drained = self.settle_before_leaving(&partitions, self.options.drain);
        self.refresh_status(true);
        self.refresh_last_error();
        let status = self.handle.status.snapshot();
        self.tasks.clear();
        self.membership.leave();
        Outcome { status, drained }
    }
}
