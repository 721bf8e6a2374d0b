//! Classifies HTTP answers to writes.

use std::time::SystemTime;

use tallybus_sdk::Fault;
use tallybus_sdk::text::{count_of, redact};

use super::format::otlp::PartialSuccess;
use crate::shared::http::Reply;

/// The server's name in messages.
pub(super) const WHO: &str = "the server";

/// Classifies a reply. `is_keyed`: the request carried an idempotency key.
///
/// # Errors
/// A server that answers 400, 413 or 422 stored nothing of the request, so halving finds the bad points safely.
pub(super) fn judge(reply: &Reply, is_keyed: bool, now: SystemTime) -> Result<(), Fault> {
    let reason = describe(reply);
    let operator = |next: &str| Fault::operator(format!("{reason}; {next}"));
    Err(match reply.status {
        200..=299 => return Ok(()),
        300..=399 => operator("the server redirects to another address: set `url` to that address"),
        401 | 403 | 407 => operator("check the credentials in `headers` and their permission to write"),
        404 | 405 | 410 => operator("check `url` and `method`"),
        // Another request with the same key is in progress: the same batch, sent by an earlier worker or by this
        // worker's last attempt.
        409 if is_keyed => Fault::Retry { after: reply.wait(now), reason },
        400 | 422 if is_keyed && reply.message.to_ascii_lowercase().contains("idempoten") => operator(
            "the server knows this idempotency key with another body: Tallybus never changes a batch's body, so check \
             what proxies are \
             between this worker and the server",
        ),
        400 | 413 | 422 => Fault::refused(reason),
        408 | 425 | 429 | 500..=599 => Fault::Retry { after: reply.wait(now), reason },
        _ => Fault::operator(reason),
    })
}

/// Classifies an OTLP receiver's partial success for a request of this many points. The answer does not name the
/// refused points.
///
/// # Errors
/// With all refused, nothing was stored, and halving finds out whether single points are accepted. With some refused,
/// it is unknown which: operator action is needed, unless the settings accept their loss.
pub(super) fn judge_partial(
    partial: &PartialSuccess,
    points: usize,
    goes_on: bool,
    secrets: &[&str],
) -> Result<(), Fault> {
    let refused = usize::try_from(partial.rejected_data_points).unwrap_or_default();
    if refused == 0 {
        return Ok(());
    }
    let said = redact(&partial.error_message, secrets);
    let reason = format!(
        "the server accepted a request of {} but refused {refused} of them: {said:?}",
        count_of(points as u64, "point")
    );
    if refused >= points {
        return Err(Fault::refused(reason));
    }
    if goes_on {
        return Ok(());
    }
    Err(Fault::operator(format!(
        "{reason}; it does not say which: fix what it refuses (a limit there, `select` here), or set \
         `partial_success = \"accept\"` to accept their loss"
    )))
}

/// `the server answered 503: too busy`.
pub(super) fn describe(reply: &Reply) -> String {
    reply.describe(WHO)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tallybus_sdk::WriteOutcome;

    use super::*;

    fn judged(status: u16, message: &str, is_keyed: bool) -> WriteOutcome {
        let reply = Reply { status, retry_after: Some("9".to_owned()), message: message.to_owned() };
        judge(&reply, is_keyed, SystemTime::UNIX_EPOCH).into()
    }

    #[test]
    fn every_status_has_its_meaning() {
        for (status, message, with_key, without_key) in [
            (200, "", "done", "done"),
            (201, "", "done", "done"),
            (202, "", "done", "done"),
            (204, "", "done", "done"),
            (301, "", "halt", "halt"),
            (302, "", "halt", "halt"),
            (304, "", "halt", "halt"),
            (307, "moved", "halt", "halt"),
            (400, "bad row", "split", "split"),
            (400, "Idempotency-Key is too long", "halt", "split"),
            (401, "who are you", "halt", "halt"),
            (402, "pay first", "halt", "halt"),
            (403, "forbidden", "halt", "halt"),
            (404, "", "halt", "halt"),
            (405, "", "halt", "halt"),
            (406, "", "halt", "halt"),
            (407, "", "halt", "halt"),
            (408, "", "retry", "retry"),
            (409, "", "retry", "halt"),
            (409, "a request with this idempotency key is in progress", "retry", "halt"),
            (410, "gone", "halt", "halt"),
            (411, "", "halt", "halt"),
            (413, "too large", "split", "split"),
            (415, "what is this", "halt", "halt"),
            (418, "", "halt", "halt"),
            (422, "value too large", "split", "split"),
            (422, "this Idempotency-Key was used with another body", "halt", "split"),
            (425, "", "retry", "retry"),
            (429, "slow down", "retry", "retry"),
            (500, "", "retry", "retry"),
            (501, "", "retry", "retry"),
            (502, "", "retry", "retry"),
            (503, "", "retry", "retry"),
            (504, "", "retry", "retry"),
            (599, "", "retry", "retry"),
        ] {
            assert_eq!(judged(status, message, true).kind(), with_key, "{status} {message}, with a key");
            assert_eq!(judged(status, message, false).kind(), without_key, "{status} {message}, without a key");
        }
    }

    #[test]
    fn a_wait_and_the_servers_words_are_handed_on() {
        for status in [408, 409, 425, 429, 503] {
            let WriteOutcome::Retry { after, reason } = judged(status, "busy", true) else { panic!("no retry") };
            assert_eq!((after, reason), (Some(Duration::from_secs(9)), format!("the server answered {status}: busy")));
        }
        let WriteOutcome::Halt { reason } = judged(401, "no", true) else { panic!("no halt") };
        assert_eq!(
            reason,
            "the server answered 401: no; check the credentials in `headers` and their permission to write"
        );
    }

    #[test]
    fn a_partial_success_is_never_silent() {
        let partial = |refused| PartialSuccess { rejected_data_points: refused, error_message: "no s3cret".to_owned() };
        let judged = |refused, goes_on| WriteOutcome::from(judge_partial(&partial(refused), 10, goes_on, &["s3cret"]));
        assert_eq!(judged(0, false), WriteOutcome::Done);
        assert_eq!(judged(-1, false), WriteOutcome::Done);
        assert_eq!(judged(3, false).kind(), "halt");
        assert_eq!(judged(3, true), WriteOutcome::Done);
        for goes_on in [true, false] {
            let WriteOutcome::Split { reason } = judged(10, goes_on) else { panic!("no split") };
            assert_eq!(reason, "the server accepted a request of 10 points but refused 10 of them: \"no ***\"");
        }
    }
}
