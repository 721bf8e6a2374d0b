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

/// The tags of one event of a text encoding, in the order of the message.
#[derive(Debug, Default)]
pub(crate) struct TagList<'a> {
    /// Key and value; copied only where an escape had to be undone.
    pub(crate) texts: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pairs: Vec<(&'static str, &'static str)>,
}

impl TagList<'_> {
    /// The same memory for texts of another message.
    pub(crate) fn recycled<'b>(self) -> TagList<'b> {
        TagList { texts: recycle(self.texts), pairs: self.pairs }
    }

    /// Brings name and tags into canonical form and announces the series.
    pub(crate) fn announce(&mut self, name: &str, receiver: &mut dyn Receiver) -> Result<u32, SeriesError> {
        let mut pairs: Vec<(&str, &str)> = recycle(mem::take(&mut self.pairs));
        pairs.extend(self.texts.iter().map(|(key, value)| (&**key, &**value)));
        let outcome = canonical::arrange(name, &mut pairs).map(|()| receiver.series(name, &pairs));
        self.pairs = recycle(pairs);
        outcome
    }
}
