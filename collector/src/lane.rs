//! One partition's share of the publishing: at most one message under way, so that a message refused leaves no gap in
//! the sequence.

use std::time::{Duration, Instant};

use tallybus_schemas::{NativeEncoder, Origin};

use crate::ledger::{self, Share};
use crate::{growth, registry};

/// What a message holds at most: below the megabyte that Kafka takes by default, with room for the record around it.
const FULL: usize = 900_000;
/// A message is not halved below this.
const SMALLEST: usize = 1_024;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause while somebody waits for the outcome.
const URGENT_PAUSE: Duration = Duration::from_millis(200);
/// How many entries are looked up at a time.
const LOOKUP: usize = 256;

/// What all lanes of one round have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    /// When the counts were taken: nanoseconds since the Unix epoch.
    pub(crate) time: i64,
    /// Everything this producer had counted by then.
    pub(crate) emitted: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) partition: u32,
    sequence: u64,
    total: u64,
    /// When the round before this one took its counts.
    settled: i64,
    round: Round,
    /// What this round carries, and how much of it has been put into messages.
    work: Vec<Share>,
    packed: usize,
    flight: Option<Flight>,
    /// Bytes of a message: now, and as learnt from refusals of large ones.
    limit: usize,
    ceiling: usize,
    refused: Option<Refused>,
}

/// A message under way.
#[derive(Debug)]
struct Flight {
    token: u64,
    /// Where its shares begin in the work.
    from: usize,
    value: u64,
    bytes: usize,
}

/// Why a message is not on the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A smaller one would be taken.
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

impl Lane {
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

    /// Whether nothing of the last round is left.
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
        growth::reserve_one(&mut self.work);
        self.work.push(share);
    }

    pub(crate) fn begin(&mut self, round: Round) {
        self.round = round;
        self.end_if_done();
    }

    /// The message under way: its token and the sum of its values.
    pub(crate) fn under_way(&self) -> Option<(u64, u64)> {
        self.flight.as_ref().map(|flight| (flight.token, flight.value))
    }

    /// Packs the next message and takes its counts; `None` when one is under way or nothing is left. What becomes of it
    /// must be told.
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

    /// The message under way is on the bus, or nobody will ever know: its counts stay taken. Answers their sum.
    pub(crate) fn settle(&mut self) -> u64 {
        let Some(flight) = self.flight.take() else { return 0 };
        if self.refused.take().is_some() {
            self.limit = self.ceiling;
        }
        self.end_if_done();
        flight.value
    }

    /// The message under way is certainly not on the bus: its counts go back, as if it had never been. Answers their
    /// sum. The rest of the round waits in the counters, too.
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
            // A smaller one may well be taken at once.
            pause = Duration::ZERO;
        } else if times > 2 {
            // Perhaps its size after all, and the bus does not say so.
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

    fn lane_with(series: u32) -> Lane {
        let mut lane = Lane::new(0, 5);
        for number in 0..series {
            let value = number.to_string();
            lane.give((registry::resolve("lane.test", &["n"], &[&value]).series, 1));
        }
        lane.begin(Round { time: 10, emitted: u64::from(series) });
        lane
    }

    fn pack(lane: &mut Lane, token: u64) -> Option<(Events, usize)> {
        let payload = lane.pack(&mut NativeEncoder::new(&[]), [7; 16], token)?;
        let mut events = Events::new();
        Decoder::new().decode(Some(Encoding::Native), &payload, 0, &mut events).unwrap();
        Some((events, payload.len()))
    }

    #[test]
    fn one_message_at_a_time_and_the_sequence_has_no_gap() {
        let mut lane = lane_with(100);
        lane.limit = 1_024;
        let (mut sequence, mut total) = (0, 0);
        while let Some((events, bytes)) = pack(&mut lane, sequence) {
            assert!(pack(&mut lane, 99).is_none(), "a second message while one is under way");
            let origin = events.last_origin().unwrap();
            sequence += 1;
            total += events.iter().map(|event| event.1).sum::<u64>();
            assert_eq!((origin.sequence, origin.partition_total), (sequence, total));
            assert_eq!((origin.interval_start, origin.interval_end), (5, 10));
            assert!(bytes <= 1_024, "{bytes}");
            lane.settle();
        }
        assert!(sequence > 1 && lane.is_idle());
        assert_eq!(total, 100);
        assert_eq!(lane.settled, 10);
    }

    #[test]
    fn a_refusal_leaves_no_trace() {
        let mut lane = lane_with(10);
        let first = pack(&mut lane, 1).unwrap();
        assert_eq!(lane.refuse(Refusal::Other, Instant::now()), 10);
        assert!(lane.is_idle() && lane.is_refused());
        assert!(!lane.is_ready(Instant::now(), true));
        assert!(lane.is_ready(Instant::now() + FIRST_PAUSE, false));
        assert_eq!((lane.sequence, lane.total, lane.settled), (0, 0, 5));
        lane.give((0, 3));
        lane.begin(Round { time: 20, emitted: 10 });
        let second = pack(&mut lane, 2).unwrap();
        assert_eq!(second.0.last_origin().unwrap().sequence, first.0.last_origin().unwrap().sequence);
        assert_eq!(second.0.last_origin().unwrap().interval_start, 5);
    }

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut lane = lane_with(0);
        let now = Instant::now();
        for _ in 0..20 {
            lane.give((0, 1));
            lane.begin(Round { time: 20, emitted: 1 });
            pack(&mut lane, 1).unwrap();
            lane.refuse(Refusal::Other, now);
        }
        assert!(!lane.is_ready(now + LONGEST_PAUSE / 2, false));
        assert!(lane.is_ready(now + LONGEST_PAUSE, false));
        assert!(lane.is_ready(now + URGENT_PAUSE, true));
        assert!(lane.limit >= SMALLEST);
    }

    #[test]
    fn a_message_too_large_is_halved_until_it_fits() {
        for why in [Refusal::TooLarge, Refusal::Other] {
            let mut lane = lane_with(2_000);
            let mut bytes = pack(&mut lane, 1).unwrap().1;
            let mut tries = 0;
            while bytes > 4_000 {
                lane.refuse(why, Instant::now());
                for number in 0..2_000 {
                    lane.give((number, 1));
                }
                lane.begin(Round { time: 20, emitted: 1 });
                bytes = pack(&mut lane, 1).unwrap().1;
                tries += 1;
                assert!(tries < 10, "{why:?}");
            }
        }
    }
}
