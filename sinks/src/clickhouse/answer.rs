//! What an HTTP answer of ClickHouse means.

use std::time::SystemTime;

use tallybus_sdk::{Answer, SinkError};

use crate::http_common;

/// An answer as far as it matters.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    /// ClickHouse's own code of the error; none when something else answered.
    pub(super) code: Option<u32>,
    pub(super) answer: http_common::Reply,
}

impl Reply {
    /// `ClickHouse answered 404: Code: 60. …`.
    pub(super) fn describe(&self) -> String {
        self.answer.describe("ClickHouse")
    }

    pub(super) fn says_missing(&self) -> bool {
        matches!(self.code, Some(60 | 81))
    }
}

/// What to do about the answer to an insert.
pub(super) fn judge(reply: &Reply, now: SystemTime) -> Answer {
    let reason = reply.describe();
    let retry = |reason| Answer::Retry { after: reply.answer.wait(now), reason };
    let halt = |next: &str| Answer::Halt { reason: format!("{}; {next}", reply.describe()) };
    let Some(code) = reply.code else {
        return match reply.answer.status {
            200..=299 => Answer::Done,
            300..=399 => halt("the server sends us elsewhere: set `url` to where it really is"),
            401 | 403 => halt("check `user` and `password`"),
            413 => Answer::Split { reason },
            408 | 425 | 429 | 500..=599 => retry(reason),
            _ => halt("check that `url` is ClickHouse's HTTP interface"),
        };
    };
    match code {
        // The insert is known again, and the server was set to say so.
        389 => Answer::Done,
        // A constraint of the table; nothing is in, and it is not said which rows it was.
        469 => Answer::Split { reason },
        60 | 81 => halt("set `create = true`, or run what `tallybus sink ddl` prints"),
        192..=195 | 516 => halt("check `user` and `password`"),
        291 | 497 => halt("grant the user what it needs"),
        164 => halt("the user's profile must let it change settings of a query"),
        _ if is_passing(code) => retry(reason),
        _ => Answer::Halt { reason },
    }
}

/// The same for a question.
pub(super) fn judge_query(reply: &Reply) -> SinkError {
    match judge(reply, SystemTime::now()) {
        Answer::Retry { reason, .. } => SinkError::Unavailable(reason),
        Answer::Halt { reason } | Answer::Split { reason } => SinkError::Halt(reason),
        Answer::Done | Answer::Rejected(_) => SinkError::Halt(reply.describe()),
    }
}

/// Too much at once, no room, another server or Keeper away, a query that was ended.
fn is_passing(code: u32) -> bool {
    matches!(
        code,
        3 | 74
            | 75
            | 95
            | 159
            | 160
            | 198
            | 201
            | 202
            | 203
            | 209
            | 210
            | 225
            | 236
            | 241
            | 242
            | 243
            | 244
            | 252
            | 254
            | 279
            | 285
            | 286
            | 289
            | 319
            | 364
            | 369
            | 394
            | 425
            | 439
            | 473
            | 495
            | 499
            | 519
            | 574
            | 700
            | 722
            | 735
            | 745
            | 999
            | 1002
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tallybus_sdk::text::SHOWN;

    use super::*;
    use crate::http_common::message_of;

    fn kind(status: u16, code: Option<u32>) -> &'static str {
        let answer = http_common::Reply { status, ..Default::default() };
        judge(&Reply { code, answer }, SystemTime::UNIX_EPOCH).kind()
    }

    #[test]
    fn every_answer_has_its_meaning() {
        for (status, code, expected) in [
            (200, None, "done"),
            (307, None, "halt"),
            (400, None, "halt"),
            (401, None, "halt"),
            (404, None, "halt"),
            (413, None, "split"),
            (429, None, "retry"),
            (502, None, "retry"),
            (503, None, "retry"),
            (400, Some(62), "halt"),
            (404, Some(16), "halt"),
            (404, Some(60), "halt"),
            (404, Some(81), "halt"),
            (404, Some(115), "halt"),
            (400, Some(117), "halt"),
            (408, Some(159), "retry"),
            (500, Some(164), "halt"),
            (403, Some(192), "halt"),
            (500, Some(202), "retry"),
            (500, Some(225), "retry"),
            (500, Some(241), "retry"),
            (500, Some(242), "retry"),
            (500, Some(243), "retry"),
            (500, Some(252), "retry"),
            (500, Some(319), "retry"),
            (500, Some(389), "done"),
            (500, Some(469), "split"),
            (403, Some(497), "halt"),
            (403, Some(516), "halt"),
            (500, Some(999), "retry"),
        ] {
            assert_eq!(kind(status, code), expected, "{status} {code:?}");
        }
    }

    #[test]
    fn a_message_is_short_and_without_secrets() {
        assert_eq!(message_of(b"Code: 1.\n no s3cret here\n", &["s3cret"]), "Code: 1. no *** here");
        assert!(message_of("é".repeat(9_000).as_bytes(), &[""]).len() <= SHOWN + "…".len());
        let answer = http_common::Reply { status: 503, retry_after: Some("7".to_owned()), ..Default::default() };
        assert_eq!(
            judge(&Reply { code: None, answer }, SystemTime::UNIX_EPOCH),
            Answer::Retry { after: Some(Duration::from_secs(7)), reason: "ClickHouse answered 503".to_owned() }
        );
    }
}
