//! What the vendors' stores have in common: how their credentials are chosen, and when a store is opened anew.

use super::{
    place::Place,
    service::{Pages, Service},
};
use crate::{
    error::FetchError,
    http::{Audience, Used},
    source::access::Access,
};
use futures::future::BoxFuture;
use modelservice_contract::FetchReason;
use object_store::ObjectStore;
use std::{collections::BTreeMap, sync::Arc};

/// A store of one vendor.
pub(super) trait Vendor: Send + Sync {
    /// Keys of the Secret that it uses.
    fn keys(&self) -> &'static [&'static str];

    /// Those of them that are credentials: with none of these, requests carry none.
    fn is_credential(&self, key: &str) -> bool;

    /// Opens the store with the values of its keys.
    fn open(
        &self,
        place: &Place,
        access: &Access,
        values: &Values,
        identity: Identity,
    ) -> Result<Store, FetchError>;
}

/// What is used of a Secret: values by key, and the servers that they are for. All of one version of it.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Values {
    by_key: BTreeMap<&'static str, String>,
    audience: Audience,
}

impl Values {
    pub(super) fn get(&self, key: &str) -> Option<&String> {
        self.by_key.get(key)
    }

    pub(super) fn contains_key(&self, key: &str) -> bool {
        self.by_key.contains_key(key)
    }
}

/// As whom the requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Nobody,
    Secret,
    Pod,
}

/// An open store.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) pages: Pages,
    /// Whether the bucket keeps what is overwritten, where that takes a request of its own.
    pub(super) keeps_versions: Option<Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>>,
}

/// Reads the Secret as it is now.
pub(super) fn values(vendor: &dyn Vendor, access: &Access) -> Result<Values, FetchError> {
    let Some(credentials) = &access.credentials else {
        return Ok(Values::default());
    };
    let secret = credentials.read()?;
    let mut values = Values {
        by_key: BTreeMap::new(),
        audience: secret.audience(),
    };
    for key in vendor.keys() {
        if let Some(value) = secret.get(key)? {
            values.by_key.insert(*key, value);
        }
    }
    Ok(values)
}

/// As whom the requests are made: credentials of the Secret come first.
pub(super) fn identity(vendor: &dyn Vendor, access: &Access, values: &Values) -> Identity {
    if values.by_key.keys().any(|key| vendor.is_credential(key)) {
        Identity::Secret
    } else if access.providers.is_some() {
        Identity::Pod
    } else {
        Identity::Nobody
    }
}

/// The service of a store.
///
/// # Errors
/// `ConfigInvalid` if the pod's identity would go to a server that is not the vendor's.
pub(super) fn service(
    vendor: &dyn Vendor,
    place: &Place,
    access: &Access,
    values: &Values,
    identity: Identity,
    servers: Servers,
) -> Result<Service, FetchError> {
    let own = Audience::below(servers.own);
    if let (Identity::Pod, Some(endpoint)) = (identity, &access.endpoint)
        && !own.allows(endpoint)
    {
        let message = format!(
            "{}: the pod's own identity is for the vendor's servers only, not for the endpoint {endpoint}; use a Secret",
            place.uri
        );
        return Err(FetchError::new(FetchReason::ConfigInvalid, message));
    }
    let (audience, used) = match identity {
        Identity::Nobody => (Audience::default(), Used::Nothing),
        Identity::Pod => (own, Used::PodIdentity),
        Identity::Secret => {
            let keys: Vec<&str> = values
                .by_key
                .keys()
                .copied()
                .filter(|key| vendor.is_credential(key))
                .collect();
            (values.audience.clone(), Used::Secret(keys.join(", ")))
        }
    };
    Ok(Service {
        client: access.client.clone(),
        providers: access.providers.clone().filter(|_| identity == Identity::Pod),
        audience,
        issuers: Audience::below(servers.issuers),
        uri: place.uri.clone(),
        used,
    })
}

/// A vendor's servers, by the end of their names.
#[derive(Clone, Copy)]
pub(super) struct Servers {
    /// Of the store.
    pub(super) own: &'static [&'static str],
    /// That exchange credentials.
    pub(super) issuers: &'static [&'static str],
}

/// A store's builder refuses its configuration. What it says is not repeated: it may be a key that it could not read.
pub(super) fn unusable(place: &Place) -> FetchError {
    let message = format!(
        "{}: the credentials cannot be used: a key of the Secret is malformed or one that belongs to it is missing; see \
         docs/model-sources.md for the keys",
        place.uri
    );
    FetchError::new(FetchReason::ConfigInvalid, message)
}
