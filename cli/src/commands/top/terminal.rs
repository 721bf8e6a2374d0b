//! The terminal: raw mode on the alternate screen, left as it was found, however the command ends.

use std::io::{self, Stdout, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use rustix::process::{Signal, getpid, kill_process};
use tallybus_verify::live::Tick;
use tokio::signal::unix::{SignalKind, signal};

use super::draw::{Palette, draw};
use super::keys::Key;
use super::recording::Recorder;
use super::state::{Action, Feed, State};
use crate::failure::Failure;
use crate::interrupt::{Interrupted, cannot_listen};

/// How long the loop waits for a key, and so how soon a look is shown and a signal is followed.
const WAIT: Duration = Duration::from_millis(100);
/// Ages are counted in seconds.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// The terminal in raw mode on its alternate screen; restored when dropped, and before a panic is reported.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// # Errors
    /// Standard output is not a terminal, or it refuses.
    pub(super) fn enter() -> io::Result<Self> {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The message would be lost on the alternate screen.
            restore();
            report(panic);
        }));
        let screen = Self { terminal: Terminal::new(CrosstermBackend::new(stdout()))? };
        take()?;
        Ok(screen)
    }

    /// Stops the process, with the terminal as it was, until it is continued.
    fn suspend(&mut self) -> io::Result<()> {
        restore();
        // Only a signal that cannot be handled stops it here.
        kill_process(getpid(), Signal::STOP)?;
        self.again()
    }

    /// Takes the terminal again, which another program may have used, and draws all of it.
    fn again(&mut self) -> io::Result<()> {
        take()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// A terminal that is gone cannot be restored, which nobody would see.
fn restore() {
    let _gone = execute!(stdout(), Show, LeaveAlternateScreen);
    let _gone = disable_raw_mode();
}

/// Signals about the terminal.
#[derive(Default)]
struct JobControl {
    /// SIGTSTP: stop, as Ctrl-Z says where the terminal is not in raw mode.
    stop: AtomicBool,
    /// SIGCONT: the process was stopped, and goes on.
    goes_on: AtomicBool,
    /// SIGHUP: the terminal goes away.
    hangs_up: AtomicBool,
}

impl JobControl {
    fn listen() -> Result<Arc<Self>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(cannot_listen)?;
        let (mut stop, mut goes_on, mut hangs_up) = {
            let _inside = runtime.enter();
            let of = |name: Signal| signal(SignalKind::from_raw(name.as_raw())).map_err(cannot_listen);
            (of(Signal::TSTP)?, of(Signal::CONT)?, of(Signal::HUP)?)
        };
        let noted = Arc::new(Self::default());
        let listening = Arc::clone(&noted);
        let listen = async move {
            loop {
                tokio::select! {
                    _ = stop.recv() => listening.stop.store(true, Ordering::Release),
                    _ = goes_on.recv() => listening.goes_on.store(true, Ordering::Release),
                    _ = hangs_up.recv() => listening.hangs_up.store(true, Ordering::Release),
                }
            }
        };
        let waiting = thread::Builder::new().name("jobs".to_owned()).spawn(move || runtime.block_on(listen));
        waiting.map(|_| noted).map_err(cannot_listen)
    }
}

/// What the screen shows and how.
pub(super) struct Session<'s> {
    pub(super) state: State,
    /// Looks at the bus; `None` for a recording.
    pub(super) ticks: Option<Receiver<Tick>>,
    pub(super) recorder: Option<Recorder>,
    pub(super) palette: Palette,
    /// How long a picture of a recording is shown.
    pub(super) interval: Duration,
    pub(super) interrupted: &'s Interrupted,
}

impl Session<'_> {
    /// Shows the state and follows keys until one of them, or a signal, ends it.
    ///
    /// # Errors
    /// The terminal cannot be used, or the recording cannot be written.
    pub(super) fn run(mut self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::failed(format!("cannot use the terminal: {error}"));
        let jobs = JobControl::listen()?;
        let mut screen = Screen::enter().map_err(failed)?;
        let began = Instant::now();
        let (mut drawn, mut played) = (None::<Instant>, Instant::now());
        let mut is_changed = true;
        while !self.interrupted.is_set() && !jobs.hangs_up.load(Ordering::Acquire) {
            if is_changed || drawn.is_none_or(|drawn| drawn.elapsed() >= REDRAW_EVERY) {
                let (state, palette) = (&self.state, self.palette);
                let shown = screen.terminal.draw(|frame| {
                    let area = frame.area();
                    draw(state, began.elapsed(), palette, area, frame.buffer_mut());
                });
                self.state.size = shown.map_err(failed)?.area.as_size();
                (drawn, is_changed) = (Some(Instant::now()), false);
            }
            if event::poll(WAIT).map_err(failed)? {
                is_changed = true;
                let key = match event::read().map_err(failed)? {
                    Event::Key(key) => Key::of(key),
                    _ => None,
                };
                match key.map_or(Action::None, |key| self.state.press(key)) {
                    Action::None => {}
                    Action::Quit => return Ok(()),
                    Action::Suspend => screen.suspend().map_err(failed)?,
                    Action::Redraw => screen.terminal.clear().map_err(failed)?,
                    Action::Copy => self.state.message = Some(super::copy(&self.state)),
                }
            }
            if jobs.stop.swap(false, Ordering::AcqRel) {
                screen.suspend().map_err(failed)?;
            }
            if jobs.goes_on.swap(false, Ordering::AcqRel) {
                screen.again().map_err(failed)?;
                is_changed = true;
            }
            is_changed |= self.take_looks(began)?;
            if matches!(self.state.feed, Feed::Recording { .. }) && played.elapsed() >= self.interval {
                self.state.play_on();
                (played, is_changed) = (Instant::now(), true);
            }
        }
        Ok(())
    }

    /// Takes the looks that have come; returns whether there were any.
    fn take_looks(&mut self, began: Instant) -> Result<bool, Failure> {
        let Some(ticks) = &self.ticks else { return Ok(false) };
        let mut came = false;
        loop {
            match ticks.try_recv() {
                Ok(tick) => {
                    if let Some(recorder) = &mut self.recorder {
                        recorder.add(&tick)?;
                    }
                    self.state.receive(tick, began.elapsed());
                    came = true;
                }
                Err(TryRecvError::Empty) => return Ok(came),
                Err(TryRecvError::Disconnected) => return Err(super::watch::ended()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process that panics.
    const PANICS: &str = "TALLYBUS_TEST_OF_TOP_PANICS";

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was_and_its_message_readable() {
        if std::env::var_os(PANICS).is_some() {
            let _screen = Screen::enter().unwrap();
            panic!("on purpose");
        }
        let test = "commands::top::terminal::tests::a_panic_leaves_the_terminal_as_it_was_and_its_message_readable";
        let executable = std::env::current_exe().unwrap();
        let script = format!(
            "echo BEFORE:$(stty -g); {PANICS}=1 '{}' --exact {test} --nocapture; echo AFTER:$(stty -g)",
            executable.display()
        );
        let ran = Command::new("script").args(["-qec", &script, "/dev/null"]).env("SHELL", "/bin/sh").output().unwrap();
        let shown = String::from_utf8(ran.stdout).unwrap();
        let setting = |name: &str| {
            let line = shown.lines().find_map(|line| line.split_once(name)).unwrap_or_else(|| panic!("{shown:?}"));
            line.1.trim().to_owned()
        };
        assert_eq!(setting("AFTER:"), setting("BEFORE:"));
        let (enter, leave) = (shown.find("\u{1b}[?1049h").unwrap(), shown.find("\u{1b}[?1049l").unwrap());
        let message = shown.find("on purpose").unwrap();
        assert!(enter < leave && leave < message, "{shown:?}");
    }
}
