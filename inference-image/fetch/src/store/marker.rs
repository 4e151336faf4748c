//! What a complete package is, in a file beside it: written last, so that without it there is no package.

use crate::disk::{self, blocking};
use crate::error::FetchError;
use crate::unpack::{Unpacked, describe};
use modelservice_contract::{FetchConfig, FetchReason, IdentityKind, SourceIdentity};
use modelservice_package::Known;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Folder of the fetcher in a package's folder. Names that begin like this are in no package and in no digest.
pub const OWN_FOLDER: &str = "..modelservice";
const FILE: &str = "marker.json";
const FORMAT: u32 = 1;

/// What a complete package is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    format: u32,
    /// SHA-256 of the URI and the endpoint: a URI may carry a secret.
    source: String,
    /// The version that was fetched.
    pub identity: SourceIdentity,
    /// Digest of the package.
    pub digest: String,
    /// Digest of its `model.onnx`.
    pub model_digest: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// How many files.
    pub files: usize,
    /// Different each time that a package is made.
    #[serde(default)]
    nonce: String,
}

impl Marker {
    /// Of a package that was fetched like this.
    #[must_use]
    pub fn new(config: &FetchConfig, identity: SourceIdentity, package: &Unpacked) -> Self {
        Self {
            format: FORMAT,
            source: source(config),
            identity,
            digest: package.digest.clone(),
            model_digest: package.model_digest.clone(),
            bytes: package.bytes,
            files: package.files,
            nonce: format!("{:016x}", fastrand::u64(..)),
        }
    }

    /// The marker in a package's folder, if there is one that can be understood.
    ///
    /// # Errors
    /// `SystemError` if the disk does not say what is there.
    pub fn read(folder: &Path) -> Result<Option<Self>, FetchError> {
        let file = folder.join(OWN_FOLDER).join(FILE);
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(disk::error("cannot read", &file, &error)),
        };
        let marker: Option<Self> = serde_json::from_slice(&text).ok();
        Ok(marker.filter(|marker| marker.format == FORMAT))
    }

    /// Writes it: from now on, the package is complete.
    pub(super) fn write(&self, folder: &Path) -> Result<(), FetchError> {
        let own = folder.join(OWN_FOLDER);
        disk::create(&own)?;
        let text = serde_json::to_vec(self).unwrap_or_default();
        disk::replace(&own.join(FILE), &text)
    }

    /// Removes it: from now on, the package is incomplete.
    pub(super) fn remove(folder: &Path) -> Result<(), FetchError> {
        let file = folder.join(OWN_FOLDER).join(FILE);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(disk::error("cannot remove", &file, &error))
            }
            _ => disk::sync_folder_of(&file),
        }
    }

    /// Whether this is what is asked for, so that its source need not be asked: without a version, only a digest says so.
    #[must_use]
    pub fn is_of(&self, config: &FetchConfig) -> bool {
        let is_version = config
            .identity
            .as_ref()
            .map(|identity| *identity == self.identity);
        let is_digest = config.digest.as_ref().map(|digest| self.has(digest));
        let is_known = is_version.or(is_digest).unwrap_or(false);
        self.source == source(config) && is_known && is_digest != Some(false)
    }

    /// Whether a digest is that of the package, or of its `model.onnx`.
    #[must_use]
    pub fn has(&self, digest: &str) -> bool {
        digest == self.digest || digest == self.model_digest
    }

    /// That a package has the digest that is asked for, if one is: by its bytes. Where the digest is all that says which
    /// version this is, it must be that of all of them.
    ///
    /// # Errors
    /// `DigestMismatch` if not.
    pub fn check(&self, package: &Unpacked, wanted: Option<&str>) -> Result<(), FetchError> {
        check_digest(&package.digest, &package.model_digest, wanted)?;
        let is_of_all = package.files == 1 || wanted == Some(&package.digest);
        if self.identity.kind != IdentityKind::Digest || is_of_all {
            return Ok(());
        }
        let message = format!(
            "spec.model.digest is that of model.onnx alone, but its source gives no other version, so that nothing says which \
             {} other files belong to it: set it to {}, the digest of the package",
            package.files.saturating_sub(1),
            package.digest
        );
        Err(FetchError::new(FetchReason::DigestMismatch, message))
    }

    /// What is wrong with the package beside this marker. Whoever can write to its volume can write a marker too: it is
    /// believed in nothing that the package's bytes do not show.
    #[must_use]
    pub fn problem(&self, package: &Unpacked, wanted: Option<&str>) -> Option<String> {
        let Unpacked {
            digest, model_digest, ..
        } = package;
        if *digest != self.digest {
            return Some(format!("its digest is {digest}, not {}", self.digest));
        }
        if *model_digest != self.model_digest {
            let said = &self.model_digest;
            return Some(format!(
                "the digest of its model.onnx is {model_digest}, not {said}"
            ));
        }
        self.check(package, wanted).err().map(|error| error.message)
    }
}

/// Whether an error says that there is no such file.
fn is_absence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory
    )
}

/// That a digest is that of the package, or of its `model.onnx`, if one is asked for.
///
/// # Errors
/// `DigestMismatch` if not.
pub fn check_digest(package: &str, model: &str, wanted: Option<&str>) -> Result<(), FetchError> {
    match wanted {
        Some(wanted) if wanted != package && wanted != model => Err(FetchError::new(
            FetchReason::DigestMismatch,
            format!(
                "the package has digest {package} and its model.onnx {model}, but {wanted} is configured: set the digest to \
                 that of the model that you mean, or name the source that has it"
            ),
        )),
        _ => Ok(()),
    }
}

/// What the package in a folder is, from its bytes.
///
/// # Errors
/// `PackageInvalid` or `SystemError`, about the file that cannot be read.
pub async fn examine(folder: &Path) -> Result<Unpacked, FetchError> {
    let folder = folder.to_owned();
    blocking(move || describe(folder, &Known::new())).await
}

fn source(config: &FetchConfig) -> String {
    let text = format!(
        "{}\n{}",
        config.uri,
        config.endpoint.as_deref().unwrap_or_default()
    );
    format!("{:x}", Sha256::digest(text))
}
