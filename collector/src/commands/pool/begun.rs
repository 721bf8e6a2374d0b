//! What a pool's group holds for a partition: the task in hand, and whether it was begun.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tallybus_bus::{Assignment, Commit, CommitError, Expected, Subscriber, TopicPartition};

/// How long the bus may take to confirm a commit.
const WAIT: Duration = Duration::from_secs(10);
/// How often a commit is made that was not answered.
const ATTEMPTS: usize = 3;

/// The metadata of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The incarnation of the topic that the offset is of.
    pub(super) stream: String,
    /// The offset of the task that was begun and, as far as the group knows, not ended.
    pub(super) begun: Option<u64>,
}

/// Makes a commit, and returns whether it was made. Otherwise the partition may be another member's.
pub(super) fn commit(member: &mut dyn Subscriber, at: &TopicPartition, offset: u64, mark: &Mark) -> bool {
    let Ok(metadata) = serde_json::to_string(mark) else { return false };
    let commit = Commit { at: at.clone(), offset, metadata, expected: Expected::Anything };
    for _ in 0..ATTEMPTS {
        let mut answers = member.state().compare_and_set_now(std::slice::from_ref(&commit), WAIT);
        match answers.pop() {
            Some((_, Ok(()))) => return true,
            // The same commit again changes nothing that the first has not.
            Some((_, Err(CommitError::Unanswered(_)))) => {}
            _ => return false,
        }
    }
    false
}

/// Where a new owner starts, and the task there that was begun before.
pub(super) fn start_of(assignment: &Assignment) -> (u64, Option<u64>) {
    let range = assignment.range;
    let Some(committed) = &assignment.committed else { return (range.first, None) };
    let mark: Option<Mark> = serde_json::from_str(&committed.metadata).ok();
    let is_of_this_stream = mark.as_ref().is_none_or(|mark| mark.stream == assignment.stream.as_str());
    // The topic was recreated: the offset is of another one.
    if !is_of_this_stream || committed.offset > range.end {
        return (range.first, None);
    }
    (committed.offset.max(range.first), mark.and_then(|mark| mark.begun))
}

#[cfg(test)]
mod tests {
    use tallybus_bus::{Committed, OffsetRange};

    use super::*;

    fn start(committed: Option<(u64, &str)>) -> (u64, Option<u64>) {
        start_of(&Assignment {
            at: TopicPartition::new("tallybus.tasks.orders", 0),
            stream: "embedded:a".parse().unwrap(),
            committed: committed.map(|(offset, metadata)| Committed { offset, metadata: metadata.to_owned() }),
            range: OffsetRange { first: 10, end: 20 },
        })
    }

    #[test]
    fn a_new_owner_starts_at_the_task_in_hand_and_knows_whether_it_was_begun() {
        assert_eq!(start(None), (10, None));
        assert_eq!(start(Some((12, r#"{"stream":"embedded:a","begun":12}"#))), (12, Some(12)));
        assert_eq!(start(Some((13, r#"{"stream":"embedded:a","begun":null}"#))), (13, None));
        assert_eq!(start(Some((13, ""))), (13, None), "an operator has reset the group");
        assert_eq!(start(Some((5, r#"{"stream":"embedded:a","begun":5}"#))), (10, Some(5)), "older tasks were deleted");
        assert_eq!(
            start(Some((12, r#"{"stream":"embedded:b","begun":12}"#))),
            (10, None),
            "another topic of that name"
        );
        assert_eq!(start(Some((21, ""))), (10, None));
    }
}
