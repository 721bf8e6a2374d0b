//! The worker processes now, from their heartbeats: for commands that watch workers. Joins no group and moves no offset.
//!
//! A program that may write the topic may write anything on it: what is no status of a known version is counted and left out, and
//! what is kept is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Observer, Progress, Reader, Record};
use tallybus_control::{Instances, is_desired, is_instance};
use tallybus_sdk::clock::Clock;
use tallybus_worker::live::{DOCUMENT_VERSION, HEARTBEAT_EVERY, ProcessState, StatusDocument, millis};

/// A process whose last heartbeat is older than this is silent: it has missed five.
pub const SILENT_AFTER: Duration = Duration::from_secs(10);
/// A process whose last heartbeat is older than this is forgotten. Heartbeats of this age are read at the start.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// The most processes that are kept; of more, those that were silent longest are left out.
const MAX_WORKERS: usize = 1_000;
/// The most bytes of heartbeats that are kept, as they came.
const MAX_MEMORY: usize = 32 << 20;
/// The largest heartbeat that is read, in bytes.
const MAX_RECORD: usize = 1 << 20;
/// The longest name of a process.
const MAX_ID: usize = 100;

/// Whether a process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Its last heartbeat is recent.
    Live,
    /// It has missed several heartbeats: it was killed, hangs, or cannot reach the bus.
    Silent,
    /// It has said that it ends.
    Left,
}

/// A worker process, as its last heartbeat has it.
#[derive(Debug, Clone)]
pub struct SeenWorker<'a> {
    /// Its status then. Its texts are as they came: escape them before they reach a terminal.
    pub document: &'a StatusDocument,
    /// How old that is.
    pub age: Duration,
    /// Whether it lives.
    pub presence: Presence,
}

/// See the module.
pub struct Heartbeats {
    bus: Arc<dyn Bus>,
    topic: String,
    observer: Option<Box<dyn Observer>>,
    reading: Option<Reading>,
    seen: Seen,
}

/// A reader of the topic.
struct Reading {
    reader: Box<dyn Reader>,
    /// The number of partitions.
    partitions: usize,
    /// Those that were read to their end.
    at_end: BTreeSet<u32>,
}

impl Heartbeats {
    /// Reads nothing yet. `topic`: from [`tallybus_worker::settings::names::control_topic`].
    pub fn new(bus: Arc<dyn Bus>, topic: &str, clock: Arc<dyn Clock>) -> Self {
        Self { bus, topic: topic.to_owned(), observer: None, reading: None, seen: Seen::new(clock) }
    }

    /// Reads what has come, for this time at most. Returns whether everything was read that was there; `false` too while the topic
    /// does not exist, which is asked for again by the next call.
    ///
    /// # Errors
    /// The bus did not answer; what was read before is still known.
    pub fn refresh(&mut self, at_most: Duration) -> Result<bool, BusError> {
        let reading = match self.reading.take() {
            Some(reading) => reading,
            None => match self.begin()? {
                Some(reading) => reading,
                None => return Ok(false),
            },
        };
        let reading = self.reading.insert(reading);
        let until = reading.reader.now() + at_most;
        loop {
            let left = until.saturating_duration_since(reading.reader.now());
            let (seen, at_end) = (&mut self.seen, &mut reading.at_end);
            let mut each = |record: Record<'_>| {
                at_end.remove(&record.partition);
                seen.take(&record);
                ControlFlow::Continue(())
            };
            match reading.reader.poll(left, &mut each) {
                Ok(Progress::End(partition)) => drop(reading.at_end.insert(partition)),
                Ok(Progress::Records | Progress::Idle) => {}
                // The topic was recreated, or its oldest records went: it is read again by the next call.
                Err(BusError::Gone { .. } | BusError::NoTopic(_)) => {
                    self.reading = None;
                    return Ok(false);
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    self.reading = None;
                    return Err(error);
                }
            }
            let is_complete = reading.at_end.len() >= reading.partitions;
            if is_complete || reading.reader.now() >= until {
                return Ok(is_complete);
            }
        }
    }

    /// Reads the topic from the oldest heartbeat on that counts; `None` while it does not exist.
    fn begin(&mut self) -> Result<Option<Reading>, BusError> {
        let observer = match self.observer.take() {
            Some(observer) => observer,
            None => self.bus.observer()?,
        };
        let observer = self.observer.insert(observer);
        let topic = self.topic.as_str();
        if observer.partitions_of(topic)?.is_none() {
            return Ok(None);
        }
        let from = self.seen.clock.wall_time().checked_sub(FORGOTTEN_AFTER).map(millis).unwrap_or_default();
        let starts = observer.offsets_at(&[topic], from)?.into_iter().next().unwrap_or_default();
        let starts: Vec<(u32, u64)> = (0..).zip(starts).collect();
        let mut reader = self.bus.reader()?;
        reader.assign(topic, &starts)?;
        // A client of its own on some buses, which is needed no more.
        self.observer = None;
        Ok(Some(Reading { reader, partitions: starts.len(), at_end: BTreeSet::new() }))
    }

    /// The processes, by their ids; those that were forgotten are left out.
    pub fn workers(&self) -> impl Iterator<Item = SeenWorker<'_>> {
        self.seen.workers()
    }

    /// The instances of services that listen for commands, which say so on the same topic.
    pub fn instances(&self) -> &Instances {
        &self.seen.instances
    }

    /// Records that are no status of a known version.
    pub fn skipped(&self) -> u64 {
        self.seen.skipped
    }

    /// Processes that were left out because there were too many, or their heartbeats too large.
    pub fn left_out(&self) -> u64 {
        self.seen.left_out
    }
}

/// The last heartbeat of each process.
struct Seen {
    clock: Arc<dyn Clock>,
    workers: BTreeMap<String, Beat>,
    instances: Instances,
    bytes: usize,
    skipped: u64,
    left_out: u64,
}

struct Beat {
    document: StatusDocument,
    bytes: usize,
    /// When the heartbeat was new, by the monotonic clock: the age of one grows, whatever the clocks of the hosts say.
    since: Instant,
}

impl Seen {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, workers: BTreeMap::new(), instances: Instances::default(), bytes: 0, skipped: 0, left_out: 0 }
    }

    fn take(&mut self, record: &Record<'_>) {
        match record.key {
            Some(key) if is_instance(key) => return self.take_instance(key, record),
            // What workers shall be doing: no status, and none of this reader's business.
            Some(key) if is_desired(key) => return,
            _ => {}
        }
        let Some(id) = record.key.and_then(|key| std::str::from_utf8(key).ok()).filter(|id| id.len() <= MAX_ID) else {
            self.skipped += 1;
            return;
        };
        if record.is_tombstone {
            self.forget(id);
            return;
        }
        let Some(document) = parse(record).filter(|document| document.worker == id) else {
            self.skipped += 1;
            return;
        };
        self.forget(id);
        let bytes = record.payload.len();
        self.bytes += bytes;
        let since = self.since(record);
        self.workers.insert(id.to_owned(), Beat { document, bytes, since });
        while self.workers.len() > MAX_WORKERS || self.bytes > MAX_MEMORY {
            let Some(oldest) = self.workers.iter().min_by_key(|(_, beat)| beat.since).map(|(id, _)| id.clone()) else {
                break;
            };
            self.forget(&oldest);
            self.left_out += 1;
        }
    }

    fn take_instance(&mut self, key: &[u8], record: &Record<'_>) {
        let since = self.since(record);
        if !self.instances.take(key, (!record.is_tombstone).then_some(record.payload), since) {
            self.skipped += 1;
        }
    }

    /// When a record was new, by the monotonic clock.
    fn since(&self, record: &Record<'_>) -> Instant {
        let now = self.clock.now();
        now.checked_sub(self.age_of(record.time_ms)).unwrap_or(now)
    }

    fn forget(&mut self, id: &str) {
        if let Some(beat) = self.workers.remove(id) {
            self.bytes -= beat.bytes;
        }
    }

    /// How old a record of this time is by the clock of this host. One from the future is new.
    fn age_of(&self, time_ms: i64) -> Duration {
        let ms = millis(self.clock.wall_time()).saturating_sub(time_ms);
        // No older than what makes no difference any more.
        Duration::from_millis(u64::try_from(ms).unwrap_or_default()).min(FORGOTTEN_AFTER * 2)
    }

    fn workers(&self) -> impl Iterator<Item = SeenWorker<'_>> {
        let now = self.clock.now();
        let all = self.workers.values().map(move |beat| {
            let age = now.saturating_duration_since(beat.since);
            let presence = match beat.document.state {
                ProcessState::Left => Presence::Left,
                _ if age > SILENT_AFTER => Presence::Silent,
                _ => Presence::Live,
            };
            SeenWorker { document: &beat.document, age, presence }
        });
        all.filter(|worker| worker.age <= FORGOTTEN_AFTER)
    }
}

/// The status in a record; `None` when it is none of a known version.
fn parse(record: &Record<'_>) -> Option<StatusDocument> {
    if record.unreadable.is_some() || record.payload.len() > MAX_RECORD {
        return None;
    }
    let document: StatusDocument = serde_json::from_slice(record.payload).ok()?;
    (document.version == DOCUMENT_VERSION).then_some(document)
}

const _: () = assert!(SILENT_AFTER.as_secs() >= 5 * HEARTBEAT_EVERY.as_secs());

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::{Value, json};
    use tallybus_bus::NoHeaders;
    use tallybus_sdk::clock::ManualClock;
    use tallybus_worker::live::{BuildInfo, Process};
    use tallybus_worker::supervisor::Stop;

    use super::*;

    const NOW_MS: i64 = 1_000_000_000;

    fn seen() -> (Seen, ManualClock) {
        let clock = ManualClock::at(SystemTime::UNIX_EPOCH + Duration::from_millis(NOW_MS.unsigned_abs()));
        (Seen::new(Arc::new(clock.clone())), clock)
    }

    fn document(id: &str) -> Value {
        let process = Process::new(BuildInfo { version: "1", commit: "c" }, "bus", Stop::default());
        let mut document = serde_json::to_value(process.document()).unwrap();
        document["worker"] = json!(id);
        document
    }

    fn record<'a>(key: &'a [u8], payload: &'a [u8], time_ms: i64) -> Record<'a> {
        Record {
            topic: "tallybus.control",
            partition: 0,
            offset: 0,
            time_ms,
            key: Some(key),
            payload,
            is_tombstone: false,
            unreadable: None,
            headers: &NoHeaders,
        }
    }

    fn presences(seen: &Seen) -> Vec<(String, Presence, u64)> {
        seen.workers().map(|one| (one.document.worker.clone(), one.presence, one.age.as_secs())).collect()
    }

    #[test]
    fn a_process_is_live_then_silent_then_forgotten_and_one_that_left_is_neither() {
        let (mut seen, clock) = seen();
        seen.take(&record(b"a", document("a").to_string().as_bytes(), NOW_MS - 3_000));
        // Its clock is an hour ahead.
        seen.take(&record(b"b", document("b").to_string().as_bytes(), NOW_MS + 3_600_000));
        let mut left = document("c");
        left["state"] = json!("left");
        seen.take(&record(b"c", left.to_string().as_bytes(), NOW_MS));
        let of = |id: &str, presence, age| (id.to_owned(), presence, age);
        let (live, silent, left) = (Presence::Live, Presence::Silent, Presence::Left);
        assert_eq!(presences(&seen), [of("a", live, 3), of("b", live, 0), of("c", left, 0)]);
        clock.advance(Duration::from_secs(9));
        assert_eq!(presences(&seen), [of("a", silent, 12), of("b", live, 9), of("c", left, 9)]);
        clock.advance(FORGOTTEN_AFTER - Duration::from_secs(9));
        assert_eq!(presences(&seen), [of("b", silent, 300), of("c", left, 300)]);
        seen.take(&record(b"a", document("a").to_string().as_bytes(), NOW_MS + 300_000));
        assert_eq!(presences(&seen)[0], of("a", live, 0));
        seen.take(&Record { is_tombstone: true, ..record(b"a", b"", NOW_MS) });
        assert_eq!(presences(&seen).len(), 2);
    }

    #[test]
    fn what_is_no_status_is_skipped_counted_and_replaces_nothing() {
        let (mut seen, _) = seen();
        seen.take(&record(b"a", document("a").to_string().as_bytes(), NOW_MS));
        let mut newer = document("a");
        newer["version"] = json!(2);
        let mut negative = document("a");
        negative["pid"] = json!(-1);
        let large = format!("{}{}", document("a"), " ".repeat(MAX_RECORD));
        let payloads = [
            b"".to_vec(),
            b"\xff\xfe".to_vec(),
            b"{}".to_vec(),
            b"[".repeat(100_000),
            newer.to_string().into_bytes(),
            negative.to_string().into_bytes(),
            document("other").to_string().into_bytes(),
            large.into_bytes(),
        ];
        for payload in &payloads {
            seen.take(&record(b"a", payload, NOW_MS));
        }
        let long = "x".repeat(MAX_ID + 1);
        for key in [b"\xff".as_slice(), long.as_bytes()] {
            seen.take(&record(key, document(&long).to_string().as_bytes(), NOW_MS));
        }
        seen.take(&Record { key: None, ..record(b"", document("").to_string().as_bytes(), NOW_MS) });
        assert_eq!(seen.skipped, payloads.len() as u64 + 3);
        assert_eq!(presences(&seen), [("a".to_owned(), Presence::Live, 0)]);
    }

    #[test]
    fn instances_of_services_and_desired_states_are_no_garbage() {
        let (mut seen, _) = seen();
        let status = json!({ "version": 1, "service": "orders", "instance": "a", "state": "running", "pool": "none",
            "started_ms": 1, "time_ms": 2 });
        seen.take(&record(b"service/orders/a", status.to_string().as_bytes(), NOW_MS));
        seen.take(&record(b"desired/all", b"{}", NOW_MS));
        assert_eq!((seen.skipped, seen.instances.all(Instant::now()).count()), (0, 1));
        seen.take(&record(b"service/orders/b", b"{}", NOW_MS));
        assert_eq!((seen.skipped, presences(&seen).len()), (1, 0));
    }

    #[test]
    fn memory_is_bounded_in_processes_and_in_bytes_and_the_longest_silent_go_first() {
        let (mut seen, clock) = seen();
        for number in 0..MAX_WORKERS + 5 {
            let id = format!("{number:05}");
            clock.advance(Duration::from_millis(1));
            let now = millis(clock.wall_time());
            seen.take(&record(id.as_bytes(), document(&id).to_string().as_bytes(), now));
        }
        assert_eq!((seen.workers.len(), seen.left_out), (MAX_WORKERS, 5));
        assert_eq!(seen.workers.keys().next().map(String::as_str), Some("00005"));
        for number in 0..100 {
            let id = format!("large-{number}");
            let large = format!("{}{}", document(&id), " ".repeat(MAX_RECORD - 2_000));
            clock.advance(Duration::from_millis(1));
            seen.take(&record(id.as_bytes(), large.as_bytes(), millis(clock.wall_time())));
        }
        assert!(seen.bytes <= MAX_MEMORY && seen.bytes > MAX_MEMORY / 2, "{}", seen.bytes);
        assert_eq!(seen.bytes, seen.workers.values().map(|beat| beat.bytes).sum::<usize>());
        assert!(seen.workers.contains_key("large-99"));
    }
}
