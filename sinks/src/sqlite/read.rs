//! What the file holds, row by row: SQLite's own sum fails over 2^63.

use std::ops::ControlFlow;

use rusqlite::{Connection, params};
use tallybus_sdk::{Foreign, ForeignKind, Held, WindowTotal, WindowsQuery};

use crate::shared::json_tags::LastSeries;

/// Hands over every row in the range, those of one series one after another, until `hand` breaks.
pub(super) fn windows(
    connection: &Connection,
    query: &WindowsQuery,
    hand: &mut dyn FnMut(Held) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare(
        "SELECT name, tags, window_start, value FROM counters
         WHERE (?1 IS NULL OR window_start >= ?1) AND (?2 IS NULL OR window_start < ?2) AND (?3 IS NULL OR name = ?3)
         ORDER BY name, tags, window_start",
    )?;
    let mut last = LastSeries::default();
    let mut rows = select.query(params![query.range.from, query.range.to, query.name])?;
    while let Some(row) = rows.next()? {
        let (name, tags) = (row.get_ref(0)?, row.get_ref(1)?);
        let (start, value): (i64, i64) = (row.get(2)?, row.get(3)?);
        let foreign = |kind| {
            let text = |cell: rusqlite::types::ValueRef<'_>| {
                String::from_utf8_lossy(cell.as_bytes().unwrap_or_default()).into_owned()
            };
            let what = format!("counters: {} {}, window_start {start}, value {value}", text(name), text(tags));
            Held::Foreign(Foreign::new(kind, what))
        };
        let held = match (name.as_str(), tags.as_str()) {
            _ if start < 0 => foreign(ForeignKind::BeforeEpoch),
            (Ok(name), Ok(tags)) => match (last.of(name, tags), u128::try_from(value)) {
                (None, _) => foreign(ForeignKind::Tags),
                (Some(_), Err(_)) => foreign(ForeignKind::Negative),
                (Some(series), Ok(total)) => Held::Window(WindowTotal { series, start, total }),
            },
            // The column is text, but not in UTF-8.
            _ => foreign(ForeignKind::Tags),
        };
        if hand(held).is_break() {
            break;
        }
    }
    Ok(())
}
