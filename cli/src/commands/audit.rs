use std::time::Duration;

use clap::Args;
use tallybus_bus::{Bus, BusError};
use tallybus_sdk::TimeRange;
use tallybus_verify::audit::{self, Audit, AuditReport, AuditedSink};
use tallybus_worker::settings::{Settings, SinkSettings};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::selection::select;
use crate::waiting::waiting_for_bus;
use crate::{Global, config, numbers, report, text, times};

const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Compare the bus with every backend, series by series.
///
/// May be run while workers run: it compares what has been settled. Exit status 0: equal, 1: not equal, 2: bus or
/// backend unavailable.
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
    /// Locate the first differing window of this many differing series of each sink.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = numbers::count, allow_negative_numbers = true)]
    details: usize,
}

impl AuditCommand {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_for(global, &self.sinks)?;
        let chosen = select(&settings, &self.sinks)?;
        if chosen.is_empty() {
            return Err(Failure::could_not_look("no sink to compare with: add a table [sinks.NAME] to the settings"));
        }
        let bus = config::open_bus(&settings)?;
        let range = times::range(self.from, self.to)?;
        let report = make(&settings, &chosen, bus.as_ref(), range, self.details, output)?;
        if output.json {
            output.report(&report::as_json(&report).to_string())?;
        } else {
            for line in report::lines(&report) {
                output.report(&line)?;
            }
        }
        Ok(report::verdict(&report))
    }
}

/// Runs the audit for these sinks.
pub(crate) fn make(
    settings: &Settings,
    sinks: &[&SinkSettings],
    bus: &dyn Bus,
    range: TimeRange,
    details: usize,
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
        audited.push(AuditedSink {
            name: settings.name.clone(),
            group: settings.group(),
            dead_letter_topic: settings.dead_letter_topic(),
            replay_topic: settings.replay_topic(),
            replay_group: settings.replay_group(),
            topics: settings.topics.clone(),
            shape: settings.shape.clone(),
            start_at: settings.start_at,
            sink,
        });
    }
    let audit = Audit {
        bus,
        observer: observer.as_ref(),
        topic: &settings.bus.topic,
        encodings: &settings.bus.encodings,
        sinks: &audited,
        range,
        details,
        stall_timeout: STALL_TIMEOUT,
        runtime: runtime.handle(),
    };
    let report = audit::run(&audit, &mut |read, whole| {
        output.redraw(&format!("{} of {}", text::grouped(read), text::count_of(whole, "message")));
    });
    output.clear();
    for sink in &audited {
        runtime.block_on(sink.sink.close());
    }
    report.map_err(|error| Failure::CouldNotLook(error.into()))
}
