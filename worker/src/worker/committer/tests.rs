use tallybus_bus::{Expected, StreamId};
use tallybus_sdk::Shape;

use super::super::tests::{Process, World, at};
use super::*;

/// A worker that has sent a commit for its only partition.
fn sending() -> (World, Process, Sent) {
    let world = World::new(1);
    let mut process = world.start();
    process.until("it has the partition", |process| process.owns(0));
    let task = process.worker.tasks.iter_mut().next().unwrap();
    task.confirm_destination(None);
    let commit = Commit { at: at(0), offset: 0, metadata: "sent".to_owned(), expected: Expected::Anything };
    let epoch = task.epoch;
    (world, process, Sent { epoch, commit, answer: Answer::None })
}

#[test]
fn what_the_group_holds_decides_about_a_commit_without_a_result() {
    let stream: StreamId = "sim:1".parse().unwrap();
    let seal = SealMetadata::new(stream, Vec::new(), &Shape::everything()).to_metadata().unwrap();
    let held = |offset, metadata: &str| Some(Committed { offset, metadata: metadata.to_owned() });
    for (answer, held, expected) in [
        (Answer::None, held(0, "sent"), "made"),
        (Answer::NotOwner, held(0, "sent"), "made"),
        (Answer::None, held(1, "sent"), "stopped"),
        (Answer::None, held(0, "other"), "stopped"),
        (Answer::Changed, held(7, "a note"), "stopped"),
        (Answer::NotOwner, held(7, "a note"), "taken"),
        (Answer::NotOwner, held(7, &seal), "taken"),
        (Answer::None, held(7, &seal), "taken"),
        // The member has the partition: an operator has set the group to an offset of its own.
        (Answer::Changed, held(7, &seal), "stopped"),
    ] {
        let (_world, mut process, sent) = sending();
        let found = match judge(Sent { answer, ..sent }, held.as_ref(), &mut process.worker.tasks) {
            None => "made",
            Some(Lost::Taken(_)) => "taken",
            Some(Lost::Stopped(..)) => "stopped",
        };
        assert_eq!(found, expected, "{held:?}");
        let task = process.worker.tasks.iter().next().unwrap();
        assert_eq!(task.committed_before() == held.as_ref(), expected == "made", "{held:?}");
    }
    // The group holds what it held before.
    let (_world, mut process, sent) = sending();
    let before = process.worker.tasks.iter().next().unwrap().committed_before().cloned();
    assert!(judge(sent, before.as_ref(), &mut process.worker.tasks).is_none());
    let task = process.worker.tasks.iter().next().unwrap();
    assert_eq!(task.committed_before(), before.as_ref());
}

#[test]
fn an_answer_that_leaves_the_result_open_is_kept_for_the_reading_back() {
    for (error, expected) in [
        (Some(CommitError::NotOwner("evicted".to_owned())), Answer::NotOwner),
        (Some(CommitError::Changed("other".to_owned())), Answer::Changed),
        (Some(CommitError::Unanswered("timeout".to_owned())), Answer::None),
        (None, Answer::None),
    ] {
        let (world, mut process, sent) = sending();
        let mut committer = Committer::new(Arc::clone(&process.worker.clock));
        committer.in_flight = Some(vec![sent]);
        let answers: Vec<_> = error.clone().into_iter().map(|error| (at(0), Err(error))).collect();
        let failed = committer.answered(answers, &mut process.worker.tasks);
        assert_eq!(failed.0, u64::from(error.is_some()));
        let (due, in_doubt) = committer.in_doubt.as_ref().unwrap();
        assert_eq!((*due - world.now(), in_doubt.len()), (READ_BACK_AFTER, 1));
        assert!(in_doubt[0].answer == expected, "{error:?}");
        // Not before it is due, and then once.
        let (tasks, subscriber) = (&mut process.worker.tasks, process.worker.membership.subscriber().unwrap());
        assert!(committer.read_back(tasks, subscriber).unwrap().is_empty());
        assert!(committer.in_doubt.is_some());
        world.pass(READ_BACK_AFTER);
        committer.read_back(tasks, subscriber).unwrap();
        assert!(committer.in_doubt.is_none());
        committer.in_doubt = Some((world.now(), Vec::new()));
        committer.forget();
        assert!(committer.in_flight.is_none() && committer.in_doubt.is_none());
    }
}
