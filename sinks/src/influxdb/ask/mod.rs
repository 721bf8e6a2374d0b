//! The standard questions, in InfluxQL for version 1 and in Flux for version 2.

mod flux;
mod influxql;

use tallybus_sdk::{Answer, Question, SinkError, Storage};

use super::client::Client;
use super::config::Api;
use super::read::bounds;
use super::v2::V2;

/// Answers a question that was prepared.
///
/// `window`: the sink's own, or a millisecond. A point's time is the start of its window plus its slot, so that the range is
/// widened to whole windows, and a minute holds whole windows.
pub(super) async fn ask(
    client: &Client,
    v2: Option<&V2>,
    question: &Question,
    window: i64,
) -> Result<Answer, SinkError> {
    let Some(bounds) = bounds(question.range(), window) else { return Ok(question.empty_answer()) };
    match v2 {
        Some(v2) => flux::ask(v2, question, bounds).await,
        None => influxql::ask(client, question, bounds).await,
    }
}

pub(super) async fn storage(client: &Client) -> Result<Storage, SinkError> {
    match &client.config().api {
        Api::V1 { database, retention_policy, .. } => {
            influxql::storage(client, database, retention_policy.as_deref()).await
        }
        Api::V2 { .. } => Ok(Storage::NotOffered("InfluxDB 2's API does not say how much storage one bucket takes")),
    }
}
