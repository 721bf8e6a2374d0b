//! Counts the lines that a drain writes: which events came, which came twice, and the sum of their values.
//!
//! Every event of a [`Workload`](crate::workload::Workload) has a millisecond of its own, and a sink with `window = "0s"`
//! keeps it: the first 13 of the 19 digits that a line ends with name the event. Only the end of a line is looked at.

use std::io::{self, Write};

use memchr::{memchr, memchr_iter};
use serde::{Deserialize, Serialize};

/// Digits of a time in nanoseconds, from 2001 to 2286.
const TIME_DIGITS: usize = 19;
/// Digits of its milliseconds.
const MILLI_DIGITS: usize = 13;

/// How lines begin that a sink writes beside the counts: its claims on partitions and the marks of how far it has come.
const NO_COUNTS: [&[u8]; 2] = [b"tallybus_claims,", b"tallybus_marks,"];

/// What has come in, as it is told to whoever asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Lines of counts.
    pub lines: u64,
    /// Different events.
    pub distinct: u64,
    /// Lines of an event that had come already.
    pub doubled: u64,
    /// Lines whose time is no event's.
    pub out_of_range: u64,
    /// Lines that do not end as they should.
    pub malformed: u64,
    /// The sum of the values of all lines.
    pub sum: u64,
    /// Write requests that held anything.
    pub requests: u64,
    /// Requests that broke off.
    pub broken: u64,
    /// Bytes of the bodies, as they came.
    pub bytes: u64,
    /// When the first write began to come in: nanoseconds since the Unix epoch, 0 for never.
    pub first_ns: u64,
    /// When the last write had been read.
    pub last_ns: u64,
}

/// What one connection has brought. Belongs to one thread at a time, so that counting needs no atomic.
#[derive(Debug)]
pub struct Tally {
    base_ms: u64,
    seen: Vec<u64>,
    events: u64,
    /// Of this tally alone; `distinct` is left at 0, it follows from [`total`].
    pub stats: Stats,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Tally {
    /// Expects `events` events, the first at `base_ms`.
    pub fn new(base_ms: u64, events: u64) -> Self {
        let words = usize::try_from(events.div_ceil(64)).unwrap_or(usize::MAX);
        Self { base_ms, seen: vec![0; words], events, stats: Stats::default(), partial: Vec::new() }
    }

    /// Takes the next piece of a body.
    pub fn feed(&mut self, mut piece: &[u8]) {
        if !self.partial.is_empty() {
            let Some(end) = memchr(b'\n', piece) else { return self.partial.extend_from_slice(piece) };
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&piece[..end]);
            self.line(&line);
            line.clear();
            self.partial = line;
            piece = &piece[end + 1..];
        }
        let mut start = 0;
        for end in memchr_iter(b'\n', piece) {
            self.line(&piece[start..end]);
            start = end + 1;
        }
        self.partial.extend_from_slice(&piece[start..]);
    }

    /// The body is complete.
    pub fn end(&mut self) {
        let mut line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            self.line(&line);
            line.clear();
        }
        self.partial = line;
    }

    /// The body broke off.
    pub fn break_off(&mut self) {
        self.partial.clear();
        self.stats.broken += 1;
    }

    #[inline]
    fn line(&mut self, line: &[u8]) {
        self.stats.lines += 1;
        let Some((value, milli)) = parse_end(line) else {
            if NO_COUNTS.iter().any(|measurement| line.starts_with(measurement)) {
                self.stats.lines -= 1;
            } else {
                self.stats.malformed += 1;
            }
            return;
        };
        self.stats.sum = self.stats.sum.wrapping_add(value);
        let event = milli.wrapping_sub(self.base_ms);
        let word = usize::try_from(event / 64).unwrap_or(usize::MAX);
        match self.seen.get_mut(word) {
            Some(word) if event < self.events => {
                let bit = 1 << (event % 64);
                self.stats.doubled += u64::from(*word & bit != 0);
                *word |= bit;
            }
            _ => self.stats.out_of_range += 1,
        }
    }
}

impl Write for Tally {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.feed(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds several tallies up.
pub fn total<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> Stats {
    let mut total = Stats::default();
    let mut seen: Vec<u64> = Vec::new();
    for tally in tallies {
        let stats = &tally.stats;
        total.lines += stats.lines;
        total.out_of_range += stats.out_of_range;
        total.malformed += stats.malformed;
        total.sum = total.sum.wrapping_add(stats.sum);
        total.requests += stats.requests;
        total.broken += stats.broken;
        total.bytes += stats.bytes;
        total.last_ns = total.last_ns.max(stats.last_ns);
        if stats.first_ns > 0 && (total.first_ns == 0 || stats.first_ns < total.first_ns) {
            total.first_ns = stats.first_ns;
        }
        total.doubled += stats.doubled;
        seen.resize(seen.len().max(tally.seen.len()), 0);
        for (all, here) in seen.iter_mut().zip(&tally.seen) {
            total.doubled += u64::from((*all & here).count_ones());
            *all |= here;
        }
    }
    total.distinct = seen.iter().map(|word| u64::from(word.count_ones())).sum();
    total
}

/// Value and millisecond of a line that ends like `value=7i 1700000000000064003`.
#[inline]
fn parse_end(line: &[u8]) -> Option<(u64, u64)> {
    let (head, time) = line.split_last_chunk::<TIME_DIGITS>()?;
    let (digits, rest) = time.split_at(MILLI_DIGITS);
    if !rest.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let milli = number(digits)?;
    let head = head.strip_suffix(b"i ")?;
    // A value is short: walking back over it is quicker than a search.
    let start = head.iter().rposition(|byte| *byte == b'=')? + 1;
    let digits = &head[start..];
    if digits.is_empty() || digits.len() > TIME_DIGITS {
        return None;
    }
    Some((number(digits)?, milli))
}

#[inline]
fn number(digits: &[u8]) -> Option<u64> {
    let mut number = 0;
    let mut all = true;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        all &= digit < 10;
        number = number * 10 + u64::from(digit);
    }
    all.then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(events: &[u64]) -> Vec<u8> {
        let line = |event: &u64| format!("up,route=/v1\\ a value={}i {}064003\n", event + 1, 1_700_000_000_000 + event);
        events.iter().map(line).collect::<String>().into_bytes()
    }

    fn tally(bodies: &[&[u8]], piece: usize) -> Tally {
        let mut tally = Tally::new(1_700_000_000_000, 100);
        for body in bodies {
            body.chunks(piece).for_each(|piece| tally.feed(piece));
            tally.end();
        }
        tally
    }

    #[test]
    fn lines_count_however_they_are_cut() {
        let all: Vec<u64> = (0..100).collect();
        for piece in [1, 2, 7, 53, 64, 10_000] {
            let stats = total([&tally(&[&body(&all)], piece)]);
            assert_eq!((stats.lines, stats.distinct, stats.doubled), (100, 100, 0), "{piece}");
            assert_eq!((stats.sum, stats.out_of_range, stats.malformed), (5_050, 0, 0), "{piece}");
        }
    }

    #[test]
    fn doubles_are_seen_within_and_across_connections() {
        let one = tally(&[&body(&[1, 2, 3]), &body(&[3, 4])], 10);
        let other = tally(&[&body(&[4, 5])], 10);
        let stats = total([&one, &other]);
        assert_eq!((stats.lines, stats.distinct, stats.doubled), (7, 5, 2));
        assert_eq!(stats.sum, 2 + 3 + 4 + 4 + 5 + 5 + 6);
    }

    #[test]
    fn what_is_no_event_is_distinguished() {
        let stats = total([&tally(&[&body(&[99, 100])], 1_000)]);
        assert_eq!((stats.distinct, stats.out_of_range), (1, 1));
        let bad = b"up value=1i\nup value=1 1700000000000000000\nup value=i 1700000000000000000\nup value=1i 17000000000x0000000";
        let stats = total([&tally(&[bad], 1_000)]);
        assert_eq!((stats.lines, stats.malformed, stats.distinct), (4, 4, 0));
    }

    #[test]
    fn claims_and_marks_are_no_counts() {
        let beside = b"tallybus_claims,id=1 claim=\"{}\" 7258118400000000000\ntallybus_marks,id=1 claim=\"7\" 7258118400000000000";
        let stats = total([&tally(&[beside, &body(&[7])], 1_000)]);
        assert_eq!((stats.lines, stats.distinct, stats.malformed, stats.out_of_range), (1, 1, 0, 0));
    }

    #[test]
    fn a_line_without_an_end_counts_once_the_body_ends() {
        let body = body(&[7]);
        let stats = total([&tally(&[&body[..body.len() - 1]], 5)]);
        assert_eq!((stats.lines, stats.distinct), (1, 1));
    }
}
