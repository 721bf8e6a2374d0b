use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::SimBus;
use super::fetch::Fetcher;
use crate::{BusError, Progress, Reader, Record, TopicPartition};

pub(super) struct SimReader {
    bus: SimBus,
    fetcher: Fetcher,
}

impl SimReader {
    pub(super) fn new(bus: SimBus) -> Self {
        Self { bus, fetcher: Fetcher::default() }
    }
}

impl Reader for SimReader {
    fn assign(&mut self, topic: &str, starts: &[(u32, u64)]) -> Result<(), BusError> {
        let mut fetcher = Fetcher::default();
        for (partition, offset) in starts {
            let at = TopicPartition::new(topic, *partition);
            self.bus.ask()?.range(&at)?;
            fetcher.start(at, *offset);
        }
        self.fetcher = fetcher;
        Ok(())
    }

    fn poll(
        &mut self,
        timeout: Duration,
        each: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>,
    ) -> Result<Progress, BusError> {
        for last in [false, true] {
            if let Some((at, _)) = self.fetcher.take_end() {
                return Ok(Progress::End(at.partition));
            }
            if self.fetcher.fetch(&self.bus, usize::MAX, each)? > 0 {
                return Ok(Progress::Records);
            }
            if let Some((at, _)) = self.fetcher.take_end() {
                return Ok(Progress::End(at.partition));
            }
            if !last {
                self.bus.shared.time.pass(timeout);
            }
        }
        Ok(Progress::Idle)
    }

    fn now(&self) -> Instant {
        self.bus.shared.time.now()
    }
}
