//! Objects in S3 or in a directory, for the sinks that write files.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use hmac::{Hmac, KeyInit, Mac};
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::client::{CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{CredentialProvider, ObjectStore, RetryConfig};
use sha2::{Digest, Sha256};
use tallybus_sdk::SinkError;

use super::Aws;
use super::store_connector::StoreConnector;

/// The place of the objects: `s3://bucket/prefix`, or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    /// Below a prefix of a bucket; the prefix may be empty.
    S3 {
        /// The bucket.
        bucket: String,
        /// Without slashes at its ends.
        prefix: String,
    },
    /// Below a directory of this machine.
    Folder(PathBuf),
}

impl StoreUrl {
    /// Reads a setting.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("s3://") else {
            return match text.contains("://") {
                true => Err("expected a directory, or s3://bucket/prefix".to_owned()),
                false => Ok(Self::Folder(PathBuf::from(text))),
            };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err("expected s3://bucket/prefix, found no bucket".to_owned());
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Folder(path) => path.display().fmt(f),
        }
    }
}

/// Opens it, without a request to it. A directory must exist.
pub(crate) async fn open_store(url: &StoreUrl, aws: &Aws) -> Result<Arc<dyn ObjectStore>, SinkError> {
    let failed = |error: object_store::Error| SinkError::Halt(format!("cannot open {url}: {error}"));
    match url {
        StoreUrl::Folder(path) => {
            Ok(Arc::new(LocalFileSystem::new_with_prefix(path).map_err(failed)?.with_fsync(true)))
        }
        StoreUrl::S3 { bucket, prefix } => {
            let config = aws.config().await?;
            let region = config.region().map(ToString::to_string).unwrap_or_default();
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(bucket)
                .with_region(region)
                .with_crypto_provider(Arc::new(Crypto))
                .with_http_connector(StoreConnector)
                .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
            if let Some(provider) = config.credentials_provider() {
                builder = builder.with_credentials(Arc::new(Provider(provider)));
            }
            if let Some(endpoint) = config.endpoint_url() {
                builder = builder
                    .with_endpoint(endpoint.trim_end_matches('/'))
                    .with_allow_http(endpoint.starts_with("http://"));
            }
            let store = builder.build().map_err(failed)?;
            Ok(match prefix.is_empty() {
                true => Arc::new(store),
                false => Arc::new(PrefixStore::new(store, prefix.as_str())),
            })
        }
    }
}

/// The SDK's credentials, for requests that go around the SDK.
#[derive(Debug)]
struct Provider(SharedCredentialsProvider);

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let found = self.0.provide_credentials().await;
        let found = found.map_err(|error| object_store::Error::Unauthenticated {
            path: "AWS credentials".to_owned(),
            source: Box::new(error),
        })?;
        Ok(Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        }))
    }
}

/// SHA-256 and HMAC-SHA-256, the only cryptography that requests to S3 need.
#[derive(Debug)]
struct Crypto;

impl CryptoProvider for Crypto {
    fn digest(&self, algorithm: DigestAlgorithm) -> object_store::Result<Box<dyn DigestContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => Ok(Box::new(Sum { hash: Sha256::new(), sum: Vec::new() })),
            _ => Err(unsupported()),
        }
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> object_store::Result<Box<dyn HmacContext>> {
        match algorithm {
            DigestAlgorithm::Sha256 => {
                let mac = Hmac::<Sha256>::new_from_slice(secret).map_err(|_| unsupported())?;
                Ok(Box::new(Code { mac, code: Vec::new() }))
            }
            _ => Err(unsupported()),
        }
    }

    fn sign(&self, _algorithm: SigningAlgorithm, _pem: &[u8]) -> object_store::Result<Box<dyn Signer>> {
        Err(unsupported())
    }
}

fn unsupported() -> object_store::Error {
    object_store::Error::NotSupported { source: "only SHA-256 and its HMAC".into() }
}

struct Sum {
    hash: Sha256,
    sum: Vec<u8>,
}

impl DigestContext for Sum {
    fn update(&mut self, data: &[u8]) {
        self.hash.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.sum = self.hash.finalize_reset().to_vec();
        Ok(&self.sum)
    }
}

struct Code {
    mac: Hmac<Sha256>,
    code: Vec<u8>,
}

impl HmacContext for Code {
    fn update(&mut self, data: &[u8]) {
        self.mac.update(data);
    }

    fn finish(&mut self) -> object_store::Result<&[u8]> {
        self.code = self.mac.clone().finalize().into_bytes().to_vec();
        Ok(&self.code)
    }
}
