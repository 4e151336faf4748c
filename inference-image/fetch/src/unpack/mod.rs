//! Makes one model package of what came: files, an archive, or the layers of an image. Nothing leaves the package's folder,
//! and everything is bounded. Archives are read as streams.

mod bounds;
mod compression;
mod error;
mod name;
mod settle;
mod tar;
mod tree;
mod zip;

pub use bounds::Bounds;

use crate::disk;
use crate::download::Downloaded;
use crate::error::FetchError;
use crate::source::{Form, Found, Object};
use compression::{Format, tar_in};
use error::UnpackError;
use modelservice_package::{FileError, Files, Known, Listing, Most, NoDigest};
use std::path::{Path, PathBuf};
use tar::Role;
use tree::Tree;

/// Folder in which a package is put together.
const TREE: &str = "tree";
/// Folder of the package, once it is complete.
const PACKAGE: &str = "package";

/// A package that is complete.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// Where it is.
    pub folder: PathBuf,
    /// Its digest (`modelservice-package-v1`).
    pub digest: String,
    /// The digest of `model.onnx`.
    pub model_digest: String,
    /// Bytes of all files.
    pub bytes: u64,
    /// How many files.
    pub files: usize,
}

/// Makes a package of what was downloaded, in a folder below `work`. Blocks.
///
/// # Errors
/// `PackageInvalid`, with the name of the entry that breaks a rule; `SystemError` if the disk is full.
pub fn unpack(
    found: &Found,
    downloaded: &[Downloaded],
    work: &Path,
    bounds: Bounds,
) -> Result<Unpacked, FetchError> {
    let (root, folder) = (work.join(TREE), work.join(PACKAGE));
    disk::remove(&folder)?;
    let named = |error: UnpackError| error.of(&found.objects[0].key);
    let mut tree = Tree::new(&root, bounds).map_err(named)?;
    for (object, file) in found.objects.iter().zip(downloaded) {
        let added = match (found.form, Format::of_name(&object.name)) {
            (Form::Layers, format) => {
                tree.next_layer();
                match format {
                    Some(_) => layer(file, &mut tree),
                    None => adopt(object, file, &mut tree),
                }
            }
            (Form::Files, Some(_)) if found.objects.len() == 1 => archive(file, &mut tree),
            (Form::Files, _) => adopt(object, file, &mut tree),
        };
        added.map_err(|error| error.of(&object.key))?;
    }
    let known = settle::settle(&tree, &root, &folder).map_err(named)?;
    disk::remove(&root)?;
    describe(folder, &known)
}

/// What is in a package's folder, without reading files again that are known.
pub(crate) fn describe(folder: PathBuf, known: &Known) -> Result<Unpacked, FetchError> {
    let files = Files::of(&folder).map_err(|error| disk::error("cannot read", &folder, &error))?;
    let everything = Most {
        bytes: u64::MAX,
        advice: "",
    };
    let listing = Listing::read(&files, known, everything).map_err(|problem| no_digest(&problem))?;
    let model = files.open(modelservice_package::MODEL_FILE).map_err(|error| {
        let name = modelservice_package::MODEL_FILE.into();
        no_digest(&NoDigest { name, error })
    })?;
    let model_digest = listing.of_place(&model.place);
    Ok(Unpacked {
        digest: listing.digest(),
        model_digest: model_digest.unwrap_or_default(),
        bytes: listing.bytes(),
        files: listing.files(),
        folder,
    })
}

fn no_digest(problem: &NoDigest) -> FetchError {
    // A disk that fails says nothing about the package.
    if let FileError::Io(error) = &problem.error
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return disk::error("cannot read", &problem.name, error);
    }
    UnpackError::entry(problem.name.display().to_string(), problem.error.to_string()).of("the package")
}

fn archive(file: &Downloaded, tree: &mut Tree) -> Result<(), UnpackError> {
    let mut opened = tree::open(&file.path)?;
    match Format::of_content(&mut opened)? {
        Format::Zip => zip::unpack(opened, tree::open(&file.path)?, tree),
        format => tar::unpack(tar_in(opened, format), Role::Whole, tree),
    }
}

fn layer(file: &Downloaded, tree: &mut Tree) -> Result<(), UnpackError> {
    let mut opened = tree::open(&file.path)?;
    match Format::of_content(&mut opened)? {
        Format::Zip => Err(UnpackError::Archive(
            "it is a zip, which is no layer of an image".into(),
        )),
        format => tar::unpack(tar_in(opened, format), Role::Layer, tree),
    }
}

fn adopt(object: &Object, file: &Downloaded, tree: &mut Tree) -> Result<(), UnpackError> {
    let name = name::plain(object.name.as_bytes()).map_err(|why| UnpackError::entry(&object.name, why))?;
    tree.adopt(&name, &file.path, file.size, file.hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use modelservice_contract::FetchReason;
    use rustix::io::Errno;

    /// Otherwise a package is thrown away because its volume fails for a moment.
    #[test]
    fn a_disk_that_fails_is_no_damage() {
        for (error, reason) in [
            (FileError::Io(Errno::IO.into()), FetchReason::SystemError),
            (FileError::Io(Errno::STALE.into()), FetchReason::SystemError),
            (FileError::Io(Errno::ACCESS.into()), FetchReason::SystemError),
            (FileError::Missing, FetchReason::PackageInvalid),
            (FileError::Changed, FetchReason::PackageInvalid),
        ] {
            let name = "model.onnx".into();
            let failure = no_digest(&NoDigest { name, error });
            assert_eq!(failure.reason, reason, "{}", failure.message);
        }
    }
}
