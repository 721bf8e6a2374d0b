use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::{BusError, Observer};
use tallybus_schemas::checkpoint::DoubtKind;
use tallybus_sdk::config::parse_duration;
use tallybus_verify::live::{Watched, WatchedSink};
use tallybus_verify::producers::{Cause, Holder, ProducersTopic, Watermark, read_sinks, watermark};
use tallybus_worker::settings::{Settings, names};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::{Table, count_of, grouped};
use crate::waiting::waiting_for_bus;
use crate::{Global, config, selection, times};

/// How often the bus is asked while a time is waited for.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Show up to which time each sink has everything that services have counted.
///
/// Every event dated before that time is in the sink's backend or among its dead letters, and none comes later. This follows from
/// what services say of themselves every ten seconds and from the sinks' offsets; the stream is not read, no group is joined. What
/// is promised, and what is not: docs/completeness.md.
#[derive(Debug, Args)]
pub(crate) struct Settled {
    /// Only this sink (repeatable) [default: all].
    #[arg(long, value_name = "SINK")]
    sink: Vec<String>,
    /// Exit with status 0 only if every sink has everything dated before this time: RFC 3339, a date, -1h, now, or nanoseconds.
    #[arg(long, value_name = "TIME", value_parser = times::parse, allow_hyphen_values = true)]
    at: Option<i64>,
    /// Wait until it has, for this long at most [default: without end]. Without --at: everything before now.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = parse_duration)]
    wait: Option<Option<Duration>>,
}

/// What was asked and found.
struct Found {
    read_at: i64,
    watermarks: Vec<Watermark>,
    /// Records of the producers' topic that are about no producer.
    skipped: u64,
}

impl Settled {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let settings = config::load_without_secrets(global)?;
        let bus = config::open_bus(&settings)?;
        let mut topic = ProducersTopic::new(bus.clone(), &names::producers_topic(&settings.bus.namespace));
        let began = Instant::now();
        let now = times::now().map_err(Failure::could_not_look)?;
        let at = if self.wait.is_some() { Some(self.at.unwrap_or(now)) } else { self.at };
        let (observer, sinks) = waiting_for_bus(output, bus.as_ref(), || -> Result<_, Failure> {
            let observer = bus.observer()?;
            let sinks = self.sinks(&settings, observer.as_ref())?;
            Ok((observer, sinks))
        })?;
        if sinks.is_empty() {
            return Err(Failure::could_not_look("no sink is configured, and no group of a sink is on the bus"));
        }
        let mut is_told = false;
        let found = loop {
            let outcome = waiting_for_bus(output, bus.as_ref(), || look(observer.as_ref(), &mut topic, &sinks));
            let limit = self.wait.map(|limit| limit.unwrap_or(Duration::MAX));
            let is_over = limit.is_none_or(|limit| began.elapsed() >= limit);
            match outcome {
                Ok(found) if is_over || at.is_none_or(|at| found.is_settled(at)) => break found,
                Ok(_) => {}
                Err(Failure::CouldNotLook(error)) if !is_over && is_transient(&error) => {
                    if !is_told {
                        output.say(&format!("{error:#}; asking again"));
                    }
                    is_told = true;
                }
                Err(error) => return Err(error),
            }
            thread::sleep(ASK_EVERY);
        };
        if output.json {
            output.report(&found.as_json(at).to_string())?;
        } else {
            found.show(at, output)?;
        }
        Ok(if at.is_none_or(|at| found.is_settled(at)) { Verdict::Good } else { Verdict::Bad })
    }

    fn sinks(&self, settings: &Settings, observer: &dyn Observer) -> Result<Vec<WatchedSink>, Failure> {
        if settings.sinks.is_empty() && self.sink.is_empty() {
            return Ok(Watched::discover(observer, &settings.bus.topic, &settings.bus.namespace)?.sinks);
        }
        Ok(selection::select(settings, &self.sink)?.into_iter().map(selection::watched).collect())
    }
}

fn is_transient(error: &anyhow::Error) -> bool {
    error.downcast_ref::<BusError>().is_some_and(BusError::is_transient)
}

/// Asks once. In this order: the clock, the producers, the sinks, so that nothing that happens meanwhile makes a watermark too
/// late.
fn look(observer: &dyn Observer, topic: &mut ProducersTopic, sinks: &[WatchedSink]) -> Result<Found, Failure> {
    let read_at = times::now().map_err(Failure::could_not_look)?;
    topic.refresh(observer)?;
    let settled = read_sinks(observer, sinks)?;
    if let Some((sink, foreign)) = settled.iter().find_map(|sink| Some((&sink.name, sink.foreign.as_ref()?))) {
        return Err(Failure::could_not_look(format!("sink {sink}: {foreign}")));
    }
    let watermarks = settled.iter().map(|sink| watermark(topic.known(), sink, read_at)).collect();
    Ok(Found { read_at, watermarks, skipped: topic.known().skipped() })
}

impl Found {
    fn is_settled(&self, at: i64) -> bool {
        self.watermarks.iter().all(|mark| reaches(mark, at))
    }

    fn as_json(&self, at: Option<i64>) -> Value {
        let sinks: Vec<Value> = self.watermarks.iter().map(|mark| sink_json(mark, at)).collect();
        json!({
            "read_at": times::show(self.read_at),
            "at": at.map(times::show),
            "settled": at.map(|at| self.is_settled(at)),
            "sinks": sinks,
            "records_skipped": self.skipped,
        })
    }

    fn show(&self, at: Option<i64>, output: &Output) -> Result<(), Failure> {
        let mut table = Table::new(&["sink", "complete before", "held back by"]);
        for mark in &self.watermarks {
            let held_by = match mark.held_by.first() {
                None if mark.before.is_some() => "nothing".to_owned(),
                None => "no service has written a checkpoint".to_owned(),
                Some(holder) => held_back(holder, mark.holders),
            };
            table.row(vec![mark.sink.clone(), mark.before.map_or_else(|| "unknown".to_owned(), shown), held_by]);
        }
        output.table(&table)?;
        for mark in &self.watermarks {
            if mark.dead_letters > 0 {
                let letters = count_of(mark.dead_letters, "dead letter");
                output
                    .wrapped(&format!("{}: {letters} on its topic, settled but refused by the backend", mark.sink))?;
            }
            if mark.beyond_checkpoints > 0 {
                let beyond = count_of(mark.beyond_checkpoints, "message");
                output.wrapped(&format!(
                    "{}: {beyond} on the bus that no checkpoint covers yet, or that programs without checkpoints published",
                    mark.sink
                ))?;
            }
        }
        let Some(at) = at else { return Ok(()) };
        let open: Vec<&str> =
            self.watermarks.iter().filter(|mark| !reaches(mark, at)).map(|mark| mark.sink.as_str()).collect();
        let verdict = match open.is_empty() {
            true => format!("everything before {} is in", times::show(at)),
            false => format!("not known to be in, before {}: {}", times::show(at), open.join(", ")),
        };
        output.wrapped(&verdict)
    }
}

fn reaches(mark: &Watermark, at: i64) -> bool {
    mark.before.is_some_and(|before| before >= at)
}

/// To the millisecond, rounded down: what is shown is never later than what holds.
fn shown(nanos: i64) -> String {
    times::show(nanos - nanos.rem_euclid(1_000_000))
}

fn held_back(holder: &Holder, holders: usize) -> String {
    let name = super::producers::name(&holder.service, &holder.instance, &holder.producer);
    let others = match holders {
        0 | 1 => String::new(),
        many => format!(" (and {} more)", grouped(many as u64 - 1)),
    };
    format!("{name}: {}{others}", reason(&holder.cause))
}

fn reason(cause: &Cause) -> String {
    match cause {
        Cause::Checkpoint => "its next checkpoint".to_owned(),
        Cause::Silent => "silent; `tallybus producers dismiss` if it is gone for good".to_owned(),
        Cause::Incomplete => {
            "ended before everything was delivered; `tallybus producers dismiss` accepts it".to_owned()
        }
        Cause::Behind { topic, partition, settled: Some(settled), needed } => {
            format!("{topic}/{partition} is settled to {settled} of {needed}")
        }
        Cause::Behind { topic, partition, settled: None, needed } => {
            format!("{topic}/{partition} has no settled offset, {needed} is needed")
        }
        Cause::Stream { topic } => {
            format!("its offsets and the sink's are not known to be of the same incarnation of {topic}")
        }
        Cause::Doubt { kind: DoubtKind::InDoubt, value } => {
            format!("a sum of {value} may or may not be on the bus; `tallybus producers dismiss` accepts it")
        }
        Cause::Doubt { kind: DoubtKind::Recreated, .. } => {
            "its topic was recreated; `tallybus producers dismiss` accepts what was lost with it".to_owned()
        }
        Cause::Unreadable { reason } => format!("its record cannot be read ({reason})"),
    }
}

fn sink_json(mark: &Watermark, at: Option<i64>) -> Value {
    let held_by: Vec<Value> = mark.held_by.iter().map(holder_json).collect();
    json!({
        "sink": mark.sink,
        "complete_before": mark.before.map(times::show),
        "settled": at.map(|at| reaches(mark, at)),
        "producers": mark.producers,
        "holders": mark.holders,
        "held_by": held_by,
        "dead_letters": mark.dead_letters,
        "beyond_checkpoints": mark.beyond_checkpoints,
    })
}

fn holder_json(holder: &Holder) -> Value {
    let mut value = json!({
        "producer": holder.producer,
        "service": holder.service,
        "instance": holder.instance,
        "state": holder.presence.name(),
        "complete_before": holder.before.map(times::show),
        "reason": reason(&holder.cause),
    });
    match &holder.cause {
        Cause::Checkpoint => value["cause"] = json!("checkpoint"),
        Cause::Silent => value["cause"] = json!("silent"),
        Cause::Incomplete => value["cause"] = json!("incomplete"),
        Cause::Behind { topic, partition, settled, needed } => {
            value["cause"] = json!("behind");
            value["partition"] =
                json!({ "topic": topic, "partition": partition, "settled": settled, "needed": needed });
        }
        Cause::Stream { .. } => value["cause"] = json!("stream"),
        Cause::Doubt { kind: DoubtKind::InDoubt, value: sum } => {
            value["cause"] = json!("in_doubt");
            value["sum"] = json!(sum);
        }
        Cause::Doubt { kind: DoubtKind::Recreated, .. } => value["cause"] = json!("recreated"),
        Cause::Unreadable { .. } => value["cause"] = json!("unreadable"),
    }
    value
}
