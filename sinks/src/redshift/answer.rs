//! Classifies errors of the Data API and of statements.

use tallybus_sdk::Fault;
use tallybus_sdk::text::{redact, shorten};

use crate::shared::aws::Failure;

/// The class of a statement's error. Finer than [`Fault`], because what an attempt does next depends on more: a statement
/// that is too large is split, a bad row is found by splitting and then refused, and after `Fenced` the ledger decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Retry the same statement later.
    Retry,
    /// The statement or request is too large.
    TooLarge,
    /// It contains a row that the table will never accept.
    BadRow,
    /// The ledger did not advance: it is not at the batch's first offset.
    Fenced,
    /// Needs operator action.
    Operator,
}

impl Meaning {
    /// The fault for a statement that is not a batch.
    pub(super) fn fault(self, reason: String) -> Fault {
        match self {
            Self::Retry => Fault::retry(reason),
            Self::TooLarge | Self::BadRow => Fault::refused(reason),
            Self::Fenced | Self::Operator => Fault::operator(reason),
        }
    }
}

/// Classifies the error answer to a request. The request submitted nothing.
pub(super) fn of_request(failure: &Failure) -> Fault {
    let reason = failure.to_string();
    let text = reason.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    match failure.code.as_deref().unwrap_or_default() {
        "ActiveStatementsExceededException"
        | "ActiveSessionsExceededException"
        | "ActiveWaitingRequestsExceededException"
        | "InternalServerException"
        | "QueryTimeoutException" => Fault::retry(reason),
        // The environment failed, not the statement; but wrong credentials or a wrong address stay wrong.
        "BatchExecuteStatementException" | "ExecuteStatementException" | "DatabaseConnectionException" => {
            match says(&["password", "authentication", "not authorized", "does not exist", "permission", "secret"]) {
                true => Fault::operator(reason),
                false => Fault::retry(reason),
            }
        }
        "ResourceNotFoundException" => Fault::operator(reason),
        "RequestEntityTooLargeException" | "RequestTooLarge" => Fault::refused(reason),
        "ValidationException" if says(TOO_LARGE) => Fault::refused(reason),
        // A cluster that is being paused, resumed, resized or moved.
        "ValidationException" if says(&["paus", "resum", "resiz", "not available", "unavailable", "try again"]) => {
            Fault::retry(reason)
        }
        "ValidationException" => Fault::operator(reason),
        _ if says(&["(413)"]) => Fault::refused(reason),
        _ => match failure.fault {
            Fault::Retry { .. } => Fault::retry(reason),
            Fault::Operator { .. } | Fault::Refused { .. } => Fault::operator(reason),
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

/// Classifies the error of a failed statement: the first matching words decide.
pub(super) fn of_statement(error: &str) -> Meaning {
    let text = error.to_lowercase();
    if text.contains("next_offset") && text.contains("null") {
        return Meaning::Fenced;
    }
    let found = WORDS.iter().find(|(words, _)| words.iter().all(|word| text.contains(word)));
    found.map_or(Meaning::Operator, |(_, verdict)| *verdict)
}

/// All of the words must occur.
const WORDS: &[(&[&str], Meaning)] = &[
    // Two transactions at once.
    (&["serializable isolation violation"], Meaning::Retry),
    (&["could not serialize"], Meaning::Retry),
    (&["conflict"], Meaning::Retry),
    (&["deadlock"], Meaning::Retry),
    (&["could not obtain lock"], Meaning::Retry),
    (&["concurrent"], Meaning::Retry),
    // Needs operator action, whatever else the message says.
    (&["permission denied"], Meaning::Operator),
    (&["not authorized"], Meaning::Operator),
    (&["access denied"], Meaning::Operator),
    (&["accessdenied"], Meaning::Operator),
    (&["authentication failed"], Meaning::Operator),
    (&["must be owner"], Meaning::Operator),
    (&["s3 prefix", "does not exist"], Meaning::Retry),
    (&["does not exist"], Meaning::Operator),
    (&["read-only"], Meaning::Operator),
    (&["syntax error"], Meaning::Operator),
    (&["expression is of type"], Meaning::Operator),
    // A row that does not fit.
    (&["value too long"], Meaning::BadRow),
    (&["data overflow"], Meaning::BadRow),
    (&["out of range"], Meaning::BadRow),
    (&["invalid input"], Meaning::BadRow),
    (&["unsupported utf8"], Meaning::BadRow),
    (&["json pars"], Meaning::BadRow),
    (&["invalid json"], Meaning::BadRow),
    (&["exceeds", "super"], Meaning::BadRow),
    (&["null value"], Meaning::BadRow),
    (&["stl_load_errors"], Meaning::BadRow),
    (&["sys_load_error_detail"], Meaning::BadRow),
    // Too large.
    (&["statement is too large"], Meaning::TooLarge),
    (&["stack depth"], Meaning::TooLarge),
    (&["plan", "too large"], Meaning::TooLarge),
    // The cluster is busy, full, or restarting.
    (&["disk full"], Meaning::Retry),
    (&["out of memory"], Meaning::Retry),
    (&["abort"], Meaning::Retry),
    (&["cancel"], Meaning::Retry),
    (&["time"], Meaning::Retry),
    (&["connection"], Meaning::Retry),
    (&["terminat"], Meaning::Retry),
    (&["shutting down"], Meaning::Retry),
    (&["restart"], Meaning::Retry),
    (&["starting up"], Meaning::Retry),
    (&["too many"], Meaning::Retry),
    (&["internal error"], Meaning::Retry),
    (&["assert"], Meaning::Retry),
    (&["s3serviceexception"], Meaning::Retry),
    (&["problem reading"], Meaning::Retry),
];

/// A message with every secret removed, cut to a readable length.
pub(super) fn clean(text: &str, secrets: &[&str]) -> String {
    shorten(&redact(text.trim(), secrets))
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::WriteOutcome;

    use super::*;

    #[test]
    fn every_published_error_has_its_meaning() {
        for (code, message, status, expected) in [
            ("ActiveStatementsExceededException", "the number of active statements exceeds", 400, "retry"),
            ("ActiveSessionsExceededException", "", 400, "retry"),
            ("ActiveWaitingRequestsExceededException", "", 400, "retry"),
            ("BatchExecuteStatementException", "could not connect", 500, "retry"),
            ("ExecuteStatementException", "environment", 500, "retry"),
            ("DatabaseConnectionException", "connection refused", 500, "retry"),
            ("DatabaseConnectionException", "FATAL: password authentication failed", 500, "halt"),
            ("DatabaseConnectionException", "database \"d\" does not exist", 500, "halt"),
            ("InternalServerException", "", 500, "retry"),
            ("QueryTimeoutException", "", 400, "retry"),
            ("ResourceNotFoundException", "", 400, "halt"),
            ("ValidationException", "Cannot process query string larger than 100kB", 400, "split"),
            ("ValidationException", "Member must have length less than or equal to 40", 400, "split"),
            ("ValidationException", "Redshift endpoint doesn't exist in this region.", 400, "halt"),
            ("ValidationException", "Cluster is paused", 400, "retry"),
            ("AccessDeniedException", "", 400, "halt"),
            ("ThrottlingException", "Rate exceeded", 400, "retry"),
            ("ServiceUnavailableException", "", 500, "retry"),
            ("UnrecognizedClientException", "", 400, "halt"),
            ("SomethingNew", "too large", 413, "split"),
            ("SomethingNew", "", 400, "halt"),
        ] {
            let fault = of_request(&Failure::answered(Some(code), status, message));
            assert_eq!(WriteOutcome::from(fault).kind(), expected, "{code}: {message}");
        }
        let lost = Failure::unanswered(Fault::retry("no answer in time"));
        assert_eq!(of_request(&lost), Fault::retry("no answer in time"));
    }

    #[test]
    fn every_failure_of_a_statement_has_its_meaning() {
        for (error, expected) in [
            ("ERROR: Cannot insert a NULL value into column next_offset", Meaning::Fenced),
            ("ERROR: null value in column \"next_offset\" violates not-null constraint", Meaning::Fenced),
            (
                "ERROR: 1023 DETAIL: Serializable isolation violation on table - 1234, transactions forming the cycle are: 1, 2",
                Meaning::Retry,
            ),
            ("ERROR: deadlock detected", Meaning::Retry),
            ("ERROR: could not serialize access due to concurrent update", Meaning::Retry),
            ("ERROR: relation \"public.counters\" does not exist", Meaning::Operator),
            ("ERROR: schema \"s\" does not exist", Meaning::Operator),
            ("ERROR: column \"route\" of relation \"counters\" does not exist", Meaning::Operator),
            ("ERROR: permission denied for relation counters", Meaning::Operator),
            ("FATAL: password authentication failed for user \"u\"", Meaning::Operator),
            (
                "ERROR: Value too long for character type DETAIL: Value too long for type character varying(3)",
                Meaning::BadRow,
            ),
            ("ERROR: value too long for type character varying(3)", Meaning::BadRow),
            ("ERROR: Numeric data overflow (result precision)", Meaning::BadRow),
            (
                "ERROR: String contains invalid or unsupported UTF8 codepoints. Bad UTF8 hex sequence: ef bf bf (error 3)",
                Meaning::BadRow,
            ),
            ("ERROR: JSON parsing error", Meaning::BadRow),
            (
                "ERROR: Load into table 'counters' failed. Check 'sys_load_error_detail' system table for details.",
                Meaning::BadRow,
            ),
            ("ERROR: Cannot insert a NULL value into column value", Meaning::BadRow),
            (
                "ERROR: Statement is too large. Statement Size: 16777217 bytes. Maximum Allowed: 16777216 bytes",
                Meaning::TooLarge,
            ),
            ("ERROR: Disk Full Detail: node: 0", Meaning::Retry),
            ("ERROR: Query (1) cancelled on user's request", Meaning::Retry),
            ("Query aborted by system", Meaning::Retry),
            ("Connection was terminated", Meaning::Retry),
            ("ERROR: The specified S3 prefix 'a' does not exist", Meaning::Retry),
            ("ERROR: S3ServiceException:Access Denied,Status 403,Error AccessDenied", Meaning::Operator),
            ("ERROR: S3ServiceException:SlowDown,Status 503", Meaning::Retry),
            ("ERROR: something nobody has seen", Meaning::Operator),
            ("", Meaning::Operator),
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
