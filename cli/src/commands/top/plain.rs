//! Without a screen: one table, or a JSON object for each look.

use tallybus_verify::live::{Picture, SinkPicture, Tick};

use super::columns::{Column, SINKS, TOPICS, WHY};
use super::recording::line;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::Table;

/// Prints looks as they come from `next`, until it returns none; only the second one where a single one is wanted: the first has
/// no rates.
pub(super) fn live(
    mut next: impl FnMut() -> Result<Option<Tick>, Failure>,
    is_single: bool,
    output: &Output,
) -> Result<Verdict, Failure> {
    if is_single {
        if let Some(Tick::Failed(failed)) = next()? {
            return Err(Failure::could_not_look(failed.error));
        }
        let Some(tick) = next()? else { return Ok(Verdict::Good) };
        return single(&tick, output);
    }
    while let Some(tick) = next()? {
        output.print(&line(&tick)?)?;
    }
    Ok(Verdict::Good)
}

/// Prints a recording: its last picture as a table, or every look as JSON.
pub(super) fn recording(ticks: &[Tick], is_single: bool, output: &Output) -> Result<Verdict, Failure> {
    if output.json && !is_single {
        ticks.iter().try_for_each(|tick| output.print(&line(tick)?))?;
        return Ok(Verdict::Good);
    }
    match ticks.iter().rev().find(|tick| matches!(tick, Tick::Seen(_))).or(ticks.last()) {
        Some(tick) => single(tick, output),
        None => Err(Failure::could_not_look("the recording holds no picture")),
    }
}

fn single(tick: &Tick, output: &Output) -> Result<Verdict, Failure> {
    match tick {
        Tick::Failed(failed) => Err(Failure::could_not_look(&failed.error)),
        Tick::Seen(_) if output.json => output.report(&line(tick)?).map(|()| Verdict::Good),
        Tick::Seen(picture) => tables(picture, output).map(|()| Verdict::Good),
    }
}

fn tables(picture: &Picture, output: &Output) -> Result<(), Failure> {
    output.report(&picture.bus)?;
    output.report("")?;
    let sinks = table(SINKS, &picture.sinks);
    match output.screen_width().filter(|width| !sinks.fits(*width)) {
        None => output.table(&sinks)?,
        Some(_) => narrow(&picture.sinks, output)?,
    }
    output.report("")?;
    output.table(&table(TOPICS, &picture.topics))
}

/// The sinks where there is no room for their reasons beside the figures: below them.
fn narrow(sinks: &[SinkPicture], output: &Output) -> Result<(), Failure> {
    let is_figure = |column: &&Column<SinkPicture>| column.title != WHY;
    output.table(&table(SINKS.iter().filter(is_figure), sinks))?;
    output.report("")?;
    sinks.iter().try_for_each(|sink| output.wrapped(&format!("{}: {}", sink.name, sink.why)))
}

fn table<'c, R: 'c>(columns: impl IntoIterator<Item = &'c Column<R>>, rows: &[R]) -> Table {
    let columns: Vec<&Column<R>> = columns.into_iter().collect();
    let titles: Vec<String> =
        columns.iter().map(|column| format!("{}{}", if column.is_right { ">" } else { "" }, column.title)).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let mut table = Table::new(&titles).ranked(columns.iter().map(|column| column.rank));
    rows.iter().for_each(|row| table.row(columns.iter().map(|column| (column.text)(row)).collect()));
    table
}
