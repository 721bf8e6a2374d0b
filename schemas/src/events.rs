use crate::{Decoder, Encoding, Event, Origin, Receiver, SchemaError, Series};

/// A [`Receiver`] that keeps everything, in order.
#[derive(Debug, Default)]
pub struct Events {
    series: Vec<Series>,
    rows: Vec<(u32, u64, i64)>,
    origin: Option<Origin>,
}

impl Events {
    /// Holds nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of events.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The origin of the last native message.
    pub fn last_origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// The events in order: series, value, time.
    pub fn iter(&self) -> impl Iterator<Item = (&Series, u64, i64)> {
        self.rows.iter().map(|&(series, value, time)| (&self.series[series as usize], value, time))
    }

    /// The events in order.
    pub fn to_vec(&self) -> Vec<Event> {
        self.iter().map(|(series, value, time)| Event { series: series.clone(), value, time }).collect()
    }

    /// Forgets everything; after an error, for example.
    pub fn clear(&mut self) {
        self.series.clear();
        self.rows.clear();
        self.origin = None;
    }
}

impl Receiver for Events {
    fn series(&mut self, name: &str, tags: &[(&str, &str)]) -> u32 {
        // One per announcement, so never more than there are bytes in a message.
        let handle = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
        self.series.push(Series::from_sorted(name, tags));
        handle
    }

    fn event(&mut self, series: u32, value: u64, time: i64) {
        self.rows.push((series, value, time));
    }

    fn origin(&mut self, origin: &Origin) {
        self.origin = Some(*origin);
    }
}

/// Decodes a whole message at once; for tools and tests. See [`Decoder::decode`].
///
/// # Errors
/// As [`Decoder::decode`]; no event is returned then.
pub fn decode_all(encoding: Option<Encoding>, payload: &[u8], record_time_ns: i64) -> Result<Vec<Event>, SchemaError> {
    let mut events = Events::new();
    Decoder::new().decode(encoding, payload, record_time_ns, &mut events)?;
    Ok(events.to_vec())
}
