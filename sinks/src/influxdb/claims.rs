//! Claims: points of a measurement of their own, without the field `value` that counts have.
//!
//! Each entry is a series, named by its hash, with one point at a fixed time in the future, where no retention deletes it. A
//! removed entry is empty: InfluxDB overwrites the point, and no right to delete is needed.

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use tallybus_sdk::{Claims, SinkError};

use super::{InfluxSink, judge, read, says_missing};
use crate::shared::fingerprint::short_fingerprint;

/// The measurement. A counter of this name shares it without a conflict: its field is another one.
pub(super) const MEASUREMENT: &str = "tallybus_claims";

/// 2200-01-01 in nanoseconds since the Unix epoch.
const TIME: i64 = 7_258_118_400_000_000_000;

impl InfluxSink {
    async fn write_claim(&self, entry: &str, text: &str) -> Result<(), SinkError> {
        let line = line(entry, text);
        let reply = self.client.write(Bytes::from(line)).await.map_err(SinkError::Unavailable)?;
        Ok(judge(&reply, std::time::SystemTime::now())?)
    }

    async fn read_claims(&self) -> Result<Vec<String>, SinkError> {
        let Some(v2) = &self.v2 else {
            let query = format!("SELECT \"claim\"::field FROM \"{MEASUREMENT}\" WHERE time = {TIME} GROUP BY *");
            let mut found = Vec::new();
            let mut each = |answer: &Value| {
                found.extend(entries(answer)?);
                Ok(())
            };
            self.client.influxql(&query, &mut each).await?;
            return Ok(found);
        };
        let mut found = Vec::new();
        let flux = read::flux::claims(v2.bucket(), MEASUREMENT, TIME);
        v2.query(flux, |record| {
            found.extend(record.values.get("c:_value").and_then(|value| value.string()));
            Ok(())
        })
        .await?;
        found.retain(|entry| !entry.is_empty());
        Ok(found)
    }
}

fn line(entry: &str, text: &str) -> String {
    let id = short_fingerprint([entry]);
    let text = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{MEASUREMENT},id={id} claim=\"{text}\" {TIME}")
}

/// The entries in a part of an answer.
fn entries(answer: &Value) -> Result<Vec<String>, SinkError> {
    let rows = read::influxql::series_in(answer)?.filter_map(|series| series["values"].as_array()).flatten();
    Ok(rows.filter_map(|row| row[1].as_str()).filter(|entry| !entry.is_empty()).map(str::to_owned).collect())
}

#[async_trait]
impl Claims for InfluxSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        match self.read_claims().await {
            // The worker may be about to create the database: then it has no claims.
            Err(SinkError::Halt(_)) if self.client.config().create && says_missing(&self.probe().await?) => {
                Ok(Vec::new())
            }
            Err(SinkError::Halt(reason)) => Err(SinkError::Halt(format!(
                "the claims in InfluxDB, which show whether another sink writes there, cannot be read: {reason}"
            ))),
            found => found,
        }
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.write_claim(entry, entry).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.write_claim(entry, "").await
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
            line("a", "{\"a\":\"\\n\"}"),
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
