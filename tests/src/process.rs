//! Child processes that cannot outlive the test process.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

type Job = (Command, mpsc::Sender<std::io::Result<Child>>);

/// A server process and its log. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it with standard output and error appended to `log`.
    pub(crate) fn spawn(name: &'static str, mut command: Command, log: &Path) -> Result<Server> {
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = spawn_bound(command).with_context(|| format!("cannot run {name}"))?;
        Ok(Server { name, child, log: log.to_path_buf() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` answers true.
    ///
    /// # Errors
    /// When the process ends before, or the deadline passes; with the end of its log.
    pub(crate) fn wait_ready(&mut self, deadline: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let until = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}; the end of its log:\n{}", self.name, self.log_tail());
            }
            if ready() {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("{} is not ready after {deadline:?}; the end of its log:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal to this process only.
    pub(crate) fn signal(&self, signal: i32) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        #[allow(unsafe_code)]
        // SAFETY: kill(2) touches no memory of ours. The child is not reaped before `wait`, so that its number cannot have
        // gone to another process.
        unsafe {
            libc::kill(pid, signal);
        }
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        if let Ok(Some(status)) = self.child.try_wait() {
            return status;
        }
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap_or(ExitStatus::from_raw(libc::SIGKILL))
    }

    /// Asks it to end, and kills it when it has not within `timeout`.
    pub(crate) fn stop(&mut self, timeout: Duration) -> ExitStatus {
        self.signal(libc::SIGTERM);
        let until = Instant::now() + timeout;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill()
    }

    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log, 6000)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last `bytes` of a file, as text.
pub(crate) fn tail(path: &Path, bytes: u64) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_else(|error| format!("(no log: {error})"))
}

/// Starts a child that the kernel kills when this process ends, even by SIGKILL.
///
/// The kernel watches the *thread* that forks, and a test's thread ends with the test; so one thread that lives as long as the
/// process starts all children.
fn spawn_bound(mut command: Command) -> Result<Child> {
    static STARTER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let parent = std::process::id();
    #[allow(unsafe_code)]
    // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, getppid, _exit), and nothing allocates.
    unsafe {
        command.pre_exec(move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // The parent may have died before the line above took effect.
            if u32::try_from(libc::getppid()) != Ok(parent) {
                libc::_exit(1);
            }
            Ok(())
        });
    }
    let starter = STARTER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("server-starter".to_owned())
            .spawn(move || {
                for (mut command, answer) in inbox {
                    // A caller that is gone drops its child, which then ends with this process.
                    let _unheard = answer.send(command.spawn());
                }
            })
            .expect("a thread can be started");
        Mutex::new(jobs)
    });
    let (answer, child) = mpsc::channel();
    starter.lock().expect("the starter does not panic").send((command, answer))?;
    Ok(child.recv()??)
}
