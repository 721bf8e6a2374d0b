//! Shared by the sinks on AWS: settings, credentials, an HTTP client, and the classification of errors.
//!
//! Retries of the SDK are off: the runtime retries, and a sink must know of every request that it makes.

mod connector;
mod dump;
mod failure;
mod store;
mod store_connector;
mod store_failure;

use std::time::{Duration, SystemTime};

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, future};
use reqwest::Url;
use tallybus_sdk::config::{ConfigTable, Secret};
use tallybus_sdk::{Setting, SinkError};
use tokio::sync::OnceCell;

pub(crate) use self::failure::{Failure, cause};
pub(crate) use self::store::{StoreUrl, open_store};
pub(crate) use self::store_failure::judge_store;

/// How often a secret key from a file is read again.
const SECRET_READ_AGAIN: Duration = Duration::from_secs(60);

/// The settings shared by all sinks on AWS; each kind includes them in its own list.
pub(crate) const REGION: Setting = Setting {
    key: "region",
    default: None,
    help: "the AWS region; from the environment, the profile or the instance when left out",
};
pub(crate) const ENDPOINT: Setting =
    Setting { key: "endpoint", default: None, help: "another endpoint than AWS's own, such as a VPC endpoint" };
pub(crate) const PROFILE: Setting =
    Setting { key: "profile", default: None, help: "the profile of the shared AWS configuration files" };
pub(crate) const ACCESS_KEY_ID: Setting = Setting {
    key: "access_key_id",
    default: None,
    help: "a fixed access key, for hosts without a role; otherwise the usual chain: environment, profile, web \
        identity, container, \
           instance",
};
pub(crate) const SECRET_ACCESS_KEY: Setting =
    Setting { key: "secret_access_key", default: None, help: "the secret of the fixed key" };

/// Region, endpoint and credentials for AWS.
#[derive(Debug, Clone)]
pub(crate) struct AwsSettings {
    region: Option<String>,
    endpoint: Option<Url>,
    profile: Option<String>,
    key: Option<(String, Secret)>,
}

impl AwsSettings {
    /// Host and port of the endpoint, where the settings name one.
    pub(crate) fn endpoint_host(&self) -> Option<String> {
        let url = self.endpoint.as_ref()?;
        Some(format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default()))
    }

    /// The region, where the settings name one.
    pub(crate) fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Reads the shared settings; `None` when a problem was recorded.
    pub(crate) fn parse(section: &mut ConfigTable<'_>) -> Option<Self> {
        let region = section.string("region");
        let has_endpoint = section.has("endpoint");
        let endpoint = section.url("endpoint");
        let profile = section.string("profile");
        let (has_id, has_secret) = (section.has("access_key_id"), section.has("secret_access_key"));
        let (id, secret) = (section.string("access_key_id"), section.secret("secret_access_key"));
        let key = match (id, secret) {
            (Some(id), Some(secret)) => Some((id, secret)),
            (Some(_), None) if !has_secret => {
                section.problem("secret_access_key", "is missing; give env:NAME, file:PATH or the secret itself");
                return None;
            }
            (None, Some(_)) if !has_id => {
                section.problem("access_key_id", "is missing; a secret alone opens nothing");
                return None;
            }
            (None, None) if !has_id && !has_secret => None,
            _ => return None,
        };
        (endpoint.is_some() == has_endpoint).then_some(Self { region, endpoint, profile, key })
    }

    /// The same settings for another AWS service, which has an endpoint of its own.
    pub(crate) fn with_endpoint(self, endpoint: Option<Url>) -> Self {
        Self { endpoint, ..self }
    }

    /// The secrets that must never appear in a message.
    pub(crate) fn secrets(&self) -> Vec<&str> {
        self.key.iter().map(|(_, secret)| secret.expose()).collect()
    }
}

/// Configuration and credentials, resolved at the first use, because resolving them may take a request.
#[derive(Debug)]
pub(crate) struct Aws {
    settings: AwsSettings,
    timeout: Duration,
    loaded: OnceCell<SdkConfig>,
}

impl Aws {
    /// `timeout` bounds each request.
    pub(crate) fn new(settings: AwsSettings, timeout: Duration) -> Self {
        Self { settings, timeout, loaded: OnceCell::new() }
    }

    pub(crate) fn settings(&self) -> &AwsSettings {
        &self.settings
    }

    /// The configuration from which every SDK client is created.
    ///
    /// # Errors
    /// No region is configured, or the HTTP client cannot be created.
    pub(crate) async fn config(&self) -> Result<&SdkConfig, SinkError> {
        self.loaded.get_or_try_init(|| self.load()).await
    }

    async fn load(&self) -> Result<SdkConfig, SinkError> {
        let client = connector::client(self.timeout)?;
        let timeouts = TimeoutConfig::builder().operation_timeout(self.timeout).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(client)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(region) = &self.settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = &self.settings.endpoint {
            loader = loader.endpoint_url(endpoint.as_str());
        }
        if let Some(profile) = &self.settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some((id, secret)) = &self.settings.key {
            loader = loader.credentials_provider(SettingsKey { id: id.clone(), secret: secret.clone() });
        }
        let config = loader.load().await;
        if config.region().is_none() {
            return Err(SinkError::Halt("no AWS region is configured: set `region` or AWS_REGION".to_owned()));
        }
        Ok(config)
    }
}

/// A key from the settings.
#[derive(Debug)]
struct SettingsKey {
    id: String,
    secret: Secret,
}

impl ProvideCredentials for SettingsKey {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        // The SDK asks again for credentials that expire: a secret from a file may change.
        let expires = self.secret.may_change().then(|| SystemTime::now() + SECRET_READ_AGAIN);
        let credentials = Credentials::new(&self.id, self.secret.expose(), None, expires, "settings");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_secret_key_from_a_file_expires_and_is_read_again_and_another_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "first").unwrap();
        let secret = Secret::resolve(&format!("file:{}", path.display())).unwrap();
        let key = SettingsKey { id: "id".to_owned(), secret };
        let first = key.provide_credentials().await.unwrap();
        assert_eq!(first.secret_access_key(), "first");
        assert!(first.expiry().is_some_and(|expiry| expiry <= SystemTime::now() + SECRET_READ_AGAIN));
        std::fs::write(&path, "second one").unwrap();
        assert_eq!(key.provide_credentials().await.unwrap().secret_access_key(), "second one");
        let fixed = SettingsKey { id: "id".to_owned(), secret: Secret::new("value") };
        assert_eq!(fixed.provide_credentials().await.unwrap().expiry(), None);
    }
}
