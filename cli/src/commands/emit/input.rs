//! Lines of standard input, in bounded memory.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::failure::Failure;
use crate::interrupt::Interrupted;

/// The longest line, in bytes.
pub(super) const LONGEST_LINE: usize = 1 << 20;
/// Lines are handed over in portions of about this many bytes, or sooner when no more has come.
const PORTION: usize = 64 << 10;
/// How many portions wait.
const AHEAD: usize = 8;
/// How long lines that were read before a signal may take to arrive.
const LAST_LINES: Duration = Duration::from_millis(100);

/// A line as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its end.
    Bytes(Vec<u8>),
    /// It has more than [`LONGEST_LINE`] bytes, none of which was kept.
    TooLong,
    /// No more lines can be read.
    Failed(String),
}

/// Reads standard input on a thread of its own.
pub(super) struct Input {
    portions: Receiver<Vec<Line>>,
    waiting: std::vec::IntoIter<Line>,
    interrupted: Interrupted,
}

/// The outcome of waiting for a line.
pub(super) enum Next {
    Line(Line),
    /// Nothing came in time.
    Nothing,
    /// The input has ended, or a signal did, and every line that was read before it was returned.
    End,
}

impl Input {
    pub(super) fn start(interrupted: Interrupted) -> Result<Self, Failure> {
        let (send, portions) = sync_channel(AHEAD);
        let stop = interrupted.clone();
        let reading = move || read(BufReader::with_capacity(PORTION, io::stdin().lock()), &send, &stop);
        let spawned = thread::Builder::new().name("lines".to_owned()).spawn(reading);
        spawned.map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
        Ok(Self { portions, waiting: Vec::new().into_iter(), interrupted })
    }

    /// Waits for the next line, at most this long.
    pub(super) fn next(&mut self, timeout: Duration) -> Next {
        if let Some(line) = self.waiting.next() {
            return Next::Line(line);
        }
        let stopping = self.interrupted.is_set();
        match self.portions.recv_timeout(if stopping { LAST_LINES } else { timeout }) {
            Ok(portion) => {
                self.waiting = portion.into_iter();
                self.waiting.next().map_or(Next::Nothing, Next::Line)
            }
            Err(RecvTimeoutError::Disconnected) => Next::End,
            Err(RecvTimeoutError::Timeout) if stopping => Next::End,
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
        }
    }
}

/// Reads lines until the input ends or, after a signal, what was buffered has no more complete line.
fn read(mut input: BufReader<impl Read>, send: &SyncSender<Vec<Line>>, stop: &Interrupted) {
    let (mut portion, mut bytes) = (Vec::new(), 0);
    loop {
        let is_complete = memchr::memchr(b'\n', input.buffer()).is_some();
        // A line that has not arrived completely may take for ever.
        if !portion.is_empty() && (bytes >= PORTION || !is_complete) {
            if send.send(std::mem::take(&mut portion)).is_err() {
                return;
            }
            bytes = 0;
        }
        if stop.is_set() && !is_complete {
            return;
        }
        let Some(line) = read_line(&mut input) else { break };
        bytes += if let Line::Bytes(line) = &line { line.len() } else { 1 };
        let failed = matches!(line, Line::Failed(_));
        portion.push(line);
        if failed {
            break;
        }
    }
    let _end = send.send(portion);
}

/// Reads one line; `None` at the end of the input.
fn read_line(input: &mut impl BufRead) -> Option<Line> {
    let mut line = Vec::new();
    // One byte more than a line may have, for its end.
    match input.by_ref().take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line) {
        Err(error) => return Some(Line::Failed(error.to_string())),
        Ok(0) => return None,
        Ok(_) => {}
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        return Some(Line::Bytes(line));
    }
    if line.len() <= LONGEST_LINE {
        return Some(Line::Bytes(line));
    }
    drop(line);
    match skip_line(input) {
        Ok(()) => Some(Line::TooLong),
        Err(error) => Some(Line::Failed(error.to_string())),
    }
}

/// Skips to behind the next line's end.
fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (length, is_end) = match memchr::memchr(b'\n', buffer) {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(length);
        if is_end {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Line> {
        let mut input = BufReader::with_capacity(7, input);
        std::iter::from_fn(|| read_line(&mut input)).collect()
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_read() {
        let long = vec![b'x'; LONGEST_LINE];
        let input = [b"a\n", &long[..], b"\n", &long[..], b"y\nb"].concat();
        let read = lines(&input);
        assert_eq!(read.len(), 4);
        assert_eq!(read[1], Line::Bytes(long.clone()), "the longest there may be");
        assert_eq!((&read[2], &read[3]), (&Line::TooLong, &Line::Bytes(b"b".to_vec())));
        assert_eq!(lines(&[&long[..], b"yz"].concat()), [Line::TooLong]);
    }

    #[test]
    fn every_line_is_handed_over_in_order() {
        let input: Vec<u8> = (0..10_000).flat_map(|line| format!("{line}\n").into_bytes()).collect();
        let (send, portions) = sync_channel(1_000);
        read(BufReader::with_capacity(100, &input[..]), &send, &Interrupted::default());
        drop(send);
        let read: Vec<Line> = portions.into_iter().flatten().collect();
        let expected: Vec<Line> = (0..10_000).map(|line| Line::Bytes(format!("{line}").into_bytes())).collect();
        assert_eq!(read, expected);
    }
}
