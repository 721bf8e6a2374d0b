//! What the table holds, for audits. Reads are strongly consistent: they see every acknowledged write.

use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use tallybus_schemas::Series;
use tallybus_sdk::{
    Answer, BackendVersion, Foreign, ForeignKind, Held, Question, ReadBack, SinkError, Storage, VisitHeld, WindowTotal,
    WindowsQuery,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::client::{Client, NAME, PK, SK, TAGS, VALUE, text};
use super::keys;
use super::table::{failure, size};
use super::{DynamoSink, STORAGE, ask};
use crate::shared::json_tags::series_of_tags;
use crate::shared::questions;

/// How many parts of the table are read at once.
const SEGMENTS: i32 = 4;

type Item = std::collections::HashMap<String, AttributeValue>;

/// How many scanned pages may wait to be visited.
const PAGES: usize = 4;

/// Visits every item of the table.
pub(super) async fn windows(
    client: &Arc<Client>,
    query: &WindowsQuery,
    visit: &mut VisitHeld<'_>,
) -> Result<(), SinkError> {
    let mut segments = JoinSet::new();
    let (found, mut pages) = mpsc::channel(PAGES);
    for segment in 0..SEGMENTS {
        let (client, query, found) = (Arc::clone(client), query.clone(), found.clone());
        segments.spawn(async move { scan(&client, &query, segment, &found).await });
    }
    drop(found);
    while let Some(page) = pages.recv().await {
        page.into_iter().for_each(&mut *visit);
    }
    while let Some(segment) = segments.join_next().await {
        segment.map_err(|error| SinkError::Unavailable(format!("a scan was cancelled: {error}")))??;
    }
    Ok(())
}

async fn scan(
    client: &Client,
    query: &WindowsQuery,
    segment: i32,
    found: &mpsc::Sender<Vec<Held>>,
) -> Result<(), SinkError> {
    let mut from: Option<Item> = None;
    let mut last = None;
    loop {
        let mut request = client
            .sdk()
            .await?
            .scan()
            .table_name(&client.config().table)
            .segment(segment)
            .total_segments(SEGMENTS)
            .consistent_read(true)
            .projection_expression("#pk, #name, #tags, #value, #sk")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#name", NAME)
            .expression_attribute_names("#tags", TAGS)
            .expression_attribute_names("#value", VALUE)
            .expression_attribute_names("#sk", SK)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_exclusive_start_key(from);
        let (low, high) = (query.range.from.map(keys::time_text), query.range.to.map(keys::time_text));
        let of_name = query.name.as_deref().filter(|name| questions::is_name(name));
        let conditions = [
            low.as_ref().map(|_| "#sk >= :from"),
            high.as_ref().map(|_| "#sk < :to"),
            of_name.map(|_| "#name = :name"),
        ];
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
        if let Some(name) = of_name {
            request = request.expression_attribute_values(":name", text(name));
        }
        let page = request.send().await.map_err(|error| failure(client, &error))?;
        client.note_read(page.consumed_capacity());
        let held: Vec<Held> = page.items().iter().filter_map(|item| held(item, &mut last)).collect();
        if found.send(held).await.is_err() {
            return Ok(());
        }
        from = page.last_evaluated_key().cloned();
        if from.is_none() {
            return Ok(());
        }
    }
}

/// What an item stands for; `None` for one without a name and a value, which holds no count: a ledger item.
fn held(item: &Item, last: &mut Option<Arc<Series>>) -> Option<Held> {
    let key = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str);
    if !item.contains_key(NAME) && !item.contains_key(VALUE) {
        return None;
    }
    let foreign = |kind| {
        let value = item.get(VALUE).and_then(|value| value.as_n().ok()).map_or("none", String::as_str);
        let what = format!("item {} {}, name {}, value {value}", key(PK), key(SK), key(NAME));
        Some(Held::Foreign(Foreign::new(kind, what)))
    };
    let Some(series) = series_of(item) else { return foreign(ForeignKind::Tags) };
    let Some(start) = keys::parse_time(key(SK)) else { return foreign(ForeignKind::Time) };
    if start < 0 {
        return foreign(ForeignKind::BeforeEpoch);
    }
    let Some(Ok(value)) = item.get(VALUE).map(AttributeValue::as_n) else { return foreign(ForeignKind::ValueType) };
    let total = match value.parse::<u128>() {
        Ok(total) => total,
        Err(_) if value.starts_with('-') => return foreign(ForeignKind::Negative),
        Err(_) => return foreign(ForeignKind::Fraction),
    };
    let series = match last {
        Some(last) if **last == series => Arc::clone(last),
        _ => Arc::clone(last.insert(Arc::new(series))),
    };
    Some(Held::Window(WindowTotal { series, start, total }))
}

fn series_of(item: &Item) -> Option<Series> {
    let name = item.get(NAME)?.as_s().ok()?;
    let tags = item.get(TAGS)?.as_m().ok()?;
    let tags: Option<Vec<_>> =
        tags.iter().map(|(key, value)| Some((key.as_str(), value.as_s().ok()?.as_str()))).collect();
    Some(series_of_tags(name, tags?))
}

#[async_trait]
impl ReadBack for DynamoSink {
    async fn windows(&self, query: &WindowsQuery, visit: &mut VisitHeld<'_>) -> Result<(), SinkError> {
        windows(&self.client, query, visit).await
    }

    async fn ask(&self, question: &Question) -> Result<Answer, SinkError> {
        if let Some(answer) = ask::refusal(question) {
            return Ok(answer);
        }
        match questions::prepare(question, self.window) {
            Ok(question) => ask::ask(&self.client, &question).await,
            Err(answer) => Ok(answer),
        }
    }

    async fn storage(&self) -> Result<Storage, SinkError> {
        Ok(Storage::Bytes { bytes: size(&self.client).await?, what: STORAGE })
    }

    async fn version(&self) -> Result<BackendVersion, SinkError> {
        Ok(BackendVersion::NotOffered("DynamoDB is a service whose API names no version"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_a_point_or_foreign_or_no_count() {
        let n = |number: &str| AttributeValue::N(number.to_owned());
        let tags = |value| AttributeValue::M([("k".to_owned(), value)].into());
        let item = |sk: &str, tags: AttributeValue, value: AttributeValue| -> Item {
            let parts = [(PK, text("hash#0")), (SK, text(sk)), (NAME, text("n")), (TAGS, tags), (VALUE, value)];
            parts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
        };
        let time = "2023-11-14T22:13:20.000000000Z";
        let kind = |item: &Item| match held(item, &mut None) {
            Some(Held::Foreign(foreign)) => Some(foreign.kind),
            Some(Held::Window(window)) => {
                assert_eq!(window.start, 1_700_000_000_000_000_000);
                assert_eq!(*window.series, Series::from_sorted("n", &[("k", "v")]));
                assert_eq!(window.total, u128::from(u64::MAX) + 1);
                None
            }
            None => panic!("an item that counts"),
        };
        let over = "18446744073709551616";
        for sk in [time.to_owned(), format!("{time}/t/0/1/2")] {
            assert_eq!(kind(&item(&sk, tags(text("v")), n(over))), None);
        }
        for (sk, tags, value, expected) in [
            (time, tags(n("4")), n("1"), ForeignKind::Tags),
            (time, text("x"), n("1"), ForeignKind::Tags),
            ("x", tags(text("v")), n("1"), ForeignKind::Time),
            ("1969-12-31T23:59:59.000000000Z", tags(text("v")), n("1"), ForeignKind::BeforeEpoch),
            (time, tags(text("v")), n("-1"), ForeignKind::Negative),
            (time, tags(text("v")), n("1.5"), ForeignKind::Fraction),
            (time, tags(text("v")), text("1"), ForeignKind::ValueType),
        ] {
            assert_eq!(kind(&item(sk, tags, value)), Some(expected), "{sk}");
        }
        let ledger: Item = [(PK.to_owned(), text("ledger#t/0")), (SK.to_owned(), text(keys::LEDGER_SORT))].into();
        assert_eq!(held(&ledger, &mut None), None);
    }
}
