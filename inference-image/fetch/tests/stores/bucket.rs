//! The sources of a bucket, and how they are reached.

use modelservice_contract::FetchConfig;
use modelservice_fetch::{
    credentials::Credentials,
    error::FetchError,
    http::{Policy, Timeouts},
    source::{Source, access::Access, objects},
};
use modelservice_test_stores::{
    bucket::{Bucket, Kind},
    processes::{AZURE_ACCOUNT, AZURE_KEY, S3_KEY_ID, S3_SECRET},
};
use std::{fs, ops::Deref, time::Duration};
use tempfile::TempDir;
use url::Url;

/// What the fetcher reads from a bucket.
pub(crate) trait Sources {
    /// A Secret that is right, for requests to an endpoint.
    fn secret(&self, endpoint: &Url) -> Secret;

    /// The source of a key, reached at an endpoint.
    fn source(
        &self,
        key: &str,
        endpoint: &Url,
        secret: Option<&Secret>,
    ) -> Result<Box<dyn Source>, FetchError>;

    /// The source of a key, reached directly and with the right Secret.
    fn open(&self, key: &str) -> Opened;
}

impl Sources for Bucket {
    fn secret(&self, endpoint: &Url) -> Secret {
        let secret = Secret::new(endpoint);
        match self.kind {
            Kind::S3 => {
                secret.set("AWS_ACCESS_KEY_ID", S3_KEY_ID);
                secret.set("AWS_SECRET_ACCESS_KEY", S3_SECRET);
            }
            // The server checks none, so it gets none: a key would be exchanged for a token at Google.
            Kind::Gcs => {}
            Kind::Azure => {
                secret.set("AZURE_STORAGE_ACCOUNT", AZURE_ACCOUNT);
                secret.set("AZURE_STORAGE_KEY", AZURE_KEY);
            }
        }
        secret
    }

    fn source(
        &self,
        key: &str,
        endpoint: &Url,
        secret: Option<&Secret>,
    ) -> Result<Box<dyn Source>, FetchError> {
        let uri = format!("{}://{}/{key}", self.kind.scheme(), self.name);
        objects::open(&uri, access(Some(endpoint), secret)?)
    }

    fn open(&self, key: &str) -> Opened {
        let secret = self.secret(&self.server());
        let source = self.source(key, &self.server(), Some(&secret)).unwrap();
        Opened {
            source,
            _secret: secret,
        }
    }
}

/// A source, with its Secret, which is read for each request.
pub(crate) struct Opened {
    source: Box<dyn Source>,
    _secret: Secret,
}

impl Deref for Opened {
    type Target = dyn Source;

    fn deref(&self) -> &Self::Target {
        self.source.as_ref()
    }
}

/// A Secret, mounted.
pub(crate) struct Secret(TempDir);

impl Secret {
    pub(crate) fn new(endpoint: &Url) -> Self {
        let secret = Self(tempfile::tempdir().unwrap());
        secret.set("endpoints", &endpoint.origin().ascii_serialization());
        secret
    }

    pub(crate) fn set(&self, key: &str, value: &str) {
        fs::write(self.0.path().join(key), value).unwrap();
    }
}

/// How a source is reached in tests: as in a pod, but on this machine too, and with less patience.
pub(crate) fn access(endpoint: Option<&Url>, secret: Option<&Secret>) -> Result<Access, FetchError> {
    let config = FetchConfig {
        endpoint: endpoint.map(|endpoint| endpoint.to_string()),
        ..FetchConfig::default()
    };
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        headers: Duration::from_secs(2),
        idle: Duration::from_secs(1),
        ..Timeouts::default()
    };
    let credentials = secret
        .map(|secret| Credentials::open(secret.0.path()))
        .transpose()?;
    Access::new(&config, credentials, Policy::default().with_loopback(), timeouts)
}
