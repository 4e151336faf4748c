//! What every kind of source offers.

use crate::error::FetchError;
use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use modelservice_contract::{FetchReason, SourceIdentity};
use std::ops::Range;

/// A place where a model is kept.
pub trait Source: Send + Sync {
    /// Finds what the URI names: one object, or all objects of a folder. Of a version that is given, exactly that one.
    ///
    /// # Errors
    /// `NotFound` (also for a folder without objects), `Denied`, `Forbidden`, `Unavailable`, or `SourceChanged` if the
    /// version that is given is no longer there.
    fn find<'a>(&'a self, version: Option<&'a SourceIdentity>) -> BoxFuture<'a, Result<Found, FetchError>>;

    /// Reads a part of an object in the version in which it was found: exactly as many bytes as `range` has, or an error
    /// in the stream. Of an object without a size, and of every object if there are no ranges, only all of it is read: such a
    /// range begins at 0, and ends at the size or else at `u64::MAX`, where the stream ends with the object.
    ///
    /// # Errors
    /// As above; `SourceChanged` if the object is no longer what was found. The stream's errors are mostly `Unavailable`,
    /// which may be tried again from where it broke.
    fn read<'a>(
        &'a self,
        object: &'a Object,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<BoxStream<'static, Result<Bytes, FetchError>>, FetchError>>;

    /// Whether parts of an object can be read at once, or from the middle after an interruption.
    fn has_ranges(&self) -> bool {
        true
    }
}

/// What was found at a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which version.
    pub identity: SourceIdentity,
    /// Its objects, files sorted by name: at least one.
    pub objects: Vec<Object>,
    /// What they are.
    pub form: Form,
}

impl Found {
    /// Bytes of all objects, if the source says them of each.
    ///
    /// # Errors
    /// `PackageInvalid` if they are more than can be counted.
    pub fn bytes(&self) -> Result<Option<u64>, FetchError> {
        let mut sum = 0_u64;
        for object in &self.objects {
            let Some(size) = object.size else {
                return Ok(None);
            };
            sum = sum.checked_add(size).ok_or_else(|| {
                let message =
                    "the source says that its objects have more than 2^64 bytes together, which is too large";
                FetchError::new(FetchReason::PackageInvalid, message)
            })?;
        }
        Ok(Some(sum))
    }

    /// Whether any of its objects is an archive.
    #[must_use]
    pub fn is_packed(&self) -> bool {
        self.form == Form::Layers
            || matches!(self.objects.as_slice(), [one] if !one.name.to_ascii_lowercase().ends_with(".onnx"))
    }
}

/// What the objects of a source are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Each is a file of the package; a single `.onnx` file is its model.
    Files,
    /// Each is an archive, unpacked one over the other in this order (layers of an image); or, if its name is not that of an
    /// archive, a file of this name (artifacts that have folders and files).
    Layers,
}

/// An object: a file of the package, or an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Path in the package, relative, with `/`; its last component says the kind of an archive.
    pub name: String,
    /// What its source calls it.
    pub key: String,
    /// In bytes, if the source says it before the download.
    pub size: Option<u64>,
    /// Version, generation or ETag that each request for it carries.
    pub version: Option<String>,
    /// SHA-256 in hex, if the source states it (OCI, the Hub's large files).
    pub sha256: Option<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use modelservice_contract::IdentityKind;

    #[test]
    fn sizes_that_cannot_be_added_are_too_large() {
        let bytes = |sizes: &[Option<u64>]| {
            let object = |size: &Option<u64>| Object {
                name: "model.onnx".into(),
                key: "model.onnx".into(),
                size: *size,
                version: None,
                sha256: None,
            };
            let found = Found {
                identity: SourceIdentity {
                    kind: IdentityKind::Folder,
                    value: "x".into(),
                    is_retained: false,
                },
                objects: sizes.iter().map(object).collect(),
                form: Form::Files,
            };
            found.bytes()
        };
        assert_eq!(bytes(&[Some(1), Some(2)]).unwrap(), Some(3));
        assert_eq!(bytes(&[Some(1), None]).unwrap(), None);
        let error = bytes(&[Some(u64::MAX), Some(1)]).unwrap_err();
        assert_eq!(error.reason, FetchReason::PackageInvalid);
    }
}
