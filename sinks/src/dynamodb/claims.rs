//! Claims: one item with a set of texts. It needs no right beyond those that the ledger needs.

use async_trait::async_trait;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnConsumedCapacity};
use tallybus_sdk::{Claims, SinkError};

use super::DynamoSink;
use super::client::{Client, PK, SK, is_missing, text};
use super::table::failure;
use crate::shared::aws::Failure;

/// Partition key and sort key of the item. A series' partition key is 64 hexadecimal digits and `#`, and a count's sort key
/// begins with a time.
const KEY: &str = "claims";
const ENTRIES: &str = "claims";

impl Client {
    async fn claims(&self) -> Result<Vec<String>, SinkError> {
        let request = self
            .sdk()
            .await?
            .get_item()
            .table_name(&self.config().table)
            .key(PK, text(KEY))
            .key(SK, text(KEY))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = match request.send().await {
            Ok(output) => output,
            // The worker may be about to create the table: then it has no claims.
            Err(error) if self.config().create && is_missing(&Failure::of(&error)) => return Ok(Vec::new()),
            Err(error) => return Err(failure(self, &error)),
        };
        self.note_read(output.consumed_capacity());
        match output.item().and_then(|item| item.get(ENTRIES)) {
            // DynamoDB keeps no empty set.
            None => Ok(Vec::new()),
            Some(AttributeValue::Ss(entries)) => Ok(entries.clone()),
            Some(_) => Err(SinkError::Halt(format!(
                "the item {KEY} of table {} is not Tallybus's: check what else writes to this table",
                self.config().table
            ))),
        }
    }

    /// An update of the item, without an expression yet.
    async fn update_claims(&self) -> Result<UpdateItemFluentBuilder, SinkError> {
        let request = self.sdk().await?.update_item().table_name(&self.config().table);
        Ok(request.key(PK, text(KEY)).key(SK, text(KEY)))
    }

    /// An update that its condition forbids: with the right to write it fails by the condition, without it by the right.
    pub(super) async fn try_writing(&self) -> Result<(), SinkError> {
        let request = self
            .update_claims()
            .await?
            .update_expression("REMOVE #never")
            .condition_expression("attribute_exists(#key) AND attribute_not_exists(#key)")
            .expression_attribute_names("#never", "never")
            .expression_attribute_names("#key", PK);
        match request.send().await {
            Err(error) if Failure::of(&error).code.as_deref() == Some("ConditionalCheckFailedException") => Ok(()),
            Err(error) => Err(failure(self, &error)),
            Ok(_) => Err(SinkError::Halt("DynamoDB does not respect conditions, which this sink relies on".to_owned())),
        }
    }

    pub(super) async fn is_there(&self) -> Result<bool, SinkError> {
        Ok(!self.config().create || super::table::exists(self).await?)
    }

    async fn change_claims(&self, expression: &str, entry: &str) -> Result<(), SinkError> {
        let request = self
            .update_claims()
            .await?
            .update_expression(expression)
            .expression_attribute_names("#entries", ENTRIES)
            .expression_attribute_values(":entry", AttributeValue::Ss(vec![entry.to_owned()]));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(failure(self, &error)),
        }
    }
}

#[async_trait]
impl Claims for DynamoSink {
    async fn entries(&self) -> Result<Vec<String>, SinkError> {
        self.client.claims().await
    }

    async fn add(&self, entry: &str) -> Result<(), SinkError> {
        self.client.change_claims("ADD #entries :entry", entry).await
    }

    async fn remove(&self, entry: &str) -> Result<(), SinkError> {
        self.client.change_claims("DELETE #entries :entry", entry).await
    }
}
