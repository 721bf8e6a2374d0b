//! What the client's credentials allow, as the brokers report it.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::lookup::Lookup;
use super::raw::{self, Allowed};
use crate::{Access, BusError, Operation, Resource};

const DOING: &str = "asking for access rights";

/// What the client may do with each of these.
pub(super) fn of(lookup: &Lookup, resources: &[Resource], timeout: Duration) -> Result<Vec<Access>, BusError> {
    let client = lookup.client();
    let named = |kind: &str| -> Vec<&str> {
        resources.iter().filter(|resource| resource.kind() == kind).map(Resource::name).collect()
    };
    let topics = raw::allowed_on_topics(client, &named("topic"), timeout);
    let topics = lookup.explain(topics.map_err(|code| failed(lookup, code)))?;
    let mut groups = Vec::new();
    for group in named("group") {
        // One request each: the answer to several at once leaves out which of them was refused.
        match raw::allowed_on_group(client, group, timeout) {
            Ok(allowed) => groups.push(allowed),
            Err(code) => groups.push(Allowed { name: group.to_owned(), operations: Err(code) }),
        }
    }
    let each = resources.iter().map(|resource| {
        let known = if matches!(resource, Resource::Topic(_)) { &topics } else { &groups };
        let Some(found) = known.iter().find(|found| found.name == resource.name()) else {
            return Err(BusError::Unavailable(format!("{DOING}: the answer leaves out {resource}")));
        };
        lookup.explain(access(found).map_err(|code| failed(lookup, code)))
    });
    each.collect()
}

fn failed(lookup: &Lookup, code: RDKafkaErrorCode) -> BusError {
    lookup.failed(DOING, &KafkaError::Global(code))
}

/// # Errors
/// The brokers' answer is neither a grant nor a refusal.
fn access(found: &Allowed) -> Result<Access, RDKafkaErrorCode> {
    use RDKafkaErrorCode as Code;
    match &found.operations {
        Ok(operations) => Ok(Access::Granted(operations.iter().filter_map(|code| operation(*code)).collect())),
        Err(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed) => Ok(Access::Granted(Vec::new())),
        Err(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(Access::NoTopic),
        Err(code) => Err(*code),
    }
}

/// The operation with this number in Kafka's protocol; `None` for one that nothing here needs.
fn operation(code: u32) -> Option<Operation> {
    Some(match code {
        3 => Operation::Read,
        4 => Operation::Write,
        5 => Operation::Create,
        8 => Operation::Describe,
        10 => Operation::DescribeConfigs,
        _ => return None,
    })
}
