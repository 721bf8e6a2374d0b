//! A command that waits for a server says what it waits for.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use tallybus_bus::Bus;

use crate::output::Output;

/// How long a command may wait in silence.
const SILENCE: Duration = Duration::from_secs(2);

/// Does the work; while it takes longer than two seconds, one line on standard error says what it waits for.
pub(crate) fn waiting<T>(output: &Output, what: &str, work: impl FnOnce() -> T) -> T {
    waiting_for(SILENCE, |text| output.say(text), what, work)
}

/// The same for an answer of the bus.
pub(crate) fn waiting_for_bus<T>(output: &Output, bus: &dyn Bus, work: impl FnOnce() -> T) -> T {
    waiting(output, &bus.describe(), work)
}

fn waiting_for<T>(silence: Duration, say: impl FnOnce(&str) + Send, what: &str, work: impl FnOnce() -> T) -> T {
    let (done, is_done) = channel::<()>();
    thread::scope(|scope| {
        let watch = move || {
            if is_done.recv_timeout(silence) == Err(RecvTimeoutError::Timeout) {
                say(&format!("waiting for {what}"));
            }
        };
        // Without a thread it waits in silence.
        let _watching = thread::Builder::new().spawn_scoped(scope, watch);
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn said(silence: Duration, work: Duration) -> Vec<String> {
        let said = Mutex::new(Vec::new());
        let say = |text: &str| said.lock().unwrap().push(text.to_owned());
        assert_eq!(
            waiting_for(silence, say, "the bus", || {
                thread::sleep(work);
                7
            }),
            7
        );
        said.into_inner().unwrap()
    }

    #[test]
    fn a_wait_is_named_once_it_is_long_and_a_short_one_is_not() {
        assert_eq!(said(Duration::from_millis(10), Duration::from_millis(200)), ["waiting for the bus"]);
        assert!(said(Duration::from_secs(60), Duration::ZERO).is_empty());
    }
}
