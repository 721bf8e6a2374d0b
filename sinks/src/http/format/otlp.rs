//! OTLP over HTTP, protobuf: each counter a monotonic sum of the temporality *delta*.

use prost::Message;
use tallybus_sdk::{Batch, Rejection, SeriesView};

use super::super::identity::Identity;
use super::{by_series, place, reject_all, taken};

const DELTA: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeMetrics {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    /// One of several kinds of data, and always this one.
    #[prost(message, optional, tag = "7")]
    sum: Option<Sum>,
}

#[derive(Clone, PartialEq, Message)]
struct Sum {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<DataPoint>,
    #[prost(int32, tag = "2")]
    aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    is_monotonic: bool,
}

#[derive(Clone, PartialEq, Message)]
struct DataPoint {
    #[prost(fixed64, tag = "2")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    /// One of two kinds of number.
    #[prost(sfixed64, optional, tag = "6")]
    as_int: Option<i64>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    /// One of several kinds of value, and always this one.
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// A receiver's answer 200 when it did not accept everything. It does not name the points.
#[derive(Clone, PartialEq, Eq, Message)]
pub(in super::super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(in super::super) rejected_data_points: i64,
    #[prost(string, tag = "2")]
    pub(in super::super) error_message: String,
}

/// Reads the body of a 200. A receiver may answer with an empty body, or with something other than this message.
pub(in super::super) fn partial_success(body: &[u8]) -> Option<PartialSuccess> {
    ExportResponse::decode(body).ok()?.partial_success
}

/// The number of data points of a batch.
pub(in super::super) fn data_points(batch: &Batch, identity: &Identity) -> usize {
    let (body, _rejected) = render(batch, identity);
    let Ok(request) = ExportRequest::decode(body.as_slice()) else { return 0 };
    let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
    let sums = scopes.flat_map(|scope| &scope.metrics).filter_map(|metric| metric.sum.as_ref());
    sums.map(|sum| sum.data_points.len()).sum()
}

pub(super) fn render(batch: &Batch, identity: &Identity) -> (Vec<u8>, Vec<Rejection>) {
    let mut rejected = Vec::new();
    let placed = place(batch, identity, &mut rejected);
    let mut metrics: Vec<Metric> = Vec::new();
    // Names are chosen by producers, hence the seeded hash of this map.
    let mut place_of: hashbrown::HashMap<&str, usize> = hashbrown::HashMap::new();
    for (series, mut points) in by_series(batch, &placed) {
        let series = batch.series.get(series);
        let attributes = match attributes(series, identity) {
            Ok(attributes) => attributes,
            Err(reason) => {
                reject_all(&points, &reason, &mut rejected);
                continue;
            }
        };
        points.retain(|point| {
            let is_in_time = point.start >= 0;
            if !is_in_time {
                let reason = "its time is before 1970, the earliest that OTLP can express".to_owned();
                rejected.push(Rejection { point: point.point, reason });
            }
            is_in_time
        });
        if points.is_empty() {
            continue;
        }
        let at = *place_of.entry(series.name()).or_insert(metrics.len());
        if at == metrics.len() {
            let sum = Sum { data_points: Vec::new(), aggregation_temporality: DELTA, is_monotonic: true };
            metrics.push(Metric { name: series.name().to_owned(), sum: Some(sum) });
        }
        let Some(sum) = &mut metrics[at].sum else { continue };
        sum.data_points.extend(points.iter().map(|point| DataPoint {
            start_time_unix_nano: u64::try_from(point.start).unwrap_or_default(),
            time_unix_nano: u64::try_from(point.time).unwrap_or_default(),
            as_int: i64::try_from(point.value).ok(),
            attributes: attributes.clone(),
        }));
    }
    if metrics.is_empty() {
        return (Vec::new(), rejected);
    }
    let resource = Resource { attributes: vec![key_value("service.name", "tallybus")] };
    let scope = Scope { name: "tallybus".to_owned() };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics }];
    let request = ExportRequest { resource_metrics: vec![ResourceMetrics { resource: Some(resource), scope_metrics }] };
    (request.encode_to_vec(), rejected)
}

fn attributes(series: SeriesView<'_>, identity: &Identity) -> Result<Vec<KeyValue>, String> {
    match series.tags().find_map(|(key, _)| taken(identity, key)) {
        Some(reason) => Err(reason),
        None => Ok(series.tags().chain(identity.labels()).map(|(key, value)| key_value(key, value)).collect()),
    }
}

fn key_value(key: &str, value: &str) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { string_value: Some(value.to_owned()) }) }
}
