//! The identity of a folder: it changes if any of its objects does. Pure.

use super::Object;
use modelservice_contract::{IdentityKind, SourceIdentity};
use sha2::{Digest, Sha256};

/// SHA-256 over one line per object, sorted by name: name, size in bytes and version, each followed by a zero byte, then
/// a line feed.
#[must_use]
pub fn folder_identity(objects: &[Object]) -> SourceIdentity {
    let mut sorted: Vec<&Object> = objects.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    for object in sorted {
        let size = object.size.map(|size| size.to_string()).unwrap_or_default();
        for field in [&object.name, &size, object.version.as_deref().unwrap_or_default()] {
            hash.update(field.as_bytes());
            hash.update([0]);
        }
        hash.update(b"\n");
    }
    let digest = hash.finalize();
    SourceIdentity {
        kind: IdentityKind::Folder,
        value: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        // An object that is added or overwritten makes another list, which is what is compared.
        is_retained: false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn object(name: &str, size: u64, version: &str) -> Object {
        Object {
            name: name.to_owned(),
            key: format!("models/{name}"),
            size: Some(size),
            version: Some(version.to_owned()),
            sha256: None,
        }
    }

    #[test]
    fn every_change_of_a_folder_is_seen_and_the_order_of_its_list_is_not() {
        let (a, b) = (object("a", 1, "\"x\""), object("b", 2, "\"y\""));
        let identity = folder_identity(&[a.clone(), b.clone()]);
        assert_eq!(identity, folder_identity(&[b.clone(), a.clone()]));
        assert_eq!(
            identity.value,
            // printf 'a\0001\0"x"\0\nb\0002\0"y"\0\n' | sha256sum
            "bab79917c5a09563738733e42175b03d2d5e8b6575c770bcc19e4826d6e50931"
        );
        for others in [
            vec![a.clone()],
            vec![a.clone(), object("b", 3, "\"y\"")],
            vec![a.clone(), object("b", 2, "\"z\"")],
            vec![a.clone(), object("c", 2, "\"y\"")],
            vec![a.clone(), b, object("c", 0, "")],
        ] {
            assert_ne!(identity, folder_identity(&others), "{others:?}");
        }
    }
}
