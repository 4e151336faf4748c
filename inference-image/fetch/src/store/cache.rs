//! A cache on a volume that several pods share: each version is downloaded once, by the first that needs it, and the others
//! wait. A pod then copies it into a volume of its own, so that it depends on the cache only while it starts; or its server
//! reads it where it is, which saves the copy.

use super::copy::{CopyError, copy};
use super::eviction::{Folders, Room, USED_FILE};
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
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::time::{Duration, Instant, sleep};

/// A package that is damaged as often, each time after a download, will be so again: it is the volume.
const DAMAGES: u32 = 2;
/// How often those who wait log how far the download is.
const SAY: Duration = Duration::from_secs(10);

/// A cache, and the package in it that is wanted.
#[derive(Clone, Debug)]
pub struct Cache {
    folders: Folders,
    key: String,
    most: u64,
    beats: Beats,
    /// How often this process has found the package damaged.
    damages: Arc<AtomicU32>,
}

/// What a cache does for a package.
#[derive(Debug)]
pub enum Turn {
    /// It has the package. If a copy was wanted, this is where it is.
    Ready(Option<Unpacked>, Marker),
    /// Nobody has it: this process must download it.
    Ours(Lock),
}

/// What a look at the package shows.
enum Look {
    /// It is whole. If a copy was wanted, this is where it is.
    Whole(Option<Unpacked>, Marker),
    /// It is not what its marker says, or not what is wanted.
    Damaged(Marker),
    /// There is none, or it has just been removed.
    Absent,
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
            damages: Arc::default(),
        })
    }

    /// Waits until the package is there, or until it is this process's turn to download it. Copies it to `to`; without
    /// that, it is only checked, and kept for this pod's server. A damaged package is removed by whoever has its lock.
    ///
    /// # Errors
    /// `SystemError`, also if the package is damaged again after it has been downloaded again.
    pub async fn turn(&self, config: &FetchConfig, to: Option<&Path>) -> Result<Turn, FetchError> {
        let (mut seen, mut said, mut damaged) = (None, None, None);
        loop {
            let there = self.marker(config)?;
            if there.is_some() && there != damaged {
                match self.look(config, to).await? {
                    Look::Whole(package, marker) => return Ok(Turn::Ready(package, marker)),
                    Look::Damaged(marker) => damaged = Some(marker),
                    Look::Absent => {}
                }
            }
            if let Some(lock) = self.lock(&mut seen)? {
                // Its last owner may have finished in between, and put a whole package in the place of a damaged one.
                match self.marker(config)? {
                    Some(there) if Some(&there) != damaged.as_ref() => continue,
                    Some(_) => self.discard().await?,
                    None => {}
                }
                return Ok(Turn::Ours(lock));
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

    /// Removes packages that nobody reads until there is room for the package: for as many bytes within what the cache
    /// may hold, and for those that are still to be written on its volume.
    ///
    /// # Errors
    /// `SystemError`.
    pub async fn make_room(&self, bytes: u64, to_write: u64) -> Result<(), FetchError> {
        let cache = self.clone();
        let room = Room {
            bytes,
            most: cache.most,
            to_write,
        };
        blocking(move || cache.folders.make_room(&cache.key, room)).await
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

    fn marker(&self, config: &FetchConfig) -> Result<Option<Marker>, FetchError> {
        Ok(Marker::read(&self.package())?.filter(|marker| marker.is_of(config)))
    }

    async fn discard(&self) -> Result<(), FetchError> {
        let (folders, package) = (self.folders.clone(), self.package());
        blocking(move || folders.discard(&package)).await
    }

    /// Reads the package, while nobody removes it.
    async fn look(&self, config: &FetchConfig, to: Option<&Path>) -> Result<Look, FetchError> {
        let usage = Usage::begin(&self.folders.uses, &self.key)?;
        let Some(marker) = self.marker(config)? else {
            return Ok(Look::Absent);
        };
        // Only decides what is removed first when the cache is full.
        let _ = touch(&self.package().join(OWN_FOLDER).join(USED_FILE));
        let problem = match usage.hold(self.read(to)).await?? {
            Ok(package) => match marker.problem(&package, config.digest.as_deref()) {
                None if to.is_some() => return Ok(Look::Whole(Some(package), marker)),
                None => {
                    lease(&self.folders.uses, &self.key)?;
                    return Ok(Look::Whole(None, marker));
                }
                Some(problem) => problem,
            },
            Err(problem) => problem,
        };
        if self.marker(config)?.as_ref() != Some(&marker) {
            // It was being removed while it was read.
            return Ok(Look::Absent);
        }
        self.damaged(&problem)?;
        Ok(Look::Damaged(marker))
    }

    /// Tells of damage, and gives up if it comes back.
    fn damaged(&self, problem: &str) -> Result<(), FetchError> {
        if self.damages.fetch_add(1, Ordering::Relaxed) + 1 >= DAMAGES {
            let message = format!(
                "the package in the cache at {} was damaged {DAMAGES} times, last because {problem}: check the volume of \
                 spec.fetch.cache, and who else writes to it",
                self.package().display()
            );
            return Err(FetchError::new(FetchReason::SystemError, message));
        }
        tracing::warn!(
            package = self.key,
            "the package in the cache is damaged and will be downloaded again: {problem}"
        );
        Ok(())
    }

    /// What the package is, in its copy if one is wanted; or what is wrong with it.
    async fn read(&self, to: Option<&Path>) -> Result<Result<Unpacked, String>, FetchError> {
        let from = self.package();
        let Some(to) = to.map(Path::to_owned) else {
            return match examine(&from).await {
                Ok(package) => Ok(Ok(package)),
                // What has just been removed is no failure of the disk.
                Err(error) if error.reason == FetchReason::SystemError && from.exists() => Err(error),
                Err(error) => Ok(Err(error.message)),
            };
        };
        blocking(move || match copy(&from, to) {
            Ok(copy) => Ok(Ok(copy)),
            Err(CopyError::Source(problem)) => Ok(Err(problem)),
            Err(CopyError::System(error)) => Err(error),
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
