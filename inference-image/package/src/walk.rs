//! Finds a file of a package: follows links only within the package, and only to a regular file.
//!
//! A name is followed part by part. Each part is opened in the folder that the previous one led to, and never through
//! a link (`openat`, `O_NOFOLLOW`). So the file that is checked is the file that is read, even if files are replaced
//! meanwhile. `openat2` would do the same, but some kernels and seccomp profiles do not allow it, and it does not
//! follow absolute links.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Linux follows as many links.
const MOST_LINKS: usize = 40;

/// Why a file of a package cannot be read: continues a sentence that begins with its name.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is nothing with that name.
    #[error("does not exist")]
    Missing,
    /// A link that leads to nothing.
    #[error("is a link to {0:?}, which does not exist")]
    Dangling(PathBuf),
    /// The name, or a link, leads out of the package.
    #[error("is outside its package: copy it into the package")]
    Outside,
    /// Links that lead to each other.
    #[error("is part of a loop of links")]
    Circle,
    /// A link where links are not allowed.
    #[error("is a link, and links are not followed here")]
    Link,
    /// A folder, a pipe, a device.
    #[error("is a {0}, not a file")]
    Kind(&'static str),
    /// The file is larger than allowed.
    #[error("has {size} bytes, but at most {most} are read: {advice}")]
    TooLarge {
        /// Bytes that it has.
        size: u64,
        /// Bytes that may be read.
        most: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A name that cannot be listed.
    #[error("has a name that is not UTF-8 or contains control characters: rename it")]
    Name,
    /// Too many files for a package.
    #[error("holds more than {0} files: is this a model package?")]
    Many(usize),
    /// The bytes are not those that the digest covers.
    #[error("changed while it was being read: start again")]
    Changed,
    /// Anything else.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for FileError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            Errno::LOOP => Self::Link,
            other => Self::Io(other.into()),
        }
    }
}

impl From<FileError> for io::Error {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io(error) => error,
            FileError::Missing => Self::new(io::ErrorKind::NotFound, error.to_string()),
            error => Self::new(io::ErrorKind::InvalidData, error.to_string()),
        }
    }
}

/// What may be reached.
#[derive(Debug)]
pub(super) struct Root {
    /// The outermost folder.
    pub(super) folder: OwnedFd,
    /// Its path, to recognise absolute links into it.
    pub(super) path: PathBuf,
    /// The path from there to where names start.
    pub(super) start: PathBuf,
    /// Whether links are followed; if not, a link is an error.
    pub(super) follows_links: bool,
}

/// A regular file that is open.
pub(super) struct Found {
    pub(super) file: File,
    /// Where it really is, below the root.
    pub(super) place: PathBuf,
    /// In bytes.
    pub(super) size: u64,
}

/// A walk that starts at the root.
pub(super) struct Walk<'a> {
    root: &'a Root,
    /// The folders on the current path, outermost first, and their names.
    folders: Vec<(OwnedFd, OsString)>,
    /// The remaining parts.
    parts: VecDeque<OsString>,
    links: usize,
    /// Where the last link leads.
    target: Option<PathBuf>,
}

impl<'a> Walk<'a> {
    /// A walk to a name, which is relative to the start.
    pub(super) fn new(root: &'a Root, name: &Path) -> Result<Self, FileError> {
        let mut walk = Self {
            root,
            folders: Vec::new(),
            parts: VecDeque::new(),
            links: 0,
            target: None,
        };
        if name.as_os_str().is_empty() || !stays_below(name) {
            return Err(FileError::Outside);
        }
        walk.turn(name);
        walk.turn(&root.start);
        Ok(walk)
    }

    /// Walks to the end, which must be a file.
    pub(super) fn into_file(mut self) -> Result<Found, FileError> {
        while let Some(part) = self.parts.pop_front() {
            match self.step(&part)? {
                FileType::Symlink | FileType::Directory => {}
                FileType::RegularFile if self.parts.is_empty() => return self.open(&part),
                FileType::RegularFile => return Err(self.explain(FileError::Missing)),
                other => return Err(FileError::Kind(name(other))),
            }
        }
        Err(FileError::Kind(name(FileType::Directory)))
    }

    /// Walks to the end, which must be a folder.
    pub(super) fn into_folder(mut self) -> Result<Self, FileError> {
        while let Some(part) = self.parts.pop_front() {
            match self.step(&part)? {
                FileType::Symlink | FileType::Directory => {}
                other => return Err(FileError::Kind(name(other))),
            }
        }
        Ok(self)
    }

    /// Enters a folder or follows a link; does nothing for anything else.
    fn step(&mut self, part: &OsStr) -> Result<FileType, FileError> {
        if part == ".." {
            self.folders.pop().ok_or(FileError::Outside)?;
            return Ok(FileType::Directory);
        }
        let kind = self.kind(part).map_err(|error| self.explain(error))?;
        match kind {
            FileType::Symlink => self.follow(part)?,
            FileType::Directory => self.enter(part)?,
            _ => {}
        }
        Ok(kind)
    }

    /// The current folder.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        let last = self.folders.last();
        last.map_or(self.root.folder.as_fd(), |(folder, _)| folder.as_fd())
    }

    /// What that name stands for in the current folder.
    pub(super) fn kind(&self, part: &OsStr) -> Result<FileType, FileError> {
        let stat = statat(self.here(), part, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    fn enter(&mut self, part: &OsStr) -> Result<(), FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = openat(self.here(), part, flags, Mode::empty())?;
        self.folders.push((folder, part.to_owned()));
        Ok(())
    }

    /// Where a link in the current folder leads.
    pub(super) fn target_of(&self, link: &OsStr) -> Result<PathBuf, FileError> {
        let target = readlinkat(self.here(), link, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    fn follow(&mut self, part: &OsStr) -> Result<(), FileError> {
        if !self.root.follows_links {
            return Err(FileError::Link);
        }
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(FileError::Circle);
        }
        let target = self.target_of(part)?;
        if target.is_absolute() {
            let below = target.strip_prefix(&self.root.path);
            let below = below.map_err(|_| FileError::Outside)?.to_owned();
            self.folders.clear();
            self.turn(&below);
        } else {
            self.turn(&target);
        }
        self.target = Some(target);
        Ok(())
    }

    /// Puts this path before the remaining parts.
    fn turn(&mut self, path: &Path) {
        for part in path.components().rev() {
            match part {
                Component::Normal(part) => self.parts.push_front(part.to_owned()),
                Component::ParentDir => self.parts.push_front("..".into()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
    }

    fn open(&self, part: &OsStr) -> Result<Found, FileError> {
        // Without `NONBLOCK`, opening a pipe that has replaced the file would block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(self.here(), part, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Err(FileError::Kind(name(kind)));
        }
        let folders = self.folders.iter().map(|(_, name)| name.as_os_str());
        Ok(Found {
            file: file.into(),
            place: folders.chain([part]).collect(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
        })
    }

    /// If the target of a link is missing, the error names the target.
    fn explain(&self, error: FileError) -> FileError {
        match (error, &self.target) {
            (FileError::Missing, Some(target)) => FileError::Dangling(target.clone()),
            (error, _) => error,
        }
    }
}

/// Whether the name by itself never leads above its start.
fn stays_below(name: &Path) -> bool {
    let depth = name.components().try_fold(0_usize, |depth, part| match part {
        Component::Normal(_) => Some(depth + 1),
        Component::CurDir => Some(depth),
        Component::ParentDir => depth.checked_sub(1),
        Component::RootDir | Component::Prefix(_) => None,
    });
    depth.is_some()
}

const fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "folder",
        FileType::Fifo => "named pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Symlink => "link",
        FileType::RegularFile | FileType::Unknown => "special file",
    }
}
