//! Names in the table: of a series, of a time, of a lane. They follow from their text alone, the same for ever.

use sha2::{Digest, Sha256};

/// Hexadecimal digits of a topic's hash in the name of a lane.
const LANE_DIGITS: usize = 12;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// The hash of a series: SHA-256 over a JSON array of its name and then key and value of each tag, without spaces, as 64
/// hexadecimal digits. No two series share the text, and nobody finds two that share the hash.
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

/// The attribute that holds how far a partition has come in an item: `@3f2a91c04b7e.12`. Topics are told apart by 48 bits of
/// SHA-256; that those of one sink differ is looked at when it is made.
pub(super) fn lane(topic: &str, partition: u32) -> String {
    format!("@{}.{partition}", topic_hash(topic))
}

/// What stands for a topic in the name of a lane.
pub(super) fn topic_hash(topic: &str) -> String {
    let mut hash = hex(&Sha256::digest(topic.as_bytes()));
    hash.truncate(LANE_DIGITS);
    hash
}

/// A number that follows from a lane, to spread lanes over shards.
pub(super) fn lane_number(topic: &str, partition: u32) -> u64 {
    let digest = Sha256::digest(topic.as_bytes());
    let spread = digest.iter().take(4).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    spread + u64::from(partition)
}

/// What an event's topic is called in the key of its item. Longer names than Kafka allows are hashed: a sort key holds 1,024
/// bytes.
pub(super) fn topic_text(topic: &str) -> String {
    if topic.len() <= 255 && !topic.starts_with('@') { topic.to_owned() } else { format!("@{}", hash_of(topic)) }
}

fn hash_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

fn hex(bytes: &[u8]) -> String {
    let digits = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(digits[usize::from(digit)])).collect()
}

/// `2023-11-14T22:13:20.000000000Z`: as long for every time, so that texts sort as times do.
pub(super) fn time_text(time: i64) -> String {
    let (seconds, nanos) = (time.div_euclid(NANOS_PER_SECOND), time.rem_euclid(NANOS_PER_SECOND));
    let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// The time at the beginning of a sort key; `None` when somebody else wrote it.
pub(super) fn parse_time(key: &str) -> Option<i64> {
    let text = key.get(..TIME_LEN)?;
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok())?
    };
    let days = days(number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
    let time =
        i128::from(days * SECONDS_PER_DAY + seconds) * i128::from(NANOS_PER_SECOND) + i128::from(number(20, 29)?);
    let time = i64::try_from(time).ok()?;
    (time_text(time) == text).then_some(time)
}

const TIME_LEN: usize = "2023-11-14T22:13:20.000000000Z".len();

/// Year, month and day of a day since 1970-01-01, by Hinnant's algorithm: years begin in March, so that the leap day is last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

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
        assert_eq!(lane("tallybus.counters", 12), "@3fa71730870d.12");
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
