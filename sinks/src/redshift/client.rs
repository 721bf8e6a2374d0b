//! The Data API: statements submitted, waited for, and their results read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_redshiftdata::Client as Sdk;
use aws_sdk_redshiftdata::error::SdkError;
use aws_sdk_redshiftdata::types::{Field, StatusString};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use tallybus_sdk::{Fault, SinkError};
use tokio::sync::OnceCell;

use super::answer::{self, Meaning};
use super::config::{Config, Target};
use crate::shared::aws::{Aws, Failure};

/// The most that the Data API waits before it answers.
const MAX_WAIT: u64 = 30;
/// How many answers that report a running statement one wait accepts.
const PATIENCE: u32 = 20;
/// The interval between polls of a statement when the Data API does not wait: at most five a second, of the account's
/// 100.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a request failed.
#[derive(Debug, Clone)]
pub(super) struct RequestFailure {
    pub(super) fault: Fault,
    /// The service answered; otherwise the request may have been carried out.
    pub(super) answered: bool,
    /// AWS's error code.
    code: Option<String>,
}

/// A fault before anything was sent, or one that the service reported in an answer.
impl From<Fault> for RequestFailure {
    fn from(fault: Fault) -> Self {
        Self { fault, answered: true, code: None }
    }
}

impl From<RequestFailure> for SinkError {
    fn from(failure: RequestFailure) -> Self {
        failure.fault.into()
    }
}

/// The end or state of a statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum End {
    Finished {
        /// When it was submitted, by the service's clock: seconds since the Unix epoch.
        created: f64,
    },
    /// Failed and rolled back; the database's message.
    Failed { error: String, created: f64 },
    /// It was cancelled, by an operator or the cluster, and rolled back.
    Aborted { error: String, created: f64 },
    /// It is still running, in this state.
    Running(String),
    /// The Data API no longer knows it.
    Unknown,
}

impl End {
    /// The end as a failure of a statement that must succeed.
    fn failure(self, client: &Client, id: &str) -> RequestFailure {
        let (meaning, reason) = match self {
            Self::Finished { .. } => (Meaning::Retry, format!("statement {id} has finished")),
            Self::Failed { error, .. } => (answer::of_statement(&error), client.clean(&error)),
            Self::Aborted { error, .. } => {
                (Meaning::Retry, format!("statement {id} was stopped: {}", client.clean(&error)))
            }
            Self::Running(state) => (Meaning::Retry, format!("statement {id} is still {state}")),
            Self::Unknown => (Meaning::Retry, format!("the Data API no longer knows statement {id}")),
        };
        meaning.fault(format!("Redshift: {reason}")).into()
    }
}

/// A value of a result.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Text(String),
}

impl Cell {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Null => "",
            Self::Text(text) => text,
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&self) -> Option<T> {
        self.text().parse().ok()
    }
}

/// Receives the rows of a result.
pub(super) type EachRow<'e> = dyn FnMut(&[Cell]) -> Result<(), SinkError> + Send + 'e;

/// The result of a query.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<Vec<Cell>>,
    /// When it was submitted, by the service's clock: seconds since the Unix epoch.
    pub(super) created: f64,
}

/// The usage so far.
#[derive(Debug, Default)]
pub(super) struct Used {
    pub(super) requests: AtomicU64,
    pub(super) statements: AtomicU64,
    pub(super) sql_bytes: AtomicU64,
    pub(super) staged_bytes: AtomicU64,
}

/// Talks to one database.
#[derive(Debug)]
pub(super) struct Client {
    aws: Aws,
    sdk: OnceCell<Sdk>,
    target: Target,
    /// Seconds that the Data API is asked to wait.
    wait: i32,
    /// Whether the Data API waits for a statement; it rejects too many concurrent waits.
    waits: AtomicBool,
    pub(super) used: Used,
}

impl Client {
    pub(super) fn new(config: &Config) -> Self {
        let wait = (config.timeout.as_secs() / 2).clamp(1, MAX_WAIT);
        Self {
            aws: Aws::new(config.aws.clone(), config.timeout),
            sdk: OnceCell::new(),
            target: config.target.clone(),
            wait: i32::try_from(wait).unwrap_or(1),
            waits: AtomicBool::new(true),
            used: Used::default(),
        }
    }

    pub(super) fn database(&self) -> &str {
        &self.target.database
    }

    pub(super) fn clean(&self, text: &str) -> String {
        answer::clean(text, &self.aws.settings().secrets())
    }

    async fn sdk(&self) -> Result<&Sdk, RequestFailure> {
        let made = self.sdk.get_or_try_init(|| async { Ok(Sdk::new(self.aws.config().await?)) });
        made.await.map_err(|error: SinkError| Fault::from(error).reworded(|text| self.clean(text)).into())
    }

    fn count(&self, statements: &[String]) {
        let bytes: usize = statements.iter().map(String::len).sum();
        self.used.requests.fetch_add(1, Ordering::Relaxed);
        self.used.statements.fetch_add(u64::try_from(statements.len()).unwrap_or_default(), Ordering::Relaxed);
        self.used.sql_bytes.fetch_add(u64::try_from(bytes).unwrap_or_default(), Ordering::Relaxed);
    }

    fn failure<E>(&self, error: &SdkError<E, HttpResponse>) -> RequestFailure
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        let failure = Failure::of(error);
        let fault = answer::of_request(&failure);
        let fault = fault.reworded(|text| format!("Redshift Data API: {}", self.clean(text)));
        let answered = matches!(error, SdkError::ServiceError(_)) && !failure.is_foreign;
        RequestFailure { fault, answered, code: failure.code }
    }

    /// Runs statements in one transaction; returns the statement's id. The same token with the same statements is the
    /// same transaction, as long as the Data API remembers the token.
    pub(super) async fn submit(
        &self,
        statements: Vec<String>,
        token: Option<String>,
        name: &str,
    ) -> Result<String, RequestFailure> {
        self.count(&statements);
        let target = &self.target;
        let request = self
            .sdk()
            .await?
            .batch_execute_statement()
            .set_sqls(Some(statements))
            .set_client_token(token)
            .statement_name(name)
            .database(&target.database)
            .set_cluster_identifier(target.cluster.clone())
            .set_workgroup_name(target.workgroup.clone())
            .set_db_user(target.db_user.clone())
            .set_secret_arn(target.secret_arn.clone());
        let answer = request.send().await.map_err(|error| self.failure(&error))?;
        let fault = || Fault::retry("Redshift Data API: an answer without a statement's id");
        answer.id.ok_or_else(|| RequestFailure { fault: fault(), answered: false, code: None })
    }

    /// Waits for a statement's end.
    ///
    /// # Errors
    /// The state could not be read: the statement may still run.
    pub(super) async fn wait(&self, id: &str) -> Result<End, RequestFailure> {
        let mut pause = FIRST_PAUSE;
        let mut state = String::new();
        for _ in 0..PATIENCE {
            let waits = self.waits.load(Ordering::Relaxed);
            let request = self.sdk().await?.describe_statement().id(id);
            let request = request.set_wait_time_seconds(waits.then_some(self.wait));
            self.used.requests.fetch_add(1, Ordering::Relaxed);
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(error) => {
                    let failure = self.failure(&error);
                    match failure.code.as_deref() {
                        Some("ActiveWaitingRequestsExceededException") => {
                            self.waits.store(false, Ordering::Relaxed);
                            continue;
                        }
                        Some("ResourceNotFoundException") => return Ok(End::Unknown),
                        Some("ValidationException") if matches!(failure.fault, Fault::Operator { .. }) => {
                            return Ok(End::Unknown);
                        }
                        _ => return Err(failure),
                    }
                }
            };
            let created = answer.created_at().map_or(0.0, aws_smithy_types::DateTime::as_secs_f64);
            let error = || {
                let parts = answer.sub_statements().iter().filter_map(|part| part.error());
                let said = answer.error().into_iter().chain(parts).find(|text| !text.is_empty());
                said.unwrap_or("no reason was given").to_owned()
            };
            match answer.status() {
                Some(StatusString::Finished) => return Ok(End::Finished { created }),
                Some(StatusString::Failed) => return Ok(End::Failed { error: error(), created }),
                Some(StatusString::Aborted) => return Ok(End::Aborted { error: error(), created }),
                other => state = other.map_or_else(String::new, |status| status.as_str().to_owned()),
            }
            if !waits {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        // The other waits may have ended by the next time.
        self.waits.store(true, Ordering::Relaxed);
        Ok(End::Running(state))
    }

    /// Runs one statement and reads its whole result.
    pub(super) async fn query(&self, sql: &str) -> Result<Rows, RequestFailure> {
        let (id, created) = self.finish(sql).await?;
        let mut rows = Vec::new();
        self.pages(&id, &mut |row| {
            rows.push(row.to_vec());
            Ok(())
        })
        .await?;
        Ok(Rows { rows, created })
    }

    /// Runs one statement and hands over the rows of its result, page by page.
    pub(super) async fn query_each(&self, sql: &str, each: &mut EachRow<'_>) -> Result<(), SinkError> {
        let (id, _) = self.finish(sql).await?;
        self.pages(&id, each).await.map_err(SinkError::from)
    }

    /// Runs one statement; answers its id, and when it was submitted.
    async fn finish(&self, sql: &str) -> Result<(String, f64), RequestFailure> {
        self.count(&[sql.to_owned()]);
        let target = &self.target;
        let request = self
            .sdk()
            .await?
            .execute_statement()
            .sql(sql)
            .database(&target.database)
            .set_cluster_identifier(target.cluster.clone())
            .set_workgroup_name(target.workgroup.clone())
            .set_db_user(target.db_user.clone())
            .set_secret_arn(target.secret_arn.clone());
        let submitted = request.send().await.map_err(|error| self.failure(&error))?;
        let created = submitted.created_at.as_ref().map_or(0.0, aws_smithy_types::DateTime::as_secs_f64);
        let id = submitted.id.unwrap_or_default();
        match self.wait(&id).await? {
            End::Finished { .. } => Ok((id, created)),
            other => Err(other.failure(self, &id)),
        }
    }

    async fn pages(&self, id: &str, each: &mut EachRow<'_>) -> Result<(), RequestFailure> {
        let mut next = None;
        loop {
            self.used.requests.fetch_add(1, Ordering::Relaxed);
            let request = self.sdk().await?.get_statement_result().id(id).set_next_token(next);
            let page = match request.send().await {
                Ok(page) => page,
                Err(error) => return Err(self.failure(&error)),
            };
            for row in page.records {
                let row: Vec<Cell> = row.into_iter().map(cell).collect();
                each(&row).map_err(|error| RequestFailure::from(Fault::from(error)))?;
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Runs statements that have no result, in one transaction.
    pub(super) async fn execute(&self, statements: Vec<String>) -> Result<(), RequestFailure> {
        let id = self.submit(statements, None, "tallybus").await?;
        match self.wait(&id).await? {
            End::Finished { .. } => Ok(()),
            other => Err(other.failure(self, &id)),
        }
    }
}

fn cell(field: Field) -> Cell {
    match field {
        Field::StringValue(text) => Cell::Text(text),
        Field::LongValue(number) => Cell::Text(number.to_string()),
        Field::DoubleValue(number) => Cell::Text(number.to_string()),
        Field::BooleanValue(flag) => Cell::Text(flag.to_string()),
        _ => Cell::Null,
    }
}
