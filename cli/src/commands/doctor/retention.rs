//! How long the bus keeps what a worker that is away needs: its records, and the group's offsets.

use tallybus_bus::{BusError, Observer, Retention};
use tallybus_worker::compacted_topic;

use super::checks::{Checks, Finding};
use crate::failure::Failure;
use crate::text::{duration, grouped};

/// Checks the topics that sinks read, those that exist. A bus that deletes and forgets nothing is not mentioned.
pub(super) fn check(observer: &dyn Observer, topics: &[&str], checks: &mut Checks<'_>) -> Result<(), Failure> {
    let forgets = observer.forgets_groups_after();
    for topic in topics {
        // A topic that does not exist has its own check.
        let finding = match observer.retention(&[topic]).map(|found| found.first().copied()) {
            Ok(Some(retention)) if retention.is_forever() && matches!(forgets, Ok(None)) => continue,
            Ok(Some(retention)) => of_topic(topic, retention),
            Ok(None) | Err(BusError::NoTopic(_)) => continue,
            Err(error) => unknown(&error),
        };
        checks.add(&format!("retention of {topic}"), finding)?;
    }
    let finding = match forgets {
        Ok(None) => return Ok(()),
        Ok(Some(after)) => Finding::Good(format!(
            "kept for {} after the last commit; a worker that is away for longer halts, and `tallybus group restore` puts \
             its group back",
            duration(after)
        )),
        Err(error) => unknown(&error),
    };
    checks.add("retention of offsets", finding)
}

/// Checks a topic that holds the last record of each key, if it exists: the bus must keep that one for ever.
pub(super) fn check_compacted(observer: &dyn Observer, topic: &str, checks: &mut Checks<'_>) -> Result<(), Failure> {
    let found = observer.partitions_of(topic).and_then(|count| match count {
        Some(_) => observer.retention(&[topic]).map(|found| found.first().copied()),
        None => Ok(None),
    });
    let finding = match found {
        Ok(Some(retention)) => of_compacted(retention),
        Ok(None) => return Ok(()),
        Err(error) => unknown(&error),
    };
    checks.add(&format!("topic {topic}"), finding)
}

fn of_compacted(retention: Retention) -> Finding {
    match (retention.compacts, retention.time, retention.bytes) {
        (true, None, None) => Finding::Good("the last record of each service is kept for ever".to_owned()),
        (false, None, None) => Finding::Note(
            "every record is kept for ever: reading it takes longer and longer. Set its cleanup.policy to `compact`".to_owned(),
        ),
        _ => Finding::Fault(
            "the bus may delete the last record of a service that is silent, and `tallybus settled` would no longer wait for it: \
             set its cleanup.policy to `compact`"
                .to_owned(),
        ),
    }
}

fn unknown(error: &BusError) -> Finding {
    Finding::Note(format!("not known: {error}"))
}

fn of_topic(topic: &str, retention: Retention) -> Finding {
    let limits = match (retention.time, retention.bytes) {
        _ if retention.compacts => return Finding::Fault(compacted_topic(topic)),
        (None, None) => return Finding::Good("records are kept for ever".to_owned()),
        (Some(time), None) => duration(time),
        (None, Some(size)) => format!("{} bytes a partition", grouped(size)),
        (Some(time), Some(size)) => {
            format!("{}, or {} bytes a partition if that is reached first", duration(time), grouped(size))
        }
    };
    Finding::Good(format!("records are kept for {limits}: a sink that is away for longer loses counts, and halts"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_topic_of_states_must_be_compacted_and_have_no_other_limit() {
        let (time, forever) = (Some(Duration::from_secs(86_400)), Retention::default());
        let compacted = Retention { compacts: true, ..forever };
        assert!(matches!(of_compacted(compacted), Finding::Good(_)));
        assert!(matches!(of_compacted(forever), Finding::Note(_)));
        for limited in [Retention { time, ..forever }, Retention { time, ..compacted }] {
            assert!(of_compacted(limited).is_fault());
        }
    }

    #[test]
    fn what_a_topic_keeps_is_shown_and_a_compacted_one_fails() {
        let (time, size) = (Some(Duration::from_secs(7 * 86_400)), Some(1 << 30));
        for (retention, expected) in [
            (Retention::default(), "records are kept for ever"),
            (Retention { time, ..Retention::default() }, "records are kept for 7d: a sink"),
            (
                Retention { time, bytes: size, compacts: false },
                "kept for 7d, or 1,073,741,824 bytes a partition if that is reached first",
            ),
        ] {
            assert!(matches!(of_topic("t", retention), Finding::Good(text) if text.contains(expected)), "{expected}");
        }
        let compacted = Retention { compacts: true, time, ..Retention::default() };
        assert!(of_topic("t", compacted).is_fault());
    }
}
