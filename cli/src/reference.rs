//! The reference of all commands, made from the definitions that parse them.

use std::fmt::Write;

use clap::Command;

/// The page `docs/cli.md`.
pub(crate) fn markdown() -> String {
    let mut command = crate::command_line().term_width(100);
    command.build();
    let mut page = String::from(
        "# The `tallybus` command\n\n\
         Written by `tallybus reference`; a test keeps it true (`UPDATE_DOCS=1 cargo test --release -p tallybus-command --test docs` \
         writes it anew).\n\n\
         Results go to standard output, everything else to standard error. Settings come from a TOML file, over it from \
         variables such as `TALLYBUS__BUS__BROKERS`, over both from `--bus`. `TALLYBUS_LOG` takes log filters \
         (`info,tallybus_bus=debug`).\n\n\
         | exit status | meaning |\n|---|---|\n| 0 | success; equal |\n| 1 | not equal, not delivered, a worker failed |\n\
         | 2 | wrong usage or settings, or it could not look |\n",
    );
    section(&mut page, &mut command, "tallybus");
    page
}

fn section(page: &mut String, command: &mut Command, name: &str) {
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    // Writing to a string cannot fail.
    let _ = write!(page, "\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n").trim_end());
    for inner in command.get_subcommands_mut() {
        if inner.is_hide_set() || inner.get_name() == "help" {
            continue;
        }
        let name = format!("{name} {}", inner.get_name());
        section(page, inner, &name);
    }
}
