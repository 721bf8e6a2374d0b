//! SIGTERM and Ctrl-C, which end a process without its exit hooks: the counts are delivered first.

use std::io::{self, PipeReader, Read};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;

use crate::{InitError, fork, session, sys};

const ENDING: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// The generation (see [`fork::generation`]) of the process that catches signals.
static WATCHING: Mutex<Option<u32>> = Mutex::new(None);

/// Delivers the counts when one of the signals comes that the program does not handle itself, and then lets it end the
/// process. Once per process.
pub(crate) fn watch() -> Result<(), InitError> {
    let mut watching = WATCHING.lock().unwrap_or_else(PoisonError::into_inner);
    if *watching == Some(fork::generation()) {
        return Ok(());
    }
    let (reader, writer) = io::pipe().map_err(InitError::Signals)?;
    let named = thread::Builder::new().name("tallybus-signals".to_owned());
    named.spawn(move || wait(reader)).map_err(InitError::Thread)?;
    if sys::catch(&ENDING, writer.into()) < ENDING.len() {
        tracing::debug!("the program handles or ignores SIGTERM or SIGINT itself: the collector leaves that one alone");
    }
    *watching = Some(fork::generation());
    Ok(())
}

fn wait(mut signals: PipeReader) {
    let mut signal = [0];
    if signals.read_exact(&mut signal).is_ok() {
        session::finish();
        // Its disposition is the default again: it ends the process, with the status that its parent expects.
        sys::send_to_self(libc::c_int::from(signal[0]));
    }
}
