//! What a new sink of each kind is given. A kind that is not listed gets what its settings have as defaults.

/// A setting that is written into the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) key: &'static str,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    /// A reference to a secret: `env:NAME`.
    Secret(String),
    Flag(bool),
}

impl Value {
    /// As TOML.
    pub(super) fn literal(&self) -> String {
        match self {
            Self::Text(text) | Self::Secret(text) => quoted(text),
            Self::Flag(flag) => flag.to_string(),
        }
    }
}

/// A quoted TOML string: JSON's, but for one control character that JSON leaves as it is.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}

/// The settings that a sink of this kind cannot do without, with values to begin with; `None` for a kind that is not known
/// here. `place` names what it writes to: a file, a table, a bucket.
pub(super) fn given(kind: &str, place: &str) -> Option<Vec<Given>> {
    let table = place.replace('-', "_");
    let text = |key, value: &str| Given { key, value: Value::Text(value.to_owned()) };
    let secret = |key, value: &str| Given { key, value: Value::Secret(value.to_owned()) };
    let create = Given { key: "create", value: Value::Flag(true) };
    Some(match kind {
        "clickhouse" => vec![text("url", "http://127.0.0.1:8123"), text("table", &table), create],
        "dynamodb" => vec![text("table", place), text("region", "eu-west-1"), create],
        "http" => vec![text("url", "http://127.0.0.1:8080/counters")],
        "influxdb" => vec![
            text("url", "http://127.0.0.1:8086"),
            text("org", "example"),
            text("bucket", place),
            secret("token", "env:INFLUX_TOKEN"),
        ],
        "parquet" => vec![text("path", place), create],
        "postgres" => vec![
            text("host", "127.0.0.1"),
            text("database", "metrics"),
            text("user", "tallybus"),
            secret("password", "env:PGPASSWORD"),
            text("table", &table),
            create,
        ],
        "redshift" => vec![
            text("workgroup", "analytics"),
            text("database", "dev"),
            text("region", "eu-west-1"),
            text("table", &table),
            create,
        ],
        "sqlite" => vec![text("path", &format!("{place}.db"))],
        _ => return None,
    })
}
