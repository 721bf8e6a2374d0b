use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tallybus_verify::compare::{JOURNAL, unremoved};

use super::contenders::Shadows;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;
use crate::{Global, config};

/// Remove what a comparison left behind that was killed: its destinations, and its copy of the stream.
///
/// Needs the settings that the comparison had. Exit status 0: everything is removed; 1: something could not be removed.
#[derive(Debug, Args)]
pub(crate) struct Clean {
    /// The directory of the comparison, as `tallybus compare run` named it: tallybus-compare-….
    directory: PathBuf,
}

impl Clean {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let journal = self.directory.join(JOURNAL);
        let text = std::fs::read_to_string(&journal)
            .map_err(|error| Failure::could_not_look(format!("cannot read {}: {error}", journal.display())))?;
        let value = config::raw(global)?;
        let shadows = Shadows::new(&value, &self.directory.join("bus.db"), global.kinds)?;
        let runtime = crate::commands::start_runtime()?;
        let (mut removed, mut left) = (0_u64, Vec::new());
        for (sink, name) in unremoved(&text) {
            let remove = async {
                let settings = shadows.sink(&sink, &name)?;
                let made = settings.make().map_err(|error| error.to_string())?;
                let admin = made.admin().ok_or("this kind of sink removes no destination")?;
                admin.remove_shadow().await.map_err(|error| error.to_string())
            };
            match runtime.block_on(remove) {
                Ok(()) => removed += 1,
                Err(why) => left.push((sink, name, why)),
            }
        }
        for (sink, name, why) in &left {
            output.say(&format!("sink {sink}: {name} could not be removed: {why}"));
        }
        if left.is_empty() {
            std::fs::remove_dir_all(&self.directory)
                .map_err(|error| Failure::failed(format!("cannot remove {}: {error}", self.directory.display())))?;
        }
        if output.json {
            output.report(&json!({ "removed": removed, "left": left.len() }).to_string())?;
        } else {
            output.report(&format!("{} removed, {} left", count_of(removed, "destination"), left.len()))?;
        }
        Ok(if left.is_empty() { Verdict::Good } else { Verdict::Bad })
    }
}
