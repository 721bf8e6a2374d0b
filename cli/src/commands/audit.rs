use std::time::Duration;

use clap::Args;
use tallybus_bus::{Bus, BusError};
use tallybus_sdk::TimeRange;
use tallybus_sdk::config::parse_duration;
use tallybus_sdk::filter::{Filter, FilterScope};
use tallybus_verify::audit::{self, Audit, AuditError, AuditReport, AuditedSink, Demands, Part, SinkReport};
use tallybus_worker::settings::{Settings, SinkSettings};

use crate::csv::CsvOption;
use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::progress::Progress;
use crate::selection::select;
use crate::waiting::waiting_for_bus;
use crate::{Global, config, numbers, report, times};

const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Compare the bus with every backend, window by window of each series.
///
/// May be run while workers run: it compares what has been settled. Exit status 0: equal, and complete as far as asked;
/// 1: something differs, is foreign or lost, a sink never ran, or is late; 2: could not be determined, as where a backend
/// is unavailable. With --strict also 1: messages behind, dead letters, faults of producers. docs/audit.md lists every verdict.
/// With --csv, each differing series of each sink is a row.
#[derive(Debug, Args)]
pub(crate) struct AuditCommand {
    /// Only this sink; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
    /// Only points at or after this time: RFC 3339, a date, -1h, now, or nanoseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    from: Option<i64>,
    /// Only points before this time.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    to: Option<i64>,
    /// Also fail (1) where a sink is behind, has dead letters, or a producer's messages are not consecutive.
    #[arg(long)]
    strict: bool,
    /// Fail (1) where the oldest message that a sink has not settled is older; (2) where its age is unknown.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    max_lag: Option<Duration>,
    /// Compare windows of at least this length, in whole windows of each sink [default: the sink's own].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    window: Option<Duration>,
    /// Compare only series that meet these conditions, such as 'name ~ "http.*" && status >= 500': name and tags, as each sink writes
    /// them. The verdict says nothing of other series. docs/filters.md describes them.
    #[arg(long, value_name = "FILTER")]
    filter: Option<String>,
    /// Locate the first differing window of this many differing series of each sink.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = numbers::count, allow_negative_numbers = true)]
    details: usize,
    #[command(flatten)]
    csv: CsvOption,
}

impl AuditCommand {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let csv = self.csv.is_set(output)?;
        let settings = config::load_for(global, &self.sinks)?;
        let chosen = select(&settings, &self.sinks)?;
        if chosen.is_empty() {
            return Err(Failure::could_not_look("no sink to compare with: add a table [sinks.NAME] to the settings"));
        }
        let bus = config::open_bus(&settings)?;
        let range = times::range(self.from, self.to)?;
        let window = self.window.map_or(Ok(0), |window| i64::try_from(window.as_nanos()));
        let window = window.map_err(|_| Failure::could_not_look("--window is too long"))?;
        let part = self.filter.as_deref().map(part).transpose()?;
        let question = Question { range, window, part, details: self.details };
        let report = make(&settings, &chosen, bus.as_ref(), &question, output)?;
        let demands = Demands { strict: self.strict, max_lag: self.max_lag };
        if output.json {
            output.report(&report::as_json(&report, &demands).to_string())?;
        } else if csv {
            report::csv(&report).report(output)?;
            report::lines(&report, &demands, None).iter().for_each(|line| output.say(line));
        } else {
            for line in report::lines(&report, &demands, output.screen_width()) {
                output.report(&line)?;
            }
        }
        if question.part.is_some() && report.sinks.iter().all(is_empty) {
            return Err(Failure::could_not_look(
                "--filter: no series of the bus or of a backend meets the conditions: nothing was compared",
            ));
        }
        Ok(report::verdict(&report, &demands))
    }
}

/// Whether nothing of a sink was compared, although it could be read.
fn is_empty(sink: &SinkReport) -> bool {
    sink.outcome.as_ref().is_ok_and(|findings| findings.compared == 0)
}

/// Compiles the conditions on series.
fn part(expression: &str) -> Result<Part, Failure> {
    let now = times::now().map_err(Failure::could_not_look)?;
    match Filter::compile(expression, FilterScope::Series, now) {
        Ok(filter) => Ok(Part { expression: expression.to_owned(), filter }),
        Err(error) => {
            let selects_events = Filter::compile(expression, FilterScope::Events, now).is_ok();
            let why = match selects_events {
                true => {
                    ". The audit compares sums of windows, which cannot be taken apart into events; --from and --to select by time"
                }
                false => "",
            };
            Err(Failure::could_not_look(format!("--filter: {error}{why}")))
        }
    }
}

/// What is compared.
pub(crate) struct Question {
    pub(crate) range: TimeRange,
    /// Which series; all where it is `None`.
    pub(crate) part: Option<Part>,
    /// As [`Audit::window`].
    pub(crate) window: i64,
    /// As [`Audit::details`].
    pub(crate) details: usize,
}

/// Runs the audit for these sinks.
pub(crate) fn make(
    settings: &Settings,
    sinks: &[&SinkSettings],
    bus: &dyn Bus,
    question: &Question,
    output: &Output,
) -> Result<AuditReport, Failure> {
    // An unavailable bus is reported after one timeout, not after one for each sink.
    let observer = waiting_for_bus(output, bus, || {
        let observer = bus.observer()?;
        observer.offsets_of(&settings.bus.topic)?;
        Ok::<_, BusError>(observer)
    })?;
    let runtime = super::start_runtime()?;
    let mut audited = Vec::with_capacity(sinks.len());
    for settings in sinks {
        let sink =
            settings.make().map_err(|error| Failure::could_not_look(format!("sink {}: {error}", settings.name)))?;
        audited.push(AuditedSink::of(settings, sink));
    }
    let audit = Audit {
        bus,
        observer: observer.as_ref(),
        topic: &settings.bus.topic,
        encodings: &settings.bus.encodings,
        sinks: &audited,
        range: question.range,
        window: question.window,
        part: question.part.as_ref(),
        details: question.details,
        now: times::parse("now").map_err(Failure::could_not_look)?,
        stall_timeout: STALL_TIMEOUT,
        runtime: runtime.handle(),
    };
    let mut progress = Progress::new(output, "messages");
    progress.says("reading the backends");
    let report = audit::run(&audit, &mut |read, whole| progress.at(read, whole));
    drop(progress);
    for sink in &audited {
        runtime.block_on(sink.sink.close());
    }
    report.map_err(|error| match error {
        AuditError::Lost { .. } => Failure::Failed(error.into()),
        error => Failure::CouldNotLook(error.into()),
    })
}
