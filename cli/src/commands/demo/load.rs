use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tallybus::{Counter, count, counter};
use tallybus_sdk::Rng;

use crate::failure::Failure;

/// The number of series.
pub(super) const SERIES: u64 = 1_000;
/// The number of threads that count.
pub(super) const THREADS: u64 = 4;

const SLICE: Duration = Duration::from_millis(20);

const ROUTES: [&str; 25] = [
    "/",
    "/login",
    "/logout",
    "/search",
    "/cart",
    "/checkout",
    "/orders",
    "/orders/:id",
    "/users",
    "/users/:id",
    "/items",
    "/items/:id",
    "/images/:id",
    "/health",
    "/metrics",
    "/v1/sites",
    "/v1/sites/:id",
    "/v1/events",
    "/v1/report",
    "/v1/export",
    "/v1/import",
    "/v1/keys",
    "/v1/teams",
    "/v1/teams/:id",
    "/v1/audit",
];
const STATUSES: [&str; 5] = ["200", "204", "304", "404", "500"];
const REGIONS: [&str; 8] = ["eu-1", "eu-2", "us-1", "us-2", "ap-1", "ap-2", "sa-1", "af-1"];

/// Threads that count, like those of a busy service; they end early when this is dropped.
pub(super) struct Load {
    emitted: Arc<AtomicU64>,
    is_stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Load {
    /// Starts to emit exactly this many increments. Counting itself takes milliseconds; it is spread over this time so that there is
    /// something to watch.
    pub(super) fn start(events: u64, spread: Duration) -> Self {
        let (emitted, is_stopped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let threads = (0..THREADS).map(|thread| {
            let share = events / THREADS + u64::from(thread < events % THREADS);
            let (emitted, is_stopped) = (Arc::clone(&emitted), Arc::clone(&is_stopped));
            std::thread::spawn(move || work(thread, (share, spread), &emitted, &is_stopped))
        });
        Self { threads: threads.collect(), emitted, is_stopped }
    }

    pub(super) fn emitted(&self) -> u64 {
        self.emitted.load(Ordering::Relaxed)
    }

    pub(super) fn is_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// The number of increments emitted.
    pub(super) fn finish(mut self) -> Result<u64, Failure> {
        let mut emitted = 0;
        for thread in self.threads.drain(..) {
            emitted += thread.join().map_err(|_| Failure::failed("a thread of the demo panicked"))?;
        }
        Ok(emitted)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What it would have said is not needed any more.
            let _ = thread.join();
        }
    }
}

/// Every other thread looks the series up each time, the others keep handles.
fn work(thread: u64, (share, spread): (u64, Duration), emitted: &AtomicU64, is_stopped: &AtomicBool) -> u64 {
    let handles: Vec<Counter> = if thread.is_multiple_of(2) { Vec::new() } else { (0..SERIES).map(handle).collect() };
    let slices = u64::try_from(spread.as_millis() / SLICE.as_millis()).unwrap_or(1);
    let began = Instant::now();
    let mut rng = Rng::new(thread);
    let mut done = 0;
    for slice in 1..=slices {
        let goal = u64::try_from(u128::from(share) * u128::from(slice) / u128::from(slices)).unwrap_or(share);
        if is_stopped.load(Ordering::Relaxed) {
            break;
        }
        let before = done;
        while done < goal {
            // Each series once, so that all exist; after that some more often than others.
            let round = thread + done * THREADS;
            let series = if round < SERIES { round } else { skewed(&mut rng, SERIES) };
            match handles.get(usize::try_from(series).unwrap_or_default()) {
                Some(handle) => handle.increment(),
                None => name(series),
            }
            done += 1;
        }
        emitted.fetch_add(done - before, Ordering::Relaxed);
        let due = began + SLICE * u32::try_from(slice).unwrap_or(1);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    done
}

fn tags(series: u64) -> (&'static str, &'static str, &'static str) {
    let series = usize::try_from(series).unwrap_or_default();
    let (route, rest) = (series % ROUTES.len(), series / ROUTES.len());
    (ROUTES[route], STATUSES[rest % STATUSES.len()], REGIONS[rest / STATUSES.len() % REGIONS.len()])
}

fn name(series: u64) {
    let (route, status, region) = tags(series);
    count!("demo.requests", route = route, status = status, region = region);
}

fn handle(series: u64) -> Counter {
    let (route, status, region) = tags(series);
    counter!("demo.requests", route = route, status = status, region = region)
}

/// A number below `end`; small ones more often.
fn skewed(rng: &mut Rng, end: u64) -> u64 {
    rng.below(end).min(rng.below(end))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_as_many_series_as_said() {
        let all: BTreeSet<_> = (0..SERIES).map(tags).collect();
        assert_eq!(all.len() as u64, SERIES);
    }
}
