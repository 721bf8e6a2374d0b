//! What a service has registered.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{self, AssertUnwindSafe};

use serde::Serialize;
use serde_json::Value;
use tallybus_control::Command;

/// A command, for the handler that does it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Request {
    /// Names the command: the same each time that a task is done.
    pub id: String,
    /// Who asked for it, as they say; verified only by the key that signed it.
    pub issuer: String,
    /// Its name.
    pub name: String,
    /// With what; `null` without any.
    pub arguments: Value,
    /// When its issuer stops waiting: milliseconds since the Unix epoch.
    pub expires_ms: i64,
    /// Whether a task may have been begun before, by this instance or by another one.
    pub again: bool,
}

impl Request {
    pub(super) fn of(command: &Command, again: bool) -> Self {
        Self {
            id: command.id.clone(),
            issuer: command.issuer.clone(),
            name: command.name.clone(),
            arguments: command.arguments.clone(),
            expires_ms: command.expires_ms,
            again,
        }
    }
}

type Handler = Box<dyn FnMut(&Request) -> Result<Value, String> + Send>;

/// Handlers by the names of what they do.
#[derive(Default)]
pub(super) struct Handlers(BTreeMap<String, Handler>);

impl Handlers {
    /// Registers a handler; returns whether the name was free.
    pub(super) fn add<T: Serialize, E: Display>(
        &mut self,
        name: String,
        mut handler: impl FnMut(&Request) -> Result<T, E> + Send + 'static,
    ) -> bool {
        let handler: Handler = Box::new(move |request| {
            let result = handler(request).map_err(|error| error.to_string())?;
            serde_json::to_value(result).map_err(|error| format!("the result is no JSON: {error}"))
        });
        self.0.insert(name, handler).is_none()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Does it. A panic is an error, and is logged: its text may hold what the issuer must not see.
    pub(super) fn run(&mut self, request: &Request) -> Result<Value, String> {
        let Some(handler) = self.0.get_mut(&request.name) else {
            return Err(format!("no handler of the name {:?}", request.name));
        };
        panic::catch_unwind(AssertUnwindSafe(|| handler(request))).unwrap_or_else(|panic| {
            let name = &request.name;
            tracing::error!(
                command = name,
                id = request.id,
                panic = crate::builder::message(&*panic),
                "the handler of a \
                command panicked; the command is answered as failed, and the next one is done"
            );
            Err("the handler panicked; the log of the service has the reason".to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> Request {
        Request {
            id: "a".to_owned(),
            issuer: String::new(),
            name: name.to_owned(),
            arguments: Value::from(2),
            expires_ms: 0,
            again: false,
        }
    }

    #[test]
    fn a_handler_that_panics_fails_without_its_text_and_runs_again() {
        let mut handlers = Handlers::default();
        let mut runs = 0;
        let added = handlers.add("a".to_owned(), move |request| {
            runs += 1;
            assert!(runs > 1, "secret");
            request.arguments.as_u64().map(|n| n + runs).ok_or("no number")
        });
        assert!(added);
        let failed = handlers.run(&request("a")).unwrap_err();
        assert!(failed.contains("panicked") && !failed.contains("secret"), "{failed}");
        assert_eq!(handlers.run(&request("a")), Ok(Value::from(4)));
        assert_eq!(handlers.run(&Request { arguments: Value::Null, ..request("a") }), Err("no number".to_owned()));
        assert!(handlers.run(&request("b")).is_err());
    }
}
