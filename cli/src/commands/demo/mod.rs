mod act;
mod directory;
mod figures;
mod hints;
mod load;
mod page;
mod samples;
mod watch;
mod workers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::Bus;
use tallybus_sdk::TimeRange;
use tallybus_sdk::clock::Clock;
use tallybus_verify::audit::{AuditReport, Demands};
use tallybus_worker::SystemClock;
use tallybus_worker::settings::{Settings, open_own_bus};
use tallybus_worker::supervisor::Stop;
use tallybus_worker::{OnRefusal, prepare_topics};

use self::act::{Act, Takeover};
use self::directory::Directory;
use self::figures::Figures;
use self::load::{Load, SERIES};
use self::page::Played;
use self::samples::Sample;
use self::watch::Watch;
use self::workers::{Worker, Workers};
use super::audit::Question;
use super::run;
use crate::failure::{Failure, Verdict};
use crate::interrupt::{self, Interrupted};
use crate::output::{Colour, Output, number};
use crate::text::{count_of, grouped, wrap};
use crate::{Global, config, numbers, report};

/// The collector's publish interval in the demo, short so that there is something to watch.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// How often progress is refreshed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the bus is asked whether a worker is in the middle of a batch: a batch takes some milliseconds.
const LURK_EVERY: Duration = Duration::from_millis(1);
/// Everything is compared.
const QUESTION: Question = Question { range: TimeRange { from: None, to: None }, window: 0, details: 20 };
/// How long the bus may accept nothing of what was counted.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the sinks may take for what the bus has accepted: a worker that was killed is missed after six seconds.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);
/// The time that emitting is spread over, and a shorter one for a few increments.
const SPREAD: Duration = Duration::from_secs(7);
const SHORT_SPREAD: Duration = Duration::from_secs(1);
/// With fewer increments there are too few batches to find a worker in the middle of one.
const ENOUGH: u64 = 10_000;
/// The sink whose worker is killed.
const KILLED: &str = "sqlite";

/// Demonstrate the whole pipeline on this machine: emit, publish, write thrice, kill a worker, compare.
///
/// Threads count and a collector publishes to an embedded bus. Three workers, each a process of its own, write to three backends side
/// by side: SQLite, Parquet files, and SQLite with longer windows. One worker is killed with SIGKILL in the middle of a batch, another
/// one takes over, and an audit compares all three with the bus, exactly. A page with charts says what was proved. Needs nothing
/// installed, and takes about ten seconds. With fewer than 10,000 increments no worker is killed.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many increments to emit, at least 1.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = numbers::positive, allow_negative_numbers = true)]
    events: u64,
    /// Directory for the bus, the databases, the settings and the report; it is recreated.
    #[arg(long, value_name = "PATH", default_value = "tallybus-demo")]
    dir: PathBuf,
}

/// What was seen until everything was settled.
struct Seen {
    emitted: u64,
    samples: Vec<Sample>,
    takeover: Option<Takeover>,
}

impl Demo {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        if global.config.is_some() || global.bus.is_some() {
            return Err(Failure::could_not_look(
                "the demo has its own bus and settings: omit --config and --bus; `tallybus run` accepts them",
            ));
        }
        let began = Instant::now();
        let interrupted = interrupt::listen()?;
        let directory = Directory::make(&self.dir)?;
        let settings = config::load_file(global, &directory.settings())?;
        let bus = config::open_or_create_bus(&settings)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let sinks = run::all(&settings);
        prepare_topics(&bus, &settings.bus, &sinks, &clock, &Stop::default(), OnRefusal::Fail)?;
        self.introduce(&settings, output);

        let seen = self.play(&settings, bus.as_ref(), &directory, &interrupted, output)?;
        let audited = super::audit::make(&settings, &sinks, bus.as_ref(), &QUESTION, output)?;
        let mut all = Vec::new();
        for (number, sink) in audited.sinks.iter().enumerate() {
            let bytes = directory.size(&sink.name).map_err(|error| {
                Failure::failed(format!("cannot read the files of {} in {}: {error}", sink.name, self.dir.display()))
            })?;
            all.push(Figures::new(number, sink, &seen.samples, bytes));
        }
        let hints = hints::hints(directory.path());
        let played = Played {
            report: &audited,
            samples: &seen.samples,
            figures: &all,
            takeover: seen.takeover,
            killed: KILLED,
            emitted: seen.emitted,
            is_exact: is_exact(seen.emitted, self.events, &audited),
            seconds: began.elapsed().as_secs_f64(),
            hints: &hints,
        };
        std::fs::write(directory.report(), played.html())
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", directory.report().display())))?;
        if output.json {
            output.report(&as_json(&played, &directory).to_string())?;
        } else {
            tell(&played, &directory, output)?;
        }
        Ok(if played.is_exact { Verdict::Good } else { Verdict::Bad })
    }

    fn introduce(&self, settings: &Settings, output: &Output) {
        let text = format!(
            "{} of {} from {}, through the collector, onto {}. Three workers write them into three backends side by \
             side: {}. One worker will be killed.",
            count_of(self.events, "increment"),
            count_of(SERIES.min(self.events), "series"),
            count_of(load::THREADS, "thread"),
            "a bus in one file",
            settings.sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>().join(", "),
        );
        let text = if self.is_long() { text } else { text.replace("One worker will be killed.", "") };
        wrap(&text, output.width()).iter().for_each(|line| output.say(line));
        output.say("");
    }

    fn is_long(&self) -> bool {
        self.events >= ENOUGH
    }

    /// Runs workers and emits, until everything is delivered and settled, and the workers have stopped.
    fn play(
        &self,
        settings: &Settings,
        bus: &dyn Bus,
        directory: &Directory,
        interrupted: &Interrupted,
        output: &Output,
    ) -> Result<Seen, Failure> {
        let observer = bus.observer()?;
        let workers = Workers::new(directory)?;
        let mut running: Vec<Worker> = Vec::new();
        for sink in &settings.sinks {
            running.push(workers.start(&sink.name)?);
        }
        let collector = tallybus::builder().service("demo").topic(&settings.bus.topic).flush_interval(FLUSH_INTERVAL);
        let guard =
            collector.start(tallybus::Connection::from_bus(open_own_bus(&settings.bus)?)).map_err(Failure::failed)?;
        let mut watch = Watch::new(settings, observer.as_ref(), self.events, output);
        let killed = settings.sinks.iter().find(|sink| self.is_long() && sink.name == KILLED);
        let mut act = killed.map(|sink| Act::new(&sink.name, sink.group(), &settings.bus.topic, output));
        let mut guard = Some(guard);
        // Dropped before the guard, which publishes what was counted: nothing is counted after it.
        let mut load = Some(Load::start(self.events, if self.is_long() { SPREAD } else { SHORT_SPREAD }));
        let (mut emitted, mut delivered) = (0, 0);
        let (mut looked, mut emitted_at): (Option<Instant>, Option<Instant>) = (None, None);
        let mut accepted = (Instant::now(), 0);
        loop {
            if interrupted.is_set() {
                output.clear();
                return Err(Failure::failed("interrupted: the workers have been ended, and nothing was compared"));
            }
            if let Some(act) = &mut act {
                let worker = running.iter_mut().find(|worker| worker.sink() == KILLED);
                worker.map_or(Ok(()), |worker| act.go_on(observer.as_ref(), &workers, worker))?;
            }
            if let Some(done) = load.take_if(|load| load.is_done()) {
                emitted = done.finish()?;
                emitted_at = Some(Instant::now());
            }
            if let Some(guard) = guard.take_if(|_| load.is_none()) {
                let report = guard.shutdown(DELIVERY_TIMEOUT);
                delivered = report.delivered;
                if !report.is_complete() {
                    output.clear();
                    return Err(not_accepted(&report, directory));
                }
            }
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
                looked = Some(Instant::now());
                running.iter_mut().try_for_each(Worker::check)?;
                let emitted = load.as_ref().map_or(emitted, Load::emitted);
                let delivered = guard.as_ref().map_or(delivered, |guard| guard.stats().delivered);
                let is_settled = watch.look(emitted, delivered)?;
                if delivered > accepted.1 || delivered == emitted {
                    accepted = (Instant::now(), delivered);
                }
                if accepted.0.elapsed() > DELIVERY_TIMEOUT && guard.is_some() {
                    output.clear();
                    drop(load.take());
                    let report = guard.take().map(|guard| guard.shutdown(Duration::ZERO));
                    return Err(report.map_or(behind(&running), |report| not_accepted(&report, directory)));
                }
                if is_settled && guard.is_none() && act.as_ref().is_none_or(Act::is_at_rest) {
                    break;
                }
                if emitted_at.is_some_and(|at| at.elapsed() > CATCH_UP_TIMEOUT) {
                    return Err(behind(&running));
                }
            }
            let is_lurking = act.as_ref().is_some_and(Act::is_lurking);
            std::thread::sleep(if is_lurking { LURK_EVERY } else { LOOK_EVERY / 10 });
        }
        output.clear();
        output.say("");
        running.iter_mut().for_each(Worker::ask_to_stop);
        running.iter_mut().try_for_each(Worker::wait)?;
        Ok(Seen { emitted, samples: watch.samples, takeover: act.and_then(|act| act.takeover()) })
    }
}

/// The failure of a bus that does not accept what was counted.
fn not_accepted(report: &tallybus::Report, directory: &Directory) -> Failure {
    Failure::failed(format!(
        "the bus did not accept everything: {report}\n  The warnings above say why; where the disk is full, free some \
         space, or name a directory on another disk with --dir.\n  Nothing outside {} was written; the demo recreates it.",
        hints::shown(directory.path())
    ))
}

/// The failure of workers that run and do not settle everything.
fn behind(running: &[Worker]) -> Failure {
    let late = format!("{} s after the last increment", CATCH_UP_TIMEOUT.as_secs());
    match running.first() {
        Some(worker) => worker.failure(&format!("or another one had not settled everything {late}")),
        None => Failure::failed(format!("no worker runs, and not everything was settled {late}")),
    }
}

fn is_exact(emitted: u64, wanted: u64, audited: &AuditReport) -> bool {
    let total = u128::from(emitted);
    let sinks = audited.sinks.iter().all(|sink| sink.outcome.as_ref().is_ok_and(|findings| findings.total == total));
    emitted == wanted && audited.equal() && audited.bus_total == total && sinks && audited.producers.fault_count == 0
}

fn as_json(played: &Played<'_>, directory: &Directory) -> Value {
    let seconds = |seconds: f64| (seconds * 1_000.0).round() / 1_000.0;
    let killed = played.takeover.map(|takeover| {
        json!({
            "sink": played.killed,
            "pid": takeover.killed.pid,
            "seconds": seconds(takeover.killed.seconds),
            "sealed_batches": takeover.killed.batches,
            "sealed_messages": takeover.killed.messages,
            "taken_over_by": takeover.pid,
            "taken_over_seconds": seconds(takeover.seconds),
        })
    });
    json!({
        "emitted": played.emitted,
        "bus": number(played.report.bus_total),
        "sinks": report::as_json(played.report, &Demands::default())["sinks"],
        "report": directory.report().display().to_string(),
        "equal": played.is_exact,
        "seconds": seconds(played.seconds),
        "killed": killed,
        "backends": played.figures.iter().map(Figures::json).collect::<Vec<_>>(),
    })
}

fn tell(played: &Played<'_>, directory: &Directory, output: &Output) -> Result<(), Failure> {
    output.report(&format!("emitted {}", grouped(played.emitted)))?;
    let verdicts = [("NOT EQUAL", Colour::Bad), ("equal", Colour::Good)];
    for line in report::lines(played.report, &Demands::default()) {
        output.report_coloured(&line, &verdicts)?;
    }
    output.report("")?;
    for line in figures::table(played.figures).lines_within(output.width()) {
        output.report(&line)?;
    }
    output.report("")?;
    let summary = if played.is_exact && played.takeover.is_some() {
        "A worker was killed in the middle of a batch, and every backend still holds every increment exactly once."
    } else if played.is_exact {
        "Every backend holds every increment exactly once."
    } else {
        "What the bus or a backend holds is not what was counted; see above."
    };
    let colour = if played.is_exact { Colour::Good } else { Colour::Bad };
    for line in wrap(summary, output.width()) {
        output.report_coloured(&line, &[(&line, colour)])?;
    }
    output.report(&format!("Done in {:.1} s. The report, with charts, for a browser:", played.seconds))?;
    output.report(&format!("  {}", hints::shown(&directory.report())))?;
    output.report_coloured("\nWhat to try next:", &[("What to try next:", Colour::Strong)])?;
    hints::lines(played.hints).iter().try_for_each(|line| output.report(&format!("  {line}")))
}
