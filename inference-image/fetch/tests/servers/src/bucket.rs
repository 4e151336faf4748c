//! A bucket of a test's own in each kind of store.

use crate::{
    processes::Servers,
    requests::{self, send},
};
use http::{HeaderMap, HeaderValue, Method};
use std::sync::atomic::{AtomicUsize, Ordering};
use url::Url;

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    Gcs,
    Azure,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::S3, Self::Gcs, Self::Azure];

    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// A bucket of a test's own.
pub struct Bucket {
    pub kind: Kind,
    pub name: String,
    server: Url,
}

impl Bucket {
    /// Makes one that overwrites objects.
    pub async fn new(servers: &Servers, kind: Kind) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("models-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self::named(servers, kind, name).await
    }

    /// Makes one with this name, which overwrites objects.
    pub async fn named(servers: &Servers, kind: Kind, name: String) -> Self {
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
                requests::s3(Method::PUT, bucket.url(""), Vec::new()).await;
            }
            Kind::Gcs => bucket.make_gcs(false).await,
            Kind::Azure => {
                let mut url = bucket.url("");
                url.set_query(Some("restype=container"));
                requests::azure(Method::PUT, url, HeaderMap::new(), Vec::new()).await;
            }
        }
        bucket
    }

    /// Makes one that keeps what is overwritten. Azurite has no versions.
    pub async fn versioned(servers: &Servers, kind: Kind) -> Self {
        let bucket = Self::new(servers, kind).await;
        bucket.keep_versions().await;
        bucket
    }

    /// Has it keep what is overwritten from now on.
    pub async fn keep_versions(&self) {
        match self.kind {
            Kind::S3 => {
                let mut url = self.url("");
                url.set_query(Some("versioning="));
                let body = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                            <Status>Enabled</Status></VersioningConfiguration>";
                requests::s3(Method::PUT, url, body.into()).await;
            }
            Kind::Gcs => {
                let url = self.server.join(&format!("storage/v1/b/{}", self.name)).unwrap();
                let body = br#"{"versioning": {"enabled": true}}"#.to_vec();
                send(Method::PATCH, url, json(), body).await;
            }
            Kind::Azure => panic!("azurite has no versions"),
        }
    }

    async fn make_gcs(&self, is_versioned: bool) {
        let url = self.server.join("storage/v1/b").unwrap();
        let body = format!(
            r#"{{"name": "{}", "versioning": {{"enabled": {is_versioned}}}}}"#,
            self.name
        );
        send(Method::POST, url, json(), body.into()).await;
    }

    /// Writes an object.
    pub async fn put(&self, key: &str, body: &[u8]) {
        let body = body.to_vec();
        match self.kind {
            Kind::S3 => {
                requests::s3(Method::PUT, self.url(key), body).await;
            }
            Kind::Gcs => {
                let mut url = self
                    .server
                    .join(&format!("upload/storage/v1/b/{}/o", self.name))
                    .unwrap();
                url.query_pairs_mut()
                    .append_pair("uploadType", "media")
                    .append_pair("name", key);
                send(
                    Method::POST,
                    url,
                    headers(&[("content-type", "application/octet-stream")]),
                    body,
                )
                .await;
            }
            Kind::Azure => {
                let headers = headers(&[("x-ms-blob-type", "BlockBlob")]);
                requests::azure(Method::PUT, self.url(key), headers, body).await;
            }
        }
    }

    /// Lets everybody read its objects. fake-gcs-server asks nobody who they are.
    pub async fn make_public(&self) {
        let mut url = self.url("");
        match self.kind {
            Kind::S3 => {
                url.set_query(Some("policy="));
                let policy = format!(
                    r#"{{"Version": "2012-10-17", "Statement": [{{"Effect": "Allow", "Principal": "*",
                        "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::{}/*"]}}]}}"#,
                    self.name
                );
                requests::s3(Method::PUT, url, policy.into()).await;
            }
            Kind::Gcs => {}
            Kind::Azure => {
                url.set_query(Some("restype=container&comp=acl"));
                let headers = headers(&[("x-ms-blob-public-access", "blob")]);
                requests::azure(Method::PUT, url, headers, Vec::new()).await;
            }
        }
    }

    /// Removes an object.
    pub async fn delete(&self, key: &str) {
        match self.kind {
            Kind::S3 => {
                requests::s3(Method::DELETE, self.url(key), Vec::new()).await;
            }
            Kind::Gcs => {
                let mut url = self.server.clone();
                url.path_segments_mut()
                    .unwrap()
                    .pop_if_empty()
                    .extend(["storage", "v1", "b", &self.name, "o", key]);
                send(Method::DELETE, url, HeaderMap::new(), Vec::new()).await;
            }
            Kind::Azure => requests::azure(Method::DELETE, self.url(key), HeaderMap::new(), Vec::new()).await,
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
    pub fn server(&self) -> Url {
        self.server.clone()
    }
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
