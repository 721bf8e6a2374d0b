use std::borrow::Cow;
use std::mem;

use crate::{Receiver, SeriesError, canonical};

/// Empties a vector for another element type of the same shape, mostly another lifetime, and keeps its memory.
///
/// The standard library collects in place when sizes agree; a test with a counting allocator watches that it does.
pub(crate) fn recycle<A, B>(mut used: Vec<A>) -> Vec<B> {
    used.clear();
    used.into_iter().filter_map(|_| None).collect()
}

/// A decoder's list of tags, taken out for a message when its first event needs it, and given back in the end.
pub(crate) struct Tags<'s, 'a> {
    kept: &'s mut TagList<'static>,
    taken: Option<TagList<'a>>,
}

impl<'s, 'a> Tags<'s, 'a> {
    pub(crate) fn of(kept: &'s mut TagList<'static>) -> Self {
        Self { kept, taken: None }
    }

    #[inline]
    pub(crate) fn list(&mut self) -> &mut TagList<'a> {
        self.taken.get_or_insert_with(|| mem::take(self.kept).recycled())
    }

    /// The key of the last tag in [`TagList::texts`].
    pub(crate) fn last_key(&self) -> Option<&str> {
        self.taken.as_ref()?.texts.last().map(|(key, _)| &**key)
    }
}

impl Drop for Tags<'_, '_> {
    fn drop(&mut self) {
        if let Some(list) = self.taken.take() {
            *self.kept = list.recycled();
        }
    }
}

/// The tags of one event of a text encoding, in the order of the message. Copied only where an escape had to be undone.
#[derive(Debug, Default)]
pub(crate) struct TagList<'a> {
    /// Key and value.
    pub(crate) texts: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Working memory, empty between calls.
    pairs: Vec<(&'static str, &'static str)>,
}

impl TagList<'_> {
    /// The same memory for texts of another message.
    fn recycled<'b>(self) -> TagList<'b> {
        TagList { texts: recycle(self.texts), pairs: self.pairs }
    }

    /// Brings name and texts into canonical form and announces the series.
    pub(crate) fn announce(&mut self, name: &str, receiver: &mut dyn Receiver) -> Result<u32, SeriesError> {
        let mut pairs: Vec<(&str, &str)> = recycle(mem::take(&mut self.pairs));
        pairs.extend(self.texts.iter().map(|(key, value)| (&**key, &**value)));
        let outcome = canonical::arrange(name, &mut pairs).map(|()| receiver.series(name, &pairs));
        self.pairs = recycle(pairs);
        outcome
    }
}

/// More tags than nearly any series has; those that have more are left to the parser.
const FEW: usize = 32;

/// The tags of a plain event, as written in the message, without escapes. All are printable.
pub(crate) struct PlainTags<'a> {
    pairs: [(&'a str, &'a str); FEW],
    len: usize,
}

impl<'a> PlainTags<'a> {
    pub(crate) fn new() -> Self {
        Self { pairs: [("", ""); FEW], len: 0 }
    }

    /// `None` when there are too many.
    pub(crate) fn push(&mut self, key: &'a str, value: &'a str) -> Option<()> {
        *self.pairs.get_mut(self.len)? = (key, value);
        self.len += 1;
        Some(())
    }

    /// Announces the series; `None` where name and tags are no series'.
    pub(crate) fn announce(&mut self, name: &str, receiver: &mut dyn Receiver) -> Option<u32> {
        let tags = &mut self.pairs[..self.len];
        let kept = canonical::arrange_in_place(name, tags).ok()?;
        Some(receiver.series(name, &tags[..kept]))
    }
}
