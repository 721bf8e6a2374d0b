//! Sets a group's offsets while it has no member.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::config::Settings;
use super::lookup::{Lookup, list_of, offset_of};
use super::raw::{CommitAnswer, CommitAnswers};
use super::waker::Wakeups;
use crate::{BusError, Committed, TopicPartition};

/// The longest wait for the answer; the group's coordinator has to be found first.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Commits as a client that is not a member: the coordinator accepts that only for a group without members.
pub(super) fn reset_group(
    settings: &Settings,
    group: &str,
    to: &[(TopicPartition, Committed)],
) -> Result<(), BusError> {
    const DOING: &str = "setting the group's offsets";
    if to.is_empty() {
        return Ok(());
    }
    let lookup = Lookup::new(&settings.observer(group), "reset")?;
    let wakeups =
        Wakeups::new().map_err(|error| BusError::Unavailable(format!("cannot create the wake-up socket: {error}")))?;
    let mut answers = CommitAnswers::new(lookup.client(), wakeups.waker())
        .ok_or_else(|| BusError::Fatal("librdkafka returned no queue for the answers to commits".to_owned()))?;
    let list = list_of(to.iter().map(|(at, new)| (&*at.topic, at.partition, offset_of(new.offset))))?;
    for (at, new) in to {
        let partition = i32::try_from(at.partition).map_err(|error| BusError::Fatal(format!("{at}: {error}")))?;
        if let Some(mut element) = list.find_partition(&at.topic, partition) {
            element.set_metadata(&new.metadata);
        }
    }
    answers
        .commit(lookup.client(), &list)
        .map_err(|code| BusError::Unavailable(format!("{DOING}: the commit was not sent: {code}")))?;
    let Some(answer) = answers.poll(TIMEOUT) else {
        return lookup.explain(Err(BusError::Unavailable(format!("{DOING}: no answer within {TIMEOUT:?}"))));
    };
    match first_error(&answer, to.len()) {
        None => Ok(()),
        Some(code) if is_in_use(code) => Err(BusError::GroupInUse(group.to_owned())),
        Some(code) => lookup.explain(Err(lookup.failed(DOING, &KafkaError::ConsumerCommit(code)))),
    }
}

/// The first error in an answer; a partition that it leaves out is one.
fn first_error(answer: &CommitAnswer, asked: usize) -> Option<RDKafkaErrorCode> {
    let of_partitions = answer.partitions.iter().find_map(|element| element.error);
    let left_out = (answer.partitions.len() < asked).then_some(RDKafkaErrorCode::InvalidArgument);
    of_partitions.or(answer.error).or(left_out)
}

/// The coordinator's answers to a commit from outside of a group that has members.
fn is_in_use(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::UnknownMemberId
            | Code::IllegalGeneration
            | Code::RebalanceInProgress
            | Code::FencedMemberEpoch
            | Code::StaleMemberEpoch
    )
}
