//! What a sink relies on, checked at every write.

use super::{State, body_of};
use crate::{Batch, Claim, Encoded};

impl State {
    pub(super) fn watch(&mut self, batch: &Batch, encoded: &Encoded) {
        let key = batch.key();
        let content = content_of(batch, encoded);
        match self.seen.get(&key) {
            Some(before) if *before != content => {
                self.violations.push(format!("{key}: written again with different content"));
            }
            Some(_) => {}
            None => {
                self.seen.insert(key.clone(), content);
            }
        }
        if !batch.part.is_empty() && self.taken.contains_key(&batch.id.to_string()) {
            self.violations.push(format!("{key}: a part of a batch that is stored as a whole"));
        }
        self.watch_range(batch);
        if self.demands_claims {
            let is_it = |claim: Claim| claim.topic == *batch.id.topic && claim.partition == batch.id.partition;
            if !self.claims.iter().filter_map(|entry| Claim::parse(entry).ok()).any(is_it) {
                self.violations.push(format!("{key}: written before its partition was claimed"));
            }
        }
    }

    /// All batches ever written form one chain: two of them are the same or do not overlap.
    fn watch_range(&mut self, batch: &Batch) {
        let id = &batch.id;
        let ranges = self.ranges.entry((id.topic.clone(), batch.stream.clone(), id.partition)).or_default();
        if ranges.get(&id.first) == Some(&id.end) {
            return;
        }
        let overlaps = ranges.range(..id.end).next_back().filter(|(_, end)| **end > id.first);
        if let Some((first, end)) = overlaps.filter(|_| !self.allows_overlaps) {
            self.violations.push(format!("{id}: overlaps the batch of offsets {first}-{end}"));
        }
        ranges.insert(id.first, id.end);
    }
}

/// Everything that must be identical whenever the key is.
fn content_of(batch: &Batch, encoded: &Encoded) -> Vec<u8> {
    let mut content = body_of(encoded);
    let meta = (&batch.points, batch.topic_index, batch.window, &encoded.rejected);
    content.extend_from_slice(format!("{meta:?}").as_bytes());
    content
}
