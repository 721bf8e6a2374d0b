use std::net::SocketAddr;

use tallybus_sdk::Setting;
use tallybus_sdk::config::{ConfigTable, Secret};

use crate::http::is_loopback;

/// The settings of the table `[status]`, for documentation.
pub const STATUS_SETTINGS: &[Setting] = &[
    Setting {
        key: "listen",
        default: None,
        help: "the address, such as \"127.0.0.1:9464\", on which `tallybus run` answers `/healthz`, `/readyz`, `/metrics` \
             and `/status`; without it, it listens on nothing",
    },
    Setting {
        key: "token",
        default: None,
        help: "env:NAME or file:PATH: what `/metrics` and `/status` demand as `Authorization: Bearer TOKEN`; required where \
             `listen` is no address of this machine alone",
    },
    Setting {
        key: "heartbeats",
        default: Some("true"),
        help: "whether `tallybus run` publishes its status to the topic `tallybus.control` every 2 seconds, for commands that \
             watch workers",
    },
];

/// The table `[status]`: how a worker process shows what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSettings {
    /// Where the endpoints listen; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// Where the token is: `env:NAME` or `file:PATH`. Only the process that listens needs the token itself.
    token: Option<String>,
    /// Whether the status is published to the bus.
    pub heartbeats: bool,
}

impl Default for StatusSettings {
    fn default() -> Self {
        Self { listen: None, token: None, heartbeats: true }
    }
}

impl StatusSettings {
    /// Reads the table; its problems are recorded.
    pub(super) fn read(mut section: ConfigTable<'_>) -> Self {
        let settings = Self::read_keys(&mut section);
        section.finish();
        settings
    }

    fn read_keys(section: &mut ConfigTable<'_>) -> Self {
        let token = section.string("token");
        if token.as_deref().is_some_and(|text| !text.starts_with("env:") && !text.starts_with("file:")) {
            section.problem("token", "expected env:NAME or file:PATH: a token does not belong in the settings");
        }
        let listen = section.string("listen").and_then(|text| match text.parse::<SocketAddr>() {
            Ok(address) => Some(address),
            Err(_) => {
                let expected = "is not an address: expected IP:PORT, such as \"127.0.0.1:9464\" or \"[::1]:9464\"";
                section.problem("listen", format!("{text:?} {expected}"));
                None
            }
        });
        if let Some(address) = listen.filter(|address| !is_loopback(address.ip()) && token.is_none()) {
            section.problem(
                "listen",
                format!(
                    "{address} can be reached from other machines, which could read topics, groups, offsets and error texts: \
                     set `token`, such as token = \"env:TALLYBUS_STATUS_TOKEN\", or listen on 127.0.0.1"
                ),
            );
        }
        let heartbeats = section.or("heartbeats", ConfigTable::bool, true);
        Self { listen, token, heartbeats: heartbeats.unwrap_or(true) }
    }

    /// The token that requests need; `None` when they need none.
    ///
    /// # Errors
    /// There is no such variable or file, or it is empty.
    pub fn token(&self) -> Result<Option<Secret>, String> {
        self.token.as_deref().map(Secret::resolve).transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;

    fn read(table: Value) -> Result<StatusSettings, Vec<String>> {
        let problems = Rc::new(RefCell::new(Vec::new()));
        let settings = StatusSettings::read(ConfigTable::root(table.as_object().unwrap(), Rc::clone(&problems)));
        let problems: Vec<String> = problems.borrow().iter().map(ToString::to_string).collect();
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    #[test]
    fn the_table_of_status_settings_is_what_is_read_and_has_the_defaults() {
        let table = json!({});
        let mut section = ConfigTable::root(table.as_object().unwrap(), Rc::new(RefCell::new(Vec::new())));
        let settings = StatusSettings::read_keys(&mut section);
        assert_eq!(settings, StatusSettings::default());
        let documented: BTreeSet<String> = STATUS_SETTINGS.iter().map(|setting| setting.key.to_owned()).collect();
        assert_eq!(*section.known(), documented);
        let default = STATUS_SETTINGS.iter().find(|setting| setting.key == "heartbeats").and_then(|one| one.default);
        assert_eq!(default, Some("true"));
    }

    #[test]
    fn elsewhere_than_loopback_a_token_is_demanded() {
        for address in ["0.0.0.0:9464", "10.0.0.1:9464", "[::]:9464", "[::ffff:10.0.0.1]:9464"] {
            let refused = read(json!({ "listen": address })).unwrap_err();
            assert!(refused[0].contains("other machines") && refused[0].contains("set `token`"), "{refused:?}");
            assert!(read(json!({ "listen": address, "token": "env:T" })).is_ok(), "{address}");
        }
        for address in ["127.0.0.1:9464", "127.1.2.3:1", "[::1]:9464", "[::ffff:127.0.0.1]:9464"] {
            let settings = read(json!({ "listen": address })).unwrap();
            assert_eq!(settings.listen.map(|listen| listen.to_string()).as_deref(), Some(address));
        }
    }

    #[test]
    fn what_is_no_address_and_a_token_in_the_settings_are_problems_that_do_not_show_the_token() {
        let problems = read(json!({ "listen": "localhost:9464", "token": "hunter2" })).unwrap_err().join("\n");
        assert!(problems.contains("expected IP:PORT") && problems.contains("expected env:NAME"), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }

    #[test]
    fn only_the_process_that_listens_needs_the_token() {
        let settings = read(json!({ "listen": "0.0.0.0:1", "token": "env:TALLYBUS_NO_SUCH_TOKEN" })).unwrap();
        assert!(settings.token().unwrap_err().contains("TALLYBUS_NO_SUCH_TOKEN"));
        assert!(read(json!({})).unwrap().token().unwrap().is_none());
    }
}
