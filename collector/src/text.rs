//! The form of names and tags on the bus. Text from run time is changed to fit where necessary: a count is never lost
//! because of its label.

use std::borrow::Cow;

use tallybus_schemas::canonical::{MAX_KEY, MAX_NAME, MAX_VALUE, is_printable};

/// The most tags that a series brings along. The collector's own tags come on top, within what the schemas allow.
pub(crate) const MAX_OWN_TAGS: usize = 48;
/// The name of a counter whose name was empty.
const UNNAMED: &str = "unnamed";

/// A name and tags that fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Canonical {
    pub(crate) name: String,
    /// Sorted by key, each key once, no value empty.
    pub(crate) tags: Vec<(String, String)>,
    /// Whether anything was changed besides leaving out tags without a value.
    pub(crate) changed: bool,
}

/// `None` when the series is canonical already. `keys` are sorted, each given once.
pub(crate) fn canonical(name: &str, keys: &[&str], values: &[&str]) -> Option<Canonical> {
    let plain = !name.is_empty()
        && fits(name, MAX_NAME)
        && keys.len() <= MAX_OWN_TAGS
        && keys.iter().all(|key| !key.is_empty() && fits(key, MAX_KEY))
        && values.iter().all(|value| !value.is_empty() && fits(value, MAX_VALUE));
    if plain {
        return None;
    }
    let given = || keys.iter().zip(values).filter(|(_, value)| !value.is_empty());
    let mut tags: Vec<(String, String)> = given()
        .filter(|(key, _)| !key.is_empty())
        .map(|(key, value)| (clean(key, MAX_KEY).into_owned(), clean(value, MAX_VALUE).into_owned()))
        .collect();
    // Cleaning may change the order of keys, or make two of them one.
    tags.sort_by(|a, b| a.0.cmp(&b.0));
    tags.dedup_by(|later, earlier| later.0 == earlier.0);
    tags.truncate(MAX_OWN_TAGS);
    let cleaned = clean(name, MAX_NAME).into_owned();
    let cleaned = if cleaned.is_empty() { UNNAMED.to_owned() } else { cleaned };
    let same = cleaned == name && given().map(|(key, value)| (*key, *value)).eq(tags.iter().map(|(k, v)| (&**k, &**v)));
    Some(Canonical { name: cleaned, tags, changed: !same })
}

fn fits(text: &str, max: usize) -> bool {
    text.len() <= max && is_printable(text)
}

/// Replaces control characters by `_` and cuts at a character's boundary. Owned exactly when something changed.
pub(crate) fn clean(text: &str, max: usize) -> Cow<'_, str> {
    if fits(text, max) {
        return Cow::Borrowed(text);
    }
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let cleaned = text[..end].replace(|character: char| character.is_ascii_control(), "_");
    Cow::Owned(cleaned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_texts_pass() {
        assert_eq!(canonical("http.requests", &["a", "b"], &["/", "é"]), None);
        assert_eq!(canonical("x", &[], &[]), None);
    }

    #[test]
    fn empty_values_leave_the_tag_out_and_are_no_change() {
        let canonical = canonical("x", &["a", "b"], &["", "1"]).unwrap();
        assert_eq!(canonical.tags, [("b".to_owned(), "1".to_owned())]);
        assert!(!canonical.changed);
    }

    #[test]
    fn hostile_texts_are_made_to_fit() {
        let long = "é".repeat(2_000);
        let canonical = canonical("", &["a\n", "a\r", "b"], &["1\0", "2", &long]).unwrap();
        assert_eq!(canonical.name, "unnamed");
        assert_eq!(canonical.tags[0], ("a_".to_owned(), "1_".to_owned()));
        assert_eq!(canonical.tags.len(), 2);
        assert_eq!(canonical.tags[1].1, "é".repeat(512));
        assert!(canonical.changed);
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        for length in 0..10 {
            let text = format!("{}{}", "x".repeat(length), "🦀".repeat(300));
            let cut = clean(&text, MAX_VALUE);
            assert!(cut.len() <= MAX_VALUE && cut.len() > MAX_VALUE - 4);
            assert!(text.starts_with(&*cut));
        }
    }

    #[test]
    fn what_is_cleaned_is_canonical_to_the_schemas() {
        let all: String = (0..=0x100).filter_map(char::from_u32).collect();
        let cleaned = clean(&all, MAX_NAME).into_owned();
        assert!(cleaned.starts_with("________________________________ !"));
        tallybus_schemas::canonical::arrange(&cleaned, &mut vec![(&cleaned[..MAX_KEY], &cleaned)]).unwrap();
    }

    #[test]
    fn too_many_tags_are_cut() {
        let keys: Vec<String> = (0..60).map(|key| format!("k{key:02}")).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let canonical = canonical("x", &keys, &vec!["v"; 60]).unwrap();
        assert_eq!(canonical.tags.len(), MAX_OWN_TAGS);
        assert!(canonical.changed);
    }
}
