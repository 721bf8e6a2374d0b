use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tallybus_bus::{BusError, Commit, CommitError, Committed, Expected, TopicPartition};

use super::member::{Member, commit, run_all};
use super::{PATIENCE, Subject, publish_numbers};

fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

fn committed(offset: u64, metadata: &str) -> Option<Committed> {
    Some(Committed { offset, metadata: metadata.to_owned() })
}

pub fn one_member_gets_everything_and_goes_on_where_it_committed(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, group) = (subject.topic("alone", 3), subject.unique("group"));
    for partition in 0..3 {
        publish_numbers(&*bus, &topic, partition, 0, 30);
    }
    let mut first = Member::join(subject, &group, &[&topic]);
    first.until("all records", |member| member.records.len() == 90);
    for assignment in &first.assigned {
        assert_eq!(assignment.committed, None);
        assert_eq!((assignment.range.first, assignment.range.end), (0, 30));
    }
    for partition in 0..3 {
        let offsets: Vec<u64> = first
            .records
            .iter()
            .filter(|(of, ..)| *of == at(&topic, partition))
            .map(|(_, offset, _)| *offset)
            .collect();
        assert_eq!(offsets, (0..30).collect::<Vec<u64>>());
    }
    assert_eq!(first.subscriber.range(&at(&topic, 1)).unwrap().end, 30);
    let both = first.subscriber.ranges(&[at(&topic, 1), at(&topic, 0)]).unwrap();
    assert_eq!(both[0].end, 30, "in the order asked for");
    assert_eq!(both[1], first.subscriber.range(&at(&topic, 0)).unwrap());
    let commits: Vec<Commit> = (0..3).map(|partition| commit(&at(&topic, partition), 20, "twenty")).collect();
    first.commit_now(&commits);
    assert_eq!(
        subject.bus().observer().unwrap().committed_by(&group, &topic).unwrap(),
        vec![committed(20, "twenty"); 3]
    );
    first.subscriber.leave();

    let mut second = Member::join(subject, &group, &[&topic]);
    second.until("the rest", |member| member.records.len() == 30);
    second.run_for(Duration::from_millis(200));
    assert_eq!(second.records.len(), 30);
    assert!(second.records.iter().all(|(_, offset, _)| *offset >= 20));
    assert_eq!(second.assigned.len(), 3);
    for assignment in &second.assigned {
        assert_eq!(assignment.committed, committed(20, "twenty"));
    }
}

pub fn members_share_join_and_leave_and_see_every_record_once(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, group) = (subject.topic("shared", 4), subject.unique("group"));
    let mut published = 0;
    let mut publish = || {
        for partition in 0..4 {
            publish_numbers(&*bus, &topic, partition, published, 50);
        }
        published += 50;
    };
    let total = |members: &[&mut Member]| members.iter().map(|member| member.owned.len()).sum::<usize>();
    publish();
    let mut a = Member::join(subject, &group, &[&topic]);
    a.until("all partitions", |member| member.owned.len() == 4 && member.records.len() >= 20);

    let mut b = Member::join(subject, &group, &[&topic]);
    publish();
    run_all(&mut [&mut a, &mut b], "two each", |all| all.iter().all(|member| member.owned.len() == 2));

    let mut c = Member::join(subject, &group, &[&topic]);
    publish();
    run_all(&mut [&mut a, &mut b, &mut c], "a share for each of three", |all| {
        total(all) == 4 && all.iter().all(|member| !member.owned.is_empty())
    });
    let mut seen = b.leave();
    publish();
    run_all(&mut [&mut a, &mut c], "two each again", |all| all.iter().all(|member| member.owned.len() == 2));
    publish();
    let wanted = 4 * 5 * 50 - seen.len();
    run_all(&mut [&mut a, &mut c], "all records", |all| {
        all.iter().map(|member| member.records.len()).sum::<usize>() >= wanted
    });
    assert!(a.lost.is_empty() && c.lost.is_empty(), "nobody was silent");
    seen.extend(a.leave());
    seen.extend(c.leave());

    let mut times: BTreeMap<(TopicPartition, u64), usize> = BTreeMap::new();
    for (of, offset, text) in seen {
        assert_eq!(text, offset.to_string());
        *times.entry((of, offset)).or_default() += 1;
    }
    assert_eq!(times.len(), 4 * 250, "records are missing");
    assert!(times.values().all(|count| *count == 1), "records came twice");
    for (partition, committed) in (0..4).zip(subject.bus().observer().unwrap().committed_by(&group, &topic).unwrap()) {
        assert_eq!(committed.map(|committed| committed.offset), Some(250), "partition {partition}");
    }
}

pub fn metadata_comes_back_as_written(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("metadata", 4), subject.unique("group"));
    for partition in 0..4 {
        publish_numbers(&*subject.bus(), &topic, partition, 0, 5);
    }
    let unicode = "é→𝄞x".repeat(400);
    assert_eq!(unicode.len(), 4_000);
    let kilobyte: String = (0..256).map(|n| format!("{n:04x}")).collect();
    let written = [unicode, kilobyte, "größe→𝄞\n\"\\\t".repeat(57), String::new()];

    let mut first = Member::join(subject, &group, &[&topic]);
    first.until("all partitions", |member| member.owned.len() == 4);
    let places: Vec<TopicPartition> = (0..4).map(|partition| at(&topic, partition)).collect();
    assert_eq!(first.subscriber.state().get(&places).unwrap(), [None, None, None, None]);
    let commits: Vec<Commit> =
        (1..).zip(places.iter().zip(&written)).map(|(offset, (at, metadata))| commit(at, offset, metadata)).collect();
    first.commit_now(&commits);
    let expected: Vec<Option<Committed>> =
        commits.iter().map(|commit| committed(commit.offset, &commit.metadata)).collect();
    assert_eq!(first.subscriber.state().get(&places).unwrap(), expected);
    assert_eq!(subject.bus().observer().unwrap().committed_by(&group, &topic).unwrap(), expected);
    first.subscriber.leave();

    let mut second = Member::join(subject, &group, &[&topic]);
    second.until("all partitions", |member| member.owned.len() == 4);
    for assignment in &second.assigned {
        assert_eq!(assignment.committed, expected[assignment.at.partition as usize], "{}", assignment.at);
    }
    assert_eq!(second.subscriber.state().get(&places[1..2]).unwrap(), expected[1..2]);
}

/// Two members of which the first has been asked for partitions and still holds them.
fn asked_back(subject: &dyn Subject, name: &str) -> (String, String, Member, Member) {
    let (topic, group) = (subject.topic(name, 2), subject.unique("group"));
    publish_numbers(&*subject.bus(), &topic, 0, 0, 10);
    publish_numbers(&*subject.bus(), &topic, 1, 0, 10);
    let mut first = Member::join(subject, &group, &[&topic]);
    first.until("all records", |member| member.records.len() == 20);
    first.keep_revoked = true;
    let mut second = Member::join(subject, &group, &[&topic]);
    run_all(&mut [&mut first, &mut second], "a revocation", |all| !all[0].asked_back.is_empty());
    (topic, group, first, second)
}

pub fn a_commit_inside_a_revocation_is_seen_by_the_next_owner(subject: &dyn Subject) {
    let (topic, group, mut first, mut second) = asked_back(subject, "revoked");
    // The group waits for the release, for as long as the session would last.
    second.run_for(Duration::from_millis(500));
    for at in &first.asked_back {
        assert!(!second.owned.contains_key(at), "{at} was given away before its release");
    }
    let given: Vec<TopicPartition> = first.asked_back.clone();
    let commits: Vec<Commit> = given.iter().map(|at| commit(at, 7, "inside")).collect();
    first.commit_now(&commits);
    first.release(&given);
    first.keep_revoked = false;
    run_all(&mut [&mut first, &mut second], "one each", |all| all.iter().all(|member| member.owned.len() == 1));
    let moved = second.owned.keys().next().cloned().unwrap();
    assert!(given.contains(&moved));
    let last = second.assigned.iter().rfind(|assignment| assignment.at == moved).unwrap();
    assert_eq!(last.committed, committed(7, "inside"));
    second.until("the rest", |member| member.records.len() >= 3);
    assert_eq!(second.records.iter().map(|(_, offset, _)| *offset).collect::<Vec<_>>(), [7, 8, 9]);
    assert_eq!(
        subject.bus().observer().unwrap().committed_by(&group, &topic).unwrap()[moved.partition as usize],
        committed(7, "inside")
    );
}

pub fn a_commit_after_the_release_is_refused(subject: &dyn Subject) {
    let (topic, group, mut first, mut second) = asked_back(subject, "released");
    let given: Vec<TopicPartition> = first.asked_back.clone();
    first.settle(&given);
    first.release(&given);
    first.keep_revoked = false;
    run_all(&mut [&mut first, &mut second], "one each", |all| all.iter().all(|member| member.owned.len() == 1));
    let moved = second.owned.keys().next().cloned().unwrap();
    second.commit_now(&[commit(&moved, 10, "new owner")]);

    let late = [commit(&moved, 1, "late")];
    let answers = first.subscriber.state().compare_and_set_now(&late, PATIENCE);
    assert!(matches!(answers[..], [(_, Err(CommitError::NotOwner(_)))]), "{answers:?}");
    first.subscriber.state().compare_and_set(&late).unwrap();
    first.until("the answer", |member| !member.answers.is_empty());
    assert!(matches!(first.answers[0], (_, Err(CommitError::NotOwner(_)))), "{:?}", first.answers);
    assert_eq!(
        subject.bus().observer().unwrap().committed_by(&group, &topic).unwrap()[moved.partition as usize],
        committed(10, "new owner")
    );
}

pub fn a_commit_is_answered_by_an_event(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("noticed", 2), subject.unique("group"));
    publish_numbers(&*subject.bus(), &topic, 0, 0, 5);
    let mut member = Member::join(subject, &group, &[&topic]);
    member.until("all partitions", |member| member.owned.len() == 2);
    let commits = [commit(&at(&topic, 0), 3, "three"), commit(&at(&topic, 1), 0, "nothing yet")];
    member.subscriber.state().compare_and_set(&commits).unwrap();
    member.until("the answer", |member| member.answers.len() >= 2);
    let mut answered: Vec<u32> = member.answers.iter().map(|(at, _)| at.partition).collect();
    answered.sort_unstable();
    assert_eq!(answered, [0, 1]);
    assert!(member.answers.iter().all(|(_, answer)| answer.is_ok()));
    member.run_for(Duration::from_millis(100));
    assert_eq!(member.answers.len(), 2, "one answer each");
    assert_eq!(
        subject.bus().observer().unwrap().committed_by(&group, &topic).unwrap(),
        [committed(3, "three"), committed(0, "nothing yet")]
    );
}

pub fn ten_thousand_commits(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("commits", 2), subject.unique("group"));
    let mut member = Member::join(subject, &group, &[&topic]);
    member.until("all partitions", |member| member.owned.len() == 2);
    let metadata = |number: u64| format!("sealed up to {number}, settings 0123456789abcdef");
    let began = Instant::now();
    for number in 0..10_000 {
        let one = [commit(&at(&topic, u32::from(number % 2 == 1)), number, &metadata(number))];
        if number < 5_000 {
            member.commit_now(&one);
            continue;
        }
        member.subscriber.state().compare_and_set(&one).unwrap();
        member.until("the answer", |member| !member.answers.is_empty());
        let (answered, answer) = member.answers.remove(0);
        assert_eq!(answered, one[0].at);
        assert!(answer.is_ok(), "{answer:?}");
    }
    println!("ten thousand commits took {:?}", began.elapsed());
    let last = [committed(9_998, &metadata(9_998)), committed(9_999, &metadata(9_999))];
    assert_eq!(subject.bus().observer().unwrap().committed_by(&group, &topic).unwrap(), last);
}

pub fn pausing_stops_one_partition_and_resuming_goes_on(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("paused", 2), subject.unique("group"));
    publish_numbers(&*subject.bus(), &topic, 0, 0, 2_000);
    let mut member = Member::join(subject, &group, &[&topic]);
    member.max = 10;
    member.until("the first records", |member| member.records.len() >= 50);
    let (paused, other) = (at(&topic, 0), at(&topic, 1));
    member.subscriber.pause(std::slice::from_ref(&paused)).unwrap();
    let before = member.count(&paused);
    assert!(before < 2_000);
    publish_numbers(&*subject.bus(), &topic, 1, 0, 100);
    member.max = 500;
    member.until("the other partition", |member| member.count(&other) == 100);
    member.run_for(Duration::from_millis(300));
    assert_eq!(member.count(&paused), before, "a paused partition was delivered");
    // A paused partition is owned as before.
    member.commit_now(&[commit(&paused, before as u64, "while paused")]);

    member.subscriber.resume(std::slice::from_ref(&paused)).unwrap();
    member.until("the rest", |member| member.count(&paused) == 2_000);
    member.run_for(Duration::from_millis(100));
    let offsets: Vec<u64> =
        member.records.iter().filter(|(of, ..)| *of == paused).map(|(_, offset, _)| *offset).collect();
    assert_eq!(offsets, (0..2_000).collect::<Vec<u64>>());
}

pub fn a_subscriber_gets_the_end_again_after_more_came(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("caught-up", 2), subject.unique("group"));
    publish_numbers(&*subject.bus(), &topic, 0, 0, 700);
    let mut member = Member::join(subject, &group, &[&topic]);
    let full = at(&topic, 0);
    member.until("both ends", |member| member.ends.len() == 2);
    assert_eq!(member.count(&full), 700, "the end came before the records");
    assert!(member.ends.contains(&full) && member.ends.contains(&at(&topic, 1)));
    member.run_for(Duration::from_millis(500));
    assert_eq!(member.ends.len(), 2, "told again without cause");

    publish_numbers(&*subject.bus(), &topic, 0, 700, 3);
    member.until("the end again", |member| member.ends.len() > 2);
    assert_eq!(member.count(&full), 703);
    assert_eq!(member.ends[2..], [full]);
}

pub fn groups_do_not_see_each_other(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, one, two) = (subject.topic("apart", 2), subject.unique("group"), subject.unique("group"));
    publish_numbers(&*bus, &topic, 1, 0, 40);
    let mut a = Member::join(subject, &one, &[&topic]);
    let mut b = Member::join(subject, &two, &[&topic]);
    run_all(&mut [&mut a, &mut b], "all records in both", |all| {
        all.iter().all(|member| member.records.len() == 40 && member.owned.len() == 2)
    });
    a.commit_now(&[commit(&at(&topic, 1), 40, "a")]);
    b.commit_now(&[commit(&at(&topic, 1), 10, "b")]);
    assert_eq!(bus.observer().unwrap().committed_by(&one, &topic).unwrap(), [None, committed(40, "a")]);
    assert_eq!(bus.observer().unwrap().committed_by(&two, &topic).unwrap(), [None, committed(10, "b")]);
    assert_eq!(bus.observer().unwrap().committed_by(&subject.unique("group"), &topic).unwrap(), [None, None]);
}

pub fn a_partition_left_out_of_start_is_not_delivered(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("left-out", 2), subject.unique("group"));
    publish_numbers(&*subject.bus(), &topic, 0, 0, 10);
    publish_numbers(&*subject.bus(), &topic, 1, 0, 10);
    let mut member = Member::join(subject, &group, &[&topic]);
    member.keep_stopped = true;
    member.until("all partitions", |member| member.owned.len() == 2);
    member.run_for(Duration::from_millis(200));
    assert!(member.records.is_empty(), "records came before the start");

    member.subscriber.start(&[(at(&topic, 1), 4)]).unwrap();
    member.until("what was started", |member| member.records.len() == 6);
    member.run_for(Duration::from_millis(300));
    let offsets: Vec<u64> = member.records.iter().map(|(_, offset, _)| *offset).collect();
    assert_eq!(offsets, [4, 5, 6, 7, 8, 9]);
    assert!(member.records.iter().all(|(of, ..)| of.partition == 1));
    // Owned all the same, and started later.
    member.commit_now(&[commit(&at(&topic, 0), 2, "")]);
    member.subscriber.start(&[(at(&topic, 0), 2)]).unwrap();
    member.until("the other", |member| member.records.len() == 14);
}

/// Whoever breaks a poll gets the rest by the next ones, in order and once.
pub fn a_member_that_has_enough_gets_the_rest_later(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("enough", 3), subject.unique("group"));
    for partition in 0..3 {
        publish_numbers(&*subject.bus(), &topic, partition, 0, 400);
    }
    let mut member = Member::join(subject, &group, &[&topic]);
    member.break_at = 7;
    member.until("everything", |member| member.records.len() == 1_200);
    for partition in 0..3 {
        let came: Vec<u64> =
            member.records.iter().filter(|(at, ..)| at.partition == partition).map(|(_, offset, _)| *offset).collect();
        assert_eq!(came, (0..400).collect::<Vec<u64>>());
    }
    member.until("the ends", |member| member.ends.len() == 3);
}

/// A wake that comes before the wait ends it too.
pub fn a_wait_ends_when_another_thread_wakes_it(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("woken", 1), subject.unique("group"));
    let mut member = Member::join(subject, &group, &[&topic]);
    member.until("its end", |member| member.ends.len() == 1);
    let waker = member.subscriber.waker();
    for early in [true, false] {
        let began = Instant::now();
        let sleeper = waker.clone();
        let wake = move || {
            std::thread::sleep(Duration::from_millis(if early { 0 } else { 200 }));
            sleeper.wake();
        };
        let thread = std::thread::spawn(wake);
        if early {
            std::thread::sleep(Duration::from_millis(50));
        }
        let polled = member.subscriber.poll(PATIENCE, 10, &mut |_| std::ops::ControlFlow::Continue(()));
        assert!(matches!(polled, Ok(None)), "{polled:?}");
        assert!(began.elapsed() < PATIENCE / 2, "nobody was woken");
        thread.join().unwrap();
    }
}

/// Whoever stands at a partition's end and keeps it while the group rebalances gets the very next record.
pub fn a_rebalance_at_the_end_skips_nothing(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("at-the-end", 2), subject.unique("group"));
    for partition in 0..2 {
        publish_numbers(&*subject.bus(), &topic, partition, 0, 10);
    }
    let mut first = Member::join(subject, &group, &[&topic]);
    first.until("the ends", |member| member.records.len() == 20 && member.ends.len() == 2);
    for round in 0..2 {
        let mut second = Member::join(subject, &group, &[&topic]);
        run_all(&mut [&mut first, &mut second], "one each", |all| all.iter().all(|member| member.owned.len() == 1));
        let kept = first.owned.keys().next().cloned().unwrap();
        let next = first.owned[&kept];
        publish_numbers(&*subject.bus(), &topic, kept.partition, next, 1);
        run_all(&mut [&mut first, &mut second], "the next record", |all| all[0].owned[&kept] == next + 1);
        let last = first.records.last().unwrap();
        assert_eq!((&last.0, last.1), (&kept, next), "round {round}");
        second.leave();
        first.until("both again", |member| member.owned.len() == 2);
    }
}

pub fn a_member_started_at_a_deleted_offset_gets_the_deleted_offsets(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, group) = (subject.topic("member-gone", 2), subject.unique("group"));
    let (gone, whole) = (TopicPartition::new(&topic, 0), TopicPartition::new(&topic, 1));
    publish_numbers(&*bus, &topic, 0, 0, 10);
    publish_numbers(&*bus, &topic, 1, 0, 5);
    subject.trim(&topic, 0, 4);
    let mut member = Member::join(subject, &group, &[&topic]);
    member.keep_stopped = true;
    member.until("both partitions", |member| member.owned.len() == 2);
    member.owned.insert(gone.clone(), 2);
    member.subscriber.start(&[(gone.clone(), 2), (whole.clone(), 0)]).unwrap();
    let mut told = Vec::new();
    let until = Instant::now() + PATIENCE;
    while told.is_empty() || member.count(&whole) < 5 {
        told.extend(member.try_step().err().filter(|error| !error.is_transient()));
        assert!(Instant::now() < until, "waited in vain, told {told:?}: {}", member.summary());
    }
    // Once, and the other partition goes on.
    for _ in 0..20 {
        told.extend(member.try_step().err().filter(|error| !error.is_transient()));
    }
    match &told[..] {
        [BusError::Gone { at, wanted: 2, first: 4 }] => assert_eq!(*at, gone),
        other => panic!("{other:?}"),
    }
    assert_eq!(member.count(&gone), 0, "nothing may be skipped");

    member.owned.insert(gone.clone(), 4);
    member.subscriber.start(&[(gone.clone(), 4)]).unwrap();
    member.until("what is kept", |member| member.count(&gone) == 6);
}

pub fn a_change_that_expects_something_else_is_refused_where_the_bus_compares(subject: &dyn Subject) {
    let (topic, group) = (subject.topic("compared", 1), subject.unique("group"));
    let mut member = Member::join(subject, &group, &[&topic]);
    member.until("the partition", |member| member.owned.len() == 1);
    let at = at(&topic, 0);
    let mut change = |expected: Option<Committed>, offset| {
        let expected = Expected::Exactly(expected);
        let commit = Commit { expected, ..commit(&at, offset, "compared") };
        let state = member.subscriber.state();
        let answer = state.compare_and_set_now(&[commit], PATIENCE).remove(0).1;
        (answer, state.get(std::slice::from_ref(&at)).unwrap().remove(0))
    };
    let held = |offset| committed(offset, "compared");

    let (answer, after) = change(None, 1);
    assert!(answer.is_ok() && after == held(1), "{answer:?}, {after:?}");
    let (answer, after) = change(held(1), 2);
    assert!(answer.is_ok() && after == held(2), "{answer:?}, {after:?}");
    for wrong in [None, held(1), committed(2, "other")] {
        let before = if subject.compares() { held(2) } else { held(3) };
        let (answer, after) = change(wrong, 3);
        assert_eq!(matches!(answer, Err(CommitError::Changed(_))), subject.compares(), "{answer:?}");
        assert_eq!(answer.is_ok(), !subject.compares(), "{answer:?}");
        assert_eq!(after, before);
    }
    assert!(member.subscriber.state().metadata_limit() >= 4_096);
}

pub fn a_group_is_reset_only_while_it_has_no_member(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, group) = (subject.topic("reset", 2), subject.unique("group"));
    publish_numbers(&*bus, &topic, 0, 0, 30);
    let to = |offset: u64, metadata: &str| {
        let new = Committed { offset, metadata: metadata.to_owned() };
        [(at(&topic, 0), new.clone()), (at(&topic, 1), Committed { offset: 0, ..new })]
    };
    // A group that never had a member.
    bus.reset_group(&group, &to(20, "operator")).unwrap();
    let mut member = Member::join(subject, &group, &[&topic]);
    member.until("the records from 20", |member| member.count(&at(&topic, 0)) == 10);
    assert!(member.assigned.iter().all(|assignment| assignment.committed.as_ref().unwrap().metadata == "operator"));
    let resetting = std::thread::scope(|scope| {
        let resetting = scope.spawn(|| bus.reset_group(&group, &to(5, "too early")));
        while !resetting.is_finished() {
            member.step();
        }
        resetting.join().unwrap()
    });
    assert!(matches!(&resetting, Err(BusError::GroupInUse(named)) if *named == group), "{resetting:?}");
    member.commit_now(&[commit(&at(&topic, 0), 30, "member")]);
    member.leave();

    let observer = bus.observer().unwrap();
    bus.reset_group(&group, &to(5, "operator again")).unwrap();
    assert_eq!(observer.committed_by(&group, &topic).unwrap()[0], committed(5, "operator again"));
    let mut member = Member::join(subject, &group, &[&topic]);
    member.until("the records from 5", |member| member.count(&at(&topic, 0)) == 25);
    let missing = TopicPartition::new(&subject.unique("missing"), 0);
    member.leave();
    assert!(bus.reset_group(&group, &[(missing, Committed { offset: 0, metadata: String::new() })]).is_err());
}
