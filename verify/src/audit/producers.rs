use std::collections::HashMap;

use tallybus_bus::Record;
use tallybus_schemas::Origin;

/// Checks the producers' own figures against the messages on the bus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerReport {
    /// How many processes sent native messages.
    pub producers: usize,
    /// The inconsistencies, in the order found; the first [`MAX_KEPT`].
    pub faults: Vec<ProducerFault>,
    /// The total number of inconsistencies.
    pub fault_count: usize,
}

/// Faults kept with their details.
pub const MAX_KEPT: usize = 100;

/// Messages of one producer in one partition that are not consecutive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerFault {
    /// The producer's id, in hexadecimal.
    pub producer: String,
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// The offset of the message at which it was found.
    pub offset: u64,
    /// The kind of inconsistency.
    pub kind: FaultKind,
    /// The value that is lost or duplicated.
    pub value: u64,
}

/// A kind of inconsistency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// These messages, both inclusive, are not on the bus.
    Gap {
        /// First sequence number.
        first: u64,
        /// Last sequence number.
        last: u64,
    },
    /// This message is on the bus a second time.
    Duplicate {
        /// Sequence number.
        sequence: u64,
    },
    /// The running total does not match the values.
    Total {
        /// Sequence number.
        sequence: u64,
    },
}

#[derive(Debug, Default)]
pub(super) struct Producers {
    last: HashMap<([u8; 16], String, u32), (u64, u64)>,
    report: ProducerReport,
}

impl Producers {
    /// `whole`: whether the bus still has the partition from its very first offset on.
    pub(super) fn note(&mut self, record: &Record<'_>, origin: &Origin, sum: u64, whole: bool) {
        let key = (origin.producer, record.topic.to_owned(), record.partition);
        let known = self.last.get(&key).copied();
        let (sequence, total) = match known {
            Some(last) => last,
            None if whole => (0, 0),
            None => {
                self.last.insert(key, (origin.sequence, origin.partition_total));
                return;
            }
        };
        if origin.sequence <= sequence {
            self.fault(record, origin, FaultKind::Duplicate { sequence: origin.sequence }, sum);
            return;
        }
        let before = origin.partition_total.wrapping_sub(sum);
        if origin.sequence > sequence + 1 {
            let kind = FaultKind::Gap { first: sequence + 1, last: origin.sequence - 1 };
            self.fault(record, origin, kind, before.wrapping_sub(total));
        } else if before != total {
            self.fault(record, origin, FaultKind::Total { sequence: origin.sequence }, before.abs_diff(total));
        }
        self.last.insert(key, (origin.sequence, origin.partition_total));
    }

    pub(super) fn report(self) -> ProducerReport {
        let mut ids: Vec<_> = self.last.keys().map(|(producer, _, _)| *producer).collect();
        ids.sort_unstable();
        ids.dedup();
        ProducerReport { producers: ids.len(), ..self.report }
    }

    fn fault(&mut self, record: &Record<'_>, origin: &Origin, kind: FaultKind, value: u64) {
        self.report.fault_count += 1;
        if self.report.faults.len() >= MAX_KEPT {
            return;
        }
        self.report.faults.push(ProducerFault {
            producer: tallybus_sdk::text::hex(&origin.producer),
            topic: record.topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
            kind,
            value,
        });
    }
}

#[cfg(test)]
mod tests {
    use tallybus_bus::NoHeaders;

    use super::*;

    fn faults(whole: bool, messages: &[(u64, u64, u64)]) -> Vec<(FaultKind, u64)> {
        let report = report(whole, messages);
        assert_eq!((report.producers, report.fault_count), (1, report.faults.len()));
        report.faults.into_iter().map(|fault| (fault.kind, fault.value)).collect()
    }

    /// Messages of one producer: sequence, sum of the values, and the producer's running total.
    fn report(whole: bool, messages: &[(u64, u64, u64)]) -> ProducerReport {
        let mut producers = Producers::default();
        for (offset, &(sequence, sum, partition_total)) in (0..).zip(messages) {
            let record = Record {
                topic: "t",
                partition: 0,
                offset,
                time_ms: 0,
                key: None,
                payload: b"",
                is_tombstone: false,
                unreadable: None,
                headers: &NoHeaders,
            };
            let origin = Origin {
                producer: [7; 16],
                sequence,
                interval_start: 0,
                interval_end: 0,
                partition_total,
                emitted_total: 0,
            };
            producers.note(&record, &origin, sum, whole);
        }
        producers.report()
    }

    #[test]
    fn messages_that_follow_each_other_are_right() {
        assert_eq!(faults(true, &[(1, 5, 5), (2, 3, 8), (3, 1, 9)]), []);
        assert_eq!(faults(false, &[(7, 5, 105), (8, 3, 108)]), []);
    }

    #[test]
    fn gaps_and_duplicates_are_named_with_their_value() {
        let gap = FaultKind::Gap { first: 2, last: 3 };
        assert_eq!(faults(true, &[(1, 5, 5), (4, 3, 18)]), [(gap, 10)]);
        let gap = FaultKind::Gap { first: 1, last: 1 };
        assert_eq!(faults(true, &[(2, 3, 8)]), [(gap, 5)]);
        let twice = FaultKind::Duplicate { sequence: 1 };
        assert_eq!(faults(true, &[(1, 5, 5), (1, 5, 5), (2, 3, 8)]), [(twice, 5)]);
        let total = FaultKind::Total { sequence: 2 };
        assert_eq!(faults(true, &[(1, 5, 5), (2, 3, 9)]), [(total, 1)]);
    }

    #[test]
    fn all_faults_are_counted_and_the_first_hundred_are_kept() {
        let gaps: Vec<_> = (1..=MAX_KEPT as u64 + 7).map(|number| (2 * number, 1, 2 * number)).collect();
        let report = report(true, &gaps);
        assert_eq!((report.fault_count, report.faults.len()), (MAX_KEPT + 7, MAX_KEPT));
        assert_eq!(report.faults[0].kind, FaultKind::Gap { first: 1, last: 1 });
    }
}
