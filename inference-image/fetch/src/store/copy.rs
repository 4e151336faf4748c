//! Copies a package out of the cache, and hashes it on the way: what is compared is what will be served.

use crate::disk;
use crate::error::FetchError;
use crate::unpack::{Unpacked, describe};
use modelservice_contract::FetchReason;
use modelservice_package::{Content, FileError, Files, Hash, Known, is_left_out};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const BUFFER: usize = 128 << 10;

/// Why there is no copy.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The package in the cache is no longer there, or not as it was.
    Source(String),
    /// The copy cannot be written, or a disk fails: that says nothing about the package.
    System(FetchError),
}

/// Copies the package to a folder, which is replaced. Blocks.
pub(super) fn copy(from: &Path, to: PathBuf) -> Result<Unpacked, CopyError> {
    disk::remove(&to)
        .and_then(|()| disk::create(&to))
        .map_err(CopyError::System)?;
    let files = Files::of(from).map_err(|error| source(from, &error.into()))?;
    let mut known = Known::new();
    let (mut folders, mut links) = (vec![PathBuf::new()], Vec::new());
    while let Some(folder) = folders.pop() {
        for (entry, content) in files.list(&folder).map_err(|error| source(&folder, &error))? {
            let name = folder.join(entry);
            if is_left_out(&name) {
                continue;
            }
            match content {
                Content::Folder => {
                    disk::create(&to.join(&name)).map_err(CopyError::System)?;
                    folders.push(name);
                }
                Content::Link(target) => links.push((name, target)),
                Content::Other => {
                    let copied = copy_file(&files, &name, &to.join(&name))?;
                    known.insert(name, copied);
                }
            }
        }
    }
    // Last, so that nothing is written through one.
    for (name, target) in links {
        let path = to.join(&name);
        symlink(target, &path).map_err(|error| failed("cannot create the link", &path, &error))?;
    }
    describe(to, &known).map_err(|error| match error.reason {
        FetchReason::SystemError => CopyError::System(error),
        _ => CopyError::Source(error.message),
    })
}

fn copy_file(files: &Files, name: &Path, to: &Path) -> Result<(u64, Hash), CopyError> {
    let mut from = files.open(name).map_err(|error| source(name, &error))?;
    let mut file = File::create(to).map_err(|error| failed("cannot create", to, &error))?;
    let (mut hash, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from
            .read(&mut buffer)
            .map_err(|error| source(name, &error.into()))?;
        if read == 0 {
            break;
        }
        file.write_all(&buffer[..read])
            .map_err(|error| failed("cannot write", to, &error))?;
        hash.update(&buffer[..read]);
        size += read as u64;
    }
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o644);
    let finished = file.set_permissions(mode).and_then(|()| file.sync_data());
    finished.map_err(|error| failed("cannot write", to, &error))?;
    Ok((size, hash.finalize().into()))
}

fn source(name: &Path, error: &FileError) -> CopyError {
    match error {
        FileError::Io(error) if error.kind() != ErrorKind::NotFound => {
            failed("cannot read from the cache", name, error)
        }
        error => CopyError::Source(format!("{} {error}", name.display())),
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> CopyError {
    CopyError::System(disk::error(what, path, error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use rustix::io::Errno;
    use std::io::Error;

    /// Otherwise a server of the volume that fails for a moment costs every pod's package.
    #[test]
    fn a_disk_that_fails_is_no_damage() {
        for errno in [Errno::ACCESS, Errno::IO, Errno::STALE] {
            let error = FileError::Io(Error::from(errno));
            let error = source(Path::new("model.onnx"), &error);
            assert!(
                matches!(&error, CopyError::System(error) if error.reason == FetchReason::SystemError),
                "{error:?}"
            );
        }
        for error in [
            FileError::Missing,
            FileError::Outside,
            Error::from(ErrorKind::NotFound).into(),
        ] {
            assert!(matches!(source(Path::new("a"), &error), CopyError::Source(_)));
        }
    }
}
