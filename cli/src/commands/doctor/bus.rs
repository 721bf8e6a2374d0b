//! The bus, its topics, and the groups of the sinks.

use tallybus_bus::{Bus, BusError, Observer, OffsetRange, Resource, Retention};
use tallybus_sdk::progress::GroupProgress;
use tallybus_worker::settings::{Settings, SinkSettings, names};

use super::checks::{Checks, Finding};
use super::retention;
use crate::failure::Failure;
use crate::text::count_of;
use crate::waiting::waiting_for_bus;

/// Checks the bus, and returns what reads it; `None` when it cannot be read.
pub(super) fn look_at_bus(
    bus: &dyn Bus,
    settings: &Settings,
    sinks: &[&SinkSettings],
    checks: &mut Checks<'_>,
) -> Result<Option<Box<dyn Observer>>, Failure> {
    let topic = &settings.bus.topic;
    let look = || bus.observer().map(|observer| (observer.partitions_of(topic), observer));
    let (partitions, observer) = match waiting_for_bus(checks.output(), bus, look) {
        Ok((Err(error), observer)) if !has_logged_in(observer.as_ref(), topic, &error) => {
            checks.add("bus", Err(error.to_string()))?;
            return Ok(None);
        }
        Ok(found) => found,
        Err(error) => {
            checks.add("bus", Err(error.to_string()))?;
            return Ok(None);
        }
    };
    checks.add("bus", Ok(bus.describe()))?;
    let wanted = settings.bus.partitions;
    let outcome = match partitions {
        Err(error) => Finding::Fault(error.to_string()),
        Ok(None) => Finding::Note(format!(
            "does not exist yet; the first `tallybus emit` or `tallybus run` creates it with {}, or `tallybus topic create`",
            count_of(wanted, "partition")
        )),
        Ok(Some(found)) if found != wanted && settings.bus.partitions_given => Finding::Fault(format!(
            "has {}, but the settings expect {wanted}: change `partitions` in [bus], or the topic",
            count_of(found, "partition")
        )),
        Ok(Some(found)) => Finding::Good(count_of(found, "partition")),
    };
    checks.add(&format!("topic {topic}"), outcome)?;
    let mut topics: Vec<&str> = sinks.iter().flat_map(|sink| &sink.topics).map(String::as_str).collect();
    topics.sort_unstable();
    topics.dedup();
    if !topics.is_empty() {
        retention::check(observer.as_ref(), &topics, checks)?;
    }
    retention::check_compacted(observer.as_ref(), &names::producers_topic(&settings.bus.namespace), checks)?;
    for sink in sinks {
        look_at_sink(observer.as_ref(), settings, sink, checks)?;
    }
    Ok(Some(observer))
}

/// Whether the bus has answered this client, and only lets it not see the topic.
fn has_logged_in(observer: &dyn Observer, topic: &str, error: &BusError) -> bool {
    matches!(error, BusError::Access(_)) && observer.access(&[Resource::Topic(topic.to_owned())]).is_ok()
}

/// Checks the topics and the groups of a sink.
fn look_at_sink(
    observer: &dyn Observer,
    settings: &Settings,
    sink: &SinkSettings,
    checks: &mut Checks<'_>,
) -> Result<(), Failure> {
    for topic in &sink.topics {
        if topic != &settings.bus.topic {
            let outcome = match observer.partitions_of(topic) {
                Ok(Some(found)) => Finding::Good(count_of(found, "partition")),
                Ok(None) => Finding::Note("does not exist yet; `tallybus run` creates it".to_owned()),
                Err(error) => Finding::Fault(error.to_string()),
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
        // A worker needs no right on it.
        Err(error @ BusError::Access(_)) => {
            checks.add(&format!("topic {topic}"), Finding::Note(format!("not known: {error}")))?
        }
        Err(error) => checks.add(&format!("topic {topic}"), Err(error.to_string()))?,
    }
    Ok(())
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
    if progress.lag() > 0 {
        text.push_str(" (whether a worker runs and advances is in its log and in `tallybus health`)");
        text.push_str(&held_back(observer, topic, &progress)?);
    }
    if sealed > 0 {
        text.push_str(&format!(", {} sealed and not settled", count_of(sealed as u64, "batch")));
    }
    if old_shape {
        text.push_str(" (under the previous settings, and will be finished under those)");
    }
    Ok(text)
}

/// Which records no worker can read yet.
fn held_back(observer: &dyn Observer, topic: &str, progress: &GroupProgress) -> Result<String, String> {
    let readable = observer.readable_ends(&[topic]).map_err(|error| error.to_string())?;
    let ends = readable.into_iter().flatten();
    let held: Vec<String> = progress
        .partitions
        .iter()
        .zip(ends)
        .filter(|(partition, end)| *end < partition.range.end)
        .map(|(partition, end)| format!("{} from offset {end} on", partition.at))
        .collect();
    if held.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("; not delivered yet, because a producer's transaction is open there: {}", held.join(", ")))
}

/// Whether the chosen dead letters are written, and whether it is known which ones were chosen.
fn check_replays(observer: &dyn Observer, sink: &SinkSettings, topic: &str) -> Result<String, String> {
    let committed = observer.committed_by(&sink.replay_group(), topic).map_err(|error| error.to_string())?;
    let ranges = observer.offsets_of(topic).map_err(|error| error.to_string())?;
    let [range] = ranges[..] else {
        return Err(format!("has {}, it must have one", count_of(ranges.len() as u64, "partition")));
    };
    let settled = committed.first().and_then(Option::as_ref).map_or(0, |committed| committed.offset);
    if range.first > 0 || settled > range.end {
        return Err(
            "it is no longer known which dead letters were sent back: this topic must keep its records for ever"
                .to_owned(),
        );
    }
    let unknown = match observer.retention(&[topic]) {
        Ok(kept) if kept.iter().all(Retention::is_forever) => String::new(),
        Ok(_) => {
            return Err(
                "the bus may delete its records, which it must keep for ever: remove its retention limits".to_owned()
            );
        }
        Err(error) => format!("; whether the bus keeps them for ever is not known: {error}"),
    };
    match range.end - settled {
        0 => Ok(format!("{} sent back{unknown}", count_of(range.end, "dead letter"))),
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
            "{at}: the group is at offset {offset}, but the partition ends at {}: was the topic recreated? give \
             the sink a new destination and run `tallybus group reset`",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broken_bus::{BrokenBus, settings};
    use crate::output::Output;

    #[test]
    fn a_group_or_topic_that_cannot_be_looked_at_fails() {
        let settings = settings();
        let output = Output::new(true);
        // The topic of counters is found; after that the broker does not answer.
        let bus = BrokenBus::after(1);
        let mut checks = Checks::new(&output);
        look_at_bus(&bus, &settings, &settings.sinks.iter().collect::<Vec<_>>(), &mut checks).unwrap();
        for what in ["group tallybus.a on tallybus.counters", "topic tallybus.replay.a"] {
            assert!(checks.find(what).is_some_and(super::super::Finding::is_fault), "{what}");
        }
    }
}
