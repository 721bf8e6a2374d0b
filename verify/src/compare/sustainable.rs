//! The highest rate at which the lag of a sink does not grow: each sink alone, in steps of the rate at which it caught up.

use std::time::Duration;

use super::entry::Entry;
use super::playing::{Part, Play};
use super::probe_phase::{audit_again, schedule};
use super::probes::Background;
use super::rank::Aspect;
use super::rounds::Stage;
use super::stats::{Summary, line};
use super::{CompareError, Known, Plan, RateStep, Sample, Watch};

/// The steps, as shares of the rate at which the sink caught up.
const STEPS: [f64; 8] = [0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.2, 3.0];
const STEP: Duration = Duration::from_secs(10);
/// The beginning of a step is left out: the first batches are still filling.
const LEFT_OUT: f64 = 2.0;
/// A lag that grows by less than this share of the messages published is none that grows.
const TOLERANCE: f64 = 0.02;
/// A bus that takes less than this share of what a step asks for is what limits it.
const REACHED: f64 = 0.95;

/// Looks for the rate of every sink that still takes part.
///
/// # Errors
/// The bus failed, or the comparison was stopped.
pub(super) fn run(
    plan: &Plan,
    stage: &Stage<'_>,
    entries: &mut [Entry<'_>],
    background: &[Background],
    topics: &[String],
    watch: &mut dyn Watch,
) -> Result<(), CompareError> {
    let messages = background.len() as f64;
    let events: f64 = background.iter().map(|record| record.events as f64).sum();
    let (Some(topic), true) = (topics.first(), events > 0.0) else { return Ok(()) };
    for entry in entries.iter_mut().filter(|entry| entry.takes_part()) {
        let (Some(shadow), Some(caught_up)) = (entry.shadow.as_ref(), entry.catch_up_rate()) else { continue };
        let unwatched = || Err("probes are not watched in these steps".to_owned());
        let mut parts = [Part {
            label: entry.label.clone(),
            running: Some(shadow.start(stage, false)?),
            observed: unwatched(),
            group: shadow.settings.group(),
            topics: shadow.settings.topics.clone(),
            settled: None,
            settled_rate: Known::unknown("not sampled"),
        }];
        let mut steps = Vec::new();
        let mut outcome = Ok(());
        for share in STEPS {
            let rate = caught_up * share;
            // One event a second beside the background shows nothing here, but keeps the schedule.
            let paced = Plan { probe_rate: 1.0, probe_time: STEP, ..plan.clone() };
            let wall = super::wall_nanos(stage.clock.as_ref())?;
            let Some(schedule) = schedule(&paced, Duration::from_millis(500), wall) else { break };
            let play = Play {
                bus: stage.bus.as_ref(),
                topic,
                schedule,
                background,
                background_rate: rate,
                settle_within: plan.settle_within,
                comes_to_rest: true,
            };
            match play.play(&mut parts, watch) {
                Ok(played) => {
                    let reached = played.slips.background_events as f64 / played.slips.took.as_secs_f64();
                    // With too few samples nothing was seen, neither that it grows nor that it does not.
                    let Some(step) = step(rate, reached, reached * messages / events, &played.timeline) else { break };
                    steps.push(step);
                }
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            if steps.last().is_some_and(|last| last.grows || last.reached < rate * REACHED) {
                break;
            }
        }
        for running in parts.into_iter().filter_map(|part| part.running) {
            running.handle().into_iter().for_each(tallybus_worker::WorkerHandle::stop);
            if let Err(reason) = running.wait(stage.runtime).outcome {
                entry.fail(format!("{reason} (while its sustainable rate was looked for)"));
            }
        }
        outcome?;
        entry.others.insert(Aspect::SustainableRate, rate_of(&steps));
        entry.rate_steps = Known::Is(steps);
        audit_again(stage, entry)?;
    }
    Ok(())
}

/// What the lag did in a step; `messages` were published per second. `None` with too few samples.
fn step(intended: f64, reached: f64, messages: f64, timeline: &[Sample]) -> Option<RateStep> {
    let points: Vec<(f64, f64)> = timeline
        .iter()
        .filter(|sample| sample.seconds >= LEFT_OUT && sample.seconds <= STEP.as_secs_f64())
        .filter_map(|sample| Some((sample.seconds, *sample.lag.get()? as f64)))
        .collect();
    let line = line(&points)?;
    let grows = line.slope - 2.0 * line.error > messages * TOLERANCE;
    Some(RateStep { intended, reached, lag_growth: line.slope, grows })
}

/// Between the last step at which the lag did not grow and the first one at which it did.
fn rate_of(steps: &[RateStep]) -> Known<Summary> {
    let kept = steps.iter().take_while(|step| !step.grows).last();
    let grown = steps.iter().find(|step| step.grows);
    match (kept, grown) {
        (Some(kept), Some(grown)) => {
            let high = grown.reached.max(kept.reached);
            Known::Is(Summary { median: kept.reached, low: kept.reached, high, n: steps.len() as u64 })
        }
        (Some(kept), None) => Known::unknown(format!(
            "at least {:.0} events/s: the lag did not grow at any rate that was tried, or the bus took no more",
            kept.reached
        )),
        (None, Some(grown)) => Known::unknown(format!("less than {:.0} events/s: the lag grew at once", grown.reached)),
        (None, None) => Known::unknown("no step was made"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(lag: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |tick: u64| Sample {
            seconds: tick as f64 * 0.5,
            sink: "a".to_owned(),
            settled: Known::Is(0),
            lag: Known::Is(lag(tick)),
            visible: Known::unknown("none"),
        };
        (0..22).map(sample).collect()
    }

    #[test]
    fn a_lag_that_goes_up_and_down_does_not_grow_and_one_that_piles_up_does() {
        // 100 messages a second; a batch a second.
        let steady = step(1_000.0, 1_000.0, 100.0, &timeline(|tick| 50 + tick % 2 * 50)).unwrap();
        assert!(!steady.grows, "{steady:?}");
        let piling = step(1_000.0, 1_000.0, 100.0, &timeline(|tick| tick * 20 + tick % 2 * 50)).unwrap();
        assert!(piling.grows && (30.0..50.0).contains(&piling.lag_growth), "{piling:?}");
        let first = step(1_000.0, 1_000.0, 100.0, &timeline(|tick| if tick < 4 { tick * 100 } else { 60 })).unwrap();
        assert!(!first.grows, "the beginning is left out: {first:?}");
        assert_eq!(step(1_000.0, 1_000.0, 100.0, &timeline(|tick| tick)[..5]), None);
    }

    #[test]
    fn the_rate_lies_between_the_last_step_that_was_kept_up_with_and_the_first_that_was_not() {
        let step = |reached: f64, grows| RateStep { intended: reached, reached, lag_growth: 0.0, grows };
        let Known::Is(found) = rate_of(&[step(100.0, false), step(150.0, false), step(200.0, true)]) else { panic!() };
        assert_eq!((found.median, found.low, found.high), (150.0, 150.0, 200.0));
        assert!(rate_of(&[step(100.0, false)]).reason().unwrap().starts_with("at least 100 events/s"));
        assert!(rate_of(&[step(100.0, true)]).reason().unwrap().starts_with("less than 100 events/s"));
        assert!(rate_of(&[]).reason().is_some());
    }
}
