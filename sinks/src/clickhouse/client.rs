//! The HTTP requests.

use bytes::Bytes;
use reqwest::header::{CONTENT_ENCODING, HeaderValue};
use reqwest::{RequestBuilder, Response, Url};
use tallybus_sdk::SinkError;
use tallybus_sdk::config::Secret;

use super::answer::{Reply, judge_query};
use super::config::Config;
use crate::shared::http as shared_http;
use crate::shared::http::{describe_failure, message_of, not_as};
use crate::shared::lines::Lines;

/// These settings make an insert one block, which is inserted whole or not at all and deduplicated by its token, and
/// make a success mean that every row was inserted completely. Materialized views deduplicate by the same token.
const INSERT_SETTINGS: [(&str, &str); 12] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("input_format_parallel_parsing", "0"),
    ("input_format_skip_unknown_fields", "0"),
    ("input_format_allow_errors_num", "0"),
    ("input_format_allow_errors_ratio", "0"),
    ("max_insert_block_size", "1000000000"),
    ("min_insert_block_size_rows", "0"),
    ("min_insert_block_size_bytes", "0"),
    ("max_partitions_per_insert_block", "0"),
    ("wait_end_of_query", "1"),
];

/// Talks to one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    config: Config,
}

impl Client {
    pub(super) fn new(config: Config) -> Result<Self, SinkError> {
        let http = shared_http::build(shared_http::client(config.timeout))?;
        Ok(Self { http, config })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Inserts rows under a deduplication token.
    ///
    /// # Errors
    /// The server was not reached, or did not answer in time; the text gives the reason.
    pub(super) async fn insert(&self, rows: Bytes, token: &str) -> Result<Reply, String> {
        let mut url = self.config.url.clone();
        let insert = format!("INSERT INTO {} FORMAT JSONEachRow", self.config.table.quoted());
        url.query_pairs_mut()
            .append_pair("query", &insert)
            .append_pair("insert_deduplication_token", token)
            .extend_pairs(INSERT_SETTINGS);
        let mut request = self.http.post(url).body(rows);
        if self.config.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        let response = self.authorized(request).send().await.map_err(|error| self.describe(error))?;
        self.reply(response).await
    }

    /// Runs a query and returns its output; on an error, the server's message.
    pub(super) async fn query(&self, query: &str) -> Result<Result<Vec<u8>, Reply>, SinkError> {
        match self.ask(query).await? {
            Ok(response) => {
                let body = response.bytes().await.map_err(|error| SinkError::Unavailable(self.describe(error)))?;
                Ok(Ok(body.to_vec()))
            }
            Err(reply) => Ok(Err(reply)),
        }
    }

    /// Runs a query; on an error, the server's message.
    async fn ask(&self, query: &str) -> Result<Result<Response, Reply>, SinkError> {
        let mut url: Url = self.config.url.clone();
        // Wait for the complete answer: an error in the middle of a streamed one would have status 200.
        url.query_pairs_mut()
            .append_pair("wait_end_of_query", "1")
            .append_pair("output_format_json_quote_64bit_integers", "1");
        let unavailable = |error| SinkError::Unavailable(self.describe(error));
        let response = self.authorized(self.http.post(url).body(query.to_owned())).send().await.map_err(unavailable)?;
        if response.status().is_success() {
            return Ok(Ok(response));
        }
        Ok(Err(self.reply(response).await.map_err(SinkError::Unavailable)?))
    }

    /// The same, for a query that returns rows.
    pub(super) async fn rows(&self, query: &str) -> Result<Vec<Vec<serde_json::Value>>, SinkError> {
        let mut rows = Vec::new();
        self.each_line(query, &mut |line| {
            rows.push(self.row(line)?);
            Ok(())
        })
        .await?;
        Ok(rows)
    }

    /// Hands over each row of a query as a line of JSON, as it arrives.
    pub(super) async fn each_line(
        &self,
        query: &str,
        each: &mut (dyn FnMut(&[u8]) -> Result<(), SinkError> + Send),
    ) -> Result<(), SinkError> {
        let mut response = match self.ask(&format!("{query} FORMAT JSONCompactEachRow")).await? {
            Ok(response) => response,
            Err(reply) => return Err(judge_query(&reply)),
        };
        let mut lines = Lines::default();
        while let Some(bytes) = response.chunk().await.map_err(|error| SinkError::Unavailable(self.describe(error)))? {
            lines.push(&bytes, each)?;
        }
        lines.finish(each)
    }

    /// Parses one row. The server has sent its whole answer before the first of them arrives, so what is no row comes from
    /// another server.
    pub(super) fn row(&self, line: &[u8]) -> Result<Vec<serde_json::Value>, SinkError> {
        serde_json::from_slice(line)
            .map_err(|_| not_as("ClickHouse", self.config.url.as_str(), &message_of(line, &self.secrets())))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let Some(user) = &self.config.user else { return request };
        let request = request.header("X-ClickHouse-User", user);
        let password = self.config.password.as_ref().map_or("", Secret::expose);
        match HeaderValue::from_str(password) {
            Ok(mut value) => {
                value.set_sensitive(true);
                request.header("X-ClickHouse-Key", value)
            }
            // The settings refuse such a password; without it the server refuses the login.
            Err(_) => request,
        }
    }

    async fn reply(&self, response: Response) -> Result<Reply, String> {
        let code = response.headers().get("x-clickhouse-exception-code");
        let code = code.and_then(|code| code.to_str().ok()?.parse().ok());
        let (answer, body) =
            shared_http::Reply::read(response, &self.secrets()).await.map_err(|error| self.describe(error))?;
        Ok(Reply { code, answer: answer.with_body(&body, &self.secrets()) })
    }

    fn describe(&self, error: reqwest::Error) -> String {
        describe_failure(self.config.url.as_str(), error, &self.secrets())
    }

    fn secrets(&self) -> Vec<&str> {
        self.config.password.iter().map(Secret::expose).collect()
    }
}
