//! InfluxDB's line protocol, for any server that accepts it over HTTP; for InfluxDB itself use the sink `influxdb`.

use tallybus_schemas::line;
use tallybus_sdk::{Batch, Rejection, SeriesView};

use super::super::identity::Identity;
use super::{by_series, number, place, reject_all, taken};

pub(super) fn render(batch: &Batch, identity: &Identity) -> (Vec<u8>, Vec<Rejection>) {
    let mut rejected = Vec::new();
    let placed = place(batch, identity, &mut rejected);
    let mut out = Vec::new();
    let mut key = Vec::new();
    for (series, points) in by_series(batch, &placed) {
        key.clear();
        if let Err(reason) = render_key(&mut key, batch.series.get(series), identity) {
            reject_all(&points, &reason, &mut rejected);
            continue;
        }
        for point in points {
            out.extend_from_slice(&key);
            out.extend_from_slice(b" value=");
            number(&mut out, point.value);
            out.extend_from_slice(b"i ");
            number(&mut out, point.time);
            out.push(b'\n');
        }
    }
    (out, rejected)
}

fn render_key(key: &mut Vec<u8>, series: SeriesView<'_>, identity: &Identity) -> Result<(), String> {
    let mut tags: Vec<(&str, &str)> = series.tags().collect();
    if let Some(reason) = tags.iter().find_map(|(key, _)| taken(identity, key)) {
        return Err(reason);
    }
    tags.extend(identity.labels());
    tags.sort_unstable();
    line::write_series_key(key, series.name(), &tags).map_err(|error| error.to_string())
}
