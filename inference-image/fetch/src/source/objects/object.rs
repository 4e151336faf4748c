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
