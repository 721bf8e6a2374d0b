use std::time::Duration;

use super::{AuditReport, Begun, SinkFindings, SinkReport};

/// What an audit finds about a sink, in one word. Most serious first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The bus has lost messages that the sink had not written.
    Lost,
    /// Values are missing or extra.
    Differs,
    /// Every series has the right sum, but not in the right windows.
    Misplaced,
    /// Another sink has claimed the destination.
    OtherSink,
    /// The backend holds what no sink wrote.
    Foreign,
    /// The sink's group has never committed anything.
    NeverRan,
    /// The sink's group holds no offset, although it has written to the destination.
    OffsetsGone,
    /// The backend or the group could not be read.
    Unavailable,
    /// The oldest message that is not settled is older than allowed.
    Late,
    /// How old the oldest message is that is not settled is not known.
    LagUnknown,
    /// Dead letters are not what the bus has at their coordinates.
    WrongDeadLetters,
    /// Points lie beside the starts of their windows.
    OffWindow,
    /// Messages are not settled yet.
    Behind,
    /// Dead letters wait to be replayed.
    DeadLetters,
    /// Nothing of all that.
    Equal,
}

/// What a verdict means for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Equal and complete, as far as asked.
    Good,
    /// Could not be determined.
    Unknown,
    /// Differs, lost, or not complete although that was asked for.
    Bad,
}

/// What is asked of an audit beyond equality.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demands {
    /// Whether everything must also be complete: nothing behind, no dead letters, no faults of producers.
    pub strict: bool,
    /// How old the oldest message may be that is not settled.
    pub max_lag: Option<Duration>,
}

impl Verdict {
    /// The word, for people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Differs => "differs",
            Self::Misplaced => "misplaced",
            Self::OtherSink => "other sink",
            Self::Foreign => "foreign",
            Self::NeverRan => "never ran",
            Self::OffsetsGone => "offsets gone",
            Self::Unavailable => "unavailable",
            Self::Late => "late",
            Self::LagUnknown => "lag unknown",
            Self::WrongDeadLetters => "wrong dead letters",
            Self::OffWindow => "off window",
            Self::Behind => "behind",
            Self::DeadLetters => "dead letters",
            Self::Equal => "equal",
        }
    }

    /// What it means for the exit status.
    pub fn severity(self, strict: bool) -> Severity {
        match self {
            Self::Lost
            | Self::Differs
            | Self::Misplaced
            | Self::OtherSink
            | Self::Foreign
            | Self::NeverRan
            | Self::OffsetsGone
            | Self::Late => Severity::Bad,
            Self::Unavailable | Self::LagUnknown => Severity::Unknown,
            Self::WrongDeadLetters | Self::OffWindow | Self::Behind | Self::DeadLetters if strict => Severity::Bad,
            Self::WrongDeadLetters | Self::OffWindow | Self::Behind | Self::DeadLetters | Self::Equal => Severity::Good,
        }
    }
}

impl SinkReport {
    /// Every verdict about this sink, most serious first; at least one.
    pub fn verdicts(&self, demands: &Demands) -> Vec<Verdict> {
        match &self.outcome {
            Ok(findings) => findings.verdicts(demands),
            Err(_) => vec![Verdict::Unavailable],
        }
    }
}

/// The verdict that decides the exit status: of several that are equally serious, the first.
pub fn decisive(verdicts: &[Verdict], strict: bool) -> Option<Verdict> {
    verdicts.iter().min_by_key(|verdict| std::cmp::Reverse(verdict.severity(strict))).copied()
}

impl SinkFindings {
    fn verdicts(&self, demands: &Demands) -> Vec<Verdict> {
        let differs = self.missing > 0 || self.extra > 0;
        let is_behind = self.behind > 0;
        let is_late = demands.max_lag.is_some_and(|most| self.oldest_behind.is_some_and(|age| age > most));
        let all = [
            (Verdict::Lost, !self.gone_unwritten.is_empty()),
            (Verdict::Differs, differs && !self.misplaced()),
            (Verdict::Misplaced, differs && self.misplaced()),
            (Verdict::OtherSink, self.claimed_by.is_some()),
            (Verdict::Foreign, self.foreign.left_out() > 0),
            (Verdict::NeverRan, self.begun == Begun::Never),
            (Verdict::OffsetsGone, self.begun == Begun::Forgotten),
            (Verdict::Late, is_behind && is_late),
            (Verdict::LagUnknown, is_behind && demands.max_lag.is_some() && self.oldest_behind.is_none()),
            (Verdict::WrongDeadLetters, self.wrong_dead_letter_count > 0),
            (Verdict::OffWindow, self.foreign.off_window() > 0),
            (Verdict::Behind, is_behind),
            (Verdict::DeadLetters, self.dead_letters > 0),
        ];
        let mut found: Vec<Verdict> = all.into_iter().filter(|(_, holds)| *holds).map(|(verdict, _)| verdict).collect();
        if self.equal() && self.wrong_dead_letter_count == 0 && self.foreign.off_window() == 0 {
            // Beside it, what is not complete: `equal, behind`.
            found.insert(0, Verdict::Equal);
        }
        found
    }
}

impl AuditReport {
    /// What the whole audit comes to. A difference outweighs what could not be determined.
    pub fn severity(&self, demands: &Demands) -> Severity {
        let verdicts = self.sinks.iter().flat_map(|sink| sink.verdicts(demands));
        let worst = verdicts.map(|verdict| verdict.severity(demands.strict)).max().unwrap_or(Severity::Good);
        let has_faults = self.producers.fault_count > 0;
        if demands.strict && has_faults { Severity::Bad } else { worst }
    }
}

#[cfg(test)]
mod tests {
    use tallybus_sdk::{Foreign, ForeignKind};

    use super::*;
    use crate::audit::{OffsetSpan, ProducerReport};

    fn severity(findings: SinkFindings, demands: Demands) -> (Vec<Verdict>, Severity) {
        let sink = SinkReport { name: "a".to_owned(), outcome: Ok(findings) };
        let verdicts = sink.verdicts(&demands);
        let producers = ProducerReport::default();
        let report = AuditReport {
            bus_total: 0,
            bus_events: 0,
            undecodable: 0,
            part: None,
            time: 0,
            sinks: vec![sink],
            producers,
        };
        (verdicts, report.severity(&demands))
    }

    #[test]
    fn the_decisive_verdict_is_the_first_of_the_most_serious() {
        use Verdict::{Behind, Equal, LagUnknown, Late};
        assert_eq!(decisive(&[Equal, Behind], false), Some(Equal));
        assert_eq!(decisive(&[Equal, Behind], true), Some(Behind));
        assert_eq!(decisive(&[Equal, Late, Behind], false), Some(Late));
        assert_eq!(decisive(&[LagUnknown, Behind], true), Some(Behind));
        assert_eq!(decisive(&[LagUnknown, Behind], false), Some(LagUnknown));
        assert_eq!(decisive(&[], false), None);
    }

    #[test]
    fn each_finding_has_its_word_and_its_status() {
        let span = OffsetSpan { topic: "t".to_owned(), partition: 0, first: 10, end: 60 };
        let foreign = |kind| {
            let mut foreign = crate::audit::ForeignFindings::default();
            foreign.add(Foreign::new(kind, "x"));
            foreign
        };
        let none = SinkFindings::default;
        for (findings, verdict, default, strict) in [
            (none(), Verdict::Equal, Severity::Good, Severity::Good),
            (SinkFindings { gone_unwritten: vec![span], ..none() }, Verdict::Lost, Severity::Bad, Severity::Bad),
            (SinkFindings { missing: 1, ..none() }, Verdict::Differs, Severity::Bad, Severity::Bad),
            (SinkFindings { extra: 1, ..none() }, Verdict::Differs, Severity::Bad, Severity::Bad),
            (
                SinkFindings { foreign: foreign(ForeignKind::Negative), ..none() },
                Verdict::Foreign,
                Severity::Bad,
                Severity::Bad,
            ),
            (SinkFindings { begun: Begun::Never, ..none() }, Verdict::NeverRan, Severity::Bad, Severity::Bad),
            (SinkFindings { begun: Begun::Forgotten, ..none() }, Verdict::OffsetsGone, Severity::Bad, Severity::Bad),
            (
                SinkFindings { claimed_by: Some("group b".to_owned()), ..none() },
                Verdict::OtherSink,
                Severity::Bad,
                Severity::Bad,
            ),
            (
                SinkFindings { wrong_dead_letter_count: 1, ..none() },
                Verdict::WrongDeadLetters,
                Severity::Good,
                Severity::Bad,
            ),
            (
                SinkFindings { foreign: foreign(ForeignKind::OffWindow), ..none() },
                Verdict::OffWindow,
                Severity::Good,
                Severity::Bad,
            ),
        ] {
            for (is_strict, expected) in [(false, default), (true, strict)] {
                let found = severity(findings.clone(), Demands { strict: is_strict, max_lag: None });
                assert_eq!(found, (vec![verdict], expected), "strict: {is_strict}");
            }
        }
        for (findings, second) in [
            (SinkFindings { behind: 1, ..none() }, Verdict::Behind),
            (SinkFindings { dead_letters: 1, ..none() }, Verdict::DeadLetters),
        ] {
            let all = vec![Verdict::Equal, second];
            assert_eq!(severity(findings.clone(), Demands::default()), (all.clone(), Severity::Good));
            assert_eq!(severity(findings, Demands { strict: true, max_lag: None }), (all, Severity::Bad));
        }
    }

    #[test]
    fn each_verdict_has_a_word_of_its_own() {
        use Verdict::{
            Behind, DeadLetters, Differs, Equal, Foreign, LagUnknown, Late, Lost, Misplaced, NeverRan, OffWindow,
            OffsetsGone, OtherSink, Unavailable, WrongDeadLetters,
        };
        let all = [
            Lost,
            Differs,
            Misplaced,
            OtherSink,
            Foreign,
            NeverRan,
            OffsetsGone,
            Unavailable,
            Late,
            LagUnknown,
            WrongDeadLetters,
            OffWindow,
            Behind,
            DeadLetters,
            Equal,
        ];
        let words: std::collections::BTreeSet<&str> = all.iter().map(|verdict| verdict.word()).collect();
        assert_eq!(words.len(), all.len());
        assert_eq!(all.len(), Verdict::Equal as usize + 1, "each verdict is here");
        assert_eq!((NeverRan.word(), Equal.word()), ("never ran", "equal"));
    }

    #[test]
    fn lag_is_judged_by_its_age_and_unknown_is_not_good() {
        let lag = |behind, oldest_behind, seconds| {
            let findings = SinkFindings { behind, oldest_behind, ..SinkFindings::default() };
            severity(findings, Demands { strict: false, max_lag: Some(Duration::from_secs(seconds)) }).1
        };
        let age = Some(Duration::from_secs(300));
        assert_eq!(lag(1, age, 300), Severity::Good);
        assert_eq!(lag(1, age, 299), Severity::Bad);
        assert_eq!(lag(1, None, 300), Severity::Unknown);
        assert_eq!(lag(0, None, 300), Severity::Good);
    }

    #[test]
    fn a_difference_outweighs_a_sink_that_could_not_be_read() {
        let sink = |outcome| SinkReport { name: "a".to_owned(), outcome };
        let report = |sinks| AuditReport {
            bus_total: 0,
            bus_events: 0,
            undecodable: 0,
            part: None,
            time: 0,
            sinks,
            producers: ProducerReport { fault_count: 1, ..ProducerReport::default() },
        };
        let demands = Demands::default();
        let away = || sink(Err("away".to_owned()));
        assert_eq!(report(vec![]).severity(&demands), Severity::Good);
        assert_eq!(report(vec![]).severity(&Demands { strict: true, max_lag: None }), Severity::Bad);
        assert_eq!(report(vec![away(), sink(Ok(SinkFindings::default()))]).severity(&demands), Severity::Unknown);
        let differs = SinkFindings { missing: 1, ..SinkFindings::default() };
        assert_eq!(report(vec![away(), sink(Ok(differs))]).severity(&demands), Severity::Bad);
    }
}
