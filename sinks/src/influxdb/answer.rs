//! Classifies HTTP answers to writes.

use std::time::SystemTime;

use tallybus_sdk::Fault;

use crate::shared::http::{Reply, not_written};

/// The server's name in messages.
pub(super) const WHO: &str = "InfluxDB";

/// What to do about a missing bucket or database, whether or not the setting is there already.
pub(super) const CREATE: &str = "create it, or restart the worker with `create = true`";

/// Classifies a reply.
///
/// # Errors
/// A refusal of some points counts as a refusal of all: a point written again changes nothing, so halving finds the bad
/// ones safely.
pub(super) fn judge(reply: &Reply, now: SystemTime) -> Result<(), Fault> {
    let text = reply.message.to_ascii_lowercase();
    let about_points = ["partial write", "beyond retention", "outside retention", "dropped="];
    let names_points = about_points.iter().any(|words| text.contains(words));
    let missing = text.contains("not found");
    let reason = describe(reply);
    let operator = |next: &str| Fault::operator(format!("{reason}; {next}"));
    Err(match reply.status {
        204 => return Ok(()),
        200..=299 => operator(&not_written("InfluxDB answers a write with 204 and no body")),
        300..=399 => operator("the server redirects to another address: set `url` to that address"),
        401 | 403 => operator("check the credentials and their permission to write"),
        404 if is_path(&text) => operator("the server has no such path: check `url` and `api`"),
        404 if text.contains("organization") => operator("correct `org`, or create the organisation"),
        404 => operator(CREATE),
        400 if missing && !names_points => operator(CREATE),
        400 | 413 | 422 => Fault::refused(reason),
        500 if text.contains("retention policy not found") => {
            operator("create the retention policy, or leave `retention_policy` out")
        }
        500 if text.contains("database not found") => operator(CREATE),
        500 if names_points => Fault::refused(reason),
        408 | 425 | 429 | 500..=599 => Fault::Retry { after: reply.wait(now), reason },
        _ => Fault::operator(reason),
    })
}

/// Whether the bucket or database is missing, and not the whole path, as it is on a server of another version.
pub(super) fn says_missing(reply: &Reply) -> bool {
    matches!(reply.status, 400 | 404 | 500)
        && reply.message.contains("not found")
        && !is_path(&reply.message.to_ascii_lowercase())
}

/// The words of InfluxDB 1 and 2 for a path that they do not know, and those of most proxies.
fn is_path(text: &str) -> bool {
    text.is_empty() || ["page not found", "path not found", "<html"].iter().any(|words| text.contains(words))
}

/// `InfluxDB answered 503: too busy`.
pub(super) fn describe(reply: &Reply) -> String {
    reply.describe(WHO)
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::WriteOutcome;

    use super::*;

    fn judged(status: u16, message: &str) -> WriteOutcome {
        let reply = Reply { status, retry_after: None, message: message.to_owned() };
        judge(&reply, SystemTime::UNIX_EPOCH).into()
    }

    #[test]
    fn every_status_has_its_meaning() {
        for (status, message, expected) in [
            (200, "", "halt"),
            (200, "<html>Sign in</html>", "halt"),
            (202, "", "halt"),
            (204, "", "done"),
            (301, "", "halt"),
            (307, "moved", "halt"),
            (400, "unable to parse 'x': missing fields", "split"),
            (400, "partial write: points beyond retention policy dropped=1", "split"),
            (400, "partial write: field type conflict: input field \"value\" on measurement \"not found\"", "split"),
            (400, "field type conflict", "split"),
            (400, "bucket \"b\" not found", "halt"),
            (400, "database not found: \"d\"", "halt"),
            (401, "unauthorized access", "halt"),
            (402, "pay first", "halt"),
            (403, "forbidden", "halt"),
            (404, "database not found: \"d\"", "halt"),
            (404, "organization name \"o\" not found", "halt"),
            (405, "", "halt"),
            (408, "", "retry"),
            (409, "", "halt"),
            (413, "Request Entity Too Large", "split"),
            (418, "", "halt"),
            (422, "failure writing points to database: partial write: dropped=1", "split"),
            (425, "", "retry"),
            (429, "slow down", "retry"),
            (500, "timeout", "retry"),
            (500, "unexpected error writing points: partial write: points beyond retention policy dropped=1", "split"),
            (500, "retention policy not found: nope", "halt"),
            (500, "database not found: d", "halt"),
            (500, "engine: cache-max-memory-size exceeded", "retry"),
            (502, "", "retry"),
            (503, "", "retry"),
            (504, "", "retry"),
            (599, "", "retry"),
        ] {
            assert_eq!(judged(status, message).kind(), expected, "{status} {message}");
        }
    }

    #[test]
    fn what_is_missing_is_told_from_a_server_without_the_path() {
        for (status, message, is_missing, next) in [
            (404, "database not found: \"d\"", true, "create it"),
            (404, "bucket \"b\" not found", true, "create it"),
            (400, "database not found: \"d\"", true, "create it"),
            (500, "database not found: d", true, "create it"),
            (404, "organization name \"o\" not found", true, "correct `org`"),
            (404, "404 page not found", false, "check `url` and `api`"),
            (404, "path not found", false, "check `url` and `api`"),
            (404, "<html><h1>404 Not Found</h1></html>", false, "check `url` and `api`"),
            (404, "", false, "check `url` and `api`"),
            (403, "not found by you", false, "check the credentials"),
        ] {
            let reply = Reply { status, retry_after: None, message: message.to_owned() };
            assert_eq!(says_missing(&reply), is_missing, "{status} {message}");
            let WriteOutcome::Halt { reason } = judged(status, message) else { panic!("{status} {message}") };
            assert!(reason.contains(next), "{reason}");
        }
    }

    #[test]
    fn a_page_with_status_200_is_no_success_and_its_words_are_told() {
        let reply = Reply { status: 200, ..Reply::default() }.with_body(b"<html>\nSign in</html>", &[]);
        let WriteOutcome::Halt { reason } = judge(&reply, SystemTime::UNIX_EPOCH).into() else { panic!("no halt") };
        assert!(reason.starts_with("InfluxDB answered 200: <html> Sign in</html>; InfluxDB answers a write with 204"));
    }

    #[test]
    fn a_reason_tells_what_the_server_said() {
        let WriteOutcome::Halt { reason } = judged(401, "unauthorized access") else { panic!("no halt") };
        assert_eq!(
            reason,
            "InfluxDB answered 401: unauthorized access; check the credentials and their permission to write"
        );
        assert_eq!(describe(&Reply { status: 503, ..Reply::default() }), "InfluxDB answered 503");
    }
}
