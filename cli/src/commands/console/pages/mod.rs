//! What the pages show. Everything that is not this program's own text goes through [`Html`], which escapes it.

mod audits;
mod comparisons;
mod flow;
mod shell;
mod sink;

use std::fmt::Display;

use jiff::Timestamp;
use tallybus_verify::live::SinkState;

pub(super) use self::audits::{audit, audits};
pub(super) use self::comparisons::{comparison, comparisons};
pub(super) use self::flow::flow;
pub(super) use self::shell::{live, login, not_found};
pub(super) use self::sink::sink;
use super::super::top::columns::{By, Column};
use super::routes::Page;
use crate::page::Html;

/// The most rows of a table of figures that change.
const MOST_ROWS: usize = 200;

/// A cell with its exact figure for programs, where it has one.
fn figure(html: &mut Html, text: &str, by: &By) {
    match by {
        By::Number(Some(exact)) if exact.is_finite() => html.leaf("data", &[("value", exact)], text),
        By::Number(_) | By::Text(_) => html.text(text),
    };
}

/// A row of a table of figures.
struct Row<'r, R> {
    of: &'r R,
    /// Tells it from the other rows, so that it stays the same element when the order changes.
    key: String,
    class: &'static str,
    /// What its first cell leads to.
    leads_to: Option<Page>,
}

/// A table in the columns of `tallybus top`, which names them in capitals.
fn table<'r, R: 'r>(caption: &str, columns: &[&Column<R>], rows: impl ExactSizeIterator<Item = Row<'r, R>>) -> Html {
    let mut html = Html::new();
    let left_out = rows.len().saturating_sub(MOST_ROWS);
    html.open("div", &[("class", &"wide"), ("tabindex", &0), ("role", &"region"), ("aria-label", &caption)]);
    html.open("table", &[]).leaf("caption", &[], caption).open("thead", &[]).open("tr", &[]);
    for column in columns {
        html.leaf("th", &[("scope", &"col"), ("class", &class(column))], &column.title.to_lowercase());
    }
    html.close("tr").close("thead").open("tbody", &[]);
    for row in rows.take(MOST_ROWS) {
        html.open("tr", &[("data-key", &row.key), ("class", &row.class)]);
        for (number, column) in columns.iter().enumerate() {
            let (text, by) = ((column.text)(row.of), (column.by)(row.of));
            let name = ("data-column", &column.title as &dyn Display);
            match number {
                0 => html.open("th", &[("scope", &"row"), ("class", &class(column)), name]),
                _ => html.open("td", &[("class", &class(column)), name]),
            };
            match &row.leads_to {
                Some(page) if number == 0 => {
                    html.leaf("a", &[("href", &page.path())], &text);
                }
                _ => figure(&mut html, &text, &by),
            }
            html.close(if number == 0 { "th" } else { "td" });
        }
        html.close("tr");
    }
    html.close("tbody").close("table").close("div");
    if left_out > 0 {
        html.leaf("p", &[("class", &"soft")], &format!("{left_out} more are not listed here; tallybus top shows all."));
    }
    html
}

fn class<R>(column: &Column<R>) -> &'static str {
    if column.is_right { "" } else { "text" }
}

/// A table of texts; `None` is a figure that is not known.
fn texts(caption: &str, titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Html {
    let columns: Vec<usize> = (0..titles.len()).collect();
    let mut table =
        crate::page::Table::new(caption, titles.iter().map(|title| (*title).to_owned())).with_text(&columns);
    rows.for_each(|row| table.row(row));
    table.html()
}

/// How the state of a sink is drawn; its word is beside it always.
fn state_class(state: SinkState) -> &'static str {
    match state {
        SinkState::Halted | SinkState::Unreadable | SinkState::Forgotten => "state halted",
        SinkState::Retrying | SinkState::Stalled | SinkState::NotStarted | SinkState::FallingBehind => "state bad",
        SinkState::CatchingUp | SinkState::Measuring | SinkState::NoTopic | SinkState::Drained | SinkState::Paused => {
            "state"
        }
        SinkState::KeepingUp | SinkState::CaughtUp => "state good",
    }
}

/// A time of day with its date: milliseconds since the Unix epoch, in UTC.
fn moment(time_ms: i64) -> String {
    match Timestamp::from_millisecond(time_ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{time_ms} ms after 1970"),
    }
}

/// A `time` element.
fn time(html: &mut Html, time_ms: i64) {
    let exact = Timestamp::from_millisecond(time_ms).map_or_else(|_| String::new(), |time| time.to_string());
    html.leaf("time", &[("datetime", &exact)], &moment(time_ms));
}
