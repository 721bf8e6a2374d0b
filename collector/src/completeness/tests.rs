use std::collections::VecDeque;

use tallybus_schemas::checkpoint::Checkpoint;
use tallybus_tests::Rng;

use super::*;

const MS: i64 = 1_000_000;
const TEN_SECONDS: i64 = 10_000 * MS;

fn reached(completeness: &Completeness) -> Option<i64> {
    completeness.current.as_ref().map(|mark| mark.before)
}

/// What a mark proves of a round whose counts were taken at this time.
fn proven(before: i64) -> Option<i64> {
    Some(before - VISIBLE_WITHIN)
}

fn started() -> Completeness {
    let mut completeness = Completeness::default();
    completeness.started(1_000 * MS);
    completeness
}

#[test]
fn a_round_that_is_acknowledged_in_all_partitions_proves_the_time_before_it() {
    let mut completeness = started();
    assert_eq!(reached(&completeness), Some(1_000 * MS));
    completeness.begin_round(2_000 * MS, 2, &[true, true]);
    completeness.idle(1);
    assert_eq!(reached(&completeness), Some(1_000 * MS), "partition 0 is still open");
    completeness.acknowledged(0, Some(41));
    completeness.idle(0);
    assert_eq!(reached(&completeness), proven(2_000 * MS));
    assert_eq!(completeness.current.as_ref().unwrap().ends, [42, 0]);
}

#[test]
fn a_partition_that_was_in_flight_when_the_sweep_began_must_complete_a_later_round() {
    let mut completeness = started();
    completeness.begin_round(2_000 * MS, 2, &[true, true]);
    completeness.idle(0);
    // Partition 1 is still in flight.
    completeness.begin_round(3_000 * MS, 2, &[true, false]);
    completeness.idle(0);
    completeness.acknowledged(1, Some(7));
    completeness.idle(1);
    assert_eq!(reached(&completeness), proven(2_000 * MS), "the first sweep is over");
    completeness.begin_round(4_000 * MS, 2, &[true, false]);
    completeness.idle(0);
    completeness.idle(1);
    assert_eq!(reached(&completeness), proven(2_000 * MS), "partition 1 took no part in it yet");
    completeness.begin_round(5_000 * MS, 2, &[true, true]);
    completeness.idle(0);
    completeness.idle(1);
    assert_eq!(reached(&completeness), proven(4_000 * MS), "the time at which the sweep began");
}

#[test]
fn a_refused_message_or_another_number_of_partitions_ends_the_sweep() {
    for is_refused in [true, false] {
        let mut completeness = started();
        completeness.begin_round(2_000 * MS, 2, &[true, true]);
        completeness.idle(0);
        if is_refused {
            completeness.refused();
        } else {
            completeness.begin_round(2_500 * MS, 3, &[true, false, true]);
        }
        completeness.idle(1);
        completeness.idle(0);
        assert_eq!(reached(&completeness), Some(1_000 * MS));
        let (count, begun) = if is_refused { (2, &[true; 2][..]) } else { (3, &[true; 3][..]) };
        completeness.begin_round(3_000 * MS, count, begun);
        (0..count).for_each(|partition| completeness.idle(partition));
        assert_eq!(reached(&completeness), proven(if is_refused { 3_000 * MS } else { 2_500 * MS }));
    }
}

#[test]
fn an_acknowledgement_without_an_offset_is_waited_out_until_a_later_one_has_it() {
    let mut completeness = started();
    completeness.begin_round(2_000 * MS, 1, &[true]);
    completeness.acknowledged(0, None);
    completeness.idle(0);
    assert_eq!(reached(&completeness), Some(1_000 * MS));
    assert_eq!(completeness.finish(9_000 * MS), None);
    completeness.begin_round(3_000 * MS, 1, &[true]);
    completeness.acknowledged(0, Some(9));
    completeness.idle(0);
    assert_eq!(completeness.current, Some(Mark { before: 2_000 * MS - VISIBLE_WITHIN, ends: vec![10] }));
    completeness.finish(9_000 * MS).unwrap();
    assert_eq!(completeness.current, Some(Mark { before: 9_000 * MS, ends: vec![10] }));
}

#[test]
fn a_message_in_doubt_keeps_certainty_where_it_was_until_that_checkpoint_is_dismissed() {
    let mut completeness = started();
    completeness.begin_round(2_000 * MS, 1, &[true]);
    completeness.idle(0);
    completeness.begin_round(3_000 * MS, 1, &[true]);
    completeness.in_doubt(5, 2);
    completeness.in_doubt(6, 2);
    completeness.idle(0);
    assert_eq!(reached(&completeness), proven(3_000 * MS));
    let since = 2_000 * MS - VISIBLE_WITHIN;
    assert_eq!(completeness.doubts(), [Doubt { kind: DoubtKind::InDoubt, since, number: 2, value: 11 }]);
    for number in 3..100 {
        completeness.in_doubt(1, number);
    }
    assert_eq!(completeness.doubts().len(), MOST_DOUBTS);
    assert_eq!(completeness.doubts().iter().map(|doubt| doubt.value).sum::<u64>(), 11 + 97);
    assert_eq!(completeness.doubts().last().unwrap().number, 99, "dismissing less does not accept it");
}

#[test]
fn offsets_of_a_recreated_topic_prove_nothing_of_the_one_before() {
    let mut completeness = started();
    completeness.recreated(1);
    assert_eq!(completeness.doubts(), [], "nothing was sent yet");
    completeness.begin_round(2_000 * MS, 1, &[true]);
    completeness.acknowledged(0, Some(1_000));
    completeness.idle(0);
    completeness.marks(TEN_SECONDS);
    completeness.recreated(4);
    assert_eq!(completeness.doubts(), [Doubt { kind: DoubtKind::Recreated, since: 1_000 * MS, number: 4, value: 0 }]);
    let marks = completeness.marks(TEN_SECONDS);
    assert_eq!(marks, [Mark { before: 2_000 * MS - VISIBLE_WITHIN, ends: vec![] }]);
    completeness.begin_round(3_000 * MS, 1, &[true]);
    completeness.acknowledged(0, Some(5));
    completeness.idle(0);
    assert_eq!(completeness.marks(TEN_SECONDS)[0].ends, [6]);
}

#[test]
fn a_clock_that_was_set_back_lowers_every_time_and_nothing_else_does() {
    let mut completeness = started();
    for second in [2_000, 30_000] {
        completeness.begin_round(second * MS, 1, &[true]);
        completeness.acknowledged(0, Some(second.unsigned_abs()));
        completeness.idle(0);
        completeness.marks(TEN_SECONDS);
    }
    completeness.begin_round(40_000 * MS, 1, &[true]);
    completeness.clock_set_back(10_000 * MS);
    let marks = completeness.marks(TEN_SECONDS);
    assert_eq!(
        marks.iter().map(|mark| mark.before).collect::<Vec<_>>(),
        [10_000 * MS, 2_000 * MS - VISIBLE_WITHIN, 1_000 * MS]
    );
    completeness.idle(0);
    assert_eq!(reached(&completeness), Some(10_000 * MS));
}

#[test]
fn older_marks_are_kept_at_growing_distances_and_the_oldest_for_ever() {
    let mut completeness = started();
    for checkpoint in 1..=10_000i64 {
        let now = 1_000 * MS + checkpoint * TEN_SECONDS;
        completeness.begin_round(now, 1, &[true]);
        completeness.acknowledged(0, Some(checkpoint.unsigned_abs()));
        completeness.idle(0);
        let marks = completeness.marks(TEN_SECONDS);
        assert!(marks.len() <= MOST_MARKS);
        assert!(marks.windows(2).all(
            |pair| pair[0].before > pair[1].before && pair[0].ends[0] > pair[1].ends.first().copied().unwrap_or(0)
        ));
        assert_eq!(marks.last().unwrap().before, 1_000 * MS);
        // A sink that is behind by any lag finds a mark that is not much older.
        for lag in [1, 2, 10, 100, 1_000] {
            if lag < checkpoint {
                let settled = (checkpoint - lag).unsigned_abs();
                let mark = marks.iter().find(|mark| mark.ends.first().is_none_or(|end| *end <= settled + 1)).unwrap();
                let age = (now - mark.before) / TEN_SECONDS;
                assert!(age <= lag * AGES_GROW * AGES_GROW + 1, "{age} intervals for a lag of {lag} at {checkpoint}");
            }
        }
    }
}

#[test]
fn a_producer_that_rests_keeps_one_mark_and_one_with_many_partitions_few() {
    let mut completeness = started();
    for second in 2..100 {
        completeness.begin_round(second * TEN_SECONDS, 1, &[true]);
        completeness.idle(0);
        assert_eq!(completeness.marks(TEN_SECONDS).len(), 1);
    }
    let (mut completeness, partitions) = (started(), 9_000u32);
    for second in 2..10 {
        completeness.begin_round(second * TEN_SECONDS, partitions, &vec![true; partitions as usize]);
        for partition in 0..partitions {
            completeness.acknowledged(partition, Some(second.unsigned_abs()));
            completeness.idle(partition);
        }
        assert!(completeness.marks(TEN_SECONDS).len() <= 2);
    }
}

#[test]
fn a_checkpoint_stays_small_after_a_day_at_full_speed() {
    // A message a second in each partition: at the end of the day the offsets have nine digits, because others publish too.
    for (partitions, most) in [(4, 1_100), (64, 5_500)] {
        let mut completeness = started();
        for checkpoint in 1..=8_640i64 {
            let now = 1_769_860_800_000 * MS + checkpoint * TEN_SECONDS;
            completeness.begin_round(now, partitions, &vec![true; partitions as usize]);
            for partition in 0..partitions {
                completeness.acknowledged(partition, Some(100_000_000 + checkpoint.unsigned_abs() * 1_000));
                completeness.idle(partition);
            }
            completeness.marks(TEN_SECONDS);
        }
        let checkpoint = Checkpoint {
            producer: "0123456789abcdef0123456789abcdef".to_owned(),
            number: 8_640,
            service: "checkout".to_owned(),
            instance: "checkout-7d9f5b-x2x9k".to_owned(),
            host: "checkout-7d9f5b-x2x9k".to_owned(),
            pid: 1,
            version: "1.0.0".to_owned(),
            topic: "tallybus.counters".to_owned(),
            stream: Some("kafka:MkU3OEVBNTcwNTJENDM2Qg:AAAAAAAAAAAAAAAAAAAAAQ".to_owned()),
            started: 1_769_860_800_000 * MS,
            time: 1_769_947_200_000 * MS,
            interval_ms: 10_000,
            marks: completeness.marks(TEN_SECONDS),
            doubts: vec![],
            end: None,
            emitted: 1_000_000_000,
            delivered: 1_000_000_000,
            unknown: 0,
            messages: 5_000_000,
            give_backs: 0,
            series: 10_000,
            overflowed: 0,
            previous: Some((1_769_947_190_000 * MS, 999_000_000)),
        };
        let bytes = checkpoint.encode().unwrap().len();
        println!("{bytes} bytes with {partitions} partitions and {} marks", checkpoint.marks.len());
        assert!(bytes < most, "{bytes} bytes with {partitions} partitions");
    }
}

/// A count: when it was made, its partition, and whether the bus has it.
struct Count {
    at: i64,
    partition: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight,
    OnBus,
}

fn pick(rng: &mut Rng, below: usize) -> usize {
    usize::try_from(rng.below(below as u64)).unwrap()
}

fn number(partition: usize) -> u32 {
    u32::try_from(partition).unwrap()
}

/// Random lives of the publisher against a model that knows each count: whatever is refused, late or moved to other partitions,
/// no mark is ahead of what the bus has.
#[test]
fn no_mark_is_ahead_of_any_count_in_random_lives() {
    let mut advances = 0;
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut completeness = Completeness::default();
        let (mut now, mut partitions) = (1_000 * MS, 1 + pick(&mut rng, 3));
        completeness.started(now);
        let mut counts: Vec<Count> = Vec::new();
        let mut flights: Vec<VecDeque<Vec<usize>>> = vec![VecDeque::new(); 8];
        let mut last = now;
        for _ in 0..300 {
            now += 2 * MS;
            match rng.below(20) {
                0..=4 => {
                    let partition = pick(&mut rng, partitions);
                    counts.push(Count { at: now, partition, state: State::Waiting });
                }
                5..=10 => {
                    let begun: Vec<bool> =
                        (0..partitions).map(|partition| flights[partition].is_empty() && rng.below(4) > 0).collect();
                    for (index, count) in counts.iter_mut().enumerate() {
                        if count.state == State::Waiting && begun[count.partition] {
                            count.state = State::InFlight;
                            // A round of several messages, one after another.
                            let many = flights[count.partition].back().is_none_or(|message| message.len() >= 2);
                            if many {
                                flights[count.partition].push_back(Vec::new());
                            }
                            flights[count.partition].back_mut().unwrap().push(index);
                        }
                    }
                    completeness.begin_round(now, number(partitions), &begun);
                    for partition in (0..partitions).filter(|partition| begun[*partition]) {
                        if flights[partition].is_empty() {
                            completeness.idle(number(partition));
                        }
                    }
                }
                11..=17 => {
                    let partition = pick(&mut rng, partitions);
                    if let Some(message) = flights[partition].pop_front() {
                        message.iter().for_each(|index| counts[*index].state = State::OnBus);
                        completeness.acknowledged(number(partition), (rng.below(10) > 0).then_some(now.unsigned_abs()));
                        if flights[partition].is_empty() {
                            completeness.idle(number(partition));
                        }
                    }
                }
                18 => {
                    let partition = pick(&mut rng, partitions);
                    if !flights[partition].is_empty() {
                        // The message and the rest of the round return to the counters.
                        let rest: Vec<usize> = flights[partition].drain(..).flatten().collect();
                        for index in rest {
                            // Its series may have moved meanwhile.
                            counts[index].partition = pick(&mut rng, partitions);
                            counts[index].state = State::Waiting;
                        }
                        completeness.refused();
                    }
                }
                _ if rng.below(4) == 0 && partitions < 8 => {
                    partitions += 1;
                    // Series move; what is in flight stays where it is.
                    for count in counts.iter_mut().filter(|count| count.state == State::Waiting) {
                        count.partition = pick(&mut rng, partitions);
                    }
                }
                _ => {}
            }
            let before = reached(&completeness).unwrap();
            advances += usize::from(before > last);
            last = before;
            let late = counts.iter().find(|count| count.at < before && count.state != State::OnBus);
            assert!(
                late.is_none(),
                "seed {seed}: a count of {} is {:?}, the mark is {before}",
                late.unwrap().at,
                late.unwrap().state
            );
        }
    }
    assert!(advances > 1_000, "only {advances} advances in all lives");
}
