//! Keeps the cache within its size: removes what was used longest ago, and never what is being read or downloaded.

use super::marker::{Marker, OWN_FOLDER};
use super::usage::{age, clock, is_used};
use crate::disk;
use crate::error::FetchError;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A download that nobody has touched for this long is of a model that nobody wants any more.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);
/// Touched at each use of a package.
pub(super) const USED_FILE: &str = "used";

/// The folders of a cache.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    pub(super) packages: PathBuf,
    pub(super) work: PathBuf,
    pub(super) locks: PathBuf,
    pub(super) uses: PathBuf,
    pub(super) trash: PathBuf,
}

impl Folders {
    /// Creates those that do not exist.
    pub(super) fn below(root: &Path) -> Result<Self, FetchError> {
        let folders = Self {
            packages: root.join("packages"),
            work: root.join("work"),
            locks: root.join("locks"),
            uses: root.join("uses"),
            trash: root.join("trash"),
        };
        for folder in [
            &folders.packages,
            &folders.work,
            &folders.locks,
            &folders.uses,
            &folders.trash,
        ] {
            disk::create(folder)?;
        }
        Ok(folders)
    }

    /// The lock of a package.
    pub(super) fn lock(&self, key: &str) -> PathBuf {
        self.locks.join(format!("{key}.lock"))
    }

    /// Removes a package or a download: at once for everybody else.
    pub(super) fn discard(&self, folder: &Path) -> Result<(), FetchError> {
        let trash = self.trash.join(format!("{:016x}", fastrand::u64(..)));
        match fs::rename(folder, &trash) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(disk::error("cannot remove", folder, &error)),
            Ok(()) => disk::remove(&trash),
        }
    }

    /// Makes room beside what must stay; `key` is the package that it is for.
    pub(super) fn make_room(&self, key: &str, room: Room) -> Result<(), FetchError> {
        let now = clock(&self.uses)?;
        self.remove_leftovers(now)?;
        let mut packages = self.packages()?;
        packages.retain(|package| package.key != key);
        let mut total = packages
            .iter()
            .fold(room.bytes, |sum, package| sum.saturating_add(package.bytes));
        packages.sort_by_key(|package| package.used);
        let most = room.most;
        for package in packages {
            if total <= most && room.is_free(disk::free(&self.packages)) {
                return Ok(());
            }
            if is_used(&self.uses, &package.key, now) {
                continue;
            }
            tracing::info!(
                package = package.key,
                bytes = package.bytes,
                "removed from the cache to make room"
            );
            self.discard(&self.packages.join(&package.key))?;
            total = total.saturating_sub(package.bytes);
        }
        if total > most {
            tracing::warn!(
                bytes = total,
                most,
                "the cache will hold more than it should: all of it is in use, or needed now"
            );
        }
        Ok(())
    }

    fn packages(&self) -> Result<Vec<Cached>, FetchError> {
        let packages = names(&self.packages)?.into_iter().map(|key| {
            let folder = self.packages.join(&key);
            let used = fs::metadata(folder.join(OWN_FOLDER).join(USED_FILE));
            Cached {
                bytes: Marker::read(&folder)
                    .ok()
                    .flatten()
                    .map_or(0, |marker| marker.bytes),
                used: used
                    .and_then(|used| used.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH),
                key,
            }
        });
        Ok(packages.collect())
    }

    /// What fetchers that died have left. What cannot be removed stays, until it is in the way.
    fn remove_leftovers(&self, now: SystemTime) -> Result<(), FetchError> {
        for name in names(&self.trash)? {
            log_failure(disk::remove(&self.trash.join(name)));
        }
        for key in names(&self.work)? {
            let folder = self.work.join(&key);
            let is_old = |path: &Path| {
                let changed = fs::metadata(path).and_then(|metadata| metadata.modified());
                changed.is_ok_and(|changed| age(changed, now) > ABANDONED)
            };
            // Whoever has a lock touches its file every few seconds.
            let lock = self.lock(&key);
            if is_old(&folder) && (!lock.exists() || is_old(&lock)) {
                log_failure(self.discard(&folder));
            }
        }
        Ok(())
    }
}

fn log_failure(removed: Result<(), FetchError>) {
    if let Err(error) = removed {
        tracing::warn!("what another fetcher has left in the cache stays there: {error}");
    }
}

/// The room that a package needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Its size.
    pub(super) bytes: u64,
    /// What the whole cache may hold.
    pub(super) most: u64,
    /// Bytes that are not on the volume yet.
    pub(super) to_write: u64,
}

impl Room {
    /// Whether what is still to be written fits. What the system does not say is no reason to remove anything.
    fn is_free(self, free: Option<u64>) -> bool {
        free.is_none_or(|free| self.to_write <= free)
    }
}

struct Cached {
    key: String,
    bytes: u64,
    used: SystemTime,
}

fn names(folder: &Path) -> Result<Vec<String>, FetchError> {
    let entries = fs::read_dir(folder).map_err(|error| disk::error("cannot read", folder, &error))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}
