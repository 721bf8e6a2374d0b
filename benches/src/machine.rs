//! What the figures were measured on.

use std::fs;

use serde::{Deserialize, Serialize};

/// A machine, as far as it matters for a figure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that a program may use.
    pub cores: usize,
    /// What the processor calls itself.
    pub model: String,
    /// Main memory in MiB.
    pub memory_mib: u64,
    /// Of Linux.
    pub kernel: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let memory_kib =
            field("/proc/meminfo", "MemTotal").and_then(|text| text.strip_suffix("kB")?.trim().parse().ok());
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            model: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned()),
            memory_mib: memory_kib.unwrap_or(0_u64) >> 10,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cores, model, memory_mib, kernel } = self;
        write!(f, "{cores} cores of {model}, {memory_mib} MiB, Linux {kernel}")
    }
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
