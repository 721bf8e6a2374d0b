//! Tables as CSV, for spreadsheets.

use clap::Args;
use serde_json::Value;

use crate::failure::Failure;
use crate::output::Output;
use crate::text::escape;

/// The option of commands whose result is a table.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct CsvOption {
    /// Print the table as CSV with a header, and all else on standard error. A text that a spreadsheet would take for a formula
    /// (it begins with =, +, - or @) has a ' before it; --json has every text as it is.
    #[arg(long)]
    csv: bool,
}

impl CsvOption {
    /// Whether CSV is asked for.
    ///
    /// # Errors
    /// JSON is asked for as well.
    pub(crate) fn is_set(self, output: &Output) -> Result<bool, Failure> {
        match self.csv && output.json {
            true => Err(Failure::could_not_look("--csv and --json are two forms of one result: choose one")),
            false => Ok(self.csv),
        }
    }
}

/// A table in the form of RFC 4180, but with the line ends of Unix. Control characters are escaped as in all output, so that a
/// row is one line.
pub(crate) struct Csv {
    lines: Vec<String>,
}

impl Csv {
    /// An empty table with these columns.
    pub(crate) fn new<'c>(columns: impl IntoIterator<Item = &'c str>) -> Self {
        Self { lines: vec![line(columns.into_iter().map(Value::from))] }
    }

    /// A table of objects, by these keys.
    pub(crate) fn of(columns: &[&str], objects: &[Value]) -> Self {
        let mut table = Self::new(columns.iter().copied());
        objects.iter().for_each(|object| table.row(columns.iter().map(|column| object[*column].clone())));
        table
    }

    /// Adds a row: texts, numbers, nothing for `null`, and lists and objects as JSON.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Value>) {
        self.lines.push(line(cells.into_iter()));
    }

    /// Prints it.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub(crate) fn report(&self, output: &Output) -> Result<(), Failure> {
        self.lines.iter().try_for_each(|line| output.report(line))
    }
}

/// One line of a table: texts, numbers, nothing for `null`, and lists and objects as JSON.
pub(crate) fn line(cells: impl Iterator<Item = Value>) -> String {
    cells.map(|value| cell(&value)).collect::<Vec<_>>().join(",")
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(&no_formula(&escape(text, false))),
        Value::Array(_) | Value::Object(_) => quoted(&no_formula(&escape(&value.to_string(), false))),
    }
}

/// A spreadsheet evaluates a text that begins like a formula, which could fetch and send what is in other cells. Names, tags and
/// reasons are from the bus, where anyone who may publish has written them.
fn no_formula(text: &str) -> String {
    // The wide forms are taken for the others where the language has them.
    let is_formula = text.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

/// In quotes where it is needed. An empty text is in quotes, and differs by that from a missing one.
fn quoted(text: &str) -> String {
    let is_plain = !text.is_empty() && !text.contains(['"', ',', '\n', '\r']) && text.trim() == text;
    if is_plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_are_quoted_where_needed_and_nothing_is_a_formula() {
        for (value, expected) in [
            (json!("plain text"), "plain text"),
            (json!("a,b"), "\"a,b\""),
            (json!("say \"hi\""), "\"say \"\"hi\"\"\""),
            (json!(" padded"), "\" padded\""),
            (json!(""), "\"\""),
            (json!(null), ""),
            (json!(-5), "-5"),
            (json!(1_000_000), "1000000"),
            (json!(true), "true"),
            (json!({ "b": "1", "a": "=2" }), "\"{\"\"b\"\":\"\"1\"\",\"\"a\"\":\"\"=2\"\"}\""),
            (json!([1, 2]), "\"[1,2]\""),
            (json!("=1+2"), "'=1+2"),
            (json!("=HYPERLINK(\"http://x\",\"y\")"), "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\""),
            (json!("+1"), "'+1"),
            (json!("-1"), "'-1"),
            (json!("@SUM(1)"), "'@SUM(1)"),
            (json!("＝1"), "'＝1"),
            (json!("a=1"), "a=1"),
            (json!("\t=1"), "\\u{9}=1"),
            (json!("two\nlines\u{1b}[2J"), "two\\u{a}lines\\u{1b}[2J"),
        ] {
            assert_eq!(cell(&value), expected, "{value}");
        }
    }

    #[test]
    fn a_table_of_objects_has_their_values_in_the_order_of_the_columns() {
        let table = Csv::of(&["b", "a", "c"], &[json!({ "a": 1, "b": "x", "d": 9 }), json!({ "c": false })]);
        assert_eq!(table.lines, ["b,a,c", "x,1,", ",,false"]);
    }
}
