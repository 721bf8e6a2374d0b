use std::fmt;

/// A value that is never logged: it shows as `***` wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the code that sends it.
    pub fn expose(&self) -> &str {
        &self.0
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
            Ok(value) => Ok(Self(value)),
            Err(std::env::VarError::NotPresent) => {
                Err(format!("the environment variable {name} is not set; export it, or use file:PATH"))
            }
            Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not UTF-8")),
        }
    }

    fn from_file(path: &str) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read the file {path}: {error}"))?;
        let value = text.trim_end_matches(['\n', '\r']);
        if value.is_empty() {
            return Err(format!("the file {path} is empty"));
        }
        Ok(Self::new(value))
    }
}

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
    fn a_missing_source_is_named() {
        let error = Secret::resolve("env:TALLYBUS_TEST_NO_SUCH_VARIABLE").unwrap_err();
        assert!(error.contains("TALLYBUS_TEST_NO_SUCH_VARIABLE is not set"), "{error}");
        let error = Secret::resolve("file:/nowhere/token").unwrap_err();
        assert!(error.contains("/nowhere/token"), "{error}");
        assert_eq!(Secret::resolve("plain").unwrap().expose(), "plain");
        assert!(Secret::resolve("").is_err());
    }
}
