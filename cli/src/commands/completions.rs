use clap::Args;
use clap_complete::Shell;

use crate::failure::{Failure, Verdict};
use crate::output::Output;

/// Write a shell's completions of this command line to standard output.
///
/// Bash: `tallybus completions bash > ~/.local/share/bash-completion/completions/tallybus`. Zsh: into a file `_tallybus` of a
/// directory in `fpath`. Fish: `~/.config/fish/completions/tallybus.fish`. PowerShell: into a file that the profile loads.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, output: &Output) -> Result<Verdict, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::visible_command_line(), "tallybus", &mut script);
        output.write(&script)?;
        Ok(Verdict::Good)
    }
}
