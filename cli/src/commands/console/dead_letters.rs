//! The last dead letters of a sink, read when a browser shows that sink, and again when there are more. Joins no group; one thread
//! reads for all browsers.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tallybus_bus::{Bus, BusError, Observer, OffsetRange, Progress, Reader, Record};
use tallybus_sdk::dead_letter::DeadLetterHeaders;
use tallybus_sdk::text::clip;

/// The most dead letters that are shown of a sink.
pub(super) const MOST: usize = 20;
/// How many of each partition are read at least.
const LEAST_OF_PARTITION: u64 = 5;
/// How long reading them may take.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// They are read no more often than this, however fast they come.
const READ_EVERY: Duration = Duration::from_secs(5);
/// How long the connection to the bus is kept while nothing is read.
const KEEP: Duration = Duration::from_secs(60);
/// The most sinks that wait to be read.
const MOST_WAITING: usize = 16;
/// The most bytes of a reason that are shown.
const MAX_REASON: usize = 2_000;

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLetterRow {
    /// When it was published: milliseconds since the Unix epoch.
    pub(super) time_ms: i64,
    /// `topic/partition/offset`, followed by `/index` where it is one event or line of a record.
    pub(super) coordinate: String,
    /// How many events it sums; 0 when they could not be decoded.
    pub(super) events: u32,
    /// Why it was refused.
    pub(super) reason: String,
}

/// What is known of a sink's dead letters.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// They are being read.
    Reading,
    /// The newest of each partition, the newest first; `is_complete` says whether all that were wanted came in time.
    Read { dead_letters: Arc<Vec<DeadLetterRow>>, is_complete: bool },
    /// They could not be read.
    Failed(String),
}

struct Entry {
    /// How many messages the topic held when they were asked for.
    held: u64,
    asked: Instant,
    is_waiting: bool,
    shown: Shown,
}

struct Request {
    topic: String,
}

/// See the module.
pub(super) struct DeadLetters {
    /// By topic.
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
    requests: SyncSender<Request>,
}

impl DeadLetters {
    /// Reads nothing yet.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn start(bus: Arc<dyn Bus>) -> std::io::Result<Self> {
        let (requests, receiver) = sync_channel(MOST_WAITING);
        let entries = Arc::new(Mutex::new(BTreeMap::new()));
        let reading = Reading { bus, client: None, entries: Arc::clone(&entries) };
        thread::Builder::new().name("console-dead-letters".to_owned()).spawn(move || reading.run(&receiver))?;
        Ok(Self { entries, requests })
    }

    /// What is known of the dead letters on this topic, which holds so many messages now. Never waits: what is not known is read by
    /// the next call.
    pub(super) fn of(&self, topic: &str, held: u64) -> Shown {
        let mut entries = lock(&self.entries);
        if let Some(entry) = entries.get(topic)
            && (entry.is_waiting || entry.asked.elapsed() < READ_EVERY || (entry.held == held && entry.is_read()))
        {
            return entry.shown.clone();
        }
        let is_asked = match self.requests.try_send(Request { topic: topic.to_owned() }) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => return Shown::Reading,
            Err(TrySendError::Disconnected(_)) => {
                return Shown::Failed("the thread that reads them has ended; this is a fault of tallybus".to_owned());
            }
        };
        // Those of other sinks are old by now.
        entries.retain(|other, entry| other == topic || entry.is_waiting || entry.asked.elapsed() < KEEP);
        let entry = entries.entry(topic.to_owned()).or_insert_with(|| Entry {
            held,
            asked: Instant::now(),
            is_waiting: false,
            shown: Shown::Reading,
        });
        (entry.held, entry.asked, entry.is_waiting) = (held, Instant::now(), is_asked);
        entry.shown.clone()
    }
}

impl Entry {
    fn is_read(&self) -> bool {
        matches!(self.shown, Shown::Read { is_complete: true, .. })
    }
}

fn lock(entries: &Mutex<BTreeMap<String, Entry>>) -> MutexGuard<'_, BTreeMap<String, Entry>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Reading {
    bus: Arc<dyn Bus>,
    client: Option<Client>,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

struct Client {
    observer: Box<dyn Observer>,
    reader: Box<dyn Reader>,
}

impl Reading {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            let request = match requests.recv_timeout(KEEP) {
                Ok(request) => request,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    self.client = None;
                    continue;
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return,
            };
            let shown = self.read(&request.topic).unwrap_or_else(|error| {
                self.client = None;
                Shown::Failed(error.to_string())
            });
            if let Some(entry) = lock(&self.entries).get_mut(&request.topic) {
                (entry.is_waiting, entry.shown) = (false, shown);
            }
        }
    }

    fn read(&mut self, topic: &str) -> Result<Shown, BusError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client { observer: self.bus.observer()?, reader: self.bus.reader()? },
        };
        let client = self.client.insert(client);
        let none = || Shown::Read { dead_letters: Arc::default(), is_complete: true };
        if client.observer.partitions_of(topic)?.is_none() {
            return Ok(none());
        }
        let starts = starts(&client.observer.offsets_of(topic)?);
        if starts.is_empty() {
            return Ok(none());
        }
        client.reader.assign(topic, &starts)?;
        let (mut dead_letters, mut left) = (Vec::new(), starts.len());
        let until = client.reader.now() + READ_WITHIN;
        while left > 0 && client.reader.now() < until {
            let wait = until.saturating_duration_since(client.reader.now());
            let mut each = |record: Record<'_>| {
                dead_letters.extend(dead_letter(&record));
                // Some partition may have grown since: the newest are wanted, and not all of them in memory.
                if dead_letters.len() > 2 * MOST {
                    keep_newest(&mut dead_letters);
                }
                ControlFlow::Continue(())
            };
            if let Progress::End(_) = client.reader.poll(wait, &mut each)? {
                left -= 1;
            }
        }
        keep_newest(&mut dead_letters);
        Ok(Shown::Read { dead_letters: Arc::new(dead_letters), is_complete: left == 0 })
    }
}

/// Where to read from in each partition that holds something.
fn starts(ranges: &[OffsetRange]) -> Vec<(u32, u64)> {
    let filled: Vec<(u32, &OffsetRange)> = (0..).zip(ranges).filter(|(_, range)| range.first < range.end).collect();
    let of_each = (MOST as u64).div_ceil(filled.len().max(1) as u64).max(LEAST_OF_PARTITION);
    filled.iter().map(|(partition, range)| (*partition, range.end.saturating_sub(of_each).max(range.first))).collect()
}

fn dead_letter(record: &Record<'_>) -> Option<DeadLetterRow> {
    let head = DeadLetterHeaders::of(record)?;
    let index = head.index.map_or(String::new(), |index| format!("/{index}"));
    Some(DeadLetterRow {
        time_ms: record.time_ms,
        coordinate: format!("{}/{}/{}{index}", head.topic, head.partition, head.offset),
        events: head.events,
        reason: clip(head.reason, MAX_REASON).to_owned(),
    })
}

fn keep_newest(dead_letters: &mut Vec<DeadLetterRow>) {
    dead_letters.sort_by_key(|one| Reverse(one.time_ms));
    dead_letters.truncate(MOST);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_each_partition_that_holds_something_is_read() {
        let range = |first, end| OffsetRange { first, end };
        assert_eq!(starts(&[]), []);
        assert_eq!(starts(&[range(0, 0), range(7, 7)]), []);
        assert_eq!(starts(&[range(0, 1_000)]), [(0, 980)]);
        assert_eq!(starts(&[range(995, 1_000), range(3, 3), range(0, 40)]), [(0, 995), (2, 30)]);
        let many = starts(&vec![range(0, 100); 64]);
        assert!(many.len() == 64 && many.iter().all(|(_, start)| *start == 95), "{many:?}");
    }

    #[test]
    fn only_the_newest_are_kept() {
        let of = |time_ms| DeadLetterRow { time_ms, coordinate: String::new(), events: 1, reason: String::new() };
        let mut dead_letters: Vec<DeadLetterRow> = (0..50).map(of).collect();
        keep_newest(&mut dead_letters);
        assert_eq!((dead_letters.len(), dead_letters[0].time_ms, dead_letters[MOST - 1].time_ms), (MOST, 49, 30));
    }

    #[test]
    fn a_bus_that_does_not_answer_is_said_to_and_asked_again_later() {
        let dead_letters = DeadLetters::start(Arc::new(crate::broken_bus::BrokenBus::after(0))).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        let failed = loop {
            match dead_letters.of("dead", 3) {
                Shown::Failed(error) => break error,
                shown => assert!(matches!(shown, Shown::Reading) && Instant::now() < until),
            }
            thread::sleep(Duration::from_millis(10));
        };
        assert!(failed.contains("the broker does not answer"), "{failed}");
        let entries = lock(&dead_letters.entries);
        assert!(!entries["dead"].is_read() && !entries["dead"].is_waiting);
    }
}
