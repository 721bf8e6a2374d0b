//! What several test binaries share.
#![allow(dead_code, unreachable_pub, reason = "each binary uses a part")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test stops at the first surprise")]

#[path = "../../fuzz/src/lib.rs"]
pub mod bodies;
pub mod model;
// The SDK's own file: the SDK depends on this crate, so its tests cannot depend on the SDK.
#[path = "../../../sdk/src/rng.rs"]
pub mod rng;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tallybus_schemas::{Encoding, Event, Series};

use self::rng::Rng;

/// Random bytes, the same for the same seed.
pub fn garbage(seed: u64, count: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| rng.number().to_le_bytes()[7]).collect()
}

/// The golden messages of an encoding: path and bytes, sorted by path.
pub fn golden(encoding: Encoding) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(encoding.name());
    let mut files: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "expected"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// The body that holds an encoding's decoder to its promises.
pub fn body(encoding: Encoding) -> fn(&[u8]) {
    match encoding {
        Encoding::Native => bodies::native,
        Encoding::Json => bodies::json,
        Encoding::Influx => bodies::influx,
    }
}

pub fn series(name: &str, tags: &BTreeMap<String, String>) -> Series {
    let tags: Vec<(&str, &str)> = tags.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    Series::from_sorted(name, &tags)
}

pub fn event(name: &str, tags: &[(&str, &str)], value: u64, time: i64) -> Event {
    Event { series: Series::from_sorted(name, tags), value, time }
}

/// Text that some encoding may trip over, without control characters.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[a-z]{1,6}",
        2 => r#"[a-c ,=\\"'#{}\[\]:/_|]{1,8}"#,
        1 => "\\PC{1,10}",
    ]
}

pub fn tags() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(text(), text(), 0..6)
}

pub fn values() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1..300_u64, 1 => 1..=u64::MAX, 1 => Just(u64::MAX)]
}

/// Times that line protocol can hold too: no number that would be taken for one of another unit.
pub fn times() -> impl Strategy<Value = i64> {
    let now = bodies::RECORD_TIME;
    prop_oneof![2 => now - 1_000_000_000..now + 1_000, 1 => 100_000_000_000_000_000..=i64::MAX, 1 => Just(0), 1 => Just(i64::MAX)]
}

/// Up to 40 events, of which several share a series.
pub fn events() -> impl Strategy<Value = Vec<Event>> {
    let pool = prop::collection::vec((text(), tags()), 1..8);
    let picks = prop::collection::vec((any::<prop::sample::Index>(), values(), times()), 0..40);
    (pool, picks).prop_map(|(pool, picks)| {
        let pick = |(index, value, time): (prop::sample::Index, u64, i64)| {
            let (name, tags) = index.get(&pool);
            Event { series: series(name, tags), value, time }
        };
        picks.into_iter().map(pick).collect()
    })
}
