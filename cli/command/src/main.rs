//! The `tallybus` command with the eight backends of this repository.

mod allocator;

use std::process::ExitCode;

use tallybus_cli::Build;

/// What `build.rs` has found.
const BUILD: Build = Build {
    version: env!("CARGO_PKG_VERSION"),
    commit: env!("TALLYBUS_BUILD_COMMIT"),
    commit_date: env!("TALLYBUS_BUILD_DATE"),
    features: env!("TALLYBUS_BUILD_FEATURES"),
};

fn main() -> ExitCode {
    tallybus_cli::main_of(Some(BUILD), tallybus_sinks::KINDS)
}
