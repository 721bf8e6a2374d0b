//! A sink on its way through a comparison, and what its figures come to.

use std::collections::BTreeMap;

use tallybus_sdk::ShadowName;
use tallybus_worker::settings::SinkSettings;

use super::rank::Aspect;
use super::rounds::Shadow;
use super::stats::{Summary, median, summarize};
use super::{Completeness, Known, Latency, QuestionResult, RateStep, Round, SinkResult, StorageTaken};

/// Makes the settings of a sink whose destination has this name.
pub type MakeShadow = Box<dyn Fn(&ShadowName) -> Result<SinkSettings, String>>;

/// A sink that takes part.
pub struct Contender {
    /// Its name in the settings.
    pub name: String,
    /// Its kind of backend.
    pub kind: &'static str,
    /// Its topics.
    pub topics: Vec<String>,
    /// A hash of its settings, without secrets and without the destination's name.
    pub fingerprint: String,
    /// Makes settings for destinations of the comparison's own.
    pub shadow: MakeShadow,
}

/// One that is run: a contender, or one of them for the second time.
pub(super) struct Entry<'a> {
    pub(super) label: String,
    pub(super) control_of: Option<String>,
    pub(super) contender: &'a Contender,
    /// Its place in the names of groups.
    pub(super) number: usize,
    pub(super) rounds: Vec<Round>,
    pub(super) completeness: Option<Completeness>,
    /// Why it takes no further part.
    pub(super) failure: Option<String>,
    /// The destination of the last round.
    pub(super) shadow: Option<Shadow>,
    pub(super) storage: Known<StorageTaken>,
    pub(super) version: Known<String>,
    pub(super) latency: Known<Latency>,
    /// What comes neither from rounds nor from questions.
    pub(super) others: BTreeMap<Aspect, Known<Summary>>,
    pub(super) questions: Vec<QuestionResult>,
    pub(super) rate_steps: Known<Vec<RateStep>>,
    pub(super) settled_rate: Known<f64>,
}

const NOT_REACHED: &str = "the comparison did not come to it";

impl<'a> Entry<'a> {
    pub(super) fn new(contender: &'a Contender, number: usize, is_control: bool) -> Self {
        let label = if is_control { format!("{} (control)", contender.name) } else { contender.name.clone() };
        Self {
            label,
            control_of: is_control.then(|| contender.name.clone()),
            contender,
            number,
            rounds: Vec::new(),
            completeness: None,
            failure: None,
            shadow: None,
            storage: Known::unknown(NOT_REACHED),
            version: Known::unknown(NOT_REACHED),
            latency: Known::unknown(NOT_REACHED),
            others: BTreeMap::new(),
            questions: Vec::new(),
            rate_steps: Known::unknown("not asked for"),
            settled_rate: Known::unknown(NOT_REACHED),
        }
    }

    /// Whether it still takes part.
    pub(super) fn takes_part(&self) -> bool {
        self.failure.is_none()
    }

    /// It takes no further part.
    pub(super) fn fail(&mut self, reason: String) {
        tracing::warn!(sink = self.label, reason, "takes no further part in the comparison");
        self.failure.get_or_insert(reason);
    }

    pub(super) fn audited(&mut self, completeness: Completeness) {
        self.completeness = Some(match self.completeness.take() {
            Some(before) => before.worse(completeness),
            None => completeness,
        });
    }

    /// The median of its catch-up rates: events per second.
    pub(super) fn catch_up_rate(&self) -> Option<f64> {
        let rates: Vec<f64> = self.rounds.iter().filter_map(|round| round.events_per_second.get().copied()).collect();
        median(&rates)
    }

    /// What was measured of it.
    pub(super) fn result(self, seed: u64) -> SinkResult {
        let mut summaries = round_summaries(&self.rounds, seed);
        summaries.extend(self.others);
        for question in &self.questions {
            if let Some(aspect) = Aspect::of_question(&question.name) {
                summaries.insert(aspect, question.later.clone());
            }
        }
        let settings = self.shadow.as_ref().map(|shadow| &shadow.settings);
        let (destination, delivery_guarantee) = match self.shadow.as_ref().map(Shadow::connect) {
            None => (Known::unknown(NOT_REACHED), Known::unknown(NOT_REACHED)),
            Some(Err(reason)) => (Known::unknown(&reason), Known::unknown(&reason)),
            Some(Ok(sink)) => {
                let name = sink.destination();
                let name = name.map_or_else(|| Known::unknown("the sink does not name it"), Known::Is);
                (name, Known::Is(sink.delivery_guarantee().to_string()))
            }
        };
        SinkResult {
            name: self.label,
            control_of: self.control_of,
            kind: self.contender.kind.to_owned(),
            destination,
            version: self.version,
            delivery_guarantee,
            window_nanos: settings
                .map_or_else(|| Known::unknown(NOT_REACHED), |settings| Known::Is(settings.shape.window)),
            fingerprint: self.contender.fingerprint.clone(),
            completeness: match (self.failure, self.completeness) {
                (Some(reason), _) => Known::Unknown(reason),
                (None, Some(completeness)) => Known::Is(completeness),
                (None, None) => Known::unknown(NOT_REACHED),
            },
            rounds: self.rounds,
            summaries,
            latency: self.latency,
            rate_steps: self.rate_steps,
            settled_rate: self.settled_rate,
            questions: self.questions,
            storage: self.storage,
            notes: Vec::new(),
        }
    }
}

/// What the rounds come to. A figure that one round does not have is not known.
fn round_summaries(rounds: &[Round], seed: u64) -> BTreeMap<Aspect, Known<Summary>> {
    type Figure = fn(&Round) -> Known<f64>;
    let figures: [(Aspect, Figure); 5] = [
        (Aspect::CatchUpRate, |round| round.events_per_second.clone()),
        (Aspect::WriteTime, |round| round.write_seconds.clone().map(|spread| spread.p50)),
        (Aspect::Requests, |round| per_event(round.requests.clone(), round).map(|each| each * 1e6)),
        (Aspect::BytesPerEvent, |round| per_event(round.bytes.clone(), round)),
        (Aspect::StoragePerEvent, |round| per_event(round.storage.clone().map(|bytes| bytes as f64), round)),
    ];
    let summary = |figure: Figure| {
        let mut measured = Vec::new();
        for round in rounds {
            match figure(round) {
                Known::Is(figure) => measured.push(figure),
                Known::Unknown(reason) => return Known::Unknown(reason),
            }
        }
        summarize(&measured, seed)
    };
    figures.into_iter().map(|(aspect, figure)| (aspect, summary(figure))).collect()
}

fn per_event(figure: Known<f64>, round: &Round) -> Known<f64> {
    match (figure, round.events) {
        (Known::Is(_), 0) => Known::unknown("nothing was written"),
        (Known::Is(figure), events) => Known::Is(figure / events as f64),
        (unknown, _) => unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(number: u64, requests: Known<f64>) -> Round {
        let none = || Known::unknown("none");
        Round {
            number,
            seconds: Known::Is(1.0),
            events: 1_000,
            events_per_second: Known::Is(1_000.0 + number as f64),
            batches: 1,
            writes: 1,
            points: 1,
            write_seconds: none().map(|(): ()| super::super::Spread { p50: 0.0, p99: 0.0, max: 0.0 }),
            write_points: Known::unknown("none"),
            retries: 0,
            splits: 0,
            rejections: 0,
            halts: 0,
            requests,
            bytes: Known::unknown("not counted"),
            usage: Vec::new(),
            storage: Known::Is(5_000),
        }
    }

    #[test]
    fn figures_are_for_each_event_and_one_that_a_round_lacks_is_not_known() {
        let rounds: Vec<Round> = (1..=3).map(|number| round(number, Known::Is(2.0))).collect();
        let summaries = round_summaries(&rounds, 1);
        let median = |aspect| summaries[&aspect].get().map(|summary| summary.median);
        assert_eq!(median(Aspect::CatchUpRate), Some(1_002.0));
        assert_eq!(median(Aspect::Requests), Some(2_000.0));
        assert_eq!(median(Aspect::StoragePerEvent), Some(5.0));
        assert_eq!(summaries[&Aspect::BytesPerEvent].reason(), Some("not counted"));
        let with_gap = [&rounds[..], &[round(4, Known::unknown("lost"))]].concat();
        assert_eq!(round_summaries(&with_gap, 1)[&Aspect::Requests].reason(), Some("lost"));
        let empty = Round { events: 0, ..round(1, Known::Is(0.0)) };
        assert_eq!(per_event(Known::Is(0.0), &empty).reason(), Some("nothing was written"));
    }
}
