//! What is shown, and how keys change it; knows no terminal.

use std::time::Duration;

use ratatui::layout::Size;
use tallybus_verify::live::{PartitionPicture, Picture, SinkPicture, Tick, TopicPicture};

use super::columns::{Column, PARTITIONS, SINKS, TOPICS, place};
use super::help;
use super::keys::Key;

/// How far a page moves.
const PAGE: isize = 10;

/// Which table is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum View {
    Sinks,
    /// The partitions of the sink of this name.
    Partitions(String),
    Topics,
}

/// What keys do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Browse,
    /// They are letters of the filter.
    Filter,
    /// The help is shown, from this line on; a key that moves no line closes it.
    Help {
        from: usize,
    },
}

/// What the terminal shall do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    /// Stop the process, as Ctrl-Z does.
    Suspend,
    /// Draw everything again.
    Redraw,
    /// Write what is shown to a file, as JSON.
    Copy,
}

/// A picture, and when it came.
type Came = Box<(Picture, Duration)>;

/// Where pictures come from.
#[derive(Debug)]
pub(super) enum Feed {
    Live {
        /// The last picture.
        latest: Option<Came>,
        /// Why the bus has not answered since.
        error: Option<String>,
        /// The picture that is held while paused.
        held: Option<Came>,
    },
    Recording {
        ticks: Vec<Tick>,
        at: usize,
        is_playing: bool,
    },
}

/// What is shown.
#[derive(Debug)]
pub(super) struct State {
    pub(super) feed: Feed,
    pub(super) view: View,
    pub(super) mode: Mode,
    pub(super) filter: String,
    /// The column that rows are sorted by; `None` for worst first. One for each table.
    sort: [Option<usize>; 3],
    pub(super) is_reversed: bool,
    /// The selected row's name, where one was selected.
    selected: Option<String>,
    /// What the last key came to, in one line.
    pub(super) message: Option<String>,
    /// The screen's, when it was drawn last.
    pub(super) size: Size,
}

impl State {
    pub(super) fn live() -> Self {
        Self::of(Feed::Live { latest: None, error: None, held: None })
    }

    pub(super) fn recording(ticks: Vec<Tick>) -> Self {
        Self::of(Feed::Recording { ticks, at: 0, is_playing: true })
    }

    fn of(feed: Feed) -> Self {
        Self {
            feed,
            view: View::Sinks,
            mode: Mode::Browse,
            filter: String::new(),
            sort: [None; 3],
            is_reversed: false,
            selected: None,
            message: None,
            size: Size::new(80, 24),
        }
    }

    /// Takes a look at the bus that ended at `now`.
    pub(super) fn receive(&mut self, tick: Tick, now: Duration) {
        if let Feed::Live { latest, error, .. } = &mut self.feed {
            match tick {
                Tick::Seen(picture) => (*latest, *error) = (Some(Box::new((picture, now))), None),
                Tick::Failed(failed) => *error = Some(failed.error),
            }
        }
    }

    /// Goes on to the next picture of a recording that plays.
    pub(super) fn play_on(&mut self) {
        if let Feed::Recording { ticks, at, is_playing: true } = &mut self.feed {
            *at = (*at + 1).min(ticks.len().saturating_sub(1));
        }
    }

    /// The picture that is shown: while the bus does not answer, the last one.
    pub(super) fn picture(&self) -> Option<&Picture> {
        match &self.feed {
            Feed::Live { latest, held, .. } => held.as_ref().or(latest.as_ref()).map(|came| &came.0),
            Feed::Recording { ticks, at, .. } => {
                let so_far = ticks.get(..=*at)?;
                so_far.iter().rev().find_map(|tick| match tick {
                    Tick::Seen(picture) => Some(picture),
                    Tick::Failed(_) => None,
                })
            }
        }
    }

    /// Why the bus did not answer.
    pub(super) fn error(&self) -> Option<&str> {
        match &self.feed {
            Feed::Live { error, .. } => error.as_deref(),
            Feed::Recording { ticks, at, .. } => match ticks.get(*at)? {
                Tick::Failed(failed) => Some(&failed.error),
                Tick::Seen(_) => None,
            },
        }
    }

    /// How old the picture is at `now`; `None` for a recording.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        match &self.feed {
            Feed::Live { latest, held, .. } => held.as_ref().or(latest.as_ref()).map(|came| now.saturating_sub(came.1)),
            Feed::Recording { .. } => None,
        }
    }

    /// The sinks that the filter takes, in order.
    pub(super) fn sinks(&self) -> Vec<&SinkPicture> {
        let sinks = self.picture().map_or(&[][..], |picture| &picture.sinks);
        self.rows(sinks, SINKS)
    }

    /// The partitions of the sink that is shown; empty when another table is shown.
    pub(super) fn partitions(&self) -> Vec<&PartitionPicture> {
        let View::Partitions(name) = &self.view else { return Vec::new() };
        let sinks = self.picture().map_or(&[][..], |picture| &picture.sinks);
        let sink = sinks.iter().find(|sink| sink.name == *name);
        self.rows(sink.map_or(&[][..], |sink| &sink.partitions), PARTITIONS)
    }

    /// The topics that the filter takes, in order.
    pub(super) fn topics(&self) -> Vec<&TopicPicture> {
        let topics = self.picture().map_or(&[][..], |picture| &picture.topics);
        self.rows(topics, TOPICS)
    }

    fn rows<'p, R>(&self, all: &'p [R], columns: &[Column<R>]) -> Vec<&'p R> {
        let wanted = self.filter.to_lowercase();
        let has = |row: &R| columns.iter().any(|column| (column.text)(row).to_lowercase().contains(&wanted));
        let takes = |row: &&R| wanted.is_empty() || has(row);
        let mut rows: Vec<&R> = all.iter().filter(takes).collect();
        if let Some(column) = self.sorted_by().and_then(|column| columns.get(column)) {
            rows.sort_by(|a, b| (column.by)(a).compare(&(column.by)(b)));
        }
        if self.is_reversed {
            rows.reverse();
        }
        rows
    }

    fn table(&self) -> usize {
        match self.view {
            View::Sinks => 0,
            View::Partitions(_) => 1,
            View::Topics => 2,
        }
    }

    fn column_count(&self) -> usize {
        [SINKS.len(), PARTITIONS.len(), TOPICS.len()][self.table()]
    }

    /// The column that rows are sorted by; `None` for worst first.
    pub(super) fn sorted_by(&self) -> Option<usize> {
        self.sort[self.table()]
    }

    /// The names of the rows, in order.
    fn names(&self) -> Vec<String> {
        match self.view {
            View::Sinks => self.sinks().into_iter().map(|sink| sink.name.clone()).collect(),
            View::Partitions(_) => self.partitions().into_iter().map(place).collect(),
            View::Topics => self.topics().into_iter().map(|topic| topic.name.clone()).collect(),
        }
    }

    /// The selected row: the one with the name that was selected, wherever it is sorted to; otherwise the first.
    pub(super) fn selected(&self) -> usize {
        let Some(selected) = &self.selected else { return 0 };
        self.names().iter().position(|name| name == selected).unwrap_or(0)
    }

    /// Follows a key.
    pub(super) fn press(&mut self, key: Key) -> Action {
        self.message = None;
        match (key, self.mode) {
            (Key::Interrupt, _) => return Action::Quit,
            (Key::Suspend, _) => return Action::Suspend,
            (Key::Redraw, _) => return Action::Redraw,
            (key, Mode::Help { from }) => self.mode = self.help(key, from),
            (key, Mode::Filter) => self.type_filter(key),
            (key, Mode::Browse) => return self.browse(key),
        }
        Action::None
    }

    /// What a key makes of the help.
    fn help(&self, key: Key, from: usize) -> Mode {
        let (page, last) = (help::page(self.size), help::last_start(self.size));
        let from = match key {
            Key::Up | Key::Char('k') => from.saturating_sub(1),
            Key::Down | Key::Char('j') => from + 1,
            Key::PageUp => from.saturating_sub(page),
            Key::PageDown => from + page,
            Key::Home => 0,
            Key::End => last,
            _ => return Mode::Browse,
        };
        Mode::Help { from: from.min(last) }
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Enter => self.mode = Mode::Browse,
            Key::Escape => {
                self.filter.clear();
                self.mode = Mode::Browse;
            }
            Key::Backspace => drop(self.filter.pop()),
            Key::Char(character) => self.filter.push(character),
            Key::Up => self.step(-1),
            Key::Down => self.step(1),
            _ => {}
        }
    }

    fn browse(&mut self, key: Key) -> Action {
        match key {
            Key::Char('q') => return Action::Quit,
            Key::Char('c') => return Action::Copy,
            Key::Char('?' | 'h') => self.mode = Mode::Help { from: 0 },
            Key::Char('/') => self.mode = Mode::Filter,
            Key::Up | Key::Char('k') => self.step(-1),
            Key::Down | Key::Char('j') => self.step(1),
            Key::PageUp => self.step(-PAGE),
            Key::PageDown => self.step(PAGE),
            Key::Home => self.step(isize::MIN),
            Key::End => self.step(isize::MAX),
            Key::Left => self.rewind(-1),
            Key::Right => self.rewind(1),
            Key::Enter => self.drill(),
            Key::Escape | Key::Backspace => self.back(),
            Key::Tab | Key::Char('t') => self.show(if self.view == View::Topics { View::Sinks } else { View::Topics }),
            Key::Char('p' | ' ') => self.pause(),
            Key::Char('<') => self.sort_beside(-1),
            Key::Char('>') => self.sort_beside(1),
            Key::Char('r') => self.is_reversed = !self.is_reversed,
            Key::Char('w' | '0') => self.sort_by(None),
            Key::Char(digit @ '1'..='9') => {
                let column = digit.to_digit(10).map_or(0, |digit| digit as usize - 1);
                if column < self.column_count() {
                    self.sort_by(Some(column));
                }
            }
            _ => {}
        }
        Action::None
    }

    fn step(&mut self, by: isize) {
        let names = self.names();
        let last = names.len().saturating_sub(1);
        let to = self.selected().saturating_add_signed(by).min(last);
        self.selected = names.into_iter().nth(to);
    }

    fn drill(&mut self) {
        if self.view == View::Sinks
            && let Some(name) = self.names().into_iter().nth(self.selected())
        {
            self.show(View::Partitions(name));
        }
    }

    /// Undoes the last narrowing: the filter, then the table.
    fn back(&mut self) {
        if !self.filter.is_empty() {
            self.filter.clear();
            return;
        }
        let sink = match &self.view {
            View::Partitions(sink) => Some(sink.clone()),
            View::Sinks | View::Topics => None,
        };
        if self.view != View::Sinks {
            self.show(View::Sinks);
            self.selected = sink;
        }
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.selected = None;
        self.filter.clear();
        self.is_reversed = false;
    }

    fn sort_by(&mut self, column: Option<usize>) {
        self.is_reversed = self.sorted_by() == column && !self.is_reversed;
        self.sort[self.table()] = column;
    }

    /// Sorts by the next or the last column; worst first is one beside the first column.
    fn sort_beside(&mut self, by: isize) {
        let count = self.column_count();
        let present = self.sorted_by().map_or(0, |column| column + 1);
        let next = present.saturating_add_signed(by).min(count);
        self.sort[self.table()] = next.checked_sub(1);
        self.is_reversed = false;
    }

    fn pause(&mut self) {
        match &mut self.feed {
            Feed::Live { latest, held, .. } => *held = if held.is_some() { None } else { latest.clone() },
            Feed::Recording { is_playing, .. } => *is_playing = !*is_playing,
        }
    }

    /// Steps through a recording, which then no longer plays by itself.
    fn rewind(&mut self, by: isize) {
        if let Feed::Recording { ticks, at, is_playing } = &mut self.feed {
            *is_playing = false;
            *at = at.saturating_add_signed(by).min(ticks.len().saturating_sub(1));
        }
    }
}
