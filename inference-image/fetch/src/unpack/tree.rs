//! The folder of a package while it is put together. It contains no links until the end, so that no entry can be written
//! through one.

use super::bounds::{Bounds, Left};
use super::error::UnpackError;
use super::name;
use crate::disk;
use modelservice_package::Hash;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Files are read by other users than the one who writes them. Neither can execute them, and no setuid bit stays.
const FILE_MODE: u32 = 0o644;
const BUFFER: usize = 128 << 10;
/// Smaller files are left to the system: a crash of the machine may lose them, which the next start notices by the digest.
const WORTH_A_SYNC: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    File {
        size: u64,
        hash: Hash,
    },
    /// Leads to this, as it was written.
    Link(String),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// As it was written, if that is not in lower case.
    name: Option<String>,
    pub(super) kind: Kind,
    /// The layer that wrote it.
    layer: usize,
}

impl Entry {
    /// Its name as it was written.
    pub(super) fn name<'a>(&'a self, folded: &'a str) -> &'a str {
        self.name.as_deref().unwrap_or(folded)
    }
}

/// The folder of a package while it is put together.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    left: Left,
    layer: usize,
    /// By name in lower case, so that no two differ only in that: on some machines they would be one file.
    entries: BTreeMap<String, Entry>,
}

impl Tree {
    /// An empty folder; what was there is removed.
    pub(super) fn new(root: &Path, bounds: Bounds) -> Result<Self, UnpackError> {
        disk::remove(root)?;
        fs::create_dir_all(root).map_err(|error| disk::error("cannot create", root, &error))?;
        Ok(Self {
            root: root.to_owned(),
            left: Left::new(bounds),
            layer: 0,
            entries: BTreeMap::new(),
        })
    }

    /// From now on, entries come over those of the layers before.
    pub(super) const fn next_layer(&mut self) {
        self.layer += 1;
    }

    pub(super) const fn left(&mut self) -> &mut Left {
        &mut self.left
    }

    /// What there is, by name in lower case.
    pub(super) const fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// A folder.
    pub(super) fn folder(&mut self, name: &str) -> Result<(), UnpackError> {
        if name.is_empty() {
            return Ok(());
        }
        if let Some(entry) = self.entries.get(&fold(name))
            && entry.kind == Kind::Folder
            && entry.name(&fold(name)) == name
        {
            // Archives often list a folder after the files in it.
            return Ok(());
        }
        self.make_room(name)?;
        let path = self.root.join(name);
        fs::create_dir(&path).map_err(|error| disk::error("cannot create", &path, &error))?;
        self.insert(name, Kind::Folder);
        Ok(())
    }

    /// A file with this content.
    pub(super) fn file(&mut self, name: &str, content: &mut impl Read) -> Result<(), UnpackError> {
        self.make_room(name)?;
        let path = self.root.join(name);
        let failed = |error: &std::io::Error| UnpackError::from(disk::error("cannot write", &path, error));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(FILE_MODE).open(&path);
        let mut file = file.map_err(|error| failed(&error))?;
        let (mut size, mut hash) = (0, Sha256::new());
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = content.read(&mut buffer);
            let read = read.map_err(|error| match UnpackError::reading(&error) {
                UnpackError::Archive(why) => UnpackError::entry(name, format!("cannot be unpacked: {why}")),
                other => other,
            })?;
            if read == 0 {
                break;
            }
            self.left.take_bytes(name, read as u64)?;
            file.write_all(&buffer[..read]).map_err(|error| failed(&error))?;
            hash.update(&buffer[..read]);
            size += read as u64;
        }
        if size >= WORTH_A_SYNC {
            file.sync_data().map_err(|error| failed(&error))?;
        }
        let hash = hash.finalize().into();
        self.insert(name, Kind::File { size, hash });
        Ok(())
    }

    /// A file that is on disk already. It stays where it is too, where the file system allows that.
    pub(super) fn adopt(
        &mut self,
        name: &str,
        file: &Path,
        size: u64,
        hash: Hash,
    ) -> Result<(), UnpackError> {
        self.make_room(name)?;
        self.left.take_bytes(name, size)?;
        let path = self.root.join(name);
        let linked = fs::hard_link(file, &path).or_else(|_| fs::rename(file, &path));
        let linked = linked.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(FILE_MODE)));
        linked.map_err(|error| disk::error("cannot create", &path, &error))?;
        self.insert(name, Kind::File { size, hash });
        Ok(())
    }

    /// Another name for a file that came before.
    pub(super) fn hard_link(&mut self, name: &str, target: &str) -> Result<(), UnpackError> {
        let entry = self.entries.get(&fold(target));
        let same = entry.filter(|entry| entry.name(&fold(target)) == target);
        let Some(Kind::File { size, hash }) = same.map(|entry| entry.kind.clone()) else {
            let why = format!("is a hard link to {target:?}, which is no file that came before it");
            return Err(UnpackError::entry(name, why));
        };
        self.make_room(name)?;
        self.left.take_bytes(name, size)?;
        let (from, to) = (self.root.join(target), self.root.join(name));
        let linked = fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(|_| ()));
        linked.map_err(|error| disk::error("cannot create", &to, &error))?;
        self.insert(name, Kind::File { size, hash });
        Ok(())
    }

    /// A link. It is written at the end.
    pub(super) fn link(&mut self, name: &str, target: &str) -> Result<(), UnpackError> {
        self.make_room(name)?;
        self.insert(name, Kind::Link(target.to_owned()));
        Ok(())
    }

    /// Removes what lower layers have at this name.
    pub(super) fn white_out(&mut self, name: &str) -> Result<(), UnpackError> {
        self.clear(name)?;
        let folded = fold(name);
        let is_lower = |entry: &Entry| entry.layer < self.layer;
        let is_empty = self.below(&folded).next().is_none();
        if is_empty && self.entries.get(&folded).is_some_and(is_lower) {
            self.remove(&folded)?;
        }
        Ok(())
    }

    /// Removes what lower layers have in this folder.
    pub(super) fn clear(&mut self, folder: &str) -> Result<(), UnpackError> {
        let names: Vec<String> = self.below(&fold(folder)).map(|(name, _)| name.clone()).collect();
        // Deepest first, so that folders are empty when their turn comes.
        for name in names.iter().rev() {
            let is_lower = self.entries[name].layer < self.layer;
            if is_lower && self.below(name).next().is_none() {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    /// The entries in a folder, at any depth.
    fn below(&self, folded: &str) -> impl Iterator<Item = (&String, &Entry)> {
        // `0` follows `/`. Of the root, everything is below.
        let (from, to) = match folded {
            "" => (String::new(), "\u{10ffff}".to_owned()),
            folder => (format!("{folder}/"), format!("{folder}0")),
        };
        self.entries.range(from..to)
    }

    /// Makes the folders above a name, and sees that nothing is in its place.
    fn make_room(&mut self, name: &str) -> Result<(), UnpackError> {
        self.left.take_entry(name)?;
        if name.is_empty() {
            return Err(UnpackError::entry(
                "/",
                "is not a folder, but stands for the whole package",
            ));
        }
        for folder in name::folders(name) {
            let folded = fold(folder);
            match self.entries.get(&folded) {
                None => self.folder(folder)?,
                Some(entry) if entry.name(&folded) != folder => {
                    return Err(differs_by_case(name, entry.name(&folded)));
                }
                Some(entry) if entry.kind == Kind::Folder => {}
                Some(_) => {
                    let why = format!("is below {folder:?}, which is no folder");
                    return Err(UnpackError::entry(name, why));
                }
            }
        }
        let folded = fold(name);
        match self.entries.get(&folded) {
            None => Ok(()),
            Some(entry) if entry.name(&folded) != name => Err(differs_by_case(name, entry.name(&folded))),
            Some(entry) if entry.layer == self.layer => {
                Err(UnpackError::entry(name, "is in the archive twice: pack it again"))
            }
            Some(_) => {
                self.clear(name)?;
                self.remove(&folded)
            }
        }
    }

    fn insert(&mut self, name: &str, kind: Kind) {
        let folded = fold(name);
        let entry = Entry {
            name: (folded != name).then(|| name.to_owned()),
            kind,
            layer: self.layer,
        };
        self.entries.insert(folded, entry);
    }

    fn remove(&mut self, folded: &str) -> Result<(), UnpackError> {
        let Some(entry) = self.entries.remove(folded) else {
            return Ok(());
        };
        let path = self.root.join(entry.name(folded));
        let removed = match entry.kind {
            Kind::Folder => fs::remove_dir(&path),
            Kind::File { .. } => fs::remove_file(&path),
            Kind::Link(_) => Ok(()),
        };
        Ok(removed.map_err(|error| disk::error("cannot remove", &path, &error))?)
    }
}

/// Opens a file that was downloaded.
pub(super) fn open(path: &Path) -> Result<File, UnpackError> {
    Ok(File::open(path).map_err(|error| disk::error("cannot read", path, &error))?)
}

fn fold(name: &str) -> String {
    name.to_lowercase()
}

fn differs_by_case(name: &str, other: &str) -> UnpackError {
    let why =
        format!("differs from {other:?} only by case, so that some machines take them for one: rename it");
    UnpackError::entry(name, why)
}
