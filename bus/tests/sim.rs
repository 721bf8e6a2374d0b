//! The simulated bus under the contract, and the faults that it has on command.
//!
//! The cases of the contract with other processes do not apply: the bus is memory of one process. What they show of dead and
//! frozen members is shown here with connections that are killed and silenced.

#![allow(clippy::unwrap_used, clippy::panic)]

mod contract;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use tallybus_bus::sim::{CommitFault, ManualTime, Offsets, Ownership, SimBus, Time};
use tallybus_bus::{Bus, BusError, CommitError, Committed, GroupOptions, NewRecord, PublishError, TopicPartition};

use self::contract::member::{Member, commit, run_all};
use self::contract::{Subject, publish_numbers};

struct Sim {
    bus: SimBus,
    time: Arc<ManualTime>,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let time = Arc::new(ManualTime::at(UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
        Self { bus: SimBus::new(time.clone(), seed), time }
    }

    fn join(&self, bus: &SimBus, group: &str, topic: &str) -> Member {
        Member::join_bus(bus, group, &[topic], &GroupOptions::default())
    }
}

impl Subject for Sim {
    fn bus(&self) -> Box<dyn Bus> {
        Box::new(self.bus.connect())
    }

    fn wall_ms(&self) -> i64 {
        i64::try_from(self.time.wall_time().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
    }

    fn pass(&self, time: Duration) {
        self.time.pass(time);
    }

    fn session_timeout(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn trim(&self, topic: &str, partition: u32, first: u64) {
        self.bus.trim(&TopicPartition::new(topic, partition), first).unwrap();
    }

    fn delete_topic(&self, topic: &str) {
        self.bus.delete_topic(topic, Offsets::Deleted).unwrap();
    }

    fn compares(&self) -> bool {
        true
    }
}

/// One bus for all cases, so that they also meet each other as strangers do.
fn subject() -> &'static Sim {
    static SUBJECT: LazyLock<Sim> = LazyLock::new(|| Sim::new(42));
    &SUBJECT
}

contract::suite!(subject());

/// A topic of two partitions with ten records each, and a group.
fn topic_and_group(sim: &Sim) -> (String, String) {
    let (topic, group) = (sim.topic("faults", 2), sim.unique("group"));
    for partition in 0..2 {
        publish_numbers(&sim.bus, &topic, partition, 0, 10);
    }
    (topic, group)
}

fn held(sim: &Sim, group: &str, topic: &str) -> Vec<Option<u64>> {
    let held = sim.bus.observer().unwrap().committed_by(group, topic).unwrap();
    held.into_iter().map(|held| held.map(|held| held.offset)).collect()
}

#[test]
fn a_killed_member_is_followed_by_another_once_its_session_has_timed_out() {
    let sim = Sim::new(1);
    let (topic, group) = topic_and_group(&sim);
    let (dying, other) = (sim.bus.connect(), sim.bus.connect());
    let mut first = sim.join(&dying, &group, &topic);
    first.until("all records", |member| member.records.len() == 20);
    dying.kill();
    drop(first);
    let began = sim.time.now();
    let mut second = sim.join(&other, &group, &topic);
    second.until("both partitions", |member| member.owned.len() == 2);
    let waited = sim.time.now() - began;
    assert!((Duration::from_secs(5)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
    assert!(second.lost.is_empty());
}

#[test]
fn a_commit_of_a_frozen_member_is_refused_after_another_took_over() {
    for ownership in [Ownership::Checked, Ownership::Unchecked] {
        let sim = Sim::new(2);
        sim.bus.set_ownership(ownership);
        let (topic, group) = topic_and_group(&sim);
        let (frozen, other) = (sim.bus.connect(), sim.bus.connect());
        let mut zombie = sim.join(&frozen, &group, &topic);
        zombie.until("all records", |member| member.records.len() == 20);
        frozen.silence(false);
        sim.pass(Duration::from_secs(60));
        let mut owner = sim.join(&other, &group, &topic);
        owner.until("both partitions", |member| member.owned.len() == 2);
        owner.commit_now(&[commit(&TopicPartition::new(&topic, 0), 5, "new owner")]);

        frozen.end_silence();
        let late = [commit(&TopicPartition::new(&topic, 0), 1, "late")];
        let answers = zombie.subscriber.state().compare_and_set_now(&late, Duration::from_secs(1));
        assert!(matches!(answers[..], [(_, Err(CommitError::NotOwner(_)))]), "{answers:?}");
        assert_eq!(held(&sim, &group, &topic), [Some(5), None]);
        run_all(&mut [&mut zombie, &mut owner], "one each", |all| all.iter().all(|member| member.owned.len() == 1));
        assert_eq!(zombie.lost.len(), 2);
    }
}

#[test]
fn a_live_member_commits_what_it_does_not_own_where_ownership_is_unchecked() {
    for (ownership, expected) in [(Ownership::Checked, Some(7)), (Ownership::Unchecked, Some(1))] {
        let sim = Sim::new(3);
        sim.bus.set_ownership(ownership);
        let (topic, group) = topic_and_group(&sim);
        let mut first = sim.join(&sim.bus.connect(), &group, &topic);
        first.until("both partitions", |member| member.owned.len() == 2);
        let mut second = sim.join(&sim.bus.connect(), &group, &topic);
        run_all(&mut [&mut first, &mut second], "one each", |all| all.iter().all(|member| member.owned.len() == 1));
        let theirs = second.owned.keys().next().cloned().unwrap();
        second.commit_now(&[commit(&theirs, 7, "owner")]);
        let answers = first.subscriber.state().compare_and_set_now(&[commit(&theirs, 1, "other")], Duration::ZERO);
        assert_eq!(answers[0].1.is_ok(), ownership == Ownership::Unchecked);
        assert_eq!(held(&sim, &group, &topic)[theirs.partition as usize], expected);
    }
}

#[test]
fn commits_are_lost_delayed_and_overtaken_on_command() {
    let sim = Sim::new(4);
    let (topic, group) = topic_and_group(&sim);
    let client = sim.bus.connect();
    let mut member = sim.join(&client, &group, &topic);
    member.until("everything", |member| member.records.len() == 20 && member.ends.len() == 2);
    let at = TopicPartition::new(&topic, 0);
    let cases = [
        (CommitFault::LoseTheAnswer, true, false),
        (CommitFault::Drop, false, false),
        (CommitFault::AnswerLate(3), true, true),
        (CommitFault::MakeLate(3), false, true),
    ];
    for ((fault, is_made, is_answered), offset) in cases.into_iter().zip(1..) {
        client.fault_next_commit(fault);
        let before = held(&sim, &group, &topic)[0];
        member.subscriber.state().compare_and_set(&[commit(&at, offset, "")]).unwrap();
        assert_eq!(held(&sim, &group, &topic)[0], if is_made { Some(offset) } else { before }, "{fault:?}");
        // A record overtakes the answer.
        let next = member.records.len() as u64;
        publish_numbers(&sim.bus, &topic, 1, next - 10, 1);
        member.until("the record", |member| member.records.len() as u64 > next);
        assert!(member.answers.is_empty(), "{fault:?}");
        member.until("the answer", |member| !member.answers.is_empty());
        let answer = member.answers.remove(0).1;
        assert_eq!(answer.is_ok(), is_answered, "{fault:?}: {answer:?}");
        assert_eq!(held(&sim, &group, &topic)[0], if is_answered || is_made { Some(offset) } else { before });
    }
    // A late commit is made before what the same member asks after it.
    client.fault_next_commit(CommitFault::MakeLate(100));
    member.subscriber.state().compare_and_set(&[commit(&at, 9, "")]).unwrap();
    assert_eq!(member.subscriber.state().get(std::slice::from_ref(&at)).unwrap()[0].as_ref().unwrap().offset, 9);
    let last = sim.bus.take_commits().pop().unwrap();
    assert_eq!((last.at, last.after.map(|held| held.offset)), (at, Some(9)));
}

#[test]
fn a_recreated_topic_has_another_stream_and_offsets_from_zero() {
    for (offsets, expected) in [(Offsets::Kept, Some(4)), (Offsets::Deleted, None)] {
        let sim = Sim::new(5);
        let (topic, group) = topic_and_group(&sim);
        let at = TopicPartition::new(&topic, 0);
        let observer = sim.bus.observer().unwrap();
        let stream = observer.stream_id_of(&topic).unwrap();
        sim.bus.reset_group(&group, &[(at, Committed { offset: 4, metadata: "m".to_owned() })]).unwrap();
        sim.bus.recreate_topic(&topic, offsets).unwrap();
        assert_ne!(observer.stream_id_of(&topic).unwrap(), stream);
        assert!(observer.offsets_of(&topic).unwrap().iter().all(|range| (range.first, range.end) == (0, 0)));
        assert_eq!(held(&sim, &group, &topic)[0], expected);
    }
}

#[test]
fn other_programs_change_and_forget_what_a_group_holds() {
    let sim = Sim::new(6);
    let (topic, group) = topic_and_group(&sim);
    let mut member = sim.join(&sim.bus.connect(), &group, &topic);
    member.until("both partitions", |member| member.owned.len() == 2);
    let at = TopicPartition::new(&topic, 1);
    sim.bus.commit_as_another_program(&group, &at, Committed { offset: 3, metadata: String::new() }).unwrap();
    assert_eq!(held(&sim, &group, &topic), [None, Some(3)]);
    sim.bus.forget_group(&group).unwrap();
    assert_eq!(held(&sim, &group, &topic), [None, None]);
}

#[test]
fn an_evicted_member_learns_of_it_and_a_member_may_be_assigned_what_it_did_not_ask_for() {
    let sim = Sim::new(7);
    let (topic, group) = topic_and_group(&sim);
    let client = sim.bus.connect();
    let mut member = sim.join(&client, &group, &topic);
    member.until("both partitions", |member| member.owned.len() == 2);
    client.evict();
    member.until("the eviction, and both again", |member| member.lost.len() == 2 && member.owned.len() == 2);
    let foreign = sim.topic("foreign", 1);
    sim.bus.misassign(&group, &foreign);
    member.until("the foreign partition", |member| member.owned.contains_key(&TopicPartition::new(&foreign, 0)));
    sim.bus.end_misassignment(&group);
    member.until("its end", |member| member.owned.len() == 2);
}

#[test]
fn an_unavailable_bus_and_a_refusing_topic_are_errors_until_they_end() {
    let sim = Sim::new(8);
    let (topic, _) = topic_and_group(&sim);
    let client = sim.bus.connect();
    let mut publisher = client.publisher().unwrap();
    let record = NewRecord { topic: &topic, partition: Some(0), key: None, payload: b"x", headers: &[] };
    sim.bus.set_away(true);
    assert!(matches!(publisher.publish(record, 1), Err(BusError::Unavailable(_))));
    sim.bus.set_away(false);
    client.silence(true);
    assert!(matches!(client.observer().unwrap().offsets_of(&topic), Err(BusError::Unavailable(_))));
    assert!(sim.bus.observer().unwrap().offsets_of(&topic).is_ok());
    client.end_silence();

    let mut outcome = |token| {
        let mut deliveries = Vec::new();
        publisher.publish(record, token).unwrap();
        publisher.poll(Duration::ZERO, &mut deliveries);
        deliveries.remove(0).outcome
    };
    sim.bus.set_refusing(&topic, true);
    assert!(matches!(outcome(1), Err(PublishError::Refused(_))));
    sim.bus.set_refusing(&topic, false);
    sim.bus.lose_acknowledgements(&topic, 1);
    assert!(matches!(outcome(2), Err(PublishError::Unknown(_))));
    assert_eq!(outcome(3).unwrap().offset, Some(11), "the record without an acknowledgement was stored");
}
