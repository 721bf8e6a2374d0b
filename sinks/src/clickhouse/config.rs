//! The settings of a ClickHouse sink.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde_json::{Map, Value};
use tallybus_sdk::config::{ConfigTable, Secret};
use tallybus_sdk::{BuildSink, Setting, ShadowName};

use super::ClickHouseSink;
use super::table::Table;

/// The settings, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) url: Url,
    pub(super) table: Table,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) create: bool,
    pub(super) gzip: bool,
    /// The timeout of one request.
    pub(super) timeout: Duration,
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "url", default: None, help: "the HTTP interface: scheme, host and port" },
    Setting { key: "database", default: Some("default"), help: "the database" },
    Setting { key: "table", default: Some("counters"), help: "the table of counts" },
    Setting { key: "user", default: None, help: "the user; the server's default user when left out" },
    Setting { key: "password", default: None, help: "the user's password" },
    Setting { key: "create", default: Some("false"), help: "creates database and table when they are missing" },
    Setting { key: "gzip", default: Some("true"), help: "compresses what is sent" },
    Setting { key: "timeout", default: Some("30s"), help: "how long one request may take" },
];

pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let url = section.required_url("url").filter(|url| {
        let is_plain = url.query().is_none() && url.fragment().is_none();
        if !is_plain {
            section.problem("url", "give no query: settings of ClickHouse belong to its user's profile");
        }
        is_plain
    });
    let database = section.or("database", ConfigTable::required_string, "default".to_owned());
    let table = section.or("table", ConfigTable::required_string, "counters".to_owned());
    let (has_user, has_password) = (section.has("user"), section.has("password"));
    let user = if has_user { section.required_string("user") } else { None };
    let password = section.secret("password");
    let create = section.or("create", ConfigTable::bool, false);
    let gzip = section.or("gzip", ConfigTable::bool, true);
    let timeout = section.or("timeout", ConfigTable::positive_duration, Duration::from_secs(30));
    if has_password && !has_user {
        section.problem("user", "is missing; a password alone opens nothing");
    }
    for (key, text) in [("user", user.as_deref()), ("password", password.as_ref().map(Secret::expose))] {
        // An HTTP header cannot carry these bytes, so the login would fail.
        if text.is_some_and(|text| text.bytes().any(|byte| byte < 0x20 || byte == 0x7f)) {
            section.problem(key, "holds characters that no HTTP header can carry");
        }
    }
    if section.has_problems() {
        return None;
    }
    let config = Config {
        url: url?,
        table: Table { database: database?, name: table? },
        user,
        password,
        create: create?,
        gzip: gzip?,
        timeout: timeout?,
    };
    Some(Box::new(move |context| Ok(Arc::new(ClickHouseSink::new(config.clone(), context.window)?))))
}

/// A table of the same database.
pub(super) fn shadow(settings: &mut Map<String, Value>, name: &ShadowName) -> Result<(), String> {
    name.replace(settings, "table");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tallybus_sdk::config::read_for_test;

    use super::*;

    fn read(table: Value) -> (bool, String) {
        let (built, problems) = read_for_test(&table, parse);
        (built.is_some(), problems.join("\n"))
    }

    #[test]
    fn the_least_that_is_needed_is_enough() {
        assert_eq!(read(json!({"url": "http://h:8123"})), (true, String::new()));
        let all = json!({
            "url": "https://h:8443/ch", "database": "d", "table": "t", "user": "u", "password": "p", "create": true,
            "gzip": false, "timeout": "5s"
        });
        assert_eq!(read(all), (true, String::new()));
    }

    #[test]
    fn problems_name_the_next_step() {
        for (table, expected) in [
            (json!({}), "url: missing required setting"),
            (json!({"url": "http://h/?database=x"}), "url: give no query"),
            (json!({"url": "http://h", "database": ""}), "database: must not be empty"),
            (json!({"url": "http://h", "password": "p"}), "user: is missing"),
            (json!({"url": "http://h", "user": "u", "password": "s3cret\n"}), "password: holds characters"),
            (json!({"url": "http://h", "create": "perhaps"}), "create: expected true or false"),
            (json!({"url": "http://h", "timeout": "0s"}), "timeout: must be greater than zero"),
            (json!({"url": "http://h", "tabel": "t"}), "unknown key `tabel`, did you mean `table`?"),
        ] {
            let (_, problems) = read(table);
            assert!(problems.contains(expected), "{expected} is not in\n{problems}");
            assert!(!problems.contains("s3cret"));
        }
    }
}
