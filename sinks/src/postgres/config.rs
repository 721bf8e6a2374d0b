//! The settings of a PostgreSQL sink.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use native_tls::{Certificate, TlsConnector};
use serde_json::{Map, Value};
use tallybus_sdk::config::{ConfigTable, Secret};
use tallybus_sdk::{BuildSink, Setting, ShadowName, SinkError};
use tokio_postgres::config::SslMode;

use super::PostgresSink;
use super::tables::Tables;

/// The settings, checked.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
    pub(super) user: String,
    pub(super) password: Option<Secret>,
    pub(super) tables: Tables,
    pub(super) tls: Tls,
    pub(super) create: bool,
    /// For connecting, and for each statement.
    pub(super) timeout: Duration,
    /// The most connections at once.
    pub(super) connections: usize,
}

/// How connections are encrypted.
#[derive(Clone)]
pub(super) enum Tls {
    Off,
    /// Encrypted, without a check of the server's identity.
    Require,
    /// Encrypted, and the server shows a certificate for its name.
    Verify(Option<Certificate>),
}

impl Config {
    /// Why what is sent can be read on its way; `None` where it is encrypted, or never leaves this machine.
    pub(super) fn unencrypted(&self) -> Option<String> {
        let is_open = matches!(self.tls, Tls::Off) && !is_this_machine(&self.host);
        is_open.then(|| {
            format!(
                "counts cross the network to {} unencrypted, and so does what a login reveals: remove tls = \"off\", or set it to \
                 \"verify\"",
                self.host
            )
        })
    }
}

impl Tls {
    pub(super) fn mode(&self) -> SslMode {
        if matches!(self, Self::Off) { SslMode::Disable } else { SslMode::Require }
    }

    pub(super) fn connector(&self) -> Result<TlsConnector, SinkError> {
        let mut builder = TlsConnector::builder();
        match self {
            Self::Off => {}
            Self::Require => {
                builder.danger_accept_invalid_certs(true).danger_accept_invalid_hostnames(true);
            }
            Self::Verify(ca) => {
                if let Some(ca) = ca {
                    builder.disable_built_in_roots(true).add_root_certificate(ca.clone());
                }
            }
        }
        builder.build().map_err(|error| SinkError::Halt(format!("cannot set up TLS: {error}")))
    }
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "host", default: None, help: "the server's name or address" },
    Setting { key: "port", default: Some("5432"), help: "its port" },
    Setting { key: "database", default: None, help: "the database; must exist" },
    Setting { key: "user", default: None, help: "the role to log in as" },
    Setting { key: "password", default: None, help: "its password, where the server asks for one" },
    Setting { key: "schema", default: Some("public"), help: "the schema of the tables" },
    Setting {
        key: "table",
        default: Some("counters"),
        help: "the table of counts; `…_ledger` and `…_refused` are in the same schema",
    },
    Setting {
        key: "tls",
        default: None,
        help: "\"verify\" (encrypts, and checks who the server is), \"require\" (encrypts) or \"off\"; without it \"off\" for a \
               `host` that is this machine, and \"verify\" for every other",
    },
    Setting { key: "ca", default: None, help: "tls = \"verify\": a PEM file with the only authority to trust" },
    Setting { key: "create", default: Some("false"), help: "creates schema and tables when they are missing" },
    Setting { key: "timeout", default: Some("30s"), help: "how long connecting, or one statement, may take" },
    Setting { key: "connections", default: Some("8"), help: "the most connections at once" },
];

/// The longest name of a table for which the longest of its companions still fits in PostgreSQL's 63 bytes.
const MAX_TABLE: usize = 48;

pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let host = section.required_string("host");
    let port = section.or("port", |section, key| section.integer_within(key, 1, 65_535), 5_432);
    let database = section.required_string("database");
    let user = section.required_string("user");
    let has_password = section.has("password");
    let password = section.secret("password");
    let schema = name(section, "schema", "public", 63);
    let table = name(section, "table", "counters", MAX_TABLE);
    let tls = parse_tls(section, host.as_deref().is_some_and(is_this_machine));
    let create = section.or("create", ConfigTable::bool, false);
    let timeout = section.or("timeout", ConfigTable::duration, Duration::from_secs(30));
    let connections = section.or("connections", |section, key| section.integer_within(key, 1, 1_000), 8);
    if timeout.is_some_and(|timeout| timeout < Duration::from_millis(1)) {
        section.problem("timeout", "must be 1ms or longer");
        return None;
    }
    if has_password && password.is_none() {
        return None;
    }
    let config = Config {
        host: host?,
        port: u16::try_from(port?).ok()?,
        database: database?,
        user: user?,
        password,
        tables: Tables::new(&schema?, &table?),
        tls: tls?,
        create: create?,
        timeout: timeout?,
        connections: usize::try_from(connections?).ok()?,
    };
    Some(Box::new(move |context| Ok(Arc::new(PostgresSink::new(config.clone(), context.window)?))))
}

/// A name that PostgreSQL keeps whole: it truncates longer ones without an error.
fn name(section: &mut ConfigTable<'_>, key: &str, default: &str, longest: usize) -> Option<String> {
    if !section.has(key) {
        return Some(default.to_owned());
    }
    let name = section.required_string(key)?;
    if name.len() > longest || name.contains('\0') {
        section.problem(key, format!("must have at most {longest} bytes, and none of them 0"));
        return None;
    }
    Some(name)
}

/// Whether a connection to this host never leaves the machine: loopback, or a directory of sockets.
fn is_this_machine(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || host.starts_with('/')
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn parse_tls(section: &mut ConfigTable<'_>, is_this_machine: bool) -> Option<Tls> {
    let usual = if is_this_machine { "off" } else { "verify" };
    let mode = section.or("tls", |section, key| section.choice(key, &["off", "require", "verify"]), usual);
    let has_ca = section.has("ca");
    let ca = section.string("ca");
    let mode = mode?;
    if has_ca && mode != "verify" {
        section.problem("ca", "belongs to `tls = \"verify\"`");
        return None;
    }
    match mode {
        "off" => return Some(Tls::Off),
        "require" => return Some(Tls::Require),
        _ if !has_ca => return Some(Tls::Verify(None)),
        _ => {}
    }
    let ca = ca?;
    let read = std::fs::read(&ca).map_err(|error| error.to_string());
    match read.and_then(|pem| Certificate::from_pem(&pem).map_err(|error| error.to_string())) {
        Ok(certificate) => Some(Tls::Verify(Some(certificate))),
        Err(error) => {
            section.problem("ca", format!("{ca} is not a PEM certificate: {error}"));
            None
        }
    }
}

/// Tables of the same schema.
pub(super) fn shadow(settings: &mut Map<String, Value>, name: &ShadowName) -> Result<(), String> {
    name.replace(settings, "table");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tallybus_sdk::SinkContext;
    use tallybus_sdk::config::read_for_test;

    use super::*;

    fn read(table: Value) -> (bool, String) {
        let (built, problems) = read_for_test(&table, parse);
        (built.is_some(), problems.join("\n"))
    }

    #[test]
    fn the_least_that_is_needed_is_enough() {
        assert_eq!(read(json!({"host": "h", "database": "d", "user": "u"})), (true, String::new()));
        let all = json!({
            "host": "h", "port": 6543, "database": "d", "user": "u", "password": "p", "schema": "s", "table": "t",
            "tls": "verify", "create": true, "timeout": "5s", "connections": 2
        });
        assert_eq!(read(all), (true, String::new()));
    }

    #[test]
    fn a_connection_is_encrypted_and_verified_unless_it_stays_on_this_machine_or_the_settings_say_otherwise() {
        let tls = |host: &str, mode: Option<&str>| {
            let mut table = json!({ "host": host });
            if let Some(mode) = mode {
                table["tls"] = json!(mode);
            }
            let problems = std::rc::Rc::default();
            let mut section = ConfigTable::root(table.as_object().unwrap(), problems);
            let host = section.required_string("host").unwrap();
            match parse_tls(&mut section, is_this_machine(&host)).unwrap() {
                Tls::Off => "off",
                Tls::Require => "require",
                Tls::Verify(None) => "verify",
                Tls::Verify(Some(_)) => "verify with ca",
            }
        };
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "/run/postgresql"] {
            assert_eq!(tls(host, None), "off", "{host}");
        }
        for host in ["db.example.com", "10.0.0.1", "postgres", "::ffff:10.0.0.1", "localhost.example.com", "0.0.0.0"] {
            assert_eq!(tls(host, None), "verify", "{host}");
            assert_eq!((tls(host, Some("off")), tls(host, Some("require"))), ("off", "require"));
        }
    }

    #[test]
    fn a_plain_connection_to_another_machine_is_named_and_no_other() {
        let unencrypted = |host: &str, tls: &str| {
            let table = json!({ "host": host, "database": "d", "user": "u", "tls": tls });
            let (build, problems) = read_for_test(&table, parse);
            let context = SinkContext { name: "s".to_owned(), topics: vec!["t".to_owned()], window: 1_000_000_000 };
            let sink = build.unwrap_or_else(|| panic!("{problems:?}"))(&context).unwrap();
            sink.unencrypted()
        };
        assert!(
            unencrypted("db.example.com", "off").is_some_and(|reason| reason.contains("db.example.com unencrypted"))
        );
        assert_eq!((unencrypted("127.0.0.1", "off"), unencrypted("db.example.com", "require")), (None, None));
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let (built, problems) = read(json!({
            "port": 0, "database": "", "user": 5, "password": 7, "schema": "", "table": "x".repeat(49),
            "tls": "verfy", "create": "perhaps", "timeout": "0s", "connections": 0, "hots": "h"
        }));
        assert!(!built);
        for expected in [
            "host: missing required setting",
            "port: must be between 1 and 65535, not 0",
            "database: must not be empty",
            "user: expected a string",
            "password: expected a string",
            "schema: must not be empty",
            "table: must have at most 48 bytes",
            "tls: unknown value `verfy`, expected one of `off`, `require`, `verify`, did you mean `verify`?",
            "create: expected true or false",
            "timeout: must be 1ms or longer",
            "connections: must be between 1 and 1000, not 0",
            "hots: unknown key `hots`, did you mean `host`?",
        ] {
            assert!(problems.contains(expected), "{expected} is not in\n{problems}");
        }
    }

    #[test]
    fn an_authority_is_read_at_once() {
        let least = |more: Value| {
            let mut table = json!({"host": "h", "database": "d", "user": "u"});
            let Value::Object(more) = more else { panic!("no table") };
            table.as_object_mut().unwrap().extend(more);
            read(table)
        };
        let (built, problems) = least(json!({"tls": "require", "ca": "ca.pem"}));
        assert!(!built && problems.contains("ca: belongs to `tls = \"verify\"`"), "{problems}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let (built, problems) = least(json!({"tls": "verify", "ca": file}));
        assert!(!built && problems.contains("is not a PEM certificate"), "{problems}");
        std::fs::write(&file, "not PEM").unwrap();
        assert!(!least(json!({"tls": "verify", "ca": file})).0);
    }
}
