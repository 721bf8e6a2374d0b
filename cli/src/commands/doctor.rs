use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tallybus_bus::{Bus, Observer, OffsetRange};
use tallybus_sdk::progress::GroupProgress;
use tallybus_sdk::{DeliveryGuarantee, SinkError};
use tallybus_worker::settings::{Settings, SinkSettings};
use tokio::runtime::Handle;

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::text::count_of;
use crate::{Global, config};

/// A sink that does not answer within this time counts as unavailable.
const CHECK_TIMEOUT: Duration = Duration::from_secs(20);
/// Creating a table may take a while.
const FIX_TIMEOUT: Duration = Duration::from_secs(180);
/// An earlier time means that the clock was never set: 2024-01-01.
const EARLIEST: jiff::Timestamp = jiff::Timestamp::constant(1_704_067_200, 0);

/// Check everything that can be wrong before the first message moves.
///
/// It checks settings, bus, topics, groups, backends and the clock. Exit status 0: all checks passed, 1: a check
/// failed, 2: the settings cannot be read.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Check only the settings; connect to nothing.
    #[arg(long)]
    offline: bool,
    /// First create what the backends are missing: databases, tables, buckets. Changes nothing that exists.
    #[arg(long, conflicts_with = "offline")]
    fix: bool,
    /// Only this sink; repeatable.
    #[arg(long = "sink", value_name = "NAME")]
    sinks: Vec<String>,
}

/// A check and its result.
struct Check {
    what: String,
    outcome: Result<String, String>,
}

impl Doctor {
    pub(crate) fn run(&self, global: &Global, output: &Output) -> Result<Verdict, Failure> {
        let mut checks = Checks { done: Vec::new(), output };
        let settings = match config::load_for(global, &self.sinks) {
            Ok(settings) => settings,
            Err(Failure::Settings { source, problems }) if output.json => {
                for problem in &problems {
                    checks.add(&format!("settings {}", problem.path), Err(problem.message.clone()))?;
                }
                checks.finish()?;
                return Err(Failure::Settings { source, problems });
            }
            Err(failure) => return Err(failure),
        };
        let chosen = crate::selection::select(&settings, &self.sinks)?;
        let sinks: Vec<&str> = chosen.iter().map(|sink| sink.name.as_str()).collect();
        let names = if sinks.is_empty() { String::new() } else { format!(": {}", sinks.join(", ")) };
        checks.add("settings", Ok(format!("{}{names}", count_of(sinks.len() as u64, "sink"))))?;
        checks.add("clock", clock())?;
        if !self.offline {
            look(&settings, &chosen, self.fix, &mut checks)?;
        }
        checks.finish()
    }
}

fn look(settings: &Settings, sinks: &[&SinkSettings], fix: bool, checks: &mut Checks<'_>) -> Result<(), Failure> {
    let runtime = super::start_runtime()?;
    if let Some(path) = settings.bus.address.file()
        && !path.exists()
    {
        // The check must not create the file.
        let missing =
            format!("{} does not exist yet; the first `emit`, `run` or `topic create` creates it", path.display());
        checks.add("bus", Err(missing))?;
    } else {
        match config::open_bus(settings) {
            Err(Failure::CouldNotLook(error)) => checks.add("bus", Err(format!("{error:#}")))?,
            Err(failure) => return Err(failure),
            Ok(bus) => look_at_bus(bus.as_ref(), settings, sinks, checks)?,
        }
    }
    for sink in sinks {
        checks.add(&format!("sink {}", sink.name), check_sink(sink, fix, runtime.handle()))?;
    }
    Ok(())
}

fn look_at_bus(
    bus: &dyn Bus,
    settings: &Settings,
    sinks: &[&SinkSettings],
    checks: &mut Checks<'_>,
) -> Result<(), Failure> {
    let topic = &settings.bus.topic;
    let observer = match bus.observer() {
        Ok(observer) => observer,
        Err(error) => return checks.add("bus", Err(error.to_string())),
    };
    let observer = observer.as_ref();
    let partitions = match observer.partitions_of(topic) {
        Ok(partitions) => partitions,
        Err(error) => return checks.add("bus", Err(error.to_string())),
    };
    checks.add("bus", Ok(bus.describe()))?;
    let wanted = settings.bus.partitions;
    let outcome = match partitions {
        None => Err(format!(
            "does not exist: `tallybus topic create` and `tallybus run` create it with {wanted} partitions"
        )),
        Some(found) if found != wanted && settings.bus.partitions_given => Err(format!(
            "has {found} partitions, but the settings expect {wanted}: change `partitions` in [bus], or the topic"
        )),
        Some(found) => Ok(format!("{found} partitions")),
    };
    checks.add(&format!("topic {topic}"), outcome)?;
    for sink in sinks {
        for topic in &sink.topics {
            if topic != &settings.bus.topic {
                let outcome = match observer.partitions_of(topic) {
                    Ok(Some(found)) => Ok(format!("{found} partitions")),
                    Ok(None) => Err(format!("does not exist: `tallybus topic create {topic}` creates it")),
                    Err(error) => Err(error.to_string()),
                };
                checks.add(&format!("topic {topic}"), outcome)?;
            }
            let what = format!("group {} on {topic}", sink.group());
            match observer.partitions_of(topic) {
                Ok(Some(_)) => checks.add(&what, check_group(observer, sink, topic))?,
                Ok(None) => {}
                Err(error) => checks.add(&what, Err(error.to_string()))?,
            }
        }
        let topic = sink.replay_topic();
        match observer.partitions_of(&topic) {
            Ok(Some(_)) => checks.add(&format!("topic {topic}"), check_replays(observer, sink, &topic))?,
            Ok(None) => {}
            Err(error) => checks.add(&format!("topic {topic}"), Err(error.to_string()))?,
        }
    }
    Ok(())
}

fn check_sink(settings: &SinkSettings, fix: bool, runtime: &Handle) -> Result<String, String> {
    let sink = settings.make().map_err(|error| error.to_string())?;
    let outcome = runtime.block_on(async {
        let outcome = async {
            if fix && let Some(admin) = sink.admin() {
                within(FIX_TIMEOUT, admin.fix()).await.map_err(|reason| format!("cannot be fixed: {reason}"))?;
            }
            within(CHECK_TIMEOUT, sink.check()).await
        };
        let outcome = outcome.await;
        sink.close().await;
        outcome
    });
    outcome.map(|()| format!("{}, {}", settings.kind.name, promise(sink.delivery_guarantee())))
}

async fn within(limit: Duration, work: impl Future<Output = Result<(), SinkError>>) -> Result<(), String> {
    match tokio::time::timeout(limit, work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s: is the address right?", limit.as_secs())),
    }
}

/// The delivery guarantee of the sink with its current settings.
fn promise(delivery_guarantee: DeliveryGuarantee) -> String {
    match delivery_guarantee {
        DeliveryGuarantee::ExactlyOnce => delivery_guarantee.to_string(),
        DeliveryGuarantee::AtLeastOnce => format!(
            "{delivery_guarantee}: no data is lost, but a batch that is sent again (after a lost answer or a crash) \
             may count twice"
        ),
    }
}

/// The progress of the group, and whether it can continue from there.
fn check_group(observer: &dyn Observer, sink: &SinkSettings, topic: &str) -> Result<String, String> {
    let progress = GroupProgress::read(observer, &sink.group(), &[topic]).map_err(|error| error.to_string())?;
    let mut shape = sink.shape.clone();
    shape.sink = sink.make().map_err(|error| error.to_string())?.layout_fingerprint();
    let (sealed, mut old_shape) = (progress.sealed_batches(), false);
    let mut faults = Vec::new();
    for partition in &progress.partitions {
        let at = partition.at.to_string();
        if let Some(settled) = partition.settled
            && let Err(fault) = check_offset(&at, settled, partition.range, sink)
        {
            faults.push(fault);
        }
        let Some(other) = partition.seal.as_ref().and_then(|seal| seal.shape.as_ref()) else { continue };
        // A batch sealed under another sink part of the shape cannot be finished with these settings; other shapes can.
        if other.sink == shape.sink {
            old_shape |= *other != shape;
        } else {
            faults.push(format!(
                "{at}: a batch is sealed under other settings of the sink: run once with those until it is settled"
            ));
        }
    }
    if !faults.is_empty() {
        return Err(faults.join("; "));
    }
    let mut text = format!("{} behind", count_of(progress.lag(), "message"));
    if sealed > 0 {
        text.push_str(&format!(", {} sealed and not settled", count_of(sealed as u64, "batch")));
    }
    if old_shape {
        text.push_str(" (under the previous settings, and will be finished under those)");
    }
    Ok(text)
}

/// Whether the chosen dead letters are written, and whether it is known which ones were chosen.
fn check_replays(observer: &dyn Observer, sink: &SinkSettings, topic: &str) -> Result<String, String> {
    let committed = observer.committed_by(&sink.replay_group(), topic).map_err(|error| error.to_string())?;
    let ranges = observer.offsets_of(topic).map_err(|error| error.to_string())?;
    let [range] = ranges[..] else { return Err(format!("has {} partitions, it must have one", ranges.len())) };
    let settled = committed.first().and_then(Option::as_ref).map_or(0, |committed| committed.offset);
    if range.first > 0 || settled > range.end {
        return Err(
            "it is no longer known which dead letters were sent back: this topic must keep its records for ever"
                .to_owned(),
        );
    }
    match range.end - settled {
        0 => Ok(format!("{} sent back", count_of(range.end, "dead letter"))),
        open => Err(format!(
            "{} chosen and not written yet: `tallybus replay run --sink {}` continues",
            count_of(open, "dead letter"),
            sink.name
        )),
    }
}

fn check_offset(at: &str, offset: u64, range: OffsetRange, sink: &SinkSettings) -> Result<(), String> {
    if offset > range.end {
        return Err(format!(
            "{at}: the group is at offset {offset}, but the partition ends at {}: was the topic recreated? reset the \
             group",
            range.end
        ));
    }
    let gap = format!("{at}/{offset}-{}", range.first);
    if offset < range.first && !sink.accept_gaps.contains(&gap) {
        return Err(format!(
            "{at}: offsets {offset} to {} were deleted by retention before they were written; to continue without \
             them: accept_gaps = [\"{gap}\"]",
            range.first
        ));
    }
    Ok(())
}

fn clock() -> Result<String, String> {
    let now = jiff::Timestamp::now();
    if now < EARLIEST {
        return Err("the clock is not set, so events get wrong times: set it, or run an NTP client".to_owned());
    }
    Ok(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The results so far.
struct Checks<'a> {
    done: Vec<Check>,
    output: &'a Output,
}

impl Checks<'_> {
    fn add(&mut self, what: &str, outcome: Result<String, String>) -> Result<(), Failure> {
        if self.done.iter().any(|check| check.what == what) {
            return Ok(());
        }
        if !self.output.json {
            let (word, text) = match &outcome {
                Ok(text) => ("ok  ", text),
                Err(text) => ("FAIL", text),
            };
            self.output.report(&format!("{word}  {what}: {text}"))?;
        }
        self.done.push(Check { what: what.to_owned(), outcome });
        Ok(())
    }

    fn finish(self) -> Result<Verdict, Failure> {
        let good = self.done.iter().all(|check| check.outcome.is_ok());
        if self.output.json {
            let checks: Vec<Value> = self
                .done
                .iter()
                .map(|check| {
                    let (Ok(text) | Err(text)) = &check.outcome;
                    json!({ "check": check.what, "ok": check.outcome.is_ok(), "detail": text })
                })
                .collect();
            self.output.report(&json!({ "ok": good, "checks": checks }).to_string())?;
        }
        Ok(if good { Verdict::Good } else { Verdict::Bad })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broken_bus::{BrokenBus, settings};

    #[test]
    fn a_group_or_topic_that_cannot_be_looked_at_fails() {
        let settings = settings();
        let output = Output::new(true);
        // The topic of counters is found; after that the broker does not answer.
        let bus = BrokenBus::after(1);
        let mut checks = Checks { done: Vec::new(), output: &output };
        look_at_bus(&bus, &settings, &settings.sinks.iter().collect::<Vec<_>>(), &mut checks).unwrap();
        let failed = |what: &str| checks.done.iter().any(|check| check.what == what && check.outcome.is_err());
        assert!(failed("group tallybus.a on tallybus.counters"));
        assert!(failed("topic tallybus.replay.a"));
    }
}
