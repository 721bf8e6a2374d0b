//! A real Kafka under the contract.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod contract;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::{Offset, TopicPartitionList};
use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, BusError, TopicOptions};
use tallybus_tests::KafkaServer;

/// One broker for all cases, so that they also meet each other as strangers do.
struct Kafka {
    server: KafkaServer,
}

impl contract::Subject for Kafka {
    fn bus(&self) -> Box<dyn Bus> {
        reopen(&self.address())
    }

    fn address(&self) -> String {
        self.server.bootstrap()
    }

    fn trim(&self, topic: &str, partition: u32, first: u64) {
        let mut offsets = TopicPartitionList::new();
        let first = Offset::Offset(first.try_into().unwrap());
        offsets.add_partition_offset(topic, partition.try_into().unwrap(), first).unwrap();
        let trimmed = wait_for(admin(&self.address()).delete_records(&offsets, &AdminOptions::new())).unwrap();
        assert!(trimmed.elements().iter().all(|element| element.error().is_ok()), "{trimmed:?}");
    }

    fn delete_topic(&self, topic: &str) {
        let deleted = wait_for(admin(&self.address()).delete_topics(&[topic], &AdminOptions::new())).unwrap();
        assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        let until = Instant::now() + contract::PATIENCE;
        let observer = self.bus().observer().unwrap();
        while observer.partitions_of(topic).unwrap().is_some() {
            assert!(Instant::now() < until, "{topic} was not deleted");
        }
    }

    fn compares(&self) -> bool {
        false
    }

    fn session_timeout(&self) -> Duration {
        Duration::from_secs(3)
    }
}

fn reopen(address: &str) -> Box<dyn Bus> {
    Box::new(KafkaBus::new(address, &BTreeMap::new()).unwrap())
}

/// The broker ends with the process.
fn subject() -> Option<&'static Kafka> {
    static SUBJECT: OnceLock<Option<Kafka>> = OnceLock::new();
    SUBJECT.get_or_init(|| Some(Kafka { server: tallybus_tests::kafka()? })).as_ref()
}

contract::suite!(
    match subject() {
        Some(subject) => subject,
        None => return,
    },
    reopen
);

fn admin(address: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", address).create().unwrap()
}

fn wait_for<T>(asked: impl Future<Output = T>) -> T {
    let mut asked = std::pin::pin!(asked);
    loop {
        match asked.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// What this topic's property is on the broker.
fn property(address: &str, topic: &str, name: &str) -> String {
    let (options, resource) = (AdminOptions::new(), [ResourceSpecifier::Topic(topic)]);
    let answer = wait_for(admin(address).describe_configs(&resource, &options)).unwrap();
    let config = answer.into_iter().next().unwrap().unwrap();
    config.get(name).unwrap().value.clone().unwrap()
}

#[test]
fn a_kept_topic_has_no_limit_of_time_or_size() {
    let Some(subject) = subject() else { return };
    let (bus, address) = (contract::Subject::bus(subject), contract::Subject::address(subject));
    assert!(bus.create_topic("kept-for-ever", &TopicOptions::new(1).kept()).unwrap());
    assert!(!bus.create_topic("kept-for-ever", &TopicOptions::new(1).kept()).unwrap());
    assert_eq!(bus.observer().unwrap().partitions_of("kept-for-ever").unwrap(), Some(1));
    for (name, value) in [("retention.ms", "-1"), ("retention.bytes", "-1"), ("cleanup.policy", "delete")] {
        assert_eq!(property(&address, "kept-for-ever", name), value, "{name}");
    }
}

#[test]
fn a_topic_with_more_replicas_than_brokers_is_refused_and_not_created() {
    let Some(subject) = subject() else { return };
    let bus = contract::Subject::bus(subject);
    let refused = bus.create_topic("replicas", &TopicOptions::new(1).replicas(Some(3)));
    assert!(matches!(&refused, Err(BusError::Settings(why)) if why.contains("3 replicas")), "{refused:?}");
    assert!(bus.create_topic("replicas", &TopicOptions::new(1).replicas(Some(1))).unwrap());
}
