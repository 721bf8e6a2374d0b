//! The machine that a comparison runs on.

use std::fs;

use super::{Environment, Known};

impl Environment {
    /// This machine, as Linux describes it. Elsewhere most of it is not known.
    pub fn here(version: &str) -> Self {
        let cpus = std::thread::available_parallelism();
        Self {
            tallybus: version.to_owned(),
            host: first_line("/proc/sys/kernel/hostname"),
            system: system(),
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: cpus.map_or_else(Known::unknown, |cpus| Known::Is(cpus.get() as u64)),
            memory: memory(),
        }
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
}

fn first_line(path: &str) -> Known<String> {
    match read(path) {
        Ok(text) => Known::Is(text.lines().next().unwrap_or_default().to_owned()),
        Err(reason) => Known::Unknown(reason),
    }
}

fn system() -> Known<String> {
    match (first_line("/proc/sys/kernel/ostype"), first_line("/proc/sys/kernel/osrelease")) {
        (Known::Is(system), Known::Is(release)) => Known::Is(format!("{system} {release}")),
        (Known::Unknown(reason), _) | (_, Known::Unknown(reason)) => Known::Unknown(reason),
    }
}

/// The first `name : value` of a file.
fn field(path: &str, name: &str) -> Known<String> {
    match read(path) {
        Ok(text) => value_of(&text, name).map_or_else(|| Known::unknown(format!("{path} has no {name:?}")), Known::Is),
        Err(reason) => Known::Unknown(reason),
    }
}

fn value_of(text: &str, name: &str) -> Option<String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.into_iter().find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// Bytes.
fn memory() -> Known<u64> {
    match field("/proc/meminfo", "MemTotal") {
        Known::Is(text) => {
            let kibibytes = text.strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok());
            let unknown = || Known::unknown(format!("/proc/meminfo says {text:?}"));
            kibibytes.map_or_else(unknown, |kibibytes| Known::Is(kibibytes.saturating_mul(1024)))
        }
        Known::Unknown(reason) => Known::Unknown(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_follows_its_name() {
        let text = "processor\t: 0\nmodel name\t: A : B\nmodel name\t: C\n";
        assert_eq!(value_of(text, "model name").as_deref(), Some("A : B"));
        assert_eq!(value_of(text, "model"), None);
        assert!(field("/proc/no-such-file", "x").reason().unwrap().starts_with("/proc/no-such-file: "));
    }
}
