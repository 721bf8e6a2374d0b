use super::html::Html;

/// A table of a page: its first column names the rows, the others hold figures.
#[derive(Debug)]
pub(crate) struct Table {
    caption: String,
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(caption: &str, titles: impl IntoIterator<Item = String>) -> Self {
        Self { caption: caption.to_owned(), titles: titles.into_iter().collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, in a box that scrolls where the screen is too narrow for it.
    pub(crate) fn html(&self) -> Html {
        let mut html = Html::new();
        html.open("div", &[("class", &"wide"), ("tabindex", &0), ("role", &"region"), ("aria-label", &self.caption)]);
        html.open("table", &[]).leaf("caption", &[], &self.caption).open("thead", &[]).open("tr", &[]);
        for title in &self.titles {
            html.leaf("th", &[("scope", &"col")], title);
        }
        html.close("tr").close("thead").open("tbody", &[]);
        for row in &self.rows {
            html.open("tr", &[]);
            for (column, cell) in row.iter().enumerate() {
                match column {
                    0 => html.leaf("th", &[("scope", &"row")], cell),
                    _ => html.leaf("td", &[], cell),
                };
            }
            html.close("tr");
        }
        html.close("tbody").close("table").close("div");
        html
    }
}
