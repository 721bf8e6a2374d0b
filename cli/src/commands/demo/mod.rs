mod directory;
mod load;
mod page;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::{Bus, Observer};
use tallybus_sdk::TimeRange;
use tallybus_sdk::clock::Clock;
use tallybus_sdk::progress::GroupProgress;
use tallybus_verify::audit::{AuditReport, Demands};
use tallybus_worker::SystemClock;
use tallybus_worker::prepare_topics;
use tallybus_worker::settings::{Settings, open_own_bus};
use tallybus_worker::supervisor::{Running, Stop, is_caught_up};

use self::directory::Directory;
use self::load::{Load, SERIES};
use self::page::{Page, Sample};
use super::audit::Question;
use super::run;
use crate::failure::{Failure, Verdict};
use crate::output::{Output, number};
use crate::text::{count_of, grouped};
use crate::{Global, config, numbers, report};

/// The collector's publish interval in the demo, short so that there is something to watch.
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);
/// How often progress is refreshed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often progress is printed where no line can be redrawn.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Everything is compared.
const QUESTION: Question = Question { range: TimeRange { from: None, to: None }, window: 0, details: 20 };
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// Demonstrate the whole pipeline on this machine: emit, publish, write twice, compare.
///
/// Threads count, a collector publishes to an embedded bus, two workers write to two databases independently, and an
/// audit compares both with the bus, exactly. Needs nothing installed.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many increments to emit.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = numbers::whole, allow_negative_numbers = true)]
    events: u64,
    /// Directory for the bus, the databases, the settings and the report; it is recreated.
    #[arg(long, value_name = "PATH", default_value = "tallybus-demo")]
    dir: PathBuf,
}

impl Demo {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        if global.config.is_some() || global.bus.is_some() {
            return Err(Failure::could_not_look(
                "the demo has its own bus and settings: omit --config and --bus; `tallybus run` accepts them",
            ));
        }
        let began = Instant::now();
        let directory = Directory::make(&self.dir)?;
        let settings = config::load_file(global, &directory.settings())?;
        let runtime = super::start_runtime()?;
        let bus = config::open_or_create_bus(&settings)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let sinks = run::all(&settings);
        prepare_topics(&bus, &settings.bus, &sinks, &clock, &Stop::default())?;

        let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        output.say(&format!(
            "{} of {} from {}\n  -> collector -> {}\n  -> two workers -> {}\n",
            count_of(self.events, "increment"),
            count_of(SERIES.min(self.events), "series"),
            count_of(load::THREADS, "thread"),
            bus.describe(),
            names.join(", ")
        ));
        let mut workers = Vec::new();
        for sink in &sinks {
            // A separate connection for each, as if it were another process.
            let own_bus = config::open_or_create_bus(&settings)?;
            workers.push(Running::start(sink, sink.worker_options(), own_bus, runtime.handle(), Arc::clone(&clock)));
        }
        let watched = self.emit(&settings, bus.as_ref(), &workers, output);
        for worker in &workers {
            worker.handle().into_iter().for_each(tallybus_worker::WorkerHandle::stop);
        }
        for worker in workers {
            worker.wait(runtime.handle()).outcome.map_err(Failure::failed)?;
        }
        let (emitted, samples) = watched?;

        let audited = super::audit::make(&settings, &sinks, bus.as_ref(), &QUESTION, output)?;
        let seconds = began.elapsed().as_secs_f64();
        let page = Page { report: &audited, samples: &samples, emitted, seconds, sinks: &names };
        std::fs::write(directory.report(), page.html())
            .map_err(|error| Failure::failed(format!("cannot write {}: {error}", directory.report().display())))?;
        let good = is_exact(emitted, self.events, &audited);
        if output.json {
            output.report(&as_json(emitted, &audited, good, seconds, &directory.report()).to_string())?;
        } else {
            tell(emitted, &audited, seconds, &directory, output)?;
        }
        Ok(if good { Verdict::Good } else { Verdict::Bad })
    }

    /// Emits, and waits until everything is delivered and written. Returns what was emitted, and the samples taken.
    fn emit(
        &self,
        settings: &Settings,
        bus: &dyn Bus,
        workers: &[Running],
        output: &Output,
    ) -> Result<(u64, Vec<Sample>), Failure> {
        let collector = tallybus::builder().service("demo").topic(&settings.bus.topic).flush_interval(FLUSH_INTERVAL);
        let guard =
            collector.start(tallybus::Connection::from_bus(open_own_bus(&settings.bus)?)).map_err(Failure::failed)?;
        let mut watch = Watch::new(settings, bus, self.events, output)?;
        let load = Load::start(self.events);
        while !load.is_done() {
            watch.look(load.emitted(), guard.stats().delivered)?;
            std::thread::sleep(LOOK_EVERY);
        }
        let emitted = load.finish()?;
        let delivered = guard.shutdown(DELIVERY_TIMEOUT);
        watch.look(emitted, delivered.delivered)?;
        if !delivered.is_complete() {
            return Err(Failure::failed(format!("the bus did not accept everything: {delivered}")));
        }
        let until = Instant::now() + CATCH_UP_TIMEOUT;
        while !watch.is_caught_up()? {
            // The error is reported when the worker is waited for.
            if Instant::now() > until || workers.iter().any(Running::has_ended) {
                return Err(Failure::failed("the workers did not catch up; run again with -v to see why"));
            }
            watch.look(emitted, delivered.delivered)?;
            std::thread::sleep(LOOK_EVERY);
        }
        watch.look(emitted, delivered.delivered)?;
        output.clear();
        output.say("");
        Ok((emitted, watch.samples))
    }
}

/// Samples the progress.
struct Watch<'a> {
    settings: &'a Settings,
    observer: Box<dyn Observer>,
    events: u64,
    output: &'a Output,
    began: Instant,
    told: Instant,
    samples: Vec<Sample>,
}

impl<'a> Watch<'a> {
    fn new(settings: &'a Settings, bus: &dyn Bus, events: u64, output: &'a Output) -> Result<Self, Failure> {
        let (observer, now) = (bus.observer()?, Instant::now());
        Ok(Self { settings, observer, events, output, began: now, told: now, samples: Vec::new() })
    }

    fn is_caught_up(&self) -> Result<bool, Failure> {
        for sink in &self.settings.sinks {
            if !is_caught_up(self.observer.as_ref(), sink)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn look(&mut self, emitted: u64, delivered: u64) -> Result<(), Failure> {
        let topic = &self.settings.bus.topic;
        let messages: u64 = self.observer.offsets_of(topic)?.iter().map(|range| range.end).sum();
        let mut settled = Vec::new();
        for sink in &self.settings.sinks {
            let progress = GroupProgress::read(self.observer.as_ref(), &sink.group(), &[topic])?;
            settled.push(progress.partitions.iter().filter_map(|partition| partition.settled).sum::<u64>());
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let sinks: Vec<String> = (self.settings.sinks.iter().zip(&settled))
            .map(|(sink, settled)| format!("{} {} of {}", sink.name, grouped(*settled), count_of(messages, "message")))
            .collect();
        let line = format!(
            "{seconds:4.1} s  emitted {} of {}  on the bus {}  {}",
            grouped(emitted),
            grouped(self.events),
            grouped(delivered),
            sinks.join("  ")
        );
        if self.output.is_terminal() {
            self.output.redraw(&line);
        } else if self.samples.is_empty() || self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.output.say(&line);
        }
        self.samples.push(Sample { seconds, emitted, delivered, messages, settled });
        Ok(())
    }
}

fn is_exact(emitted: u64, wanted: u64, audited: &AuditReport) -> bool {
    let total = u128::from(emitted);
    let sinks = audited.sinks.iter().all(|sink| sink.outcome.as_ref().is_ok_and(|findings| findings.total == total));
    emitted == wanted && audited.equal() && audited.bus_total == total && sinks && audited.producers.fault_count == 0
}

fn as_json(emitted: u64, audited: &AuditReport, good: bool, seconds: f64, report_path: &Path) -> Value {
    let mut value = json!({
        "emitted": emitted,
        "bus": number(audited.bus_total),
        "sinks": report::as_json(audited, &Demands::default())["sinks"],
        "report": report_path.display().to_string(),
        "equal": good,
    });
    value["seconds"] = ((seconds * 1_000.0).round() / 1_000.0).into();
    value
}

fn tell(
    emitted: u64,
    audited: &AuditReport,
    seconds: f64,
    directory: &Directory,
    output: &Output,
) -> Result<(), Failure> {
    output.report(&format!("emitted {}", grouped(emitted)))?;
    for line in report::lines(audited, &Demands::default()) {
        output.report(&line)?;
    }
    let (config, program) = (shown(&directory.settings()), program());
    let (report_page, database) = (shown(&directory.report()), shown(&directory.database("per-second")));
    output.report(&format!(
        "\ndone in {seconds:.1} s; the report: {report_page}\n\n\
         What to try next:\n\
         \x20 # follow the bus in a second terminal, and emit in this one\n\
         \x20 {program} tap --config {config}\n\
         \x20 {program} emit demo.mine 42 --tag who=me --config {config}\n\
         \x20 # write that into both databases, and compare again\n\
         \x20 {program} run --until-caught-up --config {config}\n\
         \x20 {program} audit --config {config}\n\
         \x20 # query the bus, and query a database\n\
         \x20 {program} count --by status --config {config}\n\
         \x20 sqlite3 {database} 'select * from counts order by total desc limit 5'\n\n\
         For Kafka and InfluxDB, use other tables in the same file:\n\
         \x20 [bus]\n\
         \x20 kind = \"kafka\"\n\
         \x20 brokers = \"127.0.0.1:9092\"\n\
         \x20 [sinks.influx]\n\
         \x20 kind = \"influxdb\"\n\
         \x20 url = \"http://127.0.0.1:8086\"\n\
         \x20 org = \"o\"\n\
         \x20 bucket = \"b\"\n\
         \x20 token = \"env:INFLUX_TOKEN\"",
    ))
}

/// The shortest form of a path here, for a shell.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok();
    let path = here.as_deref().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).display().to_string();
    let plain = path.chars().all(|character| character.is_ascii_alphanumeric() || "/._-".contains(character));
    if plain { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}

/// How this program is called here: by its name if the search path contains it.
fn program() -> String {
    let Ok(program) = std::env::current_exe().and_then(|program| program.canonicalize()) else {
        return "tallybus".to_owned();
    };
    let on_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .any(|place| place.join("tallybus").canonicalize().is_ok_and(|found| found == program))
    });
    if on_path { "tallybus".to_owned() } else { shown(&program) }
}
