//! The Redshift stand-in itself: its limits, and what it refuses.

use serde_json::{Value, json};
use tallybus_tests::{Redshift, http};

use crate::subjects::redshift::{RedshiftCase, Warehouse};

fn case() -> Option<RedshiftCase> {
    Some(Warehouse::new(false)?.case())
}

/// A request as the SDK makes it.
fn call(case: &RedshiftCase, operation: &str, mut body: Value) -> (u16, Value) {
    if operation.ends_with("ExecuteStatement") {
        body["WorkgroupName"] = json!(Redshift::WORKGROUP);
        body["Database"] = json!(Redshift::DATABASE);
        if body["ClientToken"].is_null() {
            body["ClientToken"] =
                json!(format!("{:?}", std::time::Instant::now()).replace(|c: char| !c.is_ascii_digit(), ""));
        }
    }
    let key = Redshift::ACCESS_KEY;
    let headers = [
        ("X-Amz-Target".to_owned(), format!("RedshiftData.{operation}")),
        (
            "Authorization".to_owned(),
            format!("AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/redshift-data/aws4_request"),
        ),
    ];
    let answer =
        http::send(&case.redshift.url(), "POST", "/", &headers, body.to_string().as_bytes()).expect("an answer");
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

pub(crate) async fn execute(case: &RedshiftCase, sql: &str) -> (String, String) {
    let (status, answer) = call(case, "ExecuteStatement", json!({"Sql": sql, "WaitTimeSeconds": 30}));
    assert_eq!(status, 200, "{answer}");
    let (_, found) = call(case, "DescribeStatement", json!({"Id": answer["Id"]}));
    (found["Status"].as_str().unwrap().to_owned(), found["Error"].as_str().unwrap_or_default().to_owned())
}

/// The stand-in's own limits, in AWS's words.
#[tokio::test]
async fn the_stand_in_keeps_the_limits() {
    let Some(case) = case() else { return };
    let refused = |body: Value, name: &str, words: &str| {
        let (status, answer) = call(&case, "BatchExecuteStatement", body);
        assert_eq!((status, answer["__type"].as_str()), (400, Some(name)), "{answer}");
        assert!(answer["message"].as_str().unwrap().contains(words), "{answer}");
    };
    let comment = |bytes: usize| format!("SELECT 1 --{}", "x".repeat(bytes - "SELECT 1 --".len()));
    let select = |count: usize| vec!["SELECT 1".to_owned(); count];
    for fine in [json!({"Sqls": select(40)}), json!({"Sqls": [comment(102_400)]})] {
        assert_eq!(call(&case, "BatchExecuteStatement", fine).0, 200);
    }
    refused(json!({"Sqls": select(41)}), "ValidationException", "less than or equal to 40");
    refused(json!({"Sqls": select(0)}), "ValidationException", "less than or equal to 40");
    refused(json!({"Sqls": [comment(102_401)]}), "ValidationException", "larger than 100kB");
    refused(
        json!({"Sqls": select(1), "ClientToken": "x".repeat(65)}),
        "ValidationException",
        "less than or equal to 64",
    );
    refused(json!({"Sqls": select(1), "WaitTimeSeconds": 31}), "ValidationException", "between 1 and 30");
    let token = |sql: &str| call(&case, "BatchExecuteStatement", json!({"Sqls": [sql], "ClientToken": "same"}));
    let first = token("SELECT 1").1;
    assert_eq!(token("SELECT 1").1["Id"], first["Id"], "a token is for one statement");
    assert_eq!(token("SELECT 2").0, 400);
    case.redshift.behave(|behaviour| behaviour.refuses_changed_sql = false);
    assert_eq!(token("SELECT 2").1["Id"], first["Id"]);
    // One transaction, and every statement with an id of its own.
    let sqls = json!([
        "CREATE TABLE t (a INT)",
        "INSERT INTO t VALUES (1), (2)",
        "SELECT a FROM t ORDER BY a",
        "SELECT a / 0 FROM t"
    ]);
    let (_, answer) = call(&case, "BatchExecuteStatement", json!({"Sqls": sqls, "WaitTimeSeconds": 30}));
    let (_, found) = call(&case, "DescribeStatement", json!({"Id": answer["Id"]}));
    let parts: Vec<&str> =
        found["SubStatements"].as_array().unwrap().iter().map(|part| part["Status"].as_str().unwrap()).collect();
    assert_eq!(
        (found["Status"].as_str().unwrap(), parts),
        ("FAILED", vec!["FINISHED", "FINISHED", "FINISHED", "FAILED"])
    );
    assert!(execute(&case, "SELECT a FROM t").await.1.contains("does not exist"), "all of it was rolled back");
    let sqls = json!(["CREATE TEMP TABLE t (a INT)", "INSERT INTO t VALUES (1), (2)", "SELECT a FROM t ORDER BY a"]);
    let (_, answer) = call(&case, "BatchExecuteStatement", json!({"Sqls": sqls, "WaitTimeSeconds": 30}));
    let id = format!("{}:3", answer["Id"].as_str().unwrap());
    let (_, result) = call(&case, "GetStatementResult", json!({"Id": id}));
    assert_eq!(result["Records"], json!([[{"longValue": 1}], [{"longValue": 2}]]), "{result}");
    let (_, none) = call(&case, "DescribeStatement", json!({"Id": "no-such"}));
    assert_eq!(none["__type"], "ResourceNotFoundException");
}

#[tokio::test]
async fn the_stand_in_refuses_what_redshift_lacks() {
    let Some(case) = case() else { return };
    for lacking in [
        "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING",
        "INSERT INTO t VALUES (1) RETURNING a",
        "SELECT a FROM (VALUES (1)) AS v(a)",
        "INSERT INTO t SELECT generate_series(1, 10)",
        "CREATE TABLE t (a jsonb)",
        "CREATE TABLE t (a INT CHECK (a > 0))",
        "CREATE UNIQUE INDEX i ON t (a)",
        "CREATE TABLE t (a uuid )",
        "SELECT 1; SELECT 2",
    ] {
        let (status, error) = execute(&case, lacking).await;
        assert_eq!(status, "FAILED", "{lacking}");
        assert!(error.starts_with("ERROR: "), "{error}");
    }
    let table = format!("\"{}\".bytes", case.schema);
    assert_eq!(
        execute(&case, &format!("CREATE TABLE {table} (a VARCHAR(3), b SUPER, PRIMARY KEY (a))")).await.0,
        "FINISHED"
    );
    let (status, error) = execute(&case, &format!("INSERT INTO {table} VALUES ('éé', NULL)")).await;
    assert_eq!((status.as_str(), error.contains("Value too long")), ("FAILED", true), "bytes are counted: {error}");
    for _ in 0..2 {
        let (status, error) = execute(&case, &format!("INSERT INTO {table} VALUES ('é', JSON_PARSE('[1]'))")).await;
        assert_eq!(status, "FINISHED", "keys are not enforced: {error}");
    }
}
