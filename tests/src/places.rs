//! Where things lie: the build's target directory, the servers' directories below it, programs on the path.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// The directory of this crate: its checked-in files.
pub(crate) fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The workspace's target folder: where the running test binary was built, so that a changed `CARGO_TARGET_DIR` or an
/// installed binary do not matter.
fn target_dir() -> PathBuf {
    let from_binary = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists()).map(Path::to_path_buf));
    from_binary
        .or_else(|| std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from))
        .unwrap_or_else(|| crate_dir().join("../target"))
}

/// What is fetched once and kept between runs.
pub(crate) fn servers_dir() -> PathBuf {
    target_dir().join("servers")
}

/// A directory for one server of this process. Folders whose process is gone are swept first.
pub(crate) fn run_dir(server: &str) -> Result<RunDir> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = servers_dir().join("run");
    fs::create_dir_all(&base).with_context(|| format!("cannot create {}", base.display()))?;
    sweep(&base);
    let path = base.join(format!("{}-{server}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Ok(RunDir { path })
}

fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_string_lossy().split('-').next().and_then(|pid| pid.parse::<u32>().ok()) else {
            continue;
        };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            // Another test process may sweep the same directory at the same time: whoever comes second finds nothing.
            let _gone = fs::remove_dir_all(entry.path());
        }
    }
}

/// A server's directory, removed when dropped.
#[derive(Debug)]
pub(crate) struct RunDir {
    path: PathBuf,
}

impl RunDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if std::env::var_os("TALLYBUS_KEEP_SERVERS").is_some() {
            eprintln!("kept {}", self.path.display());
            return;
        }
        // What is left behind is swept by the next test process.
        let _left = fs::remove_dir_all(&self.path);
    }
}

/// A program on the path, or in a place where Debian puts servers.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin"), PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/bin")])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
