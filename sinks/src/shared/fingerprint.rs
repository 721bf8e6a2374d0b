//! Short names derived from texts: the same on every machine and in every version.

use sha2::{Digest as _, Sha256};
use tallybus_sdk::text::hex;

/// SHA-256 of a list of texts and their lengths, as 64 hexadecimal digits: different lists have different fingerprints.
pub(crate) fn fingerprint<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
    hex(&hash.finalize())
}

/// The first 16 digits of [`fingerprint`]: enough to distinguish the settings of one sink.
pub(crate) fn short_fingerprint<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut digits = fingerprint(texts);
    digits.truncate(16);
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_stays_as_it_is_for_ever() {
        // printf '\x01\0\0\0\0\0\0\0a\x02\0\0\0\0\0\0\0bc' | sha256sum
        let expected = "9a8acca1b6c6c0befd3fbc756aed625da998c998f7252e738c4ef061906b9b21";
        assert_eq!(fingerprint(["a", "bc"]), expected);
        assert_eq!(short_fingerprint(["a", "bc"]), expected[..16]);
    }

    #[test]
    fn lists_that_run_together_differ() {
        let lists: [&[&str]; 5] = [&[], &[""], &["ab"], &["a", "b"], &["ab", ""]];
        let distinct: std::collections::BTreeSet<String> =
            lists.iter().map(|list| fingerprint(list.iter().copied())).collect();
        assert_eq!(distinct.len(), lists.len());
    }
}
