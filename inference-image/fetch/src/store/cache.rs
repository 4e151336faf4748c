//! A cache on a volume that several pods share: each version is downloaded once, by the first that needs it, and the others
//! wait. A pod then copies it into a volume of its own, so that it depends on the cache only while it starts; or its server
//! reads it where it is, which saves the copy.

use super::copy::{CopyError, copy};
use super::eviction::{Folders, USED_FILE};
use super::lock::{Beats, Lock, Seen};
use super::marker::{Marker, OWN_FOLDER, examine};
use super::usage::{Usage, lease, touch};
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
    /// It has the package. If a copy was wanted, this is where it is.
    Ready(Option<Unpacked>, Marker),
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

    /// Waits until the package is there, or until it is this process's turn to download it. Copies it to `to`; without
    /// that, it is only checked, and kept for this pod's server.
    ///
    /// # Errors
    /// `SystemError`.
    pub async fn turn(&self, config: &FetchConfig, to: Option<&Path>) -> Result<Turn, FetchError> {
        let (mut seen, mut said) = (None, None);
        loop {
            if let Some((package, marker)) = self.ready(config, to).await? {
                return Ok(Turn::Ready(package, marker));
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

    /// Where the package is, once it is there.
    #[must_use]
    pub fn package(&self) -> PathBuf {
        self.folders.packages.join(&self.key)
    }

    fn lock(&self, seen: &mut Option<Seen>) -> Result<Option<Lock>, FetchError> {
        Lock::try_take(&self.folders.lock(&self.key), self.beats, seen)
    }

    fn marker(&self, config: &FetchConfig) -> Option<Marker> {
        Marker::read(&self.package()).filter(|marker| marker.is_of(config))
    }

    /// The package, if it is there and whole; one that is not whole is removed.
    async fn ready(
        &self,
        config: &FetchConfig,
        to: Option<&Path>,
    ) -> Result<Option<(Option<Unpacked>, Marker)>, FetchError> {
        if self.marker(config).is_none() {
            return Ok(None);
        }
        let usage = Usage::begin(&self.folders.uses, &self.key)?;
        let Some(marker) = self.marker(config) else {
            return Ok(None);
        };
        // Only decides what is removed first when the cache is full.
        let _ = touch(&self.package().join(OWN_FOLDER).join(USED_FILE));
        let read = usage.hold(self.read(to)).await??;
        let problem = match read {
            Ok((is, package)) if is == marker.digest => {
                if package.is_none() {
                    lease(&self.folders.uses, &self.key)?;
                }
                return Ok(Some((package, marker)));
            }
            Ok((is, _)) => format!("its digest is {is}, not {}", marker.digest),
            Err(problem) => problem,
        };
        tracing::warn!(
            package = self.key,
            "the package in the cache is damaged and will be downloaded again: {problem}"
        );
        drop(usage);
        let (folders, package) = (self.folders.clone(), self.package());
        blocking(move || folders.discard(&package)).await?;
        Ok(None)
    }

    /// The package's digest, and its copy if one is wanted; or what is wrong with the package.
    async fn read(
        &self,
        to: Option<&Path>,
    ) -> Result<Result<(String, Option<Unpacked>), String>, FetchError> {
        let from = self.package();
        let Some(to) = to.map(Path::to_owned) else {
            return Ok(match examine(&from).await {
                Ok(package) => Ok((package.digest, None)),
                Err(error) => Err(error.message),
            });
        };
        blocking(move || match copy(&from, to) {
            Ok(copy) => Ok(Ok((copy.digest.clone(), Some(copy)))),
            Err(CopyError::Source(problem)) => Ok(Err(problem)),
            Err(CopyError::Target(error)) => Err(error),
        })
        .await
    }
}

/// Another fetcher has decided that this one is dead.
#[must_use]
pub fn lost() -> FetchError {
    FetchError::unavailable(
        "the lock of the cache was taken over by another fetcher: this one was stopped for too long",
    )
}
