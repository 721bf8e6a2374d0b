//! The HTTP requests: writes for both interfaces, and InfluxQL for version 1.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Response, Url};
use serde_json::Value;
use tallybus_sdk::SinkError;

use super::answer::WHO;
use super::config::{Api, Config};
use crate::shared::http as shared_http;
use crate::shared::http::{Reply, describe_failure, message_of, not_as};
use crate::shared::lines::Lines;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Talks to one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    config: Config,
    write_url: Url,
    writes: AtomicU64,
    bytes: AtomicU64,
}

impl Client {
    pub(super) fn new(config: Config) -> Result<Self, SinkError> {
        let http = shared_http::build(shared_http::client(config.timeout))?;
        let write_url = write_url(&config);
        Ok(Self { http, config, write_url, writes: AtomicU64::new(0), bytes: AtomicU64::new(0) })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The number of writes sent, and the bytes of their bodies.
    pub(super) fn sent(&self) -> (u64, u64) {
        (self.writes.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Sends line protocol, gzipped or not.
    ///
    /// # Errors
    /// The server was not reached, or did not answer in time; the text gives the reason.
    pub(super) async fn write(&self, body: Bytes) -> Result<Reply, String> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        let mut request = self.http.post(self.write_url.clone()).header(CONTENT_TYPE, "text/plain; charset=utf-8");
        if body.starts_with(&GZIP_MAGIC) {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let response = self.authorized(request).body(body).send().await;
        self.reply(response.map_err(|error| self.describe(error))?).await
    }

    /// Checks that the server is reachable; returns its version if it reports one.
    pub(super) async fn ping(&self) -> Result<Option<String>, String> {
        let url = self.url("/ping");
        let response = self.http.get(url).send().await.map_err(|error| self.describe(error))?;
        let version = response.headers().get("x-influxdb-version");
        Ok(version.and_then(|version| version.to_str().ok()).map(str::to_owned))
    }

    /// Runs an InfluxQL statement and hands over the parts of the answer as they arrive; times are nanoseconds.
    pub(super) async fn influxql(
        &self,
        statement: &str,
        each: &mut (dyn FnMut(&Value) -> Result<(), SinkError> + Send),
    ) -> Result<(), SinkError> {
        let mut url = self.url("/query");
        if let Api::V1 { database, retention_policy, .. } = &self.config.api {
            url.query_pairs_mut()
                .append_pair("db", database)
                .append_pair("epoch", "ns")
                .append_pair("chunked", "true")
                .append_pair("chunk_size", "10000");
            if let Some(policy) = retention_policy {
                url.query_pairs_mut().append_pair("rp", policy);
            }
        }
        // The statement travels in the body: a series with long tags does not fit into every server's longest URL.
        let mut form = Url::parse("form:?").map_err(|error| SinkError::Halt(error.to_string()))?;
        form.query_pairs_mut().append_pair("q", statement);
        let body = form.query().unwrap_or_default().to_owned();
        let request = self.http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        let unavailable = |error| SinkError::Unavailable(self.describe(error));
        let mut response = self.authorized(request).send().await.map_err(unavailable)?;
        if response.status().is_success() {
            let mut has_answered = false;
            let mut part = |line: &[u8]| {
                let part: Value = match serde_json::from_slice(line) {
                    Ok(part) => part,
                    Err(_) if !has_answered => return Err(self.other_server(line)),
                    Err(error) => {
                        return Err(SinkError::Unavailable(format!("InfluxDB's answer is not JSON: {error}")));
                    }
                };
                if !part["results"].is_array() && !part["error"].is_string() {
                    return Err(self.other_server(line));
                }
                has_answered = true;
                each(&part)
            };
            let mut lines = Lines::default();
            while let Some(bytes) = response.chunk().await.map_err(unavailable)? {
                lines.push(&bytes, &mut part)?;
            }
            lines.finish(&mut part)?;
            return if has_answered { Ok(()) } else { Err(self.other_server(b"")) };
        }
        Err(self.reply(response).await.map_err(SinkError::Unavailable)?.refusal(WHO))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.config.url.clone();
        url.set_path(path);
        url
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.config.api {
            Api::V1 { login: None, .. } => request,
            Api::V1 { login: Some((username, password)), .. } => request.basic_auth(username, Some(password.expose())),
            Api::V2 { token, .. } => match HeaderValue::from_str(&format!("Token {}", token.expose())) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    request.header(AUTHORIZATION, value)
                }
                // The settings refuse such a token; without it the server answers 401.
                Err(_) => request,
            },
        }
    }

    async fn reply(&self, response: Response) -> Result<Reply, String> {
        let secrets = self.config.secrets();
        let (reply, body) = Reply::read(response, &secrets).await.map_err(|error| self.describe(error))?;
        Ok(reply.with_body(&body, &secrets))
    }

    /// What answered is not InfluxDB.
    fn other_server(&self, answered: &[u8]) -> SinkError {
        not_as(WHO, self.config.url.as_str(), &message_of(answered, &self.config.secrets()))
    }

    fn describe(&self, error: reqwest::Error) -> String {
        describe_failure(self.config.url.as_str(), error, &self.config.secrets())
    }
}

fn write_url(config: &Config) -> Url {
    let mut url = config.url.clone();
    match &config.api {
        Api::V1 { database, retention_policy, .. } => {
            url.set_path("/write");
            url.query_pairs_mut().append_pair("db", database).append_pair("precision", "ns");
            if let Some(policy) = retention_policy {
                url.query_pairs_mut().append_pair("rp", policy);
            }
        }
        Api::V2 { org, bucket, .. } => {
            url.set_path("/api/v2/write");
            url.query_pairs_mut().append_pair("org", org).append_pair("bucket", bucket).append_pair("precision", "ns");
        }
    }
    url
}
