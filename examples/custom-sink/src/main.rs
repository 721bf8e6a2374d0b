//! The `tallybus` command with nine kinds of sinks: the eight of Tallybus, and this one.

use std::process::ExitCode;

fn main() -> ExitCode {
    tallybus_cli::main([tallybus_sinks::KINDS, &[custom_sink::KIND]].concat().leak())
}
