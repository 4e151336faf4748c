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

/// Whether somebody reads the package with this key. `now` is by the clock of the volume.
pub(super) fn is_used(folder: &Path, key: &str, now: SystemTime) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        // Rather keep a package too many.
        return true;
    };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_of_key = name.rsplit_once('.').is_some_and(|(of, _)| of == key);
        let touched = entry.metadata().and_then(|metadata| metadata.modified());
        is_of_key && touched.is_ok_and(|touched| age(touched, now) < DEAD)
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
