//! The HTTP requests.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{RequestBuilder, Url};
use tallybus_sdk::SinkError;

use super::answer::WHO;
use super::config::{Config, shown};
use super::encode::{content_encoding, plain_len};
use super::format::Format;
use super::sign::signature;
use crate::shared::http as shared_http;
use crate::shared::http::{Reply, describe_failure};

/// Talks to one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    config: Config,
    /// The headers of every request.
    headers: HeaderMap,
    /// The additional headers of every write.
    write_headers: HeaderMap,
    requests: AtomicU64,
    sent: AtomicU64,
    plain: AtomicU64,
}

impl Client {
    pub(super) fn new(config: Config) -> Result<Self, SinkError> {
        let http = shared_http::build(config.tls.apply(shared_http::client(config.timeout)))?;
        let mut write_headers = HeaderMap::new();
        write_headers.insert(CONTENT_TYPE, HeaderValue::from_static(config.form.format.content_type()));
        if config.form.format == Format::Prometheus {
            write_headers.insert("x-prometheus-remote-write-version", HeaderValue::from_static("0.1.0"));
        }
        // The operator's headers come last and take precedence.
        write_headers.extend(config.headers.clone());
        let headers = config.headers.clone();
        let (requests, sent, plain) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { http, config, headers, write_headers, requests, sent, plain })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Sends a body under its key; returns the server's reply, and the beginning of its body.
    ///
    /// # Errors
    /// The server was not reached, or did not answer in time; the text gives the reason.
    pub(super) async fn write(&self, key: &str, body: Bytes) -> Result<(Reply, Vec<u8>), String> {
        let format = self.config.form.format;
        let mut request = self.http.request(self.config.method.clone(), self.config.url.clone());
        request = request.headers(self.current(&self.write_headers)?);
        if let Some(encoding) = content_encoding(format, &body) {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        if let Some(header) = &self.config.key_header {
            request = request.header(header, key);
        }
        if let Some(signing) = &self.config.signing {
            request = request.header(&signing.header, signature(signing, key, &body));
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.sent.fetch_add(u64::try_from(body.len()).unwrap_or_default(), Ordering::Relaxed);
        self.plain.fetch_add(plain_len(format, &body), Ordering::Relaxed);
        self.send(&self.config.url, request.body(body)).await
    }

    /// Checks that the server is reachable and accepts the credentials, with a request that changes nothing.
    ///
    /// # Errors
    /// As [`Client::write`].
    pub(super) async fn look(&self) -> Result<Reply, String> {
        let (url, request) = match &self.config.check_url {
            Some(url) => (url, self.http.get(url.clone())),
            None => (&self.config.url, self.http.head(self.config.url.clone())),
        };
        let (reply, _body) = self.send(url, request.headers(self.current(&self.headers)?)).await?;
        Ok(reply)
    }

    /// Gets the whole body of a 2xx; with `form`, by a POST of it.
    pub(super) async fn read(&self, url: Url, form: Option<String>) -> Result<Vec<u8>, SinkError> {
        let headers = self.current(&self.headers).map_err(SinkError::Unavailable)?;
        let request = match form {
            None => self.http.get(url.clone()).headers(headers),
            Some(form) => self
                .http
                .post(url.clone())
                .headers(headers)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form),
        };
        let unavailable = |error| SinkError::Unavailable(self.describe(&url, error));
        let response = request.send().await.map_err(unavailable)?;
        if response.status().is_success() {
            return Ok(response.bytes().await.map_err(unavailable)?.to_vec());
        }
        let (reply, _body) = Reply::read(response, &self.config.secrets()).await.map_err(unavailable)?;
        Err(reply.refusal(WHO))
    }

    /// The number of write requests, the bytes they sent, and their size before compression.
    pub(super) fn used(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.requests), read(&self.sent), read(&self.plain))
    }

    /// The headers, with the values that files hold now.
    fn current(&self, headers: &HeaderMap) -> Result<HeaderMap, String> {
        let mut headers = headers.clone();
        self.config.renew(&mut headers)?;
        Ok(headers)
    }

    async fn send(&self, url: &Url, request: RequestBuilder) -> Result<(Reply, Vec<u8>), String> {
        let response = request.send().await.map_err(|error| self.describe(url, error))?;
        Reply::read(response, &self.config.secrets()).await.map_err(|error| self.describe(url, error))
    }

    fn describe(&self, url: &Url, error: reqwest::Error) -> String {
        describe_failure(&shown(url), error, &self.config.secrets())
    }
}
