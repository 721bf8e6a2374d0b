use std::any::Any;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use tallybus_bus::{Bus, Publisher};
use tallybus_schemas::canonical::{MAX_KEY, MAX_VALUE};
use tallybus_schemas::checkpoint::PRODUCERS_TOPIC;

use crate::clock::WallClock;
use crate::connection::{Connection, ConnectionError, KafkaProperties};
use crate::publisher::Worker;
use crate::session::{self, Session};
use crate::{Guard, InitError, registry, signals, sys, text};

/// The topic that counters are published to unless [`Builder::topic`] names another.
pub const DEFAULT_TOPIC: &str = "tallybus.counters";

/// The partitions of a topic that a collector creates, unless [`Builder::create_topic`] says otherwise.
const DEFAULT_PARTITIONS: u32 = 4;
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
const SHORTEST_CHECKPOINTS: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
/// The most tags that every series gets, service and instance included.
const MOST_COMMON_TAGS: usize = 16;

/// The settings of a collector; made by [`builder`](crate::builder).
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until `start`"]
pub struct Builder(Settings);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) topic: String,
    pub(crate) flush_interval: Duration,
    pub(crate) topic_creation: TopicCreation,
    /// Zero for none.
    pub(crate) checkpoint_interval: Duration,
    namespace: String,
    pub(crate) wall_clock: WallClock,
    flush_on_signals: bool,
    pub(crate) self_metrics: bool,
    max_series: usize,
    tags: BTreeMap<String, String>,
    kafka: KafkaProperties,
}

/// What to do about a topic that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicCreation {
    /// Create it with the default number of partitions.
    Default,
    /// Create it with this number of partitions.
    With(u32),
    /// Wait for it.
    Never,
}

impl TopicCreation {
    pub(crate) fn partitions(self) -> Option<u32> {
        match self {
            Self::Default => Some(DEFAULT_PARTITIONS),
            Self::With(partitions) => Some(partitions),
            Self::Never => None,
        }
    }
}

impl Settings {
    /// The tags that every series gets unless it has a tag of the same key; sorted by key.
    pub(crate) fn common_tags(&self) -> Vec<(String, String)> {
        self.tags
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key.clone(), text::clean(value, MAX_VALUE).into_owned()))
            .collect()
    }

    /// The topic that checkpoints are written to.
    pub(crate) fn producers_topic(&self) -> String {
        if self.namespace.is_empty() {
            PRODUCERS_TOPIC.to_owned()
        } else {
            format!("{}.{PRODUCERS_TOPIC}", self.namespace)
        }
    }

    /// The service and its instance: the tags of its series, or what they would be where they are left out.
    pub(crate) fn names(&self) -> (String, String) {
        let of = |key: &str| self.tags.get(key).filter(|value| !value.is_empty()).cloned();
        (of("service").unwrap_or_else(program_name), of("instance").unwrap_or_else(instance_name))
    }

    fn check(&self) -> Result<(), InitError> {
        let wrong = |name, reason: &str| Err(InitError::Setting { name, reason: reason.to_owned() });
        if self.topic.is_empty() {
            return wrong("topic", "must not be empty");
        }
        if !(SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&self.flush_interval) {
            return wrong("flush_interval", "must be between 10 milliseconds and one hour");
        }
        if !self.checkpoint_interval.is_zero()
            && !(SHORTEST_CHECKPOINTS..=LONGEST_INTERVAL).contains(&self.checkpoint_interval)
        {
            return wrong("checkpoint_interval", "must be zero, or between 100 milliseconds and one hour");
        }
        if !self.namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return wrong("namespace", "only ASCII letters, digits, `-`, `_` and `.`");
        }
        if !(1..=registry::MOST_SERIES).contains(&self.max_series) {
            return wrong("max_series", "must be between 1 and 10,000,000");
        }
        if self.topic_creation == TopicCreation::With(0) {
            return wrong("create_topic", "must be at least one partition");
        }
        if self.tags.len() > MOST_COMMON_TAGS {
            return wrong("tag", "too many: at most 16 tags for every series, `service` and `instance` included");
        }
        if self.tags.keys().any(|key| key.is_empty() || *key != text::clean(key, MAX_KEY)) {
            return wrong("tag", "a tag key must have 1 to 256 bytes and no control characters");
        }
        Ok(())
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        let tags = [("service", program_name()), ("instance", instance_name())];
        Self(Settings {
            topic: DEFAULT_TOPIC.to_owned(),
            flush_interval: Duration::from_secs(1),
            topic_creation: TopicCreation::Default,
            checkpoint_interval: Duration::from_secs(10),
            namespace: String::new(),
            wall_clock: WallClock::default(),
            flush_on_signals: false,
            self_metrics: false,
            max_series: registry::DEFAULT_MAX_SERIES,
            tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            kafka: KafkaProperties::default(),
        })
    }

    /// The tag `service` of every series; the program's file name unless set. Empty leaves it out.
    pub fn service(self, service: impl Into<String>) -> Self {
        self.tag("service", service)
    }

    /// The tag `instance` of every series: which of the service's processes. The variable `HOSTNAME`, or else the
    /// host's name, unless set. Empty leaves it out. Avoid a value that changes with every start: each new value creates
    /// every series again.
    pub fn instance(self, instance: impl Into<String>) -> Self {
        self.tag("instance", instance)
    }

    /// One more tag for every series. A series that has a tag of the same key keeps its own.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.tags.insert(key.into(), value.into());
        self
    }

    /// The topic; [`DEFAULT_TOPIC`] unless set.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.0.topic = topic.into();
        self
    }

    /// How often the counters are published: 10 milliseconds to one hour; one second unless set.
    pub fn flush_interval(mut self, interval: Duration) -> Self {
        self.0.flush_interval = interval;
        self
    }

    /// The most series of this process, 1 to 10,000,000; 10,000 unless set. Beyond it, new series of a name are counted
    /// together in one series with the tag `tallybus.overflow`. Series that already exist, from before the start or from
    /// an earlier collector, keep counting.
    pub fn max_series(mut self, max_series: usize) -> Self {
        self.0.max_series = max_series;
        self
    }

    /// Creates the topic with this many partitions where it does not exist; with 4 unless set. A topic that exists is
    /// used as it is.
    pub fn create_topic(mut self, partitions: u32) -> Self {
        self.0.topic_creation = TopicCreation::With(partitions);
        self
    }

    /// Does not create the topic: the collector waits until it exists, and counts stay in the counters.
    pub fn use_existing_topic(mut self) -> Self {
        self.0.topic_creation = TopicCreation::Never;
        self
    }

    /// How often this collector says on the topic `tallybus.producers` up to which time everything that it counted is on the bus:
    /// 100 milliseconds to one hour; ten seconds unless set; [`Duration::ZERO`] for never. It costs one small record each time, and
    /// nothing where counts are made. `tallybus settled` uses it to tell whether a backend holds everything up to a time. The
    /// topic is created where it does not exist, unless [`Builder::use_existing_topic`] is set.
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.0.checkpoint_interval = interval;
        self
    }

    /// The `namespace` of `[bus]` in the settings of the `tallybus` command, where it has one: the topic of the checkpoints is
    /// then `<namespace>.tallybus.producers`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.0.namespace = namespace.into();
        self
    }

    /// On SIGTERM and SIGINT (Ctrl-C), by which services are stopped, delivers what it can within five seconds and then
    /// lets the signal end the process, with the status that it would have had. **Without it, these signals end the
    /// process at once**, and what was counted since the last interval is lost. A second signal does not wait.
    ///
    /// A signal that the program handles already, or ignores, is left alone. A program that handles signals itself (with
    /// `tokio::signal`, say) does not need this: it drops the guard, or calls [`Guard::shutdown`], when it has stopped.
    pub fn flush_on_signals(mut self) -> Self {
        self.0.flush_on_signals = true;
        self
    }

    /// Replaces the wall clock, for tests; not part of the interface.
    #[doc(hidden)]
    pub fn with_wall_clock(mut self, clock: fn() -> SystemTime) -> Self {
        self.0.wall_clock = WallClock(clock);
        self
    }

    /// Publishes metrics of the collector itself too, as the counters `tallybus.collector.messages`, `.give_backs`,
    /// `.flush_errors`, `.overflowed` and `.sanitised` ([`Stats`](crate::Stats) explains them). Off unless set: they are
    /// included in the totals of [`Report`](crate::Report).
    pub fn self_metrics(mut self, wanted: bool) -> Self {
        self.0.self_metrics = wanted;
        self
    }

    /// Sets a [librdkafka property](https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md) for a
    /// connection to Kafka, such as TLS and credentials:
    ///
    /// ```
    /// # fn password() -> String { String::from("secret") }
    /// let builder = tallybus::builder()
    ///     .service("api")
    ///     .kafka("security.protocol", "SASL_SSL")
    ///     .kafka("sasl.mechanism", "SCRAM-SHA-512")
    ///     .kafka("sasl.username", "api")
    ///     .kafka("sasl.password", password())
    ///     .kafka("ssl.ca.location", "/etc/ssl/kafka-ca.pem"); // the system's certificate authorities unless set
    /// ```
    /// A property set twice has the later value. Properties on which a guarantee of Tallybus rests (`acks`,
    /// `enable.idempotence`, `transactional.id`, `message.timeout.ms` and others) cannot be set. [`Builder::start`]
    /// checks all properties and reports every wrong one at once. Values are never logged, nor repeated in an error.
    #[cfg(feature = "kafka")]
    pub fn kafka(self, property: impl Into<String>, value: impl Into<String>) -> Self {
        self.kafka_property(property.into(), value.into())
    }

    pub(crate) fn kafka_property(mut self, property: String, value: String) -> Self {
        self.0.kafka.set(property, value);
        self
    }

    #[cfg(test)]
    pub(crate) fn has_same_settings(&self, other: &Self) -> bool {
        self.0 == other.0
    }

    /// Starts to publish what has been counted, and what will be, until the guard is shut down or dropped.
    ///
    /// Does not wait for the bus: while it does not answer, or the topic does not exist, counts stay in the counters.
    ///
    /// # Errors
    /// [`InitError::Running`] when the process already has a collector; [`InitError::Setting`] for a setting that cannot
    /// work; [`InitError::Connection`] when the bus cannot be opened with its settings; [`InitError::Forked`] for an
    /// embedded bus in a child of `fork` whose parent has one open; [`InitError::Thread`] and [`InitError::Signals`] when
    /// the system refuses a thread or a pipe.
    pub fn start(self, connection: Connection) -> Result<Guard, InitError> {
        let settings = self.0;
        settings.check()?;
        let session = session::begin(producer_id(), connection.is_file())?;
        #[cfg(feature = "commands")]
        let tags = settings.tags.clone();
        let opened = connection.open(&settings.kafka).map(Arc::<dyn Bus>::from);
        let started =
            opened.and_then(|bus| start_thread(settings, Arc::clone(&session), Arc::clone(&bus)).map(|()| bus));
        #[cfg_attr(not(feature = "commands"), allow(unused_variables, reason = "only commands read the bus"))]
        let bus = match started {
            Ok(bus) => bus,
            Err(error) => {
                session.end();
                return Err(error);
            }
        };
        Ok(Guard::new(
            session,
            #[cfg(feature = "commands")]
            crate::commands::Attached::new(bus, &tags),
        ))
    }
}

fn start_thread(settings: Settings, session: Arc<Session>, bus: Arc<dyn Bus>) -> Result<(), InitError> {
    let publisher = match bus.publisher() {
        Ok(publisher) => Some(publisher),
        Err(error) if error.is_transient() => None,
        Err(error) => return Err(ConnectionError(error).into()),
    };
    if publisher.is_some() {
        session::watch_exit();
    }
    if settings.flush_on_signals {
        signals::watch()?;
    }
    registry::set_max_series(settings.max_series);
    let named = thread::Builder::new().name("tallybus".to_owned());
    named.spawn(move || run(settings, session, bus, publisher)).map_err(InitError::Thread)?;
    Ok(())
}

fn run(settings: Settings, session: Arc<Session>, bus: Arc<dyn Bus>, publisher: Option<Box<dyn Publisher>>) {
    let worker = Worker::new(settings, Arc::clone(&session), bus, publisher);
    // A caller that waits for this thread must not wait forever.
    if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(|| worker.run())) {
        let report = session.end();
        tracing::error!(%report, panic = message(&*panic), "the collector's thread panicked and has stopped; counting \
            continues, but nothing more is published");
    }
}

pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")
}

/// Sixteen bytes that differ for every collector of every process.
fn producer_id() -> [u8; 16] {
    let random = RandomState::new();
    let here = (std::process::id(), SystemTime::now());
    let mut id = [0; 16];
    for (part, half) in id.chunks_exact_mut(8).enumerate() {
        half.copy_from_slice(&random.hash_one((here, part)).to_le_bytes());
    }
    id
}

fn program_name() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(|path| path.file_stem()).and_then(|name| name.to_str());
    name.unwrap_or_default().to_owned()
}

fn instance_name() -> String {
    std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).or_else(sys::host_name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_named() {
        let name = |builder: Builder| match builder.0.check() {
            Err(InitError::Setting { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name(Builder::new().topic("")), "topic");
        assert_eq!(name(Builder::new().flush_interval(Duration::ZERO)), "flush_interval");
        assert_eq!(name(Builder::new().max_series(0)), "max_series");
        assert_eq!(name(Builder::new().create_topic(0)), "create_topic");
        assert_eq!(name(Builder::new().tag("a\n", "b")), "tag");
        let many = (0..20).fold(Builder::new(), |builder, number| builder.tag(format!("k{number}"), "v"));
        assert_eq!(name(many), "tag");
        assert!(Builder::new().0.check().is_ok());
    }

    #[test]
    fn empty_common_tags_are_left_out() {
        let settings = Builder::new().service("").instance("i\t1").tag("env", "prod").0;
        assert_eq!(settings.common_tags(), [("env".into(), "prod".into()), ("instance".into(), "i_1".into())]);
    }

    #[test]
    fn producers_differ() {
        assert_ne!(producer_id(), producer_id());
    }
}
