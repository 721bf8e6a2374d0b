//! Claims: points of a measurement of their own, without the field `value` that counts have.
//!
//! Each entry is a series, named by its hash, with one point at a fixed time in the future, where no retention deletes it. A
//! removed entry is empty: InfluxDB overwrites the point, and no right to delete is needed. Marks are points of another
//! measurement, each with its offset before the entry.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tallybus_sdk::{Claims, SinkError};

use super::answer::{judge, says_missing};
use super::{InfluxSink, read};
use crate::shared::fingerprint::short_fingerprint;
use crate::shared::marks::{mark_text, parse_mark};

/// The measurement. A counter of this name shares it without a conflict: its field is another one.
pub(super) const MEASUREMENT: &str = "tallybus_claims";
/// The measurement of the marks.
const MARKS: &str = "tallybus_marks";
const MARKS_EVERY: Duration = Duration::from_secs(60);

/// 2200-01-01 in nanoseconds since the Unix epoch.
const TIME: i64 = 7_258_118_400_000_000_000;

impl InfluxSink {
    async fn write_claim(&self, measurement: &str, entry: &str, text: &str) -> Result<(), SinkError> {
        let line = line(measurement, entry, text);
        let reply = self.client.write(Bytes::from(line)).await.map_err(SinkError::Unavailable)?;
        self.explained(judge(&reply, std::time::SystemTime::now()).map_err(SinkError::from)).await
    }

    /// The texts of a measurement of claims; none where the worker may be about to create the database.
    async fn claim_texts(&self, measurement: &str) -> Result<Vec<String>, SinkError> {
        let found = self.read_claims(measurement).await;
        match found {
            Err(SinkError::Halt(_)) if self.client.config().create && says_missing(&self.probe().await?) => {
                Ok(Vec::new())
            }
            Err(SinkError::Halt(reason)) => {
                let reason = format!(
                    "the claims in InfluxDB, which show whether another sink writes there, cannot be read: {reason}"
                );
                self.explained(Err(SinkError::Halt(reason))).await
            }
            found => found,
        }
    }

    async fn read_claims(&self, measurement: &str) -> Result<Vec<String>, SinkError> {
        let Some(v2) = &self.v2 else {
            let query = format!("SELECT \"claim\"::field FROM \"{measurement}\" WHERE time = {TIME} GROUP BY *");
            let mut found = Vec::new();
            let mut each = |answer: &Value| {
                found.extend(entries(answer)?);
                Ok(())
            };
            self.client.influxql(&query, &mut each).await?;
            return Ok(found);
        };
        let mut found = Vec::new();
        let flux = read::flux::claims(v2.bucket(), measurement, TIME);
        v2.query(flux, |record| {
            found.extend(record.values.get("c:_value").and_then(|value| value.string()));
            Ok(())
        })
        .await?;
        found.retain(|entry| !entry.is_empty());
        Ok(found)
    }
}

fn line(measurement: &str, entry: &str, text: &str) -> String {
    let id = short_fingerprint([entry]);
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{measurement},id={id} claim=\"{text}\" {TIME}")
}

/// The entries in a part of an answer.
fn entries(answer: &Value) -> Result<Vec<String>, SinkError> {
    let rows = read::influxql::series_in(answer)?.filter_map(|series| series["values"].as_array()).flatten();
    Ok(rows.filter_map(|row| row[1].as_str()).filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
}

#[async_trait]
impl Claims for InfluxSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        self.claim_texts(MEASUREMENT).await
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.write_claim(MEASUREMENT, entry, entry).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.write_claim(MEASUREMENT, entry, "").await
    }

    async fn mark(&self, entry: &str, offset: u64) -> Result<(), SinkError> {
        self.write_claim(MARKS, entry, &mark_text(entry, offset)).await
    }

    async fn marks(&self) -> Result<Vec<(String, u64)>, SinkError> {
        self.claim_texts(MARKS).await?.iter().map(|text| parse_mark(text, MARKS)).collect()
    }

    fn marks_every(&self) -> Option<Duration> {
        Some(MARKS_EVERY)
    }

    fn keeps_tags_apart(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_one_line_whatever_its_text() {
        assert_eq!(
            line(MEASUREMENT, "a", "{\"a\":\"\\n\"}"),
            "tallybus_claims,id=ae6121c88ba555f6 claim=\"{\\\"a\\\":\\\"\\\\n\\\"}\" 7258118400000000000"
        );
    }

    #[test]
    fn removed_claims_are_no_entries() {
        let read = |body: &str| entries(&serde_json::from_str(body).unwrap());
        let body = r#"{"results":[{"series":[
            {"name":"tallybus_claims","tags":{"id":"1"},"columns":["time","claim"],"values":[[7258118400000000000,"{}"]]},
            {"name":"tallybus_claims","tags":{"id":"2"},"columns":["time","claim"],"values":[[7258118400000000000,""]]}]}]}"#;
        assert_eq!(read(body).unwrap(), ["{}"]);
        assert_eq!(read(r#"{"results":[{"statement_id":0}]}"#).unwrap(), [""; 0]);
        assert!(matches!(read(r#"{"error":"timeout"}"#), Err(SinkError::Unavailable(_))));
    }
}
