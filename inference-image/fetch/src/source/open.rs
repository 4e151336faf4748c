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
