//! A bucket of a test's own in each kind of store.

use crate::servers::{self, AZURE_ACCOUNT, AZURE_KEY, S3_KEY_ID, S3_SECRET, Servers};
use http::{HeaderMap, HeaderValue, Method};
use modelservice_contract::FetchConfig;
use modelservice_fetch::{
    credentials::Credentials,
    error::FetchError,
    http::{Policy, Timeouts},
    source::{Source, access::Access, objects},
};
use std::{
    fs,
    ops::Deref,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tempfile::TempDir;
use url::Url;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    S3,
    Gcs,
    Azure,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    pub(crate) fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A bucket of a test's own.
pub(crate) struct Bucket {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    server: Url,
}

impl Bucket {
    /// Makes one that overwrites objects.
    pub(crate) async fn new(servers: &Servers, kind: Kind) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("models-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let server = match kind {
            Kind::S3 => &servers.s3,
            Kind::Gcs => &servers.gcs,
            Kind::Azure => &servers.azure,
        };
        let bucket = Self {
            kind,
            name,
            server: server.clone(),
        };
        match kind {
            Kind::S3 => {
                servers::s3(Method::PUT, bucket.url(""), Vec::new()).await;
            }
            Kind::Gcs => bucket.make_gcs(false).await,
            Kind::Azure => {
                let mut url = bucket.url("");
                url.set_query(Some("restype=container"));
                servers::azure(Method::PUT, url, HeaderMap::new(), Vec::new()).await;
            }
        }
        bucket
    }

    /// Makes one that keeps what is overwritten. Azurite has no versions.
    pub(crate) async fn versioned(servers: &Servers, kind: Kind) -> Self {
        let bucket = Self::new(servers, kind).await;
        match kind {
            Kind::S3 => {
                let mut url = bucket.url("");
                url.set_query(Some("versioning="));
                let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                            <Status>Enabled</Status></VersioningConfiguration>";
                servers::s3(Method::PUT, url, body.into()).await;
            }
            Kind::Gcs => {
                let url = bucket
                    .server
                    .join(&format!("storage/v1/b/{}", bucket.name))
                    .unwrap();
                let body = br#"{"versioning": {"enabled": true}}"#.to_vec();
                servers::send(Method::PATCH, url, json(), body).await;
            }
            Kind::Azure => panic!("azurite has no versions"),
        }
        bucket
    }

    async fn make_gcs(&self, is_versioned: bool) {
        let url = self.server.join("storage/v1/b").unwrap();
        let body = format!(
            r#"{{"name": "{}", "versioning": {{"enabled": {is_versioned}}}}}"#,
            self.name
        );
        servers::send(Method::POST, url, json(), body.into()).await;
    }

    /// Writes an object.
    pub(crate) async fn put(&self, key: &str, body: &[u8]) {
        let body = body.to_vec();
        match self.kind {
            Kind::S3 => {
                servers::s3(Method::PUT, self.url(key), body).await;
            }
            Kind::Gcs => {
                let mut url = self
                    .server
                    .join(&format!("upload/storage/v1/b/{}/o", self.name))
                    .unwrap();
                url.query_pairs_mut()
                    .append_pair("uploadType", "media")
                    .append_pair("name", key);
                servers::send(
                    Method::POST,
                    url,
                    headers(&[("content-type", "application/octet-stream")]),
                    body,
                )
                .await;
            }
            Kind::Azure => {
                let headers = headers(&[("x-ms-blob-type", "BlockBlob")]);
                servers::azure(Method::PUT, self.url(key), headers, body).await;
            }
        }
    }

    /// Lets everybody read its objects. fake-gcs-server asks nobody who they are.
    pub(crate) async fn make_public(&self) {
        let mut url = self.url("");
        match self.kind {
            Kind::S3 => {
                url.set_query(Some("policy="));
                let policy = format!(
                    r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Principal": "*",
                        "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::{}/*"]}}]}}"#,
                    self.name
                );
                servers::s3(Method::PUT, url, policy.into()).await;
            }
            Kind::Gcs => {}
            Kind::Azure => {
                url.set_query(Some("restype=container&comp=acl"));
                let headers = headers(&[("x-ms-blob-public-access", "blob")]);
                servers::azure(Method::PUT, url, headers, Vec::new()).await;
            }
        }
    }

    /// Removes an object.
    pub(crate) async fn delete(&self, key: &str) {
        match self.kind {
            Kind::S3 => {
                servers::s3(Method::DELETE, self.url(key), Vec::new()).await;
            }
            Kind::Gcs => {
                let mut url = self.server.clone();
                url.path_segments_mut()
                    .unwrap()
                    .pop_if_empty()
                    .extend(["storage", "v1", "b", &self.name, "o", key]);
                servers::send(Method::DELETE, url, HeaderMap::new(), Vec::new()).await;
            }
            Kind::Azure => servers::azure(Method::DELETE, self.url(key), HeaderMap::new(), Vec::new()).await,
        }
    }

    fn url(&self, key: &str) -> Url {
        let mut url = self.server.clone();
        {
            let mut path = url.path_segments_mut().unwrap();
            path.pop_if_empty().push(&self.name);
            if !key.is_empty() {
                path.extend(key.split('/'));
            }
        }
        url
    }

    /// The server's own address, as an endpoint.
    pub(crate) fn server(&self) -> Url {
        self.server.clone()
    }

    /// A Secret that is right, for requests to an endpoint.
    pub(crate) fn secret(&self, endpoint: &Url) -> Secret {
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

    /// The source of a key, reached at an endpoint.
    pub(crate) fn source(
        &self,
        key: &str,
        endpoint: &Url,
        secret: Option<&Secret>,
    ) -> Result<Box<dyn Source>, FetchError> {
        let uri = format!("{}://{}/{key}", self.kind.scheme(), self.name);
        objects::open(&uri, access(Some(endpoint), secret)?)
    }

    /// The source of a key, reached directly and with the right Secret.
    pub(crate) fn open(&self, key: &str) -> Opened {
        let secret = self.secret(&self.server);
        let source = self.source(key, &self.server, Some(&secret)).unwrap();
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

fn json() -> HeaderMap {
    headers(&[("content-type", "application/json")])
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
        .collect()
}
