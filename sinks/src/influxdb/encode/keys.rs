//! Series keys in line protocol: name and tags, escaped. Pure.

use tallybus_schemas::line;
use tallybus_sdk::{SeriesTable, SeriesView};

/// Tag keys that InfluxDB, or Flux when it reads, reserves.
const RESERVED_KEYS: [&str; 7] = ["_field", "_measurement", "_start", "_stop", "_time", "_value", "time"];

/// Well below the longest key that InfluxDB accepts, whatever the number of tags.
const LONGEST_PLAIN: usize = 32_000;

/// The keys of a batch's series, each rendered once, when it is first asked for.
pub(super) struct Keys<'b> {
    series: &'b SeriesTable,
    text: Vec<u8>,
    known: Vec<Known>,
    refusals: Vec<String>,
}

/// A place in `text`, or in `refusals`.
#[derive(Clone, Copy)]
struct Known {
    begin: usize,
    end: usize,
}

/// No key begins behind its end.
const UNKNOWN: Known = Known { begin: usize::MAX, end: 0 };
/// As `end`: `begin` is a place in `refusals`. No key ends at 0, because none is empty.
const REFUSED: usize = 0;

impl<'b> Keys<'b> {
    pub(super) fn new(series: &'b SeriesTable) -> Self {
        Self { series, text: Vec::new(), known: Vec::new(), refusals: Vec::new() }
    }

    /// The key of a series.
    ///
    /// # Errors
    /// Returns why InfluxDB cannot hold it.
    pub(super) fn of(&mut self, series: u32) -> Result<&[u8], &str> {
        let known = match self.known.get(series as usize) {
            None | Some(Known { begin: usize::MAX, .. }) => self.render(series),
            Some(known) => *known,
        };
        match known.end {
            REFUSED => Err(&self.refusals[known.begin]),
            end => Ok(&self.text[known.begin..end]),
        }
    }

    #[inline(never)]
    fn render(&mut self, number: u32) -> Known {
        // Made at the first use: keys that are rendered where they are needed are not kept.
        if self.known.is_empty() {
            self.known.resize(self.series.len(), UNKNOWN);
            self.text.reserve(self.series.len() * self.series.mean_len());
        }
        let begin = self.text.len();
        let outcome = render(&mut self.text, self.series.get(number));
        let known = match outcome {
            Ok(()) => Known { begin, end: self.text.len() },
            Err(reason) => {
                self.refusals.push(reason);
                Known { begin: self.refusals.len() - 1, end: REFUSED }
            }
        };
        self.known[number as usize] = known;
        known
    }
}

/// Appends the key of a series.
///
/// # Errors
/// Returns why InfluxDB cannot hold it; nothing is appended then.
pub(super) fn render(text: &mut Vec<u8>, series: SeriesView<'_>) -> Result<(), String> {
    if is_plain(series) {
        text.extend_from_slice(series.text().as_bytes());
        return Ok(());
    }
    refuse(series)?;
    let tags: Vec<(&str, &str)> = series.tags().collect();
    line::write_series_key(text, series.name(), &tags).map_err(|error| error.to_string())
}

/// Whether the text of a series can be used as its key unchanged, because nothing in it needs an escape or a check;
/// nearly always true.
fn is_plain(series: SeriesView<'_>) -> bool {
    let (name, text) = (series.name(), series.text());
    if name.is_empty() || name.starts_with(['_', '#']) || text.len() > LONGEST_PLAIN {
        return false;
    }
    let mut marks = 0;
    for (key, value) in series.tags() {
        if key.is_empty() || value.is_empty() || key.starts_with('_') || key == "time" {
            return false;
        }
        marks += 2;
    }
    specials(text.as_bytes()) == marks
}

/// How many bytes there are that have a meaning in line protocol; those between the texts count too.
fn specials(text: &[u8]) -> usize {
    let is_special = |byte: u8| matches!(byte, b',' | b' ' | b'=' | b'\\' | b'"' | b'\n' | b'\r' | 0);
    // Chunks short enough for the count to fit a byte, and no early exit, so that the loop is vectorised.
    let of = |chunk: &[u8]| chunk.iter().fold(0_u8, |sum, &byte| sum + u8::from(is_special(byte)));
    text.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(of(chunk))).sum()
}

/// What InfluxDB refuses or changes, in addition to what line protocol cannot express.
fn refuse(series: SeriesView<'_>) -> Result<(), String> {
    if series.name().starts_with('_') {
        return Err("name: InfluxDB reserves measurements that begin with an underscore".to_owned());
    }
    // The engine drops such a backslash, so that `a\ b` and `a b` would become one series.
    if series.name().as_bytes().windows(2).any(|pair| pair[0] == b'\\' && b" ,=\"".contains(&pair[1])) {
        return Err("name: InfluxDB drops a backslash before a space, comma, equals sign or quote".to_owned());
    }
    if let Some((key, _)) = series.tags().find(|(key, _)| RESERVED_KEYS.contains(key)) {
        return Err(format!("tags.{key}: InfluxDB reserves this tag key; remove it with `drop_tags` in `select`"));
    }
    Ok(())
}
