use std::sync::Arc;

use crate::config::ConfigTable;
use crate::{DeliveryGuarantee, ShadowSettings, Sink, SinkError};

/// A kind of backend: everything the rest of Tallybus knows about it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The name in the settings, `kind = "…"`.
    pub name: &'static str,
    /// A one-line description.
    pub summary: &'static str,
    /// The delivery guarantee under the kind's default settings. Where a setting gives a stronger one, `mechanism`
    /// names it, and [`Sink::delivery_guarantee`] returns it.
    pub delivery_guarantee: DeliveryGuarantee,
    /// How the guarantee is achieved, and its limits: one or two sentences for `tallybus sinks` and the README.
    pub mechanism: &'static str,
    /// The settings beside those that every sink has: all that `parse` reads. Where a table's kind is unknown, a key that
    /// is in no kind's list is an unknown key.
    pub settings: &'static [Setting],
    /// Reads the kind's own settings; problems are recorded in the table. `None` when there are any.
    pub parse: fn(&mut ConfigTable<'_>) -> Option<BuildSink>,
    /// The questions that [`ReadBack::ask`](crate::ReadBack::ask) answers, by [`Question::name`](crate::Question::name): the
    /// others are not offered.
    pub questions: &'static [&'static str],
    /// What [`ReadBack::storage`](crate::ReadBack::storage) counts; `None` where it is not offered.
    pub storage: Option<&'static str>,
    /// Settings of a destination that `tallybus compare` creates, fills and removes; `None` where none can be created.
    pub shadow: Option<ShadowSettings>,
}

/// Creates the sink once all settings of the file are valid. Does no I/O that waits for the backend.
pub type BuildSink = Box<dyn Fn(&SinkContext) -> Result<Arc<dyn Sink>, SinkError> + Send + Sync>;

/// The common settings that a sink needs to know.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The sink's name.
    pub name: String,
    /// Its topics, in order. Batches of replayed dead letters come from one more topic, `tallybus.replay.<name>`, which
    /// has one partition; its index is the number of these topics.
    pub topics: Vec<String>,
    /// Its window in nanoseconds; 0: each event is its own point.
    pub window: i64,
}

/// A setting, for documentation and for `tallybus sinks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its default as written in a settings file; `None` when it is required or has no default.
    pub default: Option<&'static str>,
    /// Its meaning, in one sentence.
    pub help: &'static str,
}

/// Finds a kind by name.
pub fn find_kind(kinds: &'static [Kind], name: &str) -> Option<&'static Kind> {
    kinds.iter().find(|kind| kind.name == name)
}
