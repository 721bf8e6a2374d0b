use std::sync::Arc;

use crate::config::ConfigTable;
use crate::{DeliveryGuarantee, Sink, SinkError};

/// A kind of backend: everything the rest of Tallybus knows about it.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// As `kind = "…"` names it in the settings.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// What this kind gives under its default settings. Where a setting gives more, `means` names it, and [`Sink::delivery_guarantee`] follows
    /// it.
    pub delivery_guarantee: DeliveryGuarantee,
    /// By what means it gives that, and where it ends: one or two sentences for `tallybus sinks` and the README.
    pub mechanism: &'static str,
    /// The settings beside those that every sink has.
    pub settings: &'static [Setting],
    /// Reads the kind's own settings; problems are left in the section. `None` when there are any.
    pub parse: fn(&mut ConfigTable<'_>) -> Option<BuildSink>,
}

/// Makes the sink once all settings of the file are known to be right. Does no I/O that waits for the backend.
pub type BuildSink = Box<dyn Fn(&SinkContext) -> Result<Arc<dyn Sink>, SinkError> + Send + Sync>;

/// What a sink learns of the settings that every sink has.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The sink's name.
    pub name: String,
    /// Its topics, in order. Batches of dead letters that are written again come from one more topic, `tallybus.replay.<name>`,
    /// which has one partition; its index is the number of these topics.
    pub topics: Vec<String>,
    /// Its window in nanoseconds; 0: each event is its own point.
    pub window: i64,
}

/// A setting, for documentation and for `tallybus sinks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its default as one would write it; `None` when it must be given or has none.
    pub default: Option<&'static str>,
    /// What it does, one sentence.
    pub help: &'static str,
}

/// Looks a kind up by name.
pub fn find_kind(kinds: &'static [Kind], name: &str) -> Option<&'static Kind> {
    kinds.iter().find(|kind| kind.name == name)
}
