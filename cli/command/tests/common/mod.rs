//! The real binary in a directory of its own.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tallybus_bus::embedded::EmbeddedBus;
use tallybus_bus::{Bus, NewRecord};
use tempfile::TempDir;

pub struct Place {
    dir: TempDir,
}

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// The one JSON object that standard output is.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

impl Place {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// With an embedded bus and these sinks.
    pub fn with_settings(sinks: &str) -> Self {
        let place = Self::new();
        place.write("tallybus.toml", &format!("[bus]\nkind = \"embedded\"\npath = \"bus.db\"\n{sinks}"));
        place
    }

    /// With one SQLite sink, `local`.
    pub fn with_local() -> Self {
        Self::with_settings("[sinks.local]\nkind = \"sqlite\"\npath = \"local.db\"\nbatch = { max_delay = \"50ms\" }\n")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallybus"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TALLYBUS")) {
            command.env_remove(name);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    pub fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut child = self.spawn(self.command(args).stdin(Stdio::piped()));
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    pub fn spawn(&self, command: &mut Command) -> Child {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn bus(&self) -> EmbeddedBus {
        EmbeddedBus::open(&self.file("bus.db")).unwrap()
    }

    /// Publishes payloads as they are, as another program would.
    pub fn publish(&self, partition: u32, payloads: &[&[u8]]) {
        let mut publisher = self.bus().publisher().unwrap();
        for (token, payload) in (0..).zip(payloads) {
            let record =
                NewRecord { topic: "tallybus.counters", partition: Some(partition), key: None, payload, headers: &[] };
            publisher.publish(record, token).unwrap();
        }
        let mut deliveries = Vec::new();
        let until = Instant::now() + Duration::from_secs(10);
        while deliveries.len() < payloads.len() && Instant::now() < until {
            publisher.poll(Duration::from_millis(50), &mut deliveries);
        }
        assert_eq!(deliveries.len(), payloads.len());
        assert!(deliveries.iter().all(|delivery| delivery.outcome.is_ok()));
    }

    /// Publishes one record with headers.
    pub fn publish_with(&self, topic: &str, payload: &[u8], headers: &[(&str, &[u8])]) {
        let mut publisher = self.bus().publisher().unwrap();
        let record = NewRecord { topic, partition: Some(0), key: None, payload, headers };
        publisher.publish(record, 1).unwrap();
        let mut deliveries = Vec::new();
        publisher.poll(Duration::from_secs(10), &mut deliveries);
        assert!(deliveries.len() == 1 && deliveries[0].outcome.is_ok(), "{deliveries:?}");
    }

    pub fn sql(&self, database: &str, statement: &str) -> usize {
        rusqlite::Connection::open(self.file(database)).unwrap().execute(statement, []).unwrap()
    }
}

/// Sends a signal, named as `kill` names it, such as `-TERM`.
pub fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until something holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}
