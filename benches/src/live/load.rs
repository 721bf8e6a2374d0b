//! Threads that count at a steady rate and remember when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use tallybus::count;

use super::clock;

/// How much to count.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// Increments a second, over all threads.
    pub per_second: u64,
    /// Threads that count.
    pub threads: u32,
    /// Series of each thread; no series is counted by two.
    pub series: u32,
}

/// For each series the times of its increments, in order.
pub type Emissions = Vec<(u32, Vec<u64>)>;

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Emissions>>,
}

impl Load {
    /// Begins to count.
    #[must_use]
    pub fn start(rate: Rate) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..rate.threads)
            .map(|thread| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || count_on(thread, rate, &stop))
            })
            .collect();
        Self { stop, threads }
    }

    /// Stops and answers what was counted when.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn stop(self) -> Result<Emissions> {
        self.stop.store(true, Ordering::Release);
        let mut all = Vec::new();
        for thread in self.threads {
            all.extend(thread.join().map_err(|_| anyhow!("a thread of the load panicked"))?);
        }
        all.sort_by_key(|(series, _)| *series);
        Ok(all)
    }
}

fn count_on(thread: u32, rate: Rate, stop: &AtomicBool) -> Emissions {
    let mut emissions: Emissions = (0..rate.series).map(|index| (thread * rate.series + index, Vec::new())).collect();
    let per_second = rate.per_second / u64::from(rate.threads);
    let (begin, mut counted) = (Instant::now(), 0_u64);
    let mut turn = 0;
    while !stop.load(Ordering::Acquire) {
        let due = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(per_second) / 1_000_000;
        while counted < due {
            let (series, times) = &mut emissions[turn];
            // Noted before: what a latency may be blamed for begins here.
            times.push(clock::now());
            count!("bench.live", 1, probe = *series);
            counted += 1;
            turn = (turn + 1) % (rate.series as usize);
        }
        thread::sleep(Duration::from_millis(1));
    }
    emissions
}
