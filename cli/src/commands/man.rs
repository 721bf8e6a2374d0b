use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;

/// Write the manual pages, one for each command, into a directory.
///
/// `man -l DIR/tallybus.1` shows one; a directory `man1` of the system's manual pages, such as
/// /usr/local/share/man/man1, is where `man tallybus` finds them.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The directory, which must exist. Pages of the same names are overwritten.
    #[arg(long, value_name = "PATH")]
    dir: PathBuf,
}

impl Man {
    pub(crate) fn run(&self, output: &Output) -> Result<Verdict, Failure> {
        let shown = self.dir.display();
        if !self.dir.is_dir() {
            return Err(Failure::could_not_look(format!("--dir: {shown} is no directory: create it first")));
        }
        let pages = crate::manual::write(&self.dir)
            .map_err(|error| Failure::failed(format!("cannot write manual pages into {shown}: {error}")))?;
        if output.json {
            output.report(&json!({ "directory": shown.to_string(), "pages": pages }).to_string())?;
        } else {
            output.report(&format!("{shown}: {} written", count_of(pages.len() as u64, "page")))?;
        }
        Ok(Verdict::Good)
    }
}
