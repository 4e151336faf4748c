//! The files of a package: their names and contents. Nothing is read from outside the package, and nothing beyond a
//! given size.

use super::walk::{FileError, Found, Root, Walk};
use bytes::Bytes;
use rustix::fs::{Dir, FileType, Mode, OFlags, openat};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Name of the model file in a package.
pub const MODEL_FILE: &str = "model.onnx";
/// Name of the manifest in a package.
pub const MANIFEST_FILE: &str = "model.yaml";
/// Folder of a package for graphs that `modelservice-server optimize` has optimised.
pub const BAKED_FOLDER: &str = ".optimized";
/// Where Hugging Face's cache stores files. Folders next to it, one per revision, link to them.
const BLOBS: &str = "blobs";
const SNAPSHOTS: &str = "snapshots";

/// A SHA-256.
pub type Hash = [u8; 32];

/// How much of a file may be read, and what to do if it is larger.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// In bytes.
    pub bytes: u64,
    /// What to do.
    pub advice: &'static str,
}

impl Most {
    /// For a text file.
    #[must_use]
    pub const fn text() -> Self {
        Self {
            bytes: 16 << 20,
            advice: "find out why it is so large",
        }
    }
}

/// A regular file that is open.
#[derive(Debug)]
pub struct Opened {
    file: File,
    /// Where it really is, below what the package may reach.
    pub place: PathBuf,
    /// In bytes.
    pub size: u64,
}

/// A file's bytes.
#[derive(Debug)]
pub struct Loaded {
    /// All of them.
    pub bytes: Bytes,
    /// Their SHA-256.
    pub hash: Hash,
    /// Where it really is, below what the package may reach.
    pub place: PathBuf,
}

/// What a name in a folder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A folder.
    Folder,
    /// A link, and where it leads.
    Link(PathBuf),
    /// Anything else.
    Other,
}

/// The files of one package.
#[derive(Debug)]
pub struct Files {
    root: Root,
    /// The places and hashes that all files must have, if they are known.
    pinned: Option<BTreeSet<(PathBuf, Hash)>>,
}

impl Files {
    /// The files of the package in this folder. The folder's own name is trusted, and may be a link. Links in it may lead
    /// to files in it, and in Hugging Face's cache (`…/snapshots/REVISION`) to `…/blobs` too.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let whole = folder.canonicalize()?;
        let (path, start) = reach(&whole);
        let root = Root {
            folder: open_folder(path, OFlags::empty())?,
            path: path.to_owned(),
            start: start.to_owned(),
            follows_links: true,
        };
        Ok(Self { root, pinned: None })
    }

    /// The files in a folder that only servers write. Servers never create links, so links are not followed, and the
    /// folder itself must not be one.
    ///
    /// # Errors
    /// When the folder cannot be opened.
    pub fn without_links(folder: &Path) -> io::Result<Self> {
        let root = Root {
            folder: open_folder(folder, OFlags::NOFOLLOW)?,
            path: folder.to_owned(),
            start: PathBuf::new(),
            follows_links: false,
        };
        Ok(Self { root, pinned: None })
    }

    /// Reads a file, by its name relative to the package.
    ///
    /// # Errors
    /// When there is no such file in the package, or it is too large.
    pub fn read(&self, name: impl AsRef<Path>, most: Most) -> Result<Vec<u8>, FileError> {
        Ok(self.load(name, most)?.bytes.into())
    }

    /// The same, with the file's hash and place.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn load(&self, name: impl AsRef<Path>, most: Most) -> Result<Loaded, FileError> {
        let mut opened = self.open(name)?;
        let bytes = Bytes::from(opened.read_all(most)?);
        let hash = Sha256::digest(&bytes).into();
        let place = opened.place;
        match &self.pinned {
            Some(pinned) if !pinned.contains(&(place.clone(), hash)) => Err(FileError::Changed),
            _ => Ok(Loaded { bytes, hash, place }),
        }
    }

    /// From now on, only files with these places and hashes can be read.
    pub fn pin(&mut self, files: BTreeSet<(PathBuf, Hash)>) {
        self.pinned = Some(files);
    }

    /// The contents of a folder of the package.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn list(&self, folder: &Path) -> Result<Vec<(OsString, Content)>, FileError> {
        let walk = Walk::new(&self.root, &Path::new(".").join(folder))?.into_folder()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let readable = openat(walk.here(), ".", flags, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&readable)? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name == "." || name == ".." {
                continue;
            }
            let content = match walk.kind(&name)? {
                FileType::Directory => Content::Folder,
                FileType::Symlink => Content::Link(walk.target_of(&name)?),
                _ => Content::Other,
            };
            entries.push((name, content));
        }
        Ok(entries)
    }

    /// Whether there is a folder with that name, or a link with that name to a folder.
    #[must_use]
    pub fn is_folder(&self, name: &Path) -> bool {
        Walk::new(&self.root, name).is_ok_and(|walk| walk.into_folder().is_ok())
    }

    /// Opens a file, by its name relative to the package.
    ///
    /// # Errors
    /// When there is no such file in the package.
    pub fn open(&self, name: impl AsRef<Path>) -> Result<Opened, FileError> {
        let Found { file, place, size } = Walk::new(&self.root, name.as_ref())?.into_file()?;
        if place.starts_with(&self.root.start) || place.starts_with(BLOBS) {
            Ok(Opened { file, place, size })
        } else {
            Err(FileError::Outside)
        }
    }
}

impl Opened {
    /// Reads all of it.
    ///
    /// # Errors
    /// When it is larger than allowed, or reading fails.
    pub fn read_all(&mut self, most: Most) -> Result<Vec<u8>, FileError> {
        let Most { bytes: most, advice } = most;
        let too_large = |size| FileError::TooLarge { size, most, advice };
        if self.size > most {
            return Err(too_large(self.size));
        }
        let mut bytes = Vec::new();
        let room = usize::try_from(self.size).unwrap_or(usize::MAX);
        bytes.try_reserve_exact(room).map_err(|_| too_large(self.size))?;
        // The file may grow while it is read.
        let read = (&self.file)
            .take(most.saturating_add(1))
            .read_to_end(&mut bytes)?;
        if read as u64 > most {
            return Err(too_large(read as u64));
        }
        Ok(bytes)
    }

    /// The file itself, for other ways of reading.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }
}

impl Read for Opened {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

/// The folder that a package may read from, and the package's place in it. The folder is the package itself, or a
/// repository in Hugging Face's cache.
fn reach(folder: &Path) -> (&Path, &Path) {
    let repository = |snapshots: &'_ Path| {
        let repository = snapshots.parent()?;
        let is_one = snapshots.file_name()? == SNAPSHOTS && repository.join(BLOBS).is_dir();
        is_one.then_some(())
    };
    let below = folder.ancestors().skip(1);
    let snapshots = below.into_iter().find(|ancestor| repository(ancestor).is_some());
    let root = snapshots.and_then(Path::parent).unwrap_or(folder);
    (root, folder.strip_prefix(root).unwrap_or(Path::new("")))
}

fn open_folder(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}
