//! A wall clock that jumps: the counts keep their times.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers")]

mod support;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use support::{FakeBus, turn};
use tallybus::count;
use tallybus_schemas::{Decoder, Encoding, Events};

const SOON: Duration = Duration::from_secs(20);
const TEN_YEARS: i64 = 10 * 365 * 24 * 3_600;

static OFFSET: AtomicI64 = AtomicI64::new(0);

fn wall_clock() -> SystemTime {
    let offset = OFFSET.load(Ordering::Relaxed);
    let length = Duration::from_secs(offset.unsigned_abs());
    if offset < 0 { SystemTime::now() - length } else { SystemTime::now() + length }
}

#[test]
fn a_wall_clock_that_jumps_and_comes_back_dates_no_count() {
    let _turn = turn();
    let bus = FakeBus::with_partitions(1);
    let begun = i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let guard = tallybus::builder().with_wall_clock(wall_clock).start(bus.connection()).unwrap();
    for offset in [0, TEN_YEARS, 0, -TEN_YEARS, 0] {
        OFFSET.store(offset, Ordering::Relaxed);
        for _ in 0..3 {
            count!("clock");
            assert!(guard.flush(SOON));
        }
    }
    assert!(guard.shutdown(SOON).is_complete());
    let mut before = None;
    for (_, payload) in &bus.broker().log {
        let mut events = Events::new();
        Decoder::new().decode(Some(Encoding::Native), payload, 0, &mut events).unwrap();
        let origin = *events.last_origin().unwrap();
        let since = origin.interval_end - begun;
        assert!((0..60_000_000_000).contains(&since), "dated {since} ns after the start");
        assert!(origin.interval_start < origin.interval_end, "{origin:?}");
        assert!(before.is_none_or(|before| before == origin.interval_start), "intervals follow each other");
        before = Some(origin.interval_end);
    }
    assert_eq!(bus.total("clock"), 15);
}
