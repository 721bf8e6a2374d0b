mod commits;
mod look;
mod ownership;
mod settling;

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Commit, GroupOptions, Notice, Observer, Subscriber, TopicPartition};
use tallybus_sdk::{BatchLimits, SealNote, Shape, Sink, StartAt};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::dead_letter::DeadLetterDesk;
use super::lane::Lane;
use super::lanes::Lanes;
use super::status::{SharedStatus, WorkerStatus};
use super::trouble::TroubleLog;
use super::writer::{Report, Reporter};

/// Records handed over by one poll: few enough that commits and completions are served in between.
const MAX_RECORDS: usize = 4_096;
/// A dead letter that was taken waits at most so long for the polling thread.
const BUSY_WAIT: Duration = Duration::from_millis(5);
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// A partition that is taken away waits so long for the write in flight; after that the next owner repeats it.
const REVOKE_GRACE: Duration = Duration::from_secs(3);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// A commit without an answer is read back after so long, so that the broker has taken or dropped it by then.
const READ_BACK_AFTER: Duration = Duration::from_secs(1);
/// How often ends of partitions are looked up for lag.
const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a worker waits between a client that failed for good and the next.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// How often a worker that shall end when caught up asks how far the rest of its group is.
const ASK_GROUP_EVERY: Duration = Duration::from_millis(200);

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The sink's name.
    pub sink: String,
    /// Its consumer group.
    pub group: String,
    /// Its topics, in the order of the settings.
    pub topics: Vec<String>,
    /// Where its dead letters go.
    pub dead_topic: String,
    /// When a batch is full.
    pub limits: BatchLimits,
    /// What events become. [`Shape::sink`] is filled in from the sink.
    pub shape: Shape,
    /// Where a partition starts that the group never committed.
    pub start_at: StartAt,
    /// Lost offset ranges that the operator accepts, as `topic/partition/first-end`.
    pub accept_gaps: Vec<String>,
    /// How long a stop waits for what is sealed.
    pub drain: Duration,
    /// Ends once everything there was is settled.
    pub until_caught_up: bool,
    /// The one topic holds dead letters, to be written again; its place behind the sink's topics is [`Batch::topic_index`].
    ///
    /// [`Batch::topic_index`]: tallybus_sdk::Batch::topic_index
    pub replays: Option<u32>,
}

/// How a worker ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its last state.
    pub status: WorkerStatus,
    /// Whether everything that it had sealed was written and settled. When not, nothing is lost: the next owner writes
    /// the same batches.
    pub drained: bool,
}

/// Why a worker cannot work.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The bus: see there.
    #[error("sink {sink}: {source}")]
    Bus {
        /// The sink's name.
        sink: String,
        /// What went wrong.
        source: BusError,
    },
    /// The settings cannot work.
    #[error("sink {sink}: {reason}")]
    Settings {
        /// The sink's name.
        sink: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Asked to run until caught up, and a partition cannot go on.
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

/// Asks a worker to stop, and looks at it, from another thread.
#[derive(Debug, Clone, Default)]
pub struct StopHandle {
    stop: Arc<AtomicBool>,
    status: SharedStatus,
}

impl StopHandle {
    /// Asks for a graceful stop: what is sealed is written and settled, what is not stays on the bus.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// What the worker is doing.
    pub fn status(&self) -> WorkerStatus {
        self.status.snapshot()
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// Writes one sink's stream. [`Worker::run`] blocks; give it a thread of its own.
pub struct Worker {
    bus: Arc<dyn Bus>,
    options: WorkerOptions,
    subscriber: Box<dyn Subscriber>,
    lanes: Lanes,
    reports: UnboundedReceiver<Report>,
    letters: DeadLetterDesk,
    /// Written batches that wait for dead letters, their own or an earlier batch's, by epoch and in order.
    written: HashMap<u64, VecDeque<Written>>,
    next_token: u64,
    /// Partitions that are owned but cannot go on, and why.
    stopped: HashMap<TopicPartition, String>,
    in_flight: Option<Vec<InFlight>>,
    /// Commits without an answer, to be read back at that time.
    doubtful: Option<(Instant, Vec<InFlight>)>,
    next_epoch: u64,
    trouble: TroubleLog,
    bus_trouble: TroubleLog,
    handle: StopHandle,
    ends: HashMap<TopicPartition, u64>,
    unsealed: bool,
    look_next: Option<Instant>,
    asked_group: Option<Instant>,
    /// Made when the group is asked about first.
    observer: Option<Box<dyn Observer>>,
}

/// A batch that is in, but for its dead letters.
struct Written {
    end: u64,
    requests: u64,
    /// Its letters at the desk; `None` when they are all on the bus.
    letters: Option<u64>,
}

/// A commit on its way.
struct InFlight {
    epoch: u64,
    commit: Commit,
    /// Whether it was refused, as that of a member who does not own the partition.
    refused: bool,
}

impl Worker {
    /// Joins the sink's group.
    ///
    /// # Errors
    /// The settings cannot work, or the bus refuses. A bus that is merely away is no error.
    pub fn new(
        bus: Arc<dyn Bus>,
        sink: Arc<dyn Sink>,
        runtime: Handle,
        mut options: WorkerOptions,
    ) -> Result<Self, WorkerError> {
        options.shape.sink = sink.shape();
        let settings = |reason| WorkerError::Settings { sink: options.sink.clone(), reason };
        options.shape.selector().map_err(settings)?;
        if !SealNote::fits(&options.shape) {
            return Err(settings(
                "`select` is too long to be kept beside the offsets (4,096 bytes): shorten it".to_owned(),
            ));
        }
        let failed = |source| WorkerError::Bus { sink: options.sink.clone(), source };
        let subscriber = subscribe(bus.as_ref(), &options).map_err(failed)?;
        let letters = DeadLetterDesk::new(&options.sink, &options.dead_topic, bus.publisher().map_err(failed)?);
        let (report, reports) = unbounded_channel();
        Ok(Self {
            lanes: Lanes::new(runtime, sink, Reporter::new(report, subscriber.waker())),
            subscriber,
            reports,
            letters,
            written: HashMap::new(),
            next_token: 0,
            stopped: HashMap::new(),
            in_flight: None,
            doubtful: None,
            next_epoch: 0,
            trouble: TroubleLog::new(&options.sink, "the backend"),
            bus_trouble: TroubleLog::new(&options.sink, "the bus"),
            handle: StopHandle::default(),
            ends: HashMap::new(),
            unsealed: false,
            look_next: None,
            asked_group: None,
            observer: None,
            bus,
            options,
        })
    }

    /// Takes the promise away: batches are written before anything is committed, so that what is written twice counts twice.
    /// For the benchmark of what sealing costs, and for nothing else; no setting leads here.
    #[doc(hidden)]
    #[must_use]
    pub fn without_seals(mut self) -> Self {
        self.unsealed = true;
        self
    }

    /// Stops and looks at the worker while it runs.
    pub fn handle(&self) -> StopHandle {
        self.handle.clone()
    }

    /// Works until it is stopped, or caught up where that was asked for.
    ///
    /// # Errors
    /// Only what the operator must mend; whatever may pass by itself is waited for.
    pub fn run(mut self) -> Result<Outcome, WorkerError> {
        while !self.handle.is_stopped() {
            self.turn()?;
            if self.options.until_caught_up && self.is_caught_up()? {
                break;
            }
        }
        Ok(self.finish())
    }

    fn turn(&mut self) -> Result<(), WorkerError> {
        let timeout = self.patience();
        self.poll(timeout)?;
        self.take_reports();
        self.take_delivered_letters(Instant::now());
        for lane in self.lanes.iter_mut() {
            lane.close_if_due(Instant::now());
        }
        // May close batches too, so that it comes before they are sealed.
        self.control_flow()?;
        if self.unsealed {
            self.lanes.write_unsealed();
        }
        self.read_back();
        self.commit()?;
        self.revive();
        self.look(false);
        self.tell_trouble();
        self.handle.status.turned();
        Ok(())
    }

    fn patience(&self) -> Duration {
        // Whatever else there is to wait for wakes this thread.
        let longest = if self.letters.is_idle() { IDLE_WAIT } else { BUSY_WAIT };
        let due = self.lanes.iter().filter_map(Lane::due_at).min();
        due.map_or(longest, |due| due.saturating_duration_since(Instant::now()).min(longest))
    }

    fn poll(&mut self, timeout: Duration) -> Result<(), WorkerError> {
        let lanes = &mut self.lanes;
        // When the first record came: a poll may have waited long for it.
        let mut now = None;
        let mut broken = None;
        let polled = self.subscriber.poll(timeout, MAX_RECORDS, &mut |record| match lanes
            .accept(&record, *now.get_or_insert_with(Instant::now))
        {
            Ok(flow) => flow,
            Err(reason) => {
                broken.get_or_insert(reason);
                ControlFlow::Continue(())
            }
        });
        if let Some((at, reason)) = broken {
            self.stop_lane(&at, reason);
        }
        match polled {
            Ok(notice) => notice.map_or(Ok(()), |notice| self.take_notice(notice)),
            Err(error) if error.is_transient() => {
                self.bus_trouble.note(&error.to_string());
                std::thread::sleep(timeout.min(IDLE_WAIT));
                Ok(())
            }
            Err(BusError::Fatal(reason)) => self.rejoin(&reason),
            // What the group committed then decides whether the partition can go on.
            Err(error @ BusError::Gone { .. }) => self.rejoin(&error.to_string()),
            Err(source) => Err(WorkerError::Bus { sink: self.options.sink.clone(), source }),
        }
    }

    /// The client is beyond repair: everything owned is given up without a word, as a killed worker would.
    fn rejoin(&mut self, reason: &str) -> Result<(), WorkerError> {
        tracing::error!(
            sink = self.options.sink,
            reason,
            "the subscription cannot go on; joining the group again (no data lost)"
        );
        let owned: Vec<TopicPartition> = self.lanes.iter().map(|lane| lane.at.clone()).collect();
        owned.iter().for_each(|at| self.drop_lane(at));
        self.stopped.clear();
        self.in_flight = None;
        self.doubtful = None;
        loop {
            std::thread::sleep(REJOIN_AFTER);
            self.handle.status.turned();
            match subscribe(self.bus.as_ref(), &self.options) {
                Ok(subscriber) => {
                    self.lanes.set_waker(subscriber.waker());
                    self.subscriber = subscriber;
                    return Ok(());
                }
                Err(error) if error.is_transient() => self.bus_trouble.note(&error.to_string()),
                Err(source) => return Err(WorkerError::Bus { sink: self.options.sink.clone(), source }),
            }
            if self.handle.is_stopped() {
                return Ok(());
            }
        }
    }

    fn take_notice(&mut self, notice: Notice) -> Result<(), WorkerError> {
        match notice {
            Notice::Assigned(assignments) => self.assigned(assignments),
            Notice::Revoked(partitions) => {
                self.settle_before_leaving(&partitions, REVOKE_GRACE);
                self.release(&partitions)
            }
            Notice::Lost(partitions) => {
                tracing::warn!(
                    sink = self.options.sink,
                    partitions = partitions.len(),
                    "partitions were lost to another worker"
                );
                self.release(&partitions)
            }
            Notice::Committed(answers) => {
                self.committed(answers);
                Ok(())
            }
            Notice::End(at) => {
                if let Some(slot) = self.lanes.get_mut(&at) {
                    match slot.lane.reached_end() {
                        Ok(recovered) => slot.write_last(recovered.unwrap_or(0)),
                        Err(reason) => self.stop_lane(&at, reason),
                    }
                }
                Ok(())
            }
        }
    }

    fn bus_call(&mut self, call: impl FnOnce(&mut dyn Subscriber) -> Result<(), BusError>) -> Result<(), WorkerError> {
        match call(self.subscriber.as_mut()) {
            Ok(()) => Ok(()),
            Err(error) => self.rejoin(&error.to_string()),
        }
    }

    fn finish(mut self) -> Outcome {
        let partitions: Vec<TopicPartition> = self.lanes.iter().map(|lane| lane.at.clone()).collect();
        let drained = self.settle_before_leaving(&partitions, self.options.drain);
        self.look(true);
        self.tell_trouble();
        let status = self.handle.status.snapshot();
        self.lanes.clear();
        self.subscriber.leave();
        Outcome { status, drained }
    }
}

fn subscribe(bus: &dyn Bus, options: &WorkerOptions) -> Result<Box<dyn Subscriber>, BusError> {
    let group_options = GroupOptions::default().with_client_id(format!("tallybus-{}", options.sink));
    bus.subscriber(&options.group, &options.topics, &group_options)
}
