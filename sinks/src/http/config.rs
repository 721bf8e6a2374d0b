//! The settings of an HTTP sink.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use tallybus_sdk::config::{ConfigTable, Secret};
use tallybus_sdk::{BuildSink, Setting, Sink, SinkContext, SinkError};

use super::HttpSink;
use super::encode::{Compression, Form};
use super::format::Format;
use super::tls::Tls;

/// The settings, checked.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) headers: HeaderMap,
    /// Those of them whose values come from files, which may change.
    renewed: Vec<RenewedHeader>,
    pub(super) form: Form,
    /// The header of the idempotency key, where one is sent.
    pub(super) key_header: Option<HeaderName>,
    /// Whether the server counts a repeated request once.
    pub(super) is_idempotent: bool,
    pub(super) signing: Option<Signing>,
    pub(super) tls: Tls,
    /// The timeout of one request.
    pub(super) timeout: Duration,
    /// The largest body in bytes, as sent (compressed).
    pub(super) max_body: Option<u64>,
    /// Requested instead of `url` by the check of the server.
    pub(super) check_url: Option<Url>,
    pub(super) reading: Option<Reading>,
    /// Whether points that an OTLP receiver refuses without naming them are given up.
    pub(super) gives_up_partly: bool,
    /// Whether a page for a browser counts as success, where its status says so.
    pub(super) accepts_pages: bool,
    /// The secrets that must never appear in a message.
    secrets: Vec<Secret>,
}

/// A header whose value comes from a file.
#[derive(Clone)]
pub(super) struct RenewedHeader {
    name: HeaderName,
    /// What precedes the secret, such as `Bearer `.
    word: String,
    secret: Secret,
}

impl RenewedHeader {
    fn value(&self) -> Result<HeaderValue, String> {
        let mut value = HeaderValue::from_str(&format!("{}{}", self.word, self.secret.expose())).map_err(|_| {
            format!("the file for the header {} holds characters now that no HTTP header can carry", self.name)
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// How the server's totals are read back.
#[derive(Debug, Clone)]
pub(super) enum Reading {
    /// The rows of the format `json`.
    Rows(Url),
    /// The export of VictoriaMetrics; the URL as given, without the path of the export.
    VictoriaMetrics(Url),
}

/// A signature in a header.
#[derive(Debug, Clone)]
pub(super) struct Signing {
    pub(super) header: HeaderName,
    pub(super) secret: Secret,
    pub(super) algorithm: Algorithm,
    pub(super) signs: Signs,
    /// The prefix before the hexadecimal digits.
    pub(super) prefix: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha256,
    Sha512,
}

/// The signed part of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signs {
    Body,
    /// The idempotency key, a full stop, and the body.
    KeyAndBody,
}

impl Config {
    /// The secrets that must never appear in a message.
    pub(super) fn secrets(&self) -> Vec<&str> {
        let bare = self.renewed.iter().filter_map(|header| bare(header.secret.expose()));
        let mut secrets: Vec<&str> = self.secrets.iter().map(Secret::expose).chain(bare).collect();
        // Longer ones first: one that begins with another would otherwise be removed only in part.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets
    }

    /// Replaces the values of headers that come from files by what the files hold now.
    ///
    /// # Errors
    /// A file holds something that is no header's value.
    pub(super) fn renew(&self, headers: &mut HeaderMap) -> Result<(), String> {
        for header in &self.renewed {
            headers.insert(header.name.clone(), header.value()?);
        }
        Ok(())
    }
}

/// A URL as messages name it: its query may hold a key.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("url", &shown(&self.url)).field("form", &self.form).finish_non_exhaustive()
    }
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting { key: "url", default: None, help: "where each batch is sent; may have a path and a query" },
    Setting { key: "method", default: Some("POST"), help: "the method of the request" },
    Setting {
        key: "headers",
        default: None,
        help: "more headers; a value is a text, env:NAME, file:PATH, or a word and one of these: \"Bearer env:NAME\"",
    },
    Setting {
        key: "format",
        default: Some("json"),
        help: "\"json\" (an array of objects), \"ndjson\", \"datadog\", \"prometheus\" (remote write), \"otlp\", \"influx\" or \
               \"statsd\"",
    },
    Setting {
        key: "idempotency_key",
        default: Some("Idempotency-Key"),
        help: "the header that names the batch, the same on every attempt; \"\" leaves it out",
    },
    Setting {
        key: "idempotent",
        default: Some("false"),
        help: "whether the server counts a repeated request once: only then is delivery exactly once",
    },
    Setting { key: "compression", default: Some("none"), help: "\"none\", \"gzip\" or \"zstd\"" },
    Setting {
        key: "hmac",
        default: None,
        help: "signs each request: a table of header, secret, algorithm (sha256, sha512), signs (body, key.body) and prefix",
    },
    Setting { key: "ca", default: None, help: "a PEM file: only servers with a certificate from these are trusted" },
    Setting { key: "client_cert", default: None, help: "a PEM file with the certificate that we show" },
    Setting { key: "client_key", default: None, help: "a PEM file with the certificate's key, in PKCS #8" },
    Setting { key: "timeout", default: Some("30s"), help: "how long one request may take" },
    Setting {
        key: "max_body",
        default: None,
        help: "the largest body that is sent, compressed; larger batches are halved before they are sent",
    },
    Setting {
        key: "slots",
        default: Some("1"),
        help: "datadog, prometheus, otlp, influx: the number of values of the label `tallybus_slot`, which separates \
            batches of one \
               window; required for datadog",
    },
    Setting {
        key: "partial_success",
        default: Some("halt"),
        help: "otlp: the reaction when the server refuses points without naming them: \"halt\", or \"accept\" their \
            loss",
    },
    Setting {
        key: "accept",
        default: Some("api"),
        help: "which answers with a status of success count as written: \"api\" (all but a page of HTML, which a proxy or a login \
               page sends) or \"any\", for an API that answers with such a page",
    },
    Setting {
        key: "check_url",
        default: None,
        help: "requested with GET to check the server; otherwise `url` with HEAD",
    },
    Setting { key: "read_url", default: None, help: "where totals are read back for audits" },
    Setting {
        key: "read",
        default: Some("rows"),
        help: "how: \"rows\" (rows as this sink writes them) or \"victoriametrics\" (its export; `read_url` without a path)",
    },
];

pub(super) fn parse(section: &mut ConfigTable<'_>) -> Option<BuildSink> {
    let mut secrets = Vec::new();
    let url = section.required_url("url");
    let method = section.or("method", read_method, Method::POST);
    let mut renewed = Vec::new();
    let headers = parse_headers(section, &mut secrets, &mut renewed);
    let form = parse_form(section);
    let key_header = section.or("idempotency_key", read_key_header, Some(HeaderName::from_static("idempotency-key")));
    let is_idempotent = section.or("idempotent", ConfigTable::bool, false);
    let signing = section.or("hmac", |section, key| parse_signing(section, key).map(Some), None);
    let tls = Tls::parse(section);
    let timeout = section.or("timeout", ConfigTable::positive_duration, Duration::from_secs(30));
    let max_body = section.or("max_body", |section, key| section.bytes(key).map(Some), None);
    let partly = section.or("partial_success", |section, key| section.choice(key, &["halt", "accept"]), "halt");
    let accept = section.or("accept", |section, key| section.choice(key, &["api", "any"]), "api");
    let check_url = section.or("check_url", |section, key| section.url(key).map(Some), None);
    let reading = parse_reading(section);
    if max_body == Some(Some(0)) {
        section.problem("max_body", "must be at least 1");
    }
    let signs_key = signing.iter().flatten().any(|signing| signing.signs == Signs::KeyAndBody);
    if signs_key && key_header == Some(None) {
        section.problem("hmac", "signs a key that `idempotency_key = \"\"` leaves out");
    }
    let has_identity = form.as_ref().is_none_or(|form| form.format != Format::Statsd);
    if is_idempotent == Some(true) && key_header == Some(None) && !has_identity {
        section.problem(
            "idempotent",
            "no server can recognise a repeated request: `idempotency_key = \"\"` leaves the header out, and lines of \
             StatsD do not name their batch",
        );
    }
    if section.has_problems() {
        return None;
    }
    let (url, signing, check_url, reading) = (url?, signing?, check_url?, reading?);
    let read_url = reading.as_ref().map(|(Reading::Rows(url) | Reading::VictoriaMetrics(url))| url);
    for url in [Some(&url), check_url.as_ref(), read_url].into_iter().flatten() {
        secrets.extend(url.query_pairs().filter(|(_, value)| is_long(value)).map(|(_, value)| Secret::new(value)));
    }
    secrets.extend(signing.iter().map(|signing| signing.secret.clone()));
    let config = Config {
        url,
        method: method?,
        headers: headers?,
        renewed,
        form: form?,
        key_header: key_header?,
        is_idempotent: is_idempotent?,
        signing,
        tls: tls?,
        timeout: timeout?,
        max_body: max_body?,
        check_url,
        reading,
        gives_up_partly: partly? == "accept",
        accepts_pages: accept? == "any",
        secrets,
    };
    Some(Box::new(move |context| build(&config, context)))
}

fn build(config: &Config, context: &SinkContext) -> Result<Arc<dyn Sink>, SinkError> {
    if context.window == 0 && config.form.format.needs_window() {
        return Err(SinkError::Halt(format!(
            "sink {}: window: the format {} identifies points by time, in milliseconds at best, so events without a \
             window \
             would overwrite each other; set a window of 1s or longer",
            context.name,
            config.form.format.name()
        )));
    }
    Ok(Arc::new(HttpSink::new(config.clone(), context)?))
}

fn parse_headers(
    section: &mut ConfigTable<'_>,
    secrets: &mut Vec<Secret>,
    renewed: &mut Vec<RenewedHeader>,
) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    if !section.has("headers") {
        return Some(headers);
    }
    let mut table = section.table("headers")?;
    let mut is_sound = true;
    for key in table.keys() {
        let Some(text) = table.string(key) else {
            is_sound = false;
            continue;
        };
        match header(key, &text, secrets, renewed) {
            Ok((name, value)) => drop(headers.insert(name, value)),
            Err(reason) => {
                is_sound = false;
                table.problem(key, reason);
            }
        }
    }
    table.finish();
    is_sound.then_some(headers)
}

/// A header, and its secret parts: values read from elsewhere, values of headers with a sensitive name, and every other
/// value long enough to be a key.
fn header(
    key: &str,
    text: &str,
    secrets: &mut Vec<Secret>,
    renewed: &mut Vec<RenewedHeader>,
) -> Result<(HeaderName, HeaderValue), String> {
    const OURS: [&str; 4] = ["content-encoding", "content-length", "host", "transfer-encoding"];
    const HARMLESS: [&str; 4] = ["accept", "content-type", "user-agent", "x-prometheus-remote-write-version"];
    const TELLING: [&str; 5] = ["auth", "key", "token", "secret", "cookie"];
    let name = HeaderName::from_bytes(key.as_bytes()).map_err(|_| "is not a valid HTTP header name".to_owned())?;
    if OURS.contains(&name.as_str()) {
        return Err("is set by the sink itself".to_owned());
    }
    let is_elsewhere = |text: &str| text.starts_with("env:") || text.starts_with("file:");
    let (word, rest) = match text.split_once(' ') {
        Some((word, rest)) if is_elsewhere(rest.trim_start()) => (format!("{word} "), rest.trim_start()),
        _ => (String::new(), text),
    };
    let secret = Secret::resolve(rest)?;
    let whole = format!("{word}{}", secret.expose());
    let mut value =
        HeaderValue::from_str(&whole).map_err(|_| "holds characters that no HTTP header can carry".to_owned())?;
    let names_a_secret = TELLING.iter().any(|part| name.as_str().contains(part));
    let may_be_one = is_long(secret.expose()) && !HARMLESS.contains(&name.as_str());
    if is_elsewhere(rest) || names_a_secret || may_be_one {
        value.set_sensitive(true);
        // A server may repeat the credentials without the scheme before them.
        secrets.extend(bare(secret.expose()).map(Secret::new));
        if secret.may_change() {
            renewed.push(RenewedHeader { name: name.clone(), word, secret: secret.clone() });
        }
        secrets.push(secret);
    }
    Ok((name, value))
}

/// Credentials without the scheme before them.
fn bare(secret: &str) -> Option<&str> {
    secret.split_once(' ').map(|(_, bare)| bare.trim()).filter(|bare| !bare.is_empty())
}

/// Long enough to be a key, and longer than ordinary words in messages.
fn is_long(text: &str) -> bool {
    text.len() >= 8
}

fn parse_form(section: &mut ConfigTable<'_>) -> Option<Form> {
    let format = section.or("format", |section, key| section.choice(key, &Format::NAMES), "json");
    let compression = section.or("compression", |section, key| section.choice(key, &["none", "gzip", "zstd"]), "none");
    let has_slots = section.has("slots");
    let slots = section.or("slots", |section, key| section.integer_within(key, 1, 1_000_000), 1);
    let format = Format::of(format?)?;
    let compression = match compression? {
        "gzip" => Compression::Gzip,
        "zstd" => Compression::Zstd,
        _ => Compression::None,
    };
    if format == Format::Prometheus && compression != Compression::None {
        section.problem("compression", "leave it out: remote write is always in snappy");
        return None;
    }
    if format == Format::Datadog && !has_slots {
        section.problem(
            "slots",
            "is missing; Datadog keeps whole seconds and the last of the points at one: give how many values the tag \
             `tallybus_slot` may have to keep batches apart (each costs series), or 1 where the server keeps milliseconds",
        );
        return None;
    }
    Some(Form { format, compression, slots: slots? })
}

fn parse_signing(section: &mut ConfigTable<'_>, key: &str) -> Option<Signing> {
    let mut table = section.table(key)?;
    let header = table.required_string("header");
    let header = header.and_then(|text| read_header_name(&mut table, "header", &text));
    let secret = table.required_secret("secret");
    let algorithm = table.or("algorithm", |table, key| table.choice(key, &["sha256", "sha512"]), "sha256");
    let signs = table.or("signs", |table, key| table.choice(key, &["body", "key.body"]), "body");
    let prefix = table.or("prefix", ConfigTable::string, String::new());
    if prefix.as_ref().is_some_and(|prefix| HeaderValue::from_str(prefix).is_err()) {
        table.problem("prefix", "holds characters that no HTTP header can carry");
    }
    let is_sound = !table.has_problems();
    table.finish();
    if !is_sound {
        return None;
    }
    Some(Signing {
        header: header?,
        secret: secret?,
        algorithm: if algorithm? == "sha512" { Algorithm::Sha512 } else { Algorithm::Sha256 },
        signs: if signs? == "key.body" { Signs::KeyAndBody } else { Signs::Body },
        prefix: prefix?,
    })
}

fn parse_reading(section: &mut ConfigTable<'_>) -> Option<Option<Reading>> {
    let has_read = section.has("read");
    let read = section.or("read", |section, key| section.choice(key, &["rows", "victoriametrics"]), "rows");
    let url = section.or("read_url", |section, key| section.url(key).map(Some), None);
    match (read?, url?) {
        (_, None) if has_read => {
            section.problem("read_url", "is missing; `read` says how it is read");
            None
        }
        (_, None) => Some(None),
        ("victoriametrics", Some(url)) => Some(Some(Reading::VictoriaMetrics(url))),
        (_, Some(url)) => Some(Some(Reading::Rows(url))),
    }
}

fn read_method(section: &mut ConfigTable<'_>, key: &str) -> Option<Method> {
    let text = section.string(key)?;
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if method != Method::CONNECT => Some(method),
        _ => {
            section.problem(key, "is not a method with a request body, such as \"POST\" or \"PUT\"");
            None
        }
    }
}

fn read_key_header(section: &mut ConfigTable<'_>, key: &str) -> Option<Option<HeaderName>> {
    let text = section.string(key)?;
    if text.is_empty() {
        return Some(None);
    }
    read_header_name(section, key, &text).map(Some)
}

fn read_header_name(section: &mut ConfigTable<'_>, key: &str, text: &str) -> Option<HeaderName> {
    let name = HeaderName::from_bytes(text.as_bytes());
    if name.is_err() {
        section.problem(key, "is not a valid HTTP header name");
    }
    name.ok()
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
