//! All shadows at the same time, with probes and a background of replayed records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::entry::Entry;
use super::playing::{Part, Play};
use super::probes::{Background, Observed, PROBE_NAME, Schedule, Watching};
use super::rank::Aspect;
use super::rounds::{RunError, Stage, audit};
use super::shadow::ShadowComparison;
use super::{CompareError, Known, ProbeMethod, Sample, Watch};

/// How long the workers run before the first probe is due: they join their groups in it.
const LEAD: Duration = Duration::from_secs(1);

/// What the phase came to, beside what the entries hold.
pub(super) struct Phase {
    pub(super) method: Known<ProbeMethod>,
    pub(super) timeline: Vec<Sample>,
}

/// The probes of a plan, the first one due after a moment; `None` when it has none.
pub(super) fn schedule(plan: &super::Plan, lead: Duration, wall: i64) -> Option<Schedule> {
    let count = super::whole(plan.probe_rate * plan.probe_time.as_secs_f64());
    let lead_nanos = i64::try_from(lead.as_nanos()).unwrap_or(i64::MAX);
    let wall = wall.saturating_add(lead_nanos);
    (count > 0).then(|| Schedule { began: Instant::now() + lead, wall, rate: plan.probe_rate, count })
}

/// Sends the probes and watches them arrive in every backend.
///
/// # Errors
/// The bus failed, or the comparison was stopped. What one sink cannot do is noted in its entry.
pub(super) fn run(
    input: &ShadowComparison<'_>,
    stage: &Stage<'_>,
    entries: &mut [Entry<'_>],
    background: &[Background],
    topics: &[String],
    watch: &mut dyn Watch,
) -> Result<Phase, CompareError> {
    let plan = &input.plan;
    let schedule = schedule(plan, LEAD, super::wall_nanos(stage.clock.as_ref())?);
    let (Some(topic), Some(schedule)) = (topics.first(), schedule) else {
        let none = "no probes were asked for";
        for entry in entries.iter_mut() {
            entry.latency = Known::unknown(none);
            entry.settled_rate = Known::unknown(none);
        }
        return Ok(Phase { method: Known::unknown(none), timeline: Vec::new() });
    };
    let stop = Arc::new(AtomicBool::new(false));
    let watching = Watching { schedule, every: plan.poll_every, stop: Arc::clone(&stop) };
    let play = Play {
        bus: stage.bus.as_ref(),
        topic,
        schedule,
        background,
        background_rate: plan.background_rate,
        settle_within: plan.settle_within,
        comes_to_rest: true,
    };
    let (mut places, mut parts) = (Vec::new(), Vec::new());
    let played =
        start(stage, entries, topic, &watching, &mut places, &mut parts).and_then(|()| play.play(&mut parts, watch));
    stop.store(true, Ordering::Release);
    let handles = parts.iter().filter_map(|part| part.running.as_ref()?.handle());
    handles.for_each(tallybus_worker::WorkerHandle::stop);
    for (place, part) in places.iter().zip(parts) {
        let entry = &mut entries[*place];
        if let Some(Err(reason)) = part.running.map(|running| running.wait(stage.runtime).outcome) {
            entry.fail(format!("{reason} (while probes were sent)"));
        }
        entry.settled_rate = part.settled_rate;
        let seen = part.observed.and_then(|observed| observed.finish(stage.runtime));
        match (seen, &played) {
            (Ok(seen), Ok(played)) => {
                let sent = played.slips.sent;
                entry.latency = seen.latency(sent);
                entry.others.insert(Aspect::FreshnessMedian, seen.summary(0.5, sent, plan.seed));
                entry.others.insert(Aspect::FreshnessP99, seen.summary(0.99, sent, plan.seed));
            }
            (Err(reason), _) => entry.latency = Known::Unknown(reason),
            (Ok(_), Err(_)) => {}
        }
    }
    let played = played?;
    for place in places {
        audit_again(stage, &mut entries[place])?;
    }
    Ok(Phase { method: Known::Is(play.method(&played.slips)), timeline: played.timeline })
}

/// Starts the workers, and watches every backend.
fn start(
    stage: &Stage<'_>,
    entries: &[Entry<'_>],
    topic: &str,
    watching: &Watching,
    places: &mut Vec<usize>,
    parts: &mut Vec<Part>,
) -> Result<(), CompareError> {
    for (place, entry) in entries.iter().enumerate() {
        let Some(shadow) = entry.shadow.as_ref().filter(|_| entry.takes_part()) else { continue };
        let running = shadow.start(stage, false)?;
        let observed = why_unseen(&shadow.settings, topic).map_or_else(
            || {
                let sink = shadow.connect()?;
                Observed::begin(stage.runtime, sink, shadow.settings.shape.window, watching.clone())
            },
            Err,
        );
        places.push(place);
        parts.push(Part {
            label: entry.label.clone(),
            running: Some(running),
            observed,
            group: shadow.settings.group(),
            topics: shadow.settings.topics.clone(),
            settled: None,
            settled_rate: Known::unknown("the group's progress was not sampled"),
        });
    }
    Ok(())
}

/// Why a sink never writes the probes of a topic; `None` when it does.
pub(super) fn why_unseen(settings: &tallybus_worker::settings::SinkSettings, topic: &str) -> Option<String> {
    if !settings.topics.iter().any(|own| own == topic) {
        return Some(format!("the sink does not read the topic of the probes, {topic}"));
    }
    let is_taken = settings.shape.selector().is_ok_and(|selector| selector.takes(PROBE_NAME));
    (!is_taken).then(|| format!("the sink does not select the counter of the probes, {PROBE_NAME}"))
}

/// With the probes and what was replayed beside them, the destination must still hold what the bus has.
///
/// # Errors
/// The bus could not be read.
pub(super) fn audit_again(stage: &Stage<'_>, entry: &mut Entry<'_>) -> Result<(), CompareError> {
    let Some(shadow) = entry.shadow.as_ref().filter(|_| entry.takes_part()) else { return Ok(()) };
    let outcome = shadow.connect().map_err(RunError::Sink).and_then(|sink| {
        let outcome = audit(stage, &shadow.settings, Arc::clone(&sink), None);
        stage.runtime.block_on(sink.close());
        outcome
    });
    match outcome {
        Ok(completeness) => entry.audited(completeness),
        Err(RunError::Sink(reason)) => entry.fail(format!("{reason} (after the probes)")),
        Err(RunError::Compare(error)) => return Err(error),
    }
    Ok(())
}
