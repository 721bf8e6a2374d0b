use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tallybus_bus::{Committed, TopicPartition};

use super::child::{Process, Start};
use super::member::{Member, commit, run_all, start_of};
use super::{Subject, publish_numbers, read_all};

fn got(lines: &[String]) -> BTreeSet<(u32, u64)> {
    let parse = |line: &String| {
        let mut words = line.strip_prefix("got ")?.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    };
    lines.iter().filter_map(parse).collect()
}

pub fn a_member_killed_without_goodbye_is_followed_by_others(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, group) = (subject.topic("killed", 4), subject.unique("group"));
    for partition in 0..4 {
        publish_numbers(&*bus, &topic, partition, 0, 200);
    }
    let child = Process::start(subject, &Start { role: "member", topic: &topic, name: &group, count: 0 });
    child.expect("owns 4");
    let mut heard = vec![child.expect("got")];
    let mut member = Member::join(subject, &group, &[&topic]);
    member.until("two partitions", |member| member.owned.len() == 2);
    for partition in 0..4 {
        publish_numbers(&*bus, &topic, partition, 200, 200);
    }
    // It dies at work.
    while got(&heard).len() < 250 {
        heard.extend(child.heard());
        member.step();
    }
    heard.extend(child.kill());
    let died = Instant::now();
    let at_death = bus.observer().unwrap().committed_by(&group, &topic).unwrap();
    let own: Vec<TopicPartition> = member.owned.keys().cloned().collect();
    let taken_before = member.assigned.len();

    member.until("the dead member's partitions", |member| member.owned.len() == 4);
    let took = died.elapsed();
    println!("took over {took:?} after the death, with a session of {:?}", subject.session_timeout());
    assert!(took >= subject.session_timeout() / 4, "a living member would be taken for dead after {took:?}");
    assert!(took <= subject.session_timeout() * 2 + Duration::from_secs(8), "{took:?}");
    for assignment in member.assigned[taken_before..].iter().filter(|assignment| !own.contains(&assignment.at)) {
        let partition = assignment.at.partition as usize;
        assert_eq!(assignment.committed, at_death[partition], "the new owner sees the dead member's last commit");
        assert_eq!(start_of(assignment), at_death[partition].as_ref().map_or(0, |committed| committed.offset));
    }
    let end = |member: &Member| member.owned.values().all(|next| *next == 400);
    member.until("the end of all partitions", end);
    let mut seen = got(&heard);
    seen.extend(member.records.iter().map(|(at, offset, _)| (at.partition, *offset)));
    assert_eq!(seen.len(), 1_600, "records are missing");
    // Settled ones came once: what the child had committed, nobody saw again.
    for (at, offset, _) in member.records.iter().filter(|(at, ..)| !own.contains(at)) {
        let settled = at_death[at.partition as usize].as_ref().map_or(0, |committed| committed.offset);
        assert!(*offset >= settled, "{at}@{offset} had been settled up to {settled}");
    }
}

pub fn a_commit_is_refused_after_the_partition_was_lost(subject: &dyn Subject) {
    let bus = subject.bus();
    let (topic, group) = (subject.topic("zombie", 2), subject.unique("group"));
    for partition in 0..2 {
        publish_numbers(&*bus, &topic, partition, 0, 10);
    }
    let mut zombie = Process::start(subject, &Start { role: "member", topic: &topic, name: &group, count: 0 });
    let mut heard = Vec::new();
    while got(&heard).len() < 20 {
        heard.push(zombie.expect("got"));
    }
    zombie.order("hold");
    zombie.expect("holding");
    zombie.signal("STOP");

    let mut owner = Member::join(subject, &group, &[&topic]);
    owner.until("the partitions of the stopped member", |member| member.owned.len() == 2);
    let places: Vec<TopicPartition> = owner.owned.keys().cloned().collect();
    assert!(owner.assigned.iter().all(|assignment| assignment.committed.as_ref().is_some_and(|c| c.offset == 10)));
    let commits: Vec<_> = places.iter().map(|at| commit(at, 5, "new owner")).collect();
    owner.commit_now(&commits);
    let expected = vec![Some(Committed { offset: 5, metadata: "new owner".to_owned() }); 2];

    // It wakes in the middle of its work, not knowing that it was given up.
    zombie.signal("CONT");
    zombie.order("commit");
    for _ in 0..2 {
        let answer = zombie.expect("commit");
        assert!(answer.ends_with("not-owner"), "{answer}");
    }
    assert_eq!(bus.observer().unwrap().committed_by(&group, &topic).unwrap(), expected, "a zombie has committed");

    // Then it learns what it lost, and joins anew.
    zombie.expect("lost 2");
    run_all(&mut [&mut owner], "a share for the one that came back", |all| all[0].owned.len() == 1);
    // The owner goes on polling: a bus may need that to hand the share over.
    let mut said = Vec::new();
    owner.until_told("the share of the one that came back", |member| {
        said.extend(zombie.heard());
        member.owned.len() == 1 && said.iter().any(|line| line == "owns 1")
    });
    assert!(owner.lost.is_empty());
}

pub fn several_processes_publish_at_once(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("crowd", 3);
    let names = ["one", "two", "three", "four"];
    let publishers: Vec<Process> = names
        .iter()
        .map(|name| Process::start(subject, &Start { role: "publisher", topic: &topic, name, count: 5_000 }))
        .collect();
    for publisher in publishers {
        publisher.finish();
    }
    let mut numbers: BTreeMap<(String, u32), Vec<u64>> = BTreeMap::new();
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    for record in read_all(&*bus, &topic) {
        let next = next.entry(record.partition).or_default();
        assert_eq!(record.offset, *next, "offsets have a gap or repeat in partition {}", record.partition);
        *next += 1;
        let (name, number) = record.text().split_once(':').unwrap();
        assert_eq!(record.key.as_deref(), Some(name.as_bytes()));
        numbers.entry((name.to_owned(), record.partition)).or_default().push(number.parse().unwrap());
    }
    for name in names {
        for partition in 0..3 {
            let expected: Vec<u64> = (0..5_000).filter(|number| number % 3 == u64::from(partition)).collect();
            assert_eq!(numbers[&(name.to_owned(), partition)], expected, "{name} in partition {partition}");
        }
    }
}

pub fn what_a_killed_publisher_was_promised_is_there(subject: &dyn Subject) {
    let bus = subject.bus();
    let topic = subject.topic("promised", 3);
    let start = Start { role: "publisher", topic: &topic, name: "killed", count: 10_000_000 };
    let publisher = Process::start(subject, &start);
    for _ in 0..20 {
        publisher.expect("acknowledged");
    }
    let last = publisher.kill().pop().unwrap_or_default();
    let promised: u64 = last.strip_prefix("acknowledged ").map_or(2_000, |count| count.parse().unwrap());
    assert!(promised >= 2_000);

    let mut numbers: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for record in read_all(&*bus, &topic) {
        let number = record.text().strip_prefix("killed:").unwrap().parse().unwrap();
        numbers.entry(record.partition).or_default().push(number);
    }
    for partition in 0..3 {
        let there = &numbers[&partition];
        let expected: Vec<u64> = (u64::from(partition)..).step_by(3).take(there.len()).collect();
        assert_eq!(*there, expected, "partition {partition} lost or doubled some");
        assert!(there.last().is_some_and(|last| last + 3 >= promised), "{:?} of {promised}", there.last());
    }
}
