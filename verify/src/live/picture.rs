use serde::{Deserialize, Serialize};

/// The version of [`Picture`] as JSON. Keys may be added to a version; readers ignore those that they do not know.
pub const PICTURE_VERSION: u32 = 1;

/// The stream at one moment. Figures that are not known are `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// [`PICTURE_VERSION`].
    pub version: u32,
    /// When the bus answered: milliseconds since the Unix epoch, by the watcher's clock.
    pub time_ms: i64,
    /// The bus and its place, without secrets.
    pub bus: String,
    /// Worst first.
    pub sinks: Vec<SinkPicture>,
    /// By name.
    pub topics: Vec<TopicPicture>,
    /// Why the heartbeats of workers could not be read, with which lags in seconds, workers and reasons would be known.
    #[serde(default)]
    pub heartbeats_error: Option<String>,
}

/// A sink at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SinkPicture {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Option<String>,
    /// Its consumer group.
    pub group: String,
    /// How it is doing.
    pub state: SinkState,
    /// Why, in one line.
    pub why: String,
    /// Messages on the bus that it has not settled.
    pub lag_messages: Option<u64>,
    /// Age of the oldest of them in seconds.
    pub lag_seconds: Option<f64>,
    /// Messages that arrive in a second.
    pub arriving_per_second: Option<f64>,
    /// Messages that it settles in a second.
    pub settled_per_second: Option<f64>,
    /// When it will have caught up.
    pub catch_up: CatchUp,
    /// Batches that are sealed and not settled.
    pub sealed_batches: Option<u64>,
    /// Dead letters on its topic, replayed ones among them.
    pub dead_letters: Option<u64>,
    /// Dead letters that arrive in a second.
    pub dead_letters_per_second: Option<f64>,
    /// Workers that publish heartbeats.
    pub workers: Option<u32>,
    /// Requests to the backend that these workers have repeated since they started.
    pub retries: Option<u64>,
    /// Its partitions, worst first.
    pub partitions: Vec<PartitionPicture>,
}

/// How a sink is doing, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// Something does not advance before an operator has acted.
    Halted,
    /// Its group's commits are not from a worker: nothing is known of its progress.
    Unreadable,
    /// Something fails and is retried.
    Retrying,
    /// It is behind, and settles nothing.
    Stalled,
    /// There is something to write, and its group has never committed.
    NotStarted,
    /// More arrives than it settles.
    FallingBehind,
    /// Operators want all of its workers drained.
    Drained,
    /// Operators want its workers paused, or some of them drained.
    Paused,
    /// It is behind, and settles more than arrives.
    CatchingUp,
    /// It is behind, and its rates are not known yet.
    Measuring,
    /// A topic of it does not exist.
    NoTopic,
    /// It settles what arrives, within seconds.
    KeepingUp,
    /// It has settled everything.
    CaughtUp,
}

impl SinkState {
    /// The state in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Halted => "halted",
            Self::Unreadable => "unreadable",
            Self::Retrying => "retrying",
            Self::Stalled => "stalled",
            Self::NotStarted => "not started",
            Self::FallingBehind => "falling behind",
            Self::Drained => "drained",
            Self::Paused => "paused",
            Self::CatchingUp => "catching up",
            Self::Measuring => "measuring",
            Self::NoTopic => "no topic",
            Self::KeepingUp => "keeping up",
            Self::CaughtUp => "caught up",
        }
    }

    /// Whether an operator should look.
    pub fn is_bad(self) -> bool {
        self <= Self::FallingBehind
    }
}

/// When a lag will be gone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// There is none.
    CaughtUp,
    /// After so many seconds, at the present rates.
    WithinSeconds(f64),
    /// Never at the present rates.
    Never,
    /// The rates are not known.
    Unknown,
}

impl CatchUp {
    /// From the lag in messages, and the messages a second that arrive and are settled.
    pub fn of(lag: Option<u64>, arriving: Option<f64>, settled: Option<f64>) -> Self {
        match (lag, arriving, settled) {
            (Some(0), _, _) => Self::CaughtUp,
            (Some(lag), Some(arriving), Some(settled)) if settled > arriving => {
                Self::WithinSeconds(lag as f64 / (settled - arriving))
            }
            (Some(_), Some(_), Some(_)) => Self::Never,
            _ => Self::Unknown,
        }
    }
}

/// A partition as one sink reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionPicture {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The oldest offset on the bus.
    pub first: u64,
    /// The next offset to be written by producers.
    pub end: u64,
    /// Everything below it is settled; `None` when the group never committed here.
    pub settled: Option<u64>,
    /// One past the last offset that is sealed; `None` when the group never committed here.
    pub sealed_end: Option<u64>,
    /// Batches that are sealed and not settled.
    pub sealed_batches: u64,
    /// Messages that are not settled.
    pub lag_messages: u64,
    /// Age of the oldest of them in seconds.
    pub lag_seconds: Option<f64>,
    /// Messages that arrive in a second.
    pub arriving_per_second: Option<f64>,
    /// Messages that are settled in a second.
    pub settled_per_second: Option<f64>,
    /// When it will have caught up.
    pub catch_up: CatchUp,
    /// The worker that owns it.
    pub worker: Option<String>,
    /// Why it is halted.
    pub halted: Option<String>,
}

/// A topic at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicPicture {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: TopicRole,
    /// How many partitions it has; `None` when it does not exist.
    pub partitions: Option<u32>,
    /// Messages that it holds; `None` when it does not exist.
    pub messages: Option<u64>,
    /// Messages that arrive in a second.
    pub arriving_per_second: Option<f64>,
}

/// What a topic is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TopicRole {
    /// Events.
    Counters,
    /// What a sink refused.
    DeadLetters {
        /// The sink.
        sink: String,
    },
    /// Dead letters that are sent back to a sink.
    Replay {
        /// The sink.
        sink: String,
    },
}

impl TopicRole {
    /// The role in words.
    pub fn name(&self) -> String {
        match self {
            Self::Counters => "counters".to_owned(),
            Self::DeadLetters { sink } => format!("dead letters of {sink}"),
            Self::Replay { sink } => format!("replays of {sink}"),
        }
    }
}

/// One step of watching, as `--json` prints it and recordings hold it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Tick {
    /// The bus answered.
    Seen(Picture),
    /// It did not.
    Failed(FailedLook),
}

/// A look at a bus that did not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedLook {
    /// [`PICTURE_VERSION`].
    pub version: u32,
    /// When it failed: milliseconds since the Unix epoch, by the watcher's clock.
    pub time_ms: i64,
    /// Why.
    pub error: String,
}

impl Tick {
    /// A look that failed at this time.
    pub fn failed(time_ms: i64, error: impl std::fmt::Display) -> Self {
        Self::Failed(FailedLook { version: PICTURE_VERSION, time_ms, error: error.to_string() })
    }

    /// When it was: milliseconds since the Unix epoch.
    pub fn time_ms(&self) -> i64 {
        match self {
            Self::Seen(picture) => picture.time_ms,
            Self::Failed(failed) => failed.time_ms,
        }
    }
}
