use std::collections::BTreeMap;

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use crate::reading::Reading;

/// The settings that determine how events become a batch. A batch sealed under one shape is finished under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Nanoseconds; 0: each event is its own point.
    pub window: i64,
    /// Only counters whose name matches one of these globs; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Tags to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop_tags: Vec<String>,
    /// Tags to add; existing values are overwritten.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// How the topic's messages are read, where the settings specify it: the text of a [`Reading`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// The sink's own part: [`Sink::layout_fingerprint`](crate::Sink::layout_fingerprint).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sink: String,
}

impl Shape {
    /// All events, unchanged, in windows of one second.
    pub fn everything() -> Self {
        Self {
            window: 1_000_000_000,
            names: Vec::new(),
            drop_tags: Vec::new(),
            tags: BTreeMap::new(),
            encoding: None,
            sink: String::new(),
        }
    }

    /// Compiles the shape.
    ///
    /// # Errors
    /// Names a pattern that is not a valid glob, or an unknown encoding.
    pub fn selector(&self) -> Result<Selector, String> {
        let mut names = GlobSetBuilder::new();
        for pattern in &self.names {
            names.add(Glob::new(pattern).map_err(|error| format!("name pattern {pattern:?}: {error}"))?);
        }
        let names = if self.names.is_empty() {
            None
        } else {
            Some(names.build().map_err(|error| format!("name patterns: {error}"))?)
        };
        let reading = self.encoding.as_deref().unwrap_or_default().parse::<Reading>()?;
        Ok(Selector {
            names,
            drop_tags: self.drop_tags.clone(),
            tags: self.tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            reading,
            window: self.window,
        })
    }
}

/// A compiled [`Shape`]: which series pass, and how their tags are changed.
#[derive(Debug)]
pub struct Selector {
    names: Option<GlobSet>,
    drop_tags: Vec<String>,
    tags: Vec<(String, String)>,
    /// How the topic's messages are read.
    pub reading: Reading,
    /// Nanoseconds.
    pub window: i64,
}

impl Selector {
    /// Whether counters of this name pass.
    pub fn takes(&self, name: &str) -> bool {
        self.names.as_ref().is_none_or(|names| names.is_match(name))
    }

    /// Whether the tags of all series stay unchanged.
    pub fn keeps_tags(&self) -> bool {
        self.tags.is_empty() && self.drop_tags.is_empty()
    }

    /// The tags of a series in the backend, sorted by key.
    pub fn shape_tags<'a>(&'a self, tags: &[(&'a str, &'a str)], shaped: &mut Vec<(&'a str, &'a str)>) {
        shaped.clear();
        let replaced = |key: &str| self.tags.iter().any(|(added, _)| added == key);
        let dropped = |key: &str| self.drop_tags.iter().any(|drop| drop == key);
        shaped.extend(tags.iter().filter(|(key, _)| !dropped(key) && !replaced(key)));
        if self.tags.is_empty() {
            return;
        }
        shaped.extend(self.tags.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        shaped.sort_unstable_by_key(|(key, _)| *key);
    }

    /// The start of the window that contains a time; with window 0, the time itself.
    pub fn window_start(&self, time: i64) -> i64 {
        if self.window == 0 { time } else { time - time.rem_euclid(self.window) }
    }
}
