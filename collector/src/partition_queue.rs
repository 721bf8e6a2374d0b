//! The messages of one partition: at most one in flight, so that a message that is refused leaves no gap in the
//! sequence.

use std::time::{Duration, Instant};

use tallybus_schemas::{NativeEncoder, Origin};

use crate::ledger::{self, Share};
use crate::{registry, vec_growth};

/// The most bytes of a message: below the megabyte that Kafka accepts by default, with space for the record's overhead.
const FULL: usize = 900_000;
/// A message is not made smaller than this.
const SMALLEST: usize = 1_024;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause while a caller waits in `flush` or `shutdown`.
const URGENT_PAUSE: Duration = Duration::from_millis(200);
/// How many entries are looked up at a time.
const LOOKUP: usize = 256;

/// The values shared by all partitions of one round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// When the counts were taken: nanoseconds since the Unix epoch.
    pub(crate) time: i64,
    /// Everything this producer had counted by then.
    pub(crate) emitted: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct PartitionQueue {
    pub(crate) partition: u32,
    sequence: u64,
    total: u64,
    /// When the previous round took its counts.
    settled: i64,
    round: Round,
    /// What this round carries, and how much of it has been put into messages.
    work: Vec<Share>,
    packed: usize,
    flight: Option<Flight>,
    /// The most bytes of a message: for the next one, and the ceiling derived from messages refused for their size.
    limit: usize,
    ceiling: usize,
    refused: Option<Refused>,
}

/// A message in flight.
#[derive(Debug)]
struct Flight {
    token: u64,
    /// The index of its first share in the work.
    from: usize,
    value: u64,
    bytes: usize,
}

/// Why the bus refused a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is too large; a smaller one may be accepted.
    TooLarge,
    /// Anything else.
    Other,
}

#[derive(Debug)]
struct Refused {
    at: Instant,
    pause: Duration,
    times: u32,
}

impl PartitionQueue {
    pub(crate) fn new(partition: u32, started: i64) -> Self {
        Self {
            partition,
            sequence: 0,
            total: 0,
            settled: started,
            round: Round { time: started, emitted: 0 },
            work: Vec::new(),
            packed: 0,
            flight: None,
            limit: FULL,
            ceiling: FULL,
            refused: None,
        }
    }

    /// Whether the last round is completely published.
    pub(crate) fn is_idle(&self) -> bool {
        self.flight.is_none() && self.work.is_empty()
    }

    /// Whether a round may begin: idle, and not pausing after a refusal.
    pub(crate) fn is_ready(&self, now: Instant, urgent: bool) -> bool {
        let pausing = self.refused.as_ref().is_some_and(|refused| {
            let pause = if urgent { refused.pause.min(URGENT_PAUSE) } else { refused.pause };
            now.saturating_duration_since(refused.at) < pause
        });
        self.is_idle() && !pausing
    }

    /// Whether its last message was refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Adds to the work of the round about to begin.
    pub(crate) fn give(&mut self, share: Share) {
        vec_growth::reserve_one(&mut self.work);
        self.work.push(share);
    }

    /// The clock that dates the rounds was moved by so many nanoseconds: the next interval keeps its length.
    pub(crate) fn move_times(&mut self, by: i64) {
        self.settled = self.settled.saturating_add(by);
    }

    pub(crate) fn begin(&mut self, round: Round) {
        self.round = round;
        self.end_if_done();
    }

    /// The message in flight: its token and the sum of its values.
    pub(crate) fn in_flight(&self) -> Option<(u64, u64)> {
        self.flight.as_ref().map(|flight| (flight.token, flight.value))
    }

    /// Packs the next message and takes its counts; `None` when one is in flight or nothing is left. The caller must
    /// call [`Self::settle`] or [`Self::refuse`] with its outcome.
    pub(crate) fn pack(&mut self, encoder: &mut NativeEncoder, producer: [u8; 16], token: u64) -> Option<Vec<u8>> {
        if self.flight.is_some() || self.packed >= self.work.len() {
            return None;
        }
        let from = self.packed;
        let mut entries = Vec::with_capacity(LOOKUP);
        let mut tags = Vec::new();
        'full: while self.packed < self.work.len() {
            let end = self.work.len().min(self.packed + LOOKUP);
            entries.clear();
            registry::entries(self.work[self.packed..end].iter().map(|share| share.0), &mut entries);
            for (entry, (_, value)) in entries.iter().zip(self.work[self.packed..end].to_vec()) {
                if !encoder.is_empty() && encoder.len_estimate() + entry.len_estimate() > self.limit {
                    break 'full;
                }
                tags.clear();
                tags.extend(entry.tags());
                // A round has each series once.
                encoder.push_once(entry.shape.name, &tags, value);
                self.packed += 1;
            }
        }
        let value = encoder.total();
        self.sequence += 1;
        self.total = self.total.wrapping_add(value);
        let payload = encoder.finish(&Origin {
            producer,
            sequence: self.sequence,
            interval_start: self.settled,
            interval_end: self.round.time,
            partition_total: self.total,
            emitted_total: self.round.emitted,
        });
        ledger::take(&self.work[from..self.packed]);
        self.flight = Some(Flight { token, from, value, bytes: payload.len() });
        Some(payload)
    }

    /// The message in flight is on the bus, or permanently in doubt: its counts stay taken. Returns their sum.
    pub(crate) fn settle(&mut self) -> u64 {
        let Some(flight) = self.flight.take() else { return 0 };
        if self.refused.take().is_some() {
            self.limit = self.ceiling;
        }
        self.end_if_done();
        flight.value
    }

    /// The message in flight is certainly not on the bus: its counts return to the counters, and so do the round's
    /// remaining counts. Returns the sum of the message's counts.
    pub(crate) fn refuse(&mut self, why: Refusal, now: Instant) -> u64 {
        let Some(flight) = self.flight.take() else { return 0 };
        ledger::give_back(&self.work[flight.from..self.packed]);
        self.sequence -= 1;
        self.total = self.total.wrapping_sub(flight.value);
        let events = self.packed - flight.from;
        self.work.clear();
        self.packed = 0;
        let times = self.refused.as_ref().map_or(0, |refused| refused.times).saturating_add(1);
        let mut pause = (FIRST_PAUSE * 2u32.pow(times.min(8) - 1)).min(LONGEST_PAUSE);
        if why == Refusal::TooLarge && events > 1 {
            self.ceiling = (flight.bytes / 2).clamp(SMALLEST, self.ceiling.max(SMALLEST));
            self.limit = self.ceiling;
            // A smaller one may be accepted at once.
            pause = Duration::ZERO;
        } else if times > 2 {
            self.limit = (flight.bytes / 2).clamp(SMALLEST, self.limit.max(SMALLEST));
        }
        self.refused = Some(Refused { at: now, pause, times });
        flight.value
    }

    fn end_if_done(&mut self) {
        if self.packed == self.work.len() {
            if !self.work.is_empty() {
                self.settled = self.round.time;
            }
            self.work.clear();
            self.packed = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use tallybus_schemas::{Decoder, Encoding, Events};

    use super::*;

    fn queue_with(series: u32) -> PartitionQueue {
        let mut queue = PartitionQueue::new(0, 5);
        for number in 0..series {
            let value = number.to_string();
            queue.give((registry::resolve("partition_queue.test", &["n"], &[&value]).series, 1));
        }
        queue.begin(Round { time: 10, emitted: u64::from(series) });
        queue
    }

    fn pack(queue: &mut PartitionQueue, token: u64) -> Option<(Events, usize)> {
        let payload = queue.pack(&mut NativeEncoder::new(&[]), [7; 16], token)?;
        let mut events = Events::new();
        Decoder::new().decode(Some(Encoding::Native), &payload, 0, &mut events).unwrap();
        Some((events, payload.len()))
    }

    #[test]
    fn one_message_at_a_time_and_the_sequence_has_no_gap() {
        let mut queue = queue_with(100);
        queue.limit = 1_024;
        let (mut sequence, mut total) = (0, 0);
        while let Some((events, bytes)) = pack(&mut queue, sequence) {
            assert!(pack(&mut queue, 99).is_none(), "a second message while one is in flight");
            let origin = events.last_origin().unwrap();
            sequence += 1;
            total += events.iter().map(|event| event.1).sum::<u64>();
            assert_eq!((origin.sequence, origin.partition_total), (sequence, total));
            assert_eq!((origin.interval_start, origin.interval_end), (5, 10));
            assert!(bytes <= 1_024, "{bytes}");
            queue.settle();
        }
        assert!(sequence > 1 && queue.is_idle());
        assert_eq!(total, 100);
        assert_eq!(queue.settled, 10);
    }

    #[test]
    fn a_refusal_leaves_no_trace() {
        let mut queue = queue_with(10);
        let first = pack(&mut queue, 1).unwrap();
        assert_eq!(queue.refuse(Refusal::Other, Instant::now()), 10);
        assert!(queue.is_idle() && queue.is_refused());
        assert!(!queue.is_ready(Instant::now(), true));
        assert!(queue.is_ready(Instant::now() + FIRST_PAUSE, false));
        assert_eq!((queue.sequence, queue.total, queue.settled), (0, 0, 5));
        queue.give((0, 3));
        queue.begin(Round { time: 20, emitted: 10 });
        let second = pack(&mut queue, 2).unwrap();
        assert_eq!(second.0.last_origin().unwrap().sequence, first.0.last_origin().unwrap().sequence);
        assert_eq!(second.0.last_origin().unwrap().interval_start, 5);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut queue = queue_with(0);
        let now = Instant::now();
        for _ in 0..20 {
            queue.give((0, 1));
            queue.begin(Round { time: 20, emitted: 1 });
            pack(&mut queue, 1).unwrap();
            queue.refuse(Refusal::Other, now);
        }
        assert!(!queue.is_ready(now + LONGEST_PAUSE / 2, false));
        assert!(queue.is_ready(now + LONGEST_PAUSE, false));
        assert!(queue.is_ready(now + URGENT_PAUSE, true));
        assert!(queue.limit >= SMALLEST);
    }

    #[test]
    fn a_message_too_large_is_halved_until_it_fits() {
        for why in [Refusal::TooLarge, Refusal::Other] {
            let mut queue = queue_with(2_000);
            let mut bytes = pack(&mut queue, 1).unwrap().1;
            let mut tries = 0;
            while bytes > 4_000 {
                queue.refuse(why, Instant::now());
                for number in 0..2_000 {
                    queue.give((number, 1));
                }
                queue.begin(Round { time: 20, emitted: 1 });
                bytes = pack(&mut queue, 1).unwrap().1;
                tries += 1;
                assert!(tries < 10, "{why:?}");
            }
        }
    }
}
