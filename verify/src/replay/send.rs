//! Publishes chosen dead letters to the topic from which they are replayed.

use std::collections::BTreeMap;
use std::time::Duration;

use tallybus_bus::{
    Bus, BusError, Delivery, NewRecord, Observer, PublishError, Publisher, Record, read_headers, read_range, read_topic,
};
use tallybus_schemas::ENCODING_HEADER;
use tallybus_sdk::clock::Clock;
use tallybus_sdk::dead_letter::{
    BATCH_HEADER, CUT_HEADER, DeadLetterHeaders, REASON_HEADER, REPLAYS_HEADER, TIME_HEADER,
};
use tallybus_sdk::text::count_of;
use tallybus_worker::settings::SinkSettings;

use super::{DeadLetterEntry, Plan};

/// The result for the chosen dead letters.
#[derive(Debug, Default)]
pub struct Sent {
    /// How many are in the topic now.
    pub dead_letters: u64,
    /// Those that are not, by key, and why.
    pub failed: Vec<(String, String)>,
}

/// Publishes the chosen dead letters. `progress` receives the number of finished ones, and the total number.
///
/// If this is killed, some of them are chosen; the others can be chosen by the next call.
///
/// # Errors
/// The bus failed; those published until then are chosen.
pub fn send(
    bus: &dyn Bus,
    observer: &dyn Observer,
    sink: &SinkSettings,
    plan: &Plan<'_>,
    stall_timeout: Duration,
    clock: &dyn Clock,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Sent, BusError> {
    let mut left: BTreeMap<&str, &DeadLetterEntry> =
        plan.chosen.iter().map(|dead_letter| (dead_letter.key.as_str(), *dead_letter)).collect();
    let whole = left.len() as u64;
    let mut sender = Sender {
        topic: sink.replay_topic(),
        publisher: bus.publisher()?,
        clock,
        keys: Vec::new(),
        sent: Sent::default(),
    };
    let mut cut = Vec::new();
    let mut outcome = Ok(());
    read_topic(bus, observer, &sink.dead_letter_topic(), stall_timeout, &mut |record| {
        let Some(head) = DeadLetterHeaders::of(&record).filter(|head| head.sink == sink.name) else { return };
        let is_it = |dead_letter: &&DeadLetterEntry| dead_letter.record_key == head.key();
        let coordinate = head.coordinate();
        if !left.get(coordinate.as_str()).is_some_and(is_it) {
            return;
        }
        let Some(dead_letter) = left.remove(coordinate.as_str()) else { return };
        if outcome.is_err() {
            return;
        }
        if dead_letter.cut_from.is_some() {
            cut.push((dead_letter, read_headers(record.headers), record.payload.to_vec()));
            return;
        }
        outcome = sender.publish(dead_letter, &read_headers(record.headers), record.payload, stall_timeout);
        progress(sender.keys.len() as u64, whole);
    })?;
    outcome?;
    for (dead_letter, headers, start) in cut {
        match original(bus, observer, dead_letter, &start, stall_timeout)? {
            Ok(Original { payload, headers: known }) => {
                let mut headers = bare(headers);
                headers.retain(|(name, _)| known.iter().all(|(other, _)| name != other));
                headers.extend(known);
                sender.publish(dead_letter, &headers, &payload, stall_timeout)?;
            }
            Err(reason) => sender.sent.failed.push((dead_letter.key.clone(), reason)),
        }
        progress(sender.keys.len() as u64, whole);
    }
    for key in left.into_keys() {
        sender.sent.failed.push((key.to_owned(), "it was deleted by retention".to_owned()));
    }
    sender.finish(stall_timeout)
}

/// The headers needed to decode a record again, and nothing that would make it larger.
fn bare(headers: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let dropped = [CUT_HEADER, REASON_HEADER, BATCH_HEADER];
    headers.into_iter().filter(|(name, _)| !dropped.contains(&name.as_str())).collect()
}

/// What a dead letter does not have of its original.
struct Original {
    payload: Vec<u8>,
    /// Only where the dead letter has nothing of it: how its message is read, and its time.
    headers: Vec<(String, Vec<u8>)>,
}

/// The original record of a truncated dead letter.
fn original(
    bus: &dyn Bus,
    observer: &dyn Observer,
    dead_letter: &DeadLetterEntry,
    start: &[u8],
    stall_timeout: Duration,
) -> Result<Result<Original, String>, BusError> {
    let gone = || format!("it was truncated, and its original at {} was deleted by retention", dead_letter.key);
    let ranges = match observer.offsets_of(&dead_letter.topic) {
        Ok(ranges) => ranges,
        Err(BusError::NoTopic(_)) => return Ok(Err(gone())),
        Err(error) => return Err(error),
    };
    let Some(range) = ranges.get(dead_letter.partition as usize) else { return Ok(Err(gone())) };
    if dead_letter.offset < range.first || dead_letter.offset >= range.end {
        return Ok(Err(gone()));
    }
    let is_line = dead_letter.index.is_some();
    let mut found: Option<Vec<u8>> = None;
    let (mut unreadable, mut headers) = (None, Vec::new());
    let span = [(dead_letter.partition, dead_letter.offset..dead_letter.offset + 1)];
    read_range(bus.reader()?.as_mut(), &dead_letter.topic, &span, stall_timeout, &mut |record: Record<'_>| {
        found = Some(record.payload.to_vec());
        unreadable = record.unreadable.map(str::to_owned);
        let encoding = record.headers.get(ENCODING_HEADER).map(|name| (ENCODING_HEADER.to_owned(), name.to_vec()));
        headers.extend(encoding);
        headers.push((TIME_HEADER.to_owned(), record.time_ms.to_string().into_bytes()));
    })?;
    if let Some(reason) = unreadable {
        return Ok(Err(format!("{} stays on the bus: {reason}", dead_letter.key)));
    }
    let payload = match found {
        // The bus could not deliver it then.
        Some(payload) if dead_letter.cut_from == Some(0) => return Ok(Ok(Original { payload, headers })),
        Some(payload) if is_line => only_line(&payload, start, dead_letter.cut_from).ok_or_else(|| {
            format!("it was truncated, and its line cannot be told from others in the record at {}", dead_letter.key)
        }),
        Some(payload) if payload.starts_with(start) && Some(payload.len() as u64) == dead_letter.cut_from => {
            Ok(payload)
        }
        Some(_) => Err(format!("it was truncated, and the record at {} is now a different one", dead_letter.key)),
        None => Err(gone()),
    };
    Ok(payload.map(|payload| Original { payload, headers: Vec::new() }))
}

/// The line of a record that begins like this and has this many bytes, when there is only one.
fn only_line(record: &[u8], start: &[u8], bytes: Option<u64>) -> Option<Vec<u8>> {
    let lines = record.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut fitting = lines.filter(|line| line.starts_with(start) && Some(line.len() as u64) == bytes);
    let line = fitting.next()?;
    fitting.next().is_none().then(|| line.to_vec())
}

struct Sender<'c> {
    topic: String,
    publisher: Box<dyn Publisher>,
    clock: &'c dyn Clock,
    /// By token.
    keys: Vec<String>,
    sent: Sent,
}

impl Sender<'_> {
    fn publish(
        &mut self,
        dead_letter: &DeadLetterEntry,
        headers: &[(String, Vec<u8>)],
        payload: &[u8],
        timeout: Duration,
    ) -> Result<(), BusError> {
        let replays = (dead_letter.replays + 1).to_string();
        let headers = headers.iter().filter(|(name, _)| name != REPLAYS_HEADER);
        let mut headers: Vec<(&str, &[u8])> = headers.map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        headers.push((REPLAYS_HEADER, replays.as_bytes()));
        let topic = self.topic.clone();
        let key = Some(dead_letter.record_key.as_bytes());
        let record = NewRecord { topic: &topic, partition: Some(0), key, payload, headers: &headers };
        let token = self.keys.len() as u64;
        let until = self.clock.now() + timeout;
        loop {
            match self.publisher.publish(record, token) {
                Ok(()) => {
                    self.keys.push(dead_letter.key.clone());
                    return Ok(());
                }
                Err(error) if error.is_transient() && self.clock.now() < until => {
                    self.deliver(Duration::from_millis(50))
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn deliver(&mut self, timeout: Duration) {
        let mut deliveries = Vec::new();
        self.publisher.poll(timeout, &mut deliveries);
        for Delivery { token, outcome } in deliveries {
            let key = usize::try_from(token).ok().and_then(|token| self.keys.get(token)).cloned().unwrap_or_default();
            match outcome {
                Ok(_) => self.sent.dead_letters += 1,
                Err(error) => self.fail(key, &error),
            }
        }
    }

    fn fail(&mut self, key: String, error: &PublishError) {
        let reason = match error {
            PublishError::TooLarge { limit: Some(limit) } => format!(
                "too large for {}: the limit is {limit} bytes (Kafka: raise `message.max.bytes` in [bus.kafka])",
                self.topic
            ),
            PublishError::TooLarge { limit: None } => {
                format!("too large for {0}: raise `max.message.bytes` of topic {0}", self.topic)
            }
            error => error.to_string(),
        };
        self.sent.failed.push((key, reason));
    }

    fn finish(mut self, timeout: Duration) -> Result<Sent, BusError> {
        let (mut open, mut since) = (self.publisher.in_flight(), self.clock.now());
        while open > 0 {
            self.deliver(Duration::from_millis(50));
            let now = self.publisher.in_flight();
            if now < open {
                (open, since) = (now, self.clock.now());
            }
            if self.clock.now().saturating_duration_since(since) > timeout {
                return Err(BusError::Unavailable(format!(
                    "the bus has not accepted {} within {} s; run the replay again, each counts once",
                    count_of(open as u64, "dead letter"),
                    timeout.as_secs()
                )));
            }
        }
        self.deliver(Duration::ZERO);
        Ok(self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_line_is_found_in_its_record_unless_another_is_like_it() {
        let record = b"good value=1i\n bad,a=1 value=1.5 \r\nbad,a=2 value=1.5\nbad,a=1 value=1.25";
        let found = |start: &[u8], bytes| only_line(record, start, Some(bytes));
        assert_eq!(found(b"bad,a=1", 17).as_deref(), Some(&b"bad,a=1 value=1.5"[..]));
        assert_eq!(found(b"bad,a=1", 18).as_deref(), Some(&b"bad,a=1 value=1.25"[..]));
        assert_eq!(found(b"bad", 17), None, "two begin like that");
        assert_eq!(found(b"bad", 99), None);
    }
}
