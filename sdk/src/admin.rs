use async_trait::async_trait;

use crate::SinkError;

/// Creates what a sink needs in its backend.
#[async_trait]
pub trait Admin: Send + Sync {
    /// Creates what the settings allow to be created (a database, a file), and checks.
    ///
    /// # Errors
    /// As [`Sink::check`](crate::Sink::check).
    async fn prepare(&self) -> Result<(), SinkError>;

    /// Creates everything that is missing, whether or not the settings allow [`Admin::prepare`] to create it: `tallybus
    /// doctor --fix`.
    ///
    /// # Errors
    /// As [`Sink::check`](crate::Sink::check).
    async fn fix(&self) -> Result<(), SinkError> {
        self.prepare().await
    }

    /// The statements that create what the sink needs, for the operator to read and run: `tallybus sink ddl NAME`.
    /// `None` where nothing has to be created by hand.
    fn ddl(&self) -> Option<String> {
        None
    }
}
