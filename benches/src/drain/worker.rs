use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::sink::{SinkProcess, audit};
use super::{Lab, beside_this_program};
use crate::process::{self, Cpu};
use crate::workload::Workload;

/// The longest that a drain may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// What of a worker's log is shown when it failed.
const SHOWN: usize = 4_000;

/// A build of the worker that takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contender {
    /// What the table calls it.
    pub name: String,
    /// The `tallybus` binary, or one that takes its place.
    pub program: PathBuf,
    /// Makes it drain a topic, with the settings that follow.
    pub arguments: Vec<String>,
}

impl Contender {
    /// The one that was built together with this program.
    ///
    /// # Errors
    /// It is not there.
    pub fn own() -> Result<Self> {
        Ok(Self { name: "tallybus".to_owned(), program: beside_this_program("tallybus")?, arguments: run() })
    }
}

impl FromStr for Contender {
    type Err = String;

    /// `PATH` or `NAME=PATH`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, path) = match text.split_once('=') {
            Some((name, path)) => (name.to_owned(), path),
            None => (Path::new(text).file_name().unwrap_or_default().to_string_lossy().into_owned(), text),
        };
        let program = fs::canonicalize(path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Self { name, program, arguments: run() })
    }
}

fn run() -> Vec<String> {
    ["run", "--until-caught-up"].map(str::to_owned).to_vec()
}

/// The sink's settings.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// `batch.max_events`.
    pub batch_events: u64,
    /// `batch.max_bytes`.
    pub batch_bytes: String,
    /// `batch.max_delay`.
    pub batch_delay: String,
    /// Further lines of the sink's table, as they stand.
    pub more: Vec<String>,
    /// Properties of librdkafka: lines of `[bus.kafka]`, as they stand.
    pub kafka: Vec<String>,
}

/// What a drain took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Drained {
    /// From the first line's arrival to the last's, in seconds.
    pub seconds: f64,
    /// Events a second in that time.
    pub rate: f64,
    /// From the worker's start to the first line, in seconds.
    pub until_first: f64,
    /// From the last line to the worker's end, in seconds.
    pub after_last: f64,
    /// The worker, from its start to its end.
    pub worker: Cpu,
    /// The sink, in that time.
    pub sink: Cpu,
    /// The broker, in that time.
    pub broker: Cpu,
    /// The worker's, in bytes.
    pub peak_rss: u64,
    /// Write requests.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

impl Lab {
    /// Drains the topic into a fresh sink.
    ///
    /// # Errors
    /// The worker failed, or what came in is not exactly the workload.
    pub fn drain(
        &mut self,
        contender: &Contender,
        topic: &str,
        workload: &Workload,
        settings: &Settings,
    ) -> Result<Drained> {
        self.runs += 1;
        let name = format!("run{}", self.runs);
        let sink = SinkProcess::start(workload)?;
        let config = self.folder.join(format!("{name}.toml"));
        fs::write(&config, settings.file(&name, &self.brokers, topic, &sink.url()))?;
        let log = self.folder.join(format!("{name}.log"));
        let output = File::create(&log)?;

        let (broker, sink_before) = (process::cpu_of(self.broker_pid)?, sink.cpu()?);
        let started = now()?;
        let worker = Command::new(&contender.program)
            .args(&contender.arguments)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run {}", contender.program.display()))?;
        let ended = process::wait(worker, PATIENCE).with_context(|| tail(&log))?;
        let finished = now()?;
        let (broker, sink_cpu) = (process::cpu_of(self.broker_pid)? - broker, sink.cpu()? - sink_before);

        ensure!(ended.status.success(), "the worker failed with {}:\n{}", ended.status, tail(&log));
        let stats = sink.stats()?;
        audit(&stats, workload).with_context(|| tail(&log))?;
        let seconds = seconds(stats.last_ns.saturating_sub(stats.first_ns));
        Ok(Drained {
            seconds,
            rate: super::reader::rate(workload.events, seconds),
            until_first: self::seconds(stats.first_ns.saturating_sub(started)),
            after_last: self::seconds(finished.saturating_sub(stats.last_ns)),
            worker: ended.cpu,
            sink: sink_cpu,
            broker,
            peak_rss: ended.peak_rss,
            requests: stats.requests,
            bytes: stats.bytes,
        })
    }
}

impl Settings {
    /// Uncompressed, in batches of so many events.
    pub fn plain(batch_events: u64) -> Self {
        Self {
            gzip: false,
            batch_events,
            batch_bytes: "4 MiB".to_owned(),
            batch_delay: "200ms".to_owned(),
            more: Vec::new(),
            kafka: Vec::new(),
        }
    }

    fn file(&self, sink: &str, brokers: &str, topic: &str, url: &str) -> String {
        let Self { gzip, batch_events, batch_bytes, batch_delay, more, kafka } = self;
        let (more, kafka) = (more.join("\n"), kafka.join("\n"));
        format!(
            r#"[bus]
kind = "kafka"
brokers = "{brokers}"
topic = "{topic}"
[bus.kafka]
{kafka}

[sinks.{sink}]
kind = "influxdb"
api = "v1"
url = "{url}"
database = "counters"
window = "0s"
gzip = {gzip}
batch = {{ max_events = {batch_events}, max_bytes = "{batch_bytes}", max_delay = "{batch_delay}" }}
{more}
"#
        )
    }
}

/// Nanoseconds since the Unix epoch: the sink, another process, tells its times by the same clock.
fn now() -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the system clock is wrong")?;
    Ok(u64::try_from(since.as_nanos())?)
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    format!("the end of {}:\n{}", log.display(), String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN)..]))
}
