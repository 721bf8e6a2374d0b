//! The destinations that a comparison creates, and removes again.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tallybus_sdk::{Rng, ShadowName, Sink};
use tokio::runtime::Handle;

use super::CompareError;

/// The file of a comparison's directory that names its destinations.
pub const JOURNAL: &str = "destinations";
/// How long creating or removing one may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// The characters of a destination's id.
const ID_LEN: usize = 8;

/// A destination that could not be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftBehind {
    /// The sink in whose backend it is.
    pub sink: String,
    /// Its name.
    pub name: String,
    /// Why it is still there.
    pub why: String,
}

/// The destinations that exist now. All are removed when this is dropped.
///
/// Each is written to a journal before it is created, so that those of a comparison that was killed can still be removed.
pub(super) struct Destinations {
    runtime: Handle,
    journal: File,
    path: PathBuf,
    ids: Rng,
    made: Vec<(String, ShadowName, Arc<dyn Sink>)>,
}

impl Destinations {
    /// Names are random: another comparison, also one with the same seed, has others.
    pub(super) fn new(dir: &Path, runtime: &Handle) -> Result<Self, CompareError> {
        let path = dir.join(JOURNAL);
        let journal = OpenOptions::new().create(true).append(true).open(&path);
        let journal = journal.map_err(CompareError::system(format!("cannot write {}", path.display())))?;
        Ok(Self {
            runtime: runtime.clone(),
            journal,
            path,
            ids: Rng::new(RandomState::new().hash_one(dir)),
            made: Vec::new(),
        })
    }

    /// A name that no other destination of the comparison has.
    pub(super) fn next_name(&mut self) -> Result<ShadowName, CompareError> {
        const CHARACTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut id = String::new();
        for _ in 0..ID_LEN {
            let at = usize::try_from(self.ids.below(CHARACTERS.len() as u64)).unwrap_or_default();
            id.push(char::from(CHARACTERS[at]));
        }
        let refused = || CompareError::Settings(format!("{id} is not the id of a destination"));
        ShadowName::new(&id).ok_or_else(refused)
    }

    /// Creates a destination.
    pub(super) fn create(&mut self, sink: &str, name: &ShadowName, destination: Arc<dyn Sink>) -> Result<(), String> {
        self.note("created", sink, name).map_err(|error| format!("cannot write {}: {error}", self.path.display()))?;
        // From here on it is removed, whether or not it exists.
        self.made.push((sink.to_owned(), name.clone(), Arc::clone(&destination)));
        let create = async {
            match destination.admin() {
                Some(admin) => tokio::time::timeout(PATIENCE, admin.fix()).await,
                None => tokio::time::timeout(PATIENCE, destination.check()).await,
            }
        };
        match self.runtime.block_on(create) {
            Ok(outcome) => outcome.map_err(|error| format!("its destination {name} could not be created: {error}")),
            Err(_) => Err(format!("its destination {name} was not created within {} s", PATIENCE.as_secs())),
        }
    }

    /// Removes one; a failure is tried again at the end.
    pub(super) fn remove(&mut self, name: &ShadowName) {
        let Some(place) = self.made.iter().position(|(_, other, _)| other == name) else { return };
        let (sink, name, destination) = self.made.swap_remove(place);
        if let Err(why) = remove_one(&self.runtime, &destination) {
            tracing::debug!(sink, %name, why, "a destination could not be removed, trying again at the end");
            self.made.push((sink, name, destination));
            return;
        }
        self.removed(&sink, &name);
    }

    /// Removes all, and returns those that could not be removed.
    pub(super) fn remove_all(&mut self) -> Vec<LeftBehind> {
        let mut left = Vec::new();
        for (sink, name, destination) in std::mem::take(&mut self.made) {
            match remove_one(&self.runtime, &destination) {
                Ok(()) => self.removed(&sink, &name),
                Err(why) => left.push(LeftBehind { sink, name: name.to_string(), why }),
            }
        }
        left
    }

    fn removed(&mut self, sink: &str, name: &ShadowName) {
        if let Err(error) = self.note("removed", sink, name) {
            // Removing it once more does no harm.
            tracing::debug!(%error, "the removal of a destination could not be noted");
        }
    }

    fn note(&mut self, what: &str, sink: &str, name: &ShadowName) -> std::io::Result<()> {
        self.journal.write_all(format!("{what} {sink} {name}\n").as_bytes())?;
        self.journal.sync_data()
    }
}

impl Drop for Destinations {
    fn drop(&mut self) {
        for left in self.remove_all() {
            tracing::warn!(
                sink = left.sink,
                destination = left.name,
                why = left.why,
                "a destination of the comparison could not be removed"
            );
        }
    }
}

fn remove_one(runtime: &Handle, destination: &Arc<dyn Sink>) -> Result<(), String> {
    let Some(admin) = destination.admin() else { return Err("this kind of sink removes no destination".to_owned()) };
    let removed = runtime.block_on(async { tokio::time::timeout(PATIENCE, admin.remove_shadow()).await });
    match removed {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The destinations that a journal names as created and not as removed: of each its sink and its name.
pub fn unremoved(journal: &str) -> Vec<(String, ShadowName)> {
    let mut left: Vec<(String, ShadowName)> = Vec::new();
    for line in journal.lines() {
        let mut words = line.split(' ');
        let (Some(what), Some(sink), Some(name), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        // The name's last eight characters are its id.
        let id = name.len().checked_sub(ID_LEN).and_then(|at| name.get(at..)).unwrap_or_default();
        let Some(name) = ShadowName::new(id).filter(|parsed| parsed.as_str() == name) else { continue };
        match what {
            "created" => left.push((sink.to_owned(), name)),
            "removed" => left.retain(|(_, other)| *other != name),
            _ => {}
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_comparisons_in_one_directory_have_different_names() {
        let (dir, runtime) = (tempfile::tempdir().unwrap(), tokio::runtime::Runtime::new().unwrap());
        let name = || Destinations::new(dir.path(), runtime.handle()).unwrap().next_name().unwrap();
        assert_ne!(name(), name());
    }

    #[test]
    fn a_journal_names_what_was_created_and_not_removed() {
        let name = |id: &str| ShadowName::new(id).unwrap();
        let journal = "created a tallybus_compare_aaaaaaaa\ncreated b tallybus_compare_bbbbbbbb\nremoved a \
                       tallybus_compare_aaaaaaaa\ncreated c counters\ncreated d xtallybus_compare_dddddddd\ncreated e \
                       tallybus_compare_eeee";
        assert_eq!(unremoved(journal), [("b".to_owned(), name("bbbbbbbb"))]);
        assert_eq!(unremoved(""), []);
    }
}
