use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::lookup::offset_of;
use super::member::MemberContext;
use super::raw::{CommitAnswer, CommitAnswers};
use super::waker::Waker;
use crate::{BusError, Commit, CommitError, TopicPartition};

/// The outcome of a commit, by partition.
pub(super) type Outcome = Vec<(TopicPartition, Result<(), CommitError>)>;

/// The commit that is under way, at most one. librdkafka repeats a commit through an outage, so a commit that was given
/// up here could still be made later, over a newer one; hence the next begins only after the answer.
pub(super) struct Commits {
    answers: CommitAnswers,
    open: Option<Open>,
}

struct Open {
    partitions: Vec<TopicPartition>,
    /// The commits of the same call that are refused without asking the broker.
    refused: Outcome,
    /// The owner has had it reported as unanswered; its answer is dropped.
    told: bool,
}

impl Commits {
    pub(super) fn new(consumer: &BaseConsumer<MemberContext>, waker: &Waker) -> Result<Self, BusError> {
        let answers = CommitAnswers::new(consumer.client(), waker)
            .ok_or_else(|| BusError::Fatal("librdkafka returned no queue for the answers to commits".to_owned()))?;
        Ok(Self { answers, open: None })
    }

    /// Whether a commit is under way.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Starts a commit. `refused` becomes part of its answer.
    pub(super) fn send(
        &mut self,
        consumer: &BaseConsumer<MemberContext>,
        commits: &[Commit],
        refused: Outcome,
    ) -> Result<(), BusError> {
        if self.open.is_some() {
            return Err(BusError::Unavailable("the previous commit has not been answered yet".to_owned()));
        }
        let mut list = TopicPartitionList::with_capacity(commits.len());
        for commit in commits {
            let impossible = || BusError::Fatal(format!("{} cannot be committed", commit.at));
            let partition = i32::try_from(commit.at.partition).map_err(|_| impossible())?;
            let mut element = list.add_partition(&commit.at.topic, partition);
            element.set_offset(offset_of(commit.offset)).map_err(|_| impossible())?;
            if !commit.metadata.is_empty() {
                element.set_metadata(&commit.metadata);
            }
        }
        self.answers
            .commit(consumer.client(), &list)
            .map_err(|code| BusError::Unavailable(format!("the commit was not sent: {code}")))?;
        let partitions = commits.iter().map(|commit| commit.at.clone()).collect();
        self.open = Some(Open { partitions, refused, told: false });
        Ok(())
    }

    /// Waits for the answer to the commit under way. `None` when it did not come, or was given up before.
    pub(super) fn poll(&mut self, consumer: &BaseConsumer<MemberContext>, timeout: Duration) -> Option<Outcome> {
        self.open.as_ref()?;
        let answer = self.answers.poll(timeout)?;
        let open = self.open.take()?;
        (!open.told).then(|| {
            let mut outcome = outcome(&answer, open.partitions, consumer.assignment_lost());
            outcome.extend(open.refused);
            outcome
        })
    }

    /// Gives up the commit under way: it may or may not be made, and its answer is dropped.
    pub(super) fn give_up(&mut self, waited: Duration) -> Outcome {
        let Some(open) = &mut self.open else { return Vec::new() };
        open.told = true;
        let unanswered = || Err(CommitError::Unanswered(format!("no answer within {waited:?}")));
        open.partitions.iter().map(|at| (at.clone(), unanswered())).collect()
    }
}

fn outcome(answer: &CommitAnswer, partitions: Vec<TopicPartition>, assignment_lost: bool) -> Outcome {
    // The error of the whole request applies to the partitions only when none has an error of its own: otherwise it
    // repeats the last of theirs.
    let whole = answer.error.filter(|_| answer.partitions.iter().all(|element| element.error.is_none()));
    let each = partitions.into_iter().map(|at| {
        let element = answer
            .partitions
            .iter()
            .find(|element| element.topic == *at.topic && u32::try_from(element.partition) == Ok(at.partition));
        let error = match element {
            Some(element) => element.error.or(whole),
            None => Some(answer.error.unwrap_or(RDKafkaErrorCode::InvalidArgument)),
        };
        let result = error.map_or(Ok(()), |code| Err(refusal(code, assignment_lost)));
        (at, result)
    });
    each.collect()
}

fn refusal(code: RDKafkaErrorCode, assignment_lost: bool) -> CommitError {
    use RDKafkaErrorCode as Code;
    match code {
        Code::UnknownMemberId | Code::FencedInstanceId | Code::FencedMemberEpoch | Code::AssignmentLost => {
            CommitError::NotOwner(code.to_string())
        }
        // A member that stays through a rebalance meets this too, when the generation changes under its commit. It
        // reads back and continues; a member that was removed gets its assignment revoked as lost.
        Code::IllegalGeneration if assignment_lost => CommitError::NotOwner(code.to_string()),
        _ => CommitError::Unanswered(code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::raw::Element;
    use super::*;

    fn element(partition: i32, error: Option<RDKafkaErrorCode>) -> Element {
        Element { topic: "t".to_owned(), partition, offset: 0, metadata: String::new(), error }
    }

    fn told(error: Option<RDKafkaErrorCode>, elements: Vec<Element>, lost: bool) -> Vec<String> {
        let partitions = (0..2).map(|partition| TopicPartition::new("t", partition)).collect();
        let answer = CommitAnswer { error, partitions: elements };
        let short = |result: &Result<(), CommitError>| match result {
            Ok(()) => "made".to_owned(),
            Err(CommitError::NotOwner(_)) => "not owner".to_owned(),
            Err(CommitError::Changed(_)) => "changed".to_owned(),
            Err(CommitError::Unanswered(_)) => "unanswered".to_owned(),
        };
        outcome(&answer, partitions, lost).iter().map(|(_, result)| short(result)).collect()
    }

    #[test]
    fn each_partition_gets_its_own_answer() {
        use RDKafkaErrorCode as Code;
        let both = |first, second| vec![element(0, first), element(1, second)];
        assert_eq!(told(None, both(None, None), false), ["made", "made"]);
        assert_eq!(told(Some(Code::UnknownMemberId), both(None, None), false), ["not owner", "not owner"]);
        let second_failed = both(None, Some(Code::RequestTimedOut));
        assert_eq!(told(Some(Code::RequestTimedOut), second_failed, false), ["made", "unanswered"]);
        assert_eq!(told(None, vec![element(0, None)], false), ["made", "unanswered"]);
    }

    #[test]
    fn a_generation_that_changed_is_no_loss_by_itself() {
        let code = Some(RDKafkaErrorCode::IllegalGeneration);
        assert_eq!(told(code, Vec::new(), false), ["unanswered", "unanswered"]);
        assert_eq!(told(code, Vec::new(), true), ["not owner", "not owner"]);
        let rebalancing = Some(RDKafkaErrorCode::RebalanceInProgress);
        assert_eq!(told(rebalancing, Vec::new(), true), ["unanswered", "unanswered"]);
    }
}
