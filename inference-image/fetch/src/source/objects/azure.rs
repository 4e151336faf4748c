//! Azure Blob Storage.

use super::{
    place::Place,
    service::no_retries,
    vendor::{Identity, Servers, Store, Values, Vendor, service, unusable},
};
use crate::{error::FetchError, source::access::Access};
use modelservice_contract::FetchReason;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use std::{env, sync::Arc};
use url::Url;

const ACCOUNT: &str = "AZURE_STORAGE_ACCOUNT";
/// What is a credential, and which setting it is.
const KEYS: [(&str, AzureConfigKey); 5] = [
    ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
    ("AZURE_STORAGE_SAS_TOKEN", AzureConfigKey::SasKey),
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
];
/// What the webhook of Azure Workload Identity sets in a pod.
const POD: [(&str, AzureConfigKey); 4] = [
    ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
    ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
    ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
    ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
];

const SERVERS: Servers = Servers {
    own: &[
        ".core.windows.net",
        ".core.chinacloudapi.cn",
        ".core.usgovcloudapi.net",
    ],
    issuers: &[
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
    ],
};

pub(super) struct Azure;

impl Vendor for Azure {
    fn keys(&self) -> &'static [&'static str] {
        &[
            ACCOUNT,
            "AZURE_STORAGE_KEY",
            "AZURE_STORAGE_SAS_TOKEN",
            "AZURE_CLIENT_ID",
            "AZURE_TENANT_ID",
            "AZURE_CLIENT_SECRET",
        ]
    }

    fn is_credential(&self, key: &str) -> bool {
        key != ACCOUNT
    }

    fn open(
        &self,
        place: &Place,
        access: &Access,
        values: &Values,
        identity: Identity,
    ) -> Result<Store, FetchError> {
        let account = account(place, access, values)?;
        let service = service(self, place, access, values, identity, SERVERS)?;
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(account)
            .with_container_name(&place.bucket)
            .with_retry(no_retries())
            .with_allow_http(true)
            .with_skip_signature(identity == Identity::Nobody)
            .with_http_connector(service);
        if let Some(endpoint) = &access.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/').to_owned());
        }
        let builder = match identity {
            Identity::Secret => {
                KEYS.into_iter()
                    .fold(builder, |builder, (name, key)| match values.get(name) {
                        Some(value) => builder.with_config(key, value),
                        None => builder,
                    })
            }
            Identity::Pod => POD
                .into_iter()
                .fold(builder, |builder, (name, key)| match env::var(name) {
                    Ok(value) => builder.with_config(key, value),
                    Err(_) => builder,
                }),
            // Without any, object_store asks the machine's metadata service when it is first used, which never is.
            Identity::Nobody => builder,
        };
        let store = Arc::new(builder.build().map_err(|_| unusable(place))?);
        Ok(Store {
            objects: store.clone(),
            pages: store,
            keeps_versions: None,
        })
    }
}

/// The storage account: of the Secret, or of the endpoint (`https://ACCOUNT.blob.core.windows.net`, or
/// `http://host:port/ACCOUNT` of an emulator).
fn account(place: &Place, access: &Access, values: &Values) -> Result<String, FetchError> {
    if let Some(account) = values.get(ACCOUNT) {
        if is_account(account) {
            return Ok(account.clone());
        }
        let message = format!(
            "{}: {ACCOUNT} of the credentials' Secret is not the name of a storage account, which has 3 to 24 lowercase \
             letters and digits",
            place.uri
        );
        return Err(FetchError::new(FetchReason::ConfigInvalid, message));
    }
    access.endpoint.as_ref().and_then(account_of).ok_or_else(|| {
        let message = format!(
            "{}: the storage account is not known; add {ACCOUNT} to the credentials' Secret, or set the endpoint to \
             https://ACCOUNT.blob.core.windows.net",
            place.uri
        );
        FetchError::new(FetchReason::ConfigInvalid, message)
    })
}

/// It becomes part of the store's host name: nothing else may.
fn is_account(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (3..=24).contains(&text.len()) && text.bytes().all(is_part)
}

fn account_of(endpoint: &Url) -> Option<String> {
    let in_path = endpoint
        .path_segments()
        .and_then(|mut parts| parts.next())
        .filter(|part| !part.is_empty());
    if let Some(account) = in_path {
        return Some(account.to_owned());
    }
    let (account, rest) = endpoint.domain()?.split_once('.')?;
    rest.contains(".core.").then(|| account.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_endpoint_names_the_account() {
        for (endpoint, account) in [
            ("https://photos.blob.core.windows.net", Some("photos")),
            (
                "http://127.0.0.1:10000/devstoreaccount1",
                Some("devstoreaccount1"),
            ),
            ("http://azurite.storage.svc:10000", None),
        ] {
            let url = Url::parse(endpoint).unwrap();
            assert_eq!(account_of(&url).as_deref(), account, "{endpoint}");
        }
    }
}
