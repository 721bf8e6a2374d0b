//! The Data API's operations, as JSON 1.1.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::state::{Part, Registered, Row, Statement, Status};
use super::{Redshift, Shared, engine};
use crate::http::{Request, Response};

/// What one statement may be long, in bytes.
const MAX_STATEMENT: usize = 102_400;
const MAX_STATEMENTS: usize = 40;
/// Rows of one page of a result.
const PAGE: usize = 1_000;
/// Calls a second of each operation, as AWS publishes them (that of `BatchExecuteStatement` is not; it is taken for 20).
const RATES: [(&str, usize); 4] =
    [("ExecuteStatement", 30), ("BatchExecuteStatement", 20), ("DescribeStatement", 100), ("GetStatementResult", 20)];

/// A refusal: AWS's name, and the message.
type Refusal = (&'static str, String);

pub(super) fn answer(shared: &Arc<Shared>, request: &Request) -> Response {
    match operate(shared, request) {
        Ok(body) => as_json(200, &body),
        Err((name, message)) => {
            let status = if name == "InternalServerException" { 500 } else { 400 };
            as_json(status, &json!({"__type": name, "message": message, "Message": message}))
        }
    }
}

fn operate(shared: &Arc<Shared>, request: &Request) -> Result<Value, Refusal> {
    let target = request.header("x-amz-target").unwrap_or_default();
    let operation = target.strip_prefix("RedshiftData.").unwrap_or_default();
    let behaviour = shared.state.behaviour();
    let key = request.header("authorization").and_then(access_key);
    match key {
        None => return Err(("MissingAuthenticationTokenException", "Missing Authentication Token".to_owned())),
        Some(key) if key != behaviour.access_key => {
            let message = "The security token included in the request is invalid.";
            return Err(("UnrecognizedClientException", message.to_owned()));
        }
        Some(_) => {}
    }
    let rate = RATES.iter().find(|(name, _)| *name == operation).map(|(_, rate)| *rate);
    if behaviour.throttled || rate.is_some_and(|rate| behaviour.rates && shared.state.over_rate(operation, rate)) {
        return Err(("ThrottlingException", "Rate exceeded".to_owned()));
    }
    let body: Map<String, Value> = serde_json::from_slice(&request.body)
        .map_err(|error| ("SerializationException", format!("the body is no JSON object: {error}")))?;
    match operation {
        "ExecuteStatement" => {
            let sql = body.get("Sql").and_then(Value::as_str).unwrap_or_default().to_owned();
            submit(shared, &body, false, vec![sql])
        }
        "BatchExecuteStatement" => {
            let sqls = body.get("Sqls").and_then(Value::as_array).cloned().unwrap_or_default();
            let sqls = sqls.iter().map(|sql| sql.as_str().unwrap_or_default().to_owned()).collect();
            submit(shared, &body, true, sqls)
        }
        "DescribeStatement" => {
            let (id, found) = find(shared, &body)?;
            wait(shared, &body, &found.id)?;
            let found = shared.state.get(&found.id).unwrap_or(found);
            Ok(describe(&id, &found))
        }
        "GetStatementResult" => {
            let (id, found) = find(shared, &body)?;
            wait(shared, &body, &found.id)?;
            result(shared, &body, &id, &found.id)
        }
        "CancelStatement" => {
            let (_, found) = find(shared, &body)?;
            if found.status.is_over() {
                return Err(invalid(format!(
                    "Could not cancel a query that is already in {} state",
                    found.status.name()
                )));
            }
            shared.state.change(&found.id, |statement| statement.cancelled = true);
            Ok(json!({"Status": true}))
        }
        other => Err(("UnknownOperationException", format!("the stand-in has no operation {other:?}"))),
    }
}

fn invalid(message: String) -> Refusal {
    ("ValidationException", message)
}

fn access_key(authorization: &str) -> Option<&str> {
    authorization.split_once("Credential=")?.1.split('/').next()
}

fn submit(
    shared: &Arc<Shared>,
    body: &Map<String, Value>,
    is_batch: bool,
    sqls: Vec<String>,
) -> Result<Value, Refusal> {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    check_target(&text)?;
    if sqls.is_empty() || sqls.len() > MAX_STATEMENTS {
        return Err(invalid(format!(
            "1 validation error detected: Value at 'sqls' failed to satisfy constraint: Member must have length less than or \
             equal to {MAX_STATEMENTS} and greater than or equal to 1; it has {}",
            sqls.len()
        )));
    }
    if sqls.iter().any(|sql| sql.len() > MAX_STATEMENT) {
        return Err(invalid("Cannot process query string larger than 100kB".to_owned()));
    }
    if sqls.iter().any(|sql| sql.trim().is_empty()) {
        return Err(invalid("SQL statement is empty".to_owned()));
    }
    let token = text("ClientToken").unwrap_or_default();
    if token.is_empty() || token.len() > 64 {
        return Err(invalid(
            "1 validation error detected: Value at 'clientToken' failed to satisfy constraint: Member must have length less \
             than or equal to 64 and greater than or equal to 1"
                .to_owned(),
        ));
    }
    if text("StatementName").is_some_and(|name| name.len() > 500) {
        return Err(invalid("Value at 'statementName' must have length less than or equal to 500".to_owned()));
    }
    if shared.state.behaviour().statements_exceeded {
        return Err(too_many());
    }
    let id = match shared.state.register(token, is_batch, sqls) {
        Registered::Known(id) => id,
        Registered::ChangedSql => {
            return Err(invalid("The ClientToken was used before with other parameters".to_owned()));
        }
        Registered::TooManyActive => return Err(too_many()),
        Registered::New(id) => {
            let (worker, running) = (Arc::clone(shared), id.clone());
            let spawned = std::thread::Builder::new()
                .name("redshift-statement".to_owned())
                .spawn(move || engine::work(&worker, &running));
            spawned.map_err(|error| ("InternalServerException", error.to_string()))?;
            id
        }
    };
    wait(shared, body, &id)?;
    let found = shared.state.get(&id).ok_or_else(|| invalid("it is gone".to_owned()))?;
    let mut answer =
        json!({"Id": id, "CreatedAt": found.created, "Database": Redshift::DATABASE, "Status": found.status.name()});
    for key in ["ClusterIdentifier", "WorkgroupName", "DbUser", "SecretArn"] {
        if let Some(value) = text(key) {
            answer[key] = json!(value);
        }
    }
    Ok(answer)
}

fn check_target<'b>(text: &impl Fn(&str) -> Option<&'b str>) -> Result<(), Refusal> {
    match (text("ClusterIdentifier"), text("WorkgroupName")) {
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid("Exactly one of ClusterIdentifier and WorkgroupName must be given".to_owned()));
        }
        (Some(name), None) | (None, Some(name)) if name != Redshift::WORKGROUP => {
            return Err(invalid("Redshift endpoint doesn't exist in this region.".to_owned()));
        }
        _ => {}
    }
    match text("Database") {
        Some(Redshift::DATABASE) => Ok(()),
        Some(other) => Err(("DatabaseConnectionException", format!("FATAL: database \"{other}\" does not exist"))),
        None => Err(invalid("Database must be given".to_owned())),
    }
}

fn too_many() -> Refusal {
    ("ActiveStatementsExceededException", "The number of active statements exceeds the limit.".to_owned())
}

fn wait(shared: &Shared, body: &Map<String, Value>, id: &str) -> Result<(), Refusal> {
    let Some(seconds) = body.get("WaitTimeSeconds") else { return Ok(()) };
    let seconds = seconds.as_u64().filter(|seconds| (1..=30).contains(seconds));
    let seconds = seconds.ok_or_else(|| invalid("WaitTimeSeconds must lie between 1 and 30".to_owned()))?;
    if shared.state.wait(id, seconds) {
        return Ok(());
    }
    let message = "The number of active requests with WaitTimeSeconds for the same SQL statement exceeds the limit.";
    Err(("ActiveWaitingRequestsExceededException", message.to_owned()))
}

/// The statement of an id; that of a batch for the id of one of its parts.
fn find(shared: &Shared, body: &Map<String, Value>) -> Result<(String, Statement), Refusal> {
    let id = body.get("Id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let found = shared.state.get(id.split(':').next().unwrap_or_default());
    match found {
        Some(found) => Ok((id, found)),
        None => Err(("ResourceNotFoundException", "Query does not exist.".to_owned())),
    }
}

/// Which part an id `…:n` names, counted from 0.
fn part_of(id: &str) -> Option<usize> {
    id.split_once(':')?.1.parse::<usize>().ok()?.checked_sub(1)
}

fn describe(id: &str, found: &Statement) -> Value {
    if let Some(part) = part_of(id).and_then(|at| Some((at, found.parts.get(at)?))) {
        return describe_part(found, part.0, part.1);
    }
    let mut answer = json!({
        "Id": found.id, "Status": found.status.name(), "CreatedAt": found.created, "UpdatedAt": found.updated,
        "Duration": nanos(found.updated - found.created), "RedshiftPid": 1_073_741_824, "RedshiftQueryId": -1,
        "Database": Redshift::DATABASE, "HasResultSet": found.parts.iter().any(|part| part.rows.is_some()),
        "ResultRows": -1, "ResultSize": -1,
    });
    if found.is_batch {
        let parts = found.parts.iter().enumerate().map(|(at, part)| describe_part(found, at, part));
        answer["SubStatements"] = Value::Array(parts.collect());
    } else {
        answer["QueryString"] = json!(found.sqls[0]);
        answer["ResultRows"] = json!(found.parts[0].touched);
    }
    if !found.error.is_empty() {
        answer["Error"] = json!(found.error);
    }
    answer
}

fn describe_part(found: &Statement, at: usize, part: &Part) -> Value {
    let mut answer = json!({
        "Id": format!("{}:{}", found.id, at + 1), "Status": part.status.name(), "QueryString": found.sqls[at],
        "ResultRows": part.touched, "ResultSize": -1, "Duration": 0, "RedshiftQueryId": -1,
        "HasResultSet": part.rows.is_some(), "CreatedAt": found.created, "UpdatedAt": found.updated,
    });
    if !part.error.is_empty() {
        answer["Error"] = json!(part.error);
    }
    answer
}

#[allow(clippy::cast_possible_truncation, reason = "a duration of a test, in nanoseconds")]
fn nanos(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

fn result(shared: &Shared, body: &Map<String, Value>, id: &str, whole: &str) -> Result<Value, Refusal> {
    let found = shared.state.get(whole).ok_or_else(|| invalid("it is gone".to_owned()))?;
    if found.status != Status::Finished {
        return Err(("ResourceNotFoundException", "Query does not have result. Please check query status.".to_owned()));
    }
    let at = match (part_of(id), found.is_batch) {
        (Some(at), _) => at,
        (None, false) => 0,
        (None, true) => return Err(invalid("give the id of a statement of the batch".to_owned())),
    };
    let none = || ("ResourceNotFoundException", "Query does not have result. Please check query status.".to_owned());
    let rows: &[Row] = found.parts.get(at).and_then(|part| part.rows.as_deref()).ok_or_else(none)?;
    let token = body.get("NextToken").and_then(Value::as_str).unwrap_or("0");
    let from: usize = token.parse().map_err(|_| invalid("NextToken is none of ours".to_owned()))?;
    let page = &rows[from.min(rows.len())..(from + PAGE).min(rows.len())];
    let mut answer = json!({"Records": page, "TotalNumRows": rows.len(), "ColumnMetadata": []});
    if from + PAGE < rows.len() {
        answer["NextToken"] = json!((from + PAGE).to_string());
    }
    Ok(answer)
}

fn as_json(status: u16, body: &Value) -> Response {
    Response::new(status, "application/x-amz-json-1.1", body.to_string())
}
