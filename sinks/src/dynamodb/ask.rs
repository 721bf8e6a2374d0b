//! The question that a `Query` answers: DynamoDB finds items by their series, and adds nothing up itself.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use tallybus_sdk::{Answer, NANOS_PER_MINUTE, Question, Series, SinkError, TimeRange};

use super::client::{Client, PK, SK, VALUE, text};
use super::keys;
use super::table::failure;
use crate::shared::questions;

/// Why a question is not offered.
pub(super) fn refusal(question: &Question) -> Option<Answer> {
    let needs_scan = !matches!(question, Question::SeriesByMinute { .. });
    let reason = "DynamoDB finds items by their series alone: every other question reads the whole table";
    needs_scan.then_some(Answer::NotOffered(reason))
}

/// Answers a question that was prepared.
pub(super) async fn ask(client: &Client, question: &Question) -> Result<Answer, SinkError> {
    let Question::SeriesByMinute { series, range } = question else { return Ok(questions::UNKNOWN) };
    let tags = series.tags().iter().map(|(key, value)| (&**key, &**value));
    let hash = keys::series_hash(series.name(), tags);
    let mut sums = BTreeMap::new();
    for shard in 0..client.config().layout.shards {
        add_shard(client, &keys::partition_key(&hash, shard), series, *range, &mut sums).await?;
    }
    Ok(Answer::ByMinute(sums))
}

async fn add_shard(
    client: &Client,
    key: &str,
    series: &Series,
    range: TimeRange,
    sums: &mut BTreeMap<i64, u128>,
) -> Result<(), SinkError> {
    let mut from = None;
    loop {
        let (low, high) = (keys::time_text(range.from.unwrap_or(0)), keys::time_text(range.to.unwrap_or(i64::MAX)));
        let request = client
            .sdk()
            .await?
            .query()
            .table_name(&client.config().table)
            .consistent_read(true)
            // A key at the end itself is left out below; in raw mode a key goes on after its time, and is greater.
            .key_condition_expression("#pk = :pk AND #sk BETWEEN :from AND :to")
            .projection_expression("#sk, #value")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#sk", SK)
            .expression_attribute_names("#value", VALUE)
            .expression_attribute_values(":pk", text(key))
            .expression_attribute_values(":from", text(&low))
            .expression_attribute_values(":to", text(&high))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_exclusive_start_key(from);
        let page = request.send().await.map_err(|error| failure(client, &error))?;
        client.note_read(page.consumed_capacity());
        for item in page.items() {
            let time = item.get(SK).and_then(|key| keys::parse_time(key.as_s().ok()?));
            let Some(time) = time.filter(|time| range.contains(*time)) else { continue };
            let value = item.get(VALUE).map(AttributeValue::as_n).and_then(Result::ok);
            let value: u128 = value.and_then(|value| value.parse().ok()).ok_or_else(|| {
                SinkError::Halt(format!(
                    "the item of {series} at {} holds no count: another program changed it; `tallybus audit` names it",
                    keys::time_text(time)
                ))
            })?;
            *sums.entry(time - time.rem_euclid(NANOS_PER_MINUTE)).or_default() += value;
        }
        from = page.last_evaluated_key().cloned();
        if from.is_none() {
            return Ok(());
        }
    }
}
