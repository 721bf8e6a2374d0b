//! Up to which time everything that was counted is on the bus.
//!
//! **A sweep** proves it. It begins when a round takes counts, at time T. It is over once each partition has begun a round at T or
//! later and the bus has acknowledged all of that round. Until T a count was in a message in flight, or it waited in the
//! counters: the first was answered before its partition began the round, the second was taken by the round. What the bus refuses
//! returns to the counters, perhaps behind a round that has taken its series, and so does a change of the number of partitions move
//! series behind one: either ends the sweep, and the next round begins another.
//!
//! An event is dated after its round has taken the counts, and the clock never shows the same time twice. So no event that is
//! dated before T comes after the sweep.

use tallybus_schemas::checkpoint::{Doubt, DoubtKind, Mark};

/// A thread's last increments may reach the publisher's thread this much later than the clock says: nanoseconds. A processor's
/// store buffer is emptied within microseconds.
const VISIBLE_WITHIN: i64 = 1_000_000;
/// Of the older marks, the oldest of each range of ages is kept; the ranges grow by this factor.
const AGES_GROW: i64 = 4;
/// The most marks of a checkpoint.
const MOST_MARKS: usize = 12;
/// The most offsets in the marks of a checkpoint, so that it stays small for topics with very many partitions.
const MOST_OFFSETS: usize = 20_000;
/// The most doubts of a checkpoint; later ones are added to the last.
const MOST_DOUBTS: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Completeness {
    /// By partition: one past the last acknowledged message; `None` when the bus confirmed one without its offset.
    ends: Vec<Option<u64>>,
    sweep: Option<Sweep>,
    /// The number of partitions by which series were last assigned to them.
    partitions: u32,
    /// The newest proven mark.
    current: Option<Mark>,
    /// The marks of earlier checkpoints, newest first.
    earlier: Vec<Mark>,
    doubts: Vec<Doubt>,
    /// No event is dated before.
    started: Option<i64>,
    /// Whether any message was acknowledged, or is in doubt.
    has_sent: bool,
}

#[derive(Debug)]
struct Sweep {
    before: i64,
    /// By queue.
    rounds: Vec<Round>,
}

/// How far a partition is in a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// It has not begun a round since the sweep began.
    Awaited,
    /// It has, and not all of it is acknowledged.
    Open,
    Acknowledged,
}

impl Completeness {
    /// The publisher starts: no event of it is dated before this time.
    pub(crate) fn started(&mut self, time: i64) {
        if self.started.is_none() {
            let mark = Mark { before: time, ends: Vec::new() };
            self.started = Some(time);
            self.earlier = vec![mark.clone()];
            self.current = Some(mark);
        }
    }

    /// A round begins: `before` was read before the counts were taken; `begun` says of each queue whether it takes part.
    pub(crate) fn begin_round(&mut self, before: i64, partitions: u32, begun: &[bool]) {
        if partitions != self.partitions || self.sweep.as_ref().is_some_and(|sweep| sweep.rounds.len() != begun.len()) {
            self.partitions = partitions;
            self.sweep = None;
        }
        if self.ends.len() < begun.len() {
            self.ends.resize(begun.len(), Some(0));
        }
        let new = || Sweep { before: before.saturating_sub(VISIBLE_WITHIN), rounds: vec![Round::Awaited; begun.len()] };
        let sweep = self.sweep.get_or_insert_with(new);
        for (round, _) in sweep.rounds.iter_mut().zip(begun).filter(|(_, begun)| **begun) {
            if *round == Round::Awaited {
                *round = Round::Open;
            }
        }
    }

    /// The clock was set back: the next events are dated from `time` on. The only case in which times fall.
    pub(crate) fn clock_set_back(&mut self, time: i64) {
        if let Some(sweep) = &mut self.sweep {
            sweep.before = sweep.before.min(time);
        }
        for mark in self.current.iter_mut().chain(&mut self.earlier) {
            mark.before = mark.before.min(time);
        }
        self.earlier.dedup_by_key(|mark| mark.before);
        self.doubts.iter_mut().for_each(|doubt| doubt.since = doubt.since.min(time));
        self.started = self.started.map(|started| started.min(time));
    }

    /// The bus has acknowledged a message, and tells its offset or does not.
    pub(crate) fn acknowledged(&mut self, partition: u32, offset: Option<u64>) {
        self.has_sent = true;
        if let Some(end) = self.ends.get_mut(partition as usize) {
            *end = offset.map(|offset| offset.saturating_add(1));
        }
    }

    /// A queue has nothing left of its round, all of which was acknowledged or is in doubt.
    pub(crate) fn idle(&mut self, partition: u32) {
        let Some(sweep) = &mut self.sweep else { return };
        if let Some(round) = sweep.rounds.get_mut(partition as usize)
            && *round == Round::Open
        {
            *round = Round::Acknowledged;
        }
        if sweep.rounds.iter().any(|round| *round != Round::Acknowledged) {
            return;
        }
        // The offset that is missing is known from the next message of its partition on.
        let Some(ends) = self.ends.iter().copied().collect::<Option<Vec<u64>>>() else { return };
        let before = sweep.before;
        self.sweep = None;
        if self.current.as_ref().is_none_or(|mark| mark.before < before) {
            self.current = Some(Mark { before, ends });
        }
    }

    /// A message was refused: its counts have returned to the counters.
    pub(crate) fn refused(&mut self) {
        self.sweep = None;
    }

    /// A message was never answered; `number` is that of the next checkpoint.
    pub(crate) fn in_doubt(&mut self, value: u64, number: u64) {
        self.has_sent = true;
        self.doubt(DoubtKind::InDoubt, self.reached(), value, number);
    }

    /// The topic is another one than that of the offsets so far; `number` is that of the next checkpoint. How far a sink came in
    /// the other one cannot be seen any more, so nothing is certain from the start on.
    pub(crate) fn recreated(&mut self, number: u64) {
        if self.has_sent {
            self.doubt(DoubtKind::Recreated, self.started, 0, number);
        }
        let reached = self.reached();
        self.sweep = None;
        self.earlier.clear();
        self.ends.iter_mut().for_each(|end| *end = Some(0));
        self.current = reached.map(|before| Mark { before, ends: Vec::new() });
    }

    fn doubt(&mut self, kind: DoubtKind, since: Option<i64>, value: u64, number: u64) {
        let since = since.unwrap_or(i64::MIN);
        let is_full = self.doubts.len() >= MOST_DOUBTS;
        let is_same = |last: &&mut Doubt| is_full || (last.kind, last.number) == (kind, number);
        if let Some(last) = self.doubts.last_mut().filter(is_same) {
            last.value = last.value.saturating_add(value);
            last.since = last.since.min(since);
            last.number = number;
            return;
        }
        self.doubts.push(Doubt { kind, since, number, value });
    }

    fn reached(&self) -> Option<i64> {
        self.current.as_ref().map(|mark| mark.before)
    }

    /// The doubts so far.
    pub(crate) fn doubts(&self) -> &[Doubt] {
        &self.doubts
    }

    /// The marks for a checkpoint, newest first; they are remembered for the next ones, fewer the older they are. `interval` is
    /// that of the checkpoints, in nanoseconds.
    pub(crate) fn marks(&mut self, interval: i64) -> Vec<Mark> {
        let Some(current) = &self.current else { return Vec::new() };
        // Newer marks with the same offsets say more.
        self.earlier.retain(|mark| mark.before < current.before && !is_same(&mark.ends, &current.ends));
        self.earlier.insert(0, current.clone());
        thin(&mut self.earlier, interval.max(1));
        self.earlier.clone()
    }

    /// The producer ends after a round that delivered everything: the mark that covers all of its events, which are dated before
    /// `before`. `None` when an offset is unknown: then the last mark stays.
    pub(crate) fn finish(&mut self, before: i64) -> Option<()> {
        let ends = self.ends.iter().copied().collect::<Option<Vec<u64>>>()?;
        let before = self.reached().map_or(before, |reached| reached.max(before));
        self.current = Some(Mark { before, ends });
        Some(())
    }
}

fn is_same(one: &[u64], other: &[u64]) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    long.starts_with(short) && long[short.len()..].iter().all(|end| *end == 0)
}

/// Keeps the newest two marks, the oldest of each range of ages, and the oldest of all.
fn thin(marks: &mut Vec<Mark>, interval: i64) {
    let Some(newest) = marks.first().map(|mark| mark.before) else { return };
    let range = |mark: &Mark| (newest.saturating_sub(mark.before) / interval).max(1).ilog(AGES_GROW);
    let ranges: Vec<u32> = marks.iter().map(range).collect();
    let (last, mut place) = (ranges.len() - 1, 0);
    marks.retain(|_| {
        let at = place;
        place += 1;
        at < 2 || at == last || ranges[at] != ranges[at + 1]
    });
    let most = (MOST_OFFSETS / marks.first().map_or(1, |mark| mark.ends.len().max(1))).clamp(2, MOST_MARKS);
    while marks.len() > most {
        marks.remove(marks.len() - 2);
    }
}

#[cfg(test)]
mod tests;
