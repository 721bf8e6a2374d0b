//! dynalite behind a front that makes it answer as AWS does, and a proxy; each case has a table of its own.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use tallybus_schemas::Series;
use tallybus_sdk::testkit::contract::ask::Ask as _;
use tallybus_sdk::testkit::contract::{Backend, NetworkFault, Server};
use tallybus_sdk::{ForeignKind, ShadowName, Sink};
use tallybus_tests::{DynamoDbFront, DynamoDbServer, FaultProxy, Mode, call_dynamodb};

use super::postgres::apart;
use super::{build, mode_of, number, questions, servers, shadow_of};

mod rollup {
    tallybus_sdk::testkit::contract!(super::DynamoDb::new("rollup").as_ref());
}

mod raw {
    tallybus_sdk::testkit::contract!(super::DynamoDb::new("raw").as_ref());
}

pub(crate) const SECRET: &str = "a/secret+key";

#[derive(Clone, Copy)]
pub(crate) struct DynamoDb {
    server: &'static DynamoDbServer,
    mode: &'static str,
}

impl DynamoDb {
    pub(crate) fn new(mode: &'static str) -> Option<Self> {
        Some(Self { server: servers::dynamodb()?, mode })
    }

    /// With a table.
    pub(crate) fn case(&self) -> DynamoDbCase {
        let case = self.bare_case();
        let sink = case.with(&json!({"create": true}), 0);
        apart(async move { sink.prepare().await.expect("a table") });
        case
    }

    /// Without one.
    pub(crate) fn bare_case(&self) -> DynamoDbCase {
        let table = format!("case-{}", number());
        let front = DynamoDbFront::start(&self.server.url()).expect("a front");
        let proxy = FaultProxy::start(&front.url()).expect("a proxy");
        DynamoDbCase { dynamodb: *self, table, front, proxy, lost_ledger: Mutex::default() }
    }
}

impl Server for DynamoDb {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(self.case())
    }
}

pub(crate) struct DynamoDbCase {
    dynamodb: DynamoDb,
    pub(crate) table: String,
    pub(crate) front: DynamoDbFront,
    pub(crate) proxy: FaultProxy,
    /// The ledger that was deleted last, to put it back.
    lost_ledger: Mutex<Option<Value>>,
}

impl DynamoDbCase {
    fn settings(&self) -> Value {
        json!({"table": self.table, "mode": self.dynamodb.mode, "region": "eu-west-1", "endpoint": self.proxy.url(),
            "access_key_id": "tallybus", "secret_access_key": SECRET, "timeout": "5s"})
    }

    /// A sink with more settings.
    pub(crate) fn with(&self, more: &Value, window: i64) -> Arc<dyn Sink> {
        let mut table = self.settings();
        for (key, value) in more.as_object().expect("a table") {
            table[key] = value.clone();
        }
        build("dynamodb", table, window, &["tallybus.counters"])
    }

    /// Asks the server itself, naming the table.
    pub(crate) fn call(&self, operation: &str, more: Value) -> Value {
        self.try_call(operation, more).expect("an answer")
    }

    /// The same, where it may refuse.
    pub(crate) fn try_call(&self, operation: &str, mut input: Value) -> Result<Value, String> {
        input["TableName"] = self.table.clone().into();
        call_dynamodb(&self.dynamodb.server.url(), operation, &input).map_err(|error| format!("{error:#}"))
    }

    /// Every item that counts, as DynamoDB shows it.
    pub(crate) fn items(&self) -> Vec<Value> {
        self.all_items().into_iter().filter(|item| item["sk"]["S"] != "ledger").collect()
    }

    /// The ledger items: one for each partition.
    pub(crate) fn ledgers(&self) -> Vec<Value> {
        self.all_items().into_iter().filter(|item| item["sk"]["S"] == "ledger").collect()
    }

    fn all_items(&self) -> Vec<Value> {
        self.call("Scan", json!({"ConsistentRead": true}))["Items"].as_array().expect("items").clone()
    }
}

#[async_trait]
impl Backend for DynamoDbCase {
    fn shadow(&self, window: i64, name: &ShadowName) -> Option<Arc<dyn Sink>> {
        Some(build("dynamodb", shadow_of("dynamodb", self.settings(), name), window, &["tallybus.counters"]))
    }
    fn questions(&self) -> &'static [&'static str] {
        questions("dynamodb")
    }
    fn least_storage(&self) -> Option<u64> {
        Some(0)
    }
    fn fresh(&self) -> Box<dyn Backend> {
        self.dynamodb.backend()
    }
    fn sink_of(&self, window: i64, topics: &[&str]) -> Arc<dyn Sink> {
        build("dynamodb", self.settings(), window, topics)
    }
    fn sink_locked_out(&self, window: i64) -> Arc<dyn Sink> {
        self.with(&json!({"access_key_id": DynamoDbFront::STRANGER, "secret_access_key": "wrong-secret"}), window)
    }
    fn set_away(&self, away: bool) {
        self.proxy.set(if away { Mode::Refuse } else { Mode::Pass });
    }
    async fn refuse(&self, series: &Series, _start: i64) {
        self.front.refuse(&json!({"S": series.name()}).to_string());
    }
    async fn add_foreign(&self) -> Vec<ForeignKind> {
        let (time, ours) = ("2023-11-14T22:13:21.000000000Z", json!({"M": {"k": {"S": "v"}}}));
        let rows = [
            (time, json!({"M": {"k": {"N": "4"}}}), json!({"N": "5"})),
            (time, ours.clone(), json!({"N": "-5"})),
            (time, ours.clone(), json!({"N": "1.5"})),
            (time, ours.clone(), json!({"S": "5"})),
            ("1969-12-31T23:59:59.000000000Z", ours.clone(), json!({"N": "5"})),
            ("yesterday", ours, json!({"N": "5"})),
        ];
        for (number, (sk, tags, value)) in rows.into_iter().enumerate() {
            let pk = format!("foreign {number}");
            self.call(
                "PutItem",
                json!({"Item": {
                    "pk": {"S": pk}, "sk": {"S": sk}, "name": {"S": "a"}, "tags": tags, "value": value,
                }}),
            );
        }
        vec![
            ForeignKind::Tags,
            ForeignKind::Negative,
            ForeignKind::Fraction,
            ForeignKind::ValueType,
            ForeignKind::BeforeEpoch,
            ForeignKind::Time,
        ]
    }
    async fn set_ledger_back(&self, topic: &str, partition: u32, offset: Option<u64>) {
        let number = partition.to_string();
        let is_it = |item: &Value| item["topic"]["S"] == topic && item["partition"]["N"] == number;
        let Some(mut item) =
            self.ledgers().into_iter().find(is_it).or_else(|| self.lost_ledger.lock().unwrap().clone())
        else {
            panic!("no ledger of {topic}/{partition}")
        };
        match offset {
            Some(offset) => {
                item["next_offset"]["N"] = offset.to_string().into();
                self.call("PutItem", json!({"Item": item}));
            }
            None => {
                self.call("DeleteItem", json!({"Key": {"pk": item["pk"], "sk": item["sk"]}}));
                *self.lost_ledger.lock().unwrap() = Some(item);
            }
        }
    }
    fn takes_parts(&self) -> bool {
        true
    }
    fn inject(&self, fault: Option<NetworkFault>) -> bool {
        let (status, body) = DynamoDbFront::throttled_answer();
        self.proxy.set(match fault {
            Some(NetworkFault::Throttled) => Mode::answer(status, body),
            other => mode_of(other),
        });
        true
    }
}
