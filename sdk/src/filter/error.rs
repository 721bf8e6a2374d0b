use std::fmt;
use std::ops::Range;

use crate::text::escape;

/// How much of a long expression an error shows on either side of the place, in characters.
const AROUND: usize = 40;

/// Why a text is not a filter: the text must be corrected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    reason: String,
    at: Range<usize>,
    excerpt: String,
    marks: String,
}

impl FilterError {
    /// `at`: the bytes of the expression that are wrong; empty where something is missing.
    pub(super) fn new(text: &str, at: Range<usize>, reason: impl Into<String>) -> Self {
        let (before, rest) = text.split_at(at.start);
        let (wrong, after) = rest.split_at(at.end - at.start);
        let skipped = before.chars().count().saturating_sub(AROUND);
        let left = before.chars().skip(skipped).collect::<String>();
        let left = format!("{}{}", if skipped > 0 { "…" } else { "" }, escape(&left, false));
        let wrong = shortened(wrong);
        let excerpt = format!("{left}{wrong}{}", shortened(after));
        let marks = " ".repeat(left.chars().count()) + &"^".repeat(wrong.chars().count().max(1));
        // It may quote the expression.
        let reason = escape(&reason.into(), false).into_owned();
        Self { reason, at, excerpt, marks }
    }

    /// What was expected, without the place.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The bytes of the expression that are wrong; empty where something is missing.
    pub fn at(&self) -> Range<usize> {
        self.at.clone()
    }
}

/// On one line, and as a terminal may show it.
fn shortened(text: &str) -> String {
    let mut kept: String = text.chars().take(AROUND).collect();
    let is_cut = kept.len() < text.len();
    kept = escape(&kept, false).into_owned();
    if is_cut {
        kept.push('…');
    }
    kept
}

/// The reason, the expression, and marks under the place, on three lines; only the reason where the expression is empty.
impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        // There is nothing to mark in an expression that is too long to be shown.
        if self.excerpt.is_empty() { Ok(()) } else { write!(f, "\n  {}\n  {}", self.excerpt, self.marks) }
    }
}

impl std::error::Error for FilterError {}
