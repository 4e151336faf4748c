//! Errors of the disk, in words that say what to do; and how much is free.

use crate::error::FetchError;
use modelservice_contract::FetchReason;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// The error of a file operation.
pub(crate) fn error(what: &str, path: &Path, error: &io::Error) -> FetchError {
    let message = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => return full(path, None),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => format!(
            "{what} {}: {error}: check who may write to its volume (the fetcher runs without root)",
            path.display()
        ),
        _ => format!("{what} {}: {error}", path.display()),
    };
    FetchError::new(FetchReason::SystemError, message)
}

/// Creates a folder and those above it.
pub(crate) fn create(folder: &Path) -> Result<(), FetchError> {
    std::fs::create_dir_all(folder).map_err(|failed| error("cannot create", folder, &failed))
}

/// Replaces a small file: others see the old one or the new one, also after a crash.
pub(crate) fn replace(file: &Path, content: &[u8]) -> Result<(), FetchError> {
    let new = file.with_extension("new");
    let written = File::create(&new).and_then(|mut opened| {
        opened.write_all(content)?;
        opened.sync_all()?;
        std::fs::rename(&new, file)
    });
    written.map_err(|failed| error("cannot write", file, &failed))?;
    sync_folder_of(file)
}

/// Makes what was created, renamed and removed in a file's folder last.
pub(crate) fn sync_folder_of(file: &Path) -> Result<(), FetchError> {
    let folder = file.parent().unwrap_or(file);
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot, and need not.
        Err(failed) if failed.kind() != ErrorKind::InvalidInput => Err(error("cannot sync", folder, &failed)),
        _ => Ok(()),
    }
}

/// Removes a folder and everything in it, if there is one.
pub(crate) fn remove(folder: &Path) -> Result<(), FetchError> {
    match std::fs::remove_dir_all(folder) {
        Err(failed) if failed.kind() != ErrorKind::NotFound => Err(error("cannot remove", folder, &failed)),
        _ => Ok(()),
    }
}

/// Whether as many bytes fit: better known before the download than at its end.
pub(crate) fn check(folder: &Path, bytes: u64) -> Result<(), FetchError> {
    match free(folder) {
        Some(free) if free < bytes => Err(full(folder, Some(bytes))),
        _ => Ok(()),
    }
}

fn full(path: &Path, needed: Option<u64>) -> FetchError {
    let volume = volume(path);
    let free = free(&volume).map_or_else(|| "an unknown number of".to_owned(), |free| free.to_string());
    let needs = match needed {
        Some(needed) => format!("{needed} more bytes are needed"),
        None => "more are needed".to_owned(),
    };
    let message = format!(
        "the volume at {} is full: it has {free} bytes free, and {needs}. Give the model a larger volume \
         (spec.fetch.volume.size, the claim of spec.fetch.cache, or the node's disk): an archive needs room for itself and \
         for what it unpacks to",
        volume.display()
    );
    FetchError::new(FetchReason::SystemError, message)
}

/// Bytes that may still be written, if the system says.
pub(crate) fn free(folder: &Path) -> Option<u64> {
    let folder = folder.ancestors().find(|folder| folder.exists())?;
    let volume = rustix::fs::statvfs(folder).ok()?;
    volume.f_bavail.checked_mul(volume.f_frsize)
}

/// Where the volume of a file is mounted.
fn volume(path: &Path) -> PathBuf {
    let device = |path: &Path| rustix::fs::stat(path).ok().map(|stat| stat.st_dev);
    let mut ancestors = path.ancestors().skip_while(|path| !path.exists());
    let Some(mut volume) = ancestors.next() else {
        return path.to_owned();
    };
    let here = device(volume);
    for ancestor in ancestors {
        if device(ancestor) != here {
            break;
        }
        volume = ancestor;
    }
    volume.to_owned()
}

/// Runs file operations away from the thread of the connections.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(FetchError::new(
            FetchReason::SystemError,
            format!("a thread for files ended: {error}"),
        )),
    }
}
