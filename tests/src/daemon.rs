//! A server process that a test kills, freezes and starts again.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::places::{self, RunDir};
use crate::ports;
use crate::process::{self, Server};

type Ready = Box<dyn Fn() -> bool + Send + Sync>;
type MakeCommand = Box<dyn Fn() -> Result<Command> + Send + Sync>;

/// How a server is started, always the same way, and how one sees that it is there.
pub(crate) struct Recipe {
    pub(crate) name: &'static str,
    pub(crate) command: MakeCommand,
    pub(crate) ready: Ready,
    pub(crate) ready_within: Duration,
}

/// A server of this test's own, with a directory that outlives its restarts. It ends when dropped.
pub struct Daemon {
    recipe: Recipe,
    dir: RunDir,
    process: Option<Server>,
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Daemon").field("name", &self.recipe.name).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Daemon {
    /// Starts it in `dir` and waits until it is ready.
    pub(crate) fn start(dir: RunDir, recipe: Recipe) -> Result<Daemon> {
        let mut daemon = Daemon { recipe, dir, process: None };
        daemon.launch()?;
        Ok(daemon)
    }

    /// Tries `start` with fresh directories and ports: a program that is none of these tests may take a port between the choice and
    /// the server's bind.
    pub(crate) fn start_on_free_port<T>(name: &str, start: impl Fn(RunDir, u16) -> Result<T>) -> Result<T> {
        let mut failure = anyhow!("{name} was not tried");
        for _attempt in 0..3 {
            match start(places::run_dir(name)?, ports::free_port()?) {
                Ok(started) => return Ok(started),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The process, for a test that stops and continues it; `None` when it is down.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Server::pid)
    }

    /// Kills it with SIGKILL; its data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Ends it in good order; its data stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(Duration::from_secs(20));
        }
    }

    /// Freezes it (SIGSTOP): connections stay open and nothing is answered.
    pub fn freeze(&self) {
        if let Some(process) = &self.process {
            process.signal(libc::SIGSTOP);
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        if let Some(process) = &self.process {
            process.signal(libc::SIGCONT);
        }
    }

    /// Starts it again on the same port with the same data, killing it first if it runs.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.launch()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        process::tail(&self.log(), 6000)
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = (self.recipe.command)()?;
        command.current_dir(self.dir.path());
        let mut process = Server::spawn(self.recipe.name, command, &self.log())?;
        process.wait_ready(self.recipe.ready_within, &self.recipe.ready)?;
        self.process = Some(process);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
