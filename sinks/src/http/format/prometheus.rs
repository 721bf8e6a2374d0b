//! Prometheus remote write, version 1: protobuf in snappy's block format. Names are sent unchanged.

use prost::Message;
use tallybus_sdk::{Batch, Rejection, SeriesView};

use super::super::identity::Identity;
use super::{by_series, only_exact_floats, place, reject_all, taken};

/// The label that holds the name.
pub(in super::super) const NAME: &str = "__name__";

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    /// Milliseconds since the Unix epoch.
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

pub(super) fn render(batch: &Batch, identity: &Identity) -> (Vec<u8>, Vec<Rejection>) {
    let mut rejected = Vec::new();
    let placed = place(batch, identity, &mut rejected);
    let mut request = WriteRequest::default();
    for (series, mut points) in by_series(batch, &placed) {
        let labels = match labels(batch.series.get(series), identity) {
            Ok(labels) => labels,
            Err(reason) => {
                reject_all(&points, &reason, &mut rejected);
                continue;
            }
        };
        only_exact_floats(&mut points, &mut rejected);
        if points.is_empty() {
            continue;
        }
        let samples = points
            .iter()
            .map(|point| Sample { value: point.value as f64, timestamp: point.time.div_euclid(1_000_000) });
        request.timeseries.push(TimeSeries { labels, samples: samples.collect() });
    }
    if request.timeseries.is_empty() {
        return (Vec::new(), rejected);
    }
    match snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()) {
        Ok(body) => (body, rejected),
        Err(error) => {
            // Only a body of 4 GiB does not fit; a batch is bounded far below that.
            let points = 0..batch.points.len();
            let reason = format!("the body cannot be compressed: {error}");
            (Vec::new(), points.map(|point| Rejection { point, reason: reason.clone() }).collect())
        }
    }
}

/// Sorted by name, as receivers require.
fn labels(series: SeriesView<'_>, identity: &Identity) -> Result<Vec<Label>, String> {
    let label = |(name, value): (&str, &str)| Label { name: name.to_owned(), value: value.to_owned() };
    let mut labels = vec![label((NAME, series.name()))];
    for (key, value) in series.tags() {
        if key == NAME {
            return Err(format!("its tag {NAME:?} would hide its name"));
        }
        if let Some(reason) = taken(identity, key) {
            return Err(reason);
        }
        labels.push(label((key, value)));
    }
    labels.extend(identity.labels().map(label));
    labels.sort_unstable();
    Ok(labels)
}
