//! HTML and SVG, written element by element. Names of elements and attributes are this program's own; everything else is escaped,
//! so no text can become markup.

use std::fmt::Display;

use tallybus_sdk::text;

/// Elements inside a line of text: a line break behind them would be a space.
const INLINE: [&str; 6] = ["a", "b", "code", "data", "span", "time"];

/// Attributes of an element.
pub(crate) type Attributes<'a> = &'a [(&'static str, &'a dyn Display)];

/// A piece of a page.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Opens an element.
    pub(crate) fn open(&mut self, element: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.0.push('<');
        self.0.push_str(element);
        for (name, value) in attributes {
            self.0.push_str(&format!(" {name}=\"{}\"", escape(&value.to_string())));
        }
        self.0.push('>');
        self
    }

    /// Closes an element.
    pub(crate) fn close(&mut self, element: &'static str) -> &mut Self {
        self.0.push_str(&format!("</{element}>"));
        if !INLINE.contains(&element) {
            self.0.push('\n');
        }
        self
    }

    /// Text, on one line.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.0.push_str(&escape(text));
        self
    }

    /// An element that holds a text and nothing else.
    pub(crate) fn leaf(&mut self, element: &'static str, attributes: Attributes<'_>, text: &str) -> &mut Self {
        self.open(element, attributes).text(text).close(element)
    }

    /// An element that holds lines of text.
    pub(crate) fn lines<'a>(&mut self, element: &'static str, lines: impl Iterator<Item = &'a str>) -> &mut Self {
        let lines: Vec<String> = lines.map(escape).collect();
        self.open(element, &[]);
        self.0.push_str(&lines.join("\n"));
        self.close(element)
    }

    /// An element of SVG that holds nothing.
    pub(crate) fn shape(&mut self, element: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.open(element, attributes).close(element)
    }

    /// Markup of this program's own.
    pub(crate) fn fixed(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Another piece.
    pub(crate) fn add(&mut self, piece: Self) -> &mut Self {
        self.0.push_str(&piece.0);
        self
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// A text for HTML, in an element or an attribute; control characters are visible.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text::escape(text, false).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let mut html = Html::new();
        let hostile = "</td><script>alert('1')</script>\" onload=\"x &amp; \u{1b}[2J\u{202e}";
        html.leaf("td", &[("title", &hostile)], hostile);
        let html = html.into_string();
        assert_eq!(
            (html.matches('<').count(), html.matches('>').count(), html.matches('"').count()),
            (2, 2, 2),
            "{html}"
        );
        assert!(!html.contains('\u{1b}') && !html.contains('\u{202e}') && html.contains("&amp;amp;"), "{html}");
    }
}
