//! Paths in a settings file are relative to the file, so that both can be moved together and a command may be started anywhere.

use std::path::Path;

use serde_json::Value;

use super::redacted::reference;

/// The settings of sinks that are paths, by kind. What a kind of another package has stays as it is.
const PATHS: &[(&str, &[&str])] = &[
    ("http", &["ca", "client_cert", "client_key"]),
    ("parquet", &["path"]),
    ("postgres", &["ca"]),
    ("sqlite", &["path"]),
];

/// Puts this folder before every relative path: those of files and directories, and those in `file:PATH`.
pub(super) fn resolve(value: &mut Value, folder: &str) {
    if folder.is_empty() {
        return;
    }
    if let Some(bus) = value.get_mut("bus") {
        join(bus.get_mut("path"), folder);
        locations(bus.get_mut("kafka"), folder);
    }
    let sinks = value.get_mut("sinks").and_then(Value::as_object_mut);
    for sink in sinks.into_iter().flat_map(|sinks| sinks.values_mut()) {
        let kind = sink.get("kind").and_then(Value::as_str);
        let keys = PATHS.iter().find(|(name, _)| Some(*name) == kind).map_or(&[][..], |(_, keys)| keys);
        keys.iter().for_each(|key| join(sink.get_mut(*key), folder));
    }
    references(value, folder);
}

/// The certificates and keys among librdkafka's properties, such as `ssl.ca.location`.
fn locations(properties: Option<&mut Value>, folder: &str) {
    for (key, value) in properties.and_then(Value::as_object_mut).into_iter().flatten() {
        // TOML reads an unquoted `ssl.ca.location` as tables.
        let is_location = key == "location" || key.ends_with(".location");
        match value {
            // librdkafka's word for: where the system has them.
            Value::String(text) if is_location && text == "probe" => {}
            Value::String(_) if is_location => join(Some(value), folder),
            other => locations(Some(other), folder),
        }
    }
}

/// `file:PATH`, also behind a word.
fn references(value: &mut Value, folder: &str) {
    match value {
        Value::String(text) => {
            let path = reference(text).and_then(|at| text[at..].strip_prefix("file:").map(|path| (at, path)));
            if let Some((at, path)) = path {
                *text = format!("{}file:{}", &text[..at], joined(path, folder));
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| references(value, folder)),
        Value::Object(values) => values.values_mut().for_each(|value| references(value, folder)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn join(value: Option<&mut Value>, folder: &str) {
    if let Some(Value::String(text)) = value
        && reference(text).is_none()
    {
        *text = joined(text, folder);
    }
}

/// Addresses, such as `s3://bucket`, are no paths, and neither is SQLite's `:memory:`, which the sink refuses.
fn joined(path: &str, folder: &str) -> String {
    if path.is_empty() || path.contains("://") || path.starts_with(":memory:") {
        return path.to_owned();
    }
    // An absolute path replaces the folder.
    Path::new(folder).join(path).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn relative_paths_are_those_of_the_file_and_nothing_else_is_changed() {
        let before = json!({
            "bus": {
                "kind": "embedded", "path": "bus.db", "topic": "t",
                "kafka": {
                    "ssl.ca.location": "ca.pem", "ssl.key.location": "/k.pem", "ssl": { "crl": { "location": "crl" } },
                    "ssl.certificate.location": "probe", "sasl.password": "file:secret", "client.id": "x",
                },
            },
            "sinks": {
                "a": { "kind": "sqlite", "path": "a.db" },
                "b": { "kind": "parquet", "path": "s3://bucket/x" },
                "c": { "kind": "parquet", "path": "../counts" },
                "d": { "kind": "http", "url": "http://h", "ca": "ca.pem", "headers": { "X": "Bearer file:t", "Y": "env:N" } },
                "e": { "kind": "own", "path": "as/it/is", "token": "file:t" },
                "f": { "kind": "sqlite", "path": "/f.db" },
                "g": { "kind": "sqlite", "path": ":memory:" },
            },
        });
        let mut after = before.clone();
        resolve(&mut after, "");
        assert_eq!(after, before, "a file in the current directory");
        resolve(&mut after, "/etc/t");
        let expected = json!({
            "bus": {
                "kind": "embedded", "path": "/etc/t/bus.db", "topic": "t",
                "kafka": {
                    "ssl.ca.location": "/etc/t/ca.pem", "ssl.key.location": "/k.pem",
                    "ssl": { "crl": { "location": "/etc/t/crl" } },
                    "ssl.certificate.location": "probe", "sasl.password": "file:/etc/t/secret", "client.id": "x",
                },
            },
            "sinks": {
                "a": { "kind": "sqlite", "path": "/etc/t/a.db" },
                "b": { "kind": "parquet", "path": "s3://bucket/x" },
                "c": { "kind": "parquet", "path": "/etc/t/../counts" },
                "d": {
                    "kind": "http", "url": "http://h", "ca": "/etc/t/ca.pem",
                    "headers": { "X": "Bearer file:/etc/t/t", "Y": "env:N" },
                },
                "e": { "kind": "own", "path": "as/it/is", "token": "file:/etc/t/t" },
                "f": { "kind": "sqlite", "path": "/f.db" },
                "g": { "kind": "sqlite", "path": ":memory:" },
            },
        });
        assert_eq!(after, expected);
    }
}
