use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use tallybus_bus::{BusError, Delivery, NewRecord, PublishError, Publisher};
use tallybus_sdk::dead_letter::{
    BATCH_HEADER, CUT_HEADER, DeadLetter, EVENTS_HEADER, INDEX_HEADER, KIND_HEADER, OFFSET_HEADER, PARTITION_HEADER,
    REASON_HEADER, SINK_HEADER, STREAM_HEADER, TIME_HEADER, TOPIC_HEADER,
};
use tallybus_sdk::text::clip;

/// Headers, whose length a foreign record may determine, are cut to this length, so that no dead letter is refused
/// because of them.
const MAX_REASON: usize = 2_000;
const MAX_ENCODING: usize = 200;

/// The token of a record that no batch waits for; those of dead letters begin at 1.
const NOTE: u64 = 0;

/// Publishes dead letters and reports when all of a batch's dead letters are on the bus. The worker's notes of progress go
/// through the same publisher.
pub(crate) struct DeadLetterPublisher {
    sink: String,
    topic: String,
    publisher: Box<dyn Publisher>,
    next_token: u64,
    /// Dead letters that the publisher has not accepted yet, with the token of their batch.
    waiting: VecDeque<(u64, DeadLetter)>,
    /// Dead letters in flight, by publisher token.
    sent: HashMap<u64, (u64, DeadLetter)>,
    /// The number of unpublished dead letters, by batch token.
    open: HashMap<u64, usize>,
    not_before: Option<Instant>,
    last_error: Option<String>,
    published: u64,
    /// Why a note was not published, since it was last asked for.
    note_error: Option<String>,
}

impl DeadLetterPublisher {
    pub(crate) fn new(sink: &str, topic: &str, publisher: Box<dyn Publisher>) -> Self {
        Self {
            sink: sink.to_owned(),
            topic: topic.to_owned(),
            publisher,
            next_token: 0,
            waiting: VecDeque::new(),
            sent: HashMap::new(),
            open: HashMap::new(),
            not_before: None,
            last_error: None,
            published: 0,
            note_error: None,
        }
    }

    /// Publishes a record that no batch waits for. It may be lost: [`Self::take_note_error`] says so.
    pub(crate) fn publish_note(&mut self, topic: &str, key: &str, payload: &[u8]) -> Result<(), BusError> {
        let (partition, key) = (Some(0), Some(key.as_bytes()));
        self.publisher.publish(NewRecord { topic, partition, key, payload, headers: &[] }, NOTE)
    }

    /// Why a note was not published, since the last call.
    pub(crate) fn take_note_error(&mut self) -> Option<String> {
        self.note_error.take()
    }

    /// Whether records are on their way.
    pub(crate) fn is_sending(&self) -> bool {
        self.publisher.in_flight() > 0
    }

    /// Accepts the dead letters of one batch; [`Self::poll`] returns the token once all are on the bus.
    pub(crate) fn submit(&mut self, batch_token: u64, dead_letters: Vec<DeadLetter>) {
        self.open.insert(batch_token, dead_letters.len());
        self.waiting.extend(dead_letters.into_iter().map(|dead_letter| (batch_token, dead_letter)));
    }

    /// Drops the remaining dead letters of a batch: the next owner of its partition publishes them.
    pub(crate) fn forget(&mut self, batch_token: u64) {
        self.open.remove(&batch_token);
        self.waiting.retain(|(token, _)| *token != batch_token);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Why dead letters cannot be published now.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.as_ref().filter(|_| !self.is_idle()).cloned()
    }

    /// Dead letters published so far.
    pub(crate) fn published(&self) -> u64 {
        self.published
    }

    /// Publishes dead letters without blocking; returns the batches whose dead letters are all on the bus.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<u64> {
        if self.is_idle() && !self.is_sending() {
            return Vec::new();
        }
        self.send(now);
        let mut deliveries = Vec::new();
        self.publisher.poll(Duration::ZERO, &mut deliveries);
        let mut done = Vec::new();
        for Delivery { token, outcome } in deliveries {
            if token == NOTE {
                self.note_error = outcome.err().map(|error| error.to_string()).or_else(|| self.note_error.take());
                continue;
            }
            let Some((batch_token, mut dead_letter)) = self.sent.remove(&token) else { continue };
            #[cfg(feature = "simulation")]
            let outcome = match crate::simulation::Mutant::RefusedDeadLetterIsPublished.is_on() {
                true => outcome.or(Ok(tallybus_bus::Placed::new(0, None))),
                false => outcome,
            };
            match outcome {
                Ok(_) => {
                    self.published += 1;
                    self.last_error = None;
                    if let Some(left) = self.open.get_mut(&batch_token) {
                        *left -= 1;
                        if *left == 0 {
                            self.open.remove(&batch_token);
                            done.push(batch_token);
                        }
                    }
                }
                Err(_) if !self.open.contains_key(&batch_token) => {}
                // The payload was halved: publish it again at once.
                Err(PublishError::TooLarge { .. }) if dead_letter.cut() => {
                    self.waiting.push_back((batch_token, dead_letter))
                }
                Err(error) => self.put_back(now, batch_token, dead_letter, &error.to_string()),
            }
        }
        done
    }

    fn send(&mut self, now: Instant) {
        if self.not_before.is_some_and(|then| now < then) {
            return;
        }
        self.not_before = None;
        while let Some((batch_token, dead_letter)) = self.waiting.pop_front() {
            self.next_token += 1;
            match self.publish(&dead_letter) {
                Ok(()) => {
                    self.sent.insert(self.next_token, (batch_token, dead_letter));
                }
                Err(error) => {
                    self.put_back(now, batch_token, dead_letter, &error.to_string());
                    return;
                }
            }
        }
    }

    /// A dead letter that was not published is retried later.
    fn put_back(&mut self, now: Instant, batch_token: u64, dead_letter: DeadLetter, reason: &str) {
        self.hold(now, reason);
        // Queued last, so that it does not block the other dead letters.
        self.waiting.push_back((batch_token, dead_letter));
    }

    /// Waiting loses nothing: the batch does not settle.
    fn hold(&mut self, now: Instant, reason: &str) {
        self.not_before = Some(now + Duration::from_secs(1));
        if self.last_error.is_none() {
            let topic = &self.topic;
            self.last_error =
                Some(format!("dead letters cannot be published to {topic}, their batches wait: {reason}"));
            tracing::warn!(
                sink = self.sink,
                topic = self.topic,
                reason,
                "dead letters cannot be published; their batches wait"
            );
        }
    }

    fn publish(&mut self, dead_letter: &DeadLetter) -> Result<(), BusError> {
        let key = dead_letter.key();
        let (partition, offset) = (dead_letter.partition.to_string(), dead_letter.offset.to_string());
        let (index, events) = (dead_letter.index.map(|index| index.to_string()), dead_letter.events.to_string());
        let time = dead_letter.time_ms.to_string();
        let mut headers: Vec<(&str, &[u8])> = vec![
            (KIND_HEADER, dead_letter.kind().as_bytes()),
            (SINK_HEADER, self.sink.as_bytes()),
            (TOPIC_HEADER, dead_letter.topic.as_bytes()),
            (PARTITION_HEADER, partition.as_bytes()),
            (OFFSET_HEADER, offset.as_bytes()),
            (BATCH_HEADER, dead_letter.batch.as_bytes()),
            (EVENTS_HEADER, events.as_bytes()),
            (TIME_HEADER, time.as_bytes()),
            (REASON_HEADER, clip(&dead_letter.reason, MAX_REASON).as_bytes()),
        ];
        let cut_from = dead_letter.cut_from.map(|bytes| bytes.to_string());
        if let Some(stream) = &dead_letter.stream {
            headers.push((STREAM_HEADER, stream.as_str().as_bytes()));
        }
        if let Some(bytes) = &cut_from {
            headers.push((CUT_HEADER, bytes.as_bytes()));
        }
        if let Some(index) = &index {
            headers.push((INDEX_HEADER, index.as_bytes()));
        }
        if let Some(encoding) = &dead_letter.encoding {
            headers.push((tallybus_schemas::ENCODING_HEADER, clip(encoding, MAX_ENCODING).as_bytes()));
        }
        let record = NewRecord {
            topic: &self.topic,
            partition: None,
            key: Some(key.as_bytes()),
            payload: &dead_letter.payload,
            headers: &headers,
        };
        self.publisher.publish(record, self.next_token)
    }
}
