//! What an error of the Data API, or of a statement, means.

use tallybus_sdk::text::{redact, shorten};

use crate::aws::{Blame, Failure};

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same again, later.
    Retry,
    /// Less at once.
    Split,
    /// A row that the table will never take is among them.
    Data,
    /// The ledger did not move: it is not where it would have to be.
    Fenced,
    /// Somebody must act.
    Halt,
}

/// An error answered to a request. Nothing was submitted by it.
pub(super) fn of_request(failure: &Failure) -> Verdict {
    let text = failure.text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match failure.code.as_deref().unwrap_or_default() {
        "ActiveStatementsExceededException"
        | "ActiveSessionsExceededException"
        | "ActiveWaitingRequestsExceededException"
        | "InternalServerException"
        | "QueryTimeoutException" => Verdict::Retry,
        // The environment failed, not the statement; but who may not connect, or where to is wrong, stays so.
        "BatchExecuteStatementException" | "ExecuteStatementException" | "DatabaseConnectionException" => {
            match says(&["password", "authentication", "not authorized", "does not exist", "permission", "secret"]) {
                true => Verdict::Halt,
                false => Verdict::Retry,
            }
        }
        "ResourceNotFoundException" => Verdict::Halt,
        "RequestEntityTooLargeException" | "RequestTooLarge" => Verdict::Split,
        "ValidationException" if says(TOO_LARGE) => Verdict::Split,
        // A cluster that is paused, resumed, resized or moved.
        "ValidationException" if says(&["paus", "resum", "resiz", "not available", "unavailable", "try again"]) => {
            Verdict::Retry
        }
        "ValidationException" => Verdict::Halt,
        _ if says(&["(413)"]) => Verdict::Split,
        _ => match failure.blame {
            Blame::Throttled | Blame::Passing => Verdict::Retry,
            Blame::Operator | Blame::Request => Verdict::Halt,
        },
    }
}

const TOO_LARGE: &[&str] = &[
    "100kb",
    "100 kb",
    "larger than",
    "too large",
    "less than or equal to",
    "at most 40",
    "too many statements",
    "request size",
];

/// An error of a statement that failed: the first words that fit decide.
pub(super) fn of_statement(error: &str) -> Verdict {
    let text = error.to_lowercase();
    if text.contains("next_offset") && text.contains("null") {
        return Verdict::Fenced;
    }
    let found = WORDS.iter().find(|(words, _)| words.iter().all(|word| text.contains(word)));
    found.map_or(Verdict::Halt, |(_, verdict)| *verdict)
}

/// All of the words must be there.
const WORDS: &[(&[&str], Verdict)] = &[
    // Two transactions at once.
    (&["serializable isolation violation"], Verdict::Retry),
    (&["could not serialize"], Verdict::Retry),
    (&["conflict"], Verdict::Retry),
    (&["deadlock"], Verdict::Retry),
    (&["could not obtain lock"], Verdict::Retry),
    (&["concurrent"], Verdict::Retry),
    // Somebody must act, whatever else the message says.
    (&["permission denied"], Verdict::Halt),
    (&["not authorized"], Verdict::Halt),
    (&["access denied"], Verdict::Halt),
    (&["accessdenied"], Verdict::Halt),
    (&["authentication failed"], Verdict::Halt),
    (&["must be owner"], Verdict::Halt),
    (&["s3 prefix", "does not exist"], Verdict::Retry),
    (&["does not exist"], Verdict::Halt),
    (&["read-only"], Verdict::Halt),
    (&["syntax error"], Verdict::Halt),
    (&["expression is of type"], Verdict::Halt),
    // A row that does not fit.
    (&["value too long"], Verdict::Data),
    (&["data overflow"], Verdict::Data),
    (&["out of range"], Verdict::Data),
    (&["invalid input"], Verdict::Data),
    (&["unsupported utf8"], Verdict::Data),
    (&["json pars"], Verdict::Data),
    (&["invalid json"], Verdict::Data),
    (&["exceeds", "super"], Verdict::Data),
    (&["null value"], Verdict::Data),
    (&["stl_load_errors"], Verdict::Data),
    (&["sys_load_error_detail"], Verdict::Data),
    // Too much at once.
    (&["statement is too large"], Verdict::Split),
    (&["stack depth"], Verdict::Split),
    (&["plan", "too large"], Verdict::Split),
    // The cluster is busy, full, or going through something.
    (&["disk full"], Verdict::Retry),
    (&["out of memory"], Verdict::Retry),
    (&["abort"], Verdict::Retry),
    (&["cancel"], Verdict::Retry),
    (&["time"], Verdict::Retry),
    (&["connection"], Verdict::Retry),
    (&["terminat"], Verdict::Retry),
    (&["shutting down"], Verdict::Retry),
    (&["restart"], Verdict::Retry),
    (&["starting up"], Verdict::Retry),
    (&["too many"], Verdict::Retry),
    (&["internal error"], Verdict::Retry),
    (&["assert"], Verdict::Retry),
    (&["s3serviceexception"], Verdict::Retry),
    (&["problem reading"], Verdict::Retry),
];

/// A message with every secret taken out, and not longer than people read.
pub(super) fn clean(text: &str, secrets: &[&str]) -> String {
    shorten(&redact(text.trim(), secrets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_published_error_has_its_meaning() {
        for (code, message, blame, expected) in [
            (
                "ActiveStatementsExceededException",
                "the number of active statements exceeds",
                Blame::Request,
                Verdict::Retry,
            ),
            ("ActiveSessionsExceededException", "", Blame::Request, Verdict::Retry),
            ("ActiveWaitingRequestsExceededException", "", Blame::Request, Verdict::Retry),
            ("BatchExecuteStatementException", "could not connect", Blame::Passing, Verdict::Retry),
            ("ExecuteStatementException", "environment", Blame::Passing, Verdict::Retry),
            ("DatabaseConnectionException", "connection refused", Blame::Passing, Verdict::Retry),
            ("DatabaseConnectionException", "FATAL: password authentication failed", Blame::Passing, Verdict::Halt),
            ("DatabaseConnectionException", "database \"d\" does not exist", Blame::Passing, Verdict::Halt),
            ("InternalServerException", "", Blame::Passing, Verdict::Retry),
            ("QueryTimeoutException", "", Blame::Request, Verdict::Retry),
            ("ResourceNotFoundException", "", Blame::Operator, Verdict::Halt),
            ("ValidationException", "Cannot process query string larger than 100kB", Blame::Request, Verdict::Split),
            ("ValidationException", "Member must have length less than or equal to 40", Blame::Request, Verdict::Split),
            ("ValidationException", "Redshift endpoint doesn't exist in this region.", Blame::Request, Verdict::Halt),
            ("ValidationException", "Cluster is paused", Blame::Request, Verdict::Retry),
            ("AccessDeniedException", "", Blame::Operator, Verdict::Halt),
            ("ThrottlingException", "Rate exceeded", Blame::Throttled, Verdict::Retry),
            ("ServiceUnavailableException", "", Blame::Passing, Verdict::Retry),
            ("UnrecognizedClientException", "", Blame::Operator, Verdict::Halt),
            ("SomethingNew", "(413): too large", Blame::Request, Verdict::Split),
            ("SomethingNew", "", Blame::Request, Verdict::Halt),
        ] {
            let failure = Failure { blame, code: Some(code.to_owned()), text: format!("{code}: {message}") };
            assert_eq!(of_request(&failure), expected, "{code}: {message}");
        }
        let lost = Failure { blame: Blame::Passing, code: None, text: "no answer in time".to_owned() };
        assert_eq!(of_request(&lost), Verdict::Retry);
    }

    #[test]
    fn every_failure_of_a_statement_has_its_meaning() {
        for (error, expected) in [
            ("ERROR: Cannot insert a NULL value into column next_offset", Verdict::Fenced),
            ("ERROR: null value in column \"next_offset\" violates not-null constraint", Verdict::Fenced),
            (
                "ERROR: 1023 DETAIL: Serializable isolation violation on table - 1234, transactions forming the cycle are: 1, 2",
                Verdict::Retry,
            ),
            ("ERROR: deadlock detected", Verdict::Retry),
            ("ERROR: could not serialize access due to concurrent update", Verdict::Retry),
            ("ERROR: relation \"public.counters\" does not exist", Verdict::Halt),
            ("ERROR: schema \"s\" does not exist", Verdict::Halt),
            ("ERROR: column \"route\" of relation \"counters\" does not exist", Verdict::Halt),
            ("ERROR: permission denied for relation counters", Verdict::Halt),
            ("FATAL: password authentication failed for user \"u\"", Verdict::Halt),
            (
                "ERROR: Value too long for character type DETAIL: Value too long for type character varying(3)",
                Verdict::Data,
            ),
            ("ERROR: value too long for type character varying(3)", Verdict::Data),
            ("ERROR: Numeric data overflow (result precision)", Verdict::Data),
            (
                "ERROR: String contains invalid or unsupported UTF8 codepoints. Bad UTF8 hex sequence: ef bf bf (error 3)",
                Verdict::Data,
            ),
            ("ERROR: JSON parsing error", Verdict::Data),
            (
                "ERROR: Load into table 'counters' failed. Check 'sys_load_error_detail' system table for details.",
                Verdict::Data,
            ),
            ("ERROR: Cannot insert a NULL value into column value", Verdict::Data),
            (
                "ERROR: Statement is too large. Statement Size: 16777217 bytes. Maximum Allowed: 16777216 bytes",
                Verdict::Split,
            ),
            ("ERROR: Disk Full Detail: node: 0", Verdict::Retry),
            ("ERROR: Query (1) cancelled on user's request", Verdict::Retry),
            ("Query aborted by system", Verdict::Retry),
            ("Connection was terminated", Verdict::Retry),
            ("ERROR: The specified S3 prefix 'a' does not exist", Verdict::Retry),
            ("ERROR: S3ServiceException:Access Denied,Status 403,Error AccessDenied", Verdict::Halt),
            ("ERROR: S3ServiceException:SlowDown,Status 503", Verdict::Retry),
            ("ERROR: something nobody has seen", Verdict::Halt),
            ("", Verdict::Halt),
        ] {
            assert_eq!(of_statement(error), expected, "{error}");
        }
    }

    #[test]
    fn a_message_is_short_and_without_secrets() {
        assert_eq!(clean(" a s3cret b ", &["", "s3cret"]), "a *** b");
        let long = clean(&"é".repeat(400), &[]);
        assert!(long.len() <= 503 && long.ends_with('…'));
    }
}
