//! Growth of vectors with an item per series: by an eighth, where [`Vec`] itself would double. At most 12 % of the memory
//! is then unused, and an item is moved nine times at most on average.

const LEAST: usize = 256;

/// Reserves space for one more item.
pub(crate) fn reserve_one<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 8).max(LEAST));
    }
}

/// Extends the list to at least this length.
pub(crate) fn lengthen<T: Copy>(list: &mut Vec<T>, length: usize, item: T) {
    if list.len() < length {
        if list.capacity() < length {
            list.reserve_exact((length - list.len()).max(list.len() / 8).max(LEAST));
        }
        list.resize(length, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_stays_unused() {
        let (mut pushed, mut lengthened) = (Vec::new(), Vec::new());
        for number in 0..100_000 {
            reserve_one(&mut pushed);
            pushed.push(number);
            lengthen(&mut lengthened, number + 1, 7);
            for list in [&pushed, &lengthened] {
                assert_eq!(list.len(), number + 1);
                assert!(list.capacity() <= number + 1 + (number / 8).max(LEAST));
            }
        }
        lengthen(&mut lengthened, 5, 0);
        assert!(lengthened.len() == 100_000 && lengthened.iter().all(|item| *item == 7));
    }
}
