//! Ctrl-C for commands that only look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use tallybus_worker::{StopSignal, StopSignals};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Whether the command shall end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The failure of listening for signals.
pub(crate) fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen for signals: {error}"))
}

/// Listens for Ctrl-C and SIGTERM: the first one is noted, so that the command ends with its result; a second one, at
/// least a second later, ends the process at once, wherever it waits.
pub(crate) fn listen() -> Result<Interrupted, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(cannot_listen)?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt()).map_err(cannot_listen)?,
            signal(SignalKind::terminate()).map_err(cannot_listen)?,
        )
    };
    let interrupted = Interrupted::default();
    let noted = interrupted.clone();
    let listen = async move {
        let mut signals = StopSignals::default();
        loop {
            let status = tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            };
            match signals.next(Instant::now()) {
                StopSignal::Finish => noted.0.store(true, Ordering::Release),
                StopSignal::Repeated => {}
                StopSignal::Terminate => std::process::exit(status),
            }
        }
    };
    let waiting = thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(listen));
    waiting.map(|_| interrupted).map_err(cannot_listen)
}
