use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tallybus_bus::count_of;
use tallybus_control::Refusal;

/// How many commands and tasks an instance was sent, and what came of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommandCounts {
    /// Commands taken: those of the library itself (`drain`, `resume`) included.
    pub commands: u64,
    /// Tasks taken, each time.
    pub tasks: u64,
    /// Those of both that ended well.
    pub done: u64,
    /// Those that ended with an error, or whose handler panicked.
    pub failed: u64,
    /// Tasks that were taken again, because another instance, or this one, may have begun them before.
    pub again: u64,
    /// No command of a known version, or one larger than 64 KB.
    pub malformed: u64,
    /// Without a signature, where keys are set.
    pub unsigned: u64,
    /// Signed with another key.
    pub wrong_signature: u64,
    /// Came after they had expired, or name no time at which they do within a day.
    pub expired: u64,
    /// Issued more than five minutes ahead of this host's clock.
    pub early: u64,
    /// Came a second time.
    pub repeated: u64,
    /// Refused because of too many others: remembered within a day, or waiting.
    pub too_many: u64,
    /// Names that are not registered here.
    pub unknown: u64,
    /// Asked for a callback that this instance does not make, or to a URL that is not on its list.
    pub callbacks_refused: u64,
    /// Callbacks that were given up; their answers went to the bus without their data.
    pub callbacks_undelivered: u64,
    /// Answers that the bus has not taken in time.
    pub answers_lost: u64,
}

impl CommandCounts {
    /// Everything that was not begun.
    pub fn refused(&self) -> u64 {
        self.malformed
            + self.unsigned
            + self.wrong_signature
            + self.expired
            + self.early
            + self.repeated
            + self.too_many
            + self.unknown
            + self.callbacks_refused
    }
}

impl fmt::Display for CommandCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", count_of(self.commands, "command"), count_of(self.tasks, "task"))?;
        let others = [
            ("failed", self.failed),
            ("again", self.again),
            ("refused", self.refused()),
            ("callbacks undelivered", self.callbacks_undelivered),
            ("answers lost", self.answers_lost),
        ];
        for (what, number) in others.into_iter().filter(|(_, number)| *number > 0) {
            write!(f, ", {what} {number}")?;
        }
        Ok(())
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Command,
    Task,
    Done,
    Failed,
    Again,
    Refused(Refusal),
    Unknown,
    CallbackRefused,
    #[cfg_attr(not(feature = "callbacks"), allow(dead_code, reason = "counted by callbacks only"))]
    CallbackUndelivered,
    AnswerLost,
}

/// The counts while they grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    numbers: [AtomicU64; 16],
}

impl Counters {
    pub(super) fn count(&self, what: Counted) {
        let place = match what {
            Counted::Command => 0,
            Counted::Task => 1,
            Counted::Done => 2,
            Counted::Failed => 3,
            Counted::Again => 4,
            Counted::Refused(Refusal::Malformed) => 5,
            Counted::Refused(Refusal::Unsigned) => 6,
            Counted::Refused(Refusal::WrongSignature) => 7,
            Counted::Refused(Refusal::Expired) => 8,
            Counted::Refused(Refusal::Early) => 9,
            Counted::Refused(Refusal::Repeated) => 10,
            Counted::Refused(Refusal::TooMany) => 11,
            Counted::Unknown => 12,
            Counted::CallbackRefused => 13,
            Counted::CallbackUndelivered => 14,
            Counted::AnswerLost => 15,
        };
        self.numbers[place].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> CommandCounts {
        let [
            commands,
            tasks,
            done,
            failed,
            again,
            malformed,
            unsigned,
            wrong_signature,
            expired,
            early,
            repeated,
            too_many,
            unknown,
            callbacks_refused,
            callbacks_undelivered,
            answers_lost,
        ] = self.numbers.each_ref().map(|number| number.load(Ordering::Relaxed));
        CommandCounts {
            commands,
            tasks,
            done,
            failed,
            again,
            malformed,
            unsigned,
            wrong_signature,
            expired,
            early,
            repeated,
            too_many,
            unknown,
            callbacks_refused,
            callbacks_undelivered,
            answers_lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_counted_by_its_own_name_and_shown_in_the_sum() {
        let counters = Counters::default();
        for (times, refusal) in (1..).zip(Refusal::ALL) {
            (0..times).for_each(|_| counters.count(Counted::Refused(refusal)));
        }
        counters.count(Counted::Unknown);
        counters.count(Counted::Command);
        let counts = counters.counts();
        assert_eq!((counts.malformed, counts.unsigned, counts.too_many, counts.unknown), (1, 2, 7, 1));
        assert_eq!(counts.refused(), 29);
        assert_eq!(counts.to_string(), "1 command, 0 tasks, refused 29");
    }
}
