//! What the demo has seen of the bus while it ran, and what follows from it.

/// What was seen at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sample {
    /// Since the beginning.
    pub(super) seconds: f64,
    /// Increments.
    pub(super) emitted: u64,
    /// Increments that the bus has acknowledged.
    pub(super) delivered: u64,
    /// The messages that were ever on the bus, by partition.
    pub(super) messages: Vec<u64>,
    /// Those that a sink has settled, by sink and partition.
    pub(super) settled: Vec<Vec<u64>>,
}

impl Sample {
    pub(super) fn messages(&self) -> u64 {
        self.messages.iter().sum()
    }

    /// The messages that this sink has settled.
    pub(super) fn settled(&self, sink: usize) -> u64 {
        self.settled.get(sink).into_iter().flatten().sum()
    }

    /// The messages that this sink has yet to settle.
    pub(super) fn behind(&self, sink: usize) -> u64 {
        self.messages().saturating_sub(self.settled(sink))
    }
}

/// For how long messages were on the bus before this sink had settled them: ascending, each with the share of messages that took at
/// most as long. A message is taken to have arrived right after the sample before the one that saw it, so that no time is too
/// short; [`resolution`] says how much too long it can be. What was never settled has no time and reaches no share.
pub(super) fn delays(samples: &[Sample], sink: usize) -> Vec<(f64, f64)> {
    let mut counted: Vec<(f64, u64)> = Vec::new();
    let partitions = samples.last().map_or(0, |last| last.messages.len());
    let mut all = 0;
    for partition in 0..partitions {
        let messages = |sample: &Sample| sample.messages.get(partition).copied().unwrap_or(0);
        let settled = |sample: &Sample| {
            let of_sink = sample.settled.get(sink);
            of_sink.and_then(|settled| settled.get(partition)).copied().unwrap_or(0)
        };
        all += samples.last().map_or(0, messages);
        let mut arrived = (0.0, 0);
        let mut later = samples.iter().peekable();
        for sample in samples {
            // The messages from `first` on arrived since the sample before.
            let (since, mut first) = arrived;
            let end = messages(sample);
            while first < end {
                let Some(seen) = later.peek().filter(|seen| settled(seen) > first) else {
                    if later.next().is_none() {
                        break;
                    }
                    continue;
                };
                let upto = settled(seen).min(end);
                counted.push((seen.seconds - since, upto - first));
                first = upto;
            }
            arrived = (sample.seconds, end);
        }
    }
    counted.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut sum = 0;
    let shares = counted.into_iter().map(|(delay, messages)| {
        sum += messages;
        (delay, sum as f64 / all.max(1) as f64)
    });
    shares.collect()
}

/// How much too long a delay can be: arriving and settling each count from a sample.
pub(super) fn resolution(samples: &[Sample]) -> f64 {
    let gap = |pair: &[Sample]| pair[1].seconds - pair[0].seconds;
    2.0 * samples.windows(2).map(gap).fold(0.0, f64::max)
}

/// A sum that grows, per second: at each sample over the time before it, at least this many seconds; `None` before that.
pub(super) fn rates(samples: &[Sample], over: f64, sum: impl Fn(&Sample) -> u64) -> Vec<Option<f64>> {
    let rate = |(number, sample): (usize, &Sample)| {
        let before = samples[..number].iter().rev().find(|before| sample.seconds - before.seconds >= over)?;
        Some(sum(sample).saturating_sub(sum(before)) as f64 / (sample.seconds - before.seconds))
    };
    samples.iter().enumerate().map(rate).collect()
}

/// When everything that was ever on the bus was settled by this sink; `None` when it was not.
pub(super) fn settled_after(samples: &[Sample], sink: usize) -> Option<f64> {
    let all = samples.last()?.messages();
    samples.iter().find(|sample| sample.settled(sink) >= all).map(|sample| sample.seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64, messages: &[u64], settled: &[u64]) -> Sample {
        Sample { seconds, messages: messages.to_vec(), settled: vec![settled.to_vec()], ..Sample::default() }
    }

    #[test]
    fn delays_are_by_partition_and_never_too_short() {
        let samples = [
            sample(1.0, &[2, 0], &[0, 0]),
            sample(2.0, &[2, 4], &[1, 0]),
            // More is settled than the other partition holds: not of this one.
            sample(3.0, &[2, 4], &[2, 3]),
            sample(9.0, &[2, 4], &[2, 4]),
        ];
        let sixth = 1.0 / 6.0;
        let expected = [(2.0, sixth), (2.0, 4.0 * sixth), (3.0, 5.0 * sixth), (8.0, 1.0)];
        let found = delays(&samples, 0);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found.0 - expected.0).abs() < 1e-9 && (found.1 - expected.1).abs() < 1e-9,
                "{found:?} {expected:?}"
            );
        }
    }

    #[test]
    fn what_was_never_settled_reaches_no_share() {
        let samples = [sample(1.0, &[2], &[0]), sample(2.0, &[2], &[1])];
        assert_eq!(delays(&samples, 0), [(2.0, 0.5)]);
        assert_eq!((delays(&samples, 7), delays(&[], 0)), (vec![], vec![]));
        assert_eq!((settled_after(&samples, 0), settled_after(&[], 0)), (None, None));
    }

    #[test]
    fn a_rate_is_over_the_time_before_and_not_known_at_first() {
        let samples: Vec<Sample> =
            (0..4_u32).map(|at| sample(f64::from(at) / 2.0, &[u64::from(at) * 10], &[0])).collect();
        assert_eq!(rates(&samples, 1.0, Sample::messages), [None, None, Some(20.0), Some(20.0)]);
    }
}
