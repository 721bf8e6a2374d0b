use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::config::Settings;
use super::lookup::{Asking, Lookup};
use super::state::Connection;
use crate::{BusError, TopicOptions, count_of};

/// The longest wait for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The last record of each key is kept. The broker never compacts the segment that it writes to: with one that is closed after ten
/// minutes, a topic of states stays small and is read fast.
const COMPACTED: &[(&str, &str)] = &[("cleanup.policy", "compact"), ("segment.ms", "600000")];

/// The properties of a topic that keeps its records forever.
const KEPT: [(&str, &str); 3] = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];

/// Creates a topic, or checks the existing one.
pub(super) fn create_topic(settings: &Settings, topic: &str, options: &TopicOptions) -> Result<bool, BusError> {
    let partitions = options.partitions;
    let count = i32::try_from(partitions).ok().filter(|count| *count > 0);
    let Some(count) = count else {
        return Err(BusError::Settings(format!("topic {topic:?} cannot have {}", count_of(partitions, "partition"))));
    };
    let lookup = Lookup::new(&settings.lookup(), "lookup")?;
    if let Some(actual) = lookup.partitions(topic, PATIENCE)? {
        return check(topic, partitions, actual).map(|()| false);
    }
    let created = ask_to_create(settings, topic, count, options, false)?;
    wait_until_known(&lookup, topic)?;
    if let Some(actual) = lookup.partitions(topic, PATIENCE)? {
        check(topic, partitions, actual)?;
    }
    Ok(created)
}

fn check(topic: &str, wanted: u32, actual: u32) -> Result<(), BusError> {
    if wanted == actual {
        return Ok(());
    }
    Err(BusError::PartitionCount { topic: topic.to_owned(), wanted, actual })
}

/// Asks the broker for the topic; returns whether it was created, or could be where it is `only_checked`.
fn ask_to_create(
    settings: &Settings,
    topic: &str,
    partitions: i32,
    options: &TopicOptions,
    only_checked: bool,
) -> Result<bool, BusError> {
    let connection = Arc::new(Connection::new("admin"));
    let admin: AdminClient<Asking> = settings
        .admin()
        .create_with_context(Asking(Arc::clone(&connection)))
        .map_err(|error| BusError::Settings(error.to_string()))?;
    const BROKERS_DEFAULT: i32 = -1;
    let replicas = options.replicas.map_or(BROKERS_DEFAULT, i32::from);
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replicas));
    if options.compact {
        new = COMPACTED.iter().fold(new, |new, (name, value)| new.set(name, value));
    }
    if options.keep {
        new = KEPT.iter().fold(new, |new, (name, value)| new.set(name, value));
    }
    let retention = options.retention.map(|retention| retention.as_millis().to_string());
    if let Some(retention) = &retention {
        new = new.set("cleanup.policy", "delete").set("retention.ms", retention);
    }
    let topics = [new];
    let options = AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE));
    let options = options.validate_only(only_checked);
    let doing = format!("creating topic {topic:?}");
    let answers = wait_for(admin.create_topics(&topics, &options)).map_err(|error| match error {
        // Errors of the call itself carry no error code for the topic.
        KafkaError::AdminOp(code) => connection.failed(&doing, &KafkaError::Global(code)),
        other => connection.failed(&doing, &other),
    })?;
    match answers.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        // Another process created it first; its partitions are checked next.
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, RDKafkaErrorCode::InvalidTopic))) => {
            Err(BusError::Settings(format!("{topic:?} is not a valid Kafka topic name")))
        }
        Some(Err((_, RDKafkaErrorCode::InvalidReplicationFactor))) => Err(BusError::Settings(format!(
            "topic {topic:?} cannot have {replicas} replicas: the cluster has fewer brokers, or the number is 0"
        ))),
        Some(Err((_, code))) => Err(connection.failed(&doing, &KafkaError::Global(code))),
        None => Err(BusError::Unavailable(format!("{doing}: no answer"))),
    }
}

/// Whether this client may create the topic, which does not exist. The broker checks the request and creates nothing.
pub(super) fn may_create(settings: &Settings, topic: &str) -> Result<bool, BusError> {
    match ask_to_create(settings, topic, 1, &TopicOptions::new(1), true) {
        Ok(_) => Ok(true),
        Err(BusError::Access(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A created topic takes a moment until every broker knows it and every partition has a leader.
fn wait_until_known(lookup: &Lookup, topic: &str) -> Result<(), BusError> {
    let until = Instant::now() + PATIENCE;
    while !lookup.has_leaders(topic, PATIENCE) {
        if Instant::now() > until {
            return Err(BusError::Unavailable(format!(
                "topic {topic:?} was created, but not all of its partitions have a leader yet"
            )));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for the asynchronous calls of this crate, those of the admin client, on the calling thread.
pub(super) fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}
