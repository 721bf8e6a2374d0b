use std::fmt;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// A value that is never logged: it shows as `***` wherever it is printed.
///
/// One that comes from a file is read again when the file has changed, so that a token can be replaced without a
/// restart. While the file is missing, unreadable or empty, the last value stays.
#[derive(Clone)]
pub struct Secret(Source);

#[derive(Clone)]
enum Source {
    Value(String),
    File(Arc<SecretFile>),
}

/// A file and what was last read from it.
struct SecretFile {
    path: String,
    read: Mutex<Read>,
}

struct Read {
    stamp: Option<Stamp>,
    /// The change after which it could not be read, so that the warning comes once.
    unread: Option<Stamp>,
    /// Never freed: `expose` lends it for as long as its caller likes, and a secret changes rarely.
    value: &'static str,
}

/// What tells a changed file from an unchanged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    length: u64,
}

impl Stamp {
    fn of(path: &str) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { modified: found.modified().ok()?, length: found.len() })
    }
}

impl SecretFile {
    fn current(&self) -> &'static str {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the file is read: a change in between is noticed by the next call.
        let stamp = Stamp::of(&self.path);
        if stamp.is_some() && stamp != read.stamp {
            match read_file(&self.path) {
                Ok(value) if value == read.value => (read.stamp, read.unread) = (stamp, None),
                Ok(value) => {
                    tracing::info!(file = self.path, "a secret was read again, because its file has changed");
                    *read = Read { stamp, unread: None, value: value.leak() };
                }
                Err(_) if read.unread == stamp => {}
                Err(error) => {
                    tracing::warn!(
                        "a secret keeps its last value, because its file has changed and is unusable: {error}"
                    );
                    read.unread = stamp;
                }
            }
        }
        read.value
    }
}

fn read_file(path: &str) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read the file {path}: {error}"))?;
    let value = text.trim_end_matches(['\n', '\r']);
    if value.is_empty() {
        return Err(format!("the file {path} is empty"));
    }
    Ok(value.to_owned())
}

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(Source::Value(value.into()))
    }

    /// The value itself, for the code that sends it. Ask for it each time it is sent: one from a file may change.
    pub fn expose(&self) -> &str {
        match &self.0 {
            Source::Value(value) => value,
            Source::File(file) => file.current(),
        }
    }

    /// Whether it comes from a file, so that its value may change.
    pub fn may_change(&self) -> bool {
        matches!(self.0, Source::File(_))
    }

    /// Resolves a setting: `env:NAME`, `file:PATH` (a trailing line break is removed), or the value itself.
    ///
    /// # Errors
    /// Names the variable or the file that is missing or empty, never a value.
    pub fn resolve(setting: &str) -> Result<Self, String> {
        if let Some(name) = setting.strip_prefix("env:") {
            return Self::from_environment(name);
        }
        if let Some(path) = setting.strip_prefix("file:") {
            return Self::from_file(path);
        }
        if setting.is_empty() {
            return Err("is empty: expected a value, env:NAME or file:PATH".to_owned());
        }
        Ok(Self::new(setting))
    }

    fn from_environment(name: &str) -> Result<Self, String> {
        match std::env::var(name) {
            Ok(value) if value.is_empty() => Err(format!("the environment variable {name} is empty")),
            Ok(value) => Ok(Self::new(value)),
            Err(std::env::VarError::NotPresent) => {
                Err(format!("the environment variable {name} is not set; export it, or use file:PATH"))
            }
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not UTF-8")),
        }
    }

    fn from_file(path: &str) -> Result<Self, String> {
        let stamp = Stamp::of(path);
        let value = read_file(path)?.leak();
        let read = Mutex::new(Read { stamp, unread: None, value });
        Ok(Self(Source::File(Arc::new(SecretFile { path: path.to_owned(), read }))))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_nothing() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {secret}"), "*** ***");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_file_loses_its_last_line_break_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "a b \r\n").unwrap();
        let secret = Secret::resolve(&format!("file:{}", path.display())).unwrap();
        assert_eq!(secret.expose(), "a b ");
        std::fs::write(&path, "\n").unwrap();
        assert!(Secret::resolve(&format!("file:{}", path.display())).unwrap_err().contains("is empty"));
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_one_that_is_gone_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "first\n").unwrap();
        let secret = Secret::resolve(&format!("file:{}", path.display())).unwrap();
        let copy = secret.clone();
        // As Kubernetes does: another file takes its place.
        let next = dir.path().join("next");
        std::fs::write(&next, "the second\n").unwrap();
        std::fs::rename(&next, &path).unwrap();
        assert_eq!((secret.expose(), copy.expose()), ("the second", "the second"));
        assert_eq!(format!("{secret:?}"), "***");
        std::fs::write(&path, "").unwrap();
        assert_eq!(secret.expose(), "the second");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secret.expose(), "the second");
        std::fs::write(&path, "third").unwrap();
        assert_eq!(secret.expose(), "third");
    }

    #[test]
    fn a_missing_source_is_named() {
        let error = Secret::resolve("env:TALLYBUS_TEST_NO_SUCH_VARIABLE").unwrap_err();
        assert!(error.contains("TALLYBUS_TEST_NO_SUCH_VARIABLE is not set"), "{error}");
        let error = Secret::resolve("file:/nowhere/token").unwrap_err();
        assert!(error.contains("/nowhere/token"), "{error}");
        assert_eq!(Secret::resolve("plain").unwrap().expose(), "plain");
        assert!(Secret::resolve("").is_err());
    }
}
