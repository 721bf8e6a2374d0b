//! The rules for a valid series (name and tags), shared by every decoder and the collector.
//!
//! Two producers that mean the same series must arrive at the same bytes, whatever their encoding. So tags are sorted
//! by key (byte order), a tag with an empty value is the same as no tag (as in InfluxDB), and a repeated key is an
//! error, because no choice between the two would be right. Control characters are refused: several backends cannot
//! hold them, and a series must exist in all or in none.

use std::cmp::Ordering;

use crate::SeriesError;

/// Longest counter name, in bytes.
pub const MAX_NAME: usize = 512;
/// Longest tag key, in bytes.
pub const MAX_KEY: usize = 256;
/// Longest tag value, in bytes.
pub const MAX_VALUE: usize = 1024;
/// Most tags of a series, those with empty values included.
pub const MAX_TAGS: usize = 64;

/// Checks name and tags, sorts the tags by key and drops those with an empty value.
///
/// # Errors
/// Names the part that no series can have: an empty, too long or unprintable name, key or value, a repeated key, or
/// too many tags. The tags' order is then unspecified.
pub fn arrange(name: &str, tags: &mut Vec<(&str, &str)>) -> Result<(), SeriesError> {
    if !is_printable(name) {
        return Err(SeriesError::name(UNPRINTABLE));
    }
    for (key, value) in tags.iter() {
        if !is_printable(key) || !is_printable(value) {
            return Err(SeriesError::tag(key, UNPRINTABLE));
        }
    }
    arrange_printable(name, tags)
}

/// Whether text is free of control characters (below 0x20, and 0x7f).
pub fn is_printable(text: &str) -> bool {
    // No early exit: so the loop is vectorised, and nearly all texts are printable.
    !text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == 0x7f))
}

pub(crate) const UNPRINTABLE: &str = "control characters are not allowed";
pub(crate) const TOO_MANY_TAGS: &str = "more than 64 tags";

/// As [`arrange`], for texts known to be printable.
pub(crate) fn arrange_printable(name: &str, tags: &mut Vec<(&str, &str)>) -> Result<(), SeriesError> {
    let kept = arrange_in_place(name, tags)?;
    tags.truncate(kept);
    Ok(())
}

/// As [`arrange_printable`], without truncating; returns the number of tags left, which come first.
pub(crate) fn arrange_in_place(name: &str, tags: &mut [(&str, &str)]) -> Result<usize, SeriesError> {
    if name.is_empty() {
        return Err(SeriesError::name("must not be empty"));
    }
    if name.len() > MAX_NAME {
        return Err(SeriesError::name("is longer than 512 bytes"));
    }
    if tags.len() > MAX_TAGS {
        return Err(SeriesError::tags(TOO_MANY_TAGS));
    }
    // There are few, and mostly they are in order: inserting each where it belongs compares each pair of neighbours
    // once.
    for next in 1..tags.len() {
        for at in (1..=next).rev() {
            match tags[at - 1].0.cmp(tags[at].0) {
                Ordering::Less => break,
                Ordering::Equal => return Err(SeriesError::tag(tags[at].0, "the tag is given twice")),
                Ordering::Greater => tags.swap(at - 1, at),
            }
        }
    }
    let mut empty_values = false;
    for &(key, value) in tags.iter() {
        if key.is_empty() {
            return Err(SeriesError::tags("a tag key is empty"));
        }
        if key.len() > MAX_KEY {
            return Err(SeriesError::tag(key, "the key is longer than 256 bytes"));
        }
        if value.len() > MAX_VALUE {
            return Err(SeriesError::tag(key, "the value is longer than 1024 bytes"));
        }
        empty_values |= value.is_empty();
    }
    if !empty_values {
        return Ok(tags.len());
    }
    let mut kept = 0;
    for at in 0..tags.len() {
        if !tags[at].1.is_empty() {
            tags[kept] = tags[at];
            kept += 1;
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, tags: &[(&str, &str)]) -> String {
        arrange(name, &mut tags.to_vec()).unwrap_err().to_string()
    }

    #[test]
    fn sorts_and_drops_empty_values() {
        let mut tags = vec![("b", "2"), ("a", ""), ("B", "1")];
        arrange("n", &mut tags).unwrap();
        assert_eq!(tags, [("B", "1"), ("b", "2")]);
    }

    #[test]
    fn accepts_every_limit_and_refuses_one_more() {
        let (name, key, value) = ("n".repeat(MAX_NAME), "k".repeat(MAX_KEY), "v".repeat(MAX_VALUE));
        arrange(&name, &mut vec![(&key, &value)]).unwrap();
        assert_eq!(refused(&format!("{name}n"), &[]), "name: is longer than 512 bytes");
        assert!(refused("n", &[(&format!("{key}k"), "v")]).ends_with("the key is longer than 256 bytes"));
        assert_eq!(refused("n", &[("k", &format!("{value}v"))]), "tags.k: the value is longer than 1024 bytes");

        let keys: Vec<String> = (0..=MAX_TAGS).map(|key| format!("k{key}")).collect();
        let mut tags: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "v")).collect();
        assert_eq!(arrange("n", &mut tags.clone()).unwrap_err().reason, TOO_MANY_TAGS);
        tags.pop();
        arrange("n", &mut tags).unwrap();
        assert_eq!(tags.len(), MAX_TAGS);
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(refused("", &[]), "name: must not be empty");
        assert_eq!(refused("a\nb", &[]), "name: control characters are not allowed");
        assert_eq!(refused("n", &[("", "v")]), "tags: a tag key is empty");
        assert_eq!(refused("n", &[("k", "v\u{7f}")]), "tags.k: control characters are not allowed");
        assert_eq!(refused("n", &[("k\0", "v")]), "tags.k\\0: control characters are not allowed");
        assert_eq!(refused("n", &[("k", "1"), ("a", "2"), ("k", "")]), "tags.k: the tag is given twice");
        assert_eq!(refused("n", &[("k", "1"), ("k", "1")]), "tags.k: the tag is given twice");
    }
}
