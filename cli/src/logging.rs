//! The log on standard error.

use std::ffi::OsString;
use std::fmt::{self, Debug};
use std::io::{self, IsTerminal};

use tallybus_sdk::text::{escape, is_obeyed};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

use crate::{Global, LogFormat};

/// The variable with the filters, which has precedence over the command line.
const VARIABLE: &str = "TALLYBUS_LOG";

/// Logs to standard error. `TALLYBUS_LOG` takes the filters of `tracing` (`info,tallybus_bus=debug`) and has
/// precedence.
///
/// # Errors
/// Its value is not a filter: why, and what is expected.
pub(crate) fn start(global: &Global, by_default: &str) -> Result<(), String> {
    let level = match global.verbose {
        0 => by_default,
        1 => "debug",
        _ => "trace",
    };
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.trim().is_empty() => filter(&text)?,
        Ok(_) | Err(std::env::VarError::NotPresent) => EnvFilter::new(level),
        Err(std::env::VarError::NotUnicode(_)) => return Err(format!("{VARIABLE} is not UTF-8")),
    };
    let lines = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter);
    match global.log {
        LogFormat::Human => {
            lines
                .with_ansi(has_colours(io::stderr().is_terminal(), std::env::var_os("NO_COLOR")))
                .with_target(false)
                .fmt_fields(QuotedFields)
                .init();
        }
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).init(),
    }
    Ok(())
}

/// Colours are for terminals, unless `NO_COLOR` is set: <https://no-color.org>.
pub(crate) fn has_colours(is_terminal: bool, no_color: Option<OsString>) -> bool {
    is_terminal && no_color.is_none_or(|set| set.is_empty())
}

fn filter(text: &str) -> Result<EnvFilter, String> {
    let expected = "expected error, warn, info, debug, trace or off, or filters such as `info,tallybus_bus=debug`";
    // A single word is a target to `tracing`, so that a misspelt level would silence everything else.
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let wrong = text.split(',').map(str::trim).filter(is_word).find(|word| word.parse::<LevelFilter>().is_err());
    if let Some(word) = wrong {
        return Err(format!("{VARIABLE}: {word:?} is not a level: {expected}"));
    }
    EnvFilter::try_new(text).map_err(|error| format!("{VARIABLE}: {text:?}: {error}: {expected}"))
}

/// Fields as `key=value`, with values that are not a single word in quotes: `error="the bus did not answer"` can be
/// searched for and parsed.
struct QuotedFields;

impl<'writer> FormatFields<'writer> for QuotedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, outcome: Ok(()) };
        fields.record(&mut line);
        line.outcome
    }
}

/// The message and the fields of one event.
struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    outcome: fmt::Result,
}

impl Line<'_> {
    fn write(&mut self, name: &str, value: &dyn Debug) -> fmt::Result {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.writer.write_char(' ')?;
        }
        let text = format!("{value:?}");
        if name == "message" {
            return self.writer.write_str(&escape(&text, true));
        }
        if self.writer.has_ansi_escapes() {
            write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?;
        } else {
            write!(self.writer, "{name}=")?;
        }
        // A text is in quotes already; what is displayed is not.
        match text.starts_with('"') {
            true => self.writer.write_str(&text),
            false => self.writer.write_str(&quoted(&text)),
        }
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let name = field.name();
        // The metadata of records that come through the crate `log`.
        if self.outcome.is_ok() && !name.starts_with("log.") {
            self.outcome = self.write(name.strip_prefix("r#").unwrap_or(name), value);
        }
    }
}

/// A word as it is, everything else in quotes.
fn quoted(text: &str) -> String {
    let is_word = |c: char| !c.is_whitespace() && !is_obeyed(c) && c != '"' && c != '=';
    if !text.is_empty() && text.chars().all(is_word) { text.to_owned() } else { format!("{text:?}") }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[test]
    fn a_filter_is_refused_with_the_reason_when_it_is_none() {
        for good in ["info", "WARN", "off", "info,tallybus_bus=debug", "kafka=error, warn", "tallybus_bus"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (wrong, named) in [("verbose", "\"verbose\" is not a level"), ("info,kafka=loud", "info,kafka=loud")] {
            let refused = filter(wrong).unwrap_err();
            assert!(refused.starts_with("TALLYBUS_LOG: ") && refused.contains(named), "{refused}");
        }
    }

    #[test]
    fn colours_are_for_terminals_and_not_with_no_color() {
        assert!(has_colours(true, None) && has_colours(true, Some(OsString::new())));
        assert!(!has_colours(false, None) && !has_colours(true, Some("1".into())));
    }

    #[test]
    fn values_of_several_words_are_in_quotes_and_controls_are_escaped() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::fmt()
            .with_writer({
                let written = Arc::clone(&written);
                move || Sink(Arc::clone(&written))
            })
            .without_time()
            .with_ansi(false)
            .with_target(false)
            .fmt_fields(QuotedFields)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let error = io::Error::other("no \"answer\"\u{1b}[2J");
            tracing::info!(sink = "a", %error, partition = %"t/0", count = 3, "it \u{1b} failed");
        });
        let line = String::from_utf8(written.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap();
        let expected = "it \\u{1b} failed sink=\"a\" error=\"no \\\"answer\\\"\\u{1b}[2J\" partition=t/0 count=3";
        assert!(line.contains(expected), "{line}");
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
