//! Headers in one blob: for each its name and its value, each preceded by its length (u32, little endian).

use crate::Headers;

/// `None` when there are none, so that the column stays empty.
pub(super) fn pack(headers: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut packed = Vec::new();
    for (name, value) in headers {
        for part in [name.as_bytes(), value] {
            // A record is refused above 16 MiB before it gets here.
            packed.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            packed.extend_from_slice(part);
        }
    }
    Some(packed)
}

/// Headers as stored in the file. A damaged blob ends early.
pub(super) struct PackedHeaders<'a>(pub(super) &'a [u8]);

impl<'a> PackedHeaders<'a> {
    fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = std::str::from_utf8(take(&mut rest)?).ok()?;
            Some((name, take(&mut rest)?))
        })
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

impl Headers for PackedHeaders<'_> {
    fn get(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn each(&self, each: &mut dyn FnMut(&str, &[u8])) {
        for (name, value) in self.iter() {
            each(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::read_headers;

    proptest! {
        #[test]
        fn come_back_as_packed(headers in prop::collection::vec((".{0,12}", prop::collection::vec(any::<u8>(), 0..40)), 1..6)) {
            let borrowed: Vec<(&str, &[u8])> = headers.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
            let packed = pack(&borrowed).unwrap();
            let packed = PackedHeaders(&packed);
            prop_assert_eq!(read_headers(&packed), headers.clone());
            let first = &headers[0];
            prop_assert_eq!(packed.get(&first.0), Some(first.1.as_slice()));
        }

        #[test]
        fn damage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(read_headers(&PackedHeaders(&bytes)).len() <= bytes.len() / 8);
        }
    }
}
