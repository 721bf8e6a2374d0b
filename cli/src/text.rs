//! Human-readable text: tables, numbers, series.

use tallybus_schemas::Series;

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(value: impl Into<u128>) -> String {
    let digits = value.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `name key=value key=value`, as `emit` reads it; texts with spaces are quoted.
pub(crate) fn series(series: &Series) -> String {
    let mut text = quoted(series.name());
    for (key, value) in series.tags() {
        text.push(' ');
        text.push_str(&quoted(key));
        text.push('=');
        text.push_str(&quoted(value));
    }
    text
}

fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && !text.contains([' ', '"', '=']);
    if plain { text.to_owned() } else { format!("{text:?}") }
}

/// `1 message`, `2 messages`, `2 batches`, `2 series`.
pub(crate) fn count_of(count: u64, what: &str) -> String {
    let ending = match what {
        _ if count == 1 => "",
        "series" => "",
        "batch" => "es",
        _ => "s",
    };
    format!("{} {what}{ending}", grouped(count))
}

/// A table with aligned columns; columns in `right` are right-aligned.
pub(crate) struct Table {
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Column titles; columns whose title begins with `>` are right-aligned.
    pub(crate) fn new(titles: &[&str]) -> Self {
        let right = titles.iter().map(|title| title.starts_with('>')).collect();
        let titles = titles.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        Self { right, rows: vec![titles] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                if self.right[column] { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_digits() {
        for (value, text) in [(0_u64, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(value), text);
        }
    }

    #[test]
    fn one_and_many() {
        let said = [(1, "batch"), (2, "batch"), (0, "event"), (2, "series")].map(|(count, what)| count_of(count, what));
        assert_eq!(said, ["1 batch", "2 batches", "0 events", "2 series"]);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["name", ">total"]);
        table.row(vec!["a".to_owned(), "1".to_owned()]);
        table.row(vec!["längst".to_owned(), "1,000,000".to_owned()]);
        assert_eq!(table.lines(), ["name        total", "a               1", "längst  1,000,000"]);
    }

    #[test]
    fn a_series_is_shown_as_it_is_emitted() {
        let shown = series(&Series::from_sorted("hits", &[("path", "/a b"), ("status", "200")]));
        assert_eq!(shown, "hits path=\"/a b\" status=200");
    }
}
