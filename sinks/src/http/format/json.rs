//! Tallybus's own rows: an array of objects, or one object per line.

use tallybus_sdk::{Batch, Rejection};

use super::{json_string, number};

/// Each row names its batch and the first event that it sums, so that a receiver can recognise repeated rows: no two
/// different rows have the same batch, offset and index, however a batch is split.
pub(super) fn render(batch: &Batch, is_array: bool) -> (Vec<u8>, Vec<Rejection>) {
    if batch.points.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let mut series = Fragments { batch, text: Vec::new(), places: vec![(0, 0); batch.series.len()] };
    let mut tail = b",\"batch\":".to_vec();
    json_string(&mut tail, &batch.id.to_string());
    let mut out = Vec::with_capacity(batch.points.len().saturating_mul(batch.series.mean_len() + tail.len() + 110));
    for (index, point) in batch.points.iter().enumerate() {
        out.extend_from_slice(match (is_array, index) {
            (true, 0) => b"[",
            (true, _) => b",\n",
            (false, _) => b"",
        });
        out.extend_from_slice(b"{\"ts\":");
        number(&mut out, point.time);
        out.extend_from_slice(series.of(point.series));
        out.extend_from_slice(b",\"value\":");
        number(&mut out, point.value);
        out.extend_from_slice(b",\"events\":");
        number(&mut out, point.events);
        out.extend_from_slice(&tail);
        out.extend_from_slice(b",\"offset\":");
        number(&mut out, point.first.offset);
        out.extend_from_slice(b",\"index\":");
        number(&mut out, point.first.index);
        out.extend_from_slice(if is_array { b"}" } else { b"}\n" });
    }
    if is_array {
        out.push(b']');
    }
    (out, Vec::new())
}

/// `,"name":"…","tags":{…}` of each series, rendered once, when it is first asked for.
struct Fragments<'b> {
    batch: &'b Batch,
    text: Vec<u8>,
    /// Begin and end in `text`; nothing ends at 0.
    places: Vec<(usize, usize)>,
}

impl Fragments<'_> {
    fn of(&mut self, series: u32) -> &[u8] {
        let place = series as usize;
        if self.places[place].1 == 0 {
            let begin = self.text.len();
            let series = self.batch.series.get(series);
            self.text.extend_from_slice(b",\"name\":");
            json_string(&mut self.text, series.name());
            self.text.extend_from_slice(b",\"tags\":{");
            for (index, (key, value)) in series.tags().enumerate() {
                if index > 0 {
                    self.text.push(b',');
                }
                json_string(&mut self.text, key);
                self.text.push(b':');
                json_string(&mut self.text, value);
            }
            self.text.push(b'}');
            self.places[place] = (begin, self.text.len());
        }
        let (begin, end) = self.places[place];
        &self.text[begin..end]
    }
}
