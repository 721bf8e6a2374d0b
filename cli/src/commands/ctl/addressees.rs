//! The workers that a target means, as their heartbeats tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tallybus_control::{Address, Identity};
use tallybus_verify::heartbeats::{Heartbeats, Presence};
use tallybus_worker::SystemClock;
use tallybus_worker::live::StatusDocument;

use super::Place;
use crate::failure::Failure;

/// How long heartbeats are read for at the beginning.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// How long one look at newer ones takes.
const LOOK: Duration = Duration::from_millis(20);

/// A worker that is waited for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Addressee {
    /// `sink/NAME@WORKER`.
    pub(super) name: String,
    /// The id of this life of its process.
    pub(super) process: String,
    /// How long ago its process published its last heartbeat.
    pub(super) last_seen: Duration,
    pub(super) presence: Presence,
    /// Whether it takes commands at all.
    pub(super) listens: bool,
    /// Whether it takes signed ones only.
    pub(super) demands_signature: bool,
    pub(super) life: Life,
}

/// Consumer groups, and the topics of each.
pub(super) type Groups = BTreeMap<String, BTreeSet<String>>;

/// When a process lived, by its own clock: milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) started_ms: i64,
    /// When it published its last heartbeat.
    pub(super) last_ms: i64,
}

impl Life {
    /// Whether this process was started after the other one was last seen, so that it may be the same one restarted. Two that
    /// lived at one time are two.
    pub(super) fn follows(self, other: Self) -> bool {
        self.started_ms >= other.last_ms
    }
}

/// See the module.
pub(super) struct Addressees {
    heartbeats: Heartbeats,
    target: Address,
    pub(super) all: Vec<Addressee>,
}

impl Addressees {
    /// Those that live or are silent; not those that have left.
    pub(super) fn find(place: &Place, target: &Address) -> Result<Self, Failure> {
        let heartbeats = Heartbeats::new(Arc::clone(&place.bus), &place.control_topic(), Arc::new(SystemClock));
        let mut found = Self { heartbeats, target: target.clone(), all: Vec::new() };
        found.heartbeats.refresh(READ_WITHIN)?;
        found.all = found.meant();
        found.all.retain(|one| one.presence != Presence::Left);
        Ok(found)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The groups of those that live or are silent, each with the topics that it reads as far as is known: that of the settings,
    /// and those of which a process owns partitions.
    pub(super) fn groups(&self, topic: &str) -> Groups {
        let mut groups = Groups::new();
        for seen in self.heartbeats.workers() {
            for sink in &seen.document.sinks {
                if self.target.matches(&identity(seen.document, &sink.name, &sink.kind)) {
                    let topics = groups.entry(sink.group.clone()).or_default();
                    topics.extend(sink.partitions.iter().map(|partition| partition.topic.clone()));
                }
            }
        }
        // Workers that own nothing show no topic.
        for topics in groups.values_mut().filter(|topics| topics.is_empty()) {
            topics.insert(topic.to_owned());
        }
        groups
    }

    /// Looks at how recent the heartbeats of those are that are waited for. A bus that does not answer is noticed elsewhere.
    pub(super) fn look(&mut self) {
        if self.heartbeats.refresh(LOOK).is_err() {
            return;
        }
        let now = self.meant();
        for one in &mut self.all {
            if let Some(seen) = now.iter().find(|seen| seen.name == one.name && seen.process == one.process) {
                *one = seen.clone();
            } else if now.iter().all(|seen| seen.process != one.process) {
                one.presence = match one.presence {
                    Presence::Left => Presence::Left,
                    _ => Presence::Silent,
                };
            }
        }
    }

    fn meant(&self) -> Vec<Addressee> {
        let mut meant = Vec::new();
        for seen in self.heartbeats.workers() {
            let (document, last_seen, presence) = (seen.document, seen.age, seen.presence);
            // The last heartbeat of a process names no sinks.
            if presence == Presence::Left {
                let of_process = self.all.iter().filter(|one| one.process == document.worker);
                meant.extend(of_process.map(|one| Addressee { presence, last_seen, ..one.clone() }));
            }
            for sink in &document.sinks {
                let identity = identity(document, &sink.name, &sink.kind);
                if !self.target.matches(&identity) {
                    continue;
                }
                meant.push(Addressee {
                    name: identity.to_string(),
                    process: document.worker.clone(),
                    last_seen,
                    presence,
                    listens: matches!(document.control.as_str(), "signed" | "unsigned"),
                    demands_signature: document.control == "signed",
                    life: Life { started_ms: document.started_ms, last_ms: document.time_ms },
                });
            }
        }
        meant
    }
}

/// How a worker is addressed. A process of an earlier version has no name, and takes no commands.
pub(super) fn identity(document: &StatusDocument, sink: &str, kind: &str) -> Identity {
    let names = [&document.name, &document.host, &document.worker];
    let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or(&document.worker);
    Identity::Worker { sink: sink.to_owned(), kind: kind.to_owned(), id: document.worker.clone(), name: name.clone() }
}
