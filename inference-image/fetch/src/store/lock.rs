//! A lock that works on network file systems, where those of the system are unreliable: a file that its owner creates and
//! keeps changing. Whoever sees it unchanged for long, by their own clock, may take it over.
//!
//! Limits: an owner that is stopped for longer and then goes on, such as a machine that was suspended, learns at its next
//! beat that it has lost the lock. Until then two processes may write the same bytes of the same version; packages are
//! complete only by a rename, so that none is ever half of two.

use crate::disk;
use crate::error::FetchError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How often an owner shows that it lives, and when others believe that it does not.
#[derive(Clone, Copy, Debug)]
pub struct Beats {
    /// Time between two changes of the file.
    pub every: Duration,
    /// After this time without a change, others take over.
    pub stale: Duration,
    /// How often those who wait look.
    pub poll: Duration,
}

impl Default for Beats {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(5),
            stale: Duration::from_secs(30),
            poll: Duration::from_secs(1),
        }
    }
}

/// What a lock's file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    /// The pod, for people.
    host: String,
    /// Where the process number is valid: this boot of this machine, and this container.
    namespace: String,
    process: u32,
    /// When the process started: numbers are used again.
    started: String,
    /// Different for each time a lock is taken.
    nonce: String,
    beat: u64,
}

/// A lock that this process has.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
    owner: Owner,
}

/// What somebody who waits has seen of a lock, and since when.
#[derive(Debug)]
pub struct Seen {
    text: String,
    since: Instant,
}

impl Lock {
    /// Takes the lock if nobody has it, or if its owner is dead. `seen` is kept from one attempt to the next.
    ///
    /// # Errors
    /// `SystemError` if the folder cannot be written.
    pub fn try_take(path: &Path, beats: Beats, seen: &mut Option<Seen>) -> Result<Option<Self>, FetchError> {
        if let Some(lock) = Self::create(path)? {
            return Ok(Some(lock));
        }
        let text = fs::read_to_string(path).unwrap_or_default();
        let since = match seen.take() {
            Some(before) if before.text == text => before.since,
            _ => Instant::now(),
        };
        let waited = since.elapsed();
        let is_stale = waited >= beats.stale || is_dead(&text);
        *seen = Some(Seen {
            text: text.clone(),
            since,
        });
        if !is_stale {
            return Ok(None);
        }
        let owner: Owner = serde_json::from_str(&text).unwrap_or_default();
        tracing::warn!(lock = %path.display(), owner = owner.host, "taking over the lock of a fetcher that has died");
        Self::take_over(path, &text, &owner.nonce, waited >= 2 * beats.stale)
    }

    /// Only one of those who see the same dead owner may remove its file: the one who creates a second file for that.
    fn take_over(path: &Path, text: &str, nonce: &str, insists: bool) -> Result<Option<Self>, FetchError> {
        let right = path.with_extension(format!("over-{nonce}"));
        if insists {
            // Whoever had this right has died too.
            let _ = fs::remove_file(&right);
        }
        match OpenOptions::new().write(true).create_new(true).open(&right) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            opened => opened.map_err(|error| disk::error("cannot create", &right, &error))?,
        };
        let is_same = fs::read_to_string(path).is_ok_and(|now| now == text);
        if is_same {
            let _ = fs::remove_file(path);
        }
        let lock = Self::create(path);
        let _ = fs::remove_file(&right);
        lock
    }

    fn create(path: &Path) -> Result<Option<Self>, FetchError> {
        let file = match OpenOptions::new().write(true).create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            opened => opened.map_err(|error| disk::error("cannot create", path, &error))?,
        };
        let mut lock = Self {
            path: path.to_owned(),
            file,
            owner: Owner::this_process(),
        };
        lock.beat()?;
        Ok(Some(lock))
    }

    /// Works while showing that this process lives. `None` if the lock was lost meanwhile.
    ///
    /// # Errors
    /// Those of the work.
    pub async fn hold<T>(
        &mut self,
        beats: Beats,
        work: impl Future<Output = Result<T, FetchError>>,
    ) -> Result<Option<T>, FetchError> {
        let beating = async {
            loop {
                sleep(beats.every).await;
                if !self.beat()? {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            done = work => done.map(Some),
            lost = beating => lost.map(|()| None),
        }
    }

    /// Changes the file; false if it is no longer ours.
    fn beat(&mut self) -> Result<bool, FetchError> {
        self.owner.beat += 1;
        let text = serde_json::to_vec(&self.owner).unwrap_or_default();
        let written = self
            .file
            .write_all_at(&text, 0)
            .and_then(|()| self.file.sync_all());
        written.map_err(|error| disk::error("cannot write", &self.path, &error))?;
        Ok(self.is_ours())
    }

    /// Whether nobody has taken it over.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        serde_json::from_str::<Owner>(&text).is_ok_and(|owner| owner.nonce == self.owner.nonce)
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Owner {
    fn this_process() -> Self {
        let process = std::process::id();
        Self {
            host: fs::read_to_string("/proc/sys/kernel/hostname")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            namespace: namespace(),
            process,
            started: started(process).unwrap_or_default(),
            nonce: format!("{:016x}", fastrand::u64(..)),
            beat: 0,
        }
    }
}

/// Whether the owner is known to be dead, because it was a process beside this one.
fn is_dead(text: &str) -> bool {
    let Ok(owner) = serde_json::from_str::<Owner>(text) else {
        return false;
    };
    let is_near = !owner.namespace.is_empty() && owner.namespace == namespace();
    is_near && started(owner.process).is_none_or(|started| started != owner.started)
}

fn namespace() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let processes = fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino());
    format!("{}/{processes}", boot.trim())
}

/// When a process started, in ticks since the machine did; `None` if there is no such process.
fn started(process: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything. The third field follows it; the 22nd is wanted (proc_pid_stat(5)).
    let (_, fields) = text.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?;
    let started = fields.nth(18)?;
    (state != "Z").then(|| started.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const BEATS: Beats = Beats {
        every: Duration::from_secs(5),
        stale: Duration::from_secs(30),
        poll: Duration::from_secs(1),
    };

    /// A lock whose owner is on another machine.
    fn abandoned(path: &Path) {
        let owner = Owner {
            host: "other-pod".into(),
            namespace: "other-boot/1".into(),
            nonce: "n".into(),
            ..Owner::default()
        };
        fs::write(path, serde_json::to_vec(&owner).unwrap()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.lock");
        let lock = Lock::try_take(&path, BEATS, &mut None).unwrap().unwrap();
        let mut seen = None;
        assert!(Lock::try_take(&path, BEATS, &mut seen).unwrap().is_none());
        drop(lock);
        assert!(Lock::try_take(&path, BEATS, &mut seen).unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_owners_lock_is_taken_over_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.lock");
        abandoned(&path);
        let mut seen = [None, None, None];
        for seen in &mut seen {
            assert!(Lock::try_take(&path, BEATS, seen).unwrap().is_none());
        }
        sleep(BEATS.stale).await;
        let taken: Vec<Lock> = seen
            .iter_mut()
            .filter_map(|seen| Lock::try_take(&path, BEATS, seen).unwrap())
            .collect();
        assert_eq!(taken.len(), 1);
        assert!(taken[0].is_ours());
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_that_beats_keeps_its_lock_however_long_it_works() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.lock");
        let mut lock = Lock::try_take(&path, BEATS, &mut None).unwrap().unwrap();
        let mut seen = None;
        let waiter = async {
            for _ in 0..300 {
                assert!(Lock::try_take(&path, BEATS, &mut seen).unwrap().is_none());
                sleep(BEATS.poll).await;
            }
            Ok(())
        };
        assert_eq!(lock.hold(BEATS, waiter).await.unwrap(), Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_learns_that_it_has_lost_its_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.lock");
        let mut lock = Lock::try_take(&path, BEATS, &mut None).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        abandoned(&path);
        let for_ever = std::future::pending::<Result<(), FetchError>>();
        assert_eq!(lock.hold(BEATS, for_ever).await.unwrap(), None);
        drop(lock);
        assert!(path.exists(), "it must not remove the lock of another owner");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_beside_this_one_is_known_to_be_dead_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.lock");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let owner = Owner {
            process: child.id(),
            started: started(child.id()).unwrap_or_else(|| "0".into()),
            ..Owner::this_process()
        };
        child.wait().unwrap();
        fs::write(&path, serde_json::to_vec(&owner).unwrap()).unwrap();
        assert!(Lock::try_take(&path, BEATS, &mut None).unwrap().is_some());
    }
}
