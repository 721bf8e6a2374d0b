use async_trait::async_trait;

use crate::SinkError;

/// What was tried in a backend, beyond asking whether all is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// Neither a write nor a read: the backend offers no write that leaves nothing behind.
    Nothing,
    /// A read: the backend offers no write that leaves nothing behind.
    Reading,
    /// A write that leaves nothing behind.
    Writing,
    /// Such a write, and a read.
    WritingAndReading,
}

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

    /// Tries what the check did not, for `tallybus doctor`: writing and reading with the credentials of the settings. Leaves
    /// nothing behind and costs next to nothing. Called after a check that passed.
    ///
    /// # Errors
    /// As [`Sink::check`](crate::Sink::check).
    async fn try_access(&self) -> Result<Tried, SinkError> {
        Ok(Tried::Nothing)
    }

    /// Removes the destination and everything in it. Only one whose name is a [`ShadowName`](crate::ShadowName) is removed; one
    /// that does not exist is none to remove, and no error. The sink is not used afterwards.
    ///
    /// # Errors
    /// The destination has another name, and was left as it is; or it could not be removed.
    async fn remove_shadow(&self) -> Result<(), SinkError> {
        Err(SinkError::Halt("this kind of sink removes no destination".to_owned()))
    }

    /// The statements that create what the sink needs, for the operator to read and run: `tallybus sink ddl NAME`.
    /// `None` where nothing has to be created by hand.
    fn ddl(&self) -> Option<String> {
        None
    }
}
