use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value};
use url::Url;

use super::key_path::quoted;
use super::secret::Secret;
use super::values::{parse_bytes, parse_duration};

/// A problem in the settings, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The key path: `sinks.influx.url`.
    pub path: String,
    /// What was expected and what was found; contains no secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Reads one table of the settings.
///
/// Every reader returns `None` when the key is absent and also when its value is wrong; in the second case the problem
/// is recorded, so that all of them are reported at once. A key that was never read is unknown: [`ConfigTable::finish`]
/// reports it.
pub struct ConfigTable<'a> {
    path: String,
    table: &'a Map<String, Value>,
    known: BTreeSet<String>,
    problems: Rc<RefCell<Vec<Problem>>>,
}

impl<'a> ConfigTable<'a> {
    /// The settings' outermost table; problems are collected in `problems`.
    pub fn root(table: &'a Map<String, Value>, problems: Rc<RefCell<Vec<Problem>>>) -> Self {
        Self { path: String::new(), table, known: BTreeSet::new(), problems }
    }

    /// The key path of this table; empty for the outermost.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The keys that were read.
    #[cfg(any(test, feature = "testkit"))]
    pub fn known(&self) -> &BTreeSet<String> {
        &self.known
    }

    /// Whether the key is present; marks it as known.
    pub fn has(&mut self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The keys of this table, in the order of the file.
    pub fn keys(&self) -> Vec<&'a str> {
        self.table.keys().map(String::as_str).collect()
    }

    /// A string.
    pub fn string(&mut self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            found => self.wrong_type(key, "a string", found),
        }
    }

    /// A required string, which must not be empty.
    pub fn required_string(&mut self, key: &str) -> Option<String> {
        if !self.present(key, "a string") {
            return None;
        }
        let text = self.string(key)?;
        if text.is_empty() {
            self.problem(key, "must not be empty");
            return None;
        }
        Some(text)
    }

    /// A secret: `env:NAME`, `file:PATH`, or the value itself.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        let text = match self.get(key)? {
            Value::String(text) => text,
            found => return self.wrong_type(key, "a string (env:NAME, file:PATH or the secret itself)", found),
        };
        match Secret::resolve(text) {
            Ok(secret) => Some(secret),
            Err(reason) => {
                self.problem(key, reason);
                None
            }
        }
    }

    /// A required secret.
    pub fn required_secret(&mut self, key: &str) -> Option<Secret> {
        if !self.present(key, "env:NAME, file:PATH or the secret itself") {
            return None;
        }
        self.secret(key)
    }

    /// An http or https URL with a host and without credentials.
    pub fn url(&mut self, key: &str) -> Option<Url> {
        let text = self.string(key)?;
        match parse_url(&text) {
            Ok(url) => Some(url),
            Err(reason) => {
                self.problem(key, reason);
                None
            }
        }
    }

    /// A required URL.
    pub fn required_url(&mut self, key: &str) -> Option<Url> {
        if !self.present(key, "an http or https URL") {
            return None;
        }
        self.url(key)
    }

    /// `true` or `false`; also as a string, because environment variables are strings.
    pub fn bool(&mut self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            found => self.wrong_type(key, "true or false", found),
        }
    }

    /// A whole number that is not negative; also as a string, because environment variables are strings.
    pub fn integer(&mut self, key: &str) -> Option<u64> {
        let found = self.get(key)?;
        let number = match found {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.trim().replace('_', "").parse().ok(),
            _ => None,
        };
        match number {
            Some(number) => Some(number),
            None => self.wrong_type(key, "a whole number from 0", found),
        }
    }

    /// A whole number within bounds, both included.
    pub fn integer_within(&mut self, key: &str, low: u64, high: u64) -> Option<u64> {
        let number = self.integer(key)?;
        if (low..=high).contains(&number) {
            return Some(number);
        }
        self.problem(key, format!("must be between {low} and {high}, not {number}"));
        None
    }

    /// A duration: `250ms`, `1s`, `5m`, `1h`, `0s`.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        let found = self.get(key)?;
        let text = match found {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return self.wrong_type(key, "a duration such as \"1s\"", found),
        };
        match parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(expected) => {
                self.problem(key, format!("{expected}, found {}", show(found)));
                None
            }
        }
    }

    /// A duration greater than zero.
    pub fn positive_duration(&mut self, key: &str) -> Option<Duration> {
        let duration = self.duration(key)?;
        if duration.is_zero() {
            self.problem(key, "must be greater than zero");
            return None;
        }
        Some(duration)
    }

    /// The value that `read` returns for a key, or the default if the key is absent. An invalid value is a recorded
    /// problem, and `None`.
    pub fn or<T>(&mut self, key: &str, read: impl FnOnce(&mut Self, &str) -> Option<T>, default: T) -> Option<T> {
        if self.has(key) { read(self, key) } else { Some(default) }
    }

    /// A size: `4 MiB`, `512KB`, or a number of bytes.
    pub fn bytes(&mut self, key: &str) -> Option<u64> {
        let found = self.get(key)?;
        let text = match found {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return self.wrong_type(key, "a size such as \"4 MiB\"", found),
        };
        match parse_bytes(&text) {
            Ok(bytes) => Some(bytes),
            Err(expected) => {
                self.problem(key, format!("{expected}, found {}", show(found)));
                None
            }
        }
    }

    /// A list of strings; a single string is split at commas, because environment variables are strings.
    pub fn strings(&mut self, key: &str) -> Option<Vec<String>> {
        let items = match self.get(key)? {
            Value::Array(items) => items,
            Value::String(text) => {
                return Some(
                    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
                );
            }
            found => return self.wrong_type(key, "a list of strings", found),
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match item {
                Value::String(text) => texts.push(text.clone()),
                found => return self.wrong_type(&format!("{key}[{index}]"), "a string", found),
            }
        }
        Some(texts)
    }

    /// A table whose values are strings, numbers or booleans; returns them as strings.
    pub fn string_map(&mut self, key: &str) -> Option<BTreeMap<String, String>> {
        let table = match self.get(key)? {
            Value::Object(table) => table,
            found => return self.wrong_type(key, "a table of strings", found),
        };
        let mut map = BTreeMap::new();
        let mut sound = true;
        self.flatten(key, "", table, &mut map, &mut sound);
        sound.then_some(map)
    }

    /// One of these words.
    pub fn choice(&mut self, key: &str, words: &[&'static str]) -> Option<&'static str> {
        let text = self.string(key)?;
        if let Some(word) = words.iter().find(|word| **word == text) {
            return Some(word);
        }
        let hint = nearest(&text, words.iter().copied()).map(|near| format!(", did you mean `{near}`?"));
        self.problem(
            key,
            format!("unknown value `{text}`, expected one of {}{}", list(words), hint.unwrap_or_default()),
        );
        None
    }

    /// A table inside this one. Its owner calls [`ConfigTable::finish`] on it.
    pub fn table(&mut self, key: &str) -> Option<Self> {
        match self.get(key)? {
            Value::Object(table) => Some(self.inside(key, table)),
            found => self.wrong_type(key, "a table", found),
        }
    }

    /// All tables in a table of tables, by name, in the order of the file.
    pub fn tables(&mut self, key: &str) -> Vec<(String, Self)> {
        let Some(mut outer) = self.table(key) else { return Vec::new() };
        let names: Vec<String> = outer.table.keys().cloned().collect();
        names.into_iter().filter_map(|name| outer.table(&name).map(|table| (name, table))).collect()
    }

    /// Records a problem with a key of this table.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let path = self.path_of(key);
        self.problems.borrow_mut().push(Problem { path, message: message.into() });
    }

    /// Whether this table or a table below it has a problem.
    pub fn has_problems(&self) -> bool {
        let inside = |path: &str| {
            path.strip_prefix(self.path.as_str())
                .is_some_and(|rest| self.path.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.problems.borrow().iter().any(|problem| inside(&problem.path))
    }

    /// Marks keys as known that are read elsewhere, or only under other settings.
    pub fn allow(&mut self, keys: &[&str]) {
        self.known.extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// Reports every key that was never read, with the nearest known one.
    pub fn finish(mut self) {
        let unknown: Vec<&String> = self.table.keys().filter(|key| !self.known.contains(*key)).collect();
        for key in unknown {
            let hint = match nearest(key, self.known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("expected one of {}", list(&self.known.iter().map(String::as_str).collect::<Vec<_>>())),
            };
            self.problem(key, format!("unknown key `{key}`, {hint}"));
        }
    }

    fn get(&mut self, key: &str) -> Option<&'a Value> {
        if !self.known.contains(key) {
            self.known.insert(key.to_owned());
        }
        self.table.get(key).filter(|value| !value.is_null())
    }

    fn present(&mut self, key: &str, expected: &str) -> bool {
        if self.has(key) {
            return true;
        }
        self.problem(key, format!("missing required setting: expected {expected}"));
        false
    }

    fn inside(&self, key: &str, table: &'a Map<String, Value>) -> Self {
        Self { path: self.path_of(key), table, known: BTreeSet::new(), problems: Rc::clone(&self.problems) }
    }

    fn path_of(&self, key: &str) -> String {
        match (self.path.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{}", self.path, quoted(key)),
        }
    }

    /// Reports the expected and the actual type; never the value, which may be a secret in the wrong place.
    fn wrong_type<T>(&mut self, key: &str, expected: &str, found: &Value) -> Option<T> {
        self.problem(key, format!("expected {expected}, found {}", type_of(found)));
        None
    }

    /// TOML reads an unquoted `a.b = "c"` as a table in a table; both spellings mean the key `a.b`.
    fn flatten(
        &mut self,
        key: &str,
        prefix: &str,
        table: &Map<String, Value>,
        map: &mut BTreeMap<String, String>,
        sound: &mut bool,
    ) {
        for (name, value) in table {
            let name = format!("{prefix}{name}");
            match value {
                Value::String(text) => drop(map.insert(name, text.clone())),
                Value::Number(number) => drop(map.insert(name, number.to_string())),
                Value::Bool(flag) => drop(map.insert(name, flag.to_string())),
                Value::Object(inner) => self.flatten(key, &format!("{name}."), inner, map, sound),
                found => {
                    *sound = false;
                    let path = self.path_of(key);
                    let message = format!("expected a string, found {}", type_of(found));
                    self.problems.borrow_mut().push(Problem { path: format!("{path}.{}", quoted(&name)), message });
                }
            }
        }
    }
}

/// Reads a table with `read`, as a kind would; returns the result and every problem. For the tests of kinds.
#[cfg(any(test, feature = "testkit"))]
pub fn read_for_test<T>(
    table: &Value,
    read: impl FnOnce(&mut ConfigTable<'_>) -> Option<T>,
) -> (Option<T>, Vec<String>) {
    let problems = Rc::new(RefCell::new(Vec::new()));
    let table = table.as_object().cloned().unwrap_or_default();
    let mut section = ConfigTable::root(&table, Rc::clone(&problems));
    let read = read(&mut section);
    section.finish();
    let problems = problems.borrow().iter().map(ToString::to_string).collect();
    (read, problems)
}

impl fmt::Debug for ConfigTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigTable").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The candidate most similar to the word, if any is similar enough.
pub fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let alike = |candidate: &str| strsim::normalized_damerau_levenshtein(&word.to_lowercase(), candidate);
    candidates
        .map(|candidate| (alike(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Formats words for messages: `a`, `b`, `c`.
pub fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn parse_url(text: &str) -> Result<Url, String> {
    let expected = "expected a URL such as \"http://127.0.0.1:8086\"";
    // The value itself is not repeated: it may contain a password.
    let url = Url::parse(text).map_err(|error| format!("{expected}: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{expected}, found the scheme `{}`", url.scheme()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{expected}, found no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not contain credentials; use the settings for them, as env:NAME or file:PATH".to_owned());
    }
    Ok(url)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(number) if number.is_i64() && !number.is_u64() => "a negative number",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn show(value: &Value) -> String {
    value.to_string()
}
