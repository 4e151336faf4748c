//! Files that are re-read when they change: certificates and tokens, which are rotated while the server runs. They
//! are compared by content, so it does not matter how they are replaced: by writing over them, by renaming, or by
//! swapping a symbolic link as Kubernetes does.

use crate::metrics::{ConnectionMetrics, Reloaded};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often the files are checked. A mounted Secret takes up to a minute to change anyway.
pub const PERIOD: Duration = Duration::from_secs(5);

/// The files' contents, in the order of their paths.
pub type Contents = Vec<Vec<u8>>;

/// Puts new contents into force, or says what is wrong with them.
type Apply = Box<dyn FnMut(&Contents) -> Result<(), String> + Send>;

/// Files, what they held when they were last read, and what to do when they change.
pub struct Watched {
    what: Reloaded,
    paths: Vec<PathBuf>,
    last: Result<Contents, String>,
    apply: Apply,
}

impl Watched {
    /// Files that hold `contents`.
    pub fn new(
        what: Reloaded,
        paths: Vec<PathBuf>,
        contents: Contents,
        apply: impl FnMut(&Contents) -> Result<(), String> + Send + 'static,
    ) -> Self {
        Self {
            what,
            paths,
            last: Ok(contents),
            apply: Box::new(apply),
        }
    }

    /// Re-reads the files and puts a change into force. `None` if nothing has changed.
    fn look(&mut self) -> Option<Result<(), String>> {
        let now = read(&self.paths);
        if now == self.last {
            return None;
        }
        let result = now
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|contents| (self.apply)(contents));
        self.last = now;
        Some(result)
    }
}

/// Reads all files.
///
/// # Errors
/// Which file cannot be read.
pub fn read(paths: &[PathBuf]) -> Result<Contents, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    paths.iter().map(|path| read(path)).collect()
}

/// Checks the files for ever. Broken contents are logged and counted once, and the old ones stay in force.
pub async fn watch(mut watched: Watched, period: Duration, metrics: ConnectionMetrics) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // In a container they are small files in memory: not worth a thread.
        let Some(mut result) = watched.look() else {
            continue;
        };
        if result.is_err() {
            // Several files cannot be read at the same instant: some of them may have been old.
            result = watched.look().unwrap_or(result);
        }
        metrics.reloaded(watched.what, result.is_ok());
        match result {
            Ok(()) => tracing::info!(what = ?watched.what, "files reloaded"),
            Err(problem) => tracing::error!(
                what = ?watched.what,
                "the changed files cannot be used, so the previous ones stay in force: {problem}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::{Arc, Mutex};

    fn watched(path: PathBuf) -> (Watched, Arc<Mutex<Vec<u8>>>) {
        let current = Arc::new(Mutex::new(Vec::new()));
        let contents = read(std::slice::from_ref(&path)).unwrap();
        let apply = {
            let current = Arc::clone(&current);
            move |contents: &Contents| {
                if contents[0] == b"broken" {
                    return Err("it is broken".to_owned());
                }
                current.lock().unwrap().clone_from(&contents[0]);
                Ok(())
            }
        };
        (
            Watched::new(Reloaded::Tokens, vec![path], contents, apply),
            current,
        )
    }

    /// As the kubelet does it: the path stays, and the target of a link in it changes.
    #[test]
    fn a_mounted_secret_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, content) in [("1", "old"), ("2", "new")] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("token"), content).unwrap();
        }
        symlink("1", at("..data")).unwrap();
        symlink("..data/token", at("token")).unwrap();
        let (mut watched, current) = watched(at("token"));
        assert_eq!(watched.look(), None);
        symlink("2", at("..data_tmp")).unwrap();
        std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(watched.look(), Some(Ok(())));
        assert_eq!(current.lock().unwrap().as_slice(), b"new");
        assert_eq!(watched.look(), None);
    }

    #[test]
    fn what_is_broken_or_gone_is_told_once_and_the_old_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "old").unwrap();
        let (mut watched, current) = watched(path.clone());
        for change in [&|| std::fs::write(&path, "broken").unwrap() as (), &|| {
            std::fs::remove_file(&path).unwrap() as ()
        }] as [&dyn Fn(); 2]
        {
            change();
            assert!(watched.look().unwrap().is_err());
            assert_eq!(watched.look(), None);
            assert!(current.lock().unwrap().is_empty());
        }
        std::fs::write(&path, "new").unwrap();
        assert_eq!(watched.look(), Some(Ok(())));
    }
}
