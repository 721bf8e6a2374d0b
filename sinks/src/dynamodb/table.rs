//! The table: checks of its state and schema, and its creation.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::error::ProvideErrorMetadata;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, TableDescription, TableStatus,
    TimeToLiveSpecification, TimeToLiveStatus,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use tallybus_sdk::{Admin, Claims as _, ShadowName, Sink as _, SinkError, Tried};

use super::DynamoSink;
use super::answer::{self, Outcome};
use super::client::{Client, EXPIRES_AT, PK, SK, is_missing};
use crate::shared::aws::Failure;
use crate::shared::shadow::not_shadow;

/// A new table is ready after some seconds.
const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Classifies a failure of a check, or of the table's creation.
pub(super) fn failure<E>(client: &Client, error: &SdkError<E, HttpResponse>) -> SinkError
where
    E: Error + ProvideErrorMetadata + 'static,
{
    match answer::outcome(&Failure::of(error)) {
        Outcome::Throttled(reason) => SinkError::Unavailable(client.redact(&reason)),
        Outcome::Failed(fault) => fault.reworded(|reason| client.redact(reason)).into(),
        Outcome::Applied | Outcome::Held(_) => SinkError::Halt("DynamoDB: unexpected answer".to_owned()),
    }
}

/// Checks that the table can be written to. With `may_be_missing`, a missing table is accepted.
pub(super) async fn check(client: &Client, may_be_missing: bool) -> Result<(), SinkError> {
    let name = &client.config().table;
    let Some(table) = describe(client).await? else {
        return match may_be_missing {
            true => Ok(()),
            false => Err(SinkError::Halt(format!(
                "the table {name} does not exist: create it (`tallybus sink ddl`, `tallybus doctor --fix`), or set `create = true`"
            ))),
        };
    };
    judge(name, &table)?;
    if client.config().layout.ttl.is_none() || may_be_missing || expires(client).await? {
        return Ok(());
    }
    Err(SinkError::Halt(format!(
        "the table {name} does not let items expire by `{EXPIRES_AT}`, but `ttl` is set: enable it (`tallybus sink \
         ddl`, \
         `tallybus doctor --fix`), or leave `ttl` out"
    )))
}

/// Creates the table if it is missing, waits until it is ready, and enables the expiry of items.
pub(super) async fn make(client: &Client) -> Result<(), SinkError> {
    let name = &client.config().table;
    if describe(client).await?.is_none() {
        create(client).await?;
    }
    let mut waited = Duration::ZERO;
    loop {
        let table = describe(client).await?;
        let state = table.as_ref().and_then(TableDescription::table_status);
        if state.is_some_and(|state| *state != TableStatus::Creating) {
            break;
        }
        if waited >= READY_WITHIN {
            return Err(SinkError::Unavailable(format!("the table {name} is still being created")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        waited += LOOK_AGAIN;
    }
    if client.config().layout.ttl.is_some() && !expires(client).await? {
        let specification = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES_AT).build();
        let specification = specification.map_err(|error| SinkError::Halt(error.to_string()))?;
        let request =
            client.sdk().await?.update_time_to_live().table_name(name).time_to_live_specification(specification);
        request.send().await.map_err(|error| failure(client, &error))?;
    }
    check(client, false).await
}

/// How many bytes it takes; 0 where it does not exist yet and may be created.
pub(super) async fn size(client: &Client) -> Result<u64, SinkError> {
    let name = &client.config().table;
    match describe(client).await? {
        Some(table) => {
            let bytes = table.table_size_bytes().and_then(|bytes| u64::try_from(bytes).ok());
            bytes.ok_or_else(|| SinkError::Unavailable(format!("DynamoDB did not say how large the table {name} is")))
        }
        None if client.config().create => Ok(0),
        None => Err(SinkError::Halt(format!("the table {name} does not exist"))),
    }
}

/// Removes the table, and waits until it is gone.
pub(super) async fn remove(client: &Client) -> Result<(), SinkError> {
    let name = &client.config().table;
    match client.sdk().await?.delete_table().table_name(name).send().await {
        Ok(_) => {}
        Err(error) if is_missing(&Failure::of(&error)) => return Ok(()),
        Err(error) => return Err(failure(client, &error)),
    }
    let mut waited = Duration::ZERO;
    while describe(client).await?.is_some() {
        if waited >= READY_WITHIN {
            return Err(SinkError::Unavailable(format!("the table {name} is still being removed")));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        waited += LOOK_AGAIN;
    }
    Ok(())
}

async fn create(client: &Client) -> Result<(), SinkError> {
    let built = |error: aws_sdk_dynamodb::error::BuildError| SinkError::Halt(error.to_string());
    let mut request =
        client.sdk().await?.create_table().table_name(&client.config().table).billing_mode(BillingMode::PayPerRequest);
    for (key, role) in [(PK, KeyType::Hash), (SK, KeyType::Range)] {
        let definition = AttributeDefinition::builder().attribute_name(key).attribute_type(ScalarAttributeType::S);
        let element = KeySchemaElement::builder().attribute_name(key).key_type(role);
        request = request
            .attribute_definitions(definition.build().map_err(built)?)
            .key_schema(element.build().map_err(built)?);
    }
    match request.send().await {
        Ok(_) => Ok(()),
        // Another worker created it first.
        Err(error) if Failure::of(&error).code.as_deref() == Some("ResourceInUseException") => Ok(()),
        Err(error) => Err(failure(client, &error)),
    }
}

pub(super) async fn exists(client: &Client) -> Result<bool, SinkError> {
    Ok(describe(client).await?.is_some())
}

/// `None` when there is no such table.
async fn describe(client: &Client) -> Result<Option<TableDescription>, SinkError> {
    let request = client.sdk().await?.describe_table().table_name(&client.config().table);
    match request.send().await {
        Ok(output) => Ok(output.table),
        Err(error) if Failure::of(&error).code.as_deref() == Some("ResourceNotFoundException") => Ok(None),
        Err(error) => Err(failure(client, &error)),
    }
}

/// Whether the table's time-to-live is enabled on the right attribute.
async fn expires(client: &Client) -> Result<bool, SinkError> {
    let request = client.sdk().await?.describe_time_to_live().table_name(&client.config().table);
    let output = request.send().await.map_err(|error| failure(client, &error))?;
    let Some(found) = output.time_to_live_description() else { return Ok(false) };
    let is_on = matches!(found.time_to_live_status(), Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling));
    match found.attribute_name() {
        Some(other) if is_on && other != EXPIRES_AT => Err(SinkError::Halt(format!(
            "the table {} lets items expire by `{other}`, not by `{EXPIRES_AT}`: use another table, or leave `ttl` out",
            client.config().table
        ))),
        _ => Ok(is_on),
    }
}

/// Checks that an existing table can be used.
fn judge(name: &str, table: &TableDescription) -> Result<(), SinkError> {
    match table.table_status() {
        Some(TableStatus::Active | TableStatus::Updating) => {}
        Some(state @ (TableStatus::Creating | TableStatus::Deleting)) => {
            return Err(SinkError::Unavailable(format!("the table {name} is {}", state.as_str())));
        }
        state => {
            let state = state.map_or("in an unknown state", TableStatus::as_str);
            return Err(SinkError::Halt(format!("the table {name} is {state}: make it active again")));
        }
    }
    let key = |role: &KeyType| {
        let element = table.key_schema().iter().find(|element| element.key_type() == role)?;
        let name = element.attribute_name();
        let definition = table.attribute_definitions().iter().find(|definition| definition.attribute_name() == name)?;
        Some(format!("`{name}` ({})", definition.attribute_type().as_str()))
    };
    let found = [key(&KeyType::Hash), key(&KeyType::Range)].map(|key| key.unwrap_or_else(|| "none".to_owned()));
    let expected = [PK, SK].map(|key| format!("`{key}` (S)"));
    if found != expected {
        return Err(SinkError::Halt(format!(
            "the table {name} has partition key {} and sort key {}, but needs {} and {}: use another table",
            found[0], found[1], expected[0], expected[1]
        )));
    }
    if !table.local_secondary_indexes().is_empty() {
        return Err(SinkError::Halt(format!(
            "the table {name} has local secondary indexes, which bound a series to 10 GB: use a table without them"
        )));
    }
    Ok(())
}

/// The AWS CLI commands that create the table.
pub(super) fn ddl(name: &str, expires: bool) -> String {
    let mut text = format!(
        "aws dynamodb create-table --table-name {name} --billing-mode PAY_PER_REQUEST \\\n    \
         --attribute-definitions AttributeName={PK},AttributeType=S AttributeName={SK},AttributeType=S \\\n    \
         --key-schema AttributeName={PK},KeyType=HASH AttributeName={SK},KeyType=RANGE\n\
         aws dynamodb wait table-exists --table-name {name}\n"
    );
    if expires {
        text.push_str(&format!(
            "aws dynamodb update-time-to-live --table-name {name} \\\n    \
             --time-to-live-specification Enabled=true,AttributeName={EXPIRES_AT}\n"
        ));
    }
    text
}

#[async_trait]
impl Admin for DynamoSink {
    async fn prepare(&self) -> Result<(), SinkError> {
        if self.client.config().create {
            return make(&self.client).await;
        }
        self.check().await
    }

    async fn fix(&self) -> Result<(), SinkError> {
        make(&self.client).await
    }

    async fn try_access(&self) -> Result<Tried, SinkError> {
        if !self.client.is_there().await? {
            return Ok(Tried::Nothing);
        }
        self.client.try_writing().await?;
        self.entries().await?;
        Ok(Tried::WritingAndReading)
    }

    async fn remove_shadow(&self) -> Result<(), SinkError> {
        let table = &self.client.config().table;
        if !ShadowName::is(table) {
            return Err(not_shadow(format_args!("the table {table}")));
        }
        remove(&self.client).await
    }

    fn ddl(&self) -> Option<String> {
        let config = self.client.config();
        Some(ddl(&config.table, config.layout.ttl.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(hash: (&str, ScalarAttributeType), range: Option<(&str, ScalarAttributeType)>) -> TableDescription {
        let mut table = TableDescription::builder().table_status(TableStatus::Active);
        for ((name, kind), role) in [Some(hash), range].into_iter().flatten().zip([KeyType::Hash, KeyType::Range]) {
            table = table
                .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(role).build().unwrap())
                .attribute_definitions(
                    AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap(),
                );
        }
        table.build()
    }

    fn halts(found: Result<(), SinkError>) -> String {
        let Err(SinkError::Halt(reason)) = found else { panic!("{found:?}") };
        reason
    }

    #[test]
    fn only_a_table_with_our_keys_will_do() {
        use ScalarAttributeType::{N, S};
        assert!(judge("t", &table((PK, S), Some((SK, S)))).is_ok());
        for (hash, range) in
            [((PK, S), None), ((PK, S), Some((SK, N))), ((SK, S), Some((PK, S))), (("id", S), Some((SK, S)))]
        {
            let reason = halts(judge("t", &table(hash, range)));
            assert!(reason.contains("needs `pk` (S) and `sk` (S)"), "{reason}");
        }
        for (state, expected) in [
            (TableStatus::Updating, "fine"),
            (TableStatus::Creating, "wait"),
            (TableStatus::Deleting, "wait"),
            (TableStatus::Archived, "halt"),
            (TableStatus::InaccessibleEncryptionCredentials, "halt"),
        ] {
            let mut found = table((PK, S), Some((SK, S)));
            found.table_status = Some(state);
            let found = match judge("t", &found) {
                Ok(()) => "fine",
                Err(SinkError::Unavailable(_)) => "wait",
                Err(SinkError::Halt(_)) => "halt",
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_commands_name_table_keys_and_expiry() {
        let text = ddl("counters", true);
        assert!(
            text.starts_with("aws dynamodb create-table --table-name counters --billing-mode PAY_PER_REQUEST \\\n")
        );
        assert!(text.contains("AttributeName=pk,KeyType=HASH AttributeName=sk,KeyType=RANGE\n"));
        assert!(text.ends_with("--time-to-live-specification Enabled=true,AttributeName=expires_at\n"));
        assert!(!ddl("counters", false).contains("expires_at"));
    }
}
