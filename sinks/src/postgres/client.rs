//! Connections: opened on demand, kept after a success, dropped otherwise.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postgres_native_tls::MakeTlsConnector;
use tallybus_sdk::{Fault, SinkError};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::answer::Failure;
use super::config::Config;
use super::sent::{Sent, typed};

/// A server that does not accept a connection is retried later; a longer wait would only hide that it is unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The server ends the statement of a lost connection by itself, a little later than the client's own timeout, so that
/// it does not hold a lock forever.
const GRACE: Duration = Duration::from_secs(5);

pub(super) type Param<'p> = (&'p (dyn ToSql + Sync), Type);

/// The connections of one sink.
pub(super) struct Pool {
    config: Config,
    login: tokio_postgres::Config,
    tls: MakeTlsConnector,
    idle: Mutex<Vec<Client>>,
    room: Semaphore,
    sent: Sent,
}

/// A connection for one user at a time. Dropped, it is closed, and the server rolls back what was open on it.
pub(super) struct Session<'p> {
    pool: &'p Pool,
    client: Client,
    _room: SemaphorePermit<'p>,
}

impl Pool {
    pub(super) fn new(config: Config) -> Result<Self, SinkError> {
        let mut login = tokio_postgres::Config::new();
        login
            .host(&config.host)
            .port(config.port)
            .dbname(&config.database)
            .user(&config.user)
            .ssl_mode(config.tls.mode())
            .application_name("tallybus")
            .connect_timeout(CONNECT_TIMEOUT.min(config.timeout));
        if let Some(password) = &config.password {
            login.password(password.expose());
        }
        let tls = MakeTlsConnector::new(config.tls.connector()?);
        let room = Semaphore::new(config.connections);
        Ok(Self { config, login, tls, idle: Mutex::default(), room, sent: Sent::default() })
    }

    /// How many round trips to the server were begun, and the bytes of their statements and parameters.
    pub(super) fn sent(&self) -> (u64, u64) {
        self.sent.figures()
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// An idle connection, or a new one.
    pub(super) async fn take(&self) -> Result<Session<'_>, Failure> {
        let room = self.room.acquire().await.map_err(|_| Fault::retry("the sink is closed"))?;
        let idle = self.idle();
        let client = match idle {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok(Session { pool: self, client, _room: room })
    }

    pub(super) fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(client) = idle.pop() {
            if !client.is_closed() {
                return Some(client);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Client, Failure> {
        let connecting = tokio::time::timeout(self.config.timeout, self.login.connect(self.tls.clone())).await;
        let (client, connection) = match connecting {
            Ok(connected) => connected.map_err(|error| self.failure(&error))?,
            Err(_) => return Err(Fault::retry(self.located("cannot connect in time")).into()),
        };
        // Ends when the client is dropped; errors appear in the statements that wait for it.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to postgres ended");
            }
        });
        Ok(client)
    }

    fn failure(&self, error: &tokio_postgres::Error) -> Failure {
        let mut failure = Failure::of(error, self.config.password.as_ref().map(tallybus_sdk::config::Secret::expose));
        if failure.code.is_none() {
            failure.fault = failure.fault.reworded(|text| self.located(text));
        }
        failure
    }

    fn located(&self, text: &str) -> String {
        format!("{}:{}: {text}", self.config.host, self.config.port)
    }
}

impl Session<'_> {
    /// Runs statements without a result, in one round trip.
    pub(super) async fn run(&self, statements: &str) -> Result<(), Failure> {
        self.pool.sent.begin(statements);
        self.within(self.client.batch_execute(statements)).await
    }

    pub(super) async fn execute(&self, statement: &str, params: &[Param<'_>]) -> Result<u64, Failure> {
        let counted = self.pool.sent.begin_with(statement, params);
        self.within(self.client.execute_typed(statement, &typed(&counted, params))).await
    }

    pub(super) async fn query(&self, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        let counted = self.pool.sent.begin_with(statement, params);
        self.within(self.client.query_typed(statement, &typed(&counted, params))).await
    }

    /// Opens a transaction that sees what other transactions committed before each statement, whatever the database's
    /// default, and whose commit is on the disk when it is acknowledged.
    pub(super) async fn begin(&self) -> Result<(), Failure> {
        let millis = (self.pool.config.timeout + GRACE).as_millis();
        self.run(&format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {millis}; \
             SET LOCAL idle_in_transaction_session_timeout = {millis}; \
             SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
        ))
        .await
    }

    /// Returns the connection to the pool; only when no transaction is open on it.
    pub(super) fn give_back(self) {
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.client);
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
        match tokio::time::timeout(self.pool.config.timeout, work).await {
            Ok(outcome) => outcome.map_err(|error| self.pool.failure(&error)),
            Err(_) => Err(Fault::retry(self.pool.located("no answer in time")).into()),
        }
    }
}
