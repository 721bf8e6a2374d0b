//! Totals and windows.

use std::ops::ControlFlow;

use rusqlite::{Connection, params};
use tallybus_sdk::{SeriesTotal, TotalsQuery, WindowTotal, WindowsQuery};

use crate::shared::json_tags::{series_of, tags_to_json};

/// Receives the results; breaks when no more are wanted.
type Hand<'h, T> = dyn FnMut(T) -> ControlFlow<()> + 'h;

/// High and low halves are summed separately: SQLite's own sum stops at 2^63.
pub(super) fn totals(
    connection: &Connection,
    query: &TotalsQuery,
    hand: &mut Hand<'_, SeriesTotal>,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare(
        "SELECT name, tags, sum(value >> 32), sum(value & 4294967295) FROM counters
         WHERE window_start >= ?1 AND window_start < ?2 OR ?2 IS NULL AND window_start >= ?1
         GROUP BY name, tags",
    )?;
    let mut rows = select.query(params![query.range.from.unwrap_or(0), query.range.to])?;
    while let Some(row) = rows.next()? {
        let (name, tags) = (row.get_ref(0)?.as_str()?, row.get_ref(1)?.as_str()?);
        let (high, low): (u64, u64) = (row.get(2)?, row.get(3)?);
        let Some(series) = series_of(name, tags) else { continue };
        if hand(SeriesTotal { series, total: (high << 32).saturating_add(low) }).is_break() {
            break;
        }
    }
    Ok(())
}

pub(super) fn windows(
    connection: &Connection,
    query: &WindowsQuery,
    hand: &mut Hand<'_, WindowTotal>,
) -> rusqlite::Result<()> {
    let mut select = connection.prepare(
        "SELECT window_start - window_start % ?5, sum(value >> 32), sum(value & 4294967295) FROM counters
         WHERE name = ?1 AND tags = ?2 AND window_start >= ?3 AND (?4 IS NULL OR window_start < ?4)
         GROUP BY 1 ORDER BY 1",
    )?;
    let (series, range) = (&query.series, query.range);
    let tags = tags_to_json(series.tags().iter().map(|(key, value)| (&**key, &**value)));
    let values = params![series.name(), tags, range.from.unwrap_or(0), range.to, query.resolution];
    let mut rows = select.query(values)?;
    while let Some(row) = rows.next()? {
        let (high, low): (u64, u64) = (row.get(1)?, row.get(2)?);
        if hand(WindowTotal { start: row.get(0)?, total: (high << 32).saturating_add(low) }).is_break() {
            break;
        }
    }
    Ok(())
}
