//! Amazon S3, and stores that speak as it does.

use super::{
    place::Place,
    service::no_retries,
    vendor::{Identity, Servers, Store, Values, Vendor, service, unusable},
};
use crate::{error::FetchError, source::access::Access};
use modelservice_contract::FetchReason;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use std::{env, sync::Arc};

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET_KEY: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";
const REGION: &str = "AWS_REGION";

const SERVERS: Servers = Servers {
    own: &[".amazonaws.com", ".amazonaws.com.cn"],
    issuers: &[".amazonaws.com", ".amazonaws.com.cn"],
};

/// What the webhooks and agents of EKS and ECS set in a pod that has an identity.
const POD: [(&str, AmazonS3ConfigKey); 6] = [
    (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        AmazonS3ConfigKey::WebIdentityTokenFile,
    ),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    (
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        AmazonS3ConfigKey::ContainerCredentialsRelativeUri,
    ),
    (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        AmazonS3ConfigKey::ContainerCredentialsFullUri,
    ),
    (
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
    ),
];

pub(super) struct S3;

impl Vendor for S3 {
    fn keys(&self) -> &'static [&'static str] {
        &[KEY_ID, SECRET_KEY, TOKEN, REGION]
    }

    fn is_credential(&self, key: &str) -> bool {
        key != REGION
    }

    fn open(
        &self,
        place: &Place,
        access: &Access,
        values: &Values,
        identity: Identity,
    ) -> Result<Store, FetchError> {
        if identity == Identity::Secret {
            for key in [KEY_ID, SECRET_KEY] {
                if !values.contains_key(key) {
                    let message = format!("{}: the credentials' Secret has no key {key}; add it", place.uri);
                    return Err(FetchError::new(FetchReason::ConfigInvalid, message));
                }
            }
        }
        let service = service(self, place, access, values, identity, SERVERS)?;
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&place.bucket)
            .with_retry(no_retries())
            .with_allow_http(true)
            .with_skip_signature(identity == Identity::Nobody)
            .with_http_connector(service);
        if let Some(endpoint) = &access.endpoint {
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        let region = values.get(REGION).cloned();
        let region = region.or_else(|| env::var(REGION).ok().filter(|_| identity == Identity::Pod));
        if let Some(region) = region {
            if !is_region(&region) {
                let message = format!(
                    "{}: {REGION} of the credentials' Secret is not the name of a region, such as eu-west-1",
                    place.uri
                );
                return Err(FetchError::new(FetchReason::ConfigInvalid, message));
            }
            builder = builder.with_region(region);
        }
        builder = match identity {
            Identity::Pod => of_pod(builder),
            _ => of_secret(builder, values),
        };
        let store = Arc::new(builder.build().map_err(|_| unusable(place))?);
        Ok(Store {
            objects: store.clone(),
            pages: store,
            keeps_versions: None,
        })
    }
}

/// It becomes part of the store's host name: nothing else may.
fn is_region(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_part)
}

fn of_secret(builder: AmazonS3Builder, values: &Values) -> AmazonS3Builder {
    let keys = [
        (KEY_ID, AmazonS3ConfigKey::AccessKeyId),
        (SECRET_KEY, AmazonS3ConfigKey::SecretAccessKey),
        (TOKEN, AmazonS3ConfigKey::Token),
    ];
    keys.into_iter()
        .fold(builder, |builder, (name, key)| match values.get(name) {
            Some(value) => builder.with_config(key, value),
            None => builder,
        })
}

fn of_pod(builder: AmazonS3Builder) -> AmazonS3Builder {
    POD.into_iter()
        .fold(builder, |builder, (name, key)| match env::var(name) {
            Ok(value) => builder.with_config(key, value),
            Err(_) => builder,
        })
}
