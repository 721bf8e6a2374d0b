//! What a process costs: CPU time and memory, as Linux accounts for them.

use std::fs;
use std::ops::{Add, Sub};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The unit of times in `/proc/PID/stat`: 100 a second on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time, in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// In the program.
    pub user: f64,
    /// In the kernel on its behalf.
    pub system: f64,
}

impl Cpu {
    /// Both.
    pub fn total(self) -> f64 {
        self.user + self.system
    }

    /// The same for each million of `count`.
    pub fn per_million(self, count: u64) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "counts of events lie far below 2^52")]
        let millions = count as f64 / 1e6;
        Self { user: self.user / millions, system: self.system / millions }
    }
}

impl Add for Cpu {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { user: self.user - other.user, system: self.system - other.system }
    }
}

/// What a running process has used so far, all threads together; a hundredth of a second fine.
///
/// # Errors
/// There is no such process.
pub fn cpu_of(pid: u32) -> Result<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The program's name, in brackets, may hold anything; the numbers follow.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no name")?;
    let ticks = |at: usize| -> Result<f64> {
        Ok(fields.split_whitespace().nth(at).context("/proc/PID/stat is too short")?.parse::<f64>()? / TICKS_PER_SECOND)
    };
    Ok(Cpu { user: ticks(11)?, system: ticks(12)? })
}

/// The most memory that a running process has had resident so far, in bytes.
pub fn peak_rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}

/// What a process had used when it ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it used.
    pub cpu: Cpu,
    /// In bytes. Looked at every few milliseconds: a peak of the very last moment may be missed.
    pub peak_rss: u64,
    /// From the call until its end.
    pub wall: Duration,
}

/// Waits for a child's end.
///
/// # Errors
/// It has not ended within `timeout`, and was killed.
pub fn wait(mut child: Child, timeout: Duration) -> Result<Ended> {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    let pid = child.id();
    let start = Instant::now();
    let mut peak = 0;
    loop {
        // The kernel's `ru_maxrss` would count what this process had when it forked.
        peak = peak_rss(pid).unwrap_or(0).max(peak);
        if let Some((status, cpu)) = try_wait(pid)? {
            return Ok(Ended { status, cpu, peak_rss: peak, wall: start.elapsed() });
        }
        if start.elapsed() > timeout {
            child.kill()?;
            child.wait()?;
            bail!("process {pid} did not end within {timeout:?}");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// How a child ended and what it had used; `None` while it runs.
fn try_wait(pid: u32) -> Result<Option<(ExitStatus, Cpu)>> {
    use std::os::unix::process::ExitStatusExt as _;

    let pid = libc::pid_t::try_from(pid)?;
    let mut status = 0;
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[allow(unsafe_code)]
    // SAFETY: wait4(2) writes to the two places given to it, which are as large as it takes them to be. A rusage of zeros,
    // should it write none, is a valid one.
    let (reaped, usage) = unsafe {
        let reaped = libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr());
        (reaped, usage.assume_init())
    };
    if reaped == 0 {
        return Ok(None);
    }
    ensure!(reaped == pid, "cannot wait for process {pid}: {}", std::io::Error::last_os_error());
    #[allow(clippy::cast_precision_loss, reason = "seconds and microseconds of a benchmark")]
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let cpu = Cpu { user: seconds(usage.ru_utime), system: seconds(usage.ru_stime) };
    Ok(Some((ExitStatus::from_raw(status), cpu)))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_busy_child_is_charged_and_a_sleeping_one_is_not() {
        let timeout = Duration::from_secs(20);
        let busy = Command::new("sh").args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; exit 3"]).spawn();
        let busy = wait(busy.unwrap(), timeout).unwrap();
        assert_eq!(busy.status.code(), Some(3));
        assert!(busy.cpu.total() > 0.01 && busy.peak_rss > 0, "{busy:?}");
        let idle = wait(Command::new("sleep").arg("0.05").spawn().unwrap(), timeout).unwrap();
        assert!(idle.status.success() && idle.cpu.total() < busy.cpu.total(), "{idle:?}");
    }

    #[test]
    fn this_process_is_seen_while_it_runs() {
        let pid = std::process::id();
        assert!(cpu_of(pid).is_ok());
        assert!(peak_rss(pid).is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn a_child_that_does_not_end_is_killed() {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        assert!(wait(child, Duration::from_millis(30)).is_err());
        assert!(cpu_of(pid).is_err());
    }
}
