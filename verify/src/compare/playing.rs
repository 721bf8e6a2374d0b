//! Probes are sent, and every backend and group is watched meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Observer};
use tallybus_sdk::progress::GroupProgress;
use tallybus_worker::supervisor::Running;

use super::probes::{Background, Observed, PROBE_NAME, Schedule, Slips, send};
use super::{CompareError, Known, ProbeMethod, Sample, Watch};

/// How often the progress of the groups is sampled.
const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// One sink that is watched.
pub(super) struct Part {
    pub(super) label: String,
    /// Its worker, where it runs in this process.
    pub(super) running: Option<Running>,
    pub(super) observed: Result<Observed, String>,
    pub(super) group: String,
    pub(super) topics: Vec<String>,
    /// Messages settled when the probes began.
    pub(super) settled: Option<u64>,
    /// Messages settled per second since then.
    pub(super) settled_rate: Known<f64>,
}

impl Part {
    /// Whether its worker ran in this process and ended.
    fn has_ended(&self) -> bool {
        self.running.as_ref().is_some_and(Running::has_ended)
    }

    /// Whether nothing more is to be seen of this many probes.
    fn has_seen(&self, probes: u64) -> bool {
        let observed = self.observed.as_ref();
        self.has_ended() || observed.map_or(true, |observed| observed.visible() >= probes)
    }

    /// Messages settled by its group, and its lag.
    fn progress(&self, observer: &dyn Observer) -> Result<(u64, u64), CompareError> {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let progress = GroupProgress::read(observer, &self.group, &topics)?;
        let settled = progress.partitions.iter().map(|one| one.settled.unwrap_or(one.range.first)).sum();
        Ok((settled, progress.lag()))
    }

    fn sample(&mut self, observer: &dyn Observer, schedule: &Schedule) -> Result<Sample, CompareError> {
        let (settled, lag) = self.progress(observer)?;
        let seconds = Instant::now().saturating_duration_since(schedule.began).as_secs_f64();
        let since = settled.saturating_sub(*self.settled.get_or_insert(settled));
        if seconds > 0.0 {
            self.settled_rate = Known::Is(since as f64 / seconds);
        }
        let visible = match &self.observed {
            Ok(observed) => Known::Is(observed.visible()),
            Err(reason) => Known::Unknown(reason.clone()),
        };
        Ok(Sample { seconds, sink: self.label.clone(), settled: Known::Is(since), lag: Known::Is(lag), visible })
    }
}

/// What is sent, and where.
pub(super) struct Play<'a> {
    pub(super) bus: &'a dyn Bus,
    pub(super) topic: &'a str,
    pub(super) schedule: Schedule,
    pub(super) background: &'a [Background],
    /// Events per second.
    pub(super) background_rate: f64,
    /// How long the last probes may take to become visible.
    pub(super) settle_within: Duration,
    /// Whether nothing else is published to the bus: then it also waits until every group has settled everything.
    pub(super) comes_to_rest: bool,
}

/// How the schedule was kept, and what the groups did meanwhile.
pub(super) struct Played {
    pub(super) slips: Slips,
    pub(super) timeline: Vec<Sample>,
}

impl Play<'_> {
    /// Sends the probes and samples the progress, until every probe is visible everywhere, or long enough after the last one.
    ///
    /// # Errors
    /// The bus failed, or the comparison was stopped.
    pub(super) fn play(&self, parts: &mut [Part], watch: &mut dyn Watch) -> Result<Played, CompareError> {
        let stop = AtomicBool::new(false);
        let observer = self.bus.observer()?;
        let mut publisher = self.bus.publisher()?;
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let (background, rate) = (self.background, self.background_rate);
                send(publisher.as_mut(), self.topic, &self.schedule, background, rate, &stop)
            });
            let mut timeline = Vec::new();
            let is_sent = || sending.is_finished();
            let watched = self.watch(observer.as_ref(), parts, &mut timeline, &is_sent, watch);
            stop.store(true, Ordering::Release);
            let slips = sending.join().unwrap_or_else(|_| {
                Err(BusError::Fatal("the thread that sends the probes panicked".to_owned()).into())
            });
            watched?;
            Ok(Played { slips: slips?, timeline })
        })
    }

    fn watch(
        &self,
        observer: &dyn Observer,
        parts: &mut [Part],
        timeline: &mut Vec<Sample>,
        is_sent: &dyn Fn() -> bool,
        watch: &mut dyn Watch,
    ) -> Result<(), CompareError> {
        let schedule = &self.schedule;
        let (mut sampled, mut sent_at): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            if watch.is_stopped() {
                return Err(CompareError::Interrupted);
            }
            let now = Instant::now();
            if now >= schedule.began && sampled.is_none_or(|at| now.duration_since(at) >= SAMPLE_EVERY) {
                sampled = Some(now);
                for part in parts.iter_mut() {
                    timeline.push(part.sample(observer, schedule)?);
                }
                let due = super::whole(now.duration_since(schedule.began).as_secs_f64() * schedule.rate);
                watch.step(due.min(schedule.count), schedule.count, "sending probes");
            }
            if is_sent() {
                let since = *sent_at.get_or_insert(now);
                let is_over = now.duration_since(since) >= self.settle_within;
                let is_seen = || parts.iter().all(|part| part.has_seen(schedule.count));
                if is_over || (is_seen() && (!self.comes_to_rest || is_at_rest(observer, parts)?)) {
                    return Ok(());
                }
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// How the probes were sent.
    pub(super) fn method(&self, slips: &Slips) -> ProbeMethod {
        let seconds = slips.took.as_secs_f64();
        ProbeMethod {
            series: PROBE_NAME.to_owned(),
            rate: self.schedule.rate,
            seconds,
            sent: slips.sent,
            late: slips.late,
            latest: slips.latest.as_secs_f64(),
            background_rate: self.background_rate,
            background_reached: match seconds > 0.0 {
                true => Known::Is(slips.background_events as f64 / seconds),
                false => Known::unknown("no time passed"),
            },
        }
    }
}

/// Whether every group has settled everything, but for those whose worker has ended.
fn is_at_rest(observer: &dyn Observer, parts: &[Part]) -> Result<bool, CompareError> {
    for part in parts.iter().filter(|part| !part.has_ended()) {
        if part.progress(observer)?.1 > 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
