use tallybus_bus::{Observer, OffsetRange, Record, read_range};

use super::{Audit, AuditError};

/// One pass over the topics, with a fixed end.
pub(super) struct Pass<'a> {
    /// By topic; fixed before the pass.
    pub(super) ranges: Vec<(String, Vec<OffsetRange>)>,
    /// Receives the number of records read, and the total number.
    pub(super) progress: &'a mut dyn FnMut(u64, u64),
    read: u64,
    whole: u64,
}

impl<'a> Pass<'a> {
    /// Fixes the range to read: everything that the topics hold now.
    pub(super) fn new(
        observer: &dyn Observer,
        topics: &[String],
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Result<Self, AuditError> {
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let ranges: Vec<_> = topics.iter().cloned().zip(observer.offsets(&names)?).collect();
        let whole =
            ranges.iter().flat_map(|(_, ranges)| ranges).map(|range| range.end - range.first.min(range.end)).sum();
        Ok(Self { ranges, progress, read: 0, whole })
    }
}

/// Reads one topic of the pass.
///
/// # Errors
/// Offsets that the audit would need are gone.
pub(super) fn read_topic(
    audit: &Audit<'_>,
    topic: &str,
    pass: &mut Pass<'_>,
    each: &mut dyn FnMut(&Record<'_>),
) -> Result<(), AuditError> {
    let Some((_, ranges)) = pass.ranges.iter().find(|(name, _)| name == topic) else { return Ok(()) };
    if let Some((partition, range)) = (0..).zip(ranges).find(|(_, range)| range.first > 0)
        && audit.range.from.is_none()
    {
        return Err(AuditError::Gone { topic: topic.to_owned(), partition, first: range.first });
    }
    let spans: Vec<_> = (0_u32..).zip(ranges).map(|(partition, range)| (partition, range.first..range.end)).collect();
    let mut begun = vec![false; ranges.len()];
    let mut too_late = None;
    let mut reader = audit.bus.reader()?;
    let (read, whole, progress) = (&mut pass.read, pass.whole, &mut pass.progress);
    read_range(reader.as_mut(), topic, &spans, audit.stall_timeout, &mut |record| {
        let place = record.partition as usize;
        if !std::mem::replace(&mut begun[place], true) && ranges[place].first > 0 {
            // The deleted records are older than this one, so they only matter if this record is not older than `from`.
            let time = record.time_ms.saturating_mul(1_000_000);
            if audit.range.from.is_some_and(|from| time > from) {
                too_late.get_or_insert((record.partition, time));
            }
        }
        each(&record);
        *read += 1;
        if *read % 1_000 == 0 {
            progress(*read, whole);
        }
    })?;
    progress(*read, whole.max(*read));
    match too_late {
        Some((partition, time)) => Err(AuditError::BeginsLater { topic: topic.to_owned(), partition, time }),
        None => still_there(audit, topic, ranges),
    }
}

/// Retention may have deleted records while they were being read.
fn still_there(audit: &Audit<'_>, topic: &str, before: &[OffsetRange]) -> Result<(), AuditError> {
    if audit.range.from.is_some() {
        return Ok(());
    }
    let now = audit.observer.offsets_of(topic)?;
    let lost = (0..).zip(before.iter().zip(&now)).find(|(_, (before, now))| now.first > before.first);
    match lost {
        Some((partition, (_, now))) => Err(AuditError::Gone { topic: topic.to_owned(), partition, first: now.first }),
        None => Ok(()),
    }
}
