use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::Lab;
use crate::process::{self, Cpu};
use crate::workload::Workload;

const PATIENCE: Duration = Duration::from_secs(120);

/// The settings of both reading programs: large fetches, and a queue that is seldom full.
const FETCH: [(&str, &str); 3] =
    [("fetch.max.bytes", "52428800"), ("queued.min.messages", "1000000"), ("queued.max.messages.kbytes", "65536")];

/// What reading a topic and dropping it took: what no worker can go below with the same client.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Reading {
    /// From the reader's start to its end, in seconds.
    pub seconds: f64,
    /// Events a second in that time.
    pub rate: f64,
    /// The reader's.
    pub cpu: Cpu,
    /// The broker's.
    pub broker: Cpu,
    /// The reader's, in bytes.
    pub peak_rss: u64,
}

/// Reads the topic with kcat, which drops it.
///
/// # Errors
/// It is not installed, or fails.
pub fn read_with_kcat(lab: &Lab, topic: &str, workload: &Workload) -> Result<Reading> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-b", lab.brokers(), "-t", topic, "-o", "beginning", "-e", "-q", "-f", ""]);
    for (key, value) in FETCH {
        kcat.args(["-X", &format!("{key}={value}")]);
    }
    kcat.stdout(Stdio::from(File::options().write(true).open("/dev/null")?));
    lab.read(kcat, workload).context("kcat")
}

/// Reads the topic with a program that calls rdkafka's `poll` and drops each message: `drain --reader`.
///
/// # Errors
/// It fails.
pub fn read_with_rdkafka(lab: &Lab, topic: &str, workload: &Workload) -> Result<Reading> {
    let mut reader = Command::new(std::env::current_exe()?);
    reader.args(["--reader", lab.brokers(), topic, &workload.messages().to_string()]);
    lab.read(reader, workload).context("the reader")
}

impl Lab {
    fn read(&self, mut command: Command, workload: &Workload) -> Result<Reading> {
        let broker = process::cpu_of(self.broker_pid)?;
        let ended = process::wait(command.stdin(Stdio::null()).spawn()?, PATIENCE)?;
        ensure!(ended.status.success(), "it failed with {}", ended.status);
        let seconds = ended.wall.as_secs_f64();
        Ok(Reading {
            seconds,
            rate: rate(workload.events, seconds),
            cpu: ended.cpu,
            broker: process::cpu_of(self.broker_pid)? - broker,
            peak_rss: ended.peak_rss,
        })
    }
}

/// Polls until `messages` messages have come, and drops them.
///
/// # Errors
/// The broker is away, or has fewer messages.
pub fn discard(brokers: &str, topic: &str, messages: u64) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "none").set("enable.auto.commit", "false");
    config.set("enable.partition.eof", "true");
    // By default a full queue is left alone for a second. The librdkafka of many a kcat has no such setting.
    config.set("fetch.queue.backoff.ms", "2");
    for (key, value) in FETCH {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut partitions = TopicPartitionList::new();
    let mut open = 0;
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        partitions.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        open += 1;
    }
    consumer.assign(&partitions)?;
    let mut read = 0;
    while open > 0 {
        match consumer.poll(PATIENCE).context("nothing came")? {
            Ok(_) => read += 1,
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(read == messages, "{read} of {messages} messages came");
    Ok(())
}

/// Events a second.
pub(super) fn rate(events: u64, seconds: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts of events lie far below 2^52")]
    let events = events as f64;
    if seconds > 0.0 { events / seconds } else { 0.0 }
}
