//! A sink that would write into the file of the embedded bus.

use std::path::Path;

use tallybus_sdk::config::ConfigTable;
use tallybus_sdk::{Kind, canonical_path};

use super::BusSettings;

/// The setting of kinds that write to a file or folder.
const PATH: &str = "path";

/// Records a problem when the sink's `path` is the bus's own file, by whatever name. Connects to nothing.
pub(super) fn refuse(section: &mut ConfigTable<'_>, kind: &Kind, bus: &BusSettings) {
    if !kind.settings.iter().any(|setting| setting.key == PATH) {
        return;
    }
    let (Some(file), Some(path)) = (bus.address.file(), section.string(PATH)) else { return };
    if canonical_path(Path::new(&path)) == canonical_path(file) {
        section.problem(
            PATH,
            "is the file of the embedded bus, where the records are kept: name another file for the sink's counts",
        );
    }
}
