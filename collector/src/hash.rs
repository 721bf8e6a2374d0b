//! A fast hash for short texts. Seeded per process, so that a client that chooses tag values (a request's path, say)
//! cannot make them collide in one slot.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

static SECRET: OnceLock<u64> = OnceLock::new();

/// The process's seed.
fn secret() -> u64 {
    *SECRET.get_or_init(|| RandomState::new().hash_one(ODD))
}

/// Fixes the seed, where instructions are counted; returns `false` when something has been counted before.
pub fn fix_seed(seed: u64) -> bool {
    SECRET.set(seed).is_ok()
}

/// Where the hash of a series begins: its tag keys.
pub(crate) fn of_keys(keys: &[&str]) -> u64 {
    keys.iter().fold(secret(), |state, key| with(state, key))
}

/// The hash of a whole series, from the hash of its keys and name.
#[inline]
pub(crate) fn with_all(state: u64, texts: &[&str]) -> u64 {
    texts.iter().fold(state, |state, text| with(state, text))
}

/// Extends the hash with one more text.
#[inline]
pub(crate) fn with(state: u64, text: &str) -> u64 {
    let mut rest = text.as_bytes();
    let mut state = state ^ (rest.len() as u64).wrapping_mul(ODD);
    while rest.len() > 16 {
        let (head, tail) = rest.split_at(16);
        state = fold(word(head) ^ state, word(&head[8..]) ^ state.rotate_left(32) ^ ODD);
        rest = tail;
    }
    let (low, high) = match rest.len() {
        8.. => (word(rest), word(&rest[rest.len() - 8..])),
        4.. => (half(rest), half(&rest[rest.len() - 4..])),
        1.. => (u64::from(rest[0]) << 8 | u64::from(rest[rest.len() / 2]), u64::from(rest[rest.len() - 1])),
        0 => (0, 0),
    };
    fold(low ^ state, high ^ state.rotate_left(32) ^ ODD)
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline]
fn half(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn texts_of_every_length_differ() {
        let mut seen = HashSet::new();
        for length in 0..200 {
            for byte in ["a", "b", "\0"] {
                let text = byte.repeat(length);
                if length > 0 || byte == "a" {
                    assert!(seen.insert(with(secret(), &text)), "{length} {byte:?}");
                }
            }
        }
    }

    #[test]
    fn every_byte_matters() {
        for length in 1..70 {
            let base = vec![b'x'; length];
            let plain = with(1, std::str::from_utf8(&base).unwrap());
            for at in 0..length {
                let mut other = base.clone();
                other[at] = b'y';
                assert_ne!(plain, with(1, std::str::from_utf8(&other).unwrap()), "{length} {at}");
            }
        }
    }

    #[test]
    fn a_boundary_between_texts_matters() {
        assert_ne!(with_all(1, &["ab", "c"]), with_all(1, &["a", "bc"]));
    }

    #[test]
    fn low_bits_spread() {
        let slots: HashSet<u64> = (0..4096).map(|number: u32| with(secret(), &number.to_string()) & 0xFFFF).collect();
        // 4096 balls in 65536 bins leave about 3,970 bins hit.
        assert!(slots.len() > 3_900, "{}", slots.len());
    }
}
