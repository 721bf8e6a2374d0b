//! The flush: what it costs, and what a thread that counts at the same time notices of it.

use std::hint::black_box;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tallybus::{Counter, Guard, count, counter};

use crate::Effort;
use crate::bus::{NullBus, PARTITIONS};
use crate::clock::{median, process_cpu, quantile};
use crate::libraries::MOST_SERIES;
use crate::results::Table;
use crate::series::{HOUR, Texts};

const THOUSANDS: [usize; 3] = [10, 100, 1_000];

fn start() -> Result<Guard> {
    Ok(tallybus::builder()
        .service("api")
        .instance("host-17")
        .max_series(MOST_SERIES)
        .flush_interval(HOUR)
        .start(tallybus::Connection::from_bus(Box::new(NullBus)))?)
}

fn series(many: std::ops::Range<usize>) -> Vec<Counter> {
    let texts = Texts::new(many.end);
    many.map(|number| {
        let (route, zone) = texts.get(number);
        counter!("bench.requests", route = route, zone = zone)
    })
    .collect()
}

/// CPU of the whole process while one flush runs and its caller sleeps.
fn flush(guard: &Guard) -> Result<Duration> {
    let begun = process_cpu();
    ensure!(guard.flush(HOUR), "a flush to a bus that takes everything");
    Ok(process_cpu() - begun)
}

pub fn table(effort: Effort) -> Result<Table> {
    let guard = start()?;
    let mut counters = Vec::new();
    let mut rows = Vec::new();
    for thousands in THOUSANDS {
        let many = thousands * 1_000;
        counters.extend(series(counters.len()..many));
        let (mut first, mut costs) = (0.0, Vec::new());
        for round in 0..=effort.rounds {
            counters.iter().for_each(|counter| counter.add(1 + round as u64 % 3));
            let cost = flush(&guard)?.as_secs_f64() * 1e3;
            match round {
                0 => first = cost,
                _ => costs.push(cost),
            }
        }
        let median = median(&mut costs);
        let each = median * 1e6 / many as f64;
        rows.push(vec![
            format!("{thousands},000"),
            format!("{first:.1}"),
            format!("{median:.1}"),
            format!("{each:.0}"),
        ]);
    }
    // One series in a hundred has risen: the common case of a large service.
    let mut costs = Vec::new();
    for _ in 0..effort.rounds {
        counters.iter().step_by(100).for_each(Counter::increment);
        costs.push(flush(&guard)?.as_secs_f64() * 1e3);
    }
    let median = median(&mut costs);
    let each = median * 1e6 / (counters.len() / 100) as f64;
    rows.push(vec!["10,000 of 1,000,000".to_owned(), "–".to_owned(), format!("{median:.1}"), format!("{each:.0}")]);
    Ok(Table {
        name: "hot_path-flush".to_owned(),
        title: "One flush, milliseconds of CPU.".to_owned(),
        columns: ["series that have risen", "first", "median", "ns a series"].map(str::to_owned).to_vec(),
        rows,
        note: format!(
            "CPU of the whole process from `flush` to its answer: reading every cell, taking what has risen, choosing \
             among {PARTITIONS} partitions, encoding native messages with two tags and two common ones, handing them to \
             a publisher that drops them, settling them. Compression and sending, which the bus's client does, is not in it."
        ),
    })
}

const IDLE: u8 = 0;
const FLUSHING: u8 = 1;
const BETWEEN: u8 = 2;
const OVER: u8 = 3;

static PHASE: AtomicU8 = AtomicU8::new(BETWEEN);

/// Increments timed together: the clock itself costs some twenty nanoseconds.
const TOGETHER: u32 = 64;

/// A thread counts all the time, while another raises all series and flushes them, over and over.
pub fn disturbance(effort: Effort) -> Result<Table> {
    let guard = start()?;
    let texts = (String::from("/v1/sites/0000001"), String::from("eu-west-1a"));
    let fixed = || count!("bench.static", black_box(1u64), route = "/v1/sites", status = 200);
    let tagged = || {
        let (route, zone) = black_box(&texts);
        count!("bench.tagged", black_box(1u64), route = route, zone = zone);
    };
    let late = || count!("bench.late", black_box(1u64), route = "/v1/sites", status = 200);
    fixed();
    tagged();
    let counters = series(0..1_000_000);
    let mut rows = disturbed("static tags", &guard, &counters, effort, fixed)?;
    rows.extend(disturbed("two run-time tags", &guard, &counters, effort, tagged)?);
    rows.extend(disturbed("static tags, the millionth series", &guard, &counters, effort, late)?);
    Ok(Table {
        name: "hot_path-disturbance".to_owned(),
        title: "An increment while 1,000,000 series are flushed by another thread, nanoseconds.".to_owned(),
        columns: ["", "median", "p99", "p99.9"].map(str::to_owned).to_vec(),
        rows,
        note: format!("Wall clock of {TOGETHER} increments together, divided by {TOGETHER}."),
    })
}

fn disturbed(
    name: &str,
    guard: &Guard,
    counters: &[Counter],
    effort: Effort,
    count: impl Fn() + Sync,
) -> Result<Vec<Vec<String>>> {
    let phases = |samples: &mut [Vec<f64>; 2]| {
        loop {
            let phase = PHASE.load(Ordering::Relaxed);
            let begun = Instant::now();
            (0..TOGETHER).for_each(|_| count());
            let each = begun.elapsed().as_secs_f64() * 1e9 / f64::from(TOGETHER);
            match phase {
                OVER => break,
                phase if phase == PHASE.load(Ordering::Relaxed) && phase != BETWEEN => {
                    samples[usize::from(phase)].push(each)
                }
                _ => {}
            }
        }
    };
    let mut samples = [Vec::with_capacity(1 << 25), Vec::with_capacity(1 << 25)];
    PHASE.store(BETWEEN, Ordering::Relaxed);
    thread::scope(|scope| -> Result<()> {
        let samples = &mut samples;
        scope.spawn(move || phases(samples));
        let rounds = || -> Result<()> {
            for _ in 0..effort.rounds {
                counters.iter().for_each(Counter::increment);
                PHASE.store(FLUSHING, Ordering::Relaxed);
                let begun = Instant::now();
                ensure!(guard.flush(HOUR), "a flush to a bus that takes everything");
                let flushing = begun.elapsed();
                PHASE.store(IDLE, Ordering::Relaxed);
                thread::sleep(flushing);
                PHASE.store(BETWEEN, Ordering::Relaxed);
            }
            Ok(())
        };
        let outcome = rounds();
        PHASE.store(OVER, Ordering::Relaxed);
        outcome
    })?;
    let cells = |name: String, samples: &mut [f64]| {
        let shares = [0.5, 0.99, 0.999].map(|share| format!("{:.2}", quantile(samples, share)));
        std::iter::once(name).chain(shares).collect::<Vec<_>>()
    };
    let [idle, flushing] = &mut samples;
    Ok(vec![cells(format!("{name}, nothing else going on"), idle), cells(format!("{name}, during a flush"), flushing)])
}
