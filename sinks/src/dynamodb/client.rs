//! The write requests, and the usage of all requests.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_sdk_dynamodb::Client as Sdk;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConsumedCapacity, PutRequest, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
    WriteRequest,
};
use tallybus_sdk::text::redact;
use tallybus_sdk::{BatchId, Fault, SinkError, Usage};
use tokio::sync::OnceCell;

use super::answer::{self, Outcome};
use super::config::Config;
use super::encode::Write;
use super::keys;
use super::table::failure;
use crate::shared::aws::{Aws, Failure};

/// The attributes of an item, besides a mark for each partition.
pub(super) const PK: &str = "pk";
pub(super) const SK: &str = "sk";
pub(super) const NAME: &str = "name";
pub(super) const TAGS: &str = "tags";
pub(super) const VALUE: &str = "value";
pub(super) const EXPIRES_AT: &str = "expires_at";
/// The attribute of a ledger item with its partition's offset.
const NEXT_OFFSET: &str = "next_offset";

/// The most items that one `BatchWriteItem` takes. Its other bound, 16 MB, is out of reach: the longest series makes an item
/// of 84 KB.
pub(super) const PUTS: usize = 25;

/// Talks to one table.
#[derive(Debug)]
pub(super) struct Client {
    aws: Aws,
    config: Config,
    sdk: OnceCell<Sdk>,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    requests: u64,
    write_units: f64,
    read_units: f64,
    throttled: u64,
    held: u64,
}

impl Client {
    /// Makes no request yet.
    pub(super) fn new(config: Config) -> Self {
        let aws = Aws::new(config.aws.clone(), config.timeout);
        Self { aws, config, sdk: OnceCell::new(), used: Mutex::default() }
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) async fn sdk(&self) -> Result<&Sdk, SinkError> {
        self.sdk.get_or_try_init(|| async { Ok(Sdk::new(self.aws.config().await?)) }).await
    }

    /// Adds a batch's sum to an item, unless the partition's mark there is past the batch's first offset.
    pub(super) async fn add(&self, write: &Write, batch: &BatchId) -> Outcome {
        let sdk = match self.sdk().await {
            Ok(sdk) => sdk,
            Err(error) => return Outcome::Failed(error.into()),
        };
        let mut update = String::from("SET #mark = :end, #name = :name, #tags = :tags");
        if write.expires_at.is_some() {
            update.push_str(", #expires_at = :expires_at");
        }
        update.push_str(" ADD #value :value");
        let mark = keys::mark(&batch.topic, batch.partition);
        let mut request = sdk
            .update_item()
            .table_name(&self.config.table)
            .key(PK, text(&write.pk()))
            .key(SK, text(&write.sk))
            .update_expression(update)
            .condition_expression("attribute_not_exists(#mark) OR #mark <= :first")
            .expression_attribute_names("#mark", &mark)
            .expression_attribute_names("#name", NAME)
            .expression_attribute_names("#tags", TAGS)
            .expression_attribute_names("#value", VALUE)
            .expression_attribute_values(":first", number(batch.first))
            .expression_attribute_values(":end", number(batch.end))
            .expression_attribute_values(":name", text(&write.name.name))
            .expression_attribute_values(":tags", write.name.tags.clone())
            .expression_attribute_values(":value", number(write.value))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(expires_at) = write.expires_at {
            request = request
                .expression_attribute_names("#expires_at", EXPIRES_AT)
                .expression_attribute_values(":expires_at", number(expires_at));
        }
        match request.send().await {
            Ok(output) => {
                let consumed: Vec<_> = output.consumed_capacity().into_iter().collect();
                self.note(&consumed, &Outcome::Applied);
                Outcome::Applied
            }
            Err(error) => {
                let outcome = match error.as_service_error() {
                    Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                        Outcome::Held(failed.item().and_then(|item| item.get(&mark)).and_then(offset_of))
                    }
                    _ => self.redacted(answer::outcome(&Failure::of(&error))),
                };
                self.note(&[], &outcome);
                outcome
            }
        }
    }

    /// Raises a partition's ledger to a batch's end, unless it is past the batch's first offset, or behind its floor.
    pub(super) async fn raise_ledger(&self, batch: &BatchId, least: u64) -> Outcome {
        let sdk = match self.sdk().await {
            Ok(sdk) => sdk,
            Err(error) => return Outcome::Failed(error.into()),
        };
        // A ledger that has a floor exists. It may be past the batch's first offset; `BETWEEN` refuses such bounds as invalid.
        let (condition, floor) = match least {
            0 => ("attribute_not_exists(#next) OR #next <= :first", None),
            _ => ("#next >= :least AND #next <= :first", Some(HashMap::from([(":least".to_owned(), number(least))]))),
        };
        let request = sdk
            .update_item()
            .table_name(&self.config.table)
            .key(PK, text(&keys::ledger_key(&batch.topic, batch.partition)))
            .key(SK, text(keys::LEDGER_SORT))
            .update_expression("SET #next = :end, #topic = :topic, #partition = :partition")
            .condition_expression(condition)
            .set_expression_attribute_values(floor)
            .expression_attribute_names("#next", NEXT_OFFSET)
            .expression_attribute_names("#topic", "topic")
            .expression_attribute_names("#partition", "partition")
            .expression_attribute_values(":first", number(batch.first))
            .expression_attribute_values(":end", number(batch.end))
            .expression_attribute_values(":topic", text(&batch.topic))
            .expression_attribute_values(":partition", number(batch.partition))
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let outcome = match request.send().await {
            Ok(output) => {
                let consumed: Vec<_> = output.consumed_capacity().into_iter().collect();
                self.note(&consumed, &Outcome::Applied);
                return Outcome::Applied;
            }
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(failed)) => {
                    Outcome::Held(failed.item().and_then(|item| item.get(NEXT_OFFSET)).and_then(offset_of))
                }
                _ => self.redacted(answer::outcome(&Failure::of(&error))),
            },
        };
        self.note(&[], &outcome);
        outcome
    }

    /// The offset of a partition's ledger; 0 when it does not exist yet, or the table does not exist but the sink may
    /// create it.
    pub(super) async fn ledger_end(&self, topic: &str, partition: u32) -> Result<u64, SinkError> {
        let key = keys::ledger_key(topic, partition);
        let request = self
            .sdk()
            .await?
            .get_item()
            .table_name(&self.config.table)
            .key(PK, text(&key))
            .key(SK, text(keys::LEDGER_SORT))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = match request.send().await {
            Ok(output) => output,
            Err(error) if self.config.create && is_missing(&Failure::of(&error)) => return Ok(0),
            Err(error) => return Err(failure(self, &error)),
        };
        self.note_read(output.consumed_capacity());
        let Some(item) = output.item() else { return Ok(0) };
        item.get(NEXT_OFFSET).and_then(offset_of).ok_or_else(|| {
            SinkError::Halt(format!("the item {key} of table {} holds no {NEXT_OFFSET}", self.config.table))
        })
    }

    /// Puts up to [`PUTS`] items. When the table refuses the whole request because of one item, each is put alone.
    pub(super) async fn put(&self, writes: &[&Write]) -> Vec<Outcome> {
        let outcomes = self.put_together(writes).await;
        if writes.len() < 2 || !outcomes.iter().any(Outcome::is_refused) {
            return outcomes;
        }
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            outcomes.extend(self.put_together(&[write]).await);
        }
        outcomes
    }

    async fn put_together(&self, writes: &[&Write]) -> Vec<Outcome> {
        let all = |outcome: Outcome| vec![outcome; writes.len()];
        let sdk = match self.sdk().await {
            Ok(sdk) => sdk,
            Err(error) => return all(Outcome::Failed(error.into())),
        };
        let mut puts = Vec::with_capacity(writes.len());
        for write in writes {
            match PutRequest::builder().set_item(Some(item(write))).build() {
                Ok(put) => puts.push(WriteRequest::builder().put_request(put).build()),
                Err(error) => return all(Outcome::Failed(Fault::operator(error.to_string()))),
            }
        }
        let request = sdk
            .batch_write_item()
            .request_items(&self.config.table, puts)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match request.send().await {
            Ok(output) => {
                let left = output.unprocessed_items().map(|tables| tables.values().flatten());
                let left: Vec<_> = left.into_iter().flatten().filter_map(key_of).collect();
                let busy = || Outcome::Throttled("DynamoDB: left unprocessed".to_owned());
                let is_left = |write: &Write| left.contains(&(write.pk().as_str(), write.sk.as_str()));
                let outcomes: Vec<Outcome> =
                    writes.iter().map(|write| if is_left(write) { busy() } else { Outcome::Applied }).collect();
                let worst = if left.is_empty() { Outcome::Applied } else { busy() };
                let consumed: Vec<_> = output.consumed_capacity().iter().collect();
                self.note(&consumed, &worst);
                outcomes
            }
            Err(error) => {
                let outcome = self.redacted(answer::outcome(&Failure::of(&error)));
                self.note(&[], &outcome);
                all(outcome)
            }
        }
    }

    /// Counts a request that reads.
    pub(super) fn note_read(&self, consumed: Option<&ConsumedCapacity>) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.requests += 1;
        used.read_units += consumed.and_then(ConsumedCapacity::capacity_units).unwrap_or_default();
    }

    pub(super) fn usage(&self) -> Vec<Usage> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        vec![
            Usage::of("requests", used.requests),
            Usage { what: "write units", amount: used.write_units },
            Usage { what: "read units", amount: used.read_units },
            Usage::of("throttled requests", used.throttled),
            Usage::of("conditions that failed", used.held),
        ]
    }

    /// Removes secrets from a text.
    pub(super) fn redact(&self, text: &str) -> String {
        redact(text, &self.aws.settings().secrets())
    }

    fn redacted(&self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed(fault) => Outcome::Failed(fault.reworded(|reason| self.redact(reason))),
            Outcome::Throttled(reason) => Outcome::Throttled(self.redact(&reason)),
            Outcome::Applied | Outcome::Held(_) => outcome,
        }
    }

    fn note(&self, consumed: &[&ConsumedCapacity], outcome: &Outcome) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.requests += 1;
        used.write_units += consumed.iter().filter_map(|consumed| consumed.capacity_units()).sum::<f64>();
        match outcome {
            Outcome::Throttled(_) => used.throttled += 1,
            Outcome::Held(_) => used.held += 1,
            _ => {}
        }
    }
}

/// An item of raw mode, whole.
fn item(write: &Write) -> HashMap<String, AttributeValue> {
    let mut item = HashMap::from([
        (PK.to_owned(), text(&write.pk())),
        (SK.to_owned(), text(&write.sk)),
        (NAME.to_owned(), text(&write.name.name)),
        (TAGS.to_owned(), write.name.tags.clone()),
        (VALUE.to_owned(), number(write.value)),
    ]);
    if let Some(expires_at) = write.expires_at {
        item.insert(EXPIRES_AT.to_owned(), number(expires_at));
    }
    item
}

fn key_of(request: &WriteRequest) -> Option<(&str, &str)> {
    let item = request.put_request()?.item();
    let text = |key: &str| item.get(key)?.as_s().ok().map(String::as_str);
    Some((text(PK)?, text(SK)?))
}

pub(super) fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

pub(super) fn is_missing(failure: &Failure) -> bool {
    failure.code.as_deref() == Some("ResourceNotFoundException")
}

fn offset_of(value: &AttributeValue) -> Option<u64> {
    value.as_n().ok()?.parse().ok()
}

fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}
