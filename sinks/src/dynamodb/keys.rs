//! Names in the table: of a series, of a time, of a partition's mark. They depend on their text alone and never change.

use sha2::{Digest, Sha256};
use tallybus_sdk::text::hex;

use crate::shared::calendar;

/// Hexadecimal digits of a topic's hash in the name of a mark.
const TOPIC_DIGITS: usize = 12;

/// The hash of a series: SHA-256 over a JSON array of its name and then key and value of each tag, without spaces, as 64
/// hexadecimal digits. No two series share the text, and no two are known to share the hash.
pub(super) fn series_hash<'t>(name: &str, tags: impl Iterator<Item = (&'t str, &'t str)>) -> String {
    let mut text = String::from("[");
    text.push_str(&serde_json::Value::from(name).to_string());
    for part in tags.flat_map(|(key, value)| [key, value]) {
        text.push(',');
        text.push_str(&serde_json::Value::from(part).to_string());
    }
    text.push(']');
    hex(&Sha256::digest(text.as_bytes()))
}

/// The partition key of a series: 64 hexadecimal digits, `#`, and the shard.
pub(super) fn partition_key(series_hash: &str, shard: u32) -> String {
    format!("{series_hash}#{shard}")
}

/// The attribute that holds a partition's mark in an item: `@3f2a91c04b7e.12`. Topics are distinguished by 48 bits of
/// SHA-256; creating a sink checks that those of its topics differ.
pub(super) fn mark(topic: &str, partition: u32) -> String {
    format!("@{}.{partition}", topic_hash(topic))
}

/// The topic in the name of a mark.
pub(super) fn topic_hash(topic: &str) -> String {
    let mut hash = hex(&Sha256::digest(topic.as_bytes()));
    hash.truncate(TOPIC_DIGITS);
    hash
}

/// The partition key of a partition's ledger item. A series' is 64 hexadecimal digits and `#`, so that no series has it.
pub(super) fn ledger_key(topic: &str, partition: u32) -> String {
    format!("ledger#{}/{partition}", topic_text(topic))
}

/// The sort key of every ledger item. It does not begin with a time, so that totals and windows skip it.
pub(super) const LEDGER_SORT: &str = "ledger";

/// A number derived from a partition, to spread the partitions over shards.
pub(super) fn partition_number(topic: &str, partition: u32) -> u64 {
    let digest = Sha256::digest(topic.as_bytes());
    let spread = digest.iter().take(4).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    spread + u64::from(partition)
}

/// The topic's name in the key of an event's item. Names longer than Kafka allows are hashed: a sort key holds 1,024
/// bytes.
pub(super) fn topic_text(topic: &str) -> String {
    if topic.len() <= 255 && !topic.starts_with('@') { topic.to_owned() } else { format!("@{}", hash_of(topic)) }
}

fn hash_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

/// `2023-11-14T22:13:20.000000000Z`: of the same length for every time, so that texts sort in the order of times.
pub(super) fn time_text(time: i64) -> String {
    format!("{:.9}Z", calendar::utc(time))
}

/// The time at the beginning of a sort key; `None` for a key that no sink wrote.
pub(super) fn parse_time(key: &str) -> Option<i64> {
    let text = key.get(..TIME_LEN)?;
    let time = calendar::nanos(text.strip_suffix('Z')?.parse().ok()?)?;
    (time_text(time) == text).then_some(time)
}

const TIME_LEN: usize = "2023-11-14T22:13:20.000000000Z".len();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_stay_as_they_are_for_ever() {
        let tags = [("route", "/v1"), ("status", "200")];
        // printf '%s' '["http.requests","route","/v1","status","200"]' | sha256sum
        let hash = series_hash("http.requests", tags.into_iter());
        assert_eq!(hash, "0d345eb5a8df5324f00b14465ba01e6301e0b792da6871067f0f2c03d9f54e78");
        assert_eq!(partition_key(&hash, 3), format!("{hash}#3"));
        assert_eq!(mark("tallybus.counters", 12), "@3fa71730870d.12");
        assert_eq!(time_text(1_700_000_000_123_456_789), "2023-11-14T22:13:20.123456789Z");
        assert_eq!(time_text(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(time_text(i64::MIN), "1677-09-21T00:12:43.145224192Z");
        assert_eq!(time_text(i64::MAX), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(time_text(1_709_164_800_000_000_000), "2024-02-29T00:00:00.000000000Z");
    }

    #[test]
    fn texts_that_run_together_are_other_series() {
        let plain = |name: &str, tags: &[(&str, &str)]| series_hash(name, tags.iter().copied());
        let all = [
            plain("a", &[]),
            plain("a", &[("", "")]),
            plain("a\",\"b", &[]),
            plain("a", &[("b", "c")]),
            plain("a", &[("b\",\"c", "")]),
            plain("a", &[("b", "c"), ("d", "e")]),
            plain("a", &[("b", "c\",\"d\",\"e")]),
        ];
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn a_ledger_item_is_no_series_and_has_no_time() {
        assert_eq!(ledger_key("tallybus.counters", 12), "ledger#tallybus.counters/12");
        assert!(ledger_key(&"t".repeat(2_000), u32::MAX).len() < 100);
        assert_eq!(parse_time(LEDGER_SORT), None);
        assert_ne!(ledger_key("a/1", 2), ledger_key("a", 12));
        assert!(partition_key(&series_hash("ledger", [].into_iter()), 0).len() > 64);
    }

    #[test]
    fn a_topic_with_a_longer_name_than_a_key_holds_is_hashed() {
        assert_eq!(topic_text("tallybus.counters"), "tallybus.counters");
        assert_eq!(topic_text(&"t".repeat(2_000)).len(), 65);
        assert_ne!(topic_text(&topic_text(&"t".repeat(2_000))), topic_text(&"t".repeat(2_000)));
    }

    proptest! {
        #[test]
        fn times_come_back_and_sort_as_they_are(one in any::<i64>(), two in any::<i64>()) {
            prop_assert_eq!(parse_time(&time_text(one)), Some(one));
            prop_assert_eq!(parse_time(&format!("{}/t/1/2/3", time_text(one))), Some(one));
            prop_assert_eq!(time_text(one).cmp(&time_text(two)), one.cmp(&two));
        }

        #[test]
        fn no_other_text_is_a_time(text in "\\PC{0,40}") {
            if let Some(time) = parse_time(&text) {
                prop_assert!(text.starts_with(&time_text(time)));
            }
        }
    }
}
