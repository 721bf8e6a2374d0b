//! The thread that does commands, one after the other.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tallybus_control::{Command, Refusal};

use super::answerer::{Answered, Answerer};
use super::clock::millis_now;
use super::counts::{Counted, Counters};
use super::handlers::{Handlers, Request};
use super::listener::Stop;

/// The most commands that wait.
pub(super) const MAX_WAITING: usize = 100;

/// Does commands until there are no more.
pub(super) fn run(
    mut handlers: Handlers,
    commands: &Receiver<Command>,
    answerer: &Arc<Answerer>,
    counters: &Arc<Counters>,
    stop: &Stop,
) {
    while let Ok(command) = commands.recv() {
        if stop.left().is_some() {
            answerer.answer(&command, Answered::refused("this instance stops"), None);
            continue;
        }
        // It may have waited behind others.
        if command.expires_ms <= millis_now() {
            counters.count(Counted::Refused(Refusal::Expired));
            answerer.answer(&command, Answered::refused(Refusal::Expired.to_string()), None);
            continue;
        }
        counters.count(Counted::Command);
        let result = handlers.run(&Request::of(&command, false));
        answerer.answer(&command, Answered::of(result, false), None);
    }
}
