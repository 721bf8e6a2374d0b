use std::collections::{BTreeMap, HashMap};

use super::messages::Messages;
use super::pass::{Pass, read_topic};
use super::report::{Difference, OffsetSpan, Place};
use super::sink_progress::Look;
use super::tally::{Places, Tally};
use super::{Audit, AuditError, AuditedSink};

/// First and last offset by topic and partition.
type Spans = BTreeMap<(String, u32), (u64, u64)>;

/// For each of these differences, finds the messages of the first window that differs.
pub(super) fn locate(
    audit: &Audit<'_>,
    sink: &AuditedSink,
    look: &Look,
    differences: &mut [Difference],
    pass: &mut Pass<'_>,
) -> Result<(), AuditError> {
    let cannot = |reason: String| AuditError::Sink { sink: sink.name.clone(), reason };
    let mut tally = Tally::new(sink, audit.range, audit.window).map_err(cannot)?;
    let mut wanted: HashMap<(u32, i64), usize> = HashMap::new();
    let mut found: Vec<(u128, Spans)> = Vec::with_capacity(differences.len());
    for (place, difference) in differences.iter().enumerate() {
        wanted.insert((tally.number(&difference.series), difference.first.start), place);
        found.push((0, Spans::new()));
    }
    let mut messages = Messages::new(audit.encodings).map_err(AuditError::Encoding)?;
    let mut places = Places::new();
    for topic in &sink.topics {
        read_topic(audit, topic, pass, &mut |record| {
            let mark = look.after.mark(topic, record.partition);
            if record.offset >= mark.sealed.max(mark.settled) || messages.decode(record).is_err() {
                return;
            }
            for row in messages.rows() {
                let series = tally.place(&mut places, row.series, messages.series(row.series));
                let Some(series) = series else { continue };
                let Some(&place) = wanted.get(&(series, tally.window(row.time))) else { continue };
                let spans = &mut found[place].1;
                let span = spans.entry((topic.clone(), record.partition)).or_insert((record.offset, record.offset));
                *span = (span.0.min(record.offset), span.1.max(record.offset));
                if record.offset < look.before.mark(topic, record.partition).settled {
                    found[place].0 += u128::from(row.value);
                }
            }
        })?;
    }
    for (difference, (settled, spans)) in differences.iter_mut().zip(found) {
        let offsets = spans.into_iter().map(|((topic, partition), (first, last))| OffsetSpan {
            topic,
            partition,
            first,
            end: last + 1,
        });
        let dead = difference.first.dead;
        let expected = settled.saturating_sub(dead);
        difference.place = Some(Place {
            window_start: difference.first.start,
            window: tally.window_length(),
            expected,
            total: expected.saturating_add_signed(difference.first.balance.saturating_neg()),
            offsets: offsets.collect(),
        });
    }
    Ok(())
}
