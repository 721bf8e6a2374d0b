use std::time::Duration;

use serde_json::Value;

/// What is asked of services.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Question {
    /// Whom.
    pub to: To,
    /// The name of a command or a task; `drain` and `resume` are those of the library itself.
    pub name: String,
    /// With what.
    pub arguments: Value,
    /// When the command expires, from now on.
    pub deadline: Duration,
    /// Where the answer is posted to; on the bus there is then only that the command was accepted.
    pub callback: Option<String>,
}

/// Whom a question is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    /// Each instance of a service that runs.
    Each(String),
    /// Any one of them.
    One(String),
    /// This instance of a service.
    Instance(String, String),
    /// The pool of a service: the instance that does the task.
    Pool(String),
}

impl Question {
    /// A question that is answered on the bus.
    pub fn new(to: To, name: impl Into<String>, arguments: Value, deadline: Duration) -> Self {
        Self { to, name: name.into(), arguments, deadline, callback: None }
    }

    /// The same, answered by POST to this URL, if the service allows it.
    #[must_use]
    pub fn with_callback(self, url: impl Into<String>) -> Self {
        Self { callback: Some(url.into()), ..self }
    }
}

impl To {
    pub(super) fn service(&self) -> &str {
        match self {
            Self::Each(service) | Self::One(service) | Self::Instance(service, _) | Self::Pool(service) => service,
        }
    }
}
