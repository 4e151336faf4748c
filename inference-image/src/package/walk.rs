//! The way to a file of a package: through links only as far as the package goes, and only to a regular file.
//!
//! A name is followed part by part. Each part is opened in the folder that the last one led to, and never through a link
//! (`openat`, `O_NOFOLLOW`): what is checked is what is read, even if somebody exchanges files meanwhile. `openat2`
//! would do the same, but not every kernel and seccomp profile has it, and it follows no absolute link.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;

/// Why a file of a package cannot be read: what follows its name in a sentence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// There is nothing of that name.
    #[error("is not there")]
    Missing,
    /// A link that leads to nothing.
    #[error("is a link to {0:?}, which is not there")]
    Dangling(PathBuf),
    /// The name, or a link, leads out of the package.
    #[error("is outside its package: put a copy into it")]
    Outside,
    /// Links that lead to one another.
    #[error("is a link that leads round in a circle")]
    Circle,
    /// A link where there may be none.
    #[error("is a link, which is not followed here")]
    Link,
    /// A folder, a pipe, a device.
    #[error("is a {0}, not a file")]
    Kind(&'static str),
    /// More bytes than may be read.
    #[error("has {size} bytes, at most {most} are read: {advice}")]
    TooLarge {
        /// Bytes that it has.
        size: u64,
        /// Bytes that may be read.
        most: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A name that has no place in a list of files.
    #[error("has a name that is no UTF-8, or with control characters in it: rename it")]
    Name,
    /// Too many to be a package's.
    #[error("holds more than {0} files: is this a model package?")]
    Many(usize),
    /// Other bytes than the digest was made of.
    #[error("was changed while it was read: start again")]
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
    /// Where that is, to recognise absolute links into it.
    pub(super) path: PathBuf,
    /// From there to where names begin.
    pub(super) start: PathBuf,
    /// Otherwise a link is an error.
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

/// A way from the root.
pub(super) struct Walk<'a> {
    root: &'a Root,
    /// The folders that it is in, outermost first, and their names.
    folders: Vec<(OwnedFd, OsString)>,
    /// What is still to go.
    parts: VecDeque<OsString>,
    links: usize,
    /// Where the last link leads.
    target: Option<PathBuf>,
}

impl<'a> Walk<'a> {
    /// Of a name, relative to where names begin.
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

    /// The file at its end.
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

    /// Into the folder at its end.
    pub(super) fn into_folder(mut self) -> Result<Self, FileError> {
        while let Some(part) = self.parts.pop_front() {
            match self.step(&part)? {
                FileType::Symlink | FileType::Directory => {}
                other => return Err(FileError::Kind(name(other))),
            }
        }
        Ok(self)
    }

    /// Goes on through a folder or a link, and stays before anything else.
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

    /// The folder that it is in.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        let last = self.folders.last();
        last.map_or(self.root.folder.as_fd(), |(folder, _)| folder.as_fd())
    }

    /// What the folder holds under that name.
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

    /// Where a link in the folder leads.
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

    /// Goes there before what is still to go.
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
        // A pipe that has taken the file's place would be waited for.
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

    /// What is missing behind a link is not the name that was asked for.
    fn explain(&self, error: FileError) -> FileError {
        match (error, &self.target) {
            (FileError::Missing, Some(target)) => FileError::Dangling(target.clone()),
            (error, _) => error,
        }
    }
}

/// Whether the name alone never leads above where it starts.
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
