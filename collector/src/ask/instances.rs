//! The instances of services now, from their heartbeats.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Observer, Progress, Reader, Record};
use tallybus_control::{INSTANCE_SILENT_AFTER, Instances, is_instance};

use crate::commands::millis_now;

/// How long heartbeats are read at most.
const WAIT: Duration = Duration::from_secs(5);
/// A partition that has ended, and of which nothing comes for so long, has no more records.
const QUIET: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Heard {
    topic: Arc<str>,
    reading: Option<Reading>,
    instances: Instances,
    refreshed: Option<Instant>,
}

struct Reading {
    observer: Box<dyn Observer>,
    reader: Box<dyn Reader>,
    /// The next offset of each partition.
    next: BTreeMap<u32, u64>,
}

impl Heard {
    pub(super) fn new(topic: Arc<str>) -> Self {
        Self { topic, reading: None, instances: Instances::default(), refreshed: None }
    }

    pub(super) fn instances(&self) -> &Instances {
        &self.instances
    }

    /// How long ago everything was read.
    pub(super) fn age(&self) -> Option<Duration> {
        self.refreshed.map(|refreshed| refreshed.elapsed())
    }

    /// Reads every heartbeat that is on the bus now.
    ///
    /// # Errors
    /// The bus did not answer.
    pub(super) fn refresh(&mut self, bus: &dyn Bus) -> Result<(), BusError> {
        let refreshed = self.read_all(bus);
        match refreshed {
            Ok(()) => self.refreshed = Some(Instant::now()),
            // The topic was recreated, or its oldest records went: from the beginning again.
            Err(_) => self.reading = None,
        }
        refreshed
    }

    fn read_all(&mut self, bus: &dyn Bus) -> Result<(), BusError> {
        let reading = match self.reading.take() {
            Some(reading) => reading,
            None => match self.begin(bus)? {
                Some(reading) => reading,
                // No instance has ever been there.
                None => return Ok(()),
            },
        };
        let reading = self.reading.insert(reading);
        let ranges = reading.observer.offsets_of(&self.topic)?;
        let mut left: BTreeMap<u32, u64> = (0..).zip(ranges.iter().map(|range| range.end)).collect();
        let mut ended = BTreeSet::new();
        let until = Instant::now() + WAIT;
        loop {
            let next = &reading.next;
            left.retain(|partition, end| next.get(partition).is_none_or(|next| next < end));
            if left.is_empty() {
                return Ok(());
            }
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                return Err(BusError::Unavailable(format!(
                    "the heartbeats on {} could not be read in time",
                    self.topic
                )));
            }
            let (next, instances) = (&mut reading.next, &mut self.instances);
            let mut each = |record: Record<'_>| {
                next.insert(record.partition, record.offset + 1);
                take(instances, &record);
                ControlFlow::Continue(())
            };
            match reading.reader.poll(wait.min(QUIET), &mut each)? {
                // It may be the end of an earlier call: then there are more.
                Progress::End(partition) => drop(ended.insert(partition)),
                Progress::Records => {}
                // What is left up to the end was removed by compaction.
                Progress::Idle => left.retain(|partition, _| !ended.contains(partition)),
            }
        }
    }

    fn begin(&mut self, bus: &dyn Bus) -> Result<Option<Reading>, BusError> {
        let observer = bus.observer()?;
        if observer.partitions_of(&self.topic)?.is_none() {
            return Ok(None);
        }
        let silent = i64::try_from(INSTANCE_SILENT_AFTER.as_millis()).unwrap_or_default();
        let starts = observer.offsets_at_time(&self.topic, millis_now() - silent)?;
        let starts: Vec<(u32, u64)> = (0..).zip(starts).collect();
        let mut reader = bus.reader()?;
        reader.assign(&self.topic, &starts)?;
        Ok(Some(Reading { observer, reader, next: starts.into_iter().collect() }))
    }
}

fn take(instances: &mut Instances, record: &Record<'_>) {
    let Some(key) = record.key.filter(|key| is_instance(key)) else { return };
    let age = u64::try_from(millis_now().saturating_sub(record.time_ms)).unwrap_or_default();
    let now = Instant::now();
    let since = now.checked_sub(Duration::from_millis(age)).unwrap_or(now);
    // What is no status says nothing of an instance.
    let _is_status = instances.take(key, (!record.is_tombstone).then_some(record.payload), since);
}
