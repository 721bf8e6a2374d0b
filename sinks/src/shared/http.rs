//! Shared by the sinks over HTTP: the client, and the relevant parts of a server's answer: status, stated wait, and its
//! message without secrets.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{ClientBuilder, Response};
use tallybus_sdk::SinkError;
use tallybus_sdk::text::{brief, redact};

/// A server that does not accept a connection is retried later; a longer wait would only hide that it is unavailable.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes read of an answer whose body is only a message.
const MESSAGE_BYTES: usize = 64 << 10;

/// A client whose requests take no longer than `timeout`.
pub(crate) fn client(timeout: Duration) -> ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        // Credentials go only to the server that the operator configured.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tallybus/", env!("CARGO_PKG_VERSION")))
}

/// Builds it.
///
/// # Errors
/// The system's TLS library does not work.
pub(crate) fn build(builder: ClientBuilder) -> Result<reqwest::Client, SinkError> {
    builder.build().map_err(|error| SinkError::Halt(format!("cannot create an HTTP client: {error}")))
}

/// The relevant parts of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// The header of that name.
    pub(crate) retry_after: Option<String>,
    /// The server's message, without secrets; empty when its status says that all went well.
    pub(crate) message: String,
}

impl Reply {
    /// Reads an answer, and at most the beginning of its body.
    ///
    /// # Errors
    /// The connection failed before the relevant parts arrived.
    pub(crate) async fn read(mut response: Response, secrets: &[&str]) -> Result<(Self, Vec<u8>), reqwest::Error> {
        let status = response.status().as_u16();
        let header = response.headers().get(RETRY_AFTER);
        let retry_after = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut body = Vec::new();
        while body.len() < MESSAGE_BYTES {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                // The status is sufficient; the message may be incomplete.
                Err(_) if status >= 300 => break,
                Err(error) => return Err(error),
            }
        }
        let message = if status < 300 { String::new() } else { message_of(&body, secrets) };
        Ok((Self { status, retry_after, message }, body))
    }

    /// Takes the body for the message where the status says that all went well: a page of something in front of the
    /// server, where a server itself would answer without a body.
    pub(crate) fn with_body(mut self, body: &[u8], secrets: &[&str]) -> Self {
        if self.message.is_empty() {
            self.message = message_of(body, secrets);
        }
        self
    }

    /// How long the server asks the client to wait: seconds, or an HTTP date.
    pub(crate) fn wait(&self, now: SystemTime) -> Option<Duration> {
        let text = self.retry_after.as_deref()?.trim();
        if let Ok(seconds) = text.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        let until = httpdate::parse_http_date(text).ok()?;
        // A date in the past: the wait is over.
        Some(until.duration_since(now).unwrap_or(Duration::ZERO))
    }

    /// `InfluxDB answered 503: too busy`.
    pub(crate) fn describe(&self, who: &str) -> String {
        match self.message.is_empty() {
            true => format!("{who} answered {}", self.status),
            false => format!("{who} answered {}: {}", self.status, self.message),
        }
    }

    /// Why a check or read was refused, and whether a retry may help.
    pub(crate) fn refusal(&self, who: &str) -> SinkError {
        let reason = self.describe(who);
        match self.status {
            408 | 425 | 429 | 500..=599 => SinkError::Unavailable(reason),
            _ => SinkError::Halt(reason),
        }
    }
}

/// A server that reports success in a form which the expected one never uses: a proxy, a login page, another port. Asked again, it
/// answers the same. `answered`: what it said, without secrets.
pub(crate) fn not_as(who: &str, server: &str, answered: &str) -> SinkError {
    let answered = if answered.is_empty() { "nothing" } else { answered };
    SinkError::Halt(format!(
        "{server} answers, but not as {who} does: it answered {answered}; check `url` and what is between it and this program"
    ))
}

/// What an answer of success means that the server itself never gives. `because`: what the server answers instead.
pub(crate) fn not_written(because: &str) -> String {
    format!(
        "{because}, so this was another server, such as a proxy or a login page, and nothing is known to be written: check `url` \
         and what is between it and this program"
    )
}

/// Whether a body is a page for a browser, which no interface for programs answers.
pub(crate) fn is_page(body: &[u8]) -> bool {
    let begins_with = |tag: &[u8]| {
        let begin = body.trim_ascii_start();
        begin.len() >= tag.len() && begin[..tag.len()].eq_ignore_ascii_case(tag)
    };
    begins_with(b"<!doctype html") || begins_with(b"<html")
}

/// The server's message out of a body, short, in one line and without these secrets.
pub(crate) fn message_of(body: &[u8], secrets: &[&str]) -> String {
    let text = match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(json) => {
            let said = ["message", "error", "detail"].iter().find_map(|key| json[key].as_str());
            said.map_or_else(|| json.to_string(), str::to_owned)
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    brief(&text, secrets)
}

/// Why a request got no answer, with the whole chain of causes: the outermost error only reports that it failed.
pub(crate) fn describe_failure(server: &str, error: reqwest::Error, secrets: &[&str]) -> String {
    let what = if error.is_connect() {
        "cannot connect"
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "the connection failed"
    };
    let error = error.without_url();
    let mut text = format!("{server} cannot be reached: {what}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    redact(&text, secrets)
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::text::SHOWN;

    use super::*;

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
            assert_eq!(reply.wait(now), expected, "{header}");
        }
        assert_eq!(Reply::default().wait(now), None);
    }

    #[test]
    fn a_message_is_short_and_without_secrets() {
        assert_eq!(message_of(br#"{"error":"no s3cret here"}"#, &["s3cret"]), "no *** here");
        assert_eq!(message_of(br#"{"code":"invalid","message":"bad line"}"#, &[]), "bad line");
        assert_eq!(message_of(br#"{"title":"t","detail":"bad row"}"#, &[]), "bad row");
        assert_eq!(message_of(br#"{"a":1}"#, &[]), r#"{"a":1}"#);
        assert_eq!(message_of(b" plain \n", &["", "s"]), "plain");
        assert_eq!(message_of(b"\x08\x03\x12\x02no\nmore", &[]), "no more");
        let long = "é".repeat(10_000);
        let shown = message_of(long.as_bytes(), &[]);
        assert!(shown.len() <= SHOWN + "…".len() && shown.ends_with('…'));
        // A secret across the cut is removed too, because secrets are removed first.
        let body = format!("{}s3cret", "x".repeat(SHOWN - 2));
        assert!(!message_of(body.as_bytes(), &["s3cret"]).contains("s3"));
        assert!(!message_of(&[0xff, 0xfe], &[]).is_empty());
    }

    #[test]
    fn a_page_is_told_from_other_bodies() {
        for (body, expected) in [
            ("<!DOCTYPE html><html>", true),
            ("\n <HTML lang=\"en\">", true),
            ("<?xml version=\"1.0\"?><ListBucketResult/>", false),
            ("{\"html\":\"<html>\"}", false),
            ("", false),
        ] {
            assert_eq!(is_page(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn a_reply_is_described_with_the_servers_words() {
        let reply = Reply { status: 401, retry_after: None, message: "unauthorized access".to_owned() };
        assert_eq!(reply.describe("InfluxDB"), "InfluxDB answered 401: unauthorized access");
        assert_eq!(Reply { status: 503, ..Reply::default() }.describe("it"), "it answered 503");
    }
}
