use std::io;

use tracing_subscriber::EnvFilter;

use crate::{Global, LogFormat};

/// Logs to standard error. `TALLYBUS_LOG` takes the filters of `tracing` (`info,tallybus_bus=debug`) and has
/// precedence.
pub(crate) fn start(global: &Global, by_default: &str) {
    let level = match global.verbose {
        0 => by_default,
        1 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("TALLYBUS_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter);
    match global.log {
        LogFormat::Human => {
            let colours = io::IsTerminal::is_terminal(&io::stderr());
            lines.with_ansi(colours).with_target(false).init();
        }
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).init(),
    }
}
