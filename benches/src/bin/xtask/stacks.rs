//! Call stacks that perf saw, and how wide each frame is.

use std::collections::{BTreeMap, BTreeSet};

/// How often each stack was seen, outermost frame first; the name of the thread is the outermost.
#[derive(Debug, Default)]
pub(crate) struct Stacks(BTreeMap<Vec<String>, u64>);

/// A function's part of all samples.
#[derive(Debug, PartialEq)]
pub(crate) struct Width {
    pub(crate) frame: String,
    /// While it was at the top of the stack.
    pub(crate) own: f64,
    /// While it was anywhere on it.
    pub(crate) whole: f64,
}

impl Stacks {
    /// Reads what `perf script -F comm,ip,sym` writes: a line with the thread's name, a line for each frame, innermost first,
    /// and an empty line.
    pub(crate) fn of_perf(text: &str) -> Self {
        let mut stacks = BTreeMap::new();
        for sample in text.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.trim().is_empty());
            let Some(thread) = lines.next() else { continue };
            let mut stack: Vec<String> = lines.filter_map(frame).collect();
            stack.push(thread.trim().to_owned());
            stack.reverse();
            *stacks.entry(stack).or_default() += 1;
        }
        Self(stacks)
    }

    /// How many there are, each as often as it was seen.
    pub(crate) fn samples(&self) -> u64 {
        self.0.values().sum()
    }

    /// Each stack, and how often it was seen; in order, so that stacks that begin alike stand together.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[String], u64)> {
        self.0.iter().map(|(stack, count)| (stack.as_slice(), *count))
    }

    /// Every function, the widest by itself first.
    pub(crate) fn widest(&self) -> Vec<Width> {
        let mut widths: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (stack, count) in self.iter() {
            let frames = stack.get(1..).unwrap_or_default();
            if let Some(top) = frames.last() {
                widths.entry(top).or_default().0 += count;
            }
            // A function that calls itself is there once.
            for frame in frames.iter().collect::<BTreeSet<_>>() {
                widths.entry(frame).or_default().1 += count;
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "counts of samples lie far below 2^52")]
        let part = |count: u64| count as f64 / self.samples().max(1) as f64;
        let width = |(frame, (own, whole)): (&str, (u64, u64))| Width {
            frame: frame.to_owned(),
            own: part(own),
            whole: part(whole),
        };
        let mut widths: Vec<Width> = widths.into_iter().map(width).collect();
        widths.sort_by(|a, b| b.own.total_cmp(&a.own).then(b.whole.total_cmp(&a.whole)));
        widths
    }
}

/// The function of a line `address function`, without the hash that the compiler puts behind it.
fn frame(line: &str) -> Option<String> {
    let (_, name) = line.trim().split_once(' ')?;
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = match name.rsplit_once("::h") {
        Some((name, hash)) if is_hash(hash) => name,
        _ => name,
    };
    Some(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "worker \n\t    7f00 memcpy\n\t    55d0 tallybus::seal::h0123456789abcdef\n\n\
        worker \n\t    7f08 memcpy\n\t    55d4 tallybus::seal::h0123456789abcdef\n\n\
        rdk:main \n\t    55d9 inner\n\t    55d9 inner\n\t    5500 [unknown]\n\n";

    #[test]
    fn equal_stacks_are_counted_together() {
        let stacks = Stacks::of_perf(TEXT);
        let found: Vec<(String, u64)> = stacks.iter().map(|(stack, count)| (stack.join(";"), count)).collect();
        let expected = [("rdk:main;[unknown];inner;inner", 1), ("worker;tallybus::seal;memcpy", 2)];
        assert_eq!(found, expected.map(|(stack, count)| (stack.to_owned(), count)));
        assert_eq!(stacks.samples(), 3);
    }

    #[test]
    fn the_widest_frame_comes_first() {
        let widest = Stacks::of_perf(TEXT).widest();
        let third = 1.0 / 3.0;
        let width = |frame: &str, own, whole| Width { frame: frame.to_owned(), own, whole };
        assert_eq!(widest[0], width("memcpy", 2.0 * third, 2.0 * third));
        assert_eq!(widest[1], width("inner", third, third));
        assert_eq!(widest[2], width("tallybus::seal", 0.0, 2.0 * third));
        assert!(Stacks::of_perf("").widest().is_empty());
    }
}
