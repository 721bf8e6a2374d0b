use tallybus_sdk::StartAt;
use tallybus_sdk::text::count_of;

use super::AuditedSink;
use super::report::SinkFindings;

/// What was found beside the figures of a sink.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Circumstances {
    /// Windows of other sinks that write to the destination.
    pub(super) of_others: u64,
    /// Dead letters deleted by retention.
    pub(super) dead_letters_gone: u64,
    /// Whether records of the replay topic are gone.
    pub(super) replays_gone: bool,
    /// Records of the dead-letter topic that cannot be checked.
    pub(super) unreadable: u64,
}

/// Notes for operators: what qualifies the figures, or explains them.
pub(super) fn notes(sink: &AuditedSink, findings: &SinkFindings, beside: &Circumstances) -> Vec<String> {
    let mut notes = Vec::new();
    if beside.of_others > 0 {
        notes.push(format!(
            "{} of other sinks, which add other tags and have claimed the destination too, left out",
            count_of(beside.of_others, "window")
        ));
    }
    if findings.taken_after_all > 0 {
        notes.push(format!(
            "a value of {} in dead letters is also in the backend: a later attempt may have written it after all; check \
             this before replaying those dead letters",
            findings.taken_after_all
        ));
    }
    if beside.dead_letters_gone > 0 {
        notes.push("dead letters were deleted by retention: their value appears as missing".to_owned());
    }
    if beside.replays_gone {
        let topic = &sink.replay_topic;
        notes.push(format!("{topic} has lost its oldest records: replayed dead letters may appear as extra"));
    }
    if beside.unreadable > 0 {
        let records = count_of(beside.unreadable, "record");
        notes.push(format!("not dead letters that can be checked, in {}: {records}", sink.dead_letter_topic));
    }
    if findings.missing > 0 && sink.start_at == StartAt::Newest {
        let note = "start_at = \"newest\": messages published before its worker started are missing; use --from TIME \
                    to compare newer ones";
        notes.push(note.to_owned());
    }
    if findings.misplaced() {
        let note = "every differing series has the right sum, in other windows: moved, folded or cancelling points; if \
                    the sink's window was longer before, compare in those windows with --window";
        notes.push(note.to_owned());
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tallybus_schemas::Series;
    use tallybus_sdk::testkit::FakeBackend;

    use super::super::report::{Difference, FirstWindow};
    use super::*;

    fn sink(start_at: StartAt) -> AuditedSink {
        AuditedSink { start_at, ..AuditedSink::fake("a", "t", &FakeBackend::new()) }
    }

    fn difference(missing: u128, extra: u128) -> SinkFindings {
        let difference = Difference {
            series: Arc::new(Series::from_sorted("hits", &[])),
            expected: 0,
            total: 0,
            missing,
            extra,
            windows: 2,
            first: FirstWindow { start: 0, balance: 0, dead: 0 },
            place: None,
        };
        SinkFindings { missing, extra, differences: vec![difference], ..SinkFindings::default() }
    }

    #[test]
    fn a_note_is_written_for_each_circumstance_and_for_nothing_else() {
        let none = SinkFindings::default;
        let beside = Circumstances::default();
        for (start_at, findings, beside, expected) in [
            (StartAt::Oldest, none(), beside, None),
            (StartAt::Newest, none(), beside, None),
            (StartAt::Oldest, difference(2, 1), beside, None),
            (StartAt::Oldest, none(), Circumstances { of_others: 1, ..beside }, Some("1 window of other sinks")),
            (StartAt::Oldest, none(), Circumstances { of_others: 2, ..beside }, Some("2 windows of other sinks")),
            (
                StartAt::Oldest,
                SinkFindings { taken_after_all: 7, ..none() },
                beside,
                Some("a value of 7 in dead letters"),
            ),
            (
                StartAt::Oldest,
                none(),
                Circumstances { dead_letters_gone: 1, ..beside },
                Some("dead letters were deleted"),
            ),
            (
                StartAt::Oldest,
                none(),
                Circumstances { replays_gone: true, ..beside },
                Some("tallybus.replay.a has lost its oldest"),
            ),
            (StartAt::Oldest, none(), Circumstances { unreadable: 3, ..beside }, Some("in tallybus.dead.a: 3 records")),
            (StartAt::Newest, difference(2, 1), beside, Some("start_at = \"newest\"")),
            (StartAt::Oldest, difference(2, 2), beside, Some("every differing series has the right sum")),
        ] {
            let found = notes(&sink(start_at), &findings, &beside);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{expected:?}: {found:?}");
            assert!(found.iter().all(|note| note.contains(expected.unwrap_or_default())), "{expected:?}: {found:?}");
        }
    }
}
