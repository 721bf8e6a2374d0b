//! The help, in lines for a terminal of any size.

use ratatui::layout::Size;

use crate::text::fold;

/// The columns from which on keys and what they do are in one line.
const WIDE: u16 = 66;

const TITLE: &str = "tallybus top: keys (any other key closes this)";

/// Keys, and what they do.
const KEYS: &[(&str, &str)] = &[
    ("Up Down j k", "select a row; PgUp PgDn Home End"),
    ("Enter", "partitions of the sink, and its reason in full"),
    ("Esc", "clear the filter, or go back"),
    ("Tab t", "topics, or sinks"),
    ("/", "filter; Enter keeps it, Esc clears it"),
    ("1-9 < >", "sort by a column; again: reverse"),
    ("w", "worst first"),
    ("r", "reverse"),
    ("p Space", "pause, or go on"),
    ("Left Right", "step through a recording (--play)"),
    ("c", "write what is shown to a file, as JSON"),
    ("Ctrl-L", "draw again"),
    ("q Ctrl-C", "quit"),
];

/// The title of the page, for these columns.
pub(super) fn title(width: u16) -> &'static str {
    if usize::from(width) < TITLE.len() { "keys; Down scrolls" } else { TITLE }
}

/// The lines below the title, none wider than the screen.
pub(super) fn lines(width: u16) -> Vec<String> {
    let line = |(keys, meaning): &(&str, &str)| match width {
        WIDE.. => vec![format!("{keys:<18}{meaning}")],
        _ => fold(&format!("{keys}: {meaning}"), usize::from(width)),
    };
    KEYS.iter().flat_map(line).collect()
}

/// How many lines the screen shows below the title.
pub(super) fn page(size: Size) -> usize {
    usize::from(size.height.saturating_sub(1)).max(1)
}

/// The line from which on the screen shows the rest.
pub(super) fn last_start(size: Size) -> usize {
    lines(size.width).len().saturating_sub(page(size))
}
