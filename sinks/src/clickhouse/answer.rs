//! Classifies ClickHouse's HTTP answers.

use std::time::SystemTime;

use tallybus_sdk::{Fault, SinkError};

use crate::shared::http as shared_http;

/// The relevant parts of an answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    /// ClickHouse's own error code; none when something other than ClickHouse answered.
    pub(super) code: Option<u32>,
    pub(super) answer: shared_http::Reply,
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

/// Classifies the answer to an insert.
///
/// # Errors
/// The rows were not inserted, or may not have been.
pub(super) fn judge(reply: &Reply, now: SystemTime) -> Result<(), Fault> {
    let reason = reply.describe();
    let operator = |next: &str| Fault::operator(format!("{reason}; {next}"));
    let Some(code) = reply.code else {
        return Err(match reply.answer.status {
            200..=299 if reply.answer.message.is_empty() => return Ok(()),
            200..=299 => operator(&shared_http::not_written("ClickHouse answers an insert without a body")),
            300..=399 => operator("the server redirects to another address: set `url` to that address"),
            401 | 403 => operator("check `user` and `password`"),
            413 => Fault::refused(reason),
            408 | 425 | 429 | 500..=599 => Fault::Retry { after: reply.answer.wait(now), reason },
            _ => operator("check that `url` is ClickHouse's HTTP interface"),
        });
    };
    Err(match code {
        // The server recognised a repeated insert, and is configured to report it as an error.
        389 => return Ok(()),
        // A constraint of the table refused rows; nothing was inserted, and the server does not name the rows.
        469 => Fault::refused(reason),
        60 | 81 => operator("run what `tallybus sink ddl` prints, or restart the worker with `create = true`"),
        192..=195 | 516 => operator("check `user` and `password`"),
        291 | 497 => operator("grant the user the missing permission"),
        164 => operator("allow the user's profile to change query settings"),
        _ if is_passing(code) => Fault::Retry { after: reply.answer.wait(now), reason },
        _ => Fault::operator(reason),
    })
}

/// Classifies the answer to a query, which returns rows.
pub(super) fn judge_query(reply: &Reply) -> SinkError {
    match judge(reply, SystemTime::now()) {
        Ok(()) => SinkError::Halt(reply.describe()),
        Err(fault) => fault.into(),
    }
}

/// Overload, no space, an unavailable server or Keeper, a cancelled query.
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

    use tallybus_sdk::WriteOutcome;
    use tallybus_sdk::text::SHOWN;

    use super::*;
    use crate::shared::http::message_of;

    fn kind(status: u16, code: Option<u32>) -> &'static str {
        let answer = shared_http::Reply { status, ..Default::default() };
        WriteOutcome::from(judge(&Reply { code, answer }, SystemTime::UNIX_EPOCH)).kind()
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
        let answer = shared_http::Reply { status: 503, retry_after: Some("7".to_owned()), ..Default::default() };
        assert_eq!(
            judge(&Reply { code: None, answer }, SystemTime::UNIX_EPOCH),
            Err(Fault::Retry { after: Some(Duration::from_secs(7)), reason: "ClickHouse answered 503".to_owned() })
        );
    }
}
