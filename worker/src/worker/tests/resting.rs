//! Workers that operators want paused or drained.

use tallybus_control::{Address, Desired, DesiredState, VERSION};

use super::*;
use crate::duty::{Duty, RestProgress, SettledPartition, Wanted};

pub(super) fn wanted(state: DesiredState, id: &str) -> Wanted {
    Wanted::Known(Some(Desired {
        version: VERSION,
        id: id.to_owned(),
        issuer: "ada@desk".to_owned(),
        issued_ms: 1_700_000_000_000,
        target: Address::All,
        state,
        reason: "disk change".to_owned(),
    }))
}

impl World {
    /// A worker that follows what operators want.
    fn start_controlled(&self) -> Process {
        let runtime = Arc::new(Builder::new_current_thread().build().unwrap());
        let bus = Arc::new(self.bus.connect());
        let clock = Arc::new(ProcessClock::new(self.time.clone(), &runtime));
        let sink = Arc::new(FakeSink::new(Arc::clone(&self.backend)));
        let own_bus = Arc::clone(&bus) as Arc<dyn Bus>;
        let worker = Worker::controlled(own_bus, sink, runtime.handle().clone(), Self::options(), clock).unwrap();
        Process { bus, worker, runtime }
    }

    /// What the group holds sealed in a partition.
    fn sealed(&self, partition: u32) -> Vec<u64> {
        let Some(held) = self.held(partition) else { return Vec::new() };
        SealMetadata::parse(held.offset, &held.metadata).unwrap().ends
    }
}

impl Process {
    fn want(&self, state: DesiredState) {
        self.worker.handle.want(wanted(state, state.name()));
    }

    fn duty(&self) -> Duty {
        self.status().duty
    }

    fn is(&self, name: &str) -> bool {
        self.duty().name() == name
    }

    /// What it says is not settled yet.
    fn left(&self) -> String {
        match self.duty() {
            Duty::Resting(rest) => match rest.progress {
                RestProgress::Unsettled(left) => left,
                RestProgress::Settled(_) => String::new(),
            },
            _ => String::new(),
        }
    }

    fn said(&self) -> Vec<SettledPartition> {
        match self.duty() {
            Duty::Resting(rest) => match rest.progress {
                RestProgress::Settled(said) => said,
                RestProgress::Unsettled(left) => panic!("not settled: {left}"),
            },
            other => panic!("does not rest: {other:?}"),
        }
    }
}

fn said(partition: u32, offset: u64) -> SettledPartition {
    SettledPartition { partition: at(partition).to_string(), offset: Some(offset) }
}

#[test]
fn a_worker_that_is_drained_under_load_settles_what_is_sealed_leaves_and_seals_nothing_more() {
    let world = World::new(2);
    world.bus.set_ownership(Ownership::Unchecked);
    let mut process = world.start();
    world.publish(0, 25);
    world.publish(1, 25);
    process.until("batches are in flight", |process| process.sealed(0) > 0);
    process.want(DesiredState::Drained);
    process.until("it is drained", |process| process.is("drained"));
    let offsets = [world.offset(0).unwrap(), world.offset(1).unwrap()];
    let mut named = process.said();
    named.sort_by(|one, other| one.partition.cmp(&other.partition));
    assert_eq!(named, [said(0, offsets[0]), said(1, offsets[1])]);
    assert!(world.sealed(0).is_empty() && world.sealed(1).is_empty());
    assert_eq!(world.backend.total(), offsets[0] + offsets[1]);
    assert!(!process.owns(0) && !process.status().is_member);
    world.bus.take_commits();
    world.publish(0, 30);
    process.steps(200);
    assert!(world.bus.take_commits().is_empty(), "nothing is sealed after it");
    assert_eq!(world.noted(0), Some(offsets[0]));
    // Others need not wait for its session to time out, and read what it had open.
    let mut other = world.start();
    other.until("the other one has all", |_| world.offset(0) == Some(55) && world.offset(1) == Some(25));
    assert!(process.is("drained") && world.backend.total() == 80);
    other.finish();
    process.want(DesiredState::Running);
    world.publish(1, 10);
    process.until("it runs again", |_| world.offset(1) == Some(35));
    assert!(process.is("running") && process.status().is_member);
    assert_eq!(world.backend.violations(), [""; 0]);
}

#[test]
fn with_a_backend_that_is_away_a_worker_is_draining_for_as_long_and_says_so() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("the beginning is committed", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.publish(0, 20);
    process.until("both are sealed", |process| process.sealed(0) == 2);
    process.until("a write is tried", |process| process.status().retries > 0);
    process.want(DesiredState::Drained);
    for _ in 0..2_000 {
        process.step();
        assert!(process.is("draining"), "{:?}", process.duty());
    }
    assert_eq!(process.left(), "2 batches in flight; backend: busy");
    assert!(process.duty().reason().unwrap().contains("by ada@desk since 2023-11-14T22:13:20Z: disk change"));
    world.publish(0, 10);
    world.backend.decide(|_| None);
    process.until("it is drained", |process| process.is("drained"));
    assert_eq!((process.said(), world.backend.total()), (vec![said(0, 20)], 20));
}

#[test]
fn a_settling_commit_whose_answer_is_lost_is_read_back_before_drained_is_said() {
    for fault in [CommitFault::LoseTheAnswer, CommitFault::Drop, CommitFault::MakeLate(40)] {
        let world = World::new(1);
        let mut process = world.start();
        process.until("the beginning is committed", |_| world.offset(0) == Some(0));
        world.publish(0, 10);
        process.until("it is sealed", |process| process.sealed(0) == 1);
        process.bus.fault_next_commit(fault);
        process.want(DesiredState::Drained);
        process.until("it is drained", |process| {
            let is_settled = world.offset(0) == Some(10) && world.sealed(0).is_empty();
            assert!(is_settled || !process.is("drained"), "{fault:?}: {:?}", process.duty());
            process.is("drained")
        });
    }
}

#[test]
fn a_bus_that_is_away_confirms_nothing_and_is_waited_for() {
    let world = World::new(1);
    let mut process = world.start();
    world.publish(0, 10);
    process.until("it is settled", |_| world.offset(0) == Some(10));
    world.bus.set_away(true);
    process.want(DesiredState::Drained);
    process.steps(300);
    assert!(process.is("draining"));
    world.bus.set_away(false);
    process.until("it is drained", |process| process.is("drained"));
}

#[test]
fn a_worker_that_is_started_drained_does_not_join_and_one_that_does_not_know_waits() {
    let world = World::new(1);
    world.publish(0, 20);
    let mut process = world.start_controlled();
    process.steps(300);
    assert!(process.is("waiting") && !process.status().is_member);
    assert_eq!(world.offset(0), None);
    process.worker.handle.want(Wanted::Unknown("the bus does not answer".to_owned()));
    process.step();
    assert!(process.duty().reason().unwrap().ends_with("the bus does not answer"));
    process.want(DesiredState::Drained);
    process.until("it is drained", |process| process.is("drained"));
    process.steps(300);
    assert_eq!((world.offset(0), world.backend.total(), process.said()), (None, 0, Vec::new()));
    assert_eq!(process.status().last_error, None);
    process.worker.handle.want(Wanted::Known(None));
    process.until("it runs", |_| world.offset(0) == Some(20));
    assert!(process.is("running"));
}

#[test]
fn what_an_earlier_life_left_sealed_is_settled_before_the_next_one_says_that_it_is_drained() {
    let world = World::new(1);
    let mut first = world.start();
    first.until("the beginning is committed", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.publish(0, 20);
    first.until("both are sealed", |process| process.sealed(0) == 2);
    first.want(DesiredState::Drained);
    first.steps(50);
    first.bus.kill();
    drop(first);
    let mut second = world.start_controlled();
    second.want(DesiredState::Drained);
    for _ in 0..1_000 {
        second.step();
        assert!(second.is("draining"), "{:?}", second.duty());
    }
    // There is no other worker: it takes the partition to settle it.
    assert!(second.owns(0), "{:?}", second.status());
    assert_eq!(second.left(), "2 batches in flight; backend: busy");
    world.publish(0, 10);
    world.backend.decide(|_| None);
    second.until("it is drained", |process| process.is("drained"));
    assert_eq!((world.offset(0), world.sealed(0), second.said()), (Some(20), Vec::new(), vec![said(0, 20)]));
    assert_eq!(world.backend.total(), 20);
}

#[test]
fn what_was_sealed_by_a_member_that_was_evicted_is_settled_before_it_says_that_it_is_drained() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("the beginning is committed", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.publish(0, 20);
    process.until("both are sealed", |process| process.sealed(0) == 2);
    process.bus.evict();
    process.want(DesiredState::Drained);
    for _ in 0..500 {
        process.step();
        assert!(process.is("draining"), "{:?}", process.duty());
    }
    world.backend.decide(|_| None);
    process.until("it is drained", |process| process.is("drained"));
    assert_eq!((world.offset(0), world.sealed(0)), (Some(20), Vec::new()));
}

#[test]
fn a_worker_that_is_paused_keeps_its_partitions_and_seals_the_same_batch_after_it() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    world.publish(0, 14);
    process.until("the open batch is read", |process| process.next(0) == 14);
    process.want(DesiredState::Paused);
    process.until("it is paused", |process| process.is("paused"));
    let settled = world.offset(0).unwrap();
    assert_eq!(process.said(), [said(0, settled)]);
    world.publish(0, 30);
    process.steps(500);
    assert!(process.owns(0) && process.is("paused"));
    assert_eq!(world.offset(0), Some(settled));
    process.want(DesiredState::Running);
    process.until("it goes on", |_| world.offset(0) == Some(44));
    assert_eq!((world.backend.total(), process.status().partitions.len()), (44, 1));
    assert_eq!(world.backend.violations(), [""; 0]);
}

#[test]
fn a_topic_that_was_recreated_during_a_pause_is_noticed_before_anything_is_sealed() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    world.publish(0, 4);
    process.until("the open batch is read", |process| process.next(0) == 4);
    process.want(DesiredState::Paused);
    process.until("it is paused", |process| process.is("paused"));
    world.bus.recreate_topic(TOPIC, Offsets::Kept).unwrap();
    process.want(DesiredState::Running);
    process.until("it is noticed", |process| process.stopped(0).is_some());
    assert_eq!(world.backend.total(), 0);
}

#[test]
fn a_halted_partition_with_a_sealed_batch_is_never_drained() {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it begins", |_| world.offset(0) == Some(0));
    world.backend.decide(|_| Some(retry()));
    world.publish(0, 10);
    process.until("it is sealed", |process| process.sealed(0) == 1);
    world.bus.recreate_topic(TOPIC, Offsets::Kept).unwrap();
    process.until("it is halted", |process| process.stopped(0).is_some());
    process.want(DesiredState::Drained);
    process.steps(500);
    assert!(process.is("draining"));
    assert!(
        process.left().starts_with("sealed batches of counters/0 are not settled (1), and the partition is halted")
    );
}

#[test]
fn a_worker_that_runs_until_it_has_caught_up_refuses_to_wait_for_a_resume() {
    let world = World::new(1);
    let mut process = world.start();
    process.want(DesiredState::Drained);
    process.until("it is drained", |process| process.is("drained"));
    let error = process.worker.is_caught_up().unwrap_err().to_string();
    assert!(error.starts_with("sink fake: it is drained by ada@desk since 2023-11-14"), "{error}");
    assert!(error.ends_with("`tallybus ctl resume` ends that"), "{error}");
}
