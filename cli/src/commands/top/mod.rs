//! `tallybus top`: the stream on a full screen.

pub(super) mod columns;
mod draw;
mod help;
mod keys;
mod plain;
pub(super) mod recording;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
pub(super) mod watch;

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use clap::Args;
use tallybus_sdk::config::parse_duration;
use tallybus_verify::live::Tick;

use self::draw::Palette;
use self::recording::{Recorder, Recording};
use self::state::State;
use self::terminal::Session;
use self::watch::Target;
use crate::failure::{Failure, Verdict};
use crate::interrupt::Interrupted;
use crate::output::Output;
use crate::{Global, config, interrupt};

/// The shortest interval: what is asked of the bus costs it something.
const SHORTEST: Duration = Duration::from_millis(100);
/// How soon a signal ends a wait.
const WAIT: Duration = Duration::from_millis(100);

/// Watch the stream live: sinks, partitions, topics, dead letters; without side effects.
///
/// Worst first, with the reason. It joins no group and moves no offset. Without sinks in the settings it shows those that have
/// consumer groups on the bus. `?` shows the keys. A figure that is not known is shown as `-`. Where standard output is not a
/// terminal, it prints the tables of sinks and of topics once, as with --once.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// How often to look at the bus; with --play, how long to show each picture.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print the tables of sinks and of topics, after two looks at the bus, and end; with --json, one object.
    #[arg(long)]
    once: bool,
    /// Also write each look to this new file, one JSON object per line, as --json prints them.
    #[arg(long, value_name = "FILE", conflicts_with = "play")]
    record: Option<PathBuf>,
    /// Show a recording instead of the bus; Left and Right step through it.
    #[arg(long, value_name = "FILE")]
    play: Option<PathBuf>,
}

pub(super) fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < SHORTEST { Err("the shortest interval is 100ms".to_owned()) } else { Ok(interval) }
}

impl Top {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let is_screen = !self.once && !output.json && stdout().is_terminal() && stdin().is_terminal();
        if let Some(path) = &self.play {
            let Recording { ticks, left_out } = recording::read(path)?;
            if let Some(left_out) = &left_out {
                output.say(left_out);
            }
            return if is_screen {
                let mut state = State::recording(ticks);
                state.message = left_out;
                self.show(state, None, None, output, &interrupt::listen()?)
            } else {
                plain::recording(&ticks, self.once, output)
            };
        }
        let settings = config::load_without_secrets(global)?;
        let bus = config::open_bus(&settings)?;
        let mut recorder = self.record.as_deref().map(Recorder::create).transpose()?;
        let interrupted = interrupt::listen()?;
        let ticks = watch::start(bus, Target::of(&settings), &settings.bus.namespace, self.interval)?;
        if is_screen {
            return self.show(State::live(), Some(ticks), recorder, output, &interrupted);
        }
        let next = |recorder: &mut Option<Recorder>| loop {
            match ticks.recv_timeout(WAIT) {
                Ok(tick) => {
                    recorder.as_mut().map_or(Ok(()), |recorder| recorder.add(&tick))?;
                    return Ok(Some(tick));
                }
                Err(RecvTimeoutError::Timeout) if interrupted.is_set() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(watch::ended()),
            }
        };
        let is_single = self.once || !output.json;
        plain::live(|| next(&mut recorder), is_single, output)
    }

    fn show(
        &self,
        state: State,
        ticks: Option<std::sync::mpsc::Receiver<Tick>>,
        recorder: Option<Recorder>,
        output: &Output,
        interrupted: &Interrupted,
    ) -> Result<Verdict, Failure> {
        let palette = Palette { has_colours: output.has_colours() };
        let session = Session { state, ticks, recorder, palette, interval: self.interval, interrupted };
        session.run().map(|()| Verdict::Good)
    }
}

/// Writes the picture to a new file in the current directory. A terminal's clipboard is out of reach of many terminals, which do
/// not say so. Returns what came of it, in one line.
fn copy(state: &State) -> String {
    let Some(picture) = state.picture() else { return "there is no picture yet".to_owned() };
    let name = format!("tallybus-top-{}.json", picture.time_ms);
    let written = serde_json::to_string_pretty(picture).map_err(std::io::Error::from).and_then(|text| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&name)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")
    });
    match written {
        Ok(()) => format!("written to {name}"),
        Err(error) => format!("cannot write {name}: {error}"),
    }
}
