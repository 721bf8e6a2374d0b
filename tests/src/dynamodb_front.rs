//! What DynamoDB does and dynalite does not, and a table that goes wrong on request.
//!
//! - The item in the answer to a condition that failed (`ReturnValuesOnConditionCheckFailure`).
//! - `UpdateTimeToLive` and `DescribeTimeToLive`. Nothing expires.
//! - Keys that begin with [`DynamoDbFront::STRANGER`] are nobody's.
//! - A share of the writes is throttled, of a `BatchWriteItem` a share of its items; the largest number of writes under way at
//!   once is counted.
//! - An item whose text holds a mark is refused.
//!
//! Everything else is handed on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::front::Front;
use crate::http::{self, Request, Response};
use crate::servers::dynalite;

/// How the table treats writes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FrontMode {
    /// Of 100 writes, how many are throttled; spread evenly.
    pub throttle: u64,
    /// Writes beyond so many at once are throttled.
    pub at_once: Option<usize>,
    /// After so many writes, none is taken: the answer is 500.
    pub dies_after: Option<u64>,
}

/// The front. It ends when dropped; the server behind it goes on.
#[derive(Debug)]
pub struct DynamoDbFront {
    shared: Arc<Shared>,
    front: Front,
}

#[derive(Debug)]
struct Shared {
    server: String,
    mode: Mutex<FrontMode>,
    refused: Mutex<Vec<String>>,
    expiry: Mutex<HashMap<String, Value>>,
    turn: AtomicU64,
    writes: AtomicU64,
    throttled: AtomicU64,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl DynamoDbFront {
    /// What a key of nobody begins with.
    pub const STRANGER: &'static str = "stranger";

    /// Starts before the server at this URL.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start(server: &str) -> Result<DynamoDbFront> {
        let shared = Arc::new(Shared {
            server: server.to_owned(),
            mode: Mutex::default(),
            refused: Mutex::default(),
            expiry: Mutex::default(),
            turn: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let answers = Arc::clone(&shared);
        let front = Front::start("dynamodb-front", move |request| {
            answers.answer(request).unwrap_or_else(|error| {
                problem(500, "InternalServerError", &format!("the server behind this one failed: {error:#}"))
            })
        })?;
        Ok(DynamoDbFront { shared, front })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.front.url()
    }

    /// Changes how writes are treated from the next one on, and counts them anew.
    pub fn set(&self, mode: FrontMode) {
        *lock(&self.shared.mode) = mode;
        for counter in [&self.shared.writes, &self.shared.throttled] {
            counter.store(0, Ordering::SeqCst);
        }
        self.shared.most.store(0, Ordering::SeqCst);
    }

    /// From now on refuses writes whose text holds `mark`.
    pub fn refuse(&self, mark: &str) {
        lock(&self.shared.refused).push(mark.to_owned());
    }

    /// Requests to write since the mode was set, whatever became of them.
    pub fn writes(&self) -> u64 {
        self.shared.writes.load(Ordering::SeqCst)
    }

    /// How many of them were throttled, wholly or in part.
    pub fn throttled(&self) -> u64 {
        self.shared.throttled.load(Ordering::SeqCst)
    }

    /// The most of them that were under way at once.
    pub fn most_at_once(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }

    /// What AWS says when it asks for less.
    pub fn throttled_answer() -> (u16, &'static str) {
        let body = r#"{"__type":"com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException","message":"The level of configured provisioned throughput for the table was exceeded. Consider increasing your provisioning level with the UpdateTable API."}"#;
        (400, body)
    }
}

impl Shared {
    fn answer(&self, request: &Request) -> Result<Response> {
        let stranger = format!("Credential={}", DynamoDbFront::STRANGER);
        if request.header("authorization").is_some_and(|value| value.contains(&stranger)) {
            return Ok(problem(
                400,
                "com.amazon.coral.service#UnrecognizedClientException",
                "The security token included in the request is invalid.",
            ));
        }
        let target = request.header("x-amz-target").unwrap_or_default();
        let operation = target.rsplit('.').next().unwrap_or_default().to_owned();
        let input = || serde_json::from_slice::<Value>(&request.body);
        match operation.as_str() {
            "UpdateTimeToLive" => Ok(self.set_expiry(&input()?)),
            "DescribeTimeToLive" => self.expiry(request, &input()?),
            "UpdateItem" | "PutItem" | "BatchWriteItem" => {
                let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(now, Ordering::SeqCst);
                let answer = self.write(request, &operation, &input()?, now);
                self.under_way.fetch_sub(1, Ordering::SeqCst);
                answer
            }
            _ => self.forward(request, &request.body),
        }
    }

    fn write(&self, request: &Request, operation: &str, input: &Value, now: usize) -> Result<Response> {
        let mode = lock(&self.mode).clone();
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        if mode.dies_after.is_some_and(|after| number >= after) {
            return Ok(problem(500, "InternalServerError", "the test ends here"));
        }
        let text = String::from_utf8_lossy(&request.body);
        if lock(&self.refused).iter().any(|mark| text.contains(mark.as_str())) {
            return Ok(problem(
                400,
                "com.amazon.coral.validate#ValidationException",
                "One or more parameter values were invalid: the test refuses this item",
            ));
        }
        let is_crowded = mode.at_once.is_some_and(|most| now > most);
        if operation == "BatchWriteItem" && !is_crowded && mode.throttle > 0 {
            return self.write_part(request, input, mode.throttle);
        }
        if is_crowded || self.is_throttled(mode.throttle) {
            self.throttled.fetch_add(1, Ordering::SeqCst);
            let (status, body) = DynamoDbFront::throttled_answer();
            return Ok(Response::new(status, "application/x-amz-json-1.0", body));
        }
        let answer = self.forward(request, &request.body)?;
        let wants_item = input["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD";
        if wants_item && String::from_utf8_lossy(&answer.body).contains("ConditionalCheckFailedException") {
            return self.with_item(answer, input);
        }
        Ok(answer)
    }

    fn is_throttled(&self, share: u64) -> bool {
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        (turn + 1) * share / 100 > turn * share / 100
    }

    /// Hands some of the items on and gives the others back; all of them given back is an error, as at AWS.
    fn write_part(&self, request: &Request, input: &Value, share: u64) -> Result<Response> {
        let mut taken = input.clone();
        let mut left = serde_json::Map::new();
        let tables = taken["RequestItems"].as_object_mut().context("a BatchWriteItem without items")?;
        for (table, items) in tables.iter_mut() {
            let all = items.as_array().cloned().unwrap_or_default();
            let (back, on): (Vec<Value>, Vec<Value>) = all.into_iter().partition(|_| self.is_throttled(share));
            *items = Value::from(on);
            if !back.is_empty() {
                left.insert(table.clone(), Value::from(back));
            }
        }
        if !left.is_empty() {
            self.throttled.fetch_add(1, Ordering::SeqCst);
        }
        if tables.values().all(|items| items.as_array().is_none_or(Vec::is_empty)) {
            let (status, body) = DynamoDbFront::throttled_answer();
            return Ok(Response::new(status, "application/x-amz-json-1.0", body));
        }
        tables.retain(|_, items| items.as_array().is_some_and(|items| !items.is_empty()));
        let mut answer = self.forward(request, taken.to_string().as_bytes())?;
        if answer.status == 200 {
            let mut body: Value = serde_json::from_slice(&answer.body)?;
            body["UnprocessedItems"] = Value::Object(left);
            answer.body = body.to_string().into_bytes();
            drop_checksum(&mut answer);
        }
        Ok(answer)
    }

    fn with_item(&self, mut answer: Response, input: &Value) -> Result<Response> {
        let get = json!({"TableName": input["TableName"], "Key": input["Key"], "ConsistentRead": true});
        let found = dynalite::call(&self.server, "GetItem", &get)?;
        let mut body: Value = serde_json::from_slice(&answer.body)?;
        if !found["Item"].is_null() {
            body["Item"] = found["Item"].clone();
        }
        answer.body = body.to_string().into_bytes();
        drop_checksum(&mut answer);
        Ok(answer)
    }

    fn set_expiry(&self, input: &Value) -> Response {
        let table = input["TableName"].as_str().unwrap_or_default().to_owned();
        let specification = input["TimeToLiveSpecification"].clone();
        lock(&self.expiry).insert(table, specification.clone());
        as_json(&json!({"TimeToLiveSpecification": specification}))
    }

    fn expiry(&self, request: &Request, input: &Value) -> Result<Response> {
        let known = lock(&self.expiry).get(input["TableName"].as_str().unwrap_or_default()).cloned();
        match known {
            Some(known) if known["Enabled"] == true => Ok(as_json(&json!({"TimeToLiveDescription":
                {"TimeToLiveStatus": "ENABLED", "AttributeName": known["AttributeName"]}}))),
            _ => self.forward(request, &request.body),
        }
    }

    fn forward(&self, request: &Request, body: &[u8]) -> Result<Response> {
        http::send(&self.server, &request.method, &request.target, &request.headers, body)
    }
}

/// The SDK compares it with the body.
fn drop_checksum(answer: &mut Response) {
    answer.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-amz-crc32"));
}

fn problem(status: u16, kind: &str, message: &str) -> Response {
    let body = json!({"__type": kind, "message": message}).to_string();
    Response::new(status, "application/x-amz-json-1.0", body)
}

fn as_json(body: &Value) -> Response {
    Response::new(200, "application/x-amz-json-1.0", body.to_string())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread of the front panics")
}
