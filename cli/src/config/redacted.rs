//! Values of settings without their secrets.

use serde_json::Value;
use tallybus_sdk::config::{Secret, Url};

/// Stands for a secret.
pub(super) const HIDDEN: &str = "***";

/// Words in a key, in lower case, whose value is a secret. Rather too many than too few.
const SECRET_WORDS: &[&str] = &[
    "auth",
    "credential",
    "jaas",
    "passphrase",
    "password",
    "passwd",
    "pem",
    "private",
    "secret",
    "token",
    "api_key",
    "api-key",
    "apikey",
];
/// Keys with such a word whose value is none.
const NO_SECRETS: &[&str] = &["secret_arn"];
/// Words that may stand before a reference in a header.
const SCHEMES: &[&str] = &["Basic", "Bearer", "Digest", "Splunk", "Token"];

/// Where a text refers to a secret elsewhere, `env:NAME` or `file:PATH`: the reference's first byte. A header may have a word
/// before it.
pub(super) fn reference(text: &str) -> Option<usize> {
    let start = ["env:", "file:"].iter().filter_map(|form| text.find(form)).min();
    start.filter(|at| *at == 0 || text[..*at].ends_with(' '))
}

/// A value as text, with everything hidden that is a secret, or may be one: values of secret keys and of headers, credentials
/// and queries in URLs, and what no setting is known by the name of (`is_known`). References to secrets are shown, with whether
/// there is such a secret.
pub(super) fn shown(path: &[&str], value: &Value, is_known: bool) -> String {
    match value {
        Value::String(text) if reference(text).is_some() => referring(text),
        _ if !is_known || is_secret(path) => HIDDEN.to_owned(),
        Value::String(text) => without_credentials(text),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(|value| shown(path, value, is_known)).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(_) => HIDDEN.to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn is_secret(path: &[&str]) -> bool {
    let is_one = |key: &str| {
        let key = key.to_lowercase();
        !NO_SECRETS.contains(&key.as_str()) && SECRET_WORDS.iter().any(|word| key.contains(word))
    };
    path.contains(&"headers") || path.last().is_some_and(|key| is_one(key))
}

/// A reference to a secret: `env:NAME`, `Bearer file:PATH`.
fn referring(text: &str) -> String {
    let at = reference(text).unwrap_or_default();
    let (before, reference) = text.split_at(at);
    let before = match before.trim_end() {
        "" => String::new(),
        scheme if SCHEMES.contains(&scheme) => format!("{scheme} "),
        _ => format!("{HIDDEN} "),
    };
    let state = match Secret::resolve(reference) {
        Ok(_) => "",
        Err(_) if reference.starts_with("env:") => " (not set)",
        Err(_) => " (cannot be read)",
    };
    format!("{before}{reference}{state}")
}

/// A text without the login and the query that a URL in it may have.
fn without_credentials(text: &str) -> String {
    if text.contains("-----BEGIN") {
        return HIDDEN.to_owned();
    }
    if !text.contains("://") {
        // `user:password@host`, in a list too.
        let parts = text.split(',').map(|part| match part.rfind('@') {
            Some(at) => format!("{HIDDEN}{}", &part[at..]),
            None => part.to_owned(),
        });
        return parts.collect::<Vec<_>>().join(",");
    }
    let Ok(mut url) = Url::parse(text) else { return HIDDEN.to_owned() };
    let has_login = !url.username().is_empty() || url.password().is_some();
    if has_login && (url.set_username(HIDDEN).is_err() || url.set_password(None).is_err()) {
        return HIDDEN.to_owned();
    }
    let has_more = url.query().is_some() || url.fragment().is_some();
    url.set_query(None);
    url.set_fragment(None);
    match (has_login, has_more) {
        (false, false) => text.to_owned(),
        (_, true) => format!("{url}?{HIDDEN}"),
        (true, false) => url.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_hidden_wherever_it_is() {
        for (path, value) in [
            (&["sinks", "a", "token"][..], json!("hunter2")),
            (&["sinks", "a", "token"], json!(["hunter2"])),
            (&["sinks", "a", "token"], json!(2)),
            (&["sinks", "a", "headers", "X-Any"], json!("hunter2")),
            (&["sinks", "a", "headers", "Authorization"], json!("Bearer hunter2")),
            (&["sinks", "a", "headers", "X-Any"], json!("hunter2 env:NO_SUCH")),
            (&["sinks", "a", "hmac", "secret"], json!("hunter2")),
            (&["sinks", "a", "secret_access_key"], json!("hunter2")),
            (&["sinks", "a", "url"], json!("http://me:hunter2@db:8086")),
            (&["sinks", "a", "url"], json!("http://hunter2@db:8086/x")),
            (&["sinks", "a", "url"], json!("http://h/write?api_key=hunter2")),
            (&["sinks", "a", "url"], json!("http://h/write#hunter2")),
            (&["sinks", "a", "url"], json!("http://me:hunter2@:x")),
            (&["sinks", "a", "host"], json!("me:hunter2@db")),
            (&["bus", "brokers"], json!("a:1,me:hunter2@b:1")),
            (&["bus", "kafka", "sasl.password"], json!("hunter2")),
            (&["bus", "kafka", "ssl.key.pem"], json!("hunter2")),
            (&["bus", "kafka", "sasl.oauthbearer.config"], json!("hunter2")),
            (&["bus", "kafka", "x"], json!("-----BEGIN PRIVATE KEY-----hunter2")),
            (&["bus", "kafka", "x"], json!({ "a": "hunter2" })),
        ] {
            let text = shown(path, &value, true);
            assert!(text.contains(HIDDEN) && !text.contains("hunter"), "{path:?}: {text}");
        }
        assert_eq!(shown(&["sinks", "a", "tokn"], &json!("hunter2"), false), HIDDEN);
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for (path, value, expected) in [
            (&["bus", "brokers"][..], json!("a:1,b:2"), "a:1,b:2"),
            (&["sinks", "a", "url"], json!("http://h:8086"), "http://h:8086"),
            (&["sinks", "a", "token"], json!("env:NO_SUCH_VARIABLE"), "env:NO_SUCH_VARIABLE (not set)"),
            (&["sinks", "a", "token"], json!("file:no/such"), "file:no/such (cannot be read)"),
            (&["sinks", "a", "token"], json!("env:PATH"), "env:PATH"),
            (&["sinks", "a", "headers", "X"], json!("Bearer env:PATH"), "Bearer env:PATH"),
            (&["sinks", "a", "secret_arn"], json!("arn:x"), "arn:x"),
            (&["sinks", "a", "topics"], json!(["a", "b"]), "[a, b]"),
            (&["sinks", "a", "create"], json!(true), "true"),
            (&["bus", "kafka", "security.protocol"], json!("SASL_SSL"), "SASL_SSL"),
        ] {
            assert_eq!(shown(path, &value, true), expected, "{path:?}");
        }
    }
}
