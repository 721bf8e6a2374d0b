//! Counting, and publishing what was counted.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tallybus::{Counter, Guard, count, counter};
use tallybus_benches::workload::Input;

use crate::Case;
use crate::memory_bus::MemoryBus;
use crate::messages::Messages;

/// Series that a flush looks at.
const LIVE: u64 = 9_000;
/// More than `count_new` makes; prepared beforehand, whatever the number of repetitions.
const NEW: u64 = 6_000;
/// Never waited for; callgrind is slow.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "count_static",
        operation: "count!, static tags",
        times: 500_000,
        operations: 1,
        run: |times| {
            for _ in 0..times {
                count!("bench.static", route = "/v1/sites", status = 200);
            }
            Ok(())
        },
    },
    Case {
        name: "count_handle",
        operation: "Counter::increment on a handle",
        times: 500_000,
        operations: 1,
        run: |times| {
            let handle = counter!("bench.handle", kind = "x");
            for _ in 0..times {
                black_box(&handle).increment();
            }
            Ok(())
        },
    },
    Case {
        name: "count_run_time",
        operation: "count!, two run-time tags, series seen before",
        times: 100_000,
        operations: 1,
        run: run_time,
    },
    Case { name: "count_new", operation: "count!, first use of a series", times: 2_000, operations: 1, run: first_use },
    Case {
        name: "flush_live",
        operation: "raise a series and publish its delta",
        times: 5,
        operations: LIVE,
        run: |rounds| flush(rounds, true),
    },
    Case {
        name: "flush_resting",
        operation: "pass a series by that has not risen, at a flush",
        times: 20,
        operations: LIVE,
        run: |rounds| flush(rounds, false),
    },
];

fn run_time(times: u64) -> Result<()> {
    let routes = ["/v1/sites", "/v1/sites/search", "/v1/users", "/healthz"];
    let methods = ["GET", "POST", "DELETE"];
    for number in 0..usize::try_from(times)? {
        count!("bench.tagged", route = black_box(routes[number % 4]), method = black_box(methods[number % 3]));
    }
    Ok(())
}

fn first_use(times: u64) -> Result<()> {
    ensure!(times <= NEW, "at most {NEW} times");
    let routes: Vec<String> = (0..NEW).map(|number| format!("/v1/sites/{number}")).collect();
    for route in &routes[..usize::try_from(times)?] {
        count!("bench.new", route = route, method = black_box("GET"));
    }
    Ok(())
}

fn flush(rounds: u64, rise: bool) -> Result<()> {
    let guard = start()?;
    let routes: Vec<String> = (0..LIVE).map(|number| format!("/v1/sites/{number}")).collect();
    let counters: Vec<Counter> = routes.iter().map(|route| counter!("bench.live", route = route)).collect();
    counters.iter().for_each(Counter::increment);
    ensure!(guard.flush(PATIENCE), "the first flush");
    for _ in 0..rounds {
        if rise {
            counters.iter().for_each(Counter::increment);
        }
        ensure!(guard.flush(PATIENCE), "a flush");
    }
    let report = guard.shutdown(PATIENCE);
    let expected = LIVE * if rise { 1 + rounds } else { 1 };
    ensure!(report.delivered == expected, "{report}");
    Ok(())
}

fn start() -> Result<Guard> {
    let bus = MemoryBus::new(Arc::new(Messages::new(Input::Json, 0)), 0);
    let builder = tallybus::builder().service("api").instance("api-7").flush_interval(Duration::from_secs(3_600));
    Ok(builder.start(tallybus::Connection::from_bus(Box::new(bus)))?)
}
