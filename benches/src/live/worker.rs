//! Workers: the real program, as processes of their own.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What a worker is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Kafka is.
    pub brokers: String,
    /// The load's topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// The sink's name, and with it its group.
    pub sink: String,
    /// Where the backend is.
    pub url: String,
    /// The longest that a batch waits.
    pub max_delay: Duration,
    /// librdkafka properties.
    pub kafka: Vec<(String, String)>,
}

impl Settings {
    fn toml(&self) -> String {
        let Self { brokers, topic, partitions, sink, url, max_delay, kafka } = self;
        let delay = max_delay.as_millis();
        let properties: String = kafka.iter().map(|(key, value)| format!("{key:?} = {value:?}\n")).collect();
        format!(
            "[bus]\nkind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\npartitions = {partitions}\n\
             [bus.kafka]\n{properties}\
             [sinks.{sink}]\nkind = \"influxdb\"\nurl = \"{url}\"\napi = \"v1\"\ndatabase = \"bench\"\n\
             batch = {{ max_delay = \"{delay}ms\" }}\ngzip = false\n"
        )
    }
}

/// A worker process; killed when dropped.
pub struct Worker {
    name: String,
    folder: PathBuf,
    child: Option<Child>,
}

impl Worker {
    /// Writes its settings into `directory` and starts it.
    ///
    /// # Errors
    /// The program is not built, or cannot be started.
    pub fn start(name: &str, folder: &Path, settings: &Settings) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let mut worker = Self { name: name.to_owned(), folder: folder.to_owned(), child: None };
        fs::write(worker.path("toml"), settings.toml())?;
        worker.spawn()?;
        Ok(worker)
    }

    /// Kills it: no goodbye.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("no worker to kill")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = Command::new(program()?);
        command.arg("run").arg("--config").arg(self.path("toml")).stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn path(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.child.is_some() {
            // One that has ended by itself needs no killing.
            let _ended = self.kill();
        }
    }
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// It has no `=`.
pub fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The program of this build; `TALLYBUS_BINARY` names another.
fn program() -> Result<PathBuf> {
    if let Some(named) = env::var_os("TALLYBUS_BINARY") {
        return Ok(named.into());
    }
    let here = env::current_exe()?;
    let program = here.with_file_name("tallybus");
    ensure!(
        program.is_file(),
        "{} is not there: build it with cargo build --release -p tallybus-command",
        program.display()
    );
    Ok(program)
}
