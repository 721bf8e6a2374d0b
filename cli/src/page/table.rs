use std::fmt::Display;

use super::html::Html;

/// A table of a page: its first column names the rows, the others hold figures.
#[derive(Debug)]
pub(crate) struct Table {
    caption: String,
    titles: Vec<String>,
    /// The columns after the first one that hold text.
    text: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(caption: &str, titles: impl IntoIterator<Item = String>) -> Self {
        Self { caption: caption.to_owned(), titles: titles.into_iter().collect(), text: Vec::new(), rows: Vec::new() }
    }

    /// With text, not figures, in these columns.
    pub(crate) fn with_text(mut self, columns: &[usize]) -> Self {
        self.text = columns.to_vec();
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, in a box that scrolls where the screen is too narrow for it.
    pub(crate) fn html(&self) -> Html {
        let mut html = Html::new();
        html.open("div", &[("class", &"wide"), ("tabindex", &0), ("role", &"region"), ("aria-label", &self.caption)]);
        html.open("table", &[]).leaf("caption", &[], &self.caption).open("thead", &[]).open("tr", &[]);
        for (column, title) in self.titles.iter().enumerate() {
            let class = self.class(column);
            html.leaf("th", &[&[("scope", &"col" as &dyn Display)][..], &class].concat(), title);
        }
        html.close("tr").close("thead").open("tbody", &[]);
        for row in &self.rows {
            html.open("tr", &[]);
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => html.leaf("th", &[("scope", &"row")], cell),
                    _ => html.leaf("td", &self.class(column), cell),
                };
            }
            html.close("tr");
        }
        html.close("tbody").close("table").close("div");
        html
    }

    fn class(&self, column: usize) -> Vec<(&'static str, &'static dyn Display)> {
        if self.text.contains(&column) { vec![("class", &"text")] } else { Vec::new() }
    }
}
