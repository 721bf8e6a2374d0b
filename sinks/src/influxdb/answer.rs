//! What an HTTP answer to a write means.

use std::time::{Duration, SystemTime};

use crate::Answer;

/// What of a body is shown to people.
const SHOWN: usize = 500;

/// An answer as far as it matters.
#[derive(Debug, Clone, Default)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// The header of that name.
    pub(super) retry_after: Option<String>,
    /// The server's message, without secrets.
    pub(super) message: String,
}

/// What to do about a reply. A refusal of some points becomes [`Answer::Split`]: a point written again changes nothing, so
/// halving finds the bad ones without harm.
pub(super) fn judge(reply: &Reply, now: SystemTime) -> Answer {
    let text = reply.message.to_ascii_lowercase();
    let about_points = ["partial write", "beyond retention", "outside retention", "dropped="];
    let names_points = about_points.iter().any(|words| text.contains(words));
    let missing = text.contains("not found");
    let reason = describe(reply);
    match reply.status {
        200..=299 => Answer::Done,
        300..=399 => {
            Answer::Halt { reason: format!("{reason}; the server sends us elsewhere: set `url` to where it really is") }
        }
        401 | 403 => Answer::Halt { reason: format!("{reason}; check the credentials and what they may write") },
        404 => Answer::Halt { reason: format!("{reason}; create it, or set `create = true`") },
        400 if missing && !names_points => {
            Answer::Halt { reason: format!("{reason}; create it, or set `create = true`") }
        }
        400 | 422 => Answer::Split { reason },
        413 => Answer::Split { reason },
        408 | 425 | 429 => Answer::Retry { after: wait(reply, now), reason },
        500 if text.contains("retention policy not found") => {
            Answer::Halt { reason: format!("{reason}; create the retention policy, or leave `retention_policy` out") }
        }
        500 if text.contains("database not found") => {
            Answer::Halt { reason: format!("{reason}; create it, or set `create = true`") }
        }
        500 if names_points => Answer::Split { reason },
        500..=599 => Answer::Retry { after: wait(reply, now), reason },
        _ => Answer::Halt { reason },
    }
}

/// `InfluxDB answered 503: too busy`.
pub(super) fn describe(reply: &Reply) -> String {
    match reply.message.is_empty() {
        true => format!("InfluxDB answered {}", reply.status),
        false => format!("InfluxDB answered {}: {}", reply.status, reply.message),
    }
}

/// The server's message out of a body, short and without these secrets.
pub(super) fn message_of(body: &[u8], secrets: &[&str]) -> String {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(json) => {
            let said = ["message", "error"].iter().find_map(|key| json[key].as_str());
            said.map_or_else(|| json.to_string(), str::to_owned)
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    shorten(&redact(text.trim(), secrets))
}

/// Takes every secret out of a text.
pub(super) fn redact(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret, "***");
    }
    text
}

fn shorten(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    let end = (0..=SHOWN).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    format!("{}…", &text[..end])
}

/// How long the server asks us to wait: seconds, or an HTTP date.
fn wait(reply: &Reply, now: SystemTime) -> Option<Duration> {
    let text = reply.retry_after.as_deref()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(until.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, message: &str) -> Answer {
        judge(&Reply { status, retry_after: None, message: message.to_owned() }, SystemTime::UNIX_EPOCH)
    }

    fn kind(answer: &Answer) -> &'static str {
        match answer {
            Answer::Done => "done",
            Answer::Rejected(_) => "rejected",
            Answer::Retry { .. } => "retry",
            Answer::Split { .. } => "split",
            Answer::Halt { .. } => "halt",
        }
    }

    #[test]
    fn every_status_has_its_meaning() {
        for (status, message, expected) in [
            (200, "", "done"),
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
            assert_eq!(kind(&judged(status, message)), expected, "{status} {message}");
        }
    }

    #[test]
    fn a_reason_tells_what_the_server_said() {
        let Answer::Halt { reason } = judged(401, "unauthorized access") else { panic!("no halt") };
        assert_eq!(reason, "InfluxDB answered 401: unauthorized access; check the credentials and what they may write");
        assert_eq!(describe(&Reply { status: 503, ..Reply::default() }), "InfluxDB answered 503");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (header, expected) in [
            ("7", Some(Duration::from_secs(7))),
            (" 0 ", Some(Duration::ZERO)),
            ("1.5", Some(Duration::from_millis(1_500))),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(Duration::from_secs(30))),
            ("Sunday, 06-Nov-94 08:50:07 GMT", Some(Duration::from_secs(30))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(Duration::ZERO)),
            ("soon", None),
            ("-3", None),
            ("NaN", None),
            ("1e300", None),
        ] {
            let reply = Reply { status: 503, retry_after: Some(header.to_owned()), message: String::new() };
            let Answer::Retry { after, .. } = judge(&reply, now) else { panic!("no retry") };
            assert_eq!(after, expected, "{header}");
        }
    }

    #[test]
    fn a_message_is_short_and_without_secrets() {
        assert_eq!(message_of(br#"{"error":"no s3cret here"}"#, &["s3cret"]), "no *** here");
        assert_eq!(message_of(br#"{"code":"invalid","message":"bad line"}"#, &[]), "bad line");
        assert_eq!(message_of(br#"{"a":1}"#, &[]), r#"{"a":1}"#);
        assert_eq!(message_of(b" plain \n", &["", "s"]), "plain");
        let long = "é".repeat(10_000);
        let shown = message_of(long.as_bytes(), &[]);
        assert!(shown.len() <= SHOWN + "…".len() && shown.ends_with('…'));
        // A secret across the cut is gone too: it is taken out first.
        let body = format!("{}s3cret", "x".repeat(SHOWN - 2));
        assert!(!message_of(body.as_bytes(), &["s3cret"]).contains("s3"));
        assert!(!message_of(&[0xff, 0xfe], &[]).is_empty());
    }
}
