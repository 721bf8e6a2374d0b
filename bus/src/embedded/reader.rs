//! A reader that belongs to no group.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fetch::{Fetcher, Position};
use super::file::{Conn, find_partitions};
use crate::{BusError, Progress, Reader, Record, TopicPartition};

/// How long a wait sleeps before it checks for writes of other processes.
const NAP: Duration = Duration::from_millis(10);
const FILE_CHECK: Duration = Duration::from_secs(1);

pub(super) struct EmbeddedReader {
    conn: Conn,
    fetcher: Fetcher,
    data_version: i64,
    file_checked: Instant,
}

impl EmbeddedReader {
    pub(super) fn new(conn: Conn) -> Self {
        Self { conn, fetcher: Fetcher::default(), data_version: -1, file_checked: Instant::now() }
    }
}

impl Reader for EmbeddedReader {
    fn assign(&mut self, topic: &str, starts: &[(u32, u64)]) -> Result<(), BusError> {
        let found = self.conn.read("finding a topic", |sql| Ok(find_partitions(sql, topic)?))?;
        let ids = found.ok_or_else(|| BusError::NoTopic(topic.to_owned()))?;
        let name: Arc<str> = topic.into();
        let position = |(partition, offset): &(u32, u64)| {
            let id = usize::try_from(*partition).ok().and_then(|at| ids.get(at)).ok_or_else(|| {
                BusError::Settings(format!("topic {topic:?} has no partition {partition}, only {}", ids.len()))
            })?;
            Ok(Position::new(Arc::clone(&name), *partition, *id, *offset))
        };
        let positions = starts.iter().map(position).collect::<Result<Vec<_>, BusError>>()?;
        self.fetcher = Fetcher::default();
        self.fetcher.positions = positions;
        self.data_version = -1;
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, BusError> {
        let until = Instant::now() + timeout;
        loop {
            if let Some((TopicPartition { partition, .. }, _)) = self.fetcher.take_end() {
                return Ok(Progress::End(partition));
            }
            let writes = self.conn.shared.writes();
            let version = self.conn.data_version()?;
            if version != self.data_version {
                if self.conn.read("reading records", |sql| self.fetcher.fetch(sql, usize::MAX, each))? > 0 {
                    return Ok(Progress::Records);
                }
                self.data_version = version;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Progress::Idle);
            }
            if self.file_checked.elapsed() >= FILE_CHECK {
                self.conn.shared.check_still_there()?;
                self.file_checked = Instant::now();
            }
            self.conn.shared.wait_written(writes, NAP.min(left));
        }
    }
}
