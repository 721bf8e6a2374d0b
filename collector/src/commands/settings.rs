//! What a service does when it is asked, and whom it obeys.

use std::fmt::{self, Display};
use std::io;

use serde::Serialize;
use tallybus_control::Key;
#[cfg(feature = "callbacks")]
use tallybus_control::callback::CallbackSettings;

use super::handlers::{Handlers, Request};

/// The partitions of a service's tasks unless set: how many of its instances can do tasks at the same time.
const TASK_PARTITIONS: u32 = 8;
/// The longest name of a service, an instance or a command, in bytes.
const MAX_NAME: usize = 100;
/// What the library does itself.
const OWN: [&str; 2] = ["drain", "resume"];

/// The commands and tasks of a service, and whom it obeys. Used by [`Guard::serve`](crate::Guard::serve).
#[must_use = "no command is read until `Guard::serve`"]
pub struct Commands {
    pub(super) namespace: String,
    pub(super) instance: Option<String>,
    pub(super) keys: Vec<Key>,
    pub(super) allow_unsigned: bool,
    pub(super) create_topics: bool,
    pub(super) task_partitions: u32,
    pub(super) commands: Handlers,
    pub(super) tasks: Handlers,
    #[cfg(feature = "callbacks")]
    pub(super) callbacks: Option<CallbackSettings>,
    /// Names that are wrong or registered twice.
    wrong: Option<String>,
}

/// Why commands are not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandsError {
    /// A setting cannot work; change it in the program.
    #[error("commands of this service: {0}")]
    Setting(String),
    /// There is no key, and unsigned commands are not allowed.
    #[error(
        "commands of this service: no key: add one with `key`, or take what comes with `allow_unsigned`, where the bus \
         decides who may write its topics"
    )]
    NoKey,
    /// This guard serves commands already.
    #[error("commands of this service are served already: register all of them at once")]
    Serving,
    /// The collector was shut down, or belongs to the process from which this one was forked.
    #[error("the collector does not run in this process any more")]
    Stopped,
    /// The operating system refused a thread; trying again may help.
    #[error("cannot start the threads of commands: {0}")]
    Thread(#[from] io::Error),
}

impl Default for Commands {
    fn default() -> Self {
        Self::new()
    }
}

impl Commands {
    /// No command, and no key.
    pub fn new() -> Self {
        Self {
            namespace: String::new(),
            instance: None,
            keys: Vec::new(),
            allow_unsigned: false,
            create_topics: true,
            task_partitions: TASK_PARTITIONS,
            commands: Handlers::default(),
            tasks: Handlers::default(),
            #[cfg(feature = "callbacks")]
            callbacks: None,
            wrong: None,
        }
    }

    /// Registers a command, for requests to one instance and for broadcasts. Commands are done one after the other, on a thread of
    /// their own. The result, or the error's text, is the answer.
    pub fn on<T: Serialize, E: Display>(
        mut self,
        name: impl Into<String>,
        handler: impl FnMut(&Request) -> Result<T, E> + Send + 'static,
    ) -> Self {
        let name = name.into();
        self.check_name(&name);
        if !self.commands.add(name.clone(), handler) {
            self.wrong = Some(format!("the command {name:?} is registered twice"));
        }
        self
    }

    /// Registers a task of the service's pool: of all instances that register it one does each task, at least once, one task at a
    /// time. [`Request::again`] says where a task may have been begun before.
    pub fn on_task<T: Serialize, E: Display>(
        mut self,
        name: impl Into<String>,
        handler: impl FnMut(&Request) -> Result<T, E> + Send + 'static,
    ) -> Self {
        let name = name.into();
        self.check_name(&name);
        if !self.tasks.add(name.clone(), handler) {
            self.wrong = Some(format!("the task {name:?} is registered twice"));
        }
        self
    }

    /// Takes commands that are signed with this key, and, once there is a key, no others. Several while keys are replaced.
    pub fn key(mut self, key: Key) -> Self {
        self.keys.push(key);
        self
    }

    /// Takes unsigned commands: everyone who may write the topics of the bus can then give them. Without effect where there is a key.
    pub fn allow_unsigned(mut self) -> Self {
        self.allow_unsigned = true;
        self
    }

    /// The id of this instance in its address `service/NAME@INSTANCE`: 1 to 100 letters, digits, `.`, `_` and `-`. The collector's
    /// instance and 8 random digits unless set, so that it names one life of the process.
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// What comes before the names of the topics: `namespace` in the settings of workers. Empty unless set.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Creates the topic of tasks with this many partitions where it does not exist; with 8 unless set. So many instances can do
    /// tasks at the same time.
    pub fn task_partitions(mut self, partitions: u32) -> Self {
        self.task_partitions = partitions;
        self
    }

    /// Creates no topic: waits until they exist.
    pub fn use_existing_topics(mut self) -> Self {
        self.create_topics = false;
        self
    }

    /// Posts answers to URLs where a command asks for it, as these settings allow. Without, such commands are refused.
    #[cfg(feature = "callbacks")]
    pub fn callbacks(mut self, settings: CallbackSettings) -> Self {
        self.callbacks = Some(settings);
        self
    }

    fn check_name(&mut self, name: &str) {
        if !is_plain(name) {
            self.wrong =
                Some(format!("the name {name:?} of a command: expected 1 to 100 letters, digits, `.`, `_` and `-`"));
        } else if OWN.contains(&name) {
            self.wrong = Some(format!("the command {name:?} is one of the library itself: choose another name"));
        }
    }

    /// Checks everything for a service of this name, whose instance has this name unless it is set.
    pub(super) fn check(&self, service: &str) -> Result<(), CommandsError> {
        let wrong = |text: String| Err(CommandsError::Setting(text));
        if let Some(text) = &self.wrong {
            return wrong(text.clone());
        }
        if !is_plain(service) {
            return wrong(format!(
                "the service's name {service:?} cannot be an address: set `service` to 1 to 100 letters, digits, `.`, `_` and `-`"
            ));
        }
        if let Some(instance) = self.instance.as_ref().filter(|instance| !is_plain(instance)) {
            return wrong(format!("the instance {instance:?}: expected 1 to 100 letters, digits, `.`, `_` and `-`"));
        }
        if !self.namespace.is_empty() && !is_plain(&self.namespace) {
            return wrong(format!("the namespace {:?}: expected letters, digits, `.`, `_` and `-`", self.namespace));
        }
        if self.task_partitions == 0 {
            return wrong("`task_partitions` must be at least 1".to_owned());
        }
        if self.keys.is_empty() && !self.allow_unsigned {
            return Err(CommandsError::NoKey);
        }
        Ok(())
    }
}

/// Whether a text can be part of an address, a topic and a key.
pub(super) fn is_plain(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_allowed)
}

impl fmt::Debug for Commands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commands")
            .field("commands", &self.commands.names())
            .field("tasks", &self.tasks.names())
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(_: &Request) -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn settings_that_cannot_work_are_named_and_a_key_or_the_waiver_of_keys_is_needed() {
        let reason =
            |commands: Commands, service: &str| commands.allow_unsigned().check(service).unwrap_err().to_string();
        for (commands, service, part) in [
            (Commands::new().on("a b", done), "orders", "\"a b\""),
            (Commands::new().on("a", done).on("a", done), "orders", "registered twice"),
            (Commands::new().on_task("drain", done), "orders", "of the library itself"),
            (Commands::new(), "or/ders", "or/ders"),
            (Commands::new(), "", "\"\""),
            (Commands::new().instance("a@b"), "orders", "a@b"),
            (Commands::new().namespace("a/b"), "orders", "a/b"),
            (Commands::new().task_partitions(0), "orders", "task_partitions"),
        ] {
            let reason = reason(commands, service);
            assert!(reason.contains(part), "{reason}");
        }
        assert!(matches!(Commands::new().check("orders"), Err(CommandsError::NoKey)));
        let key = Key::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let commands = Commands::new().key(key).on("a", done).on_task("a", done);
        assert!(commands.check("orders").is_ok());
        assert!(!format!("{commands:?}").contains("whsec_"));
    }
}
