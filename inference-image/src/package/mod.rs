//! A model package: a folder with `model.onnx` and, optionally, `model.yaml`, read once into memory.
//!
//! The model is read into a private copy and never mapped: a file that is truncated under a memory map
//! kills the process with SIGBUS.

mod files;
pub mod manifest;
pub(crate) mod proto;

pub use files::{MANIFEST_FILE, MODEL_FILE};

use crate::process::exit::Fatal;
use files::{is_inside, unreadable};
use manifest::Manifest;
use modelservice_contract::{ExitReason, ModelConfig};
use prost::Message;
use sha2::{Digest, Sha256};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name and bytes of a file with weights.
pub type ExternalFile = (String, Arc<[u8]>);

/// What a package holds.
#[derive(Debug)]
pub struct Package {
    /// Where it is.
    pub folder: PathBuf,
    /// The bytes of `model.onnx`.
    pub model: Arc<Vec<u8>>,
    /// Each file beside it in which it keeps weights (ONNX external data).
    pub external: Vec<ExternalFile>,
    /// `sha256:<64 hex>` of `model.onnx`.
    pub digest: String,
    /// `model.yaml`, where there is one.
    pub manifest: Option<Manifest>,
}

impl Package {
    /// Hash of everything that is run: `model.onnx` and the files in which it keeps weights. The same as the digest
    /// where there are none.
    #[must_use]
    pub fn identity(&self) -> String {
        if self.external.is_empty() {
            return self.digest.clone();
        }
        let mut hash = Sha256::new();
        hash.update(&self.digest);
        for (name, bytes) in &self.external {
            hash.update(name);
            hash.update(Sha256::digest(bytes));
        }
        format!("sha256:{:x}", hash.finalize())
    }
}

/// Reads the package and checks the digest before anything is parsed.
///
/// # Errors
/// `ModelMissing`, `ModelDigestMismatch`, `ModelInvalid` (of `model.yaml`) or `SystemError`.
pub fn open(config: &ModelConfig) -> Result<Package, Fatal> {
    let folder = Path::new(&config.path);
    let model = read_model(folder)?;
    let digest = format!("sha256:{:x}", Sha256::digest(&model));
    if let Some(wanted) = config.digest.as_ref().filter(|&wanted| *wanted != digest) {
        let message = format!(
            "{MODEL_FILE} in {} has digest {digest}, but {wanted} was asked for: \
             set the digest to that of the model that you mean, or use the package that holds it",
            folder.display()
        );
        return Err(Fatal::new(ExitReason::ModelDigestMismatch, message));
    }
    Ok(Package {
        folder: folder.to_owned(),
        external: read_external(folder, &model)?,
        model: Arc::new(model),
        digest,
        manifest: manifest::read(folder)?,
    })
}

fn read_external(folder: &Path, model: &[u8]) -> Result<Vec<ExternalFile>, Fatal> {
    let read = |name: String| {
        let invalid = |problem: String| Fatal::new(ExitReason::ModelInvalid, problem);
        if !is_inside(&name) {
            return Err(invalid(format!(
                "{MODEL_FILE} keeps weights in {name:?}, which is outside its package: export it with the file beside it"
            )));
        }
        let path = folder.join(&name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok((name, bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(invalid(format!(
                "{MODEL_FILE} keeps weights in {name:?}, which the package {} does not have: \
                 put it beside {MODEL_FILE} (external data)",
                folder.display()
            ))),
            Err(error) => Err(unreadable(&path, &error)),
        }
    };
    let model = proto::ModelProto::decode(model).unwrap_or_default();
    let names = model.external_files().into_iter().map(str::to_owned);
    names.map(read).collect()
}

fn read_model(folder: &Path) -> Result<Vec<u8>, Fatal> {
    let path = folder.join(MODEL_FILE);
    match std::fs::read(&path) {
        Ok(model) if model.is_empty() => Err(Fatal::new(
            ExitReason::ModelInvalid,
            format!("{} is empty: export the model again", path.display()),
        )),
        Ok(model) => Ok(model),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(missing(folder))
        }
        Err(error) => Err(unreadable(&path, &error)),
    }
}

fn missing(folder: &Path) -> Fatal {
    let shown = folder.display();
    let message = match listing(folder) {
        Err(_) => format!("the model package {shown} is not there: check the path or the volume"),
        Ok(names) if names.is_empty() => format!(
            "the model package {shown} is empty: an OCI artifact is mounted as an empty folder, \
             only an OCI image with {MODEL_FILE} at its root can be used (build one with examples/package)"
        ),
        Ok(names) => format!(
            "the model package {shown} has no {MODEL_FILE}, it holds: {}; put {MODEL_FILE} at the root of the image",
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
