//! The identity of a folder of objects.

use super::api::Object;
use modelservice_contract::{IdentityKind, SourceIdentity};
use sha2::{Digest, Sha256};

/// SHA-256 over the sorted list of names, sizes and identities of the objects: one line each, with tabs between. Retained
/// only if each object's version is.
#[must_use]
pub fn of_folder(objects: &[Object], is_retained: bool) -> SourceIdentity {
    let mut lines: Vec<String> = objects
        .iter()
        .map(|object| {
            let size = object
                .size
                .map_or_else(|| "-".to_owned(), |size| size.to_string());
            let version = object.version.as_ref().or(object.sha256.as_ref());
            format!(
                "{}\t{size}\t{}\n",
                object.name,
                version.map_or("-", |version| version)
            )
        })
        .collect();
    lines.sort_unstable();
    SourceIdentity {
        kind: IdentityKind::Folder,
        value: format!("{:x}", Sha256::digest(lines.concat())),
        is_retained,
    }
}

#[cfg(test)]
mod tests {
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
        let identity = of_folder(&objects, true);
        let by_sha256sum = "6190c30c86f35704e82670234737ba68510c308f22187cfc523a3cf8ccc0ede0";
        assert_eq!(identity.value, by_sha256sum);
        let other_order = [objects[1].clone(), objects[0].clone()];
        assert_eq!(of_folder(&other_order, true), identity);
        let changed = [object("w.data", 7, "v3"), object("model.onnx", 3, "v1")];
        assert_ne!(of_folder(&changed, true), identity);
    }
}
