//! The manual pages, from the definitions that parse the command line.

use std::io;
use std::path::Path;

use clap::Command;

/// Writes a page for each command; returns the names of their files.
pub(crate) fn write(directory: &Path) -> io::Result<Vec<String>> {
    let mut command = crate::visible_command_line().disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    add(command, directory, &mut pages)?;
    pages.sort();
    Ok(pages)
}

fn add(command: Command, directory: &Path, pages: &mut Vec<String>) -> io::Result<()> {
    for inner in command.get_subcommands() {
        add(inner.clone(), directory, pages)?;
    }
    let version = crate::VERSION;
    let page = clap_mangen::Man::new(command).source(format!("tallybus {version}")).manual("Tallybus");
    page.generate_to(directory)?;
    pages.push(page.get_filename());
    Ok(())
}
