//! Whether a running worker is healthy: `run --health-file` writes a file, `health` reads it, both without the network.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use serde_json::{Value, json};
use tallybus_sdk::config::parse_duration;
use tallybus_worker::{PartitionState, WorkerHandle, live};
use tokio::task::AbortHandle;

use crate::Global;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;

/// How often the file is written: well below any sensible `--within`.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// Check whether a running `run --health-file` is healthy, for probes; connects to nothing.
///
/// A worker that waits for its bus or for its backend is alive: restarting it would not help. Exit status 0: alive
/// (with --ready: ready), 1: not alive (or not ready), 2: the file does not exist or cannot be read.
#[derive(Debug, Args)]
pub(crate) struct Health {
    /// The file of `run --health-file`.
    #[arg(long, value_name = "PATH")]
    file: PathBuf,
    /// The maximum age of each worker's last loop iteration, and of the file.
    ///
    /// A healthy worker waits up to two minutes in one place, for a broker that does not answer a commit while a
    /// partition is given up.
    #[arg(long, value_name = "DURATION", default_value = "3m", value_parser = parse_duration)]
    within: Duration,
    /// Also require that every backend has been ready at least once since the start, and that no worker is halted in all of its
    /// partitions.
    #[arg(long)]
    ready: bool,
}

impl Health {
    pub(crate) fn run(&self, _global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let shown = self.file.display();
        let text = fs::read_to_string(&self.file).map_err(|error| {
            Failure::could_not_look(match error.kind() {
                // A worker that stops removes the file.
                ErrorKind::NotFound => format!(
                    "there is no health file {shown}: no `tallybus run --health-file {shown}` is running, because it was \
                     not started yet, has stopped, or writes another file"
                ),
                _ => format!("cannot read the health file {shown}: {error}"),
            })
        })?;
        let page: Value = serde_json::from_str(&text)
            .map_err(|error| Failure::could_not_look(format!("{shown} is not a health file: {error}")))?;
        let faults = self.faults(&page, jiff::Timestamp::now().as_millisecond()).map_err(|wrong| {
            Failure::could_not_look(format!("{shown} is not a health file: {wrong} is missing or of another type"))
        })?;
        if output.json {
            output.report(&json!({ "ok": faults.is_empty(), "faults": faults, "file": page }).to_string())?;
        } else {
            for line in if faults.is_empty() { lines(&page) } else { faults.clone() } {
                output.report(&line)?;
            }
        }
        Ok(if faults.is_empty() { Verdict::Good } else { Verdict::Bad })
    }

    /// # Errors
    /// Names the key that is missing in the file.
    fn faults(&self, page: &Value, now_ms: i64) -> Result<Vec<String>, &'static str> {
        let written_ms = page["written_ms"].as_i64().ok_or("`written_ms`")?;
        let workers = page["workers"].as_array().ok_or("`workers`")?;
        // The clock may have been set back: a file from the future is as bad as an old one, once it stays so.
        let age = Duration::from_millis(now_ms.abs_diff(written_ms));
        if age > self.within {
            return Ok(vec![format!("the file was written {} s ago: the process hangs or has ended", age.as_secs())]);
        }
        let mut faults = Vec::new();
        for worker in workers {
            let name = worker["name"].as_str().ok_or("`name`")?;
            match worker["silent_ms"].as_u64().map(Duration::from_millis) {
                None => faults.push(live::could_not_start(name)),
                Some(silent) if silent + age > self.within => faults.push(live::is_silent(name, silent)),
                Some(_) if self.ready && worker["backend_checked"] != true => faults.push(live::not_ready(name)),
                // A file of an earlier version does not say it.
                Some(_) if self.ready && worker["all_halted"] == true => {
                    faults.push(live::all_halted(name, &halts_of(worker)));
                }
                Some(_) => {}
            }
        }
        if self.ready && workers.is_empty() {
            faults.push(live::WAITING_FOR_BUS.to_owned());
        }
        Ok(faults)
    }
}

/// The lines for healthy workers. A number that the file does not have is shown as unknown, never as zero.
fn lines(page: &Value) -> Vec<String> {
    let workers = page["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if workers.is_empty() {
        return vec!["alive; waiting for the bus".to_owned()];
    }
    workers.iter().map(line).collect()
}

fn line(worker: &Value) -> String {
    let partitions = match worker["partitions"].as_u64() {
        Some(count) => count_of(count, "partition"),
        None => "an unknown number of partitions".to_owned(),
    };
    let stopped = match worker["stopped"].as_u64() {
        Some(0) => String::new(),
        Some(count) => format!(" and {count} stopped"),
        None => " and an unknown number stopped".to_owned(),
    };
    let lag = match (worker["behind"].as_u64(), worker["behind_seconds"].as_u64()) {
        (None, _) => "lag unknown".to_owned(),
        (Some(0), _) => "0 messages behind".to_owned(),
        (Some(behind), Some(seconds)) => format!("{} behind ({seconds} s)", count_of(behind, "message")),
        (Some(behind), None) => format!("{} behind (age unknown)", count_of(behind, "message")),
    };
    let halts = halts_of(worker);
    let failure = match halts.is_empty() {
        true => worker["last_error"].as_str().map(|failure| format!(", {failure}")).unwrap_or_default(),
        false => format!(", halted, needs operator action: {}", halts.join("; ")),
    };
    format!("{}: alive, {partitions}{stopped}, {lag}{failure}", worker["name"].as_str().unwrap_or("unnamed worker"))
}

/// Why a worker is halted. A file of an earlier version has no `halted`.
fn halts_of(worker: &Value) -> Vec<String> {
    let halts = worker["halted"].as_array().map(Vec::as_slice).unwrap_or_default();
    halts.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A worker as the health file sees it.
pub(crate) struct Watched {
    pub(crate) name: String,
    /// `None` when it could not start.
    pub(crate) handle: Option<WorkerHandle>,
    /// The check of its backend, which ends when the backend is ready.
    pub(crate) check: Option<AbortHandle>,
}

impl Watched {
    fn as_json(&self, started: Instant) -> Value {
        let Some(handle) = &self.handle else { return json!({ "name": self.name, "silent_ms": null }) };
        let status = handle.status();
        let silent = status.last_run.unwrap_or(started).elapsed();
        let stopped = status.partitions.values().filter(|partition| partition.state != PartitionState::Running).count();
        json!({
            "name": self.name,
            "silent_ms": millis(silent),
            "backend_checked": self.check.as_ref().is_some_and(AbortHandle::is_finished),
            "partitions": status.partitions.len() - stopped,
            "stopped": stopped,
            "behind": status.lag(),
            "behind_seconds": status.lag_time(SystemTime::now()).map(|lag| lag.as_secs()),
            "halted": status.halts(),
            "all_halted": status.is_wholly_halted(),
            "last_error": status.last_error,
        })
    }
}

/// Writes the health file beside the workers, until dropped; then the file is removed too.
pub(crate) struct HealthFile {
    path: PathBuf,
    news: Option<Sender<Vec<Watched>>>,
    thread: Option<JoinHandle<()>>,
}

impl HealthFile {
    /// Writes the file for the first time, and continues to write it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn start(path: &Path) -> Result<Self, Failure> {
        let cannot = |error| Failure::failed(format!("cannot write the health file {}: {error}", path.display()));
        let started = Instant::now();
        write(path, &[], started).map_err(cannot)?;
        let (news, watched) = channel();
        let own = path.to_owned();
        let keep_writing = move || {
            let mut workers = Vec::new();
            let mut failed = false;
            loop {
                match watched.recv_timeout(WRITE_EVERY) {
                    Ok(started) => workers = started,
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
                match write(&own, &workers, started) {
                    Ok(()) => failed = false,
                    Err(error) if !failed => {
                        failed = true;
                        tracing::warn!(
                            file = %own.display(),
                            %error,
                            "the health file cannot be written; probes will fail"
                        );
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = thread::Builder::new().name("health".to_owned()).spawn(keep_writing).map_err(cannot)?;
        Ok(Self { path: path.to_owned(), news: Some(news), thread: Some(thread) })
    }

    /// Reports these workers from now on.
    pub(crate) fn watch(&self, workers: Vec<Watched>) {
        if let Some(news) = &self.news {
            // Only a panic ends the thread before this does; then the file grows old, and probes fail.
            let _ended = news.send(workers);
        }
    }
}

impl Drop for HealthFile {
    fn drop(&mut self) {
        drop(self.news.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
        // A file left behind would only grow old.
        let _gone = fs::remove_file(&self.path);
    }
}

/// Replaces the file atomically: a reader sees the old or the new file, never half of it.
fn write(path: &Path, workers: &[Watched], started: Instant) -> std::io::Result<()> {
    let workers: Vec<Value> = workers.iter().map(|worker| worker.as_json(started)).collect();
    let page = json!({ "written_ms": jiff::Timestamp::now().as_millisecond(), "workers": workers });
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    replace(&partial, page.to_string().as_bytes())?;
    fs::rename(&partial, path)
}

/// Writes a new file. What was there before is removed, not written: a link could lead to any file of this user.
fn replace(path: &OsStr, content: &[u8]) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Fails where another process has put something there meanwhile; never follows a link.
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(content)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;

    fn faults(ready: bool, written: i64, workers: Value) -> Result<Vec<String>, &'static str> {
        let health = Health { file: PathBuf::new(), within: Duration::from_secs(60), ready };
        health.faults(&json!({ "written_ms": written, "workers": workers }), NOW)
    }

    #[test]
    fn what_waits_is_alive_and_what_hangs_is_not() {
        let fresh = 999_999_000;
        let worker =
            |silent: Value, checked: bool| json!([{ "name": "a", "silent_ms": silent, "backend_checked": checked }]);
        let halted = |all: bool| json!([{ "name": "a", "silent_ms": 1, "backend_checked": true, "halted": ["no table"], "all_halted": all }]);
        let cases = [
            ("waits for the bus", false, fresh, json!([]), ""),
            ("waits for the bus", true, fresh, json!([]), "waiting for the bus"),
            ("works", true, fresh, worker(json!(100), true), ""),
            ("waits for its backend", false, fresh, worker(json!(100), false), ""),
            ("waits for its backend", true, fresh, worker(json!(100), false), "not ready yet"),
            ("is halted in some partitions", true, fresh, halted(false), ""),
            ("is halted in all partitions", false, fresh, halted(true), ""),
            (
                "is halted in all partitions",
                true,
                fresh,
                halted(true),
                "every partition is halted and needs operator action: no table",
            ),
            ("hangs", false, fresh, worker(json!(61_000), true), "silent for 61 s"),
            ("hangs, with the age of the file", false, 999_970_000, worker(json!(31_000), true), "silent for 31 s"),
            ("could not start", false, fresh, worker(Value::Null, false), "could not start"),
            ("the process has ended", false, 999_000_000, worker(json!(100), true), "written 1000 s ago"),
            ("the clock was reset", false, 1_001_000_000, worker(json!(100), true), "written 1000 s ago"),
        ];
        for (what, ready, written, workers, expected) in cases {
            let found = faults(ready, written, workers).unwrap().join("; ");
            assert!(found.contains(expected) && found.is_empty() == expected.is_empty(), "{what}: {found:?}");
        }
    }

    #[test]
    fn a_number_that_the_page_lacks_is_shown_as_unknown() {
        let page = json!({ "workers": [{ "name": "a", "silent_ms": 1, "partitions": 3, "stopped": 0 }] });
        assert_eq!(lines(&page), ["a: alive, 3 partitions, lag unknown"]);
        let page = json!({ "workers": [{ "name": "a", "silent_ms": 1, "behind": 1, "behind_seconds": 30 }] });
        let shown = "a: alive, an unknown number of partitions and an unknown number stopped, 1 message behind (30 s)";
        assert_eq!(lines(&page), [shown]);
    }

    #[test]
    fn a_clock_before_1970_ages_like_any_other() {
        let health = Health { file: PathBuf::new(), within: Duration::from_secs(60), ready: false };
        let page = json!({ "written_ms": -5_000, "workers": [] });
        assert_eq!(health.faults(&page, -4_000), Ok(vec![]));
        assert_eq!(
            health.faults(&page, 56_000).unwrap(),
            ["the file was written 61 s ago: the process hangs or has ended"]
        );
    }

    #[test]
    fn another_file_is_distinguished_from_a_health_file() {
        assert_eq!(faults(false, 1, json!(3)), Err("`workers`"));
        assert_eq!(faults(false, 999_999_000, json!([{}])), Err("`name`"));
    }
}
