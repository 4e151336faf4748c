//! Object stores: Amazon S3, Google Cloud Storage, Azure Blob Storage, and servers that speak as they do.

mod azure;
mod gcs;
mod list;
mod object;
mod place;
mod s3;
mod service;
mod source;
mod vendor;

use super::{access::Access, api::Source};
use crate::error::FetchError;
use modelservice_contract::FetchReason;

/// The source that a URI with `s3://`, `gs://` or `az://` names.
///
/// # Errors
/// `ConfigInvalid` for another URI, or credentials that cannot be used.
pub fn open(uri: &str, access: Access) -> Result<Box<dyn Source>, FetchError> {
    let (scheme, vendor): (_, Box<dyn vendor::Vendor>) = match uri.split_once("://") {
        Some(("s3", _)) => ("s3", Box::new(s3::S3)),
        Some(("gs", _)) => ("gs", Box::new(gcs::Gcs)),
        Some(("az", _)) => ("az", Box::new(azure::Azure)),
        _ => {
            let message = format!("{uri:?} is no object store: write s3://, gs:// or az://");
            return Err(FetchError::new(FetchReason::ConfigInvalid, message));
        }
    };
    let place = place::Place::parse(scheme, uri)?;
    Ok(Box::new(source::ObjectSource::new(place, access, vendor)?))
}
