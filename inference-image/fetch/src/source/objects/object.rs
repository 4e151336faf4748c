//! Objects as the store tells of them, and their versions. Pure.

use crate::{error::FetchError, source::api::Object};
use modelservice_contract::FetchReason;
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

/// Whether what answers is the version that was asked for, whatever the server made of the condition. What does not say
/// which one it is may be any.
pub(super) fn is_of_version(meta: &ObjectMeta, version: &str) -> bool {
    if version.starts_with('"') {
        meta.e_tag.as_deref().is_some_and(|tag| quoted(tag) == version)
    } else {
        meta.version.as_deref() == Some(version)
    }
}

/// Says which right is missing if a version is denied: on S3, it is another one than for the newest.
pub(super) fn with_right(mut error: FetchError, scheme: &str, names_version: bool) -> FetchError {
    if scheme == "s3" && names_version && error.reason == FetchReason::Denied {
        error.message.push_str(
            ". To read a version of an object, the right s3:GetObjectVersion is needed beside s3:GetObject",
        );
    }
    error
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

    fn meta(version: Option<&str>, tag: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            location: "models/a.onnx".into(),
            last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
            size: 1,
            e_tag: tag.map(str::to_owned),
            version: version.map(str::to_owned),
        }
    }

    fn version(version: Option<&str>, tag: Option<&str>) -> Option<String> {
        object(&meta(version, tag), "a.onnx").version
    }

    /// Otherwise a server that leaves the header away may send any bytes.
    #[test]
    fn an_answer_that_does_not_say_its_version_is_another_one() {
        for (id, tag, wanted, is_it) in [
            (Some("v1"), Some("\"t\""), "v1", true),
            (Some("v2"), Some("\"t\""), "v1", false),
            (None, Some("\"t\""), "v1", false),
            (Some("v1"), Some("\"t\""), "\"t\"", true),
            (None, Some("t"), "\"t\"", true),
            (None, Some("\"u\""), "\"t\"", false),
            (Some("v1"), None, "\"t\"", false),
            (None, None, "\"t\"", false),
            (None, None, "", false),
        ] {
            assert_eq!(
                is_of_version(&meta(id, tag), wanted),
                is_it,
                "{id:?} {tag:?} {wanted}"
            );
        }
    }

    #[test]
    fn who_is_denied_a_version_learns_of_its_right() {
        let denied = || FetchError::new(FetchReason::Denied, "403");
        let said = |scheme, names_version| with_right(denied(), scheme, names_version).message;
        assert!(said("s3", true).contains("s3:GetObjectVersion"));
        assert_eq!(said("s3", false), "403");
        assert_eq!(said("gs", true), "403");
        let error = FetchError::unavailable("503");
        assert_eq!(with_right(error.clone(), "s3", true), error);
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
