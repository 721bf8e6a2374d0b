//! Free ports for servers, which bind them a while after they were chosen.
//!
//! A port that the kernel picks (`bind` to 0) may be given to any outgoing connection as soon as it is free again, and a server
//! that is killed and started again needs its port a second time. So ports are chosen below the range that the kernel gives away,
//! and stay this process's own, by a lock on a file, until it ends.

use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// Below are the ports of well-known servers.
const LOWEST: u16 = 10_000;
/// A range of fewer ports is too small for several test processes.
const FEWEST: u16 = 500;

/// The locks of the ports that this process has.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port of loopback that nobody listens on, that the kernel gives to no connection, and that no other test process is given
/// until this one ends.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let range = range(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default());
    let ports: Vec<u16> = range.clone().collect();
    let locks = lock_folder()?;
    // Processes begin in different places, so that they seldom ask for the same one.
    let begin = std::process::id() as usize * 97 + NEXT.fetch_add(1, Ordering::Relaxed);
    for step in 0..ports.len() {
        let port = ports[(begin + step) % ports.len()];
        if let Some(lock) = take(&locks, port)? {
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            return Ok(port);
        }
    }
    bail!("no free loopback port in {range:?}")
}

/// The lock, when no other process has it and nobody listens.
fn take(locks: &Path, port: u16) -> Result<Option<File>> {
    let path = locks.join(port.to_string());
    // A file of another user is another user's port.
    let Ok(lock) = File::options().create(true).append(true).open(&path) else { return Ok(None) };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
    Ok(is_free.then_some(lock))
}

/// One for all checkouts and users of this machine.
fn lock_folder() -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = std::env::temp_dir().join("tallybus-test-ports");
    if !folder.exists() {
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        // Whoever came first owns it, and has just done the same.
        let _not_ours = fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777));
    }
    Ok(folder)
}

/// The ports to choose from, where the kernel gives away those of `ephemeral` ("32768 60999").
fn range(ephemeral: &str) -> RangeInclusive<u16> {
    let mut ends = ephemeral.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else { return LOWEST..=32_767 };
    if first > LOWEST + FEWEST {
        LOWEST..=first - 1
    } else if last < u16::MAX - FEWEST {
        last + 1..=u16::MAX
    } else {
        // The kernel gives away all of them: the lock and the bind are all there is.
        LOWEST..=u16::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_chosen_outside_of_what_the_kernel_gives_away() {
        assert_eq!(range("32768\t60999\n"), 10_000..=32_767);
        assert_eq!(range("9000 49999"), 50_000..=65_535);
        assert_eq!(range("1024 65535"), 10_000..=65_535);
        assert_eq!(range(""), 10_000..=32_767);
    }

    #[test]
    fn a_port_is_given_once_and_no_process_listens_on_it() {
        let ports: Vec<u16> = (0..20).map(|_| free_port().unwrap()).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 20);
        for port in ports {
            drop(TcpListener::bind(("127.0.0.1", port)).unwrap());
            // Locked by this process, as another one would find it.
            assert!(take(&lock_folder().unwrap(), port).unwrap().is_none());
        }
    }
}
