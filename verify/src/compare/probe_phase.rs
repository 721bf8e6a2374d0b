//! All sinks at the same time, with probes and a background of replayed records.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tallybus_bus::Observer;
use tallybus_sdk::progress::GroupProgress;
use tallybus_worker::supervisor::Running;

use super::entry::Entry;
use super::probes::{Background, Observed, PROBE_NAME, Schedule, Slips, Watching, send};
use super::rank::Aspect;
use super::rounds::{RunError, Stage, audit};
use super::shadow::ShadowComparison;
use super::{CompareError, Known, ProbeMethod, Sample, Watch};

/// How often the progress of the groups is sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the workers run before the first probe is due: they join their groups in it.
const LEAD: Duration = Duration::from_secs(1);

/// What the phase came to, beside what the entries hold.
pub(super) struct Phase {
    pub(super) method: Known<ProbeMethod>,
    pub(super) timeline: Vec<Sample>,
}

/// One sink in the phase.
struct Part {
    /// Of the entry.
    place: usize,
    running: Running,
    observed: Result<Observed, String>,
    group: String,
    topics: Vec<String>,
    /// Messages settled when the probes began.
    settled: Option<u64>,
}

impl Part {
    /// Whether nothing more is to be seen of this many probes.
    fn has_seen(&self, probes: u64) -> bool {
        let observed = self.observed.as_ref();
        self.running.has_ended() || observed.map_or(true, |observed| observed.visible() >= probes)
    }
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
    let count = super::whole(plan.probe_rate * plan.probe_time.as_secs_f64());
    let (Some(topic), false) = (topics.first(), count == 0) else {
        let none = "no probes were asked for";
        for entry in entries.iter_mut() {
            entry.latency = Known::unknown(none);
            entry.settled_rate = Known::unknown(none);
        }
        return Ok(Phase { method: Known::unknown(none), timeline: Vec::new() });
    };
    let schedule = Schedule {
        began: Instant::now() + LEAD,
        wall: super::wall_nanos(stage.clock.as_ref()) + 1_000_000_000,
        rate: plan.probe_rate,
        count,
    };
    let stop = Arc::new(AtomicBool::new(false));
    let watching = Watching { schedule, every: plan.poll_every, stop: Arc::clone(&stop) };
    let mut parts = Vec::new();
    let outcome = start(stage, entries, topic, &watching, &mut parts)
        .and_then(|()| play(input, stage, &mut parts, (topic, &schedule), background, entries, watch));
    stop.store(true, Ordering::Release);
    for part in &parts {
        part.running.handle().into_iter().for_each(tallybus_worker::WorkerHandle::stop);
    }
    let mut places = Vec::new();
    for part in parts {
        let entry = &mut entries[part.place];
        let ended = part.running.wait(stage.runtime);
        if let Err(reason) = ended.outcome {
            entry.fail(format!("{reason} (while probes were sent)"));
        }
        let seen = part.observed.and_then(|observed| observed.finish(stage.runtime));
        if let Ok((slips, _)) = &outcome {
            match seen {
                Ok(seen) => {
                    entry.latency = seen.latency(slips.sent);
                    entry.freshness.insert(Aspect::FreshnessMedian, seen.summary(0.5, slips.sent, plan.seed));
                    entry.freshness.insert(Aspect::FreshnessP99, seen.summary(0.99, slips.sent, plan.seed));
                }
                Err(reason) => entry.latency = Known::Unknown(reason),
            }
        }
        places.push(part.place);
    }
    let (slips, timeline) = outcome?;
    for place in places {
        audit_again(stage, &mut entries[place])?;
    }
    let took = slips.took.as_secs_f64();
    let background_reached = match took > 0.0 {
        true => Known::Is(slips.background_events as f64 / took),
        false => Known::unknown("no time passed"),
    };
    let method = ProbeMethod {
        series: PROBE_NAME.to_owned(),
        rate: plan.probe_rate,
        seconds: took,
        sent: slips.sent,
        late: slips.late,
        latest: slips.latest.as_secs_f64(),
        background_rate: plan.background_rate,
        background_reached,
    };
    Ok(Phase { method: Known::Is(method), timeline })
}

/// Starts the workers, and watches every backend.
fn start(
    stage: &Stage<'_>,
    entries: &mut [Entry<'_>],
    topic: &String,
    watching: &Watching,
    parts: &mut Vec<Part>,
) -> Result<(), CompareError> {
    for (place, entry) in entries.iter_mut().enumerate() {
        let Some(shadow) = entry.shadow.as_ref().filter(|_| entry.failure.is_none()) else { continue };
        let running = shadow.start(stage, false)?;
        let selected = shadow.settings.shape.selector().is_ok_and(|selector| selector.takes(PROBE_NAME));
        let observed = match (shadow.settings.topics.contains(topic), selected) {
            (false, _) => Err(format!("the sink does not read the topic of the probes, {topic}")),
            (true, false) => Err(format!("the sink does not select the counter of the probes, {PROBE_NAME}")),
            (true, true) => shadow
                .connect()
                .and_then(|sink| Observed::begin(stage.runtime, sink, shadow.settings.shape.window, watching.clone())),
        };
        let (group, topics) = (shadow.settings.group(), shadow.settings.topics.clone());
        parts.push(Part { place, running, observed, group, topics, settled: None });
    }
    Ok(())
}

/// Sends the probes and samples the progress, until every probe is visible everywhere, or long enough after the last one.
fn play(
    input: &ShadowComparison<'_>,
    stage: &Stage<'_>,
    parts: &mut [Part],
    (topic, schedule): (&String, &Schedule),
    background: &[Background],
    entries: &mut [Entry<'_>],
    watch: &mut dyn Watch,
) -> Result<(Slips, Vec<Sample>), CompareError> {
    let stop_sending = AtomicBool::new(false);
    let observer = stage.bus.observer()?;
    let mut publisher = stage.bus.publisher()?;
    let rate = input.plan.background_rate;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(publisher.as_mut(), topic, schedule, background, rate, &stop_sending));
        let mut timeline = Vec::new();
        let mut sampled: Option<Instant> = None;
        let mut last_due: Option<Instant> = None;
        let outcome = loop {
            if watch.is_stopped() {
                break Err(CompareError::Interrupted);
            }
            let now = Instant::now();
            if sampled.is_none_or(|at| now.duration_since(at) >= SAMPLE_EVERY) && now >= schedule.began {
                sampled = Some(now);
                match sample(observer.as_ref(), parts, entries, schedule) {
                    Ok(samples) => timeline.extend(samples),
                    Err(error) => break Err(error),
                }
                let sent = super::whole(now.duration_since(schedule.began).as_secs_f64() * schedule.rate);
                watch.step(sent.min(schedule.count), schedule.count, "sending probes");
            }
            if sending.is_finished() {
                let since = *last_due.get_or_insert(now);
                let is_late = now.duration_since(since) >= input.plan.settle_within;
                match parts.iter().all(|part| part.has_seen(schedule.count)) && !is_late {
                    false if !is_late => {}
                    false => break Ok(()),
                    true => match are_settled(observer.as_ref(), parts) {
                        Ok(false) => {}
                        Ok(true) => break Ok(()),
                        Err(error) => break Err(error),
                    },
                }
            }
            std::thread::sleep(LOOK_EVERY);
        };
        stop_sending.store(true, Ordering::Release);
        let sent = sending.join().unwrap_or_else(|_| {
            Err(CompareError::Bus(tallybus_bus::BusError::Fatal(
                "the thread that sends the probes panicked".to_owned(),
            )))
        });
        outcome?;
        let slips = sent?;
        settled_rates(observer.as_ref(), parts, entries, schedule)?;
        Ok((slips, timeline))
    })
}

/// Notes how many messages each group settled per second since the probes began.
fn settled_rates(
    observer: &dyn Observer,
    parts: &[Part],
    entries: &mut [Entry<'_>],
    schedule: &Schedule,
) -> Result<(), CompareError> {
    for part in parts {
        let settled = progress(observer, part)?.0;
        let seconds = Instant::now().saturating_duration_since(schedule.began).as_secs_f64();
        entries[part.place].settled_rate = match part.settled {
            Some(before) if seconds > 0.0 => Known::Is(settled.saturating_sub(before) as f64 / seconds),
            _ => Known::unknown("the group's progress was not sampled"),
        };
    }
    Ok(())
}

/// Whether every group whose worker runs has settled everything.
fn are_settled(observer: &dyn Observer, parts: &[Part]) -> Result<bool, CompareError> {
    for part in parts.iter().filter(|part| !part.running.has_ended()) {
        if progress(observer, part)?.1 > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Messages settled by a group, and its lag.
fn progress(observer: &dyn Observer, part: &Part) -> Result<(u64, u64), CompareError> {
    let topics: Vec<&str> = part.topics.iter().map(String::as_str).collect();
    let progress = GroupProgress::read(observer, &part.group, &topics)?;
    let settled = progress.partitions.iter().map(|partition| partition.settled.unwrap_or(partition.range.first)).sum();
    Ok((settled, progress.lag()))
}

fn sample(
    observer: &dyn Observer,
    parts: &mut [Part],
    entries: &[Entry<'_>],
    schedule: &Schedule,
) -> Result<Vec<Sample>, CompareError> {
    let mut samples = Vec::new();
    for part in parts {
        let (settled, lag) = progress(observer, part)?;
        let before = *part.settled.get_or_insert(settled);
        samples.push(Sample {
            seconds: Instant::now().saturating_duration_since(schedule.began).as_secs_f64(),
            sink: entries[part.place].label.clone(),
            settled: Known::Is(settled.saturating_sub(before)),
            lag: Known::Is(lag),
            visible: match &part.observed {
                Ok(observed) => Known::Is(observed.visible()),
                Err(reason) => Known::Unknown(reason.clone()),
            },
        });
    }
    Ok(samples)
}

/// With the probes and what was replayed beside them, the destination must still hold what the bus has.
fn audit_again(stage: &Stage<'_>, entry: &mut Entry<'_>) -> Result<(), CompareError> {
    let Some(shadow) = entry.shadow.as_ref().filter(|_| entry.failure.is_none()) else { return Ok(()) };
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
