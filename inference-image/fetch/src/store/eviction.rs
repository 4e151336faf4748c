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

    /// Makes room for as many bytes beside what must stay; `key` is the package that they are for.
    pub(super) fn make_room(&self, key: &str, needed: u64, most: u64) -> Result<(), FetchError> {
        let now = clock(&self.uses)?;
        self.remove_leftovers(now)?;
        let mut packages = self.packages()?;
        packages.retain(|package| package.key != key);
        let mut total = packages
            .iter()
            .fold(needed, |sum, package| sum.saturating_add(package.bytes));
        packages.sort_by_key(|package| package.used);
        for package in packages {
            if total <= most {
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
                bytes: Marker::read(&folder).map_or(0, |marker| marker.bytes),
                used: used
                    .and_then(|used| used.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH),
                key,
            }
        });
        Ok(packages.collect())
    }

    /// What fetchers that died have left.
    fn remove_leftovers(&self, now: SystemTime) -> Result<(), FetchError> {
        for name in names(&self.trash)? {
            disk::remove(&self.trash.join(name))?;
        }
        for key in names(&self.work)? {
            let folder = self.work.join(&key);
            let changed = fs::metadata(&folder).and_then(|metadata| metadata.modified());
            let is_old = changed.is_ok_and(|changed| age(changed, now) > ABANDONED);
            if is_old && !self.lock(&key).exists() {
                self.discard(&folder)?;
            }
        }
        Ok(())
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
