//! What the stand-in remembers: statements, tokens, behaviour.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::isolation::Conflicts;
use super::{FailedToken, RedshiftBehaviour, RedshiftStatement};

/// A row of a result: a field of the Data API for each column.
pub(super) type Row = Vec<Value>;

/// A statement, or the statements of one transaction.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) is_batch: bool,
    pub(super) sqls: Vec<String>,
    pub(super) status: Status,
    pub(super) error: String,
    pub(super) created: f64,
    pub(super) updated: f64,
    /// What became of each statement.
    pub(super) parts: Vec<Part>,
    pub(super) cancelled: bool,
    /// Whether it stays where it is.
    pub(super) held: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub(super) status: Status,
    pub(super) error: String,
    /// Rows returned or touched.
    pub(super) touched: i64,
    pub(super) rows: Option<Vec<Row>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Status {
    #[default]
    Submitted,
    Picked,
    Started,
    Finished,
    Failed,
    Aborted,
}

impl Status {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::Picked => "PICKED",
            Self::Started => "STARTED",
            Self::Finished => "FINISHED",
            Self::Failed => "FAILED",
            Self::Aborted => "ABORTED",
        }
    }

    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Aborted)
    }
}

#[derive(Debug, Default)]
pub(super) struct State {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Held while a transaction commits.
    pub(super) conflicts: tokio::sync::Mutex<Conflicts>,
}

#[derive(Debug, Default)]
struct Inner {
    behaviour: RedshiftBehaviour,
    statements: HashMap<String, Statement>,
    order: Vec<String>,
    tokens: HashMap<String, String>,
    waiting: HashMap<String, usize>,
    calls: HashMap<String, VecDeque<Instant>>,
}

/// What a token led to.
pub(super) enum Registered {
    New(String),
    Known(String),
    ChangedSql,
    TooManyActive,
}

/// As many as the current guide says.
const MAX_ACTIVE: usize = 500;

pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right").as_secs_f64()
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread of the stand-in panics")
    }

    pub(super) fn behave(&self, change: impl FnOnce(&mut RedshiftBehaviour)) {
        change(&mut self.lock().behaviour);
        self.changed.notify_all();
    }

    pub(super) fn behaviour(&self) -> RedshiftBehaviour {
        self.lock().behaviour.clone()
    }

    pub(super) fn batches(&self) -> Vec<RedshiftStatement> {
        let inner = self.lock();
        let batches = inner.order.iter().filter_map(|id| inner.statements.get(id)).filter(|found| found.is_batch);
        batches
            .map(|found| RedshiftStatement {
                id: found.id.clone(),
                token: found.token.clone(),
                status: found.status.name().to_owned(),
                sqls: found.sqls.clone(),
                error: found.error.clone(),
            })
            .collect()
    }

    pub(super) fn forget_tokens(&self) {
        self.lock().tokens.clear();
    }

    /// Whether another call of this operation in this second is one too many.
    pub(super) fn over_rate(&self, operation: &str, rate: usize) -> bool {
        let mut inner = self.lock();
        let calls = inner.calls.entry(operation.to_owned()).or_default();
        while calls.front().is_some_and(|call| call.elapsed() > Duration::from_secs(1)) {
            calls.pop_front();
        }
        if calls.len() >= rate {
            return true;
        }
        calls.push_back(Instant::now());
        false
    }

    pub(super) fn register(&self, token: &str, is_batch: bool, sqls: Vec<String>) -> Registered {
        let mut inner = self.lock();
        if let Some(found) = inner.tokens.get(token).and_then(|id| inner.statements.get(id)) {
            if found.sqls != sqls {
                return match inner.behaviour.refuses_changed_sql {
                    true => Registered::ChangedSql,
                    false => Registered::Known(found.id.clone()),
                };
            }
            let failed = matches!(found.status, Status::Failed | Status::Aborted);
            if !(failed && inner.behaviour.failed_token == FailedToken::RunsAnew) {
                return Registered::Known(found.id.clone());
            }
        }
        if inner.statements.values().filter(|found| !found.status.is_over()).count() >= MAX_ACTIVE {
            return Registered::TooManyActive;
        }
        let number = inner.order.len();
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        let parts = vec![Part::default(); sqls.len()];
        let created = now();
        let held = is_batch && inner.behaviour.held;
        let statement = Statement {
            held,
            id: id.clone(),
            token: token.to_owned(),
            is_batch,
            sqls,
            status: Status::Submitted,
            error: String::new(),
            created,
            updated: created,
            parts,
            cancelled: false,
        };
        inner.statements.insert(id.clone(), statement);
        inner.order.push(id.clone());
        inner.tokens.insert(token.to_owned(), id.clone());
        Registered::New(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<Statement> {
        self.lock().statements.get(id).cloned()
    }

    pub(super) fn change(&self, id: &str, change: impl FnOnce(&mut Statement)) {
        if let Some(statement) = self.lock().statements.get_mut(id) {
            change(statement);
            statement.updated = now();
        }
        self.changed.notify_all();
    }

    /// Waits for the statement's end, no longer than this; `false` when too many wait for it already.
    pub(super) fn wait(&self, id: &str, seconds: u64) -> bool {
        let mut inner = self.lock();
        let most = inner.behaviour.waiters;
        let waiting = inner.waiting.entry(id.to_owned()).or_default();
        if *waiting >= most {
            return false;
        }
        *waiting += 1;
        let over = |inner: &mut Inner| inner.statements.get(id).is_none_or(|found| found.status.is_over());
        let (mut inner, _) = self
            .changed
            .wait_timeout_while(inner, Duration::from_secs(seconds), |inner| !over(inner))
            .expect("no thread of the stand-in panics");
        if let Some(waiting) = inner.waiting.get_mut(id) {
            *waiting -= 1;
        }
        true
    }

    /// Waits while the statement is held.
    pub(super) fn wait_until_let_go(&self, id: &str) {
        let inner = self.lock();
        let _inner = self
            .changed
            .wait_while(inner, |inner| inner.statements.get(id).is_some_and(|found| found.held))
            .expect("no thread of the stand-in panics");
    }

    pub(super) fn let_go(&self) {
        let mut inner = self.lock();
        inner.behaviour.held = false;
        for statement in inner.statements.values_mut() {
            statement.held = false;
        }
        self.changed.notify_all();
    }

    pub(super) fn settle(&self) {
        let inner = self.lock();
        let busy = |inner: &mut Inner| inner.statements.values().any(|found| !found.status.is_over());
        let (_inner, waited) = self
            .changed
            .wait_timeout_while(inner, Duration::from_secs(60), busy)
            .expect("no thread of the stand-in panics");
        assert!(!waited.timed_out(), "statements of the Redshift stand-in do not end");
    }
}
