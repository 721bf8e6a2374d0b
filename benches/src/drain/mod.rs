//! One drain, measured: a topic that is full already, the worker as users run it, and a sink that counts in a process of its
//! own. The audit is part of it: a drain that lost or doubled a line, or whose sum is off, is a failure and no figure.

mod reader;
mod sink;
mod worker;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
pub use reader::{Reading, discard, read_with_kcat, read_with_rdkafka};
pub use sink::SinkProcess;
use tallybus_bus::kafka::KafkaBus;
use tallybus_tests::KafkaServer;
pub use worker::{Contender, Drained, Settings};

use crate::topic;
use crate::workload::Workload;

/// A broker like those that users have, as far as its settings matter here: it gathers commits for a while.
const GATHERS: (&str, &str) = ("group.coordinator.append.linger.ms", "5");

/// A broker like those that users have.
///
/// # Errors
/// It is not installed.
pub fn broker() -> Result<KafkaServer> {
    start(&[GATHERS])
}

/// The same, with a property that is to be other.
///
/// # Errors
/// As [`broker`].
pub fn broker_with(property: (&str, &str)) -> Result<KafkaServer> {
    start(&[GATHERS, property])
}

fn start(properties: &[(&str, &str)]) -> Result<KafkaServer> {
    tallybus_tests::kafka_with(properties).context("this benchmark needs Kafka: run tests/install-servers.sh")
}

/// The broker, and where the files of the runs lie.
#[derive(Debug)]
pub struct Lab {
    /// Ends when dropped.
    _kafka: KafkaServer,
    brokers: String,
    broker_pid: u32,
    bus: KafkaBus,
    folder: PathBuf,
    /// Each run has a sink of its own name, so that it starts at the beginning of the topic.
    runs: u32,
}

impl Lab {
    /// Starts the broker.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn open() -> Result<Self> {
        let kafka = broker()?;
        let brokers = kafka.bootstrap();
        let broker_pid = kafka.pid().context("the broker has ended")?;
        let bus = KafkaBus::new(&brokers, &BTreeMap::new())?;
        let folder = beside_this_program("")?.join("../bench");
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        Ok(Self { _kafka: kafka, brokers, broker_pid, bus, folder, runs: 0 })
    }

    /// Fills a topic of its own with the workload and answers its name.
    ///
    /// # Errors
    /// See [`topic::fill`].
    pub fn fill(&self, workload: &Workload) -> Result<String> {
        let Workload { input, events, series, partitions } = workload;
        let topic = format!("bench-{input}-{events}-{series}-{partitions}");
        topic::fill(&self.bus, &self.brokers, &topic, workload)?;
        Ok(topic)
    }

    /// `host:port`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}

/// A program that was built together with this one.
///
/// # Errors
/// It is not there.
pub fn beside_this_program(name: &str) -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let path = exe.parent().unwrap_or(Path::new(".")).join(name);
    let missing = || format!("{} is not there; build it first: cargo build --release", path.display());
    fs::metadata(&path).with_context(missing)?;
    Ok(path)
}
