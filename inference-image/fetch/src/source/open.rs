//! From a URI to its source.

use super::{access::Access, api::Source, folder::Folder, https::HttpsSource, hub::Hub, objects, oci::Oci};
use crate::{error::FetchError, http::Policy};
use modelservice_contract::{FetchConfig, FetchReason, PULL_SECRETS_PATH};

/// Opens the source that the URI names. Makes no request.
///
/// # Errors
/// `ConfigInvalid` if there is no such kind of source, or if its endpoint or credentials cannot be used.
pub fn open(config: &FetchConfig, policy: &Policy) -> Result<Box<dyn Source>, FetchError> {
    let uri = &config.uri;
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(unknown(uri));
    };
    let access = || Access::of_pod(config, policy);
    match scheme {
        "file" if rest.starts_with('/') => Ok(Box::new(Folder::new(rest))),
        "s3" | "gs" | "az" => objects::open(uri, access()?),
        "https" => Ok(Box::new(HttpsSource::new(uri, access()?, config.digest.clone())?)),
        "hf" => Ok(Box::new(Hub::new(uri, access()?)?)),
        "oci" => Ok(Box::new(Oci::new(uri, access()?, PULL_SECRETS_PATH)?)),
        _ => Err(unknown(uri)),
    }
}

fn unknown(uri: &str) -> FetchError {
    // A URI may carry credentials: only its scheme is shown.
    let scheme = uri.split_once("://").map_or("", |(scheme, _)| scheme);
    let message = format!(
        "the URI begins with {scheme:?}, which names no kind of source: use s3://, gs://, az://, https://, hf:// or \
         oci://, or file:///absolute/path"
    );
    FetchError::new(FetchReason::ConfigInvalid, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::http::Timeouts;

    #[test]
    fn no_message_about_a_wrong_uri_has_its_password() {
        for uri in [
            "s3://me:hunter2@models/a",
            "gs://me:hunter2@models/a",
            "az://me:hunter2@models/a",
            "hf://me:hunter2@org/name",
            "hf://me:hunter2@org",
            "oci://me:hunter2@a.example/models/x:1",
            "oci://me:hunter2@a.example/Models/x:1",
            "https://me:hunter2@a.example/model.exe",
            "https://me:hun/hunter2@a.example/model.onnx",
            "ftp://me:hunter2@a.example/model.onnx",
            "s3:/me:hunter2@models/a",
        ] {
            let config = FetchConfig {
                uri: uri.to_owned(),
                ..FetchConfig::default()
            };
            // A user is not sent, and refused at the latest with the request.
            if let Err(error) = open(&config, &Policy::default()) {
                assert!(!error.message.contains("hunter2"), "{}", error.message);
            }
        }
        for endpoint in [
            "ftp://me:hunter2@a.example",
            "me:hunter2@a.example",
            "http://me:hunter2@a.example:x",
            "http://me:hun/hunter2@a.example",
        ] {
            let config = FetchConfig {
                endpoint: Some(endpoint.to_owned()),
                ..FetchConfig::default()
            };
            let access = Access::new(&config, None, Policy::default(), Timeouts::default());
            let message = access.err().map(|error| error.message);
            assert!(
                message.is_some_and(|message| !message.contains("hunter2")),
                "{endpoint}"
            );
        }
    }
}
