//! Charts for the pages that commands write: SVG that takes colours from the page's style sheet, with the same figures as a table.
//!
//! No chart fails: what is not known is a gap and "not known", never 0, and any finite figure has a place. Series are told apart by
//! colour (Okabe and Ito's, darker or lighter as the page is), dash and marker together.

mod bars;
mod distribution;
mod frame;
mod lines;
mod scale;
#[cfg(test)]
mod tests;
mod unit;

use crate::page::{Html, Table};

pub(crate) use self::bars::{Bar, Bars};
pub(crate) use self::distribution::{Curve, Distribution};
pub(crate) use self::lines::{Line, Lines, Outage};
pub(crate) use self::unit::{NOT_KNOWN, Unit};

/// A chart that a page can show.
pub(crate) trait Chart {
    /// What it shows, in a few words.
    fn title(&self) -> &str;

    /// How to read it, in a sentence; empty where the title says it all.
    fn about(&self) -> &str;

    /// What its lines and shades mean.
    fn key(&self) -> Vec<Key>;

    /// The figures that matter, in words: what a screen reader reads in place of the drawing.
    fn description(&self) -> String;

    /// Its height, where its width is [`frame::WIDTH`].
    fn height(&self) -> f64;

    /// Draws it.
    fn draw(&self, svg: &mut Html);

    /// Its figures.
    fn table(&self) -> Table;
}

/// An entry of a chart's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// The line of this number.
    Line(usize, String),
    /// A shaded stretch of time.
    Shade(String),
}

impl Key {
    /// A line of this name; one without a known figure says so, because there is nothing to see of it.
    fn line(number: usize, name: &str, is_known: bool) -> Self {
        Self::Line(number, if is_known { name.to_owned() } else { format!("{name} ({})", unit::NOT_KNOWN) })
    }
}

/// The chart with its key and its table. The id is unique on the page.
pub(crate) fn figure(id: &str, chart: &dyn Chart) -> Html {
    let mut html = Html::new();
    html.open("figure", &[("id", &id)]).leaf("figcaption", &[], chart.title());
    if !chart.about().is_empty() {
        html.leaf("p", &[], chart.about());
    }
    let key = chart.key();
    if !key.is_empty() {
        html.open("ul", &[("class", &"key"), ("aria-hidden", &"true")]);
        for entry in key {
            html.open("li", &[]);
            html.open("svg", &[("viewBox", &"0 0 30 12"), ("focusable", &"false")]);
            let name = match entry {
                Key::Line(series, name) => {
                    html.shape("path", &[("class", &frame::line_class(series)), ("d", &"M0 6H30")]);
                    frame::mark(&mut html, series, 15.0, 6.0);
                    name
                }
                Key::Shade(name) => {
                    let place: [(&'static str, &dyn std::fmt::Display); 4] =
                        [("x", &1), ("y", &0), ("width", &28), ("height", &12)];
                    html.shape("rect", &[&[("class", &"outage" as &dyn std::fmt::Display)][..], &place].concat());
                    name
                }
            };
            html.close("svg").text(&name).close("li");
        }
        html.close("ul");
    }
    let (title, description) = (format!("{id}-title"), format!("{id}-description"));
    let named_by = format!("{title} {description}");
    let view = format!("0 0 {} {:.0}", frame::WIDTH, chart.height());
    html.open("svg", &[("class", &"drawing"), ("viewBox", &view), ("role", &"img"), ("aria-labelledby", &named_by)]);
    html.leaf("title", &[("id", &title)], chart.title());
    html.leaf("desc", &[("id", &description)], &chart.description());
    chart.draw(&mut html);
    html.close("svg").open("details", &[]).leaf("summary", &[], "The figures as a table");
    html.add(chart.table().html()).close("details").close("figure");
    html
}
