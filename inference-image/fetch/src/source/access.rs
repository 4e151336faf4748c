//! How a source is reached: with which client, which credentials, and at which server.

use crate::{
    credentials::Credentials,
    error::FetchError,
    http::{Client, Policy, Timeouts},
    source::shown::without_user,
};
use modelservice_contract::{CREDENTIALS_PATH, FetchConfig, FetchReason};
use url::Url;

/// How a source is reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// For everything but [`Self::providers`].
    pub client: Client,
    /// For the fixed addresses of clouds' credential providers, if the pod's own identity may be used.
    pub providers: Option<Client>,
    /// The Secret, if there is one.
    pub credentials: Option<Credentials>,
    /// A server that is not the vendor's.
    pub endpoint: Option<Url>,
}

impl Access {
    /// What a pod's configuration says, with the Secret that is mounted into it.
    ///
    /// # Errors
    /// `ConfigInvalid` for an endpoint or a Secret that cannot be used.
    pub fn of_pod(config: &FetchConfig, policy: &Policy) -> Result<Self, FetchError> {
        let credentials = config
            .has_credentials
            .then(|| Credentials::open(CREDENTIALS_PATH));
        Self::new(
            config,
            credentials.transpose()?,
            policy.clone(),
            Timeouts::default(),
        )
    }

    /// What a configuration says, with these credentials and under this policy.
    ///
    /// # Errors
    /// As [`Self::of_pod`].
    pub fn new(
        config: &FetchConfig,
        credentials: Option<Credentials>,
        policy: Policy,
        timeouts: Timeouts,
    ) -> Result<Self, FetchError> {
        let secret = credentials.as_ref().map(Credentials::read).transpose()?;
        let authorities = match &secret {
            Some(secret) => secret.authorities()?,
            None => None,
        };
        let authorities = authorities.as_deref().map(str::as_bytes);
        let providers = config
            .pod_identity
            .then(|| Client::new(policy.clone().for_providers(), None, timeouts));
        Ok(Self {
            client: Client::new(policy, authorities, timeouts)?,
            providers: providers.transpose()?,
            credentials,
            endpoint: config.endpoint.as_deref().map(endpoint).transpose()?,
        })
    }
}

fn endpoint(text: &str) -> Result<Url, FetchError> {
    let invalid = |what: &str| {
        let shown = without_user(text);
        let message =
            format!("the endpoint {shown:?} {what}; write it as `https://host` or `http://host:port`");
        FetchError::new(FetchReason::ConfigInvalid, message)
    };
    let url = Url::parse(text).map_err(|error| invalid(&format!("is no URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid("is neither https:// nor http://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::new(
            FetchReason::ConfigInvalid,
            "the endpoint has a user or a password; put credentials into a Secret",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a query"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn an_endpoint_is_a_server_and_nothing_more() {
        for text in [
            "https://minio.example",
            "http://minio.storage.svc:9000",
            "http://10.0.0.1:1/account",
        ] {
            endpoint(text).unwrap();
        }
        for (text, part) in [
            ("minio.example", "is no URL"),
            ("minio:9000", "neither https"),
            ("ftp://minio.example", "neither https"),
            (
                "https://me:hunter2@minio.example",
                "put credentials into a Secret",
            ),
            ("https://minio.example?a=b", "has a query"),
        ] {
            let error = endpoint(text).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid);
            assert!(error.message.contains(part), "{text}: {}", error.message);
            assert!(!error.message.contains("hunter2"));
        }
    }
}
