//! Claims as a log of changes, for destinations whose rows are only added: of the changes of one entry the one with the
//! greatest number counts.

/// An entry's last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) entry: String,
    /// Rises with every change of an entry, from 1.
    pub(crate) number: u64,
    /// Whether it added the entry; otherwise it removed it.
    pub(crate) is_held: bool,
}

/// The last change of each entry. Of two with one number, made by two programs at once, the one that holds counts: to
/// halt without need is safe.
#[derive(Debug, Default)]
pub(crate) struct ClaimLog(Vec<Change>);

impl ClaimLog {
    pub(crate) fn note(&mut self, change: Change) {
        match self.0.iter_mut().find(|known| known.entry == change.entry) {
            Some(known) if (known.number, known.is_held) < (change.number, change.is_held) => *known = change,
            Some(_) => {}
            None => self.0.push(change),
        }
    }

    /// The entries that are held.
    pub(crate) fn into_held(self) -> Vec<String> {
        self.0.into_iter().filter(|change| change.is_held).map(|change| change.entry).collect()
    }

    /// The number of a change that makes the entry held or not; `None` where it is so already.
    pub(crate) fn next_number(&self, entry: &str, is_held: bool) -> Option<u64> {
        match self.0.iter().find(|change| change.entry == entry) {
            Some(known) => (known.is_held != is_held).then_some(known.number + 1),
            None => is_held.then_some(1),
        }
    }
}

/// What a message says of rows that no version of Tallybus writes.
pub(crate) fn not_ours(table: &str) -> String {
    format!(
        "{table} has rows where claims are kept that Tallybus did not write; nothing was written. Find what else writes to \
         the table, delete its rows, and restart this worker"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(number: u64, is_held: bool) -> Change {
        Change { entry: "a".to_owned(), number, is_held }
    }

    fn log(changes: &[Change]) -> ClaimLog {
        let mut log = ClaimLog::default();
        changes.iter().cloned().for_each(|change| log.note(change));
        log
    }

    #[test]
    fn the_change_with_the_greatest_number_counts_in_any_order() {
        let removed = [change(1, true), change(2, false)];
        assert!(log(&removed).into_held().is_empty());
        let [first, second] = removed;
        assert!(log(&[second, first]).into_held().is_empty());
        assert_eq!(log(&[change(3, true), change(2, false)]).into_held(), ["a"]);
    }

    #[test]
    fn of_an_addition_and_a_removal_at_once_the_addition_counts() {
        for changes in [[change(2, true), change(2, false)], [change(2, false), change(2, true)]] {
            assert_eq!(log(&changes).into_held(), ["a"]);
        }
    }

    #[test]
    fn a_change_that_changes_nothing_has_no_number() {
        assert_eq!(log(&[]).next_number("a", false), None);
        assert_eq!(log(&[]).next_number("a", true), Some(1));
        assert_eq!(log(&[change(4, true)]).next_number("a", true), None);
        assert_eq!(log(&[change(4, true)]).next_number("a", false), Some(5));
        assert_eq!(log(&[change(4, false)]).next_number("b", true), Some(1));
    }
}
