//! A bus in memory that does what a test tells it, and checks what it is sent; processes that must end.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{
    Bus, BusError, Committed, Delivery, GroupOptions, NewRecord, Observer, Placed, Progress, PublishError, Publisher,
    Reader, StreamId, Subscriber, TopicOptions, TopicPartition,
};
use tallybus_schemas::checkpoint::{Checkpoint, PRODUCERS_TOPIC};
use tallybus_schemas::{Decoder, ENCODING_HEADER, Encoding, Events, Origin, Series};

/// What happens to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Taken,
    Refused,
    /// On the bus, but the answer is lost.
    Unknown,
    /// `publish` itself fails.
    QueueFull,
    /// `publish` fails and so does everything after it, until there is a new client.
    Fatal,
}

#[derive(Default)]
pub(crate) struct Broker {
    pub(crate) partitions: Option<u32>,
    /// Neither takes nor answers anything.
    pub(crate) away: bool,
    /// Calls block for so long.
    pub(crate) blocks: Duration,
    /// Whether a call is blocked so now.
    pub(crate) is_blocked: bool,
    pub(crate) panics: bool,
    pub(crate) max_bytes: Option<usize>,
    pub(crate) ack_after: Duration,
    /// Fates of the next messages; then they are taken.
    pub(crate) fates: VecDeque<Fate>,
    /// The topics asked for with `create_topic`.
    pub(crate) created: Vec<(String, u32)>,
    pub(crate) publishers: usize,
    pub(crate) most_in_flight: usize,
    /// Partition and payload, in order.
    pub(crate) log: Vec<(u32, Vec<u8>)>,
    /// What became of the next checkpoints; then they are taken.
    pub(crate) checkpoint_fates: VecDeque<Fate>,
    /// The checkpoints, in order, each with the number of messages that were on the bus then.
    pub(crate) checkpoints: Vec<(usize, Checkpoint)>,
    /// Whether there is no topic for checkpoints, and none can be created.
    pub(crate) refuses_checkpoints: bool,
    /// The incarnation of the topic; none where the bus has no stream ids.
    pub(crate) stream: Option<String>,
    /// Whether acknowledgements come without offsets.
    pub(crate) hides_offsets: bool,
}

/// Cloning shares it.
#[derive(Clone, Default)]
pub(crate) struct FakeBus(Arc<Mutex<Broker>>);

impl FakeBus {
    pub(crate) fn with_partitions(partitions: u32) -> Self {
        let bus = Self::default();
        bus.broker().partitions = Some(partitions);
        bus
    }

    pub(crate) fn broker(&self) -> MutexGuard<'_, Broker> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connection(&self) -> tallybus::Connection {
        tallybus::Connection::from_bus(Box::new(self.clone()))
    }

    /// Checks everything on the bus, and returns the sum of each series.
    pub(crate) fn totals(&self) -> BTreeMap<Series, u64> {
        check(&self.broker().log)
    }

    /// The sum over all series of a counter.
    pub(crate) fn total(&self, name: &str) -> u64 {
        self.totals().iter().filter(|(series, _)| series.name() == name).map(|(_, total)| total).sum()
    }
}

/// What holds for every message ever sent: sequences without gaps, running totals, time that never falls, each series
/// in one partition only and at most once in a message.
fn check(log: &[(u32, Vec<u8>)]) -> BTreeMap<Series, u64> {
    let mut totals = BTreeMap::new();
    let mut places: HashMap<(Series, [u8; 16]), u32> = HashMap::new();
    let mut last: HashMap<([u8; 16], u32), Origin> = HashMap::new();
    let mut decoder = Decoder::new();
    for (partition, payload) in log {
        let mut events = Events::new();
        decoder.decode(Some(Encoding::Native), payload, 0, &mut events).unwrap();
        let origin = *events.last_origin().unwrap();
        let sum: u64 = events.iter().map(|(_, value, _)| value).fold(0, u64::wrapping_add);
        let before = last.insert((origin.producer, *partition), origin);
        let (sequence, total, end) =
            before.map_or((0, 0, 0), |before| (before.sequence, before.partition_total, before.interval_end));
        assert_eq!(origin.sequence, sequence + 1, "a gap or a repeat in partition {partition}");
        assert_eq!(origin.partition_total, total.wrapping_add(sum));
        assert!(origin.interval_end >= end && origin.interval_start <= origin.interval_end);
        let mut seen = HashSet::new();
        assert!(!events.is_empty(), "an empty message");
        for (series, value, time) in events.iter() {
            assert_eq!(time, origin.interval_end);
            assert!(seen.insert(series.clone()), "{series:?} twice in a message");
            let place = *places.entry((series.clone(), origin.producer)).or_insert(*partition);
            assert_eq!(place, *partition, "{series:?}");
            let total: &mut u64 = totals.entry(series.clone()).or_default();
            *total = total.wrapping_add(value);
        }
    }
    for producer in last.keys().map(|(producer, _)| *producer).collect::<HashSet<_>>() {
        let of_producer = || last.iter().filter(|((id, _), _)| *id == producer).map(|(_, origin)| origin);
        let sent = of_producer().fold(0u64, |sum, origin| sum.wrapping_add(origin.partition_total));
        let emitted = of_producer().map(|origin| origin.emitted_total).max().unwrap();
        assert!(sent <= emitted, "sent {sent} of {emitted}");
    }
    totals
}

impl Bus for FakeBus {
    fn describe(&self) -> String {
        "fake".to_owned()
    }
    fn create_topic(&self, topic: &str, options: &TopicOptions) -> Result<bool, BusError> {
        let partitions = options.partitions;
        if topic == PRODUCERS_TOPIC {
            return Err(BusError::Access("told to".to_owned()));
        }
        let blocks = self.broker().blocks;
        self.broker().is_blocked = !blocks.is_zero();
        std::thread::sleep(blocks);
        let mut broker = self.broker();
        broker.is_blocked = false;
        if broker.away {
            return Err(BusError::Unavailable("away".to_owned()));
        }
        broker.created.push((topic.to_owned(), partitions));
        match broker.partitions {
            Some(actual) if actual == partitions => Ok(false),
            Some(actual) => Err(BusError::PartitionCount { topic: topic.to_owned(), wanted: partitions, actual }),
            None => {
                broker.partitions = Some(partitions);
                Ok(true)
            }
        }
    }
    fn observer(&self) -> Result<Box<dyn Observer>, BusError> {
        unreachable!("a collector only publishes")
    }
    fn publisher(&self) -> Result<Box<dyn Publisher>, BusError> {
        self.broker().publishers += 1;
        Ok(Box::new(FakePublisher { bus: self.clone(), queue: VecDeque::new(), is_broken: false }))
    }
    fn subscriber(&self, _: &str, _: &[String], _: &GroupOptions) -> Result<Box<dyn Subscriber>, BusError> {
        unreachable!("a collector only publishes")
    }
    fn reset_group(&self, _group: &str, _to: &[(TopicPartition, Committed)]) -> Result<(), BusError> {
        Err(BusError::Unavailable("this bus has no groups".to_owned()))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, BusError> {
        unreachable!("a collector only publishes")
    }
}

struct Queued {
    token: u64,
    /// `None` for a checkpoint.
    partition: Option<u32>,
    payload: Vec<u8>,
    fate: Fate,
    since: Instant,
}

struct FakePublisher {
    bus: FakeBus,
    queue: VecDeque<Queued>,
    is_broken: bool,
}

impl Publisher for FakePublisher {
    fn publish(&mut self, record: NewRecord<'_>, token: u64) -> Result<(), BusError> {
        let mut broker = self.bus.broker();
        if record.topic == PRODUCERS_TOPIC {
            let checkpoint = Checkpoint::decode(record.payload).unwrap();
            assert_eq!(record.key, Some(checkpoint.producer.as_bytes()));
            let fate = broker.checkpoint_fates.pop_front().unwrap_or(Fate::Taken);
            let (payload, since) = (record.payload.to_vec(), Instant::now());
            self.queue.push_back(Queued { token, partition: None, payload, fate, since });
            return Ok(());
        }
        assert!(!broker.panics, "told to panic");
        let partition = record.partition.unwrap();
        assert!(partition < broker.partitions.unwrap());
        assert_eq!(record.headers, [(ENCODING_HEADER, b"native".as_slice())]);
        assert!(self.queue.iter().all(|queued| queued.partition != Some(partition)), "two in flight in {partition}");
        if self.is_broken {
            return Err(BusError::Fatal("broken".to_owned()));
        }
        let fate = broker.fates.pop_front().unwrap_or(Fate::Taken);
        match fate {
            Fate::QueueFull => return Err(BusError::Unavailable("queue full".to_owned())),
            Fate::Fatal => {
                self.is_broken = true;
                return Err(BusError::Fatal("broken".to_owned()));
            }
            Fate::Taken | Fate::Refused | Fate::Unknown => {}
        }
        self.queue.push_back(Queued {
            token,
            partition: Some(partition),
            payload: record.payload.to_vec(),
            fate,
            since: Instant::now(),
        });
        let in_flight = self.queue.iter().filter(|queued| queued.partition.is_some()).count();
        broker.most_in_flight = broker.most_in_flight.max(in_flight);
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, deliveries: &mut Vec<Delivery>) {
        let until = Instant::now() + timeout;
        loop {
            let mut broker = self.bus.broker();
            let ack_after = broker.ack_after;
            let due = |queued: &Queued| queued.since.elapsed() >= ack_after;
            if !broker.away && self.queue.front().is_some_and(due) {
                while self.queue.front().is_some_and(due) {
                    let Some(queued) = self.queue.pop_front() else { break };
                    let Queued { token, partition, payload, fate, .. } = queued;
                    let too_large = broker.max_bytes.is_some_and(|max| payload.len() > max);
                    let Some(partition) = partition else {
                        let outcome = match fate {
                            Fate::Taken => Ok(Placed::new(0, Some(broker.checkpoints.len() as u64))),
                            _ => Err(PublishError::Refused("told to".to_owned())),
                        };
                        if outcome.is_ok() {
                            let messages = broker.log.len();
                            broker.checkpoints.push((messages, Checkpoint::decode(&payload).unwrap()));
                        }
                        deliveries.push(Delivery { token, outcome });
                        continue;
                    };
                    let offset = (!broker.hides_offsets).then_some(broker.log.len() as u64);
                    let outcome = match fate {
                        _ if too_large => Err(PublishError::TooLarge { limit: None }),
                        Fate::Refused => Err(PublishError::Refused("told to".to_owned())),
                        Fate::Unknown => Err(PublishError::Unknown("told to".to_owned())),
                        _ => Ok(Placed::new(partition, offset)),
                    };
                    if !matches!(outcome, Err(PublishError::TooLarge { .. } | PublishError::Refused(_))) {
                        broker.log.push((partition, payload));
                    }
                    deliveries.push(Delivery { token, outcome });
                }
                return;
            }
            drop(broker);
            if Instant::now() >= until {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.len()
    }

    fn partitions(&mut self, topic: &str) -> Result<Option<u32>, BusError> {
        let broker = self.bus.broker();
        if topic == PRODUCERS_TOPIC {
            return Ok((!broker.refuses_checkpoints).then_some(1));
        }
        Ok(broker.partitions)
    }

    fn stream_id(&mut self, _: &str) -> Result<Option<StreamId>, BusError> {
        let stream = self.bus.broker().stream.clone();
        let none = || BusError::Settings("this bus has no stream ids".to_owned());
        Ok(Some(stream.ok_or_else(none)?.parse().unwrap()))
    }
}

/// The process has one collector at a time, so tests take turns.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sum of everything on an embedded bus.
pub(crate) fn total_of_file(path: &Path) -> u64 {
    let bus = EmbeddedBus::open(path).unwrap();
    let offsets = bus.observer().unwrap().offsets_of(tallybus::DEFAULT_TOPIC).unwrap();
    let starts: Vec<(u32, u64)> = (0..).zip(&offsets).map(|(partition, range)| (partition, range.first)).collect();
    let mut left = offsets.len();
    let mut reader = bus.reader().unwrap();
    reader.assign(tallybus::DEFAULT_TOPIC, &starts).unwrap();
    let (mut sum, mut decoder) = (0, Decoder::new());
    while left > 0 {
        let progress = reader.poll(Duration::from_secs(5), &mut |record| {
            let mut events = Events::new();
            decoder.decode(Some(Encoding::Native), record.payload, 0, &mut events).unwrap();
            sum += events.iter().map(|(_, value, _)| value).sum::<u64>();
            ControlFlow::Continue(())
        });
        match progress.unwrap() {
            Progress::End(_) => left -= 1,
            Progress::Records => {}
            Progress::Idle => panic!("the bus does not answer"),
        }
    }
    sum
}

/// How long a process may take that a test starts. It takes a few seconds.
const PROCESS_BOUND: Duration = Duration::from_secs(120);

/// Runs a process and what it forks. If they do not end, they are killed and the test fails: one that waits for ever
/// would not name itself.
pub(crate) fn output_in_time(command: &mut Command) -> Output {
    let program = format!("{command:?}");
    let child = command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let group = format!("-{}", child.id());
    let (ended, end) = channel::<()>();
    let watcher = thread::spawn(move || {
        if end.recv_timeout(PROCESS_BOUND) == Err(RecvTimeoutError::Timeout) {
            Command::new("kill").args(["-KILL", "--", &group]).status().unwrap();
            panic!("{program} was still running after {PROCESS_BOUND:?}, and was killed with its children");
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(ended);
    watcher.join().unwrap();
    output
}
