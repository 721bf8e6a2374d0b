//! Calls through the `influxdb2` crate: health, buckets, and Flux queries.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fallible_iterator::FallibleIterator as _;
use influxdb2::api::buckets::ListBucketsRequest;
use influxdb2::api::organization::ListOrganizationRequest;
use influxdb2::api::query::FluxRecord;
use influxdb2::models::health::Status;
use influxdb2::models::{Bucket, PostBucketRequest, Query};
use influxdb2::{ClientBuilder, RequestError};
use reqwest::Url;
use tallybus_sdk::SinkError;
use tallybus_sdk::text::redact;

use super::answer::WHO;
use super::config::{Api, Config};
use crate::shared::http::{CONNECT_TIMEOUT, Reply, message_of, not_as};

/// InfluxDB 2, except for the write path.
#[derive(Debug)]
pub(super) struct V2 {
    /// The client, and the token that it was created with: one from a file may change.
    client: Mutex<(influxdb2::Client, String)>,
    url: Url,
    query_timeout: Duration,
    org: String,
    bucket: String,
    token: tallybus_sdk::config::Secret,
}

impl V2 {
    /// `None` for InfluxDB 1.
    pub(super) fn new(config: &Config) -> Result<Option<Self>, SinkError> {
        let Api::V2 { org, bucket, token } = &config.api else { return Ok(None) };
        let (url, query_timeout) = (config.url.clone(), config.timeout.saturating_mul(4).max(Duration::from_secs(60)));
        let value = token.expose().to_owned();
        let client = Mutex::new((client(&url, query_timeout, org, &value)?, value));
        Ok(Some(Self { client, url, query_timeout, org: org.clone(), bucket: bucket.clone(), token: token.clone() }))
    }

    /// A client with the present token.
    fn client(&self) -> Result<influxdb2::Client, SinkError> {
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let token = self.token.expose();
        if known.1 != token {
            *known = (client(&self.url, self.query_timeout, &self.org, token)?, token.to_owned());
        }
        Ok(known.0.clone())
    }

    /// Checks the server's health; returns its version.
    pub(super) async fn health(&self) -> Result<Option<String>, SinkError> {
        match self.client()?.health().await {
            Ok(health) if health.status == Status::Pass => Ok(health.version),
            Ok(health) => {
                let message = health.message.unwrap_or_default();
                Err(SinkError::Unavailable(format!("InfluxDB reports that it is unhealthy: {message}")))
            }
            // InfluxDB Cloud has no health endpoint; the check of a write decides.
            Err(RequestError::Http { status, .. }) if status.as_u16() == 404 => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    async fn find_bucket(&self) -> Result<Option<Bucket>, SinkError> {
        let wanted =
            ListBucketsRequest { org: Some(self.org.clone()), name: Some(self.bucket.clone()), ..Default::default() };
        match self.client()?.list_buckets(Some(wanted)).await {
            Ok(found) => Ok(found.buckets.into_iter().find(|bucket| bucket.name == self.bucket)),
            Err(RequestError::Http { status, .. }) if status.as_u16() == 404 => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Removes the bucket, if it exists.
    pub(super) async fn remove_bucket(&self) -> Result<(), SinkError> {
        let Some(id) = self.find_bucket().await?.and_then(|bucket| bucket.id) else { return Ok(()) };
        self.client()?.delete_bucket(&id).await.map_err(|error| self.failure(error))
    }

    /// Creates the bucket unless it exists; it keeps points forever.
    pub(super) async fn create_bucket(&self) -> Result<(), SinkError> {
        if self.find_bucket().await?.is_some() {
            return Ok(());
        }
        let wanted = ListOrganizationRequest { org: Some(self.org.clone()), ..ListOrganizationRequest::new() };
        let found = self.client()?.list_organizations(wanted).await.map_err(|error| self.failure(error))?;
        let id = found.orgs.into_iter().find(|org| org.name == self.org).and_then(|org| org.id);
        let Some(id) = id else {
            let org = &self.org;
            return Err(SinkError::Halt(format!(
                "the organisation {org:?} does not exist, or the token may not see it"
            )));
        };
        let request = PostBucketRequest::new(id, self.bucket.clone());
        self.client()?.create_bucket(Some(request)).await.map_err(|error| self.failure(error))
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Runs a Flux query and hands every record to `each`.
    pub(super) async fn query(
        &self,
        flux: String,
        mut each: impl FnMut(&FluxRecord) -> Result<(), SinkError> + Send,
    ) -> Result<(), SinkError> {
        let tables =
            self.client()?.query_raw_iter(Some(Query::new(flux))).await.map_err(|error| self.failure(error))?;
        if tables.is_empty() {
            // The crate skips lines that are no CSV, so a page of another server has no records either: only InfluxDB's own
            // answer about its health tells the two apart.
            return self.health().await.map(|_version| ());
        }
        let mut records = tables.result();
        while let Some(record) = records.next().map_err(|error| self.failure(error))? {
            each(&record)?;
        }
        Ok(())
    }

    fn failure(&self, error: RequestError) -> SinkError {
        let secrets = [self.token.expose()];
        match error {
            RequestError::Http { status, text } => {
                let message = message_of(text.as_bytes(), &secrets);
                Reply { status: status.as_u16(), retry_after: None, message }.refusal(WHO)
            }
            RequestError::ReqwestProcessing { source } if source.is_decode() && is_of_json(&source) => {
                let text = source.without_url().to_string();
                not_as(
                    WHO,
                    self.url.as_str(),
                    &redact(&format!("a body that is not the expected JSON ({text})"), &secrets),
                )
            }
            RequestError::Deserializing { text } if is_no_csv(&text) => {
                let text = format!("a body that is not the expected CSV ({text})");
                not_as(WHO, self.url.as_str(), &redact(&text, &secrets))
            }
            RequestError::ReqwestProcessing { source } => {
                let text = format!("InfluxDB cannot be reached: {}", source.without_url());
                SinkError::Unavailable(redact(&text, &secrets))
            }
            other => SinkError::Unavailable(redact(&other.to_string(), &secrets)),
        }
    }
}

/// Whether a body arrived whole and is not the JSON that it has to be; a connection that ended early is another error.
fn is_of_json(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<serde_json::Error>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether the crate says that a body has not the form of an answer; its other texts are the server's own.
fn is_no_csv(text: &str) -> bool {
    [
        "annotations not found",
        "datatype annotation not found",
        "invalid first cell",
        "row has different number of columns",
    ]
    .iter()
    .any(|begin| text.starts_with(begin))
}

fn client(url: &Url, query_timeout: Duration, org: &str, token: &str) -> Result<influxdb2::Client, SinkError> {
    let builder = reqwest_of_influxdb2::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        // A query of everything takes longer than a write.
        .timeout(query_timeout)
        .redirect(reqwest_of_influxdb2::redirect::Policy::none())
        .no_proxy();
    ClientBuilder::with_builder(builder, url.as_str(), org, token)
        .build()
        .map_err(|error| SinkError::Halt(format!("cannot create a client for InfluxDB 2: {error}")))
}
