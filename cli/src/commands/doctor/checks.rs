//! The checks that were made, and how they are shown.

use serde_json::{Value, json};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::wrap;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// It passed.
    Good(String),
    /// It neither passed nor failed: nothing has to be done now.
    Note(String),
    /// It failed: why, and what to do.
    Fault(String),
}

impl Finding {
    fn word(&self) -> &'static str {
        match self {
            Self::Good(_) => "ok",
            Self::Note(_) => "note",
            Self::Fault(_) => "FAIL",
        }
    }

    fn text(&self) -> &str {
        let (Self::Good(text) | Self::Note(text) | Self::Fault(text)) = self;
        text
    }

    pub(super) fn is_fault(&self) -> bool {
        matches!(self, Self::Fault(_))
    }

    fn as_json(&self, check: &str) -> Value {
        let ok = match self {
            Self::Good(_) => json!(true),
            Self::Note(_) => Value::Null,
            Self::Fault(_) => json!(false),
        };
        json!({ "check": check, "ok": ok, "detail": self.text() })
    }
}

impl From<Result<String, String>> for Finding {
    fn from(outcome: Result<String, String>) -> Self {
        match outcome {
            Ok(text) => Self::Good(text),
            Err(text) => Self::Fault(text),
        }
    }
}

/// A line in lines of at most this many characters; those after the first begin below the first one's text.
fn indented(line: &str, width: usize) -> Vec<String> {
    const INDENT: usize = 6;
    let (word, text) = line.split_at(INDENT.min(line.len()));
    let lines = wrap(text, width.saturating_sub(INDENT));
    let mut first = Some(word);
    lines.iter().map(|text| format!("{:<INDENT$}{text}", first.take().unwrap_or(""))).collect()
}

/// A check and what it found.
struct Check {
    what: String,
    finding: Finding,
}

/// The checks so far.
pub(super) struct Checks<'a> {
    done: Vec<Check>,
    output: &'a Output,
}

impl<'a> Checks<'a> {
    pub(super) fn new(output: &'a Output) -> Self {
        Self { done: Vec::new(), output }
    }

    /// Adds a check, and shows it at once unless all are shown together as JSON. The same check is added once.
    pub(super) fn add(&mut self, what: &str, finding: impl Into<Finding>) -> Result<(), Failure> {
        if self.find(what).is_some() {
            return Ok(());
        }
        let finding = finding.into();
        if !self.output.json {
            let line = format!("{:<4}  {what}: {}", finding.word(), finding.text());
            match self.output.screen_width() {
                Some(width) => indented(&line, width).iter().try_for_each(|line| self.output.report(line))?,
                None => self.output.report(&line)?,
            }
        }
        self.done.push(Check { what: what.to_owned(), finding });
        Ok(())
    }

    pub(super) fn output(&self) -> &'a Output {
        self.output
    }

    /// What this check found; `None` when it was not made.
    pub(super) fn find(&self, what: &str) -> Option<&Finding> {
        self.done.iter().find(|check| check.what == what).map(|check| &check.finding)
    }

    pub(super) fn finish(self) -> Result<Verdict, Failure> {
        let good = !self.done.iter().any(|check| check.finding.is_fault());
        if self.output.json {
            let checks: Vec<Value> = self.done.iter().map(|check| check.finding.as_json(&check.what)).collect();
            self.output.report(&json!({ "ok": good, "checks": checks }).to_string())?;
        }
        Ok(if good { Verdict::Good } else { Verdict::Bad })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_finding_goes_on_below_its_text_and_no_line_is_wider() {
        assert_eq!(indented("ok    bus: b.db", 80), ["ok    bus: b.db"]);
        let lines = indented("FAIL  sink a: it does not answer, and nobody knows why it does not", 40);
        assert_eq!(lines, ["FAIL  sink a: it does not answer, and", "      nobody knows why it does not"]);
    }
}
