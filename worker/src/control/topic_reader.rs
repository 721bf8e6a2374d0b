//! Reads a topic of one partition, as long as it takes, without a group.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tallybus_bus::{Bus, BusError, Progress, Reader, Record};
use tallybus_control::{HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, Signed};

/// Where a topic is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Its oldest record.
    Beginning,
    /// What comes after the first call; all of it where the topic does not exist then.
    End,
}

/// What a call of [`TopicReader::read`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The topic does not exist: the bus said so.
    NoTopic,
    /// There may be more.
    More,
    /// Everything was read that was there.
    End,
    /// The topic was recreated, or the next records to be read are gone: the next call reads from the oldest one.
    Restart,
}

/// See the module.
pub struct TopicReader {
    bus: Arc<dyn Bus>,
    topic: String,
    from: From,
    reader: Option<Box<dyn Reader>>,
    at_end: bool,
}

impl TopicReader {
    /// Reads nothing yet.
    pub fn new(bus: Arc<dyn Bus>, topic: &str, from: From) -> Self {
        Self { bus, topic: topic.to_owned(), from, reader: None, at_end: false }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Begins to read where that was not done: from then on nothing is missed. Returns whether the topic exists.
    ///
    /// # Errors
    /// The bus did not answer, or refuses access.
    pub fn begin(&mut self) -> Result<bool, BusError> {
        if self.reader.is_some() {
            return Ok(true);
        }
        let observer = self.bus.observer()?;
        if observer.partitions_of(&self.topic)?.is_none() {
            // What is on it once it is created came later.
            self.from = From::Beginning;
            return Ok(false);
        }
        let ranges = observer.offsets_of(&self.topic)?;
        let from = self.from;
        let start = |range: tallybus_bus::OffsetRange| match from {
            From::Beginning => range.first,
            From::End => range.end,
        };
        let starts: Vec<(u32, u64)> = (0..).zip(ranges.into_iter().map(start)).take(1).collect();
        let mut reader = self.bus.reader()?;
        reader.assign(&self.topic, &starts)?;
        self.from = From::Beginning;
        self.reader = Some(reader);
        self.at_end = false;
        Ok(true)
    }

    /// Hands over what has come, for this time at most.
    ///
    /// # Errors
    /// The bus did not answer, or refuses access; reading goes on with the next call.
    pub fn read(&mut self, at_most: Duration, each: &mut dyn FnMut(&Record<'_>)) -> Result<Found, BusError> {
        if !self.begin()? {
            return Ok(Found::NoTopic);
        }
        let Some(reader) = &mut self.reader else { return Ok(Found::NoTopic) };
        let until = reader.now() + at_most;
        loop {
            let left = until.saturating_duration_since(reader.now());
            let at_end = &mut self.at_end;
            let polled = reader.poll(left, &mut |record: Record<'_>| {
                *at_end = false;
                each(&record);
                ControlFlow::Continue(())
            });
            match polled {
                Ok(Progress::End(_)) => {
                    self.at_end = true;
                    return Ok(Found::End);
                }
                Ok(Progress::Records | Progress::Idle) => {}
                Err(BusError::Gone { .. } | BusError::NoTopic(_)) => {
                    self.reader = None;
                    return Ok(Found::Restart);
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    self.reader = None;
                    return Err(error);
                }
            }
            if reader.now() >= until {
                return Ok(if self.at_end { Found::End } else { Found::More });
            }
        }
    }
}

/// The headers of a signed record.
pub struct Headers {
    id: String,
    timestamp: i64,
    signature: String,
}

impl Headers {
    /// Those of this record; `None` where it is not signed.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        let text = |name| std::str::from_utf8(record.headers.get(name)?).ok();
        Some(Self {
            id: text(HEADER_ID)?.to_owned(),
            timestamp: text(HEADER_TIMESTAMP)?.parse().ok()?,
            signature: text(HEADER_SIGNATURE)?.to_owned(),
        })
    }

    /// As signatures are checked.
    pub fn signed(&self) -> Signed<'_> {
        Signed { id: &self.id, timestamp: self.timestamp, signature: &self.signature }
    }
}
