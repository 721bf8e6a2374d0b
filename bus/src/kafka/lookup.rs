//! Queries to the brokers that any consumer client can make.

mod groups;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::{Client, ClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::raw;
use super::state::Connection;
use super::waker::Waker;
use crate::{BusError, Committed, OffsetRange, StreamId, TopicPartition};

/// What a query for commits is called in errors.
const ASKING_COMMITS: &str = "asking for committed offsets";

/// The most events that are taken from a client's queue at once: a connection that fails leaves some each second.
const MOST_EVENTS: u32 = 10_000;

/// A partition in a query: topic and number.
type At<'t> = (&'t str, u32);

/// The context of a client that only makes queries.
pub(super) struct Asking(pub(super) Arc<Connection>);

impl ClientContext for Asking {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ConsumerContext for Asking {}

/// A client that only makes queries.
pub(super) struct Lookup {
    consumer: BaseConsumer<Asking>,
    connection: Arc<Connection>,
}

impl Lookup {
    pub(super) fn new(config: &ClientConfig, name: &'static str) -> Result<Self, BusError> {
        let connection = Arc::new(Connection::new(name));
        let consumer = config
            .create_with_context(Asking(Arc::clone(&connection)))
            .map_err(|error| BusError::Settings(error.to_string()))?;
        Ok(Self { consumer, connection })
    }

    /// Takes the client's log and errors from its queue, where they would accumulate.
    pub(super) fn serve(&self) {
        // An error arrives twice: in the connection's state, where it is handled, and here. A poll that takes a log line or an
        // error for the state also returns nothing: the queue is empty only when several polls have taken nothing either.
        let (mut nothing, mut taken) = (0, self.connection.taken());
        for _ in 0..MOST_EVENTS {
            let is_none = self.consumer.poll(Duration::ZERO).is_none();
            let before = std::mem::replace(&mut taken, self.connection.taken());
            nothing = if is_none && taken == before { nothing + 1 } else { 0 };
            if nothing == 4 {
                break;
            }
        }
    }

    pub(super) fn partitions(&self, topic: &str, timeout: Duration) -> Result<Option<u32>, BusError> {
        self.explain(partitions(&self.consumer, &self.connection, topic, timeout))
    }

    /// The id of one of the brokers.
    pub(super) fn any_broker(&self, timeout: Duration) -> Result<i32, BusError> {
        let doing = "asking for the brokers";
        let found = self.consumer.fetch_metadata(Some("__consumer_offsets"), timeout);
        let metadata = self.explain(found.map_err(|error| self.connection.failed(doing, &error)))?;
        let broker = metadata.brokers().first().map(rdkafka::metadata::MetadataBroker::id);
        broker.ok_or_else(|| BusError::Unavailable(format!("{doing}: none is known")))
    }

    /// Whether every partition has a leader. A query that fails counts as "not yet": the caller asks until its deadline.
    pub(super) fn has_leaders(&self, topic: &str, timeout: Duration) -> bool {
        let Ok(metadata) = self.consumer.fetch_metadata(Some(topic), timeout) else { return false };
        metadata.topics().iter().filter(|found| found.name() == topic).any(|found| {
            !found.partitions().is_empty() && found.partitions().iter().all(|partition| partition.leader() >= 0)
        })
    }

    pub(super) fn ranges(&self, topics: &[&str], timeout: Duration) -> Result<Vec<Vec<OffsetRange>>, BusError> {
        let (wanted, counts) = self.every_partition(topics, timeout)?;
        let ranges = self.explain(ranges(&self.consumer, &self.connection, &wanted, timeout))?;
        Ok(by_topic(&counts, ranges))
    }

    pub(super) fn ranges_of(&self, wanted: &[(&str, u32)], timeout: Duration) -> Result<Vec<OffsetRange>, BusError> {
        self.explain(ranges(&self.consumer, &self.connection, wanted, timeout))
    }

    pub(super) fn offsets_at(
        &self,
        topics: &[&str],
        time_ms: i64,
        timeout: Duration,
    ) -> Result<Vec<Vec<u64>>, BusError> {
        let (wanted, counts) = self.every_partition(topics, timeout)?;
        // The ends first: a record that arrives between the two queries comes after either answer.
        let ranges = self.explain(ranges(&self.consumer, &self.connection, &wanted, timeout))?;
        // Kafka reads negative times as special values for the partition's ends.
        let time = Offset::Offset(time_ms.max(0));
        let found = self.explain(offsets_for(&self.consumer, &self.connection, &wanted, time, timeout))?;
        let offsets = ranges.iter().zip(found);
        let offsets = offsets.map(|(range, found)| found.map_or(range.end, |found| found.max(range.first)));
        Ok(by_topic(&counts, offsets.collect()))
    }

    /// How many partitions each topic has; `None` for one that does not exist. One request.
    pub(super) fn partitions_of(&self, topics: &[&str], timeout: Duration) -> Result<Vec<Option<u32>>, BusError> {
        if let [topic] = topics {
            return Ok(vec![self.partitions(topic, timeout)?]);
        }
        const DOING: &str = "asking for topics";
        let found = raw::topic_ids(self.consumer.client(), topics, timeout);
        let found = self.explain(found.map_err(|code| self.connection.failed(DOING, &KafkaError::Global(code))))?;
        self.connection.alive();
        let count = |topic: &&str| {
            let Some(found) = found.iter().find(|found| found.topic == **topic) else {
                return Err(BusError::Unavailable(format!("{DOING}: the answer leaves out {topic:?}")));
            };
            match found.id {
                Ok(_) => Ok((found.partitions > 0).then_some(u32::try_from(found.partitions).unwrap_or(u32::MAX))),
                Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
                Err(code) => Err(self.connection.failed(DOING, &KafkaError::MetadataFetch(code))),
            }
        };
        topics.iter().map(count).collect()
    }

    /// The cluster's id joined with each topic's, in the order asked for.
    pub(super) fn stream_ids(&self, topics: &[&str], timeout: Duration) -> Result<Vec<StreamId>, BusError> {
        let ids = raw::topic_ids(self.consumer.client(), topics, timeout);
        let streams = self.streams_of(topics, ids, timeout)?;
        topics.iter().zip(streams).map(|(topic, id)| id.ok_or_else(|| BusError::NoTopic((*topic).to_owned()))).collect()
    }

    /// The answer about topics' ids as stream ids, in the order of `topics`; `None` for one that does not exist.
    pub(super) fn streams_of(
        &self,
        topics: &[&str],
        ids: Result<Vec<raw::TopicId>, RDKafkaErrorCode>,
        timeout: Duration,
    ) -> Result<Vec<Option<StreamId>>, BusError> {
        let ids = ids.map_err(|code| self.connection.failed("asking for topic ids", &KafkaError::Global(code)));
        let ids = self.explain(ids)?;
        let Some(cluster) = raw::cluster_id(self.consumer.client(), timeout) else {
            return self.explain(Err(BusError::Unavailable("the brokers did not report a cluster id".to_owned())));
        };
        self.connection.alive();
        topics.iter().map(|topic| self.stream_id(topic, &cluster, &ids)).collect()
    }

    pub(super) fn client(&self) -> &Client<Asking> {
        self.consumer.client()
    }

    /// The error of a call, with what the connection knows about its cause.
    pub(super) fn failed(&self, doing: &str, error: &KafkaError) -> BusError {
        self.connection.failed(doing, error)
    }

    /// The queue for answers about topics' ids, which wakes this waker.
    pub(super) fn topic_id_answers(&self, waker: &Waker) -> Result<raw::TopicIdAnswers, BusError> {
        raw::TopicIdAnswers::new(self.consumer.client(), Some(waker))
            .ok_or_else(|| BusError::Fatal("librdkafka returned no queue for answers about topics".to_owned()))
    }

    /// Asks for topics' ids without waiting for the answer, which comes to `answers`.
    pub(super) fn ask_topic_ids(
        &self,
        answers: &mut raw::TopicIdAnswers,
        topics: &[&str],
        timeout: Duration,
    ) -> Result<(), BusError> {
        answers
            .ask(self.consumer.client(), topics, timeout)
            .map_err(|code| self.connection.failed("asking for topic ids", &KafkaError::Global(code)))
    }

    fn stream_id(&self, topic: &str, cluster: &str, ids: &[raw::TopicId]) -> Result<Option<StreamId>, BusError> {
        let doing = format!("asking for the id of topic {topic:?}");
        let Some(found) = ids.iter().find(|found| found.topic == topic) else {
            return Err(BusError::Unavailable(format!("{doing}: no answer")));
        };
        match found.id {
            Ok(0) => Err(BusError::Settings(format!(
                "{doing}: the brokers have no topic ids; Kafka 2.8 or newer is required"
            ))),
            Ok(id) => format!("kafka:{cluster}:{}", base64url(id))
                .parse()
                .map(Some)
                .map_err(|error| BusError::Fatal(format!("{doing}: {error}"))),
            Err(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
            Err(code) => Err(self.connection.failed(&doing, &KafkaError::Global(code))),
        }
    }

    /// All partitions of these topics, which must exist, and how many each topic has.
    fn every_partition<'t>(
        &self,
        topics: &[&'t str],
        timeout: Duration,
    ) -> Result<(Vec<At<'t>>, Vec<usize>), BusError> {
        let (mut all, mut counts) = (Vec::new(), Vec::new());
        for (topic, count) in topics.iter().zip(self.partitions_of(topics, timeout)?) {
            let count = count.ok_or_else(|| BusError::NoTopic((*topic).to_owned()))?;
            let before = all.len();
            all.extend((0..count).map(|partition| (*topic, partition)));
            counts.push(all.len() - before);
        }
        Ok((all, counts))
    }

    /// The reason for a missing answer is in the events in the queue.
    pub(super) fn explain<T>(&self, result: Result<T, BusError>) -> Result<T, BusError> {
        self.serve();
        match result {
            Err(BusError::Unavailable(text)) => Err(self.connection.explained(text)),
            other => other,
        }
    }
}

pub(super) fn partitions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    connection: &Connection,
    topic: &str,
    timeout: Duration,
) -> Result<Option<u32>, BusError> {
    let doing = || format!("asking for topic {topic:?}");
    let metadata =
        consumer.fetch_metadata(Some(topic), timeout).map_err(|error| connection.failed(&doing(), &error))?;
    connection.alive();
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
        Some(code) => return Err(connection.failed(&doing(), &KafkaError::MetadataFetch(code))),
    }
    let count = found.partitions().len();
    Ok((count > 0).then_some(u32::try_from(count).unwrap_or(u32::MAX)))
}

/// Groups answers about partitions by topic.
fn by_topic<T>(counts: &[usize], answers: Vec<T>) -> Vec<Vec<T>> {
    let mut answers = answers.into_iter();
    counts.iter().map(|count| answers.by_ref().take(*count).collect()).collect()
}

/// The offsets that each of these partitions holds.
pub(super) fn ranges<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    connection: &Connection,
    wanted: &[(&str, u32)],
    timeout: Duration,
) -> Result<Vec<OffsetRange>, BusError> {
    // One request to each broker for all of its partitions; the two special offsets are those of the Kafka protocol.
    let firsts = offsets_for(consumer, connection, wanted, Offset::Beginning, timeout)?;
    let ends = offsets_for(consumer, connection, wanted, Offset::End, timeout)?;
    let ranges = firsts.iter().zip(&ends).zip(wanted).map(|((first, end), (topic, partition))| match (first, end) {
        // Retention may have moved the beginning between the two answers, never past the end.
        (Some(first), Some(end)) => Ok(OffsetRange { first: *first, end: (*end).max(*first) }),
        _ => Err(BusError::Unavailable(format!("the broker did not report the offsets of {topic}/{partition}"))),
    });
    ranges.collect()
}

fn offsets_for<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    connection: &Connection,
    wanted: &[(&str, u32)],
    time: Offset,
    timeout: Duration,
) -> Result<Vec<Option<u64>>, BusError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    const DOING: &str = "asking for offsets";
    let until = Instant::now() + timeout;
    let found = loop {
        let list = list_of(wanted.iter().map(|(topic, partition)| (*topic, *partition, time)))?;
        let left = until.saturating_duration_since(Instant::now()).max(LEADER_WAIT);
        let list = consumer.offsets_for_times(list, left).map_err(|error| connection.failed(DOING, &error))?;
        let found = raw::elements(&list);
        let is_moving = found.iter().any(|element| element.error.is_some_and(has_moved));
        if !is_moving || Instant::now() >= until {
            break found;
        }
        thread::sleep(LEADER_WAIT);
    };
    connection.alive();
    answers(connection, DOING, wanted, &found, |element| u64::try_from(element.offset).ok())
}

/// How long a partition's leader is waited for before it is asked again.
const LEADER_WAIT: Duration = Duration::from_millis(50);

/// Whether the broker that was asked does not lead the partition yet, or no longer: for a moment after a topic was created or a
/// broker started, while the client's metadata is older or newer than the broker's.
fn has_moved(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::LeaderNotAvailable | Code::NotLeaderForPartition | Code::FencedLeaderEpoch | Code::UnknownLeaderEpoch
    )
}

/// Returns what the consumer's group has committed.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    connection: &Connection,
    wanted: &[(&str, u32)],
    timeout: Duration,
) -> Result<Vec<Option<Committed>>, BusError> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let list = list_of(wanted.iter().map(|(topic, partition)| (*topic, *partition, Offset::Invalid)))?;
    let list = consumer.committed_offsets(list, timeout).map_err(|error| connection.failed(ASKING_COMMITS, &error))?;
    connection.alive();
    answers(connection, ASKING_COMMITS, wanted, &raw::elements(&list), groups::commit_in)
}

/// Returns what the returned list says about each wanted partition, in their order.
///
/// # Errors
/// The list leaves out a partition: that is no answer, and means neither that nothing is committed nor that the
/// partition is empty.
fn answers<T>(
    connection: &Connection,
    doing: &str,
    wanted: &[(&str, u32)],
    found: &[raw::Element],
    take: impl Fn(&raw::Element) -> Option<T>,
) -> Result<Vec<Option<T>>, BusError> {
    let each = wanted.iter().map(|(topic, partition)| {
        let Some(element) = found.iter().find(|found| is(found, topic, *partition)) else {
            return Err(BusError::Unavailable(format!("{doing}: the broker's answer leaves out {topic}/{partition}")));
        };
        match element.error {
            Some(code) => Err(connection.failed(doing, &KafkaError::OffsetFetch(code))),
            None => Ok(take(element)),
        }
    });
    each.collect()
}

fn is(found: &raw::Element, topic: &str, partition: u32) -> bool {
    found.topic == topic && u32::try_from(found.partition) == Ok(partition)
}

/// A partition list for librdkafka.
pub(super) fn list_of<'a>(
    entries: impl Iterator<Item = (&'a str, u32, Offset)>,
) -> Result<TopicPartitionList, BusError> {
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in entries {
        let impossible = || BusError::Fatal(format!("{topic}/{partition} or its offset is outside Kafka's range"));
        if topic.contains('\0') {
            return Err(impossible());
        }
        let partition = i32::try_from(partition).map_err(|_| impossible())?;
        list.add_partition_offset(topic, partition, offset).map_err(|_| impossible())?;
    }
    Ok(list)
}

/// The error for a partition that holds this range when the brokers have no record at `wanted`.
pub(super) fn out_of_range(at: &TopicPartition, wanted: u64, range: OffsetRange) -> BusError {
    if wanted < range.first {
        return BusError::Gone { at: at.clone(), wanted, first: range.first };
    }
    BusError::Fatal(format!(
        "{at}: offset {wanted} does not exist, the partition holds {} to {}",
        range.first, range.end
    ))
}

/// Kafka's offsets are signed.
pub(super) fn offset_of(offset: u64) -> Offset {
    i64::try_from(offset).map_or(Offset::End, Offset::Offset)
}

/// An id as Kafka's own tools write it.
fn base64url(id: u128) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // Six bits a digit from the top; the last digit has two bits left, filled up with zeros.
    let sixes = (0..22).map(|at| if at < 21 { id >> (122 - 6 * at) } else { id << 4 });
    sixes.map(|six| char::from(DIGITS[(six & 63) as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_as_kafka_writes_them() {
        assert_eq!(base64url(1), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(base64url(u128::MAX), "_____________________w");
        assert_eq!(base64url(0xfb << 120), "-wAAAAAAAAAAAAAAAAAAAA");
    }

    #[test]
    fn a_partition_that_an_answer_leaves_out_is_an_error_and_not_nothing() {
        let list = list_of([("t", 0, Offset::Offset(5))].into_iter()).unwrap();
        let read = |wanted: &[(&str, u32)]| {
            answers(&Connection::new("test"), "asking", wanted, &raw::elements(&list), |element| {
                u64::try_from(element.offset).ok()
            })
        };
        assert_eq!(read(&[("t", 0)]).unwrap(), [Some(5)]);
        let error = read(&[("t", 0), ("t", 1)]).unwrap_err();
        assert!(error.to_string().contains("leaves out t/1"), "{error}");
    }
}
