use tallybus_bus::OffsetRange;
use tallybus_bus::sim::Ownership;

use super::super::tests::{Process, World, at};
use super::*;

/// A worker that is to stop, on a bus that may forget groups and is away.
fn on_a_bus_that_is_away() -> (World, Process) {
    let world = World::new(1);
    world.bus.set_ownership(Ownership::Unchecked);
    let mut process = world.start();
    process.until("it has the partition", |process| process.owns(0));
    world.bus.set_away(true);
    process.worker.handle.stop();
    (world, process)
}

#[test]
fn a_worker_that_is_to_stop_does_not_wait_until_it_has_joined_a_bus_that_is_away() {
    let (_world, mut process) = on_a_bus_that_is_away();
    process.worker.rejoin("the client failed").unwrap();
    assert!(process.worker.tasks.is_empty());
    assert!(process.worker.bus_failures.is_failing());
}

#[test]
fn nothing_begins_or_is_stopped_while_the_notes_of_a_group_without_an_offset_cannot_be_read() {
    let (world, mut process) = on_a_bus_that_is_away();
    let (stream, _) = world.bus.inspect("counters").unwrap();
    let range = OffsetRange { first: 0, end: 0 };
    process.worker.assigned(vec![Assignment { at: at(0), stream, committed: None, range }]).unwrap();
    assert!(process.worker.tasks.is_empty() && process.worker.membership.stopped().is_empty());
    assert!(process.worker.bus_failures.is_failing());
}
