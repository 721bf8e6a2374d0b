//! What counting allocates: nothing for a series that is known, and little for a new one.
#![allow(unsafe_code, reason = "an allocator that counts hands every call on to the system's")]
#![allow(clippy::print_stdout, reason = "a test with a `main` of its own")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use tallybus::{count, counter};

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is the system allocator's, with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as u64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A program of its own, because the allocator sees all threads, and a test harness has more than one.
fn main() {
    let (route, name, long) = ("/v1/sites", String::from("memory.name"), "x".repeat(2_000));
    let everything = || {
        for status in 200u64..210 {
            count!("memory.static", 3, route = "/v1/sites", status = 200);
            count!("memory.tagged", route = route, status = status, ok = true);
            count!(name.as_str(), status = status);
            count!("memory.empty", route = "", status = status);
            count!("memory.long", route = long, status = status);
            count!("memory.control", route = "a\nb", status = status);
            counter!("memory.handle", route = route).increment();
        }
    };
    everything();
    let before = CALLS.load(Ordering::Relaxed);
    (0..1_000).for_each(|_| everything());
    assert_eq!(CALLS.load(Ordering::Relaxed) - before, 0, "allocations for series that are known");

    let bytes = || BYTES.load(Ordering::Relaxed);
    let (before, mut text) = (bytes(), 0);
    for number in 0..9_000u64 {
        let user = format!("user-{number:06}");
        text += user.len() as u64 + 4;
        count!("memory.many", user = user, zone = number % 10);
    }
    let each = (bytes() - before - text) / 9_000;
    assert!(each <= 160, "{each} bytes for a series");
    println!("{each} bytes for a series beyond its text");

    // Far beyond the cap: nothing is remembered for what is counted together.
    for number in 0..20_000u64 {
        count!("memory.overflow", user = number);
    }
    let before = bytes();
    for number in 0..1_000_000u64 {
        count!("memory.overflow", user = number);
    }
    let grown = bytes().saturating_sub(before);
    assert!(grown < 1_000, "{grown} bytes for values beyond the cap");
}
