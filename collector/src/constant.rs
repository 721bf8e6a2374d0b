//! What the macros check while a program is compiled. A panic here is the compiler's error message.
#![allow(clippy::panic, reason = "evaluated by the compiler, where a panic is an error message")]

use tallybus_schemas::canonical::{MAX_KEY, MAX_NAME};

use crate::TagValue;
use crate::text::MAX_OWN_TAGS;

/// Refuses literals that cannot be the name of a counter.
pub const fn checked_name(name: &'static str) -> &'static str {
    if name.is_empty() {
        panic!("the name of a counter must not be empty");
    }
    if name.len() > MAX_NAME {
        panic!("the name of a counter must not be longer than 512 bytes");
    }
    if !is_printable(name) {
        panic!("the name of a counter must not contain control characters");
    }
    name
}

/// A tag key as it is sent: `r#type` is `type`.
pub const fn checked_key(key: &'static str) -> &'static str {
    let key = match key.as_bytes() {
        [b'r', b'#', ..] => key.split_at(2).1,
        _ => key,
    };
    if key.is_empty() {
        panic!("a tag key must not be empty");
    }
    if key.len() > MAX_KEY {
        panic!("a tag key must not be longer than 256 bytes");
    }
    if !is_printable(key) {
        panic!("a tag key must not contain control characters");
    }
    key
}

/// A literal count. `text` is as written: floats and signs are refused.
pub const fn checked_value(text: &str, value: u64) -> u64 {
    let bytes = text.as_bytes();
    let decimal = !matches!(bytes, [b'0', b'x' | b'o' | b'b', ..]);
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if (at == 0 && !byte.is_ascii_digit()) || byte == b'.' || (decimal && matches!(byte, b'e' | b'E' | b'f')) {
            panic!("a count must be an unsigned whole number");
        }
        at += 1;
    }
    value
}

/// The order of the keys: the place of the first, of the second, and so on. Refuses a key given twice.
pub const fn order<const N: usize>(keys: &[&'static str; N]) -> [usize; N] {
    if N > MAX_OWN_TAGS {
        panic!("a counter must not have more than 48 tags");
    }
    let mut order = [0; N];
    let mut sorted = 0;
    while sorted < N {
        let mut place = sorted;
        while place > 0 {
            match compare(keys[order[place - 1]].as_bytes(), keys[sorted].as_bytes()) {
                0 => panic!("a tag key is given twice"),
                1 => order[place] = order[place - 1],
                _ => break,
            }
            place -= 1;
        }
        order[place] = sorted;
        sorted += 1;
    }
    order
}

/// The texts in that order.
pub const fn arranged<const N: usize>(texts: [&'static str; N], order: [usize; N]) -> [&'static str; N] {
    let mut arranged = [""; N];
    let mut place = 0;
    while place < N {
        arranged[place] = texts[order[place]];
        place += 1;
    }
    arranged
}

/// Refuses literals that cannot be tag values.
pub const fn is_tag<T: TagValue>(_: &T) {}

/// -1, 0 or 1: byte order, as the schemas sort.
const fn compare(left: &[u8], right: &[u8]) -> i8 {
    let mut at = 0;
    while at < left.len() && at < right.len() {
        if left[at] != right[at] {
            return if left[at] < right[at] { -1 } else { 1 };
        }
        at += 1;
    }
    if left.len() == right.len() {
        0
    } else if left.len() < right.len() {
        -1
    } else {
        1
    }
}

const fn is_printable(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at].is_ascii_control() {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_arranged_as_the_schemas_sort() {
        let keys = ["b", "a", "B", "ab", "z.y", "z"];
        let mut sorted = keys;
        sorted.sort_unstable();
        assert_eq!(arranged(keys, order(&keys)), sorted);
        assert_eq!(order(&[]), [0usize; 0]);
    }

    #[test]
    #[should_panic(expected = "given twice")]
    fn a_key_given_twice_is_refused() {
        let _ = order(&["a", "b", "a"]);
    }

    #[test]
    fn raw_identifiers_lose_their_mark() {
        assert_eq!(checked_key("r#type"), "type");
        assert_eq!(checked_key("r"), "r");
    }

    #[test]
    fn literals() {
        assert_eq!(checked_value("0xfe", 0xfe), 0xfe);
        assert_eq!(checked_value("1_000u64", 1_000), 1_000);
        for wrong in ["1.5", "1e3", "-1", "true", "1f32", "'a'"] {
            assert!(std::panic::catch_unwind(|| checked_value(wrong, 1)).is_err(), "{wrong}");
        }
    }
}
