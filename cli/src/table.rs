//! Tables as text, which fit a terminal: nothing in them is cut, and what is left out is named.

use crate::text::{escape, fold};

/// Columns of text are not narrower, unless their texts are.
const NARROWEST: usize = 16;
const GAP: usize = 2;

/// A table with aligned columns.
pub(crate) struct Table {
    columns: Vec<Column>,
    /// The titles come first.
    rows: Vec<Vec<String>>,
}

struct Column {
    is_right: bool,
    /// Where the width does not suffice, columns of a higher rank are left out first; those of rank 0 never are.
    rank: u8,
}

impl Table {
    /// Column titles; columns whose title begins with `>` are right-aligned.
    pub(crate) fn new(titles: &[&str]) -> Self {
        let columns = titles.iter().map(|title| Column { is_right: title.starts_with('>'), rank: 0 }).collect();
        let titles = titles.iter().map(|title| title.trim_start_matches('>').to_owned()).collect();
        Self { columns, rows: vec![titles] }
    }

    /// With the rank of each column: where the width does not suffice, those of a higher rank are left out first, and named below
    /// the table. Those of rank 0 stay.
    pub(crate) fn ranked(mut self, ranks: impl IntoIterator<Item = u8>) -> Self {
        self.columns.iter_mut().zip(ranks).for_each(|(column, rank)| column.rank = rank);
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|cell| escape(cell, false).into_owned()).collect());
    }

    /// The lines, as wide as they are.
    pub(crate) fn lines(&self) -> Vec<String> {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        self.aligned(&all, &self.natural())
    }

    /// Whether the lines are no wider than this, with no more than their texts wrapped.
    pub(crate) fn fits(&self, width: usize) -> bool {
        let all: Vec<usize> = (0..self.columns.len()).collect();
        self.widths(&all, width).is_some()
    }

    /// The lines, none wider than this. Texts are wrapped first; then columns that have a rank are left out, and named; where that
    /// does not suffice, each row becomes a list of its cells with their titles.
    pub(crate) fn lines_within(&self, width: usize) -> Vec<String> {
        let mut shown: Vec<usize> = (0..self.columns.len()).collect();
        loop {
            if let Some(widths) = self.widths(&shown, width) {
                let mut lines = self.aligned(&shown, &widths);
                lines.extend(self.left_out(&shown).iter().flat_map(|line| fold(line, width)));
                return lines;
            }
            let may_go = shown.iter().copied().filter(|at| self.columns[*at].rank > 0);
            match may_go.max_by_key(|at| self.columns[*at].rank) {
                Some(least) => shown.retain(|at| *at != least),
                None => return self.listed(width),
            }
        }
    }

    /// What is said of columns that are not shown.
    fn left_out(&self, shown: &[usize]) -> Option<String> {
        let titles = self.rows.first()?.iter().enumerate();
        let names: Vec<&str> = titles.filter(|(at, _)| !shown.contains(at)).map(|(_, title)| title.as_str()).collect();
        (!names.is_empty())
            .then(|| format!("without {}: a wider terminal, a pipe and --json have them", names.join(", ")))
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| row.get(column)).map(String::as_str)
    }

    /// The width of each column's widest cell.
    fn natural(&self) -> Vec<usize> {
        (0..self.columns.len()).map(|column| self.cells(column).map(length).max().unwrap_or(0)).collect()
    }

    /// How narrow a column may become: numbers are not broken, and texts at spaces only.
    fn least(&self, column: usize, natural: usize) -> usize {
        if self.columns[column].is_right {
            return natural;
        }
        let words = self.cells(column).flat_map(|cell| cell.split(' ')).map(length);
        natural.min(words.max().unwrap_or(0).max(NARROWEST) + self.indent(column))
    }

    /// The spaces before all texts of a column.
    fn indent(&self, column: usize) -> usize {
        self.cells(column).map(|cell| length(cell) - length(cell.trim_start())).min().unwrap_or(0)
    }

    /// The widths of these columns; `None` where they do not fit.
    fn widths(&self, shown: &[usize], width: usize) -> Option<Vec<usize>> {
        let mut widths = self.natural();
        let least: Vec<usize> =
            widths.iter().enumerate().map(|(column, natural)| self.least(column, *natural)).collect();
        let gaps = GAP * shown.len().saturating_sub(1);
        loop {
            let total = shown.iter().map(|column| widths[*column]).sum::<usize>() + gaps;
            let over = total.saturating_sub(width);
            if over == 0 {
                return Some(widths);
            }
            // The widest one gives first, until it is as wide as the next.
            let widest = shown.iter().copied().filter(|at| widths[*at] > least[*at]).max_by_key(|at| widths[*at])?;
            let others = shown.iter().copied().filter(|at| *at != widest).map(|at| widths[at]);
            let next = others.filter(|other| *other < widths[widest]).max().unwrap_or(0).min(widths[widest] - 1);
            widths[widest] = least[widest].max(next).max(widths[widest].saturating_sub(over));
        }
    }

    /// The rows in columns of these widths.
    fn aligned(&self, shown: &[usize], widths: &[usize]) -> Vec<String> {
        let mut lines = Vec::new();
        for row in &self.rows {
            let cell = |column: usize| row.get(column).map_or("", String::as_str);
            let cells: Vec<Vec<String>> =
                shown.iter().map(|column| broken(cell(*column), widths[*column], self.indent(*column))).collect();
            for line in 0..cells.iter().map(Vec::len).max().unwrap_or(0) {
                let mut text = String::new();
                for (column, cell) in shown.iter().zip(&cells) {
                    let (part, width) = (cell.get(line).map_or("", String::as_str), widths[*column]);
                    match self.columns[*column].is_right {
                        true => text.push_str(&format!("{part:>width$}")),
                        false => text.push_str(&format!("{part:<width$}")),
                    }
                    text.push_str(&" ".repeat(GAP));
                }
                lines.push(text.trim_end().to_owned());
            }
        }
        lines
    }

    /// Each row as a list: its first cell, and below it the others with their titles.
    fn listed(&self, width: usize) -> Vec<String> {
        const INDENT: usize = 2;
        let Some((titles, rows)) = self.rows.split_first() else { return Vec::new() };
        let mut lines = Vec::new();
        for row in rows {
            lines.extend(fold(row.first().map_or("", String::as_str), width));
            for (title, cell) in titles.iter().zip(row).skip(1).filter(|(_, cell)| !cell.is_empty()) {
                let text = fold(&format!("{}: {cell}", title.trim()), width.saturating_sub(INDENT));
                lines.extend(text.into_iter().map(|line| format!("{:INDENT$}{line}", "")));
            }
        }
        lines
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A cell in lines of this width, each with the column's indent.
fn broken(cell: &str, width: usize, indent: usize) -> Vec<String> {
    if length(cell) <= width {
        return vec![cell.to_owned()];
    }
    fold(cell, width.saturating_sub(indent)).into_iter().map(|line| format!("{:indent$}{line}", "")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(titles: &[&str], rows: &[&[&str]]) -> Table {
        let mut table = Table::new(titles);
        rows.iter().for_each(|row| table.row(row.iter().map(|cell| (*cell).to_owned()).collect()));
        table
    }

    #[test]
    fn columns_line_up() {
        let table = table(&["name", ">total"], &[&["a", "1"], &["längst", "1,000,000"]]);
        assert_eq!(table.lines(), ["name        total", "a               1", "längst  1,000,000"]);
        assert_eq!(table.lines_within(17), table.lines());
    }

    #[test]
    fn the_widest_text_is_wrapped_to_the_width() {
        let one = table(&["key", "meaning"], &[&["a", "one two three four five six seven"]]);
        assert_eq!(one.lines_within(30), ["key  meaning", "a    one two three four five", "     six seven"]);
        let two = table(
            &["  state", ">n", "reason"],
            &[&["  refused again and again by the backend", "7", "the value is not a whole number of seconds"]],
        );
        assert_eq!(
            two.lines_within(50),
            [
                "  state                        n  reason",
                "  refused again and again by   7  the value is not",
                "  the backend                     a whole number",
                "                                  of seconds",
            ]
        );
        assert!(two.fits(50) && !two.fits(20));
    }

    #[test]
    fn columns_that_do_not_fit_are_left_out_by_rank_and_named() {
        let table = table(&["sink", ">lag", ">out"], &[&["influx", "1,234,567", "9,999"]]).ranked([0, 1, 2]);
        assert_eq!(
            table.lines_within(20),
            [
                "sink          lag",
                "influx  1,234,567",
                "without out: a wider",
                "terminal, a pipe and",
                "--json have them"
            ]
        );
        assert_eq!(table.lines_within(24).len(), 2);
    }

    #[test]
    fn a_row_that_does_not_fit_is_a_list_of_its_cells_and_no_line_is_wider() {
        let id = "0123456789abcdef0123456789abcdef";
        let table = table(&["group", ">events", "stream"], &[&["tallybus.a", "1,000", id]]);
        assert_eq!(
            table.lines_within(24),
            ["tallybus.a", "  events: 1,000", "  stream:", "  0123456789abcdef012345", "  6789abcdef"]
        );
        for width in 3..80 {
            let lines = table.lines_within(width);
            assert!(lines.iter().all(|line| length(line) <= width), "{width}: {lines:?}");
            assert!(lines.concat().replace(' ', "").contains(id), "{width}: {lines:?}");
        }
    }
}
