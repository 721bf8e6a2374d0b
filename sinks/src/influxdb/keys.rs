//! Series keys in line protocol: name and tags, escaped. Pure.

use tallybus_schemas::line;

use crate::{SeriesTable, SeriesView};

/// Tag keys that InfluxDB, or Flux when it reads, keeps for itself.
const RESERVED_KEYS: [&str; 7] = ["_field", "_measurement", "_start", "_stop", "_time", "_value", "time"];

/// Far from the longest key that InfluxDB takes, however many tags there are.
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
        Self { series, text: Vec::new(), known: vec![UNKNOWN; series.len()], refusals: Vec::new() }
    }

    /// How long a key is, more or less.
    pub(super) fn typical_len(&self) -> usize {
        let separators = 12;
        self.series.text_len().checked_div(self.series.len()).unwrap_or_default() + separators
    }

    /// The key of a series.
    ///
    /// # Errors
    /// Says why InfluxDB cannot hold it.
    pub(super) fn of(&mut self, series: u32) -> Result<&[u8], &str> {
        let known = match self.known[series as usize] {
            Known { begin: usize::MAX, .. } => self.render(series),
            known => known,
        };
        match known.end {
            REFUSED => Err(&self.refusals[known.begin]),
            end => Ok(&self.text[known.begin..end]),
        }
    }

    #[inline(never)]
    fn render(&mut self, number: u32) -> Known {
        if self.text.capacity() == 0 {
            self.text.reserve(self.series.len() * self.typical_len());
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

fn render(text: &mut Vec<u8>, series: SeriesView<'_>) -> Result<(), String> {
    let begin = text.len();
    if is_plain(series.text()) && copy(text, series) {
        return Ok(());
    }
    text.truncate(begin);
    refuse(series)?;
    let tags: Vec<(&str, &str)> = series.tags().collect();
    line::write_series_key(text, series.name(), &tags).map_err(|error| error.to_string())
}

/// Whether no byte of a series needs an escape or a closer look; nearly always so.
fn is_plain(text: &str) -> bool {
    // No early exit: so the loop is vectorised.
    let is_special = |byte: u8| matches!(byte, b',' | b' ' | b'=' | b'\\' | b'"' | b'\n' | b'\r' | 0);
    text.len() <= LONGEST_PLAIN && !text.bytes().fold(false, |found, byte| found | is_special(byte))
}

/// Copies a plain series; `false` where there is more to it.
fn copy(text: &mut Vec<u8>, series: SeriesView<'_>) -> bool {
    let name = series.name();
    if name.is_empty() || name.starts_with(['_', '#']) {
        return false;
    }
    text.extend_from_slice(name.as_bytes());
    for (key, value) in series.tags() {
        if key.is_empty() || value.is_empty() || key.starts_with('_') || key == "time" {
            return false;
        }
        text.push(b',');
        text.extend_from_slice(key.as_bytes());
        text.push(b'=');
        text.extend_from_slice(value.as_bytes());
    }
    true
}

/// What InfluxDB refuses or changes, beside what line protocol cannot express.
fn refuse(series: SeriesView<'_>) -> Result<(), String> {
    if series.name().starts_with('_') {
        return Err("name: InfluxDB keeps measurements that begin with an underscore for itself".to_owned());
    }
    // The engine drops such a backslash, so that `a\ b` and `a b` would become one series.
    if series.name().as_bytes().windows(2).any(|pair| pair[0] == b'\\' && b" ,=\"".contains(&pair[1])) {
        return Err("name: InfluxDB loses a backslash before a space, comma, equals sign or quote".to_owned());
    }
    if let Some((key, _)) = series.tags().find(|(key, _)| RESERVED_KEYS.contains(key)) {
        return Err(format!("tags.{key}: InfluxDB keeps this tag key for itself; drop_tags in select takes it away"));
    }
    Ok(())
}
