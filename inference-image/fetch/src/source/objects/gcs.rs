//! Google Cloud Storage.

use super::{
    place::Place,
    service::no_retries,
    vendor::{Identity, Servers, Store, Values, Vendor, service, unusable},
};
use crate::{
    error::FetchError,
    http::{Audience, Client, Request},
    source::access::Access,
};
use http::{HeaderValue, header};
use object_store::{
    StaticCredentialProvider,
    gcp::{GcpCredential, GcpCredentialProvider, GoogleCloudStorageBuilder},
};
use serde::Deserialize;
use std::sync::Arc;
use url::Url;

const KEY: &str = "GOOGLE_APPLICATION_CREDENTIALS";
const SERVER: &str = "https://storage.googleapis.com";
/// A bucket's settings are not larger, in bytes.
const LARGEST: usize = 1 << 20;

const SERVERS: Servers = Servers {
    own: &[".googleapis.com"],
    issuers: &[".googleapis.com", "accounts.google.com"],
};

pub(super) struct Gcs;

impl Vendor for Gcs {
    fn keys(&self) -> &'static [&'static str] {
        &[KEY]
    }

    fn is_credential(&self, _: &str) -> bool {
        true
    }

    fn open(
        &self,
        place: &Place,
        access: &Access,
        values: &Values,
        identity: Identity,
    ) -> Result<Store, FetchError> {
        let service = service(self, place, access, values, identity, SERVERS)?;
        let audience = service.audience.clone();
        let server = access
            .endpoint
            .as_ref()
            .map_or(SERVER, |endpoint| endpoint.as_str().trim_end_matches('/'));
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&place.bucket)
            // Otherwise the credentials' file could name another server.
            .with_base_url(server)
            .with_retry(no_retries())
            .with_skip_signature(identity == Identity::Nobody)
            .with_http_connector(service);
        builder = match (identity, values.get(KEY)) {
            (Identity::Secret, Some(json)) => builder.with_service_account_key(json),
            // Without any, object_store looks for a file in the home folder.
            (Identity::Nobody, _) => {
                builder.with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential {
                    bearer: String::new(),
                })))
            }
            _ => builder,
        };
        let store = Arc::new(builder.build().map_err(|_| unusable(place))?);
        let probe = Probe {
            client: access.client.clone(),
            credentials: (identity != Identity::Nobody).then(|| store.credentials().clone()),
            audience,
            url: Url::parse(&format!(
                "{server}/storage/v1/b/{}?fields=versioning",
                place.bucket
            ))
            .ok(),
        };
        Ok(Store {
            objects: store.clone(),
            pages: store,
            keeps_versions: Some(Arc::new(move || Box::pin(probe.clone().ask()))),
        })
    }
}

/// Asks whether a bucket keeps what is overwritten.
#[derive(Clone)]
struct Probe {
    client: Client,
    credentials: Option<GcpCredentialProvider>,
    audience: Audience,
    url: Option<Url>,
}

#[derive(Deserialize)]
struct Bucket {
    #[serde(default)]
    versioning: Versioning,
}

#[derive(Default, Deserialize)]
struct Versioning {
    #[serde(default)]
    enabled: bool,
}

impl Probe {
    /// Many may read objects and not the bucket's settings: then it is not known, and not relied on.
    async fn ask(self) -> bool {
        self.bucket()
            .await
            .is_some_and(|bucket| bucket.versioning.enabled)
    }

    async fn bucket(self) -> Option<Bucket> {
        let mut request = Request::get(self.url?).audience(self.audience);
        if let Some(credentials) = self.credentials {
            let bearer = credentials.get_credential().await.ok()?.bearer.clone();
            request = request.secret_header(
                header::AUTHORIZATION,
                HeaderValue::try_from(format!("Bearer {bearer}")).ok()?,
            );
        }
        let response = self.client.send(request).await.ok()?;
        if !response.status.is_success() {
            return None;
        }
        serde_json::from_slice(&response.bytes(LARGEST).await.ok()?).ok()
    }
}
