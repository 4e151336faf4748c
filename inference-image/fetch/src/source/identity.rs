//! The identity of a folder of objects.

use super::api::Object;
use crate::error::FetchError;
use modelservice_contract::{FetchReason, IdentityKind, SourceIdentity};
use sha2::{Digest, Sha256};

/// SHA-256 over the sorted list of names, sizes and identities of the objects: one line each, with tabs between. Retained
/// only if each object's version is.
///
/// # Errors
/// `Unavailable` for an object without an identity of its own: it could change, and the folder's would not.
pub fn of_folder(objects: &[Object], is_retained: bool) -> Result<SourceIdentity, FetchError> {
    let lines: Result<Vec<String>, FetchError> = objects
        .iter()
        .map(|object| {
            let size = object
                .size
                .map_or_else(|| "-".to_owned(), |size| size.to_string());
            let version = object.version.as_ref().or(object.sha256.as_ref());
            let version = version.ok_or_else(|| without_version(&object.key))?;
            Ok(format!("{}\t{size}\t{version}\n", object.name))
        })
        .collect();
    let mut lines = lines?;
    lines.sort_unstable();
    Ok(SourceIdentity {
        kind: IdentityKind::Folder,
        value: format!("{:x}", Sha256::digest(lines.concat())),
        is_retained,
    })
}

/// Nothing could say later whether it is still the same.
pub(crate) fn without_version(object: &str) -> FetchError {
    let message = format!("{object}: the store gives it neither a version nor a strong ETag");
    FetchError::new(FetchReason::Unavailable, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn object(name: &str, size: u64, version: &str) -> Object {
        Object {
            name: name.into(),
            key: format!("folder/{name}"),
            size: Some(size),
            version: Some(version.into()),
            sha256: None,
        }
    }

    // The identity is frozen with a revision: another way to compute it would make every one of them unavailable.
    #[test]
    fn the_identity_of_a_folder_stays_what_it_is() {
        let objects = [object("w.data", 7, "v2"), object("model.onnx", 3, "v1")];
        let identity = of_folder(&objects, true).unwrap();
        let by_sha256sum = "6190c30c86f35704e82670234737ba68510c308f22187cfc523a3cf8ccc0ede0";
        assert_eq!(identity.value, by_sha256sum);
        let other_order = [objects[1].clone(), objects[0].clone()];
        assert_eq!(of_folder(&other_order, true).unwrap(), identity);
        let changed = [object("w.data", 7, "v3"), object("model.onnx", 3, "v1")];
        assert_ne!(of_folder(&changed, true).unwrap(), identity);
    }

    #[test]
    fn a_folder_with_an_object_that_has_no_version_has_none() {
        let mut objects = [object("w.data", 7, "v2"), object("model.onnx", 3, "v1")];
        objects[0].version = None;
        let error = of_folder(&objects, false).unwrap_err();
        assert_eq!(error.reason, FetchReason::Unavailable);
        assert!(error.message.starts_with("folder/w.data: "), "{}", error.message);
        objects[0].sha256 = Some("abc".into());
        of_folder(&objects, false).unwrap();
    }
}
