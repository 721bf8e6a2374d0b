use std::time::Duration;

use tallybus_control::{Outcome, Refusal};

use super::ServiceAnswer;

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answers {
    /// The id of the command.
    pub id: String,
    /// Those whom it was for, in the order of their addresses. For a pool: the pool.
    pub addressees: Vec<Addressee>,
    /// Whether the answers go to a callback: then to have accepted the command is all that the bus shows.
    pub(super) by_callback: bool,
}

/// One whom a question was for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Addressee {
    /// Its address.
    pub address: String,
    /// How long before the question it was last heard of; `None` for one that never was.
    pub last_seen: Option<Duration>,
    /// What it has answered.
    pub state: State,
}

/// What an addressee has answered.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Nothing.
    Silent,
    /// It has taken the command, and had not ended it when the command expired.
    UnderWay(ServiceAnswer),
    /// It has ended it, or refused it.
    Answered(ServiceAnswer),
}

/// What all answers together come to; of several, the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskOutcome {
    /// An addressee has not answered, or there is none.
    Silent,
    /// The command expired before an addressee had ended it.
    Expired,
    /// An addressee has failed, or has refused for another reason than that the command had expired.
    Failed,
    /// Every addressee has done it, or has accepted it for a callback.
    Good,
}

impl Answers {
    /// What they come to.
    pub fn outcome(&self) -> AskOutcome {
        let outcomes: Vec<AskOutcome> = self.addressees.iter().map(|addressee| self.outcome_of(addressee)).collect();
        let worst = [AskOutcome::Silent, AskOutcome::Expired, AskOutcome::Failed];
        if outcomes.is_empty() {
            return AskOutcome::Silent;
        }
        worst.into_iter().find(|outcome| outcomes.contains(outcome)).unwrap_or(AskOutcome::Good)
    }

    /// Whether there was an addressee, and each has done what was asked.
    pub fn is_good(&self) -> bool {
        self.outcome() == AskOutcome::Good
    }

    /// The last answer of each addressee that has answered.
    pub fn answers(&self) -> impl Iterator<Item = &ServiceAnswer> {
        self.addressees.iter().filter_map(|addressee| match &addressee.state {
            State::Silent => None,
            State::UnderWay(answer) | State::Answered(answer) => Some(answer),
        })
    }

    /// What one addressee's answer comes to.
    pub fn outcome_of(&self, addressee: &Addressee) -> AskOutcome {
        match &addressee.state {
            State::Silent => AskOutcome::Silent,
            State::UnderWay(_) if self.by_callback => AskOutcome::Good,
            State::UnderWay(_) => AskOutcome::Expired,
            State::Answered(answer) => match answer.answer.outcome {
                Outcome::Done => AskOutcome::Good,
                Outcome::Refused if answer.answer.text == Refusal::Expired.to_string() => AskOutcome::Expired,
                Outcome::Accepted | Outcome::Failed | Outcome::Refused => AskOutcome::Failed,
            },
        }
    }

    /// Whether nothing more is waited for.
    pub(super) fn are_complete(&self) -> bool {
        self.addressees.iter().all(|addressee| match &addressee.state {
            State::Silent => false,
            State::UnderWay(_) => self.by_callback,
            State::Answered(_) => true,
        })
    }

    /// Takes an answer to this question. `is_pool`: whichever instance it is of. An end is never replaced.
    pub(super) fn take(&mut self, answer: ServiceAnswer, is_pool: bool) {
        let of = |addressee: &&mut Addressee| is_pool || addressee.address == answer.answer.addressee;
        let Some(addressee) = self.addressees.iter_mut().find(of) else { return };
        if matches!(addressee.state, State::Answered(_)) {
            return;
        }
        addressee.state = match answer.answer.outcome.is_final() {
            true => State::Answered(answer),
            false => State::UnderWay(answer),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tallybus_control::Answer;

    use super::*;

    fn answer(addressee: &str, outcome: Outcome, text: &str) -> ServiceAnswer {
        let answer = Answer {
            version: 1,
            answers: "id".to_owned(),
            addressee: addressee.to_owned(),
            process: String::new(),
            time_ms: 0,
            outcome,
            text: text.to_owned(),
            data: Value::Null,
        };
        ServiceAnswer { answer, again: false }
    }

    fn asked(addresses: &[&str]) -> Answers {
        let addressee = |address: &&str| Addressee {
            address: (*address).to_owned(),
            last_seen: Some(Duration::ZERO),
            state: State::Silent,
        };
        Answers { id: "id".to_owned(), addressees: addresses.iter().map(addressee).collect(), by_callback: false }
    }

    #[test]
    fn it_is_good_only_when_every_addressee_has_done_it() {
        let mut answers = asked(&["a", "b"]);
        assert_eq!((answers.outcome(), answers.are_complete()), (AskOutcome::Silent, false));
        answers.take(answer("a", Outcome::Done, ""), false);
        answers.take(answer("c", Outcome::Done, ""), false);
        assert_eq!((answers.outcome(), answers.are_complete()), (AskOutcome::Silent, false));
        answers.take(answer("b", Outcome::Accepted, ""), false);
        assert_eq!((answers.outcome(), answers.are_complete()), (AskOutcome::Expired, false));
        answers.take(answer("b", Outcome::Done, ""), false);
        assert_eq!((answers.outcome(), answers.are_complete()), (AskOutcome::Good, true));
        answers.take(answer("b", Outcome::Failed, "late"), false);
        assert!(answers.is_good(), "an end is never replaced");
        assert_eq!(asked(&[]).outcome(), AskOutcome::Silent, "nobody was asked");
    }

    #[test]
    fn a_refusal_is_a_failure_unless_the_command_had_expired_and_a_callback_needs_to_be_accepted_only() {
        for (text, outcome) in [("expired", AskOutcome::Expired), ("unknown", AskOutcome::Failed)] {
            let mut answers = asked(&["a"]);
            answers.take(answer("a", Outcome::Refused, text), false);
            assert_eq!((answers.outcome(), answers.are_complete()), (outcome, true));
        }
        let mut answers = Answers { by_callback: true, ..asked(&["a"]) };
        answers.take(answer("a", Outcome::Accepted, ""), false);
        assert_eq!((answers.outcome(), answers.are_complete()), (AskOutcome::Good, true));
    }

    #[test]
    fn a_pool_is_answered_by_whichever_instance_did_the_task() {
        let mut answers = asked(&["service/orders"]);
        answers.take(answer("service/orders@1", Outcome::Done, ""), true);
        assert!(answers.is_good() && answers.are_complete());
    }
}
