//! The settings of an InfluxDB sink.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use serde_json::{Map, Value};
use tallybus_sdk::config::{ConfigTable, Secret};
use tallybus_sdk::{BuildSink, Setting, ShadowName, Sink, SinkContext, SinkError};

use super::InfluxSink;
use super::identity::Identity;

/// The settings, checked.
#[derive(Debug, Clone)]
pub(super) struct Config {
    /// Scheme, host and port.
    pub(super) url: Url,
    pub(super) api: Api,
    /// Whether a missing bucket or database is created.
    pub(super) create: bool,
    pub(super) gzip: bool,
    /// The timeout of one request.
    pub(super) timeout: Duration,
    pub(super) max_partitions: u32,
}

/// InfluxDB's interface, and the destination in it.
#[derive(Debug, Clone)]
pub(super) enum Api {
    V1 { database: String, retention_policy: Option<String>, login: Option<(String, Secret)> },
    V2 { org: String, bucket: String, token: Secret },
}

impl Api {
    /// The bucket or database.
    pub(super) fn destination(&self) -> &str {
        match self {
            Self::V1 { database, .. } => database,
            Self::V2 { bucket, .. } => bucket,
        }
    }
}

impl Config {
    /// The secrets that must never appear in a message.
    pub(super) fn secrets(&self) -> Vec<&str> {
        match &self.api {
            Api::V1 { login, .. } => login.iter().map(|(_, password)| password.expose()).collect(),
            Api::V2 { token, .. } => vec![token.expose()],
        }
    }
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "url", default: None, help: "scheme, host and port of the server" },
    Setting { key: "api", default: Some("v2"), help: "\"v2\" (InfluxDB 2 and later) or \"v1\" (InfluxDB 1)" },
    Setting { key: "org", default: None, help: "v2: the organisation" },
    Setting { key: "bucket", default: None, help: "v2: the bucket" },
    Setting { key: "token", default: None, help: "v2: a token that may write and read the bucket" },
    Setting { key: "database", default: None, help: "v1: the database" },
    Setting {
        key: "retention_policy",
        default: None,
        help: "v1: the retention policy; the database's own when left out",
    },
    Setting { key: "username", default: None, help: "v1: the user, where the server asks for one" },
    Setting { key: "password", default: None, help: "v1: the user's password" },
    Setting { key: "create", default: Some("false"), help: "creates the bucket or database when it is missing" },
    Setting { key: "gzip", default: Some("true"), help: "compresses what is sent" },
    Setting { key: "timeout", default: Some("30s"), help: "how long one request may take" },
    Setting {
        key: "max_partitions",
        default: Some("64"),
        help: "the most partitions that a topic will ever have; shapes every point's time",
    },
];

const V1_ONLY: [&str; 4] = ["database", "retention_policy", "username", "password"];
const V2_ONLY: [&str; 3] = ["org", "bucket", "token"];

pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let url = section.required_url("url").filter(|url| is_origin(section, url));
    let has_api = section.has("api");
    let api = section.choice("api", &["v2", "v1"]).or((!has_api).then_some("v2"));
    let api = match api {
        Some("v1") => parse_v1(section),
        Some(_) => parse_v2(section),
        None => {
            section.allow(&V1_ONLY);
            section.allow(&V2_ONLY);
            None
        }
    };
    let create = section.or("create", ConfigTable::bool, false);
    let gzip = section.or("gzip", ConfigTable::bool, true);
    let timeout = section.or("timeout", ConfigTable::positive_duration, Duration::from_secs(30));
    let max_partitions = section.or("max_partitions", |section, key| section.integer_within(key, 1, 1_000_000), 64);
    let config = Config {
        url: url?,
        api: api?,
        create: create?,
        gzip: gzip?,
        timeout: timeout?,
        max_partitions: u32::try_from(max_partitions?).ok()?,
    };
    Some(Box::new(move |context| build(&config, context)))
}

fn build(config: &Config, context: &SinkContext) -> Result<Arc<dyn Sink>, SinkError> {
    let identity = Identity::new(context.window, context.topics.len(), config.max_partitions)
        .map_err(|no_room| SinkError::Halt(format!("sink {}: {no_room}", context.name)))?;
    Ok(Arc::new(InfluxSink::new(config.clone(), identity, &context.topics)?))
}

fn parse_v1(section: &mut ConfigTable<'_>) -> Option<Api> {
    refuse(section, &V2_ONLY, "v2");
    let database = section.required_string("database");
    let retention_policy = section.string("retention_policy");
    let (has_username, has_password) = (section.has("username"), section.has("password"));
    let login = match (section.string("username"), section.secret("password")) {
        (Some(username), Some(password)) => Some((username, password)),
        (Some(_), None) if !has_password => {
            section.problem("password", "is missing; give env:NAME, file:PATH or the secret itself");
            return None;
        }
        (None, Some(_)) if !has_username => {
            section.problem("username", "is missing; a password alone opens nothing");
            return None;
        }
        (None, None) if !has_username && !has_password => None,
        // One of them is wrong, as was reported when it was read.
        _ => return None,
    };
    Some(Api::V1 { database: database?, retention_policy, login })
}

fn parse_v2(section: &mut ConfigTable<'_>) -> Option<Api> {
    refuse(section, &V1_ONLY, "v1");
    let (org, bucket) = (section.required_string("org"), section.required_string("bucket"));
    let token = section.required_secret("token");
    if token.as_ref().is_some_and(|token| !token.expose().bytes().all(|byte| (0x20..0x7f).contains(&byte))) {
        section.problem("token", "holds characters that no HTTP header can carry");
        return None;
    }
    Some(Api::V2 { org: org?, bucket: bucket?, token: token? })
}

fn refuse(section: &mut ConfigTable<'_>, keys: &[&str], api: &str) {
    for key in keys {
        if section.has(key) {
            section.problem(key, format!("belongs to `api = \"{api}\"`"));
        }
    }
}

/// The `influxdb2` crate replaces the whole path of the URL, and so must we.
fn is_origin(section: &mut ConfigTable<'_>, url: &Url) -> bool {
    let is_origin = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    if !is_origin {
        section.problem(
            "url",
            "give scheme, host and port only, such as \"http://127.0.0.1:8086\"; a path is not supported",
        );
    }
    is_origin
}

/// A bucket or database of its own, with its own retention policy.
pub(super) fn shadow(settings: &mut Map<String, Value>, name: &ShadowName) -> Result<(), String> {
    let is_v1 = settings.get("api").is_some_and(|api| api == "v1");
    name.replace(settings, if is_v1 { "database" } else { "bucket" });
    settings.remove("retention_policy");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tallybus_sdk::config::read_for_test;

    use super::*;

    fn read(table: Value) -> (Option<BuildSink>, Vec<String>) {
        read_for_test(&table, parse)
    }

    fn context(window: i64) -> SinkContext {
        SinkContext { name: "influx".to_owned(), topics: vec!["t".to_owned()], window }
    }

    fn v2() -> Value {
        json!({"url": "http://127.0.0.1:8086", "org": "o", "bucket": "b", "token": "s3cret"})
    }

    #[test]
    fn the_least_that_is_needed_is_enough() {
        let (built, problems) = read(v2());
        assert_eq!(problems, [""; 0]);
        let sink = built.unwrap()(&context(1_000_000_000)).unwrap();
        assert_eq!(sink.layout_fingerprint(), "slots=2,topics=1,max_partitions=64");
        let (built, problems) = read(json!({"url": "https://h", "api": "v1", "database": "d"}));
        assert_eq!(problems, [""; 0]);
        assert!(built.unwrap()(&context(0)).is_ok());
    }

    #[test]
    fn all_problems_are_reported_at_once() {
        let (built, problems) = read(json!({
            "url": "http://h:1/influx", "org": "", "token": 5, "database": "d", "gzip": "perhaps", "timeout": "0s",
            "max_partitions": 0, "tokn": "x"
        }));
        assert!(built.is_none());
        let problems = problems.join("\n");
        for expected in [
            "url: give scheme, host and port only",
            "org: must not be empty",
            "bucket: missing required setting",
            "token: expected a string",
            "database: belongs to `api = \"v1\"`",
            "gzip: expected true or false",
            "timeout: must be greater than zero",
            "max_partitions: must be between 1 and 1000000, not 0",
            "tokn: unknown key `tokn`, did you mean `token`?",
        ] {
            assert!(problems.contains(expected), "{expected} is not in\n{problems}");
        }
        let (built, problems) = read(json!({"url": "http://h", "api": "v3", "bucket": "b"}));
        assert!(built.is_none());
        assert_eq!(problems.len(), 1, "{problems:?}");
    }

    #[test]
    fn a_user_needs_a_password_and_the_other_way_round() {
        for (given, missing) in [("username", "password"), ("password", "username")] {
            let (built, problems) = read(json!({"url": "http://h", "api": "v1", "database": "d", given: "x"}));
            assert!(built.is_none());
            assert!(problems[0].starts_with(&format!("{missing}: is missing")), "{problems:?}");
        }
    }

    #[test]
    fn a_window_without_capacity_is_refused_with_the_shortest_that_has_it() {
        let (built, _) = read(v2());
        let Err(error) = built.unwrap()(&context(1_000_000)) else { panic!("accepted") };
        assert!(matches!(&error, SinkError::Halt(_)));
        assert!(error.to_string().contains("66 ms"), "{error}");
    }

    #[test]
    fn no_secret_shows() {
        let mut table = v2();
        table["token"] = json!("s3cret\u{7}");
        let (built, problems) = read(table);
        assert!(built.is_none());
        assert!(problems[0].starts_with("token: holds characters"), "{problems:?}");
        assert!(!problems[0].contains("s3cret"));
    }
}
