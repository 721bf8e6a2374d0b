//! Draws the state, in a terminal of any size. Texts may come from the bus or a backend: all are escaped.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;
use tallybus_verify::live::{PartitionPicture, Picture, SinkPicture, SinkState};

use super::columns::{Column, PARTITIONS, SINKS, TOPICS, place};
use super::help;
use super::state::{Feed, Mode, State, View};
use crate::text::fold;
use crate::{text, times};

/// A picture that is older has an age beside it.
const FRESH: Duration = Duration::from_secs(5);

/// Colours, where they are wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Palette {
    pub(super) has_colours: bool,
}

impl Palette {
    fn of(self, state: SinkState) -> Style {
        let style = Style::default();
        let bold = style.add_modifier(Modifier::BOLD);
        match state {
            _ if !self.has_colours => {
                if state.is_bad() {
                    bold
                } else {
                    style
                }
            }
            SinkState::Halted | SinkState::Unreadable | SinkState::Forgotten => bold.fg(Color::Red),
            SinkState::Retrying | SinkState::Stalled | SinkState::NotStarted | SinkState::FallingBehind => {
                style.fg(Color::Yellow)
            }
            SinkState::Drained
            | SinkState::Paused
            | SinkState::CatchingUp
            | SinkState::Measuring
            | SinkState::NoTopic => style,
            SinkState::KeepingUp | SinkState::CaughtUp => style.fg(Color::Green),
        }
    }

    fn error(self) -> Style {
        let style = Style::default().add_modifier(Modifier::BOLD);
        if self.has_colours { style.fg(Color::Red) } else { style }
    }
}

/// The lines of an area, filled from above and from below.
struct Sheet<'b> {
    buffer: &'b mut Buffer,
    area: Rect,
}

impl Sheet<'_> {
    /// Writes a line; one outside of the area is left out.
    fn line(&mut self, row: u16, text: &str, style: Style) {
        self.at(0, row, text, style);
    }

    fn at(&mut self, column: u16, row: u16, text: &str, style: Style) {
        if row >= self.area.height || column >= self.area.width {
            return;
        }
        let text = text::escape(text, false);
        let width = usize::from(self.area.width - column);
        self.buffer.set_stringn(self.area.x + column, self.area.y + row, text, width, style);
    }

    fn style(&mut self, row: u16, style: Style) {
        if row < self.area.height {
            self.buffer.set_style(Rect { y: self.area.y + row, height: 1, ..self.area }, style);
        }
    }
}

/// Draws the state at `now`.
pub(super) fn draw(state: &State, now: Duration, palette: Palette, area: Rect, buffer: &mut Buffer) {
    let area = area.intersection(buffer.area);
    let mut sheet = Sheet { buffer, area };
    if let Mode::Help { from } = state.mode {
        sheet.line(0, help::title(area.width), Style::default().add_modifier(Modifier::BOLD));
        // The screen may have become larger since the last key.
        let from = from.min(help::last_start(area.as_size()));
        let lines = help::lines(area.width);
        (1..area.height).zip(&lines[from..]).for_each(|(row, line)| sheet.line(row, line, Style::default()));
        return;
    }
    let mut first = 0;
    if state.error().is_none() || area.height >= 4 {
        sheet.line(0, &title(state, now), Style::default().add_modifier(Modifier::BOLD));
        first = 1;
    }
    if let Some(error) = state.error() {
        sheet.line(first, &failure(state, now, error), palette.error());
        first += 1;
    }
    // The reason and the keys have lines of their own where there is room for some rows above them.
    let room = area.height.saturating_sub(first);
    let has_keys = room > 6;
    let reason = if room > 2 { reason(state, palette) } else { None };
    let (reason, style) = reason.unwrap_or_default();
    let reason = match state.view {
        // Whole, as far as there is room for half as many rows.
        View::Partitions(_) => {
            let mut lines = fold(&text::escape(&reason, false), usize::from(area.width));
            lines.truncate(usize::from(room.saturating_sub(u16::from(has_keys)) * 2 / 3));
            lines
        }
        View::Sinks | View::Topics => vec![reason],
    };
    let reason: Vec<String> = reason.into_iter().filter(|line| !line.is_empty()).collect();
    let height = u16::try_from(reason.len()).unwrap_or(u16::MAX);
    let last = area.height.saturating_sub(height).saturating_sub(u16::from(has_keys));
    let rows = first..last;
    match &state.view {
        View::Sinks => {
            let style = |sink: &SinkPicture| palette.of(sink.state);
            table(&mut sheet, rows, &state.sinks(), SINKS, state, style);
        }
        View::Partitions(_) => {
            let halted = palette.of(SinkState::Halted);
            let style = |of: &PartitionPicture| if of.halted.is_some() { halted } else { Style::default() };
            table(&mut sheet, rows, &state.partitions(), PARTITIONS, state, style);
        }
        View::Topics => table(&mut sheet, rows, &state.topics(), TOPICS, state, |_| Style::default()),
    }
    (last..).zip(&reason).for_each(|(row, line)| sheet.line(row, line, style));
    if has_keys || state.mode == Mode::Filter || state.message.is_some() {
        sheet.line(area.height.saturating_sub(1), &" ".repeat(usize::from(area.width)), Style::default());
        sheet.line(area.height.saturating_sub(1), &footer(state), Style::default().add_modifier(Modifier::DIM));
    }
}

/// What is said below the table: why the selected sink, or the selected partition where it is halted, is as it is.
fn reason(state: &State, palette: Palette) -> Option<(String, Style)> {
    let sink = match &state.view {
        View::Sinks => *state.sinks().get(state.selected())?,
        View::Partitions(name) => {
            if let Some(partition) = state.partitions().get(state.selected())
                && let Some(halted) = &partition.halted
            {
                return Some((format!("{}: {halted}", place(partition)), palette.of(SinkState::Halted)));
            }
            state.picture()?.sinks.iter().find(|sink| sink.name == *name)?
        }
        View::Topics => return None,
    };
    Some((format!("{}: {}", sink.name, sink.why), palette.of(sink.state)))
}

fn title(state: &State, now: Duration) -> String {
    let Some(picture) = state.picture() else {
        return match state.error() {
            None => "tallybus top  waiting for the bus".to_owned(),
            Some(_) => "tallybus top".to_owned(),
        };
    };
    let what = match &state.view {
        View::Sinks => summary(picture),
        View::Partitions(sink) => format!("{sink}: {}", text::count_of(state.partitions().len() as u64, "partition")),
        View::Topics => text::count_of(state.topics().len() as u64, "topic"),
    };
    let when = match &state.feed {
        Feed::Live { held: Some(_), .. } => format!("  PAUSED at {}", clock(picture)),
        Feed::Live { .. } => match state.age(now) {
            Some(age) if age > FRESH && state.error().is_none() => format!("  {} old", text::duration(age)),
            _ => format!("  {}", clock(picture)),
        },
        Feed::Recording { ticks, at, is_playing } => {
            let paused = if *is_playing { "" } else { "  PAUSED" };
            format!(
                "  {} ({} of {}){paused}",
                times::show(picture.time_ms.saturating_mul(1_000_000)),
                at + 1,
                ticks.len()
            )
        }
    };
    format!("{what}{when}  {}", picture.bus)
}

/// The time of day, in UTC.
fn clock(picture: &Picture) -> String {
    let shown = times::show(picture.time_ms.div_euclid(1_000).saturating_mul(1_000_000_000));
    shown.split_once('T').map_or_else(|| shown.clone(), |(_, time)| time.to_owned())
}

fn summary(picture: &Picture) -> String {
    let bad = picture.sinks.iter().filter(|sink| sink.state.is_bad()).count();
    let sinks = text::count_of(picture.sinks.len() as u64, "sink");
    if bad == 0 { sinks } else { format!("{sinks}, {bad} to look at") }
}

fn failure(state: &State, now: Duration, error: &str) -> String {
    match state.age(now) {
        Some(age) => format!("{} old: {error}", text::duration(age)),
        None => error.to_owned(),
    }
}

fn footer(state: &State) -> String {
    let heartbeats_error = state.picture().and_then(|picture| picture.heartbeats_error.as_deref());
    match (&state.message, state.mode) {
        (Some(message), _) => message.clone(),
        (None, Mode::Filter) => format!("/{}_", state.filter),
        (None, _) if !state.filter.is_empty() => format!("filter: {}  Esc clears it", state.filter),
        (None, _) if heartbeats_error.is_some() => heartbeats_error.unwrap_or_default().to_owned(),
        (None, _) => match (&state.view, &state.feed) {
            (_, Feed::Recording { .. }) => "? help  Left Right step  p pause  Enter partitions  q quit".to_owned(),
            (View::Sinks, _) => "? help  / filter  Enter partitions  t topics  1-9 sort  p pause  q quit".to_owned(),
            (View::Partitions(_) | View::Topics, _) => {
                "? help  / filter  Esc back  1-9 sort  p pause  q quit".to_owned()
            }
        },
    }
}

/// A table in these rows of the sheet: titles, and as many rows as fit around the selected one.
fn table<R>(
    sheet: &mut Sheet<'_>,
    lines: std::ops::Range<u16>,
    rows: &[&R],
    columns: &[Column<R>],
    state: &State,
    style: impl Fn(&R) -> Style,
) {
    if lines.is_empty() {
        return;
    }
    // Titles would leave no room for a row.
    let has_titles = lines.len() > 1;
    let height = lines.len() - usize::from(has_titles);
    let selected = state.selected().min(rows.len().saturating_sub(1));
    let skipped = (selected + 1).saturating_sub(height);
    let shown: Vec<&R> = rows.iter().skip(skipped).take(height).copied().collect();
    let title = |index: usize, column: &Column<R>| match state.sorted_by() {
        Some(sorted) if sorted == index => format!("{}{}", column.title, if state.is_reversed { '^' } else { 'v' }),
        _ => column.title.to_owned(),
    };
    let cells: Vec<Vec<String>> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let texts = shown.iter().map(|row| text::escape(&(column.text)(row), false).into_owned());
            [title(index, column)].into_iter().chain(texts).collect()
        })
        .collect();
    let widths = fit(columns, &cells, sheet.area.width);
    let mut row = lines.start;
    for line in usize::from(!has_titles)..=shown.len() {
        let style = match line.checked_sub(1) {
            None => Style::default().add_modifier(Modifier::UNDERLINED),
            Some(at) => style(shown[at]),
        };
        let mut x = 0;
        for (column, (cells, width)) in columns.iter().zip(cells.iter().zip(&widths)) {
            let Some(width) = *width else { continue };
            // The last column's words are cut by the screen's edge.
            let cell = &if column.rank == 0 { cut_middle(&cells[line], width) } else { cells[line].clone() };
            let indent = if column.is_right { width.saturating_sub(width_of(cell)) } else { 0 };
            sheet.at(x + indent, row, cell, style);
            x += width + 2;
        }
        if line > 0 && skipped + line - 1 == selected {
            sheet.style(row, Style::default().add_modifier(Modifier::REVERSED));
        }
        row += 1;
    }
    if rows.is_empty() && state.picture().is_some() {
        let nothing = if state.filter.is_empty() { "nothing to show" } else { "nothing matches the filter" };
        sheet.line(row, nothing, Style::default());
    }
}

fn width_of(cell: &str) -> u16 {
    u16::try_from(Span::raw(cell).width()).unwrap_or(u16::MAX)
}

/// The text, or its beginning and its end where it is wider.
fn cut_middle(text: &str, width: u16) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let taken = |chars: &mut dyn Iterator<Item = char>, room: u16| {
        let mut left = room;
        let mut taken = String::new();
        for one in chars {
            let Some(rest) = left.checked_sub(width_of(one.encode_utf8(&mut [0; 4]))) else { break };
            left = rest;
            taken.push(one);
        }
        taken
    };
    let beginning = taken(&mut text.chars(), room - room / 2);
    let end: String = taken(&mut text.chars().rev(), room / 2).chars().rev().collect();
    if width == 0 { String::new() } else { format!("{beginning}…{end}") }
}

/// The width of each column; `None` for one that is left out because there is no room for it. A name in the first column is cut
/// in its middle where it is long and there is not room for all. The last column takes what is left,
/// from a few words on.
fn fit<R>(columns: &[Column<R>], cells: &[Vec<String>], width: u16) -> Vec<Option<u16>> {
    const FEW_WORDS: u16 = 16;
    const LONGEST_NAME: u16 = 20;
    let natural: Vec<u16> =
        cells.iter().map(|cells| cells.iter().map(|cell| width_of(cell)).max().unwrap_or(0)).collect();
    let last = columns.len().saturating_sub(1);
    let is_too_wide = natural.iter().map(|width| u32::from(*width) + 2).sum::<u32>() > u32::from(width) + 2;
    let least = |index: usize| match index {
        _ if index == last => natural[index].min(FEW_WORDS),
        // A long name leaves room for figures.
        _ if columns[index].rank == 0 && is_too_wide => natural[index].min(LONGEST_NAME.max(width / 4)),
        _ => natural[index],
    };
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by_key(|index| columns[*index].rank);
    let mut widths = vec![None; columns.len()];
    let mut left = width.saturating_add(2);
    for index in order {
        let needed = least(index).saturating_add(2);
        if columns[index].rank > 0 && needed > left {
            // Less important columns do not take the place of this one.
            break;
        }
        widths[index] = Some(least(index));
        left = left.saturating_sub(needed);
    }
    if let Some(Some(last)) = widths.last_mut() {
        *last = last.saturating_add(left);
    }
    widths
}
