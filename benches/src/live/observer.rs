//! A reader beside the group that notes when which increments were on the bus.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tallybus_bus::{Bus, Reader, Record};
use tallybus_schemas::{Decoder, Receiver};

use super::{COUNTER, SERIES_TAG, clock};

/// One record of the load; times as in [`clock`].
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Its partition.
    pub partition: u32,
    /// When the counters were emptied into it.
    pub taken: u64,
    /// When a reader had it.
    pub seen: u64,
    /// Series and increments.
    pub sums: Vec<(u32, u64)>,
}

/// Reads until it is stopped.
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Sighting>>>,
}

impl Observer {
    /// Reads `topic` from its beginning.
    ///
    /// # Errors
    /// The bus is not there.
    pub fn start(bus: &dyn Bus, topic: &str, partitions: u32) -> Result<Self> {
        let mut reader = bus.reader()?;
        let starts: Vec<(u32, u64)> = (0..partitions).map(|partition| (partition, 0)).collect();
        reader.assign(topic, &starts)?;
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::Builder::new().name("observer".to_owned()).spawn(move || read(reader, &asked))?;
        Ok(Self { stop, thread })
    }

    /// Stops; answers everything in the order in which it came, within a partition that of the bus.
    ///
    /// # Errors
    /// The bus failed.
    pub fn stop(self) -> Result<Vec<Sighting>> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow!("the observer panicked"))?
    }
}

fn read(mut reader: Box<dyn Reader>, stop: &AtomicBool) -> Result<Vec<Sighting>> {
    let mut sightings = Vec::new();
    let mut decoder = Decoder::new();
    let mut failed = None;
    while !stop.load(Ordering::Acquire) {
        reader.poll(Duration::from_millis(50), &mut |record| {
            match sighting(&mut decoder, &record) {
                Ok(sighting) => sightings.push(sighting),
                Err(error) => failed = Some(error),
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    Ok(sightings)
}

fn sighting(decoder: &mut Decoder, record: &Record<'_>) -> Result<Sighting> {
    let mut sums = Sums::default();
    let seen = clock::now();
    decoder.decode(None, record.payload, record.time_ms.saturating_mul(1_000_000), &mut sums)?;
    Ok(Sighting { partition: record.partition, taken: clock::of_wall(sums.time), seen, sums: sums.sums })
}

#[derive(Default)]
struct Sums {
    time: i64,
    sums: Vec<(u32, u64)>,
}

impl Receiver for Sums {
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        let number = tags.iter().find(|(key, _)| *key == SERIES_TAG).and_then(|(_, value)| value.parse().ok());
        number.filter(|_| name == COUNTER).unwrap_or(u32::MAX)
    }

    fn event(&mut self, series: u32, value: u64, time: i64) {
        self.time = time;
        if series != u32::MAX {
            self.sums.push((series, value));
        }
    }
}
