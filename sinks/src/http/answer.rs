//! What an HTTP answer to a write means.

use std::time::SystemTime;

use tallybus_sdk::Answer;
use tallybus_sdk::text::redact;

use super::format::otlp::PartialSuccess;
use crate::http_common::Reply;

/// Who answers, in messages.
pub(super) const WHO: &str = "the server";

/// What to do about a reply. `is_keyed`: the request carried an idempotency key.
///
/// A refusal of the request becomes [`Answer::Split`]: a server that answers 400, 413 or 422 took nothing of it, so halving
/// finds the bad points without harm.
pub(super) fn judge(reply: &Reply, is_keyed: bool, now: SystemTime) -> Answer {
    let reason = describe(reply);
    let halt = |what: &str| Answer::Halt { reason: format!("{reason}; {what}") };
    match reply.status {
        200..=299 => Answer::Done,
        300..=399 => halt("the server sends us elsewhere: set `url` to where it really is"),
        401 | 403 | 407 => halt("check the credentials in `headers` and what they may write"),
        404 | 405 | 410 => halt("check `url` and `method`"),
        408 | 425 | 429 => Answer::Retry { after: reply.wait(now), reason },
        // Another request of the same key is under way: the same batch, sent by a worker before us or by our last try.
        409 if is_keyed => Answer::Retry { after: reply.wait(now), reason },
        400 | 409 | 422 if is_keyed && reply.message.to_ascii_lowercase().contains("idempoten") => halt(
            "the server knows this idempotency key with another body: nothing of ours changes a batch's body, so look at \
             what stands between",
        ),
        400 | 413 | 422 => Answer::Split { reason },
        500..=599 => Answer::Retry { after: reply.wait(now), reason },
        _ => Answer::Halt { reason },
    }
}

/// What an OTLP receiver's partial success means for a request of so many points. It names none of those that it refused.
///
/// With all refused, nothing is in, and halving finds out whether single ones would be taken. With some refused, nobody can
/// tell which: the sink halts, unless the operator said to go on without them.
pub(super) fn judge_partial(partial: &PartialSuccess, points: usize, goes_on: bool, secrets: &[&str]) -> Answer {
    let refused = usize::try_from(partial.rejected_data_points).unwrap_or_default();
    if refused == 0 {
        return Answer::Done;
    }
    let said = redact(&partial.error_message, secrets);
    let reason = format!("the server took a request of {points} points without {refused} of them: {said:?}");
    if refused >= points {
        return Answer::Split { reason };
    }
    if goes_on {
        return Answer::Done;
    }
    Answer::Halt {
        reason: format!(
            "{reason}; it does not say which: mend what it refuses (a limit there, `select` here), or set \
             `partial_success = \"accept\"` to go on without them"
        ),
    }
}

/// `the server answered 503: too busy`.
pub(super) fn describe(reply: &Reply) -> String {
    reply.describe(WHO)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn judged(status: u16, message: &str, is_keyed: bool) -> Answer {
        let reply = Reply { status, retry_after: Some("9".to_owned()), message: message.to_owned() };
        judge(&reply, is_keyed, SystemTime::UNIX_EPOCH)
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
            let Answer::Retry { after, reason } = judged(status, "busy", true) else { panic!("no retry") };
            assert_eq!((after, reason), (Some(Duration::from_secs(9)), format!("the server answered {status}: busy")));
        }
        let Answer::Halt { reason } = judged(401, "no", true) else { panic!("no halt") };
        assert_eq!(reason, "the server answered 401: no; check the credentials in `headers` and what they may write");
    }

    #[test]
    fn a_partial_success_is_never_silent() {
        let partial = |refused| PartialSuccess { rejected_data_points: refused, error_message: "no s3cret".to_owned() };
        let judged = |refused, goes_on| judge_partial(&partial(refused), 10, goes_on, &["s3cret"]);
        assert_eq!(judged(0, false), Answer::Done);
        assert_eq!(judged(-1, false), Answer::Done);
        assert_eq!(judged(3, false).kind(), "halt");
        assert_eq!(judged(3, true), Answer::Done);
        for goes_on in [true, false] {
            let Answer::Split { reason } = judged(10, goes_on) else { panic!("no split") };
            assert_eq!(reason, "the server took a request of 10 points without 10 of them: \"no ***\"");
        }
    }
}
