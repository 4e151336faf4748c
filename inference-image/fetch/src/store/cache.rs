//! A cache on a volume that several pods share: each version is downloaded once, by the first that needs it. The others wait,
//! and then copy it into their own volumes. So a pod depends on the cache only while it starts, what it serves cannot be
//! changed by those who share the cache, and a package is in use only while somebody copies it.

use super::copy::{CopyError, copy};
use super::eviction::{Folders, USED_FILE};
use super::lock::{Beats, Lock, Seen};
use super::marker::{Marker, OWN_FOLDER};
use super::usage::{Usage, touch};
use crate::disk::{self, blocking};
use crate::download::Snapshot;
use crate::error::FetchError;
use crate::unpack::Unpacked;
use modelservice_contract::{FetchCache, FetchConfig, FetchReason};
use std::fs;
use std::path::{Path, PathBuf};
use tokio::time::{Duration, Instant, sleep};

/// How often those who wait log how far the download is.
const SAY: Duration = Duration::from_secs(10);

/// A cache, and the package in it that is wanted.
#[derive(Clone, Debug)]
pub struct Cache {
    folders: Folders,
    key: String,
    most: u64,
    beats: Beats,
}

/// What a cache does for a package.
#[derive(Debug)]
pub enum Turn {
    /// It has the package: a copy of it.
    Copied(Unpacked, Marker),
    /// Nobody has it: this process must download it.
    Ours(Lock),
}

impl Cache {
    /// Opens the cache.
    ///
    /// # Errors
    /// `ConfigInvalid` for a key that is no plain name; `SystemError` if the volume cannot be written.
    pub fn open(config: &FetchCache, beats: Beats) -> Result<Self, FetchError> {
        let key = config.key.clone();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if key.is_empty() || key.len() > 200 || !key.bytes().all(is_plain) {
            let message = format!("the cache's key {key:?} must consist of letters, digits, - and _");
            return Err(FetchError::new(FetchReason::ConfigInvalid, message));
        }
        Ok(Self {
            folders: Folders::below(Path::new(&config.path))?,
            key,
            most: config.maximum_bytes.unwrap_or(u64::MAX),
            beats,
        })
    }

    /// Waits until the package is there, or until it is this process's turn to download it. The copy goes to `to`.
    ///
    /// # Errors
    /// `SystemError`.
    pub async fn turn(&self, config: &FetchConfig, to: &Path) -> Result<Turn, FetchError> {
        let (mut seen, mut said) = (None, None);
        loop {
            if let Some((package, marker)) = self.copied(config, to).await? {
                return Ok(Turn::Copied(package, marker));
            }
            if let Some(lock) = self.lock(&mut seen)? {
                // Its last owner may have finished in between.
                if self.marker(config).is_none() {
                    return Ok(Turn::Ours(lock));
                }
                continue;
            }
            if said.is_none_or(|said: Instant| said.elapsed() >= SAY) {
                let snapshot = Snapshot::read(&self.work()).unwrap_or_default();
                snapshot.log("another fetcher downloads this model; waiting for it");
                said = Some(Instant::now());
            }
            sleep(self.beats.poll).await;
        }
    }

    /// The folder for a download, on the cache's volume.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.folders.work.join(&self.key)
    }

    /// How locks behave here.
    #[must_use]
    pub const fn beats(&self) -> Beats {
        self.beats
    }

    /// Removes packages that nobody reads until as many bytes have room.
    ///
    /// # Errors
    /// `SystemError`.
    pub async fn make_room(&self, bytes: u64) -> Result<(), FetchError> {
        let cache = self.clone();
        blocking(move || cache.folders.make_room(&cache.key, bytes, cache.most)).await
    }

    /// Makes a package of the work folder available to all, if the lock is still ours.
    ///
    /// # Errors
    /// `SystemError`.
    pub async fn put(&self, lock: &Lock, package: PathBuf, marker: Marker) -> Result<(), FetchError> {
        if !lock.is_ours() {
            return Err(lost());
        }
        let cache = self.clone();
        blocking(move || {
            let to = cache.package();
            marker.write(&package)?;
            touch(&package.join(OWN_FOLDER).join(USED_FILE))?;
            cache.folders.discard(&to)?;
            fs::rename(&package, &to).map_err(|error| disk::error("cannot create", &to, &error))?;
            disk::sync_folder_of(&to)?;
            disk::remove(&cache.work())
        })
        .await
    }

    fn package(&self) -> PathBuf {
        self.folders.packages.join(&self.key)
    }

    fn lock(&self, seen: &mut Option<Seen>) -> Result<Option<Lock>, FetchError> {
        Lock::try_take(&self.folders.lock(&self.key), self.beats, seen)
    }

    fn marker(&self, config: &FetchConfig) -> Option<Marker> {
        Marker::read(&self.package()).filter(|marker| marker.is_of(config))
    }

    /// A copy of the package, if it is there and whole; one that is not whole is removed.
    async fn copied(
        &self,
        config: &FetchConfig,
        to: &Path,
    ) -> Result<Option<(Unpacked, Marker)>, FetchError> {
        if self.marker(config).is_none() {
            return Ok(None);
        }
        let usage = Usage::begin(&self.folders.uses, &self.key)?;
        let Some(marker) = self.marker(config) else {
            return Ok(None);
        };
        let (from, to) = (self.package(), to.to_owned());
        let copying = tokio::task::spawn_blocking(move || {
            // Only decides what is removed first when the cache is full.
            let _ = touch(&from.join(OWN_FOLDER).join(USED_FILE));
            copy(&from, to)
        });
        let problem = match usage.hold(copying).await? {
            Ok(Ok(copy)) if copy.digest == marker.digest => return Ok(Some((copy, marker))),
            Ok(Ok(copy)) => format!("its digest is {}, not {}", copy.digest, marker.digest),
            Ok(Err(CopyError::Source(problem))) => problem,
            Ok(Err(CopyError::Target(error))) => return Err(error),
            Err(error) => {
                let message = format!("a thread for files ended: {error}");
                return Err(FetchError::new(FetchReason::SystemError, message));
            }
        };
        tracing::warn!(
            package = self.key,
            "the cache's copy is damaged and will be downloaded again: {problem}"
        );
        drop(usage);
        let (folders, package) = (self.folders.clone(), self.package());
        blocking(move || folders.discard(&package)).await?;
        Ok(None)
    }
}

/// Another fetcher has decided that this one is dead.
#[must_use]
pub fn lost() -> FetchError {
    FetchError::unavailable(
        "the lock of the cache was taken over by another fetcher: this one was stopped for too long",
    )
}
