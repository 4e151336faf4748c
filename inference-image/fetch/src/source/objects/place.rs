//! What a URI of an object store names. Pure.

use crate::{error::FetchError, source::shown::without_user};
use modelservice_contract::FetchReason;
use object_store::path::Path;

/// A bucket or container, and an object or a folder in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// As it is configured.
    pub(super) uri: String,
    pub(super) scheme: &'static str,
    pub(super) bucket: String,
    /// Without a slash at its end. Empty for the whole bucket.
    pub(super) key: String,
    /// Whether only a folder can be meant: the URI ends with a slash.
    pub(super) is_folder: bool,
}

impl Place {
    /// Reads a URI such as `s3://bucket/models/resnet`. Keys are taken as they are: `%`, `?` and `#` have no meaning.
    pub(super) fn parse(scheme: &'static str, uri: &str) -> Result<Self, FetchError> {
        let invalid = |what: &str| {
            let shown = without_user(uri);
            let message =
                format!("{shown:?} {what}; write {scheme}://BUCKET/KEY, of one object or one folder");
            FetchError::new(FetchReason::ConfigInvalid, message)
        };
        let rest = uri.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://"));
        let rest = rest.ok_or_else(|| invalid("has another scheme"))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '$');
        if bucket.is_empty() || !bucket.chars().all(is_name) {
            return Err(invalid("has no name of a bucket"));
        }
        let is_folder = key.is_empty() || key.ends_with('/');
        let key = key.strip_suffix('/').unwrap_or(key);
        // An exact key: what the store would read differently is refused.
        if Path::parse(key).is_err() || key.starts_with('/') || key.ends_with('/') {
            return Err(invalid(
                "has an empty, `.` or `..` component, or a control character in its key",
            ));
        }
        Ok(Self {
            uri: uri.to_owned(),
            scheme,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            is_folder,
        })
    }

    /// The URI of another key in the same bucket.
    pub(super) fn uri_of(&self, key: &str) -> String {
        format!("{}://{}/{key}", self.scheme, self.bucket)
    }

    /// The prefix of what is in the folder.
    pub(super) fn prefix(&self) -> String {
        if self.key.is_empty() {
            String::new()
        } else {
            format!("{}/", self.key)
        }
    }

    /// The prefix of the folder in which the key is.
    pub(super) fn parent(&self) -> &str {
        self.key.rfind('/').map_or("", |slash| &self.key[..=slash])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_uri_names_one_object_or_one_folder() {
        for (uri, bucket, key, is_folder, parent) in [
            ("s3://models/resnet.onnx", "models", "resnet.onnx", false, ""),
            (
                "s3://my.models/a/b c/d%20e?f#g",
                "my.models",
                "a/b c/d%20e?f#g",
                false,
                "a/b c/",
            ),
            ("s3://models/resnet/", "models", "resnet", true, ""),
            ("s3://models/", "models", "", true, ""),
            ("s3://models", "models", "", true, ""),
        ] {
            let place = Place::parse("s3", uri).unwrap();
            assert_eq!(
                (place.bucket.as_str(), place.key.as_str(), place.is_folder),
                (bucket, key, is_folder),
                "{uri}"
            );
            assert_eq!(place.parent(), parent, "{uri}");
        }
        assert_eq!(Place::parse("s3", "s3://models").unwrap().prefix(), "");
        assert_eq!(
            Place::parse("s3", "s3://models/resnet").unwrap().prefix(),
            "resnet/"
        );
    }

    #[test]
    fn what_is_no_exact_key_is_refused() {
        for (uri, part) in [
            ("gs://models/a", "another scheme"),
            ("s3:/models/a", "another scheme"),
            ("s3:///a", "no name of a bucket"),
            ("s3://", "no name of a bucket"),
            ("s3://me@models/a", "no name of a bucket"),
            ("s3://models//a", "component"),
            ("s3://models/a//b", "component"),
            ("s3://models/a//", "component"),
            ("s3://models/../b", "component"),
            ("s3://models/./b", "component"),
            ("s3://models/a\nb", "control character"),
        ] {
            let error = Place::parse("s3", uri).unwrap_err();
            assert_eq!(error.reason, FetchReason::ConfigInvalid);
            assert!(error.message.contains(part), "{uri:?}: {}", error.message);
        }
    }
}
