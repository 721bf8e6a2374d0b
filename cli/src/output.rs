use std::io::{self, IsTerminal, Write};

use serde_json::{Number, Value};
use tallybus_sdk::text::{escape, escape_json};

use crate::failure::Failure;
use crate::text::Table;

/// The only code that prints: results on standard output, everything else on standard error. Texts may come from the bus or
/// a backend, so what a terminal would obey is escaped here, all but line breaks.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    terminal: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, terminal: io::stderr().is_terminal() }
    }

    /// Whether standard error is a terminal, where a line may be redrawn.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// How many characters a line of text may have: `COLUMNS`, or else the width of the terminal, or else 80.
    pub(crate) fn width(&self) -> usize {
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|columns| *columns > 0);
        let terminal = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        columns.or_else(terminal).unwrap_or(80)
    }

    /// Prints a result.
    ///
    /// # Errors
    /// The reader has closed the output, or it cannot be written.
    pub(crate) fn print(&self, text: &str) -> Result<(), Failure> {
        let text = if self.json { escape_json(text) } else { escape(text, true) };
        let mut out = io::stdout().lock();
        written(out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()))
    }

    /// Writes a text of this program's own as it is.
    ///
    /// # Errors
    /// The reader has closed the output, or it cannot be written.
    pub(crate) fn write(&self, text: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        written(out.write_all(text).and_then(|()| out.flush()))
    }

    /// Prints a table as wide as the terminal.
    ///
    /// # Errors
    /// As for [`Output::print`].
    pub(crate) fn table(&self, table: &Table) -> Result<(), Failure> {
        table.lines_within(self.width()).iter().try_for_each(|line| self.print(line))
    }

    /// Prints a report that has its own verdict, which is valid even if nothing reads the report.
    pub(crate) fn report(&self, text: &str) -> Result<(), Failure> {
        match self.print(text) {
            Err(Failure::ReaderGone) => Ok(()),
            other => other,
        }
    }

    /// Prints a message on standard error; a failure of that is ignored because it cannot be reported.
    pub(crate) fn say(&self, text: &str) {
        let _ = writeln!(io::stderr().lock(), "{}", escape(text, true));
    }

    /// Shows a question on standard error; the answer goes into the same line.
    pub(crate) fn prompt(&self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{}", escape(text, true)).and_then(|()| err.flush());
    }

    /// Shows progress: redraws a line on a terminal, prints nothing in a pipe.
    pub(crate) fn redraw(&self, text: &str) {
        if self.terminal {
            let width = terminal_size::terminal_size_of(io::stderr()).map_or(80, |(width, _)| usize::from(width.0));
            // A line that is as wide as the terminal goes on in the next one, which would not be cleared.
            let text: String = escape(text, false).chars().take(width.saturating_sub(1)).collect();
            let mut err = io::stderr().lock();
            let _ = write!(err, "\r\x1b[2K{text}").and_then(|()| err.flush());
        }
    }

    /// Clears a redrawn line.
    pub(crate) fn clear(&self) {
        self.redraw("");
    }
}

/// The result of a write to standard output.
pub(crate) fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::ReaderGone),
        Err(error) => Err(Failure::failed(format!("cannot write to standard output: {error}"))),
    }
}

/// A number in JSON; beyond 64 bits, its digits as a string.
pub(crate) fn number(value: u128) -> Value {
    match u64::try_from(value) {
        Ok(value) => Value::Number(Number::from(value)),
        Err(_) => Value::String(value.to_string()),
    }
}
