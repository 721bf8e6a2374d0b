use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tallybus_bus::OffsetRange;
use tallybus_sdk::progress::PartitionProgress;

use super::look::{Look, SinkLook, Watched, WatchedSink};
use super::report::WorkerReport;
use super::why::{Facts, judge};
use super::{CatchUp, PICTURE_VERSION, PartitionPicture, Picture, SinkPicture, TopicPicture};

/// Rates are those of this time, or between the last two looks where they are further apart.
const WINDOW: Duration = Duration::from_secs(10);

/// The looks of the last seconds.
#[derive(Debug, Default)]
pub struct History {
    looks: VecDeque<Look>,
    /// By sink: when it last settled something or was not behind.
    advanced: BTreeMap<String, Duration>,
}

impl History {
    /// Whether nothing was looked at yet.
    pub fn is_empty(&self) -> bool {
        self.looks.is_empty()
    }

    /// Adds a look; it is later than the others.
    pub fn add(&mut self, look: Look) {
        for (name, sink) in &look.sinks {
            let before = self.looks.back().and_then(|before| before.sinks.get(name));
            if before.is_none_or(|before| !is_waiting(before, sink)) {
                self.advanced.insert(name.clone(), look.at);
            }
        }
        while self.looks.len() > 1 && self.looks.front().is_some_and(|first| look.at.saturating_sub(first.at) > WINDOW)
        {
            self.looks.pop_front();
        }
        self.looks.push_back(look);
    }

    /// The picture of the last look; `None` before the first. `bus` describes the bus; `reports` are those of all workers, `None`
    /// without heartbeats.
    pub fn picture(&self, watched: &Watched, bus: &str, reports: Option<&[WorkerReport]>) -> Option<Picture> {
        let look = self.looks.back()?;
        let before = self.looks.front().filter(|before| before.at < look.at);
        let mut sinks: Vec<SinkPicture> =
            watched.sinks.iter().filter_map(|sink| self.sink(sink, look, before, reports)).collect();
        sinks.sort_by(|a, b| {
            let badness = |sink: &SinkPicture| (sink.state, std::cmp::Reverse(sink.lag_messages));
            badness(a).cmp(&badness(b)).then_with(|| a.name.cmp(&b.name))
        });
        let topics = watched.topics().into_iter().map(|(name, role)| {
            let ranges = ranges(Some(look), name);
            let arriving = arriving_in(before, look, name);
            TopicPicture {
                name: name.to_owned(),
                role,
                partitions: ranges.map(|ranges| u32::try_from(ranges.len()).unwrap_or(u32::MAX)),
                messages: ranges.map(held),
                arriving_per_second: arriving,
            }
        });
        let topics = topics.collect();
        Some(Picture {
            version: PICTURE_VERSION,
            time_ms: look.time_ms,
            bus: bus.to_owned(),
            sinks,
            topics,
            heartbeats_error: None,
        })
    }

    fn sink(
        &self,
        watched: &WatchedSink,
        look: &Look,
        before: Option<&Look>,
        reports: Option<&[WorkerReport]>,
    ) -> Option<SinkPicture> {
        let now = look.sinks.get(&watched.name)?;
        let reports: Option<Vec<&WorkerReport>> =
            reports.map(|reports| reports.iter().filter(|report| report.sink == watched.name).collect());
        let seconds = before.map(|before| (look.at - before.at).as_secs_f64());
        let earlier = before.and_then(|before| before.sinks.get(&watched.name));
        let mut partitions: Vec<PartitionPicture> = now
            .partitions
            .iter()
            .map(|partition| {
                let earlier =
                    earlier.and_then(|earlier| earlier.partitions.iter().find(|other| other.at == partition.at));
                picture_of(partition, earlier.zip(seconds), reports.as_deref())
            })
            .collect();
        // What is unknown of one partition is unknown of the sink.
        let is_complete = now.foreign.is_none() && now.missing.is_empty();
        let lag = is_complete.then(|| partitions.iter().map(|partition| partition.lag_messages).sum());
        let arriving = sum(&partitions, |partition| partition.arriving_per_second).filter(|_| is_complete);
        let settled = sum(&partitions, |partition| partition.settled_per_second).filter(|_| is_complete);
        let sealed_batches = partitions.iter().map(|partition| partition.sealed_batches).sum();
        let catch_up = CatchUp::of(lag, arriving, settled);
        let waiting = look.at.saturating_sub(self.advanced.get(&watched.name).copied().unwrap_or(look.at));
        let facts =
            Facts { look: now, reports: reports.as_deref(), lag, arriving, settled, catch_up, waiting, sealed_batches };
        let (state, why) = judge(&facts);
        let lag_seconds = lag.and_then(|_| oldest(&partitions));
        partitions.sort_by(|a, b| {
            let badness =
                |partition: &PartitionPicture| (partition.halted.is_none(), std::cmp::Reverse(partition.lag_messages));
            let place = |partition: &PartitionPicture| (partition.topic.clone(), partition.partition);
            badness(a).cmp(&badness(b)).then_with(|| place(a).cmp(&place(b)))
        });
        let letters = ranges(Some(look), &watched.dead_letter_topic);
        Some(SinkPicture {
            name: watched.name.clone(),
            kind: watched.kind.clone(),
            group: watched.group.clone(),
            state,
            why,
            lag_messages: lag,
            lag_seconds,
            arriving_per_second: arriving,
            settled_per_second: settled,
            catch_up,
            sealed_batches: is_complete.then_some(sealed_batches),
            // Its workers create the topic: where there is none, none was refused.
            dead_letters: Some(letters.map_or(0, held)),
            dead_letters_per_second: arriving_in(before, look, &watched.dead_letter_topic),
            workers: reports.as_ref().map(|reports| {
                u32::try_from(reports.iter().filter(|report| report.is_fresh()).count()).unwrap_or(u32::MAX)
            }),
            retries: reports.as_ref().map(|reports| {
                let fresh = reports.iter().filter(|report| report.is_fresh());
                fresh.fold(0, |sum: u64, report| sum.saturating_add(report.retries))
            }),
            partitions,
        })
    }
}

/// Whether a sink was behind and has settled nothing since.
fn is_waiting(before: &SinkLook, now: &SinkLook) -> bool {
    let lag: u64 = before.partitions.iter().map(PartitionProgress::lag).sum();
    let settled = |look: &SinkLook| look.partitions.iter().map(|partition| partition.settled).collect::<Vec<_>>();
    lag > 0 && settled(before) == settled(now)
}

fn picture_of(
    now: &PartitionProgress,
    before: Option<(&PartitionProgress, f64)>,
    reports: Option<&[&WorkerReport]>,
) -> PartitionPicture {
    let place = (now.at.topic.to_string(), now.at.partition);
    // Where two workers name a partition, it has just moved: the later one has it.
    let owner = reports
        .iter()
        .flat_map(|reports| reports.iter())
        .filter(|report| report.is_fresh())
        .filter_map(|report| report.partitions.get(&place).map(|partition| (*report, partition)))
        .min_by_key(|(report, _)| report.age);
    let lag = now.lag();
    let (arriving, settled) = match before {
        Some((before, seconds)) => {
            (rate(before.range.end, now.range.end, seconds), settled_rate(before, now.settled, seconds))
        }
        None => (None, None),
    };
    PartitionPicture {
        topic: place.0,
        partition: place.1,
        first: now.range.first,
        end: now.range.end,
        settled: now.settled,
        sealed_end: now.sealed_end(),
        sealed_batches: now.seal.as_ref().map_or(0, |seal| seal.ends.len() as u64),
        lag_messages: lag,
        lag_seconds: if lag == 0 { Some(0.0) } else { owner.and_then(|(_, partition)| partition.oldest_seconds) },
        arriving_per_second: arriving,
        settled_per_second: settled,
        catch_up: CatchUp::of(Some(lag), arriving, settled),
        worker: owner.map(|(report, _)| report.worker.clone()),
        halted: owner.and_then(|(_, partition)| partition.halted.clone()),
    }
}

/// Messages settled in a second; `None` where the group went back, or its commit is gone.
fn settled_rate(before: &PartitionProgress, now: Option<u64>, seconds: f64) -> Option<f64> {
    match (before.settled, now) {
        (Some(before), Some(now)) => rate(before, now, seconds),
        (None, Some(now)) => rate(before.range.first, now, seconds),
        (None, None) => Some(0.0),
        (Some(_), None) => None,
    }
}

/// Per second; `None` where the number has fallen, as in a topic that was recreated.
fn rate(before: u64, now: u64, seconds: f64) -> Option<f64> {
    Some(now.checked_sub(before)? as f64 / seconds)
}

/// The sum of a figure over all partitions; `None` where it is unknown of one, or where there is none.
fn sum(partitions: &[PartitionPicture], figure: impl Fn(&PartitionPicture) -> Option<f64>) -> Option<f64> {
    let figures: Option<Vec<f64>> = partitions.iter().map(figure).collect();
    figures.filter(|figures| !figures.is_empty()).map(|figures| figures.iter().sum())
}

/// The age of the oldest unsettled message; `None` where it is unknown of one partition.
fn oldest(partitions: &[PartitionPicture]) -> Option<f64> {
    let ages: Option<Vec<f64>> = partitions.iter().map(|partition| partition.lag_seconds).collect();
    ages?.into_iter().max_by(f64::total_cmp)
}

/// Messages in these partitions, and the markers of transactions among them.
fn held(ranges: &[OffsetRange]) -> u64 {
    ranges.iter().map(|range| range.end - range.first).sum()
}

fn ranges<'l>(look: Option<&'l Look>, topic: &str) -> Option<&'l [OffsetRange]> {
    look?.topics.get(topic)?.as_deref()
}

/// Messages a second that arrive in a topic; `None` where it did not exist before, or has another number of partitions.
fn arriving_in(before: Option<&Look>, look: &Look, topic: &str) -> Option<f64> {
    let seconds = (look.at - before?.at).as_secs_f64();
    let (old, new) = (ranges(before, topic)?, ranges(Some(look), topic)?);
    if old.len() != new.len() {
        return None;
    }
    let rates: Option<Vec<f64>> = old.iter().zip(new).map(|(old, new)| rate(old.end, new.end, seconds)).collect();
    rates.map(|rates| rates.iter().sum())
}
