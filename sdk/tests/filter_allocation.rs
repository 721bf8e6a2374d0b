//! A filter is compiled once; events and series are then asked about without allocation.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait; it only forwards")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tallybus_sdk::Series;
use tallybus_sdk::filter::{EventFields, Filter, FilterScope};

/// Forwards to the system's allocator and counts, per thread.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; the counter is a plain thread-local cell without a
// destructor, which allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: the caller's promises hold for the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn asking_about_events_and_known_series_allocates_nothing() {
    let expression = "name ~ \"http.*\" && status >= 500 && route in (\"/v1\", \"/v2\", 7) && value > 10.5 \
                      && topic ~ \"tally*\" && time > -5m || offset in (1, 2) && has(zone) && zone != \"a\\nb\"";
    let filter = Filter::compile(expression, FilterScope::Events, 1_769_860_800_000_000_000).unwrap();
    let series = Series::from_sorted("http.requests", &[("route", "/v1"), ("status", "503")]);
    let fields = |value, time| EventFields { value, time, topic: "tallybus.counters", partition: 3, offset: 700 };
    let mut taken = 0_u64;
    let mut round = |rounds: u64| {
        for value in 0..rounds {
            let answer = filter.ask(&series);
            taken += u64::from(filter.takes(answer, &fields(value, 1_769_860_800_000_000_000)));
            taken += u64::from(filter.takes(answer, &fields(value, 0)));
        }
    };
    // The matcher of patterns allocates its caches with the first text.
    round(100);
    let before = CALLS.get();
    round(10_000);
    assert_eq!(CALLS.get() - before, 0);
    assert_eq!(taken, (100 - 11) + (10_000 - 11));
}
