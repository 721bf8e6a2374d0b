//! Redshift's Data API over a real PostgreSQL. `README.md` beside this file says what it models and what it does not.

mod api;
mod engine;
mod isolation;
mod sql;
mod state;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use self::engine::Engine;
use self::state::State;
use crate::PostgresServer;
use crate::front::Front;

/// What of a statement a test looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedshiftStatement {
    /// The Data API's id.
    pub id: String,
    /// The token it came with.
    pub token: String,
    /// `FINISHED`, `FAILED`, …
    pub status: String,
    /// The statements, as they came.
    pub sqls: Vec<String>,
    /// Why it failed; empty when it did not.
    pub error: String,
}

/// What a repeated token means when its first run failed, which AWS's documents leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailedToken {
    /// The failed statement comes back.
    #[default]
    GivesBack,
    /// The statements run again.
    RunsAnew,
}

/// What two transactions at once may do to one table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RedshiftIsolation {
    /// Rows that both change conflict.
    #[default]
    Snapshot,
    /// Tables that both read and write conflict (1023), from the first statement that reads or writes on.
    Serializable,
    /// The same from `BEGIN` on: worse than the documents promise.
    SerializableFromBegin,
}

/// How the stand-in behaves; changed at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedshiftBehaviour {
    /// How long a statement is `SUBMITTED`, and again how long it is `PICKED`.
    pub queued: Duration,
    /// How long it is `STARTED` before its first statement runs.
    pub starting: Duration,
    /// How long a transaction stays open after its last statement, with its locks.
    pub committing: Duration,
    /// Transactions that are submitted while this is set stay `SUBMITTED` until [`Redshift::let_go`].
    pub held: bool,
    /// What a failed token means.
    pub failed_token: FailedToken,
    /// Whether a known token with other statements is refused; otherwise the old statement comes back.
    pub refuses_changed_sql: bool,
    /// Isolation level of the database.
    pub isolation: RedshiftIsolation,
    /// Whether a backslash in a literal is an escape.
    pub backslash_escapes: bool,
    /// Every request is answered with `ThrottlingException`.
    pub throttled: bool,
    /// The rates that AWS publishes for each operation are kept.
    pub rates: bool,
    /// Every statement is answered with `ActiveStatementsExceededException`.
    pub statements_exceeded: bool,
    /// How many requests may wait for one statement (`WaitTimeSeconds`).
    pub waiters: usize,
    /// `db_collation()`.
    pub collation: &'static str,
    /// The access key that is let in.
    pub access_key: String,
    /// Where `COPY` finds S3.
    pub s3: Option<String>,
}

impl Default for RedshiftBehaviour {
    fn default() -> Self {
        Self {
            queued: Duration::from_millis(2),
            starting: Duration::ZERO,
            committing: Duration::ZERO,
            held: false,
            failed_token: FailedToken::default(),
            refuses_changed_sql: true,
            isolation: RedshiftIsolation::default(),
            backslash_escapes: true,
            throttled: false,
            rates: false,
            statements_exceeded: false,
            waiters: 10,
            collation: "case_sensitive",
            access_key: Redshift::ACCESS_KEY.to_owned(),
            s3: None,
        }
    }
}

/// The stand-in. It ends when dropped; the PostgreSQL behind it goes on.
#[derive(Debug)]
pub struct Redshift {
    shared: Arc<Shared>,
    front: Front,
}

#[derive(Debug)]
struct Shared {
    state: State,
    engine: Engine,
}

impl Redshift {
    /// The workgroup it knows.
    pub const WORKGROUP: &'static str = "tallybus";
    /// The database it knows.
    pub const DATABASE: &'static str = "counters";
    /// The access key that is let in at first.
    pub const ACCESS_KEY: &'static str = "AKIATESTS";

    /// Starts before this PostgreSQL.
    ///
    /// # Errors
    /// When no port can be had, or the database cannot be made ready.
    pub fn start(postgres: &PostgresServer) -> Result<Redshift> {
        let engine = Engine::new(postgres);
        engine.prepare()?;
        let shared = Arc::new(Shared { state: State::default(), engine });
        let answers = Arc::clone(&shared);
        let front = Front::start("redshift", move |request| api::answer(&answers, request))?;
        Ok(Redshift { shared, front })
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        self.front.url()
    }

    /// Changes how it behaves from now on.
    pub fn behave(&self, change: impl FnOnce(&mut RedshiftBehaviour)) {
        self.shared.state.behave(change);
    }

    /// Lets every transaction go that was held, and holds none any more.
    pub fn let_go(&self) {
        self.shared.state.let_go();
    }

    /// Every transaction (`BatchExecuteStatement`) that was submitted, in order.
    pub fn batches(&self) -> Vec<RedshiftStatement> {
        self.shared.state.batches()
    }

    /// Forgets every token, as eight hours do.
    pub fn forget_tokens(&self) {
        self.shared.state.forget_tokens();
    }

    /// Statements of PostgreSQL's administrator, around the Data API; answers the first column of the last row.
    ///
    /// # Panics
    /// When PostgreSQL refuses them.
    pub fn administer(&self, statements: &str) -> Option<String> {
        let engine = self.shared.engine.clone();
        let statements = statements.to_owned();
        // The caller may stand inside a runtime.
        let run = std::thread::spawn(move || engine.administer(&statements));
        run.join().expect("no panic").expect("PostgreSQL takes them")
    }

    /// Waits until no statement runs any more.
    pub fn settle(&self) {
        self.shared.state.settle();
    }
}

impl Drop for Redshift {
    fn drop(&mut self) {
        self.shared.state.let_go();
    }
}
