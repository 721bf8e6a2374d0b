use std::io::{self, IsTerminal, Write};

use serde_json::{Number, Value};
use tallybus_sdk::text::{escape, escape_json};

use crate::failure::Failure;
use crate::logging::has_colours;
use crate::text::{Table, wrap};

/// The only code that prints: results on standard output, everything else on standard error. Texts may come from the bus or
/// a backend, so what a terminal would obey is escaped here, all but line breaks.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
    terminal: bool,
    /// Of results, and of everything else.
    colours: (bool, bool),
}

/// What a word's colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// A heading.
    Strong,
}

/// Words of a text, and their colours.
pub(crate) type Coloured<'a> = &'a [(&'a str, Colour)];

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let wants_colours = |is_terminal| {
            let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
            has_colours(is_terminal, std::env::var_os("NO_COLOR")) && !is_dumb
        };
        let terminal = io::stderr().is_terminal();
        Self { json, terminal, colours: (wants_colours(io::stdout().is_terminal()), wants_colours(terminal)) }
    }

    /// Whether standard error is a terminal, where a line may be redrawn.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether standard output wants colours.
    pub(crate) fn has_colours(&self) -> bool {
        self.colours.0
    }

    /// How many characters a line of text may have: `COLUMNS`, or else the width of the terminal, or else 80.
    pub(crate) fn width(&self) -> usize {
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok()).filter(|columns| *columns > 0);
        let terminal = || terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        columns.or_else(terminal).unwrap_or(80)
    }

    /// How many characters a line on a screen may have: `COLUMNS`, or else the width of the terminal; `None` where standard
    /// output is a file or a pipe, whose lines stay whole.
    pub(crate) fn screen_width(&self) -> Option<usize> {
        let is_screen = io::stdout().is_terminal() || std::env::var_os("COLUMNS").is_some();
        is_screen.then(|| self.width())
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

    /// Prints a table no wider than the terminal; whole where standard output is none.
    ///
    /// # Errors
    /// As for [`Output::print`].
    pub(crate) fn table(&self, table: &Table) -> Result<(), Failure> {
        let lines = match self.screen_width() {
            Some(width) => table.lines_within(width),
            None => table.lines(),
        };
        lines.iter().try_for_each(|line| self.print(line))
    }

    /// Prints a paragraph, wrapped to the width of the terminal.
    ///
    /// # Errors
    /// As for [`Output::print`].
    pub(crate) fn wrapped(&self, text: &str) -> Result<(), Failure> {
        wrap(text, self.width()).iter().try_for_each(|line| self.print(line))
    }

    /// Prints a report that has its own verdict, which is valid even if nothing reads the report.
    pub(crate) fn report(&self, text: &str) -> Result<(), Failure> {
        match self.print(text) {
            Err(Failure::ReaderGone) => Ok(()),
            other => other,
        }
    }

    /// As [`Output::report`], with these words in colour where standard output wants colours.
    pub(crate) fn report_coloured(&self, text: &str, words: Coloured<'_>) -> Result<(), Failure> {
        let painted = painted(text, words, self.colours.0 && !self.json);
        let mut out = io::stdout().lock();
        match written(writeln!(out, "{painted}").and_then(|()| out.flush())) {
            Err(Failure::ReaderGone) => Ok(()),
            other => other,
        }
    }

    /// As [`Output::say`], with these words in colour where standard error wants colours.
    pub(crate) fn say_coloured(&self, text: &str, words: Coloured<'_>) {
        let _ = writeln!(io::stderr().lock(), "{}", painted(text, words, self.colours.1));
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

/// A text as a terminal may show it, with these words in colour wherever they are.
fn painted(text: &str, words: Coloured<'_>, is_coloured: bool) -> String {
    let mut text = escape(text, true).into_owned();
    for (word, colour) in words.iter().filter(|_| is_coloured) {
        let code = match colour {
            Colour::Good => "1;32",
            Colour::Bad => "1;31",
            Colour::Strong => "1",
        };
        let word = escape(word, true);
        text = text.replace(&*word, &format!("\x1b[{code}m{word}\x1b[0m"));
    }
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_coloured_where_colours_are_wanted_and_nothing_else_drives_the_terminal() {
        let words: Coloured<'_> = &[("equal", Colour::Good), ("killed", Colour::Bad)];
        assert_eq!(painted("killed; equal", words, true), "\x1b[1;31mkilled\x1b[0m; \x1b[1;32mequal\x1b[0m");
        assert_eq!(painted("killed; equal", words, false), "killed; equal");
        assert_eq!(painted("\x1b[2J", words, true), r"\u{1b}[2J");
    }
}
