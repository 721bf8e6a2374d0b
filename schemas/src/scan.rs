//! Bytes read eight at a time.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// How many bytes come before the first that is `A`, `B`, a backslash or a control character; all if none is.
#[inline]
pub(crate) fn plain_until<const A: u8, const B: u8>(bytes: &[u8]) -> usize {
    let (chunks, tail) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().enumerate() {
        let word = u64::from_le_bytes(*chunk);
        // A byte that is zero, or below 0x20, sets its highest bit here, and may make those after it do so wrongly:
        // the first is right. Bytes from 0x80 on set none.
        let zero = |word: u64| word.wrapping_sub(ONES);
        let stops = (zero(word ^ (u64::from(A) * ONES)) & !(word ^ (u64::from(A) * ONES)))
            | (zero(word ^ (u64::from(B) * ONES)) & !(word ^ (u64::from(B) * ONES)))
            | (zero(word ^ (u64::from(b'\\') * ONES)) & !(word ^ (u64::from(b'\\') * ONES)))
            | (zero(word ^ (0x7f * ONES)) & !(word ^ (0x7f * ONES)))
            | (word.wrapping_sub(0x20 * ONES) & !word);
        if stops & HIGH != 0 {
            return index * 8 + (stops & HIGH).trailing_zeros() as usize / 8;
        }
    }
    let is_stop = |&byte: &u8| byte == A || byte == B || byte == b'\\' || byte < 0x20 || byte == 0x7f;
    bytes.len() - tail.len() + tail.iter().position(is_stop).unwrap_or(tail.len())
}

/// Reads 1 to 19 decimal digits, which fit 64 bits whatever they are; also returns what follows them.
#[inline]
pub(crate) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (mut value, mut rest) = (0_u64, bytes);
    for _ in 0..2 {
        let Some((chunk, after)) = rest.split_first_chunk() else { break };
        let Some(eight) = eight_digits(*chunk) else { break };
        value = value * 100_000_000 + eight;
        rest = after;
    }
    while let [digit @ b'0'..=b'9', after @ ..] = rest {
        // Only of more than 19 digits, which are refused, does it wrap.
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        rest = after;
    }
    (1..=19).contains(&(bytes.len() - rest.len())).then_some((value, rest))
}

#[inline]
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(text);
    // The upper halves of digits are 3, and still are when 6 is added to each.
    let upper = 0xf0 * ONES;
    if (word & upper) | ((word.wrapping_add(0x06 * ONES) & upper) >> 4) != 0x33 * ONES {
        return None;
    }
    let digits = word - 0x30 * ONES;
    // Neighbours become numbers of two digits, those of four, and those of eight; none ever leaves its part of the word.
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slowly(bytes: &[u8]) -> usize {
        let is_stop = |&byte: &u8| matches!(byte, b'"' | b',' | b'\\' | ..0x20 | 0x7f);
        bytes.iter().position(is_stop).unwrap_or(bytes.len())
    }

    proptest! {
        #[test]
        fn finds_the_first_stop(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(plain_until::<b'"', b','>(&bytes), slowly(&bytes));
            let tame: Vec<u8> = bytes.iter().map(|byte| byte % 4 + b' ').collect();
            prop_assert_eq!(plain_until::<b'"', b','>(&tame), slowly(&tame));
        }

        #[test]
        fn reads_numbers(text in "[0-9]{0,22}", end in "[/:a. \u{0}\u{b0}]{0,9}") {
            let bytes = [text.as_bytes(), end.as_bytes()].concat();
            let expected = (1..=19).contains(&text.len()).then(|| (text.parse().unwrap(), end.as_bytes()));
            prop_assert_eq!(number(&bytes), expected);
        }
    }

    /// The bit tricks have their corners where bytes differ from the stops by one bit or one.
    #[test]
    fn every_pair_of_neighbours() {
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                for at in 0..7 {
                    let mut bytes = [b'a'; 8];
                    bytes[at..at + 2].copy_from_slice(&[first, second]);
                    assert_eq!(plain_until::<b'"', b','>(&bytes), slowly(&bytes), "{bytes:?}");
                    let mut digits = *b"90817263";
                    digits[at..at + 2].copy_from_slice(&[first, second]);
                    let expected = digits.iter().all(u8::is_ascii_digit);
                    let expected = expected.then(|| std::str::from_utf8(&digits).unwrap().parse().unwrap());
                    assert_eq!(eight_digits(digits), expected, "{digits:?}");
                }
            }
        }
    }
}
