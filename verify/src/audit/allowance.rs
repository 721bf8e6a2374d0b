use std::collections::BTreeMap;

/// What a window may hold beyond what it must.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Allowance {
    /// The value of events that are sealed and not settled: any part of it may be in the backend.
    pub(super) in_flight: u128,
    /// The values of its dead letters: each is in the backend as a whole or not at all.
    pub(super) dead_letters: Vec<u128>,
}

/// The judgement of one window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) missing: u128,
    pub(super) extra: u128,
    /// The value that is explained only if the backend stored dead letters after all.
    pub(super) taken_after_all: u128,
}

/// So many different sums of dead letters are tried in one window. Beyond that, what they might explain is extra.
const MOST_SUMS: usize = 4_096;

impl Allowance {
    /// Judges a window: `balance` is what it must hold, less what it holds.
    pub(super) fn judge(&self, balance: i128) -> Judged {
        if balance >= 0 {
            return Judged { missing: balance.unsigned_abs(), ..Judged::default() };
        }
        let over = balance.unsigned_abs();
        let beyond = over.saturating_sub(self.in_flight);
        if beyond == 0 {
            return Judged::default();
        }
        let sums = self.sums(over);
        // The smallest sum that explains everything; otherwise the largest, which explains the most.
        match sums.iter().copied().filter(|sum| *sum >= beyond).min() {
            Some(sum) => Judged { taken_after_all: sum, ..Judged::default() },
            None => {
                let most = sums.iter().copied().max().unwrap_or_default();
                Judged { extra: beyond - most, taken_after_all: most, missing: 0 }
            }
        }
    }

    /// The sums of some of the dead letters, none of them over `most`.
    fn sums(&self, most: u128) -> Vec<u128> {
        let mut counts: BTreeMap<u128, u128> = BTreeMap::new();
        for value in self.dead_letters.iter().filter(|value| **value <= most) {
            *counts.entry(*value).or_default() += 1;
        }
        let mut sums = vec![0_u128];
        for (value, mut left) in counts {
            // So many of equal ones as powers of two, whose sums are all their multiples.
            let mut times = 1;
            while left > 0 {
                let taken = left.min(times);
                let step = value.saturating_mul(taken);
                let more: Vec<u128> =
                    sums.iter().filter_map(|sum| sum.checked_add(step)).filter(|sum| *sum <= most).collect();
                sums.extend(more);
                sums.sort_unstable();
                sums.dedup();
                if sums.len() > MOST_SUMS {
                    return sums;
                }
                (left, times) = (left - taken, times * 2);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(balance: i128, in_flight: u128, dead_letters: &[u128]) -> (u128, u128, u128) {
        let judged = Allowance { in_flight, dead_letters: dead_letters.to_vec() }.judge(balance);
        (judged.missing, judged.extra, judged.taken_after_all)
    }

    #[test]
    fn a_window_is_equal_within_its_bounds_and_not_one_beyond() {
        assert_eq!(judge(0, 0, &[]), (0, 0, 0));
        assert_eq!(judge(1, 0, &[]), (1, 0, 0));
        assert_eq!(judge(-1, 0, &[]), (0, 1, 0));
        // In flight: any part of 20 may be there; nothing of it excuses what is missing.
        assert_eq!(judge(1, 20, &[]), (1, 0, 0));
        assert_eq!(judge(-1, 20, &[]), (0, 0, 0));
        assert_eq!(judge(-20, 20, &[]), (0, 0, 0));
        assert_eq!(judge(-21, 20, &[]), (0, 1, 0));
        assert_eq!(judge(i128::MIN, 0, &[]), (0, 1 << 127, 0));
        assert_eq!(judge(i128::MAX, u128::MAX, &[u128::MAX]), (u128::MAX >> 1, 0, 0));
    }

    #[test]
    fn a_dead_letter_is_in_the_backend_whole_or_not_at_all() {
        assert_eq!(judge(-30, 0, &[30]), (0, 0, 30));
        assert_eq!(judge(-29, 0, &[30]), (0, 29, 0), "a part of a dead letter explains nothing");
        assert_eq!(judge(-31, 0, &[30]), (0, 1, 30));
        assert_eq!(judge(1, 0, &[30]), (1, 0, 0));
        // Some of several.
        for (over, expected) in [(5, (0, 0, 5)), (7, (0, 0, 7)), (12, (0, 0, 12)), (6, (0, 1, 5)), (13, (0, 1, 12))] {
            assert_eq!(judge(-over, 0, &[5, 7]), expected, "{over}");
        }
        // A huge one raises no bound.
        assert_eq!(judge(-500_000, 0, &[u128::from(u64::MAX)]), (0, 500_000, 0));
        // Beside events in flight: between 5 and 7.
        assert_eq!(judge(-4, 2, &[5]), (0, 2, 0));
        assert_eq!(judge(-5, 2, &[5]), (0, 0, 5));
        assert_eq!(judge(-7, 2, &[5]), (0, 0, 5));
        assert_eq!(judge(-8, 2, &[5]), (0, 1, 5));
    }

    #[test]
    fn of_equal_dead_letters_any_number_may_be_in_the_backend() {
        for letters in 1..=9_i128 {
            let equal = vec![3; letters.unsigned_abs() as usize];
            for taken in 1..=letters {
                assert_eq!(judge(-3 * taken, 0, &equal), (0, 0, 3 * taken.unsigned_abs()), "{taken} of {letters}");
            }
            assert_eq!(judge(-3 * letters - 1, 0, &equal), (0, 1, 3 * letters.unsigned_abs()));
        }
    }

    #[test]
    fn sums_are_tried_until_there_are_more_than_the_limit() {
        let doubling = |letters: u32| (0..letters).map(|power| 1 << power).collect::<Vec<u128>>();
        assert_eq!(1 << 12, MOST_SUMS);
        // All but the last letter come to as many sums as the limit: it is tried too.
        assert_eq!(judge(-((1 << 13) - 1), 0, &doubling(13)), (0, 0, (1 << 13) - 1));
        assert_eq!(judge(-((1 << 14) - 1), 0, &doubling(14)), (0, 1 << 13, (1 << 13) - 1));
    }

    #[test]
    fn very_many_dead_letters_are_bounded_and_never_explain_too_much() {
        let equal = vec![3; 100_000];
        assert_eq!(judge(-9_000, 0, &equal), (0, 0, 9_000));
        let doubling: Vec<u128> = (0..100).map(|power| 1 << power).collect();
        let (missing, extra, taken) = judge(-(1 << 90), 0, &doubling);
        assert_eq!((missing, extra + taken), (0, 1 << 90));
    }
}
