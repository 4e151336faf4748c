//! The digest of a whole package: a hash of the names, sizes and SHA-256 of all its files, in a form that a shell can
//! produce too (docs/server.md).

use super::files::{BAKED_FOLDER, Content, Files, Hash, Most, Opened};
use super::walk::FileError;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// First line of the hashed text: no other kind of file begins with it.
const FORM: &str = "modelservice-package-v1\n";
/// A folder with more files is not a package.
pub const MOST_FILES: usize = 100_000;
/// The folder that ext4 has at its root, which only root can read.
const LOST_AND_FOUND: &str = "lost+found";
/// Prefix of the files that Kubernetes puts into a volume for its own use.
const KUBERNETES: &str = "..";
/// Suffix of the files next to a graph in which servers store the cost of batches.
const CURVES: &str = "-batches.json";

/// The files of a package as they were when they were read.
#[derive(Debug)]
pub struct Listing(Vec<Listed>);

#[derive(Debug)]
struct Listed {
    name: String,
    size: u64,
    hash: Hash,
    /// Where it really is, as in [`Opened`].
    place: PathBuf,
}

/// Files that have already been read, by their places: sizes in bytes, and hashes.
pub type Known = BTreeMap<PathBuf, (u64, Hash)>;

/// Why a package has no digest: the name of a file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{name:?} {error}")]
pub struct NoDigest {
    /// Relative to the package.
    pub name: PathBuf,
    /// Continues a sentence that begins with the name.
    #[source]
    pub error: FileError,
}

impl Listing {
    /// Reads all files except known ones; `most` limits their total size.
    ///
    /// # Errors
    /// Which file cannot be read or named, or that there are too many.
    pub fn read(files: &Files, known: &Known, mut most: Most) -> Result<Self, NoDigest> {
        let mut listed = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let in_folder = |error| NoDigest {
                name: folder.clone(),
                error,
            };
            for (entry, content) in files.list(&folder).map_err(in_folder)? {
                let name = folder.join(&entry);
                if is_left_out(&name) {
                    continue;
                }
                if content == Content::Folder {
                    folders.push(name);
                    continue;
                }
                let one = Listed::read(files, &name, content, known, &mut most);
                listed.push(one.map_err(|error| NoDigest { name, error })?);
                if listed.len() > MOST_FILES {
                    return Err(in_folder(FileError::Many(MOST_FILES)));
                }
            }
        }
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Self(listed))
    }

    /// `sha256:<64 hex>`.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(FORM);
        for Listed {
            name,
            size,
            hash: content,
            ..
        } in &self.0
        {
            hash.update(format!("{} {size} {name}\n", hex(content)));
        }
        text(&hash.finalize().into())
    }

    /// Digest of the file at this place.
    #[must_use]
    pub fn of_place(&self, place: &Path) -> Option<String> {
        let file = self.0.iter().find(|one| one.place == place)?;
        Some(text(&file.hash))
    }

    /// Size of all files in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().fold(0, |sum, one| sum.saturating_add(one.size))
    }

    /// How many files there are.
    #[must_use]
    pub const fn files(&self) -> usize {
        self.0.len()
    }

    /// Where the files really are, and their hashes.
    #[must_use]
    pub fn places(self) -> BTreeSet<(PathBuf, Hash)> {
        self.0.into_iter().map(|one| (one.place, one.hash)).collect()
    }
}

impl Listed {
    fn read(
        files: &Files,
        name: &Path,
        content: Content,
        known: &Known,
        most: &mut Most,
    ) -> Result<Self, FileError> {
        let text = name.to_str().filter(|name| !name.contains(char::is_control));
        let text = text.ok_or(FileError::Name)?.to_owned();
        let mut opened = match (files.open(name), content) {
            // The folder's content is listed where it is; here only its place counts.
            (Err(FileError::Kind(_)), Content::Link(target)) if files.is_folder(name) => {
                let target = target.as_os_str().as_encoded_bytes();
                return Ok(Self {
                    name: text,
                    size: target.len() as u64,
                    hash: Sha256::digest(target).into(),
                    place: PathBuf::new(),
                });
            }
            (opened, _) => opened?,
        };
        let place = opened.place.clone();
        let (size, hash) = match known.get(&place) {
            Some(&known) => known,
            None => hash(&mut opened, most)?,
        };
        Ok(Self {
            name: text,
            size,
            hash,
            place,
        })
    }
}

fn hash(opened: &mut Opened, left: &mut Most) -> Result<(u64, Hash), FileError> {
    let Most { bytes: most, advice } = *left;
    let size = opened.size;
    if size > most {
        return Err(FileError::TooLarge { size, most, advice });
    }
    left.bytes -= size;
    let mut hash = Sha256::new();
    let read = io::copy(&mut opened.take(size.saturating_add(1)), &mut hash)?;
    if read != size {
        return Err(FileError::Changed);
    }
    Ok((size, hash.finalize().into()))
}

/// Whether the digest leaves this file or folder out, by its name relative to the package: what the system puts there,
/// and what servers measure.
#[must_use]
pub fn is_left_out(name: &Path) -> bool {
    let is_at_root = name.components().count() == 1;
    let ends = |end: &str| name.as_os_str().as_encoded_bytes().ends_with(end.as_bytes());
    let begins = |start: &str| name.as_os_str().as_encoded_bytes().starts_with(start.as_bytes());
    (is_at_root && (begins(KUBERNETES) || name == Path::new(LOST_AND_FOUND)))
        || (name.starts_with(BAKED_FOLDER) && ends(CURVES))
}

/// `sha256:<64 hex>`.
#[must_use]
pub fn text(hash: &Hash) -> String {
    format!("sha256:{}", hex(hash))
}

fn hex(hash: &Hash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
