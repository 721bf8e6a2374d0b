//! The times of the counts: the wall clock's, checked against a clock that is never set.

use std::time::Duration;

/// How far the wall clock may deviate without having jumped: it is slewed, and read at another instant than the other.
const TOLERANCE: i64 = 1_000_000_000;
/// Clocks drift apart by less than a thousandth.
const DRIFT: i64 = 1_000;
/// How long a clock that has jumped must go on steadily before it is believed.
const PROBATION: Duration = Duration::from_secs(60);

/// What a reading of the clocks has shown. Offsets are in nanoseconds; positive when the wall clock went forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The wall clock goes on as before.
    Steady,
    /// It has jumped, by so much, or shows no valid time. Times go on as if it had not.
    Jumped(Option<i64>),
    /// It is still where it jumped to.
    Away,
    /// It is back where it would be without the jump.
    Returned,
    /// It has gone on steadily since the jump: times are its own from now on, and jump by so much.
    Adopted(i64),
}

#[derive(Debug, Clone, Copy)]
struct Jump {
    /// `None` while the clock shows no valid time.
    by: Option<i64>,
    since: Duration,
}

/// A wall time at an instant of the monotonic clock, from which later times follow.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    wall: i64,
    at: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    anchor: Option<Anchor>,
    jump: Option<Jump>,
}

impl Timeline {
    /// The time at `at` of the monotonic clock, given what the wall clock shows, both in nanoseconds. `None` until the
    /// wall clock has shown a valid time.
    pub(crate) fn read(&mut self, wall: Option<i64>, at: Duration) -> Option<(i64, Finding)> {
        let Some(anchor) = self.anchor else {
            self.anchor = wall.map(|wall| Anchor { wall, at });
            return wall.map(|wall| (wall, Finding::Steady));
        };
        let passed = i64::try_from(at.saturating_sub(anchor.at).as_nanos()).unwrap_or(i64::MAX);
        let expected = anchor.wall.saturating_add(passed);
        let by = wall.map(|wall| wall.saturating_sub(expected));
        let tolerance = TOLERANCE + passed / DRIFT;
        if let (Some(wall), Some(by)) = (wall, by)
            && by.abs() <= tolerance
        {
            self.anchor = Some(Anchor { wall, at });
            let returned = self.jump.take().is_some();
            return Some((wall, if returned { Finding::Returned } else { Finding::Steady }));
        }
        let is_same = |jump: &Jump| match (jump.by, by) {
            (Some(before), Some(now)) => before.abs_diff(now) <= tolerance.unsigned_abs(),
            (None, None) => true,
            _ => false,
        };
        let Some(jump) = self.jump.filter(is_same) else {
            self.jump = Some(Jump { by, since: at });
            return Some((expected, Finding::Jumped(by)));
        };
        if let (Some(wall), Some(by)) = (wall, by)
            && at.saturating_sub(jump.since) >= PROBATION
        {
            self.anchor = Some(Anchor { wall, at });
            self.jump = None;
            return Some((wall, Finding::Adopted(by)));
        }
        Some((expected, Finding::Away))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const YEAR: i64 = 365 * 24 * 3_600 * SECOND;

    /// What is read every second from `from` to `to`, with the wall clock off by `offset`.
    fn run(timeline: &mut Timeline, from: u64, to: u64, offset: i64) -> Vec<(i64, Finding)> {
        (from..to)
            .map(|second| {
                let wall = 1_700_000_000 * SECOND + i64::try_from(second).unwrap() * SECOND + offset;
                let (time, finding) = timeline.read(Some(wall), Duration::from_secs(second)).unwrap();
                (time - 1_700_000_000 * SECOND, finding)
            })
            .collect()
    }

    fn seconds(from: i64, to: i64) -> Vec<i64> {
        (from..to).map(|second| second * SECOND).collect()
    }

    #[test]
    fn a_wall_clock_that_jumps_and_comes_back_dates_nothing() {
        for offset in [10 * YEAR, -10 * YEAR, -20 * SECOND] {
            let mut timeline = Timeline::default();
            let mut read = run(&mut timeline, 0, 10, 0);
            read.extend(run(&mut timeline, 10, 40, offset));
            read.extend(run(&mut timeline, 40, 50, 0));
            assert_eq!(read.iter().map(|read| read.0).collect::<Vec<_>>(), seconds(0, 50));
            let findings: Vec<_> =
                read.iter().map(|read| read.1).filter(|f| !matches!(f, Finding::Steady | Finding::Away)).collect();
            assert_eq!(findings, [Finding::Jumped(Some(offset)), Finding::Returned]);
        }
    }

    #[test]
    fn a_wall_clock_that_stays_where_it_jumped_to_is_believed_after_a_minute() {
        for offset in [3_600 * SECOND, -3_600 * SECOND] {
            let mut timeline = Timeline::default();
            run(&mut timeline, 0, 10, 0);
            let read = run(&mut timeline, 10, 80, offset);
            assert_eq!(read[59], (69 * SECOND, Finding::Away));
            assert_eq!(read[60], (70 * SECOND + offset, Finding::Adopted(offset)));
            assert_eq!(read[61], (71 * SECOND + offset, Finding::Steady));
        }
    }

    #[test]
    fn a_wall_clock_that_keeps_jumping_is_not_believed() {
        let mut timeline = Timeline::default();
        run(&mut timeline, 0, 1, 0);
        for jump in 0..10u64 {
            let offset = (i64::try_from(jump).unwrap() + 1) * 3_600 * SECOND;
            let read = run(&mut timeline, 1 + jump * 50, 51 + jump * 50, offset);
            assert_eq!(read[0].1, Finding::Jumped(Some(offset)));
            assert!(read[1..].iter().all(|read| read.1 == Finding::Away));
        }
    }

    #[test]
    fn a_wall_clock_that_is_slewed_or_drifts_has_not_jumped() {
        let mut timeline = Timeline::default();
        for second in 0..100_000u64 {
            // 500 parts in a million, the fastest that Linux slews.
            let wall = i64::try_from(second).unwrap() * (SECOND + 500_000);
            assert_eq!(timeline.read(Some(wall), Duration::from_secs(second)), Some((wall, Finding::Steady)));
        }
        // The longest interval of a collector.
        let wall = 99_999 * (SECOND + 500_000) + 3_600 * (SECOND + 500_000);
        assert_eq!(timeline.read(Some(wall), Duration::from_secs(103_599)), Some((wall, Finding::Steady)));
    }

    #[test]
    fn a_wall_clock_without_a_valid_time_is_waited_for_at_the_start_and_bridged_later() {
        let mut timeline = Timeline::default();
        assert_eq!(timeline.read(None, Duration::from_secs(1)), None);
        run(&mut timeline, 2, 3, 0);
        for second in 3..200 {
            let (time, finding) = timeline.read(None, Duration::from_secs(second)).unwrap();
            assert_eq!(time, (1_700_000_000 + i64::try_from(second).unwrap()) * SECOND);
            assert_eq!(finding, if second == 3 { Finding::Jumped(None) } else { Finding::Away });
        }
        assert_eq!(run(&mut timeline, 200, 201, 0), [(200 * SECOND, Finding::Returned)]);
    }
}
