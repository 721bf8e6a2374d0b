//! What a decoder allocates: nothing for what it has seen the like of, and never much more than the message's size.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test stops at the first surprise"
)]
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait; it only forwards")]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use tallybus_schemas::{Decoder, Encoding, NativeEncoder, Origin, Receiver};

/// Forwards to the system's allocator and counts, per thread.
struct Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

fn grow(size: usize) {
    let live = LIVE.get().wrapping_add(size);
    LIVE.set(live);
    // What another thread allocated may be freed here, and take the figure below zero for a while.
    if live.cast_signed() > PEAK.get().cast_signed() {
        PEAK.set(live);
    }
    CALLS.set(CALLS.get() + 1);
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are plain thread-local cells without
// destructors, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promises hold for the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get().wrapping_sub(layout.size()));
        // SAFETY: as above; `at` came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // The old and the new block may live side by side while one is copied.
        grow(size);
        LIVE.set(LIVE.get().wrapping_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Takes everything and keeps nothing.
#[derive(Default)]
struct Sum {
    series: u32,
    total: u64,
}

impl Receiver for Sum {
    fn series(&mut self, _: &str, _: &[(&str, &str)]) -> u32 {
        self.series += 1;
        self.series
    }

    fn event(&mut self, _: u32, value: u64, _: i64) {
        self.total = self.total.wrapping_add(value);
    }
}

/// Runs something and returns how many bytes it had at most, and how often it allocated.
fn measure(run: impl FnOnce()) -> (usize, usize) {
    let (live, calls) = (LIVE.get(), CALLS.get());
    PEAK.set(live);
    run();
    (PEAK.get().wrapping_sub(live), CALLS.get() - calls)
}

/// The bound that [`Decoder`] states.
const TIMES: usize = 32;
const PLUS: usize = 8 << 10;

fn check(encoding: Encoding, what: &str, message: &[u8]) {
    let mut decoder = Decoder::new();
    let (peak, _) = measure(|| {
        let _ = decoder.decode(Some(encoding), message, 0, &mut Sum::default());
    });
    let bound = TIMES * message.len() + PLUS;
    assert!(peak <= bound, "{encoding}, {what}: {peak} bytes for a message of {}", message.len());
}

fn batch(events: usize) -> Vec<u8> {
    let mut encoder = NativeEncoder::new(&[("service", "api"), ("instance", "api-1")]);
    for event in 0..events {
        let site = format!("/v1/sites/{}", event % 100);
        encoder.push_at("http.requests", &[("route", &site), ("status", "200")], 1, event as i64);
    }
    encoder.finish(&Origin {
        producer: [1; 16],
        sequence: 1,
        interval_start: 0,
        interval_end: 1_000_000,
        partition_total: 1,
        emitted_total: 1,
    })
}

#[test]
fn a_decoder_that_is_warm_allocates_nothing() {
    let json = br#"{"ts":1700000000000000000,"name":"http.requests","value":1,"tags":{"status":200,"route":"/v1"}}"#;
    let json_lines = json.repeat(50);
    let array = [b"[", json.as_slice(), b",", json, b"]"].concat();
    let lines = b"http.requests,status=200,route=/v1 value=3i 1700000000000000000\n".repeat(50);
    let native = batch(500);
    let mut decoder = Decoder::new();
    let mut sum = Sum::default();
    for round in 0..3 {
        for (encoding, message, total) in [
            (Encoding::Native, native.as_slice(), 500),
            (Encoding::Json, &json_lines, 50),
            (Encoding::Json, &array, 2),
            (Encoding::Influx, &lines, 150),
        ] {
            sum.total = 0;
            let (peak, calls) = measure(|| {
                decoder.decode(None, message, 0, &mut sum).unwrap();
            });
            assert_eq!(sum.total, total);
            if round > 0 {
                assert_eq!((peak, calls), (0, 0), "{encoding}");
            }
        }
    }
}

#[test]
fn an_encoder_that_is_warm_allocates_the_message_only() {
    let mut encoder = NativeEncoder::new(&[("service", "api")]);
    let origin = Origin {
        producer: [1; 16],
        sequence: 1,
        interval_start: 0,
        interval_end: 1,
        partition_total: 1,
        emitted_total: 1,
    };
    let sites: Vec<String> = (0..300).map(|site| format!("/v1/sites/{site}")).collect();
    for round in 0..3 {
        let (_, calls) = measure(|| {
            for site in &sites {
                encoder.push("http.requests", &[("route", site), ("status", "200")], 1);
            }
            assert!(encoder.finish(&origin).len() > 300);
        });
        assert!(round == 0 || calls == 1, "{calls} allocations");
    }
}

#[test]
fn memory_is_bounded_by_the_message() {
    const SIZE: usize = 1 << 20;
    for encoding in Encoding::ALL {
        for (path, message) in support::golden(encoding) {
            check(encoding, &path.display().to_string(), &message);
        }
        check(encoding, "garbage", &support::garbage(7, SIZE));
        check(encoding, "blanks", &vec![b' '; SIZE]);
    }

    let head = [b"\x08\x01\x12\x10".as_slice(), &[1; 16]].concat();
    let repeated = |unit: &[u8]| [head.as_slice(), &unit.repeat(SIZE / unit.len())].concat();
    check(Encoding::Native, "empty strings", &repeated(b"\x42\x00"));
    check(Encoding::Native, "short strings", &repeated(b"\x42\x01a"));
    check(Encoding::Native, "numbers not packed", &repeated(b"\x70\x01"));
    check(Encoding::Native, "every column, not packed", &repeated(b"\x48\0\x50\0\x58\0\x60\0\x68\0\x70\x01\x78\0"));
    for field in [0x4a, 0x52, 0x5a, 0x62, 0x6a, 0x72, 0x7a] {
        let packed = [head.as_slice(), &[field, 0x80, 0x80, 0x40], &vec![0; SIZE]].concat();
        check(Encoding::Native, "one packed column", &packed);
        check(Encoding::Native, "a column in small pieces", &repeated(&[field, 2, 1, 1]));
        for length in [b"\xff\xff\xff\x7f".as_slice(), b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"] {
            check(Encoding::Native, "a declared length", &[head.as_slice(), &[field], length].concat());
        }
    }
    check(Encoding::Native, "a batch", &batch(100_000));

    for unit in [
        "[",
        "{",
        "{\"name\":\"",
        "{\"tags\":{\"k\":",
        "\\u0001",
        "{\"name\":\"n\"}\n",
        "[{\"name\":\"\\n\"},",
        "\u{200b}",
    ] {
        check(Encoding::Json, unit, unit.repeat(SIZE / unit.len()).as_bytes());
    }
    let filler = SIZE / 6;
    for (before, unit, after) in [
        ("{\"value\":\"", "\\u0001", "\"}"),
        ("{\"value\":\"", "\u{200b}", "\"}"),
        ("{\"name\":\"", "\\u0001", "\"}"),
        ("{\"name\":\"n\",\"tags\":{\"", "\\u0001", "\":1}}"),
        ("{\"name\":\"n\",\"tags\":{\"k\":\"", "\\u0041", "\"}}"),
        ("{\"name\":\"n\",\"tags\":{\"k\":1", "0", "}}"),
        ("{\"name\":\"n\",\"tags\":{\"a\":1", ",\"a\":1", "}}"),
        ("{\"", "\u{200b}", "\":1}"),
        ("{\"ts\":\"", "x", "\"}"),
    ] {
        let message = format!("{before}{}{after}", unit.repeat(filler));
        check(Encoding::Json, before, message.as_bytes());
    }

    for unit in ["\\ ", "n,", "n,a=", "n,\\==\\=", "n value=1i\n", "n\\,,a\\ =\\, value=1i\n", "n value=1"] {
        check(Encoding::Influx, unit, unit.repeat(SIZE / unit.len()).as_bytes());
    }
    check(Encoding::Influx, "many tags", format!("n{} value=1i", ",a=1".repeat(SIZE / 4)).as_bytes());
}
