//! The `tallybus` command with the eight backends of this repository.

mod allocator;

use std::process::ExitCode;

fn main() -> ExitCode {
    tallybus_cli::main(tallybus_sinks::KINDS)
}
