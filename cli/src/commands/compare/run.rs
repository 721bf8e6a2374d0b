use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tallybus_bus::embedded::EmbeddedBus;
use tallybus_sdk::config::parse_duration;
use tallybus_verify::compare::{
    Chosen, CompareError, CompareResult, Contender, Finished, LeftBehind, LiveComparison, LiveSink, Plan,
    ShadowComparison, Watch,
};
use tallybus_worker::SystemClock;
use tallybus_worker::settings::{Settings, SinkSettings};

use super::contenders::Shadows;
use super::{contenders, page, table};
use crate::failure::{Failure, Verdict};
use crate::interrupt::{self, Interrupted};
use crate::output::Output;
use crate::progress::Progress;
use crate::selection::select;
use crate::waiting::waiting_for_bus;
use crate::{Global, VERSION, config, numbers, times};

/// Compare the sinks of the settings: with --shadow on a copy of the stream, otherwise their running workers.
///
/// With --shadow it copies a range of the stream once, and writes it with each sink in turn, in several rounds, into destinations
/// that are created beside the sinks' own and removed at the end: the bus is only read, and no table of yours is touched. Then all
/// run at the same time while probes are sent on a fixed schedule. Without it, the probes are sent to the topic that the running
/// workers read, and nothing else is. Every sink is audited, and only those that hold exactly what they must are ranked.
/// Differences that chance explains are none: see docs/compare.md. Exit status 0: all sinks are equal; 1: one is not; 2: the
/// comparison could not run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Write a copy of the stream into destinations of the comparison's own.
    #[arg(long)]
    shadow: bool,
    /// Only this sink; repeatable. With --shadow, the first one is run twice.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    /// Only records at or after this time: RFC 3339, a date, -1h, now, or nanoseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true, requires = "shadow")]
    from: Option<i64>,
    /// Only records before this time.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true, requires = "shadow")]
    to: Option<i64>,
    /// Of these, the newest records that have at least this many events.
    #[arg(long, value_name = "N", value_parser = numbers::positive, requires = "shadow")]
    last: Option<u64>,
    /// How many rounds count, after one that warms up.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = numbers::positive, requires = "shadow")]
    rounds: u64,
    /// How often each question is asked; the first time is shown apart.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = numbers::positive, requires = "shadow")]
    asks: u64,
    /// Probes per second.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = numbers::positive)]
    probe_rate: u64,
    /// For how long probes are sent; 0s for none.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    probe_time: Duration,
    /// Replay this many events per second of the range beside the probes.
    #[arg(long, value_name = "EVENTS", default_value_t = 1_000, value_parser = numbers::whole, requires = "shadow")]
    rate: u64,
    /// Also look for the highest rate at which the lag of each sink does not grow; takes about a minute for each.
    #[arg(long, requires = "shadow")]
    sustainable: bool,
    /// Do not run the first sink twice: then there is no noise floor.
    #[arg(long, requires = "shadow")]
    no_control: bool,
    /// The seed of the intervals: the same figures with the same seed have the same [default: the time].
    #[arg(long, value_name = "N", value_parser = numbers::whole)]
    seed: Option<u64>,
    /// Directory for the copy of the stream [default: the system's for temporary files].
    #[arg(long, value_name = "PATH", requires = "shadow")]
    dir: Option<PathBuf>,
    /// Write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write the result to this file, as a page with charts for a browser.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
}

impl Run {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_for(global, &self.sinks)?;
        let chosen = select(&settings, &self.sinks)?;
        if chosen.is_empty() {
            return Err(Failure::could_not_look("nothing to compare: add tables [sinks.NAME] to the settings"));
        }
        let result = match self.shadow {
            true => self.run_shadow(global, &settings, &chosen, output)?,
            false => self.run_live(global, &settings, &chosen, output)?,
        };
        self.report(&result, output)?;
        Ok(if result.all_equal() { Verdict::Good } else { Verdict::Bad })
    }

    /// Compares destinations of its own.
    fn run_shadow(
        &self,
        global: &Global,
        settings: &Settings,
        chosen: &[&SinkSettings],
        output: &Output,
    ) -> Result<CompareResult, Failure> {
        let value = config::raw(global)?;
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = tempfile::Builder::new().prefix("tallybus-compare-").tempdir_in(&parent).map_err(|error| {
            Failure::could_not_look(format!("cannot create a directory in {}: {error}", parent.display()))
        })?;
        let file = dir.path().join("bus.db");
        let shadows = Shadows::new(&value, &file, global.kinds)?;
        let (contenders, excluded) = self.contenders(&shadows, chosen)?;
        let interrupted = interrupt::listen()?;
        output.say(&format!(
            "working in {}; should this be killed, `tallybus compare clean {}` removes what it leaves",
            dir.path().display(),
            dir.path().display()
        ));
        let finished = self.compare(settings, &shadows, &contenders, dir.path(), &file, &interrupted, output);
        let Finished { mut result, left_behind } = finished?;
        result.notes.extend(excluded);
        if !left_behind.is_empty() {
            let kept = dir.keep();
            say_left_behind(&left_behind, &kept, output);
        }
        Ok(result)
    }

    /// Compares the running workers.
    fn run_live(
        &self,
        global: &Global,
        settings: &Settings,
        chosen: &[&SinkSettings],
        output: &Output,
    ) -> Result<CompareResult, Failure> {
        let value = config::raw(global)?;
        let bus = config::open_bus(settings)?;
        waiting_for_bus(output, bus.as_ref(), || bus.observer()?.offsets_of(&settings.bus.topic))?;
        let runtime = crate::commands::start_runtime()?;
        let interrupted = interrupt::listen()?;
        let sinks: Vec<LiveSink<'_>> = chosen
            .iter()
            .map(|settings| LiveSink { settings, fingerprint: contenders::fingerprint_of(&value, &settings.name) })
            .collect();
        let comparison = LiveComparison {
            bus: bus.as_ref(),
            settings: &settings.bus,
            sinks: &sinks,
            plan: Plan { control: false, background_rate: 0.0, ..self.plan() },
            runtime: runtime.handle(),
            clock: Arc::new(SystemClock),
            version: VERSION,
        };
        let mut shown = Shown::new(&interrupted, output);
        tallybus_verify::compare::run_live(&comparison, &mut shown).map_err(failure)
    }

    /// The sinks that can take part, and notes about those that cannot.
    fn contenders(
        &self,
        shadows: &Shadows,
        chosen: &[&SinkSettings],
    ) -> Result<(Vec<Contender>, Vec<String>), Failure> {
        let (mut contenders, mut excluded) = (Vec::new(), Vec::new());
        for settings in chosen {
            match shadows.contender(settings) {
                Ok(contender) => contenders.push(contender),
                Err(reason) if self.sinks.is_empty() => {
                    excluded.push(format!("sink {} took no part: {reason}", settings.name));
                }
                Err(reason) => return Err(Failure::could_not_look(format!("sink {}: {reason}", settings.name))),
            }
        }
        match contenders.is_empty() {
            true => Err(Failure::could_not_look(excluded.join("; "))),
            false => Ok((contenders, excluded)),
        }
    }

    fn plan(&self) -> Plan {
        let seed = self.seed.unwrap_or_else(|| {
            // Before 1970 the distance to the epoch is as good a seed.
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            let since = since.unwrap_or_else(|before| before.duration());
            since.as_secs() << 20 | u64::from(since.subsec_micros())
        });
        Plan {
            rounds: self.rounds,
            asks: self.asks,
            probe_rate: self.probe_rate as f64,
            probe_time: self.probe_time,
            background_rate: self.rate as f64,
            control: !self.no_control,
            sustainable: self.sustainable,
            seed,
            ..Plan::default()
        }
    }

    #[allow(clippy::too_many_arguments, reason = "each is a part of the comparison's input")]
    fn compare(
        &self,
        settings: &Settings,
        shadows: &Shadows,
        contenders: &[Contender],
        dir: &Path,
        file: &Path,
        interrupted: &Interrupted,
        output: &Output,
    ) -> Result<Finished, Failure> {
        let bus = config::open_bus(settings)?;
        let observer = waiting_for_bus(output, bus.as_ref(), || {
            let observer = bus.observer()?;
            observer.offsets_of(&settings.bus.topic)?;
            Ok::<_, tallybus_bus::BusError>(observer)
        })?;
        let runtime = crate::commands::start_runtime()?;
        let copy_settings = shadows.bus()?;
        let comparison = ShadowComparison {
            source: bus.as_ref(),
            observer: observer.as_ref(),
            chosen: Chosen { range: times::range(self.from, self.to)?, last_events: self.last },
            dir,
            copy: EmbeddedBus::open(file)?,
            settings: &copy_settings,
            contenders,
            plan: self.plan(),
            runtime: runtime.handle(),
            clock: Arc::new(SystemClock),
            version: VERSION,
        };
        let mut shown = Shown::new(interrupted, output);
        tallybus_verify::compare::run(&comparison, &mut shown).map_err(failure)
    }

    fn report(&self, result: &CompareResult, output: &Output) -> Result<(), Failure> {
        let text = serde_json::to_string(result)
            .map_err(|error| Failure::failed(format!("the result cannot be written as JSON: {error}")))?;
        if let Some(out) = &self.out {
            std::fs::write(out, format!("{text}\n"))
                .map_err(|error| Failure::failed(format!("cannot write {}: {error}", out.display())))?;
        }
        if let Some(file) = &self.page {
            page::write(file, result, &[])?;
        }
        if output.json {
            return output.report(&text);
        }
        table::lines(result, output.width()).iter().try_for_each(|line| output.report(line))
    }
}

fn failure(error: CompareError) -> Failure {
    match error {
        CompareError::Bus(error) => error.into(),
        error => Failure::CouldNotLook(error.into()),
    }
}

fn say_left_behind(left: &[LeftBehind], dir: &Path, output: &Output) {
    for LeftBehind { sink, name, why } in left {
        output.say(&format!("sink {sink}: its destination {name} could not be removed: {why}"));
    }
    output.say(&format!("`tallybus compare clean {}` tries again", dir.display()));
}

/// Shows the progress, and ends the comparison at a signal.
struct Shown<'o> {
    progress: Progress<'o>,
    interrupted: &'o Interrupted,
    output: &'o Output,
    /// What was said last, where no line can be redrawn.
    told: String,
}

impl<'o> Shown<'o> {
    fn new(interrupted: &'o Interrupted, output: &'o Output) -> Self {
        Self { progress: Progress::new(output, "steps"), interrupted, output, told: String::new() }
    }
}

impl Watch for Shown<'_> {
    fn step(&mut self, done: u64, whole: u64, doing: &str) {
        self.progress.at_with(done, whole, &format!("; {doing}"));
        let kind = doing.split(':').next().unwrap_or(doing);
        if !self.output.is_terminal() && self.told != kind && !kind.starts_with("asking") {
            kind.clone_into(&mut self.told);
            self.output.say(kind);
        }
    }

    fn is_stopped(&self) -> bool {
        self.interrupted.is_set()
    }
}
