//! Objects as the store tells of them, and their versions. Pure.

use crate::source::api::Object;
use object_store::{GetOptions, ObjectMeta};

/// The condition under which a version is read: ETags have quotes, versions have none.
pub(super) fn exact(version: &str) -> GetOptions {
    let (if_match, version) = match version {
        "" => (None, None),
        tag if tag.starts_with('"') => (Some(tag.to_owned()), None),
        version => (None, Some(version.to_owned())),
    };
    GetOptions {
        if_match,
        version,
        ..GetOptions::default()
    }
}

pub(super) fn object(meta: &ObjectMeta, name: &str) -> Object {
    // In a bucket whose versioning was never on or is suspended, S3 overwrites the version `null`.
    let version = meta.version.clone().filter(|version| version != "null");
    let tag = meta
        .e_tag
        .as_deref()
        .filter(|tag| !tag.starts_with("W/"))
        .map(quoted);
    Object {
        name: name.to_owned(),
        key: meta.location.to_string(),
        size: Some(meta.size),
        version: version.or(tag),
        sha256: None,
    }
}

/// Azure's lists have ETags without quotes.
pub(super) fn quoted(tag: &str) -> String {
    if tag.starts_with('"') {
        tag.to_owned()
    } else {
        format!("\"{tag}\"")
    }
}

pub(super) fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    fn version(version: Option<&str>, tag: Option<&str>) -> Option<String> {
        let meta = ObjectMeta {
            location: "models/a.onnx".into(),
            last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
            size: 1,
            e_tag: tag.map(str::to_owned),
            version: version.map(str::to_owned),
        };
        object(&meta, "a.onnx").version
    }

    #[test]
    fn a_version_is_better_than_an_etag_and_a_weak_one_is_none() {
        for (id, tag, expected) in [
            (Some("v1"), Some("\"t\""), Some("v1")),
            (Some("null"), Some("\"t\""), Some("\"t\"")),
            (None, Some("\"t\""), Some("\"t\"")),
            (None, Some("0x8D"), Some("\"0x8D\"")),
            (None, Some("W/\"t\""), None),
            (None, None, None),
        ] {
            assert_eq!(version(id, tag).as_deref(), expected, "{id:?} {tag:?}");
        }
    }

    #[test]
    fn a_read_names_the_version() {
        let by_tag = exact("\"t\"");
        assert_eq!(
            (by_tag.if_match.as_deref(), by_tag.version),
            (Some("\"t\""), None)
        );
        let by_version = exact("v1");
        assert_eq!(
            (by_version.if_match, by_version.version.as_deref()),
            (None, Some("v1"))
        );
    }
}
