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

/// The tags of one event of a text encoding, in the order of the message.
#[derive(Debug, Default)]
pub(crate) struct TagList<'a> {
    /// Key and value; copied only where an escape had to be undone.
    pub(crate) texts: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Key and value as they stand in the message, where that is known to be what they mean.
    pub(crate) plain: Vec<(&'a str, &'a str)>,
}

impl TagList<'_> {
    /// The same memory for texts of another message.
    pub(crate) fn recycled<'b>(self) -> TagList<'b> {
        TagList { texts: recycle(self.texts), plain: recycle(self.plain) }
    }

    /// Brings name and texts into canonical form and announces the series.
    pub(crate) fn announce(&mut self, name: &str, receiver: &mut dyn Receiver) -> Result<u32, SeriesError> {
        let mut pairs: Vec<(&str, &str)> = recycle(mem::take(&mut self.plain));
        pairs.extend(self.texts.iter().map(|(key, value)| (&**key, &**value)));
        let outcome = canonical::arrange(name, &mut pairs).map(|()| receiver.series(name, &pairs));
        self.plain = recycle(pairs);
        outcome
    }

    /// As [`TagList::announce`], with the plain tags, of which all are printable; `None` where they are no series'.
    pub(crate) fn announce_plain(&mut self, name: &str, receiver: &mut dyn Receiver) -> Option<u32> {
        canonical::arrange_printable(name, &mut self.plain).ok()?;
        Some(receiver.series(name, &self.plain))
    }
}
