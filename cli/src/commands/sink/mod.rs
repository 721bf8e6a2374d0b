mod claims;

use clap::Subcommand;
use serde_json::json;
use tallybus_sdk::Admin;

use self::claims::ShowClaims;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::{Global, config};

/// Inspect one sink of the settings.
#[derive(Debug, Subcommand)]
pub(crate) enum Sink {
    /// Print the statements that create what the sink needs, to be read and run by hand.
    ///
    /// Connects to nothing. `tallybus doctor --fix` creates the same by itself.
    Ddl {
        /// The sink's name in the settings.
        name: String,
    },
    Claims(ShowClaims),
}

impl Sink {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let name = match self {
            Self::Claims(command) => return command.run(global, output),
            Self::Ddl { name } => name,
        };
        let settings = config::load(global)?;
        let settings = crate::selection::select_one(&settings, name)?;
        let sink = settings.make().map_err(|error| Failure::could_not_look(format!("sink {name}: {error}")))?;
        let ddl = sink.admin().and_then(Admin::ddl);
        if output.json {
            let kind = settings.kind.name;
            output.print(&json!({ "sink": name, "kind": kind, "ddl": ddl }).to_string())?;
            return Ok(Verdict::Good);
        }
        match ddl {
            Some(ddl) => output.print(ddl.trim_end())?,
            None => output.say(&format!(
                "{name} ({}): nothing has to be created by hand; `tallybus doctor` checks whether everything exists",
                settings.kind.name
            )),
        }
        Ok(Verdict::Good)
    }
}
