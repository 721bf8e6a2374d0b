use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::directory::Directory;
use crate::failure::Failure;

/// How long a worker may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Starts workers: processes of this same program.
pub(super) struct Workers<'d> {
    directory: &'d Directory,
    program: PathBuf,
}

impl<'d> Workers<'d> {
    pub(super) fn new(directory: &'d Directory) -> Result<Self, Failure> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| Failure::failed(format!("cannot find this program: {error}")))?;
        Ok(Self { directory, program })
    }

    /// Starts a worker of this sink. It stops when this process ends, however it ends: it watches a pipe that closes then.
    pub(super) fn start(&self, sink: &str) -> Result<Worker, Failure> {
        let log = self.directory.log(sink);
        let file = File::options().append(true).create(true).open(&log);
        let file = file.map_err(|error| Failure::failed(format!("cannot write {}: {error}", log.display())))?;
        let mut command = Command::new(&self.program);
        command.args(["run", "--sink", sink, "--until-stdin-ends", "--drain", "2s", "--config"]);
        command.arg(self.directory.settings());
        // The demo has its own settings; those of the environment are for others.
        let others = std::env::vars_os().map(|(name, _)| name);
        for name in others.filter(|name| name.to_string_lossy().starts_with("TALLYBUS_") && name != "TALLYBUS_LOG") {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(file);
        // Ctrl-C reaches the demo alone, which then stops its workers.
        command.process_group(0);
        let failed = |error| Failure::failed(format!("cannot start a worker ({}): {error}", self.program.display()));
        let mut child = command.spawn().map_err(failed)?;
        Ok(Worker { sink: sink.to_owned(), log, stdin: child.stdin.take(), child, ended: None, is_killed: false })
    }
}

/// A worker in its own process; it is killed when dropped.
pub(super) struct Worker {
    sink: String,
    log: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    ended: Option<ExitStatus>,
    is_killed: bool,
}

impl Worker {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn sink(&self) -> &str {
        &self.sink
    }

    /// Fails when the worker has ended without being asked to.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.status()? {
            None => Ok(()),
            Some(_) if self.is_killed => Ok(()),
            Some(status) => Err(self.failure(&format!("ended with {status}"))),
        }
    }

    /// Ends the worker with SIGKILL: it cannot finish, write or say anything.
    pub(super) fn kill(&mut self) -> Result<(), Failure> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        self.ended = Some(killed.map_err(|error| self.failure(&format!("cannot be killed: {error}")))?);
        self.is_killed = true;
        Ok(())
    }

    /// Asks the worker to stop.
    pub(super) fn ask_to_stop(&mut self) {
        self.stdin = None;
    }

    /// Waits until the worker has stopped.
    pub(super) fn wait(&mut self) -> Result<(), Failure> {
        let until = Instant::now() + STOP_TIMEOUT;
        loop {
            match self.status()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failure(&format!("ended with {status}"))),
                None if Instant::now() > until => return Err(self.failure("does not stop")),
                None => thread::sleep(LOOK_AGAIN),
            }
        }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, Failure> {
        if self.ended.is_none() {
            let status = self.child.try_wait();
            self.ended = status.map_err(|error| self.failure(&format!("cannot be watched: {error}")))?;
        }
        Ok(self.ended)
    }

    /// What went wrong with this worker, and the end of its log.
    pub(super) fn failure(&self, what: &str) -> Failure {
        let last = last_line(&self.log).map(|line| format!("\n  its last line: {line}")).unwrap_or_default();
        Failure::failed(format!(
            "the worker of {} (pid {}) {what}; its log: {}{last}",
            self.sink,
            self.pid(),
            self.log.display()
        ))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It has sealed what it writes: killing it loses nothing, and leaving it behind would be worse.
            let _ = self.child.kill().and_then(|()| self.child.wait());
        }
    }
}

/// The last line of a log that says something; `None` when it cannot be read.
fn last_line(log: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(log).ok()?.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}
