//! A model package: a folder with `model.onnx` and, optionally, `model.yaml`, read once into memory.
//!
//! The model is read into a private copy and never mapped: a file that is truncated under a memory map
//! kills the process with SIGBUS.

pub mod manifest;
mod reading;
mod schema;
#[cfg(test)]
mod tests;
mod weights;

pub use modelservice_package::{BAKED_FOLDER, MANIFEST_FILE, MODEL_FILE};
pub(crate) use reading::what_fits;
pub use schema::SCHEMA;
pub use weights::ExternalFile;

use crate::onnx;
use crate::process::exit::{self, Fatal, OnProblem, noted};
use bytes::Bytes;
use manifest::Manifest;
use modelservice_contract::{DigestCovers, ExitReason, ModelConfig};
use modelservice_package::{FileError, Files, Hash, Known, Listing, Loaded, Most, text};
use reading::refused;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use weights::read_external;

/// A Protocol Buffers file cannot be larger.
const LARGEST_MODEL: Most = Most {
    bytes: i32::MAX as u64,
    advice: "keep its weights in a file beside it (external data)",
};

/// Limit on hashing other files for a digest that was requested, so that hashing always ends.
const MOST_HASHED: Most = Most {
    bytes: 1 << 40,
    advice: "remove files that do not belong in the package",
};
/// Limit on hashing them for a digest that was not requested: it must not delay the start.
const MOST_HASHED_UNASKED: Most = Most {
    bytes: 1 << 30,
    advice: "modelservice-server digest FOLDER prints the digest anyway",
};

/// The digest of a package.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Digest {
    /// `sha256:<64 hex>`.
    pub text: String,
    /// What it is the digest of.
    pub covers: DigestCovers,
    /// Whether it has been compared with the configured one.
    pub is_checked: bool,
}

/// What a package holds.
#[derive(Debug)]
pub struct Package {
    /// Where it is.
    pub folder: PathBuf,
    /// The bytes of `model.onnx`.
    pub model: Bytes,
    /// The files beside it with its weights (ONNX external data).
    pub external: Vec<ExternalFile>,
    /// The digest of `model.onnx`, or of the whole package.
    pub digest: Digest,
    /// `model.yaml`, where there is one.
    pub manifest: Option<Manifest>,
    model_hash: Hash,
}

/// A package, and what its model says: the latter can be large, and is not needed for long.
#[derive(Debug)]
pub struct Parsed {
    /// What it holds.
    pub package: Package,
    /// What `model.onnx` says, or why that cannot be read here; perhaps ONNX Runtime can.
    pub(crate) onnx: Result<onnx::Model, String>,
}

impl Package {
    /// Hash of everything that is run: `model.onnx` and the files in which it keeps weights. The same as the digest
    /// of `model.onnx` if there are none.
    #[must_use]
    pub fn identity(&self) -> String {
        let model = text(&self.model_hash);
        if self.external.is_empty() {
            return model;
        }
        let mut hash = Sha256::new();
        hash.update(model);
        for ExternalFile { name, hash: file, .. } in &self.external {
            hash.update(name);
            hash.update(file);
        }
        text(&hash.finalize().into())
    }

    /// Whether the configured digest also covers an optimised graph in the package: not if it covers only
    /// `model.onnx`.
    #[must_use]
    pub fn vouches_for_graphs(&self) -> bool {
        !self.digest.is_checked || self.digest.covers == DigestCovers::Package
    }
}

/// Reads the package and checks the digest before anything is parsed.
///
/// # Errors
/// `ModelMissing`, `ModelDigestMismatch`, `ModelInvalid` (of `model.yaml`) or `SystemError`.
pub fn open(config: &ModelConfig) -> Result<Parsed, Fatal> {
    let parsed = open_noting(config, &mut exit::end)?;
    Ok(parsed.unwrap_or_else(|| unreachable!("it ended with the first problem")))
}

/// The same, and goes on after a problem that is noted. `None` if there was one without which the model cannot be run.
///
/// # Errors
/// As [`open`]; also if the folder cannot be opened.
pub(crate) fn open_noting(
    config: &ModelConfig,
    on_problem: &mut OnProblem<'_>,
) -> Result<Option<Parsed>, Fatal> {
    let folder = Path::new(&config.path);
    let mut files = open_folder(folder)?;
    let Some(model) = noted(read_model(&files, folder), on_problem)? else {
        manifest::read(&files, on_problem)?;
        return Ok(None);
    };
    let wanted = config.digest.as_ref();
    let of_model = text(&model.hash);
    if let Some(wanted) = wanted.filter(|&wanted| *wanted != of_model) {
        let listing = list(&files, &model, &[], MOST_HASHED);
        let listing = listing.and_then(|listing| checked(listing, folder, &of_model, wanted));
        if let Some(listing) = noted(listing, on_problem)? {
            files.pin(listing.places());
        }
    }
    let onnx = onnx::Model::read(model.bytes.clone());
    let named = onnx.as_ref().map(onnx::Model::external_files).unwrap_or_default();
    if wanted == Some(&of_model) && !named.is_empty() {
        on_problem(covers_no_weights(&files, &model, &named))?;
    }
    let external = read_external(&files, named, on_problem)?;
    let manifest = manifest::read(&files, on_problem)?;
    let Some(external) = external else {
        return Ok(None);
    };
    let package = Package {
        folder: folder.to_owned(),
        digest: match wanted {
            Some(wanted) => Digest {
                text: wanted.clone(),
                covers: if *wanted == of_model {
                    DigestCovers::ModelFile
                } else {
                    DigestCovers::Package
                },
                is_checked: true,
            },
            None => unasked(&files, &model, &external),
        },
        manifest,
        external,
        model_hash: model.hash,
        model: model.bytes,
    };
    Ok(Some(Parsed { package, onnx }))
}

/// The digest of the whole package in a folder, for use in a configuration.
///
/// # Errors
/// `ModelMissing`, `ModelInvalid` or `SystemError`.
pub fn digest(folder: &Path) -> Result<String, Fatal> {
    let files = open_folder(folder)?;
    let model = read_model(&files, folder)?;
    Ok(list(&files, &model, &[], MOST_HASHED)?.digest())
}

/// All files; those that were read before are listed as they were then.
fn list(files: &Files, model: &Loaded, external: &[ExternalFile], most: Most) -> Result<Listing, Fatal> {
    let known = |place: &Path, size: usize, hash| (place.to_owned(), (size as u64, hash));
    let model = known(&model.place, model.bytes.len(), model.hash);
    let external = external
        .iter()
        .map(|file| known(&file.place, file.bytes.len(), file.hash));
    let known: Known = external.chain([model]).collect();
    Listing::read(files, &known, most).map_err(|problem| {
        let shown = format!("the package has no digest: {:?}", problem.name);
        refused(&shown, problem.error)
    })
}

fn checked(listing: Listing, folder: &Path, of_model: &str, wanted: &str) -> Result<Listing, Fatal> {
    let of_package = listing.digest();
    if of_package == wanted {
        return Ok(listing);
    }
    let message = format!(
        "{MODEL_FILE} in {} has digest {of_model}, and the whole package has {of_package}, but {wanted} is \
         configured: set the digest to that of the model that you mean, or use the package that holds it",
        folder.display()
    );
    Err(Fatal::new(ExitReason::ModelDigestMismatch, message))
}

/// Otherwise other weights could be served under the digest of `model.onnx`.
fn covers_no_weights(files: &Files, model: &Loaded, named: &BTreeSet<String>) -> Fatal {
    let give = match list(files, model, &[], MOST_HASHED) {
        Ok(listing) => format!("use the digest of the whole package, {}", listing.digest()),
        Err(fatal) => fatal.message,
    };
    let message = format!(
        "the configured digest covers only {MODEL_FILE}, which stores weights in {}: {give} \
         (modelservice-server digest FOLDER prints it)",
        Vec::from_iter(named.iter().map(String::as_str)).join(", ")
    );
    Fatal::new(ExitReason::ModelDigestMismatch, message)
}

/// The digest that would pin the current package.
fn unasked(files: &Files, model: &Loaded, external: &[ExternalFile]) -> Digest {
    let of_model = Digest {
        text: text(&model.hash),
        ..Digest::default()
    };
    if external.is_empty() {
        return of_model;
    }
    match list(files, model, external, MOST_HASHED_UNASKED) {
        Ok(listing) => Digest {
            text: listing.digest(),
            covers: DigestCovers::Package,
            is_checked: false,
        },
        Err(fatal) => {
            tracing::warn!("{}; the report shows the digest of {MODEL_FILE}", fatal.message);
            of_model
        }
    }
}

fn open_folder(folder: &Path) -> Result<Files, Fatal> {
    Files::of(folder).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => missing(folder),
        _ => refused(&folder.display().to_string(), error.into()),
    })
}

fn read_model(files: &Files, folder: &Path) -> Result<Loaded, Fatal> {
    let shown = folder.join(MODEL_FILE).display().to_string();
    match files.load(MODEL_FILE, LARGEST_MODEL) {
        Ok(model) if model.bytes.is_empty() => Err(Fatal::new(
            ExitReason::ModelInvalid,
            format!("{shown} is empty: export the model again"),
        )),
        Ok(model) => Ok(model),
        Err(FileError::Missing) => Err(missing(folder)),
        Err(error) => Err(refused(&shown, error)),
    }
}

fn missing(folder: &Path) -> Fatal {
    let shown = folder.display();
    let message = match listing(folder) {
        Err(_) if folder.is_file() => {
            format!("the model package {shown} is a file: give the folder that holds {MODEL_FILE} instead")
        }
        Err(_) => format!("the model package {shown} does not exist: check the path or the volume"),
        Ok(names) if names.is_empty() => format!(
            "the model package {shown} is empty: an OCI artifact is mounted as an empty folder, \
             only an OCI image with {MODEL_FILE} at its root can be used (build one with examples/package)"
        ),
        Ok(names) => format!(
            "the model package {shown} has no {MODEL_FILE}, only: {}; put {MODEL_FILE} at the root of the \
             image",
            names.join(", ")
        ),
    };
    Fatal::new(ExitReason::ModelMissing, message)
}

/// The first names in a folder, sorted.
fn listing(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .take(10)
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}
