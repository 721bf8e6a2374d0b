//! Transactions on PostgreSQL.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Read as _;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::isolation::Touched;
use super::sql::{self, Token};
use super::state::{Part, Row, Status};
use super::{RedshiftBehaviour, RedshiftIsolation, Shared};
use crate::{PostgresServer, http};

/// Where the stand-in's own functions and types lie. One transaction, which holds the lock until it is committed: replacing a
/// function twice at once fails.
const PREPARE: &str = "
    SELECT pg_advisory_xact_lock(4711);
    CREATE SCHEMA IF NOT EXISTS redshift;
    DO $$ BEGIN
        IF to_regtype('redshift.super') IS NULL THEN CREATE DOMAIN redshift.super AS jsonb; END IF;
    END $$;
    CREATE OR REPLACE FUNCTION redshift.json_parse(text) RETURNS redshift.super LANGUAGE sql IMMUTABLE
        AS 'SELECT $1::jsonb::redshift.super';
    CREATE OR REPLACE FUNCTION redshift.json_serialize(redshift.super) RETURNS text LANGUAGE sql IMMUTABLE
        AS 'SELECT $1::text';
    CREATE OR REPLACE FUNCTION redshift.db_collation() RETURNS text LANGUAGE sql STABLE
        AS 'SELECT current_setting(''redshift.texts'')';
    CREATE OR REPLACE VIEW redshift.stv_db_isolation_level AS
        SELECT current_database()::text AS db_name, current_setting('redshift.isolation') AS isolation_level;
    CREATE OR REPLACE VIEW redshift.svv_redshift_columns AS
        SELECT table_catalog::text AS database_name, table_schema::text AS schema_name, table_name::text AS table_name,
            column_name::text AS column_name, ordinal_position::int AS ordinal_position,
            CASE WHEN domain_name = 'super' THEN 'super'
                WHEN domain_name LIKE 'varchar%' THEN 'character varying(' || substr(domain_name, 9) || ')'
                ELSE data_type::text END AS data_type,
            is_nullable::text AS is_nullable
        FROM information_schema.columns;
    CREATE OR REPLACE VIEW redshift.svv_table_info AS
        SELECT current_database()::text AS database, n.nspname::text AS schema, c.relname::text AS \"table\",
            (pg_total_relation_size(c.oid) + 1048575) / 1048576 AS size
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'r' AND pg_relation_size(c.oid) > 0;
";

/// The most bytes of a result; the words of the error are not documented.
const MAX_RESULT: usize = 100_000_000;

/// Talks to one PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    login: Config,
    /// Connections that nobody uses: to log in takes longer than most statements of tests.
    idle: Arc<Mutex<Vec<Client>>>,
}

/// Runs it to its end, on a runtime that lives as long as the process, as connections may.
fn run<T>(work: impl Future<Output = T>) -> Result<T> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("redshift-postgres").enable_all().build().ok()
    });
    Ok(runtime.as_ref().context("no runtime for the Redshift stand-in")?.block_on(work))
}

impl Engine {
    pub(super) fn new(postgres: &PostgresServer) -> Self {
        let mut login = Config::new();
        login
            .host("127.0.0.1")
            .port(postgres.port())
            .dbname("counters")
            .user(postgres.user())
            .password(postgres.password());
        Self { login, idle: Arc::default() }
    }

    async fn take(&self) -> Result<Client> {
        let idle = self.idle.lock().expect("no thread of the stand-in panics").pop();
        match idle {
            Some(client) if !client.is_closed() => Ok(client),
            _ => self.connect().await,
        }
    }

    /// Ends what is open in it, and keeps it for the next.
    async fn give_back(&self, client: Client) {
        let is_clean =
            client.batch_execute("ROLLBACK").await.is_ok() && client.batch_execute("DISCARD ALL").await.is_ok();
        if is_clean {
            self.idle.lock().expect("no thread of the stand-in panics").push(client);
        }
    }

    /// A server that is just starting lets nobody in yet.
    async fn connect(&self) -> Result<Client> {
        for _ in 0..600 {
            match self.login.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return Ok(client);
                }
                Err(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error).context("PostgreSQL behind the stand-in"),
            }
        }
        Err(anyhow!("PostgreSQL behind the stand-in does not start"))
    }

    /// The caller may stand inside a runtime.
    pub(super) fn prepare(&self) -> Result<()> {
        let made = std::thread::scope(|scope| {
            scope.spawn(|| run(async { Ok(self.connect().await?.batch_execute(PREPARE).await?) })?).join()
        });
        made.map_err(|_| anyhow!("the thread that makes the database ready panicked"))?
    }

    pub(super) fn administer(&self, statements: &str) -> Result<Option<String>> {
        run(async {
            let messages = self.connect().await?.simple_query(statements).await?;
            Ok(messages.iter().rev().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            }))
        })?
    }
}

/// Takes a statement from `SUBMITTED` to its end.
pub(super) fn work(shared: &Arc<Shared>, id: &str) {
    let state = &shared.state;
    std::thread::sleep(state.behaviour().queued);
    state.wait_until_let_go(id);
    state.change(id, |statement| statement.status = Status::Picked);
    std::thread::sleep(state.behaviour().queued);
    state.change(id, |statement| statement.status = Status::Started);
    let behaviour = state.behaviour();
    std::thread::sleep(behaviour.starting);
    let sqls = state.get(id).map(|statement| statement.sqls).unwrap_or_default();
    let outcome = run(transaction(shared, id, &sqls, &behaviour));
    let outcome = match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(format!("internal error: {error:#}")),
    };
    state.change(id, |statement| match &outcome {
        Ok(()) => statement.status = Status::Finished,
        Err(error) => {
            statement.status = if statement.cancelled { Status::Aborted } else { Status::Failed };
            statement.error = format!("ERROR: {error}");
            let mut after = false;
            for part in &mut statement.parts {
                if part.status != Status::Finished {
                    part.status = if after { Status::Aborted } else { Status::Failed };
                    if !after {
                        part.error = format!("ERROR: {error}");
                    }
                    after = true;
                }
            }
        }
    });
}

async fn transaction(shared: &Shared, id: &str, sqls: &[String], behaviour: &RedshiftBehaviour) -> Result<(), String> {
    let internal = |error: anyhow::Error| format!("internal error: {error:#}");
    let client = shared.engine.take().await.map_err(internal)?;
    let outcome = on(&client, shared, id, sqls, behaviour).await;
    shared.engine.give_back(client).await;
    outcome
}

async fn on(
    client: &Client,
    shared: &Shared,
    id: &str,
    sqls: &[String],
    behaviour: &RedshiftBehaviour,
) -> Result<(), String> {
    let level = match behaviour.isolation {
        RedshiftIsolation::Snapshot => "Snapshot Isolation",
        _ => "Serializable",
    };
    let begin = format!(
        "SET standard_conforming_strings = {}; SET escape_string_warning = off; SET backslash_quote = on; \
         SET search_path = public, redshift; SET timezone = 'UTC'; SET redshift.isolation = '{level}'; \
         SET redshift.texts = '{}'; BEGIN ISOLATION LEVEL REPEATABLE READ",
        if behaviour.backslash_escapes { "off" } else { "on" },
        behaviour.collation,
    );
    client.batch_execute(&begin).await.map_err(|error| describe(&error))?;
    let mut touched = Touched::default();
    let mut since = None;
    if behaviour.isolation == RedshiftIsolation::SerializableFromBegin {
        since = Some(shared.state.conflicts.lock().await.now());
    }
    for (at, text) in sqls.iter().enumerate() {
        if shared.state.get(id).is_some_and(|statement| statement.cancelled) {
            return Err("Query cancelled on user's request".to_owned());
        }
        let tokens = sql::tokens(text, behaviour.backslash_escapes);
        if let Some(refusal) = sql::refusal(&tokens) {
            return Err(refusal);
        }
        let is_lock = matches!(tokens.first(), Some(Token::Word(word)) if word.eq_ignore_ascii_case("LOCK"));
        if !is_lock && since.is_none() {
            since = Some(shared.state.conflicts.lock().await.now());
        }
        let (reads, writes) = sql::tables(&tokens);
        touched.reads.extend(reads);
        touched.writes.extend(writes);
        let part = statement(client, text, &tokens, behaviour).await?;
        shared.state.change(id, |statement| statement.parts[at] = part);
    }
    tokio::time::sleep(behaviour.committing).await;
    commit(shared, client, Touched { since: since.unwrap_or_default(), ..touched }, behaviour).await
}

async fn commit(
    shared: &Shared,
    client: &Client,
    touched: Touched,
    behaviour: &RedshiftBehaviour,
) -> Result<(), String> {
    // Nobody else commits meanwhile: the order here is the order there.
    let mut conflicts = shared.state.conflicts.lock().await;
    let own: BTreeSet<&String> = touched.reads.union(&touched.writes).collect();
    if behaviour.isolation != RedshiftIsolation::Snapshot
        && !own.is_empty()
        && let Some(table) = conflicts.cycle(&touched)
    {
        return Err(violation(&table));
    }
    client.batch_execute("COMMIT").await.map_err(|error| describe(&error))?;
    conflicts.commit(touched);
    Ok(())
}

fn violation(table: &str) -> String {
    format!(
        "1023 DETAIL: Serializable isolation violation on table - {table}, transactions forming the cycle are: 1, 2"
    )
}

async fn statement(
    client: &Client,
    text: &str,
    tokens: &[Token<'_>],
    behaviour: &RedshiftBehaviour,
) -> Result<Part, String> {
    let failed = |error: tokio_postgres::Error| describe(&error);
    let mut part = Part { status: Status::Finished, ..Part::default() };
    if let Some(copy) = sql::copy(tokens) {
        part.touched = load(client, &copy?, behaviour).await?;
        return Ok(part);
    }
    let (translated, widths) = sql::translate(text, tokens);
    for width in widths {
        let domain = format!(
            "DO $$ BEGIN PERFORM pg_advisory_xact_lock(4712); IF to_regtype('redshift.varchar_{width}') IS NULL THEN CREATE DOMAIN \
             redshift.varchar_{width} AS text CHECK (octet_length(VALUE) <= {width}); END IF; END $$"
        );
        client.batch_execute(&domain).await.map_err(failed)?;
    }
    let has_result = matches!(tokens.first(), Some(Token::Word(word)) if ["SELECT", "SHOW", "WITH"].contains(&word.to_uppercase().as_str()));
    let types: Vec<Type> = match has_result {
        true => {
            let prepared = client.prepare(&translated).await.map_err(failed)?;
            prepared.columns().iter().map(|column| column.type_().clone()).collect()
        }
        false => Vec::new(),
    };
    let mut rows = Vec::new();
    for message in client.simple_query(&translated).await.map_err(failed)? {
        match message {
            SimpleQueryMessage::Row(row) => {
                rows.push((0..row.len()).map(|at| field(row.get(at), types.get(at))).collect::<Row>());
            }
            SimpleQueryMessage::CommandComplete(count) => part.touched = i64::try_from(count).unwrap_or(-1),
            _ => {}
        }
    }
    if rows.iter().flatten().map(size).sum::<usize>() > MAX_RESULT {
        return Err("Query result size exceeds 100 MB.".to_owned());
    }
    part.rows = has_result.then_some(rows);
    Ok(part)
}

/// What a field adds to a result.
fn size(field: &Value) -> usize {
    field.as_object().into_iter().flatten().map(|(name, value)| name.len() + value.as_str().map_or(8, str::len)).sum()
}

/// `COPY` from S3: an object of JSON lines, gzipped. Keys that no column has are passed over.
async fn load(client: &Client, copy: &sql::Copy, behaviour: &RedshiftBehaviour) -> Result<i64, String> {
    let s3 = behaviour.s3.as_deref().ok_or("S3ServiceException:the stand-in was given no S3")?;
    let authorization =
        "AWS4-HMAC-SHA256 Credential=redshift/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let headers = [("Authorization".to_owned(), authorization.to_owned())];
    let key: Vec<String> = copy.key.split('/').map(http::percent_encode).collect();
    let target = format!("/{}/{}", copy.bucket, key.join("/"));
    let answer =
        http::send(s3, "GET", &target, &headers, b"").map_err(|error| format!("S3ServiceException:{error:#}"))?;
    match answer.status {
        200 => {}
        404 => return Err(format!("The specified S3 prefix '{}' does not exist", copy.key)),
        status => return Err(format!("S3ServiceException:Status {status}")),
    }
    let mut text = String::new();
    let read = flate2::read::MultiGzDecoder::new(&answer.body[..]).read_to_string(&mut text);
    read.map_err(|error| format!("Load into table '{}' failed: {error}", copy.table))?;
    let rows = format!("[{}]", text.lines().collect::<Vec<_>>().join(","));
    let columns = copy.columns.join(", ");
    let insert = format!(
        "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, $1::text::jsonb)",
        table = copy.table
    );
    let loaded = client.execute(&insert, &[&rows]).await;
    let loaded = loaded.map_err(|_| {
        format!(
            "Load into table '{}' failed. Check 'sys_load_error_detail' system table for details.",
            copy.table.replace('"', "")
        )
    })?;
    Ok(i64::try_from(loaded).unwrap_or(-1))
}

fn field(text: Option<&str>, column: Option<&Type>) -> Value {
    let Some(text) = text else { return json!({"isNull": true}) };
    let is = |types: &[Type]| column.is_some_and(|column| types.contains(column));
    if is(&[Type::INT2, Type::INT4, Type::INT8])
        && let Ok(number) = text.parse::<i64>()
    {
        return json!({"longValue": number});
    }
    if is(&[Type::BOOL]) {
        return json!({"booleanValue": text == "t"});
    }
    json!({"stringValue": text})
}

/// PostgreSQL's error in Redshift's words.
fn describe(error: &tokio_postgres::Error) -> String {
    let Some(error) = error.as_db_error() else { return format!("Connection to the cluster was terminated: {error}") };
    let code = error.code();
    if *code == SqlState::NOT_NULL_VIOLATION {
        return format!("Cannot insert a NULL value into column {}", error.column().unwrap_or("?"));
    }
    if *code == SqlState::T_R_SERIALIZATION_FAILURE {
        return violation(error.table().unwrap_or("?"));
    }
    if *code == SqlState::CHECK_VIOLATION {
        let limit = error.datatype().and_then(|name| name.strip_prefix("varchar_")).unwrap_or("1");
        return format!("Value too long for character type DETAIL: Value too long for type character varying({limit})");
    }
    error.message().to_owned()
}
