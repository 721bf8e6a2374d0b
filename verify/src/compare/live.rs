//! The comparison of running workers, on the live stream: its own probes are all that it publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tallybus_bus::Bus;
use tallybus_sdk::clock::Clock;
use tallybus_sdk::{Sink, TimeRange};
use tallybus_worker::settings::{BusSettings, SinkSettings};
use tokio::runtime::Handle;

use super::playing::{Part, Play};
use super::probe_phase::{schedule, why_unseen};
use super::probes::{Observed, Seen, Watching};
use super::rank::Aspect;
use super::rounds::{storage, version};
use super::{
    CompareError, CompareResult, Completeness, Environment, Known, Method, Mode, Plan, RESULT_KIND, SCHEMA_VERSION,
    SinkResult, Span, StreamState, Total, Watch, Workload, rankings,
};
use crate::audit::{self, Audit, AuditedSink, Demands};

/// Before the first probe is due, the backends are queried once.
const LEAD: Duration = Duration::from_millis(500);
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why much of a running worker is not known.
const OTHER_PROCESS: &str = "not known: workers do not publish it yet; --shadow measures it";
const NO_QUESTIONS: &str = "on a live stream the right answer changes while it is given; --shadow asks";

/// A sink whose worker runs.
pub struct LiveSink<'a> {
    /// Its settings.
    pub settings: &'a SinkSettings,
    /// A hash of its settings, without secrets.
    pub fingerprint: String,
}

/// The input of a comparison of running workers.
pub struct LiveComparison<'a> {
    /// The bus.
    pub bus: &'a dyn Bus,
    /// Its settings.
    pub settings: &'a BusSettings,
    /// The sinks.
    pub sinks: &'a [LiveSink<'a>],
    /// How it is made; rounds, questions, background and control have no meaning here.
    pub plan: Plan,
    /// Runs the queries; the comparison must be called from outside of this runtime.
    pub runtime: &'a Handle,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// The version of Tallybus.
    pub version: &'a str,
}

/// Compares the running workers: probes, progress, storage, and an audit of the time from the first probe to the last.
///
/// # Errors
/// The bus cannot be read or written, or the comparison was stopped. What one sink cannot do is no error: the result says it.
pub fn run_live(input: &LiveComparison<'_>, watch: &mut dyn Watch) -> Result<CompareResult, CompareError> {
    let (began, started) = (Instant::now(), super::wall_nanos(input.clock.as_ref())?);
    let connected: Vec<Connected<'_>> =
        input.sinks.iter().map(|sink| (sink, sink.settings.make().map_err(|error| error.to_string()))).collect();
    let schedule = schedule(&input.plan, LEAD, started);
    let schedule = schedule
        .ok_or_else(|| CompareError::Settings("a live comparison needs probes: give --probe-time".to_owned()))?;
    let stop = Arc::new(AtomicBool::new(false));
    let watching = Watching { schedule, every: input.plan.poll_every, stop: Arc::clone(&stop) };
    let mut parts: Vec<Part> = input.sinks.iter().map(|sink| part(input, sink.settings, &watching)).collect();
    let play = Play {
        bus: input.bus,
        topic: &input.settings.topic,
        schedule,
        background: &[],
        background_rate: 0.0,
        settle_within: input.plan.settle_within,
        comes_to_rest: false,
    };
    let before = ends(input)?;
    let played = play.play(&mut parts, watch);
    stop.store(true, Ordering::Release);
    let seen: Vec<(Result<Seen, String>, Known<f64>)> = parts
        .into_iter()
        .map(|part| (part.observed.and_then(|one| one.finish(input.runtime)), part.settled_rate))
        .collect();
    let played = played?;
    let after = ends(input)?;

    let last_due = i64::try_from((schedule.due(schedule.count) - schedule.began).as_nanos()).unwrap_or(i64::MAX);
    let range = whole_windows(input, schedule.wall, schedule.wall.saturating_add(last_due));
    let (audited, workload) = audit_all(input, &connected, range, spans(&before, &after))?;
    let mut sinks = Vec::new();
    for (((sink, made), (seen, settled_rate)), completeness) in connected.into_iter().zip(seen).zip(audited) {
        let (storage, version) = match &made {
            Ok(made) => (storage(input.runtime, made.as_ref()), version(input.runtime, made.as_ref())),
            Err(reason) => (Known::unknown(reason), Known::unknown(reason)),
        };
        let mut result = empty(sink, made.as_ref().ok(), completeness);
        result.settled_rate = settled_rate;
        (result.storage, result.version) = (storage, version);
        match seen {
            Ok(seen) => {
                let (sent, seed) = (played.slips.sent, input.plan.seed);
                result.latency = seen.latency(sent);
                result.summaries.insert(Aspect::FreshnessMedian, seen.summary(0.5, sent, seed));
                result.summaries.insert(Aspect::FreshnessP99, seen.summary(0.99, sent, seed));
            }
            Err(reason) => result.latency = Known::Unknown(reason),
        }
        if let Ok(made) = made {
            input.runtime.block_on(made.close());
        }
        sinks.push(result);
    }
    let rankings = rankings(&sinks, &[]);
    let method = Method {
        mode: Mode::Live,
        seed: input.plan.seed,
        fingerprint: fingerprint(input),
        rounds: 0,
        warm_up_rounds: 0,
        order: Vec::new(),
        asked: 0,
        probes: Known::Is(play.method(&played.slips)),
    };
    Ok(CompareResult {
        kind: RESULT_KIND.to_owned(),
        schema_version: SCHEMA_VERSION,
        started: super::time_text(started),
        seconds: began.elapsed().as_secs_f64(),
        environment: Environment::here(input.version),
        method,
        workload,
        sinks,
        noise: Vec::new(),
        rankings,
        timeline: played.timeline,
        notes: vec![
            "a live comparison has no rounds and no control: only the probes' times have intervals".to_owned(),
            format!("questions were not asked: {NO_QUESTIONS}"),
        ],
    })
}

fn part(input: &LiveComparison<'_>, settings: &SinkSettings, watching: &Watching) -> Part {
    let observe = || {
        let sink = settings.make().map_err(|error| error.to_string())?;
        Observed::begin(input.runtime, sink, settings.shape.window, watching.clone())
    };
    Part {
        label: settings.name.clone(),
        running: None,
        observed: why_unseen(settings, &input.settings.topic).map_or_else(observe, Err),
        group: settings.group(),
        topics: settings.topics.clone(),
        settled: None,
        settled_rate: Known::unknown("the group's progress was not sampled"),
    }
}

/// The ends of each topic's partitions.
type Ends = Vec<(String, Vec<u64>)>;
/// A sink, and a connection of its own to its backend; or why there is none.
type Connected<'a> = (&'a LiveSink<'a>, Result<Arc<dyn Sink>, String>);

fn ends(input: &LiveComparison<'_>) -> Result<Ends, CompareError> {
    let mut topics: Vec<&str> = vec![&input.settings.topic];
    for topic in input.sinks.iter().flat_map(|sink| &sink.settings.topics) {
        if !topics.contains(&topic.as_str()) {
            topics.push(topic);
        }
    }
    let ranges = input.bus.observer()?.offsets(&topics)?;
    let ends = ranges.iter().map(|ranges| ranges.iter().map(|range| range.end).collect());
    Ok(topics.iter().map(|topic| (*topic).to_owned()).zip(ends).collect())
}

/// The offsets published between two moments.
fn spans(before: &Ends, after: &Ends) -> Vec<Span> {
    let mut spans = Vec::new();
    for ((topic, firsts), (_, ends)) in before.iter().zip(after) {
        for ((partition, first), end) in (0..).zip(firsts).zip(ends) {
            spans.push(Span { topic: topic.clone(), partition, first: *first, end: *end.max(first) });
        }
    }
    spans
}

/// The range in whole windows of every sink: windows that are partly outside are left out at its beginning.
fn whole_windows(input: &LiveComparison<'_>, from: i64, to: i64) -> TimeRange {
    let longest = input.sinks.iter().map(|sink| sink.settings.shape.window).max().unwrap_or(0);
    let from = if longest > 0 { from - from.rem_euclid(longest) } else { from };
    TimeRange { from: Some(from), to: Some(to.max(from.saturating_add(1))) }
}

fn audit_all(
    input: &LiveComparison<'_>,
    connected: &[Connected<'_>],
    range: TimeRange,
    spans: Vec<Span>,
) -> Result<(Vec<Known<Completeness>>, Workload), CompareError> {
    let audited: Vec<AuditedSink> = connected
        .iter()
        .filter_map(|(sink, made)| Some((sink.settings, made.as_ref().ok()?)))
        .map(|(settings, sink)| AuditedSink::of(settings, Arc::clone(sink)))
        .collect();
    let observer = input.bus.observer()?;
    let report = audit::run(
        &Audit {
            bus: input.bus,
            observer: observer.as_ref(),
            topic: &input.settings.topic,
            encodings: &input.settings.encodings,
            sinks: &audited,
            range,
            window: 0,
            part: None,
            details: 0,
            now: super::wall_nanos(input.clock.as_ref())?,
            stall_timeout: STALL_TIMEOUT,
            runtime: input.runtime,
        },
        &mut |_, _| {},
    )?;
    let mut reports = report.sinks.iter();
    let mut found = Vec::new();
    for (_, made) in connected {
        found.push(match made {
            Err(reason) => Known::unknown(reason),
            Ok(_) => match reports.next() {
                None => Known::unknown("it was not audited"),
                Some(sink) => match &sink.outcome {
                    Err(reason) => Known::unknown(reason),
                    Ok(findings) => {
                        let verdicts = sink.verdicts(&Demands::default());
                        Known::Is(Completeness::of(findings, &verdicts, None, StreamState::Flowing))
                    }
                },
            },
        });
    }
    let time =
        |time: Option<i64>| time.map_or_else(|| Known::unknown("no bound"), |at| Known::Is(super::time_text(at)));
    let series = report.sinks.iter().filter_map(|sink| Some(sink.outcome.as_ref().ok()?.series as u64)).max();
    let workload = Workload {
        bus: input.bus.describe(),
        messages: spans.iter().map(|span| span.end - span.first).sum(),
        spans,
        bytes: Known::unknown("the bytes of a live stream are not counted"),
        events: report.bus_events,
        total: Total(report.bus_total),
        series: series.map_or_else(|| Known::unknown("no sink was audited"), Known::Is),
        undecodable: report.undecodable,
        oldest: time(range.from),
        newest: time(range.to),
    };
    Ok((found, workload))
}

/// A sink of which nothing is measured yet.
fn empty(sink: &LiveSink<'_>, made: Option<&Arc<dyn Sink>>, completeness: Known<Completeness>) -> SinkResult {
    let settings = sink.settings;
    let unknown = [Aspect::CatchUpRate, Aspect::WriteTime, Aspect::Requests, Aspect::BytesPerEvent]
        .map(|aspect| (aspect, Known::unknown(OTHER_PROCESS)));
    SinkResult {
        name: settings.name.clone(),
        control_of: None,
        kind: settings.kind.name.to_owned(),
        destination: made
            .and_then(|made| made.destination())
            .map_or_else(|| Known::unknown("the sink does not name it"), Known::Is),
        version: Known::unknown("the sink was not asked"),
        delivery_guarantee: made.map_or_else(
            || Known::unknown("the sink cannot be created"),
            |made| Known::Is(made.delivery_guarantee().to_string()),
        ),
        window_nanos: Known::Is(settings.shape.window),
        fingerprint: sink.fingerprint.clone(),
        completeness,
        rounds: Vec::new(),
        summaries: BTreeMap::from(unknown),
        latency: Known::unknown("not measured"),
        rate_steps: Known::unknown(OTHER_PROCESS),
        settled_rate: Known::unknown("not measured"),
        questions: Vec::new(),
        storage: Known::unknown("not measured"),
        notes: vec![format!("what its worker has used: {OTHER_PROCESS}")],
    }
}

fn fingerprint(input: &LiveComparison<'_>) -> String {
    let plan = Plan { seed: 0, ..input.plan.clone() };
    let sinks: Vec<_> = input.sinks.iter().map(|sink| (&sink.settings.name, &sink.fingerprint)).collect();
    super::hash_text(&format!("live {plan:?} {sinks:?}"))
}
