//! Totals and windows, for audits. Reads are strongly consistent: they see every acknowledged write.

use std::sync::Arc;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use tallybus_schemas::Series;
use tallybus_sdk::{SeriesTotal, SinkError, TimeRange, VisitTotal, VisitWindow, WindowTotal, WindowsQuery};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Client, NAME, PK, SK, TAGS, VALUE, text};
use super::keys;
use super::table::failure;
use crate::shared::json_tags::series_of_tags;

/// How many parts of the table are read at once.
const SEGMENTS: i32 = 4;

type Item = std::collections::HashMap<String, AttributeValue>;

/// How many scanned items may wait to be visited.
const CHUNK: usize = 1_024;

/// Visits every item of the table. Items that this sink did not write are skipped.
pub(super) async fn totals(
    client: &Arc<Client>,
    range: TimeRange,
    visit: &mut VisitTotal<'_>,
) -> Result<(), SinkError> {
    let mut segments = JoinSet::new();
    let (found, mut items) = mpsc::channel(CHUNK);
    for segment in 0..SEGMENTS {
        let (client, found) = (Arc::clone(client), found.clone());
        segments.spawn(async move { scan(&client, range, segment, &found).await });
    }
    drop(found);
    while let Some(item) = items.recv().await {
        visit(item);
    }
    while let Some(segment) = segments.join_next().await {
        segment.map_err(|error| SinkError::Unavailable(format!("a scan was cancelled: {error}")))??;
    }
    Ok(())
}

async fn scan(
    client: &Client,
    range: TimeRange,
    segment: i32,
    found: &mpsc::Sender<SeriesTotal>,
) -> Result<(), SinkError> {
    let mut from: Option<Item> = None;
    loop {
        let mut request = client
            .sdk()
            .await?
            .scan()
            .table_name(&client.config().table)
            .segment(segment)
            .total_segments(SEGMENTS)
            .consistent_read(true)
            .projection_expression("#name, #tags, #value, #sk")
            .expression_attribute_names("#name", NAME)
            .expression_attribute_names("#tags", TAGS)
            .expression_attribute_names("#value", VALUE)
            .expression_attribute_names("#sk", SK)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_exclusive_start_key(from);
        let (low, high) = (range.from.map(keys::time_text), range.to.map(keys::time_text));
        let conditions = [low.as_ref().map(|_| "#sk >= :from"), high.as_ref().map(|_| "#sk < :to")];
        let conditions: Vec<&str> = conditions.into_iter().flatten().collect();
        if !conditions.is_empty() {
            request = request.filter_expression(conditions.join(" AND "));
        }
        if let Some(low) = &low {
            request = request.expression_attribute_values(":from", text(low));
        }
        if let Some(high) = &high {
            request = request.expression_attribute_values(":to", text(high));
        }
        let page = request.send().await.map_err(|error| failure(client, &error))?;
        client.note_read(page.consumed_capacity());
        for item in page.items() {
            let Some((series, (_, value))) = series_of(item).zip(value_of(item)) else { continue };
            let total = narrow(&series, value)?;
            if found.send(SeriesTotal { series, total }).await.is_err() {
                return Ok(());
            }
        }
        from = page.last_evaluated_key().cloned();
        if from.is_none() {
            return Ok(());
        }
    }
}

/// Visits the items of a series, in all of its shards.
pub(super) async fn windows(
    client: &Client,
    query: &WindowsQuery,
    visit: &mut VisitWindow<'_>,
) -> Result<(), SinkError> {
    let (config, series) = (client.config(), &query.series);
    let (Some(low), Some(high)) = bounds(query.range) else { return Ok(()) };
    let hash = keys::series_hash(series.name(), series.tags().iter().map(|(key, value)| (&**key, &**value)));
    for shard in 0..config.layout.shards {
        let mut from: Option<Item> = None;
        loop {
            let request = client
                .sdk()
                .await?
                .query()
                .table_name(&config.table)
                .consistent_read(true)
                .key_condition_expression("#pk = :pk AND #sk BETWEEN :low AND :high")
                .projection_expression("#sk, #value")
                .expression_attribute_names("#pk", PK)
                .expression_attribute_names("#sk", SK)
                .expression_attribute_names("#value", VALUE)
                .expression_attribute_values(":pk", text(&keys::partition_key(&hash, shard)))
                .expression_attribute_values(":low", text(&low))
                .expression_attribute_values(":high", text(&high))
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .set_exclusive_start_key(from);
            let page = request.send().await.map_err(|error| failure(client, &error))?;
            client.note_read(page.consumed_capacity());
            for (time, value) in page.items().iter().filter_map(value_of) {
                visit(WindowTotal { start: query.window_start(time), total: narrow(series, value)? });
            }
            from = page.last_evaluated_key().cloned();
            if from.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// The first and the last sort key of a range; `None` when it is empty. `~` sorts after whatever follows a time in a
/// key.
fn bounds(range: TimeRange) -> (Option<String>, Option<String>) {
    let low = range.from.unwrap_or(i64::MIN);
    let high = range.to.map_or(Some(i64::MAX), |to| to.checked_sub(1));
    let Some(high) = high.filter(|high| *high >= low) else { return (None, None) };
    (Some(keys::time_text(low)), Some(format!("{}~", keys::time_text(high))))
}

fn series_of(item: &Item) -> Option<Series> {
    let name = item.get(NAME)?.as_s().ok()?;
    let tags = item.get(TAGS)?.as_m().ok()?;
    let tags: Option<Vec<_>> =
        tags.iter().map(|(key, value)| Some((key.as_str(), value.as_s().ok()?.as_str()))).collect();
    Some(series_of_tags(name, tags?))
}

fn value_of(item: &Item) -> Option<(i64, u128)> {
    let time = keys::parse_time(item.get(SK)?.as_s().ok()?)?;
    Some((time, item.get(VALUE)?.as_n().ok()?.parse().ok()?))
}

/// DynamoDB adds up to 38 digits; totals have 64 bits.
fn narrow(series: &Series, sum: u128) -> Result<u64, SinkError> {
    u64::try_from(sum).map_err(|_| SinkError::Halt(format!("{series} sums to {sum}, which exceeds 64 bits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_the_keys_of_its_times() {
        let key = |time: i64| format!("{}/t/0/1/2", keys::time_text(time));
        let (low, high) = bounds(TimeRange { from: Some(10), to: Some(20) });
        let (low, high) = (low.unwrap(), high.unwrap());
        for (time, inside) in [(9, false), (10, true), (19, true), (20, false)] {
            for key in [keys::time_text(time), key(time)] {
                assert_eq!(low <= key && key <= high, inside, "{key}");
            }
        }
        assert_eq!(bounds(TimeRange { from: Some(5), to: Some(5) }), (None, None));
        assert_eq!(bounds(TimeRange { from: None, to: Some(i64::MIN) }), (None, None));
        assert!(bounds(TimeRange::default()).0.is_some());
    }
}
