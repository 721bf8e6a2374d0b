use tallybus_sdk::{Foreign, ForeignKind};

/// How many foreign points are kept with their details, of each kind.
const MOST_KEPT: usize = 20;

/// What a backend holds and no sink wrote: all of it counted, some of it named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignFindings {
    /// The first few of each kind, in the order found.
    pub named: Vec<Foreign>,
    /// Points by kind.
    pub counts: Vec<(ForeignKind, u64)>,
}

impl ForeignFindings {
    pub(super) fn add(&mut self, foreign: Foreign) {
        match self.counts.iter_mut().find(|(kind, _)| *kind == foreign.kind) {
            Some((_, points)) => *points = points.saturating_add(foreign.points),
            None => self.counts.push((foreign.kind, foreign.points)),
        }
        if self.named.iter().filter(|named| named.kind == foreign.kind).count() < MOST_KEPT {
            self.named.push(foreign);
        }
    }

    /// The points that are left out of the comparison.
    pub fn left_out(&self) -> u64 {
        let counts = self.counts.iter().filter(|(kind, _)| *kind != ForeignKind::OffWindow);
        counts.map(|(_, points)| points).sum()
    }

    /// The points whose time is not a window's start. They are compared, in the window that contains them.
    pub fn off_window(&self) -> u64 {
        let counts = self.counts.iter().filter(|(kind, _)| *kind == ForeignKind::OffWindow);
        counts.map(|(_, points)| points).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_few_of_each_kind_are_kept() {
        let mut findings = ForeignFindings::default();
        for number in 0..1_000 {
            findings.add(Foreign::new(ForeignKind::Negative, number).of(2));
        }
        findings.add(Foreign::new(ForeignKind::Tags, "tags"));
        findings.add(Foreign::new(ForeignKind::OffWindow, "off"));
        assert_eq!((findings.left_out(), findings.off_window()), (2_001, 1));
        assert_eq!(findings.named.len(), MOST_KEPT + 2);
        assert_eq!(findings.named[0].what, "0");
    }
}
