//! Draws the state, in a terminal of any size. Texts may come from the bus or a backend: all are escaped.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;
use tallybus_verify::live::{Picture, SinkPicture, SinkState};

use super::columns::{Column, PARTITIONS, SINKS, TOPICS};
use super::state::{Feed, Mode, State, View};
use crate::{text, times};

/// A picture that is older has an age beside it.
const FRESH: Duration = Duration::from_secs(5);

const HELP: &[&str] = &[
    "Up Down j k       select a row; PgUp PgDn Home End",
    "Enter             partitions of the sink",
    "Esc               clear the filter, or go back",
    "Tab t             topics, or sinks",
    "/                 filter; Enter keeps it, Esc clears it",
    "1-9 < >           sort by a column; again: reverse",
    "w                 worst first",
    "r                 reverse",
    "p Space           pause, or go on",
    "Left Right        step through a recording (--play)",
    "c                 write what is shown to a file, as JSON",
    "Ctrl-L            draw again",
    "q Ctrl-C          quit",
];

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
            SinkState::Halted | SinkState::Unreadable => bold.fg(Color::Red),
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
    if state.mode == Mode::Help {
        sheet.line(0, "tallybus top: keys (any key closes this)", Style::default().add_modifier(Modifier::BOLD));
        (1..).zip(HELP).for_each(|(row, line)| sheet.line(row, line, Style::default()));
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
    let (has_reason, has_keys) = (room > 2 && state.view != View::Topics, room > 6);
    let last = area.height - u16::from(has_reason) - u16::from(has_keys);
    let rows = first..last;
    match &state.view {
        View::Sinks => {
            let sinks = state.sinks();
            let style = |sink: &SinkPicture| palette.of(sink.state);
            table(&mut sheet, rows, &sinks, SINKS, state, style);
            if has_reason && let Some(sink) = sinks.get(state.selected()) {
                sheet.line(last, &format!("{}: {}", sink.name, sink.why), palette.of(sink.state));
            }
        }
        View::Partitions(name) => {
            let halted = palette.of(SinkState::Halted);
            let style = |of: &_| if is_halted(of) { halted } else { Style::default() };
            table(&mut sheet, rows, &state.partitions(), PARTITIONS, state, style);
            let sink = state.picture().and_then(|picture| picture.sinks.iter().find(|sink| sink.name == *name));
            if has_reason && let Some(sink) = sink {
                sheet.line(last, &format!("{}: {}", sink.name, sink.why), palette.of(sink.state));
            }
        }
        View::Topics => table(&mut sheet, rows, &state.topics(), TOPICS, state, |_| Style::default()),
    }
    if has_keys || state.mode == Mode::Filter || state.message.is_some() {
        sheet.line(area.height.saturating_sub(1), &" ".repeat(usize::from(area.width)), Style::default());
        sheet.line(area.height.saturating_sub(1), &footer(state), Style::default().add_modifier(Modifier::DIM));
    }
}

fn is_halted(of: &tallybus_verify::live::PartitionPicture) -> bool {
    of.halted.is_some()
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
            let cell = &cells[line];
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

/// The width of each column; `None` for one that is left out because there is no room for it. The last column takes what is left,
/// from a few words on.
fn fit<R>(columns: &[Column<R>], cells: &[Vec<String>], width: u16) -> Vec<Option<u16>> {
    const FEW_WORDS: u16 = 16;
    let natural: Vec<u16> =
        cells.iter().map(|cells| cells.iter().map(|cell| width_of(cell)).max().unwrap_or(0)).collect();
    let last = columns.len().saturating_sub(1);
    let least = |index: usize| if index == last { natural[index].min(FEW_WORDS) } else { natural[index] };
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
