//! Fills a topic with a workload, in large record batches like those of a busy producer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tallybus_bus::kafka::KafkaBus;
use tallybus_bus::{Bus, TopicOptions};

use crate::workload::Workload;

/// How long the broker may take for what is still under way at the end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Deliveries are looked at once for so many messages.
const LOOK_EVERY: u64 = 1_000;

#[derive(Default)]
struct Failures(Arc<AtomicU64>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Creates the topic and writes every message of the workload into it.
///
/// # Errors
/// The topic is there already, or does not hold exactly the workload's messages in the end.
pub fn fill(bus: &KafkaBus, brokers: &str, topic: &str, workload: &Workload) -> Result<()> {
    ensure!(bus.create_topic(topic, &TopicOptions::new(workload.partitions))?, "topic {topic} is there already");
    let failures = Failures::default();
    let failed = Arc::clone(&failures.0);
    let producer: BaseProducer<Failures> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "100")
        .set("batch.size", "1000000")
        .set("batch.num.messages", "1000000")
        .set("queue.buffering.max.messages", "400000")
        .set("queue.buffering.max.kbytes", "200000")
        .create_with_context(failures)?;

    let mut messages = 0;
    workload.write(&mut |partition, message| {
        messages += 1;
        if messages % LOOK_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
        send(&producer, topic, partition, message)
    })?;
    producer.flush(PATIENCE).context("the broker did not take everything")?;
    let failed = failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} messages were refused");
    let stored: u64 = bus.observer()?.offsets_of(topic)?.iter().map(|range| range.end - range.first).sum();
    ensure!(stored == messages && messages == workload.messages(), "{stored} of {messages} messages were stored");
    Ok(())
}

fn send(producer: &BaseProducer<Failures>, topic: &str, partition: u32, message: &[u8]) -> Result<()> {
    loop {
        let record = BaseRecord::<(), [u8]>::to(topic).partition(i32::try_from(partition)?).payload(message);
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => bail!("a message was refused: {error}"),
        }
    }
}
