//! The folder from which a server reads its package. It may be the root of a volume, which cannot be renamed: the package is
//! put together in a folder of ours below it, moved up, and valid once its marker is written. See docs/models.md.

use super::marker::{Marker, OWN_FOLDER};
use crate::disk::{self, blocking};
use crate::error::FetchError;
use modelservice_contract::FetchReason;
use modelservice_package::is_left_out;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LOCK_FILE: &str = "lock";
const WORK: &str = "work";
/// How often a place that another process has is tried again.
const POLL: Duration = Duration::from_millis(200);

/// A folder that this process alone fills.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    /// Of the system, so that it ends with the process. Volumes of one pod are on file systems that have such locks; where
    /// they do not, nobody else is there.
    _lock: File,
}

impl Place {
    /// Takes the folder, once no other fetcher has it.
    ///
    /// # Errors
    /// `ConfigInvalid` if it has files that no fetcher has put there; `SystemError` if it cannot be written.
    pub async fn take(folder: &Path) -> Result<Self, FetchError> {
        let own = folder.join(OWN_FOLDER);
        if !own.exists() && !is_empty(folder)? {
            let message = format!(
                "{} has files that this program has not put there, and it would remove them: name an empty folder",
                folder.display()
            );
            return Err(FetchError::new(FetchReason::ConfigInvalid, message));
        }
        disk::create(&own)?;
        let path = own.join(LOCK_FILE);
        let lock = File::create(&path).map_err(|error| disk::error("cannot create", &path, &error))?;
        let mut is_told = false;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            if !is_told {
                tracing::info!(folder = %folder.display(), "another fetcher fills this folder; waiting for it");
                is_told = true;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// Where the package is read from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the next package is put together, on the same volume.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.folder.join(OWN_FOLDER).join(WORK)
    }

    /// Puts a package from the work folder into its place.
    ///
    /// # Errors
    /// `SystemError`: there is no package then, and the next attempt starts from the beginning.
    pub async fn put(&self, package: PathBuf, marker: Marker) -> Result<(), FetchError> {
        let (folder, work) = (self.folder.clone(), self.work());
        blocking(move || {
            Marker::remove(&folder)?;
            for name in entries(&folder)? {
                remove(&folder.join(name))?;
            }
            for name in names(&package)? {
                let (from, to) = (package.join(&name), folder.join(&name));
                fs::rename(&from, &to).map_err(|error| disk::error("cannot create", &to, &error))?;
            }
            disk::sync_folder_of(&folder.join(OWN_FOLDER))?;
            marker.write(&folder)?;
            disk::remove(&work)
        })
        .await
    }

    /// Removes what was left of an attempt that cannot go on.
    ///
    /// # Errors
    /// `SystemError`.
    pub async fn clear_work(&self) -> Result<(), FetchError> {
        let work = self.work();
        blocking(move || disk::remove(&work)).await
    }
}

/// The names of a package: without what is ours or the system's.
fn entries(folder: &Path) -> Result<Vec<OsString>, FetchError> {
    let mut names = names(folder)?;
    names.retain(|name| !is_left_out(Path::new(name)));
    Ok(names)
}

fn names(folder: &Path) -> Result<Vec<OsString>, FetchError> {
    let names =
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
    names.map_err(|error| disk::error("cannot read", folder, &error))
}

fn is_empty(folder: &Path) -> Result<bool, FetchError> {
    Ok(!folder.exists() || entries(folder)?.is_empty())
}

fn remove(path: &Path) -> Result<(), FetchError> {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    if is_folder {
        return disk::remove(path);
    }
    fs::remove_file(path).map_err(|error| disk::error("cannot remove", path, &error))
}
