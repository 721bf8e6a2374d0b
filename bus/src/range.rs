use std::ops::{ControlFlow, Range};
use std::time::Duration;

use crate::{Bus, BusError, Observer, OffsetRange, Progress, Reader, Record};

/// One wait for records.
const WAIT: Duration = Duration::from_millis(200);
/// How many records of finished partitions are skipped before the reader is reassigned without those partitions.
const PASSED_OVER: u64 = 1_000;

struct Part {
    partition: u32,
    next: u64,
    end: u64,
    done: bool,
}

/// Reads everything that a topic holds now, as [`read_range`] does. Returns the offsets that it held.
///
/// # Errors
/// As [`Observer::offsets`] and [`read_range`].
pub fn read_topic(
    bus: &dyn Bus,
    observer: &dyn Observer,
    topic: &str,
    stall_timeout: Duration,
    each: &mut dyn FnMut(Record<'_>),
) -> Result<Vec<OffsetRange>, BusError> {
    let ranges = observer.offsets_of(topic)?;
    let spans: Vec<_> = (0..).zip(&ranges).map(|(partition, range)| (partition, range.first..range.end)).collect();
    read_range(bus.reader()?.as_mut(), topic, &spans, stall_timeout, each)?;
    Ok(ranges)
}

/// Reads exactly these ranges of a topic and hands each record to `each`, in offset order per partition.
///
/// A range ends with its last record, or where the partition ends now: offsets may have gaps, also at the range's end.
/// So a range must not reach past the end that the partition had before the call, and a caller that must detect deleted
/// records compares the range's start with the first offset kept.
///
/// # Errors
/// [`BusError::Unavailable`] when no record of the ranges came within `stall_timeout`; earlier records have been handed
/// over. Errors of the reader are returned unchanged.
pub fn read_range(
    reader: &mut dyn Reader,
    topic: &str,
    ranges: &[(u32, Range<u64>)],
    stall_timeout: Duration,
    each: &mut dyn FnMut(Record<'_>),
) -> Result<(), BusError> {
    let mut parts: Vec<Part> = ranges
        .iter()
        .filter(|(_, range)| !range.is_empty())
        .map(|(partition, range)| Part { partition: *partition, next: range.start, end: range.end, done: false })
        .collect();
    if parts.is_empty() {
        return Ok(());
    }
    assign(reader, topic, &parts)?;
    let mut progress = reader.now();
    let mut failure = None;
    let mut passed_over = 0;
    loop {
        let mut handed = false;
        let mut take = |record: Record<'_>| {
            let Some(part) = parts.iter_mut().find(|part| part.partition == record.partition && !part.done) else {
                passed_over += 1;
                return ControlFlow::Continue(());
            };
            part.done = record.offset.saturating_add(1) >= part.end;
            if record.offset < part.end && record.offset >= part.next {
                part.next = record.offset + 1;
                handed = true;
                each(record);
            }
            if part.done && parts.iter().all(|part| part.done) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        match reader.poll(WAIT.min(stall_timeout), &mut take) {
            Ok(Progress::End(partition)) => {
                for part in parts.iter_mut().filter(|part| part.partition == partition) {
                    part.done = true;
                    handed = true;
                }
            }
            Ok(Progress::Records | Progress::Idle) => {}
            Err(error @ BusError::Unavailable(_)) => failure = Some(error),
            Err(error) => return Err(error),
        }
        if parts.iter().all(|part| part.done) {
            return Ok(());
        }
        if handed {
            progress = reader.now();
            failure = None;
        }
        if reader.now().saturating_duration_since(progress) >= stall_timeout {
            return Err(failure.unwrap_or_else(|| stalled(topic, &parts, stall_timeout)));
        }
        if passed_over >= PASSED_OVER {
            passed_over = 0;
            parts.retain(|part| !part.done);
            assign(reader, topic, &parts)?;
        }
    }
}

fn assign(reader: &mut dyn Reader, topic: &str, parts: &[Part]) -> Result<(), BusError> {
    let starts: Vec<(u32, u64)> = parts.iter().map(|part| (part.partition, part.next)).collect();
    reader.assign(topic, &starts)
}

fn stalled(topic: &str, parts: &[Part], waited: Duration) -> BusError {
    let waiting = parts.iter().find(|part| !part.done);
    let what = waiting.map(|part| format!("offset {} of {topic}/{} (up to {})", part.next, part.partition, part.end));
    BusError::Unavailable(format!("no record arrived for {} s at {}", waited.as_secs_f32(), what.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Instant;

    use super::*;
    use crate::NoHeaders;

    type Poll = Result<(Vec<(u32, u64)>, Progress), BusError>;

    /// Virtual time: no test waits for it.
    const STALL: Duration = Duration::from_secs(3_600);

    /// Replays a script: what each poll yields.
    struct Script {
        polls: VecDeque<Poll>,
        now: Instant,
        assigned: Vec<Vec<(u32, u64)>>,
    }

    impl Reader for Script {
        fn assign(&mut self, _topic: &str, starts: &[(u32, u64)]) -> Result<(), BusError> {
            self.assigned.push(starts.to_vec());
            Ok(())
        }

        fn poll(
            &mut self,
            timeout: Duration,
            each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
        ) -> Result<Progress, BusError> {
            let Some(next) = self.polls.pop_front() else {
                self.now += timeout;
                return Ok(Progress::Idle);
            };
            let (records, progress) = next?;
            for (partition, offset) in records {
                let record = Record {
                    topic: "t",
                    partition,
                    offset,
                    time_ms: 0,
                    key: None,
                    payload: b"",
                    is_tombstone: false,
                    unreadable: None,
                    headers: &NoHeaders,
                };
                if each(record).is_break() {
                    break;
                }
            }
            Ok(progress)
        }

        fn now(&self) -> Instant {
            self.now
        }
    }

    type Outcome = (Vec<(u32, u64)>, Result<(), BusError>, Vec<Vec<(u32, u64)>>);

    fn read(polls: Vec<Poll>, ranges: &[(u32, Range<u64>)]) -> Outcome {
        let mut script = Script { polls: polls.into(), now: Instant::now(), assigned: Vec::new() };
        let mut got = Vec::new();
        let outcome = read_range(&mut script, "t", ranges, STALL, &mut |record| {
            got.push((record.partition, record.offset));
        });
        (got, outcome, script.assigned)
    }

    #[test]
    fn stops_at_the_last_record_of_each_range() {
        let records = vec![(0, 3), (1, 0), (0, 4), (0, 5), (1, 1), (1, 2), (1, 3)];
        let (got, outcome, _) = read(vec![Ok((records, Progress::Records))], &[(0, 3..5), (1, 0..3), (2, 7..7)]);
        assert!(outcome.is_ok());
        assert_eq!(got, [(0, 3), (1, 0), (0, 4), (1, 1), (1, 2)]);
    }

    #[test]
    fn a_gap_at_the_end_of_a_range_ends_it_by_the_next_record_or_the_partitions_end() {
        let polls = vec![
            Ok((vec![(0, 0), (0, 9), (1, 0)], Progress::Records)),
            Ok((vec![], Progress::Idle)),
            Ok((vec![], Progress::End(1))),
        ];
        let (got, outcome, _) = read(polls, &[(0, 0..5), (1, 0..5)]);
        assert!(outcome.is_ok());
        assert_eq!(got, [(0, 0), (1, 0)]);
    }

    #[test]
    fn no_progress_is_an_error_that_names_where() {
        let (got, outcome, _) = read(vec![Ok((vec![(0, 0)], Progress::Records))], &[(0, 0..5)]);
        assert_eq!(got, [(0, 0)]);
        let said = outcome.unwrap_err().to_string();
        assert!(said.contains("offset 1 of t/0 (up to 5)"), "{said}");
    }

    #[test]
    fn a_passing_failure_is_waited_out_and_a_lasting_one_is_reported() {
        let away = || BusError::Unavailable("gone fishing".to_owned());
        let polls = vec![Err(away()), Err(away()), Ok((vec![(0, 0)], Progress::Records))];
        assert!(read(polls, &[(0, 0..1)]).1.is_ok());
        assert!(read(vec![Err(away())], &[(0, 0..1)]).1.unwrap_err().to_string().contains("gone fishing"));
        let dead = read(vec![Err(BusError::Fatal("dead".to_owned()))], &[(0, 0..1)]).1;
        assert!(matches!(dead, Err(BusError::Fatal(_))));
    }

    #[test]
    fn a_finished_partition_that_goes_on_is_left_out() {
        let flood: Vec<(u32, u64)> = (0..2_000).map(|offset| (0, offset)).collect();
        let polls = vec![Ok((flood, Progress::Records)), Ok((vec![(1, 0), (1, 1)], Progress::Records))];
        let (got, outcome, assigned) = read(polls, &[(0, 0..2), (1, 0..2)]);
        assert!(outcome.is_ok());
        assert_eq!(got, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(assigned, [vec![(0, 0), (1, 0)], vec![(1, 0)]]);
    }
}
