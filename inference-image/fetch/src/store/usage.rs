//! Who reads a package of the cache: a file for each reader, which it touches as long as it reads.

use crate::disk;
use crate::error::FetchError;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::time::sleep;

/// How often a reader touches its file.
const TOUCH: Duration = Duration::from_secs(15);
/// A reader that has not touched its file for this long is dead.
const DEAD: Duration = Duration::from_secs(600);
/// Begins the name of a lease, behind the package's key.
const LEASE: &str = "lease-";
/// How long a package stays for a server that reads it where it is, from the last start of its pod.
const LEASED: Duration = Duration::from_secs(30 * 24 * 3600);

/// A reader of a package.
#[derive(Debug)]
pub(super) struct Usage {
    path: PathBuf,
}

impl Usage {
    /// From now on, nobody removes the package with this key.
    pub(super) fn begin(folder: &Path, key: &str) -> Result<Self, FetchError> {
        let path = folder.join(format!("{key}.{:016x}", fastrand::u64(..)));
        touch(&path)?;
        Ok(Self { path })
    }

    /// Works while showing that the package is being read.
    pub(super) async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, FetchError> {
        let touching = async {
            loop {
                sleep(TOUCH).await;
                if let Err(error) = touch(&self.path) {
                    return error;
                }
            }
        };
        tokio::select! {
            done = work => Ok(done),
            error = touching => Err(error),
        }
    }
}

impl Drop for Usage {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Keeps the package for a server that reads it where it is: it may read it again whenever its container restarts, and
/// writes nothing that would show that it lives.
pub(super) fn lease(folder: &Path, key: &str) -> Result<(), FetchError> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    // A pod's name is its host's, and has no dots.
    let host = host.trim().replace(['.', '/'], "-");
    touch(&folder.join(format!("{key}.{LEASE}{host}")))
}

/// Whether somebody reads the package with this key. `now` is by the clock of the volume.
pub(super) fn is_used(folder: &Path, key: &str, now: SystemTime) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        // Rather keep a package too many.
        return true;
    };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((of, user)) = name.rsplit_once('.') else {
            return false;
        };
        let lives = if user.starts_with(LEASE) { LEASED } else { DEAD };
        let touched = entry.metadata().and_then(|metadata| metadata.modified());
        of == key && touched.is_ok_and(|touched| age(touched, now) < lives)
    })
}

/// The time by the clock that stamps the files of this volume: clocks of machines differ.
pub(super) fn clock(folder: &Path) -> Result<SystemTime, FetchError> {
    let path = folder.join(format!(".clock-{:016x}", fastrand::u64(..)));
    touch(&path)?;
    let now = fs::metadata(&path).and_then(|metadata| metadata.modified());
    let _ = fs::remove_file(&path);
    now.map_err(|error| disk::error("cannot read", &path, &error))
}

pub(super) fn touch(path: &Path) -> Result<(), FetchError> {
    let touched = fs::write(path, b"x").and_then(|()| File::open(path)?.sync_all());
    touched.map_err(|error| disk::error("cannot write", path, &error))
}

pub(super) fn age(then: SystemTime, now: SystemTime) -> Duration {
    now.duration_since(then).unwrap_or_default()
}
