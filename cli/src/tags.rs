//! Tags that a command asks for, and those that events have.

use std::collections::BTreeSet;

use tallybus_schemas::Series;
use tallybus_sdk::config::nearest;
use tallybus_sdk::filter::FIELDS;

use crate::text;

/// The maximum number of tags that are named when one is unknown.
const MOST_NAMED: usize = 20;
/// The maximum number of tags that are kept to name them.
const MOST_KEPT: usize = 10_000;

/// The tags that a command asks for, and those that it has seen.
#[derive(Debug, Default)]
pub(crate) struct KnownTags {
    asked: Vec<String>,
    /// Those of `asked` that no event has had.
    missing: Vec<String>,
    seen: BTreeSet<Box<str>>,
    has_events: bool,
}

impl KnownTags {
    pub(crate) fn asked_for<'k>(keys: impl IntoIterator<Item = &'k str>) -> Self {
        let asked: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        Self { missing: asked.clone(), asked, ..Self::default() }
    }

    /// Takes note of the tags of a series. To be called once for each.
    pub(crate) fn see(&mut self, series: &Series) {
        self.has_events = true;
        if self.missing.is_empty() {
            return;
        }
        self.missing.retain(|key| series.tag(key).is_none());
        for (key, _) in series.tags() {
            if self.seen.len() < MOST_KEPT && !self.seen.contains(key) {
                self.seen.insert(key.clone());
            }
        }
    }

    /// Whether no event has any of the tags that were asked for.
    pub(crate) fn all_missing(&self) -> bool {
        self.missing.len() == self.asked.len()
    }

    /// A note for each tag that was asked for and that no event has had, unless there was no event.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let missing = self.missing.iter().filter(|_| self.has_events);
        missing.map(|key| no_such_tag(key, &self.seen)).collect()
    }
}

fn no_such_tag(tag: &str, tags: &BTreeSet<Box<str>>) -> String {
    let shown = tag.escape_debug();
    if tags.is_empty() {
        return format!("no event has the tag `{shown}`: none has any tag");
    }
    // Backwards: of several that are as near, the first.
    let near = nearest(tag, tags.iter().rev().map(|other| &**other));
    let field = FIELDS.into_iter().find(|field| strsim::damerau_levenshtein(tag, field) <= 1);
    let hint = match (near, field) {
        (Some(other), _) => format!("; did you mean `{}`?", other.escape_debug()),
        (None, Some(field)) => format!("; did you mean the field `{field}`?"),
        (None, None) => String::new(),
    };
    let named: Vec<String> = tags.iter().take(MOST_NAMED).map(|tag| tag.escape_debug().to_string()).collect();
    let more = tags.len() - named.len();
    let more = if more > 0 { format!(" and {} more", text::grouped(more as u64)) } else { String::new() };
    format!("no event has the tag `{shown}`; tags: {}{more}{hint}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_no_event_has_is_answered_with_those_that_events_have() {
        let tags = |count: usize| (0..count).map(|number| format!("t{number:02}").into()).collect::<BTreeSet<_>>();
        assert_eq!(no_such_tag("xyz", &tags(2)), "no event has the tag `xyz`; tags: t00, t01");
        assert!(no_such_tag("xyz", &tags(23)).ends_with("t19 and 3 more"));
        assert_eq!(no_such_tag("x", &tags(0)), "no event has the tag `x`: none has any tag");
        assert!(no_such_tag("t0", &tags(2)).ends_with("tags: t00, t01; did you mean `t00`?"));
        assert!(no_such_tag("vaule", &tags(1)).ends_with("; did you mean the field `value`?"));
    }

    #[test]
    fn tags_that_some_event_has_are_not_noted() {
        let mut known = KnownTags::asked_for(["route", "zone"]);
        assert_eq!(known.unknown(), [""; 0], "there was no event");
        known.see(&Series::from_sorted("a", &[("route", "/v1")]));
        assert_eq!(known.unknown(), ["no event has the tag `zone`; tags: route"]);
        assert!(!known.all_missing());
        known.see(&Series::from_sorted("a", &[("zone", "1")]));
        assert_eq!(known.unknown(), [""; 0]);
    }
}
